"""The job of `impact` by what guests execute, and not by time.

A guest's second is 10^9 of its instructions here, or a second in which it has nothing to do: QEMU's
`-icount shift=0`. So what else the machine does is in no figure, nor what TCG makes of code that it has not
translated yet. A guest that waits for memory is seen to wait. Not shown is what the host pays: QEMU's page
faults and the controller.
"""

from typing import Any, Final

from bench.real.harness import Result
from bench.real.impact import COLUMNS, measure

COUNTED: Final[dict[str, Any]] = {"qemu_arguments": ("-icount", "shift=0")}


def run() -> Result:
    """All of it."""
    result = Result("counted", "A job that starts small, in seconds of 10^9 instructions", COLUMNS)
    measure(result, **COUNTED)
    return result


if __name__ == "__main__":
    print(run().text())
