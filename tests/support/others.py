"""Running domains as other tools define them and libvirt prints them, cut down to what matters of them."""

UUIDS = {
    "installed": "0b8ad6f6-7e4b-4f1d-9a3c-0d6b7b9c1a01",
    "planned": "0b8ad6f6-7e4b-4f1d-9a3c-0d6b7b9c1a02",
    "lab_default": "0b8ad6f6-7e4b-4f1d-9a3c-0d6b7b9c1a03",
    "clicked": "0b8ad6f6-7e4b-4f1d-9a3c-0d6b7b9c1a04",
    "instance-0000002a": "0b8ad6f6-7e4b-4f1d-9a3c-0d6b7b9c1a05",
    "shop_web": "0b8ad6f6-7e4b-4f1d-9a3c-0d6b7b9c1a06",
    "desk": "0b8ad6f6-7e4b-4f1d-9a3c-0d6b7b9c1a07",
}
SERIAL = """<controller type='virtio-serial' index='0'>
      <alias name='virtio-serial0'/>
      <address type='pci' domain='0x0000' bus='0x03' slot='0x00' function='0x0'/>
    </controller>"""
GUEST_AGENT = """<channel type='unix'>
      <source mode='bind' path='/run/libvirt/qemu/channel/1-vm/org.qemu.guest_agent.0'/>
      <target type='virtio' name='org.qemu.guest_agent.0' state='disconnected'/>
      <alias name='channel0'/>
      <address type='virtio-serial' controller='0' bus='0' port='1'/>
    </channel>"""
BALLOON = """<memballoon model='virtio'>
      <alias name='balloon0'/>
      <address type='pci' domain='0x0000' bus='0x05' slot='0x00' function='0x0'/>
    </memballoon>"""


def domain(
    name: str,
    metadata: str = "",
    devices: str = SERIAL + GUEST_AGENT,
    balloon: str = BALLOON,
    mib: int = 2048,
    words: str = "",
) -> str:
    """A running domain with fixed RAM, all of it in use."""
    kept = f"\n  <metadata>{metadata}</metadata>" if metadata else ""
    return f"""<domain type='kvm' id='1'>
  <name>{name}</name>
  <uuid>{UUIDS.get(name, "0b8ad6f6-7e4b-4f1d-9a3c-0d6b7b9c1a99")}</uuid>{words}{kept}
  <memory unit='KiB'>{mib * 1024}</memory>
  <currentMemory unit='KiB'>{mib * 1024}</currentMemory>
  <vcpu placement='static'>2</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <cpu mode='host-passthrough' check='none' migratable='on'/>
  <devices>
    {devices}
    {balloon}
  </devices>
</domain>
"""


def inactive(xml: str) -> str:
    """The definition behind it: without what only a running domain has."""
    for line in (
        " id='1'",
        " state='disconnected'",
        "\n      <alias name='virtio-serial0'/>",
        "\n      <alias name='channel0'/>",
        "\n      <alias name='balloon0'/>",
        "\n      <source mode='bind' path='/run/libvirt/qemu/channel/1-vm/org.qemu.guest_agent.0'/>",
    ):
        xml = xml.replace(line, "")
    return xml


OS = (
    '<libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">'
    '<libosinfo:os id="http://debian.org/debian/12"/></libosinfo:libosinfo>'
)
VIRT_INSTALL = domain("installed", OS)
TERRAFORM = domain("planned")
"""The provider leaves <metadata> out unless it is told otherwise."""
COCKPIT = domain(
    "clicked",
    OS
    + '<cockpit_machines:data xmlns:cockpit_machines="https://github.com/cockpit-project/cockpit-machines">'
    "<cockpit_machines:has_install_phase>false</cockpit_machines:has_install_phase></cockpit_machines:data>",
)
VAGRANT = domain(
    "lab_default", devices="", words="\n  <description>Source: /home/me/lab/Vagrantfile</description>"
)
"""Without a port for anybody's agent."""
NOVA = domain(
    "instance-0000002a",
    '<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">'
    '<nova:name>shop</nova:name><nova:flavor name="m1.large"><nova:memory>2048</nova:memory></nova:flavor>'
    '<nova:owner><nova:project uuid="f47ac10b">demo</nova:project></nova:owner></nova:instance>',
    balloon=BALLOON.replace("<alias", "<stats period='10'/>\n      <alias"),
)
KUBEVIRT = domain(
    "shop_web",
    '<kubevirt xmlns="http://kubevirt.io"><uid>f4686d2c-6e8d-4335-b8fd-81bee22f4814</uid></kubevirt>',
)
OPENNEBULA = domain(
    "one-42",
    '<one:vm xmlns:one="http://opennebula.org/xmlns/libvirt/1.0"><one:name>web</one:name></one:vm>',
)
OVIRT = domain(
    "desk",
    '<ovirt-tune:qos xmlns:ovirt-tune="http://ovirt.org/vm/tune/1.0"/>'
    '<ovirt-vm:vm xmlns:ovirt-vm="http://ovirt.org/vm/1.0"><ovirt-vm:clusterVersion>4.7</ovirt-vm:clusterVersion>'
    "</ovirt-vm:vm>",
)
