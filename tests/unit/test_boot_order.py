"""While libvirt starts what starts with the host, it answers nobody: the books alone admit."""

import asyncio
from pathlib import Path

from host_controller.core.interface import ConnectionChanged
from host_controller.units import GIB
from tests.support.serving import served
from tests.support.starts import flowing, start, xml
from tests.support.virtual import Host, run


def test_at_the_hosts_boot_starts_are_admitted_until_the_capacity_is_spoken_for(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host(2 * GIB + GIB // 2)
        async with served(host, tmp_path) as (controller, _):
            controller.put(ConnectionChanged(up=False, detail="starting"))
            await asyncio.sleep(1)
            assert not controller.engine.state.connected
            for name in ("one", "two"):
                assert (await flowing(asyncio.create_task(start(tmp_path, name=name))))[0] == 0
            code, said = await flowing(asyncio.create_task(start(tmp_path, xml("three"), "three")))
            assert code == 1
            assert "one (starting) 1.06 GiB" in said

    run(story())
