"""JSON as text: numbers as they were written, and what is said of a line that is none."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.sources.json_lines import as_columns, json_object, lines_as_columns
from ml_assets.sources.mapped import MappedFiles


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("12.50", "12.50"),
        ("1e3", "1e3"),
        ("-0", "0"),
        ("9007199254740993", "9007199254740993"),
        ('"07"', "07"),
        ("true", "true"),
        ("null", None),
        ('""', ""),
        ("[1, 2]", "[1,2]"),
        ('{"a": 1}', '{"a":1}'),
    ],
)
def test_a_value_is_read_as_it_was_written(written: str, read: str | None) -> None:
    assert json_object(f'{{"x": {written}}}') == {"x": read}


@given(st.dictionaries(st.text(), st.text() | st.booleans() | st.none() | st.integers()))
def test_whatever_json_writes_is_read_back(content: dict[str, Any]) -> None:
    wanted = {name: value if isinstance(value, str | None) else json.dumps(value) for name, value in content.items()}
    assert json_object(json.dumps(content)) == wanted


@pytest.mark.parametrize("line", [b"[1]", b"12", b"null", b'{"a": 1', b"", b'{"a": \xff}', b'{"a": NaN}'])
def test_what_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="expected a JSON object"):
        json_object(line)


def test_columns_are_those_of_all_lines() -> None:
    table = lines_as_columns(b'{"a": 1}\n\n{"b": "x", "a": null}\r\n')
    assert table.to_pydict() == {"a": ["1", None], "b": [None, "x"]}
    assert as_columns([], ["a"]).to_pydict() == {"a": []}


def test_a_line_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match=r"row 2: expected a JSON object"):
        lines_as_columns(b'{"a": 1}\nsoon\n')


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_files_of_lines_are_a_source(tmp_path: Path, suffix: str) -> None:
    lines = b'{"when": "2018-04-01T10:00:00Z", "fare": 1.50}\n{"when": "2018-04-02T10:00:00Z", "fare": 2}\n'
    (tmp_path / f"one{suffix}").write_bytes(gzip.compress(lines) if suffix.endswith("gz") else lines)
    columns = {"at": "when", "fare": "fare"}
    source = MappedFiles(folder=tmp_path, pattern=f"*{suffix}", columns=columns, day_column="at", timezone="UTC")
    batch = source.read(["2018-04-01", "2018-04-02"])
    assert (list(batch.rows["fare"]), list(batch.rows["source_row"])) == (["1.50", "2"], [1, 2])
