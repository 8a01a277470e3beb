"""A limit on a control group above the VMs bounds them, whatever the host has."""

import os
from pathlib import Path, PurePosixPath

import pytest

from host_controller.host.limits import above, group_of, of_its_own, tightest
from host_controller.host.watch import HostWatch, VmMemory
from host_controller.units import GIB
from tests.support.fake_host import UUID, FakeHost

SCOPE = "0::/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt/emulator"
HOST_BYTES = 64 * GIB


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def left(host: FakeHost, qemus: dict[int, int] | None = None) -> tuple[int, str] | None:
    found = tightest(qemus or {}, host.root, HOST_BYTES)
    return None if found is None else (found.left_bytes, found.group)


def test_without_a_limit_nothing_is_bounded(host: FakeHost) -> None:
    host.group("machine.slice", max="max", high="max", current=GIB, stat="")
    assert left(host) is None


@pytest.mark.parametrize("name", ["max", "high"])
def test_machine_slice_bounds_also_what_is_yet_to_start(host: FakeHost, name: str) -> None:
    host.group("machine.slice", **{name: 16 * GIB})
    assert left(host) == (16 * GIB, f"memory.{name} of machine.slice")


def test_what_else_is_in_the_slice_is_taken_off_and_its_cache_is_not(host: FakeHost) -> None:
    host.qemu(40, UUID, 3 * GIB, cgroup=SCOPE)
    stat = f"anon {5 * GIB}\ninactive_file {GIB}\nactive_file {GIB}"
    host.group("machine.slice", max=16 * GIB, current=7 * GIB, stat=stat)
    assert left(host, {40: 3 * GIB}) == (14 * GIB, "memory.max of machine.slice")


def test_the_limit_of_a_vms_own_scope_is_that_vms_alone(host: FakeHost) -> None:
    host.qemu(40, UUID, GIB, cgroup=SCOPE)
    host.group("machine.slice/machine-qemu\\x2d1\\x2dweb.scope", max=2 * GIB)
    assert left(host, {40: GIB}) is None


@pytest.mark.parametrize("name", ["max", "high"])
@pytest.mark.parametrize("inner", ["", "/libvirt"])
def test_a_limit_on_a_vms_own_group_is_found_whoever_set_it(host: FakeHost, name: str, inner: str) -> None:
    host.qemu(40, UUID, GIB, cgroup=SCOPE)
    assert of_its_own(40, host.root) is None
    scope = "machine-qemu\\x2d1\\x2dweb.scope"
    host.group("machine.slice", max=GIB)
    host.group(f"machine.slice/{scope}{inner}", **{name: 2 * GIB})
    found = of_its_own(40, host.root)
    assert found is not None
    assert (found.left_bytes, found.group) == (2 * GIB, f"memory.{name} of {inner[1:] or scope}")


def test_a_group_that_others_are_in_is_no_vms_own(host: FakeHost) -> None:
    host.process(41, GIB, cgroup="0::/user.slice/user-1.slice/session-2.scope")
    host.group("user.slice/user-1.slice/session-2.scope", max=2 * GIB)
    assert of_its_own(41, host.root) is None
    assert of_its_own(99, host.root) is None, "there is no such process"


def test_the_tightest_of_several_groups_counts(host: FakeHost) -> None:
    host.qemu(40, UUID, GIB, cgroup="0::/vms.slice/vms-web.slice/machine-qemu\\x2d1\\x2dweb.scope")
    host.group("vms.slice", max=20 * GIB)
    host.group("vms.slice/vms-web.slice", high=12 * GIB)
    assert left(host, {40: GIB}) == (12 * GIB, "memory.high of vms-web.slice")


def test_what_vms_hold_outside_of_the_group_does_not_count_against_it(host: FakeHost) -> None:
    host.qemu(40, UUID, GIB, cgroup=SCOPE)
    host.process(41, 5 * GIB, cgroup="0::/other.slice/x.scope")
    host.group("machine.slice", max=16 * GIB, current=GIB)
    assert left(host, {40: GIB, 41: 5 * GIB}) == (21 * GIB, "memory.max of machine.slice")


OF_A_TENANT = "0::/tenants.slice/tenants-one.slice/machine-qemu\\x2d{0}\\x2dweb.scope"
"""<resource><partition>/tenants/one</partition></resource>"""


