"""What a release must not do: shrink a guest at once, undo what its user changed, trust a record blindly."""

import re
from dataclasses import replace

import pytest
from click.testing import CliRunner

from host_controller.adoption.carry_out import Short, carry_out
from host_controller.adoption.facts import Refused
from host_controller.adoption.giving_back import Room, plan_release
from host_controller.adoption.plan import Wish, plan_adoption
from host_controller.adoption.steps import SetBalloon, WriteMetadata
from host_controller.cli import set_limits as setting
from host_controller.config.rule import RuleSection
from host_controller.core.model import ADOPTED, Growth, Limits, Trust
from host_controller.domain_xml.adopted import adopted_definition
from host_controller.domain_xml.dom import same
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.ours import metadata_element
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.restore import disable
from host_controller.errors import DomainUnsuitable
from host_controller.units import GIB, MIB
from tests.support.libvirt_domain import LibvirtDomain
from tests.support.others import SERIAL, VIRT_INSTALL, domain, inactive
from tests.unit.adoption.test_adoption import (
    CONTROLLER,
    DEFAULTS,
    RULE,
    WISH,
    Opened,
    adopt,
    clock,
    is_as,
    live,
    release,
)

VIRTIO_MEM = """<memory model='virtio-mem'>
      <target>
        <size unit='KiB'>2097152</size>
        <node>0</node>
        <block unit='KiB'>2048</block>
        <requested unit='KiB'>1048576</requested>
        <current unit='KiB'>1048576</current>
      </target>
      <alias name='virtiomem0'/>
    </memory>"""
"""Of 2 GiB, half of it plugged."""
WITH_VIRTIO_MEM = (
    domain("partly", devices=SERIAL + VIRTIO_MEM)
    .replace("<memory unit='KiB'>2097152", "<memory unit='KiB'>4194304")
    .replace("<currentMemory unit='KiB'>2097152", "<currentMemory unit='KiB'>3145728")
    .replace("migratable='on'/>", "migratable='on'><numa><cell id='0' memory='2097152'/></numa></cpu>")
)

EMPTY = WITH_VIRTIO_MEM.replace(">1048576</", ">0</").replace(">3145728</current", ">2097152</current")
BY_BALLOON = Wish(RuleSection(match=RULE.match, growth=Growth.BALLOON), DEFAULTS)


def target(one: LibvirtDomain, room: Room = CONTROLLER) -> int:
    """Where its balloon is to go in the end."""
    return next(
        step.size_bytes for step in plan_release(one.facts(), room).steps if isinstance(step, SetBalloon)
    )


def grown() -> LibvirtDomain:
    """It had 700 MiB when it was adopted, and uses all of its 2 GiB now."""
    one = LibvirtDomain(VIRT_INSTALL)
    one.has(700 * MIB)
    adopt(one)
    one.has(2 * GIB)
    return one


def test_a_guest_that_uses_more_by_now_is_not_sent_back_at_once() -> None:
    one = grown()
    with pytest.raises(Short, match=r"1\.32 GiB are too many") as short:
        release(one)
    assert "stop something in it" in (short.value.hint or "")
    assert "balloon" not in one.calls


@pytest.mark.parametrize("spare", [None, 8 * GIB])
def test_without_a_controller_no_memory_is_taken_from_a_guest_either(spare: int | None) -> None:
    one = grown()
    with pytest.raises(Refused, match="2 GiB by now, and 700 MiB when it was adopted") as refused:
        release(one, Room(False, spare))
    assert "virsh setmem installed" in (refused.value.hint or "")


def test_a_controller_of_another_libvirt_makes_no_room_and_that_is_said() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    one.has(700 * MIB)
    with pytest.raises(Refused, match=r"1\.32 GiB back") as refused:
        release(one, Room(False, GIB, of_another_libvirt=True))
    assert "the socket of this libvirt's controller" in (refused.value.hint or "")
    release(one, Room(False, 2 * GIB, of_another_libvirt=True))
    assert is_as(one, LibvirtDomain(VIRT_INSTALL))


def test_a_record_without_sizes_or_with_such_as_cannot_be_means_all_of_its_ram() -> None:
    for pattern, instead in (
        (r"(<dynmem:(memory|currentMemory) [^>]*>)\d+", r"\g<1>0"),
        (r"<dynmem:(memory|currentMemory) .*?</dynmem:\1>", ""),
        (r"(<dynmem:currentMemory [^>]*>)\d+", r"\g<1>999999999999"),
        (r"(<dynmem:currentMemory unit=)\"KiB\"", r'\g<1>"ells"'),
    ):
        one = LibvirtDomain(VIRT_INSTALL, persistent=False)
        adopt(one)
        one.live, count = re.subn(pattern, instead, live(one))
        assert count
        assert target(one) == 2 * GIB


def test_what_its_user_changed_in_its_definition_since_stays() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    assert one.defined is not None
    one.defined = changed_by_its_user(one.defined)
    release(one)
    assert same(one.defined, changed_by_its_user(inactive(VIRT_INSTALL)))


