"""The commands of operations, whole: to which VM, under which ticket, and with which figures.

As in `test_operation_ways.py` the guest has memory to spare, the operation has had its first look, and it
looks again after each word. Tickets count from 100.
"""

from dataclasses import replace

import pytest

from agent import wire
from host_controller.core.interface import (
    AttachDimm,
    Command,
    DetachDimm,
    ResizeVirtioMem,
    SendToGuest,
    SetTarget,
)
from host_controller.core.operations.stages import Outcome
from host_controller.core.operations.standstill import Stage as Standing
from host_controller.core.operations.standstill import Standstill, left_behind
from host_controller.core.policy.virtio_mem_plan import idle_bytes
from host_controller.units import MIB
from tests.support.lives import KINDS, SIZE, Life, happens

WEB = "uuid-of-web"
BASE = 4096 * MIB
NAMED = SendToGuest(WEB, wire.OnlineZone(100, "movable"))
ROOM = SetTarget(WEB, 100, 700 * MIB)
OFFLINE = SendToGuest(WEB, wire.Offline(101, BASE, SIZE))
BACK = SendToGuest(WEB, wire.Online(102, BASE, SIZE, "movable"))

COMMANDS: dict[str, dict[str, list[Command]]] = {
    "hot add": {
        "": [NAMED],
        "yes": [NAMED, AttachDimm(WEB, 101, SIZE)],
        "agentless": [NAMED],
        "no": [NAMED],
    },
    "unplug": {
        "": [ROOM],
        "done": [ROOM, OFFLINE],
        "done yes": [ROOM, OFFLINE, DetachDimm(WEB, 103, "dimm0")],
        "done no": [ROOM, OFFLINE, BACK],
        "done needy": [ROOM, OFFLINE, BACK],
        "agentless done": [ROOM, DetachDimm(WEB, 101, "dimm0")],
        # The guest may still be taking the DIMM offline: it is not asked again.
        "done yes done 5.1s": [ROOM, OFFLINE, DetachDimm(WEB, 103, "dimm0")],
        "done yes done offline 5.1s": [
            ROOM,
            OFFLINE,
            DetachDimm(WEB, 103, "dimm0"),
            DetachDimm(WEB, 104, "dimm0"),
        ],
    },
    "unplug of an offline DIMM": {
        "": [DetachDimm(WEB, 100, "dimm0")],
        "refused": [DetachDimm(WEB, 100, "dimm0")],
    },
    "more virtio-mem": {
        "yes": [NAMED, ResizeVirtioMem(WEB, 101, 512 * MIB)],
        "yes done 384MiB 5.1s": [
            NAMED,
            ResizeVirtioMem(WEB, 101, 512 * MIB),
            ResizeVirtioMem(WEB, 102, 384 * MIB),
        ],
    },
    "less virtio-mem": {"": [ResizeVirtioMem(WEB, 100, 128 * MIB)]},
    "virtio-mem for the balloon": {
        "": [SetTarget(WEB, 100, 640 * MIB)],
        "done": [SetTarget(WEB, 100, 640 * MIB), ResizeVirtioMem(WEB, 101, 128 * MIB)],
    },
}


def lived(kind: str, what: str) -> Life:
    life = KINDS[kind]()
    life.guest_says(300, 0, 512)
    life.look()
    for word in what.split():
        happens(life, word)
        life.look()
    return life


@pytest.mark.parametrize(
    ("kind", "what"), [(kind, what) for kind, table in COMMANDS.items() for what in table]
)
def test_each_command_names_its_vm_its_ticket_and_its_figures(kind: str, what: str) -> None:
    assert lived(kind, what).sent == COMMANDS[kind][what]


def test_a_dimm_whose_place_nobody_knows_is_detached_without_being_offlined() -> None:
    life = KINDS["unplug"]()
    life.vm.replug((replace(life.vm.dimms.plugged[0], base_bytes=None),), 0.5)
    life.guest_says(300, 0, 512)
    life.look()
    life.hypervisor_answers(None)
    life.look()
    assert life.sent == [ROOM, DetachDimm(WEB, 101, "dimm0")]


def test_a_target_that_makes_room_counts_from_when_it_was_sent() -> None:
    life = lived("unplug", "")
    assert (life.vm.sent_at, life.vm.grown_at) == (1.0, 1.0)


# --- what a hot add must not forget ---


def test_news_without_a_dimm_does_not_end_the_payment_of_one_that_was_asked_for() -> None:
    life = lived("hot add", "yes")
    life.operation.dimms_changed(life.vm, added=False)
    assert life.vm.plug.pending_bytes == SIZE
    life.operation.dimms_changed(life.vm, added=True)
    assert life.vm.plug.pending_bytes == 0


