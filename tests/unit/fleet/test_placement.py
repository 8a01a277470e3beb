"""Placement is told one figure of each host: how far its memory may be promised."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_controller.errors import InputError
from host_controller.fleet.placement.publisher import KEPT, LISTED_FROM, TRIES, Outcome, Placement
from host_controller.fleet.placement.ratio import LARGEST, Inventory, ratio_of
from host_controller.units import GIB, MIB
from tests.unit.fleet.cells import host, unmanaged, vm

WEB = vm("web", 8 * GIB)


def inventory(allocated: dict[str, int], ratio: float = 1.0, total_mib: int = 64 * 1024) -> Inventory:
    return Inventory(total_mib, 0, ratio, allocated)


def test_what_may_be_allocated_is_what_is_and_what_a_start_would_be_given() -> None:
    assert ratio_of(inventory({"web": 48 * 1024}), host(WEB)) == pytest.approx((48 + 56) / 64)


def test_an_instance_that_is_on_its_way_takes_its_part_of_what_is_free() -> None:
    found = ratio_of(inventory({"web": 48 * 1024, "coming": 40 * 1024}), host(WEB))
    assert found == pytest.approx((88 + 16) / 64)


def test_an_instance_that_its_host_does_not_manage_is_there_and_not_for_ever_on_its_way() -> None:
    figures = host(WEB, unmanaged=(unmanaged("fixed", 20 * GIB),), admits_bytes=36 * GIB)
    assert ratio_of(inventory({"web": 8 * 1024, "fixed": 20 * 1024}, 2.0), figures) == 1.0


def test_a_host_that_does_not_answer_offers_nothing() -> None:
    assert ratio_of(inventory({"web": 32 * 1024}), None) == 0.5
    assert ratio_of(inventory({}), None) == 0.0001


def test_a_host_that_offers_nothing_is_offered_no_band_either() -> None:
    assert ratio_of(inventory({"web": 48 * 1024}, 0.755), None) == 0.75
    assert ratio_of(inventory({"web": 48 * 1024}, 0.755), host(WEB, admits_bytes=0)) == 0.75
    assert ratio_of(inventory({"web": 48 * 1024}, 0.75), None) is None


def test_the_source_of_a_migration_offers_too_little_and_never_too_much_while_nova_counts_twice() -> None:
    gone = {"other": 8 * 1024, "migration": 48 * 1024}
    before = ratio_of(inventory({"other": 8 * 1024, "web": 48 * 1024}), host(WEB, vm("other", 4 * GIB)))
    assert before == pytest.approx((56 + 52) / 64)
    assert ratio_of(inventory(gone), host(WEB, vm("other", 4 * GIB))) == pytest.approx((56 + 4) / 64)
    del gone["migration"]
    assert ratio_of(inventory(gone), host(vm("other", 4 * GIB))) == pytest.approx((8 + 60) / 64)


def test_a_ratio_that_is_near_is_left_alone_and_so_is_a_host_without_memory() -> None:
    assert ratio_of(inventory({"web": 48 * 1024}, 1.62), host(WEB)) is None
    assert ratio_of(Inventory(10, 10, 1.0, {}), host()) is None


def test_a_ratio_stays_within_reason() -> None:
    assert ratio_of(inventory({}, total_mib=1024), host()) == LARGEST


@given(
    st.integers(1, 1 << 24),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1 << 22)),
    st.integers(0, 1 << 24),
    st.floats(0.0001, 16),
)
def test_whatever_the_figures_what_is_allocated_still_fits(
    total: int, allocated: dict[str, int], admits_mib: int, ratio: float
) -> None:
    one = Inventory(total, 0, ratio, allocated)
    found = ratio_of(one, host(admits_bytes=admits_mib * MIB))
    if found is not None and found < LARGEST:
        assert total * found >= one.used_mib - 1e-6 * total


class Service(BaseHTTPRequestHandler):
    """Enough of Placement's API, with generations."""

    inventories: ClassVar[dict[str, dict[str, Any]]] = {}
    written: ClassVar[list[dict[str, Any]]] = []
    races = 0
    """So many writes find that somebody was faster."""
    asked: ClassVar[list[str]] = []
    connections: ClassVar[set[object]] = set()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.connections.add(self.client_address)
        name = self.path.rpartition("name=")[2]
        if self.path.endswith("/resource_providers"):
            return self.answer(
                {"resource_providers": [{"uuid": one, "name": one} for one in self.inventories]}
            )
        if "name=" in self.path:
            # As a database does that takes upper and lower case for the same.
            same = [one for one in self.inventories if one.lower() == name.lower()]
            found = [{"uuid": one, "name": one} for one in same]
            return self.answer({"resource_providers": found})
        uuid = self.path.split("/")[3]
        if self.path.endswith("/allocations"):
            return self.answer({"allocations": {"web": {"resources": {"MEMORY_MB": 48 * 1024, "VCPU": 2}}}})
        return self.answer(self.inventories[uuid])

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        mine = self.inventories[self.path.split("/")[3]]
        if Service.races:
            Service.races -= 1
            mine["resource_provider_generation"] += 1
        if body["resource_provider_generation"] != mine["resource_provider_generation"]:
            return self.answer({"errors": []}, 409)
        self.written.append(body)
        mine |= body | {"resource_provider_generation": body["resource_provider_generation"] + 1}
        return self.answer(mine)

    def answer(self, body: object, status: int = 200) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def service() -> Iterator[Placement]:
    sizes = {"total": 65536, "reserved": 0, "min_unit": 1, "max_unit": 65536, "step_size": 1}
    Service.inventories = {
        name: {**sizes, "allocation_ratio": 1.0, "resource_provider_generation": 7} for name in ("n1", "n2")
    }
    Service.written, Service.asked, Service.connections, Service.races = [], [], set(), 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Placement(f"http://127.0.0.1:{server.server_port}/placement", "token")
        server.shutdown()
        thread.join()


