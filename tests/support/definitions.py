"""A domain in many shapes, with what `enable` is to make of each."""

import re

from host_controller.core.model import Growth, Limits
from host_controller.units import GIB, MIB
from tests.unit.hypervisor.domains import Q35, with_backing

LIMITS = Limits(1 * GIB, 512 * MIB, 4 * GIB)
HOTADD, BALLOON, VIRTIO_MEM = Growth


def with_args(*words: str) -> str:
    """Q35 with these passed to QEMU."""
    start, end = Q35.index("    <qemu:arg"), Q35.index("  </qemu:commandline>")
    args = "".join(f"    <qemu:arg value='{word.replace(chr(34), '&quot;')}'/>\n" for word in words)
    return Q35[:start] + args + Q35[end:]


def with_device(device: str, xml: str = Q35) -> str:
    return xml.replace("<devices>", f"<devices>{device}", 1)


def with_room(xml: str = Q35) -> str:
    """With room for memory devices of its own."""
    cell = "\n    <numa>\n      <cell id='0' cpus='0-3' memory='2097152' unit='KiB'/>\n    </numa>\n  "
    cpu = "<cpu mode='host-passthrough' check='none' migratable='on'/>"
    xml = xml.replace(cpu, f"{cpu[:-2]}>{cell}</cpu>")
    return xml.replace("  <memory ", "  <maxMemory slots='2' unit='GiB'>8</maxMemory>\n  <memory ", 1)


def startable(xml: str) -> str:
    """Without what no machine has: the places on a bus that our example made up, and its odd argument."""
    xml = re.sub(r"\s*<address type='pci'[^>]*/>|\s*<controller type='pci'[^>]*/>", "", xml)
    return re.sub(r"\s*<qemu:arg value='-set'/>\s*<qemu:arg value='device\.x\.y[^>]*>", "", xml)


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


def started_with(line: str, xml: str = Q35) -> str:
    """With a kernel that the host loads, and what it is told."""
    return xml.replace(
        "  </os>", f"    <kernel>/boot/vmlinuz</kernel>\n    <cmdline>{line}</cmdline>\n  </os>"
    )


def told_by_firmware(line: str, which: str = "stub") -> str:
    """With a boot stub of systemd's, and what it is to add to the kernel's own line."""
    entry = f"<entry>io.systemd.{which}.kernel-cmdline-extra={line}</entry>"
    strings = f"<oemStrings><entry>other=mem=1G</entry>{entry}</oemStrings>"
    return Q35.replace("  <os>", f"  <sysinfo type='smbios'>{strings}</sysinfo>\n  <os>", 1)


NVDIMM = (
    "<memory model='nvdimm'><source><path>/n</path></source>"
    "<target><size unit='MiB'>256</size><node>0</node></target></memory>"
)
DIMM = "<memory model='dimm'><target><size unit='KiB'>524288</size><node>0</node></target></memory>"
OWN_VIRTIO_MEM = (
    "<memory model='virtio-mem'><target><size unit='KiB'>1048576</size><node>0</node>"
    "<block unit='KiB'>2048</block><requested unit='KiB'>0</requested></target></memory>"
)

