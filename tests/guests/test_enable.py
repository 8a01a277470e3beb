"""`dynmem enable`, `set` and `disable` on domains of a real libvirt. Nothing boots: what runs is paused."""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from typing import Any

import libvirt
import pytest

from host_controller.domain_xml.ours import NAMESPACE
from host_controller.hypervisor.libvirt_calls import dimm_xml
from lab.controller import dynmem
from lab.lab import Lab

pytestmark = pytest.mark.bootless

INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
FULL = """
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <metadata><other:thing xmlns:other='urn:other'>somebody else's</other:thing></metadata>
  <memory unit='GiB'>2</memory><currentMemory unit='GiB'>1</currentMemory><vcpu>2</vcpu>
  <os><type arch='x86_64' machine='{machine}'>hvm</type></os><features>{features}</features>{more}
  <devices>
    <graphics type='vnc' passwd='secret' port='-1' autoport='yes'/>
    {devices}
  </devices>
  <qemu:commandline><qemu:env name='A' value='b'/></qemu:commandline>
</domain>"""
BARE = """
<domain type='qemu'>
  <name>{name}</name><memory unit='MiB'>512</memory>
  <os><type arch='x86_64' machine='{machine}'>hvm</type></os><features>{features}</features>{more}
  <devices><controller type='usb' model='none'/>{devices}</devices>
</domain>"""
SIZES = ("--startup", "1G", "--minimum", "512M", "--maximum", "4GiB")
LIMITS = (*SIZES, "--growth", "hotadd")

Define = Callable[..., libvirt.virDomain]


@pytest.fixture
def define(lab: Lab) -> Iterator[Define]:
    """Defines a domain; whatever became of it, it is gone afterwards."""
    made: list[str] = []
    connection = lab.session.connection()

    def make(
        name: str, text: str = FULL, *, machine: str = "q35", features: str = "<acpi/>", **parts: str
    ) -> Any:
        made.append(name)
        parts = {"more": "", "devices": ""} | parts
        return connection.defineXML(text.format(name=name, machine=machine, features=features, **parts))

    yield make
    for name in made:
        domain = connection.lookupByName(name)
        active = domain.isActive()
        if domain.isPersistent():
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
        if active:
            domain.destroy()


def call(lab: Lab, *arguments: str, code: int = 0) -> str:
    """What the command says, errors included, when it ends as expected."""
    done = dynmem(*arguments, "--connect", lab.session.uri)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    return said


def start(domain: libvirt.virDomain) -> None:
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)


def ours(domain: libvirt.virDomain, flags: int = 0) -> dict[str, str]:
    """The limits that its XML names."""
    found = ET.fromstring(domain.XMLDesc(flags)).find(f"./metadata/{{{NAMESPACE}}}vm")
    assert found is not None
    return dict(found.attrib)


