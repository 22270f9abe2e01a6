"""Files, rows and messages that lie: each is refused by name, and takes nothing else with it."""

import csv
import gzip
import io
import subprocess
import sys
import textwrap
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.folders import LocalFolder
from ml_assets.sources.bounded_events import events_of
from ml_assets.sources.canonical import NOT_READ
from ml_assets.sources.delivered import Delivered
from ml_assets.sources.files import text_columns
from ml_assets.sources.http import Pages, Stream
from ml_assets.sources.landing import FeedError, LandedRows, Landing
from ml_assets.sources.limits import Limits, json_fault, shallow, unpacked, unreadable_set_aside
from ml_assets.sources.mapped import MappedFiles
from ml_assets.sources.mapping import read_mapping
from ml_assets.sources.quotes import quote_fault
from ml_assets.stages.clean import clean
from ml_assets.use_case import Column, DType
from ml_assets_tests.brokers import running_noida
from ml_assets_tests.feeds import Api, running_api
from ml_assets_tests.sources.test_dialect import table

DAYS = ["2024-01-01", "2024-01-02"]
COLUMNS = {"at": "at", "fare": "fare"}
DELIVERED = Delivered(columns=COLUMNS, day_column="at", timezone="UTC")
AT = f'"at": "{DAYS[0]}T10:00:00Z"'
SOUND = f'{{{AT}, "fare": 1.50}}'
POISON = {
    "deep": (f'{{{AT}, "fare": {"[" * 100_000}{"]" * 100_000}}}', "lists and objects lie 100,001 deep in each other"),
    "deep, where nobody looks": (f'{{{AT}, "x": {"[" * 70}{"]" * 70}}}', "deep in each other, expected at most 64"),
    "a deep end": (f'{{{AT}, "fare": {"[" * 100_000}', "lists and objects lie 100,001 deep in each other"),
    "digits": (f'{{{AT}, "fare": {"9" * 6_000}}}', "a number has 6,000 digits"),
    "no number": (f'{{{AT}, "fare": NaN}}', "NaN"),
    "half of a character": (f'{{{AT}, "fare": "\\ud800"}}', "ud800"),
    "no JSON": ("soon", "soon"),
}
ENDING = [name for name in POISON if name != "a deep end"]
"""What can be a part of a list."""


def files(folder: Path, **changes: Any) -> MappedFiles:
    declared = {"columns": COLUMNS, "day_column": "at", "timezone": "UTC", "pattern": "{day}.csv", **changes}
    return MappedFiles(folder=folder, **declared)


# Quotes -----------------------------------------------------------------------------------------------------------------------


def rows(count: int = 100) -> list[list[str]]:
    return [[str(place), f"{DAYS[0]}T{place // 60:02d}:{place % 60:02d}:00Z", f"c{place}", "10.0"] for place in range(count)]


def with_quotes(first: int, last: int, column: int = 2) -> bytes:
    lines = rows()
    lines[first][column], lines[last][column] = f'"{lines[first][column]}', f'{lines[last][column]}"'
    return ("id,at,customer,fare\n" + "".join(",".join(line) + "\n" for line in lines)).encode()


@pytest.mark.parametrize("last", [6, 7, 15, 25, 99])
@pytest.mark.parametrize("column", [0, 2, 3])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_two_stray_quotes_are_refused_by_the_row_of_the_first(tmp_path: Path, last: int, column: int, ends: bytes) -> None:
    (tmp_path / f"{DAYS[0]}.csv").write_bytes(with_quotes(5, last, column).replace(b"\n", ends))
    (tmp_path / f"{DAYS[1]}.csv").write_text(f"id,at,customer,fare\n1,{DAYS[1]}T10:00:00Z,c1,2\n")
    batch = files(tmp_path).read(DAYS)
    assert f"{DAYS[0]}.csv: row 6: " in batch.problems[DAYS[0]]
    assert "[events.limits]" in batch.problems[DAYS[0]]
    assert (dict(batch.counted), list(batch.problems)) == ({DAYS[1]: 1}, [DAYS[0]]), "the other day is none the worse"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'a,b\n1,2\n3,x "y" z\n', "row 2: a quote in the middle of a field, '3,x \"y\" z'"),
        (b'a,b\n1,2\n3,"x" y\n', "row 2: a quote opens, '3,\"x\" y', and the next one is in the middle of a field"),
        (b'a,b\n1,"x\ny"\n3,"x\n4,5\n6,"y"\n', "row 2: a quote opens, '3,\"x', and the next one 2 lines later is in the middle"),
        (b'a,b\n1,"x\ny"\n3,"x\n', "row 2: a quote is opened and never closed"),
        (b'a,b\n1, "x"\n', "row 1: a quote in the middle of a field"),
    ],
)
def test_a_quote_that_neither_begins_nor_ends_a_field_is_refused(content: bytes, told: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is compared)
        text_columns(content)
    assert str(caught.value).startswith(told)


