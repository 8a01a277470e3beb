"""Domains that run are taken on and given back: and it may be cut off anywhere."""

import tomllib
from dataclasses import replace

import pytest
from click.testing import CliRunner

from host_controller.adoption.carry_out import Clock, CutOff, Short, carry_out
from host_controller.adoption.facts import ManagedAlready, Refused
from host_controller.adoption.giving_back import Room, plan_release
from host_controller.adoption.owners import owner_of
from host_controller.adoption.plan import Adoption, Wish, plan_adoption
from host_controller.adoption.steps import AskStatistics, Define, PlugChannel, WriteMetadata
from host_controller.cli import set_limits as setting
from host_controller.config.amount import Share
from host_controller.config.rule import MatchSection, RuleSection
from host_controller.core.model import ADOPTED, METADATA, Growth, Limits, Trust
from host_controller.domain_xml.adopted import adopted_definition
from host_controller.domain_xml.dom import same
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.host_abilities import HostAbilities
from host_controller.domain_xml.ours import metadata_element
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.restore import restore
from host_controller.domain_xml.values import parse_xml
from host_controller.errors import DomainUnsuitable
from host_controller.rules.matching import Subject, fits
from host_controller.units import GIB, MIB
from tests.support.libvirt_domain import LibvirtDomain
from tests.support.others import (
    BALLOON,
    COCKPIT,
    GUEST_AGENT,
    KUBEVIRT,
    NOVA,
    OPENNEBULA,
    OVIRT,
    SERIAL,
    TERRAFORM,
    VAGRANT,
    VIRT_INSTALL,
    domain,
    inactive,
)
from tests.support.slots import rng
from tests.unit.rules.test_rules import passing

DEFAULTS = Limits(GIB, 512 * MIB, 4 * GIB)
RULE = RuleSection(match=MatchSection(name="*"))
WISH = Wish(RULE, DEFAULTS)
CONTROLLER = Room(controller=True)
ROOT = "<controller type='pci' index='0' model='pcie-root'/>"
ROOM = "<maxMemory slots='4' unit='KiB'>8388608</maxMemory>"
OWN_DIMM = "<memory model='dimm'><target><size unit='KiB'>524288</size><node>0</node></target></memory>"
ALL_CHECKS = frozenset({"hot add", "online", "unplug", "virtio-mem"})
SELDOM = domain("seldom", balloon=BALLOON.replace("<alias", "<stats period='60'/><alias"))
"""As CloudStack has it."""
ADOPTABLE = [VIRT_INSTALL, TERRAFORM, COCKPIT, SELDOM, domain("bare", devices="")]


def plan(one: LibvirtDomain, wish: Wish = WISH) -> Adoption:
    return plan_adoption(one.facts(), wish)


def adopt(one: LibvirtDomain, wish: Wish = WISH) -> Adoption:
    made = plan(one, wish)
    carry_out("vm", made.steps, one, lambda text: None, clock(one), "again")
    return made


def release(one: LibvirtDomain, room: Room = CONTROLLER) -> None:
    made = plan_release(one.facts(), room)
    carry_out("vm", made.steps, one, lambda text: None, clock(one), "again")


def clock(one: LibvirtDomain) -> Clock:
    return Clock(lambda: one.now, one.sleep, 60.0)


def live(one: LibvirtDomain) -> str:
    assert one.live is not None
    return one.live


def is_as(one: LibvirtDomain, before: LibvirtDomain) -> bool:
    assert one.defined is not None
    assert before.defined is not None
    return same(live(one), live(before)) and same(one.defined, before.defined)


@pytest.mark.parametrize("xml", ADOPTABLE)
def test_what_runs_is_managed_within_its_ram_and_its_definition_has_the_same(xml: str) -> None:
    one = LibvirtDomain(xml)
    adopt(one)
    for text in (live(one), one.defined):
        assert text is not None
        config = read_domain(text).config
        assert config is not None
        limits = config.limits
        assert (config.source, config.growth) == (ADOPTED, Growth.BALLOON)
        assert (limits.minimum_bytes, limits.startup_bytes, limits.maximum_bytes) == (
            512 * MIB,
            2 * GIB,
            2 * GIB,
        )
        assert read_domain(text).stats_period == 1, "by figures of a minute ago nobody goes"


