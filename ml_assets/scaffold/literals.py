r"""Plain data as the text of a language that is generated: Python and TOML. For Markdown and the terminal see `ml_assets.escape`.

Belongs here: quoting. Does not: what is written (`scaffold.write`).

>>> print(python('5" pipes'), python("it's"), python("{{ 7 * 7 }}"), python("\\N"))
'5" pipes' "it's" "{{ 7 * 7 }}" "\\N"
>>> print(toml('a"b\\c'), toml("x\ny"))
"a\"b\\c" "x\u000ay"
"""

import re
from collections.abc import Mapping, Sequence

from ml_assets.scaffold.names import width

LINE = 132
_PART = 80
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def python(value: object) -> str:
    """A literal of plain data, with the quotes that ruff would choose; what cannot be printed is escaped."""
    if isinstance(value, str):
        body = "".join(_escaped(each) for each in value)
        quote = "'" if value.count('"') > value.count("'") else '"'
        return f"{quote}{body.replace(quote, chr(92) + quote)}{quote}"
    if isinstance(value, tuple):
        items = ", ".join(python(each) for each in value)
        return f"({items},)" if len(value) == 1 else f"({items})"
    return repr(value)


def assigned(value: str) -> str:
    """A literal behind `NAME = `: in parts, a line each, where it is long."""
    if len(python(value)) <= _PART:
        return python(value)
    parts = "".join(f"    {python(value[start : start + _PART // 2])}\n" for start in range(0, len(value), _PART // 2))
    return f"(\n{parts})"


def call(function: str, arguments: Sequence[str], *, indent: int) -> str:
    """A call in one line with a comma behind it, or with an argument a line, as it is when it is formatted."""
    line = f"{function}({', '.join(arguments)}),"
    if indent + width(line) <= LINE:
        return line
    inner = "".join(f"{' ' * (indent + 4)}{each},\n" for each in arguments)
    return f"{function}(\n{inner}{' ' * indent}),"


def lines(values: Sequence[object], *, indent: int = 0) -> str:
    """A tuple with a value a line, which stays as it is when it is formatted; one of a single value stands in one line."""
    if len(values) < 2:
        return python(tuple(values))
    inner = "".join(f"{' ' * (indent + 4)}{python(each)},\n" for each in values)
    return f"(\n{inner}{' ' * indent})"


def toml(value: object) -> str:
    """A TOML value: text, a number, true or false, or a list or table of them in one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_key(str(key))} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(toml, value)) + "]"
    if not isinstance(value, str):
        return repr(value)
    plain = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(each if each.isprintable() else _code(each) for each in plain) + '"'


def toml_key(name: str) -> str:
    """A key of TOML, in quotes where it needs them."""
    return name if _BARE.fullmatch(name) else toml(name)


def glob(name: str) -> str:
    """A pattern that fits the file of this name and no other, nor names a day or a setting."""
    return re.sub(r"[*?\[\]{}$]", lambda special: f"[{special[0]}]", name)


def _escaped(character: str) -> str:
    return "\\\\" if character == "\\" else character if character.isprintable() else repr(character)[1:-1]


def _code(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
