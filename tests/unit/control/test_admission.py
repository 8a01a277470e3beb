"""Starting a VM needs its startup memory: taken from the others, promised, or refused with reasons."""

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from host_controller.api.views import host_view
from host_controller.cli.hook import hook
from host_controller.config.rule import MatchSection, RuleSection
from host_controller.control.start_queue import read_start
from host_controller.control.state_dir import StateDir
from host_controller.core.model import Growth, HostFacts, HugePool, Limits
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.ours import NAMESPACE
from host_controller.domain_xml.read import read_domain
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.units import GIB, MIB
from tests.support.serving import served
from tests.support.starts import HOOK, call, flowing, start, xml
from tests.support.virtual import Host, aside, run, until
from tests.unit.hypervisor.domains import Q35

OVERHEAD = 64 * MIB
SMALL = Limits(GIB, 256 * MIB, 2 * GIB)


@dataclass
class Known:
    """What a host of 16 GiB tells of its huge pages, and of its other memory; both may change meanwhile."""

    pool: HugePool
    ordinary: int | None = None
    others: int = 0

    def facts(self) -> HostFacts:
        return HostFacts(
            0.0,
            16 * GIB,
            4 * GIB,
            ordinary_bytes=self.ordinary,
            others_bytes=self.others,
            pools=(self.pool,),
            default_huge_page_bytes=2 * MIB,
        )


def test_what_a_start_needs_is_all_ram_that_the_guest_can_touch() -> None:
    assert read_start(xml().decode(), OVERHEAD).need_bytes == GIB + OVERHEAD
    dimm = "<memory model='dimm'><target><size unit='KiB'>524288</size></target></memory>"
    numa = xml(devices=dimm).replace(
        b"<devices>", b"<cpu><numa><cell memory='1048576'/></numa></cpu><devices>"
    )
    assert read_start(numa.decode(), 0).need_bytes == GIB + 512 * MIB
    sizes = "<size>1048576</size><requested>262144</requested>"
    virtio = f"<memory model='virtio-mem'><target>{sizes}</target></memory>"
    numa = numa.replace(dimm.encode(), virtio.encode())
    assert read_start(numa.decode(), 0).need_bytes == GIB + 256 * MIB
    assert not read_start(xml(ours=False).decode(), 0).managed


def test_a_start_needs_all_of_its_startup_also_where_it_boots_with_less() -> None:
    prepared = enable(Q35, Limits(2 * GIB, 512 * MIB, 4 * GIB), Growth.VIRTIO_MEM).xml
    assert read_domain(prepared).boot_ram_bytes == GIB
    assert read_start(prepared, OVERHEAD).need_bytes == 2 * GIB + OVERHEAD
    # What is restored has what it had, and is owed nothing.
    restored = prepared.replace("</requested>", "</requested><current unit='KiB'>0</current>")
    assert read_start(restored, OVERHEAD).need_bytes == GIB + OVERHEAD