@pytest.mark.parametrize("xml", ADOPTABLE)
def test_released_it_is_as_it_was_live_and_in_its_definition(xml: str) -> None:
    one, before = LibvirtDomain(xml), LibvirtDomain(xml)
    adopt(one)
    one.has(700 * MIB)
    release(one)
    assert is_as(one, before)


def test_a_balloon_that_was_not_empty_goes_back_to_where_it_was() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    one.has(1500 * MIB)
    before = live(one)
    adopt(one)
    one.has(600 * MIB)
    release(one)
    assert same(live(one), before)


def test_adopting_twice_changes_nothing_more() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    assert plan(one).steps != ()
    adopt(one)
    assert plan(one).steps == ()
    assert plan(
        one, replace(WISH, rule=RuleSection(match=RULE.match, minimum=Share(50)))
    ).limits.minimum_bytes == (512 * MIB)


@pytest.mark.parametrize("number", range(1, 5))
def test_adopting_that_is_cut_off_anywhere_is_finished_by_doing_it_again(number: int) -> None:
    one, whole = LibvirtDomain(VIRT_INSTALL), LibvirtDomain(VIRT_INSTALL)
    adopt(whole)
    one.fail_at = number
    with pytest.raises(CutOff, match="again"):
        adopt(one)
    adopt(one)
    assert is_as(one, whole)


@pytest.mark.parametrize("number", range(1, 5))
def test_adopting_that_is_cut_off_anywhere_is_undone_by_releasing(number: int) -> None:
    one, before = LibvirtDomain(VIRT_INSTALL), LibvirtDomain(VIRT_INSTALL)
    one.fail_at = number
    with pytest.raises(CutOff):
        adopt(one)
    if number == 1:
        with pytest.raises(Refused, match="not adopted"):
            release(one)
    else:
        release(one)
    assert is_as(one, before)


@pytest.mark.parametrize("number", range(1, 8))
def test_releasing_that_is_cut_off_anywhere_is_finished_by_doing_it_again(number: int) -> None:
    one, before = LibvirtDomain(VIRT_INSTALL), LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    one.has(700 * MIB)
    one.fail_at = len(one.calls) + number
    with pytest.raises(CutOff):
        release(one)
    release(one)
    assert is_as(one, before)


def test_a_vm_that_is_let_go_is_managed_no_more_and_not_by_a_rule_either() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    one.fail_at = len(one.calls) + 5  # after it was let go
    with pytest.raises(CutOff):
        release(one)
    view = read_domain(live(one), one.defined)
    assert (view.config, view.claimed) == (None, True)


def test_memory_that_cannot_be_had_is_said_and_the_vm_stays_managed() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    one.has(700 * MIB)
    managed = live(one)
    one.stuck = True
    made = plan_release(one.facts(), CONTROLLER)
    with pytest.raises(Short, match=r"700 MiB of 2 GiB: 1\.32 GiB are missing"):
        carry_out("vm", made.steps, one, lambda text: None, clock(one), "again")
    assert made.undo is not None
    one.write_metadata(made.undo.element(live(one), one.defined))
    assert same(live(one), managed)


def with_dimms(count: int) -> LibvirtDomain:
    """Adopted, and grown by DIMMs since."""
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    one.plug(count)
    return one


def test_a_dimm_that_stays_is_said_and_the_vm_stays_managed_until_it_is_released_again() -> None:
    one = with_dimms(1)
    managed = live(one)
    made = plan_release(one.facts(), CONTROLLER)
    with pytest.raises(Short, match="after 60 s it has 2 GiB of 2 GiB: 1 DIMM is still in it;"):
        carry_out("vm", made.steps, one, lambda text: None, clock(one), "again")
    assert made.undo is not None
    one.write_metadata(made.undo.element(live(one), one.defined))
    assert same(live(one), managed)
    one.plug(-1)
    release(one)
    assert is_as(one, LibvirtDomain(VIRT_INSTALL))


