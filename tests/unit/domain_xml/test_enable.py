"""What a domain's XML says, and what `enable` and `disable` make of it."""

from itertools import permutations

import pytest

from host_controller.control.start_queue import read_start
from host_controller.core.model import Dimm, Growth, Limits, Trust
from host_controller.domain_xml.edit import difference, enable
from host_controller.domain_xml.fitness.judge import refusals
from host_controller.domain_xml.host_abilities import HostAbilities
from host_controller.domain_xml.ours import metadata_element
from host_controller.domain_xml.pinning import BEHIND_IOMMU
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.restore import disable, restore
from host_controller.domain_xml.values import parse_xml, size_of
from host_controller.errors import DomainUnsuitable, InputError
from host_controller.hypervisor.host_sampler import memory_of
from host_controller.units import GIB, MIB
from tests.support.definitions import with_args
from tests.unit.hypervisor.domains import I440FX, LIVE, NUMA, Q35, with_backing

LIMITS = Limits(1 * GIB, 512 * MIB, 4 * GIB, buffer_percent=30, weight=200)


def test_a_running_domain_tells_its_limits_its_dimms_and_its_balloon() -> None:
    view = read_domain(LIVE)
    assert view.config is not None
    assert view.config.limits == Limits(512 * MIB, 256 * MIB, 2 * GIB, 30, 200)
    assert view.config.boot_ram_bytes == 512 * MIB
    assert view.config.slots == 16
    assert view.config.pinned is None
    assert view.dimms == (
        Dimm("dimm0", 128 * MIB, 0x100000000),
        Dimm("dimm1", 256 * MIB, 0x108000000),
    )
    assert view.ram_bytes == 896 * MIB
    assert view.ram_blocks == (512 * MIB, 128 * MIB, 256 * MIB)
    assert view.actual_bytes == 700000 * 1024
    assert view.channel_alias == "channel1"
    assert view.stats_period == 1
    assert view.problems == ()


def test_a_domain_without_our_metadata_is_not_managed_but_its_ram_counts() -> None:
    view = read_domain(Q35)
    assert view.config is None
    assert view.ram_bytes == 2 * GIB


def test_the_persistent_definition_is_asked_when_the_running_one_has_no_limits() -> None:
    prepared = enable(Q35, LIMITS, Growth.HOTADD).xml
    view = read_domain(Q35, prepared)
    assert view.config is not None
    assert view.config.limits == LIMITS
    assert view.config.boot_ram_bytes == 2 * GIB  # of what runs, not of what will
    assert view.problems == (
        "there is no channel org.dynmem.agent.0: no agent can be heard",
        "there are no DIMM slots: it cannot grow past its boot RAM",
    )


@pytest.mark.parametrize("broken", ['startup="x"', 'startup="4"', ""])
def test_unreadable_limits_make_a_problem_and_no_managed_vm(broken: str) -> None:
    damaged = LIVE.replace('startup="524288"', broken)
    view = read_domain(damaged)
    assert view.config is None
    assert view.problems
    assert read_domain(damaged, damaged).problems == view.problems, "what both say is said once"


@pytest.mark.parametrize("xml", [Q35, I440FX, NUMA], ids=["q35", "i440fx", "numa"])
@pytest.mark.parametrize("growth", list(Growth))
def test_disable_puts_every_byte_back(xml: str, growth: Growth) -> None:
    assert disable(enable(xml, LIMITS, growth).xml) == xml


@pytest.mark.parametrize("xml", [Q35, I440FX, NUMA], ids=["q35", "i440fx", "numa"])
@pytest.mark.parametrize("growth", list(Growth))
def test_enabling_twice_changes_nothing_more(xml: str, growth: Growth) -> None:
    once = enable(xml, LIMITS, growth).xml
    assert enable(once, LIMITS, growth).xml == once


@pytest.mark.parametrize(("growth", "other"), list(permutations(Growth, 2)))
def test_changing_growth_forgets_nothing_of_what_was_there(growth: Growth, other: Growth) -> None:
    twice = enable(enable(Q35, LIMITS, growth).xml, Limits(2 * GIB, GIB, 3 * GIB), other).xml
    assert disable(twice) == Q35


