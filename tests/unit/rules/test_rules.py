"""Rules: limits for domains whose XML is somebody else's, of which nothing is written."""

import platform
import re
from dataclasses import replace
from typing import Any

import libvirt
import msgspec
import pytest
from click.testing import CliRunner

from host_controller.api.schema.adoption import RulesView
from host_controller.cli import group
from host_controller.config import ConfigError, parse
from host_controller.core.model import Growth, Trust
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.host_abilities import HostAbilities
from host_controller.hypervisor import abilities, libvirt_calls
from host_controller.hypervisor.adapter import LibvirtHypervisor
from host_controller.hypervisor.definitions import Definition, Definitions
from host_controller.records.burn_in import BurnIn, Outcome, Verdict, Versions
from host_controller.rules.taking import Rulebook, Taken, take
from host_controller.service import FollowsRules
from host_controller.units import GIB, MIB
from tests.support.others import (
    BALLOON,
    COCKPIT,
    KUBEVIRT,
    NOVA,
    OVIRT,
    TERRAFORM,
    VAGRANT,
    VIRT_INSTALL,
    domain,
    inactive,
)

ROOMY = VIRT_INSTALL.replace(
    "<memory unit", "<maxMemory slots='8' unit='KiB'>8388608</maxMemory>\n  <memory unit"
)
DIMMS = frozenset({"hot add", "online", "unplug"})
VERSIONS = (9_000_000, 7_002_022)
"""Of libvirt and QEMU."""


def book(text: str) -> Rulebook:
    config = parse(text.encode())
    return Rulebook(config.rule, config.default_limits)


def rule(match: str, rest: str = 'minimum = "25%"') -> Rulebook:
    return book(f"[[rule]]\nmatch = {{{match}}}\n{rest}\n")


def taken(xml: str, rules: Rulebook) -> Taken:
    return take(xml, inactive(xml), rules)


def passing(*words: str) -> str:
    """A domain that passes this to QEMU past libvirt."""
    given = "".join(f"<q:arg value='{word}'/>" for word in words)
    line = f"<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>{given}</q:commandline>"
    return domain("x").replace("</domain>", f"{line}</domain>")


def mistakes(text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode())
    return {one.key: one.found for one in caught.value.problems}


@pytest.mark.parametrize("xml", [VIRT_INSTALL, TERRAFORM, COCKPIT, VAGRANT, NOVA, KUBEVIRT, OVIRT])
def test_a_domain_of_whatever_tool_gets_shares_of_the_ram_that_it_has(xml: str) -> None:
    config = taken(xml, rule("name = '*'")).view.config
    assert config is not None
    limits = config.limits
    assert (limits.minimum_bytes, limits.startup_bytes, limits.maximum_bytes) == (512 * MIB, 2 * GIB, 2 * GIB)
    assert (config.growth, config.trust, config.source) == (Growth.BALLOON, Trust.GUEST, "rule[1]")


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ("metadata = \"nova:flavor/@name = 'm1.large'\"", True),
        ("metadata = \"nova:flavor/@name = 'm1.*'\"", True),
        ("metadata = \"nova:instance/nova:name = 'shop'\"", True),
        ('metadata = "nova:flavor/nova:memory"', True),
        ("metadata = 'nova:flavor/@name'", True),
        ("metadata = '//nova:flavor/@name'", True),
        ("metadata = \"nova:flavor/@name = 'm1.small'\"", False),
        ("metadata = \"nova:name/nova:flavor = 'm1.large'\"", False),
        ("metadata = \"other:flavor/@name = 'm1.large'\"", False),
        ("metadata = \"flavor/@name = 'm1.large'\"", False),
        ("name = 'instance-*', metadata = \"nova:flavor/@name = 'm1.large'\"", True),
        ("name = 'web-*', metadata = \"nova:flavor/@name = 'm1.large'\"", False),
        ("uuid = '0B8AD6F6-*'", True),
        ("name = 'INSTANCE-*'", False),
        ("title = '*'", True),
        ("title = 'shop'", False),
    ],
)
def test_all_that_a_match_names_must_fit(match: str, fits: bool) -> None:
    assert (taken(NOVA, rule(match)).rule == 1) is fits


def test_a_namespace_without_a_prefix_is_matched_without_one() -> None:
    assert taken(KUBEVIRT, rule("metadata = 'kubevirt/uid'")).rule == 1