def test_only_the_ratio_is_changed_and_only_once(service: Placement) -> None:
    (done,) = service.publish({"n1": host(WEB)})
    assert (done.ratio, done.problem) == (1.625, None)
    (body,) = Service.written
    assert {key: body[key] for key in ("total", "reserved", "max_unit")} == {
        "total": 65536,
        "reserved": 0,
        "max_unit": 65536,
    }
    assert service.publish({"n1": host(WEB)})[0].ratio is None
    assert len(Service.written) == 1


def test_a_connection_that_the_service_keeps_is_used_again(
    service: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Service, "protocol_version", "HTTP/1.1")
    (done,) = service.publish({"n1": host(WEB)})
    assert (done.ratio, done.problem) == (1.625, None)
    assert len(Service.asked) == 3
    assert len(Service.connections) == 1


def test_a_stale_generation_changes_nothing_and_one_that_fails_harms_no_other(service: Placement) -> None:
    Service.races = 1000
    assert "next turn" in str(service.publish({"n1": host(WEB)})[0].problem)
    assert Service.written == []
    assert Service.races == 1000 - TRIES
    Service.races = 0
    found = {one.host: one for one in service.publish({"nobody": host(), "n2": host(WEB)})}
    assert "no provider nobody" in str(found["nobody"].problem)
    assert found["n2"].ratio == 1.625


def test_a_ratio_that_somebody_was_faster_than_is_worked_out_anew_at_once(service: Placement) -> None:
    Service.races = TRIES - 1
    assert service.publish({"n1": host(WEB)}) == [Outcome("n1", 1.625)]
    assert len(Service.written) == 1
    assert len([path for path in Service.asked if path.endswith("/allocations")]) == TRIES


def test_a_provider_whose_name_differs_in_case_is_another_one(service: Placement) -> None:
    assert service.publish({"N1": host(WEB)})[0].problem == "Placement has no provider N1"
    Service.inventories["N1"] = Service.inventories["n2"]
    assert service.publish({"N1": host(WEB)})[0].ratio == 1.625


def test_of_many_hosts_all_providers_are_asked_for_at_once(service: Placement) -> None:
    like = Service.inventories["n1"]
    names = [f"host{number}" for number in range(LISTED_FROM)]
    Service.inventories = {name: dict(like) for name in names}
    assert {one.ratio for one in service.publish(dict.fromkeys(names, host(WEB)))} == {1.625}
    assert [path for path in Service.asked if "name=" in path] == []
    del Service.inventories["host7"]
    found = {one.host: one for one in service.publish(dict.fromkeys(names, host(WEB)))}
    assert "no provider host7" in str(found["host7"].problem)
    assert [path.rpartition("name=")[2] for path in Service.asked if "name=" in path] == ["host7"]