def test_lines_of_a_field_are_limited_and_the_limit_is_declared(tmp_path: Path) -> None:
    text = "\n".join(f"line {number}" for number in range(15))
    content = f'at,fare\n{DAYS[0]}T10:00:00Z,"{text}"\n'.encode()
    (tmp_path / f"{DAYS[0]}.csv").write_bytes(content)
    problem = files(tmp_path).read(DAYS[:1]).problems[DAYS[0]]
    assert "row 1: a quoted field has 14 line breaks" in problem
    assert problem.endswith("expected at most 10: if it is right, declare [events.limits] field_lines = 14")
    assert files(tmp_path, limits=Limits(field_lines=14)).read(DAYS[:1]).rows["fare"].tolist() == [text]
    swallowed = with_quotes(5, 6)
    assert text_columns(swallowed, limits=Limits(rows_in_field=1)).num_rows == 99


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    cells=st.lists(st.tuples(*[st.text(st.sampled_from('ab,;"\n é'), max_size=8)] * 3), min_size=1, max_size=5),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_a_csv_writer_quotes_is_no_fault(cells: list[tuple[str, ...]], quoting: Any) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=quoting, lineterminator="\n").writerows(
        [("i", "a", "b", "c"), *((str(n), *row) for n, row in enumerate(cells))]
    )
    content = text.getvalue().encode()
    assert quote_fault(content, ",", Limits(rows_in_field=100)) is None
    assert text_columns(content, limits=Limits(rows_in_field=100)).num_rows == len(cells)


def test_a_long_field_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / f"{DAYS[0]}.csv").write_text(f"at,fare\n{DAYS[0]}T10:00:00Z,{'x' * 5_000_000}\n{DAYS[0]}T11:00:00Z,2\n")
    assert "field_characters" in files(tmp_path).read(DAYS[:1]).problems[DAYS[0]]
    (tmp_path / f"{DAYS[0]}.csv").write_text(f"at,fare\n{DAYS[0]}T10:00:00Z,{'x' * 200_000}\n{DAYS[0]}T11:00:00Z,2\n")
    batch = files(tmp_path).read(DAYS[:1])
    columns = tuple(Column(name=name, dtype=DType.STRING) for name in COLUMNS)
    result = clean(batch.rows, replace(table(), delivered=columns, columns=columns, key=("at",)))
    assert result.rows["fare"].tolist() == ["2"]
    [reason] = result.rejected["reason"]
    assert "has up to 200,000 characters, expected at most 100,000" in reason
    assert len(reason) < 400


# Packed files -----------------------------------------------------------------------------------------------------------------