REFUSED = [
    # who runs it
    (Q35.replace("type='kvm'", "type='xen'"), HOTADD, "type 'xen'"),
    (Q35.replace("type='kvm'", "type='lxc'"), BALLOON, "type 'lxc'"),
    (Q35.replace("type='kvm'", "type='test'"), HOTADD, "type 'test'"),
    (Q35.replace(">hvm<", ">exe<"), HOTADD, "'exe'"),
    # machines and architectures
    (on("isapc"), HOTADD, "'isapc' has no PCI bus"),
    (on("microvm"), BALLOON, "'microvm' has no PCI bus"),
    (on("none"), HOTADD, "'none' has no PCI bus"),
    (on("xenfv"), HOTADD, "'xenfv'"),
    (on("pc-i440fx-2.0"), HOTADD, "too old"),
    (on("pc-1.2"), VIRTIO_MEM, "too old"),
    (on("rhel6.6.0"), HOTADD, "too old"),
    (on("pc", "i686"), HOTADD, "32 bits"),
    (on("virt", "armv7l"), HOTADD, "32 bits"),
    (on("virt", "riscv64"), HOTADD, "riscv64"),
    (on("virt", "riscv64"), VIRTIO_MEM, "riscv64"),
    (on("s390-ccw-virtio", "s390x"), HOTADD, "s390x"),
    (on("pseries", "ppc64le"), HOTADD, "ppc64le"),
    (on("virt-4.1", "aarch64"), HOTADD, "'virt-4.1' cannot hot-add"),
    (on("raspi3b", "aarch64"), HOTADD, "'raspi3b' cannot hot-add"),
    (on("virt", "aarch64").replace("    <acpi/>\n", ""), HOTADD, "UEFI"),
    (Q35.replace("    <acpi/>\n", ""), HOTADD, "ACPI is off"),
    (Q35.replace("    <acpi/>\n", ""), VIRTIO_MEM, "ACPI is off"),
    (with_args("-no-acpi"), HOTADD, "ACPI is off"),
    (with_args("-machine", "q35,acpi=off"), HOTADD, "ACPI is off"),
    (with_args("-no-acpi").replace("    <acpi/>\n", ""), HOTADD, "ACPI is off"),
    (with_args("-no-acpi", "-M", "q35,acpi=n"), VIRTIO_MEM, "ACPI is off"),
    (with_cpu("<model>pentium3</model>"), HOTADD, "pentium3"),
    (with_cpu("<model>qemu32</model>"), HOTADD, "qemu32"),
    (with_cpu("<model>qemu64</model><feature policy='disable' name='lm'/>"), HOTADD, "without lm"),
    (with_cpu("<feature policy='forbid' name='pae'/>", "mode='host-passthrough'"), VIRTIO_MEM, "without pae"),
    (with_args("-cpu", "max,-lm"), HOTADD, "-cpu max,-lm.* 32 bits"),
    (with_args("-cpu", "max,lm=no"), HOTADD, "-cpu max,lm=no.* 32 bits"),
    (with_args("-machine", "acpi=no"), HOTADD, "ACPI is off"),
    (with_args("-machine", '{"type":"q35","acpi":false}'), VIRTIO_MEM, "ACPI is off"),
    # what the kernel is told
    *((started_with(f"quiet {word} ro"), growth, f"`{word}`") for word, growth in (
        ("mem=512M", HOTADD),
        ("mem=0x80000000", BALLOON),
        ("memmap=exactmap", VIRTIO_MEM),
        ("acpi=off", HOTADD),
        ("acpi_no_memhotplug", HOTADD),
        ("modprobe.blacklist=floppy,virtio-balloon", BALLOON),
        ("module_blacklist=virtio_mem", VIRTIO_MEM),
        ("module-blacklist=virtio-mem", VIRTIO_MEM),
        ("initcall_blacklist=x,virtio_balloon_driver_init", BALLOON),
        ("initcall_blacklist=virtio_mem_driver_init", VIRTIO_MEM),
        ("memmap=1G!4G", HOTADD),
        ("memmap=1M@0,0x10000000#0x100000000", BALLOON),
        ("mem=\"512M\"", HOTADD),
    )),
    (with_args("-kernel", "/k", "-append", "ro mem=1G"), HOTADD, "`mem=1G`"),
    (told_by_firmware("mem=2G quiet"), VIRTIO_MEM, "`mem=2G`.*<oemStrings>"),
    (told_by_firmware("quiet acpi=off", "boot"), HOTADD, "`acpi=off`"),
    (told_by_firmware("hugepages=1024"), BALLOON, "2 GiB as it is told"),
    (started_with("swiotlb=491520"), HOTADD, "Linux sets 960 MiB aside"),
    # passed-through arguments
    *((with_args(*words), growth, f"`{' '.join(words[:2])}") for growth in (HOTADD, BALLOON) for words in (
        ("-m", "2048"),
        ("--m", "2G,slots=4,maxmem=8G"),
        ("-numa", "node,nodeid=1"),
        ("-mem-path", "/dev/hugepages"),
        ("-readconfig", "/etc/more.cfg"),
        ("-machine", "memory-backend=ram0"),
        ("-device", "pc-dimm,memdev=x,id=d0"),
        ("-device", "nvdimm,memdev=x"),
        ("-device", "virtio-mem-pci,memdev=x"),
        ("-device", "virtio-pmem-pci,memdev=x"),
        ("-device", "virtio-balloon-pci"),
        ("-device", '{"driver":"virtio-balloon-pci","id":"b"}'),
        ("-global", "virtio-balloon-pci.deflate-on-oom=on"),
        ("-global", "driver=pc-dimm,property=slot,value=3"),
        ("-set", "device.balloon0.deflate-on-oom=on"),
        ("-set", "memory.x.size=1G"),
        ("-device", "hv-balloon,id=b"),
        ("-device", "cxl-type3,volatile-memdev=x"),
        ("-global", "PIIX4_PM.memory-hotplug-support=off"),
    )),
    # behind an option that takes no value
    *((with_args(word, "-m", "2G"), HOTADD, "`-m 2G`") for word in ("-s", "-S", "-curses", "-mem-prealloc")),
    (with_args("-M", "pc-i440fx-2.0"), HOTADD, "'pc-i440fx-2.0' is too old"),
    (with_args("-machine", "type=isapc"), BALLOON, "'isapc' has no PCI bus"),
    (on("microvm", xml=with_args("-M", "pc")), HOTADD, "'microvm' has no PCI bus"),
    (on("microvm", xml=with_args("-M", "pc,acpi=off")), HOTADD, "'microvm' has no PCI bus"),
    # past libvirt in other ways
    (named_balloon(with_args("-set", "device.ua-mine.deflate-on-oom=on")), HOTADD, "ua-mine"),
    (Q35.replace("<qemu:commandline>", "<qemu:override><qemu:device alias='balloon0'><qemu:frontend>"
     "<qemu:property name='deflate-on-oom' type='bool' value='true'/></qemu:frontend></qemu:device>"
     "</qemu:override><qemu:commandline>"), BALLOON, r"'balloon0' \(deflate-on-oom\)"),
    (Q35.replace("<qemu:commandline>", "<qemu:capabilities><qemu:del capability='virtio-mem-pci'/>"
     "</qemu:capabilities><qemu:commandline>"), VIRTIO_MEM, "virtio-mem-pci"),
    # encryption
    (Q35.replace("<devices>", "<launchSecurity type='sev'/><devices>", 1), HOTADD, "encrypted.*sev"),
    (Q35.replace("<devices>", "<launchSecurity type='s390-pv'/><devices>", 1), BALLOON, "s390-pv"),
    (with_args("-object", "tdx-guest,id=tdx0"), HOTADD, "encrypted.*tdx-guest"),
    (with_args("-object", "rme-guest,id=rme0"), BALLOON, "encrypted.*rme-guest"),
    (with_args("-machine", "q35,confidential-guest-support=sev0"), HOTADD, "encrypted.*confidential"),
    # memory devices
    (with_device(DIMM), HOTADD, "<memory model='dimm'>"),
    (with_device(DIMM), BALLOON, "<memory model='dimm'>"),
    (with_device(NVDIMM), HOTADD, "<memory model='nvdimm'>"),
    (with_device(OWN_VIRTIO_MEM), VIRTIO_MEM, "<memory model='virtio-mem'>"),
    (with_device(OWN_VIRTIO_MEM), HOTADD, "<memory model='virtio-mem'>"),
    # a port that no agent can be heard through
    (with_device("<channel type='pty'><target type='virtio' name='org.dynmem.agent.0'/></channel>"), HOTADD,
     "<channel type='pty'>"),
    (with_device("<channel type='unix'><source mode='connect' path='/run/s'/>"
                 "<target type='virtio' name='org.dynmem.agent.0'/></channel>"),
     BALLOON, "another program's"),
    # what holds on to pages
    (with_backing(Q35, "<locked/>"), BALLOON, "<locked/> pins"),
    (with_backing(Q35, "<locked/>"), VIRTIO_MEM, "locked"),
    (with_device("<hostdev mode='subsystem' type='pci'/>"), BALLOON, "<hostdev type='pci'> pins"),
    (with_device("<interface type='vdpa'/>"), VIRTIO_MEM, "vDPA"),
    (with_device("<disk type='nvme'/>"), BALLOON, "<disk type='nvme'> pins"),
    (with_args("-overcommit", "mem-lock=on"), BALLOON, "mem-lock=on pins"),
    (with_args("-device", "vfio-pci,host=0000:01:00.0"), BALLOON, "vfio-pci.* pins"),
    (with_args("-overcommit", "mem-lock=yes"), BALLOON, "mem-lock=yes pins"),
    (with_args("-overcommit", '{"mem-lock":true}'), VIRTIO_MEM, "locked"),
    (with_args("-device", "vhost-vdpa-device-pci,vhostdev=/dev/vhost-vdpa-0"), BALLOON, "vhost-vdpa.* pins"),
    (with_args("-drive", "file.driver=nvme,file.device=0000:01:00.0,if=none"), BALLOON, "nvme.* pins"),
    (with_args("-blockdev", '{"driver":"raw","file":{"driver":"nvme"}}'), BALLOON, "nvme.* pins"),
    (with_args("-blockdev", "driver=virtio-blk-vfio-pci,path=/s,node-name=n"), BALLOON, "vfio-pci.* pins"),
    (with_args("-drive", "file.driver=virtio-blk-vhost-vdpa,file.path=/dev/x"), BALLOON, "vhost-vdpa.* pins"),
    # page sizes
    (with_backing(Q35, "<hugepages><page size='1' unit='GiB'/></hugepages>"), HOTADD, "huge pages of 1 GiB"),
    (with_backing(Q35, "<hugepages><page size='1' unit='GiB'/></hugepages>"), VIRTIO_MEM, "larger than"),
    (with_backing(Q35, "<hugepages><page size='512' unit='MiB'/></hugepages>"), HOTADD, "512 MiB"),
    # limits
    (with_memtune("<hard_limit unit='G'>4</hard_limit>"), HOTADD, "hard_limit is 4 GiB"),
    (with_memtune("<swap_hard_limit unit='GB'>4</swap_hard_limit>"), BALLOON, "swap_hard_limit"),
    (with_memtune("<soft_limit unit='bytes'>1073741824</soft_limit>"), HOTADD, "soft_limit is 1 GiB"),
]  # fmt: skip
"""XML, growth, and what the refusal has to say (a pattern)."""

