"""Checks of what a VM's XML says."""

from dataclasses import replace
from typing import Final
from xml.etree import ElementTree

from agent.finding import Finding
from host_controller.core.model import MEMORY_BLOCK_BYTES, METADATA, Growth
from host_controller.doctor.facts import VmSurvey
from host_controller.domain_xml.fitness.judge import refusals
from host_controller.domain_xml.fitness.refusal import Refusal
from host_controller.domain_xml.fitness.sizes import beside_ram, tight_limits
from host_controller.domain_xml.pinning import DEFLATES, pinned_by, pins
from host_controller.neutral import shell_word
from host_controller.units import KIB, MIB, format_apart, format_size, round_up

FEW_SLOTS: Final = 2
OF_A_GROUP: Final = "memory."
"""How the limits of control groups begin, in both versions."""
REMEDIES: Final = {
    "VFIO": "take the device out, or give this VM fixed memory: all of its RAM is charged",
    "huge pages": "take <hugepages> out, or give this VM fixed memory: a balloon frees 4 KiB pages only",
    "locked": "take it out: locked pages stay with QEMU",
    "encrypted memory": "encrypted guests keep their pages: give this VM fixed memory (dynmem disable)",
}


def metadata(vm: VmSurvey) -> Finding:
    """The limits in its XML can be used."""
    problems = [one for one in vm.domain.problems if "channel" not in one]
    if vm.rule is not None:
        if vm.domain.config is None:
            return Finding("limits", "problem", "; ".join(problems), "dynmem rules shows what it would get")
        return Finding("limits", "ok", f"by rule[{vm.rule}]")
    if problems:
        return Finding(
            "limits", "problem", "; ".join(problems), f"dynmem enable {shell_word(vm.name)} while it is off"
        )
    if vm.domain.config is None:
        found = "it was prepared, and some tool has written its definition anew, without its limits"
        return Finding("limits", "problem", found, f"dynmem enable {shell_word(vm.name)} while it is off")
    boots_with, startup = vm.domain.boot_ram_bytes, vm.domain.config.limits.startup_bytes
    if vm.domain.config.huge_page_bytes is not None and boots_with < startup:
        # Prepared by a version that did not know that, or edited since.
        has, should = format_apart(boots_with, startup)
        found = f"it boots with {has} of its startup of {should}, and nobody moves memory in huge pages"
        return Finding("limits", "problem", found, f"dynmem enable {shell_word(vm.name)} while it is off")
    most, maximum = vm.domain.most_bytes, vm.domain.config.limits.maximum_bytes
    if vm.domain.config.source == METADATA and most < maximum:
        has, should = format_apart(most, maximum)
        found = f"somebody has changed its definition: it can have {has} at most, and its maximum is {should}"
        return Finding("limits", "note", found, f"dynmem enable {shell_word(vm.name)} while it is off")
    block = vm.domain.config.virtio_mem_block_bytes
    if vm.domain.config.source == METADATA and block > MEMORY_BLOCK_BYTES:
        takes = "no smaller DIMM" if vm.domain.config.growth is Growth.HOTADD else "gives none back"
        found = f"where its RAM ends its kernel takes memory {format_size(block)} at a time, and {takes}"
        remedy = f"dynmem enable {shell_word(vm.name)} while it is off, which has its RAM end elsewhere"
        return Finding("limits", "note", found, remedy)
    return Finding("limits", "ok", "can be used")


def growable(vm: VmSurvey) -> Finding:
    """What is defined would still be accepted: somebody may have edited it since it was prepared."""
    config = vm.domain.config
    if config is None or vm.rule is not None:
        return Finding("definition", "ok", "not judged: see limits")
    xml = ElementTree.tostring(vm.root, encoding="unicode")
    # What runs has shown that its processor reaches as far; the judgement goes by the worst layout.
    host = replace(vm.host, address_bits=None) if vm.running else vm.host
    judged = refusals(xml, config.limits, config.growth, host)
    found = [one for one in judged if "memtune" not in one.reason]
    if not found:
        return Finding("definition", "ok", f"can grow by {config.growth}")
    return Finding("definition", "problem", found[0].reason, _remedy(vm.name, found[0]))