@pytest.mark.parametrize("xml", [Q35, I440FX, NUMA], ids=["q35", "i440fx", "numa"])
@pytest.mark.parametrize(("growth", "other"), list(permutations(Growth, 2)))
def test_nothing_of_one_growth_is_left_with_another(xml: str, growth: Growth, other: Growth) -> None:
    """By balloon no cell of ours binds other tools (fact: numa-cell-binds-tools)."""
    assert enable(enable(xml, LIMITS, growth).xml, LIMITS, other).xml == enable(xml, LIMITS, other).xml


def test_hotadd_boots_with_startup_and_leaves_room_for_dimms_up_to_maximum() -> None:
    view = read_domain(enable(Q35, LIMITS, Growth.HOTADD).xml)
    assert view.config is not None
    assert (view.boot_ram_bytes, view.ceiling_bytes, view.config.slots) == (1 * GIB, 4 * GIB, 16)
    assert view.actual_bytes == 1 * GIB
    assert view.config.limits == LIMITS
    assert view.stats_period == 1
    assert view.channel_alias is not None
    assert view.problems == ()


def test_balloon_growth_boots_with_maximum_and_the_balloon_at_startup() -> None:
    view = read_domain(enable(I440FX, LIMITS, Growth.BALLOON).xml)
    assert view.config is not None
    assert (view.boot_ram_bytes, view.actual_bytes, view.config.slots) == (4 * GIB, 1 * GIB, 0)
    assert view.config.pinned is None, "deflate-on-oom was on and must be off now"


def test_virtio_mem_boots_with_startup_and_one_empty_device_for_the_rest() -> None:
    xml = enable(Q35, LIMITS, Growth.VIRTIO_MEM).xml
    view = read_domain(xml)
    assert view.config is not None
    assert (view.boot_ram_bytes, view.ceiling_bytes) == (1 * GIB, 4 * GIB)
    assert (view.config.virtio_mem_bytes, view.config.virtio_mem_block_bytes) == (3 * GIB, 4 * MIB)
    assert (view.virtio_mem_bytes, view.virtio_mem_requested_bytes) == (0, 0)
    assert view.actual_bytes == 1 * GIB
    assert view.ram_blocks == (1 * GIB, 3 * GIB)
    assert view.problems == ()
    assert f"<memory unit='KiB'>{4 << 20}</memory>" in xml, "libvirt counts the whole device"


@pytest.mark.parametrize(
    ("devices", "could_take"),
    [
        ([(8, 8, 0)], 10),  # it boots, and its driver is not there yet
        ([(8, 4, 6)], 8),  # it is giving back
        ([(8, 4, 6), (8, 6, 1)], 14),
        ([], 2),
    ],
)
def test_a_vm_nobody_manages_counts_with_what_its_devices_were_asked_for(
    devices: list[tuple[int, int, int]], could_take: int
) -> None:
    """Its guest plugs that as soon as it has a driver: given to others meanwhile, it would be there twice."""
    memory = "".join(
        f"<memory model='virtio-mem'><target><size unit='GiB'>{size}</size><node>0</node><block unit='MiB'>2"
        f"</block><requested unit='GiB'>{asked}</requested><current unit='GiB'>{current}</current></target>"
        "</memory>"
        for size, asked, current in devices
    )
    cell = "<cpu><numa><cell id='0' cpus='0-3' memory='2' unit='GiB'/></numa></cpu><devices>"
    view = read_domain(Q35.replace("<devices>", f"{cell}{memory}", 1))
    assert view.could_take_bytes == could_take * GIB
    assert memory_of(view).ordinary_bytes == could_take * GIB


