"""What is published never gives the engine a reason to move or stop a VM."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from host_controller.fleet.core.booking import Booking
from host_controller.fleet.core.model import Cell, HostFigures, Node, Resource, VmFigures
from host_controller.fleet.core.publication import BAND_MIB, LARGEST_MIB, Publication, publication
from host_controller.units import GIB, MIB
from tests.unit.fleet.cells import CAPACITY, cell, host, unmanaged, vm

CAPACITY_MIB = CAPACITY // MIB


def published(one: Cell, before: dict[str, Booking] | None = None, now: float = 0.0) -> Publication:
    return publication(one, before or {}, now)[0]


def test_a_host_publishes_what_is_booked_there_and_what_it_could_admit() -> None:
    found = published(cell({"a": host(vm("web", 8 * GIB))}))
    assert found.vms == {"web": 9216}
    assert found.hosts == {"a": 9216 + 56 * 1024}


def test_an_overdrawn_host_publishes_what_is_booked_there_and_offers_nothing() -> None:
    found = published(cell({"a": host(vm("web", 60 * GIB), vm("db", 20 * GIB))}))
    assert found.hosts["a"] == sum(found.vms.values()) == 90 * 1024


def test_a_host_that_does_not_answer_keeps_the_sum_of_its_vms_and_offers_nothing() -> None:
    web = Resource("web", "b", 5000)
    found = published(cell({"a": host(), "b": None}, (web,), {"b": 40000}))
    assert found.vms["web"] == 5000
    assert found.hosts == {"a": CAPACITY_MIB, "b": 5000}


def test_a_host_out_of_sight_keeps_room_for_a_vm_that_the_engine_would_start_elsewhere() -> None:
    web = Resource("web", "a", 5000, also_on=frozenset({"b"}))
    found = published(cell({"a": host(), "b": None}, (web,), {"b": 40000}))
    assert found.hosts == {"a": CAPACITY_MIB, "b": 5000}, "it runs on b as soon as b is back"


def test_what_the_engine_is_bringing_takes_its_part_of_what_the_host_could_admit() -> None:
    coming = Resource("new", "a", 10 * 1024)
    found = published(cell({"a": host(vm("web", 8 * GIB))}, (coming,)))
    assert found.hosts["a"] == 9216 + 10 * 1024 + (56 - 10) * 1024


def test_a_vm_that_its_host_does_not_manage_runs_there_and_has_the_size_that_it_has() -> None:
    figures = host(vm("web", 8 * GIB), unmanaged=(unmanaged("fixed", 4 * GIB),), admits_bytes=52 * GIB)
    found = published(cell({"a": figures}, (Resource("fixed", "a", 5000),)))
    assert found.vms == {"web": 9216, "fixed": 4096}
    assert found.hosts["a"] == 9216 + 4096 + 52 * 1024


def test_a_stopped_vm_counts_nowhere_and_has_the_size_of_its_start() -> None:
    stopped = Resource("new", None, 10, startup_mib=1088)
    found = published(cell({"a": host()}, (stopped,)))
    assert found.vms == {"new": 1088}
    assert found.hosts["a"] == CAPACITY_MIB


def test_a_stopped_vm_whose_definition_cannot_be_read_keeps_its_size() -> None:
    assert published(cell({"a": host()}, (Resource("new", None, 10),))).vms == {"new": 10}


def test_a_running_vm_without_figures_or_size_is_left_out() -> None:
    assert published(cell({"a": None}, (Resource("new", "a"),))).vms == {}


def test_a_vm_is_believed_to_be_where_the_engine_has_it_and_the_other_host_is_told_of() -> None:
    two = {"a": host(vm("web", 8 * GIB)), "b": host(vm("web", 30 * GIB))}
    nodes = (Node("a"), Node("b"))
    found = published(Cell(nodes, (Resource("web", "a"),), two))
    assert found.vms == {"web": 9216}
    assert found.notes == ("web: b runs it and the engine has it on a",)
    found = published(Cell(nodes, (Resource("web", None, 7),), two))
    assert found.vms == {"web": 7}
    assert len(found.notes) == 2


def test_a_capacity_within_its_dead_band_stays() -> None:
    near = CAPACITY_MIB - CAPACITY_MIB // 100
    assert published(cell({"a": host()}, published={"a": near})).hosts == {"a": near}
    beyond = near - CAPACITY_MIB // 100 - BAND_MIB
    assert published(cell({"a": host()}, published={"a": beyond})).hosts == {"a": CAPACITY_MIB}


def test_what_the_engine_counts_of_others_has_room_beside_what_is_booked() -> None:
    one = cell({"a": host(vm("web", 60 * GIB), admits_bytes=0)})
    one = replace(one, nodes=(Node("a", others_mib=900),))
    assert published(one).hosts == {"a": 69120 + 900}
    near = replace(one, nodes=(Node("a", published_mib=69120 + 899, others_mib=900),))
    assert published(near).hosts == published(one).hosts


def test_what_cannot_be_told_is_left_out_and_in_the_way_of_no_other() -> None:
    huge = tuple(Resource(name, "b", LARGEST_MIB) for name in ("x", "y"))
    found = published(cell({"a": host(vm("web", 8 * GIB)), "b": None}, huge))
    assert found.hosts == {"a": 9216 + 56 * 1024}
    assert found.notes == (f"b: {2 * LARGEST_MIB} MiB are more than the engine can be told",)


def test_the_dead_band_does_not_hold_a_capacity_below_what_is_booked() -> None:
    one = cell({"a": host(vm("web", 60 * GIB), admits_bytes=0)}, published={"a": 67 * 1024})
    assert published(one).hosts == {"a": 69120}


def test_only_what_differs_is_a_change() -> None:
    one = cell({"a": host(vm("web", 8 * GIB))}, published={"a": 9216 + 56 * 1024, "web": 9216})
    assert not published(one).changes(one)
    one = cell({"a": host(vm("web", 8 * GIB))}, published={"a": 9216 + 56 * 1024, "web": 9000})
    assert published(one).changes(one).vms == {"web": 9216}
    assert published(one).changes(one).hosts == {}


sizes = st.integers(0, 128 * GIB)
names = st.sampled_from("abcd")


@st.composite
def figures(draw: st.DrawFn) -> HostFigures:
    """Whatever a host may say, true or not."""
    vms = tuple(
        VmFigures(
            name,
            name,
            draw(st.none() | sizes),
            draw(sizes),
            draw(sizes),
            draw(sizes),
            draw(sizes),
            draw(st.booleans()),
        )
        for name in draw(st.lists(st.sampled_from("uvwxyz"), unique=True))
    )
    return HostFigures(draw(sizes), draw(sizes), draw(sizes), vms, draw(st.booleans()))


@st.composite
def cells(draw: st.DrawFn) -> Cell:
    mib = st.none() | st.integers(0, 1 << 20)
    others = st.integers(0, 1 << 20)
    nodes = tuple(Node(name, published_mib=draw(mib), others_mib=draw(others)) for name in "abcd")
    resources = tuple(
        Resource(name, draw(st.none() | names), draw(mib), draw(mib), also_on=draw(st.frozensets(names)))
        for name in draw(st.sets(st.sampled_from("uvwxyz")))
    )
    return Cell(nodes, resources, draw(st.dictionaries(names, figures())))


@given(st.lists(st.tuples(cells(), st.floats(0, 1e6)), min_size=1, max_size=4))
def test_whatever_hosts_say_no_node_has_less_than_what_the_engine_has_there(
    turns: list[tuple[Cell, float]],
) -> None:
    bookings: dict[str, Booking] = {}
    for one, now in turns:
        found, bookings = publication(one, bookings, now)
        for node in one.nodes:
            here = [vm for vm in one.resources if vm.node == node.name or node.name in vm.also_on]
            counted = node.others_mib + sum(found.vms.get(vm.name, 0) for vm in here)
            assert counted <= found.hosts[node.name]