def test_without_a_controller_no_vm_is_released_with_a_dimm_in_it() -> None:
    one = with_dimms(2)
    managed = live(one)
    with pytest.raises(Refused, match="2 DIMMs have been plugged") as refused:
        release(one, Room(False, 8 * GIB))
    assert "start the controller" in (refused.value.hint or "")
    assert live(one) == managed
    one.plug(-2)
    release(one, Room(False, 8 * GIB))
    assert is_as(one, LibvirtDomain(VIRT_INSTALL))


def test_dimms_leave_one_by_one_and_each_has_the_whole_time() -> None:
    one = with_dimms(3)
    one.later = [(at, lambda: one.plug(-1)) for at in (50.0, 100.0, 150.0)]
    release(one)
    assert is_as(one, LibvirtDomain(VIRT_INSTALL))


def test_a_released_balloon_is_shown_where_it_is_though_libvirt_hears_late_of_an_older_move() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    before = live(one)
    adopt(one)
    one.later = [(0.9, lambda: one.shows(2304 * MIB))]
    release(one)
    assert one.later == []
    assert one.shown_bytes() == one.actual_bytes() == read_domain(before).actual_bytes
    assert one.calls.count("balloon") == 3, "to where it was, a bit away, and back"


def test_a_balloon_that_does_not_follow_is_released_all_the_same() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    one.later = [(0.9, lambda: one.shows(2304 * MIB))]
    one.stuck = True
    release(one)
    assert one.now < 20.0
    assert "dynmem" not in live(one)


@pytest.mark.parametrize("spare", [None, GIB])
def test_without_a_controller_memory_is_given_back_only_as_far_as_the_host_has_it(spare: int | None) -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    one.has(700 * MIB)
    with pytest.raises(Refused, match=r"1\.32 GiB back"):
        release(one, Room(False, spare))
    release(one, Room(False, 2 * GIB))
    assert is_as(one, LibvirtDomain(VIRT_INSTALL))


def test_one_that_is_off_by_now_gets_its_definition_back() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    one.stop()
    release(one)
    assert one.defined is not None
    assert same(one.defined, inactive(VIRT_INSTALL))


def test_disable_gives_an_adopted_definition_back_too() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    assert one.defined is not None
    assert same(restore(one.defined).xml, inactive(VIRT_INSTALL))


def test_other_limits_of_an_adopted_vm_leave_its_memory_and_what_is_recorded() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    assert one.defined is not None
    other = Limits(2 * GIB, GIB, 2 * GIB, weight=7)
    one.write_metadata(metadata_element(other, Growth.BALLOON, Trust.GUEST, live(one)))
    one.define(adopted_definition(one.defined, other, Growth.BALLOON, Trust.GUEST, whole=False))
    for text in (live(one), one.defined):
        config = read_domain(text).config
        assert config is not None
        assert (config.source, config.limits, config.boot_ram_bytes) == (ADOPTED, other, 2 * GIB)
    release(one)
    assert is_as(one, LibvirtDomain(VIRT_INSTALL))


def test_what_its_user_has_changed_since_it_was_adopted_stays() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    assert one.defined is not None
    one.defined = one.defined.replace(">2097152<", ">4194304<")
    release(one)
    assert same(one.defined, inactive(VIRT_INSTALL).replace(">2097152<", ">4194304<"))


def test_a_vm_that_ends_in_the_middle_is_told_with_the_way_on() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    steps = plan(one).steps
    one.stop()
    with pytest.raises(CutOff, match="not running"):
        carry_out("vm", steps, one, lambda text: None, clock(one), "again")


def test_the_steps_are_limits_first_and_the_port_last() -> None:
    kinds = [type(step) for step in plan(LibvirtDomain(VIRT_INSTALL)).steps]
    assert kinds == [WriteMetadata, Define, AskStatistics, PlugChannel]