@pytest.mark.parametrize(
    ("pages", "ordinary"),
    [
        ("<page size='1' unit='G' nodeset='0'/>", 1),
        ("<page size='1' unit='G' nodeset='0'/><page size='2' unit='M' nodeset='1'/>", 0),
        ("<page size='1' unit='G' nodeset='1'/><page size='2' unit='M'/>", 0),
        ("<page size='1' unit='G' nodeset='0-1,^1'/><page size='4' unit='KiB'/>", 1),
        ("<page size='1' unit='G' nodeset='odd'/>", 2),
        ("", 0),
    ],
)
def test_ram_in_huge_pages_of_several_sizes_is_no_ordinary_memory(pages: str, ordinary: int) -> None:
    """Of a VM that nobody manages; it is told to be whole in one pool where it is."""
    cells = "".join(f"<cell id='{node}' cpus='{node}' memory='1' unit='GiB'/>" for node in (0, 1))
    xml = with_backing(Q35, f"<hugepages>{pages}</hugepages>")
    view = read_domain(xml.replace("<devices>", f"<cpu><numa>{cells}</numa></cpu><devices>", 1))
    assert view.could_take_bytes == 2 * GIB
    assert view.ordinary_bytes == ordinary * GIB
    assert memory_of(view).ordinary_bytes == ordinary * GIB
    assert read_start(
        xml.replace("<devices>", f"<cpu><numa>{cells}</numa></cpu><devices>", 1), 0
    ).need_bytes == (ordinary * GIB)


def test_what_virtio_mem_has_plugged_is_no_part_of_the_balloon() -> None:
    running = enable(Q35, LIMITS, Growth.VIRTIO_MEM).xml.replace(
        "<requested unit='KiB'>0</requested>",
        f"<requested unit='KiB'>{1 << 20}</requested><current unit='KiB'>{1 << 19}</current>",
    )
    # libvirt adds what is plugged to what the balloon leaves.
    running = running.replace(
        f"<currentMemory unit='KiB'>{1 << 20}<", f"<currentMemory unit='KiB'>{(1 << 19) + (1 << 18)}<"
    )
    view = read_domain(running)
    assert (view.virtio_mem_bytes, view.virtio_mem_requested_bytes) == (512 * MIB, 1 * GIB)
    assert view.actual_bytes == 256 * MIB


def test_foreign_parts_of_the_xml_stay_as_they_were() -> None:
    xml = enable(Q35, LIMITS, Growth.HOTADD).xml
    kept = [line for line in Q35.splitlines() if "emory" not in line and "memballoon" not in line]
    kept.remove("  <cpu mode='host-passthrough' check='none' migratable='on'/>")
    assert [line for line in kept if line not in xml.splitlines()] == []
    assert "<qemu:arg value='device.x.y=\"z\"'/>" in xml
    assert "<cpu mode='host-passthrough' check='none' migratable='on'>" in xml


def test_an_existing_topology_keeps_its_cells_and_their_proportion() -> None:
    view = read_domain(enable(NUMA, LIMITS, Growth.HOTADD).xml)
    assert view.ram_blocks == (768 * MIB, 256 * MIB)
    assert "<topology sockets='2'" in enable(NUMA, LIMITS, Growth.HOTADD).xml


@pytest.mark.parametrize(
    ("device", "slots"),
    [
        ("<interface type='vhostuser'><source type='unix' path='/run/s' mode='server'/></interface>", 4),
        ("<disk type='vhostuser' device='disk'><source type='unix' path='/run/s'/></disk>", 4),
        ("<filesystem type='mount'><driver type='virtiofs'/></filesystem>", 16),
        ("<interface type='user'/>", 16),
    ],
)
def test_beside_a_back_end_that_maps_few_pieces_of_memory_its_dimms_are_few_and_large(
    device: str, slots: int
) -> None:
    xml = Q35.replace("  </devices>", f"    {device}\n  </devices>")
    prepared = enable(xml, LIMITS, Growth.HOTADD).xml
    assert f"<maxMemory unit='KiB' slots='{slots}'>" in prepared
    assert enable(prepared, LIMITS, Growth.HOTADD).xml == prepared
    assert disable(prepared) == xml


@pytest.mark.parametrize(
    ("option", "value", "slots"),
    [
        ("-netdev", "type=vhost-user,id=n,chardev=c", 4),
        ("-device", "vhost-user-blk-pci,chardev=c", 4),
        ("-device", '{"driver":"vhost-user-scsi-pci","chardev":"c"}', 4),
        ("-device", "vhost-user-fs-pci,chardev=c,tag=t", 16),  # virtiofsd takes hundreds
        ("-chardev", "socket,id=vhost-user,path=/run/s", 16),
    ],
)
def test_a_back_end_of_that_kind_that_is_passed_to_qemu_is_seen_too(
    option: str, value: str, slots: int
) -> None:
    prepared = enable(with_args(option, value), LIMITS, Growth.HOTADD).xml
    assert f"<maxMemory unit='KiB' slots='{slots}'>" in prepared


