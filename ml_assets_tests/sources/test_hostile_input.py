"""Hostile rows through every kind of source on its real server: what happens is one table, left in `.artifacts/hostile-input.md`.

Whatever the row does, the sound row beside it and that of the day before are clean, but where its whole day is refused by name.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from ml_assets.escape import markdown
from ml_assets_tests.sources.hostile import JSON, NOT_CARRIED, SOURCES, TEXT, Hostile, Servers, outcome

ARTIFACTS = Path(__file__).parents[2] / ".artifacts"
HEADER = "5\" pipes'; DROP TABLE x; -- {{ 7*7 }} <b> %s :at , \\ [x]"
FILES = ("CSV", "JSON lines", "Parquet", "S3", "GCS")
PARQUET, DATABASES, FEEDS = ("Parquet", "GCS"), ("PostgreSQL", "SQLite"), ("Kafka", "HTTP pages", "SSE")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A hostile row, and a pattern of what happens in all sources, or in some another."""

    hostile: Hostile
    happens: str
    but: Mapping[tuple[str, ...], str] | None = None

    def expected(self, source: str) -> str:
        return next((pattern for sources, pattern in (self.but or {}).items() if source in sources), self.happens)


def line(**members: str) -> bytes:
    """A line of JSON whose members are written as they are."""
    usual = {"id": '"hostile"', "at": '"2024-01-02T12:00:00Z"', "text": '"x"', "number": "3.5"} | members
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in usual.items()) + "}").encode()


def read(text: str = "x") -> str:
    return re.escape(f"read as {text!r}, 3.5") + "$"


NOT_CARRIED_BY_POSTGRES = {("PostgreSQL",): NOT_CARRIED}
NO_TIME = re.escape("is not a time with its offset from UTC")
OUT_OF_BOUNDS = r"quarantined: at: '{}\S*' lies out of bounds: if it is right, declare `earliest` or `latest`"
VALUES = {
    "SQL in a value": "'; DROP TABLE events; -- :at %s ?",
    "HTML in a value": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "Markdown in a value": "![x](https://evil.example/x.png) | **b** `c`",
    "a formula": '=HYPERLINK("https://evil.example")',
    "a template": "{{ 7 * 7 }} {% raw %} ${HOME} $(id)",
    "separators, quotes and line ends in a value": 'a\n"b",c;d\te',
    "changes of direction and unseen characters": "a\u202eb\u200bc\ufeff",
    "a text that means missing elsewhere": "nil",
}
KINDS: dict[str, Kind] = {
    "hostile column names": Kind(
        hostile=Hostile(headers={"text": HEADER, "number": "select", "id": "event id", "at": "Day"}), happens=read()
    ),
    "column names that SQL and Python use": Kind(
        hostile=Hostile(headers={"text": "from", "number": "day", "id": "event_id", "at": "partition_day"}), happens=read()
    ),
    "column names that differ in case only": Kind(
        hostile=Hostile(headers={"text": "Value", "number": "VALUE"}), happens=read(), but={("SQLite",): NOT_CARRIED}
    ),
    **{name: Kind(hostile=Hostile(row={"text": text}), happens=read(text)) for name, text in VALUES.items()},
    "a zero byte": Kind(hostile=Hostile(row={"text": "a\0b"}), happens=read("a\0b"), but=NOT_CARRIED_BY_POSTGRES),
    "bytes that are no UTF-8": Kind(
        hostile=Hostile(binary=b"a\xff\xfeb"),
        happens="day refused: .*UTF-8",
        but={
            ("PostgreSQL", "HTTP pages", "SSE"): NOT_CARRIED,
            ("Kafka",): "quarantined: ",
            ("JSON lines",): "day refused: .*row 1",
        },
    ),
    "text for a number": Kind(hostile=Hostile(row={"number": "twelve"}), happens="quarantined: number: 'twelve' is not a number"),
    "a number too large for a float": Kind(
        hostile=Hostile(row={"number": "1e400"}), happens="quarantined: number: '1e400' is not a number"
    ),
    "a number of 6,000 digits": Kind(
        hostile=Hostile(row={"number": "9" * 6000}), happens="quarantined: number: '9{79}…' is not a number"
    ),
    "not a number": Kind(
        hostile=Hostile(row={"number": "NaN"}), happens="(quarantined: number: 'NaN' is not a number|read as 'x', nan)"
    ),
    "no time": Kind(hostile=Hostile(row={"at": None}), happens="quarantined: at: missing"),
    "a time that is none": Kind(hostile=Hostile(row={"at": "yesterday"}), happens=f"quarantined: at: 'yesterday' {NO_TIME}"),
    "the year 1970": Kind(hostile=Hostile(row={"at": "1970-01-01T00:00:00Z"}), happens=OUT_OF_BOUNDS.format("1970-01-01")),
    "the year 2099": Kind(hostile=Hostile(row={"at": "2099-01-01T00:00:00Z"}), happens=OUT_OF_BOUNDS.format("2099-01-01")),
    "the year 9999": Kind(hostile=Hostile(row={"at": "9999-12-31T23:59:59Z"}), happens=OUT_OF_BOUNDS.format("9999-12-31")),
    "a row delivered twice": Kind(
        hostile=Hostile(row={"id": "sound 2", "at": "2024-01-02T13:00:00Z", "text": "b", "number": "2.5"}),
        happens="quarantined: duplicate of row [12] of ",
    ),
    "another row of a known id": Kind(
        hostile=Hostile(row={"id": "sound 2", "at": "2024-01-02T13:00:00Z"}),
        happens="quarantined: contradicts row [12] of .*: text is '[bx]' and was '[bx]', number is [23].5 and was [23].5",
    ),
    "a line with too few fields": Kind(
        hostile=Hostile(csv=b"hostile,2024-01-02T12:00:00Z,x\n"), happens="day refused: .*row 1: expected 4 fields, got 3"
    ),
    "a quote that is never closed": Kind(
        hostile=Hostile(csv=b'hostile,2024-01-02T12:00:00Z,"x,3.5\n'),
        happens="day refused: .*row 1: a quote is opened and never closed",
    ),
}
"""What the rules of every source give."""

