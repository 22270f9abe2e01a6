"""The small case as Dagster loads it, with as many days as a backfill from the interface takes; `test_ui` starts `dagster dev` on it."""

from dataclasses import replace

from ml_assets.orchestration.pipeline import build_defs
from ml_assets.use_case import DayRange
from ml_assets_tests.end_to_end.conftest import CASE as SEVEN_WEEKS

_USUAL_ROWS = {"flights": 50, "weather": 20, "planes": 1000}
"""Of one airport and three carriers, so that a usual day is green."""

# The backfill ends with the last day of the case: Dagster would take along the days after it, which look back on it (ADR 2).
CASE = replace(
    SEVEN_WEEKS,
    end="2013-03-07",
    tables=tuple(
        replace(table, expectations=(DayRange(figure="rows", minimum=_USUAL_ROWS[table.name]),)) for table in SEVEN_WEEKS.tables
    ),
)
defs = build_defs([CASE])