@pytest.mark.parametrize(
    ("driver", "kept"),
    [
        ("<driver iommu='on'/>", ""),
        ("<driver iommu='on' ats='on' packed='on'/>", "<driver ats='on' packed='on'/>"),
        ("<driver packed='on'/>", "<driver packed='on'/>"),
    ],
)
def test_a_balloon_is_behind_no_iommu_for_which_linux_has_no_driver(driver: str, kept: str) -> None:
    xml = Q35.replace("<memballoon model='virtio'>", f"<memballoon model='virtio'>\n      {driver}")
    plan = enable(xml, LIMITS, Growth.HOTADD)
    view = read_domain(plan.xml)
    assert view.config is not None
    assert view.config.pinned is None
    devices = plan.xml.partition("<devices>")[2]
    assert "iommu='on'" not in devices
    assert kept in devices
    assert devices.count("<driver") == bool(kept)
    assert any("IOMMU" in one for one in plan.notes) is ("iommu" in driver)
    assert disable(plan.xml) == xml
    edited = read_domain(plan.xml.replace("<stats period='1'/>", f"<stats period='1'/>{driver}"))
    assert edited.config is not None
    assert edited.config.pinned == (BEHIND_IOMMU if "iommu" in driver else None)


def test_of_a_windows_balloon_behind_an_iommu_nothing_is_known() -> None:
    xml = LIVE.replace("<stats period='1'/>", "<stats period='1'/><driver iommu='on'/>")
    windows = xml.replace("<features>", "<features><hyperv mode='passthrough'/>")
    assert windows != xml
    for text, pinned in ((xml, BEHIND_IOMMU), (windows, None)):
        config = read_domain(text).config
        assert config is not None
        assert config.pinned == pinned


def test_it_is_told_how_large_dimms_become_where_there_are_few_slots() -> None:
    xml = Q35.replace("  </devices>", "    <interface type='vhostuser'/>\n  </devices>")
    for domain, told in (
        (Q35, "16 slots, 128 MiB at least and 256 MiB"),
        (xml, "4 slots, 128 MiB at least and 768 MiB"),
    ):
        assert any(told in one for one in enable(domain, LIMITS, Growth.HOTADD).notes)


@pytest.mark.parametrize(
    ("xml", "growth", "told"),
    [
        (NUMA, Growth.HOTADD, True),
        (NUMA, Growth.VIRTIO_MEM, True),
        (NUMA, Growth.BALLOON, False),
        (Q35, Growth.HOTADD, False),
    ],
)
def test_it_is_told_where_of_several_nodes_its_memory_comes_to_lie(
    xml: str, growth: Growth, told: bool
) -> None:
    """Programs that are bound to the second node get nothing of it."""
    assert any("first of its NUMA nodes" in one for one in enable(xml, LIMITS, growth).notes) is told


def test_a_channel_that_was_there_already_stays_after_disable() -> None:
    ours = (
        "<channel type='unix'>\n      <target type='virtio' name='org.dynmem.agent.0'/>\n    </channel>\n    "
    )
    xml = Q35.replace("    <memballoon", f"    {ours}<memballoon")
    assert enable(xml, LIMITS, Growth.HOTADD).xml.count("org.dynmem.agent.0") == 1
    assert disable(enable(xml, LIMITS, Growth.HOTADD).xml) == xml


def test_what_libvirt_added_for_our_channel_goes_with_it() -> None:
    prepared = enable(I440FX, LIMITS, Growth.HOTADD).xml
    defined = prepared.replace(
        "    <controller type='pci' index='0' model='pci-root'/>\n",
        "    <controller type='pci' index='0' model='pci-root'/>\n"
        "    <controller type='virtio-serial' index='0'>\n"
        "      <address type='pci' domain='0x0000' bus='0x09' slot='0x00' function='0x0'/>\n"
        "    </controller>\n"
        "    <controller type='pci' index='9' model='pcie-root-port'/>\n",
    )
    assert disable(defined) == I440FX


