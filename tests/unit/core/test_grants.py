"""One round of grants as tables: what is known of a VM and what is free, and the commands that follow."""

import itertools
import math
from copy import deepcopy
from dataclasses import replace
from typing import Any, Final, NamedTuple

import pytest

from host_controller.core.accounts import Accounts
from host_controller.core.books.ledger import Ledger
from host_controller.core.commands import (
    AttachDimm,
    Command,
    DetachDimm,
    ResizeVirtioMem,
    SendToGuest,
    SetTarget,
)
from host_controller.core.grants import GrantRound, Purse
from host_controller.core.grants.give_back import OFFLINE_GRACE
from host_controller.core.model import UNTRUSTED, BalloonStats, Growth, Limits
from host_controller.core.operations import Plug, Resize
from host_controller.core.operations.standstill import Stage as Still
from host_controller.core.operations.standstill import Standstill
from host_controller.core.policy.plan import CORRECT, GROW, HOLD, PLUG, SHRINK, UNPLUG, WAIT, Action
from host_controller.core.state import State
from host_controller.core.upkeep import weigh
from host_controller.core.vm.balloon import PAGE_BYTES
from host_controller.core.vm.check_progress import NUDGE_BYTES
from host_controller.core.vm.demand import Demand
from host_controller.core.vm.growth import Rest
from host_controller.core.vm.level import PEAKS, Level
from host_controller.core.vm.record import Phase, Vm
from host_controller.core.vm.stalls import Stalls
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import GIB, MIB
from tests.support import build

NOW = 10.0
SETTINGS = build.settings(unplug_after_seconds=0.0, inflate_bytes_per_second=128 * MIB)
VIRTIO = {"growth": Growth.VIRTIO_MEM, "slots": 1, "virtio_mem_bytes": 512 * MIB}
SMALL = VIRTIO | {"limits": Limits(768 * MIB, 192 * MIB, 1024 * MIB)}
"""It boots with 512 MiB of these 768."""


def guest(usable_mib: int = 300, demand_mib: int = 200, **changes: Any) -> Vm:
    """Live and heard just now; its agent keeps to no zone yet."""
    facts = changes.pop("facts", None) or build.facts(
        usable_mib, demand_mib, at=NOW, offline_bytes=changes.pop("offline_mib", 0) * MIB
    )
    told = {"facts": facts, "demand": Demand(last=facts), "reported_at": NOW, "booted_at": -1000.0}
    vm = build.vm(changes.pop("actual_mib", usable_mib), **told | changes)
    vm.guest.work_out(vm.config.limits, NOW)
    return vm


def round_of(
    *vms: Vm,
    goals_mib: tuple[int | None, ...],
    headroom_mib: int,
    waiting: bool = False,
    per_weight: float = 0.0,
    operation: Resize | None = None,
    givers: frozenset[str] = frozenset(),
    overdrawn_seconds: float | None = None,
) -> Purse:
    """What one round makes of these VMs; `operation` is under way in the first."""
    state = State(SETTINGS, Ledger(SETTINGS), {vm.config.uuid: vm for vm in vms})
    if overdrawn_seconds is not None:
        state.ledger.record(-1, "", NOW - overdrawn_seconds)
    if operation is not None:
        state.operations[vms[0].config.uuid] = operation
    accounts = Accounts()
    for vm in vms:
        weigh(vm, state, accounts, NOW)
    goals = {vm.config.uuid: goal * MIB for vm, goal in zip(vms, goals_mib, strict=True) if goal is not None}
    purse = Purse(
        state, accounts.of, headroom_mib * MIB, waiting, NOW, per_weight, givers, lacks=False, goals=goals
    )
    GrantRound(purse).run(vms)
    assert [notice.text for notice in state.notices] == []
    return purse


def said(command: Command) -> str:
    match command:
        case SetTarget():
            return f"target {command.target_bytes / MIB:g}"
        case AttachDimm():
            return f"attach {command.size_bytes / MIB:g}"
        case DetachDimm():
            return f"detach {command.alias}"
        case ResizeVirtioMem():
            return f"virtio-mem {command.requested_bytes / MIB:g}"
        case SendToGuest():
            return type(command.message).__name__
    return type(command).__name__


class Case(NamedTuple):
    name: str
    vm: dict[str, Any]
    goal_mib: int | None
    headroom_mib: int
    commands: list[str]
    action: Action
    blocked: str | None = None
    """A part of what is said to keep it from its goal, or of the reason where that is the point."""
    paid_mib: int = 0
    waiting: bool = False


PLUGGED = {"dimms_mib": (128,), "actual_mib": 640, "usable_mib": 512, "offline_mib": 128}
ASTRAY: dict[str, Any] = {
    "phase": Phase.CONTRADICTED, "resend": True, "actual_mib": 300, "facts": build.facts(400, 350, at=NOW),
}  # fmt: skip
"""Its balloon says 300 MiB and its kernel 400, of which it can spare little; it is charged all of its RAM."""
STUCK: dict[str, Any] = {"stuck_until": NOW + 9.0}
"""Its balloon did not follow its target."""
NO_AGENT = {"reports_since": math.inf}
"""It has not reported since its guest booted."""
SHORT: dict[str, Any] = {"usable_mib": 400, "demand_mib": 300}
FULL = {"usable_mib": 512, "demand_mib": 400}
"""Its balloon is empty: more than this is a DIMM, or virtio-mem."""
UNUSED = {"usable_mib": 400, "demand_mib": 100, "dimms_mib": (128,)}

DEVICE_256 = VirtioMem(256 * MIB, 256 * MIB, 256 * MIB, confirmed_bytes=256 * MIB)

EXCHANGED = {
    "usable_mib": 428, "actual_mib": 300, "demand_mib": 300, "config": VIRTIO,
    "virtio_mem": VirtioMem(128 * MIB, 128 * MIB, 128 * MIB, confirmed_bytes=128 * MIB),
}  # fmt: skip

WITH_DEVICE = {
    "usable_mib": 640, "actual_mib": 512, "demand_mib": 300, "config": VIRTIO,
    "virtio_mem": VirtioMem(128 * MIB, 128 * MIB, 128 * MIB, confirmed_bytes=128 * MIB),
}  # fmt: skip


def kernels(movable_mib: int, **changes: Any) -> dict[str, Any]:
    """A device of 256 MiB, of which so much is movable."""
    usable, demand = changes.pop("usable_mib", 768), changes.pop("demand_mib", 300)
    facts = build.facts(usable, demand, at=NOW, online_bytes=768 * MIB, movable_bytes=movable_mib * MIB)
    return WITH_DEVICE | {"facts": facts, "virtio_mem": DEVICE_256} | changes


KERNELS = WITH_DEVICE | {"facts": build.facts(640, 300, at=NOW, online_bytes=640 * MIB)}
"""Nothing of its device is movable."""
KEPT = EXCHANGED | {"facts": build.facts(428, 300, at=NOW, online_bytes=640 * MIB)}
"""And its balloon has taken its place."""

