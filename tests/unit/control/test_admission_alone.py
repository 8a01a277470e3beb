"""What a start has to do with nobody else: it waits for no guest that talks, and squeezes none in vain."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from host_controller.control.admission import Admission
from host_controller.control.start_queue import Start
from host_controller.core.interface import CommandDone, SetTarget
from host_controller.core.model import Limits
from host_controller.units import GIB, MIB
from tests.support.virtual import Host, run

SMALL = Limits(GIB, 256 * MIB, 2 * GIB)


@asynccontextmanager
async def talking(host: Host, per_second: int) -> AsyncIterator[Admission]:
    """Admission where something of hypervisor and guests comes in so often."""
    async with host.controller() as controller:

        async def talk() -> None:
            while True:
                await asyncio.sleep(1 / per_second)
                controller.put(CommandDone("nobody", 0, None))

        await asyncio.sleep(30)
        noise = asyncio.create_task(talk())
        try:
            yield Admission(controller)
        finally:
            noise.cancel()
            await asyncio.gather(noise, return_exceptions=True)


@pytest.mark.parametrize("per_second", [30, 300, 3000])
def test_a_start_that_fits_waits_for_no_quiet_moment_of_a_busy_host(per_second: int) -> None:
    async def story() -> None:
        async with talking(Host(16 * GIB), per_second) as admission:
            for number in range(20):
                answer = await admission.admit(Start(f"vm{number}", managed=True, need_bytes=512 * MIB))
                assert answer.admitted, answer.message
                assert answer.waited_seconds <= 0.2

    run(story())


def test_on_a_busy_host_too_no_two_starts_at_once_are_admitted_by_the_same_memory() -> None:
    async def story() -> None:
        async with talking(Host(2 * GIB), 300) as admission:
            starts = [Start(f"vm{number}", managed=True, need_bytes=600 * MIB) for number in range(6)]
            answers = await asyncio.gather(*map(admission.admit, starts))
            assert [one.admitted for one in answers].count(True) == 3

    run(story())


@pytest.mark.parametrize("per_second", [1, 300])
def test_for_a_start_that_can_never_fit_nobody_is_asked_to_give(per_second: int) -> None:
    async def story() -> None:
        host = Host(4 * GIB)
        web = host.vm("web", limits=SMALL)
        async with talking(host, per_second) as admission:
            await asyncio.sleep(90)
            before, host.commands = web.actual_bytes, []
            answer = await admission.admit(Start("huge", managed=True, need_bytes=64 * GIB))
            await asyncio.sleep(1)
            assert not answer.admitted
            assert "needs 64 GiB" in answer.message
            assert web.actual_bytes == before
            assert not any(isinstance(one, SetTarget) for one in host.commands)

    run(story())