ADDED_BRIDGES = (
    "    <controller type='pci' index='1' model='pci-bridge'>\n"
    "      <address type='pci' domain='0x0000' bus='0x00' slot='0x1f' function='0x0'/>\n"
    "    </controller>\n"
    "    <controller type='pci' index='10' model='pci-bridge'>\n"
    "      <address type='pci' domain='0x0000' bus='0x01' slot='0x01' function='0x0'/>\n"
    "    </controller>\n"
)
ON_BRIDGE = "<address type='pci' domain='0x0000' bus='0x0a' slot='0x01' function='0x0'/>"


def test_bridges_that_libvirt_added_where_no_slot_was_left_go_too() -> None:
    """libvirt 9.0 adds one to a `pc` with 28 devices."""
    root = "    <controller type='pci' index='0' model='pci-root'/>\n"
    prepared = enable(I440FX, LIMITS, Growth.VIRTIO_MEM).xml
    ours = "</target>\n    </memory>"
    assert ours in prepared
    used = prepared.replace(root, root + ADDED_BRIDGES).replace(
        ours, f"</target>\n      {ON_BRIDGE}\n    </memory>"
    )
    assert disable(used) == I440FX
    somebody = used.replace("  </devices>", f"    <rng model='virtio'>{ON_BRIDGE}</rng>\n  </devices>")
    assert disable(somebody).count("<controller type='pci' index='10'") == 1, "somebody else is on it by now"
    assert disable(somebody).count("<controller type='pci' index='1'") == 1


@pytest.mark.parametrize(
    ("inside", "why"),
    [("<hugepages/>", "huge pages"), ("<locked/>", "locked")],
)
def test_memory_that_never_comes_back_is_pinned_and_said_so(inside: str, why: str) -> None:
    plan = enable(with_backing(Q35, inside), LIMITS, Growth.HOTADD)
    view = read_domain(plan.xml)
    assert view.config is not None
    assert view.config.pinned == why
    assert any(note.startswith(why) for note in plan.notes)


@pytest.mark.parametrize(
    "device",
    [
        "<hostdev mode='subsystem' type='pci'><source/></hostdev>",
        "<hostdev mode='subsystem' type='mdev'><source/></hostdev>",
        "<interface type='hostdev'/>",
        "<interface type='vdpa'/>",
    ],
)
def test_a_passed_through_device_pins_memory(device: str) -> None:
    xml = enable(Q35, LIMITS, Growth.HOTADD).xml.replace("<devices>", f"<devices>{device}", 1)
    view = read_domain(xml)
    assert view.config is not None
    assert view.config.pinned == "VFIO"


POOL = "<interface type='network'><source network='vfs'/></interface>"


@pytest.mark.parametrize(("page_bytes", "told"), [(4 << 10, False), (64 << 10, True)])
def test_that_a_host_of_large_pages_gets_little_back_is_said(page_bytes: int, told: bool) -> None:
    for growth in Growth:
        notes = enable(Q35, LIMITS, growth, host=HostAbilities(page_bytes=page_bytes)).notes
        assert any("host's pages are of 64 KiB" in one for one in notes) is told


def test_a_device_that_a_network_of_the_host_hands_out_pins_memory_before_it_is_there() -> None:
    xml = Q35.replace("  <devices>", f"  <devices>\n    {POOL}")
    for growth in Growth:
        assert not any("VFIO" in one for one in enable(xml, LIMITS, growth).notes)
    host = HostAbilities(device_networks=frozenset({"vfs"}))
    for growth in (Growth.HOTADD, Growth.VIRTIO_MEM):
        notes = enable(xml, LIMITS, growth, host=host).notes
        assert any(one.startswith("VFIO") and "<source network='vfs'>" in one for one in notes)
    [refused] = refusals(xml, LIMITS, Growth.BALLOON, host)
    assert "pins its memory (VFIO): by --growth balloon it would always cost maximum" in refused.reason
    assert {one.growth for one in refused.ways_out} >= {Growth.HOTADD, Growth.VIRTIO_MEM}
    take_out = refused.ways_out[-1]
    assert take_out.say == "take the interface with <source network='vfs'> out with virsh edit"
    assert not refusals(*take_out.follow(xml, LIMITS, Growth.BALLOON), host)


