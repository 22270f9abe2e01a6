"""What the pages say is so: links, paths, commands, targets, settings, and the reference that is generated.

Commands are parsed by the very parsers that run them. Those of README that are cheap are run, as they stand there, on a delivery of a week.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
from dagster._cli import create_dagster_cli
from typer.testing import CliRunner

from ml_assets.cli import app
from ml_assets.orchestration.pipeline import build_defs
from ml_assets.orchestration.planning import recipes
from ml_assets.orchestration.weeks import WEEKLY
from ml_assets.scaffold.project import RECORD
from ml_assets.use_case import day_range
from ml_assets.use_cases import NAMES, USE_CASES
from ml_assets.use_cases.flight_delays.source import FOLDER
from ml_assets_tests.end_to_end.conftest import write_delivery
from ml_assets_tests.scaffold.test_new import FILES, copy_of_the_project

TOP = Path(__file__).parents[1]
PAGES = tuple(
    sorted(
        path.relative_to(TOP).as_posix()
        for path in (
            TOP / "README.md",
            TOP / "CHANGELOG.md",
            *(TOP / "docs").rglob("*.md"),
            *(TOP / "ml_assets" / "use_cases").rglob("README.md"),
        )
    )
)
by_page = pytest.mark.parametrize("page", PAGES)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\]\([^)]*\))*\]\(([^)\s]+)\)")
EXAMPLE = "film_ratings"
"""The case that README makes with `ml-assets new`."""
INTERNAL = {"ML_ASSETS_SERVE"}
"""How `serve` tells its processes what to serve; nobody sets it."""
ASSIGNED = re.compile(r"[A-Z_]+=")
COMMAND = re.compile(r"([A-Z_]+=\S+ )*(\.venv/bin/)?(ml-assets|dagster|make) \S")


@cache
def text_of(page: str) -> str:
    return (TOP / page).read_text(encoding="utf-8")


def blocks(text: str, language: str = "bash") -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


def spans(text: str) -> list[str]:
    """Code in the text; one may go on in the next line."""
    return [span.replace("\n", " ") for span in re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", prose(text))]


# Links and paths ----------------------------------------------------------------------------------------------------------


def anchors(page: str) -> set[str]:
    """As GitHub makes them from headings, and those that are written."""
    text, found = prose(text_of(page)), Counter[str]()
    for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found[slug] += 1
    repeated = {f"{slug}-{number}" for slug, times in found.items() for number in range(1, times)}
    return {*found, *repeated, *re.findall(r'<a id="([^"]+)">', text)}


@by_page
def test_links_and_images_lead_somewhere(page: str) -> None:
    lost = []
    for link in LINK.findall(prose(text_of(page))):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (TOP / page).parent / place if place else TOP / page
        there = target.resolve()
        if not there.exists() or (anchor and anchor not in anchors(there.relative_to(TOP.resolve()).as_posix())):
            lost.append(link)

    assert lost == []


@by_page
def test_files_that_are_named_exist(page: str) -> None:
    named = [
        span
        for span in spans(text_of(page))
        if re.fullmatch(r"(ml_assets|ml_assets_tests|docs|benchmarks)/[\w./-]*[./][\w]*", span)
    ]

    assert [name for name in named if not (TOP / name).exists() and EXAMPLE not in name] == []


# Commands -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A command as a page says it: `whole` in a block, which can be copied; in the text it may leave something out."""

    words: tuple[str, ...]
    whole: bool


def commands(page: str) -> Iterator[Said]:
    for block in blocks(text_of(page)):
        for line in block.replace("\\\n", " ").splitlines():
            if COMMAND.match(line):
                yield Said(words=words_of(line), whole=True)
    for span in spans(text_of(page)):
        for part in span.split(" | "):
            if COMMAND.match(part):
                yield Said(words=words_of(part), whole=False)
            elif re.match(rf"models ({'|'.join(NAMES)}|CASE) ", part):
                yield Said(words=("ml-assets", *words_of(part)), whole=False)