def test_what_its_user_changes_in_its_definition_while_its_guest_is_waited_for_stays() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    one.has(700 * MIB)

    def edit() -> None:
        assert one.defined is not None
        one.defined = changed_by_its_user(one.defined)

    one.later = [(0.2, edit)]
    release(one)
    assert one.defined is not None
    assert same(one.defined, changed_by_its_user(inactive(VIRT_INSTALL)))


def test_one_that_is_undefined_while_its_guest_is_waited_for_is_not_defined_again() -> None:
    one, before = LibvirtDomain(VIRT_INSTALL), LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    one.has(700 * MIB)
    one.later = [(0.2, lambda: setattr(one, "defined", None))]
    release(one)
    assert one.defined is None
    assert same(live(one), live(before))


def changed_by_its_user(definition: str) -> str:
    """Twice the RAM, and another balloon; what our record says of them stays."""
    definition = re.sub(r"(\n  <(?:memory|currentMemory) unit='KiB'>)2097152", r"\g<1>4194304", definition)
    return definition.replace(
        "\n    <memballoon model='virtio'>", "\n    <memballoon model='virtio' autodeflate='on'>"
    )


def test_one_that_was_started_with_more_ram_since_gets_all_of_that() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    one.live = re.sub(r"(<(?:memory|currentMemory) unit='KiB'>)2097152", r"\g<1>4194304", live(one))
    one.has(3 * GIB)
    plan = plan_release(one.facts(), CONTROLLER)
    assert target(one) == 4 * GIB
    assert any("not what it was" in note for note in plan.notes)


def test_by_its_balloon_alone_no_vm_is_taken_on_that_has_memory_beside_it() -> None:
    with pytest.raises(Refused, match="beside what a balloon"):
        adopt(LibvirtDomain(WITH_VIRTIO_MEM), BY_BALLOON)


@pytest.mark.parametrize(("wish", "growth"), [(WISH, Growth.VIRTIO_MEM), (BY_BALLOON, Growth.BALLOON)])
def test_a_virtio_mem_device_that_is_empty_is_empty_again(wish: Wish, growth: Growth) -> None:
    one, before = LibvirtDomain(EMPTY), LibvirtDomain(EMPTY)
    assert adopt(one, wish).growth is growth
    one.has(700 * MIB)
    release(one)
    assert is_as(one, before)


@pytest.mark.parametrize("has_mib", [0, 300, 2048])
def test_a_device_that_the_vm_came_with_is_given_back_at_the_size_that_it_had(has_mib: int) -> None:
    one, before = LibvirtDomain(WITH_VIRTIO_MEM), LibvirtDomain(WITH_VIRTIO_MEM)
    adopted = adopt(one)
    assert (adopted.growth, adopted.limits.maximum_bytes) == (Growth.VIRTIO_MEM, 4 * GIB)
    one.asked(has_mib * MIB)
    one.plugged(has_mib * MIB)
    release(one)
    assert is_as(one, before)


def test_memory_of_its_device_that_cannot_be_had_is_said() -> None:
    one = LibvirtDomain(WITH_VIRTIO_MEM)
    adopt(one)
    one.asked(0)
    one.plugged(0)
    with pytest.raises(Refused, match="it is to have 1 GiB back"):
        release(one, Room(False, 512 * MIB))
    one.stuck = True
    with pytest.raises(Short, match="1 GiB are missing"):
        release(one)


def test_memory_in_its_device_beside_a_balloon_that_is_not_empty_is_refused_with_both_ways_out() -> None:
    one = LibvirtDomain(WITH_VIRTIO_MEM)
    one.has(2 * GIB)
    with pytest.raises(Refused, match="could not be kept") as refused:
        adopt(one)
    hint = refused.value.hint or ""
    assert "virsh setmem --live partly 2097152" in hint
    assert "virsh update-memory-device --live --requested-size 0 partly" in hint


def test_the_device_of_an_adopted_vm_is_its_users_whatever_becomes_of_its_definition() -> None:
    one = LibvirtDomain(EMPTY)
    adopt(one)
    assert one.defined is not None
    assert same(disable(one.defined), inactive(EMPTY))
    limits = Limits(GIB, 512 * MIB, 2 * GIB)
    assert "model='virtio-mem'" in enable(one.defined, limits, Growth.BALLOON).xml.replace('"', "'")
    for growth in (Growth.HOTADD, Growth.VIRTIO_MEM):
        with pytest.raises(DomainUnsuitable, match="a memory device of its own"):
            enable(one.defined, limits, growth)


def test_what_is_owed_while_it_is_given_back_is_not_taken_for_its_limits() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    one.has(700 * MIB)
    managed = live(one)
    owed = plan_release(one.facts(), CONTROLLER).steps[0]
    one.write_metadata(owed.element)  # type: ignore[union-attr] # the controller is told first
    undo = plan_release(one.facts(), CONTROLLER).undo  # the first `release` was killed
    assert undo is not None
    one.write_metadata(undo.element(live(one), one.defined))
    assert same(live(one), managed)