def test_without_a_free_port_statistics_serve_until_its_next_start() -> None:
    for devices in ("", SERIAL.replace("index='0'", "index='0' ports='2'") + GUEST_AGENT):
        one = LibvirtDomain(domain("bare", devices=devices))
        made = adopt(one)
        assert not any(isinstance(step, PlugChannel) for step in made.steps)
        assert "no free virtio-serial port" in made.later[0]
        assert "org.dynmem" in (one.defined or "") or "dynmem" in (one.defined or "")
        assert plan(one).steps == ()


def test_where_no_slot_is_left_for_the_agents_port_the_rest_is_adopted_and_that_is_said() -> None:
    one = LibvirtDomain(domain("bare", devices=ROOT + "".join(rng(0, slot) for slot in range(1, 31))))
    before = LibvirtDomain(live(one))
    made = adopt(one)
    assert "org.dynmem" not in (one.defined or "")
    assert "its PCI bus has no slot left" in made.later[0]
    assert "the agent's port" not in "".join(step.say for step in made.steps)
    release(one)
    assert is_as(one, before)


@pytest.mark.parametrize("state", ["connected", "disconnected"])
@pytest.mark.parametrize("allowed", [True, False])
def test_that_a_vm_will_be_tainted_is_said_before_with_the_way_to_do_without(
    state: str, allowed: bool
) -> None:
    one = LibvirtDomain(VIRT_INSTALL.replace("state='disconnected'", f"state='{state}'"))
    said = "; ".join(plan(one, replace(WISH, guest_agents=allowed)).now)
    assert ("custom-ga-command" in said) == (state == "connected" and allowed)
    assert ("[libvirt] guest_agent = false" in said) == (state == "connected" and allowed)


def test_a_transient_domain_is_adopted_until_it_stops() -> None:
    one = LibvirtDomain(VIRT_INSTALL, persistent=False)
    made = adopt(one)
    assert made.later == ("it is transient: what is written is gone when it stops",)
    release(one)
    assert same(live(one), VIRT_INSTALL)


def test_its_next_start_can_be_prepared_as_enable_does_it() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    # By the way to grow that enable chooses.
    adopt(one, Wish(RULE, DEFAULTS, next_start=True, startup_bytes=GIB))
    assert one.defined is not None
    prepared = read_domain(one.defined).config
    running = read_domain(live(one)).config
    assert prepared is not None
    assert running is not None
    assert (prepared.source, prepared.boot_ram_bytes) == (METADATA, 512 * MIB), "the least that works"
    assert prepared.growth is Growth.VIRTIO_MEM
    assert (running.source, running.growth, running.boot_ram_bytes) == (ADOPTED, Growth.BALLOON, 2 * GIB)
    assert plan(one, Wish(RULE, DEFAULTS, next_start=True, startup_bytes=GIB)).steps == ()
    release(one)
    assert is_as(one, LibvirtDomain(VIRT_INSTALL))


@pytest.mark.parametrize(
    ("xml", "owner"),
    [
        (NOVA, "nova"),
        (OVIRT, "oVirt"),
        (KUBEVIRT, "KubeVirt"),
        (OPENNEBULA, "OpenNebula"),
        (VAGRANT, "Vagrant"),
        (VIRT_INSTALL, None),
        (TERRAFORM, None),
        (COCKPIT, None),
    ],
)
def test_a_domain_that_another_tool_writes_is_left_to_rules(xml: str, owner: str | None) -> None:
    assert owner_of(parse_xml(xml)) == owner
    if owner is not None:
        with pytest.raises(Refused, match=f"belongs to {owner}") as refused:
            plan(LibvirtDomain(xml))
        assert "[[rule]]" in (refused.value.hint or "")


def test_what_enable_prepared_is_not_adopted_and_not_released() -> None:
    prepared = enable(inactive(VIRT_INSTALL), DEFAULTS, Growth.HOTADD).xml
    one = LibvirtDomain(prepared)
    with pytest.raises(Refused, match="managed already"):
        plan(one)
    with pytest.raises(Refused, match="dynmem disable"):
        plan_release(one.facts(), CONTROLLER)


