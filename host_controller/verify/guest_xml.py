"""The XML of the throwaway guest: a machine with all that dynmem uses, without a disk or a network."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from agent import wire
from host_controller.verify.accelerator import Accelerator

MIB: Final = 1 << 20
LAB_PORT: Final = "org.dynmem.lab.0"
VIRTIO_MEM_MIB: Final = 128
DIMM_MIB: Final = 128
SLOTS: Final = 4
ARGUMENTS: Final = "loglevel=4 rdinit=/init random.trust_cpu=on panic=0"


@dataclass(frozen=True, slots=True)
class Place:
    """Where its files are. QEMU must be able to read `kernel` and `initrd`, and to write into `directory`."""

    kernel: Path
    initrd: Path
    directory: Path

    @property
    def lab_socket(self) -> Path:
        """The workload server's port."""
        return self.directory / "lab.sock"

    @property
    def agent_socket(self) -> Path:
        """The agent's port."""
        return self.directory / "agent.sock"

    @property
    def observer_socket(self) -> Path:
        """A monitor that is the observer's alone."""
        return self.directory / "observer.qmp"

    @property
    def console(self) -> Path:
        """What its kernel says."""
        return self.directory / "console.log"


def guest_xml(name: str, ram_bytes: int, accelerator: Accelerator, place: Place, arguments: str = "") -> str:
    """The domain. It reports no free pages: only its balloon shall give memory back. Nothing confines QEMU
    (seclabel none): its files lie where no policy knows them.
    """
    arch = platform.machine()
    machine, console = ("q35", "ttyS0") if arch == "x86_64" else ("virt", "ttyAMA0")
    ram = ram_bytes // MIB
    most = ram + VIRTIO_MEM_MIB + SLOTS * DIMM_MIB
    line = escape(f"console={console} {ARGUMENTS} {arguments}".strip())
    tcg = "<tcg><tb-cache unit='MiB'>64</tb-cache></tcg>" if accelerator.name == "TCG" else ""
    return f"""<domain type='{accelerator.domain_type}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{escape(name)}</name>
  <maxMemory slots='{SLOTS}' unit='MiB'>{most}</maxMemory>
  <memory unit='MiB'>{ram + VIRTIO_MEM_MIB}</memory>
  <currentMemory unit='MiB'>{ram}</currentMemory>
  <vcpu>1</vcpu>
  <os>
    <type arch='{arch}' machine='{machine}'>hvm</type>
    <kernel>{escape(str(place.kernel))}</kernel>
    <initrd>{escape(str(place.initrd))}</initrd>
    <cmdline>{line}</cmdline>
  </os>
  <features><acpi/>{tcg}</features>
  <cpu mode='{accelerator.cpu}'><numa><cell id='0' cpus='0' memory='{ram}' unit='MiB'/></numa></cpu>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>preserve</on_crash>
  <devices>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{escape(str(place.console))}'/><target port='0'/></serial>
    <channel type='unix'>
      <source mode='bind' path='{escape(str(place.lab_socket))}'/><target type='virtio' name='{LAB_PORT}'/>
    </channel>
    <channel type='unix'>
      <source mode='bind' path='{escape(str(place.agent_socket))}'/>
      <target type='virtio' name='{wire.PORT_NAME}'/>
    </channel>
    <memballoon model='virtio' autodeflate='off'><stats period='1'/></memballoon>
    <memory model='virtio-mem'>
      <target>
        <size unit='MiB'>{VIRTIO_MEM_MIB}</size><node>0</node>
        <block unit='MiB'>2</block><requested unit='MiB'>0</requested>
      </target>
    </memory>
  </devices>
  <seclabel type='none'/>
  <qemu:commandline>
    <qemu:arg value='-chardev'/>
    <qemu:arg value='socket,id=observer,path={escape(str(place.observer_socket))},server=on,wait=off'/>
    <qemu:arg value='-mon'/><qemu:arg value='chardev=observer,mode=control'/>
  </qemu:commandline>
</domain>
"""
