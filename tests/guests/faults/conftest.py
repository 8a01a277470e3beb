"""What the faults share: a ward for each module, and the table at the end (`make faults` writes it down)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from host_controller.verify.accelerator import find_accelerator
from lab.controller import Limits
from tests.guests.conftest import Rig, RigFactory
from tests.guests.faults.document import replace_section, table
from tests.guests.faults.ward import Fault, Row, Ward

CAPACITY = 1700
"""MiB: room for a victim that is charged with its maximum beside a neighbour at work; not for two of them."""
LIMITS = Limits(startup=512, minimum=160, maximum=1024)

FaultFactory = Callable[..., Fault]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-table", type=Path, help="write the table of faults into this Markdown file")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = [one for some in terminalreporter.stats.values() for one in some]
    told: dict[str, list[Row]] = {}
    for report in reports:
        for name, value in getattr(report, "user_properties", ()):
            if name == "fault" and report.when == "teardown":
                heading, row = value
                told.setdefault(heading, []).append(row)
    if not told:
        return
    terminalreporter.section("faults survived")
    path = config.getoption("--faults-table")
    for heading, rows in told.items():
        for row in rows:
            terminalreporter.write_line(f"{row.fault}: {row.verdict}\n    {row.seen}")
        if path is not None:
            replace_section(path, heading, table(rows, find_accelerator().name))


@pytest.fixture
def survive(request: pytest.FixtureRequest) -> Iterator[FaultFactory]:
    """`with survive(ward, "name", "what is asserted") as fault: …`, and a line of the table for it."""
    made: list[Fault] = []
    heading = (request.module.__doc__ or "").partition(".")[0]

    def make(ward: Ward, name: str, asserted: str, **options: Any) -> Fault:
        made.append(Fault(ward, name, asserted, **options))
        return made[-1]

    yield make
    for fault in made:
        row = fault.row or Row(fault.name, fault.asserted, "", "FAILED: it could not be brought about")
        request.node.user_properties.append(("fault", (heading, row)))


def make_ward(rig: Rig, neighbour_swap: int = 0, **spec: Any) -> Ward:
    """Two guests, managed; `spec` is the victim's. The neighbour's swap in MiB."""
    victim = rig.define("victim", LIMITS, **spec)
    neighbour = rig.define("neighbour", LIMITS, swap_mib=neighbour_swap)
    rig.start(victim, neighbour)
    rig.controller.wait_managed(victim, neighbour)
    return Ward(rig, victim, neighbour)


@pytest.fixture(scope="module")
def ward(make_shared_rig: RigFactory) -> Ward:
    """A victim and a neighbour that live as long as the module."""
    rig = make_shared_rig(CAPACITY, shrink_after=2, unplug_after=2, keep_ready=32)
    return make_ward(rig)
