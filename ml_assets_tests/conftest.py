"""What holds for every test: slow files come first, and on CI a skipped test is a failed one.

Nobody would notice that a test stopped running. And a slow file that came last would keep one of two workers waiting for the other.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

SLOW_FIRST = (
    "end_to_end/test_a_bad_day.py",
    "end_to_end/test_weeks_that_cannot_be_judged.py",
    "orchestration/test_any_delivery.py",
    "cases/test_cases.py",
    "orchestration/test_sensors.py",  # needs nothing of what is built for the first meanwhile
    "end_to_end/test_ui.py",
    "end_to_end/test_card_fraud.py",
    "end_to_end/test_hostile_data.py",
    "sources/test_hostile_input.py",
    "serving/test_openapi.py",
    "serving/test_scoring.py",
    "end_to_end/test_killed.py",
    "end_to_end/test_bucket_root.py",
    "orchestration/test_extracts.py",
    "end_to_end/test_late_labels.py",
    "serving/test_in_motion.py",
    "stages/test_intake.py",
    "serving/test_answers.py",
    "serving/test_abuse.py",
    "end_to_end/test_two_ways_of_labels.py",
    "end_to_end/test_new_case.py",
    "sources/test_contract.py",
    "use_cases/test_flight_features.py",
    "orchestration/test_online.py",
    "serving/test_keys.py",
    "test_definitions.py",
    "test_deployment.py",
    "test_land_command.py",
    "scaffold/test_new.py",
)
"""More than ten seconds each, the slowest first; `--dist loadfile` hands the files out in this order."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(SLOW_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def skipped(config: pytest.Config) -> Sequence[pytest.TestReport | pytest.CollectReport]:
    """What was skipped, with xdist by any worker; empty in a worker, which has no terminal, and outside CI."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("CI", "").lower() in ("", "0", "false"):
        return ()
    return reporter.stats.get("skipped", ())


def reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why it was skipped, without the place that the report names itself."""
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if skipped(session.config) and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = skipped(config)
    if not reports:
        return
    terminalreporter.section("skipped, which fails on CI", red=True, bold=True)
    for report in reports:
        terminalreporter.line(f"{report.nodeid}: {reason(report)}", red=True)
