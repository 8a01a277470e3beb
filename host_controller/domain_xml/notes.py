"""What a user should know of what `enable` did: what it means, what it costs, what no longer works."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from host_controller.core.model import MEMORY_BLOCK_BYTES, VIRTIO_MEM_STEP_BYTES, Growth, Limits
from host_controller.domain_xml.arguments import passed
from host_controller.domain_xml.boot_ram import (
    LARGEST_WITHOUT_BOUNCE_BYTES,
    MOVABLE_RATIO,
    PAGE_STRUCTURE_SHARE,
)
from host_controller.domain_xml.host_abilities import BALLOONED_PAGE_BYTES, NOTHING_KNOWN, HostAbilities
from host_controller.domain_xml.pinning import pins
from host_controller.domain_xml.set_aside import set_aside
from host_controller.domain_xml.shape import Shape
from host_controller.domain_xml.values import architecture_of
from host_controller.units import format_size, round_up


def notes(
    root: Element,
    limits: Limits,
    growth: Growth,
    shape: Shape,
    host: HostAbilities = NOTHING_KNOWN,
) -> Iterator[str]:
    """Sentences about a domain that is being prepared; `root` is what it was."""
    yield from _rounding(limits, growth, shape)
    if host.memory_bytes is not None and host.memory_bytes < limits.maximum_bytes:
        yield (
            f"its maximum of {format_size(limits.maximum_bytes)} is more than the "
            f"{format_size(host.memory_bytes)} that this host has"
            + (": it boots with all of it, which is never admitted here" if growth is Growth.BALLOON else "")
        )
    match growth:
        case Growth.HOTADD:
            yield from _dimms(shape)
        case Growth.VIRTIO_MEM:
            yield from _blocks(limits, shape)
            if architecture_of(root) == "aarch64":
                yield (
                    "a guest's kernel with pages of 64 KiB takes virtio-mem 512 MiB at a time, and nothing "
                    "of what is less: there --growth hotadd serves better"
                )
        case Growth.BALLOON:
            yield (
                f"it boots with {format_size(shape.boot)} and counts as that until its balloon driver is "
                "seen to be alive; nothing is hot-added"
            )
    yield from _costs(root, growth, shape, host)
    yield from _side_effects(root, growth)


def _rounding(limits: Limits, growth: Growth, shape: Shape) -> Iterator[str]:
    if shape.startup != limits.startup_bytes:
        yield f"startup is rounded up to {format_size(shape.startup)}, by its pages or its memory blocks"
    if growth is not Growth.BALLOON and shape.reach < limits.maximum_bytes:
        yield (
            f"{'DIMMs' if growth is Growth.HOTADD else 'memory blocks'} come in "
            f"{format_size(MEMORY_BLOCK_BYTES)}, so of the maximum of {format_size(limits.maximum_bytes)} it "
            f"can reach {format_size(shape.reach)}"
        )


def _dimms(shape: Shape) -> Iterator[str]:
    grown = shape.reach - shape.startup
    mean = max(MEMORY_BLOCK_BYTES, round_up(-(-grown // shape.slots), MEMORY_BLOCK_BYTES))
    if grown:
        yield (
            f"it boots with {format_size(shape.startup)} and grows by up to {format_size(grown)} in DIMMs: "
            f"{shape.slots} slots, {format_size(MEMORY_BLOCK_BYTES)} at least and "
            f"{format_size(mean)} on average when all are used"
        )
    movable = min(grown, shape.startup * MOVABLE_RATIO)
    yield (
        f"{format_size(movable)} of that can be movable ({MOVABLE_RATIO}:1 against startup) and be "
        f"unplugged again" + (f"; the other {format_size(grown - movable)} stay" if grown > movable else "")
    )


def _blocks(limits: Limits, shape: Shape) -> Iterator[str]:
    grown, rest = shape.reach - shape.boot, shape.startup - shape.boot
    yield (
        f"it boots with {format_size(shape.boot)} ({shape.why}) and grows by up to {format_size(grown)} of "
        f"virtio-mem, in steps of {format_size(VIRTIO_MEM_STEP_BYTES)}; the guest needs Linux 5.8 or newer"
    )
    if rest:
        yield (
            f"the other {format_size(rest)} of startup it gets as soon as it reports: Debian brings none of "
            f"the device online before its agent runs, so {format_size(shape.boot)} must do until then; with "
            f"a minimum of {format_size(limits.startup_bytes)} it boots with all of startup"
        )
    if limits.minimum_bytes < shape.boot:
        yield (
            f"what it gives back down to {format_size(shape.boot)} leaves in whole blocks; from there to "
            f"its minimum of {format_size(limits.minimum_bytes)} its balloon takes single pages"
        )
    if grown > shape.boot * MOVABLE_RATIO:
        yield (
            f"{format_size(shape.boot * MOVABLE_RATIO)} of that can be movable ({MOVABLE_RATIO}:1 against "
            "what it boots with); of the rest the guest gives back what its kernel does not use"
        )


def _costs(root: Element, growth: Growth, shape: Shape, host: HostAbilities) -> Iterator[str]:
    aside = set_aside(root, shape.boot)
    if growth is not Growth.BALLOON or shape.boot > LARGEST_WITHOUT_BOUNCE_BYTES:
        yield (
            f"where memory may reach beyond 4 GiB, Linux sets {format_size(aside.bounce)} of what it boots "
            f"with aside for devices that cannot (swiotlb){aside.words}"
        )
    elif aside.others:
        yield f"of what it boots with its kernel sets aside {' and '.join(aside.others)}"
    described = min(shape.reach - shape.boot, shape.boot * MOVABLE_RATIO)
    if described >= MEMORY_BLOCK_BYTES:
        # What is onlined for the kernel beyond that describes itself.
        most = format_size(described // PAGE_STRUCTURE_SHARE)
        yield f"page structures of what it grows by take up to {most} of what it boots with"
    pin = next(pins(root, host.device_networks), None)
    if pin is not None:
        yield (
            f"{pin.why}: memory taken from it does not come back to the host, so it costs all its RAM always "
            f"({pin.what})"
        )
    if what := _allocates_at_once(root):
        yield (
            f"its memory is allocated at once ({what}): starting and growing take the host's memory at that "
            "moment"
        )
    if _lies_in_files(root):
        yield (
            "its RAM is shared in files (<source type='file'/>), which the host counts as cache that goes on "
            "demand, unless they lie in a tmpfs (memory_backing_dir in qemu.conf): <source type='memfd'/> is "
            "counted as memory"
        )
    if host.page_bytes > BALLOONED_PAGE_BYTES:
        yield (
            f"this host's pages are of {format_size(host.page_bytes)}, and QEMU gives back whole ones: what "
            "a guest with smaller pages gives by its balloon stays with QEMU for the most part"
        )
    bound = [one for one in root.findall("./numatune/*") if one.get("mode", "strict") != "preferred"]
    if bound:
        nodes = ", ".join(sorted({one.get("nodeset") or one.get("placement") or "?" for one in bound}))
        yield (
            f"its memory is bound to the host's node {nodes} (<numatune>): what is free there is not looked "
            "at, only what is free on the host"
        )


def _allocates_at_once(root: Element) -> str:
    """What has QEMU touch all memory before the guest does; empty when nothing has."""
    allocation = root.find("./memoryBacking/allocation")
    if allocation is not None and allocation.get("mode") == "immediate":
        return "<allocation mode='immediate'/>"
    return next((str(one) for one in passed(root) if one.option == "mem-prealloc"), "")


def _lies_in_files(root: Element) -> bool:
    """Shared mappings of files, which are page cache; private ones are the process's own memory."""
    source = root.find("./memoryBacking/source")
    modes = {one.get("mode") for one in root.findall("./memoryBacking/access")}
    modes |= {one.get("memAccess") for one in root.findall("./cpu/numa/cell")}
    huge = root.find("./memoryBacking/hugepages") is not None
    return source is not None and source.get("type") == "file" and "shared" in modes and not huge