@pytest.mark.parametrize(
    ("xml", "word"),
    [
        (domain("x", balloon="<memballoon model='none'/>"), "no memory balloon"),
        (domain("x", balloon=BALLOON.replace("<alias", "<driver iommu='on'/><alias")), "behind an IOMMU"),
        (domain("x", balloon=BALLOON.replace("'virtio'>", "'virtio' autodeflate='on'>")), "deflate-on-oom"),
        (domain("x", devices="<hostdev mode='subsystem' type='pci'/>"), "VFIO"),
        (domain("x").replace("<vcpu", "<memoryBacking><hugepages/></memoryBacking><vcpu"), "huge pages"),
        (domain("x").replace("<vcpu", "<memoryBacking><locked/></memoryBacking><vcpu"), "locked"),
        (domain("x", mib=256), "below startup"),
        (passing("-m", "8G"), "`-m 8G`"),
        (passing("-device", "virtio-balloon-pci,deflate-on-oom=on"), "virtio-balloon-pci"),
    ],
)
def test_what_cannot_be_adopted_is_refused_with_the_way_out_and_untouched(xml: str, word: str) -> None:
    one = LibvirtDomain(xml)
    wish = Wish(RuleSection(match=RULE.match, minimum=GIB), DEFAULTS)
    with pytest.raises(Refused, match=word) as refused:
        plan(one, wish)
    assert refused.value.hint
    assert one.calls == []


@pytest.mark.parametrize(
    ("xml", "helps"),
    [
        (domain("x", balloon="<memballoon model='none'/>"), True),
        (domain("x", balloon=BALLOON.replace("'virtio'>", "'virtio' autodeflate='on'>")), True),
        (domain("x").replace("type='kvm'", "type='xen'"), False),
        (domain("x").replace("<vcpu", "<memoryBacking><locked/></memoryBacking><vcpu"), True),  # by DIMMs
    ],
)
def test_the_next_start_of_what_cannot_take_part_as_it_runs_is_prepared_where_that_helps(
    xml: str, helps: bool
) -> None:
    one = LibvirtDomain(xml)
    with pytest.raises(Refused) as refused:
        plan(one)
    assert ("--next-start" in (refused.value.hint or "")) == helps
    wish = Wish(RULE, DEFAULTS, next_start=True)
    if not helps:
        with pytest.raises(Refused):
            plan(one, wish)
        return
    made = adopt(one, wish)
    assert not made.takes_part
    assert "before its next start" in made.now[0]
    assert live(one) == xml
    assert one.defined is not None
    prepared = read_domain(one.defined).config
    assert prepared is not None
    assert prepared.source == METADATA
    with pytest.raises(ManagedAlready, match="prepared already"):
        plan(one, wish)
    assert same(restore(one.defined).xml, inactive(xml))


def test_nothing_is_done_while_a_job_holds_the_domain() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    with pytest.raises(Refused, match="migration"):
        plan_adoption(one.facts("migration"), WISH)
    adopt(one)
    with pytest.raises(Refused, match="migration"):
        plan_release(one.facts("migration"), CONTROLLER)


def test_one_that_is_off_is_left_to_enable() -> None:
    one = LibvirtDomain(VIRT_INSTALL)
    one.stop()
    with pytest.raises(Refused, match="dynmem enable"):
        plan(one)


