"""What holds for every test: on CI a skipped test is a failed one, since nobody would notice that it stopped running."""

import os
from collections.abc import Sequence

import pytest


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
