"""Lab guests as other tools define them: what each writes of itself, around the lab's kernel and disks.

Known from virt-install 4.1's own output, and from the sources of Terraform's libvirt provider 0.7, of
vagrant-libvirt 0.11 and of Cockpit's machines page. What the lab needs is put in: direct boot, its disks, its
console and its port, the observer's monitors, and emulation where there is no KVM.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

QEMU: Final = "{http://libvirt.org/schemas/domain/qemu/1.0}"
GUEST_AGENT_PORT: Final = "org.qemu.guest_agent.0"
OSINFO: Final = (
    '<libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">'
    '<libosinfo:os id="http://debian.org/debian/12"/></libosinfo:libosinfo>'
)
COCKPIT: Final = (
    '<cockpit_machines:data xmlns:cockpit_machines="https://github.com/cockpit-project/cockpit-machines">'
    "<cockpit_machines:has_install_phase>false</cockpit_machines:has_install_phase>"
    "<cockpit_machines:install_source_type>disk_image</cockpit_machines:install_source_type>"
    "</cockpit_machines:data>"
)
CHANNEL: Final = f"<channel type='unix'><target type='virtio' name='{GUEST_AGENT_PORT}'/></channel>"
RNG: Final = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What its user asked the tool for. Sizes in MiB."""

    name: str
    ram: int
    maximum: int = 0
    """maxMemory, with DIMM slots; 0: none."""
    virtio_mem: int = 0
    """The size of a virtio-mem device, empty at first; 0: none."""


Tool = Callable[[Wanted], str]


def virt_install(wanted: Wanted, metadata: str = OSINFO) -> str:
    """`virt-install --memory … --import`: a q35 with root ports, a guest agent's port, a balloon, an RNG."""
    kib = wanted.ram * 1024
    ports = "<controller type='pci' model='pcie-root-port'/>" * 14
    room = f"<maxMemory slots='8' unit='MiB'>{wanted.maximum}</maxMemory>" if wanted.maximum else ""
    hot = bool(wanted.maximum or wanted.virtio_mem)
    cell = f"<numa><cell id='0' cpus='0' memory='{kib}' unit='KiB'/></numa>" if hot else ""
    device = ""
    if wanted.virtio_mem:
        room = f"<maxMemory slots='1' unit='MiB'>{wanted.ram + wanted.virtio_mem}</maxMemory>"
        device = (
            f"<memory model='virtio-mem'><target><size unit='MiB'>{wanted.virtio_mem}</size><node>0</node>"
            "<block unit='MiB'>2</block><requested unit='KiB'>0</requested></target></memory>"
        )
    return f"""<domain type='kvm'>
  <name>{wanted.name}</name>
  <metadata>{metadata}</metadata>
  {room}
  <memory>{kib + wanted.virtio_mem * 1024}</memory>
  <currentMemory>{kib}</currentMemory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os>
  <features><acpi/><apic/></features>
  <cpu mode='host-passthrough'>{cell}</cpu>
  <clock offset='utc'>
    <timer name='rtc' tickpolicy='catchup'/><timer name='pit' tickpolicy='delay'/>
    <timer name='hpet' present='no'/>
  </clock>
  <pm><suspend-to-mem enabled='no'/><suspend-to-disk enabled='no'/></pm>
  <devices>
    <controller type='usb' model='qemu-xhci' ports='15'/>
    <controller type='pci' model='pcie-root'/>{ports}
    <console type='pty'/>
    <channel type='unix'><source mode='bind'/><target type='virtio' name='{GUEST_AGENT_PORT}'/></channel>
    <memballoon model='virtio'/>
    {RNG}{device}
  </devices>
</domain>"""


def cockpit(wanted: Wanted) -> str:
    """It has virt-install write the domain, and adds a word of its own."""
    return virt_install(wanted, OSINFO + COCKPIT)


def terraform(wanted: Wanted) -> str:
    """The provider: an i440fx, no <currentMemory>, no balloon of its own (libvirt adds one), no metadata."""
    return f"""<domain type='kvm'>
  <name>{wanted.name}</name>
  <memory unit='MiB'>{wanted.ram}</memory>
  <vcpu placement='static'>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><pae/><acpi/><apic/></features>
  <cpu mode='host-passthrough'/>
  <devices>
    <console type='pty'><target type='serial' port='0'/></console>
    {CHANNEL}
    {RNG}
  </devices>
</domain>"""


def vagrant(wanted: Wanted) -> str:
    """The provider names its Vagrantfile, and gives the VM no port at all."""
    return f"""<domain type='kvm'>
  <name>{wanted.name}</name>
  <title/>
  <description>Source: /home/me/lab/Vagrantfile</description>
  <memory>{wanted.ram * 1024}</memory>
  <vcpu>1</vcpu>
  <cpu mode='host-model'><model fallback='allow'/></cpu>
  <os><type>hvm</type><bootmenu enable='no'/></os>
  <features><acpi/><apic/><pae/></features>
  <clock offset='utc'/>
  <devices>
    <console type='pty'><target port='0'/></console>
    <input type='mouse' bus='ps2'/>
  </devices>
</domain>"""


def defined_by(tool: Tool, wanted: Wanted, lab_xml: str) -> str:
    """That tool's domain, with what the lab's own (`Guest.xml`) has to boot, be watched and be commanded."""
    ElementTree.register_namespace("qemu", QEMU[1:-1])
    root, lab = ElementTree.fromstring(tool(wanted)), ElementTree.fromstring(lab_xml)
    root.set("type", lab.get("type", ""))
    os, devices = _child(root, "os"), _child(root, "devices")
    for boot in os.findall("boot"):
        os.remove(boot)
    os.extend(_child(lab, "os").find(tag) for tag in ("kernel", "initrd", "cmdline"))  # type: ignore[arg-type]
    if (tcg := lab.find("./features/tcg")) is not None:
        _child(root, "features").append(tcg)
    cpu = _child(root, "cpu")
    cpu.set("mode", _child(lab, "cpu").get("mode", ""))
    for model in cpu.findall("model"):
        cpu.remove(model)
    # Its console is the lab's, which tests read.
    for own in devices.findall("console"):
        devices.remove(own)
    for tag in ("disk", "serial", "channel"):
        devices.extend(lab.findall(f"./devices/{tag}"))
    root.append(_child(lab, f"{QEMU}commandline"))
    return ElementTree.tostring(root, encoding="unicode")


def _child(element: Element, tag: str) -> Element:
    found = element.find(tag)
    assert found is not None, tag
    return found
