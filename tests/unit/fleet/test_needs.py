"""What Pacemaker needs is named, set but for fencing, and then no more is missing."""

import pytest

from host_controller.fleet.pacemaker.cib import read_cib
from host_controller.fleet.pacemaker.needs import missing, prepared
from host_controller.fleet.pacemaker.pins import unpinned
from tests.unit.fleet.cluster import cib_text

BARE = (
    '<primitive class="ocf" provider="heartbeat" type="VirtualDomain" id="bare"><operations>'
    '<op id="m" name="migrate_to" interval="0s" timeout="120s"/></operations></primitive>'
)
FENCE = '<primitive class="stonith" type="fence_ipmilan" id="fence"/>'


def test_all_that_is_missing_is_named_with_what_it_protects_from() -> None:
    found = {one.what: one for one in missing(read_cib(cib_text({}, {"n1": 1}, BARE)))}
    assert set(found) == {
        "a fencing device",
        "no-quorum-policy",
        "placement-strategy",
        "resource-stickiness",
        "bare: autoset_utilization_cpu",
        "bare: autoset_utilization_hv_memory",
        "bare: autoset_utilization_host_memory",
        "bare: allow-migrate",
        "bare: failure-timeout",
        "bare: migrate_to on-fail",
        "bare: start timeout",
        "bare: migrate_to timeout",
        "bare: migrate_from timeout",
        "bare: monitor timeout",
        "bare: utilization dynmem",
    }
    assert all(one.protects for one in found.values())


def test_what_is_prepared_lacks_nothing_but_fencing() -> None:
    cib = read_cib(cib_text({"web": 7}, {"n1": 1}, BARE + FENCE))
    after = read_cib(prepared(cib))
    assert missing(after) == ()
    assert {one.name: one.size_mib for one in after.vms} == {"web": 7, "bare": 0}
    bare = after.root.find(".//primitive[@id='bare']")
    assert bare is not None
    assert [one.tag for one in bare] == [
        "instance_attributes",
        "meta_attributes",
        "utilization",
        "operations",
    ]
    migrate = bare.find("operations/op[@id='m']")
    assert migrate is not None
    assert (migrate.get("on-fail"), migrate.get("timeout")) == ("block", "3600s")
    timeouts = {one.get("name"): one.get("timeout") for one in bare.iterfind("operations/op")}
    assert timeouts == {
        "start": "180s",
        "migrate_to": "3600s",
        "migrate_from": "3600s",
        "monitor": "60s",
    }


ARBITER = '<primitive class="ocf" provider="dynmem" type="fleet" id="{}"/>'


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ("", None),
        (ARBITER.format("a"), None),
        (ARBITER.format("a") + ARBITER.format("b"), "a, b"),
        (f'<clone id="c">{ARBITER.format("a")}</clone>', "a in a clone"),
    ],
)
def test_more_than_one_arbiter_is_named_and_left_to_people(more: str, found: str | None) -> None:
    needs = {one.what: one for one in missing(read_cib(cib_text({}, {"n1": 1}, more + FENCE)))}
    need = needs.get("the arbiter")
    assert (None if need is None else need.found) == found
    assert need is None or need.by_hand


def test_fencing_is_never_switched_on_here() -> None:
    text = cib_text({}, {"n1": 1}).replace(
        b'name="stonith-enabled" value="true"', b'name="stonith-enabled" value="false"'
    )
    (need,) = missing(read_cib(prepared(read_cib(text))))
    assert (need.what, need.by_hand) == ("stonith-enabled", True)


@pytest.mark.parametrize("option", ["enable-startup-probes", "start-failure-is-fatal"])
def test_an_engine_that_does_not_look_or_asks_one_host_again_and_again_is_set_right(option: str) -> None:
    off = f'<nvpair id="p" name="{option}" value="no"/></cluster_property_set>'.encode()
    text = cib_text({}, {"n1": 1}, FENCE).replace(b"</cluster_property_set>", off)
    assert option in {need.what for need in missing(read_cib(text))}
    assert missing(read_cib(prepared(read_cib(text)))) == ()


@pytest.mark.parametrize("value", ["", "x", "-5", "999"])
def test_a_stickiness_that_does_not_hold_vms_is_missing(value: str) -> None:
    pair = f'<nvpair id="s" name="resource-stickiness" value="{value}"/>'
    block = f'<rsc_defaults><meta_attributes id="d">{pair}</meta_attributes></rsc_defaults></configuration>'
    text = cib_text({}, {"n1": 1}).replace(b"</configuration>", block.encode())
    assert "resource-stickiness" in {need.what for need in missing(read_cib(text))}


@pytest.mark.parametrize(
    ("value", "holds"), [("0", False), ("-5", False), ("1000", True), ("INFINITY", True), ("9" * 5000, True)]
)
def test_a_vm_that_holds_to_no_host_by_its_own_setting_is_named_and_set(value: str, holds: bool) -> None:
    pair = f'<nvpair id="own" name="resource-stickiness" value="{value}"/>'
    one = BARE.replace("<operations>", f'<meta_attributes id="b">{pair}</meta_attributes><operations>')
    cib = read_cib(cib_text({}, {"n1": 1}, one + FENCE))
    assert ("bare: resource-stickiness" in {need.what for need in missing(cib)}) != holds
    assert missing(read_cib(prepared(cib))) == ()


