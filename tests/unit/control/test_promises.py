"""A promise, its renewals and the start that takes it up: they are of one VM, and cost no other memory."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from host_controller.api.figures import admits, figures_view, vm_figures
from host_controller.control.admission import TAKEN_SECONDS, Admission, Answer
from host_controller.control.controller import Controller
from host_controller.control.promises import PromiseRefused, Promises
from host_controller.control.start_queue import Start
from host_controller.control.state_dir import StateDir
from host_controller.core.model import Unmanaged
from host_controller.core.operator_events import Release, Reserve
from host_controller.units import GIB, MIB
from tests.support.virtual import Host, run, until

BY: dict[str, object] = {}
WAIT_SECONDS = 20.0


class Desk:
    """Where one controller is asked for memory."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.books = controller.engine.ledger
        self.admission = Admission(controller, WAIT_SECONDS)
        self.promises = Promises(controller, self.admission)

    def starting(self, name: str, size_bytes: int) -> "asyncio.Task[Answer]":
        return asyncio.create_task(self.admission.admit(Start(name, managed=True, need_bytes=size_bytes)))

    def promise(
        self, name: str, size_bytes: int, token: str = "ours", huge_bytes: int = 0
    ) -> "asyncio.Task[Answer]":
        page = 2 * MIB if huge_bytes else None
        start = Start(name, True, size_bytes, page, huge_bytes)
        return asyncio.create_task(self.promises.make(start, token, BY))

    async def hold(self, size_bytes: int, seconds: float) -> None:
        """Somebody else has that for so long."""
        self.controller.put(Reserve("holder", size_bytes, self.controller.now() + seconds))
        await until(lambda: "holder" in self.books.reservations, "it is held")


def test_a_promise_is_taken_up_by_its_own_start_though_another_start_waits_for_memory() -> None:
    async def story() -> None:
        async with Host(2 * GIB).controller() as controller:
            desk = Desk(controller)
            await asyncio.sleep(2)
            assert (await desk.promise("new", GIB)).admitted
            other = desk.starting("other", GIB + 256 * MIB)
            await until(lambda: "other" in desk.books.room_wanted, "it waits")
            assert (await desk.starting("new", GIB + 64 * MIB)).admitted
            assert not (await other).admitted
            assert desk.books.reserved() == GIB + 64 * MIB
            assert desk.books.wanted() == 0

    run(story())


def test_a_start_that_needs_more_than_was_promised_waits_for_the_rest_alone() -> None:
    async def story() -> None:
        async with Host(2 * GIB).controller() as controller:
            desk = Desk(controller)
            await asyncio.sleep(2)
            assert (await desk.promise("new", GIB)).admitted
            await desk.hold(GIB, WAIT_SECONDS / 2)
            start = desk.starting("new", GIB + 64 * MIB)
            await until(lambda: desk.books.wanted() == 64 * MIB, "it waits for the rest")
            assert desk.books.reserved_for("new") == GIB
            assert (await start).admitted
            assert (desk.books.wanted(), desk.books.reserved()) == (0, GIB + 64 * MIB)

    run(story())


def test_who_renews_a_promise_is_in_nobodys_way_while_its_start_waits() -> None:
    async def story() -> None:
        async with Host(2 * GIB).controller() as controller:
            desk = Desk(controller)
            await asyncio.sleep(2)
            assert (await desk.promise("new", 512 * MIB)).admitted
            await desk.hold(GIB, WAIT_SECONDS / 2)
            start = desk.starting("new", GIB + 256 * MIB)
            await until(lambda: desk.books.wanted() > 0, "it waits")
            wanted = dict(desk.books.room_wanted)
            for size in (512 * MIB, GIB):
                with pytest.raises(PromiseRefused, match="about to start here"):
                    await desk.promise("new", size)
            assert desk.books.room_wanted == wanted
            assert (await start).admitted
            assert desk.books.reserved() == GIB + 256 * MIB

    run(story())


@pytest.mark.parametrize("size_bytes", [64 * MIB, 4 * GIB])
def test_who_renews_or_takes_back_a_promise_leaves_the_start_its_own_that_has_taken_it_up(
    size_bytes: int,
) -> None:
    """A VM in huge pages starts with little of ordinary memory: what was promised may be more than that."""

    async def story() -> None:
        async with Host(8 * GIB).controller() as controller:
            desk = Desk(controller)
            await asyncio.sleep(2)
            assert (await desk.promise("new", size_bytes)).admitted
            controller.put(Reserve("new", GIB, controller.now() + 60, 2 * MIB, 2 * GIB, 960 * MIB, 3 * GIB))
            await until(lambda: desk.books.reservations["new"].huge_bytes, "its start has come")
            begun = desk.books.reservations["new"]
            with pytest.raises(PromiseRefused, match="is starting here"):
                await desk.promise("new", size_bytes)
            assert not desk.promises.release("new", "ours")
            await asyncio.sleep(TAKEN_SECONDS)
            assert desk.books.reservations["new"] == begun

    run(story())


