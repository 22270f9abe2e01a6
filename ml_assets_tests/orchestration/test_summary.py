"""The summary of a case of which little is there yet."""

from pathlib import Path

from ml_assets.orchestration import summary
from ml_assets.orchestration.store import Store
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS


def test_a_case_without_a_decision_has_no_weeks(tmp_path: Path) -> None:
    assert summary.weeks(FLIGHT_DELAYS, Store(root=str(tmp_path))) == []