def test_ovirts_prefix_has_a_dash_in_it() -> None:
    assert taken(OVIRT, rule("metadata = \"ovirt-vm:clusterVersion = '4.*'\"")).rule == 1
    assert taken(OVIRT, rule("metadata = 'ovirt-tune:qos'")).rule == 1


def test_each_element_may_have_a_namespace_of_its_own_for_the_same_prefix() -> None:
    for prefix, colon in (("", ""), (":one", "one:")):
        words = "".join(f'<{colon}{name} xmlns{prefix}="urn:{name}">x</{colon}{name}>' for name in "ab")
        for name in "ab":
            assert taken(domain("two", words), rule(f"metadata = \"{colon}{name} = 'x'\"")).rule == 1


def test_the_first_rule_that_matches_counts() -> None:
    rules = book(
        "[[rule]]\nmatch = {name = 'web-*'}\nweight = 7\n[[rule]]\nmatch = {name = 'inst*'}\nweight = 8\n"
        "[[rule]]\nmatch = {name = '*'}\nweight = 9\n"
    )
    found = taken(NOVA, rules)
    assert found.view.config is not None
    assert (found.rule, found.view.config.limits.weight, found.view.config.source) == (2, 8, "rule[2]")


def test_metadata_in_the_domain_goes_before_every_rule() -> None:
    limits = rule("name = '*'").defaults
    prepared = enable(inactive(VIRT_INSTALL), limits, Growth.HOTADD).xml
    found = take(prepared, prepared, rule("name = '*'"))
    assert (found.rule, found.passed_over) == (None, 1)
    assert found.view.config is not None
    assert found.view.config.source == "metadata"


def test_metadata_that_cannot_be_used_is_not_overruled_by_a_rule() -> None:
    prepared = enable(inactive(VIRT_INSTALL), rule("name = '*'").defaults, Growth.BALLOON).xml
    broken = prepared.replace('startup="', 'startup="x').replace("startup='", "startup='x")
    assert broken != prepared
    found = take(broken, broken, rule("name = '*'"))
    assert (found.rule, found.view.config) == (None, None)


def test_a_limit_that_the_rule_does_not_name_says_where_it_is_from() -> None:
    config = taken(VIRT_INSTALL, rule("name = '*'", 'weight = 5\nminimum = "1GiB"')).view.config
    assert config is not None
    assert dict(config.defaults) == {
        "startup": "its definition",
        "maximum": "its RAM",
        "buffer": "[defaults]",
    }
    assert config.limits.minimum_bytes == GIB


def test_a_maximum_is_never_above_the_ram_that_the_vm_can_have() -> None:
    config = taken(VIRT_INSTALL, rule("name = '*'", 'maximum = "64GiB"')).view.config
    assert config is not None
    assert config.limits.maximum_bytes == 2 * GIB


def test_limits_that_contradict_for_one_vm_leave_it_alone_and_are_said() -> None:
    found = taken(VIRT_INSTALL, rule("name = '*'", 'minimum = "50%"\nmaximum = "512MiB"'))
    assert found.view.config is None
    assert any("below" in one for one in found.reasons)
    assert any("rule[1] cannot take it on" in one for one in found.view.problems)


@pytest.mark.parametrize(
    ("xml", "word"),
    [
        (domain("x", balloon=""), "no memory balloon"),
        (domain("x", balloon="<memballoon model='none'/>"), "no memory balloon"),
        (domain("x", balloon=BALLOON.replace("'virtio'>", "'virtio' autodeflate='on'>")), "deflate-on-oom"),
        (domain("x", devices="<hostdev mode='subsystem' type='pci'/>"), "VFIO"),
        (domain("x").replace("<vcpu", "<memoryBacking><locked/></memoryBacking><vcpu"), "locked"),
        (domain("x", devices="<memory model='dimm'><target><size>131072</size></target></memory>"), "dimm"),
        (passing("-m", "8G"), "`-m 8G`"),
        (passing("-mem-path", "/dev/hugepages"), "mem-path"),
    ],
)
def test_what_cannot_give_memory_is_left_alone_with_the_way_out(xml: str, word: str) -> None:
    found = taken(xml, rule("name = '*'"))
    assert found.view.config is None
    assert found.rule == 1
    (reason,) = found.reasons
    assert word in reason
    assert "; " in reason


