"""A VM that its operator has paused says so in its XML, which goes wherever it is moved."""

from typing import Any

import libvirt
import pytest

from host_controller.domain_xml.held import ELEMENT, NAMESPACE, PREFIX
from host_controller.domain_xml.ours import NAMESPACE as LIMITS
from host_controller.domain_xml.read import read_domain
from host_controller.hypervisor import libvirt_calls
from host_controller.hypervisor.known_vm import KnownVm
from tests.unit.hypervisor.domains import LIVE
from tests.unit.hypervisor.test_standing_mark import UUID, Connection, Domain
from tests.unit.hypervisor.test_worker import Story


def look(domain: Domain, held: bool | None) -> libvirt_calls.Inspection:
    connection: Any = Connection(domain)
    found = libvirt_calls.inspect_with_statistics(connection, UUID, 1, held=held)
    assert found is not None
    return found


def paused() -> Domain:
    domain = Domain()
    look(domain, True)
    assert look(domain, True).view.held
    return domain


def test_who_is_paused_is_marked_until_it_is_resumed_and_the_limits_are_left_as_they_are() -> None:
    domain = paused()
    assert look(domain, True).view.config == read_domain(LIVE).config
    look(domain, False)
    assert domain.xml == LIVE


def test_nothing_is_written_before_it_is_known_whether_it_is_paused() -> None:
    domain = paused().moved()
    assert look(domain, None).view.held
    assert NAMESPACE in domain.xml
    domain = Domain()
    look(domain, None)
    assert domain.xml == LIVE


def test_a_definition_that_came_by_a_migration_loses_the_mark_with_the_vm() -> None:
    domain = paused().moved()
    domain.defined = domain.xml
    look(domain, False)
    assert domain.xml == domain.defined == LIVE


def test_of_one_that_is_not_managed_any_longer_nothing_stays() -> None:
    domain = paused()
    domain.xml = domain.xml.replace(LIMITS, "urn:other")
    look(domain, True)
    assert NAMESPACE not in domain.xml
    look(domain, True)
    assert NAMESPACE not in domain.xml


def test_while_a_job_holds_it_the_mark_waits() -> None:
    domain = Domain()
    domain.job = libvirt.VIR_DOMAIN_JOB_UNBOUNDED
    look(domain, True)
    assert domain.xml == LIVE
    domain.job = libvirt.VIR_DOMAIN_JOB_NONE
    assert look(domain, True).view.config is not None
    assert NAMESPACE in domain.xml


@pytest.mark.parametrize(("booted", "came"), [(False, True), (True, False)])
def test_one_that_has_just_booted_came_from_nowhere(booted: bool, came: bool) -> None:
    known = KnownVm(UUID, lambda _: None, booted=booted)
    assert not known.came_held, "before it is described"
    known.described(look(paused(), None), state_is_fresh=True)
    assert known.came_held is came


async def test_the_mark_is_looked_after_at_once_and_only_where_it_is_not_as_it_should_be() -> None:
    story = Story()
    worker = story.worker
    worker.known.view = read_domain(LIVE)
    worker._look_due = False
    worker.mark_held(False)
    assert not worker._look_due
    worker.mark_held(True)
    assert worker._look_due
    worker.stop("the test is over", gone=False)


def test_a_mark_that_somebody_else_writes_is_read_as_one() -> None:
    named = ELEMENT.replace("<", f"<{PREFIX}:").replace("/>", f" xmlns:{PREFIX}='{NAMESPACE}' by='x'/>")
    assert read_domain(LIVE.replace("</metadata>", f"{named}</metadata>")).held
    assert not read_domain(LIVE).held
