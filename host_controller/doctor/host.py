"""Checks of the host."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from agent.finding import Finding
from agent.killers import OOMD
from host_controller.doctor.facts import HostSurvey
from host_controller.host.libvirt_run import is_session
from host_controller.host.memory import RESERVES_ALL
from host_controller.neutral import neutral
from host_controller.records.burn_in import Versions, newest_of
from host_controller.units import format_size, format_version

OLDEST_LIBVIRT: Final = 7_000_000
"""Debian 11's; DIMM hot plug and channels are older than that."""
OLDEST_QEMU: Final = 5_002_000
"""Free page reporting came with 5.1, and 5.2 is what Debian 11 has."""
TESTED_LIBVIRT: Final = 9_000_000
TESTED_QEMU: Final = 7_002_000
"""Debian 12's: what is older may work, and nobody has looked."""
NOT_KNOWN: Final = "not known without a controller"

Check = Callable[[HostSurvey], Finding]
Told = dict[str, Any]
"""The `host` of StatusView."""


def _told_by_a_controller(name: str) -> Callable[[Callable[[Told], Finding]], Check]:
    """A check of what a controller says. Without one, which another finding says, it is not known."""

    def check_of(judge: Callable[[Told], Finding]) -> Check:
        @wraps(judge)
        def check(host: HostSurvey) -> Finding:
            return Finding(name, "ok", NOT_KNOWN) if host.controller is None else judge(host.controller)

        return check

    return check_of


def libvirt_version(host: HostSurvey) -> Finding:
    """Libvirt is there, and new enough."""
    return _version("libvirt version", host.libvirt_version, OLDEST_LIBVIRT, TESTED_LIBVIRT)


def qemu_version(host: HostSurvey) -> Finding:
    """QEMU is new enough for free page reporting."""
    return _version("QEMU version", host.qemu_version, OLDEST_QEMU, TESTED_QEMU)


def kvm(host: HostSurvey) -> Finding:
    """VMs run on KVM."""
    if host.kvm is None:
        return Finding("KVM", "ok", "usable")
    remedy = "enable virtualisation in the firmware, load kvm_intel or kvm_amd; nested: allow it on the host"
    return Finding("KVM", "note", f"cannot be used: {host.kvm}. VMs run on TCG, slowly", remedy)


def controller(host: HostSurvey) -> Finding:
    """A controller is in charge."""
    if host.controller is None:
        return Finding("controller", "problem", host.controller_problem, host.controller_remedy)
    if not host.controller["connected"]:
        remedy = "systemctl status virtqemud libvirtd; it reconnects by itself"
        return Finding("controller", "problem", str(host.controller["connection"]), remedy)
    return Finding("controller", "ok", f"version {host.controller['version']}")


def configuration(host: HostSurvey) -> Finding:
    """The configuration that lies there is the one in force, and a controller could start with it."""
    check, error = "configuration", host.controller and host.controller["configuration_error"]
    takes_it = "dynmem reload" if host.controller else "systemctl start dynmem"
    remedy = f"correct the file, dynmem check-config, {takes_it}"
    if error:
        return Finding(check, "problem", f"the last reload was refused: {error}", remedy)
    if host.file_problem:
        return Finding(check, "problem", f"no controller can start with it: {host.file_problem}", remedy)
    return Finding(check, "ok", "in force" if host.controller else "no mistake is seen in it")


@_told_by_a_controller("history")
def history(told: Told) -> Finding:
    """What happens is written down."""
    problem = told["history_problem"]
    if not problem:
        return Finding("history", "ok", "no trouble")
    remedy = "make room where it lies (df); dynmem tries again every few seconds. Control is not affected"
    return Finding("history", "problem", f"it is not written: {problem}", remedy)


@_told_by_a_controller("overdraft")
def overdraft(told: Told) -> Finding:
    """The VMs cost no more than there is."""
    found = told["overdraft"]
    if not found:
        return Finding("overdraft", "ok", "none")
    text = f"{format_size(found['bytes_now'])} since the cause: {found['cause']}"
    remedy = "it is worked off by itself; if it stays, stop a VM, lower minimums, or raise the capacity"
    return Finding("overdraft", "problem", text, remedy)


@_told_by_a_controller("management")
def paused(told: Told) -> Finding:
    """Memory is managed."""
    if told["paused"]:
        return Finding("management", "note", "paused for all VMs", "dynmem resume --all")
    return Finding("management", "ok", "on")


def overcommit(host: HostSurvey) -> Finding:
    """The kernel lets QEMU map more than there is."""
    if host.overcommit_memory != RESERVES_ALL:
        return Finding("overcommit", "ok", f"vm.overcommit_memory is {host.overcommit_memory}")
    found = "vm.overcommit_memory is 2: starting a VM can fail though its memory is free"
    return Finding("overcommit", "problem", found, "sysctl vm.overcommit_memory=0")


