"""`ml-assets new` on a copy of the project: a whole case and its name are added, or nothing is."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ml_assets.scaffold import write
from ml_assets.scaffold.infer import Answers, infer
from ml_assets.scaffold.project import CannotWriteError, add
from ml_assets.scaffold.write import FILES
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


def test_a_new_case_is_five_files_and_a_line_and_keeps_every_rule_of_the_project(project: Path, file: Path) -> None:
    before, register = hashes(project), project / "ml_assets" / "use_cases" / "__init__.py"
    text = register.read_text()
    made = command(
        project,
        "-m",
        "ml_assets",
        "new",
        "late_orders",
        "--from",
        str(file),
        "--known-after",
        "36h",
        "--after",
        "weight",
        "--timezone",
        "Europe/Berlin",
    )
    assert made.returncode == 0, made.stdout + made.stderr
    for said in (
        "late: yes is a positive, 25.0% of all",
        "entities    shopId",
        "known after 36h",
        "known later weight",
        "a Monday",
    ):
        assert said in made.stdout

    after = hashes(project)
    place = "ml_assets/use_cases/late_orders"
    assert {name for name in after if after[name] != before.get(name)} == {
        "ml_assets/use_cases/__init__.py",
        *(f"{place}/{name}" for name in FILES),
    }
    assert before.keys() <= after.keys()
    assert added_lines(text, register.read_text()) == ['    "late_orders",']

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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Late", "small letters"),
        ("late-orders", "small letters"),
        ("class", "small letters"),
        ("1st", "small letters"),
        ("card_fraud", "is there already"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_before_the_file_is_read(name: str, said: str) -> None:
    with pytest.raises(CannotWriteError, match=said):
        write.require_free(name, PROJECT / "ml_assets" / "use_cases")


def test_a_case_that_does_not_load_is_taken_away_again(project: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hashes(project)
    real = write.texts
    monkeypatch.setattr(write, "texts", lambda name, found: {**real(name, found), "schema.py": "import nothing_that_there_is"})
    with pytest.raises(CannotWriteError, match="No module named 'nothing_that_there_is'"):
        add("late_orders", infer(file, Wishes()), folder=project / "ml_assets" / "use_cases")
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
        add("late_orders", infer(file, Wishes()), folder=project / "ml_assets" / "use_cases")
    assert hashes(project) == before


def test_a_register_that_looks_otherwise_is_left_alone(project: Path, file: Path) -> None:
    register = project / "ml_assets" / "use_cases" / "__init__.py"
    register.write_text(register.read_text().replace("NAMES = (\n", "NAMES = (  # mine\n"))
    before = hashes(project)
    with pytest.raises(CannotWriteError, match=r"has no list NAMES .* add 'late_orders' by hand"):
        add("late_orders", infer(file, Wishes()), folder=project / "ml_assets" / "use_cases")
    assert hashes(project) == before
