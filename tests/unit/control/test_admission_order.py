"""Who asked first comes first, where room for it can be made, and nobody is refused for that who fits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from host_controller.api.figures import figures_view, vm_figures
from host_controller.control.admission import Admission, Answer
from host_controller.control.controller import Controller
from host_controller.control.promises import Promises
from host_controller.control.start_queue import Start
from host_controller.core.model import HugePool, Limits
from host_controller.core.operator_events import Reserve
from host_controller.simulator.memory import Speeds
from host_controller.units import GIB, MIB
from tests.support.virtual import Host, run, until

LIMITS = Limits(GIB, 256 * MIB, 2 * GIB)
SLOW = replace(Speeds(), inflate=40 * MIB)
LARGE = 2 * GIB
EACH = 96 * MIB


def keeping(capacity_bytes: int, vms: int) -> Host:
    """VMs that have a GiB each, need a third of it, and give it away within some ten seconds if asked."""
    host = Host(capacity_bytes)
    host.settings = replace(host.settings, shrink_after_seconds=3600.0)
    for number in range(vms):
        host.vm(f"web{number}", limits=LIMITS, speeds=SLOW)
    return host


@asynccontextmanager
async def asked(capacity_bytes: int = 5 * GIB) -> AsyncIterator[tuple[Controller, Admission]]:
    """Where less is free than a large start needs, and four VMs can give the rest."""
    async with keeping(capacity_bytes, 4).controller() as controller:
        await asyncio.sleep(25)
        assert 512 * MIB < controller.engine.headroom_bytes < LARGE / 2
        yield controller, Admission(controller)


def starting(admission: Admission, name: str, size_bytes: int) -> "asyncio.Task[Answer]":
    return asyncio.create_task(admission.admit(Start(name, managed=True, need_bytes=size_bytes)))


async def follow_each_other(admission: Admission) -> list[Answer]:
    """Small starts, one each second, which need more in sum than is free."""
    tasks = []
    for number in range(12):
        tasks.append(starting(admission, f"small{number}", EACH))
        await asyncio.sleep(1)
    return await asyncio.gather(*tasks)


def test_small_starts_do_not_take_what_is_being_made_free_for_a_large_one() -> None:
    async def story() -> None:
        async with asked() as (controller, admission):
            large = starting(admission, "large", LARGE)
            small = await follow_each_other(admission)
            first = await large
            assert first.admitted, first.message
            assert all(one.admitted for one in small), [one.message for one in small]
            assert controller.engine.ledger.overdraft is None
            said = [one.text for one in controller.journal.entries() if one.topic == "admission"]
            assert "small0 waits to start: memory is made free for large first" in said

    run(story())


def test_a_promise_waits_in_the_same_line() -> None:
    async def story() -> None:
        async with asked() as (controller, admission):
            start = Start("large", managed=True, need_bytes=LARGE)
            large = asyncio.create_task(Promises(controller, admission).make(start, "ours", {}))
            small = await follow_each_other(admission)
            assert (await large).admitted
            assert all(one.admitted for one in small)

    run(story())


def test_nobody_waits_for_one_that_not_enough_can_be_freed_for() -> None:
    async def story() -> None:
        async with asked() as (_, admission):
            large = starting(admission, "large", 5 * GIB - 128 * MIB)
            await asyncio.sleep(1)
            small = await starting(admission, "small", EACH)
            assert small.admitted
            assert small.waited_seconds < 0.2
            assert not (await large).admitted

    run(story())


@pytest.mark.parametrize(("size_bytes", "held_bytes"), [(LARGE, LARGE), (5 * GIB - 128 * MIB, 0)])
def test_other_hosts_are_offered_what_a_start_that_waits_is_not_to_have(
    size_bytes: int, held_bytes: int
) -> None:
    """One that not enough can be freed for holds nothing up: nobody would start here while it is tried."""

    async def story() -> None:
        async with asked() as (controller, admission):

            def offered() -> int:
                vms = [vm_figures(controller, vm) for vm in controller.engine.vms.values()]
                return figures_view(controller, admission, vms).admits_bytes

            before = offered()
            large = starting(admission, "large", size_bytes)
            await asyncio.sleep(0.2)
            assert offered() == pytest.approx(before - held_bytes, abs=64 * MIB)
            large.cancel()

    run(story())


def test_who_fits_when_its_time_is_over_is_not_refused_for_one_that_came_before() -> None:
    async def story() -> None:
        async with asked() as (controller, admission):
            impatient = Admission(controller, 2.0)
            impatient._queue = admission._queue
            impatient._given = controller.now() + 60, 4 * GIB
            large = starting(admission, "large", LARGE)
            await asyncio.sleep(0.2)
            small = await starting(impatient, "other", EACH)
            assert small.admitted
            assert small.waited_seconds == pytest.approx(2.0, abs=0.2)
            await large

    run(story())


def test_who_is_asked_for_anew_goes_to_the_end_and_who_is_gone_is_waited_for_no_more() -> None:
    async def story() -> None:
        async with asked() as (_, admission):
            large = starting(admission, "large", LARGE)
            await asyncio.sleep(0.2)
            small = starting(admission, "small", EACH)
            await asyncio.sleep(0.2)
            again = starting(admission, "large", LARGE)
            assert "asked for again" in (await large).message
            assert (await small).waited_seconds < 1.0
            last = starting(admission, "last", EACH)
            await asyncio.sleep(0.2)
            again.cancel()
            assert (await last).waited_seconds < 1.0

    run(story())


def test_huge_pages_that_are_free_for_one_that_waits_go_to_nobody_who_came_after_it() -> None:
    async def story() -> None:
        host = keeping(4 * GIB, 2)
        seen, pool = host.hypervisor.host_facts, HugePool(2 * MIB, GIB, GIB)
        host.hypervisor.host_facts = lambda: replace(seen(), pools=(pool,))  # type: ignore[method-assign]
        async with host.controller() as controller:
            await asyncio.sleep(25)
            admission = Admission(controller)
            held = Reserve("held", controller.engine.headroom_bytes, controller.now() + 100)
            controller.put(held)
            await until(lambda: controller.engine.ledger.reservations, "it is held")
            large = asyncio.create_task(admission.admit(Start("large", True, 256 * MIB, 2 * MIB, GIB)))
            await asyncio.sleep(0.2)
            other = asyncio.create_task(admission.admit(Start("other", True, 1, 2 * MIB, GIB)))
            assert (await large).admitted
            assert not (await other).admitted

    run(story())
