"""`dynmem enable`, `set` and `disable` on domains of a real libvirt. Nothing boots: what runs is paused."""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from typing import Any

import libvirt
import pytest

from host_controller.domain_xml.ours import NAMESPACE
from lab.controller import dynmem
from lab.lab import Lab

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
LIMITS = ("--startup", "1G", "--minimum", "512M", "--maximum", "4GiB")

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


def test_numa_cells_keep_their_proportion_and_come_back(lab: Lab, define: Define) -> None:
    cells = "".join(f"<cell id='{i}' cpus='{i}' memory='{1 + i}' unit='GiB'/>" for i in (0, 1))
    domain = define("cells", machine="pc", more=f"<cpu><numa>{cells}</numa></cpu>")
    before = domain.XMLDesc(INACTIVE)
    call(lab, "enable", "cells", "--startup", "1536M", "--maximum", "3G")
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
        (["set", "web", "--weight", "0"], "weight is 0; 1 to 10000 is allowed"),
        (["set", "web", "--weight", "10001"], "1 to 10000 is allowed"),
        (["set", "web", "--buffer", "4"], "5 to 2000 is allowed"),
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
        (BARE, {"machine": "isapc", "features": ""}, "machine type 'isapc' cannot hot-add memory"),
        (FULL, {"machine": "pc", "features": ""}, "ACPI"),
        (
            FULL,
            {"more": "<memtune><hard_limit unit='GiB'>3</hard_limit></memtune>"},
            "hard_limit (3 GiB) is below maximum (4 GiB)",
        ),
        (FULL, {"devices": "<memballoon model='none'/>"}, "no memory balloon"),
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
    assert "is libvirtd running" in done.stderr
