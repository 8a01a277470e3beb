"""The laws of host_controller.simulator.laws for many hosts at once, slot by slot, as numpy.

A row is one host with its VMs; columns beyond a row's number of VMs are inactive: all their sizes are 0.
Within a slot of five minutes the demand stands still and each law acts at its own period until the slot is
over or nothing moves any more. tests/simulated/test_bulk_laws.py holds each to its simulator law.

What is taken for granted, in every law's favour: a guest's free memory is all that its demand leaves (no
cache), committed memory is demand, and balloons get where they are sent at once. What counts as used of the
host is said by who asks: all that was given, since guests fill it with cache, or only what demand touches.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from host_controller.simulator.laws import ghaf, mom, proxmox, qmemman
from host_controller.units import MIB

SLOT_SECONDS: Final = 300.0
CLOSE_MIB: Final = 0.01
ROUNDS: Final = 40
"""A round that shares out the rest of the one before comes closer every time; here it ends at 10 KiB."""
Array = Any


@dataclass
class Hosts:
    """Rows of hosts. All sizes are MiB."""

    total: Array
    """Memory of each row's host. The others have one column a VM."""
    minimum: Array
    maximum: Array
    current: Array
    touched: bool = False
    """Only what guests use of what they were given is gone; else all of it is, if only as their cache."""
    extra: dict[str, Array] = field(default_factory=dict)
    """What a law remembers: arrays whose first axis is the row."""

    def keep(self, rows: Array) -> None:
        """Drop all rows but these."""
        self.total, self.minimum = self.total[rows], self.minimum[rows]
        self.maximum, self.current = self.maximum[rows], self.current[rows]
        self.extra = {name: value[rows] for name, value in self.extra.items()}

    @property
    def unassigned(self) -> Array:
        """What has been given to nobody."""
        return self.total - self.current.sum(axis=1)

    def used(self, demand: Array) -> Array:
        """What each VM holds of the host."""
        return np.minimum(demand, self.current) if self.touched else self.current

    def free(self, demand: Array) -> Array:
        """What the host sees as free."""
        return self.total - self.used(demand).sum(axis=1)

    def within(self, size: Array) -> Array:
        """Sizes, clamped to the limits of each VM."""
        return np.maximum(self.minimum, np.minimum(self.maximum, size))


Step = Callable[[Hosts, Array], None]
"""Brings a slot to its end: `hosts.current` becomes what the law gives for that demand."""


def step_static(hosts: Hosts, demand: Array) -> None:
    """Fixed sizes: each VM has its maximum."""
    hosts.current = hosts.maximum


def step_hyperv(hosts: Hosts, demand: Array) -> None:
    """Demand × 1.2, at equal pressure when it does not reach."""
    wanted = demand * 1.2
    given = hosts.within(wanted)
    rows = np.flatnonzero(given.sum(axis=1) > hosts.total)
    if rows.size:
        low, high = np.zeros(rows.size), np.ones(rows.size)
        least, most = hosts.minimum[rows], hosts.maximum[rows]
        for _ in range(40):
            middle = (low + high) / 2
            size = np.maximum(least, np.minimum(most, wanted[rows] * middle[:, None]))
            fits = size.sum(axis=1) <= hosts.total[rows]
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        given[rows] = np.maximum(least, np.minimum(most, wanted[rows] * low[:, None]))
    hosts.current = given


def step_squeezed(hosts: Hosts, demand: Array) -> None:
    """squeezed: what is over is shared by the ranges of the limits alone; demand does not count."""
    ranges = (hosts.maximum - hosts.minimum).sum(axis=1)
    surplus = np.maximum(0.0, hosts.total - hosts.minimum.sum(axis=1))
    gamma = np.clip(surplus / np.maximum(ranges, 1e-9), 0.0, 1.0)
    hosts.current = hosts.minimum + gamma[:, None] * (hosts.maximum - hosts.minimum)


def step_ghaf(hosts: Hosts, demand: Array) -> None:
    """Ghaf: each guest is moved until what it uses is between two shares of what it has."""
    for _ in range(int(SLOT_SECONDS / ghaf.REST_SECONDS)):
        used = np.minimum(demand, hosts.current)
        share = used / np.maximum(hosts.current, 1e-9)
        low = hosts.within(used / ghaf.LOW)
        high = hosts.within(used / ghaf.HIGH_AIM)
        size = np.where(share < ghaf.LOW, low, np.where(share > ghaf.HIGH, high, hosts.current))
        if np.abs(size - hosts.current).max() < 1e-6:
            break
        hosts.current = size