@pytest.mark.parametrize(("value", "moves"), [("0", False), ("", False), ("3", True), ("INFINITY", True)])
@pytest.mark.parametrize("own", [True, False])
def test_a_vm_that_no_failure_keeps_from_a_host_is_named_and_set(value: str, moves: bool, own: bool) -> None:
    pair = f'<meta_attributes id="b"><nvpair id="t" name="migration-threshold" value="{value}"/>'
    block = f"{pair}</meta_attributes>"
    one = BARE.replace("<operations>", f"{block}<operations>") if own else BARE
    end = "</configuration>" if own else f"<rsc_defaults>{block}</rsc_defaults></configuration>"
    cib = read_cib(cib_text({}, {"n1": 1}, one + FENCE).replace(b"</configuration>", end.encode()))
    assert ("bare: migration-threshold" in {need.what for need in missing(cib)}) != moves
    assert missing(read_cib(prepared(cib))) == ()


@pytest.mark.parametrize(("value", "kept"), [("", False), ("0", False), ("5min", True)])
def test_bans_of_failed_starts_end_by_themselves_as_everybody_likes(value: str, kept: bool) -> None:
    pair = f'<nvpair id="s" name="failure-timeout" value="{value}"/>'
    block = f'<rsc_defaults><meta_attributes id="d">{pair}</meta_attributes></rsc_defaults></configuration>'
    text = cib_text({}, {"n1": 1}, BARE).replace(b"</configuration>", block.encode())
    assert ("bare: failure-timeout" in {need.what for need in missing(read_cib(text))}) != kept
    assert (b'value="30min"' in prepared(read_cib(text))) != kept


@pytest.mark.parametrize(
    ("timeout", "of_all", "kept"),
    [
        ('timeout="120s"', "", False),
        ('timeout="2min"', "", False),
        ('timeout="3599999ms"', "", False),
        ('timeout="-1"', "", False),
        ('timeout="PT5H"', "", False),
        ('timeout="1h"', "", True),
        ('timeout="7200"', "", True),
        ("", "", False),
        ("", "2h", True),
        ("", "30s", False),
        ('timeout="120s"', "2h", False),
    ],
)
def test_a_migration_that_would_be_cut_off_is_named_and_given_time_and_a_longer_one_keeps_its_own(
    timeout: str, of_all: str, kept: bool
) -> None:
    one = BARE.replace('timeout="120s"', timeout)
    pair = f'<op_defaults><meta_attributes id="d"><nvpair id="t" name="timeout" value="{of_all}"/>'
    block = f"{pair}</meta_attributes></op_defaults></configuration>" if of_all else "</configuration>"
    text = cib_text({}, {"n1": 1}, one + FENCE).replace(b"</configuration>", block.encode())
    named = {need.what: need for need in missing(read_cib(text))}
    assert ("bare: migrate_to timeout" not in named) == kept
    after = read_cib(prepared(read_cib(text)))
    assert missing(after) == ()
    (migrate,) = after.root.iterfind(".//primitive[@id='bare']/operations/op[@name='migrate_to']")
    assert (migrate.get("timeout") == "3600s") != kept


def test_a_timeout_among_an_operations_meta_attributes_counts_and_goes_when_it_is_short() -> None:
    pair = '<nvpair id="t" name="timeout" value="{}"/>'
    for value, kept in (("90s", False), ("2h", True)):
        inner = f'<meta_attributes id="om">{pair.format(value)}</meta_attributes>'
        one = BARE.replace(' timeout="120s"/>', f">{inner}</op>")
        cib = read_cib(cib_text({}, {"n1": 1}, one + FENCE))
        assert ("bare: migrate_to timeout" not in {need.what for need in missing(cib)}) == kept
        text = prepared(cib)
        assert missing(read_cib(text)) == ()
        assert (pair.format(value).encode() in text.replace(b" />", b"/>")) == kept


@pytest.mark.parametrize(
    ("priority", "named"),
    [("0", False), ("x", False), ("10", True), ("INFINITY", True), ("-5", False), ("9" * 5000, True)],
)
def test_a_vm_whose_start_would_stop_others_is_named_and_left_to_people(priority: str, named: bool) -> None:
    pair = f'<meta_attributes id="b"><nvpair id="p" name="priority" value="{priority}"/></meta_attributes>'
    first = BARE.replace("<operations>", f"{pair}<operations>")
    second = BARE.replace('id="bare"', 'id="other"').replace('id="m"', 'id="n"')
    cib = read_cib(cib_text({}, {"n1": 1}, first + second + FENCE))
    whose = "bare" if named else "other"
    found = [need for need in missing(cib) if "priority" in need.what]
    assert [(one.what, one.by_hand) for one in found] == (
        [(f"{whose}: priority", True)] if named or priority == "-5" else []
    )
    assert {one.what for one in missing(read_cib(prepared(cib)))} == {one.what for one in found}


