"""The order of the checks, and what becomes of those that depend on one that failed."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from host_controller.errors import DynmemError
from host_controller.records.burn_in import Verdict
from host_controller.verify.burn_in import checks
from host_controller.verify.burn_in.machine import CheckFailed, Machine
from host_controller.verify.errors import VerifyError


class Check(NamedTuple):
    """One of the course. names: of its verdicts; needs: the checks without which it says nothing."""

    names: tuple[str, ...]
    run: Callable[[Machine], Iterator[Verdict]]
    needs: tuple[str, ...] = ()
    spoils: bool = False
    """Where it fails the guest is no longer as the others expect it: they are skipped."""


COURSE: Final = (
    Check(("boot",), checks.boot, spoils=True),
    Check(("agent",), checks.agent, ("boot",)),
    Check(("inflate", "balloon frees", "deflate"), checks.balloon, ("boot",)),
    Check(("hot add", "online", "offline", "unplug"), checks.dimms, ("agent",)),
    Check(("virtio-mem",), checks.virtio_mem, ("agent",)),
    Check(("allocation while shrinking",), checks.shrinking, ("deflate",)),
    Check(("unbound driver",), checks.unbound, ("deflate",)),
    Check(("forged actual",), checks.forged, ("deflate",)),
    Check(
        ("reset squeezed", "reset with a DIMM", "reset with virtio-mem"),
        checks.resets,
        ("deflate", "unplug", "virtio-mem"),
    ),
)
NAMES: Final = tuple(name for one in COURSE for name in one.names)


def run(machine: Machine) -> Iterator[Verdict]:
    """A verdict for every name in NAMES, in their order."""
    failed: set[str] = set()
    spoilt = ""
    for check in COURSE:
        missing = spoilt or next((name for name in check.needs if name in failed), "")
        if missing:
            failed.update(check.names)
            yield from (Verdict(name, "skipped", f"needs {missing}") for name in check.names)
            continue
        done: list[str] = []
        try:
            for verdict in check.run(machine):
                done.append(verdict.check)
                yield verdict
        except (CheckFailed, VerifyError, DynmemError) as error:
            left = [name for name in check.names if name not in done]
            failed.update(left)
            text = str(error).splitlines()[0]
            yield Verdict(left[0], "failed", text)
            yield from (Verdict(name, "skipped", f"needs {left[0]}") for name in left[1:])
            if check.spoils:
                spoilt = left[0]
            else:
                with suppress(
                    CheckFailed, VerifyError, DynmemError
                ):  # then the others say what is still wrong
                    checks.settle(machine)
