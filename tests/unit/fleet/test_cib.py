"""Pacemaker's configuration is read within bounds, and only our attribute in it is changed."""

from xml.etree import ElementTree

import pytest

from host_controller.fleet.core.publication import LARGEST_MIB
from host_controller.fleet.errors import EngineError
from host_controller.fleet.pacemaker.bounded_xml import DEEPEST, LARGEST_BYTES, read_xml
from host_controller.fleet.pacemaker.cib import changed, read_cib, strangers
from host_controller.fleet.pacemaker.pins import (
    active,
    allowed,
    avoided,
    drained,
    in_standby,
    marks,
    moved_at,
    pinned,
    pins,
    unmarked,
    unpinned,
)
from tests.unit.fleet.cluster import cib_text

CIB = cib_text({"web": 1024, "db": 2048}, {"n1": 8000, "n2": None})


def test_vms_nodes_and_options_are_read() -> None:
    cib = read_cib(CIB)
    assert [(one.name, one.size_mib, one.config) for one in cib.vms] == [
        ("web", 1024, "/vms/web.xml"),
        ("db", 2048, "/vms/db.xml"),
    ]
    assert cib.nodes == {"n1": 8000, "n2": None}
    assert cib.options["stonith-enabled"] == "true"
    assert cib.version == ("0", "7", "3")


def test_only_our_attribute_is_changed_and_the_version_is_the_next() -> None:
    after = read_cib(changed(read_cib(CIB), {"web": 1152}, {"n1": 9000}))
    assert {one.name: one.size_mib for one in after.vms} == {"web": 1152, "db": 2048}
    assert after.nodes == {"n1": 9000, "n2": None}
    assert after.version == ("0", "8", "0")
    back = changed(after, {"web": 1024}, {"n1": 8000}).replace(b'epoch="9"', b'epoch="7"', 1)
    assert back.replace(b'num_updates="0"', b'num_updates="3"', 1) == read_cib(CIB).text


def test_a_node_that_is_new_gets_the_attribute() -> None:
    after = changed(read_cib(CIB), {}, {"n2": 500})
    assert read_cib(after).nodes["n2"] == 500
    assert read_cib(changed(read_cib(after), {}, {"n2": 600})).nodes["n2"] == 600


def test_a_new_nodes_attribute_gets_ids_that_nobody_has() -> None:
    """Of a block with a rule nobody could say what is in force, so ours comes beside it."""
    rule = (
        b'<utilization id="dynmem-2-utilization"><rule id="r"/><nvpair id="dynmem-2-capacity" name="dynmem" '
    )
    text = cib_text({}, {"n1": 1, "n2": None}).replace(
        b'uname="n2">', b'uname="n2">' + rule + b'value="1"/></utilization>'
    )
    after = read_cib(changed(read_cib(text), {}, {"n2": 7}))
    assert after.nodes["n2"] == 7
    ids = [one.get("id") for one in after.root.iterfind("configuration//*[@id]")]
    assert len(set(ids)) == len(ids)


def test_comments_stay() -> None:
    text = CIB.replace(b"<constraints/>", b"<constraints><!-- of an operator --></constraints>")
    assert b"<!-- of an operator -->" in changed(read_cib(text), {"web": 1}, {})


@pytest.mark.parametrize(
    ("vms", "nodes"),
    [({"nobody": 1}, {}), ({}, {"nowhere": 1}), ({"web": -1}, {}), ({"web": LARGEST_MIB + 1}, {})],
)
def test_what_cannot_be_set_is_refused(vms: dict[str, int], nodes: dict[str, int]) -> None:
    with pytest.raises(EngineError):
        changed(read_cib(CIB), vms, nodes)


@pytest.mark.parametrize("value", ["", "-1", "1.5", "1e3", "1G", "٣", "9" * 13, str(LARGEST_MIB + 1)])
def test_a_size_that_somebody_else_has_spoilt_is_none_and_is_told(value: str) -> None:
    text = CIB.decode().replace('name="dynmem" value="1024"', f'name="dynmem" value="{value}"').encode()
    cib = read_cib(text)
    assert cib.vms[0].size_mib is None
    assert any("web" in one and "no size" in one for one in cib.notes)
    assert read_cib(changed(cib, {"web": 5}, {})).vms[0].size_mib == 5