def _remedy(name: str, refusal: Refusal) -> str:
    """The ways out; those by an option with the command that takes it, which nobody has typed here."""
    if all(way.edit is not None for way in refusal.ways_out):
        return refusal.hint
    return f"{refusal.hint} (dynmem enable {shell_word(name)}, while it is off)"


def page_reporting(vm: VmSurvey) -> Finding:
    """Memory that the guest frees comes back to the host early."""
    balloon = vm.root.find("./devices/memballoon")
    if balloon is not None and balloon.get("freePageReporting") == "on":
        return Finding("free page reporting", "ok", "on")
    remedy = f"dynmem enable {shell_word(vm.name)}, then restart it; needs Linux 5.7 in the guest"
    if vm.rule is not None:
        remedy = "<memballoon freePageReporting='on'> by whoever writes its XML; needs Linux 5.7 in the guest"
    return Finding("free page reporting", "note", "off: freed memory stays resident on the host", remedy)


def deflate_on_oom(vm: VmSurvey) -> Finding:
    """The guest does not take memory back without consent."""
    if pinned_by(vm.root) != DEFLATES:
        return Finding("deflate-on-oom", "ok", "off")
    remedy = "<memballoon autodeflate='off'>, then restart it; until then all of its RAM is charged"
    return Finding("deflate-on-oom", "problem", "on: the guest takes memory back when it likes", remedy)


def pinned(vm: VmSurvey) -> Finding:
    """Ballooned pages come back to the host."""
    for pin in pins(vm.root, vm.host.device_networks):
        found = f"{pin.why}: a balloon frees nothing ({pin.what})"
        return Finding("pinned memory", "problem", found, REMEDIES[pin.why])
    return Finding("pinned memory", "ok", "none")


def memtune(vm: VmSurvey) -> Finding:
    """No limit of libvirt's strikes before the maximum is reached, with what QEMU takes for itself."""
    domain, config = vm.domain, vm.domain.config
    most = domain.ceiling_bytes if config is None else config.limits.maximum_bytes
    maximum = max(domain.boot_ram_bytes, most)
    tight = tight_limits(vm.root, maximum)
    if not tight:
        return Finding("memtune", "ok", "no limit below what it may take")
    has, needs = format_apart(tight[0].limit_bytes, tight[0].needed_bytes)
    found = f"{tight[0].name} {has} is below the {needs} that its maximum of {format_size(maximum)} may take"
    options = " ".join(f"{one.option} {one.needed_bytes // KIB}" for one in tight)
    remedy = f"virsh memtune {options} --live --config {shell_word(vm.name)}"
    return Finding("memtune", "problem", found, remedy)


def own_group(vm: VmSurvey) -> Finding:
    """The controller knows of no limit on its control group, which stands in no XML, below its maximum."""
    view, config = vm.view or {}, vm.domain.config
    whence = view.get("limit_sources", {}).get("maximum", "")
    if config is None or not whence.startswith(OF_A_GROUP):
        return Finding("memory limit", "ok", "none of its own control group that it can run into")
    maximum = config.limits.maximum_bytes
    has, wanted = format_apart(view["limits"]["maximum_bytes"], maximum)
    needed = format_size(round_up(maximum + beside_ram(vm.root, maximum), MIB))
    remedy = (
        f"raise that to {needed} at least (systemctl set-property), or lower its maximum: "
        f"dynmem set --maximum SIZE {shell_word(vm.name)}"
    )
    return Finding("memory limit", "note", f"{whence} bounds it at {has}; its maximum is {wanted}", remedy)


def numa(vm: VmSurvey) -> Finding:
    """Its memory may come from anywhere: capacity is counted for the whole host."""
    bound = [
        one
        for one in vm.root.findall("./numatune/*")
        if one.tag in ("memory", "memnode") and one.get("mode", "strict") != "preferred"
    ]
    if not bound:
        return Finding("NUMA binding", "ok", "none")
    remedy = "take <numatune> out: capacity is one figure for the host, a node's is not looked at"
    nodes = ", ".join(sorted({one.get("nodeset") or one.get("placement") or "?" for one in bound}))
    modes = ", ".join(sorted({one.get("mode", "strict") for one in bound}))
    return Finding("NUMA binding", "problem", f"bound to node {nodes} ({modes}), not supported", remedy)


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
