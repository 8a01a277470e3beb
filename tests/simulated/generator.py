"""Random scenarios: hosts that are too small, guests that misbehave, users who change their minds."""

import random
from dataclasses import replace

from host_controller.core.model import Growth, Limits
from host_controller.simulator.behaviours import BEHAVIOURS
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.memory import Speeds
from host_controller.simulator.scenario import (
    Action,
    Ambush,
    Behave,
    KillController,
    Meddle,
    Move,
    Pause,
    Reset,
    Scenario,
    SetLimits,
    Start,
    Step,
    Stop,
    Use,
)
from host_controller.simulator.workload import Workload, saw, sine, square, steady
from host_controller.units import GIB, MIB, round_up

WEIGHTS = {
    Use: 12.0,
    Behave: 6.0,
    Start: 3.0,
    Reset: 1.0,
    Stop: 0.7,
    SetLimits: 1.0,
    Pause: 0.5,
    Move: 1.0,
    KillController: 0.25,
}


def random_scenario(seed: int, seconds: float = 300.0, guests: int = 6) -> Scenario:
    """A host, its guests and about one action every two seconds."""
    rng = random.Random(f"scenario {seed}")
    specs = tuple(random_guest(rng, f"vm{i}") for i in range(rng.randint(2, guests)))
    largest = max(spec.config().boot_ram_bytes for spec in specs)
    whole = sum(spec.limits.maximum_bytes for spec in specs)
    capacity = int(max(largest * 1.2, whole * rng.uniform(0.3, 1.1)))
    steps = [Step(rng.uniform(0.0, 5.0), Start(spec.name)) for spec in specs]
    at = 0.0
    while (at := at + rng.expovariate(1.0)) < seconds:
        steps += random_ambush(rng, rng.choice(specs), round(at, 2))
    at = 0.0
    while (at := at + rng.expovariate(0.5)) < seconds:
        steps.append(Step(round(at, 2), random_action(rng, specs)))
    steps.sort(key=lambda step: step.at)
    return Scenario(capacity, specs, tuple(steps), seconds, seed)


def seesaw_scenario(seed: int, seconds: float = 300.0, guests: int = 48) -> Scenario:
    """Guests that need much and little by turns, so that memory is plugged and unplugged all the time."""
    rng = random.Random(f"seesaw {seed}")
    specs = tuple(seesaw_guest(rng, f"vm{i}") for i in range(guests))
    whole = sum(spec.limits.maximum_bytes + 128 * MIB for spec in specs)
    steps = [Step(rng.uniform(0.0, 5.0), Start(spec.name)) for spec in specs]
    for spec in specs:
        at = rng.uniform(5.0, 15.0)
        while at < seconds:
            much = int(spec.limits.maximum_bytes * rng.uniform(0.5, 0.8))
            steps.append(Step(round(at, 2), Use(spec.name, much, over_seconds=1.0)))
            at += rng.uniform(2.0, 5.0)
            steps.append(Step(round(at, 2), Use(spec.name, rng.randrange(0, 32) * MIB)))
            at += rng.uniform(8.0, 14.0)
        at = 10.0
        while (at := at + rng.uniform(1.5, 6.0)) < seconds:
            steps += random_ambush(rng, spec, round(at, 2))
    steps.sort(key=lambda step: step.at)
    return Scenario(int(whole * rng.uniform(0.8, 1.1)), specs, tuple(steps), seconds, seed)


def swing_scenario(seed: int, seconds: float = 420.0) -> Scenario:
    """Large guests whose demands swing by GiB within seconds, on a host that is too small for all of them.

    Nobody misbehaves: what breaks a rule here is in the law, not in a guest. Some come late.
    """
    rng = random.Random(f"swing {seed}")
    alike = rng.choice((None, Growth.HOTADD, Growth.BALLOON, Growth.VIRTIO_MEM))
    specs = tuple(swing_guest(rng, f"vm{i}", seconds, alike) for i in range(rng.randint(3, 5)))
    times = range(0, int(seconds), 5)
    wanted = sum(max(spec.workload.anonymous.at(float(at)) for at in times) for spec in specs)
    largest = max(spec.config().boot_ram_bytes for spec in specs)
    capacity = int(max(wanted * 0.85, largest * 1.1))
    late = [rng.choice((0.0, 0.0, rng.uniform(0.0, seconds / 2))) for _ in specs]
    steps = [Step(round(at, 2), Start(spec.name)) for spec, at in zip(specs, late, strict=True)]
    steps.sort(key=lambda step: step.at)
    return Scenario(capacity, specs, tuple(steps), seconds, seed)


