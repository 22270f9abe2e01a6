"""What Dagster loads, by both of its commands, and what each asset says about itself."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.orchestration.backtest import BACKTEST
from ml_assets.orchestration.overview import OVERVIEW
from ml_assets.orchestration.pipeline import build_defs
from ml_assets.orchestration.shadow import COMPARISON
from ml_assets.orchestration.weeks import CANDIDATE, DEPLOYED, REPORT
from ml_assets.use_cases import USE_CASES

PROJECT = Path(__file__).parents[1]
GROUPS = {"raw", "clean", "rejected", "labels", "features", "models", "scores", "shadow", "monitoring", "online"}
WITHOUT_COLUMNS = {CANDIDATE, REPORT, DEPLOYED, BACKTEST, COMPARISON, OVERVIEW}
"""Models and reports are no tables."""

with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    LOADED = build_defs(USE_CASES)
    # Sorted, so that every worker of pytest-xdist collects the same tests in the same order.
    SPECS = {spec.key: spec for spec in sorted(LOADED.resolve_all_asset_specs(), key=lambda spec: spec.key)}

by_asset = pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: "/".join(spec.key.path))


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs one of Dagster's commands of this environment in the project's folder, with a Dagster home elsewhere."""

    def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        settings = {"DAGSTER_HOME": str(tmp_path), "PYTHONPATH": str(PROJECT), "DAGSTER_DISABLE_TELEMETRY": "yes"}
        return subprocess.run(
            [str(Path(sys.executable).with_name(name)), *words],
            cwd=PROJECT,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("words", "success"),
    [
        (("dg", "check", "defs"), "All definitions loaded successfully"),
        (("dagster", "definitions", "validate", "-w", "workspace.yaml"), "Validation successful for code location ml_assets"),
    ],
    ids=["pyproject.toml", "workspace.yaml"],
)
def test_the_location_loads_by(words: tuple[str, ...], success: str, command: Callable[..., Any]) -> None:
    done = command(*words)

    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert success in said
    # Dagster 1.13 calls its own `dagster definitions validate` superseded; it is the one that reads workspace.yaml.
    assert [line for line in said.splitlines() if "Warning" in line and "SupersessionWarning" not in line] == []


def test_dg_lists_what_definitions_has(command: Callable[..., Any]) -> None:
    listed = command("dg", "list", "defs", "--json")

    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert [key.to_user_string() for key in SPECS if f'"{key.to_user_string()}"' not in listed.stdout] == []


def test_nothing_warns_when_definitions_are_loaded() -> None:
    assert [str(warning.message) for warning in heard] == []


def test_dagster_has_its_telemetry_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dagster.yaml").write_text((PROJECT / "dagster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled


@by_asset
def test_asset_says_what_it_is_and_whose(spec: dg.AssetSpec) -> None:
    case, name = spec.key.path

    assert spec.description
    assert spec.description.endswith(".")
    assert list(spec.owners) == [use_case.owner for use_case in USE_CASES if use_case.name == case]
    assert spec.group_name is not None
    assert spec.group_name.removeprefix(f"{case}/") in GROUPS
    assert spec.kinds
    if name not in WITHOUT_COLUMNS and not name.startswith("raw_") and "observed" not in spec.kinds:
        schema = spec.metadata["dagster/column_schema"]
        assert isinstance(schema, dg.TableSchema)
        assert schema.columns