def make_mom(policy_seconds: float) -> Step:
    """MOM with that policy period."""
    samples = round(policy_seconds / mom.SAMPLE_SECONDS)

    def step(hosts: Hosts, demand: Array) -> None:
        extra = hosts.extra
        if "used" not in extra:
            first = np.minimum(demand, hosts.current)
            extra["used"] = np.repeat(first[:, :, None], mom.SAMPLES, axis=2)
            extra["host"] = np.repeat((hosts.unassigned / hosts.total)[:, None], mom.SAMPLES, axis=1)
            extra["next"] = np.zeros(len(first), int)
        used, host, at = extra["used"], extra["host"], int(extra["next"][0])
        total = used.sum(axis=2)
        for _ in range(round(SLOT_SECONDS / policy_seconds)):
            # Between two rounds of the policy nothing moves, so its samples are equal.
            now = np.minimum(demand, hosts.current)
            free = np.maximum(0.0, hosts.free(demand)) / hosts.total
            for _ in range(samples):
                total += now - used[:, :, at]
                used[:, :, at], host[:, at] = now, free
                at = (at + 1) % mom.SAMPLES
            mom_policy(hosts, total / mom.SAMPLES, host.mean(axis=1))
        extra["next"][:] = at

    return step


def mom_policy(hosts: Hosts, used: Array, free: Array) -> None:
    """One round of doc/balloon.rules."""
    current = hosts.current
    share = np.where(free <= mom.CRITICAL_SHARE, free - mom.CRITICAL_SHARE, free)[:, None]
    scarce = (free < mom.PRESSURE_THRESHOLD)[:, None]
    down = np.maximum((1 - mom.LARGEST_STEP) * current, np.maximum(hosts.minimum, used + share * current))
    up = np.maximum((1 + mom.LARGEST_STEP) * current, np.maximum(hosts.minimum, used + 0.20 * current))
    size = np.where(scarce, np.minimum(down, current), np.minimum(hosts.maximum, np.maximum(up, current)))
    worth = np.abs(size - current) > mom.DEAD_BAND * current
    hosts.current = np.where(worth, size, current)


def step_proxmox(hosts: Hosts, demand: Array) -> None:
    """Cycles of ten seconds until the host is as full as it is to be."""
    rows = np.arange(len(demand))
    before = hosts.current.copy()
    cycles = round(SLOT_SECONDS / proxmox.Proxmox.period)
    for left in range(cycles - 1, -1, -1):
        part = Hosts(
            hosts.total[rows], hosts.minimum[rows], hosts.maximum[rows], hosts.current[rows], hosts.touched
        )
        goal = part.free(demand[rows]) - part.total * 0.2
        off = np.abs(goal) > proxmox.DEAD_BAND_BYTES / MIB
        part.keep(off)
        rows, goal = rows[off], goal[off]
        if not rows.size:
            return
        size = _proxmox_cycle(part, demand[rows], goal)
        moved = np.abs(size - part.current).max(axis=1) >= 1.0
        # Some hosts swing between two states for ever; after an even number of cycles it is this one.
        swings = (np.abs(size - before[rows]).max(axis=1) < 1.0) & (left % 2 == 0)
        before[rows] = part.current
        hosts.current[rows] = size
        rows = rows[moved & ~swings]


def _proxmox_cycle(hosts: Hosts, demand: Array, goal: Array) -> Array:
    free = np.maximum(0.0, hosts.current - demand)
    present = hosts.maximum > 0
    idle = present & (free > proxmox.IDLE_SHARE * hosts.minimum) & (hosts.current >= hosts.minimum)
    first = np.where((goal > 0)[:, None], present & ~idle, idle)
    size, rest = _proxmox_share(hosts, hosts.current, first, goal)
    again = np.where(np.abs(rest) >= np.abs(goal), rest, 0.0)
    if again.any():
        size, _ = _proxmox_share(hosts, size, present, again)
    return size


def _proxmox_share(hosts: Hosts, size: Array, members: Array, goal: Array) -> tuple[Array, Array]:
    most = proxmox.LARGEST_CHANGE_BYTES / MIB
    size, left, rest = size.copy(), members & (goal != 0)[:, None], goal.copy()
    growing = (goal > 0)[:, None]
    going = np.abs(rest) >= CLOSE_MIB
    for _ in range(ROUNDS):
        if not going.any():
            break
        left &= going[:, None]
        heads = left.sum(axis=1)
        above = np.where(left, size - hosts.minimum, 0.0).sum(axis=1) + rest
        desired = hosts.within(hosts.minimum + (above / np.maximum(heads, 1))[:, None])
        up = growing & (desired > hosts.current)
        down = desired < hosts.current
        left &= up | down
        new = np.where(
            up, np.minimum(desired, hosts.current + most), np.maximum(desired, hosts.current - most)
        )
        change = np.where(left, new - size, 0.0)
        size += change
        rest = rest - change.sum(axis=1)
        going = going & (np.abs(change).max(axis=1) >= CLOSE_MIB) & (np.abs(rest) >= CLOSE_MIB)
    return size, rest


