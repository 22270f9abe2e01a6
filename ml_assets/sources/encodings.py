"""Text of any encoding as UTF-8.

Belongs here: decoding by a dialect, and what to declare where that fails. Does not: what the text means.
"""

import codecs

from ml_assets.sources.csv_form import likely_encoding
from ml_assets.sources.dialect import Dialect, toml_text


def in_utf8(content: bytes, dialect: Dialect, *, header: int = 1) -> bytes:
    """The text in UTF-8, without the mark of an encoding at its beginning.

    Args:
        header: lines before the first row.

    Raises:
        ValueError: it is not in the encoding of the dialect; names the row and the encoding that it may be in.
    """
    encoding = "utf-8" if dialect.encoding.lower() == "utf-8-sig" else dialect.encoding
    plain = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    if plain and b"\0" in content[:4096] and (other := likely_encoding(content)) != "utf-8":
        raise ValueError(f"header: not UTF-8 (it has NULs): {dialect.cure(f'encoding = {toml_text(other)}')}")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1 - header
        told = f"encoding = {toml_text(likely_encoding(content))}"
        name = "UTF-8" if plain else dialect.encoding
        raise ValueError(f"row {row}: not {name} ({error.reason}): {dialect.cure(told)}") from error
    if plain:
        return content.removeprefix(codecs.BOM_UTF8)
    return text.removeprefix("\ufeff").encode()
