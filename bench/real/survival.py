"""The fastest steady allocation that a guest with a buffer of 20 % and 256 MiB of swap survives.

Guests of one law allocate at once, each at a rate of its own, on a host with memory for all. Ours and the
100 ms law are faster than these guests can touch memory, so there it is tried as fast as it goes, one alone.
"""

from typing import Final

from bench.real.harness import Goal, Ratio, Result
from bench.real.rig import OURS, Allocation, finish_allocation, host, start_allocation
from tests.lab.controller import Limits
from tests.lab.lab import Lab

MIB_IN_ALL: Final = 768
RATES: Final = (8, 12, 16, 24)
UNPACED: Final = 0.0
LIMITS: Final = Limits(512, 256, 2048, buffer=20, growth="balloon")
SWAP: Final = 256
CAPACITY: Final = 16000
LAWS: Final = ("mom", "proxmox")
QUICK: Final = (OURS, "qmemman")


def run() -> Result:
    """All of it."""
    columns = ("law", "survived, MiB/s", "killed at, MiB/s", "ours ÷ it")
    result = Result("survival", f"Survival of an allocation of {MIB_IN_ALL} MiB", columns)
    found: dict[str, tuple[float, float | None, bool]] = {}
    with Lab() as lab:
        for law in QUICK:
            alone = _play(lab, law, (UNPACED,))[UNPACED]
            touched = alone.mib / alone.seconds if alone.done is not None else 0.0
            found[law] = (touched, None, True) if touched else _survived(_play(lab, law, RATES))
        for law in LAWS:
            found[law] = _survived(_play(lab, law, RATES))
    ours = found[OURS][0]
    for law, (rate, killed, as_fast_as_it_goes) in found.items():
        sign = "≥ " if as_fast_as_it_goes else ""
        at = "" if killed is None else f"{killed:g}"
        ratio = f"≥ {ours / rate:.1f}" if rate and law != OURS else ""
        result.rows.append((law, f"{sign}{rate:.0f}" if rate else f"< {RATES[0]}", at, ratio))
        result.series[law] = {"survived": rate, "killed": killed}
    for law in LAWS:
        least = ours / (found[law][0] or RATES[0])
        result.goals.append(Goal(f"ours ÷ {law}", least, 1.0, least=True))
    result.ratios["ours ÷ what the guest can touch unpaced"] = Ratio(float(found[OURS][2]), high_is_good=True)
    return result


def _play(lab: Lab, law: str, rates: tuple[float, ...]) -> dict[float, Allocation]:
    """One guest for each rate, all at once."""
    with host(lab, law, CAPACITY) as one:
        guests = one.add({f"s{i}": LIMITS for i in range(len(rates))}, swap_mib=SWAP)
        started = [
            (rate, guest, start_allocation(guest, MIB_IN_ALL, rate))
            for rate, guest in zip(rates, guests, strict=True)
        ]
        return {rate: finish_allocation(guest, at, 200) for rate, guest, at in started}


def _survived(played: dict[float, Allocation]) -> tuple[float, float | None, bool]:
    """The fastest that was survived below which none was not, and the slowest that was not."""
    killed = min((rate for rate, one in played.items() if one.done is None), default=None)
    survived = [rate for rate in played if killed is None or rate < killed]
    return max(survived, default=0.0), killed, False


if __name__ == "__main__":
    print(run().text())
