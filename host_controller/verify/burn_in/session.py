"""One burn-in from its files to the last verdict: whatever happens, nothing of it stays."""

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from host_controller.records.burn_in import Verdict
from host_controller.verify.accelerator import find_accelerator
from host_controller.verify.burn_in import course
from host_controller.verify.burn_in.machine import MIB
from host_controller.verify.burn_in.real import Domain, RealMachine
from host_controller.verify.guest_kernel import GuestKernel, initramfs
from host_controller.verify.guest_xml import DIMM_MIB, VIRTIO_MEM_MIB, Place, guest_xml
from host_controller.verify.observer import Observer, Sample

NAME: Final = "dynmem-verify"
RAM_MIB: Final = 512
OVERHEAD_MIB: Final = 192
"""Of QEMU itself, TCG's code among it."""
MOST_BYTES: Final = (RAM_MIB + DIMM_MIB + VIRTIO_MEM_MIB + OVERHEAD_MIB) * MIB
"""What a burn-in can come to hold of the host's memory at any time."""
SLACK_BYTES: Final = 16 * MIB
LASTS_SECONDS: Final = 2.5
"""Memory that moves while the host reads it is booked wrongly until the next reading, about a second later
(verify.smaps), and a guest's size is asked a little after it: what lasts longer is no such error."""
_ROOT: Final = Path("/tmp")  # noqa: S108  not $TMPDIR: a unix socket's name holds 107 bytes, and QEMU must get there


@contextmanager
def files(kernel: GuestKernel, agent_file: bytes, owner: tuple[int, int] | None) -> Iterator[Place]:
    """The guest's files, and a directory that its QEMU (`owner`) can write into; gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="dynmem-verify-", dir=_ROOT))
    try:
        root.chmod(0o755)
        inner = root / "q"
        inner.mkdir(mode=0o700)
        if owner is not None and os.geteuid() == 0:
            os.chown(inner, *owner)
        place = Place(root / "vmlinuz", root / "initrd", inner)
        shutil.copyfile(kernel.image, place.kernel)
        place.initrd.write_bytes(initramfs(kernel, agent_file))
        for path in (place.kernel, place.initrd):
            path.chmod(0o644)
        yield place
    finally:
        shutil.rmtree(root, ignore_errors=True)


def xml(place: Place, arguments: str = "") -> str:
    """The guest's domain."""
    return guest_xml(NAME, RAM_MIB * MIB, find_accelerator(), place, arguments)


def verdicts(
    place: Place, start: Callable[[], Domain], keep: Callable[[list[Sample]], None] = lambda samples: None
) -> Iterator[Verdict]:
    """Of every check, as they come, and of the observer at the end. keep: given all that the observer saw."""
    with ExitStack() as stack:
        observer = stack.enter_context(Observer())
        machine = RealMachine(NAME, RAM_MIB * MIB, place, start, observer)
        stack.callback(machine.end)
        yield from course.run(machine)
        yield observed(observer)
        keep(observer.samples)


def observed(observer: Observer) -> Verdict:
    """The host never held more of the guest than it may take, as far as the observer saw."""
    samples = observer.samples
    if not any(sample.guests for sample in samples):
        return Verdict("observer", "skipped", "it saw no sample")
    above = lasting_excess(samples)
    if above > SLACK_BYTES:
        return Verdict(
            "observer", "failed", "the host holds more of the guest than it has RAM", above / MIB, "MiB"
        )
    sight = observer.sight()
    if not sight.clear:
        return Verdict("observer", "skipped", f"the machine was busy: {sight}", sight.largest_gap, "s")
    return Verdict("observer", "passed", f"watched all along: {sight}", round(sight.largest_gap, 3), "s")


def lasting_excess(samples: Sequence[Sample]) -> int:
    """The most bytes that the host held beyond what a guest had, throughout `LASTS_SECONDS`; at least 0."""
    most = 0
    for name in {name for sample in samples for name in sample.guests}:
        window: deque[tuple[float, int]] = deque()
        for sample in samples:
            guest = sample.guests.get(name)
            if guest is None:
                window.clear()
                continue
            window.append((sample.at, guest.resident - guest.ram - guest.virtio_mem))
            while len(window) > 1 and sample.at - window[1][0] >= LASTS_SECONDS:
                window.popleft()
            if sample.at - window[0][0] >= LASTS_SECONDS:
                most = max(most, min(excess for _, excess in window))
    return most
