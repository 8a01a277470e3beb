"""Checks of one VM. What its XML says is in `definition.py`, who tells of its memory in `witnesses.py`."""

import re
from collections.abc import Callable
from shlex import quote
from typing import Final

from agent.finding import Finding
from host_controller import __version__
from host_controller.doctor import definition, witnesses
from host_controller.doctor.facts import VmSurvey
from host_controller.domain_xml.host_abilities import BALLOONED_PAGE_BYTES
from host_controller.neutral import shell_word
from host_controller.units import format_size

FIRST_WITH_VIRTIO_MEM: Final = (5, 8)
_VERSION: Final = re.compile(r"(\d{1,3})\.(\d{1,3})")


STANDS_STILL: Final[dict[str, tuple[str, str]]] = {
    "paused": ("somebody has paused it", "virsh resume {}"),
    "asleep": ("its guest sleeps", "virsh dompmwakeup {}"),
    "crashed": ("its guest's kernel has crashed", "virsh reset {}; its console says why"),
    "by an error of its disk": (
        "an error of its disk has stopped it",
        "virsh domblkerror {}, then virsh resume",
    ),
    "by a job": ("a migration, a save or a snapshot holds it", "virsh domjobinfo {}"),
}
NOT_KNOWN: Final = "not known: the VM is not managed now"


def known(vm: VmSurvey) -> Finding:
    """The controller manages it."""
    if not vm.running:
        return Finding("managed", "ok", "off; prepared")
    if vm.view is None:
        if not vm.controller:
            return Finding("managed", "note", "no controller to ask", "dynmem doctor says why")
        remedy = f"dynmem events --vm={quote(vm.name)}; was it enabled with this libvirt's address?"
        return Finding("managed", "problem", "it runs, and the controller does not know it", remedy)
    if vm.stopped and not vm.view.get("standstill"):
        found, remedy = STANDS_STILL[vm.stopped]
        return Finding("managed", "note", found, remedy.format(shell_word(vm.name)))
    if vm.view["paused"]:
        return Finding("managed", "note", "paused by the operator", f"dynmem resume {shell_word(vm.name)}")
    return Finding("managed", "ok", str(vm.view["phase"]))


def agent_version(vm: VmSurvey) -> Finding:
    """The agent is of our age."""
    version = ((vm.view or {}).get("agent") or {}).get("version", "")
    if not version or version == __version__:
        return Finding("agent version", "ok", version or "not known")
    remedy = (
        "in the guest: a newer package dynmem-agent; where it came by a push: dynmem agent push "
        f"{shell_word(vm.name)}; versions that differ work together"
    )
    return Finding("agent version", "note", f"{version}, the controller is {__version__}", remedy)


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


def virtio_mem_driver(vm: VmSurvey) -> Finding:
    """The guest's kernel knows the device that it grows by. Who has plugged some knows it, however old."""
    view = vm.view or {}
    kernel = (view.get("agent") or {}).get("kernel", "")
    version = _VERSION.match(kernel)
    if view.get("growth") != "virtio-mem" or version is None or view.get("virtio_mem_bytes"):
        return Finding("virtio-mem driver", "ok", "nothing known against it")
    if (int(version[1]), int(version[2])) >= FIRST_WITH_VIRTIO_MEM:
        return Finding("virtio-mem driver", "ok", "its kernel is new enough for one")
    found = f"its kernel is {kernel}, and Linux has one since 5.8: it has no more than it boots with"
    other = f"dynmem enable --growth hotadd {shell_word(vm.name)}"
    remedy = f"a newer kernel in the guest; or, once it is off, {other}"
    return Finding("virtio-mem driver", "problem", found, remedy)


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
        return Finding("offline memory", "ok", NOT_KNOWN if vm.view is None else "none")
    remedy = "it is unplugged after 5 s; if not: dynmem-agent doctor in the guest"
    return Finding("offline memory", "problem", f"{format_size(idle)} plugged and not online", remedy)


def belief(vm: VmSurvey) -> Finding:
    """What the guest claims and what the host sees agree."""
    if (vm.view or {}).get("phase") != "contradicted":
        return Finding("claims", "ok", NOT_KNOWN if vm.view is None else "agree with the host")
    remedy = "someone in the guest writes to the balloon, or its driver is broken: all of its RAM is charged"
    if vm.host.page_bytes > BALLOONED_PAGE_BYTES:
        remedy = (
            f"its host's pages are of {format_size(vm.host.page_bytes)}, and a balloon frees whole ones: "
            "a guest's kernel with pages as large (kernel-64k), or fixed memory (dynmem disable)"
        )
    return Finding("claims", "problem", "the guest holds more than its balloon says", remedy)


CHECKS: Final[tuple[Callable[[VmSurvey], Finding], ...]] = (
    known,
    definition.metadata,
    definition.growable,
    witnesses.channel,
    witnesses.agent,
    agent_version,
    witnesses.balloon_statistics,
    definition.page_reporting,
    definition.deflate_on_oom,
    definition.pinned,
    definition.memtune,
    definition.own_group,
    definition.numa,
    definition.slots,
    online_policy,
    virtio_mem_driver,
    psi,
    guest_swap,
    offline_memory,
    belief,
)
