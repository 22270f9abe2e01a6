"""How a value is shown to a person."""


def shown(value: object) -> str:
    """A number in full, a text quoted and cut.

    >>> import numpy as np
    >>> shown(-5.0), shown("12a"), shown(np.float64(0.1))
    ('-5', "'12a'", '0.1')
    """
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:79] + "…")
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(float(value))
    return str(value)