def test_enable_changes_what_it_shows_once_and_disable_puts_every_byte_back(lab: Lab, define: Define) -> None:
    domain = define("web")
    before = domain.XMLDesc(INACTIVE)

    shown = call(lab, "enable", "web", *LIMITS, "--dry-run")
    assert domain.XMLDesc(INACTIVE) == before, "a dry run changes nothing"
    assert "+  <maxMemory unit='KiB' slots='16'>4194304</maxMemory>" in shown
    assert "16 slots, 128 MiB at least and 256 MiB on average" in shown
    assert "3 GiB of that can be movable" in shown
    assert "secret" not in shown

    said = call(lab, "enable", "web", *LIMITS)
    assert said.startswith(shown.rstrip())
    root = ET.fromstring(domain.XMLDesc(INACTIVE))
    assert root.findtext("maxMemory") == str(4 << 20)
    assert root.findtext("memory") == root.findtext("currentMemory") == str(1 << 20)
    cell = root.find("./cpu/numa/cell")
    assert cell is not None
    assert (cell.get("cpus"), cell.get("memory")) == ("0-1", str(1 << 20))
    balloon = root.find("./devices/memballoon")
    assert balloon is not None
    assert (balloon.get("autodeflate"), balloon.get("freePageReporting")) == ("off", "on")
    assert balloon.find("stats[@period='1']") is not None
    assert root.find("./devices/channel/target[@name='org.dynmem.agent.0']") is not None
    for kept in ("somebody else's", "passwd='secret'", "qemu:env"):
        assert kept in domain.XMLDesc(INACTIVE)
    assert ours(domain, INACTIVE) | {"startup": str(1 << 20), "weight": "100"} == ours(domain, INACTIVE)

    now = domain.XMLDesc(INACTIVE)
    for again in (LIMITS, ()):
        assert "nothing to change" in call(lab, "enable", "web", *again)
        assert domain.XMLDesc(INACTIVE) == now

    # There and back between the ways to grow, with other limits, and all of it is still put back.
    call(lab, "enable", "web", "--growth", "balloon")
    root = ET.fromstring(domain.XMLDesc(INACTIVE))
    assert (root.find("maxMemory"), root.findtext("memory")) == (None, str(4 << 20))
    call(lab, "enable", "web", "--growth", "hotadd", "--maximum", "1.5G", "--weight", "7")
    call(lab, "disable", "web", "--dry-run")
    assert "web is as it was" in call(lab, "disable", "web")
    assert domain.XMLDesc(INACTIVE) == before
    assert "nothing to change" in call(lab, "disable", "web")


def test_the_first_time_virtio_mem_is_chosen_and_what_is_prepared_keeps_its_way(
    lab: Lab, define: Define
) -> None:
    domain = define("web")
    before = domain.XMLDesc(INACTIVE)
    device = "./devices/memory[@model='virtio-mem']"

    said = call(lab, "enable", "web", *SIZES)
    assert "it grows by virtio-mem (--growth auto)" in said
    assert ET.fromstring(domain.XMLDesc(INACTIVE)).find(device) is not None
    call(lab, "enable", "web", "--growth", "hotadd")
    by_dimms = domain.XMLDesc(INACTIVE)
    assert ET.fromstring(by_dimms).find(device) is None
    assert "nothing to change" in call(lab, "enable", "web")
    assert domain.XMLDesc(INACTIVE) == by_dimms
    call(lab, "enable", "web", "--growth", "auto")
    assert ET.fromstring(domain.XMLDesc(INACTIVE)).find(device) is not None
    call(lab, "disable", "web")
    assert domain.XMLDesc(INACTIVE) == before


def test_numa_cells_keep_their_proportion_and_come_back(lab: Lab, define: Define) -> None:
    cells = "".join(f"<cell id='{i}' cpus='{i}' memory='{1 + i}' unit='GiB'/>" for i in (0, 1))
    domain = define("cells", machine="pc", more=f"<cpu><numa>{cells}</numa></cpu>")
    before = domain.XMLDesc(INACTIVE)
    call(lab, "enable", "cells", "--startup", "1536M", "--minimum", "1536M", "--maximum", "3G")
    root = ET.fromstring(domain.XMLDesc(INACTIVE))
    assert [one.get("memory") for one in root.findall("./cpu/numa/cell")] == [str(512 << 10), str(1 << 20)]
    call(lab, "disable", "cells")
    assert domain.XMLDesc(INACTIVE) == before