def swing_guest(rng: random.Random, name: str, seconds: float, growth: Growth | None) -> GuestSpec:
    """0.6 to 14 GiB, as a wave of 2 to 90 s, and limits of every size."""
    low = rng.uniform(0.6, 7.0) * GIB
    high = rng.uniform(low, 14.0 * GIB)
    period, phase = rng.uniform(2.0, 90.0), rng.random()
    wave = rng.choice((saw, sine, square))(low, high, period, seconds, phase)
    minimum = rng.choice((256, 512, 1024)) * MIB
    startup = minimum + rng.randrange(0, 17) * 128 * MIB
    maximum = max(startup, round_up(int(high * rng.uniform(0.9, 1.5)), 128 * MIB))
    limits = Limits(
        startup,
        minimum,
        maximum,
        buffer_percent=rng.choice((5, 20, 20, 100, 2000)),
        weight=rng.choice((1, 10, 100, 1000, 10000)),
    )
    return GuestSpec(
        name,
        limits,
        growth=growth or rng.choice(list(Growth)),
        workload=Workload(wave),
        boot_seconds=rng.uniform(1.0, 10.0),
        agent_seconds=rng.uniform(0.2, 4.0),
        swap_bytes=rng.choice((0, 0, 2 * GIB)),
        reporting=rng.random() < 0.7,
    )


def rough_scenario(seed: int, seconds: float = 200.0) -> Scenario:
    """Virtio-mem whose guests need much and little within 3 to 10 s, with resets while QEMU answers late."""
    rng = random.Random(f"rough {seed}")
    specs = tuple(rough_guest(rng, f"vm{i}", seconds) for i in range(rng.randint(3, 5)))
    wanted = sum(max(spec.workload.anonymous.at(float(at)) for at in range(int(seconds))) for spec in specs)
    largest = max(spec.config().boot_ram_bytes for spec in specs)
    capacity = int(max(wanted * rng.uniform(0.7, 1.1), largest * 1.1))
    steps = [Step(0.0, Start(spec.name)) for spec in specs]
    at = 20.0
    while (at := at + rng.expovariate(0.25)) < seconds:
        steps += rough_ambush(rng, rng.choice(specs).name, at)
    steps.sort(key=lambda step: step.at)
    return Scenario(capacity, specs, tuple(steps), seconds, seed)


def tight_scenario(seed: int, seconds: float = 300.0) -> Scenario:
    """One to four VMs by hot add, whose programs go to another size every 10 to 60 s, on a host that has less
    than they want: the last DIMM is seldom free whole. Some of them misbehave as they are plugged or shrunk.
    """
    rng = random.Random(f"tight {seed}")
    specs = tuple(tight_guest(rng, f"vm{i}") for i in range(rng.randint(1, 4)))
    whole = sum(spec.limits.maximum_bytes for spec in specs)
    steps = [Step(0.0, Start(spec.name)) for spec in specs]
    for spec in specs:
        at = rng.uniform(15.0, 30.0)
        while at < seconds:
            much = int(spec.limits.maximum_bytes * rng.choice((0.3, 0.5, 0.7, 0.9)) * rng.uniform(0.8, 1.0))
            steps.append(Step(round(at, 2), Use(spec.name, much, over_seconds=rng.choice((0.0, 1.0, 10.0)))))
            at += rng.uniform(10.0, 60.0)
        at = 30.0
        while rng.random() < 0.5 and (at := at + rng.uniform(20.0, 90.0)) < seconds:
            steps += random_ambush(rng, spec, round(at, 2))
            if rng.random() < 0.3:
                steps.append(Step(round(at + 5.0, 2), rng.choice((Reset(spec.name), KillController(1.0)))))
    steps.sort(key=lambda step: step.at)
    return Scenario(int(whole * rng.uniform(0.5, 0.9)), specs, tuple(steps), seconds, seed)


