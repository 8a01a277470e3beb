"""A balloon that cannot follow, a DIMM that does not leave, a host that runs short, no hot add at all."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_controller.host import memory
from host_controller.units import MIB
from lab.controller import Limits, dynmem
from lab.guest import Guest
from lab.hostile import bind_balloon, drop_kernel_memory, hold_kernel_memory, unbind_balloon
from tests.guests.conftest import Rig, RigFactory

CAPACITY = 2200
KIB = 1024


class Meminfo:
    """What the controller under test takes for the host's memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.say(None)

    def say(self, available_bytes: int | None) -> None:
        """From now on so much is available; None is the truth."""
        text = memory.MEMINFO.read_text()
        if available_bytes is not None:
            lines = [line for line in text.splitlines() if not line.startswith("MemAvailable:")]
            text = "\n".join([*lines, f"MemAvailable: {available_bytes // KIB} kB", ""])
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)


@pytest.fixture(scope="module")
def meminfo(tmp_path_factory: pytest.TempPathFactory) -> Meminfo:
    return Meminfo(tmp_path_factory.mktemp("host") / "meminfo")


@pytest.fixture(scope="module")
def rig(make_shared_rig: RigFactory, meminfo: Meminfo) -> Iterator[Rig]:
    rig = make_shared_rig(CAPACITY, shrink_after=15, unplug_after=3, keep_ready=0, meminfo=meminfo.path)
    rig.add("one", Limits(minimum=160, maximum=1024))
    yield rig
    rig.assert_within()


@pytest.fixture
def one(rig: Rig, meminfo: Meminfo) -> Guest:
    """The guest, idle, without DIMMs, squeezed."""
    guest = rig.guests["one"]
    meminfo.say(None)
    guest.workload.free()
    rig.controller.wait_vm(
        guest, lambda vm: not vm["dimms"] and vm["actual_bytes"] < 300 * MIB, 120, "small and without DIMMs"
    )
    rig.controller.wait_at_rest(guest)
    return guest


def told(rig: Rig, topic: str, since: float) -> list[str]:
    """What was told of a topic since a moment of CLOCK_MONOTONIC."""
    wall = since - time.monotonic() + time.time()
    entries = rig.controller.client.follow("events", after=0)
    return [entry["text"] for entry in entries if entry["topic"] == topic and entry["at"] >= wall]


@pytest.mark.faults
def test_growth_without_hot_add_is_charged_with_maximum_until_the_driver_is_alive(rig: Rig) -> None:
    flat = rig.define("flat", Limits(minimum=160, startup=512, maximum=1024, growth="balloon"))
    flat.start()
    rig.observer.start(flat)
    booting = rig.controller.wait_vm(flat, lambda vm: vm["phase"] == "starting", 60, "known to boot")
    assert booting["ram_bytes"] == 1024 * MIB
    assert booting["charge_bytes"] >= 1024 * MIB
    flat.wait_booted()
    live = rig.controller.wait_vm(
        flat,
        lambda vm: vm["phase"] == "live" and vm["actual_bytes"] <= 520 * MIB,
        60,
        "at startup by its balloon",
    )
    assert live["charge_bytes"] < 1024 * MIB
    since = time.monotonic()
    flat.workload.allocate(600, rate=60)
    flat.workload.wait_event("done", "memory", 60)
    grown = rig.controller.wait_vm(
        flat, lambda vm: vm["actual_bytes"] > 700 * MIB, 60, "grown by its balloon"
    )
    assert grown["dimms"] == 0
    assert not list(rig.controller.sent("AttachDimm", vm=grown["uuid"], since=since))
    assert flat.workload.memory().vmstat["oom_kill"] == 0
    flat.remove()
    rig.controller.wait_for(lambda status: len(status["vms"]) == 1, 60, "gone")