@pytest.mark.parametrize("listed", ["nothing", {}, {"resource_providers": [1]}, {"resource_providers": [{}]}])
def test_where_they_cannot_be_had_at_once_each_is_asked_for_by_its_name(
    service: Placement, monkeypatch: pytest.MonkeyPatch, listed: object
) -> None:
    answers = Service.do_GET

    def all_at_once_fails(one: Service) -> None:
        if one.path.endswith("/resource_providers"):
            return one.answer(listed, 500 if listed == "nothing" else 200)
        return answers(one)

    monkeypatch.setattr(Service, "do_GET", all_at_once_fails)
    unknown = dict.fromkeys((f"host{number}" for number in range(LISTED_FROM)), host())
    found = {one.host: one for one in service.publish({"n2": host(WEB), **unknown})}
    assert found["n2"].ratio == 1.625
    assert {one.problem for one in found.values() if one.host != "n2"} == {
        f"Placement has no provider {name}" for name in unknown
    }


@pytest.mark.parametrize(
    "change",
    [
        {"total": None},
        {"total": -1},
        {"total": 10**400},
        {"total": float("inf")},
        {"reserved": "1"},
        {"allocation_ratio": "x"},
        {"allocation_ratio": float("nan")},
        {"allocation_ratio": float("inf")},
        {"allocation_ratio": 10**400},
        {"resource_provider_generation": ...},
        *({key: wrong} for key in KEPT for wrong in (None, True, "1", [[]], 1.5)),
        *({"resource_provider_generation": wrong} for wrong in (None, False, "1", {})),
        {"allocation_ratio": True},
    ],
)
def test_an_answer_that_is_not_understood_changes_nothing(service: Placement, change: dict[str, Any]) -> None:
    for key, value in change.items():
        if value is ...:
            del Service.inventories["n1"][key]
        else:
            Service.inventories["n1"][key] = value
    assert "not understood" in str(service.publish({"n1": host(WEB)})[0].problem)
    assert Service.written == []


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b"[]", b"\xff", b'{"resource_providers": [1]}', b'{"resource_providers": [{}]}']
)
def test_nonsense_is_a_problem_of_one_host_and_no_fall_of_ours(
    service: Placement, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    def nonsense(one: Service) -> None:
        one.send_response(200)
        one.end_headers()
        one.wfile.write(text)

    monkeypatch.setattr(Service, "do_GET", nonsense)
    assert "not understood" in str(service.publish({"n1": host(WEB)})[0].problem)


@pytest.mark.parametrize("hosts", [2, LISTED_FROM], ids=["each by its name", "all at once"])
def test_a_uuid_that_no_address_can_hold_is_a_problem_of_its_host_alone(
    service: Placement, monkeypatch: pytest.MonkeyPatch, hosts: int
) -> None:
    names = [f"host{number}" for number in range(hosts)]
    Service.inventories = {name: dict(Service.inventories["n1"]) for name in names}
    answer = Service.answer

    def odd(one: Service, body: dict[str, Any], status: int = 200) -> None:
        listed = body.get("resource_providers", [])
        changed = [{**it, "uuid": "\ud800" if it["uuid"] == "host0" else it["uuid"]} for it in listed]
        answer(one, body | {"resource_providers": changed} if listed else body, status)

    monkeypatch.setattr(Service, "answer", odd)
    odd_one, *others = service.publish(dict.fromkeys(names, host(WEB)))
    assert "answer about host0 is not understood" in str(odd_one.problem)
    assert {one.ratio for one in others} == {1.625}


@pytest.mark.parametrize("hosts", [2, LISTED_FROM], ids=["each by its name", "all at once"])
def test_a_host_whose_name_no_address_can_hold_is_a_problem_of_its_own(
    service: Placement, hosts: int
) -> None:
    names = [f"host{number}" for number in range(hosts)]
    Service.inventories = {name: dict(Service.inventories["n1"]) for name in names}
    odd_one, *others = service.publish(dict.fromkeys(("h\udcff", *names), host(WEB)))
    assert odd_one.problem == "'h?' is no name of a provider"
    assert {one.ratio for one in others} == {1.625}


def test_the_end_of_an_address_of_ipv6_is_no_port() -> None:
    for endpoint, port in (
        ("https://[fd00::1]/placement", 443),
        ("http://[fd00::1]", 80),
        ("http://[fd00::1]:99", 99),
    ):
        line = Placement(endpoint, "token")._connect()
        assert (line.host, line.port) == ("fd00::1", port)


@pytest.mark.parametrize("token", ["", "a\nb", "a b", "ключ"])
def test_a_token_that_no_header_can_hold_is_refused(token: str) -> None:
    with pytest.raises(InputError, match="token"):
        Placement("http://localhost", token)


@pytest.mark.parametrize(
    "endpoint",
    ["", "placement", "file:///etc/passwd", "http://", "http://h:abc", "http://h:99999", "http://[::1"],
)
def test_an_address_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(InputError):
        Placement(endpoint, "token")
