"""Checks of one VM: its XML, its balloon, its agent."""

from collections.abc import Callable
from typing import Final

from agent import wire
from host_controller import __version__
from host_controller.core.model import Growth
from host_controller.doctor.facts import Finding, VmSurvey
from host_controller.domain_xml.pinning import pinned_by
from host_controller.domain_xml.values import size_of
from host_controller.units import format_size

REPORT_LATE_SECONDS: Final = 15.0
FEW_SLOTS: Final = 2
UNLIMITED: Final = 1 << 60
"""libvirt writes a memtune limit that is none as 2^53 - 1 KiB."""


def known(vm: VmSurvey) -> Finding:
    """The controller manages it."""
    if not vm.running:
        return Finding("managed", "ok", "off; prepared")
    if vm.view is None:
        if not vm.controller:
            return Finding("managed", "note", "no controller to ask", "systemctl start dynmem")
        remedy = "dynmem events --vm; was it enabled with this libvirt's address?"
        return Finding("managed", "problem", "it runs, and the controller does not know it", remedy)
    if vm.view["paused"]:
        return Finding("managed", "note", "paused by the operator", f"dynmem resume {vm.name}")
    return Finding("managed", "ok", str(vm.view["phase"]))


def metadata(vm: VmSurvey) -> Finding:
    """The limits in its XML can be used."""
    problems = [one for one in vm.domain.problems if "channel" not in one]
    if problems:
        return Finding("limits", "problem", "; ".join(problems), f"dynmem enable {vm.name} while it is off")
    return Finding("limits", "ok", "can be used")


def channel(vm: VmSurvey) -> Finding:
    """There is a port for the agent, and somebody at its other end."""
    for one in vm.root.findall("./devices/channel/target"):
        if one.get("name") == wire.PORT_NAME:
            state = one.get("state", "")
            if vm.running and state == "disconnected":
                remedy = "in the guest: systemctl status dynmem-agent, dynmem-agent doctor"
                return Finding("channel", "problem", "nobody listens in the guest", remedy)
            return Finding("channel", "ok", state or "defined")
    remedy = f"dynmem enable {vm.name}, then restart it"
    return Finding("channel", "problem", f"no port {wire.PORT_NAME}", remedy)


def agent(vm: VmSurvey) -> Finding:
    """An agent reports."""
    if not vm.running or vm.view is None:
        return Finding("agent", "ok", "not asked: the VM is not managed now")
    found = vm.view["agent"]
    if found is None:
        what = "balloon statistics stand in for it" if vm.view["report_age_seconds"] is not None else "silent"
        remedy = "in the guest: install dynmem-agent, then dynmem-agent doctor"
        level = "note" if vm.view["report_age_seconds"] is not None else "problem"
        return Finding("agent", level, f"none; {what}", remedy)  # type: ignore[arg-type] # one of two literals
    if (found["report_age_seconds"] or 0) > REPORT_LATE_SECONDS:
        text = f"last heard {found['report_age_seconds']:.0f} s ago"
        return Finding("agent", "problem", text, "in the guest: systemctl restart dynmem-agent")
    return Finding("agent", "ok", "reports")


def agent_version(vm: VmSurvey) -> Finding:
    """The agent is of our age."""
    version = ((vm.view or {}).get("agent") or {}).get("version", "")
    if not version or version == __version__:
        return Finding("agent version", "ok", version or "not known")
    remedy = "in the guest: apt install --only-upgrade dynmem-agent; versions that differ work together"
    return Finding("agent version", "note", f"{version}, the controller is {__version__}", remedy)


def balloon_statistics(vm: VmSurvey) -> Finding:
    """The balloon driver answers, as a second witness."""
    balloon = vm.root.find("./devices/memballoon")
    if balloon is None or balloon.get("model") == "none":
        remedy = f"dynmem enable {vm.name}, then restart it"
        return Finding("balloon statistics", "problem", "no balloon", remedy)
    period = balloon.find("stats")
    if period is None or period.get("period", "0") == "0":
        remedy = f"virsh dommemstat {vm.name} --period 1 --live --config"
        return Finding("balloon statistics", "problem", "switched off", remedy)
    if vm.running and "last_update" not in vm.statistics:
        remedy = "in the guest: modprobe virtio_balloon"
        return Finding("balloon statistics", "problem", "the driver has never answered", remedy)
    return Finding("balloon statistics", "ok", f"every {period.get('period')} s")


def page_reporting(vm: VmSurvey) -> Finding:
    """Memory that the guest frees comes back to the host early."""
    balloon = vm.root.find("./devices/memballoon")
    if balloon is not None and balloon.get("freePageReporting") == "on":
        return Finding("free page reporting", "ok", "on")
    remedy = f"dynmem enable {vm.name}, then restart it; needs Linux 5.7 in the guest"
    return Finding("free page reporting", "note", "off: freed memory stays resident on the host", remedy)


def deflate_on_oom(vm: VmSurvey) -> Finding:
    """The guest does not take memory back without consent."""
    balloon = vm.root.find("./devices/memballoon")
    if balloon is None or balloon.get("autodeflate") != "on":
        return Finding("deflate-on-oom", "ok", "off")
    remedy = "<memballoon autodeflate='off'>, then restart it; until then all of its RAM is charged"
    return Finding("deflate-on-oom", "problem", "on: the guest takes memory back when it likes", remedy)


