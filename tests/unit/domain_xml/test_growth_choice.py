"""How a domain grows where nobody says: by what its definition, the host's versions and its burn-in allow."""

import pytest

from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.fitness.judge import refusals
from host_controller.domain_xml.growth_choice import FIRST, choose
from host_controller.domain_xml.host_abilities import HostAbilities
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.restore import disable
from host_controller.errors import DomainUnsuitable
from host_controller.units import GIB, MIB
from tests.unit.hypervisor.domains import I440FX, Q35, with_backing

LIMITS = Limits(1 * GIB, 512 * MIB, 4 * GIB)
NEW = (9_000_000, 7_002_000)
VIRTIO_MEM, HOTADD, BALLOON = FIRST
BLACKLISTED = Q35.replace("</os>", "<kernel>/k</kernel><cmdline>module_blacklist=virtio_mem</cmdline></os>")
WITHOUT_ACPI = Q35.replace("</os>", "<kernel>/k</kernel><cmdline>acpi=off</cmdline></os>")
DIMMS = frozenset({"hot add", "online", "unplug"})


@pytest.mark.parametrize(
    ("xml", "host", "growth", "reason"),
    [
        (Q35, HostAbilities(), VIRTIO_MEM, "virtio-mem"),
        (Q35, HostAbilities(*NEW), VIRTIO_MEM, "virtio-mem"),
        (I440FX, HostAbilities(*NEW), VIRTIO_MEM, "virtio-mem"),
        (Q35, HostAbilities(7_009_000, 5_001_000), VIRTIO_MEM, "virtio-mem"),
        (Q35, HostAbilities(7_008_999, 7_002_000), HOTADD, "libvirt 7.8 cannot resize it; 7.9 can"),
        (Q35, HostAbilities(9_000_000, 5_000_999), HOTADD, "QEMU 5.0 cannot resize it; 5.1 can"),
        (Q35, HostAbilities(9_000_000, 2_000_000), BALLOON, "QEMU 2.0 cannot resize it; 2.1 can"),
        (Q35, HostAbilities(*NEW, passed=frozenset({"virtio-mem"})), VIRTIO_MEM, "virtio-mem"),
        (Q35, HostAbilities(*NEW, passed=DIMMS), HOTADD, "did not pass 'virtio-mem'"),
        (Q35, HostAbilities(*NEW, passed=DIMMS - {"unplug"}), BALLOON, "did not pass 'unplug'"),
        (Q35, HostAbilities(*NEW, passed=frozenset()), BALLOON, "did not pass 'hot add'"),
        (Q35, HostAbilities(*NEW, transparent_huge_page_bytes=2 * MIB), VIRTIO_MEM, "virtio-mem"),
        (
            Q35,
            HostAbilities(*NEW, transparent_huge_page_bytes=32 * MIB),  # an arm64 with pages of 16 KiB
            HOTADD,
            "smaller than this host's transparent huge pages of 32 MiB",
        ),
        (Q35, HostAbilities(*NEW, reserves_all=True), HOTADD, "vm.overcommit_memory is 2"),
        (BLACKLISTED, HostAbilities(*NEW), HOTADD, "it loads no driver for virtio-mem"),
        (WITHOUT_ACPI, HostAbilities(*NEW), BALLOON, "without ACPI memory cannot be hot-added"),
    ],
)
def test_the_first_way_that_works_is_taken_with_the_reasons_against_those_before(
    xml: str, host: HostAbilities, growth: Growth, reason: str
) -> None:
    found, reasons = choose(xml, LIMITS, host)
    assert found is growth
    assert len(reasons) == 1 + FIRST.index(growth), "one for each that was passed over"
    assert reason in "; ".join(reasons)
    assert enable(xml, LIMITS, found).xml, "what is chosen is accepted"


def test_virtio_mem_that_libvirt_would_not_take_is_refused_also_where_it_is_named() -> None:
    host = HostAbilities(*NEW, transparent_huge_page_bytes=512 * MIB)
    with pytest.raises(DomainUnsuitable, match=r"huge pages of 512 MiB.*use --growth hotadd"):
        enable(Q35, LIMITS, VIRTIO_MEM, host=host)
    enable(Q35, LIMITS, HOTADD, host=host)


@pytest.mark.parametrize(
    ("maximum", "mappings", "growth"),
    [
        (127 * GIB, None, VIRTIO_MEM),
        (130 * GIB, None, HOTADD),
        (200 * GIB, 65535, HOTADD),
        (200 * GIB, 1 << 20, VIRTIO_MEM),
        (8 * GIB, 64, HOTADD),
    ],
)
def test_beside_a_graphics_card_a_device_is_no_larger_than_what_the_card_can_map(
    maximum: int, mappings: int | None, growth: Growth
) -> None:
    """Each block of 2 MiB is mapped by itself: at 127 GiB the guest's driver would give the device up."""
    card = "<hostdev mode='subsystem' type='pci'><source/></hostdev>"
    xml = Q35.replace("  </devices>", f"    {card}\n  </devices>")
    limits, host = Limits(GIB, GIB, maximum), HostAbilities(*NEW, address_bits=46, vfio_mappings=mappings)
    found, reasons = choose(xml, limits, host)
    assert found is growth
    assert ("a VFIO device can map" in "; ".join(reasons)) is (growth is HOTADD)
    assert choose(Q35, limits, host)[0] is VIRTIO_MEM, "nobody maps anything"