def test_a_device_that_a_network_hands_out_pins_as_one_that_is_defined() -> None:
    mac = "<mac address='52:54:00:6d:90:02'/>"
    defined = domain("x", devices=f"<interface type='network'>{mac}<source network='vfs'/></interface>")
    runs = domain("x", devices=f"<interface type='hostdev' managed='yes'>{mac}</interface>")
    known = replace(rule("name = '*'"), host=HostAbilities(device_networks=frozenset({"vfs"})))
    for xml, rules in ((runs, rule("name = '*'")), (defined, known)):
        found = take(xml, inactive(defined), rules)
        assert found.view.config is None
        (reason,) = found.reasons
        assert "<source network='vfs'> pins its memory (VFIO)" in reason
    assert taken(defined, rule("name = '*'")).reasons == (), "nobody says that it is such a network"


def test_a_device_that_was_plugged_into_what_runs_does_not_end_its_being_managed() -> None:
    runs = domain("x", devices="<interface type='hostdev'><mac address='52:54:00:6d:90:03'/></interface>")
    config = take(runs, inactive(domain("x")), rule("name = '*'")).view.config
    assert config is not None
    assert config.pinned == "VFIO"


def test_a_domain_that_was_defined_for_hot_add_grows_by_it() -> None:
    config = taken(ROOMY, rule("name = '*'")).view.config
    assert config is not None
    assert (config.growth, config.limits.maximum_bytes) == (Growth.HOTADD, 8 * GIB)
    fixed = taken(ROOMY, rule("name = '*'", 'growth = "balloon"')).view.config
    assert fixed is not None
    assert fixed.limits.maximum_bytes == 2 * GIB


def test_where_the_machine_takes_no_dimm_its_balloon_moves_it_whatever_slots_it_has() -> None:
    without_acpi = ROOMY.replace("<acpi/>", "")
    config = taken(without_acpi, rule("name = '*'")).view.config
    assert config is not None
    assert (config.growth, config.limits.maximum_bytes) == (Growth.BALLOON, 2 * GIB)
    (reason,) = taken(without_acpi, rule("name = '*'", 'growth = "hotadd"')).reasons
    assert "ACPI is off" in reason
    assert "growth by balloon" in reason, "it moved it before it was asked for DIMMs"
    (reason,) = taken(passing("-no-acpi", "-m", "8G"), rule("name = '*'")).reasons
    assert "growth by balloon" not in reason, "that would be refused, too"


def test_libvirts_own_limit_on_the_running_vm_bounds_how_far_it_grows_and_that_is_said() -> None:
    def limited(gib: int, minimum: str = "25%", backing: str = "") -> Taken:
        limit = f"<memtune><hard_limit unit='GiB'>{gib}</hard_limit></memtune>{backing}<vcpu"
        wanted = rule("name = '*'", f'minimum = "{minimum}"')
        return take(ROOMY.replace("<vcpu", limit), inactive(ROOMY), wanted)

    assert limited(9).notes == ()
    bounded = limited(4)
    assert bounded.view.config is not None
    assert 3 * GIB < bounded.view.config.limits.maximum_bytes < 4 * GIB
    (note,) = bounded.notes
    assert "hard_limit of 4 GiB bounds it at" in note
    assert "not 8 GiB" in note
    assert dict(bounded.view.config.defaults)["maximum"] == "its memtune hard_limit"
    tight = limited(1).view.config
    assert tight is not None
    assert tight.limits.maximum_bytes == 2 * GIB, "what it has it may take in any case"
    in_huge_pages = limited(4, backing="<memoryBacking><hugepages/></memoryBacking>").view.config
    assert in_huge_pages is not None
    assert in_huge_pages.limits.maximum_bytes == 8 * GIB, "a cgroup does not count them"
    for minimum in ("50%", "6GiB"):
        all_of_it = limited(4, minimum).view.config
        assert all_of_it is not None, "a minimum above that is no reason to leave it alone"
        assert all_of_it.limits.minimum_bytes == bounded.view.config.limits.maximum_bytes


PLUGGED = ROOMY.replace(
    "<memballoon",
    "<memory model='dimm'><target><size unit='KiB'>131072</size></target></memory><memballoon",
).replace("<memory unit='KiB'>2097152<", "<memory unit='KiB'>2228224<")
"""As it runs with a DIMM of the controller's."""