def _may_sleep(root: Element) -> bool:
    """Its firmware offers sleep, to memory or to disk: libvirt leaves that to QEMU, which does, unless <pm>
    says otherwise.
    """
    return [one.get("enabled") for one in root.findall("./pm/*")].count("no") < 2


def _side_effects(root: Element, growth: Growth) -> Iterator[str]:
    balloon = root.find("./devices/memballoon")
    model = "" if balloon is None else balloon.get("model", "")
    if model and not model.startswith("virtio"):
        yield f"it gets a virtio balloon in place of model {model!r}; `dynmem disable` puts that back"
    if balloon is not None and balloon.find("./driver[@iommu='on']") is not None:
        yield (
            "its balloon is taken out from behind the IOMMU (<driver iommu='on'/>), since Linux has no "
            "driver for such a one; `dynmem disable` puts that back"
        )
    had_cells = root.find("./cpu/numa/cell") is not None
    if growth is not Growth.BALLOON and not had_cells:
        yield (
            "`virsh setmaxmem`, and `virsh setvcpus --maximum` to fewer vCPUs, are refused from now on, and "
            "another <memory> is passed over, since hot add needs a NUMA cell: use `dynmem set --maximum` "
            "and `dynmem enable --startup`; for vCPUs disable it and enable it again"
        )
    if growth is not Growth.BALLOON and len(root.findall("./cpu/numa/cell")) > 1:
        yield (
            "all that it grows by lies in the first of its NUMA nodes: programs that are bound to another "
            "(numactl, cpuset.mems) run out while that has plenty, and nobody sees it"
        )
    if growth is not Growth.BALLOON and _may_sleep(root):
        yield (
            "its guest can be neither suspended nor hibernated any more (virsh dompmsuspend): Linux's driver "
            "of virtio-mem refuses both"
            if growth is Growth.VIRTIO_MEM
            else "its guest is not to be hibernated (virsh dompmsuspend --target disk): DIMMs are gone at "
            "its next start, and its kernel then drops the image"
        )
    if growth is Growth.BALLOON and not had_cells:
        yield "`virsh setmaxmem` changes what it boots with and not its maximum: use `dynmem set --maximum`"
    yield (
        "programs that size themselves by MemTotal when they start see startup at most, as does a kernel "
        "with ranges in `crashkernel=`: what it can come to have the agent writes into "
        "/run/dynmem-agent/maximum"
    )
