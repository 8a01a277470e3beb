"""What Pacemaker needs is named, set but for fencing, and then no more is missing."""

import pytest

from host_controller.fleet.pacemaker.cib import read_cib
from host_controller.fleet.pacemaker.needs import missing, prepared
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
    assert (migrate.get("on-fail"), migrate.get("timeout")) == ("block", "120s")


def test_fencing_is_never_switched_on_here() -> None:
    text = cib_text({}, {"n1": 1}).replace(
        b'name="stonith-enabled" value="true"', b'name="stonith-enabled" value="false"'
    )
    (need,) = missing(read_cib(prepared(read_cib(text))))
    assert (need.what, need.by_hand) == ("stonith-enabled", True)


def test_an_engine_that_does_not_look_for_what_it_has_forgotten_is_set_to_look() -> None:
    off = b'<nvpair id="p" name="enable-startup-probes" value="no"/></cluster_property_set>'
    text = cib_text({}, {"n1": 1}, FENCE).replace(b"</cluster_property_set>", off)
    assert "enable-startup-probes" in {need.what for need in missing(read_cib(text))}
    assert missing(read_cib(prepared(read_cib(text)))) == ()


@pytest.mark.parametrize("value", ["", "x", "-5", "999", "9" * 5000])
def test_a_stickiness_that_does_not_hold_vms_is_missing(value: str) -> None:
    pair = f'<nvpair id="s" name="resource-stickiness" value="{value}"/>'
    block = f'<rsc_defaults><meta_attributes id="d">{pair}</meta_attributes></rsc_defaults></configuration>'
    text = cib_text({}, {"n1": 1}).replace(b"</configuration>", block.encode())
    assert "resource-stickiness" in {need.what for need in missing(read_cib(text))}


@pytest.mark.parametrize(
    ("value", "holds"), [("0", False), ("-5", False), ("1000", True), ("INFINITY", True)]
)
def test_a_vm_that_holds_to_no_host_by_its_own_setting_is_named_and_set(value: str, holds: bool) -> None:
    pair = f'<nvpair id="own" name="resource-stickiness" value="{value}"/>'
    one = BARE.replace("<operations>", f'<meta_attributes id="b">{pair}</meta_attributes><operations>')
    cib = read_cib(cib_text({}, {"n1": 1}, one + FENCE))
    assert ("bare: resource-stickiness" in {need.what for need in missing(cib)}) != holds
    assert missing(read_cib(prepared(cib))) == ()


@pytest.mark.parametrize(("value", "kept"), [("", False), ("0", False), ("5min", True)])
def test_bans_of_failed_starts_end_by_themselves_as_everybody_likes(value: str, kept: bool) -> None:
    pair = f'<nvpair id="s" name="failure-timeout" value="{value}"/>'
    block = f'<rsc_defaults><meta_attributes id="d">{pair}</meta_attributes></rsc_defaults></configuration>'
    text = cib_text({}, {"n1": 1}, BARE).replace(b"</configuration>", block.encode())
    assert ("bare: failure-timeout" in {need.what for need in missing(read_cib(text))}) != kept
    assert (b'value="30min"' in prepared(read_cib(text))) != kept
