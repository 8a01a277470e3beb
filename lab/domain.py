"""The XML of a lab guest: a plain machine. What dynmem needs is added by `dynmem enable`, not here."""

import base64
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from host_controller.verify.accelerator import Accelerator
from lab.image import Image

LAB_PORT = "org.dynmem.lab.0"
AGENT_PORT = "org.dynmem.agent.0"
TB_CACHE_MIB = 64  # QEMU's default is 1 GiB, of which a booted guest has filled some 100 MiB
AGENT = "dynmem-agent run"

# What a virtual machine's kernel would look for in vain, or test, or wait for, costs seconds under TCG.
_KERNEL_ARGUMENTS = (
    "loglevel=4 init=/lab/guest/init root=/dev/vda rw psi=1 "
    "mitigations=off audit=0 apparmor=0 cryptomgr.notests no_timer_check tsc=reliable "
    "i8042.noaux i8042.nokbd i8042.nopnp random.trust_cpu=on"
)


@dataclass(frozen=True, slots=True)
class Platform:
    """A kind of machine: what its domain and its kernel's command line say otherwise than another's."""

    arch: str
    console: str
    firmware: Path | None = None
    cpu: str = ""
    """The attributes and the model of its CPU; empty: the accelerator's."""
    timers: str = ""


X86: Final = Platform("x86_64", "ttyS0", timers="<timer name='hpet' present='no'/>")
ARM64: Final = Platform(
    "aarch64",
    "ttyAMA0",
    firmware=Path("/usr/share/AAVMF/AAVMF_CODE.fd"),
    cpu="mode='custom' match='exact'><model>cortex-a72</model>",
)
"""Of the package qemu-efi-aarch64: without its firmware `virt` has no ACPI, and so no DIMMs."""


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """What a test wants. Sizes in MiB.

    `agent` is the agent's command (one command, no `;`), None for a guest without one. `raw_dynmem` writes
    what `dynmem enable` would (maximum, slots, a NUMA cell, balloon statistics, the agent's port), for tests
    of the lab itself; `maximum_mib` is used only then. `machine` is pc or q35 (boots half a second sooner).
    `platform` is the machine's kind; another than this host's is emulated. `huge_pages`: its memory lies in
    them; needs a session that has them. `cpu_without`: features that its CPU lacks under TCG.
    """

    name: str
    startup_mib: int = 512
    maximum_mib: int | None = None
    vcpus: int = 1
    agent: str | None = AGENT
    respawn_agent: bool = False
    swap_mib: int = 0
    machine: str = "q35"
    platform: Platform = X86
    huge_pages: bool = False
    raw_dynmem: bool = False
    kernel_arguments: str = ""
    qemu_arguments: tuple[str, ...] = ()
    cpu_without: tuple[str, ...] = ()


def kernel_command_line(spec: GuestSpec) -> str:
    """The guest's kernel command line; /lab/guest/init reads the words that start with `lab.`."""
    words = [f"console={spec.platform.console}", _KERNEL_ARGUMENTS, f"lab.swap_mib={spec.swap_mib}"]
    if spec.agent is not None:
        words.append("lab.agent=" + base64.b64encode(spec.agent.encode()).decode())
        words.append(f"lab.respawn={int(spec.respawn_agent)}")
    return " ".join([*words, spec.kernel_arguments]).strip()


def domain_xml(
    spec: GuestSpec, accelerator: Accelerator, image: Image, code_disk: Path, disk: Path, place: Path
) -> str:
    """The domain. `disk` is its overlay; its console and its sockets are in `place`, on one host."""
    emulated = accelerator.name == "TCG" or spec.platform.arch != platform.machine()
    firmware = ""
    if spec.platform.firmware is not None:
        firmware = f"<loader readonly='yes' type='pflash'>{spec.platform.firmware}</loader>"
    cpu = spec.platform.cpu or f"mode='{accelerator.cpu}'>"
    tcg = f"<tcg><tb-cache unit='MiB'>{TB_CACHE_MIB}</tb-cache></tcg>" if emulated else ""
    lacks = "".join(f"<feature policy='disable' name='{name}'/>" for name in spec.cpu_without if emulated)
    maximum = numa = statistics = agent_port = ""
    backing = "<memoryBacking><hugepages/></memoryBacking>" if spec.huge_pages else ""
    balloon = "model='virtio'"
    if spec.raw_dynmem:
        maximum_mib = spec.maximum_mib or 4 * spec.startup_mib
        maximum = f"<maxMemory slots='16' unit='MiB'>{maximum_mib}</maxMemory>"
        numa = f"<numa><cell id='0' cpus='0-{spec.vcpus - 1}' memory='{spec.startup_mib}' unit='MiB'/></numa>"
        balloon = "model='virtio' autodeflate='off' freePageReporting='on'"
        statistics = "<stats period='1'/>"
        agent_port = f"<channel type='unix'><target type='virtio' name='{AGENT_PORT}'/></channel>"
    monitors = "".join(
        f"<qemu:arg value='-chardev'/>"
        f"<qemu:arg value='socket,id={name},path={place}/{name}.qmp,server=on,wait=off'/>"
        f"<qemu:arg value='-mon'/><qemu:arg value='chardev={name},mode=control'/>"
        for name in ("observer", "test")
    )
    extra = "".join(f"<qemu:arg value='{argument}'/>" for argument in spec.qemu_arguments)
    domain_type = "qemu" if emulated else accelerator.domain_type
    return f"""<domain type='{domain_type}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{spec.name}</name>
  {maximum}
  <memory unit='MiB'>{spec.startup_mib}</memory>
  <currentMemory unit='MiB'>{spec.startup_mib}</currentMemory>
  {backing}
  <vcpu>{spec.vcpus}</vcpu>
  <os>
    <type arch='{spec.platform.arch}' machine='{spec.machine}'>hvm</type>
    {firmware}
    <kernel>{image.kernel}</kernel>
    <initrd>{image.initrd}</initrd>
    <cmdline>{kernel_command_line(spec)}</cmdline>
  </os>
  <features><acpi/>{tcg}</features>
  <cpu {cpu}{lacks}{numa}</cpu>
  <clock offset='utc'>{spec.platform.timers}</clock>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>preserve</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='unsafe' discard='unmap'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{code_disk}'/>
      <target dev='vdb' bus='virtio'/>
      <readonly/>
    </disk>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{place}/console.log'/><target port='0'/></serial>
    <channel type='unix'>
      <source mode='bind' path='{place}/lab.sock'/>
      <target type='virtio' name='{LAB_PORT}'/>
    </channel>
    {agent_port}
    <memballoon {balloon}>{statistics}</memballoon>
  </devices>
  <qemu:commandline>{monitors}{extra}</qemu:commandline>
</domain>
"""
