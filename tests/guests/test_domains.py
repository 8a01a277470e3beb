"""Definitions of every kind under a real libvirt and QEMU. What is accepted starts, grows, shrinks and comes
back; what is refused has ways out, each of which is followed until something starts. Nothing boots.
"""

from collections import Counter

import libvirt
import pytest

from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.fitness.judge import refusals
from lab.domains.__main__ import known_machines
from lab.domains.trial import INACTIVE, Bench, Verdict
from lab.lab import Lab
from tests.support.definitions import ACCEPTED, HOTADD, LIMITS, REFUSED, startable
from tests.support.slots import FULL, ROOMY
from tests.unit.hypervisor.domains import Q35

pytestmark = pytest.mark.bootless


@pytest.fixture(scope="module")
def bench(lab: Lab) -> Bench:
    place = lab.directory / "definitions"
    place.mkdir()
    lab.account.own(place)
    connection = lab.session.connection()
    return Bench(connection, lab.accelerator.domain_type, place, known_machines(connection))


def test_what_is_accepted_starts_grows_shrinks_and_comes_back(bench: Bench) -> None:
    outcomes = [bench.try_domain(startable(xml), growth, LIMITS) for xml, growth in ACCEPTED]
    assert [one.said for one in outcomes if one.verdict not in (Verdict.RIGHT, Verdict.ON_PAPER)] == []
    print(f"\n{dict(Counter(str(one.verdict) for one in outcomes))}")
    assert sum(one.verdict is Verdict.RIGHT for one in outcomes) > len(outcomes) // 2


def test_every_hint_is_followed_and_what_comes_of_it_starts(bench: Bench) -> None:
    outcomes = [bench.try_domain(startable(xml), growth, LIMITS) for xml, growth, _ in REFUSED]
    assert [one.said for one in outcomes if one.verdict is not Verdict.REFUSED] == []


def test_a_domain_that_enable_spoils_is_found_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.domains.trial.refusals", lambda *_: ())
    outcome = bench.try_domain(startable(Q35.replace("    <acpi/>\n", "")), HOTADD)
    assert outcome.verdict is Verdict.WRONG
    assert "ACPI" in outcome.said[0]


def test_libvirt_has_a_slot_where_enable_finds_one_or_a_way_to_one_and_else_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    defined = bench.connection.defineXML
    for xml, growth in ROOMY:
        defined(enable(defined(xml).XMLDesc(INACTIVE), LIMITS, growth).xml)
    for xml, growth, _ in FULL:
        (refused,) = refusals(defined(xml).XMLDesc(INACTIVE), LIMITS, growth)
        after, *asked = refused.ways_out[-1].follow(xml, LIMITS, growth)
        defined(enable(defined(after).XMLDesc(INACTIVE), *asked).xml)
        with monkeypatch.context() as unchecked:
            unchecked.setattr("host_controller.domain_xml.edit.refusals", lambda *_: ())
            prepared = enable(defined(xml).XMLDesc(INACTIVE), LIMITS, growth).xml
        with pytest.raises(libvirt.libvirtError, match="PCI"):
            defined(prepared)
    bench.connection.lookupByName("crowded").undefine()


def test_what_is_no_domain_is_none(bench: Bench) -> None:
    assert bench.try_domain("<network/>", HOTADD).verdict is Verdict.NO_DOMAIN
