"""The four jobs of `evenness` by what guests execute, as of `counted`."""

from bench.real.counted import COUNTED
from bench.real.evenness import COLUMNS, WAYS, jobs
from bench.real.harness import Result
from lab.lab import Lab


def run() -> Result:
    """All of it."""
    result = Result("counted_four", "Four jobs at once, in seconds of 10^9 instructions", COLUMNS)
    with Lab() as lab:
        for growth, by_hand in WAYS.items():
            jobs(lab, result, growth, by_hand, **COUNTED)
    return result


if __name__ == "__main__":
    print(run().text())
