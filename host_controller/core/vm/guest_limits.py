"""What a guest derives from its MemTotal: limits that bite before its memory is used up. Sizes are bytes.

Two things in a guest judge by a share of MemTotal, which falls as memory leaves:

- a kernel with vm.overcommit_memory=2 refuses what would lift Committed_AS above CommitLimit;
- a daemon such as earlyoom kills when less than a share of MemTotal is available.

Neither shows in demand: what was refused was never used. So each gives a least size of usable memory.
"""

from typing import Final

from agent import wire
from host_controller.units import MIB

COMMIT_MARGIN_SHARE: Final = 8
LEAST_COMMIT_MARGIN_BYTES: Final = 64 * MIB
"""What can still be promised at the least: a program that starts asks for more than it uses."""
KILL_MARGIN_BYTES: Final = 16 * MIB
"""Above a share at which somebody kills, as much as is kept available in any guest."""


def least_usable_bytes(untrusted_report: wire.Report, usable_bytes: int) -> int:
    """The least usable memory at which nobody in the guest refuses or kills by a share of MemTotal.

    usable_bytes: what the guest has by the same report. 0: there is no such limit. All of it is the guest's
    own word. What follows from it the guest could have by using memory, too, up to its maximum.
    """
    report = untrusted_report
    kernel = max(0, usable_bytes - report.total_bytes)
    return max(_for_commitments(report, kernel), _above_killers(report, usable_bytes, kernel))


def _for_commitments(report: wire.Report, kernel_bytes: int) -> int:
    from_memory = report.commit_limit_bytes - report.swap_total_bytes
    if from_memory <= 0:
        return 0
    margin = max(LEAST_COMMIT_MARGIN_BYTES, report.committed_bytes // COMMIT_MARGIN_SHARE)
    wanted = report.committed_bytes + margin - report.swap_total_bytes
    # CommitLimit is MemTotal × ratio + swap, so the ratio is known from the same report.
    return kernel_bytes + wanted * report.total_bytes // from_memory if wanted > 0 else 0


def _above_killers(report: wire.Report, usable_bytes: int, kernel_bytes: int) -> int:
    share = min(report.kill_percent, 90)
    if not share:
        return 0
    used = max(0, usable_bytes - report.available_bytes) + KILL_MARGIN_BYTES
    # available ≥ share × MemTotal, with MemTotal = usable − kernel and available = usable − used.
    return (used * 100 - kernel_bytes * share) // (100 - share)
