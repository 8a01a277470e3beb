"""Checks of those who tell of a VM's memory: the agent and its port, the balloon's driver."""

from typing import Final

from agent import wire
from agent.finding import Finding
from host_controller.doctor.facts import VmSurvey
from host_controller.domain_xml.fitness.devices import PORT_OF_OURS
from host_controller.domain_xml.guest_system import LINUX, guest_system
from host_controller.domain_xml.pinning import BEHIND_IOMMU, NO_BALLOON, no_use
from host_controller.neutral import shell_word

REPORT_LATE_SECONDS: Final = 15.0
STATISTICS_LATE_SECONDS: Final = 30.0
"""A driver answers every second; QEMU and libvirt pass its stamp on within another."""

_NO_DRIVER: Final = {
    "windows": "in the guest: install virtio-win's balloon driver and its service (blnsvr -i)",
    "freebsd": "in the guest: kldload virtio_balloon",
    "other": "in the guest: a driver for the virtio balloon, if there is one",
    "linux": "in the guest: modprobe virtio_balloon",
}
_NO_FIGURES: Final = {
    "windows": "in the guest: virtio-win's balloon service (blnsvr -i); its driver alone has no figures",
    "freebsd": "FreeBSD's driver tells nothing: give this VM fixed memory (dynmem disable)",
    "other": "without figures of its balloon's driver: give this VM fixed memory (dynmem disable)",
    "linux": "in the guest: Linux 4.6 or newer, or dynmem-agent",
}
_NO_AGENT: Final = {
    "windows": "there is no agent for Windows: see to the balloon's statistics",
    "freebsd": "there is no agent for FreeBSD: see to the balloon's statistics",
    "other": "there is no agent for its system: see to the balloon's statistics",
    "linux": "in the guest: install dynmem-agent, then dynmem-agent doctor",
}


_NO_USE: Final = {
    NO_BALLOON: ("no balloon", "<memballoon model='virtio'>"),
    BEHIND_IOMMU: (
        "its balloon is behind an IOMMU, for which Linux has no driver",
        "<driver> in its <memballoon> without iommu='on'",
    ),
}


def channel(vm: VmSurvey) -> Finding:
    """There is a port for the agent, this host can open it, and somebody is at its other end."""
    error = (vm.view or {}).get("channel_error")
    if error:
        return Finding("channel", "problem", f"this host cannot open the port: {error}", _port_remedy(error))
    for one in vm.root.findall("./devices/channel/target"):
        if one.get("name") == wire.PORT_NAME:
            state = one.get("state", "")
            if vm.running and state == "disconnected" and not vm.stopped:
                return Finding("channel", "problem", "nobody listens in the guest", _listener(vm))
            return Finding("channel", "ok", state or "defined")
    if vm.rule is not None:
        return Finding("channel", "ok", "none: a rule adds no port to XML that is somebody else's")
    remedy = f"dynmem enable {shell_word(vm.name)}, then restart it"
    return Finding("channel", "problem", f"no port {wire.PORT_NAME}", remedy)


def agent(vm: VmSurvey) -> Finding:
    """An agent reports."""
    if not vm.running or vm.view is None:
        return Finding("agent", "ok", "not asked: the VM is not managed now")
    if vm.stopped:
        return Finding("agent", "ok", "not asked: the VM stands still")
    found = vm.view["agent"]
    if vm.view.get("channel_error"):
        return Finding(
            "agent", "note", "not heard: this host cannot open its port", "see to the channel first"
        )
    if found is None:
        if vm.rule is not None and vm.domain.channel_alias is None:
            return Finding("agent", "ok", "none, and no port for one: balloon statistics stand in for it")
        if vm.view["report_age_seconds"] is not None:
            what = "none; balloon statistics stand in for it"
            return Finding("agent", "note", what, _NO_AGENT[guest_system(vm.root)])
        return Finding("agent", "problem", "none; silent", _NO_AGENT[guest_system(vm.root)])
    if (found["report_age_seconds"] or 0) > REPORT_LATE_SECONDS:
        text = f"last heard {found['report_age_seconds']:.0f} s ago"
        return Finding("agent", "problem", text, "in the guest: systemctl restart dynmem-agent")
    return Finding("agent", "ok", "reports")


def balloon_statistics(vm: VmSurvey) -> Finding:
    """The balloon's driver answers, with figures, and lately: what it is set to says nothing of that."""
    check = "balloon statistics"
    if (why := no_use(vm.root)) is not None:
        found, by_others = _NO_USE[why]
        remedy = (
            f"shut it down, then dynmem enable {shell_word(vm.name)}: until then all of its RAM is charged"
        )
        if vm.rule is not None:
            remedy = f"{by_others} by whoever writes its XML: until then it has fixed memory"
        return Finding(check, "problem", found, remedy)
    period = vm.root.find("./devices/memballoon/stats")
    if period is None or period.get("period", "0") == "0":
        remedy = f"virsh dommemstat --period 1 --live --config {shell_word(vm.name)}"
        return Finding(check, "problem", "switched off", remedy)
    if not vm.running or vm.stopped:
        return Finding(check, "ok", f"every {period.get('period')} s")
    return _answers(vm, check)


def _answers(vm: VmSurvey, check: str) -> Finding:
    system, figures = guest_system(vm.root), vm.statistics
    if not figures.get("last_update"):
        return Finding(check, "problem", "the driver has never answered", _NO_DRIVER[system])
    age = vm.asked_at - figures["last_update"]
    if vm.asked_at and age > STATISTICS_LATE_SECONDS:
        found = f"the driver last answered {age:.0f} s ago: the guest hangs, or its driver was taken out"
        return Finding(check, "problem", found, _NO_DRIVER[system])
    if "available" not in figures or "usable" not in figures:
        level = "note" if (vm.view or {}).get("agent") else "problem"
        missing = "no figures" if "available" not in figures else "not what is available to programs"
        found = f"the driver answers, with {missing}: without an agent it is never shrunk"
        return Finding(check, level, found, _NO_FIGURES[system])  # type: ignore[arg-type] # one of two literals
    return Finding(check, "ok", "answers")


def _port_remedy(error: str) -> str:
    text = error.lower()  # of libvirt's sentence only what stays as it is in every language
    if "/lck.." in text:
        return "on this host: install -d -m 1777 /run/lock; libvirt keeps its locks of ports there"
    if "unix" in text:
        return f"its <channel> has another type: take it out with virsh edit while it is off; {PORT_OF_OURS}"
    if "read only" in text or "access denied" in text:
        return "on this host: let the controller use libvirt read-write (group libvirt, or polkit)"
    return "on this host: journalctl -u virtqemud -u libvirtd; the guest has no part in it"


def _listener(vm: VmSurvey) -> str:
    if guest_system(vm.root) != LINUX:
        return _NO_AGENT[guest_system(vm.root)]
    return "in the guest: systemctl status dynmem-agent, dynmem-agent doctor"