@pytest.mark.parametrize(
    ("backing", "cell", "starts"),
    [
        ("", "", False),
        ("<allocation mode='immediate'/>", "", False),
        ("<source type='file'/>", "", False),
        ("<source type='memfd'/>", "", True),
        ("<source type='file'/><access mode='shared'/>", "", True),
        ("<source type='memfd'/><access mode='shared'/>", "private", False),
        ("<access mode='private'/>", "shared", True),
        ("<hugepages/>", "", True),
    ],
)
def test_a_host_that_reserves_all_that_is_mapped_has_virtio_mem_only_where_others_may_map_it(
    backing: str, cell: str, starts: bool
) -> None:
    """As QEMU 7.2 did by libvirt 9.0 ("Skipping reservation of swap space is not supported")."""
    host = HostAbilities(*NEW, reserves_all=True)
    xml = with_backing(Q35, backing)
    if cell:
        numa = f"<numa><cell id='0' cpus='0-3' memory='1048576' memAccess='{cell}'/></numa>"
        xml = xml.replace("migratable='on'/>", f"migratable='on'>{numa}</cpu>")
    refused = [one.reason for one in refusals(xml, LIMITS, VIRTIO_MEM, host)]
    assert bool(refused) is not starts, refused
    assert refusals(xml, LIMITS, HOTADD, host) == ()
    assert refusals(xml, LIMITS, VIRTIO_MEM, HostAbilities(*NEW)) == ()


@pytest.mark.parametrize(
    ("system", "growth"),
    [
        ("http://debian.org/debian/11", VIRTIO_MEM),
        ("http://debian.org/debian/10", HOTADD),
        ("http://ubuntu.com/ubuntu/20.04", HOTADD),
        ("http://ubuntu.com/ubuntu/22.04", VIRTIO_MEM),
        ("http://centos.org/centos/7.0", HOTADD),
        ("http://redhat.com/rhel/9.2", VIRTIO_MEM),
        ("http://suse.com/sle/15.3", HOTADD),
        ("http://opensuse.org/opensuse/tumbleweed", VIRTIO_MEM),
        ("http://debian.org/debian/testing", VIRTIO_MEM),
        ("http://debian.org/debian/" + "9" * 500, VIRTIO_MEM),
        ("http://archlinux.org/archlinux/rolling", VIRTIO_MEM),
        ("http://redhat.com/rhel/8-unknown", HOTADD),  # of 8.10, by who knows 8.7 as the newest
        ("http://rockylinux.org/rocky/9-unknown", VIRTIO_MEM),
        ("http://opensuse.org/opensuse/42.3", HOTADD),
        ("http://opensuse.org/opensuse/15.5", VIRTIO_MEM),
        ("http://scientificlinux.org/scientificlinux/7.6", HOTADD),
        ("http://cclinux.org/circle/8.5", HOTADD),
        ("http://system76.com/popos/20.04", HOTADD),
        ("http://nixos.org/nixos/20.09", HOTADD),
        ("http://nixos.org/nixos/22.05", VIRTIO_MEM),
        ("http://cirros-cloud.net/cirros/0.5.2", HOTADD),
        ("http://redhat.com/rhl/9", HOTADD),
        ("http://mandriva.com/mandriva/2011", HOTADD),
        ("http://libosinfo.org/linux/2018", HOTADD),
        ("http://libosinfo.org/linux/2022", VIRTIO_MEM),
        ("http://guix.gnu.org/guix/hurd-latest", BALLOON),
        ("http://microsoft.com/win/11", BALLOON),
        ("http://freebsd.org/freebsd/14.0", BALLOON),
        ("http://openbsd.org/openbsd/7.4", BALLOON),
        ("", VIRTIO_MEM),
    ],
)
def test_a_guest_is_given_no_way_to_grow_that_its_system_does_not_know(system: str, growth: Growth) -> None:
    """With virtio-mem it would boot with a part of its startup, and nobody would give it the rest."""
    xml = Q35.replace("http://debian.org/debian/12", system)
    found, reasons = choose(xml, LIMITS, HostAbilities(*NEW))
    assert found is growth
    if growth is not VIRTIO_MEM:
        assert system.removeprefix("http://") in reasons[1]
    enable(xml, LIMITS, VIRTIO_MEM)  # its user may know better


ENLIGHTENED = "<hyperv mode='custom'><relaxed state='on'/><vapic state='on'/></hyperv></features>"
APPLE = (
    "<qemu:commandline><qemu:arg value='-device'/><qemu:arg value='isa-applesmc,osk=words'/>"
    "</qemu:commandline></domain>"
)