ACCEPTED = [
    (on("pc"), HOTADD),
    (on("q35"), VIRTIO_MEM),
    (on("pc-i440fx-2.1"), HOTADD),
    (on("pc-q35-rhel7.6.0"), HOTADD),
    (on("pc-i440fx-focal"), HOTADD),
    (on("virt", "aarch64"), HOTADD),
    (on("virt-4.2", "aarch64"), VIRTIO_MEM),
    (on("virt", "riscv64"), BALLOON),
    (on("s390-ccw-virtio", "s390x"), BALLOON),
    (on("pc", "i686"), BALLOON),
    (Q35.replace("    <acpi/>\n", ""), BALLOON),
    (with_args("-object", "memory-backend-ram,id=shm,size=64M", "-mem-prealloc"), HOTADD),
    (with_args("-overcommit", "mem-lock=off", "-snapshot"), HOTADD),
    (with_args("-overcommit", "mem-lock=no", "-machine", "acpi=yes"), HOTADD),
    (with_args("-cpu", "max,+lm"), HOTADD),
    (started_with("console=ttyS0 mem=nopentium swiotlb=32768 memhp_default_state=online"), HOTADD),
    (started_with("acpi_no_memhotplug"), VIRTIO_MEM),
    (told_by_firmware("quiet"), HOTADD),
    (started_with("ro -- mem=512M acpi=off"), HOTADD),
    (started_with("memmap=64K@0x100000 memmap=1M$0x18690000,9$$,x!y"), HOTADD),
    (started_with("module_blacklist=virtio_mem initcall_blacklist=x"), HOTADD),
    (with_args("-machine", "q35,nvdimm=on"), HOTADD),
    (with_args("-device", "virtio-rng-pci", "-global", "PIIX4_PM.disable_s3=1"), BALLOON),
    (with_device(NVDIMM, with_room()), BALLOON),
    (with_device(OWN_VIRTIO_MEM, with_room()), BALLOON),
    (with_device("<hostdev mode='subsystem' type='usb'/>"), BALLOON),
    (with_device("<hostdev mode='subsystem' type='mdev' model='vfio-ap'/>"), BALLOON),
    (with_device("<hostdev mode='subsystem' type='mdev' model='vfio-ccw'/>"), VIRTIO_MEM),
    (with_device("<interface type='vdpa'/>"), HOTADD),
    (with_device("<filesystem><driver type='virtiofs'/></filesystem>"), HOTADD),
    (with_device("<channel type='unix'><source mode='bind' path='/run/s'/>"
                 "<target type='virtio' name='org.dynmem.agent.0'/></channel>"), HOTADD),
    (with_backing(Q35, "<hugepages><page size='2' unit='MiB'/></hugepages>"), VIRTIO_MEM),
    (with_backing(Q35, "<source type='memfd'/><access mode='shared'/>"), HOTADD),
    (with_memtune("<hard_limit unit='KiB'>9007199254740991</hard_limit>"), HOTADD),
    (with_memtune("<hard_limit unit='G'>5</hard_limit>"), HOTADD),
    (Q35.replace("memballoon model='virtio'", "memballoon model='none'"), HOTADD),
    (Q35.replace("memballoon model='virtio'", "memballoon model='virtio-transitional'"), HOTADD),
    (Q35.replace("memballoon model='virtio'", "memballoon model='virtio-non-transitional'"), BALLOON),
    *((bound(f"<memory mode='{mode}' nodeset='0'/>"),
       HOTADD) for mode in ("strict", "interleave", "preferred", "restrictive")),
]  # fmt: skip
