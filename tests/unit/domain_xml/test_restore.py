"""`disable` is always possible for what `enable` prepared, whatever other tools did to it since."""

import re

import pytest

from host_controller.core.model import Growth, Limits, Trust
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.fitness.judge import refusals
from host_controller.domain_xml.ours import metadata_element
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.restore import disable, restore
from host_controller.units import GIB, MIB
from tests.unit.hypervisor.domains import I440FX, LIVE, NUMA, Q35

LIMITS = Limits(1 * GIB, 512 * MIB, 4 * GIB)
HOTADD, BALLOON, VIRTIO_MEM = Growth
PLUGGED = (
    "<memory model='dimm'><target><size unit='KiB'>131072</size><node>0</node></target>"
    "<alias name='dimm0'/><address type='dimm' slot='0' base='0x100000000'/></memory>"
)


def without_metadata(xml: str) -> str:
    """As a tool writes it that keeps no foreign metadata."""
    return re.sub(r"\s*<metadata>.*?</metadata>", "", xml, flags=re.DOTALL)


def without_record(xml: str) -> str:
    return re.sub(r"\s*<before.*?</before>", "", xml, flags=re.DOTALL)


def as_it_runs(xml: str) -> str:
    """With a DIMM plugged: what `virsh dumpxml` shows and some tools define again."""
    total = (1 * GIB + 128 * MIB) >> 10
    xml = xml.replace("<devices>", f"<devices>{PLUGGED}", 1)
    head, _, tail = xml.rpartition(f"<memory unit='KiB'>{GIB >> 10}<")
    return f"{head}<memory unit='KiB'>{total}<{tail}"


@pytest.mark.parametrize("xml", [Q35, I440FX, NUMA], ids=["q35", "i440fx", "numa"])
def test_a_definition_written_from_the_live_xml_with_dimms_comes_back_as_it_was(xml: str) -> None:
    back = restore(as_it_runs(enable(xml, LIMITS, HOTADD).xml))
    assert back.xml == xml
    assert back.notes == ("DIMMs that the controller had plugged (1) are taken out of its definition",)


def test_a_virtio_mem_device_that_holds_something_comes_out_as_well() -> None:
    prepared = enable(Q35, LIMITS, VIRTIO_MEM).xml
    running = prepared.replace("<requested unit='KiB'>0<", "<requested unit='KiB'>1048576<")
    assert running != prepared
    assert disable(running) == Q35


@pytest.mark.parametrize("growth", [HOTADD, VIRTIO_MEM])
@pytest.mark.parametrize("live", [False, True])
def test_without_our_metadata_what_is_ours_goes_and_the_rest_is_said(growth: Growth, live: bool) -> None:
    prepared = enable(Q35, LIMITS, growth).xml
    if live and growth is HOTADD:
        prepared = as_it_runs(prepared)
    back = restore(without_metadata(prepared))
    assert "org.dynmem" not in back.xml
    for part in ("maxMemory", "<numa>", "model='dimm'", "virtio-mem"):
        assert part not in back.xml
    view = read_domain(back.xml)
    assert (view.ram_bytes, view.actual_bytes) == (1 * GIB, 1 * GIB)
    assert "not recorded any more: it keeps 1 GiB of RAM" in back.notes[0]
    assert restore(back.xml).xml == back.xml, "and then it is nobody's"


def test_without_our_metadata_and_with_a_plain_balloon_its_slots_tell_also_beside_vhost_user() -> None:
    served = Q35.replace("  </devices>", "    <interface type='vhostuser'/>\n  </devices>")
    for xml in (Q35, served):
        bare = without_metadata(enable(xml, LIMITS, HOTADD).xml)
        plain = re.sub(r"<memballoon.*</memballoon>", "<memballoon model='virtio'/>", bare, flags=re.DOTALL)
        assert "maxMemory" in plain
        assert "maxMemory" not in restore(plain).xml


def test_without_our_metadata_a_balloon_vm_keeps_its_ram_and_says_so() -> None:
    back = restore(without_metadata(enable(I440FX, LIMITS, BALLOON).xml))
    view = read_domain(back.xml)
    assert view.ram_bytes == 4 * GIB
    assert "keeps its RAM, of which it had 1 GiB at start" in back.notes[0]
    assert view.channel_alias is None


@pytest.mark.parametrize("growth", list(Growth))
def test_metadata_without_its_record_is_as_good_as_none(growth: Growth) -> None:
    back = restore(without_record(enable(Q35, LIMITS, growth).xml))
    assert "dynmem" not in back.xml
    assert back.notes


@pytest.mark.parametrize("growth", list(Growth))
@pytest.mark.parametrize("lost", [without_metadata, without_record])
def test_enabled_again_after_the_record_was_lost_it_can_be_undone_to_what_is_known(growth, lost) -> None:  # type: ignore[no-untyped-def]
    maimed = lost(enable(Q35, LIMITS, growth).xml)
    again = enable(maimed, LIMITS, growth)
    assert any("not recorded any more" in note for note in again.notes)
    assert enable(again.xml, LIMITS, growth).xml == again.xml
    back = read_domain(disable(again.xml))
    assert back.config is None
    assert back.ram_bytes == (4 * GIB if growth is BALLOON else 1 * GIB)
    assert back.channel_alias is None