def swap(host: HostSurvey) -> Finding:
    """VMs do not lie in the host's swap."""
    told = host.controller or {}
    inside, available = int(told.get("vm_swap_bytes", 0)), int(told.get("available_bytes") or 0)
    found = f"{format_size(inside)} of VMs are swapped out"
    if inside and available > told.get("spare_bytes", available):
        # It was not the host that was short of memory.
        remedy = (
            "swapoff -a && swapon -a brings it back; where it comes again: sysctl vm.swappiness=1, a limit "
            "on the VMs' control groups (<memtune>, memory.high), or one full node (numastat -m)"
        )
        return Finding("host swap", "note", f"{found}, and {format_size(available)} are available", remedy)
    if inside:
        remedy = "raise [host] reserve or lower capacity; swapoff -a && swapon -a once there is room"
        return Finding("host swap", "problem", found, remedy)
    if not host.swap_total_bytes:
        return Finding("host swap", "note", "none", "a small one gives the kernel time before it kills a VM")
    used = f"{format_size(host.swap_used_bytes)} of {format_size(host.swap_total_bytes)} used"
    return Finding("host swap", "ok", f"{used}, none by VMs" if host.controller else used)


@_told_by_a_controller("resident memory")
def resident_memory(told: Told) -> Finding:
    """What VMs hold can be read, so that what they give back is believed."""
    unread = told.get("unread") or {}
    if not unread:
        return Finding("resident memory", "ok", "can be read of every VM")
    why = next(iter(unread.values()))
    found = f"of {len(unread)} VMs it cannot be read: nothing that they give back is believed. {why}"
    remedy = "run dynmem as root or with CAP_SYS_PTRACE, on the machine and in the namespaces of libvirt"
    if why.startswith("libvirt "):
        remedy = "virsh dommemstat and virsh domjobinfo say more; journalctl -u virtqemud -u libvirtd"
    return Finding("resident memory", "problem", found, remedy)


@_told_by_a_controller("capacity")
def capacity(told: Told) -> Finding:
    """What decides how much VMs may have."""
    bound = str(told.get("capacity_bound") or "")
    if not told.get("capacity_limited"):
        return Finding("capacity", "ok", bound or NOT_KNOWN)
    found = f"VMs may have {format_size(told['capacity_bytes'])}: bounded by {bound}"
    remedy = "raise that limit (systemctl set-property), or lower [host] capacity to what is meant"
    if " kills below " in bound:
        remedy = "have it kill later (-m; soft_threshold_min_mem in nohang.conf), or give the host swap"
    return Finding("capacity", "note", found, remedy)


@_told_by_a_controller("huge pages")
def huge_pages(told: Told) -> Finding:
    """Huge pages are there for somebody."""
    pools = told.get("pools") or []
    idle = [one for one in pools if one["free_bytes"] and not one["vms_bytes"] and not one["reserved_bytes"]]
    if not pools:
        return Finding("huge pages", "ok", "none are reserved")
    if idle:
        size = sum(one["free_bytes"] for one in idle)
        found = (
            f"{format_size(size)} lie in huge pages that no managed VM uses, and no other VM can have them"
        )
        return Finding(
            "huge pages", "note", found, "sysctl vm.nr_hugepages, or hugepages= at boot, to give them back"
        )
    texts = [f"{format_size(one['total_bytes'])} of {format_size(one['page_bytes'])}" for one in pools]
    return Finding("huge pages", "ok", ", ".join(texts))


def memmap_on_memory(host: HostSurvey) -> Finding:
    """Only worth knowing on a host that is itself a VM with hot-added memory."""
    if host.memmap_on_memory is None:
        return Finding("memmap_on_memory", "ok", "this kernel cannot hot-add memory: nothing to do")
    return Finding("memmap_on_memory", "ok", "on" if host.memmap_on_memory else "off (matters in guests)")


def ksm(host: HostSurvey) -> Finding:
    """Merged pages are not counted twice."""
    if not host.ksm:
        return Finding("KSM", "ok", "off")
    remedy = "systemctl disable --now ksm ksmtuned: what it saves can be lost at any moment"
    return Finding("KSM", "note", "on: merged pages look free and are not", remedy)


def killers(host: HostSurvey) -> Finding:
    """Nobody kills a VM for what it waits for. Those that go by available memory bound the capacity."""
    if not host.killers:
        return Finding("killers", "ok", "none that goes by stalls or by swap")
    found = (
        f"{' and '.join(host.killers)} may kill a VM where programs stall for memory, or swap is nearly full"
    )
    remedy = f"systemctl disable --now {' '.join(host.killers)}"
    if OOMD in host.killers:
        where = "their user's slice" if is_session(host.uri) else "machine.slice"
        remedy += f" systemd-oomd.socket; oomctl shows what it watches: VMs are in {where}"
    return Finding("killers", "note", found, remedy)


