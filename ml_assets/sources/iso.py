"""Times in ISO 8601, as databases and programs write them: which texts are one, and the form that every reader of them takes.

Belongs here: the form of the text. Does not: time zones (`sources.as_text`), or other formats (`sources.canonical`).
"""

import re

import pyarrow as pa
import pyarrow.compute as pc

DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
CLOCK = r"[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?"
OFFSET = r"(Z|[+-][0-9]{2}:?[0-9]{2})"
INSTANT = rf"^{DATE}{CLOCK}{OFFSET}$"
"""As most write them."""
ANY_CLOCK = r"[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?"
ANY_OFFSET = r" ?([Zz]|UTC|GMT|[+-][0-9]{2}(:?[0-9]{2}(:00)?)?)"
ANY_INSTANT = rf"^{DATE}{ANY_CLOCK}{ANY_OFFSET}$"
"""Also as PostgreSQL (+00), BigQuery ( UTC), Snowflake ( +0000), Python (a comma) and RFC 3339 (t, z) do."""
ANY_TIME = rf"^{DATE}({ANY_CLOCK}({ANY_OFFSET})?)?$"

_SPELLINGS = (
    (r"^(.{10})t", r"\1T"),
    (r"^(.{19}),", r"\1."),
    (r" ?([Zz]|UTC|GMT)$", "Z"),
    (r" ([+-])", r"\1"),
    (r"([+-][0-9]{2}:[0-9]{2}):00$", r"\1"),
    (r"(:[0-9]{2}(?:\.[0-9]+)?[+-][0-9]{2})$", r"\1:00"),
)
_ANY_TIME = re.compile(ANY_TIME)
_COMPILED = [(re.compile(pattern), by) for pattern, by in _SPELLINGS]


def as_most_write(text: pa.Array) -> pa.Array:
    """The same times in the form of `INSTANT`; what is no time at all, as it is."""
    spelled = text
    for pattern, by in _SPELLINGS:
        spelled = pc.replace_substring_regex(spelled, pattern, by)
    return pc.if_else(pc.match_substring_regex(text, ANY_TIME), spelled, text)


def one_as_most_write(text: str) -> str:
    """As `as_most_write`, of one time."""
    if not _ANY_TIME.match(text):
        return text
    for pattern, by in _COMPILED:
        text = pattern.sub(by, text)
    return text
