"""Formats of times: ISO 8601, numbers since 1970, and those of strptime.

Belongs here: which formats there are, and which texts each takes. Does not: reading times by them (`sources.canonical`).
"""

import re

ISO = "ISO"
EPOCHS = {"epoch seconds": 1, "epoch milliseconds": 10**3, "epoch microseconds": 10**6}
"""Times written as numbers since 1970-01-01, in UTC, by how many there are in a second."""
DIRECTIVES = {
    "%Y": "[0-9]{4}",
    "%y": "[0-9]{2}",
    "%m": "[0-9]{1,2}",
    "%d": "[0-9]{1,2}",
    "%j": "[0-9]{1,3}",
    "%H": "[0-9]{1,2}",
    "%I": "[0-9]{1,2}",
    "%M": "[0-9]{1,2}",
    "%S": "[0-9]{1,2}",
    "%f": "[0-9]{1,9}",
    "%p": "(?i:am|pm)",
    "%b": "[A-Za-z]{3}",
    "%B": "[A-Za-z]{3,9}",
    "%a": "[A-Za-z]{3}",
    "%A": "[A-Za-z]{6,9}",
    "%z": "(?:Z|[+-][0-9]{2}:?[0-9]{2})",
    "%%": "%",
}
"""What may stand in a format of times, and the texts that it takes; two digits where nothing stands between it and the next."""
_DATES = (("%Y", "%y"), ("%m", "%b", "%B", "%j"), ("%d", "%j"))


def pattern_of(form: str) -> str:
    """The texts that a format of times takes, as a regular expression."""
    parts = re.findall(r"%.|[^%]+", form)
    pattern = ""
    for place, part in enumerate(parts):
        taken = DIRECTIVES.get(part, re.escape(part))
        if "".join(parts[place + 1 : place + 2]).startswith("%") or (place and parts[place - 1] in DIRECTIVES):
            taken = taken.replace("{1,2}", "{2}").replace("{1,3}", "{3}")
        pattern += taken
    return f"^{pattern}$"


def format_fault(form: str) -> str:
    """Why times cannot be read by a format, or ""."""
    if form == ISO or form in EPOCHS:
        return ""
    said = f"time is {form!r}"
    parts = re.findall(r"%.?", form)
    if unknown := [part for part in parts if part not in DIRECTIVES]:
        return f"{said}: {', '.join(unknown)} cannot be read, expected {' '.join(DIRECTIVES)}"
    if not all(any(part in parts for part in ways) for ways in _DATES):
        others = ", ".join(repr(each) for each in (ISO, *EPOCHS))
        return f'{said}, expected a format with year, month and day such as "%d/%m/%Y %H:%M", or {others}'
    return ""
