"""A VM moves only by its destination's promise, only as the scheduler said, and nothing is left behind."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Event
from unittest.mock import Mock
from xml.etree import ElementTree

import pytest

from host_controller.fleet.clearing import clear_up, forget_moves
from host_controller.fleet.clock import Clock
from host_controller.fleet.core.drain import Action
from host_controller.fleet.core.model import Huge
from host_controller.fleet.core.relief import Move
from host_controller.fleet.errors import EngineBusy, EngineError, NotBegun, RaceLost, WayClosed, WayRefused
from host_controller.fleet.hosts import Promise
from host_controller.fleet.moving import RENEW_SECONDS, Promised, carry_out
from host_controller.fleet.pacemaker.cib import Cib, failed_moves, read_cib
from host_controller.fleet.pacemaker.history import arrived, departures
from host_controller.fleet.pacemaker.pins import pinned, pins
from host_controller.units import GIB
from tests.unit.fleet.cluster import FakeEngine, cib_text, failed_move

MOVE = Move("web", "n1", "n2", 8 * GIB, "short")
MIGRATE = Action("migrate", "web", "n1", "n2", "migrate")


@dataclass
class Time:
    now: float = 0.0
    at: dict[float, object] = field(default_factory=dict)

    def __call__(self) -> float:
        return self.now

    @property
    def clock(self) -> Clock:
        return Clock(self, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for when in [one for one in self.at if one <= self.now]:
            self.at.pop(when)()  # type: ignore[operator]


@dataclass
class Destinations:
    """Hosts that promise whatever they are asked for, but for those that refuse."""

    refusing: set[str] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    pages: list[Huge | None] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None
    """What happens while they are asked."""

    def promise(self, host: str, vm: str, size_bytes: int, token: str, huge: Huge | None = None) -> Promise:
        self.asked += 1
        self.pages.append(huge)
        self.meanwhile()
        if host in self.refusing:
            return Promise(False, "448 MiB are missing")
        assert self.held.get(vm, token) == token
        self.held[vm] = token
        return Promise(True, "reserved")

    def renew(self, host: str, vm: str, size_bytes: int, token: str, huge: Huge | None = None) -> bool:
        return self.promise(host, vm, size_bytes, token, huge).given

    def take_back(self, host: str, vm: str, token: str) -> None:
        assert self.held.pop(vm) == token


def engine() -> FakeEngine:
    one = FakeEngine(cib_text({"web": 1, "db": 1}, {"n1": 1, "n2": 1, "n3": 1}), {"web": "n1", "db": "n1"})
    one.would = lambda cib: (MIGRATE,) if pins(cib) and one.places["web"] == "n1" else ()
    return one


def move(one: FakeEngine, hosts: Destinations, time: Time | None = None) -> str | None:
    time = time or Time()
    return carry_out(one, hosts, MOVE, time.clock)


def test_a_vm_is_promised_pinned_moved_and_let_go() -> None:
    one, hosts = engine(), Destinations()
    assert move(one, hosts) is None
    assert one.places["web"] == "n2"
    assert pins(read_cib(one.commits[0])) == ("web",)
    assert pins(read_cib(one.text)) == ()
    assert hosts.held == {}


def test_an_engine_that_looks_idle_before_it_has_seen_the_pin_is_waited_for() -> None:
    one, hosts, time = engine(), Destinations(), Time()
    one.obeys = False
    time.at[5.0] = lambda: one.places.update(web="n2")
    assert move(one, hosts, time) is None
    assert (pins(read_cib(one.text)), hosts.held) == ((), {})


def test_an_engine_that_does_not_begin_what_it_said_is_not_waited_for_longer() -> None:
    one, time = engine(), Time()
    one.obeys = False
    assert move(one, Destinations(), time) == "it is on n1 after the move: crm_mon -1 shows why"
    assert time.now < 60.0


def test_without_a_promise_nothing_is_done() -> None:
    one = engine()
    with pytest.raises(WayRefused, match="n2 does not promise the memory: 448 MiB are missing"):
        move(one, Destinations({"n2"}))
    assert one.commits == []


def test_while_the_engine_works_nobody_is_asked_for_a_promise() -> None:
    one, hosts = engine(), Destinations()
    one.rests = False
    with pytest.raises(NotBegun, match="at work"):
        move(one, hosts)
    assert hosts.asked == 0


def test_a_lost_race_begins_nothing_and_is_no_refusal() -> None:
    one, hosts = engine(), Destinations()

    def faster() -> None:
        one.text = one.text.replace(b'num_updates="3"', b'num_updates="4"')

    one.meanwhile = faster
    with pytest.raises(NotBegun) as raised:
        move(one, hosts)
    assert not isinstance(raised.value, WayRefused)
    assert hosts.held == {}


def test_a_refused_migration_is_cleaned_up_once_the_vm_is_no_longer_pinned() -> None:
    one, hosts = engine(), Destinations()
    one.obeys = False
    pinned_then: list[object] = []
    cleans = one.clean_up

    def clean_up(vm: str, node: str, operation: str = "start") -> None:
        pinned_then.extend(pins(one.query()))
        cleans(vm, node, operation)

    one.clean_up = clean_up  # type: ignore[method-assign]

    def refuses() -> None:
        status = f"<status>{failed_move('web', 'n1')}</status>".encode()
        one.text = one.text.replace(b"<status />", status)

    assert "failed, and it stays on n1" in str(move(one, hosts, Time(at={1.0: refuses})))
    assert one.cleaned == [("web", "n1")]
    assert pinned_then == []
    assert pins(one.query()) == ()
    assert failed_moves(one.query()) == {}


def test_a_migration_that_is_under_way_has_not_failed() -> None:
    for code, found in ((193, {}), (0, {}), (1, {"web": "n1"})):
        status = failed_move("web", "n1", code)
        assert failed_moves(read_cib(cib_text({"web": 1}, {"n1": 1}, status=status))) == found


def test_a_failed_migration_of_somebody_else_is_left_to_them() -> None:
    one = engine()
    one.text = cib_text({"web": 1, "db": 1}, {"n1": 1, "n2": 1}, status=failed_move("db", "n1"))
    one.text = pinned(read_cib(one.text), "web", "n2")
    assert clear_up(one) == ("web",)
    assert one.cleaned == []


def came(vm: str, source: str, node: str) -> str:
    """The status after a VM has come by migration from the one host to the other, from where it failed."""
    sent = failed_move(vm, source, 0)
    return sent + failed_move(vm, node).replace("<lrm_rsc_op", f"{ARRIVED}<lrm_rsc_op", 1)


ARRIVED = '<lrm_rsc_op id="web_last_0" operation="migrate_from" rc-code="0"/>'


def test_a_host_that_has_sent_the_vm_before_forgets_that_first() -> None:
    one, time = engine(), Time()
    one.text = cib_text({"web": 1}, {"n1": 1, "n2": 1, "n3": 1}, status=came("web", "n3", "n1"))
    assert departures(one.query(), "web", "n1") == ("n3",)
    cleans = one.clean_up

    def clean_up(vm: str, node: str, operation: str = "start") -> None:
        assert one.refreshed == [("web", "n3")]
        assert departures(one.query(), vm, node) == ()
        cleans(vm, node, operation)

    one.clean_up = clean_up  # type: ignore[method-assign]
    forget_moves(one, ["web"], time.clock)
    assert one.cleaned == [("web", "n1")]


@pytest.mark.parametrize(
    ("state", "found"), [("online", ("n3",)), ("1764380000", ("n3",)), ("offline", ()), ("0", ())]
)
def test_a_host_that_is_down_is_not_asked_to_forget(state: str, found: tuple[str, ...]) -> None:
    status = came("web", "n3", "n1").replace('uname="n3"', f'uname="n3" crmd="{state}"')
    assert departures(read_cib(cib_text({"web": 1}, {"n1": 1}, status=status)), "web", "n1") == found


def test_a_host_that_goes_on_remembering_is_said() -> None:
    one, time = engine(), Time()
    one.text = cib_text({"web": 1}, {"n1": 1, "n2": 1, "n3": 1}, status=came("web", "n3", "n1"))
    one.refresh = lambda vm, node: None  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="goes on remembering"):
        forget_moves(one, ["web"], time.clock)
    assert one.cleaned == []


def test_a_clean_up_that_would_disturb_a_vm_is_not_made() -> None:
    one = engine()
    one.text = cib_text({"web": 1}, {"n1": 1, "n2": 1}, status=failed_move("web", "n1"))
    one.would = lambda cib: () if failed_moves(cib) else (Action("other", "web", "n1", text="restart"),)
    with pytest.raises(EngineError, match="not cleaned up: the engine would restart web"):
        forget_moves(one, ["web"])
    assert one.cleaned == []


def test_a_failed_migration_is_cleaned_up_once_the_engine_rests_and_never_by_what_was_true_before() -> None:
    one, time = engine(), Time()
    one.text = cib_text({"web": 1, "db": 1}, {"n1": 1, "n2": 1}, status=failed_move("web", "n1"))
    one.rests = False
    with pytest.raises(EngineBusy):
        forget_moves(one, ["web"], time.clock)
    assert one.cleaned == []

    def rests() -> None:
        one.rests = True

    time.at = {time.now + 9.0: rests}
    query = one.query

    def changes_meanwhile() -> Cib:
        found = query()
        one.text = one.text.replace(b'num_updates="3"', b'num_updates="4"')
        return found

    one.query = changes_meanwhile  # type: ignore[method-assign]
    forget_moves(one, ["web", "db"], time.clock)
    assert one.cleaned == [("web", "n1")]
    assert time.now >= 9.0


@pytest.mark.parametrize(
    "actions",
    [
        (),
        (Action("move", "web", "n1", "n2", "move"),),
        (MIGRATE, Action("stop", "db", "n1", text="stop")),
        (Action("migrate", "web", "n1", "n3", "migrate"),),
    ],
)
def test_what_the_engine_would_do_otherwise_is_not_begun(actions: tuple[Action, ...]) -> None:
    one, hosts = engine(), Destinations()
    one.would = lambda cib: actions if pins(cib) else ()
    with pytest.raises(WayRefused, match="would not just migrate it"):
        move(one, hosts)
    assert one.commits == []
    assert hosts.held == {}


def test_a_vm_that_waits_for_the_memory_which_another_leaves_keeps_nobody_from_leaving() -> None:
    one, hosts = engine(), Destinations()
    starts = Action("start", "waits", destination="n1", text="start")
    one.would = lambda cib: (MIGRATE, starts) if pins(cib) and one.places["web"] == "n1" else ()
    assert move(one, hosts) is None
    assert one.places == {"web": "n2", "waits": "n1"} | {"db": one.places["db"]}


def sends_back(one: FakeEngine) -> Callable[[Cib], tuple[Action, ...]]:
    """What an engine would do that has a VM migrate back to its source once its pin is gone."""
    status = (
        failed_move("web", "n1", 0) + '<node_state uname="n2"><lrm id="2"><lrm_resources/></lrm></node_state>'
    )
    one.text = cib_text({"web": 1, "db": 1}, {"n1": 1, "n2": 1}, status=status)

    def would(cib: Cib) -> tuple[Action, ...]:
        there = cib.root.find("status/node_state[@uname='n2']/lrm/lrm_resources/lrm_resource[@id='web']")
        back = there is not None and not pins(cib)
        return (MIGRATE,) if pins(cib) else (Action("migrate", "web", "n2", "n1", "migrate"),) if back else ()

    return would


def test_a_vm_that_would_go_back_once_its_pin_is_gone_is_not_moved_and_no_host_is_asked() -> None:
    one, hosts = engine(), Destinations()
    one.would = sends_back(one)
    with pytest.raises(WayClosed, match="would not stay on n2: the engine would migrate web"):
        move(one, hosts)
    assert (one.commits, hosts.asked) == ([], 0)


def test_a_constraint_that_somebody_sets_while_a_destination_is_asked_is_obeyed() -> None:
    one, hosts = engine(), Destinations()

    def meanwhile() -> None:
        one.would = sends_back(one)
        one.text = one.text.replace(b'epoch="7"', b'epoch="8"')

    hosts.meanwhile = meanwhile
    with pytest.raises(WayClosed, match="would not stay on n2"):
        move(one, hosts)
    assert (one.commits, hosts.held) == ([], {})


@pytest.mark.parametrize(("happens", "asked"), [("nothing", 3), ("a monitor", 6), ("a start", 3)])
def test_what_was_judged_is_judged_again_only_if_it_has_changed_and_by_no_engine_that_is_at_work(
    happens: str, asked: int
) -> None:
    one, hosts = engine(), Destinations()

    def meanwhile() -> None:
        one.rests = happens != "a start"
        if happens != "nothing":
            one.text = one.text.replace(b'num_updates="3"', b'num_updates="4"')

    def replace(*_: bytes) -> None:
        assert judged.call_count == asked
        raise RaceLost("changed meanwhile")

    hosts.meanwhile = meanwhile
    judged = Mock(side_effect=one.simulate)
    one.simulate, one.replace = judged, replace  # type: ignore[method-assign]
    with pytest.raises(NotBegun, match="at work" if happens == "a start" else "changed meanwhile") as raised:
        move(one, hosts)
    assert not isinstance(raised.value, WayRefused)
    assert judged.call_count == asked


@pytest.mark.parametrize("call", ["10", "-1", "soon"])
def test_a_vm_that_has_come_is_known_by_the_parameters_of_that_and_not_of_an_older_probe(call: str) -> None:
    operation = '<lrm_rsc_op interval="0" operation="{}" call-id="{}" op-digest="{}"/>'
    history = (
        operation.format("migrate_to", call, "later") + operation.format("monitor", 8, "older")
        + operation.format("migrate_from", 9, "newer")
    )  # fmt: skip
    here, there = (
        f'<node_state uname="{node}"><lrm><lrm_resources>{known}</lrm_resources></lrm></node_state>'
        for node, known in (("n1", f'<lrm_resource id="web">{history}</lrm_resource>'), ("n2", ""))
    )
    root = ElementTree.fromstring(
        arrived(read_cib(cib_text({"web": 1}, {"n1": 1, "n2": 1}, status=here + there)), "web", "n1", "n2")
    )
    probes = {
        state.get("uname"): state.find("lrm/lrm_resources/lrm_resource[@id='web']/lrm_rsc_op")
        for state in root.iterfind("status/node_state")
    }
    told = {
        node: (one.get("rc-code"), one.get("op-digest")) for node, one in probes.items() if one is not None
    }
    digest = "later" if call == "10" else "newer"
    assert told == {"n1": ("7", digest), "n2": ("0", digest)}


def failed_on_the_way(found: str) -> str:
    """A migration from n1 to n2 has failed by the word of n1; a probe of n2 has found this before."""
    probe = f'<lrm_rsc_op id="web_last_0" operation="monitor" rc-code="{found}"/>'
    there = failed_move("web", "n2").partition("<lrm_rsc_op")[0] + probe
    here = failed_move("web", "n1").replace('rc-code="1"', 'rc-code="1" migrate_target="n2"')
    return f"{here}{there}</lrm_resource></lrm_resources></lrm></node_state>"


@pytest.mark.parametrize(("found", "cleaned"), [("7", [("web", "n1")]), ("0", [])])
def test_where_a_vm_was_to_go_is_looked_before_its_failure_is_forgotten(
    found: str, cleaned: list[tuple[str, str]]
) -> None:
    one, time = engine(), Time()
    one.text = cib_text({"web": 1}, {"n1": 1, "n2": 1}, status=failed_on_the_way("7"))
    asked: list[tuple[str, str]] = []

    def refresh(vm: str, node: str) -> None:
        asked.append((vm, node))
        time.at[time.now + 3.0] = lambda: setattr(one, "text", looked)
        one.text = one.text.replace(b'operation="monitor"', b'operation="gone"')

    looked = cib_text({"web": 1}, {"n1": 1, "n2": 1}, status=failed_on_the_way(found))
    one.refresh = refresh  # type: ignore[method-assign]
    if cleaned:
        forget_moves(one, ["web"], time.clock)
    else:
        with pytest.raises(EngineError, match="has failed, and it is on n2 all the same"):
            forget_moves(one, ["web"], time.clock)
    assert (asked, one.cleaned) == ([("web", "n2")], cleaned)
    assert time.now >= 3.0


def test_nothing_is_forgotten_where_the_engine_would_not_look_again() -> None:
    one = engine()
    text = cib_text({"web": 1}, {"n1": 1, "n2": 1}, status=failed_move("web", "n1")).decode()
    off = '<nvpair id="p" name="enable-startup-probes" value="false"/></cluster_property_set>'
    one.text = text.replace("</cluster_property_set>", off).encode()
    with pytest.raises(EngineError, match="by enable-startup-probes the engine would not look"):
        forget_moves(one, ["web"])
    assert one.cleaned == []


def test_a_move_that_fails_leaves_the_vm_and_neither_pin_nor_promise() -> None:
    one, hosts = engine(), Destinations()
    one.obeys = False
    assert move(one, hosts) == "it is on n1 after the move: crm_mon -1 shows why"
    assert pins(read_cib(one.text)) == ()
    assert hosts.held == {}


def test_a_promise_is_renewed_while_a_long_move_goes_on() -> None:
    one, hosts, time = engine(), Destinations(), Time()

    def works() -> None:
        one.rests = False

    def rests() -> None:
        one.rests = True

    time.at = {1.0: works, RENEW_SECONDS * 3: rests}
    assert move(one, hosts, time) is None
    assert hosts.asked == 1 + 3


def test_promises_are_renewed_while_destinations_that_squeeze_are_asked_for_more() -> None:
    """Each of them may take a minute, and a promise lasts for two."""
    time, hosts = Time(), Destinations()
    promised, kept = Promised(hosts, time.clock), {}

    def keeps(vm: str) -> bool:
        kept[vm] = time.now
        return True

    hosts.meanwhile = lambda: time.sleep(30.0)
    hosts.renew = lambda host, vm, *_: keeps(vm)  # type: ignore[method-assign]
    for number in range(10):
        promised.renew()
        promised.ask(replace(MOVE, vm=f"v{number}"))
        kept[f"v{number}"] = time.now
    assert time.now - min(kept.values()) < 120.0


def test_promises_are_renewed_while_one_destination_thinks_for_longer_than_they_last() -> None:
    """It may squeeze its VMs for two minutes, as its configuration says."""
    time, hosts, renewed = Time(), Destinations(), Event()
    promised = Promised(hosts, time.clock)
    promised.ask(replace(MOVE, vm="first"))
    hosts.renew = lambda host, vm, *_: renewed.set() is None  # type: ignore[method-assign]

    def squeeze() -> None:
        time.sleep(RENEW_SECONDS)
        assert renewed.wait(30.0), "the first one has ended"

    hosts.meanwhile = squeeze
    assert promised.ask(replace(MOVE, vm="second")).given


def test_what_lies_in_huge_pages_is_promised_and_renewed_with_the_rest() -> None:
    time, hosts, pages = Time(), Destinations(), Huge(8 * GIB, 0)
    promised = Promised(hosts, time.clock)
    promised.ask(replace(MOVE, huge=pages))
    time.sleep(RENEW_SECONDS)
    promised.renew()
    assert hosts.pages == [pages, pages]


def test_pins_of_an_arbiter_that_died_are_cleared_and_others_stay() -> None:
    one = engine()
    theirs = (
        b'<constraints><rsc_location id="cli-prefer-db" rsc="db" node="n1" score="INFINITY"/></constraints>'
    )
    one.text = one.text.replace(b"<constraints/>", theirs)
    one.text = pinned(read_cib(one.text), "web", "n2")
    assert clear_up(one) == ("web",)
    assert b"cli-prefer-db" in one.text
    assert clear_up(one) == ()


def test_a_pin_stays_while_the_engine_is_at_work_since_its_vm_may_be_on_its_way() -> None:
    one = engine()
    one.text = pinned(read_cib(one.text), "web", "n2")
    one.rests = False
    assert clear_up(one) == ()
    assert pins(one.query()) == ("web",)
    one.rests = True
    assert clear_up(one) == ("web",)
    assert pins(one.query()) == ()


def test_an_engine_that_is_at_work_once_the_memory_is_promised_begins_no_move() -> None:
    one, hosts = engine(), Destinations()
    hosts.meanwhile = lambda: setattr(one, "rests", False)
    with pytest.raises(NotBegun, match="at work"):
        move(one, hosts)
    assert one.commits == []
    assert hosts.held == {}


def test_a_host_that_hangs_is_waited_for_once_and_the_promises_of_others_go_on() -> None:
    hosts, time = Destinations(), Time()
    promised = Promised(hosts, time.clock)
    for name, there in (("a", "n2"), ("b", "n2"), ("c", "n3"), ("d", "n2")):
        assert promised.ask(replace(MOVE, vm=name, destination=there)).given
    asked: list[str] = []

    def renew(host: str, vm: str, *_: object) -> bool:
        asked.append(vm)
        time.sleep(10.0 if host == "n2" else 0.0)
        return host != "n2"

    hosts.renew = renew  # type: ignore[method-assign, assignment]
    time.sleep(RENEW_SECONDS)
    promised.renew()
    assert (asked, time.now) == (["a", "c"], RENEW_SECONDS + 10.0)


def test_one_vm_that_a_host_hangs_for_does_not_end_the_promises_of_others_there() -> None:
    hosts, time = Destinations(), Time()
    promised, renewed = Promised(hosts, time.clock), dict.fromkeys("abcd", 0.0)
    for name in renewed:
        assert promised.ask(replace(MOVE, vm=name)).given

    def renew(host: str, vm: str, *_: object) -> bool:
        if vm == "a":
            time.sleep(10.0)
            return False
        assert time.now - renewed[vm] < 120.0, "it has ended"
        renewed[vm] = time.now
        return True

    hosts.renew = renew  # type: ignore[method-assign, assignment]
    for _ in range(600):
        time.sleep(1.0)
        promised.renew()
    assert min(renewed[name] for name in "bcd") > time.now - 2 * RENEW_SECONDS