CASES = [
    # --- more, by the balloon ---
    Case("it gets its goal", {}, 400, 1000, ["target 400"], GROW, None, 100),
    Case("it gets what is free", {}, 400, 50, ["target 350"], GROW, "the rest is not free", 50),
    Case("it waits while nothing is free", {}, 400, 0, [], WAIT, "not free yet"),
    Case("less than the dead band is no help", {}, 400, 3, [], WAIT, "not free yet"),
    Case("nothing grows while overdrawn", {}, 400, -1, [], WAIT, "overdrawn"),
    Case("nothing grows on credit while overdrawn, though it is charged with more already",
         {"claim_bytes": 400 * MIB}, 400, -1, [], WAIT, "overdrawn"),
    Case("what it is charged with already costs nothing",
         {"claim_bytes": 400 * MIB}, 400, 0, ["target 400"], GROW),
    Case("near its RAM it gets all of it", {}, 510, 1000, ["target 512"], GROW, None, 212),
    Case("never more than its RAM by the balloon", {}, 900, 1000, ["target 512"], GROW, None, 212),
    Case("within the dead band it is left alone", {}, 303, 1000, [], HOLD),
    Case("a target counts what is offline",
         {"dimms_mib": (128,), "actual_mib": 500, "usable_mib": 372, "offline_mib": 128,
          "unplug_rest": Rest(NOW + 99.0, 1)}, 450, 1000, ["target 578"], GROW, None, 78),
    Case("a target does not count virtio-mem",
         {"actual_mib": 300, "usable_mib": 364, "config": VIRTIO,
          "virtio_mem": VirtioMem(64 * MIB, 64 * MIB, 64 * MIB, confirmed_bytes=64 * MIB)},
         400, 1000, ["target 336"], GROW, None, 36),
    # --- more, by a DIMM ---
    Case("a DIMM is paid before its zone is named", FULL, 600, 1000, ["OnlineZone"], PLUG, None, 128),
    Case("where the zone is confirmed it is plugged at once",
         FULL | {"zone": "movable"}, 600, 1000, ["attach 128"], PLUG, None, 128),
    Case("a DIMM is whole blocks of what is wanted",
         FULL | {"zone": "movable"}, 700, 1000, ["attach 256"], PLUG, None, 256),
    Case("nothing is plugged before its agent reports", FULL | NO_AGENT | {"since": NOW - 9.9}, 600,
         1000, [], WAIT, "its agent"),
    Case("nor is virtio-mem", FULL | NO_AGENT | {"config": VIRTIO, "since": NOW - 9.9}, 600, 1000, [],
         WAIT, "its agent"),
    Case("an agent that does not come is not waited for", FULL | NO_AGENT | {"since": NOW - 10.0}, 600, 1000,
         ["OnlineZone"], PLUG, None, 128),
    Case("a DIMM that cannot be paid is not plugged", FULL, 600, 100, [], WAIT, "paid for at full size"),
    Case("the balloon deflates first", FULL | {"actual_mib": 400, "target_bytes": 512 * MIB},
         600, 1000, [], WAIT, "deflates first"),
    Case("its balloon keeps what the last DIMM is short of", SHORT, 600, 200, ["target 464"], GROW, None, 64),
    Case("its DIMM comes beside what its balloon keeps", SHORT | {"usable_mib": 464}, 600, 136,
         ["OnlineZone"], PLUG, None, 128),
    Case("a little less than it keeps for that is the same", SHORT | {"usable_mib": 461}, 600, 139,
         ["OnlineZone"], PLUG, None, 128),
    Case("its balloon keeps nothing while others give", SHORT, 600, 200, ["target 512"], GROW, None, 112,
         True),
    Case("its balloon keeps nothing while hot add rests", SHORT | {"plug_rest": Rest(NOW + 9.0, 1)}, 600, 200,
         ["target 512"], GROW, None, 112),
    Case("its balloon keeps nothing where the guest cannot place a DIMM",
         SHORT | {"facts": build.facts(400, 400, at=NOW, free_bytes=0)}, 600, 200,
         ["target 512"], GROW, None, 112),
    Case("its balloon keeps nothing where it is charged all of its RAM",
         SHORT | {"config": {"trust": UNTRUSTED}}, 600, 100, ["target 512"], GROW, None, 0),
    Case("after a failure growth rests", FULL | {"plug_rest": Rest(NOW + 9.0, 1)},
         600, 1000, [], WAIT, "tried again in 9 s"),
    Case("no DIMM while another is not online",
         PLUGGED | {"demand_mib": 400, "unplug_rest": Rest(NOW + 99.0, 1)},
         700, 1000, [], WAIT, "not online yet"),
    Case("no DIMM while a target is not answered", FULL | {"sent": {7: 512 * MIB}},
         600, 1000, [], WAIT, "not answered yet"),
    Case("all of its maximum is enough",
         FULL | {"config": {"limits": replace(build.LIMITS, maximum_bytes=512 * MIB)}},
         600, 1000, [], WAIT, "all of its maximum"),
    # --- more, by virtio-mem ---
    Case("virtio-mem is paid before its zone is named", FULL | {"config": VIRTIO}, 600, 1000,
         ["OnlineZone"], PLUG, None, 88),
    Case("virtio-mem is asked for as much as is free", FULL | {"config": VIRTIO, "zone": "movable"}, 600, 50,
         ["virtio-mem 48"], PLUG, None, 48),
    Case("virtio-mem rests after a failure", FULL | {"config": VIRTIO, "plug_rest": Rest(NOW + 9.0, 1)},
         600, 1000, [], WAIT, "next try in 9 s"),
    # --- less ---
    Case("others need it: a step of what it can spare", {"demand_mib": 250}, 200, 0, ["target 266"],
         SHRINK, None, 0, True),
    Case("a step is a second's inflation", {"usable_mib": 512, "demand_mib": 100}, 192, 0, ["target 384"],
         SHRINK, None, 0, True),
    Case("an agentless guest goes at half the pace", {
        "facts": build.facts(512, 100, at=NOW, from_agent=False), "actual_mib": 512, "kernel_bytes": 0,
        "stats_at": NOW}, 192, 0, ["target 448"], SHRINK, None, 0, True),
    Case("nobody is sent below what it cannot go without", {"demand_mib": 250}, 10, 0, ["target 266"],
         SHRINK, None, 0, True),
    Case("what has nothing to spare is asked for nothing", {"demand_mib": 290}, 200, 0, [], WAIT,
         "its kernel would kill", 0, True),
    Case("the last step is followed first", {"usable_mib": 512, "demand_mib": 100, "target_bytes": 384 * MIB},
         192, 0, [], SHRINK, None, 0, True),
    Case("a little too much is left alone while nobody waits", {"demand_mib": 200}, 290, 0, [], HOLD),
    Case("a little too much is taken when somebody waits", {"usable_mib": 512, "demand_mib": 100}, 490, 0,
         ["target 490"], SHRINK, None, 0, True),
    Case("a little too much is taken while overdrawn", {"usable_mib": 512, "demand_mib": 100}, 490, -1,
         ["target 490"], SHRINK),
    Case("a guest that fell silent is not shrunk", {
        "facts": build.facts(300, 100, at=NOW - 8.0), "actual_mib": 300}, 200, 0, [], WAIT, "spare", 0, True),
    Case("a guest that has not spoken since its last step is not shrunk", {
        "facts": build.facts(300, 100, at=NOW - 2.0), "actual_mib": 300, "sent_at": NOW - 1.9},
         200, 0, [], WAIT, "spare", 0, True),
    Case("virtio-mem goes before the balloon", WITH_DEVICE, 560, 0, ["virtio-mem 48"], UNPLUG, None, 0, True),
    # --- what the kernel keeps of a device ---
    Case("where somebody waits its balloon gives what its kernel keeps", KERNELS, 560, 0, ["target 432"],
         SHRINK, None, 0, True),
    Case("and in an overdraft", KERNELS, 560, -1, ["target 432"], SHRINK),
    Case("where nobody waits its device is asked", KERNELS, 400, 0, ["virtio-mem 0"], UNPLUG),
    Case("what is movable goes first", kernels(128), 400, 0, ["virtio-mem 128"], UNPLUG, None, 0, True),
    Case("its device is asked for what its kernel keeps, too, where its balloon has given all",
         kernels(0, actual_mib=192, usable_mib=448, demand_mib=200), 320, 0, ["virtio-mem 128"], UNPLUG, None,
         0, True),
    Case("but not before its balloon is seen to rest",
         kernels(0, actual_mib=192, usable_mib=448, demand_mib=200,
                 followed=((-math.inf, 320 * MIB), (NOW - 1.0, 192 * MIB))),
         320, 0, [], WAIT, "spare", 0, True),
    Case("or where its balloon is stuck", KERNELS | STUCK, 560, 0, ["virtio-mem 48"], UNPLUG, None, 0, True),
    Case("nor is that exchanged while somebody waits", KEPT, 428, 1000, [], HOLD, None, 0, True),
    Case("or in an overdraft", KEPT, 428, -1, [], HOLD),
    Case("but while nobody does", KEPT, 428, 1000, ["target 428"], UNPLUG, None, 128),
    # --- a balloon that does not move ---
    Case("it is left in peace", STUCK, 300, 1000, [], HOLD, "did not follow"),
    Case("it is left in peace in an overdraft, too", STUCK, 200, -1, [], WAIT, "did not follow"),
    Case("its virtio-mem is not, and goes alone", WITH_DEVICE | STUCK, 400, -1, ["virtio-mem 0"], UNPLUG),
    Case("once the balloon has been told to stay", WITH_DEVICE | STUCK | {"sent": {7: 512 * MIB}},
         400, -1, [], WAIT, "did not follow"),
    Case("a device that gave nothing is named, too",
         WITH_DEVICE | STUCK | {"unplug_rest": Rest(NOW + 9.0, 1)},
         400, -1, [], WAIT, "did not give its virtio-mem back"),
    Case("a device that nobody asked is not blamed", WITH_DEVICE | {"demand_mib": 630}, 400, -1, [], WAIT,
         "its kernel would kill"),
    Case("one that gave nothing may grow", STUCK, 400, 1000, ["target 400"], GROW, None, 100),
    Case("one that took nothing grows beside it, by all that it lacks",
         STUCK | {"stuck_growing": True, "zone": "movable"}, 500, 1000, ["attach 256"], PLUG, None, 256),
    Case("or by virtio-mem", STUCK | {"stuck_growing": True, "zone": "movable", "config": VIRTIO},
         364, 1000, ["virtio-mem 64"], PLUG, None, 64),
    Case("or not at all where there is no other way",
         STUCK | {"stuck_growing": True, "config": {"growth": Growth.BALLOON}}, 400, 1000, [], WAIT, "9 s"),
    Case("it exchanges nothing", EXCHANGED | {"stuck_until": NOW + 9.0}, 428, 1000, [], HOLD, "follow"),
    # --- said again ---
    Case("what QEMU recomputed is said again", {"resend": True}, 300, 0, ["target 300"], CORRECT),
    Case("not while the last one is on its way", {"resend": True, "sent": {7: 300 * MIB}}, 300, 0, [], WAIT,
         "once the last one is answered"),
    Case("and nothing else is: a step up from what it was never told may be a long way down",
         {"resend": True, "sent": {7: 300 * MIB}, "target_bytes": 200 * MIB}, 250, 1000, [], WAIT,
         "once the last one is answered"),
    Case("not right after a failure", {"resend": True, "retry_at": NOW + 1.0}, 300, 0, [], HOLD),
    Case("not while its operator says so", {"resend": True, "paused": True}, None, 0, [], HOLD, "operator"),
    Case("a takeover begins with where it is",
         {"phase": Phase.TAKEOVER, "target_bytes": None, "since": 1.0, "actual_at": 2.0, "resident_at": 3.0},
         None, 0, ["target 300"], CORRECT),
    Case("a takeover waits for QEMU's own word",
         {"phase": Phase.TAKEOVER, "target_bytes": None, "since": 1.0, "actual_at": 0.5, "resident_at": 3.0},
         None, 0, [], HOLD, "just taken over"),
    Case("a takeover waits for the host's count",
         {"phase": Phase.TAKEOVER, "target_bytes": None, "since": 1.0, "actual_at": 4.0, "resident_at": 3.0},
         None, 0, [], HOLD, "just taken over"),
    Case("an old target that has become too low is raised to what the guest needs",
         {"resend": True, "target_bytes": 100 * MIB, "ceiling_bytes": 300 * MIB, "demand_mib": 250},
         300, 0, ["target 266"], CORRECT),
    Case("an old target below a minimum that was raised meanwhile is raised to that",
         {"resend": True, "target_bytes": 100 * MIB, "ceiling_bytes": 300 * MIB, "demand_mib": 100},
         300, 0, ["target 192"], CORRECT),
    Case("an old target below who is not heard is where it is",
         {"resend": True, "target_bytes": 100 * MIB, "ceiling_bytes": 300 * MIB,
          "facts": build.facts(300, 250, at=NOW - 9.0), "actual_mib": 300},
         None, 0, ["target 300"], CORRECT),
    Case("an old target that would cost more is cut to what can be paid",
         {"resend": True, "target_bytes": 400 * MIB}, 300, 40, ["target 340"], CORRECT, None, 40),
    Case("an old target costs nothing while overdrawn",
         {"resend": True, "target_bytes": 400 * MIB}, 300, -1, ["target 300"], CORRECT),
    Case("no other word of a guest lifts it while overdrawn", ASTRAY | {"target_bytes": 300 * MIB},
         None, -1, ["target 300"], CORRECT),
    Case("nor what the host sees a silent one hold beyond what it was told",
         ASTRAY | {"actual_mib": 100, "target_bytes": 200 * MIB, "ceiling_bytes": 400 * MIB,
                   "resident_bytes": 300 * MIB, "facts": build.facts(400, 350, at=NOW - 9.0)},
         None, -1, ["target 200"], CORRECT),
    Case("what makes a driver write is a page less while overdrawn",
         ASTRAY | {"target_bytes": 300 * MIB + NUDGE_BYTES},
         None, -1, [f"target {300 - NUDGE_BYTES / MIB:g}"], CORRECT),
    Case("and stays a page less, and is no more than that",
         ASTRAY | {"target_bytes": 300 * MIB - NUDGE_BYTES},
         None, -1, [f"target {300 - NUDGE_BYTES / MIB:g}"], CORRECT),
    Case("also where it is charged with more, by a claim that nobody has borne out",
         ASTRAY | {"actual_mib": 100, "claim_bytes": 400 * MIB, "ceiling_bytes": 300 * MIB,
                   "target_bytes": 300 * MIB + NUDGE_BYTES},
         None, -1, [f"target {300 - NUDGE_BYTES / MIB:g}"], CORRECT),
    Case("a kernel that boots is told all of its RAM whatever is free",
         {"phase": Phase.STARTING, "moved": False, "resend": True, "facts": None, "target_bytes": 512 * MIB,
          "bare": True}, None, 0, ["target 512"], CORRECT),
    # --- DIMMs that leave ---
    Case("a DIMM that survived a reset goes at once",
         PLUGGED | {"survivors": frozenset({"dimm0"}), "changed_at": NOW}, 512, 0, ["detach dimm0"], UNPLUG),
    Case("it goes first of all", PLUGGED | {"survivors": frozenset({"dimm0"}), "sent": {7: 640 * MIB}},
         512, 0, [], WAIT, "survived the reset goes first"),
    Case("one that came a moment ago may still come online",
         PLUGGED | {"changed_at": NOW - OFFLINE_GRACE + 0.1}, 512, 0, [], HOLD),
    Case("one that nobody brought online goes", PLUGGED | {"changed_at": NOW - OFFLINE_GRACE}, 512, 0,
         ["detach dimm0"], UNPLUG),
    Case("none goes while unplug rests",
         PLUGGED | {"changed_at": -100.0, "unplug_rest": Rest(NOW + 1.0, 1)}, 512, 0, [], HOLD),
    Case("one without a use goes once the balloon has been raised, which is paid", UNUSED, 192, 1000,
         ["target 528"], UNPLUG, None, 128),
    Case("a raise that cannot be paid leaves the DIMM", UNUSED, 400, 127, [], HOLD),
    Case("virtio-mem and what the balloon holds change places once that has been raised, and paid",
         EXCHANGED, 428, 1000, ["target 428"], UNPLUG, None, 128),
    Case("virtio-mem that nobody brought online goes",
         {"usable_mib": 512, "offline_mib": 128, "config": VIRTIO,
          "virtio_mem": VirtioMem(128 * MIB, 128 * MIB, 128 * MIB, confirmed_bytes=128 * MIB)},
         512, 0, ["virtio-mem 0"], UNPLUG, "does not use all that it has plugged"),
    Case("an exchange that cannot be paid is not begun", EXCHANGED, 428, 127, [], HOLD),
]  # fmt: skip