@pytest.mark.parametrize("growth", [Growth.HOTADD, Growth.VIRTIO_MEM])
@pytest.mark.parametrize("devices", ["", OWN_DIMM])
def test_it_grows_only_by_what_it_runs_with_and_a_dimm_of_its_users_is_not_ours(
    growth: Growth, devices: str
) -> None:
    xml = domain("own", devices=SERIAL + devices)
    one = LibvirtDomain(xml.replace("  <memory unit", f"  {ROOM}\n  <memory unit", 1) if devices else xml)
    with pytest.raises(Refused, match=f"cannot grow by {growth}") as refused:
        plan(one, Wish(RuleSection(match=RULE.match, growth=growth), DEFAULTS))
    assert "--next-start" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("host", "growth", "said"),
    [
        (HostAbilities(), Growth.HOTADD, ""),
        (HostAbilities(passed=ALL_CHECKS), Growth.HOTADD, ""),
        (HostAbilities(passed=ALL_CHECKS - {"unplug"}), Growth.BALLOON, "did not pass 'unplug'"),
        (HostAbilities(passed=ALL_CHECKS - {"virtio-mem"}), Growth.HOTADD, ""),
        (HostAbilities(qemu=1_000_000), Growth.BALLOON, "QEMU 1.0 cannot resize it"),
    ],
)
def test_a_host_whose_dimms_did_not_come_out_when_it_was_burnt_in_gives_none(
    host: HostAbilities, growth: Growth, said: str
) -> None:
    one = LibvirtDomain(domain("roomy").replace("  <memory unit", f"  {ROOM}\n  <memory unit", 1))
    made = plan(one, replace(WISH, host=host))
    assert made.growth is growth
    assert said in "; ".join(made.now)
    asked = Wish(RuleSection(match=RULE.match, growth=Growth.HOTADD), DEFAULTS, host=host)
    assert plan(one, asked).growth is Growth.HOTADD, "its operator knows better"


def test_a_rule_that_is_proposed_is_for_that_vm_alone_whatever_its_name() -> None:
    name = 'it\'s [a] "*"'
    one = LibvirtDomain(NOVA.replace("<name>instance-0000002a<", f"<name>{name}<"))
    with pytest.raises(Refused) as refused:
        plan(one)
    match = MatchSection(
        name=tomllib.loads((refused.value.hint or "").partition("[[rule]] ")[2])["match"]["name"]
    )
    assert fits(match, Subject.of(live(one)))
    assert not fits(match, Subject.of(live(one).replace("[a]", "a")))


def test_limits_may_be_shares_of_its_ram() -> None:
    wish = Wish(RuleSection(match=RULE.match, minimum=Share(25), maximum=Share(75), weight=9), DEFAULTS)
    limits = plan(LibvirtDomain(VIRT_INSTALL), wish).limits
    assert (limits.minimum_bytes, limits.maximum_bytes, limits.weight) == (512 * MIB, 1536 * MIB, 9)


def test_a_limit_of_libvirts_bounds_what_is_adopted_and_set_does_not_go_beyond_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = "<memtune><hard_limit unit='GiB'>4</hard_limit></memtune><vcpu"
    roomy = VIRT_INSTALL.replace("<memory unit", f"{ROOM}\n  <memory unit", 1).replace("<vcpu", limit, 1)
    one = LibvirtDomain(roomy)
    made = adopt(one)
    assert made.growth is Growth.HOTADD
    assert 3 * GIB < made.limits.maximum_bytes < 4 * GIB
    assert any("hard_limit of 4 GiB bounds it" in said for said in made.now)
    defined, running = one.defined, live(one)
    monkeypatch.setattr(setting, "Definitions", lambda uri: Opened(one))
    told = CliRunner().invoke(setting.set_limits, ["installed", "--maximum", "8G"])
    assert isinstance(told.exception, DomainUnsuitable)
    assert "8 GiB needs 8.28 GiB" in str(told.exception)
    assert (one.defined, one.live) == (defined, running), "refused before anything was changed"
    told = CliRunner().invoke(setting.set_limits, ["installed", "--weight", "7"])
    assert told.exception is None, told.output
    assert live(one) != running