def test_a_transient_domain_with_a_dimm_of_ours_stays_taken_on() -> None:
    found = take(PLUGGED, None, rule("name = '*'")).view
    assert found.config is not None
    assert (found.config.growth, found.config.limits.maximum_bytes) == (Growth.HOTADD, 8 * GIB)
    assert len(found.dimms) == 1
    (reason,) = take(PLUGGED, PLUGGED, rule("name = '*'")).reasons
    assert "memory device of its own" in reason, "its definition has it from its user"
    (reason,) = take(PLUGGED, None, rule("name = '*'", 'growth = "balloon"')).reasons
    assert "memory device of its own" in reason, "by balloon none is ours"


@pytest.mark.parametrize(
    ("known", "startup_mib"),
    [(None, 1024), (2 * GIB, 2048), (1 * GIB, 1024), (1 << 44, 2048)],  # now; as known; as known; not known
)
def test_where_the_balloon_of_a_transient_domain_is_is_no_startup(
    known: int | None, startup_mib: int
) -> None:
    squeezed = re.sub(r"(<currentMemory[^>]*>)\d+", rf"\g<1>{1 << 20}", ROOMY)
    assert squeezed != ROOMY
    book = rule("name = '*'", 'minimum = "512MiB"')
    config = take(squeezed, None, book, known).view.config
    assert config is not None
    assert config.limits.startup_bytes == startup_mib * MIB
    defined = take(squeezed, inactive(ROOMY), book, known).view.config
    assert defined is not None
    assert defined.limits.startup_bytes == 2 * GIB, "its definition says it"


def test_a_dimm_that_a_transient_domain_was_started_with_is_no_part_of_its_startup_at_any_look() -> None:
    larger = re.sub(r"(<currentMemory[^>]*>)\d+", rf"\g<1>{2228224}", PLUGGED)
    for known in (None, 2228224 << 10):
        config = take(larger, None, rule("name = '*'"), known).view.config
        assert config is not None
        assert config.limits.startup_bytes == 2 * GIB


def test_what_was_plugged_into_the_running_domain_does_not_change_how_it_grows() -> None:
    plugged = ROOMY.replace(
        "<memballoon",
        "<memory model='dimm'><target><size unit='KiB'>131072</size></target></memory><memballoon",
    )
    config = take(plugged, inactive(ROOMY), rule("name = '*'")).view.config
    assert config is not None
    assert config.growth is Growth.HOTADD


@pytest.mark.parametrize(
    ("growth", "host", "found", "said"),
    [
        ("", HostAbilities(), Growth.HOTADD, ""),
        ("", HostAbilities(passed=DIMMS), Growth.HOTADD, ""),
        ("", HostAbilities(passed=DIMMS - {"unplug"}), Growth.BALLOON, "did not pass 'unplug'"),
        ("", HostAbilities(qemu=1_000_000), Growth.BALLOON, "QEMU 1.0 cannot resize it"),
        ('growth = "auto"', HostAbilities(passed=DIMMS), Growth.HOTADD, ""),
        ('growth = "auto"', HostAbilities(passed=frozenset()), Growth.BALLOON, "did not pass 'hot add'"),
        ('growth = "hotadd"', HostAbilities(passed=frozenset()), Growth.HOTADD, ""),
    ],
)
def test_growth_that_a_rule_does_not_name_obeys_what_the_burn_in_has_shown(
    growth: str, host: HostAbilities, found: Growth, said: str
) -> None:
    one = taken(ROOMY, replace(rule("name = '*'", growth), host=host))
    assert one.view.config is not None
    assert one.view.config.growth is found
    assert one.view.config.limits.maximum_bytes == (8 if found is Growth.HOTADD else 2) * GIB
    assert said in "; ".join(one.notes)
    assert bool(one.notes) is bool(said)
    if said:
        assert one.notes[0].endswith('growth = "hotadd" in rule[1] does it all the same')


class Domain:
    """A running domain of libvirt's with its definition; whatever would change it fails."""

    def XMLDesc(self, flags: int) -> str:  # noqa: N802 # libvirt's name
        return inactive(NOVA) if flags & libvirt.VIR_DOMAIN_XML_INACTIVE else NOVA

    def state(self) -> list[int]:
        return [libvirt.VIR_DOMAIN_RUNNING, 0]

    def isPersistent(self) -> bool:  # noqa: N802 # libvirt's name
        return True