def made(case: Case) -> Vm:
    changes = deepcopy(case.vm)
    if changes.pop("bare", False):
        return build.vm(300, **changes)
    return guest(**changes)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_known_and_what_is_free_decide(case: Case) -> None:
    vm = made(case)
    purse = round_of(vm, goals_mib=(case.goal_mib,), headroom_mib=case.headroom_mib, waiting=case.waiting)
    decision = purse.decisions[vm.config.uuid]
    assert [said(one) for one in purse.commands] == case.commands
    assert decision.action is case.action, decision
    assert decision.goal_bytes == (None if case.goal_mib is None else case.goal_mib * MIB)
    assert (decision.at, decision.vm, decision.granted_bytes > 0) == (NOW, vm.config.uuid, True)
    assert decision.reason.lower() != decision.reason.upper()
    if case.action in (PLUG, UNPLUG):
        assert decision.size_bytes
    if case.blocked is None:
        assert decision.blocked_by is None, decision
    else:
        assert case.blocked in f"{decision.reason} {decision.blocked_by}"
    assert purse.costs.get(vm.config.uuid, 0) == case.paid_mib * MIB
    assert purse.headroom_bytes == (case.headroom_mib - case.paid_mib) * MIB


ODD: Final = 4096
"""A page of a guest on x86."""
OLD: dict[str, Any] = {"resend": True, "target_bytes": 100 * MIB, "ceiling_bytes": 300 * MIB}


