"""What is made of a VM that answers strangely: no balloon, no figures, a definition that cannot be read."""

from typing import Any

import libvirt
import pytest

from host_controller.core.model import BalloonStats
from host_controller.hypervisor import libvirt_calls
from host_controller.hypervisor.trouble import LAST_RETRY_SECONDS, Trouble
from host_controller.units import GIB, KIB
from tests.unit.hypervisor.domains import LIVE


class Domain:
    """A running domain of libvirt's, as far as it is asked."""

    def __init__(self, figures: dict[str, int] | None = None, xml: str = LIVE) -> None:
        self._figures, self._xml = figures or {}, xml

    def jobInfo(self) -> list[int]:  # noqa: N802 # libvirt's name
        return [libvirt.VIR_DOMAIN_JOB_NONE]

    def memoryStats(self) -> dict[str, int]:  # noqa: N802 # libvirt's name
        return self._figures

    def state(self) -> list[int]:
        return [libvirt.VIR_DOMAIN_RUNNING, 0]

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802 # libvirt's name
        return self._xml

    def isPersistent(self) -> bool:  # noqa: N802 # libvirt's name
        return True

    def name(self) -> str:
        return "odd"

    def info(self) -> list[int]:
        return [1, 4 << 20, 1 << 20, 1, 0]


class Connection:
    """A connection that knows one domain."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain

    def domain(self, _uuid: str) -> Domain:
        return self._domain


def sample(**figures: int) -> libvirt_calls.Sample:
    connection: Any = Connection(Domain(figures))
    return libvirt_calls.sample(connection, "uuid")


def test_a_vm_without_a_balloon_has_no_balloon_to_tell_of() -> None:
    assert sample(rss=400_000) == libvirt_calls.Sample(None, None, None)


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"last_update": 17},  # FreeBSD answers, and says nothing
        {"last_update": 17, "available": 1 << 20, "unused": 1 << 19},  # Linux before 4.6
        {"last_update": 0, "available": 1 << 20, "usable": 1 << 19},  # the driver has never answered
        {"last_update": 17, "usable": 1 << 19},
    ],
    ids=["none", "stamp only", "no usable", "never", "no total"],
)
def test_statistics_that_say_too_little_are_none(figures: dict[str, int]) -> None:
    assert sample(actual=1 << 20, **figures) == libvirt_calls.Sample(GIB, None, None)


def test_statistics_that_say_enough_are_taken() -> None:
    found = sample(actual=1 << 20, last_update=17, available=1 << 20, usable=1 << 19)
    assert found.stats == BalloonStats(GIB, GIB // 2, 17)


@pytest.mark.parametrize(
    "xml",
    [
        "<domain",
        "<network/>",
        "",
        LIVE.replace("base='0x100000000'", "base='here'"),
        LIVE.replace('maximum="2097152"', f'maximum="{"9" * 400}"'),
        LIVE.replace("<memory unit='KiB'>917504</memory>", f"<memory unit='KiB'>{'9' * 400}</memory>"),
    ],
    ids=["cut off", "no domain", "empty", "odd base", "400 digits in metadata", "400 digits of memory"],
)
def test_a_definition_that_cannot_be_read_is_an_unmanaged_vm_with_all_of_its_ram(xml: str) -> None:
    connection: Any = Connection(Domain(xml=xml))
    found = libvirt_calls.inspect(connection, "uuid")
    assert found is not None
    assert found.view.ram_bytes >= 896 * KIB * KIB
    assert found.view.ram_bytes < 1 << 50
    assert found.view.config is None or "base" in xml
    assert found.view.problems or "base" in xml


def test_a_failure_is_told_once_and_tried_ever_later() -> None:
    trouble = Trouble()
    told, waits = zip(*(trouble.failed("sample", KeyError("actual")) for _ in range(10)), strict=True)
    assert told == (True, *[False] * 9)
    assert waits[:4] == (1.0, 2.0, 4.0, 8.0)
    assert waits[-1] == LAST_RETRY_SECONDS


def test_another_failure_is_told_and_waits_no_less_and_a_success_forgets_it() -> None:
    trouble = Trouble()
    trouble.failed("sample", KeyError("actual"))
    assert trouble.failed("sample", KeyError("usable")) == (True, 2.0)
    assert trouble.failed("inspect", KeyError("usable")) == (True, 1.0)
    assert trouble.over("sample")
    assert not trouble.over("sample")
    assert trouble.failed("sample", KeyError("usable")) == (True, 1.0)
