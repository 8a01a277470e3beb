"""An error of ours about one VM harms that VM alone, whichever step it comes from."""

from collections.abc import Callable
from typing import Any

import pytest

from agent import wire
from host_controller.core import engine as engine_module
from host_controller.core import interface as hv
from host_controller.core import standing, upkeep
from host_controller.core.engine import Engine
from host_controller.core.grants import round as round_module
from host_controller.core.intake import arrivals, memory
from host_controller.core.model import Growth, Limits, RunState, VmConfig
from host_controller.core.operations import Plug
from host_controller.core.operations.standstill import Stage, Standstill
from host_controller.units import MIB
from tests.support import build

LIMITS = Limits(512 * MIB, 256 * MIB, 1024 * MIB)


class House:
    """An engine with two VMs, web and db; nothing is simulated."""

    def __init__(self, capacity_mib: int = 4096) -> None:
        self.engine = Engine(build.settings(capacity_mib))
        self.now = 0.0
        self.sequence = 0
        for name in ("web", "db"):
            config = VmConfig(name, name, LIMITS, Growth.HOTADD, boot_ram_bytes=512 * MIB, slots=4)
            self.handle(hv.VmAppeared(name, config, RunState.RUNNING, (), 512 * MIB, booted=True))

    def handle(self, event: Any) -> None:
        self.engine.handle(event, self.now)

    def report(self, name: str, used_mib: int) -> None:
        self.sequence += 1
        total = 412 * MIB
        free = total - used_mib * MIB
        self.handle(
            hv.GuestSpoke(
                name,
                wire.Report(
                    "0123abcd", self.sequence, self.now, total, free, free,
                    online_bytes=512 * MIB, floor_bytes=8 * MIB,
                ),
            )
        )  # fmt: skip

    def step(self, used_mib: int = 390) -> list[hv.Command]:
        self.now += 1.0
        for name in ("web", "db"):
            self.report(name, used_mib)
            self.handle(hv.BalloonSampled(name, 512 * MIB, None))
            self.handle(hv.ResidentSampled(name, 400 * MIB, 20 * MIB))
        self.handle(hv.Tick())
        return self.engine.decide(self.now)

    def faults(self) -> list[str]:
        found = [notice for notice in self.engine.notices() if notice.kind == "fault"]
        assert all(0.0 <= notice.at <= self.now for notice in found), "each has its time"
        assert {(notice.vm, notice.name) for notice in found} <= {("web", "web")}
        return [notice.text for notice in found]


def raises_for_web(real: Callable[..., Any]) -> Callable[..., Any]:
    """Our error: some step cannot deal with web."""

    def step(*arguments: Any, **named: Any) -> Any:
        if any(getattr(one, "name", None) == "web" for one in arguments):
            raise KeyError("actual")
        return real(*arguments, **named)

    return step


STEPS = {
    "an event": (memory, "_balloon_sampled"),
    "its phase": (upkeep.phases, "advance"),
    "its progress": (upkeep, "check_progress"),
    "its charge": (upkeep.books, "guest_charge"),
    "its estimate": (upkeep.plan, "claims"),
    "a decision": (round_module.GrantRound, "_settle"),
    "its growth": (round_module, "grow"),
    "growth that was paid for": (Engine, "_let_grow"),
    "its operation": (Plug, "advance"),
    "its pace": (engine_module, "pace"),
}


@pytest.mark.parametrize("step", STEPS)
def test_an_error_of_ours_harms_the_vm_that_it_is_about_and_no_other(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, name = STEPS[step]
    monkeypatch.setattr(home, name, raises_for_web(getattr(home, name)))
    house = House()
    commands = [command for _ in range(8) for command in house.step()]
    assert any(isinstance(one, hv.AttachDimm | hv.SendToGuest) for one in commands if one.vm == "db"), (
        "it grows"
    )
    assert not any(isinstance(one, hv.AttachDimm | hv.SetTarget) for one in commands if one.vm == "web")
    assert house.engine.charges["web"] >= 512 * MIB + 64 * MIB, "all of its RAM and QEMU's own"
    [said] = house.faults()
    assert "web is left alone after an internal error: KeyError: 'actual'" in said
    assert said.endswith(")"), "and where it was"


@pytest.mark.parametrize(("fails", "charge_mib"), [(("phase",), 512), (("phase", "charge"), 1024)])
def test_whoever_can_still_be_weighed_is_charged_its_ram_and_nobody_else_its_maximum(
    fails: tuple[str, ...], charge_mib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for home, name in (STEPS[f"its {one}"] for one in fails):
        monkeypatch.setattr(home, name, raises_for_web(getattr(home, name)))
    house = House()
    house.step()
    assert house.engine.charges["web"] == (charge_mib + 64) * MIB
    assert house.engine.charges["db"] >= 576 * MIB


def test_a_vm_that_cannot_be_taken_in_is_charged_its_ram_and_its_neighbour_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrivals, "_settle_in", raises_for_web(arrivals._settle_in))
    house = House()
    commands = [command for _ in range(8) for command in house.step()]
    assert {one.vm for one in commands if isinstance(one, hv.AttachDimm)} == {"db"}
    assert house.engine.charges["web"] >= 512 * MIB + 64 * MIB
    assert len(house.faults()) == 1


def reset_without_room() -> House:
    """Web was reset where nothing is free, and db runs."""
    house = House(capacity_mib=1300)
    for _ in range(3):
        house.step(100)
    house.engine.ledger.room_wanted["other"] = 0
    house.engine.ledger.unmanaged_bytes = 600 * MIB
    house.handle(hv.VmReset("web"))
    return house


def test_a_standstill_that_fails_lets_its_vm_run_and_every_later_decision_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = reset_without_room()
    assert any(isinstance(one, hv.Suspend) for one in house.engine.decide(house.now))
    house.handle(hv.VmStateChanged("web", RunState.PAUSED))
    assert house.engine.state.standstills["web"].stage is Stage.STANDING
    monkeypatch.setattr(Standstill, "advance", raises_for_web(Standstill.advance))
    later = house.step(100)
    assert [one.vm for one in later if isinstance(one, hv.Resume)] == ["web"], "nobody else would let it run"
    assert not house.engine.vms["web"].pauses.stopped
    [said] = house.faults()
    assert "KeyError: 'actual'" in said
    tickets = [one.ticket for one in later if isinstance(one, hv.Resume)]
    assert tickets == [house.engine.state.ticket() - 1], "by which it is answered"
    assert house.step(100) is not None
    assert house.engine.decisions["db"].at == house.now
    assert house.engine.state.standstills == {}


def test_a_standstill_whose_figures_cannot_be_worked_out_stops_no_decision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = reset_without_room()
    monkeypatch.setattr(standing.books, "unrealised", raises_for_web(standing.books.unrealised))
    house.step(100)
    house.step(100)
    assert house.engine.decisions["db"].at == house.now
    assert len(house.faults()) == 1


def test_a_standstill_that_fails_before_it_has_stopped_its_vm_lets_nothing_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = reset_without_room()
    monkeypatch.setattr(Standstill, "advance", raises_for_web(Standstill.advance))
    commands = house.engine.decide(house.now)
    assert not [one for one in commands if isinstance(one, hv.Resume)], "nobody had stopped it"
    assert house.engine.vms["web"].pauses.stopped is False
