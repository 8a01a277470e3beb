"""The library's command with another way to try a mutant: `python -m tests.mutants.quick run ...`.

The library starts pytest anew for each mutant, which takes longer than the tests do. Here the tests are
collected once, and each mutant is a fork that runs those that reach it. A mutant has processor time, not
time by the clock: on a busy machine a slow test must not be taken for one that found the error.
"""

import os
import resource
import sys
from collections.abc import Iterable
from time import process_time
from typing import Any, Final, NoReturn

import _pytest.config
import pytest
from mutmut import __main__ as library
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.runners.harness import PytestRunner
from mutmut.state import state
from mutmut.utils.file_utils import change_cwd
from mutmut.workers.isolation import ForkRunner, MutantRunner, RunningWorker

MUTATED: Final = "mutants"
"""Where the library puts the tree that it has changed."""


class FirstFailure:
    """A plugin: the process ends at the first test that fails. A report of it takes longer than the test."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        """After each phase of a test."""
        if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
            os._exit(1)


class CollectedTests(PytestRunner):
    """All tests, collected when the first mutant is tried."""

    def __init__(self) -> None:
        super().__init__()
        self._session: pytest.Session | None = None
        self._items: dict[str, pytest.Item] = {}

    def collect(self) -> None:
        """In the process that forks. What pytest says of it goes nowhere: no terminal, nothing captured."""
        quiet = ["--rootdir=.", "-o", "addopts=--import-mode=importlib", "-s", "-p", "no:terminal"]
        arguments = [*quiet, *self._pytest_add_cli_args, *self._pytest_add_cli_args_test_selection]
        with change_cwd(MUTATED):
            config = _pytest.config._prepareconfig(arguments, [FirstFailure()])  # as xdist's workers do
            config._do_configure()
            self._session = session = pytest.Session.from_config(config)
            config.hook.pytest_sessionstart(session=session)
            config.hook.pytest_collection(session=session)
        self._items = {item.nodeid: item for item in session.items}

    def try_mutant(self, tests: Iterable[str]) -> NoReturn:
        """Run them, and end this process: 0 when none failed, 35 when that cannot be said."""
        code = 35  # the library's "suspicious", which nobody counts as killed
        try:
            session = self._session
            assert session is not None
            session.items = [self._items[name] for name in tests]
            os.chdir(MUTATED)
            session.config.hook.pytest_runtestloop(session=session)
            code = 0
        finally:  # whatever happened, the child must not return into the loop that forks
            os._exit(code)


class QuickRunner(ForkRunner):
    """The library's runner, but for how a mutant is tried."""

    def __init__(self, children: int) -> None:
        self._tests = CollectedTests()
        super().__init__(max_workers=children, test_runner=self._tests)

    def startup(self) -> None:
        """Before the first mutant."""
        self._tests.collect()
        super().startup()

    def submit(self, mutant_name: str, tests: list[str], cpu_time_limit: int, estimated_time: float) -> None:
        """Try one, the quickest tests first."""
        pid = os.fork()
        if pid:
            self._running[pid] = RunningWorker(mutant_name, library.datetime.now(), estimated_time)
            return
        set_mutant_under_test(mutant_name)
        most = cpu_time_limit + int(process_time())  # beyond that it is one that never ends
        resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 # until the end
        self._tests.try_mutant(sorted(tests, key=state().duration_by_test.__getitem__))


def _runner(children: int = 1) -> MutantRunner:
    return QuickRunner(children)


def main() -> Any:
    """The library's own command line."""
    library.get_mutant_runner = _runner
    return library.cli()


if __name__ == "__main__":
    main()
