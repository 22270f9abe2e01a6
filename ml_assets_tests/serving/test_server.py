"""What the processes of the service leave behind."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ml_assets.serving.metrics_folder import FOLDER
from ml_assets.serving.server import _counting_in_a_folder


def test_counts_are_gone_with_the_service_and_those_of_killed_ones_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv(FOLDER, "none")
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    kept = [f"ml-assets-metrics-{os.getpid()}-x", f"ml-assets-metrics-{os.getppid()}-x", "ml-assets-metrics-x-y", "other"]
    for name in (*kept, f"ml-assets-metrics-{ended.pid}-x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "counter.db").touch()
    with _counting_in_a_folder():
        folder = Path(os.environ[FOLDER])
        assert {each.name for each in tmp_path.iterdir()} == {*kept, folder.name}
    assert {each.name for each in tmp_path.iterdir()} == set(kept)