@pytest.mark.parametrize(
    ("tenants", "could_take_gib", "expected_gib"),
    [
        ([40], {40: 4, 41: 8}, None),
        ([40], {40: 9, 41: 8}, 8 + 5),
        ([40], {41: 8}, 8 + 5),  # nobody knows what it could take
        ([40, 42], {40: 4, 41: 8, 42: 4}, None),
        ([40, 42], {40: 4, 41: 8, 42: 5}, 8 + 5),
    ],
)
def test_a_slice_that_has_room_for_all_of_its_vms_bounds_no_others(
    host: FakeHost, tenants: list[int], could_take_gib: dict[int, int], expected_gib: int | None
) -> None:
    """A VM of 2 GiB in a slice of 2.5 GiB bounded all that the host's other VMs could have."""
    for pid in tenants:
        host.process(pid, GIB, cgroup=OF_A_TENANT.format(pid))
    host.process(41, 5 * GIB, cgroup=SCOPE)
    host.group("tenants.slice/tenants-one.slice", max=8 * GIB, current=len(tenants) * GIB)
    held = dict.fromkeys(tenants, GIB) | {41: 5 * GIB}
    could_take = {pid: gib * GIB for pid, gib in could_take_gib.items()}
    found = tightest(held, host.root, HOST_BYTES, could_take=could_take)
    assert (None if found is None else found.left_bytes // GIB) == expected_gib


def test_a_slice_of_all_vms_bounds_them_whatever_they_could_take(host: FakeHost) -> None:
    for pid in (40, 41):
        host.process(pid, GIB, cgroup=OF_A_TENANT.format(pid))
    host.group("tenants.slice", max=8 * GIB)
    found = tightest({40: GIB, 41: GIB}, host.root, HOST_BYTES, could_take={40: GIB, 41: GIB})
    assert found is not None
    host.group("tenants.slice", max="max")
    host.group("machine.slice", max=8 * GIB)  # where the next one starts
    found = tightest({40: GIB}, host.root, HOST_BYTES, could_take={40: GIB})
    assert found is not None
    assert found.group == "memory.max of machine.slice"


def test_a_slice_that_one_vm_is_alone_in_is_its_own(host: FakeHost) -> None:
    host.process(40, GIB, cgroup=OF_A_TENANT.format(40))
    host.process(41, GIB, cgroup=SCOPE)
    host.group("tenants.slice/tenants-one.slice", max=8 * GIB)
    host.group("machine.slice", max=4 * GIB)
    found = of_its_own(40, host.root, (40, 41))
    assert found is not None
    assert (found.left_bytes, found.group) == (8 * GIB, "memory.max of tenants-one.slice")
    assert of_its_own(41, host.root, (40, 41)) is None, "others start there"
    assert of_its_own(40, host.root, (40,)) is None, "nobody is elsewhere: it bounds what all VMs have"
    host.process(42, GIB, cgroup=OF_A_TENANT.format(42))
    assert of_its_own(40, host.root, (40, 41, 42)) is None


def test_the_service_in_which_a_libvirt_without_machined_keeps_its_vms_bounds_them(host: FakeHost) -> None:
    host.qemu(40, UUID, GIB, cgroup="0::/system.slice/libvirtd.service")
    host.group("system.slice/libvirtd.service", max=8 * GIB)
    assert left(host, {40: GIB}) == (8 * GIB, "memory.max of libvirtd.service")


def test_a_login_session_is_no_group_of_a_vms_own(host: FakeHost) -> None:
    """A session's libvirtd that was started by hand has its VMs beside it."""
    host.qemu(40, UUID, GIB, cgroup="0::/user.slice/user-1000.slice/session-3.scope")
    host.group("user.slice/user-1000.slice/session-3.scope", high=6 * GIB)
    assert left(host, {40: GIB}) == (6 * GIB, "memory.high of session-3.scope")


def test_what_bounds_somebody_elses_qemu_bounds_none_of_ours(host: FakeHost) -> None:
    host.process(50, GIB, "qemu-system-x86_64", cgroup="0::/docker/abc")
    host.group("docker/abc", max=2 * GIB)
    assert host.watch().read(0.0, {}).limit_bytes is None
    host.qemu(40, UUID, GIB, cgroup="0::/docker/abc")
    assert host.watch().read(0.0, {}).limit_bytes is not None


def test_a_container_around_all_of_it_bounds_them(host: FakeHost) -> None:
    host.group("/", max=8 * GIB, current=2 * GIB)
    found = left(host)
    assert found is not None
    assert found[0] == 6 * GIB


def test_a_limit_beyond_the_hosts_memory_is_none(host: FakeHost) -> None:
    host.group("machine.slice", max=HOST_BYTES)
    assert left(host) is None


def test_cgroup_v1_is_understood(host: FakeHost) -> None:
    line = "9:cpu,cpuacct:/x\n4:memory:/machine/qemu-1-web.libvirt-qemu/emulator\n0::/"
    host.qemu(40, UUID, GIB, cgroup=line)
    host.group("/", old=True, limit_in_bytes=9223372036854771712)
    host.group("machine", old=True, limit_in_bytes=16 * GIB, usage_in_bytes=2 * GIB)
    assert left(host, {40: GIB}) == (15 * GIB, "memory.limit_in_bytes of machine")


def test_memory_of_cgroup_v2_beside_other_controllers_of_v1_is_understood(host: FakeHost) -> None:
    """`cgroup_no_v1=memory`, or OpenRC with memory among its unified controllers."""
    host.write("sys/fs/cgroup/unified/cgroup.controllers", "memory\n")
    host.write("sys/fs/cgroup/cpu/cpu.shares", "1024\n")
    line = "9:cpu,cpuacct:/machine.slice\n0::/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt/emulator"
    host.qemu(40, UUID, GIB, cgroup=line)
    host.group("unified/machine.slice", max=16 * GIB, current=3 * GIB)
    assert left(host, {40: GIB}) == (14 * GIB, "memory.max of machine.slice")


def test_what_a_users_own_libvirt_starts_is_bounded_by_what_is_around_that_user(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not by a slice of the system's, where none of it is; also before the first VM runs."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    host.group("machine.slice", max=2 * GIB)
    host.group("user.slice/user-1000.slice", max=12 * GIB)
    own = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/dynmem.service"
    host.process(os.getpid(), 0, "dynmem", name="dynmem", cgroup=own)
    host.group(own.partition("/")[2], max=GIB)
    session = HostWatch("qemu:///session", root=host.root).read(0.0, {})
    assert (session.limit_bytes, session.limited_by) == (12 * GIB, "memory.max of user-1000.slice")
    system = HostWatch("qemu:///system", root=host.root).read(0.0, {})
    assert (system.limit_bytes, system.limited_by) == (2 * GIB, "memory.max of machine.slice")


@pytest.mark.parametrize("text", ["", "nonsense", "0::", "1:name=systemd:/x", "0::/../../x", "0::x"])
def test_a_process_without_a_memory_group_is_bounded_by_none(text: str) -> None:
    assert group_of(text) is None


def test_the_groups_above_a_vm_begin_over_its_own() -> None:
    found = above(PurePosixPath("/machine.slice/machine-qemu.scope/libvirt/vcpu0"))
    assert found == [PurePosixPath("/machine.slice"), PurePosixPath("/")]


@pytest.mark.parametrize("old", [False, True])
def test_vms_that_are_held_to_some_nodes_have_the_memory_of_no_other(host: FakeHost, old: bool) -> None:
    """AllowedMemoryNodes=0 of machine.slice on a host with two nodes of 32 GiB."""
    host.node(0, 32 * GIB, used=7 * GIB)
    host.node(1, 32 * GIB)
    mems = "sys/fs/cgroup/machine.slice/cpuset.mems.effective"
    cgroup = SCOPE
    if old:
        host.group("", old=True, limit_in_bytes=9223372036854771712)
        mems, cgroup = "sys/fs/cgroup/cpuset/machine.slice/cpuset.effective_mems", f"4:memory{SCOPE[2:]}"
    host.qemu(40, UUID, 3 * GIB, cgroup=cgroup)
    host.write(mems, "0-1\n")
    assert left(host, {40: 3 * GIB}) is None
    host.write(mems, "0\n")
    assert left(host, {40: 3 * GIB}) == (28 * GIB, "cpuset.mems of machine.slice")
    host.write("sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages", "4\n")
    assert left(host, {40: 3 * GIB}) == (28 * GIB, "cpuset.mems of machine.slice"), "used counts them already"
    host.node(0, 32 * GIB, used=8 * GIB, **{"Active(file)": GIB})
    assert left(host, {40: 3 * GIB}) == (28 * GIB, "cpuset.mems of machine.slice")
    found = host.watch().read(0, {UUID: VmMemory(True, 4 * GIB)})
    assert (found.limit_bytes, found.limited_by) == (28 * GIB, "cpuset.mems of machine.slice")


def test_huge_pages_of_a_node_are_none_that_vms_in_ordinary_pages_get(host: FakeHost) -> None:
    host.node(0, 32 * GIB, used=20 * GIB)
    host.node(1, 32 * GIB)
    host.write("sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", f"{8 * 512}\n")
    host.write("sys/fs/cgroup/machine.slice/cpuset.mems.effective", "0\n")
    assert left(host) == (12 * GIB, "cpuset.mems of machine.slice")


@pytest.mark.parametrize("text", ["", "0-x", "1-", "99999", "x"])
def test_nodes_that_are_no_list_of_nodes_bound_nothing(host: FakeHost, text: str) -> None:
    host.node(0, 32 * GIB)
    host.node(1, 32 * GIB)
    host.write("sys/fs/cgroup/machine.slice/cpuset.mems.effective", f"{text}\n")
    assert left(host) is None