def test_a_vm_without_the_attribute_or_with_a_rule_is_not_ours_and_is_told() -> None:
    bare = '<primitive class="ocf" type="VirtualDomain" id="bare"/>'
    rule = (
        '<primitive class="ocf" type="VirtualDomain" id="ruled"><utilization id="r"><rule id="r1"/>'
        '<nvpair id="r2" name="dynmem" value="1"/></utilization></primitive>'
    )
    twice = '<primitive type="VirtualDomain" id="twice">' + "".join(
        f'<utilization id="t{i}"><nvpair id="v{i}" name="dynmem" value="1"/></utilization>' for i in range(2)
    )
    other = '<primitive class="ocf" type="Dummy" id="other"/>'
    cib = read_cib(cib_text({"web": 1}, {"n1": 1}, f"{bare}{rule}{twice}</primitive>{other}"))
    assert [one.name for one in cib.vms] == ["web"]
    assert [note.partition(" ")[0] for note in cib.notes] == ["bare", "ruled", "twice"]
    with pytest.raises(EngineError):
        changed(cib, {"bare": 1}, {})


@pytest.mark.parametrize("kind", ["clone", "master"])
def test_a_vm_of_which_several_run_is_not_placed_by_demand_and_is_told(kind: str) -> None:
    vm = '<primitive type="VirtualDomain" id="{0}"><utilization id="{0}u"><nvpair id="{0}n" name="dynmem" '
    vm += 'value="3"/></utilization></primitive>'
    group = f'<{kind} id="c"><group id="g">{vm.format("in")}</group></{kind}>'
    cib = read_cib(cib_text({"web": 1}, {"n1": 1}, group + vm.format("alone")))
    assert [one.name for one in cib.vms] == ["web", "alone"]
    assert strangers(cib) == {"in"}
    assert cib.notes == ("in is in a clone: it is not placed by demand",)


def test_a_node_within_a_vm_or_a_container_is_no_host_and_one_that_is_remote_is() -> None:
    inside = '<primitive type="VirtualDomain" id="vm"><meta_attributes id="m"><nvpair id="r" '
    inside += 'name="remote-node" value="guest"/></meta_attributes></primitive><bundle id="web-b"/>'
    remote = "".join(
        f'<node id="{name}" uname="{name}" type="remote"/>'
        for name in ("guest", "web-b-0", "web-b-x", "web-1", "far")
    )
    text = cib_text({}, {"n1": 1}, inside).replace(b"</nodes>", f"{remote}</nodes>".encode())
    assert list(read_cib(text).nodes) == ["n1", "web-b-x", "web-1", "far"]


def test_vms_in_groups_are_found_and_two_of_one_name_are_refused() -> None:
    group = '<group id="g"><primitive id="{}"><utilization id="gu"><nvpair id="gn" name="dynmem" value="3"/>'
    group += "</utilization></primitive></group>"
    assert [one.name for one in read_cib(cib_text({"web": 1}, {}, group.format("in"))).vms] == ["web", "in"]
    with pytest.raises(EngineError, match="two resources"):
        read_cib(cib_text({"web": 1}, {}, group.format("web")))


@pytest.mark.parametrize(
    ("score", "banned"),
    [
        *(("-INFINITY", True), ("-infinity", True), ("-1000000", True), ("-999999", False)),
        *(("1000000", False), ("INFINITY", False), ("-", False), ("", False)),
        *(("-" + "9" * 13, True), ("-" + "9" * 5000, True)),
    ],
)
def test_a_constraint_of_a_million_bans_as_one_of_infinity_does(score: str, banned: bool) -> None:
    constraint = f'<constraints><rsc_location id="c" rsc="web" node="n2" score="{score}"/></constraints>'
    (web,) = read_cib(cib_text({"web": 1}, {"n2": 1}).replace(b"<constraints/>", constraint.encode())).vms
    assert ("n2" in web.bans) == banned