@pytest.mark.parametrize("persistent", [True, False])
def test_what_is_set_while_its_guest_is_waited_for_stays_where_its_memory_cannot_be_had(
    persistent: bool,
) -> None:
    one = LibvirtDomain(VIRT_INSTALL, persistent=persistent)
    adopt(one)
    one.has(700 * MIB)
    config = read_domain(live(one)).config
    assert config is not None
    wanted = replace(config.limits, weight=700, buffer_percent=35)
    plan = plan_release(one.facts(), CONTROLLER)

    def set_limits() -> None:
        """As `dynmem set --weight 700 --buffer 35 --trust none` does."""
        owed = read_domain(live(one)).config
        assert owed is not None
        changed = replace(owed.limits, weight=700, buffer_percent=35)
        one.write_metadata(metadata_element(changed, owed.growth, Trust.NONE, live(one)))
        if one.defined is not None:
            one.defined = adopted_definition(one.defined, wanted, owed.growth, Trust.NONE, whole=False)

    one.stuck, one.later = True, [(5.0, set_limits)]
    with pytest.raises(Short):
        carry_out("vm", plan.steps, one, lambda text: None, clock(one), "again")
    assert plan.undo is not None
    one.write_metadata(plan.undo.element(live(one), one.defined))
    found = read_domain(live(one)).config
    assert found is not None
    assert (found.limits, found.trust, found.source) == (wanted, Trust.NONE, ADOPTED)


def test_limits_that_were_set_meanwhile_and_contradict_those_of_before_make_sense_together() -> None:
    one = LibvirtDomain(VIRT_INSTALL, persistent=False)
    adopt(one)
    undo = plan_release(one.facts(), CONTROLLER).undo
    assert undo is not None
    for changed in (
        {"minimum_bytes": undo.before.limits.startup_bytes + MIB},
        {"maximum_bytes": undo.before.limits.minimum_bytes - MIB},
    ):
        limits = replace(undo.owed, **changed)
        element = metadata_element(limits, undo.before.growth, undo.before.trust, live(one))
        one.write_metadata(element)
        one.write_metadata(undo.element(live(one), None))
        found = read_domain(live(one)).config
        assert found is not None
        assert not found.limits.problems()


def test_one_that_was_let_go_and_does_not_follow_to_the_end_is_managed_as_before() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    managed = live(one)
    plan = plan_release(one.facts(), CONTROLLER)
    done = next(at for at, step in enumerate(plan.steps) if step.say == "it is managed no more")
    carry_out("vm", plan.steps[: done + 1], one, lambda text: None, clock(one), "again")
    assert read_domain(live(one)).config is None
    assert plan.undo is not None
    one.write_metadata(plan.undo.element(live(one), one.defined))
    assert read_domain(live(one)).config == read_domain(managed).config


def being_released(monkeypatch: pytest.MonkeyPatch, *, persistent: bool = True) -> LibvirtDomain:
    """Adopted with 700 MiB in use, and owed all that it had by a release that waits for it."""
    one = LibvirtDomain(VIRT_INSTALL, persistent=persistent)
    adopt(one)
    one.has(700 * MIB)
    first = plan_release(one.facts(), CONTROLLER).steps[0]
    assert isinstance(first, WriteMetadata)
    one.write_metadata(first.element)
    monkeypatch.setattr(setting, "Definitions", lambda uri: Opened(one))
    return one


def limits_of(xml: str | None) -> Limits:
    config = read_domain(xml or "").config
    assert config is not None
    return config.limits


def test_other_limits_do_not_take_from_a_release_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were in force at once: nobody gave the VM its memory any more, and the release ended as short."""
    one = being_released(monkeypatch)
    owed = live(one)
    told = CliRunner().invoke(setting.set_limits, ["installed", "--minimum", "256M", "--weight", "7"])
    assert told.output.endswith("if it stays managed: `dynmem release` is giving it back\n"), told.exception
    assert live(one) == owed
    assert limits_of(one.defined).minimum_bytes == 256 * MIB
    undo = plan_release(one.facts(), CONTROLLER).undo
    assert undo is not None
    one.write_metadata(undo.element(live(one), one.defined))
    assert limits_of(live(one)) == limits_of(one.defined), "should it stay managed"
    release(one)
    assert is_as(one, LibvirtDomain(VIRT_INSTALL))


@pytest.mark.parametrize("persistent", [True, False])
def test_a_release_that_was_cut_off_is_taken_back_by_adopting_again(
    monkeypatch: pytest.MonkeyPatch, persistent: bool
) -> None:
    one = being_released(monkeypatch, persistent=persistent)
    if not persistent:
        told = CliRunner().invoke(setting.set_limits, ["installed", "--minimum", "256M"])
        assert "it is being given back" in str(told.exception)
        assert "`dynmem adopt installed` keeps it" in str(told.exception)
    assert "it is managed as before" in [step.say for step in adopt(one).steps]
    if persistent:
        assert limits_of(live(one)) == limits_of(one.defined)
    assert plan_adoption(one.facts(), WISH).steps == ()
    assert CliRunner().invoke(setting.set_limits, ["installed", "--weight", "7"]).exception is None
    assert limits_of(live(one)).weight == 7
    release(one)
    assert "dynmem" not in live(one)
