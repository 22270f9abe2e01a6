"""Forms of numbers that are text: decimal comma, and what stands between thousands.

Belongs here: which texts are numbers of a form, and their plain one. Does not: which form a source has (`sources.dialect`).
"""

import re

import pyarrow as pa
import pyarrow.compute as pc

DECIMALS = (".", ",")
THOUSANDS = ("", ",", ".", " ", "'")
MARKS = {",": ",", ".": r"\.", " ": "[ \u00a0\u2009\u202f]", "'": "['\u2019]"}
"""What stands between thousands, as regular expressions: spaces of any width, and either apostrophe."""


def number_pattern(decimal: str, thousands: str) -> str:
    """The texts that are numbers, as a regular expression; groups have three digits, or two where they are not the last."""
    point, mark = re.escape(decimal), MARKS.get(thousands)
    whole = "[0-9]+" if mark is None else f"(?:[0-9]+|[0-9]{{1,3}}(?:{mark}[0-9]{{2,3}})*{mark}[0-9]{{3}})"
    return f"^[+-]?(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?$"


def plain_numbers(text: pa.Array, decimal: str, thousands: str) -> pa.Array:
    """Texts of that pattern as most programs write them."""
    plain = pc.replace_substring_regex(text, MARKS[thousands], "") if thousands else text
    return pc.replace_substring(plain, decimal, ".")