@pytest.mark.parametrize(
    ("vm", "goal_mib", "headroom_mib", "target_bytes"),
    [
        (guest(**OLD, facts=build.facts(300, 250, at=NOW, available_bytes=50 * MIB - ODD)),
         300, 0, 266 * MIB + PAGE_BYTES),
        (guest(300, 100, **OLD, config={"limits": replace(build.LIMITS, minimum_bytes=192 * MIB + ODD)}),
         300, 0, 192 * MIB + PAGE_BYTES),
        (guest(300, 290, resend=True, target_bytes=400 * MIB, claim_bytes=300 * MIB + ODD),
         300, 40, 340 * MIB),
        # All of its RAM is no part of a page, whatever its size.
        (guest(300, 290, config={"boot_ram_bytes": 512 * MIB + ODD}), 600, 1000, 512 * MIB + ODD),
    ],
    ids=["its need", "its minimum", "what can be paid", "all of its RAM"],
)  # fmt: skip
def test_a_target_is_whole_pages_of_any_guest(
    vm: Vm, goal_mib: int, headroom_mib: int, target_bytes: int
) -> None:
    purse = round_of(vm, goals_mib=(goal_mib,), headroom_mib=headroom_mib)
    assert [one.target_bytes for one in purse.commands if isinstance(one, SetTarget)] == [target_bytes]


def two(weight: int = 100) -> tuple[Vm, Vm]:
    """They have 300 and 200 MiB."""
    web = guest(300, 290, config={"uuid": "web", "limits": replace(build.LIMITS, weight=weight)})
    return web, guest(200, 190, config={"uuid": "db", "name": "db"})


def targets(purse: Purse) -> dict[str, float]:
    return {one.vm: one.target_bytes / MIB for one in purse.commands if isinstance(one, SetTarget)}


def test_takers_share_what_is_free_by_what_they_have() -> None:
    some = round_of(*two(), goals_mib=(500, 500), headroom_mib=60)
    assert targets(some) == pytest.approx({"db": 260}, abs=PAGE_BYTES / MIB)
    more = round_of(*two(), goals_mib=(500, 500), headroom_mib=200)
    assert targets(more) == pytest.approx({"web": 350, "db": 350}, abs=0.01)


def restless(level_mib: int, **said: int) -> Vm:
    """It has 300 MiB and demands 200 now; its peaks are 50 MiB above its level."""
    facts = build.facts(300, 200, at=NOW, **said)
    level = Level(level_mib * MIB, lasting_noise=50.0 / PEAKS * MIB, farthest=100.0 / PEAKS * MIB)
    return guest(facts=facts, demand=Demand(last=facts, level=level))


@pytest.mark.parametrize("headroom_mib", [100, 0, -100])
@pytest.mark.parametrize("goal_mib", [311, 289])
def test_what_is_noise_is_worth_no_command_but_in_an_overdraft(goal_mib: int, headroom_mib: int) -> None:
    """A quarter of its peaks is nothing."""
    quiet, noisy = guest(300, 200), restless(200)
    goals = {"goals_mib": (goal_mib,), "headroom_mib": headroom_mib, "waiting": True}
    moved = round_of(quiet, **goals)  # type: ignore[arg-type]
    still = round_of(noisy, **goals)  # type: ignore[arg-type]
    assert bool(moved.commands) == (goal_mib < 300 or headroom_mib > 0)
    assert bool(still.commands) == (goal_mib < 300 and headroom_mib < 0)


@pytest.mark.parametrize(
    ("demand_mib", "waiting", "moves"), [(290, False, True), (290, True, False), (270, False, False)]
)
def test_who_has_less_than_it_needs_now_is_not_left_short_for_its_noise_where_there_is_memory(
    demand_mib: int, waiting: bool, moves: bool
) -> None:
    """Of 300 MiB. Its program has come and gone before, so this may be noise, or a program that stays."""
    facts = build.facts(300, demand_mib, at=NOW)
    level = Level((demand_mib - 50) * MIB, lasting_noise=50.0 / PEAKS * MIB, farthest=100.0 / PEAKS * MIB)
    vm = guest(facts=facts, demand=Demand(last=facts, level=level))
    assert bool(round_of(vm, goals_mib=(311,), headroom_mib=100, waiting=waiting).commands) == moves


def test_in_an_overdraft_a_guest_gives_what_its_noise_may_need_in_a_moment() -> None:
    vm = restless(240)
    assert targets(round_of(vm, goals_mib=(0,), headroom_mib=0, waiting=True)) == {vm.config.uuid: 256}
    assert targets(round_of(vm, goals_mib=(0,), headroom_mib=-1, waiting=True)) == {vm.config.uuid: 216}


@pytest.mark.parametrize(
    ("level_mib", "headroom_mib", "target_mib"),
    [(170, 0, 250), (170, -1, 250), (240, 0, 290), (240, -1, 250)],
)
def test_nobody_is_sent_below_what_its_kernel_cannot_go_without_now_however_low_its_level(
    level_mib: int, headroom_mib: int, target_mib: int
) -> None:
    """Its kernel would not get by with less than 250 MiB, though 200 and a margin are all that it uses."""
    vm = restless(level_mib, least_usable_bytes=250 * MIB)
    purse = round_of(vm, goals_mib=(0,), headroom_mib=headroom_mib, waiting=True)
    assert targets(purse) == {vm.config.uuid: target_mib}


def test_twice_the_weight_is_twice_the_memory() -> None:
    purse = round_of(*two(200), goals_mib=(500, 500), headroom_mib=160)
    assert targets(purse) == pytest.approx({"web": 440, "db": 220}, abs=PAGE_BYTES / MIB)


def test_together_takers_are_given_no_more_than_is_free() -> None:
    purse = round_of(*two(), goals_mib=(512, 512), headroom_mib=77)
    assert sum(purse.costs.values()) <= 77 * MIB
    assert purse.headroom_bytes >= 0


def test_what_a_donor_is_asked_for_pays_for_nobody_in_the_same_round() -> None:
    donor = guest(512, 100, config={"uuid": "donor", "name": "donor"})
    web, _ = two()
    purse = round_of(donor, web, goals_mib=(192, 500), headroom_mib=0, waiting=True)
    assert targets(purse) == {"donor": 384}
    assert purse.decisions["web"].blocked_by == "the rest is not free yet"


def test_a_paid_dimm_stays_charged_until_it_counts_as_ram() -> None:
    vm = guest(**FULL)
    round_of(vm, goals_mib=(600,), headroom_mib=1000)
    assert vm.plug.pending_bytes == 128 * MIB


def test_promised_virtio_mem_is_charged_before_it_is_asked_for() -> None:
    vm = guest(**FULL, config=VIRTIO)
    round_of(vm, goals_mib=(600,), headroom_mib=1000)
    assert vm.virtio_mem.requested_bytes == 0
    assert vm.virtio_mem.may_hold_bytes == 88 * MIB


@pytest.mark.parametrize(
    ("headroom_mib", "target_mib", "may"),
    [
        (40, 340, True),  # all that is free
        (40, 341, False),
        (0, 300, True),  # it is charged with that already
        (0, 301, False),
        (-1, 300, True),  # no more than it has
        (-1, 301, False),
    ],
)
def test_room_for_what_is_to_leave_is_paid_from_what_is_free(
    headroom_mib: int, target_mib: int, may: bool
) -> None:
    vm = guest(300)
    purse = round_of(vm, goals_mib=(300,), headroom_mib=headroom_mib)
    assert purse.can_raise(vm, target_mib * MIB) is may


def test_in_an_overdraft_nobody_is_told_to_have_what_it_is_only_charged_with() -> None:
    """Its balloon holds less than it was charged: to be told of the rest would be growth."""
    vm = guest(300)
    vm.evidence.count(340 * MIB, 0, 0, NOW)
    purse = round_of(vm, goals_mib=(300,), headroom_mib=-1)
    assert purse.cost(vm, 340 * MIB) == 0
    assert not purse.can_raise(vm, 340 * MIB)
    assert round_of(vm, goals_mib=(300,), headroom_mib=0).can_raise(vm, 340 * MIB)


# --- what is said of it: explain, log, history and metrics show this and nothing else ---

VIRTIO_128 = {
    "usable_mib": 640, "actual_mib": 512, "config": VIRTIO,
    "virtio_mem": VirtioMem(128 * MIB, 128 * MIB, 128 * MIB, confirmed_bytes=128 * MIB),
}  # fmt: skip
MORE, OTHERS, LONG = "it needs more", "others need it", "it has had more than it needs for a while"
NOT_FREE = "the rest is not free yet"