def step_qmemman(hosts: Hosts, demand: Array) -> None:
    """Balance whenever some guest tells; donors give at once."""
    mib = 1.0 / MIB
    told: Array = hosts.extra.get("told")
    present = hosts.maximum > 0
    for _ in range(40):
        used = np.minimum(demand, hosts.current)
        if told is None:
            told, tells = used.copy(), np.ones(len(used), bool)
        else:
            change = used - told
            rising = (change > qmemman.TELL_RISING_BYTES * mib) & (used > qmemman.FULL_SHARE * hosts.current)
            says = present & ((np.abs(change) > qmemman.TELL_BYTES * mib) | rising)
            told = np.where(says, used, told)
            tells = says.any(axis=1)
        if not tells.any():
            break
        pref = np.maximum(
            np.minimum(qmemman.PREF_FACTOR * told, hosts.maximum), qmemman.LEAST_PREF_BYTES * mib
        )
        pref = np.where(present, pref, 0.0)
        free = hosts.unassigned * qmemman.OVERHEAD_FACTOR
        size = qmemman_balance(hosts, pref, free - qmemman.FREE_LEFT_BYTES * mib)
        moved = np.abs(size - hosts.current)
        hungry = (hosts.current < pref) & (size - hosts.current > qmemman.LEAST_UNDER_PREF_BYTES * mib)
        left = qmemman.FREE_LEFT_BYTES * mib
        worth = (left - free > 15.0) | hungry.any(axis=1)
        worth |= moved.sum(axis=1) + np.abs(free - left) > qmemman.LEAST_TRANSFER_BYTES * mib
        hosts.current = np.where((worth & tells)[:, None], size, hosts.current)
    hosts.extra["told"] = told


def qmemman_balance(hosts: Hosts, pref: Array, free: Array) -> Array:
    """algo.py's balance()."""
    current = hosts.current
    present = hosts.maximum > 0
    need = pref - current
    left = free - need.sum(axis=1)
    whole = pref.sum(axis=1)
    rich = qmemman.ROUNDING * pref * (1 + left / whole)[:, None]
    over = np.maximum(0.0, rich - hosts.maximum).sum(axis=1)
    open_ = present & (rich <= hosts.maximum)
    rich = np.minimum(rich, hosts.maximum)
    for _ in range(60):
        heads = open_.sum(axis=1)
        going = (over >= 1.0) & (heads > 0) & (left > 0)
        if not going.any():
            break
        bonus = np.where(going, qmemman.ROUNDING * over / np.maximum(heads, 1), 0.0)
        takes = present & (rich < hosts.maximum) & going[:, None]
        size = np.where(takes, rich + bonus[:, None], rich)
        over = np.where(going, np.maximum(0.0, size - hosts.maximum).sum(axis=1), over)
        rich = np.minimum(size, hosts.maximum)
        open_ = present & (rich < hosts.maximum)
    donors = present & ((need < 0) | (current >= hosts.maximum))
    gives = donors & (-need >= qmemman.LEAST_GIFT_BYTES / MIB)
    pool = free - np.where(gives, need, 0.0).sum(axis=1)
    takers = present & ~donors
    parts = np.where(takers, pref, 0.0)
    shares: Array = parts / np.maximum(parts.sum(axis=1), 1e-9)[:, None]
    poor: Array = np.where(gives, pref, current)
    fed = np.minimum(qmemman.ROUNDING * (current + pool[:, None] * shares), hosts.maximum)
    poor = np.where(takers & (pool >= 0)[:, None], fed, poor)
    return np.where((left > 0)[:, None], rich, poor)


def step_clairvoyant(hosts: Hosts, demand: Array) -> None:
    """Just what is needed; where that does not reach, the largest are cut to one level (weighted max-min)."""
    size = hosts.within(demand)
    rows = np.flatnonzero(size.sum(axis=1) > hosts.total)
    if rows.size:
        low, high = np.zeros(rows.size), size[rows].max(axis=1)
        for _ in range(45):
            level = (low + high) / 2
            cut = np.maximum(hosts.minimum[rows], np.minimum(size[rows], level[:, None]))
            fits = cut.sum(axis=1) <= hosts.total[rows]
            low, high = np.where(fits, level, low), np.where(fits, high, level)
        size[rows] = np.maximum(hosts.minimum[rows], np.minimum(size[rows], low[:, None]))
    hosts.current = size


STEPS: Final[dict[str, Step]] = {
    "static": step_static,
    "squeezed": step_squeezed,
    "proxmox": step_proxmox,
    "mom": make_mom(mom.POLICY_SECONDS),
    "mom-production": make_mom(mom.PRODUCTION_SECONDS),
    "ghaf": step_ghaf,
    "qmemman": step_qmemman,
    "hyperv": step_hyperv,
    "clairvoyant": step_clairvoyant,
}