def test_set_gives_a_running_vm_what_it_can_have_and_says_what_waits(lab: Lab, define: Define) -> None:
    domain = define("web")
    call(lab, "enable", "web", *LIMITS)
    start(domain)
    said = call(
        lab, "set", "web", "--maximum", "9G", "--minimum", "256M", "--buffer", "33", "--weight", "7",
        "--startup", "2G",
    )  # fmt: skip
    assert "maximum 9 GiB waits for the next start: the running VM has room for 4 GiB" in said
    assert "startup 2 GiB waits for the next start" in said
    live, later = ours(domain), ours(domain, INACTIVE)
    assert (live["minimum"], live["buffer"], live["weight"]) == (str(256 << 10), "33", "7")
    assert (live["maximum"], live["startup"]) == (str(4 << 20), str(1 << 20))
    assert (later["maximum"], later["startup"], later["minimum"]) == (
        str(9 << 20),
        str(2 << 20),
        str(256 << 10),
    )
    assert "maximum 3 GiB waits" in call(lab, "set", "web", "--maximum", "3G")
    assert ours(domain)["maximum"] == str(4 << 20)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["set", "web"], "nothing to set"),
        (["set", "web", "--maximum", "100M"], "maximum (100 MiB) is below startup (1 GiB)"),
        (["set", "web", "--minimum", "2G"], "startup (1 GiB) is below minimum (2 GiB)"),
        (["set", "web", "--maximum", "12X"], "write it like 512M, 1.5GiB"),
        (["set", "web", "--minimum", "1M"], "at least 32 MiB is allowed"),
        (["enable", "web", "--maximum", "17T"], "maximum is 17 TiB"),
        (["enable", "nobody"], "there is no domain 'nobody'"),
        (["disable", "nobody"], "virsh list --all"),
    ],
)
def test_limits_that_cannot_be_are_refused_with_what_is_allowed_and_nothing_changes(
    lab: Lab, define: Define, arguments: list[str], said: str
) -> None:
    domain = define("web")
    call(lab, "enable", "web", *LIMITS)
    before = domain.XMLDesc(INACTIVE)
    assert said in call(lab, *arguments, code=2)
    assert domain.XMLDesc(INACTIVE) == before


def test_a_vm_that_runs_is_saved_or_transient_is_refused_with_the_way_out(lab: Lab, define: Define) -> None:
    domain = define("web")
    start(domain)
    before = domain.XMLDesc(INACTIVE)
    assert "it is running" in call(lab, "enable", "web", *LIMITS, code=2)
    domain.destroy()
    call(lab, "enable", "web", *LIMITS)
    start(domain)
    assert "shut it down first" in call(lab, "disable", "web", code=2)
    assert "dynmem set" in call(lab, "enable", "web", "--weight", "5", code=2)
    domain.managedSave(libvirt.VIR_DOMAIN_SAVE_PAUSED)
    assert "virsh managedsave-remove" in call(lab, "disable", "web", code=2)
    domain.managedSaveRemove()
    call(lab, "disable", "web")
    assert domain.XMLDesc(INACTIVE) == before
    start(domain)
    domain.undefine()
    assert "virsh define it first" in call(lab, "enable", "web", *LIMITS, code=2)
    assert "not prepared" in call(lab, "set", "web", "--weight", "5", code=2)


@pytest.mark.parametrize(
    ("text", "parts", "said"),
    [
        (BARE, {"machine": "isapc", "features": ""}, "machine type 'isapc' has no PCI bus"),
        (FULL, {"machine": "pc", "features": ""}, "ACPI"),
        (
            FULL,
            {"more": "<memtune><hard_limit unit='GiB'>4</hard_limit></memtune>"},
            "hard_limit is 4 GiB; a maximum of 4 GiB needs 5.28 GiB",
        ),
    ],
)
def test_a_domain_that_cannot_do_it_is_refused_with_the_way_out_and_stays_as_it_is(
    lab: Lab, define: Define, text: str, parts: dict[str, str], said: str
) -> None:
    if text is BARE:
        parts = parts | {"devices": "<memballoon model='none'/>"}
    domain = define("odd", text, **parts)
    before = domain.XMLDesc(INACTIVE)
    assert said in call(lab, "enable", "odd", *LIMITS, code=2)
    assert domain.XMLDesc(INACTIVE) == before


def test_what_a_balloon_cannot_give_back_is_said_before_it_is_enabled(lab: Lab, define: Define) -> None:
    define("huge", more="<memoryBacking><hugepages/></memoryBacking>")
    assert "it costs all its RAM always" in call(lab, "enable", "huge", *LIMITS, "--dry-run")


