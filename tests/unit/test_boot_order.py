"""While libvirt starts what starts with the host, it answers nobody: the books alone admit."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from host_controller.core.interface import ConnectionChanged
from host_controller.core.model import Unmanaged
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.units import GIB, MIB
from tests.support.serving import served
from tests.support.starts import call, flowing, start, xml
from tests.support.virtual import Host, aside, run, until
from tests.unit.test_admission import SMALL


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


def test_what_has_started_is_reserved_until_libvirt_can_tell_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first VMs of a boot have run for minutes when the last one is asked for."""
    host = Host(2 * GIB + GIB // 2)
    seen = host.hypervisor.host_facts
    plain: list[Unmanaged] = []

    def facts() -> object:
        return replace(
            seen(), unmanaged=tuple(plain), unmanaged_bytes=sum(one.ordinary_bytes for one in plain)
        )

    monkeypatch.setattr(host.hypervisor, "host_facts", facts)

    async def story() -> None:
        async with served(host, tmp_path) as (controller, _):
            reservations = controller.engine.ledger.reservations
            controller.put(ConnectionChanged(up=False, detail="starting"))
            await asyncio.sleep(1)
            for name, ours in (("managed", True), ("plain", False)):
                body = xml(name, ours=ours)
                assert (await flowing(asyncio.create_task(start(tmp_path, body, name))))[0] == 0
                assert (await aside(call, tmp_path, "started begin", b"", name))[0] == 0
            await asyncio.sleep(600)
            code, said = await flowing(asyncio.create_task(start(tmp_path, xml("three"), "three")))
            assert code == 1
            assert "managed (starting) 1.06 GiB" in said
            controller.put(ConnectionChanged(up=True, detail="it is there"))
            await asyncio.sleep(10)
            assert set(reservations) == {"managed", "plain"}, "it has not told of them yet"
            host.hypervisor.power_on(host.hypervisor.define(GuestSpec("managed", SMALL)))
            plain.append(Unmanaged("u-plain", "plain", GIB))
            await until(lambda: not reservations, "both are seen", limit=10)
            assert controller.engine.headroom_bytes < 512 * MIB

    run(story())


def test_what_has_started_and_is_never_seen_is_given_back_once_libvirt_is_there(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(Host(4 * GIB), tmp_path) as (controller, _):
            await asyncio.sleep(1)
            assert (await flowing(asyncio.create_task(start(tmp_path))))[0] == 0
            assert (await aside(call, tmp_path, "started begin", b""))[0] == 0
            await asyncio.sleep(60)
            assert list(controller.engine.ledger.reservations) == ["new"]
            await until(lambda: not controller.engine.ledger.reservations, "it ran out", limit=90)

    run(story())
