"""A host and a VM as doctor wants to find them."""

from typing import Any

from host_controller import __version__
from host_controller.doctor.facts import HostSurvey, VmSurvey
from host_controller.domain_xml.ours import NAMESPACE
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.values import parse_xml
from host_controller.records.burn_in import BurnIn, Versions
from host_controller.units import GIB

HOST = HostSurvey(
    "qemu:///system",
    libvirt_version=9_000_000,
    qemu_version=7_002_022,
    swap_total_bytes=GIB,
    hook="/etc/libvirt/hooks/qemu.d/dynmem",
    kernel_release="6.1.0",
    burn_ins=(BurnIn(Versions("6.1.0", 7_002_022, 9_000_000), "KVM", 0.0, 60.0, ()),),
    controller={
        "version": __version__,
        "connected": True,
        "connection": "qemu:///system",
        "configuration_error": None,
        "history_problem": None,
        "overdraft": None,
        "paused": False,
        "vm_swap_bytes": 0,
    },
)

AGENT = {
    "version": __version__,
    "report_age_seconds": 1.0,
    "psi": True,
    "kernel": "6.1",
    "online_policy": "online_movable",
    "hotplug": "kernel",
    "swap_total_bytes": GIB,
    "swap_used_bytes": 0,
}

VIEW: dict[str, Any] = {
    "paused": False,
    "phase": "live",
    "agent": AGENT,
    "report_age_seconds": 1.0,
    "offline_bytes": 0,
}

STATISTICS = {"last_update": 1, "available": 900_000, "usable": 300_000}

XML = f"""
<domain>
  <name>web</name><uuid>a</uuid>
  <metadata><x:vm xmlns:x="{NAMESPACE}" growth="hotadd" startup="1048576" minimum="524288" maximum="4194304"/>
  </metadata>
  <memory>1048576</memory><maxMemory slots="16">4194304</maxMemory>
  <os><type arch="x86_64" machine="q35">hvm</type></os>
  <features><acpi/></features>
  <devices>
    <memballoon model="virtio" freePageReporting="on"><stats period="1"/></memballoon>
    <channel type="unix"><target type="virtio" name="org.dynmem.agent.0" state="connected"/></channel>
  </devices>
</domain>
"""


def survey(xml: str = XML, **more: Any) -> VmSurvey:
    from agent.wire import PORT_NAME

    xml = xml.replace("org.dynmem.agent.0", PORT_NAME)
    facts: dict[str, Any] = {"view": VIEW, "statistics": STATISTICS, "running": True}
    return VmSurvey("web", root=parse_xml(xml), domain=read_domain(xml), **(facts | more))


def with_agent(**more: Any) -> dict[str, Any]:
    return VIEW | {"agent": AGENT | more}


def without(xml: str, text: str, instead: str = "") -> str:
    assert text in xml
    return xml.replace(text, instead)