@pytest.mark.faults
def test_a_host_that_runs_short_takes_back_what_nobody_needs_and_lets_nobody_grow(
    rig: Rig, one: Guest, meminfo: Meminfo
) -> None:
    spare = rig.controller.status()["host"]["spare_bytes"]
    one.workload.allocate(300, rate=60)
    one.workload.wait_event("done", "memory", 60)
    one.workload.free()
    roomy = rig.controller.wait_vm(
        one, lambda vm: vm["assigned_bytes"] > vm["need_bytes"] + 150 * MIB, 60, "more than it needs"
    )
    since = time.monotonic()
    meminfo.say(int(0.4 * spare))
    status = rig.controller.wait_for(lambda status: status["host"]["emergency"], 60, "an emergency")
    assert "available on the host" in status["host"]["emergency"]
    taken = rig.controller.wait_vm(
        one,
        lambda vm: vm["assigned_bytes"] < vm["need_bytes"] + 32 * MIB,
        20,
        "brought down to what it needs",
    )
    print(f"\n{roomy['assigned_bytes'] / MIB:.0f} → {taken['assigned_bytes'] / MIB:.0f} MiB")
    assert "emergency" in dynmem("status", "--socket", rig.controller.client.path).stdout
    meminfo.say(int(0.6 * spare))
    still = rig.controller.wait_at_rest(one)
    assert still["host"]["emergency"], "it does not end as soon as it could begin"
    held = rig.controller.vm(one)
    assert held["assigned_bytes"] < held["desired_bytes"] - 8 * MIB, "nobody grows, though it would like to"
    meminfo.say(None)
    rig.controller.wait_for(lambda status: status["host"]["emergency"] is None, 60, "the end of it")
    rig.controller.wait_vm(
        one, lambda vm: vm["assigned_bytes"] >= vm["desired_bytes"] - 8 * MIB, 60, "it may grow again"
    )
    said = told(rig, "emergency", since)
    assert len(said) == 2, said
    assert said[-1] == "the emergency is over"


@pytest.mark.faults
def test_a_guest_that_does_not_follow_is_flagged_charged_and_left_in_peace(rig: Rig, one: Guest) -> None:
    """Its balloon has no driver."""
    small = rig.controller.vm(one)["actual_bytes"]
    unbind_balloon(one)
    try:
        vm = rig.controller.wait_vm(
            one, lambda vm: vm["uncooperative_seconds"] is not None, 60, "found not to follow"
        )
        print(f"\nleft at {vm['actual_bytes'] / MIB:.0f} MiB for {vm['uncooperative_seconds']:.0f} s")
        assert vm["charge_bytes"] >= vm["ram_bytes"]
        assert "uncooperative" in dynmem("status", "--socket", rig.controller.client.path).stdout
        why = rig.controller.client.get("vms", "one", "explain")["why"]
        assert any("did not follow" in text for text in why), why
        since = time.monotonic()
        rig.controller.wait_vm(
            one,
            lambda vm: vm["target_bytes"] >= vm["actual_bytes"] - MIB,
            20,
            "its target is what it reached",
        )
        rig.controller.wait_for(lambda _: time.monotonic() > since + 8, 60, "8 s")
        sent = list(rig.controller.sent("SetTarget", vm=vm["uuid"], since=since + 2))
        assert sent == [], "it is not asked again and again"
    finally:
        bind_balloon(one)
    rig.controller.wait_vm(
        one, lambda vm: vm["actual_bytes"] < small + 32 * MIB, 90, "asked again, and follows"
    )
    assert rig.controller.vm(one)["uncooperative_seconds"] is None


@pytest.mark.faults
def test_a_dimm_that_holds_kernel_memory_stays_and_works_on(rig: Rig, one: Guest) -> None:
    one.workload.allocate(450, rate=60)
    one.workload.wait_event("done", "memory", 60)
    vm = rig.controller.wait_vm(one, lambda vm: vm["dimms"] >= 1 and not vm["offline_bytes"], 60, "grown")
    memory = one.workload.memory()
    movable = [name for name, (_, zone) in memory.blocks.items() if zone == "Movable"]
    one.workload.free()
    # Its user makes kernel memory of the DIMM, and has the kernel use it.
    for name in movable:
        path = f"/sys/devices/system/memory/{name}/state"
        one.workload.exec(f"echo offline > {path} && echo online_kernel > {path}")
    one.workload.allocate(350, name="filler", rate=100)
    one.workload.wait_event("done", "filler", 60)
    hold_kernel_memory(one, 60)
    since = time.monotonic()
    one.workload.free()
    rig.controller.wait_for(
        lambda _: any("unplug" in text or "DIMM" in text for text in told(rig, "operation", since)),
        60,
        "tried",
    )
    said = told(rig, "operation", since)
    later = rig.controller.vm(one)
    why = rig.controller.client.get("vms", "one", "explain")["why"]
    print(f"\n{said}\n{why}")
    assert later["dimms"] == vm["dimms"]
    assert any("Unplug failed; it is tried again" in text for text in why)
    online = one.workload.memory()
    assert online.online_blocks == memory.online_blocks, "what was half offline is back"
    assert online.vmstat["oom_kill"] == 0
    assert online.available_bytes > 24 * MIB
    drop_kernel_memory(one)