def test_a_channel_that_is_all_that_is_left_is_kept_and_told_of() -> None:
    prepared = without_metadata(enable(Q35, LIMITS, BALLOON).xml)
    plain = re.sub(r"<memballoon.*?</memballoon>", "<memballoon model='virtio'/>", prepared, flags=re.DOTALL)
    given_back = restore(plain)
    assert given_back.xml == plain
    (said,) = given_back.notes
    assert "channel for the agent" in said
    assert "virsh edit" in said
    assert restore(Q35).notes == ()


def test_metadata_by_hand_on_a_domain_of_its_own_is_all_that_goes() -> None:
    ours = "<dynmem:vm xmlns:dynmem='urn:dynmem:domain:1' startup='1' minimum='1' maximum='1'/>"
    xml = I440FX.replace("  <memory ", f"  <metadata>{ours}</metadata>\n  <memory ", 1)
    assert restore(xml).xml == I440FX
    assert restore(xml).notes == ()


@pytest.mark.parametrize(
    "balloon", ["", "<memballoon model='none'/>", "<memballoon model='virtio' autodeflate='on'/>"]
)
def test_a_balloon_that_was_taken_out_or_changed_is_put_back(balloon: str) -> None:
    prepared = enable(I440FX, LIMITS, HOTADD).xml
    head, _, rest = prepared.rpartition("<memballoon")
    _, _, tail = rest.partition("</memballoon>")
    back = disable(head + balloon + tail)
    assert read_domain(back).ram_bytes == read_domain(I440FX).ram_bytes
    assert "<memballoon model='virtio' autodeflate='on'>" in back
    assert "<stats period='10'/>" in back


def test_a_balloon_whose_place_somebody_else_has_by_now_gets_another() -> None:
    prepared = enable(I440FX, LIMITS, HOTADD).xml
    place = "<address type='pci' domain='0x0000' bus='0x00' slot='0x03' function='0x0'/>"
    head, _, rest = prepared.rpartition("<memballoon")
    _, _, tail = rest.partition("</memballoon>")
    back = restore(head + f"<rng model='virtio'>{place}</rng>" + tail)
    assert back.xml.count(place) == 1
    assert "the balloon gets one from libvirt" in back.notes[0]


def test_a_place_on_the_host_is_none_in_the_guest() -> None:
    """An interface by a virtual function names both."""
    taken = "<address type='pci' domain='0x0000' bus='0x00' slot='0x03' function='0x0'/>"
    port = "<controller type='pci' index='9' model='pcie-root-port'/>"
    on_host = taken + taken.replace("bus='0x00'", "bus='0x09'")
    function = f"    <interface type='hostdev'><source>{on_host}</source></interface>\n  </devices>"
    xml = I440FX.replace("  </devices>", function)
    prepared = enable(xml, LIMITS, HOTADD).xml.replace("  </devices>", f"    {port}\n  </devices>")
    back = restore(prepared)
    assert back.xml == xml
    assert back.exact


def test_a_memory_device_that_came_later_keeps_the_room_it_needs() -> None:
    nvdimm = (
        "<memory model='nvdimm'><source><path>/n</path></source>"
        "<target><size unit='KiB'>262144</size><node>0</node></target></memory>"
    )
    later = enable(Q35, LIMITS, HOTADD).xml.replace("<devices>", f"<devices>{nvdimm}", 1)
    back = restore(later)
    view = read_domain(back.xml)
    assert (view.boot_ram_bytes, view.ceiling_bytes) == (2 * GIB, 2 * GIB + 256 * MIB)
    assert nvdimm in back.xml
    assert "memory devices of its own since" in back.notes[0]


def test_a_second_virtio_mem_device_is_its_users_and_stays() -> None:
    second = (
        "<memory model='virtio-mem'><target><size unit='KiB'>262144</size><node>0</node>"
        "<block unit='KiB'>2048</block><requested unit='KiB'>0</requested></target></memory>"
    )
    later = enable(Q35, LIMITS, VIRTIO_MEM).xml.replace("  </devices>", f"    {second}\n  </devices>", 1)
    back = restore(later)
    assert second in back.xml
    assert back.xml.count("model='virtio-mem'") == 1
    assert "memory devices of its own since" in back.notes[0]
    # What `enable` is then told leads somewhere: two devices it refused nowhere, and went on with both.
    for growth in (VIRTIO_MEM, HOTADD):
        (refusal,) = refusals(later, LIMITS, growth)
        assert "a memory device of its own (<memory model='virtio-mem'>)" in refusal.reason
        (way,) = (one for one in refusal.ways_out if one.edit is not None)
        again = read_domain(enable(way.follow(later, LIMITS, growth)[0], LIMITS, growth).xml)
        assert again.problems == ()


