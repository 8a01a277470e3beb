"""What every run of the tests shows at its end: the figures that tests with real guests measured."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("", [])]
    told = [
        (report.nodeid.partition("::")[2], report.capstdout.strip())
        for report in reports
        if "guests" in report.keywords and report.when in ("call", "teardown") and report.capstdout.strip()
    ]
    if told:
        terminalreporter.section("measured on real guests")
    for name, text in told:
        terminalreporter.write_line(f"{name}\n    " + text.replace("\n", "\n    "))