class Connection:
    """Knows that one."""

    def domain(self, _uuid: str) -> Domain:
        return Domain()


def test_a_running_domain_is_taken_on_by_a_rule_and_nothing_is_written() -> None:
    connection: Any = Connection()
    before = libvirt_calls.inspect(connection, "uuid")
    after = libvirt_calls.inspect(connection, "uuid", rule("name = 'inst*'"))
    assert before is not None
    assert after is not None
    assert before.view.config is None
    assert after.view.config is not None
    assert after.view.wants_statistics


class Worker:
    """Counts how often it is to look again."""

    looks = 0

    def look_again(self) -> None:
        self.looks += 1


def test_other_rules_are_followed_at_once_and_the_same_ones_disturb_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker()
    hypervisor = LibvirtHypervisor("test:///default", rules=rule("name = 'a'"))
    monkeypatch.setattr(hypervisor, "_workers", {"uuid": worker})
    assert isinstance(hypervisor, FollowsRules)
    hypervisor.follow_rules(rule("name = 'a'"))
    assert worker.looks == 0
    hypervisor.follow_rules(rule("name = 'b'"))
    assert worker.looks == 1


# --- the file ---


@pytest.mark.parametrize(
    ("text", "key", "found"),
    [
        ("rule = 3", "rule", "3"),
        ("[rule]\nweight = 3", "rule", '{"weight": 3}'),
        ("[[rule]]\nweight = 3", "rule[1].match", "{}"),
        ("[[rule]]\nmatch = {}", "rule[1].match", "{}"),
        (
            "[[rule]]\nmatch = {nmae = 'x'}",
            "rule[1].match.nmae",
            "a key that is not known (did you mean name?)",
        ),
        ("[[rule]]\nmatch = {name = ''}", "rule[1].match.name", '""'),
        ("[[rule]]\nmatch = {metadata = '//x['}", "rule[1].match.metadata", '"//x["'),
        (
            "[[rule]]\nmatch = {name = 'x'}\nweigth = 3",
            "rule[1].weigth",
            "a key that is not known (did you mean weight?)",
        ),
        ("[[rule]]\nmatch = {name = 'x'}\nmaximum = '101%'", "rule[1].maximum", '"101%"'),
        ("[[rule]]\nmatch = {name = 'x'}\nminimum = '0%'", "rule[1].minimum", '"0%"'),
        ("[[rule]]\nmatch = {name = 'x'}\nminimum = '1MiB'", "rule[1].minimum", '"1MiB"'),
        ("[[rule]]\nmatch = {name = 'x'}\nminimum = true", "rule[1].minimum", "true"),
        ("[[rule]]\nmatch = {name = 'x'}\nweight = 0", "rule[1].weight", "0"),
        ("[[rule]]\nmatch = {name = 'x'}\ntrust = 'all'", "rule[1].trust", '"all"'),
        ("[[rule]]\nmatch = {name = 'x'}\ngrowth = 'wild'", "rule[1].growth", '"wild"'),
        (
            "[[rule]]\nmatch = {name = 'x'}\nminimum = '50%'\nmaximum = '25%'",
            "rule[1].minimum",
            "a minimum of 50% above a maximum of 25%",
        ),
        (
            "[[rule]]\nmatch = {name = 'x'}\nminimum = '2GiB'\nmaximum = '1GiB'",
            "rule[1].minimum",
            "a minimum of 2 GiB above a maximum of 1 GiB",
        ),
    ],
)
def test_a_mistake_in_a_rule_is_named_by_its_key(text: str, key: str, found: str) -> None:
    assert mistakes(text) == {key: found}


