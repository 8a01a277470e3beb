"""Virtual time itself."""

import asyncio

from tests.support.virtual import VirtualLoop


def test_what_is_due_is_run_after_a_year_as_well():
    loop = VirtualLoop()
    loop.now = 365 * 86_400 + 1 / 3

    async def wait() -> float:
        for _ in range(100):
            await asyncio.sleep(0.1)
        return loop.now

    try:
        assert loop.run_until_complete(asyncio.wait_for(wait(), 60)) - 365 * 86_400 > 10
    finally:
        loop.close()
