"""Pacemaker's configuration is read within bounds, and only our attribute in it is changed."""

from xml.etree import ElementTree

import pytest

from host_controller.fleet.errors import EngineError
from host_controller.fleet.pacemaker.bounded_xml import DEEPEST, LARGEST_BYTES, read_xml
from host_controller.fleet.pacemaker.cib import LARGEST_MIB, changed, read_cib
from host_controller.fleet.pacemaker.pins import pinned, pins, unpinned
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
    assert back.replace(b'num_updates="0"', b'num_updates="3"', 1) == ElementTree.tostring(read_cib(CIB).root)


def test_a_node_that_is_new_gets_the_attribute() -> None:
    after = changed(read_cib(CIB), {}, {"n2": 500})
    assert read_cib(after).nodes["n2"] == 500
    assert read_cib(changed(read_cib(after), {}, {"n2": 600})).nodes["n2"] == 600


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


def test_vms_in_groups_are_found_and_two_of_one_name_are_refused() -> None:
    group = '<group id="g"><primitive id="{}"><utilization id="gu"><nvpair id="gn" name="dynmem" value="3"/>'
    group += "</utilization></primitive></group>"
    assert [one.name for one in read_cib(cib_text({"web": 1}, {}, group.format("in"))).vms] == ["web", "in"]
    with pytest.raises(EngineError, match="two resources"):
        read_cib(cib_text({"web": 1}, {}, group.format("web")))


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
    assert pins(read_cib(unpinned(cib, pins(cib)))) == ()