def test_an_agent_that_could_not_set_the_zone_keeps_to_none() -> None:
    assert lived("hot add", "no").vm.guest.zone is None
    assert lived("hot add", "yes").vm.guest.zone == "movable"


def test_nothing_is_plugged_into_a_guest_of_which_nothing_is_known() -> None:
    life = KINDS["hot add"]()
    life.agent = False
    life.look()
    assert life.sent == []
    assert life.operation.outcome is Outcome.DROPPED


# --- growth that only the guest's own total shows ---


@pytest.mark.parametrize(
    ("kind", "words", "before_mib"),
    [("hot add", "agentless done", 412), ("more virtio-mem", "agentless done", 412)],
)
@pytest.mark.parametrize(("missing_bytes", "outcome"), [(0, Outcome.DONE), (4096, Outcome.UNDER_WAY)])
def test_without_an_agent_three_quarters_of_what_was_added_show_that_it_came(
    kind: str, words: str, before_mib: int, missing_bytes: int, outcome: Outcome
) -> None:
    life = KINDS[kind]()
    life.agent = False
    life.guest_says(300, 0, 512)
    assert life.vm.guest.facts is not None
    assert life.vm.guest.facts.total_bytes == before_mib * MIB
    life.look()
    life.hypervisor_answers(None)
    life.look()
    assert life.operation.outcome is Outcome.UNDER_WAY
    facts = life.vm.guest.facts
    total = before_mib * MIB + 3 * SIZE // 4 - missing_bytes
    life.vm.guest.counts_anew()
    life.vm.guest.heard(replace(facts, at=life.now, total_bytes=total), life.vm.balloon.actual_bytes)
    life.look()
    assert life.operation.outcome is outcome


@pytest.mark.parametrize("kind", ["hot add", "more virtio-mem"])
def test_growth_of_a_guest_that_is_silent_since_is_not_over(kind: str) -> None:
    life = lived(kind, "yes done")
    assert life.vm.grown_at == life.now or kind == "hot add"
    life.vm.guest.forget()
    assert life.vm.guest.facts is None
    life.look()
    assert life.operation.outcome is Outcome.UNDER_WAY


def test_less_virtio_mem_needs_no_word_of_the_guest() -> None:
    life = KINDS["less virtio-mem"]()
    life.look()
    assert life.sent == COMMANDS["less virtio-mem"][""]


def test_what_was_not_taken_is_said_to_the_last_mib() -> None:
    life = lived("more virtio-mem", "yes done 384MiB 5.1s done")
    assert life.operation.note == "its virtio-mem stays at 384 MiB: the guest did not take 128 MiB more"
    life = lived("virtio-mem for the balloon", "done done 0.1s 200MiB 5.1s done")
    assert life.operation.note == "its virtio-mem stays at 200 MiB: the guest did not give back 72 MiB more"


# --- new memory that nobody brings online ---


@pytest.mark.parametrize(
    ("agent", "available_mib", "idle_mib", "back_to_mib"),
    [
        (True, 300, 128, 384),
        (False, 300, 128, 256),  # what it can spare goes with it, down to what it had before
        (False, 132, 128, 300),  # 84 MiB to spare: 132 less the margin and what a guess asks for
        (False, 12, 128, 384),  # nothing to spare
    ],
)
def test_what_stays_idle_is_asked_for_no_more(
    agent: bool, available_mib: int, idle_mib: int, back_to_mib: int
) -> None:
    life = KINDS["more virtio-mem"]()
    life.agent = agent
    life.guest_says(300, 0, 512)
    life.look()
    for word in ("yes", "done", "512MiB"):
        if agent or word != "yes":
            happens(life, word)
        life.guest_says(300, idle_mib, 512)
        life.look()
    life.waits(20.1)
    life.vm.virtio_mem.catch_up(life.now)
    life.guest_says(available_mib, idle_mib, 512)
    assert idle_bytes(life.vm) == idle_mib * MIB
    life.look()
    assert isinstance(life.sent[-1], ResizeVirtioMem)
    assert life.sent[-1].requested_bytes == back_to_mib * MIB
    assert life.vm.virtio_mem.asked_at == life.now


# --- what the next controller must know ---


@pytest.mark.parametrize("stage", Standing)
def test_of_standstills_what_may_be_stopped_is_left_behind_as_standing(stage: Standing) -> None:
    one = Standstill(1.0, 21.0, stage, missing_bytes=MIB, vcpu_seconds=7.0, notices=["told already"])
    left = left_behind({WEB: one})
    if stage in (Standing.DUE, Standing.OVER):
        assert left == {}
        return
    [(uuid, found)] = left.items()
    assert (uuid, found.stage, found.notices) == (WEB, Standing.STANDING, [])
    assert (found.since, found.until, found.vcpu_seconds) == (1.0, 21.0, 7.0)