def test_a_libvirt_that_is_not_there_is_named_with_exit_code_1() -> None:
    done = dynmem("enable", "web", "--connect", "qemu+unix:///session?socket=/nowhere")
    assert done.returncode == 1
    assert "socket=/nowhere cannot be reached" in done.stderr
    assert "is libvirtd (or virtqemud) running" in done.stderr


def test_what_enable_says_of_ordinary_tools_is_what_libvirt_does(lab: Lab, define: Define) -> None:
    domain = define("tools")
    said = call(lab, "enable", "tools", *LIMITS)
    assert "`virsh setmaxmem`" in said
    assert "`virsh setvcpus --maximum`" in said
    with pytest.raises(libvirt.libvirtError, match="NUMA"):
        domain.setMemoryFlags(8 << 20, libvirt.VIR_DOMAIN_AFFECT_CONFIG | libvirt.VIR_DOMAIN_MEM_MAXIMUM)
    maximum = libvirt.VIR_DOMAIN_AFFECT_CONFIG | libvirt.VIR_DOMAIN_VCPU_MAXIMUM
    with pytest.raises(libvirt.libvirtError, match="numa"):
        domain.setVcpusFlags(1, maximum)
    domain.setVcpusFlags(4, maximum)
    call(lab, "enable", "tools", "--maximum", "6G")
    start(domain)


def test_a_unit_that_was_left_out_is_asked_for(lab: Lab, define: Define) -> None:
    define("web")
    for option in ("--startup", "--minimum", "--maximum"):
        assert "did you mean 1024M?" in call(lab, "enable", "web", option, "1024", code=2)


def test_a_balloon_that_was_taken_out_comes_back_by_enable_and_goes_by_disable(
    lab: Lab, define: Define
) -> None:
    domain = define("mute", devices="<memballoon model='none'/>")
    before = domain.XMLDesc(INACTIVE)
    assert "in place of model 'none'" in call(lab, "enable", "mute", *LIMITS)
    start(domain)
    domain.setMemoryFlags(600 << 10, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    domain.destroy()
    call(lab, "disable", "mute")
    assert domain.XMLDesc(INACTIVE) == before


def test_a_definition_written_from_the_live_xml_with_a_dimm_is_enabled_and_disabled(
    lab: Lab, define: Define
) -> None:
    domain = define("grown")
    before = domain.XMLDesc(INACTIVE)
    call(lab, "enable", "grown", *LIMITS)
    start(domain)
    domain.attachDeviceFlags(dimm_xml(128 << 20), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    call(lab, "set", "grown", "--weight", "7")
    lab.session.connection().defineXML(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))
    domain.destroy()
    assert "<memory model='dimm'" in domain.XMLDesc(INACTIVE)
    assert "DIMMs that the controller had plugged (1)" in call(lab, "enable", "grown", "--dry-run")
    assert "DIMMs that the controller had plugged (1)" in call(lab, "disable", "grown")
    after = ET.fromstring(domain.XMLDesc(INACTIVE))
    for tag in ("maxMemory", "memory", "currentMemory"):
        assert after.findtext(tag) == ET.fromstring(before).findtext(tag)
    assert after.find("./devices/memory") is None
    assert after.find("./cpu/numa") is None
    start(domain)


def test_a_definition_that_lost_our_metadata_is_disabled_as_far_as_it_is_known(
    lab: Lab, define: Define
) -> None:
    domain = define("stripped")
    call(lab, "enable", "stripped", *LIMITS)
    root = ET.fromstring(domain.XMLDesc(INACTIVE))
    metadata = root.find("metadata")
    assert metadata is not None
    root.remove(metadata)
    lab.session.connection().defineXML(ET.tostring(root, encoding="unicode"))
    said = call(lab, "disable", "stripped")
    assert "not recorded any more: it keeps 1 GiB of RAM" in said
    assert "as far as it is known" in said
    after = ET.fromstring(domain.XMLDesc(INACTIVE))
    assert (after.findtext("memory"), after.find("maxMemory")) == (str(1 << 20), None)
    assert "nothing to change" in call(lab, "disable", "stripped")
    start(domain)