def test_bans_are_read_with_their_reason() -> None:
    status = (
        '<node_state uname="n1"><transient_attributes id="1"><instance_attributes id="i">'
        '<nvpair id="f" name="fail-count-web#start_0" value="INFINITY"/>'
        '<nvpair id="g" name="fail-count-db#monitor_10000" value="1"/></instance_attributes>'
        "</transient_attributes></node_state>"
    )
    constraint = b'<constraints><rsc_location id="never" rsc="db" node="n2" score="-INFINITY"/></constraints>'
    text = cib_text({"web": 1, "db": 1}, {"n1": 1}, status=status).replace(b"<constraints/>", constraint)
    web, db = read_cib(text).vms
    assert "crm_resource --cleanup -N n1 -r web" in web.bans["n1"]
    assert db.bans == {"n2": "the constraint never bans it there"}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<cib",
        b"<other/>",
        b"\xff\xfe<\x00c\x00i\x00b\x00/\x00>\x00",
        b'<!DOCTYPE cib [<!ENTITY a "aaaa">]><cib/>',
        b'<!DOCTYPE cib SYSTEM "file:///etc/passwd"><cib/>',
        b"<cib>" + b"<a>" * DEEPEST + b"</a>" * DEEPEST + b"</cib>",
        b"<cib a='" + b"x" * LARGEST_BYTES + b"'/>",
        b"<cib>\x00</cib>",
        b"<cib>&undefined;</cib>",
    ],
    ids=["empty", "cut", "other", "utf-16", "entity", "external", "deep", "large", "nul", "undefined"],
)
def test_xml_that_is_not_the_engines_is_refused(text: bytes) -> None:
    with pytest.raises(EngineError):
        read_xml(text, "cib")


def test_a_configuration_without_its_content_is_refused() -> None:
    with pytest.raises(EngineError, match="no configuration"):
        read_cib(b"<cib/>")


@pytest.mark.parametrize("epoch", ["", "x", "-1", "9" * 5000])
def test_an_epoch_that_is_no_number_is_refused(epoch: str) -> None:
    with pytest.raises(EngineError, match="epoch"):
        changed(read_cib(CIB.replace(b'epoch="7"', f'epoch="{epoch}"'.encode(), 1)), {"web": 1}, {})


def test_a_pin_of_a_vm_that_was_renamed_or_of_a_pattern_is_in_the_way_of_none() -> None:
    text = cib_text({"old": 1, "new": 1}, {"n1": 1, "n2": 1}).replace(
        b"<constraints/>",
        b'<constraints><rsc_location id="dynmem-move-old" rsc="new" node="n1" score="INFINITY"/>'
        b'<rsc_location id="dynmem-move-x" rsc-pattern="x.*" node="n1" score="INFINITY"/></constraints>',
    )
    cib = read_cib(text)
    ids = [one.get("id") for one in read_cib(pinned(cib, "old", "n2")).root.iter("rsc_location")]
    assert sorted(map(str, ids)) == ["dynmem-move-old", "dynmem-move-x"]
    assert pins(read_cib(unpinned(cib, pins(cib), 0.0, 1.0))) == ()


def test_when_vms_were_moved_is_kept_for_as_long_as_they_rest_and_only_where_it_is_a_time() -> None:
    cib = read_cib(unpinned(read_cib(CIB), ["web", "gone"], 100.9, 30.0))
    assert moved_at(cib) == {"web": 100.0}
    assert moved_at(read_cib(unpinned(cib, ["db"], 129.0, 30.0))) == {"web": 100.0, "db": 129.0}
    later = read_cib(unpinned(cib, ["db"], 130.0, 30.0))
    assert moved_at(later) == {"db": 130.0}
    assert "dynmem-notes-web" not in {one.get("id") for one in later.root.iter()}
    for value in ("", "-1", "1.5", "soon", "9" * 13, "٣"):
        spoilt = ElementTree.tostring(cib.root, encoding="unicode").replace('value="100"', f'value="{value}"')
        assert moved_at(read_cib(spoilt.encode())) == {}


def test_what_is_noted_of_a_vm_goes_with_it_when_it_is_renamed_and_is_in_the_way_of_none() -> None:
    text = unpinned(read_cib(CIB), ["web"], 100.0, 30.0).replace(
        b'type="VirtualDomain" id="web"', b'id="new"'
    )
    text = text.replace(b'type="VirtualDomain" id="db"', b'type="VirtualDomain" id="web"')
    cib = read_cib(unpinned(read_cib(text), ["web"], 101.0, 30.0))
    assert moved_at(cib) == {"new": 100.0, "web": 101.0}
    ids = [one.get("id") for one in cib.root.iterfind("configuration//*[@id]")]
    assert len(set(ids)) == len(ids)


def test_marks_of_earlier_versions_are_understood_and_taken_away() -> None:
    old = b'<rsc_location id="dynmem-moved-web" rsc="web" node="n1" score="0"/>'
    cib = read_cib(CIB.replace(b"<constraints/>", b"<constraints>" + old + b"</constraints>"))
    assert marks(cib) == {"web": "n1"}
    assert marks(read_cib(unmarked(cib, ["web"]))) == {}


