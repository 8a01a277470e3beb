"""What holds for every test, and what a run of them shows at its end: the figures that were measured."""

import contextlib
import signal
import sys
from collections.abc import Iterator

import pytest
import structlog

SHOWN = {"guests", "figures"}

# The matrix runs the guests' tests by what each release has, and that is no hypothesis.
with contextlib.suppress(ModuleNotFoundError):
    from hypothesis import settings

    # What an example takes says how busy this machine is, and nothing of the example.
    settings.register_profile("here", deadline=None)
    settings.load_profile("here")


def pytest_configure() -> None:
    # What is printed are figures; logs go the other way.
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    # A shell lets what it starts in the background ignore Ctrl-C, and so would every program of ours.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _a_log_that_a_test_sets_up_ends_with_it() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


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