def test_the_ram_that_an_adopted_vm_has_it_may_be_set_to_whatever_libvirts_own_limit_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = "<memtune><hard_limit unit='GiB'>2</hard_limit></memtune><vcpu"
    one = LibvirtDomain(VIRT_INSTALL.replace("<vcpu", limit, 1))
    wish = replace(WISH, rule=RuleSection(match=RULE.match, minimum=Share(25), maximum=Share(50)))
    assert adopt(one, wish).limits.maximum_bytes == GIB
    monkeypatch.setattr(setting, "Definitions", lambda uri: Opened(one))
    told = CliRunner().invoke(setting.set_limits, ["installed", "--maximum", "2G"])
    assert told.exception is None, told.exception


def test_a_balloon_alone_reaches_no_room_that_is_for_memory_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    one = LibvirtDomain(VIRT_INSTALL.replace("<memory unit", f"{ROOM}\n  <memory unit", 1))
    adopt(one, replace(WISH, rule=RuleSection(match=RULE.match, growth=Growth.BALLOON)))
    monkeypatch.setattr(setting, "Definitions", lambda uri: Opened(one))
    told = CliRunner().invoke(setting.set_limits, ["installed", "--maximum", "4G"])
    assert "room for 2 GiB" in told.output, (told.output, told.exception)
    running = read_domain(live(one)).config
    assert running is not None
    assert running.limits.maximum_bytes == 2 * GIB


def test_what_a_saved_vm_is_set_to_waits_for_its_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its next start restores what it was, limits and all."""
    one = LibvirtDomain(VIRT_INSTALL)
    adopt(one)
    off = Opened(one)
    monkeypatch.setattr(off, "running", False)
    monkeypatch.setattr(off, "saved", True)
    monkeypatch.setattr(setting, "Definitions", lambda uri: off)
    told = CliRunner().invoke(setting.set_limits, ["installed", "--weight", "7"])
    assert "once it has been shut down: it is saved" in told.output, (told.output, told.exception)
    defined = read_domain(one.defined or "").config
    assert defined is not None
    assert defined.limits.weight == 7


def test_set_says_what_is_so_with_the_new_limits_and_was_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `enable` would: one that boots with all of its maximum could not be started any more."""
    one = LibvirtDomain(VIRT_INSTALL)
    one.defined = enable(VIRT_INSTALL, Limits(GIB, GIB, 2 * GIB), Growth.BALLOON).xml
    off = Opened(one)
    monkeypatch.setattr(off, "running", False)
    monkeypatch.setattr(off, "memory_bytes", lambda: 16 * GIB)
    monkeypatch.setattr(setting, "Definitions", lambda uri: off)
    told = CliRunner().invoke(setting.set_limits, ["installed", "--weight", "7"])
    assert [line for line in told.output.splitlines() if line.startswith("*")] == []
    told = CliRunner().invoke(
        setting.set_limits, ["installed", "--maximum", "80G", "--startup", "4G", "--dry-run"]
    )
    assert (
        "* its maximum of 80 GiB is more than the 16 GiB that this host has: it boots with all" in told.output
    )
    assert "MemTotal" not in told.output, "that was so before"


def test_who_has_one_size_at_any_time_is_told_so() -> None:
    rule = RuleSection(match=RULE.match, minimum=Share(50), maximum=Share(50))
    (moves, *_) = plan(LibvirtDomain(VIRT_INSTALL), replace(WISH, rule=rule)).now
    assert moves.startswith("it has 1 GiB at any time")
    assert "a lower --minimum" in moves


class Opened:
    """A libvirt with one domain that runs, as far as `set` asks it."""

    running = True
    saved = False
    local = False
    name = "installed"

    def __init__(self, one: LibvirtDomain) -> None:
        self.one = one
        self.persistent = one.defined is not None
        self.write_metadata = one.write_metadata
        self.define = one.define

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def find(self, _name: str) -> "Opened":
        return self

    def memory_bytes(self) -> None:
        return None

    def address_bits(self) -> None:
        return None

    def device_networks(self) -> frozenset[str]:
        return frozenset()

    def versions(self) -> tuple[int, int]:
        return (0, 0)

    def xml(self, *, secrets: bool = False) -> str:
        assert self.one.defined is not None
        return self.one.defined

    def live_xml(self) -> str:
        return live(self.one)