UNREADABLE = {
    "a line that is no JSON": Kind(
        hostile=Hostile(json=b'{"id": "hostile", '),
        happens="quarantined: ",
        but={("HTTP pages",): "range refused: .*expected JSON"},
    ),
    "half of a character": Kind(hostile=Hostile(json=line(text=r'"\ud800"')), happens="quarantined: "),
    "a word that is no number": Kind(hostile=Hostile(json=line(number="NaN")), happens="quarantined: "),
    "a JSON number of 6,000 digits": Kind(hostile=Hostile(json=line(number="9" * 6000)), happens="quarantined: "),
}
"""Lines that a feed quarantines, and goes on behind."""


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with ExitStack() as held:
        yield Servers(held)


@pytest.fixture(scope="module")
def table() -> Iterator[dict[tuple[str, str], str]]:
    """What happened, by kind and source; written as Markdown at the end."""
    found: dict[tuple[str, str], str] = {}
    yield found
    lines = [f"| {' | '.join(['kind', *SOURCES])} |", f"|{'---|' * (len(SOURCES) + 1)}"]
    for kind in dict.fromkeys(kind for kind, _ in found):
        cells = [markdown(found.get((kind, source), ""), most=90) for source in SOURCES]
        lines.append(f"| {' | '.join([markdown(kind), *cells])} |")
    ARTIFACTS.mkdir(exist_ok=True)
    (ARTIFACTS / "hostile-input.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("source", SOURCES)
def test_a_hostile_row_is_read_or_refused_by_name(
    source: str, servers: Servers, table: dict[tuple[str, str], str], tmp_path: Path
) -> None:
    kinds = {**KINDS, **(UNREADABLE if source in FEEDS else {})}
    others = {}
    for number, (name, kind) in enumerate(kinds.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        happened = outcome(kind.hostile, source, folder, servers, number).replace(f"{folder}/", "")
        table[name, source] = happened
        carried = not kind.hostile.lines_of or source in kind.hostile.lines_of
        if not re.match(kind.expected(source) if carried else NOT_CARRIED, happened, re.DOTALL):
            others[name] = happened
    assert others == {}


def test_lines_are_of_sources_that_have_lines() -> None:
    assert set(SOURCES) >= {*FILES, *PARQUET, *DATABASES, *FEEDS, *TEXT, *JSON}