def test_a_promise_outlives_the_controller_with_the_right_of_its_asker(tmp_path: Path) -> None:
    async def story() -> None:
        state = StateDir(tmp_path)
        async with Host().controller(state_dir=state, before=state.open()) as controller:
            await asyncio.sleep(2)
            assert (await Desk(controller).promise("new", GIB)).admitted
            await asyncio.sleep(1)
        state.close()
        state = StateDir(tmp_path)
        async with Host().controller(state_dir=state, before=state.open()) as controller:
            desk = Desk(controller)
            await asyncio.sleep(2)
            expires = desk.books.reservations["new"].expires
            with pytest.raises(PromiseRefused, match="somebody else's wish"):
                await desk.promise("new", GIB, "theirs")
            assert (await desk.promise("new", GIB)).admitted
            await until(lambda: desk.books.reservations["new"].expires > expires, "it is renewed")
            assert not desk.promises.release("new", "theirs")
            assert desk.promises.release("new", "ours")
            await until(lambda: not desk.books.reservations, "it is taken back")
        state.close()

    run(story())


def test_of_two_starts_of_one_vm_the_later_one_counts_and_neither_leaves_anything() -> None:
    """libvirtd was restarted while its hook waited, and asks again."""

    async def story() -> None:
        async with Host(2 * GIB).controller() as controller:
            desk = Desk(controller)
            await asyncio.sleep(2)
            await desk.hold(GIB + 512 * MIB, WAIT_SECONDS + 5)
            first = desk.starting("new", GIB)
            await asyncio.sleep(WAIT_SECONDS / 2)
            second = desk.starting("new", GIB)
            answer = await first
            assert not answer.admitted
            assert "asked for again" in answer.message
            assert controller.now() < WAIT_SECONDS
            assert desk.books.wanted() == GIB
            assert (await second).admitted
            controller.put(Release("new"))
            await until(lambda: not desk.books.reservations and not desk.books.room_wanted, "nothing is left")

    run(story())


def test_a_start_that_is_asked_for_while_a_promise_of_it_waits_comes_first() -> None:
    async def story() -> None:
        async with Host(2 * GIB).controller() as controller:
            desk = Desk(controller)
            await asyncio.sleep(2)
            await desk.hold(GIB + 512 * MIB, WAIT_SECONDS / 2)
            asked = desk.promise("new", GIB)
            await until(lambda: desk.books.wanted() > 0, "it waits")
            start = desk.starting("new", GIB)
            assert not (await asked).admitted
            assert (await start).admitted
            assert desk.books.reserved() == GIB
            assert desk.books.reservations["new"].token == ""

    run(story())


def test_a_host_that_only_watches_promises_nothing_and_offers_what_is_free_without_squeezing_anybody() -> (
    None
):
    async def story() -> None:
        host = Host(2 * GIB)
        host.vm("web")
        async with host.controller(dry_run=True) as controller:
            desk, engine = Desk(controller), controller.engine
            await asyncio.sleep(60)
            with pytest.raises(PromiseRefused, match="dry run"):
                await desk.promise("new", 64 * MIB)
            assert not desk.books.reservations
            vms = [vm_figures(controller, vm) for vm in engine.vms.values()]
            assert sum(one.charge_bytes - (one.need_bytes or 0) for one in vms) > 256 * MIB, (
                "there is much to take"
            )
            offered = figures_view(controller, desk.admission, vms).admits_bytes
            assert offered == engine.headroom_bytes > 0

    run(story())


def test_what_was_taken_since_a_vm_was_asked_for_its_figures_is_not_offered_twice() -> None:
    async def story() -> None:
        host = Host(2 * GIB)
        host.vm("web")
        async with host.controller() as controller:
            await asyncio.sleep(60)
            (now,) = [vm_figures(controller, vm) for vm in controller.engine.vms.values()]
            before = structs.replace(now, charge_bytes=now.charge_bytes + 256 * MIB)
            desk = Admission(controller)
            assert admits(controller, desk, [before]) == admits(controller, desk, [now])

    run(story())


def test_a_vm_that_runs_here_is_promised_nothing_also_where_nobody_manages_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another host has a VM of its name, and would send it here."""
    host = Host(4 * GIB)
    seen = host.hypervisor.host_facts
    plain = (Unmanaged("u", "plain", GIB),)
    monkeypatch.setattr(host.hypervisor, "host_facts", lambda: replace(seen(), unmanaged=plain))

    async def story() -> None:
        host.vm("web")
        async with host.controller() as controller:
            desk = Desk(controller)
            await asyncio.sleep(10)
            for name in ("web", "plain"):
                with pytest.raises(PromiseRefused, match="runs here"):
                    await desk.promise(name, 64 * MIB)

    run(story())