def test_what_leaves_before_a_migration_is_a_device_of_the_host_whatever_its_network() -> None:
    leaves = POOL.replace("</interface>", "<teaming type='transient' persistent='ua-net'/></interface>")
    stays = POOL.replace("</interface>", "<teaming type='persistent'/></interface>")
    xml = enable(Q35, LIMITS, Growth.HOTADD).xml
    for device, pinned in ((leaves, "VFIO"), (stays, None)):
        config = read_domain(xml.replace("<devices>", f"<devices>{device}", 1)).config
        assert config is not None
        assert config.pinned == pinned


@pytest.mark.parametrize(
    ("xml", "unmapped"),
    [
        (Q35, False),
        (Q35.replace("  <devices>", "  <launchSecurity type='sev'/>\n  <devices>"), False),
        (Q35.replace("  <devices>", "  <launchSecurity type='sev-snp'/>\n  <devices>"), True),
        (Q35.replace("  <devices>", "  <launchSecurity type='tdx'/>\n  <devices>"), True),
        (with_args("-object", "tdx-guest,id=t0"), True),
        (with_args("-object", "sev-guest,id=s0"), False),
    ],
)
def test_ram_that_no_process_maps_is_told(xml: str, unmapped: bool) -> None:
    """Of SEV, the older kind, QEMU maps all."""
    assert read_domain(xml).unmapped is unmapped


def test_deflate_on_oom_switched_on_again_pins_memory() -> None:
    view = read_domain(LIVE.replace("autodeflate='off'", "autodeflate='on'"))
    assert view.config is not None
    assert view.config.pinned == "deflate-on-oom"


def test_deflate_on_oom_that_is_overridden_behind_libvirts_back_pins_memory() -> None:
    for value, pinned in (("true", "deflate-on-oom"), ("on", "deflate-on-oom"), ("false", None)):
        override = (
            "<q:override xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><q:device alias='balloon0'>"
            f"<q:frontend><q:property name='deflate-on-oom' type='bool' value='{value}'/></q:frontend>"
            "</q:device></q:override></domain>"
        )
        view = read_domain(LIVE.replace("</domain>", override))
        assert view.config is not None
        assert view.config.pinned == pinned


@pytest.mark.parametrize("machine", ["pc", "q35", "pc-i440fx-2.11", "pc-q35-9.0"])
def test_i440fx_and_q35_can_hot_add(machine: str) -> None:
    made = parse_xml(enable(Q35.replace("pc-q35-7.2", machine), LIMITS, Growth.HOTADD).xml)
    assert size_of(made.find("maxMemory")) == LIMITS.maximum_bytes


def test_without_acpi_nothing_can_be_hot_added() -> None:
    with pytest.raises(DomainUnsuitable, match="ACPI is off"):
        enable(Q35.replace("    <acpi/>\n", ""), LIMITS, Growth.HOTADD)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(GIB, 2 * GIB, 4 * GIB),
        Limits(GIB, MIB, 4 * GIB),
        Limits(4 * GIB, GIB, 2 * GIB),
        Limits(GIB, GIB, 2 * GIB, buffer_percent=4),
        Limits(GIB, GIB, 2 * GIB, weight=0),
        Limits(GIB, GIB, 17 << 40),
    ],
)
def test_limits_out_of_order_or_range_are_refused(limits: Limits) -> None:
    with pytest.raises(InputError):
        enable(Q35, limits, Growth.HOTADD)


def test_a_maximum_that_dimms_do_not_reach_is_said() -> None:
    plan = enable(Q35, Limits(GIB, GIB, GIB + 300 * MIB), Growth.HOTADD)
    assert any("it can reach 1.25 GiB" in note for note in plan.notes)
    assert read_domain(plan.xml).ceiling_bytes == GIB + 256 * MIB


def test_how_much_can_be_movable_is_said() -> None:
    notes = enable(Q35, Limits(GIB, GIB, 8 * GIB), Growth.HOTADD).notes
    assert any("3 GiB of that can be movable" in note and "4 GiB stay" in note for note in notes)


