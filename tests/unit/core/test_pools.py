"""Huge pages: who has what of each pool, and what the next VM can have."""

from host_controller.core.books.ledger import Ledger
from host_controller.core.books.pools import PoolUse, made_bytes, page_size, pools, ram_in_pool, room_bytes
from host_controller.core.model import HostFacts, HugePool
from host_controller.core.operator_events import Reserve
from host_controller.core.vm.record import Vm
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import GIB, MIB
from tests.support import build

SMALL, LARGE = 2 * MIB, GIB
HOST = HostFacts(
    1.0,
    64 * GIB,
    32 * GIB,
    pools=(HugePool(SMALL, 4 * GIB, 3 * GIB, growable_bytes=GIB), HugePool(LARGE, 8 * GIB, 2 * GIB)),
    default_huge_page_bytes=SMALL,
)


def vm(page_bytes: int | None, **config: object) -> Vm:
    return build.vm(512, config={"huge_page_bytes": page_bytes} | config)


def promised(page_bytes: int | None, huge_mib: int, name: str = "new") -> Reserve:
    return Reserve(name, 0, 60.0, page_bytes, huge_mib * MIB)


def test_a_pool_is_used_by_the_vms_in_it_and_promised_to_those_that_are_to_start() -> None:
    vms = [vm(0), vm(SMALL), vm(LARGE), vm(None)]
    kept = {str(size): promised(size, mib, str(size)) for size, mib in ((0, 100), (SMALL, 200), (None, 400))}
    assert pools(HOST, vms, kept) == [
        PoolUse(SMALL, 4 * GIB, 3 * GIB, 1024 * MIB, 300 * MIB, 4 * GIB - 300 * MIB),
        PoolUse(LARGE, 8 * GIB, 2 * GIB, 512 * MIB, 0, 2 * GIB),
    ]


def test_a_pool_that_the_host_does_not_have_is_named_all_the_same() -> None:
    assert pools(HOST, [vm(64 * MIB)], {})[1] == PoolUse(64 * MIB, 0, 0, 512 * MIB, 0, 0)
    assert pools(None, [vm(SMALL)], {"new": promised(SMALL, 10)}) == [
        PoolUse(SMALL, 0, 0, 512 * MIB, 10 * MIB, 0)
    ]
    asked = pools(HostFacts(1.0, GIB, GIB), [], {"new": promised(SMALL, 10)})
    assert asked == [PoolUse(SMALL, 0, 0, 0, 10 * MIB, 0)]


def test_the_default_size_is_the_hosts_and_unknown_before_the_first_reading() -> None:
    assert page_size(0, HOST) == SMALL
    assert page_size(0, None) is None
    assert page_size(LARGE, None) == LARGE
    assert page_size(None, HOST) is None


def test_a_vm_has_all_ram_that_its_guest_could_touch_of_its_pool() -> None:
    one = build.vm(512, dimms_mib=(128,), pending_bytes=256 * MIB, config={"virtio_mem_bytes": 64 * MIB})
    assert ram_in_pool(one) == (512 + 128 + 256 + 64) * MIB
    more = build.vm(512, virtio_mem=VirtioMem(96 * MIB, 96 * MIB), config={"virtio_mem_bytes": 64 * MIB})
    assert ram_in_pool(more) == (512 + 96) * MIB


def test_the_next_vm_can_have_what_is_free_less_what_was_promised() -> None:
    assert room_bytes(LARGE, HOST, {}) == 2 * GIB
    assert room_bytes(0, HOST, {"new": promised(SMALL, 1024)}) == 3 * GIB
    assert room_bytes(SMALL, HOST, {"new": promised(SMALL, 5000)}) == 0
    assert room_bytes(64 * MIB, HOST, {}) == 0
    assert room_bytes(0, None, {}) == 0


def test_pages_that_are_not_there_yet_are_made_of_ordinary_memory() -> None:
    assert made_bytes(SMALL, 3 * GIB, HOST, {}) == 0, "they are all free"
    assert made_bytes(SMALL, 4 * GIB, HOST, {}) == GIB
    assert made_bytes(SMALL, 3 * GIB, HOST, {"new": promised(SMALL, 2048)}) == 2 * GIB
    assert made_bytes(LARGE * 2, GIB, HOST, {}) == 0, "there is no such pool"
    assert made_bytes(SMALL, GIB, None, {}) == 0


def test_what_has_become_huge_pages_is_not_reserved_beside_them() -> None:
    ledger = Ledger(build.settings())
    ledger.measure(ledger.settings, HOST)
    pool = ledger.pools[SMALL]
    assert pool == 4 * GIB
    ledger.reservations = {
        "first": Reserve("first", 3 * GIB, 100.0, SMALL, 2 * GIB, 2 * GIB, pool),
        "second": Reserve("second", 2 * GIB, 100.0, SMALL, GIB, GIB, pool + 2 * GIB),
        "ordinary": Reserve("ordinary", GIB, 100.0),
    }
    for grown, reserved in ((0, 6 * GIB), (GIB, 5 * GIB), (2 * GIB, 4 * GIB), (9 * GIB, 3 * GIB)):
        ledger.pools[SMALL] = pool + grown
        assert ledger.reserved() == reserved
    ledger.pools[SMALL] = pool - GIB
    assert ledger.reserved() == 6 * GIB, "a pool that was made smaller frees nothing that was promised"
