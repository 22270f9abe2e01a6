"""The layers, who may know Dagster, and what a newcomer expects at the top level."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).parents[1]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=120, check=False)


def modules_of(*packages: str) -> list[str]:
    """Every module below the packages, so that an import inside a seldom used one counts too."""
    files = sorted(file for package in packages for file in (TOP / package.replace(".", "/")).rglob("*.py"))
    return [".".join(file.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__") for file in files]


def test_imports_keep_the_contracts_of_pyproject() -> None:
    lint = run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")

    assert lint.returncode == 0, lint.stdout + lint.stderr


@pytest.mark.parametrize("package", ["notices", "use_case", "use_cases", "sources", "storage", "stages"])
def test_dagster_is_not_loaded_by(package: str) -> None:
    name = f"ml_assets.{package}"
    modules = modules_of(name) or [name]
    report = "print(*sorted(m for m in sys.modules if m.partition('.')[0].startswith('dagster')))"

    loading = run(sys.executable, "-c", f"import sys, {', '.join(modules)}\n{report}")

    assert loading.returncode == 0, loading.stderr
    assert loading.stdout.split() == []


@pytest.mark.parametrize(
    "name",
    [
        ".ci/run",
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "dagster.yaml",
        "docs/adr",
        "ml_assets/py.typed",
        "pyproject.toml",
        "requirements-dev.lock",
        "requirements.lock",
        "workspace.yaml",
    ],
)
def test_stands_where_it_is_looked_for(name: str) -> None:
    assert (TOP / name).exists()


def test_ci_can_be_run() -> None:
    assert os.access(TOP / ".ci" / "run", os.X_OK)


def test_telemetry_is_off() -> None:
    settings = yaml.safe_load((TOP / "dagster.yaml").read_text(encoding="utf-8"))

    assert settings["telemetry"] == {"enabled": False}


def test_both_files_name_one_code_location() -> None:
    """Without -w, pyproject.toml wins over workspace.yaml silently; two names would show every asset twice in the history."""
    [declared] = yaml.safe_load((TOP / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["dg"]["project"]

    assert declared["python_module"]["location_name"] == project["code_location_name"]
    assert declared["python_module"]["module_name"] == project["code_location_target_module"]


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_lock_pins_hashes_and_names_no_index(lock: str) -> None:
    text = (TOP / lock).read_text(encoding="utf-8")

    assert "--hash=sha256:" in text
    assert "://" not in text