def tight_guest(rng: random.Random, name: str) -> GuestSpec:
    """1 to 6 GiB."""
    startup = rng.choice((512, 1024)) * MIB
    maximum = startup + rng.randrange(4, 40) * 128 * MIB
    limits = Limits(
        startup,
        rng.choice((256, 512)) * MIB,
        maximum,
        buffer_percent=rng.choice((5, 20, 20, 50)),
        weight=rng.choice((1, 100, 100, 1000)),
    )
    return GuestSpec(
        name,
        limits,
        growth=Growth.HOTADD,
        boot_seconds=2.0,
        agent_seconds=0.5,
        swap_bytes=rng.choice((0, 0, 1 * GIB)),
        reporting=rng.random() < 0.7,
    )


def meddled_scenario(seed: int, seconds: float = 200.0) -> Scenario:
    """The same, with somebody else who asks their devices for sizes of his own, also while QEMU is late."""
    rng = random.Random(f"meddled {seed}")
    host = rough_scenario(seed, seconds)
    steps, at = list(host.steps), 20.0
    while (at := at + rng.expovariate(0.1)) < seconds:
        spec = rng.choice(host.guests)
        size = rng.randrange(0, spec.limits.maximum_bytes // (128 * MIB) + 1) * 128 * MIB
        steps.append(Step(round(at, 2), Meddle(spec.name, size, rng.choice((0.0, 0.5, 2.0, 5.0)))))
    steps.sort(key=lambda step: step.at)
    return replace(host, steps=tuple(steps))


def rough_guest(rng: random.Random, name: str, seconds: float) -> GuestSpec:
    """Up to 5 GiB, and limits of every size."""
    low = rng.uniform(0.3, 2.0) * GIB
    high = low + rng.uniform(0.2, 3.0) * GIB
    wave = rng.choice((sine, sine, square))(low, high, rng.uniform(3.0, 10.0), seconds, rng.random())
    minimum = rng.choice((256, 512, 1024)) * MIB
    startup = minimum + rng.randrange(0, 9) * 128 * MIB
    maximum = max(startup, round_up(int(high * rng.uniform(1.0, 1.6)), 128 * MIB))
    limits = Limits(
        startup,
        minimum,
        maximum,
        buffer_percent=rng.choice((5, 20, 20, 100)),
        weight=rng.choice((1, 100, 10000)),
    )
    return GuestSpec(
        name,
        limits,
        growth=Growth.VIRTIO_MEM,
        workload=Workload(wave),
        boot_seconds=rng.uniform(1, 10),
        agent_seconds=rng.uniform(0.2, 4.0),
        swap_bytes=rng.choice((0, 0, 2 * GIB)),
        reporting=rng.random() < 0.7,
    )


def rough_ambush(rng: random.Random, name: str, at: float) -> list[Step]:
    """At another size of virtio-mem, mostly by QEMU; often a reset, a new controller or a job meanwhile."""
    how = rng.choice(["late QEMU"] * 4 + ["dead QEMU", *sorted(BEHAVIOURS)])
    later = round(at + rng.uniform(5.0, 25.0), 2)
    steps = [Step(round(at, 2), Ambush(name, "ResizeVirtioMem", how)), Step(later, Behave(name, "ideal"))]
    if how == "dead QEMU":
        steps += [Step(later, Stop(name)), Step(later + 1, Start(name))]
    if rng.random() < 0.5:
        steps.append(Step(round(at + rng.uniform(0, 6), 2), Reset(name)))
    if rng.random() < 0.1:
        steps.append(Step(round(at + rng.uniform(0, 6), 2), KillController(rng.uniform(0.1, 2))))
    if rng.random() < 0.1:
        when, job = round(at + rng.uniform(0, 3), 2), rng.choice(("migration", "snapshot", "save"))
        steps.append(Step(when, Move(name, job, rng.uniform(0.3, 5), rng.uniform(0.2, 5))))
    return steps


def seesaw_guest(rng: random.Random, name: str) -> GuestSpec:
    """A guest that can be plugged, mostly with DIMMs."""
    minimum = rng.choice((128, 192, 256)) * MIB
    startup = minimum + 128 * MIB
    limits = Limits(startup, minimum, startup + rng.randrange(4, 9) * 128 * MIB)
    growth = rng.choices((Growth.HOTADD, Growth.VIRTIO_MEM), (0.65, 0.35))[0]
    return GuestSpec(name, limits, growth=growth, boot_seconds=2.0, agent_seconds=0.5)


def random_guest(rng: random.Random, name: str) -> GuestSpec:
    """A guest of 256 MiB to 4 GiB."""
    minimum = rng.choice((128, 192, 256, 512)) * MIB
    startup = minimum + rng.randrange(0, 5) * 128 * MIB
    maximum = startup + rng.randrange(0, 17) * 128 * MIB + rng.choice((0, 0, 40 * MIB))
    limits = Limits(
        startup,
        minimum,
        maximum,
        buffer_percent=rng.choice((5, 20, 20, 50)),
        weight=rng.choice((10, 100, 100, 300)),
    )
    growth = rng.choices((Growth.HOTADD, Growth.BALLOON, Growth.VIRTIO_MEM), (0.55, 0.2, 0.25))[0]
    return GuestSpec(
        name,
        limits,
        growth=growth,
        workload=Workload(steady(rng.randrange(0, 128) * MIB)),
        behaviour=BEHAVIOURS[rng.choice(sorted(BEHAVIOURS))] if rng.random() < 0.8 else BEHAVIOURS["ideal"],
        boot_seconds=rng.uniform(1.0, 10.0),
        agent_seconds=rng.uniform(0.2, 4.0),
        swap_bytes=rng.choice((0, 0, 512 * MIB)),
        agent=rng.random() < 0.9,
        reporting=rng.random() < 0.7,
        pinned="VFIO" if rng.random() < 0.03 else None,
        speeds=replace(Speeds(), inflate=rng.choice((0.17, 0.95, 0.95)) * GIB),
    )


KINDS = {
    "Grow": 1.5,
    "Shrink": 1.5,
    "AttachDimm": 4.0,
    "DetachDimm": 7.0,
    "ResizeVirtioMem": 5.0,
    "SendToGuest": 2.5,
    "SetPace": 0.3,
}
"""Kinds of commands, and how often a guest lies in wait for one: the seldom ones more often."""
_NOT_FOR = {Growth.HOTADD: {"ResizeVirtioMem"}, Growth.VIRTIO_MEM: {"AttachDimm", "DetachDimm"},
            Growth.BALLOON: {"AttachDimm", "DetachDimm", "ResizeVirtioMem", "SendToGuest"}}  # fmt: skip


def random_ambush(rng: random.Random, spec: GuestSpec, at: float) -> list[Step]:
    """A guest that turns bad at the moment of a command, and comes to its senses after a while.

    A QEMU that is dead is ended, and the guest started anew.
    """
    kinds = {kind: weight for kind, weight in KINDS.items() if kind not in _NOT_FOR[spec.growth]}
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    how = rng.choice(sorted(BEHAVIOURS))
    later = round(at + rng.uniform(5.0, 25.0), 2)
    steps = [Step(at, Ambush(spec.name, kind, how)), Step(later, Behave(spec.name, "ideal"))]
    if how == "dead QEMU":
        steps += [Step(later, Stop(spec.name)), Step(later + 1.0, Start(spec.name))]
    return steps


def random_action(rng: random.Random, specs: tuple[GuestSpec, ...]) -> Action:
    """Something that befalls a guest or the controller."""
    spec = rng.choice(specs)
    kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    if kind is Use:
        top = spec.limits.maximum_bytes * rng.choice((0.1, 0.3, 0.6, 0.9, 1.2))
        cache = rng.choice((0, 0, 0, 100, 400)) * MIB
        return Use(spec.name, int(top * rng.random()), cache, rng.choice((0.0, 1.0, 10.0)))
    if kind is Behave:
        name = "ideal" if rng.random() < 0.15 else rng.choice(sorted(BEHAVIOURS))
        return Behave(spec.name, name)
    if kind is SetLimits:
        old = spec.limits
        lower = rng.randrange(
            max(1, old.minimum_bytes // (64 * MIB) - 2), old.startup_bytes // (64 * MIB) + 1
        )
        changed = replace(
            old,
            minimum_bytes=min(old.startup_bytes, lower * 64 * MIB),
            weight=rng.choice((1, 100, 1000)),
            buffer_percent=rng.choice((5, 20, 100)),
        )
        return SetLimits(spec.name, changed)
    if kind is Pause:
        return Pause(spec.name, rng.random() < 0.4)
    if kind is Move:
        job = rng.choice(("migration", "migration", "save", "snapshot"))
        away = None if job == "snapshot" or rng.random() < 0.3 else rng.uniform(0.2, 20.0)
        return Move(spec.name, job, rng.choice((0.3, 3.0, 30.0)) * rng.random(), away)
    if kind is KillController:
        return KillController(rng.uniform(0.1, 5.0))
    return kind(spec.name)
