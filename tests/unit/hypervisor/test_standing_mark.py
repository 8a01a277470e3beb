"""A VM that a controller has stopped after a reset says so in its XML, which goes wherever it is moved."""

import re
from typing import Any

import libvirt
import pytest

from host_controller.core.interface import HypervisorEvent, JobChanged, Resume, Suspend
from host_controller.core.model import RunState
from host_controller.domain_xml.ours import NAMESPACE as LIMITS
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.standing import NAMESPACE, Mark, element
from host_controller.hypervisor import libvirt_calls
from host_controller.hypervisor.jobs import INCOMING
from host_controller.hypervisor.known_vm import KnownVm
from tests.unit.hypervisor.domains import LIVE

UUID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
STOPPED_AT = 12.25


class Domain:
    """A running domain of libvirt's, transient as long as it is not `defined`."""

    def __init__(self, xml: str = LIVE, *, runs: bool = True, vcpu_seconds: float = STOPPED_AT) -> None:
        self.xml, self.defined, self.runs, self.vcpu_seconds = xml, "", runs, vcpu_seconds
        self.job, self.refuses = libvirt.VIR_DOMAIN_JOB_NONE, False

    def moved(self) -> "Domain":
        """The same VM in another QEMU, as it is: paused where it was paused."""
        return Domain(self.xml, runs=self.runs, vcpu_seconds=0.0)

    @property
    def marked(self) -> bool:
        return NAMESPACE in self.xml

    # --- libvirt's ---

    def state(self) -> list[int]:
        return [libvirt.VIR_DOMAIN_RUNNING if self.runs else libvirt.VIR_DOMAIN_PAUSED, 1]

    def suspend(self) -> None:
        self.runs = False

    def resume(self) -> None:
        self.runs = True

    def vcpus(self) -> tuple[list[tuple[int, int, int, int]], list[Any]]:
        return [(0, 1, round(self.vcpu_seconds * 1e9), 0)], []

    def jobInfo(self) -> list[int]:  # noqa: N802 # libvirt's name
        return [self.job]

    def jobStats(self) -> dict[str, int]:  # noqa: N802 # libvirt's name
        return {"operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN}

    def XMLDesc(self, flags: int) -> str:  # noqa: N802 # libvirt's name
        return self.defined if flags & libvirt.VIR_DOMAIN_XML_INACTIVE else self.xml

    def isPersistent(self) -> bool:  # noqa: N802 # libvirt's name
        return bool(self.defined)

    def name(self) -> str:
        return "odd"

    def setMemoryStatsPeriod(self, *_: int) -> None: ...  # noqa: N802 # libvirt's name

    def setMetadata(self, _kind: int, text: str | None, key: str, uri: str, flags: int) -> None:  # noqa: N802
        if self.refuses:
            raise libvirt.libvirtError("no")
        if flags & libvirt.VIR_DOMAIN_AFFECT_LIVE:
            self.xml = _with(self.xml, text, key, uri)
        if flags & libvirt.VIR_DOMAIN_AFFECT_CONFIG:
            self.defined = _with(self.defined, text, key, uri)


def _with(xml: str, text: str | None, key: str, uri: str) -> str:
    xml = re.sub(rf"<{key}:[^>]*/>", "", xml)
    if text is None:
        return xml
    named = re.sub(r"<(\w+)", rf'<{key}:\1 xmlns:{key}="{uri}"', text, count=1)
    return xml.replace("</metadata>", f"{named}</metadata>")


class Connection:
    """A connection that knows one domain."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain

    def domain(self, _uuid: str) -> Domain:
        return self._domain


def look(domain: Domain) -> libvirt_calls.Inspection:
    connection: Any = Connection(domain)
    found = libvirt_calls.inspect_with_statistics(connection, UUID, 1)
    assert found is not None
    return found


def command(domain: Domain, one: Suspend | Resume) -> libvirt_calls.Done:
    connection: Any = Connection(domain)
    return libvirt_calls.carry_out(connection, one, 2.0)


def stopped() -> Domain:
    domain = Domain()
    assert command(domain, Suspend(UUID, 1)).vcpu_seconds == STOPPED_AT
    return domain


def test_who_is_stopped_is_marked_until_it_is_let_run_and_the_limits_are_left_as_they_are() -> None:
    domain = stopped()
    assert domain.marked
    assert look(domain).stands_for_us
    assert look(domain).view.config == read_domain(LIVE).config
    command(domain, Resume(UUID, 2))
    assert domain.runs
    assert domain.xml == LIVE


def test_wherever_it_is_moved_it_is_known_to_stand_still_for_us() -> None:
    assert look(stopped().moved()).stands_for_us


def test_one_that_nobody_marked_stands_still_by_its_users_wish() -> None:
    assert not look(Domain(runs=False)).stands_for_us


@pytest.mark.parametrize("paused_again", [False, True])
def test_whoever_lets_it_run_has_the_mark_taken_off_also_when_it_is_paused_again(paused_again: bool) -> None:
    domain = stopped()
    domain.runs, domain.vcpu_seconds = not paused_again, STOPPED_AT + 3
    assert not look(domain).stands_for_us
    assert not domain.marked
    assert domain.runs is not paused_again
    assert not look(domain.moved()).stands_for_us


def test_a_definition_that_came_by_a_migration_loses_the_mark_with_the_vm() -> None:
    domain = stopped().moved()
    domain.defined = domain.xml
    command(domain, Resume(UUID, 2))
    assert domain.xml == domain.defined == LIVE


def test_who_is_not_managed_where_it_arrives_or_any_longer_is_let_run() -> None:
    domain = stopped().moved()
    domain.xml = domain.xml.replace(LIMITS, "urn:other")
    domain.job = libvirt.VIR_DOMAIN_JOB_UNBOUNDED
    assert look(domain).view.config is None
    assert not domain.runs, "it is on its way yet"
    domain.job = libvirt.VIR_DOMAIN_JOB_NONE
    look(domain)
    assert domain.runs
    assert not domain.marked


def test_one_that_cannot_be_let_run_is_known_all_the_same() -> None:
    """Else nobody would count what it holds."""
    domain = stopped()
    domain.xml = domain.xml.replace(LIMITS, "urn:other")

    def refuse() -> None:
        raise libvirt.libvirtError("its disk is full")

    domain.resume = refuse  # type: ignore[method-assign]
    assert look(domain).view.ram_bytes
    assert domain.marked, "it is tried again at the next look"


def test_one_that_its_user_has_paused_and_nobody_manages_stays_paused() -> None:
    domain = stopped()
    domain.xml = domain.xml.replace(LIMITS, "urn:other")
    domain.vcpu_seconds += 3
    look(domain)
    assert not domain.runs


def test_while_a_job_holds_it_no_mark_is_written_or_taken_off() -> None:
    """Libvirt would keep the call, and with it all of the VM's others, for half a minute."""
    domain = Domain()
    domain.job = libvirt.VIR_DOMAIN_JOB_UNBOUNDED
    command(domain, Suspend(UUID, 1))
    assert (domain.runs, domain.marked) == (False, False)
    domain = stopped()
    domain.job = libvirt.VIR_DOMAIN_JOB_UNBOUNDED
    command(domain, Resume(UUID, 1))
    assert (domain.runs, domain.marked) == (True, True)
    domain.job = libvirt.VIR_DOMAIN_JOB_NONE
    look(domain)
    assert not domain.marked


def test_a_mark_that_cannot_be_written_costs_nothing_else() -> None:
    domain = Domain()
    domain.refuses = True
    assert command(domain, Suspend(UUID, 1)).vcpu_seconds == STOPPED_AT
    assert not domain.runs


def test_of_one_that_arrives_the_job_is_told_with_its_appearance() -> None:
    """Before its first sample it may be told to run; libvirt would keep that until it is there."""
    domain = stopped().moved()
    domain.job = libvirt.VIR_DOMAIN_JOB_UNBOUNDED
    told: list[HypervisorEvent] = []
    known = KnownVm(UUID, told.append, booted=False)
    known.described(look(domain), state_is_fresh=True)
    assert told[1:] == [JobChanged(UUID, INCOMING)]


@pytest.mark.parametrize("said", ['vcpu-ms="-1"', f'vcpu-ms="{"9" * 400}"', 'vcpu-ms="x"', "", "other='1'"])
def test_what_a_mark_says_may_be_anything(said: str) -> None:
    xml = LIVE.replace("</metadata>", f"<s:still xmlns:s='{NAMESPACE}' {said}/></metadata>")
    mark = read_domain(xml).standing
    assert mark == Mark(0.0)
    assert mark.holds(0.0)
    assert not mark.holds(5.0)


def test_a_vm_of_which_libvirt_tells_no_processor_time_is_taken_for_stopped_by_us() -> None:
    assert "vcpu-ms" in element(None)
    assert Mark(0.0).holds(None)
    assert RunState.PAUSED is look(stopped()).state
