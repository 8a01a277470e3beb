"""What `enable` refuses, with the element named and a way out that leads to acceptance."""

import pytest

from host_controller.core.model import Growth
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.fitness.judge import refusals
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.restore import disable
from host_controller.errors import DomainUnsuitable
from tests.support.definitions import ACCEPTED, HOTADD, LIMITS, REFUSED, VIRTIO_MEM
from tests.unit.hypervisor.domains import Q35, with_backing


@pytest.mark.parametrize(("xml", "growth", "why"), REFUSED)
def test_what_cannot_be_is_refused_with_the_element_and_the_way_out(
    xml: str, growth: Growth, why: str
) -> None:
    with pytest.raises(DomainUnsuitable, match=f"(?s){why}") as refused:
        enable(xml, LIMITS, growth)
    assert refused.value.hint


@pytest.mark.parametrize(("xml", "growth", "why"), REFUSED)
def test_every_way_out_leads_on_until_it_is_accepted_and_can_be_undone(
    xml: str, growth: Growth, why: str
) -> None:
    for refusal in refusals(xml, LIMITS, growth):
        for way in refusal.ways_out:
            now = way.follow(xml, LIMITS, growth)
            for _ in range(4):
                left = refusals(*now)
                if not left:
                    break
                assert refusal.reason not in [one.reason for one in left], "the hint changed nothing"
                now = left[0].ways_out[0].follow(*now)
            after, limits, how = now
            prepared = enable(after, limits, how).xml
            assert enable(prepared, limits, how).xml == prepared
            assert disable(prepared) == after


def test_another_growth_is_only_offered_where_it_is_accepted() -> None:
    locked = with_backing(Q35, "<locked/>")
    with pytest.raises(DomainUnsuitable, match="use --growth hotadd") as refused:
        enable(locked, LIMITS, VIRTIO_MEM)
    assert "balloon" not in str(refused.value)
    enable(locked, LIMITS, HOTADD)


@pytest.mark.parametrize(("xml", "growth"), ACCEPTED)
def test_what_can_be_is_accepted_once_and_again_and_comes_back(xml: str, growth: Growth) -> None:
    prepared = enable(xml, LIMITS, growth).xml
    assert enable(prepared, LIMITS, growth).xml == prepared
    assert disable(prepared) == xml
    view = read_domain(prepared)
    assert view.config is not None
    assert view.problems == ()