@pytest.mark.parametrize(
    ("first", "second", "reached"),
    [
        ("name = '*'", "name = 'web-1'", False),
        ("name = 'web-*'", "name = 'web-1'", False),
        ("name = 'web-*'", "name = 'web-*'", False),
        ("name = 'web*'", "name = 'web-*'", False),
        ("name = '*web*'", "name = 'a?web-*-b'", False),
        ("name = 'web-*'", "name = 'web*'", True),
        ("name = 'web?'", "name = 'web*'", True),
        ("name = '*-[ab]'", "name = 'web-*'", True),
        ("name = '*]'", "name = 'web[ab]'", True),
        ("name = 'web-*'", "name = 'web-*', title = 'x'", False),
        ("name = '*'", "title = 'x'", False),
        ("uuid = 'ABC'", "uuid = 'abc'", False),
        ("metadata = \"a:b = 'x'\"", "metadata = \"a:b='x'\"", False),
        ("name = 'web-1'", "name = 'web-*'", True),
        ("name = 'web-*', title = 'x'", "name = 'web-*'", True),
        ("title = '*'", "name = 'x'", True),
    ],
)
def test_a_rule_that_can_never_be_the_first_is_a_mistake(first: str, second: str, reached: bool) -> None:
    text = f"[[rule]]\nmatch = {{{first}}}\n[[rule]]\nmatch = {{{second}}}\n"
    if reached:
        assert len(parse(text.encode()).rule) == 2
    else:
        assert "never reached" in mistakes(text)["rule[2].match"]


# --- dynmem rules ---

FILE = """[libvirt]
uri = "test:///default"
[[rule]]
match = {name = "tes*"}
growth = "balloon"
minimum = "25%"
[[rule]]
match = {name = "nobody-*"}
"""


def burnt_in(monkeypatch: pytest.MonkeyPatch, outcome: Outcome, versions: tuple[int, int]) -> None:
    """The burn-in of these versions ended like that for every check."""
    verdicts = tuple(Verdict(check, outcome, "") for check in DIMMS)
    of = Versions(platform.release(), qemu=versions[1], libvirt=versions[0])
    kept = BurnIn(of, "tcg", 1.0, 1.0, verdicts)
    monkeypatch.setattr(abilities, "burn_ins", lambda: (kept,))


def test_the_controller_obeys_a_burn_in_that_was_made_since_from_its_next_reload_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker()
    hypervisor = LibvirtHypervisor("test:///default", rules=rule("name = '*'"))
    monkeypatch.setattr(hypervisor, "_workers", {"uuid": worker})
    monkeypatch.setattr(hypervisor, "_versions", VERSIONS)
    burnt_in(monkeypatch, "passed", VERSIONS)
    hypervisor.follow_rules(rule("name = '*'"))
    burnt_in(monkeypatch, "failed", VERSIONS)
    hypervisor.follow_rules(rule("name = '*'"))
    hypervisor.follow_rules(rule("name = '*'"))
    assert worker.looks == 2, "at each change"
    assert hypervisor._rules.host.passed == frozenset()


def test_rules_show_what_the_host_has_not_shown_that_it_can_do(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    burnt_in(monkeypatch, "failed", VERSIONS)
    monkeypatch.setattr(Definitions, "versions", lambda self: VERSIONS)
    monkeypatch.setattr(Definition, "xml", lambda self, **_: inactive(ROOMY))
    monkeypatch.setattr(Definition, "live_xml", lambda self: ROOMY)
    path = tmp_path / "dynmem.toml"
    path.write_text(FILE.partition("[[rule]]")[0] + "[[rule]]\nmatch = {name = '*'}\ngrowth = 'auto'\n")
    shown = CliRunner().invoke(group, ["rules", "--config", str(path)])
    assert shown.exit_code == 0, shown.output
    assert "balloon" in shown.output
    assert "`dynmem verify` did not pass 'hot add' on this host" in shown.output
    said = CliRunner().invoke(group, ["rules", "--json", "--config", str(path)])
    (vm,) = msgspec.json.decode(said.output, type=RulesView).vms
    assert (vm.growth, len(vm.notes), vm.reasons) == ("balloon", 1, [])


def test_every_vm_is_shown_and_a_rule_for_nobody_is_a_note(tmp_path: Any) -> None:
    path = tmp_path / "dynmem.toml"
    path.write_text(FILE)
    shown = CliRunner().invoke(group, ["rules", "--config", str(path)])
    assert shown.exit_code == 0, shown.output
    assert "* rule[2] (name = 'nobody-*') is for no VM that there is now" in shown.output
    assert "rule[1]" in shown.output
    said = CliRunner().invoke(group, ["rules", "--json", "--config", str(path)])
    view = msgspec.json.decode(said.output, type=RulesView)
    assert (view.rules, [vm.rule for vm in view.vms], len(view.notes)) == (2, [1], 1)