def test_what_is_set_is_set_where_no_rule_switches_it_off() -> None:
    ruled = '<instance_attributes id="r"><rule id="r1"/><nvpair id="x" name="other" value="1"/>'
    ruled += "</instance_attributes>"
    cib = read_cib(cib_text({}, {"n1": 1}, BARE.replace("<operations>", f"{ruled}<operations>") + FENCE))
    after = read_cib(prepared(cib))
    assert missing(after) == ()
    blocks = after.root.findall(".//primitive[@id='bare']/instance_attributes")
    assert [len(one.findall("nvpair")) for one in blocks] == [1, 3]


RULE = '<rule id="r" score="0"><rsc_expression id="e" class="ocf" type="Filesystem"/></rule>'


@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        ("<{} id='a'>{}</{}>", "<{} id='b'>{}</{}>", 2),
        ("<{} id='a' score='5'>{}</{}>", "<{} id='b'>{}</{}>", 1),
        ("<{} id='a' score='5'>{}</{}>", "<{} id='cib-bootstrap-options'>{}</{}>", 2),
        (f"<{{}} id='a' score='5'>{RULE}{{}}</{{}}>", "<{} id='b'>{}</{}>", 2),
        ("<{} id='a'>{}</{}>", "<{} id-ref='c'>{}</{}>", 1),
    ],
)
@pytest.mark.parametrize("tag", ["cluster_property_set", "meta_attributes"])
def test_of_several_settings_that_counts_which_the_engine_takes_and_that_is_set(
    first: str, second: str, counts: int, tag: str
) -> None:
    where, name, good = {
        "cluster_property_set": ("crm_config", "placement-strategy", "balanced"),
        "meta_attributes": ("rsc_defaults", "resource-stickiness", "1000"),
    }[tag]
    for values in ((good, "0"), ("0", good)):
        both = [
            form.format(tag, f'<nvpair id="x{number}" name="{name}" value="{value}"/>', tag)
            for number, (form, value) in enumerate(zip((first, second), values, strict=True))
        ]
        text = cib_text({}, {"n1": 1}, FENCE)
        old = text[text.index(b"<crm_config>") : text.index(b"<nodes>")]
        text = text.replace(old, f"<crm_config/><{where}>{''.join(both)}</{where}>".encode())
        if where == "crm_config":
            text = text.replace(b"<crm_config/>", b"")
        cib = read_cib(text)
        assert (name in {need.what for need in missing(cib)}) == (values[counts - 1] != good)
        assert missing(read_cib(prepared(cib))) == ()


@pytest.mark.parametrize(
    "own", ["", '<meta_attributes id="own"><nvpair id="o" name="x" value="1"/></meta_attributes>']
)
def test_what_a_group_sets_counts_for_its_vms_until_they_say_otherwise(own: str) -> None:
    pair = '<meta_attributes id="gm"><nvpair id="gs" name="resource-stickiness" value="0"/></meta_attributes>'
    group = f'<group id="g">{pair}{BARE.replace("<operations>", f"{own}<operations>")}</group>'
    cib = read_cib(cib_text({}, {"n1": 1}, group + FENCE))
    assert "bare: resource-stickiness" in {need.what for need in missing(cib)}
    assert missing(read_cib(prepared(cib))) == ()


def test_what_a_vm_has_by_reference_is_left_to_people() -> None:
    shared = BARE.replace("<operations>", '<meta_attributes id-ref="others"/><operations>')
    cib = read_cib(cib_text({}, {"n1": 1}, shared + FENCE))
    (need,) = [one for one in missing(cib) if one.what.startswith("bare")]
    assert (need.what, need.by_hand) == ("bare: settings", True)
    assert [one.what for one in missing(read_cib(prepared(cib)))] == ["bare: settings"]


def test_ids_that_a_renamed_vm_has_kept_are_in_the_way_of_none_that_has_its_name_now() -> None:
    first = read_cib(prepared(read_cib(cib_text({}, {"n1": 1}, BARE + FENCE)))).text.decode()
    renamed = first.replace('type="VirtualDomain" id="bare"', 'type="VirtualDomain" id="new"')
    again = BARE.replace('id="m"', 'id="m2"')
    cib = read_cib(prepared(read_cib(renamed.replace("</resources>", f"{again}</resources>").encode())))
    assert missing(cib) == ()
    assert {one.name for one in cib.vms} == {"new", "bare"}
    ids = [one.get("id") for one in cib.root.iterfind("configuration//*[@id]")]
    assert len(set(ids)) == len(ids)


def test_init_sets_nothing_among_what_is_noted_of_a_moved_vm() -> None:
    cib = read_cib(unpinned(read_cib(cib_text({"bare": 1}, {"n1": 1}, FENCE)), ["bare"], 100.0, 30.0))
    after = read_cib(prepared(cib))
    assert missing(after) == ()
    later = read_cib(unpinned(after, [], 200.0, 30.0))
    assert missing(later) == ()
    assert "dynmem-notes-bare" not in {one.get("id") for one in later.root.iter()}
