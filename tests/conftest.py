"""What every run of the tests shows at its end: the figures that were measured."""

import sys

import pytest
import structlog

SHOWN = {"guests", "figures"}


def pytest_configure() -> None:
    # What is printed are figures; logs go the other way.
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


# The matrix runs tests by the pytest of each release; Debian 13's has this class elsewhere.
def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    reports = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("", [])]
    # The report of a teardown repeats what the call printed.
    told = {
        report.nodeid.partition("::")[2]: report.capstdout.strip()
        for report in reports
        if SHOWN & set(report.keywords) and report.when in ("call", "teardown") and report.capstdout.strip()
    }
    if told:
        terminalreporter.section("measured")
    for name, text in told.items():
        terminalreporter.write_line(f"{name}\n    " + text.replace("\n", "\n    "))