@pytest.mark.parametrize("note", ["", "http://libosinfo.org/unknown"])
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("</features>", ENLIGHTENED, "Windows (<hyperv>)"),
        ("</features>", "<hyperv mode='passthrough'/></features>", "Windows (<hyperv>)"),
        ("</domain>", APPLE, "macOS (isa-applesmc)"),
    ],
)
def test_without_a_note_what_one_system_alone_is_given_tells_which_it_is(
    note: str, old: str, new: str, words: str
) -> None:
    xml = Q35.replace("http://debian.org/debian/12", note).replace(old, new)
    found, reasons = choose(xml, LIMITS, HostAbilities(*NEW))
    assert found is BALLOON
    assert words in reasons[1]
    assert choose(Q35.replace(old, new), LIMITS, HostAbilities(*NEW))[0] is VIRTIO_MEM, "a note goes first"


def test_enlightenments_that_are_off_tell_nothing() -> None:
    off = Q35.replace("http://debian.org/debian/12", "").replace("</features>", ENLIGHTENED)
    assert choose(off.replace("state='on'", "state='off'"), LIMITS, HostAbilities(*NEW))[0] is VIRTIO_MEM


@pytest.mark.parametrize("growth", [VIRTIO_MEM, HOTADD])
def test_huge_pages_of_the_hosts_own_choice_are_as_large_as_the_host_says(growth: Growth) -> None:
    """With default_hugepagesz=1G QEMU refuses to start a virtio-mem device of 2 MiB blocks in them."""
    xml = with_backing(Q35, "<hugepages/>")
    assert choose(xml, LIMITS, HostAbilities(*NEW, huge_page_bytes=2 * MIB))[0] is VIRTIO_MEM
    enable(xml, LIMITS, growth)  # nobody has asked the host
    small_pages, large_pages = (HostAbilities(huge_page_bytes=one) for one in (2 * MIB, GIB))
    enable(xml, LIMITS, growth, host=small_pages)
    with pytest.raises(DomainUnsuitable, match=r"huge pages.* larger than"):
        enable(xml, LIMITS, growth, host=large_pages)
    (small, *_), *_ = (one.ways_out for one in refusals(xml, LIMITS, HOTADD, large_pages))
    assert "<page size='2' unit='MiB'/>" in small.say
    fit = small.follow(xml, LIMITS, growth)[0]
    enable(fit, LIMITS, growth, host=large_pages)
    enable(Q35, LIMITS, growth, host=large_pages)


def test_no_hint_names_a_way_to_grow_that_the_guests_system_does_not_know() -> None:
    windows = Q35.replace("http://debian.org/debian/12", "http://microsoft.com/win/11")
    small = Limits(512 * MIB, 256 * MIB, 64 * GIB)
    (refusal,) = refusals(windows, small, BALLOON)
    assert refusal.hint == "give --startup 1184M or more"
    (refusal,) = refusals(Q35, small, BALLOON)
    assert "--growth virtio-mem" in refusal.hint


def test_what_no_way_leads_past_is_told_by_enable() -> None:
    xen = Q35.replace("<domain type='kvm'", "<domain type='xen'").replace('type="kvm"', 'type="xen"')
    assert xen != Q35
    growth, _ = choose(xen, LIMITS, HostAbilities(*NEW))
    assert growth is BALLOON


@pytest.mark.parametrize(("first", "second"), [(HOTADD, VIRTIO_MEM), (VIRTIO_MEM, HOTADD)])
def test_a_domain_of_dimms_becomes_one_of_virtio_mem_and_back(first: Growth, second: Growth) -> None:
    there = enable(Q35, LIMITS, first).xml
    other = enable(there, LIMITS, second).xml
    view = read_domain(other)
    assert view.config is not None
    assert view.config.growth is second
    assert other == enable(Q35, LIMITS, second).xml, "nothing of the first is left"
    assert enable(other, LIMITS, first).xml == there
    assert disable(other) == Q35


def test_enable_says_what_startup_must_hold_and_how_memory_leaves() -> None:
    notes = "\n".join(enable(Q35, LIMITS, VIRTIO_MEM).notes)
    assert "it boots with 1 GiB (all of startup) and grows by up to 3 GiB" in notes
    assert "until then" not in notes
    assert "64 MiB of what it boots with aside" in notes
    assert "page structures of what it grows by take up to 48 MiB of what it boots with" in notes
    assert "down to 1 GiB leaves in whole blocks; from there to its minimum of 512 MiB its balloon" in notes
    small = "\n".join(enable(Q35, Limits(2 * GIB, 512 * MIB, 4 * GIB), VIRTIO_MEM).notes)
    assert "it boots with 1 GiB (a quarter of maximum, so that all the rest can be movable (3:1))" in small
    assert "the other 1 GiB of startup it gets as soon as it reports" in small
    assert "so 1 GiB must do until then; with a minimum of 2 GiB" in small
    wide = "\n".join(enable(Q35, Limits(1 * GIB, 1 * GIB, 64 * GIB), VIRTIO_MEM).notes)
    assert "take up to 48 MiB of what it boots with" in wide, "the kernel's own describes itself"
    assert "its balloon takes single pages" not in wide