KILLS = "it uses what it has, and it has no free swap on a disk: with less its kernel would kill"
READ_BACK = "it uses what it has, and reads back at once what it puts into its swap; nobody stalls who waits"
SPENT: dict[str, Any] = {"stats": BalloonStats(540 * MIB, 16 * MIB, updated=1), "stats_came_at": NOW + 0.1}
"""Since its agent spoke it has used what it had to spare."""

SAID: list[tuple[dict[str, Any], int | None, int, bool, dict[str, Any]]] = [
    ({}, 400, 1000, False, {"action": GROW, "reason": MORE, "target_bytes": 400}),
    ({}, 400, 50, False, {"action": GROW, "reason": MORE, "target_bytes": 350, "blocked_by": NOT_FREE}),
    ({}, 400, -1, False, {"action": WAIT, "reason": MORE, "blocked_by": "the host is overdrawn"}),
    ({}, 400, 0, False, {"action": WAIT, "reason": MORE, "blocked_by": NOT_FREE}),
    ({"demand_mib": 290}, 400, 0, False, {"action": WAIT, "reason": MORE, "blocked_by": NOT_FREE}),
    (FULL, 700, 10, False,
     {"action": WAIT, "reason": MORE, "blocked_by":
      "a DIMM of 128 MiB must be paid for at full size, and 10 MiB is free"}),
    (FULL | {"config": VIRTIO}, 700, 2, False,
     {"action": WAIT, "reason": MORE, "blocked_by": "2 MiB is free"}),
    (FULL | {"demand_mib": 512, "config": VIRTIO}, 700, 1000, False,
     {"action": WAIT, "reason": MORE, "blocked_by":
      "the guest has too little free memory for the page structures of more"}),
    ({}, 300, 0, False, {"action": HOLD, "reason": "it has what it should have"}),
    ({}, None, 0, False, {"action": HOLD, "reason": "nothing is known of it yet"}),
    ({"stuck_until": NOW + 1}, 300, 0, False,
     {"action": HOLD, "reason": "its balloon did not follow its target; it is asked again later"}),
    ({"stuck_until": NOW}, 300, 0, False, {"action": HOLD, "reason": "it has what it should have"}),
    ({"paused": True, "stuck_until": NOW + 1}, None, 0, False,
     {"action": HOLD, "reason": "paused by the operator"}),
    (FULL, 600, 1000, False, {"action": PLUG, "reason": MORE, "size_bytes": 128, "zone": "movable"}),
    (FULL | {"actual_mib": 400, "target_bytes": 512 * MIB}, 600, 1000, False,
     {"action": WAIT, "reason": MORE, "blocked_by": "its balloon deflates first"}),
    (FULL | {"sent": {7: 512 * MIB}}, 600, 1000, False,
     {"action": WAIT, "reason": MORE, "blocked_by": "its last balloon target is not answered yet"}),
    (FULL | {"plug_rest": Rest(NOW + 9.0, 1)}, 600, 1000, False,
     {"action": WAIT, "reason": MORE, "blocked_by": "hot add failed; it is tried again in 9 s"}),
    (FULL | {"plug_rest": Rest(NOW, 1)}, 600, 1000, False,
     {"action": PLUG, "reason": MORE, "size_bytes": 128, "zone": "movable"}),
    (PLUGGED | {"demand_mib": 400, "unplug_rest": Rest(NOW + 99.0, 1)}, 700, 1000, False,
     {"action": WAIT, "reason": MORE, "blocked_by": "a DIMM that is plugged is not online yet"}),
    (FULL | {"config": VIRTIO}, 600, 1000, False,
     {"action": PLUG, "reason": MORE, "size_bytes": 88}),
    (FULL | {"config": SMALL, "reports_since": NOW}, 700, 1000, False,
     {"action": PLUG, "reason": "it has just booted with less than its startup", "size_bytes": 188}),
    (FULL | {"config": SMALL, "reports_since": NOW - 60}, 700, 1000, False,
     {"action": PLUG, "reason": MORE, "size_bytes": 188}),
    (FULL | {"config": VIRTIO, "plug_rest": Rest(NOW + 9.0, 1)}, 600, 1000, False,
     {"action": WAIT, "reason": MORE, "blocked_by": "the last growth failed; next try in 9 s"}),
    (FULL | {"config": VIRTIO}, 600, 1, False,
     {"action": WAIT, "reason": MORE, "blocked_by": "1024 KiB is free"}),
    (VIRTIO_128 | {"usable_mib": 576, "offline_mib": 64, "demand_mib": 500,
     "virtio_mem": VirtioMem(128 * MIB, 128 * MIB, 128 * MIB, moved_at=NOW - 1,
      confirmed_bytes=128 * MIB)},
     800, 1000, False,
     {"action": WAIT, "reason": MORE, "blocked_by": "memory that is plugged is not online yet"}),
    ({"demand_mib": 250}, 200, 0, True, {"action": SHRINK, "reason": OTHERS, "target_bytes": 266}),
    ({"demand_mib": 100}, 200, 0, False, {"action": SHRINK, "reason": LONG, "target_bytes": 200}),
    ({"demand_mib": 290}, 200, 0, True,
     {"action": WAIT, "reason": OTHERS, "blocked_by": KILLS}),
    ({"usable_mib": 512, "demand_mib": 100, "target_bytes": 384 * MIB}, 192, 0, True,
     {"action": SHRINK, "reason": OTHERS + "; the last step is under way"}),
    (VIRTIO_128 | {"demand_mib": 300}, 560, 0, True, {"action": UNPLUG, "reason": OTHERS, "size_bytes": 80}),
    (VIRTIO_128 | {"actual_mib": 192, "usable_mib": 320, "demand_mib": 200,
     "unplug_rest": Rest(NOW + 0.5, 1)}, 192, 0, True,
     {"action": WAIT, "reason": OTHERS,
      "blocked_by": "the guest did not give its virtio-mem back; it is asked again later"}),
    # Its device is not blamed where its kernel could not do without, nor while its balloon has more to give,
    # nor when it may be asked again, nor where it was turned back since its guest came to need it.
    (VIRTIO_128 | {"actual_mib": 192, "usable_mib": 320, "demand_mib": 200, "unplug_rest": Rest(NOW + 4, 0)}
     | SPENT, 192, 0, True, {"action": WAIT, "reason": OTHERS, "blocked_by": KILLS}),
    (VIRTIO_128 | {"demand_mib": 630, "unplug_rest": Rest(NOW + 9, 1)}, 400, 0, True,
     {"action": WAIT, "reason": OTHERS, "blocked_by": KILLS}),
    (VIRTIO_128 | {"demand_mib": 600, "unplug_rest": Rest(NOW + 9, 1)} | SPENT, 400, 0, True,
     {"action": WAIT, "reason": OTHERS, "blocked_by": KILLS}),
    (VIRTIO_128 | {"actual_mib": 192, "usable_mib": 320, "demand_mib": 200, "unplug_rest": Rest(NOW, 1)}
     | SPENT, 192, 0, True, {"action": WAIT, "reason": OTHERS, "blocked_by": KILLS}),
    (PLUGGED | {"changed_at": -100.0}, 512, 0, False,
     {"action": UNPLUG, "reason": "the guest does not use its last DIMM", "size_bytes": 128,
      "alias": "dimm0"}),
    (PLUGGED | {"survivors": frozenset({"dimm0"}), "sent": {7: 640 * MIB}}, 512, 0, False,
     {"action": WAIT, "reason": "a DIMM that survived the reset goes first"}),
    (UNUSED, 192, 1000, False,
     {"action": UNPLUG, "reason": "it has not needed its last DIMM for long", "size_bytes": 128,
      "alias": "dimm0"}),
    (UNUSED | {"config": {"limits": Limits(512 * MIB, 512 * MIB, 512 * MIB)}}, 512, 1000, False,
     {"action": UNPLUG, "reason": "its last DIMM is beyond its maximum", "size_bytes": 128,
      "alias": "dimm0"}),
    (EXCHANGED, 428, 1000, False,
     {"action": UNPLUG, "reason": "what its balloon holds it can give back for good", "size_bytes": 128}),
    ({"usable_mib": 512, "offline_mib": 128, "config": VIRTIO,
      "virtio_mem": VirtioMem(128 * MIB, 128 * MIB, 128 * MIB, confirmed_bytes=128 * MIB)}, 512, 0, False,
     {"action": UNPLUG, "reason": "the guest does not use all that it has plugged", "size_bytes": 128}),
    (VIRTIO_128 | {"virtio_mem": VirtioMem(128 * MIB, 128 * MIB, 128 * MIB, unsure=True)}, 640, 0, False,
     {"action": CORRECT, "reason": "its virtio-mem does not have the size that it should have",
      "size_bytes": 0}),
    ({"resend": True}, 300, 0, False,
     {"action": CORRECT, "reason": "its target is sent again", "target_bytes": 300}),
    ({"phase": Phase.TAKEOVER, "target_bytes": None, "since": 1.0, "actual_at": 3.0, "resident_at": 3.0},
     None, 0, False,
     {"action": CORRECT, "reason": "its size is confirmed before anything else", "target_bytes": 300}),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "goal_mib", "headroom_mib", "waiting", "decided"), SAID)
