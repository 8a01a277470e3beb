"""Who holds a guest's memory: when its agent is asked, what is believed of the answer, and what is told."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agent import wire
from host_controller.api.holders import holders_view
from host_controller.control.attribution import APART_SECONDS, Attribution
from host_controller.control.controller import Controller
from host_controller.control.holders import Growth, Look, base_of, believed, growths, span
from host_controller.core.interface import GuestSpoke, SendToGuest, VmConfigChanged
from host_controller.core.model import Trust
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.workload import Curve, Workload, steady
from host_controller.units import GIB, MIB
from tests.support.virtual import Host, run, until

SHORT = "gets less than it needs; it is held by workload ("
TOP = (("php-fpm", 900 * MIB), ("mysqld", 300 * MIB))


def questions(host: Host) -> list[wire.WhoHolds]:
    told = [one.message for one in host.commands if isinstance(one, SendToGuest)]
    return [one for one in told if isinstance(one, wire.WhoHolds)]


def notes(controller: Controller) -> list[str]:
    return [one.text for one in controller.journal.entries() if one.topic == "holders"]


def grows_at(seconds: float, size: int, within: float) -> Workload:
    return Workload(Curve([(0.0, 200 * MIB), (seconds, 200 * MIB), (seconds + within, size)]))


# --- when it is asked ---


def test_a_calm_guest_is_asked_once_in_its_agents_life() -> None:
    async def story() -> None:
        host = Host()
        host.vm("web")
        async with host.controller() as controller:
            await asyncio.sleep(900)
            assert len(questions(host)) == 1
            assert notes(controller) == []

    run(story())


def test_a_guest_whose_demand_grows_is_told_with_the_name_of_who_grew_and_in_what_time() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web", workload=grows_at(150.0, 1400 * MIB, 120.0))
        async with host.controller() as controller:
            await until(lambda: len(notes(controller)) >= 2, "two notices", 600.0)
            await asyncio.sleep(200)
            told = notes(controller)
            assert all(text.startswith("web: workload grew by ") for text in told), told
            assert len(told) <= 5, told  # news each time that it has doubled
            assert "minutes" in told[0]
            last = controller.attribution.last(vm.uuid)
            assert last is not None
            assert last[0].holders[0][1] > 1200 * MIB
            asked = questions(host)
            assert len(asked) <= 1 + 600 / APART_SECONDS

    run(story())


def test_a_vm_that_gets_less_than_it_needs_is_told_with_who_holds_it() -> None:
    async def story() -> None:
        host = Host(capacity_bytes=1600 * MIB)
        host.vm("web", workload=grows_at(120.0, 1200 * MIB, 60.0))
        host.vm("db", workload=grows_at(120.0, 1200 * MIB, 60.0))
        async with host.controller() as controller:
            await until(
                lambda: any(SHORT in text for text in notes(controller)),
                "a shortage that is told",
                600.0,
            )

    run(story())


@pytest.mark.parametrize("willing", ["off", "unknown"])
def test_a_guest_that_does_not_say_that_it_answers_is_never_asked(willing: wire.Willing) -> None:
    """Its administrator has switched it off, or its agent is of a release that does not know the question."""

    async def story() -> None:
        host = Host()
        vm = host.vm("web", workload=grows_at(100.0, 1400 * MIB, 60.0))
        deliver = vm.emit
        vm.emit = lambda event: deliver(_unwilling(event, willing))
        async with host.controller() as controller:
            await asyncio.sleep(200)
            controller.ask_who_holds(controller.engine.vms[vm.uuid])
            assert questions(host) == []
            assert controller.attribution.willing(vm.uuid) == willing

    run(story())


def _unwilling(event: Any, willing: wire.Willing) -> Any:
    if isinstance(event, GuestSpoke) and isinstance(event.untrusted_message, wire.Hello):
        return GuestSpoke(event.vm, event.untrusted_message._replace(holders=willing))
    return event


def test_a_vm_that_is_not_trusted_is_not_asked() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web", workload=grows_at(100.0, 1400 * MIB, 60.0))
        async with host.controller() as controller:
            await until(lambda: vm.uuid in controller.engine.vms, "it is seen")
            config = replace(controller.engine.vms[vm.uuid].config, trust=Trust.NONE)
            controller.put(VmConfigChanged(vm.uuid, config))
            await asyncio.sleep(200)
            assert controller.attribution.willing(vm.uuid) == "on"
            controller.ask_who_holds(controller.engine.vms[vm.uuid])
            assert questions(host) == []

    run(story())


def test_however_often_somebody_looks_a_guest_is_asked_every_ten_seconds_at_most() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web", workload=Workload(steady(200 * MIB)))
        async with host.controller() as controller:
            await asyncio.sleep(100)
            before = len(questions(host))
            for _ in range(300):
                controller.ask_who_holds(controller.engine.vms[vm.uuid])
                await asyncio.sleep(0.1)
            assert len(questions(host)) - before == 3

    run(story())


def test_a_dry_run_asks_too() -> None:
    async def story() -> None:
        host = Host()
        host.vm("web")
        async with host.controller(dry_run=True):
            await until(lambda: questions(host), "a question", 120.0)

    run(story())


# --- what is believed ---


def spoken(controller: Controller, vm: SimulatedVm, message: wire.GuestMessage) -> None:
    controller.put(GuestSpoke(vm.uuid, message))


def test_an_answer_that_nobody_asked_for_is_counted_and_nothing_else() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with host.controller() as controller:
            await until(lambda: controller.attribution.last(vm.uuid), "an answer", 120.0)
            before = controller.attribution.last(vm.uuid)
            for request_id in (0, 7, questions(host)[-1].request_id):
                spoken(controller, vm, wire.Held(request_id, "services", TOP))
            await asyncio.sleep(1)
            assert controller.attribution.last(vm.uuid) == before
            assert controller.engine.vms[vm.uuid].guest.noise["holders-unasked"] == 3
            assert notes(controller) == []

    run(story())


def test_where_the_agent_could_not_see_all_processes_that_is_shown() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with host.controller() as controller:
            await until(lambda: controller.attribution.last(vm.uuid), "an answer", 120.0)
            seen: wire.Seen
            for seen, words in (("cut", "more processes than its agent looks at"), ("hidden", "(hidepid)")):
                await asyncio.sleep(60)
                controller.ask_who_holds(controller.engine.vms[vm.uuid])
                await until(
                    lambda: not controller.attribution.pending(vm.uuid, controller.now()), "it is heard"
                )
                guest = controller.attribution._guests[vm.uuid]
                guest.pending, guest.asked_at = 1 << 41, controller.now()
                spoken(controller, vm, wire.Held(1 << 41, "processes", TOP, seen))
                await asyncio.sleep(1)
                view = holders_view(controller, controller.engine.vms[vm.uuid])
                assert words in (view.missing or "")
                assert (view.by, view.since) == ("processes", None)

    run(story())


def test_more_than_the_vm_can_have_is_not_believed() -> None:
    def look(by: wire.HeldBy, *sizes: int) -> Look | None:
        top = tuple((f"p{number}", size) for number, size in enumerate(sizes))
        return believed(wire.Held(1, by, top), GIB, 0, 5.0)

    assert look("services", GIB // 2, GIB // 2) is not None
    assert look("services", GIB // 2, GIB // 2 + 1) is None, "services do not overlap"
    assert look("processes", GIB, GIB) is not None, "processes share"
    assert look("processes", GIB + 1) is None
    assert look("other", 1) is None
    assert look("services") == Look(5.0, 0, "services", ())


def test_a_guest_that_greets_with_new_kernels_all_the_time_is_not_asked_more_often() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with host.controller() as controller:
            await until(lambda: questions(host), "a question", 120.0)
            before = len(questions(host))
            for number in range(120):
                boot_id = f"0b1c2d3e-4f50-4162-9384-{number:012x}"
                spoken(
                    controller,
                    vm,
                    wire.Hello(boot_id, "9", "6.1", 128 * MIB, True, "", "kernel", holders="on"),
                )
                await asyncio.sleep(1)
            assert len(questions(host)) - before <= 4

    run(story())


# --- what is compared ---


def looked(at: float, *top: tuple[str, int], demand: int = 0, by: str = "services") -> Look:
    return Look(at, demand, by, top)


def test_growth_is_told_since_the_least_demand_of_the_last_quarter_of_an_hour() -> None:
    old, high, low, now = (
        looked(0.0, ("a", 1), demand=1),
        looked(1000.0, ("a", 9), demand=9),
        looked(1200.0, ("a", 5), demand=5),
        looked(1500.0, ("a", 20), demand=20),
    )
    assert base_of([old, high, low, now], now) is low
    assert base_of([old, now], now) is old, "where there is none in it, the last one"
    assert base_of([now], now) is None
    assert base_of([looked(1400.0, by="processes"), now], now) is None, "services are no processes"
    assert growths(low, now) == [Growth("a", 15, 300.0, False)]


def test_who_was_not_among_the_largest_has_grown_by_at_least_what_it_has_beyond_them() -> None:
    few = looked(0.0, ("a", 10), ("b", 4))
    full = looked(0.0, *((f"p{size}", size) for size in (9, 8, 7, 6, 5)))
    now = looked(60.0, ("new", 12), ("a", 3))
    assert growths(few, now) == [Growth("new", 12, 60.0, False)], "all that there were had been named"
    assert growths(full, now) == [Growth("new", 7, 60.0, True)]
    assert growths(None, now) == []


def small_engine() -> Any:
    """An engine with one VM, `web`, that its agent speaks for."""
    vm = SimpleNamespace(
        name="web",
        ram_bytes=4 * GIB,
        virtio_mem=SimpleNamespace(may_hold_bytes=0),
        config=SimpleNamespace(uuid="w", trust=Trust.GUEST, limits=SimpleNamespace(maximum_bytes=4 * GIB)),
        pauses=SimpleNamespace(hands_off=False),
        has_agent=lambda *_: True,
        guest=SimpleNamespace(estimate=SimpleNamespace(demand_bytes=GIB)),
    )
    state = SimpleNamespace(settings=SimpleNamespace(stale_seconds=30.0))
    return SimpleNamespace(vms={"w": vm}, claims={}, goals={}, state=state)


def greeted(engine: Any) -> Attribution:
    attribution = Attribution(engine)
    boot_id = "0b1c2d3e-4f50-4162-9384-000000000000"
    hello = wire.Hello(boot_id, "9", "6.1", 128 * MIB, True, "", "kernel", holders="on")
    attribution.hear(GuestSpoke("w", hello), 0.0)
    return attribution


def answered(attribution: Attribution, now: float, *top: tuple[str, int], by: str = "services") -> list[str]:
    """What is told of an answer to whatever is asked for somebody who looks."""
    question = attribution.ask(attribution._engine.vms["w"], now)
    assert question is not None
    assert isinstance(question.message, wire.WhoHolds)
    held: Any = wire.Held(question.message.request_id, by, top)
    notices, noise = attribution.hear(GuestSpoke("w", held), now)
    assert noise is None
    return [one.text for one in notices]


def test_of_two_that_grow_side_by_side_each_is_news_when_it_has_doubled() -> None:
    attribution = greeted(small_engine())
    answered(attribution, 10.0, ("a", MIB), ("b", MIB))
    told = []
    for step in range(1, 40):
        ahead, behind = ("a", "b") if step % 2 else ("b", "a")
        size = 200 * MIB + step * 10 * MIB
        told += answered(attribution, 10.0 + 20.0 * step, (ahead, size + MIB), (behind, size))
    assert len(told) <= 4, told
    assert "a grew by" in told[0]
    assert "b grew by" in told[0]


def test_a_shortage_that_was_not_answered_for_is_not_told_with_the_answer_to_another_question() -> None:
    engine = small_engine()
    attribution = greeted(engine)
    engine.claims["w"], engine.goals["w"] = SimpleNamespace(need=2 * GIB), GIB
    assert len(attribution.due(100.0)) == 1
    engine.claims.clear()
    assert answered(attribution, 5000.0, ("a", MIB)) == []


def test_an_answer_in_words_of_a_newer_agent_is_no_noise() -> None:
    assert answered(greeted(small_engine()), 10.0, ("a", MIB), by="other") == []


def test_growth_is_told_in_a_sentence() -> None:
    text = Growth("php-fpm", 3174 * MIB, 300.0, False).describe()
    assert text == "php-fpm grew by 3.1 GiB in 5 minutes"
    assert Growth("x", GIB, 40.0, True).describe() == "x grew by at least 1 GiB in 40 seconds"
    assert [span(s) for s in (0.2, 2.0, 119.0, 120.0, 7199.0, 7200.0)] == [
        "a second",
        "2 seconds",
        "119 seconds",
        "2 minutes",
        "120 minutes",
        "2 hours",
    ]


def test_of_a_vm_that_is_not_known_nothing_is_known() -> None:
    async def story() -> None:
        host = Host()
        async with host.controller() as controller:
            attribution = Attribution(controller.engine)
            assert attribution.last("nobody") is None
            assert attribution.willing("nobody") == "unknown"
            assert not attribution.pending("nobody", 0.0)

    run(story())