RULED = (
    '<instance_attributes id="r"><rule id="r1"/><nvpair id="r2" name="standby" value="{}"/>'
    "</instance_attributes>"
)


@pytest.mark.parametrize("value", ["on", "true", "YES", "1", "off"])
@pytest.mark.parametrize("where", ["for good", "until it starts again", "by a rule", "in a second block"])
def test_a_standby_is_somebody_elses_however_it_is_said(where: str, value: str) -> None:
    pair = f'<nvpair id="p" name="standby" value="{value}"/>'
    block = f'<instance_attributes id="x">{pair}</instance_attributes>'
    first = '<instance_attributes id="w"><nvpair id="o" name="other" value="1"/></instance_attributes>'
    inside = {
        "for good": block,
        "until it starts again": "",
        "by a rule": RULED.format(value),
        "in a second block": first + block,
    }[where]
    status = f'<transient_attributes id="1">{block}</transient_attributes>'
    status = f'<node_state uname="n1">{status}</node_state>' if where.startswith("until") else ""
    text = cib_text({"web": 1}, {"n1": None, "n2": 1}, status=status)
    cib = read_cib(text.replace(b'uname="n1"></node>', f'uname="n1">{inside}</node>'.encode()))
    assert drained(cib, "n1") is (False if value == "off" else None)
    assert drained(cib, "n2") is False


def test_a_drain_sets_and_ends_a_standby_that_no_rule_switches_off() -> None:
    inside = f'uname="n1">{RULED.format("off")}</node>'.encode()
    cib = read_cib(cib_text({"web": 1}, {"n1": None}).replace(b'uname="n1"></node>', inside))
    emptied = read_cib(in_standby(cib, "n1"))
    (block,) = [
        one
        for one in emptied.root.iterfind("configuration/nodes/node/instance_attributes")
        if one.find("rule") is None
    ]
    assert {one.get("name") for one in block} == {"standby", "dynmem-drain"}
    assert drained(emptied, "n1")
    again = read_cib(active(emptied, "n1"))
    assert drained(again, "n1") is False
    assert b'value="off"' in active(emptied, "n1")


def test_bans_of_a_drain_are_told_apart_whatever_dashes_names_hold() -> None:
    cib = read_cib(cib_text({"a": 1, "a-b": 1, "b-a": 1}, dict.fromkeys(("n", "n-b", "c", "b-c"), 1)))
    ways = [("a-b", "c"), ("a", "b-c"), ("b-a", "c")]
    banned = read_cib(in_standby(read_cib(in_standby(cib, "n", ways)), "n-b", [("a", "c")]))
    ids = [one.get("id") for one in banned.root.iter("rsc_location")]
    assert len(set(ids)) == len(ways) + 1
    after = read_cib(allowed(banned, "n"))
    assert (avoided(after, "n"), avoided(after, "n-b")) == (False, True)


def test_a_ban_of_a_vm_that_was_renamed_and_one_of_an_earlier_version_end_with_the_drain() -> None:
    cib = read_cib(cib_text({"old": 1, "web": 1}, {"n1": 1, "n2": 1}))
    text = in_standby(cib, "n1", [("old", "n2")]).replace(b'rsc="old"', b'rsc="new"')
    before = b'<rsc_location id="dynmem-avoid-n1-web-n2" rsc="web" node="n2" score="-INFINITY"/>'
    text = text.replace(b"</constraints>", before + b"</constraints>")
    assert list(read_cib(allowed(read_cib(text), "n1")).root.iter("rsc_location")) == []


OPT_IN = b'<nvpair id="sym" name="symmetric-cluster" value="%s"/></cluster_property_set>'


def test_where_only_constraints_permit_hosts_a_vm_is_banned_from_all_others() -> None:
    permits = (
        b'<constraints><rsc_location id="a" rsc="web" node="n1" score="0"/>'
        b'<rsc_location id="b" rsc="web" node="n2" score="-5"/>'
        b'<rsc_location id="c" rsc="db" node="n2" score="INFINITY"/>'
        b'<rsc_location id="dynmem-move-db" rsc="db" node="n1" score="INFINITY"/></constraints>'
    )
    text = CIB.replace(b"<constraints/>", permits)
    for value, bans in ((b"false", [{"n2"}, {"n1"}]), (b"true", [set(), set()])):
        cib = read_cib(text.replace(b"</cluster_property_set>", OPT_IN % value))
        assert [set(one.bans) for one in cib.vms] == bans
        assert all("permits it there" in why for one in cib.vms for why in one.bans.values())