def test_a_decision_says_all_that_was_decided_and_from_what(
    changes: dict[str, Any], goal_mib: int | None, headroom_mib: int, waiting: bool, decided: dict[str, Any]
) -> None:
    vm = guest(**deepcopy(changes))
    granted = vm.assigned_bytes
    purse = round_of(vm, goals_mib=(goal_mib,), headroom_mib=headroom_mib, waiting=waiting)
    found = purse.decisions[vm.config.uuid]
    goal = None if goal_mib is None else goal_mib * MIB
    assert (found.at, found.vm, found.goal_bytes) == (NOW, vm.config.uuid, goal)
    assert found.estimate is vm.guest.estimate
    if decided["action"] not in (CORRECT, UNPLUG, SHRINK, GROW):
        assert found.granted_bytes == granted
    said = {
        name: getattr(found, name)
        for name in ("action", "reason", "target_bytes", "size_bytes", "zone", "alias", "blocked_by")
        if getattr(found, name) is not None
    }
    sizes = {name: size * MIB for name, size in decided.items() if name.endswith("_bytes")}
    assert said == decided | sizes
    tickets = [one.ticket for one in purse.commands if isinstance(one, SetTarget)]
    assert all(isinstance(ticket, int) for ticket in tickets)


HELD_FAST = (
    "who has more than its share uses it, and no swap on a disk can take it: with less its kernel would kill"
)


@pytest.mark.parametrize(
    ("taker", "headroom_mib", "waits"),
    [
        ({"demand_mib": 290}, 0, None),
        (
            FULL | {"demand_mib": 500},
            10,
            "a DIMM of 128 MiB must be paid for at full size, and 10 MiB is free",
        ),
        (FULL | {"demand_mib": 500, "config": VIRTIO}, 2, "2 MiB is free"),
    ],
)
@pytest.mark.parametrize(
    ("demand_mib", "goal_mib", "swap_mib", "limits", "held_fast"),
    [
        (498, 400, 0, {}, True),
        (498, 512, 0, {}, True),  # the balance leaves it what it cannot do without
        (400, 400, 0, {}, False),  # it can spare something
        (498, 400, 4096, {}, False),  # likewise
        (498, 512, 4096, {}, False),  # its weight gives it that
        (480, 400, 0, {"minimum_bytes": 512 * MIB}, False),  # that is its user's word, and not its kernel's
        (
            498,
            512,
            0,
            {"weight": 200},
            False,
        ),  # for its weight it has less than the one that waits is to have
    ],
)
def test_who_waits_is_told_when_others_have_more_for_their_weight_and_cannot_do_without(
    taker: dict[str, Any],
    headroom_mib: int,
    waits: str | None,
    demand_mib: int,
    goal_mib: int,
    swap_mib: int,
    limits: dict[str, int],
    held_fast: bool,
) -> None:
    """Whatever swap it has itself."""
    web, size_mib = guest(**deepcopy(taker)), 450 if waits is None else 700
    assert web.guest.facts is not None
    facts = replace(web.guest.facts, swap_free_bytes=4096 * MIB)
    web = replace(web, guest=replace(web.guest, facts=facts))
    other = guest(
        512,
        facts=build.facts(512, demand_mib, at=NOW, swap_free_bytes=swap_mib * MIB),
        config={"uuid": "other", "name": "other", "limits": replace(build.LIMITS, **{"weight": 50} | limits)},
    )
    purse = round_of(web, other, goals_mib=(size_mib, goal_mib), headroom_mib=headroom_mib)
    told = NOT_FREE if waits is None else waits
    if held_fast:
        told = HELD_FAST if waits is None else f"{waits}: {HELD_FAST}"
    assert purse.decisions[web.config.uuid].blocked_by == told


# --- below what it uses, into swap of its own ---


def squeezable(*, at: float = NOW, swap_mib: int = 4096, weight: int = 100, **changes: Any) -> Vm:
    """It uses all but 48 of its MiB, 512 by itself, and somebody has needed some of it for four seconds."""
    usable_mib = changes.pop("usable_mib", 512)
    facts = build.facts(usable_mib, usable_mib - 48, at=at, swap_free_bytes=swap_mib * MIB)
    config = changes.pop("config", {}) | {"limits": replace(build.LIMITS, weight=weight)}
    demand = Demand(last=facts, stall=Stalls(share=0.0))
    vm = guest(usable_mib, facts=facts, demand=demand, config=config, **changes)
    for ago in (4.0, 2.0, 1.0):
        vm.squeeze.ask(NOW - ago)
    return vm


@pytest.mark.parametrize(
    ("changes", "goal_mib", "overdrawn_seconds", "per_weight_mib", "commands", "stepped"),
    [
        ({}, 300, None, 0.0, ["target 464"], True),  # 32 MiB to spare, and a 32nd of what it has
        ({"weight": 30}, 300, None, 16.0, ["target 480"], False),  # it has no more than its weight gives
        ({"weight": 29}, 300, None, 16.0, ["target 464"], True),
        ({"weight": 29}, 300, 0.0, 16.0, ["target 464"], True),
        ({"weight": 30}, 300, 9.9, 16.0, ["target 480"], False),
        ({"weight": 30}, 300, 10.0, 16.0, ["target 464"], True),  # it lasts, and bars all from growing
        (VIRTIO_128, 400, None, 0.0, ["virtio-mem 76"], True),  # 32 to spare, and 20
        (VIRTIO_128, 400, 10.0, 100.0, ["virtio-mem 76"], True),
    ],
)
def test_a_guest_that_others_need_memory_of_is_squeezed_by_one_step_a_second(
    changes: dict[str, Any],
    goal_mib: int,
    overdrawn_seconds: float | None,
    per_weight_mib: float,
    commands: list[str],
    stepped: bool,
) -> None:
    vm = squeezable(**deepcopy(changes))
    purse = round_of(
        vm,
        goals_mib=(goal_mib,),
        headroom_mib=0 if overdrawn_seconds is None else -1,
        overdrawn_seconds=overdrawn_seconds,
        waiting=True,
        per_weight=per_weight_mib * MIB,
    )
    assert [said(one) for one in purse.commands] == commands
    assert [vm.squeeze.ask(NOW + after) for after in (0.5, 1.0)] == [not stepped, True]


@pytest.mark.parametrize(
    ("swap_mib", "goal_mib", "per_weight_mib", "blocked_by"),
    [
        (4096, 480, 0.0, "the guest has nothing more to spare"),
        (4096, 479, 0.0, "it uses what it has, and is brought into its own swap slowly"),
        (4096, 479, 16.0, "it uses what it has, and that is no more than its weight gives it"),
        (4096, 479, 15.9, "it uses what it has, and is brought into its own swap slowly"),
        (100, 444, 0.0, "it uses what it has, and is brought into its own swap slowly"),  # 64 MiB stay free
        (100, 443, 16.0,
         "it uses what it has, and its free swap is too little: with less its kernel would kill"),
        (4096, 247, 16.0,
         "it uses what it has, and half of what its programs hold is the most that is taken to fit into its "
         "swap: with less its kernel would kill"),
        (0, 479, 16.0,
         "it uses what it has, and it has no free swap on a disk: with less its kernel would kill"),
    ],
)  # fmt: skip
def test_why_a_guest_that_is_to_have_less_keeps_what_it_has_is_said(
    swap_mib: int, goal_mib: int, per_weight_mib: float, blocked_by: str
) -> None:
    """It uses 464 MiB and keeps a margin of 16, its weight is 30, and it has not spoken for a while."""
    vm = squeezable(swap_mib=swap_mib, weight=30, at=NOW - 8.0)
    purse = round_of(vm, goals_mib=(goal_mib,), headroom_mib=0, waiting=True, per_weight=per_weight_mib * MIB)
    decision = purse.decisions[vm.config.uuid]
    assert (decision.action, decision.blocked_by) == (WAIT, blocked_by)