def words_of(line: str) -> tuple[str, ...]:
    """Without what is set before, the folder, comments and what stands for whatever follows."""
    words = shlex.split(re.sub(r" (…|\[OPTIONS\])(?= |$)", "", line), comments=True)
    while ASSIGNED.match(words[0]):
        words.pop(0)
    return (words[0].removeprefix(".venv/bin/"), *words[1:])


def parsed(root: Any, words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The names of the commands, and all that they were given; raises what the parser raises."""
    command, rest, context, names, given = root, list(words), None, list[str](), dict[str, Any]()
    while True:
        context = command.make_context(command.name, rest, parent=context)
        given |= context.params
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if not hasattr(command, "commands") or not rest:
            return names, given
        _, command, rest = command.resolve_command(context, rest)
        names.append(command.name)


PARSERS = {"ml-assets": typer.main.get_command(app), "dagster": create_dagster_cli()}
LEFT_OUT = {"MissingParameter", "NoArgsIsHelpError"}
"""What the parsers raise where something is missing."""


@by_page
def test_commands_are_real(page: str) -> None:
    wrong = []
    for said in commands(page):
        program, *words = said.words
        if program == "make":
            continue
        try:
            names, given = parsed(PARSERS[program], [re.sub(r"^(N|NUMBER)$", "1", word) for word in words])
        except Exception as error:
            if said.whole or type(error).__name__ not in LEFT_OUT:
                wrong.append(f"{shlex.join(said.words)}: {type(error).__name__} {error}")
            continue
        wrong += [f"{shlex.join(said.words)}: no {what}" for what in unknown(names, given)]

    assert wrong == []


def unknown(names: Sequence[str], given: dict[str, Any]) -> Iterator[str]:
    """Cases, assets, sensors and schedules that a command names and that are not there."""
    case = given.get("case")
    if case is not None and case not in (*NAMES, "CASE", EXAMPLE):
        yield f"use case {case}"
    if "materialize" in names and "…" not in given["select"]:
        known = {name for each in USE_CASES if case in (each.name, "CASE", EXAMPLE) for name in (*recipes(each), *WEEKLY)}
        yield from (f"asset {name}" for name in filter(None, given["select"].split(",")) if name not in known)
    for kind, there in (("sensor", automation()[0]), ("schedule", automation()[1])):
        if (name := given.get(f"{kind}_name")) and not {name} <= there and not set(name) <= there:
            yield f"{kind} {name}"


@cache
def automation() -> tuple[set[str], set[str]]:
    definitions = build_defs(USE_CASES)
    return {each.name for each in definitions.sensors or ()}, {each.name for each in definitions.schedules or ()}


@by_page
def test_targets_of_make_exist(page: str) -> None:
    text = text_of("Makefile").replace("$(VENV)", ".venv")
    targets = set(re.findall(r"^([a-z./]+):", text, flags=re.MULTILINE))
    named = {word for said in commands(page) if said.words[0] == "make" for word in said.words[1:] if "=" not in word}

    assert named <= targets


def test_a_command_that_is_not_there_is_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        parsed(PARSERS["ml-assets"], ["run", "flight_delays", "--until", "2013-01-01"])
    with pytest.raises(Exception, match="No such command"):
        parsed(PARSERS["ml-assets"], ["models", "flight_delays", "undo"])
    assert list(unknown(["stop"], {"sensor_name": "flight_delays__delivered"})) == ["sensor flight_delays__delivered"]


# Automation, settings, reference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["docs/concepts.md"])
def test_everything_that_runs_by_itself_is_named(page: str) -> None:
    tables = "|".join(table.name for case in USE_CASES for table in case.tables)
    names = {re.sub(rf"^({tables})_", "<table>_", name.rpartition("__")[2]) for kind in automation() for name in kind}

    assert {name for name in names if f"`{name}`" not in text_of(page)} == set()


@cache
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", TOP / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says() -> None:
    assert generator().reference() == text_of("docs/reference.md"), "run `make docs`, and commit what it wrote"


def test_every_setting_is_in_a_table() -> None:
    described = set(generator().settings())
    files = [*(TOP / "ml_assets").rglob("*.py"), TOP / "docs" / "deployment" / "dagster.yaml", TOP / "Makefile"]
    told = {name for file in files for name in re.findall(r"\bML_ASSETS_[A-Z_]*", file.read_text(encoding="utf-8"))} - INTERNAL
    begun = tuple(name for name in told if name.endswith("_"))  # what follows is put together by the code
    whole = told - set(begun)
    any_case = {name.replace("<CASE>", case.upper()) for name in described for case in NAMES}

    assert whole - described - any_case == set(), "in the code, and in no table"
    assert [name for name in begun if not any(each.startswith(name) for each in described)] == []
    assert [name for name in described - whole if "<" not in name and not name.startswith(begun)] == [], (
        "in a table, and not in the code"
    )


# README, run --------------------------------------------------------------------------------------------------------------


def test_a_case_of_ones_own_begins_as_readme_says(tmp_path: Path) -> None:
    """Verbatim: installing what is installed, making the file, `new`. `test_new_case` runs the case."""
    [block] = [block for block in blocks(text_of("README.md")) if "ml-assets new" in block]
    project = copy_of_the_project(tmp_path)
    (project / ".venv").symlink_to(sys.prefix)
    environment = {**os.environ, "PYTHONPATH": str(project), "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    done = subprocess.run(
        ["bash", "-euc", block], cwd=project, env=environment, capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    case = project / "ml_assets" / "use_cases" / EXAMPLE
    assert sorted(path.name for path in case.iterdir() if path.is_file()) == sorted((*FILES, RECORD))
    assert not (TOP / "ml_assets" / "use_cases" / EXAMPLE).exists()
    said = re.search(r"has ([\d,]+) film ratings", text_of("README.md"))
    assert said is not None
    assert f"{said[1]} events" in done.stdout


CHEAP = {"summary", "stale", "account", "models", "clock", "materialize"}
"""On a week of flights; what makes a year, or needs a model, is parsed only."""


@pytest.fixture(scope="module")
def cheap() -> list[tuple[str, ...]]:
    """The commands of README and of the runbook that can be run in a second, as they stand there, each once."""
    said = [each for page in ("README.md", "docs/operations.md") for each in commands(page) if each.whole]
    lines = [each.words[1:] for each in said if each.words[0] == "ml-assets" and each.words[1] in CHEAP]
    # Of materialize what the week has; of models the list; of the clock what it shows.
    longest = {"materialize": 8, "models": 2, "clock": 2}
    return [
        line
        for line in dict.fromkeys(lines)
        if len(line) <= longest.get(line[0], 99) and (line[0] != "materialize" or {"features", "2013-07-01"} <= set(line))
    ]


def test_cheap_commands_run(cheap: Sequence[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {line[0] for line in cheap} == CHEAP
    write_delivery(tmp_path / "delivery", day_range("2013-07-01", "2013-07-07"))
    (tmp_path / "dagster.yaml").write_text(text_of("dagster.yaml"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name, value in {FOLDER: "delivery", "DAGSTER_HOME": str(tmp_path), "DAGSTER_EVENT_BATCH_SIZE": "1000"}.items():
        monkeypatch.setenv(name, value)
    before = ["raw_planes,planes", "raw_flights,flights,raw_weather,weather,labels"]
    week = ["--from", "2013-07-01", "--to", "2013-07-07"]

    for words in (
        ["materialize", "flight_delays", "--select", before[0]],
        ["materialize", "flight_delays", "--select", before[1], *week],
        *cheap,
    ):
        ran = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
        assert ran.exit_code == 0, f"{shlex.join(words)}\n{ran.output}\n{ran.exception!r}"
