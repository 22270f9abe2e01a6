"""What the columns of a file are called in a case, whatever the file calls them.

Belongs here: names alone. Does not: what a column is (`scaffold.roles`).
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from ml_assets.sources.files import PROVENANCE

WIDEST = 48
"""Of a name in the case, in columns of a terminal; a longer one is cut."""
GENERATED = frozenset({"event_id", "hour", "weekday", "one", "label", "label_known_at", "events", "ground_truth"})
"""Columns and facts that a generated case has itself."""
RESERVED = frozenset(
    {
        *PROVENANCE,
        *GENERATED,
        *("event_time", "event_day", "reject_reason", "partition_day", "known_at", "score", "entity", "reason", "content"),
    }
)
"""Names that a column of a file gets only in the role that has this name: a file's `label` is `label` if that is the label."""


def case_names(headers: Sequence[str], *, roles: Mapping[str, str] | None = None, reserved: Iterable[str] = ()) -> dict[str, str]:
    """Header → the name of the column in the case: letters and digits of any script, in small letters, joined by `_`; no name twice.

    Args:
        headers: of the file, in its order, no two the same.
        roles: header → the reserved name that the column may have because it is just that.
        reserved: more names that no column may have.

    >>> case_names(["orderNo", "Order No", "", "2nd", "day", "名前"])
    {'orderNo': 'order_no', 'Order No': 'order_no_2', '': 'column_3', '2nd': 'column_2nd', 'day': 'given_day', '名前': '名前'}
    """
    names: dict[str, str] = {}
    taken = {*reserved}
    for place, header in enumerate(headers, 1):
        name = words(header) or f"column_{place}"
        name = f"column_{name}" if name[0].isdigit() else name
        if name in RESERVED and (roles or {}).get(header) != name:
            name = f"given_{name}"
        names[header] = _numbered(_cut(name), taken)
        taken.add(names[header])
    return names


def words(header: str) -> str:
    """The words of a header, joined by `_`; "" for one without letters and digits."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", unicodedata.normalize("NFKC", header))
    text = unicodedata.normalize("NFKC", text.lower())
    # Marks are parts of letters: without them two words of Hindi or Thai are one.
    joined = "".join(each if each.isalnum() or unicodedata.category(each).startswith("M") else "_" for each in text)
    return re.sub("_+", "_", joined).strip("_")


def width(text: str) -> int:
    """Columns that a text takes in an editor: two for a letter of Chinese or Japanese, none for a mark."""
    return sum(0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def _cut(name: str) -> str:
    while width(name) > WIDEST:
        name = name[: max(1, len(name) - (width(name) - WIDEST + 1) // 2)]
    return name.rstrip("_")


def _numbered(name: str, taken: set[str]) -> str:
    number, other = 2, name
    while other in taken:
        other, number = f"{name}_{number}", number + 1
    return other