def pinned(vm: VmSurvey) -> Finding:
    """Ballooned pages come back to the host."""
    why = pinned_by(vm.root)
    remedies = {
        "VFIO": "take the passed-through device out, or give this VM fixed memory: all of its RAM is charged",
        "huge pages": "take <hugepages> out, or give this VM fixed memory: a balloon frees 4 KiB pages only",
        "locked": "take <locked/> out: locked pages stay with QEMU",
        "encrypted memory": "encrypted guests keep their pages: give this VM fixed memory",
    }
    if why not in remedies:
        return Finding("pinned memory", "ok", "none")
    return Finding("pinned memory", "problem", f"{why}: a balloon frees nothing", remedies[why])


def memtune(vm: VmSurvey) -> Finding:
    """No limit of libvirt's strikes before the maximum is reached."""
    maximum = max(size_of(vm.root.find("maxMemory")), size_of(vm.root.find("memory")))
    for name in ("hard_limit", "swap_hard_limit", "soft_limit"):
        limit = size_of(vm.root.find(f"./memtune/{name}"))
        if 0 < limit < min(maximum, UNLIMITED):
            found = f"{name} {format_size(limit)} is below its maximum of {format_size(maximum)}"
            remedy = f"virsh memtune {vm.name} --{name.replace('_', '-')} -1 --live --config"
            return Finding("memtune", "problem", found, remedy)
    return Finding("memtune", "ok", "no limit below maximum")


def numa(vm: VmSurvey) -> Finding:
    """Its memory may come from anywhere: capacity is counted for the whole host."""
    memory = vm.root.find("./numatune/memory")
    if memory is None or memory.get("mode", "strict") == "preferred":
        return Finding("NUMA binding", "ok", "none")
    remedy = "take <numatune> out: capacity is one figure for the host, a node's is not looked at"
    nodes = memory.get("nodeset", "?")
    return Finding("NUMA binding", "problem", f"bound to node {nodes}, which is not supported", remedy)


def slots(vm: VmSurvey) -> Finding:
    """There are DIMM slots left to grow with."""
    domain = vm.domain
    if domain.config is None or domain.config.growth is not Growth.HOTADD:
        return Finding("hot-add slots", "ok", "not used by this VM")
    left = domain.config.slots - len(domain.dimms)
    full = domain.ram_bytes >= domain.config.limits.maximum_bytes
    text = f"{left} of {domain.config.slots} left"
    if left > FEW_SLOTS or full:
        return Finding("hot-add slots", "ok", text)
    remedy = "they come back when DIMMs are unplugged, or with a restart; a higher startup uses fewer"
    return Finding("hot-add slots", "problem" if left <= 0 else "note", text, remedy)


def online_policy(vm: VmSurvey) -> Finding:
    """Hot-added memory is brought online."""
    found = (vm.view or {}).get("agent")
    if not found or not found["hotplug"]:
        return Finding("online policy", "ok", "not known without an agent")
    text = f"auto_online_blocks is {found['online_policy'] or 'not there'}, by the {found['hotplug']}"
    if found["hotplug"] == "none":
        remedy = "a kernel with CONFIG_MEMORY_HOTPLUG, or dynmem enable --growth balloon"
        return Finding("online policy", "problem", "nobody brings memory online", remedy)
    return Finding("online policy", "ok", text)


def psi(vm: VmSurvey) -> Finding:
    """The guest's kernel says when programs wait for memory."""
    found = (vm.view or {}).get("agent")
    if not found or found["psi"] is not False:
        return Finding("PSI", "ok", "on" if found and found["psi"] else "not known")
    return Finding("PSI", "note", "the guest has none, so growth is seen later", "boot the guest with psi=1")


def guest_swap(vm: VmSurvey) -> Finding:
    """The guest has somewhere to put what it does not use."""
    found = (vm.view or {}).get("agent")
    if not found:
        return Finding("guest swap", "ok", "not known without an agent")
    if not found["swap_total_bytes"]:
        without = "none: a program that takes memory faster than it can be given is killed"
        remedy = "256 MiB of swap (or zram) hold until it comes, and let the host take what is not used"
        return Finding("guest swap", "note", without, remedy)
    used, total = found["swap_used_bytes"], found["swap_total_bytes"]
    return Finding("guest swap", "ok", f"{format_size(used)} of {format_size(total)} used")


def offline_memory(vm: VmSurvey) -> Finding:
    """No DIMM lies idle."""
    idle = (vm.view or {}).get("offline_bytes") or 0
    if not idle:
        return Finding("offline memory", "ok", "none")
    remedy = "it is unplugged after 5 s; if not: dynmem-agent doctor in the guest"
    return Finding("offline memory", "problem", f"{format_size(idle)} plugged and not online", remedy)


def belief(vm: VmSurvey) -> Finding:
    """What the guest claims and what the host sees agree."""
    if (vm.view or {}).get("phase") != "contradicted":
        return Finding("claims", "ok", "agree with the host")
    remedy = "someone in the guest writes to the balloon, or its driver is broken: all of its RAM is charged"
    return Finding("claims", "problem", "the guest holds more than its balloon says", remedy)


CHECKS: Final[tuple[Callable[[VmSurvey], Finding], ...]] = (
    known,
    metadata,
    channel,
    agent,
    agent_version,
    balloon_statistics,
    page_reporting,
    deflate_on_oom,
    pinned,
    memtune,
    numa,
    slots,
    online_policy,
    psi,
    guest_swap,
    offline_memory,
    belief,
)