def test_cells_whose_vcpus_were_changed_get_their_sizes_and_keep_their_vcpus() -> None:
    later = enable(NUMA, LIMITS, HOTADD).xml
    head, _, tail = later.rpartition("cpus='2-3'")
    back = restore(f"{head}cpus='2'{tail}")
    assert read_domain(back.xml).ram_blocks == (1536 * MIB, 512 * MIB)
    assert "cpus='2'" in back.xml
    assert "the vCPUs of now" in back.notes[0]


def test_the_record_goes_along_when_limits_of_a_running_vm_change() -> None:
    prepared = enable(Q35, LIMITS, HOTADD).xml
    element = metadata_element(LIMITS, HOTADD, Trust.NONE, prepared)
    written = element.replace("<vm", "<dynmem:vm xmlns:dynmem='urn:dynmem:domain:1'", 1)
    written = written.replace("</vm>", "</dynmem:vm>")
    changed = re.sub(r"<dynmem:vm .*</dynmem:vm>", lambda _: written, prepared, flags=re.DOTALL)
    assert changed != prepared
    assert 'trust="none"' in changed
    assert disable(changed) == Q35


def test_the_mark_that_libvirt_gives_a_slot_for_our_port_goes_with_it() -> None:
    first = "<address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x0'/>"
    xml = Q35.replace(
        "    <controller type='virtio-serial'",
        f"    <controller type='pci' index='3' model='pcie-root-port'>{first}</controller>\n"
        "    <controller type='virtio-serial'",
    )
    added = (
        "<controller type='pci' index='9' model='pcie-root-port'>"
        "<address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x1'/></controller>"
    )
    defined = enable(xml, LIMITS, HOTADD).xml.replace(first, f"{first[:-2]} multifunction='on'/>{{}}", 1)
    defined = defined.replace("/>{}</controller>", f"/></controller>{added}")
    assert "multifunction" in defined
    assert disable(defined) == xml


def test_a_record_in_our_namespace_is_one_too() -> None:
    prepared = enable(Q35, LIMITS, HOTADD).xml
    head, start, rest = prepared.partition("<before")
    record, end, tail = rest.partition("</before>")
    inside = re.sub(r"<(/?)(?=[a-zA-Z])", r"<\1dynmem:", start + record + end)
    prefixed = head + inside + tail
    assert "<dynmem:before" in prefixed
    assert disable(prefixed) == Q35
    assert metadata_element(LIMITS, HOTADD, Trust.GUEST, prefixed) == metadata_element(
        LIMITS, HOTADD, Trust.GUEST, prepared
    )
    again = enable(prefixed, LIMITS, HOTADD).xml
    assert again == prefixed
    assert disable(again) == Q35


def test_a_running_definition_without_a_record_gets_none() -> None:
    assert metadata_element(LIMITS, HOTADD, Trust.GUEST, LIVE).endswith("/>")


OTHER_BALLOONS = {
    "taken out": "",
    "switched off": "<memballoon model='none'/>",
    "put in again by libvirt": "<memballoon model='virtio'/>",
}


@pytest.mark.parametrize(
    ("growth", "balloon"),
    [
        (growth, balloon)
        for growth in Growth
        for balloon in OTHER_BALLOONS
        # Of a VM without hot add beside a plain balloon, nothing but the agent's port tells of us.
        if (growth, balloon) != (BALLOON, "put in again by libvirt")
    ],
)
def test_without_our_metadata_and_our_balloon_what_is_ours_goes_all_the_same(
    growth: Growth, balloon: str
) -> None:
    prepared = without_metadata(enable(Q35, LIMITS, growth).xml)
    lost = re.sub(r"<memballoon.*?</memballoon>", OTHER_BALLOONS[balloon], prepared, flags=re.DOTALL)
    assert lost != prepared
    back = restore(lost)
    for ours in ("<maxMemory", "<numa>", "org.dynmem", "virtio-mem"):
        assert ours not in back.xml
    assert back.notes
    assert OTHER_BALLOONS[balloon] in back.xml
    again = enable(lost, LIMITS, growth).xml
    assert enable(again, LIMITS, growth).xml == again
    assert "org.dynmem" not in disable(again)


def test_room_of_somebody_elses_beside_a_balloon_that_they_ask_is_not_ours() -> None:
    asked = enable(Q35, LIMITS, HOTADD).xml.replace(" autodeflate='off' freePageReporting='on'", "")
    theirs = without_metadata(asked)
    assert "<maxMemory" in disable(theirs)


@pytest.mark.parametrize("growth", list(Growth))
def test_what_stands_around_a_domain_in_its_file_stays_as_it_is(growth: Growth) -> None:
    """Clusters start domains from copies of /etc/libvirt/qemu/*.xml, which begin with such a comment."""
    before = "<?xml version='1.0'?>\n<!--\nOVERWRITTEN AND LOST: virsh edit web > x\n-->\n\n"
    after = "\n\n<!-- </domain> -->\n\n"
    xml = before + Q35.strip() + after
    prepared = enable(xml, LIMITS, growth).xml
    assert prepared.startswith(before + "<domain ")
    assert prepared.endswith("</domain>" + after)
    assert disable(prepared) == xml
