"""`ml-assets new` and `remove` on a copy of the project: a whole case and its name come and go, or nothing changes, and no edit is lost."""

import ast
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from ml_assets.scaffold.declaration import Answers
from ml_assets.scaffold.infer import infer
from ml_assets.scaffold.project import RECORD, CannotWriteError, add, remove, require_free, update
from ml_assets.scaffold.write import FILES, texts
from ml_assets_tests.scaffold.packages import case_in
from ml_assets_tests.scaffold.test_infer import orders

PROJECT = Path(__file__).parents[2]
CACHES = {"__pycache__", ".mypy_cache", ".ruff_cache"}


def copy_of_the_project(folder: Path) -> Path:
    """With what was compiled of it: of a file with the same time and size it is used."""
    for name in ("ml_assets", "ml_assets_tests"):
        shutil.copytree(PROJECT / name, folder / name)
    for name in ("pyproject.toml", "dagster.yaml", "workspace.yaml", "README.md"):
        shutil.copy(PROJECT / name, folder / name)
    return folder


def command(project: Path, *words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = {
        **os.environ,
        "PYTHONPATH": str(project),
        "DAGSTER_HOME": str(project),
        **settings,
    }
    return subprocess.run(
        [sys.executable, "-W", "ignore", *words],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def hashes(folder: Path) -> Mapping[str, str]:
    """Of every file but caches."""
    files = (path for path in folder.rglob("*") if path.is_file() and not CACHES & set(path.relative_to(folder).parts))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def added_lines(before: str, after: str) -> list[str]:
    old = before.splitlines()
    lines = [line for line in after.splitlines() if line not in old]
    assert len(after.splitlines()) == len(old) + len(lines), "nothing was taken away"
    return lines


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return copy_of_the_project(tmp_path / "project")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    orders().to_csv(tmp_path / "orders.csv", index=False)
    return tmp_path / "orders.csv"


def written(file: Path, project: Path, **answers: object) -> Mapping[str, str]:
    """The text of each file of a case of late orders."""
    found = infer(file, Answers(**{"known_after": timedelta(days=1), **answers}))  # type: ignore[arg-type]
    return texts("late_orders", found, project=project)


def folder_of(project: Path) -> Path:
    return project / "ml_assets" / "use_cases"


def test_a_new_case_is_some_files_and_a_line_and_keeps_every_rule_of_the_project(project: Path, file: Path) -> None:
    before, register = hashes(project), folder_of(project) / "__init__.py"
    text = register.read_text()
    options = ("--known-after", "36h", "--after", "weight", "--timezone", "Europe/Berlin")
    made = command(project, "-m", "ml_assets", "new", "late_orders", "--from", str(file), *options)
    assert made.returncode == 0, made.stdout + made.stderr
    for said in (
        "late: yes is a positive, 25.0% of 480 known",
        "entities    shop_id (in the file 'shopId')",
        "known after 36h",
        "known later weight",
        "a Monday",
        "entity      shopId: is called an id, and values repeat",
    ):
        assert said in made.stdout

    after = hashes(project)
    place = "ml_assets/use_cases/late_orders"
    assert {name for name in after if after[name] != before.get(name)} == {
        "ml_assets/use_cases/__init__.py",
        *(f"{place}/{name}" for name in (*FILES, RECORD)),
    }
    assert before.keys() <= after.keys()
    assert added_lines(text, register.read_text()) == ['    "late_orders",']
    code = "".join(path.read_text() for path in (project / place).glob("*.py"))
    assert str(file.parent) not in code, "no path of this machine is in the code"

    again = command(project, "-m", "ml_assets", "new", "late_orders", "--from", str(file), "--known-after", "1d")
    assert (again.returncode, "is there already" in again.stdout) == (1, True)
    assert hashes(project) == after

    if (PROJECT / ".mypy_cache").exists():  # what has not changed since `make check` is not looked at again
        shutil.copytree(PROJECT / ".mypy_cache", project / ".mypy_cache")
    for words in (
        ("-m", "ruff", "format", "--check", "ml_assets"),
        ("-m", "ruff", "check", "ml_assets"),
        ("-m", "mypy"),
        ("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"),
        ("-m", "pytest", "-q", "-p", "no:cacheprovider", "ml_assets_tests/test_every_use_case.py", "-k", "late_orders"),
    ):
        checked = command(project, *words)
        assert checked.returncode == 0, checked.stdout + checked.stderr

    gone = command(project, "-m", "ml_assets", "remove", "late_orders", "--yes")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert "no data of it lie below" in gone.stdout
    assert {
        name: each for name, each in hashes(project).items() if not name.startswith((".import_linter_cache", ".pytest"))
    } == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Late", "small letters"),
        ("late-orders", "small letters"),
        ("class", "small letters"),
        ("1st", "small letters"),
        ("card_fraud", "is there already"),
        ("import_module", "has something of that name"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_before_the_file_is_read(name: str, said: str) -> None:
    with pytest.raises(CannotWriteError, match=said):
        require_free(name, folder_of(PROJECT))


def test_a_case_has_the_name_of_anything_in_it(project: Path, file: Path) -> None:
    found = infer(file, Answers(known_after=timedelta(days=1)))
    for name in ("end", "features", "schema", "source", "events", "label"):
        assert add(name, texts(name, found, project=project), {}, folder=folder_of(project)).is_dir(), "and loads"


def test_a_case_that_does_not_load_is_taken_away_again(project: Path, file: Path) -> None:
    before = hashes(project)
    broken = {**written(file, project), "schema.py": "import nothing_that_there_is"}
    with pytest.raises(CannotWriteError, match="No module named 'nothing_that_there_is'"):
        add("late_orders", broken, {}, folder=folder_of(project))
    assert hashes(project) == before


def test_a_full_disk_leaves_nothing(project: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hashes(project)
    real = Path.write_text

    def full(path: Path, text: str, **options: str) -> int:
        if path.name == "features.py":
            raise OSError(28, "No space left on device")
        return real(path, text, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        add("late_orders", written(file, project), {}, folder=folder_of(project))
    assert hashes(project) == before


def test_a_register_that_looks_otherwise_is_left_alone(project: Path, file: Path) -> None:
    register = folder_of(project) / "__init__.py"
    register.write_text(register.read_text().replace("NAMES = (\n", "NAMES = (  # mine\n"))
    before = hashes(project)
    with pytest.raises(CannotWriteError, match=r"has no list NAMES .* add 'late_orders' by hand"):
        add("late_orders", written(file, project), {}, folder=folder_of(project))
    assert hashes(project) == before


WIDE = "a header of many words, wider than a line of code may be, " * 3
SHAPES: Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]] = {
    "dates": ({"at": orders()["at"].str[:10]}, {}),
    "labels with a time": ({"told": orders()["at"].shift(-8)}, {"known_after": None, "known_at": "told", "time": "at"}),
    "a generated id": ({"orderNo": None}, {"generate_id": True}),
    "ids together": ({}, {"id": ("orderNo", "at")}),
    "no entities": ({}, {"no_entities": ("shopId",)}),
    "no numbers": ({"price": None, "items": None, "weight": None}, {}),
    "no categories": ({"channel": None}, {"after": ("price", "weight")}),
    "wide names": (
        {WIDE: orders()["price"], "名" * 90: orders()["items"], f"{WIDE}id": orders()["shopId"]},
        {"entities": (f"{WIDE}id",)},
    ),
    "truths": ({"late": [True, False, False, False] * (len(orders()) // 4)}, {}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_case_of_any_shape_loads_and_is_formatted(tmp_path: Path, shape: str) -> None:
    changes, answers = SHAPES[shape]
    orders(**changes).to_csv(tmp_path / "orders.csv", index=False)
    folder = tmp_path / "shape"
    folder.mkdir()
    code = written(tmp_path / "orders.csv", tmp_path, **answers)
    for name, text in code.items():
        (folder / name).write_text(text)
        ast.parse(text) if name.endswith(".py") else None
    config = ("--config", str(PROJECT / "pyproject.toml"), "--no-cache")
    for words in (("format", "--check"), ("check", "--ignore", "I001")):  # which modules are ours, depends on the place
        checked = subprocess.run(
            [sys.executable, "-m", "ruff", *words, *config, str(folder)], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
    with case_in(
        tmp_path / "use_cases", {name: text.replace("late_orders", "hostile_case") for name, text in code.items()}
    ) as package:
        case = package.schema.EVENTS
        assert {column.name for column in case.columns} >= {"event_id", "weekday", "one"}


def test_a_file_of_the_project_is_named_from_the_case(project: Path, file: Path) -> None:
    inside = project / "data" / "orders [1] {day}.csv"
    inside.parent.mkdir()
    shutil.copy(file, inside)
    mapping = written(inside, project)["files.toml"]
    assert 'folder = "../../../data"\n' in mapping
    assert 'files = "orders [[]1[]] [{]day[}].csv"\n' in mapping
    assert str(project) not in mapping


# Again ------------------------------------------------------------------------------------------------------------------------


def test_an_answer_given_later_keeps_what_was_edited(project: Path, file: Path) -> None:
    options = ("-m", "ml_assets", "new", "late_orders")
    made = command(project, *options, "--from", str(file), "--known-after", "36h", "--positive", "no")
    assert made.returncode == 0, made.stdout + made.stderr
    place = folder_of(project) / "late_orders"
    schema, gate = place / "schema.py", place / "__init__.py"
    schema.write_text(schema.read_text().replace("LATE_DAYS = 7", "LATE_DAYS = 3"))
    gate.write_text(gate.read_text().replace("margin=0.02", "margin=0.07"))
    before = (place / "source.py").read_text()

    again = command(project, *options, "--update", "--after", "weight")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "schema.py   written again, with your edits in it" in again.stdout
    assert "__init__.py as it was" in again.stdout
    text = schema.read_text()
    assert "LATE_DAYS = 3" in text
    assert "timedelta(seconds=129600)" in text, "the answers given before hold"
    assert 'POSITIVE = "no"' in text
    assert "margin=0.07" in gate.read_text()
    assert '"weight",\n)\n"""May be missing' in (place / "source.py").read_text() != before
    assert "written again\n" in again.stdout
    loaded = command(project, "-c", "from ml_assets.use_cases import find; print(find('late_orders', {}).event_table.late_days)")
    assert loaded.stdout == "3\n", loaded.stderr

    other = command(project, *options, "--update", "--no-entity", "shopId", "--known-at", "weight")
    assert other.returncode == 1
    assert "--known-at: column weight" in other.stdout


def test_what_is_new_where_something_was_edited_stands_beside(project: Path, file: Path) -> None:
    folder = folder_of(project)
    place = add("late_orders", written(file, project), {}, folder=folder)
    edited = (place / "schema.py").read_text().replace("timedelta(seconds=86400)", "timedelta(hours=20)")
    (place / "schema.py").write_text(edited)
    new = written(file, project, known_after=timedelta(days=2))
    changes = update("late_orders", new, {}, folder=folder)
    assert {name: change for name, change in changes.items() if change != "written"} == {
        "schema.py": "beside",
        "source.py": "unchanged",
        "features.py": "unchanged",
        "files.toml": "unchanged",
    }
    assert (place / "schema.py").read_text() == edited
    assert (place / "schema.py.new").read_text() == new["schema.py"]


def test_an_update_that_does_not_load_changes_nothing(project: Path, file: Path) -> None:
    folder = folder_of(project)
    add("late_orders", written(file, project), {}, folder=folder)
    before = hashes(project)
    with pytest.raises(CannotWriteError, match=r"is as it was: .*nothing_that_there_is"):
        update("late_orders", {**written(file, project), "schema.py": "import nothing_that_there_is"}, {}, folder=folder)
    assert hashes(project) == before


# Gone -------------------------------------------------------------------------------------------------------------------------


def test_only_what_new_wrote_is_removed_and_only_if_nothing_needs_it(project: Path, file: Path) -> None:
    folder = folder_of(project)
    for name, said in (("card_fraud", "did not write"), ("nothing", "there is no case 'nothing'")):
        with pytest.raises(CannotWriteError, match=said):
            remove(name, folder=folder)
    add("late_orders", written(file, project), {}, folder=folder)
    register = folder / "__init__.py"
    text = register.read_text()
    register.write_text(text + "\nimport ml_assets.use_cases.late_orders.schema\n")
    before = hashes(project)
    with pytest.raises(CannotWriteError, match=r"and it is still there: .*late_orders"):
        remove("late_orders", folder=folder)
    assert hashes(project) == before
    asked = command(project, "-m", "ml_assets", "remove", "late_orders")
    assert (asked.returncode, "say --yes" in asked.stdout, hashes(project) == before) == (1, True, True)
    register.write_text(text)
    remove("late_orders", folder=folder)
    assert not (folder / "late_orders").exists()
    assert "late_orders" not in register.read_text()


def test_where_data_of_a_removed_case_are_is_said(project: Path, file: Path) -> None:
    add("late_orders", written(file, project), {}, folder=folder_of(project))
    (project / ".ml_assets" / "tables" / "late_orders" / "events").mkdir(parents=True)
    gone = command(project, "-m", "ml_assets", "remove", "late_orders", "--yes")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert f"rm -r {project / '.ml_assets' / 'tables' / 'late_orders'}" in gone.stdout
    assert (project / ".ml_assets" / "tables" / "late_orders" / "events").is_dir()
