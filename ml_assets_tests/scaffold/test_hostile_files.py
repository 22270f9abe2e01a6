"""Headers and values that would be code somewhere are data everywhere: in Python, TOML, Markdown, patterns of files and the terminal."""

import ast
import io
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from ml_assets.scaffold import commands
from ml_assets.scaffold.declaration import Answers, Inferred
from ml_assets.scaffold.infer import infer
from ml_assets.scaffold.write import texts
from ml_assets.sources import dialect
from ml_assets.sources.mapping import read_mapping
from ml_assets.stages.clean import clean
from ml_assets.stages.ingest import ingested
from ml_assets_tests.scaffold.packages import case_in
from ml_assets_tests.scaffold.test_infer import ROWS, orders

TOKENS = frozenset(text.lower() for text in dialect.TOKENS)
"""Texts that may mean no value."""
CODE = (
    'q"+open("ran","w").write("x").__class__.__name__[:0]+"',
    "'''+__import__('os').system('touch ran')+'''",
    '"""\nimport os; os.system("touch ran")\n"""',
    "{{ 7 * 7 }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{% endfor %}",
    "{0.__class__}",
    "$(touch ran)",
    "${HOME}",
    "`touch ran`",
    "\\N",
    "\\",
    '"',
    "]]\n[events]\nfiles = 1\n",
    "a\tb\x00c\x1b[2J\x7f\u202e\u2028c",
    "x | y\n```\n<script>alert(1)</script>",
    "[link](javascript:alert(1))",
    "[red]not red[/red]",
    "#" * 3000,
    "'; DROP TABLE events; --",
)
# No surrogates: text of a file is Unicode. A header or a value is not only white space, which is no value.
texts_of_files = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda text: text.strip() == text
)
hostile = st.one_of(
    st.sampled_from(CODE),
    texts_of_files,
    st.lists(st.sampled_from([*"\"'\\{}$`|\n#%[]()<>", "{{", '"""']), min_size=1).map("".join),
)
hostile = hostile.filter(lambda text: text.strip() == text != "")


def inferred(folder: Path, headers: tuple[str, str], labels: tuple[str, str], category: str) -> tuple[Inferred, pd.DataFrame]:
    """What a file says with these headers of a number and of a category, labels, and a category; its name is hostile, too."""
    late = [labels[number % 3 == 0] for number in range(ROWS)]
    rows = orders(late=late, channel=["web", category, "app", category] * (ROWS // 4))
    rows = rows.rename(columns=dict(zip(("items", "channel"), headers, strict=True)))
    file = folder / "orders {day} [1] ${HOME} '\"{{ 7 * 7 }}.parquet"
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), file)
    answers = Answers(time="at", id=("orderNo",), label="late", positive=labels[0], known_after=timedelta(days=1))
    return infer(file, answers), rows


def shape(code: str) -> str:
    """A module without its data: what runs."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.value = type(node.value).__name__
    return ast.dump(tree)


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    folder = tmp_path_factory.mktemp("harmless")
    found, _ = inferred(folder, ("items", "channel"), ("yes", "no"), "phone")
    return texts("hostile_case", found, project=folder)


distinct = st.tuples(hostile, hostile).filter(lambda pair: pair[0] != pair[1])


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(headers=distinct, labels=distinct, category=hostile)
@example(headers=(CODE[0], CODE[2]), labels=("Y", CODE[9]), category=CODE[3])
@example(headers=(CODE[7], CODE[12]), labels=(CODE[5], CODE[13]), category=CODE[14])
@example(headers=(CODE[17], CODE[17][:2999]), labels=(CODE[17], CODE[10]), category=CODE[17])
@example(headers=(CODE[6], CODE[14]), labels=(CODE[8], CODE[1]), category=CODE[18])
def test_what_is_generated_is_the_data_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
    harmless: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    headers: tuple[str, str],
    labels: tuple[str, str],
    category: str,
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    monkeypatch.chdir(folder)
    assume(not set(headers) & {*orders().columns} and len({text.lower().removesuffix(".0") for text in labels}) == 2)
    assume(labels[0].lower() not in TOKENS and labels[1].lower() not in TOKENS)
    found, rows = inferred(folder, headers, labels, category)
    written = texts("hostile_case", found, project=folder / "project")

    same_features = (len(found.numbers), len(found.categories), found.generated_id) == (3, 1, False)
    for name in ("__init__.py", "source.py") + (("schema.py", "features.py") if same_features else ()):
        assert shape(written[name]) == shape(harmless[name]), "the same code, with other data"
    with case_in(folder, written) as package:
        case = package.HOSTILE_CASE
        names = {each.source: each.name for each in (*found.known_with_event, *found.known_later)}
        mapping = read_mapping(folder / "hostile_case" / "files.toml", os.environ)
        assert mapping.tables["events"].columns == {name: header for header, name in names.items()}
        assert (found.positive, found.negative) == (package.schema.POSITIVE, package.schema.NEGATIVE)
        assert {found.positive, found.negative} <= {
            spelled for label in labels for spelled in (label, label.lower(), label.removesuffix(".0"))
        }

        cleaned = {}
        for table in case.tables:
            batch = table.source({}).read(["2024-01-10"])
            assert batch.problems == {}
            cleaned[table.name] = clean(ingested(batch, table, ["2024-01-10"]), table).rows
    of_day = rows[rows["at"].str.startswith("2024-01-10")]
    assert cleaned["events"]["event_id"].tolist() == of_day["orderNo"].tolist()
    for header, kept in zip(headers, (found.numbers, found.categories), strict=True):
        if header in {each.source for each in kept}:
            assert cleaned["events"][names[header]].tolist() == of_day[header].tolist()
    late = cleaned["ground_truth"]["late"].tolist()
    assert late == (of_day["late"] == labels[0]).astype(int).tolist()

    prose, _, example_of_toml = written["README.md"].partition("```toml\n")
    assert not re.search(r"(?<!\\)<script", prose)
    assert example_of_toml.count("\n```") == 1, "no text ends the block of code"
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    monkeypatch.setattr(commands, "out", console)
    commands._describe("hostile_case", found, folder)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert not any(each in printed for each in "\x00\x1b\x7f\u202e")
    assert not (folder / "ran").exists()


def test_a_header_that_reads_as_toml_or_as_a_setting_is_a_name(tmp_path: Path) -> None:
    found, _ = inferred(tmp_path, ("${HOME}", "]]\n[events]\nfiles = 1\n".strip()), ("1", "0"), "phone")
    content: Any = tomllib.loads(texts("shop", found, project=tmp_path)["files.toml"])
    assert set(content) == {"start", "end", "timezone", "folder", "events"}
    assert content["events"]["columns"]["home"] == "${HOME}"