def bomb(megabytes: int) -> bytes:
    """Members of gzip, each of 64 MB of zeros."""
    part = gzip.compress(b"\0" * 2**26)
    return part * (megabytes // 64)


def test_a_bomb_is_refused_and_never_held_in_memory(tmp_path: Path) -> None:
    (tmp_path / f"{DAYS[0]}.csv.gz").write_bytes(bomb(6 * 1024))
    (tmp_path / f"{DAYS[1]}.csv.gz").write_bytes(gzip.compress(f"at,fare\n{DAYS[1]}T10:00:00Z,2\n".encode()))
    script = f"""
        import resource
        from pathlib import Path
        from ml_assets.sources.limits import Limits
        from ml_assets.sources.mapped import MappedFiles
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        declared = dict(columns={COLUMNS}, day_column="at", timezone="UTC", limits=Limits(unpacked_bytes=2**29))
        source = MappedFiles(folder=Path({str(tmp_path)!r}), pattern="{{day}}.csv.gz", **declared)
        batch = source.read({DAYS})
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(batch.rows), batch.problems)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    kilobytes, count, problems = done.stdout.split(None, 2)
    assert int(kilobytes) < 100_000
    assert count == "1"
    assert "unpacks from 6" in problems
    assert "[events.limits] unpacked_bytes" in problems


def test_a_zip_whose_header_lies_is_counted() -> None:
    content = b"at,fare\n" + b"2024-01-01T10:00:00Z,1\n" * 100_000
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one.csv", content)
    limits = Limits(unpacked_bytes=len(content) - 1)
    with pytest.raises(ValueError, match=r"unpacks from [0-9,]+ bytes to more than 2,300,007 bytes"):
        unpacked(Path("one.csv.zip"), packed.getvalue(), limits)
    assert unpacked(Path("one.csv.zip"), packed.getvalue()) == content
    size = len(content).to_bytes(4, "little")
    lying = packed.getvalue().replace(size, (1000).to_bytes(4, "little"))
    with pytest.raises((ValueError, zipfile.BadZipFile, zlib.error)):
        unpacked(Path("one.csv.zip"), lying, limits)


def test_a_row_group_that_is_too_large_is_refused(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"at": [f"{DAYS[0]}T10:00:00Z"] * 1000, "fare": [str(each) for each in range(1000)]}),
        tmp_path / f"{DAYS[0]}.parquet",
    )
    source = files(tmp_path, pattern="{day}.parquet", limits=Limits(unpacked_bytes=1000))
    assert "row group 0 unpacks to" in source.read(DAYS[:1]).problems[DAYS[0]]


def test_a_corrupt_file_is_a_problem_of_its_day_if_its_name_says_which(tmp_path: Path) -> None:
    for day in DAYS:
        pq.write_table(pa.table({"at": [f"{day}T10:00:00Z"], "fare": ["1"]}), tmp_path / f"{day}.parquet")
    broken = tmp_path / f"{DAYS[0]}.parquet"
    broken.write_bytes(broken.read_bytes()[:-9])
    assert list(files(tmp_path, pattern="{day}.parquet").read(DAYS).problems) == DAYS[:1]
    problems = files(tmp_path, pattern="*.parquet").read(DAYS).problems
    assert all(problems[day].endswith("it may hold any day, since no name says which") for day in DAYS)


# Lines and messages -----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Poisoned:
    """Rows of a delivery, of which one is none."""

    rows: pd.DataFrame
    told: str
    sound: int = field(default=2)

    def check(self) -> None:
        columns = tuple(Column(name=name, dtype=DType.STRING, nullable=True) for name in COLUMNS)
        result = clean(self.rows, replace(table(), delivered=columns, columns=columns, key=("at",)))
        assert result.rows["fare"].tolist() == ["1.50", "2"][: self.sound]
        [reason] = result.rejected["reason"]
        assert reason.startswith("is no row: ")
        [content] = result.rejected["content"]
        assert self.told in content
        assert len(content) < 1000


LAST = f'{{"at": "{DAYS[0]}T11:00:00Z", "fare": 2}}'


@pytest.mark.parametrize("kind", POISON)
def test_a_bad_line_of_json_takes_no_other_with_it(tmp_path: Path, kind: str) -> None:
    line, told = POISON[kind]
    (tmp_path / f"{DAYS[0]}.jsonl").write_text(f"{SOUND}\n{line}\n{LAST}\n")
    batch = files(tmp_path, pattern="{day}.jsonl").read(DAYS[:1])
    assert (batch.problems, dict(batch.counted)) == ({}, {DAYS[0]: 3})
    Poisoned(rows=batch.rows, told=told).check()


def test_a_file_of_which_no_line_is_json_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / f"{DAYS[0]}.jsonl").write_text("soon\nlater\n")
    assert "row 1: expected a JSON object" in files(tmp_path, pattern="{day}.jsonl").read(DAYS[:1]).problems[DAYS[0]]


def landed(path: Path, feed: Any) -> LandedRows:
    delivered = replace(DELIVERED, limits=getattr(feed, "limits", Limits()))
    return LandedRows(
        landing=Landing(root=LocalFolder(path), name="landing", feed=feed, delivered=delivered),
        delivered=delivered,
        complete_to="9999-01-01",
    )


def all_of(source: LandedRows) -> pd.DataFrame:
    """In the order of arrival: what says no time is of the day on which it came."""
    counts = source.landing.counts()
    return source.read(sorted(counts)).rows.sort_values("source_row", ignore_index=True)


@pytest.mark.parametrize("kind", POISON)
def test_a_topic_goes_on_behind_its_poison(broker: Any, tmp_path: Path, kind: str) -> None:
    from ml_assets.sources.kafka import Topic

    line, told = POISON[kind]
    topic = f"poison-{list(POISON).index(kind)}"
    broker.make(topic, partitions=1)
    broker.send(topic, [SOUND.encode(), line.encode()], partitions=1)
    source = landed(tmp_path, Topic(topic=topic, settings=broker.settings))
    assert source.landing.catch_up().messages == 2
    broker.send(topic, [LAST.encode()], partitions=1)
    assert source.landing.catch_up().messages == 1
    Poisoned(rows=all_of(source), told=told).check()


@pytest.fixture(scope="module")
def broker() -> Iterator[Any]:
    with running_noida() as started:
        yield started


@pytest.mark.parametrize("kind", [name for name in ENDING if name != "no JSON"])
@pytest.mark.parametrize("way", ["linked", "cursors"])
def test_pages_go_on_behind_their_poison(tmp_path: Path, kind: str, way: str) -> None:
    line, told = POISON[kind]
    with running_api(Api(rows=[SOUND, line, LAST], page_size=2)) as api:
        how = {"items": "data.items", "paging": "cursor", "cursor": "next", "parameter": "cursor"} if way == "cursors" else {}
        feed = Pages(url=f"{api.url}/{way}", headers={"Authorization": "Bearer right"}, **how)  # type: ignore[arg-type]
        source = landed(tmp_path, feed)
        assert source.landing.catch_up().messages == 3
        told = "deep in each other" if "deep" in kind else told
        Poisoned(rows=all_of(source), told=told).check()


def test_a_page_of_several_poisons_loses_none_of_its_rows(tmp_path: Path) -> None:
    """In whichever order: readers stop at the first, and give up on one that is deep in another way."""
    poison = [POISON[name][0] for name in ("deep", "no number", "half of a character")]
    for number, lines in enumerate(([*poison, LAST], [*reversed(poison), LAST])):
        with running_api(Api(rows=lines, page_size=9)) as api:
            feed = Pages(url=f"{api.url}/linked", headers={"Authorization": "Bearer right"})
            source = landed(tmp_path / str(number), feed)
            assert source.landing.catch_up().messages == 4


def test_a_page_that_never_ends_is_refused_by_name(tmp_path: Path) -> None:
    with running_api(Api(rows=[{"fare": "x" * 1000}] * 100)) as api:
        feed = Pages(url=f"{api.url}/linked", headers={"Authorization": "Bearer right"}, limits=Limits(page_bytes=50_000))
        with pytest.raises(FeedError, match=r"a page has more than 50,000 bytes.*\[events.limits\] page_bytes"):
            landed(tmp_path, feed).landing.catch_up()


@pytest.mark.parametrize("kind", ENDING)
def test_a_stream_goes_on_behind_its_poison(tmp_path: Path, kind: str) -> None:
    line, told = POISON[kind]
    with running_api(Api(rows=[SOUND, line, LAST])) as api:
        source = landed(tmp_path, Stream(url=f"{api.url}/events", headers={"Authorization": "Bearer right"}))
        following = source.landing.follow()
        while sum(source.landing.counts().values()) < 3:
            next(following)
        following.close()  # type: ignore[attr-defined]
        monkey = all_of(replace(source, landing=replace(source.landing, feed=Nothing())))
        Poisoned(rows=monkey, told=told).check()


class Nothing:
    """A feed of which nothing comes any more."""

    name = "nothing"

    def pieces(self, after: Any, *, live: bool) -> Iterator[Any]:
        return iter(())


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_an_event_that_never_ends_is_cut_and_those_behind_it_come(ends: str, chunk: int) -> None:
    long = f"id: 2{ends}data: {{" + "x" * 5_000 + f"{ends}data: more"
    text = (
        f"id: 1{ends}data: one{ends}{ends}{long}{ends}{ends}: nothing{ends}{ends}id: 3{ends}data: two{ends}data: lines{ends}{ends}"
    )
    parts = [text[start : start + chunk].encode() for start in range(0, len(text), chunk)]
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=iter(parts))
    events = [event for event in events_of(httpx_sse.EventSource(response), Limits(event_bytes=1000)) if event.data]
    assert [event.id for event in events] == ["1", "2", "3"]
    assert [events[0].data, events[2].data] == ["one", "two\nlines"]
    assert len(events[1].data) < 1_300
    assert "an event has more than 1,000 bytes" in events[1].data


# The form ---------------------------------------------------------------------------------------------------------------------


def test_limits_are_declared_and_judged(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    head = 'start = "2024-01-01"\n[events]\nfiles = "*.csv"\n[events.limits]\n'
    file.write_text(head + "nesting = 5\nunpacked_bytes = 1000\n")
    limits = read_mapping(file).tables["events"].limits
    assert limits is not None
    assert limits.of("events") == Limits(nesting=5, unpacked_bytes=1000)
    for line, told in (
        ("nesting = 0", "expected a positive number"),
        ("nesting = 5000", "at most 500"),
        ("depth = 3", "unknown, expected unpacked_bytes"),
    ):
        file.write_text(head + line)
        with pytest.raises(ValueError, match=told):
            read_mapping(file)


@given(
    st.recursive(st.text(max_size=3) | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=2), inner))
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_depth_is_counted_as_it_is(value: Any) -> None:
    import json

    def depth(each: Any) -> int:
        inner = each.values() if isinstance(each, dict) else each if isinstance(each, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    content = json.dumps(value, ensure_ascii=False).encode()
    deep = depth(value)
    assert json_fault(content, Limits(nesting=max(1, deep))) is None
    assert deep < 2 or json_fault(content, Limits(nesting=deep - 1)) is not None
    assert depth(json.loads(shallow(content, 3))) == min(3, deep)
    assert deep > 3 or shallow(content, 3) == content
    assert unreadable_set_aside(content, 3) == (content, {})


def test_what_was_no_row_is_rejected_even_if_all_may_be_missing() -> None:
    columns = (Column(name="x", dtype=DType.STRING, nullable=True),)
    raw = pd.DataFrame(
        {"x": [None], NOT_READ: ["soon"], "day": DAYS[0], "source_file": "one", "source_row": 1, "source_version": ""}
    )
    result = clean(raw.astype({"x": "str", NOT_READ: "str"}), replace(table(), delivered=columns, columns=columns, key=("x",)))
    assert result.rejected["reason"].tolist() == ["is no row: 'soon'"]


def test_a_bad_line_of_a_file_without_a_day_in_its_name_is_of_the_day_before_it(tmp_path: Path) -> None:
    later = f'{{"at": "{DAYS[1]}T10:00:00Z", "fare": 3}}'
    (tmp_path / "one.jsonl").write_text(f"{SOUND}\n{POISON['deep'][0]}\n{LAST}\n{later}\n")
    batch = files(tmp_path, pattern="*.jsonl").read(DAYS)
    assert (batch.problems, dict(batch.counted)) == ({}, {DAYS[0]: 3, DAYS[1]: 1})
    Poisoned(rows=batch.rows[batch.rows["day"] == DAYS[0]], told=POISON["deep"][1]).check()


@given(
    st.lists(st.sampled_from(['{"a": "]"}', "{}", '{"a": [NaN]}', '{"a": {"b": 01}}', '{"a": "\\ud800 ["}', '{"unreadable 0": 1}']))
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_what_cannot_be_read_is_set_aside_and_nothing_else(rows: list[str]) -> None:
    content = f'{{"next": {{"at": 3}}, "unreadable 0": "x", "rows": [{", ".join(rows)}]}}'.encode()
    outer, set_aside = unreadable_set_aside(content, 3)
    listed = msgspec.json.decode(outer, type=dict[str, msgspec.Raw])["rows"]
    found = [bytes(row) for row in msgspec.json.decode(listed, type=list[msgspec.Raw])]
    assert [set_aside.get(row, row).decode() for row in found] == rows
    assert sorted(row.decode() for row in set_aside.values()) == sorted(row for row in rows if not readable(row))


def readable(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except ValueError:
        return False
    return True