def khugepaged(host: HostSurvey) -> Finding:
    """What a balloon gave back stays with the host."""
    if not host.khugepaged_fills:
        return Finding("khugepaged", "ok", "fills no holes")
    found = "it fills the holes that balloons make: squeezed VMs creep up again, and are charged for it"
    remedy = "echo 0 > /sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none, or by tmpfiles.d"
    return Finding("khugepaged", "note", found, remedy)


def hook(host: HostSurvey) -> Finding:
    """Starts are admitted only when they can be paid for."""
    unasked = (host.controller or {}).get("unasked_start")
    if host.hook is not None and unasked and not is_session(host.uri):  # whose hook asks the system's
        found = f"installed, and libvirt did not run it: {neutral(unasked)} started, and nobody was asked"
        remedy = "restart virtqemud, or libvirtd: they look for hooks as they start"
        if host.selinux:
            remedy += '; or SELinux keeps them from running it: OPERATIONS.md, "start hook"'
        return Finding("start hook", "problem", found, remedy)
    if host.hook is not None:
        return Finding("start hook", "ok", host.hook)
    if host.hook_unseen:
        return Finding("start hook", "note", f"it cannot be seen: {host.hook_unseen}", "ask as root")
    remedy = "dynmem hook install"
    return Finding("start hook", "note", "not installed: any VM may start, at the others' cost", remedy)


def rules(host: HostSurvey) -> Finding:
    """Every rule is for somebody."""
    if not host.idle_rules:
        return Finding("rules", "ok", f"each of {host.rules} is for some VM" if host.rules else "none")
    remedy = "dynmem rules shows what each VM is known by; a rule for VMs that are yet to come may stay"
    return Finding("rules", "note", "; ".join(host.idle_rules), remedy)


def burn_in(host: HostSurvey) -> Finding:
    """Somebody has tried what these versions of kernel, QEMU and libvirt do together."""
    check, again = "burn-in", "dynmem verify: at most five minutes, with a guest of its own"
    if not host.burn_ins:
        return Finding(check, "note", "this host was never burnt in", again)
    now = Versions(host.kernel_release, host.qemu_version, host.libvirt_version)
    found = newest_of(host.burn_ins, now)
    if found is None:
        changed = ", ".join(host.burn_ins[-1].versions.differences(now))
        return Finding(check, "note", f"changed since the last one: {changed}", again)
    if not found.failed:
        return Finding(check, "ok", "passed with this kernel, QEMU and libvirt")
    said = "; ".join(f"{one.check}: {one.said}" for one in found.failed)
    bad = {one.check for one in found.results if one.outcome != "passed"}
    return Finding(check, "problem", said, _without(bad))


CHECKS: Final[tuple[Check, ...]] = (
    libvirt_version,
    qemu_version,
    kvm,
    controller,
    configuration,
    history,
    overdraft,
    paused,
    overcommit,
    swap,
    capacity,
    resident_memory,
    huge_pages,
    memmap_on_memory,
    ksm,
    killers,
    khugepaged,
    hook,
    rules,
    burn_in,
)


def _without(bad: set[str]) -> str:
    """How to live with what does not work."""
    if bad & {"boot", "inflate", "balloon frees", "deflate"}:
        return "no memory can be moved on this host: upgrade it, or dynmem pause --all"
    hot_add = bad & {"hot add", "online", "offline", "unplug"}
    if hot_add and "virtio-mem" in bad:
        return "prepare VMs with dynmem enable --growth balloon"
    if hot_add:
        return "prepare VMs with dynmem enable --growth virtio-mem, or balloon"
    if "virtio-mem" in bad:
        return "prepare VMs with dynmem enable --growth hotadd, or balloon"
    return "dynmem verify --json shows all of it; trust = none keeps a VM charged with all of its RAM"


def _version(check: str, found: int, oldest: int, tested: int) -> Finding:
    if not found:
        return Finding(check, "note", "not known", "virsh version")
    if oldest <= found < tested:
        oldest_tested = format_version(tested)
        remedy = f"{oldest_tested} is the oldest that dynmem is tested with: upgrade the host when you can"
        return Finding(check, "note", format_version(found), remedy)
    if found < oldest:
        remedy = f"at least {format_version(oldest)} is needed: upgrade the host"
        return Finding(check, "problem", format_version(found), remedy)
    return Finding(check, "ok", format_version(found))