def test_a_guest_that_has_its_minimum_is_not_said_to_use_it() -> None:
    limits = replace(build.LIMITS, minimum_bytes=512 * MIB)
    purse = round_of(guest(512, 100, config={"limits": limits}), goals_mib=(400,), headroom_mib=-1)
    assert [one.blocked_by for one in purse.decisions.values()] == ["it has its minimum"]


@pytest.mark.parametrize(
    ("said", "minimum_mib", "goal_mib", "swap_in_mib", "blocked_by"),
    [
        ({}, 192, 300, 20, READ_BACK),
        ({}, 192, 200, 20, READ_BACK),
        ({}, 192, 300, 1, "it uses what it has, and is brought into its own swap slowly"),
        ({}, 480, 300, 20, "it has its minimum"),
        ({"least_usable_bytes": 500 * MIB}, 192, 300, 0,
         "with less its kernel would refuse, or a daemon in it kill, by a share of what it has"),
    ],
)  # fmt: skip
def test_what_else_than_swap_that_is_too_little_keeps_it_there_is_said(
    said: dict[str, int], minimum_mib: int, goal_mib: int, swap_in_mib: int, blocked_by: str
) -> None:
    """4 GiB of its swap are free, and 182 MiB would fit in: less 30 times what is read back in a second."""
    facts = build.facts(512, 464, at=NOW - 8.0, swap_free_bytes=4 * GIB, swap_used_bytes=GIB, **said)
    demand = Demand(last=facts, stall=Stalls(share=0.0), swap_in_rate=float(swap_in_mib * MIB))
    limits = replace(build.LIMITS, minimum_bytes=minimum_mib * MIB)
    vm = guest(512, facts=facts, demand=demand, config={"limits": limits})
    purse = round_of(vm, goals_mib=(goal_mib,), headroom_mib=0, waiting=True)
    decision = purse.decisions[vm.config.uuid]
    assert (decision.action, decision.blocked_by) == (WAIT, blocked_by)


def test_a_vm_with_an_operation_under_way_is_left_to_it() -> None:
    vm = guest(**FULL)
    state = State(SETTINGS, Ledger(SETTINGS), {vm.config.uuid: vm})
    operation = Plug(state.ticket, size_bytes=128 * MIB)
    state.operations[vm.config.uuid] = operation
    accounts = Accounts()
    weigh(vm, state, accounts, NOW)
    purse = Purse(state, accounts.of, 1000 * MIB, False, NOW, goals={vm.config.uuid: 600 * MIB})
    GrantRound(purse).run([vm])
    found = purse.decisions[vm.config.uuid]
    assert (found.action, found.reason, found.goal_bytes) == (WAIT, operation.describe(), 600 * MIB)
    assert purse.commands == []


@pytest.mark.parametrize(
    ("goal_mib", "left", "sizes"),
    [
        (400, True, ["virtio-mem 128"]),  # a second's work
        (640, True, ["virtio-mem 128"]),
        (641, True, ["virtio-mem 130"]),
        (768, True, []),
        (762, True, []),  # within the dead band
        (1000, True, []),
        (None, True, []),  # it must not be touched
        (400, False, []),
    ],
)
def test_a_step_down_that_has_left_by_the_guests_own_count_is_followed_by_the_next(
    goal_mib: int | None, left: bool, sizes: list[str]
) -> None:
    """QEMU still tells the 384 MiB that its device had: 256 of them are there."""
    vm = guest(512 + 384, 300, actual_mib=512, config=VIRTIO, virtio_mem=VirtioMem(*3 * (384 * MIB,)))
    assert vm.guest.facts is not None
    build.says(vm, vm.guest.facts)
    operation = Resize(itertools.count(1).__next__, size_bytes=256 * MIB)
    (asked,) = operation.advance(vm, NOW - 1.0, agent=True)
    assert isinstance(asked, ResizeVirtioMem)
    vm.virtio_mem.answered(asked.ticket, None, NOW - 0.9)
    operation.done(vm, asked.ticket, None, False, NOW - 0.9)
    before = vm.guest.facts
    assert before is not None
    total = before.total_bytes - (128 if left else 100) * MIB
    facts = replace(before, at=NOW, total_bytes=total, usable_bytes=768 * MIB, available_bytes=468 * MIB)
    build.says(vm, facts)
    operation.advance(vm, NOW, agent=True)
    purse = round_of(vm, goals_mib=(goal_mib,), headroom_mib=1000, operation=operation)
    assert [said(one) for one in purse.commands] == sizes
    decision = purse.decisions[vm.config.uuid]
    assert decision.action is (UNPLUG if sizes else WAIT)
    assert purse.state.operations[vm.config.uuid] is operation


def test_a_vm_that_stands_still_says_for_how_long_and_why() -> None:
    vm = guest(stopped=True)
    state = State(SETTINGS, Ledger(SETTINGS), {vm.config.uuid: vm})
    standstill = Standstill(NOW - 3.0, NOW + 10.0, Still.STANDING, missing_bytes=100 * MIB)
    state.standstills[vm.config.uuid] = standstill
    accounts = Accounts()
    weigh(vm, state, accounts, NOW)
    purse = Purse(state, accounts.of, 0, False, NOW)
    GrantRound(purse).run([vm])
    assert purse.decisions[vm.config.uuid].reason == standstill.describe(NOW)


def test_a_dimm_that_was_of_no_use_for_a_moment_stays_until_that_has_lasted() -> None:
    settings = build.settings(unplug_after_seconds=15.0)
    vm = guest(**UNUSED)
    for now, detached in ((NOW, False), (NOW + 5.0, False), (NOW + 15.0, True)):
        state = State(settings, Ledger(settings), {vm.config.uuid: vm})
        facts = replace(build.facts(400, 100, at=now))
        vm.guest.heard(facts, vm.balloon.actual_bytes)
        vm.guest.work_out(vm.config.limits, now)
        accounts = Accounts()
        weigh(vm, state, accounts, now)
        purse = Purse(state, accounts.of, 1000 * MIB, False, now, goals={vm.config.uuid: 400 * MIB})
        GrantRound(purse).run([vm])
        assert (purse.decisions[vm.config.uuid].action is UNPLUG) is detached


# --- what is beside the balloon counts once ---

BESIDE = [
    Case("more virtio-mem is what is missing", VIRTIO_128 | {"demand_mib": 600}, 800, 1000,
         ["OnlineZone"], PLUG, None, 160),
    Case("and no more than that, however much is free", VIRTIO_128 | {"demand_mib": 400, "zone": "movable"},
         680, 1000, ["virtio-mem 168"], PLUG, None, 40),
    Case("or whole blocks of what is free", VIRTIO_128 | {"demand_mib": 600, "zone": "movable"}, 800, 51,
         ["virtio-mem 178"], PLUG, None, 50),
    Case("what the device may come to already costs nothing",
         VIRTIO_128 | {"demand_mib": 600, "zone": "movable",
                       "virtio_mem": VirtioMem(128 * MIB, 128 * MIB, 192 * MIB, confirmed_bytes=128 * MIB)},
         800, 0, ["virtio-mem 192"], PLUG, None, 0),
    Case("what is offline is no part of what a shrinking guest keeps",
         {"dimms_mib": (128,), "actual_mib": 640, "usable_mib": 512, "offline_mib": 128,
          "unplug_rest": Rest(NOW + 99.0, 1)}, 400, 0, ["target 528"], SHRINK, None, 0, True),
    Case("while virtio-mem stays the balloon takes its place",
         VIRTIO_128 | {"demand_mib": 300, "unplug_rest": Rest(NOW + 99.0, 1)}, 500, 0, ["target 384"], SHRINK,
         None, 0, True),
    Case("nothing is exchanged while a target is on its way", EXCHANGED | {"sent": {7: 300 * MIB}}, 428, 1000,
         [], HOLD),
    Case("only what is idle is asked for no more",
         {"usable_mib": 576, "actual_mib": 512, "offline_mib": 128, "config": VIRTIO,
          "virtio_mem": VirtioMem(128 * MIB, 128 * MIB, 128 * MIB, confirmed_bytes=128 * MIB)},
         576, 0, ["virtio-mem 64"], UNPLUG, "does not use all"),
    Case("a device nobody is sure of waits for its operator, too",
         VIRTIO_128 | {"paused": True, "virtio_mem": VirtioMem(128 * MIB, 128 * MIB, 128 * MIB, unsure=True)},
         None, 0, [], HOLD, "operator"),
    Case("a DIMM may leave when the rest is over",
         PLUGGED | {"changed_at": -100.0, "unplug_rest": Rest(NOW, 1)}, 512, 0, ["detach dimm0"], UNPLUG),
    Case("an old word of a kernel does not lift a target",
         {"resend": True, "target_bytes": 100 * MIB, "ceiling_bytes": 300 * MIB, "actual_mib": 300,
          "facts": build.facts(400, 350, at=NOW - 9.0)}, None, 100, ["target 300"], CORRECT),
    Case("a kernel that boots is told all of its RAM in an overdraft, too",
         {"phase": Phase.STARTING, "moved": False, "resend": True, "facts": None, "target_bytes": 512 * MIB,
          "bare": True}, None, -1, ["target 512"], CORRECT),
    Case("ten MiB too much go where somebody waits, though there is no overdraft", {}, 290, 0,
         ["target 290"], SHRINK, OTHERS, 0, True),
    Case("and in an overdraft, though nobody waits", {}, 290, -1, ["target 290"], SHRINK),
    Case("they stay where all is well", {}, 290, 0, [], HOLD),
    Case("one that has spoken is told what it has",
         {"phase": Phase.STARTING, "moved": False, "resend": True, "target_bytes": 512 * MIB}, None, -1,
         ["target 300"], CORRECT),
    Case("and so is one whose balloon has moved",
         {"phase": Phase.STARTING, "moved": True, "resend": True, "facts": None, "target_bytes": 512 * MIB,
          "bare": True}, None, -1, ["target 300"], CORRECT),
]  # fmt: skip


