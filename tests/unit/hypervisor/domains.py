"""Domain XML as libvirt 9.0 writes it."""

Q35 = """<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web</name>
  <uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid>
  <metadata>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
      <libosinfo:os id="http://debian.org/debian/12"/>
    </libosinfo:libosinfo>
  </metadata>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>2097152</currentMemory>
  <vcpu placement='static'>4</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <boot dev='hd'/>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <cpu mode='host-passthrough' check='none' migratable='on'/>
  <clock offset='utc'>
    <timer name='rtc' tickpolicy='catchup'/>
  </clock>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <!-- the disk is on the fast pool -->
    <disk type='file' device='disk'>
      <source file='/pool/a &amp; b.qcow2'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='pci' index='0' model='pcie-root'/>
    <controller type='virtio-serial' index='0'>
      <address type='pci' domain='0x0000' bus='0x03' slot='0x00' function='0x0'/>
    </controller>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
      <address type='virtio-serial' controller='0' bus='0' port='1'/>
    </channel>
    <memballoon model='virtio'>
      <address type='pci' domain='0x0000' bus='0x05' slot='0x00' function='0x0'/>
    </memballoon>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-set'/>
    <qemu:arg value='device.x.y="z"'/>
  </qemu:commandline>
</domain>
"""

I440FX = """<domain type='qemu'>
  <name>old</name>
  <uuid>11111111-2222-3333-4444-555555555555</uuid>
  <memory unit='KiB'>1048576</memory>
  <currentMemory unit='KiB'>524288</currentMemory>
  <vcpu placement='static'>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>
  </os>
  <features>
    <acpi/>
  </features>
  <clock offset='utc'/>
  <devices>
    <controller type='pci' index='0' model='pci-root'/>
    <memballoon model='virtio' autodeflate='on'>
      <stats period='10'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x03' function='0x0'/>
    </memballoon>
  </devices>
</domain>
"""

NUMA = Q35.replace(
    "<cpu mode='host-passthrough' check='none' migratable='on'/>",
    """<cpu mode='host-passthrough' check='none' migratable='on'>
    <topology sockets='2' dies='1' cores='2' threads='1'/>
    <numa>
      <cell id='0' cpus='0-1' memory='1572864' unit='KiB'/>
      <cell id='1' cpus='2-3' memory='524288' unit='KiB'/>
    </numa>
  </cpu>""",
)


def with_backing(xml: str, inside: str) -> str:
    """With a <memoryBacking>."""
    return xml.replace("  <vcpu", f"  <memoryBacking>\n    {inside}\n  </memoryBacking>\n  <vcpu", 1)


LIVE = """<domain type='qemu' id='3'>
  <name>grown</name>
  <uuid>99999999-2222-3333-4444-555555555555</uuid>
  <metadata>
    <dynmem:vm xmlns:dynmem="urn:dynmem:domain:1" growth="hotadd"
               trust="guest" startup="524288" minimum="262144" maximum="2097152" buffer="30" weight="200"/>
  </metadata>
  <maxMemory slots='16' unit='KiB'>2097152</maxMemory>
  <memory unit='KiB'>917504</memory>
  <currentMemory unit='KiB'>700000</currentMemory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <features><acpi/></features>
  <cpu mode='custom'><numa><cell id='0' cpus='0' memory='524288' unit='KiB'/></numa></cpu>
  <devices>
    <channel type='unix'>
      <source mode='bind' path='/run/x.sock'/>
      <target type='virtio' name='org.dynmem.agent.0' state='connected'/>
      <alias name='channel1'/>
    </channel>
    <memballoon model='virtio' autodeflate='off' freePageReporting='on'><stats period='1'/></memballoon>
    <memory model='dimm'>
      <target><size unit='KiB'>131072</size><node>0</node></target>
      <alias name='dimm0'/>
      <address type='dimm' slot='0' base='0x100000000'/>
    </memory>
    <memory model='dimm'>
      <target><size unit='KiB'>262144</size><node>0</node></target>
      <alias name='dimm1'/>
      <address type='dimm' slot='1' base='0x108000000'/>
    </memory>
  </devices>
</domain>
"""
