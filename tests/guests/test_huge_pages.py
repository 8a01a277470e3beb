"""A guest in huge pages on a real host: its pool pays for it, and ordinary memory does not."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_controller.host.census import Census
from host_controller.host.identity import Identity
from host_controller.host.memory import read_memory, read_pools
from host_controller.units import MIB
from lab.controller import Limits
from lab.lab import Lab
from tests.guests.conftest import RigFactory

PAGE = 2 * MIB
PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
LIMITS = Limits(startup=384, minimum=160, maximum=512)
RAM = LIMITS.startup * MIB
SPARE_PAGES = 4


@pytest.fixture
def reserved() -> Iterator[int]:
    """Bytes of huge pages on the host, enough for the guest; given back afterwards."""
    if not os.access(PAGES, os.W_OK):
        pytest.skip("huge pages cannot be reserved here")
    before = int(PAGES.read_text())
    wanted = before + RAM // PAGE + SPARE_PAGES
    PAGES.write_text(str(wanted))
    try:
        if int(PAGES.read_text()) < wanted:
            pytest.skip(f"the kernel has no {wanted} huge pages in one piece")
        yield wanted * PAGE
    finally:
        PAGES.write_text(str(before))


def test_a_guest_in_huge_pages_is_charged_to_their_pool_and_not_to_ordinary_memory(
    lab: Lab, make_rig: RigFactory, reserved: int
) -> None:
    rig = make_rig(2000, session=lab.new_session(huge_pages=True))
    empty = rig.controller.wait_for(lambda status: bool(status["host"]["pools"]), 60, "a pool")["host"]
    assert empty["pools"][0]["total_bytes"] == reserved
    assert empty["ordinary_bytes"] == empty["physical_bytes"] - reserved

    guest = rig.add("huge", LIMITS, huge_pages=True)

    vm, host = rig.controller.vm(guest), rig.controller.status()["host"]
    assert vm["huge_page_bytes"] == PAGE
    assert host["pools"][0]["vms_bytes"] == RAM
    assert host["pools"][0]["room_bytes"] == reserved - RAM
    assert vm["charge_bytes"] < RAM // 2, "QEMU's own, and none of its RAM"
    held = {one.pid: one.held_bytes for one in Census().look(0.0)}
    pid = Identity(rig.session.uri).find(vm["uuid"])
    assert pid is not None
    assert held[pid] < RAM, "its resident size leaves huge pages out"
    memory = read_memory()
    assert memory.pools == read_pools()
    assert memory.pools[0].free_bytes <= reserved - RAM, "QEMU really has them"
