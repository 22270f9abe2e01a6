"""What the bytes of a CSV file say of its encoding, and of the character that separates its fields.

Belongs here: guesses, for messages and for people who confirm them. Does not: reading the file (`sources.files`).
"""

import codecs
import csv
import io
from contextlib import suppress

SEPARATORS = (",", ";", "\t", "|")
_SAMPLE = 2**18
"""Characters that say which separator there is."""
_ALMOST_ALL = 0.95


def likely_encoding(content: bytes) -> str:
    """The encoding of a text: UTF-8 if it can be, UTF-16 if it begins or looks so, else Windows' of Western Europe, or Latin-1."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    begin = content[:4096]
    if 4 * begin.count(0) > len(begin):
        return "utf-16-le" if begin[1::2].count(0) > begin[::2].count(0) else "utf-16-be"
    for encoding in ("utf-8", "cp1252"):
        with suppress(UnicodeDecodeError):
            content.decode(encoding)
            return encoding
    return "latin-1"


def other_separator(content: bytes, separator: str) -> str | None:
    """By which character a CSV file in UTF-8 falls into columns, if not by this one."""
    likely = separator_of(content[:_SAMPLE].decode(errors="replace"))
    return likely if likely not in (None, separator) else None


def separator_of(text: str) -> str | None:
    """By which character the rows of a text fall into the same number of fields, two or more; that by which they have most."""
    sample = text[:_SAMPLE]
    whole = sample if len(text) <= _SAMPLE else sample[: sample.rfind("\n") + 1]
    fields: dict[str, int] = {}
    for separator in SEPARATORS:
        with suppress(csv.Error):
            counts = [len(row) for row in csv.reader(io.StringIO(whole, newline=""), delimiter=separator) if row]
            if counts and counts[0] > 1 and counts.count(counts[0]) >= _ALMOST_ALL * len(counts):
                fields[separator] = counts[0]
    return max(fields, key=lambda separator: fields[separator], default=None)