def test_the_metadata_of_a_running_domain_says_the_same_limits() -> None:
    element = metadata_element(LIMITS, Growth.HOTADD, Trust.NONE)
    written = element.replace("<vm", "<dynmem:vm xmlns:dynmem='urn:dynmem:domain:1'")
    config = read_domain(Q35.replace("  <metadata>", f"  <metadata>\n    {written}")).config
    assert config is not None
    assert (config.limits, config.growth, config.trust) == (LIMITS, Growth.HOTADD, Trust.NONE)


def test_a_definition_that_libvirt_has_laid_out_anew_comes_back_as_it_was() -> None:
    prepared = enable(Q35, LIMITS, Growth.HOTADD).xml
    start, end = prepared.index("      <before"), prepared.index("</before>")
    record = prepared[start:end].replace("'", '"').replace("\n", "\n   ")
    assert disable(prepared[:start] + record + prepared[end:]) == Q35


def test_the_difference_shows_only_what_changes() -> None:
    shown = difference(Q35, enable(Q35, LIMITS, Growth.HOTADD).xml, "web")
    changed = [line for line in shown.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert "-  <memory unit='KiB'>2097152</memory>" in changed
    assert "+  <maxMemory unit='KiB' slots='16'>4194304</maxMemory>" in changed
    assert not any("emulator" in line or "qemu:arg" in line for line in changed)
    in_the_middle = Q35.replace("<memory unit='KiB'>2097152", "<memory unit='KiB'>1048576")
    for other in (shown, difference(Q35, in_the_middle, "web")):
        assert not other.endswith("\n"), "whoever prints it ends the line"


@pytest.mark.parametrize(
    "written",
    [
        "<title>the box&apos;s &quot;name&quot; &#x41;&#13;\nbelow</title>",
        "<title>a<![CDATA[]]>b <![CDATA[<c>]]> > d</title>",
        "<title></title>",
        "<title />",
        "<!-- it is < 4 GiB --><genid/>",
        "\n<title>at the margin</title>",
    ],
)
@pytest.mark.parametrize("growth", list(Growth))
def test_what_is_not_changed_is_written_as_it_was_read(written: str, growth: Growth) -> None:
    """A carriage return that is written plainly is a line feed to the next reader."""
    xml = Q35.replace("\n  <metadata>", f"{written}\n  <metadata>")
    prepared = enable(xml, LIMITS, growth).xml
    assert written in prepared
    assert disable(prepared) == xml


@pytest.mark.parametrize("growth", list(Growth))
def test_lines_that_are_indented_in_a_way_of_their_own_stay_so(growth: Growth) -> None:
    xml = Q35.replace("  <memory unit", "<memory unit").replace("  <clock", "<clock")
    xml = xml.replace("migratable='on'/>", "migratable='on'><cache mode='passthrough'/></cpu>")
    assert disable(enable(xml, LIMITS, growth).xml) == xml


@pytest.mark.parametrize("growth", list(Growth))
def test_numa_without_cells_is_as_good_as_none_and_comes_back(growth: Growth) -> None:
    xml = Q35.replace("<cpu mode='host-passthrough' check='none' migratable='on'/>", "<cpu><numa/></cpu>")
    prepared = enable(xml, LIMITS, growth).xml
    assert restore(prepared).xml == xml
    assert restore(prepared).exact
    wider = prepared.replace("<vcpu placement='static'>4<", "<vcpu placement='static'>6<")
    assert ("cpus='0-5'" in enable(wider, LIMITS, growth).xml) == (growth is not Growth.BALLOON)


def test_what_people_wrote_beside_our_metadata_stays_after_disable() -> None:
    xml = Q35.replace("<metadata>", "<metadata>\n    <!-- ask Jo -->")
    start, end = xml.index("    <libosinfo:libosinfo"), xml.index("  </metadata>")
    xml = xml[:start] + xml[end:]
    assert disable(enable(xml, LIMITS, Growth.BALLOON).xml) == xml


@pytest.mark.parametrize("text", ["", "<domain", "<network/>"])
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(DomainUnsuitable):
        read_domain(text)