@pytest.mark.parametrize("case", BESIDE, ids=lambda case: case.name)
def test_offline_memory_and_virtio_mem_are_counted_once(case: Case) -> None:
    test_what_is_known_and_what_is_free_decide(case)


def test_an_exchange_asks_for_the_device_less_what_the_balloon_gives() -> None:
    vm = guest(**EXCHANGED | {"usable_mib": 556, "demand_mib": 400, "virtio_mem": deepcopy(DEVICE_256)})
    purse = round_of(vm, goals_mib=(556,), headroom_mib=1000)
    assert [said(one) for one in purse.commands] == ["target 428"]
    assert purse.decisions[vm.config.uuid].size_bytes == 128 * MIB
    operation = purse.state.operations[vm.config.uuid]
    assert isinstance(operation, Resize)
    assert operation.size_bytes == 128 * MIB


def test_the_zone_of_more_virtio_mem_goes_by_what_comes_and_not_by_what_is_there() -> None:
    facts = build.facts(640, 600, at=NOW, online_bytes=640 * MIB, movable_bytes=420 * MIB)
    vm = guest(**deepcopy(VIRTIO_128) | {"facts": facts})  # 240 MiB more may be movable
    purse = round_of(vm, goals_mib=(680,), headroom_mib=1000)
    assert purse.state.operations[vm.config.uuid].zone == "movable"


@pytest.mark.parametrize(
    ("headroom_mib", "overdrawn_for", "commands"),
    [
        (0, None, []),
        (-1, 1.0, [f"target {288 + PAGE_BYTES / MIB:g}"]),
        (-1, 60.0, [f"target {288 + PAGE_BYTES / MIB:g}"]),
    ],
)
def test_a_step_of_all_that_is_to_be_had_does_not_wait_in_an_overdraft(
    headroom_mib: int, overdrawn_for: float | None, commands: list[str]
) -> None:
    assert [said(one) for one in overdrawn(12 * MIB - 100, headroom_mib, overdrawn_for)] == commands


@pytest.mark.parametrize(("overdrawn_for", "commands"), [(1.0, []), (60.0, ["target 296"])])
def test_in_an_overdraft_that_lasts_each_page_counts(overdrawn_for: float, commands: list[str]) -> None:
    """Since its agent's word its driver has said that there are 4 MiB to spare and no more."""
    newer = BalloonStats(200 * MIB, 20 * MIB, int(NOW) + 1)
    assert [said(one) for one in overdrawn(40 * MIB, -1, overdrawn_for, newer)] == commands


@pytest.mark.parametrize(("overdrawn_for", "commands"), [(1.0, []), (60.0, ["target 297"])])
def test_in_an_overdraft_that_lasts_who_has_a_little_too_much_gives_that_too(
    overdrawn_for: float, commands: list[str]
) -> None:
    assert [said(one) for one in overdrawn(40 * MIB, -1, overdrawn_for, goal_mib=297)] == commands


def overdrawn(
    spare_bytes: int,
    headroom_mib: int,
    seconds: float | None,
    newer: BalloonStats | None = None,
    goal_mib: int = 200,
) -> list[Command]:
    """What a guest of 300 MiB with so much to spare is told to give, a second after its last step."""
    facts = build.facts(300, 200, at=NOW, available_bytes=16 * MIB + spare_bytes)
    vm = guest(facts=facts, sent_at=NOW - 1.0)
    if newer is not None:
        build.answers(vm, NOW + 0.1, newer)
    state = State(SETTINGS, Ledger(SETTINGS), {vm.config.uuid: vm})
    if seconds is not None:
        state.ledger.record(-MIB, "web was reset", NOW - seconds)
    accounts = Accounts()
    weigh(vm, state, accounts, NOW)
    goals = {vm.config.uuid: goal_mib * MIB}
    GrantRound(purse := Purse(state, accounts.of, headroom_mib * MIB, True, NOW, goals=goals)).run([vm])
    return purse.commands


@pytest.mark.parametrize(("givers", "commands"), [({"uuid-of-web"}, ["target 294"]), (set(), [])])
def test_who_makes_a_dimm_for_another_gives_what_is_no_reason_for_a_command_by_itself(
    givers: set[str], commands: list[str]
) -> None:
    purse = round_of(guest(sent_at=NOW - 1.0), goals_mib=(294,), headroom_mib=122, givers=frozenset(givers))
    assert [said(command) for command in purse.commands] == commands


@pytest.mark.parametrize(
    ("demand_mib", "headroom_mib", "wanted"),
    [(400, 100, {"uuid-of-web": 128 * MIB}), (400, 128, {}), (512, 100, {})],  # the last can place no DIMM
)
def test_who_waits_for_a_dimm_only_since_it_cannot_be_paid_for_is_known(
    demand_mib: int, headroom_mib: int, wanted: dict[str, int]
) -> None:
    vm = guest(512, demand_mib)
    purse = round_of(vm, goals_mib=(600,), headroom_mib=headroom_mib)
    assert purse.dimms_wanted == wanted


def test_two_vms_begin_to_grow_in_one_round() -> None:
    vms = [guest(**FULL | {"config": {"uuid": name, "name": name}}) for name in ("web", "db")]
    purse = round_of(*vms, goals_mib=(600, 600), headroom_mib=2000)
    assert sorted(one.vm for one in purse.commands) == ["db", "web"]


@pytest.mark.parametrize(("movable_mib", "zone"), [(0, "movable"), (384, "kernel")])
def test_a_dimm_goes_where_the_kernel_can_bear_it(movable_mib: int, zone: str) -> None:
    facts = build.facts(512, 500, at=NOW, movable_bytes=movable_mib * MIB)
    vm = guest(**FULL | {"facts": facts})
    purse = round_of(vm, goals_mib=(600,), headroom_mib=2000)
    assert purse.state.operations[vm.config.uuid].zone == zone


def test_who_has_least_for_its_weight_is_given_first() -> None:
    def named(name: str, has_mib: int, weight: int) -> Vm:
        limits = replace(build.LIMITS, weight=weight)
        return guest(has_mib, has_mib - 20, config={"uuid": name, "name": name, "limits": limits})

    purse = round_of(named("db", 300, 100), named("web", 310, 300), goals_mib=(400, 400), headroom_mib=1000)
    assert [one.vm for one in purse.commands] == ["web", "db"]


def test_who_comes_near_the_end_of_its_ram_has_room_kept_for_its_next_dimm() -> None:
    vm, accounts = guest(**FULL), Accounts()
    weigh(vm, State(SETTINGS, Ledger(SETTINGS), {vm.config.uuid: vm}), accounts, NOW)
    assert accounts.of[vm.config.uuid].next_dimm == 128 * MIB