def test_a_start_that_fits_is_reserved_at_once_and_the_reservation_is_used_up_by_the_vm(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        host = Host()
        host.vm("web")
        async with served(host, tmp_path) as (controller, _):
            await asyncio.sleep(60)
            assert await flowing(asyncio.create_task(start(tmp_path))) == (0, "")
            await until(lambda: "new" in controller.engine.ledger.reservations, "it is reserved")
            new = host.hypervisor.define(GuestSpec("new", SMALL))
            host.hypervisor.power_on(new)
            await until(lambda: not controller.engine.ledger.reservations, "the VM has taken its place")
            assert controller.engine.headroom_bytes >= 0

    run(story())


def test_a_start_that_nobody_was_asked_about_is_known_until_one_is_asked_about_again(tmp_path: Path) -> None:
    """A hook is passed over by a daemon that was up before it, and where SELinux lets nobody execute it."""

    async def story() -> None:
        host = Host()
        host.vm("web")
        async with served(host, tmp_path) as (controller, _):
            await asyncio.sleep(60)
            assert host_view(controller).unasked_start is None, "it ran already"
            host.hypervisor.power_on(host.hypervisor.define(GuestSpec("by-itself", SMALL)))
            await until(lambda: host_view(controller).unasked_start == "by-itself", "somebody sees it")
            assert (await flowing(asyncio.create_task(start(tmp_path))))[0] == 0
            host.hypervisor.power_on(host.hypervisor.define(GuestSpec("new", SMALL)))
            await until(lambda: host_view(controller).unasked_start is None, "this one was asked about")

    run(story())


def test_what_it_was_promised_and_does_not_boot_with_no_other_start_is_given(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host(2 * GIB)
        async with served(host, tmp_path) as (controller, _):
            await asyncio.sleep(2)
            assert (await flowing(asyncio.create_task(start(tmp_path))))[0] == 0
            small = GuestSpec(
                "new", SMALL, growth=Growth.VIRTIO_MEM, boot_ram_bytes=512 * MIB, boot_seconds=3.0
            )
            host.hypervisor.power_on(host.hypervisor.define(small))
            engine = controller.engine
            await until(lambda: not engine.ledger.reservations, "the VM has taken its place")
            assert engine.owed_bytes == 512 * MIB
            assert engine.headroom_bytes == GIB - OVERHEAD
            assert host_view(controller).reserved_bytes == 512 * MIB
            await until(lambda: not engine.owed_bytes, "it has reported")

    run(story())


def test_what_is_missing_is_taken_from_the_others_without_an_overdraft(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host(2 * GIB + 512 * MIB)
        web, db = host.vm("web", limits=SMALL), host.vm("db", limits=SMALL)
        async with served(host, tmp_path) as (controller, _):
            await asyncio.sleep(2)
            assert controller.engine.headroom_bytes < GIB
            answer = await flowing(asyncio.create_task(start(tmp_path)))
            assert answer == (0, "")
            # By the controller's own words: the hook is a process, which takes its time on a busy machine.
            waits, may_start = (one.at for one in controller.journal.entries() if one.topic == "admission")
            assert may_start - waits <= 20
            assert web.actual_bytes + db.actual_bytes < 2 * GIB
            assert controller.engine.ledger.overdraft is None
            assert controller.engine.headroom_bytes >= 0

    run(story())


def test_a_start_that_cannot_be_paid_for_is_refused_with_the_shortfall_and_who_holds_it(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        host = Host(2 * GIB)
        host.vm("web", limits=Limits(GIB, GIB, GIB))
        async with served(host, tmp_path) as (controller, _):
            await asyncio.sleep(30)
            code, said = await flowing(asyncio.create_task(start(tmp_path)))
            assert code == 1
            assert "new cannot start: it needs 1.06 GiB and" in said
            assert "are missing" in said
            assert "web 1.0" in said
            assert not controller.engine.ledger.room_wanted
            assert not controller.engine.ledger.reservations

    run(story())


def test_of_two_starts_at_once_with_room_for_one_one_is_admitted(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host(2 * GIB)
        host.vm("web", limits=Limits(512 * MIB, 512 * MIB, 512 * MIB))
        async with served(host, tmp_path) as (controller, _):
            await asyncio.sleep(60)
            both = [asyncio.create_task(start(tmp_path, name=name)) for name in ("one", "two")]
            codes = sorted([(await flowing(task))[0] for task in both])
            assert codes == [0, 1]
            assert controller.engine.headroom_bytes >= 0

    run(story())


def test_a_reservation_survives_the_controller_and_ends_when_libvirt_lets_go(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host()
        state = StateDir(tmp_path / "run")
        async with served(host, tmp_path, state_dir=state, before=state.open()) as (_, __):
            await asyncio.sleep(5)
            assert (await flowing(asyncio.create_task(start(tmp_path))))[0] == 0
            await asyncio.sleep(1)
        state.close()
        state = StateDir(tmp_path / "run")
        async with served(host, tmp_path, state_dir=state, before=state.open()) as (controller, __):
            await asyncio.sleep(5)
            assert controller.engine.ledger.reservations["new"].size_bytes == GIB + OVERHEAD
            assert (await aside(call, tmp_path, "release end", b""))[0] == 0
            await until(lambda: not controller.engine.ledger.reservations, "it is released")
        state.close()

    run(story())


@pytest.mark.parametrize(
    ("config", "body", "code", "said"),
    [
        ("", xml(), 0, ""),
        ('[admission]\nwithout_controller = "deny"\nwait = 1', xml(), 1, "no controller answers"),
        ('[admission]\nwithout_controller = "deny"\nwait = 1', xml(ours=False), 0, ""),
        ("this is not TOML", xml(), 0, "dynmem.toml"),
    ],
)
def test_without_a_controller_the_configuration_decides(
    tmp_path: Path, config: str, body: bytes, code: int, said: str
) -> None:
    got, text = call(tmp_path, "prepare begin", body, config=config)
    assert got == code
    assert said in text


def test_a_controller_that_is_not_there_holds_up_nothing_else(tmp_path: Path) -> None:
    for moment in ("release end", "started begin", "stopped end", "start begin", "migrate begin"):
        assert call(tmp_path, moment, xml())[0] == 0


def test_bad_xml_is_a_problem_and_a_refusal(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(Host(), tmp_path) as (controller, _):
            await asyncio.sleep(1)
            config = '[admission]\nwithout_controller = "deny"\nwait = 0'
            code, said = await aside(call, tmp_path, "prepare begin", NAMESPACE.encode(), "new", config)
            assert code == 1
            assert "not XML" in said
            assert not controller.engine.ledger.reservations

    run(story())


def test_the_hook_is_installed_removed_and_never_written_over_anothers(tmp_path: Path) -> None:
    directory = tmp_path / "qemu.d"
    arguments = ["--directory", str(directory)]
    runner = CliRunner()
    assert "is installed" in runner.invoke(hook, ["install", *arguments]).output
    file = directory / "dynmem"
    assert os.access(file, os.X_OK)
    assert subprocess.run([file], capture_output=True).returncode == 2
    assert "is removed" in runner.invoke(hook, ["remove", *arguments]).output
    assert "nothing to remove" in runner.invoke(hook, ["remove", *arguments]).output
    file.write_text("#!/bin/sh\nsomebody else's\n")
    for action in ("install", "remove"):
        result = runner.invoke(hook, [action, *arguments])
        assert "not ours" in str(result.exception)
    assert "somebody else's" in file.read_text()


def test_the_hook_needs_nothing_but_the_standard_library() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import hook; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(HOOK.parent)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"libvirt", "click", "msgspec", "host_controller"} & set(loaded)


HUGE = b"<memoryBacking><hugepages/></memoryBacking><devices>"


def test_what_a_start_in_huge_pages_needs_is_ram_of_their_pool_and_qemus_own_of_ordinary_memory() -> None:
    small = xml().replace(b"<devices>", HUGE)
    found = read_start(small.decode(), OVERHEAD)
    assert (found.need_bytes, found.huge_page_bytes, found.huge_bytes) == (OVERHEAD, 0, GIB)
    gigantic = HUGE.replace(b"<hugepages/>", b"<hugepages><page size='1' unit='G'/></hugepages>")
    assert read_start(xml().replace(b"<devices>", gigantic).decode(), 0).huge_page_bytes == GIB
    ordinary = HUGE.replace(b"<hugepages/>", b"<hugepages><page size='4' unit='KiB'/></hugepages>")
    assert read_start(xml().replace(b"<devices>", ordinary).decode(), 0).huge_page_bytes is None


def test_a_vm_that_a_rule_is_for_needs_what_it_will_be_charged_with_as_one_with_limits_of_its_own() -> None:
    """Of an unmanaged one only what does not lie in huge pages is counted."""
    cells = "".join(f"<cell id='{one}' cpus='{one}' memory='524288'/>" for one in (0, 1))
    pages = "<hugepages><page size='2048' unit='KiB' nodeset='1'/></hugepages>"
    partly = f"<cpu><numa>{cells}</numa></cpu><memoryBacking>{pages}</memoryBacking><devices>"
    of_others, ours = (xml(ours=one).decode().replace("<devices>", partly) for one in (False, True))
    rules = (RuleSection(match=MatchSection(name="new")),)
    assert read_start(of_others, 0).need_bytes == GIB // 2
    assert read_start(of_others, 0, rules).need_bytes == read_start(ours, 0, rules).need_bytes == GIB
    assert read_start(of_others, 0, (RuleSection(match=MatchSection(name="db")),)).need_bytes == GIB // 2


def test_a_start_in_huge_pages_is_judged_by_their_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ordinary memory of this host is full, and of its huge pages there is enough for one."""
    host = Host(2 * GIB)
    monkeypatch.setattr(host.hypervisor, "host_facts", Known(HugePool(2 * MIB, 8 * GIB, GIB)).facts)

    async def story() -> None:
        host.vm("web", limits=Limits(GIB, GIB, GIB))
        async with served(host, tmp_path) as (controller, _):
            await asyncio.sleep(30)
            body = {name: xml(name).replace(b"<devices>", HUGE) for name in ("one", "two")}
            assert await flowing(asyncio.create_task(start(tmp_path, body["one"], "one"))) == (0, "")
            (use,) = host_view(controller).pools
            assert (use.reserved_bytes, use.room_bytes) == (GIB, 0)
            code, said = await flowing(asyncio.create_task(start(tmp_path, body["two"], "two")))
            assert code == 1
            assert "two cannot start: it needs 1 GiB in huge pages of 2 MiB" in said
            assert "1 GiB of that are missing" in said
            ordinary = await flowing(asyncio.create_task(start(tmp_path, xml("three"), "three")))
            assert ordinary[0] == 1, "free huge pages are nothing to an ordinary VM"

    run(story())


def test_huge_pages_that_are_made_when_a_vm_starts_are_paid_of_ordinary_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vm.nr_overcommit_hugepages: the pool grows on demand, and ordinary memory shrinks by that."""
    host = Host(4 * GIB - 128 * MIB)
    known = Known(HugePool(2 * MIB, 2 * GIB, 256 * MIB, growable_bytes=8 * GIB))
    monkeypatch.setattr(host.hypervisor, "host_facts", known.facts)

    async def story() -> None:
        host.vm("web", limits=Limits(GIB, GIB, GIB))
        async with served(host, tmp_path) as (controller, _):
            await asyncio.sleep(30)
            ledger = controller.engine.ledger
            before = controller.engine.headroom_bytes
            body = {name: xml(name).replace(b"<devices>", HUGE) for name in ("one", "two", "three")}
            for name, made in (("one", 768 * MIB), ("two", GIB)):
                assert await flowing(asyncio.create_task(start(tmp_path, body[name], name))) == (0, "")
                promised = ledger.reservations[name]
                assert promised.made_bytes == made
                assert promised.size_bytes == made + controller.engine.state.settings.overhead_floor_bytes
            assert controller.engine.headroom_bytes == before - ledger.reserved() < GIB + OVERHEAD
            code, said = await flowing(asyncio.create_task(start(tmp_path, body["three"], "three")))
            assert code == 1, "the pool could grow, and nothing is there to make it of"
            assert "three cannot start" in said
            # As it starts, what was reserved for it becomes huge pages, and is not charged twice.
            reserved = ledger.reserved()
            known.pool = HugePool(2 * MIB, 2 * GIB + 768 * MIB, 0, growable_bytes=8 * GIB - 768 * MIB)
            await until(lambda: ledger.reserved() == reserved - 768 * MIB, "the pool has grown")

    run(story())


def test_huge_pages_that_are_made_of_what_nobody_was_to_have_cost_vms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configured capacity of 2 GiB on a host of 16: another 1.5 GiB may become huge pages beside it."""
    host = Host(2 * GIB)
    known = Known(HugePool(2 * MIB, 0, 0, growable_bytes=8 * GIB), 6 * GIB, 2 * GIB + 512 * MIB)
    monkeypatch.setattr(host.hypervisor, "host_facts", known.facts)

    async def story() -> None:
        async with served(host, tmp_path) as (controller, _):
            await asyncio.sleep(30)
            ledger = controller.engine.ledger
            body = {name: xml(name).replace(b"<devices>", HUGE) for name in ("one", "two", "three")}
            for name, made in (("one", 0), ("two", 512 * MIB), ("three", GIB)):
                assert await flowing(asyncio.create_task(start(tmp_path, body[name], name))) == (0, "")
                assert ledger.reservations[name].made_bytes == made, name
            reserved = ledger.reserved()
            for made, ordinary in ((GIB, 5 * GIB), (1536 * MIB, 6 * GIB - 1536 * MIB)):
                known.ordinary = ordinary
                known.pool = HugePool(2 * MIB, made, 0, growable_bytes=8 * GIB - made)
                await until(lambda: ledger.pools[2 * MIB] == known.pool.total_bytes, "the pool has grown")
                assert (ledger.reserved(), ledger.capacity()) == (reserved, 2 * GIB)
            known.pool = HugePool(2 * MIB, 2 * GIB, 0, growable_bytes=6 * GIB)
            await until(lambda: ledger.reserved() == reserved - 512 * MIB, "what was reserved is being made")

    run(story())


def test_more_room_is_asked_for_when_free_huge_pages_go_to_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(GIB + OVERHEAD + 32 * MIB)
    known = Known(HugePool(2 * MIB, GIB, GIB, growable_bytes=GIB))
    monkeypatch.setattr(host.hypervisor, "host_facts", known.facts)

    async def story() -> None:
        host.vm("web", limits=Limits(GIB, GIB, GIB))
        async with served(host, tmp_path) as (controller, _):
            await asyncio.sleep(30)
            wanted = controller.engine.ledger.room_wanted
            starting = asyncio.create_task(start(tmp_path, xml().replace(b"<devices>", HUGE)))
            going = asyncio.create_task(flowing(starting))
            await until(lambda: wanted.get("new") == OVERHEAD, "it waits")
            known.pool = HugePool(2 * MIB, GIB, 0, growable_bytes=GIB)
            await until(lambda: wanted.get("new") == OVERHEAD + GIB, "it wants more")
            await going

    run(story())


def test_a_start_tried_again_is_not_refused_for_the_huge_pages_of_its_first_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(4 * GIB)
    monkeypatch.setattr(host.hypervisor, "host_facts", Known(HugePool(2 * MIB, GIB, GIB)).facts)

    async def story() -> None:
        async with served(host, tmp_path):
            await asyncio.sleep(30)
            for _ in range(2):
                again = asyncio.create_task(start(tmp_path, xml().replace(b"<devices>", HUGE)))
                assert await flowing(again) == (0, "")

    run(story())
