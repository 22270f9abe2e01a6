"""The one spelling of a key or a category: the same for a range of rows and for a single one.

Belongs here: what `Spelling` means. Does not: which columns have which (`use_case`), what becomes of a value that has none (`clean`).
"""

import re
import uuid
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

import pyarrow as pa

from ml_assets.use_case import Spelling

EXPECTED = {
    Spelling.WHOLE: "is not written as a whole number without leading zeros (spelling WHOLE)",
    Spelling.BOOLEAN: "is neither true nor false (spelling BOOLEAN)",
    Spelling.UUID: "is no UUID (spelling UUID)",
}
_PLAIN_WHOLE = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)
_NUMBER = re.compile(r"[+-]?([1-9][0-9]*|0)(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_HYPHENED = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_UUID = re.compile(rf"(urn:uuid:)?({_HYPHENED}|\{{{_HYPHENED}\}}|[0-9a-f]{{32}})", re.ASCII | re.IGNORECASE)
_MOST_DIGITS = 200
_TRUE, _FALSE = frozenset({"true", "t", "yes", "y", "1", "1.0"}), frozenset({"false", "f", "no", "n", "0", "0.0"})


def canonical(text: str, spelling: Spelling) -> str | None:
    """The text as it is spelled, None where it cannot be.

    >>> canonical("17.0", Spelling.WHOLE), canonical("017", Spelling.WHOLE), canonical("True", Spelling.BOOLEAN)
    ('17', None, 'true')
    """
    return _SPELLERS[spelling](text)


def respelled(texts: pa.Array, spelling: Spelling) -> pa.Array:
    """Each text as it is spelled, null where it is null or cannot be. Each distinct text is spelled once."""
    if spelling is Spelling.TEXT:
        return texts
    encoded = texts.dictionary_encode()
    spelled = pa.array([canonical(text, spelling) for text in encoded.dictionary.to_pylist()], pa.large_string())
    return spelled.take(encoded.indices)


def _whole(text: str) -> str | None:
    if _PLAIN_WHOLE.fullmatch(text):
        return text
    if len(text) > _MOST_DIGITS or not _NUMBER.fullmatch(text):
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return str(int(number)) if number == number.to_integral_value() else None


def _boolean(text: str) -> str | None:
    word = text.lower()
    return "true" if word in _TRUE else "false" if word in _FALSE else None


def _uuid(text: str) -> str | None:
    # Python takes underscores, digits of other scripts and hyphens anywhere, too, so that what is none would be another one.
    return str(uuid.UUID(text)) if _UUID.fullmatch(text) else None


_SPELLERS: dict[Spelling, Callable[[str], str | None]] = {
    Spelling.TEXT: lambda text: text,
    Spelling.WHOLE: _whole,
    Spelling.BOOLEAN: _boolean,
    Spelling.UUID: _uuid,
}
