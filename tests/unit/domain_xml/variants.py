"""A domain in many shapes."""

from host_controller.core.model import Growth, Limits
from host_controller.units import GIB, MIB
from tests.unit.hypervisor.domains import Q35

LIMITS = Limits(1 * GIB, 512 * MIB, 4 * GIB)
HOTADD, BALLOON, VIRTIO_MEM = Growth


def with_args(*words: str) -> str:
    """Q35 with these passed to QEMU."""
    start, end = Q35.index("    <qemu:arg"), Q35.index("  </qemu:commandline>")
    args = "".join(f"    <qemu:arg value='{word.replace(chr(34), '&quot;')}'/>\n" for word in words)
    return Q35[:start] + args + Q35[end:]


def with_device(device: str, xml: str = Q35) -> str:
    return xml.replace("<devices>", f"<devices>{device}", 1)


def on(machine: str, arch: str = "x86_64", xml: str = Q35) -> str:
    return xml.replace("pc-q35-7.2", machine).replace("arch='x86_64'", f"arch='{arch}'")


def with_cpu(inside: str, attributes: str = "mode='custom'", domain_type: str = "kvm") -> str:
    cpu = "<cpu mode='host-passthrough' check='none' migratable='on'/>"
    assert cpu in Q35
    return Q35.replace(cpu, f"<cpu {attributes}>{inside}</cpu>").replace(
        "type='kvm'", f"type='{domain_type}'"
    )


def with_memtune(inside: str) -> str:
    return Q35.replace("  <vcpu", f"  <memtune>{inside}</memtune>\n  <vcpu", 1)


def bound(inside: str, xml: str = Q35) -> str:
    return xml.replace("  <vcpu", f"  <numatune>{inside}</numatune>\n  <vcpu", 1)


def named_balloon(xml: str = Q35) -> str:
    """With a name of the user's own."""
    balloon = "<memballoon model='virtio'>"
    return xml.replace(balloon, f"{balloon}\n      <alias name='ua-mine'/>")


NVDIMM = (
    "<memory model='nvdimm'><source><path>/n</path></source>"
    "<target><size unit='MiB'>256</size><node>0</node></target></memory>"
)
DIMM = "<memory model='dimm'><target><size unit='KiB'>524288</size><node>0</node></target></memory>"
OWN_VIRTIO_MEM = "<memory model='virtio-mem'><target><size unit='KiB'>1048576</size></target></memory>"
