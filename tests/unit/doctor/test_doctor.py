"""`dynmem doctor`: each check over facts, without libvirt; then all of it over libvirt's test driver."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import libvirt
import msgspec
import pytest
from click.testing import CliRunner

from agent.finding import Finding
from host_controller.api.schema.checks import DoctorView
from host_controller.cli import doctor as command
from host_controller.cli.doctor import doctor, lines
from host_controller.config import load
from host_controller.config.rule import MatchSection, RuleSection
from host_controller.core.model import Growth, Limits
from host_controller.doctor import host, kernel, vm
from host_controller.doctor.facts import HostSurvey, VmSurvey
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.host_abilities import HostAbilities
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.traces import was_prepared
from host_controller.domain_xml.values import parse_xml
from host_controller.hypervisor import about_host
from host_controller.hypervisor.survey import why_stopped
from host_controller.rules.taking import Rulebook, take
from host_controller.units import GIB, MIB
from tests.support.others import VIRT_INSTALL
from tests.support.surveys import AGENT, HOST, VIEW, XML, survey, with_agent, without
from tests.unit.hypervisor.domains import Q35


def test_a_host_and_a_vm_as_they_should_be_give_nothing_but_ok() -> None:
    assert {check(HOST).level for check in host.CHECKS} == {"ok"}
    found = [check(survey()) for check in vm.CHECKS]
    assert [one for one in found if one.level != "ok"] == []


def about_controller(**more: Any) -> dict[str, Any]:
    assert HOST.controller is not None
    return HOST.controller | more


LIMITED = {
    "capacity_limited": True,
    "capacity_bound": "memory.max of machine.slice",
    "capacity_bytes": GIB,
}
KILLED = LIMITED | {"capacity_bound": "earlyoom, which kills below 10 % of available memory"}
POOL = {
    "page_bytes": 2 * MIB,
    "total_bytes": 4 * GIB,
    "free_bytes": 2 * GIB,
    "vms_bytes": 0,
    "reserved_bytes": 0,
}
LARGE = without(
    without(XML, "<domain>", "<domain type='kvm'>").replace("4194304", str(64 << 20)),
    "<devices>",
    "<cpu mode='host-passthrough'/><devices>",
)
BY_MEM = without(XML, 'growth="hotadd"', 'growth="virtio-mem"')
HUGE = "<memoryBacking><hugepages/></memoryBacking><os>"
IN_PAGES = without(XML, "<os>", HUGE)
BY_DEVICE = with_agent(kernel="5.4.0-190-generic") | {"growth": "virtio-mem", "virtio_mem_bytes": 0}
ROOMY = {"vm_swap_bytes": MIB, "available_bytes": 40 * GIB, "spare_bytes": 4 * GIB}
OVERDRAFT = {"bytes_now": MIB, "cause": "web was started"}


def with_network(name: str) -> HostAbilities:
    return HostAbilities(device_networks=frozenset({name}))


IN_A_SCOPE = VIEW | {
    "limits": {"maximum_bytes": 2 * GIB},
    "limit_sources": {"maximum": "memory.max of machine-qemu-1.scope"},
}
HANDED_OUT = "<interface type='network'><source network='vfs'/></interface>"


def test_without_a_controller_nothing_that_it_tells_is_called_in_order() -> None:
    silent = HostSurvey("qemu:///system", controller_problem="nobody", controller_remedy="start it")
    found = {one.check: one.found for one in (check(silent) for check in host.CHECKS)}
    told = ("history", "overdraft", "management", "capacity", "resident memory", "huge pages")
    assert {found[name] for name in told} == {"not known without a controller"}


def test_ram_that_ends_where_the_kernel_takes_large_blocks_is_told() -> None:
    """Prepared before that was known."""
    gib64 = enable(Q35, Limits(GIB, GIB, 8 * GIB), Growth.VIRTIO_MEM).xml.replace(
        "memory='1048576'", f"memory='{64 << 20}'"
    )
    limits = next(one for check in vm.CHECKS if (one := check(survey(gib64))).check == "limits")
    assert limits.level == "note"
    assert "2 GiB at a time" in limits.found
    assert limits.remedy.startswith("dynmem enable web")


@pytest.mark.parametrize(
    ("facts", "check", "level", "found"),
    [
        ({"libvirt_version": 6_000_000}, "libvirt version", "problem", "6.0.0"),
        ({"libvirt_version": 8_000_000}, "libvirt version", "note", "8.0.0"),
        ({"libvirt_version": 0}, "libvirt version", "note", "not known"),
        ({"qemu_version": 4_002_001}, "QEMU version", "problem", "4.2.1"),
        ({"kvm": "there is no /dev/kvm"}, "KVM", "note", "there is no /dev/kvm"),
        (
            {"controller": None, "controller_problem": "nobody", "controller_remedy": "ask"},
            "controller",
            "problem",
            "nobody",
        ),
        ({"controller": about_controller(connected=False)}, "controller", "problem", "qemu:///system"),
        ({"controller": about_controller(configuration_error="x")}, "configuration", "problem", "refused: x"),
        ({"file_problem": "a mistake"}, "configuration", "problem", "can start with it: a mistake"),
        ({"controller": about_controller(history_problem="full")}, "history", "problem", "not written: full"),
        ({"controller": about_controller(overdraft=OVERDRAFT)}, "overdraft", "problem", "web was started"),
        ({"controller": about_controller(paused=True)}, "management", "note", "paused"),
        ({"controller": about_controller(vm_swap_bytes=MIB)}, "host swap", "problem", "1 MiB of VMs"),
        (
            {"controller": about_controller(**ROOMY)},
            "host swap",
            "note",
            "1 MiB of VMs are swapped out, and 40",
        ),
        (
            {"controller": about_controller(**ROOMY | {"spare_bytes": 64 * GIB})},
            "host swap",
            "problem",
            "1 MiB of VMs",
        ),
        ({"controller": about_controller(unread={"u": "why"})}, "resident memory", "problem", "of 1 VMs"),
        ({"controller": about_controller(**LIMITED)}, "capacity", "note", "memory.max of machine.slice"),
        ({"controller": about_controller(**KILLED)}, "capacity", "note", "earlyoom, which kills below 10 %"),
        ({"controller": about_controller(pools=[POOL])}, "huge pages", "note", "2 GiB lie in huge pages"),
        (
            {"controller": about_controller(pools=[POOL | {"vms_bytes": MIB}])},
            "huge pages",
            "ok",
            "4 GiB of 2 MiB",
        ),
        ({"swap_total_bytes": 0}, "host swap", "note", "none"),
        ({"overcommit_memory": 2}, "overcommit", "problem", "can fail"),
        ({"killers": ("bustd", "systemd-oomd")}, "killers", "note", "bustd and systemd-oomd may kill a VM"),
        ({"memmap_on_memory": True}, "memmap_on_memory", "ok", "on"),
        ({"ksm": True}, "KSM", "note", "merged pages"),
        ({"khugepaged_fills": True}, "khugepaged", "note", "fills the holes"),
        ({"hook": None}, "start hook", "note", "not installed"),
        ({"controller": about_controller(unasked_start="web")}, "start hook", "problem", "not run it: web"),
        ({"hook": None, "hook_unseen": "x: Permission denied"}, "start hook", "note", "seen: x: Perm"),
        ({"rules": 2}, "rules", "ok", "each of 2"),
        ({"rules": 2, "idle_rules": ("rule[2] (…) is for no VM",)}, "rules", "note", "rule[2]"),
    ],
)
def test_findings_about_the_host(facts: dict[str, Any], check: str, level: str, found: str) -> None:
    one = finding([judge(replace(HOST, **facts)) for judge in host.CHECKS], check)
    assert one.level == level
    assert found in one.found
    assert one.remedy or level == "ok"


def by_rule(xml: str, **more: Any) -> VmSurvey:
    book = Rulebook((RuleSection(match=MatchSection(name="*")),), Limits(GIB, GIB // 2, 4 * GIB))
    taken = take(xml, None, book)
    return replace(survey(xml, **more), domain=taken.view, rule=taken.rule)


def test_a_vm_that_a_rule_is_for_is_judged_without_blaming_it_for_what_a_rule_does_not_write() -> None:
    silent = VIEW | {"agent": None}
    asked = VIRT_INSTALL.replace("<alias name='balloon0'/>", "<stats period='1'/><alias name='balloon0'/>")
    found = [judge(by_rule(asked, view=silent)) for judge in vm.CHECKS]
    assert [one.check for one in found if one.level == "problem"] == []
    assert all("enable" not in one.remedy for one in found)
    assert finding(found, "limits").found == "by rule[1]"


def test_a_rule_that_cannot_take_a_vm_on_is_a_problem_of_that_vm() -> None:
    without_balloon = VIRT_INSTALL.replace("<memballoon model='virtio'", "<memballoon model='none'")
    found = [judge(by_rule(without_balloon, view=None)) for judge in vm.CHECKS]
    limits = finding(found, "limits")
    assert (limits.level, limits.remedy) == ("problem", "dynmem rules shows what it would get")
    assert "no memory balloon" in limits.found
    assert finding(found, "balloon statistics").level == "problem"


def test_what_libvirt_refuses_is_looked_for_at_libvirt() -> None:
    silent = about_controller(unread={"u": "libvirt does not tell of its balloon: no"})
    assert "dommemstat" in host.resident_memory(replace(HOST, controller=silent)).remedy


@pytest.mark.parametrize(
    ("facts", "check", "level", "found"),
    [
        (survey(view=None), "managed", "problem", "does not know it"),
        (survey(view=None, controller=False), "managed", "note", "no controller"),
        (survey(view=VIEW | {"paused": True}), "managed", "note", "paused"),
        (survey(without(XML, 'startup="1048576"', 'startup="1"')), "limits", "problem", "startup"),
        (
            survey(without(XML, ">4194304<", ">2097152<")),
            "limits",
            "note",
            "2 GiB at most, and its maximum is 4",
        ),
        (
            survey(without(without(XML, 'startup="1048576"', 'startup="2097152"'), "<os>", HUGE)),
            "limits",
            "problem",
            "boots with 1 GiB of its startup of 2 GiB",
        ),
        (survey(without(XML, 'state="connected"', 'state="disconnected"')), "channel", "problem", "nobody"),
        (survey(without(XML, 'name="org.dynmem.agent.0"', 'name="x"')), "channel", "problem", "no port"),
        (survey(view=VIEW | {"agent": None}), "agent", "note", "balloon statistics"),
        (
            survey(view=VIEW | {"agent": None, "report_age_seconds": None}),
            "agent",
            "problem",
            "silent",
        ),
        (survey(view=with_agent(report_age_seconds=60.0)), "agent", "problem", "60 s ago"),
        (survey(view=with_agent(version="0.0.1")), "agent version", "note", "0.0.1"),
        (
            survey(without(XML, '<stats period="1"/>', '<stats period="1"/><driver iommu="on"/>')),
            "balloon statistics",
            "problem",
            "behind an IOMMU",
        ),
        (survey(without(XML, '<stats period="1"/>')), "balloon statistics", "problem", "switched off"),
        (survey(statistics={"actual": 1}), "balloon statistics", "problem", "never answered"),
        (survey(without(XML, ' freePageReporting="on"')), "free page reporting", "note", "off"),
        (
            survey(without(XML, "freePageReporting", 'autodeflate="on" freePageReporting')),
            "deflate-on-oom",
            "problem",
            "on",
        ),
        (
            survey(without(XML, "<devices>", '<devices><hostdev type="pci"/>')),
            "pinned memory",
            "problem",
            "VFIO",
        ),
        (
            survey(without(XML, "<os>", "<memoryBacking><hugepages/></memoryBacking><os>")),
            "pinned memory",
            "problem",
            "huge pages",
        ),
        (
            survey(without(XML, "<os>", "<memtune><hard_limit>2097152</hard_limit></memtune><os>")),
            "memtune",
            "problem",
            "2 GiB is below the 4.27 GiB that its maximum of 4 GiB may take",
        ),
        (
            survey(view=IN_A_SCOPE),
            "memory limit",
            "note",
            "memory.max of machine-qemu-1.scope bounds it at 2 GiB; its maximum is 4 GiB",
        ),
        (
            survey(LARGE, running=False, host=HostAbilities(address_bits=36)),
            "definition",
            "problem",
            "36 address bits",
        ),
        (
            survey(IN_PAGES, host=HostAbilities(huge_page_bytes=GIB)),
            "definition",
            "problem",
            "pages of 1 GiB",
        ),
        (
            survey(BY_MEM, host=HostAbilities(transparent_huge_page_bytes=512 * MIB)),
            "definition",
            "problem",
            "512 MiB",
        ),
        (
            survey(without(XML, "<os>", '<numatune><memory mode="strict" nodeset="1"/></numatune><os>')),
            "NUMA binding",
            "problem",
            "node 1",
        ),
        (survey(without(XML, 'slots="16"', 'slots="2"')), "hot-add slots", "note", "2 of 2"),
        (survey(without(XML, 'slots="16"', 'slots="0"')), "hot-add slots", "problem", "0 of 0"),
        (survey(view=with_agent(hotplug="none")), "online policy", "problem", "nobody"),
        (survey(view=BY_DEVICE), "virtio-mem driver", "problem", "5.4.0-190-generic, and Linux"),
        (survey(view=with_agent(psi=False)), "PSI", "note", "none"),
        (survey(view=with_agent(swap_total_bytes=0)), "guest swap", "note", "none"),
        (survey(view=VIEW | {"offline_bytes": 128 * MIB}), "offline memory", "problem", "128 MiB"),
        (survey(view=VIEW | {"phase": "contradicted"}), "claims", "problem", "more than its balloon"),
    ],
)
def test_findings_about_a_vm(facts: VmSurvey, check: str, level: str, found: str) -> None:
    one = finding([judge(facts) for judge in vm.CHECKS], check)
    assert one.level == level
    assert found in one.found
    assert one.remedy


@pytest.mark.parametrize(
    "view",
    [
        {"virtio_mem_bytes": 128 * MIB},  # a vendor's kernel, which has it from a later one
        {"growth": "hotadd"},
        {"agent": None},
        {"agent": AGENT | {"kernel": ""}},
        {"agent": AGENT | {"kernel": "5.10.0-30-amd64"}},
        {"agent": AGENT | {"kernel": "9" * 64}},
    ],
)
def test_no_kernel_is_too_old_for_virtio_mem_that_has_taken_some_or_of_which_too_little_is_known(
    view: dict[str, Any],
) -> None:
    found = [judge(survey(view=BY_DEVICE | view)) for judge in vm.CHECKS]
    assert finding(found, "virtio-mem driver").level == "ok"


@pytest.mark.parametrize(
    ("device", "level"),
    [
        ("", "ok"),
        # DIMMs of the controller's are part of the maximum; other devices come beside it.
        ('<memory model="dimm"><target><size unit="GiB">3</size></target></memory>', "ok"),
        ('<memory model="nvdimm"><target><size unit="GiB">1</size></target></memory>', "problem"),
    ],
)
def test_a_limit_that_enable_asked_for_is_enough_for_what_has_grown(device: str, level: str) -> None:
    enough = f"<memtune><hard_limit unit='KiB'>{(4 * GIB + 272 * MIB) // 1024}</hard_limit></memtune><os>"
    grown = without(without(XML, "<os>", enough), "<devices>", f"<devices>{device}")
    if "dimm" in device:
        grown = without(grown, "<memory>1048576<", f"<memory>{(4 if level == 'ok' else 2) << 20}<")
    assert finding([judge(survey(grown)) for judge in vm.CHECKS], "memtune").level == level


WINDOWS, FREEBSD = "http://microsoft.com/win/11", "http://freebsd.org/freebsd/13.1"


def running(system: str) -> str:
    """The VM with libosinfo's note of what it runs."""
    space = "xmlns:l='http://libosinfo.org/xmlns/libvirt/domain/1.0'"
    note = f"<l:libosinfo {space}><l:os id='{system}'/></l:libosinfo>"
    return without(XML, "<metadata>", f"<metadata>{note}")


def with_part(part: str) -> str:
    return without(XML, "<os>", f"{part}<os>")


SILENT = VIEW | {"agent": None}
TYPE = "internal error: channel org.dynmem.agent.0 is not using a UNIX socket"
TYP = "Interner Fehler: Kanal org.dynmem.agent.0 benutzt keinen UNIX-Socket"
SPERRE = "Sperrdatei für Gerät »/x« in »/var/lock/LCK.._x« kann nicht erstellt werden: Datei nicht gefunden"
LOCK = "Couldn't create lock file for device '/x' in path '/var/lock/LCK.._x': No such file or directory"
STAMP = {"last_update": 7}
OLD_LINUX = STAMP | {"available": 9, "unused": 3}
BALLOON = "balloon statistics"


@pytest.mark.parametrize(
    ("facts", "check", "level", "found", "remedy"),
    [
        # what the host cannot do is no fault of the guest's
        (survey(view=SILENT | {"channel_error": LOCK}), "channel", "problem", "lock file", "1777 /run/lock"),
        (survey(view=SILENT | {"channel_error": LOCK}), "agent", "note", "this host", "see to the channel"),
        (survey(view=SILENT | {"channel_error": "Access denied"}), "channel", "problem", "denied", "polkit"),
        (survey(view=SILENT | {"channel_error": TYPE}), "channel", "problem", "UNIX", "dynmem enable"),
        (survey(view=SILENT | {"channel_error": "odd"}), "channel", "problem", "odd", "journalctl"),
        # a libvirtd of a host in another language says so in that
        (survey(view=SILENT | {"channel_error": SPERRE}), "channel", "problem", "LCK", "1777 /run/lock"),
        (survey(view=SILENT | {"channel_error": TYP}), "channel", "problem", "UNIX", "dynmem enable"),
        # the driver's answer counts, not its setting
        (survey(statistics={"actual": 1, "last_update": 0}), BALLOON, "problem", "never", "modprobe"),
        (survey(statistics=STAMP, view=SILENT), BALLOON, "problem", "no figures", "4.6"),
        (survey(statistics=STAMP), BALLOON, "note", "no figures", "4.6"),
        (survey(statistics=OLD_LINUX, view=SILENT), BALLOON, "problem", "not what is available", "4.6"),
        (survey(asked_at=61.0), BALLOON, "problem", "60 s ago", "modprobe"),
        (survey(asked_at=5.0), BALLOON, "ok", "answers", ""),
        (survey(running(FREEBSD), statistics=STAMP, view=SILENT), BALLOON, "problem", "figures", "FreeBSD"),
        (survey(running(WINDOWS), statistics={}), BALLOON, "problem", "never", "virtio-win"),
        (survey(running(WINDOWS), statistics=STAMP, view=SILENT), BALLOON, "problem", "no figures", "blnsvr"),
        (survey(running(WINDOWS), view=SILENT), "agent", "note", "none", "no agent for Windows"),
        (survey(running(FREEBSD), view=SILENT | {"report_age_seconds": None}), "agent", "problem", "silent",
         "no agent for FreeBSD"),
        # a balloon that was taken out
        (survey(without(XML, 'model="virtio" free', 'model="none" free')), BALLOON, "problem", "no balloon",
         "shut it down, then dynmem enable web"),
        # a host of arm64 whose pages are larger than its guest's
        (survey(view=VIEW | {"phase": "contradicted"}), "claims", "problem", "more than", "in the guest"),
        (survey(view=VIEW | {"phase": "contradicted"}, host=HostAbilities(page_bytes=64 << 10)), "claims",
         "problem", "more than", "its host's pages are of 64 KiB"),
        # every way of pinning, with the element
        (survey(without(XML, "<devices>", "<devices><disk type='nvme'/>")), "pinned memory", "problem",
         "<disk type='nvme'>", "take the device out"),
        (survey(without(XML, "<devices>", f"<devices>{HANDED_OUT}"), running=False, host=with_network("vfs")),
         "pinned memory", "problem", "frees nothing (<source network='vfs'>)", "take the device out"),
        (survey(without(XML, "<devices>", f"<devices>{HANDED_OUT}"), running=False, host=with_network("nat")),
         "pinned memory", "ok", "none", ""),
        (survey(with_part("<launchSecurity type='tdx'/>")), "pinned memory", "problem", "tdx", "disable"),
        # every form of binding
        (survey(with_part("<numatune><memnode cellid='0' mode='restrictive' nodeset='1'/></numatune>")),
         "NUMA binding", "problem", "node 1 (restrictive)", "take <numatune> out"),
        (survey(with_part("<numatune><memory mode='interleave' placement='auto'/></numatune>")),
         "NUMA binding", "problem", "node auto", "take <numatune> out"),
        (survey(with_part("<numatune><memory mode='preferred' nodeset='0'/></numatune>")),
         "NUMA binding", "ok", "none", ""),
        # what somebody has edited since
        (survey(without(XML, "<acpi/>")), "definition", "problem", "ACPI is off", "<acpi/>"),
        (survey(without(XML, "<acpi/>")), "definition", "problem", "ACPI is off", "(dynmem enable web"),
    ],
)  # fmt: skip
def test_a_finding_has_the_right_address(
    facts: VmSurvey, check: str, level: str, found: str, remedy: str
) -> None:
    one = finding([judge(facts) for judge in vm.CHECKS], check)
    assert one.level == level
    assert found in one.found
    assert remedy in one.remedy


@pytest.mark.parametrize(
    ("stopped", "remedy"),
    [
        ("paused", "virsh resume web"),
        ("asleep", "virsh dompmwakeup web"),
        ("crashed", "virsh reset web"),
        ("by an error of its disk", "virsh domblkerror web"),
        ("by a job", "virsh domjobinfo web"),
    ],
)
def test_of_a_vm_that_stands_still_nobody_in_it_is_blamed(stopped: str, remedy: str) -> None:
    late = VIEW | {"agent": AGENT | {"report_age_seconds": 900.0}, "report_age_seconds": 900.0}
    disconnected = XML.replace("org.dynmem.agent.0'", "org.dynmem.agent.0' state='disconnected'")
    about = survey(disconnected, view=late, asked_at=900.0, stopped=stopped)
    found = [judge(about) for judge in vm.CHECKS]
    assert [one.check for one in found if one.level == "problem"] == []
    known = finding(found, "managed")
    assert (known.level, remedy in known.remedy) == ("note", True)
    ours = vm.known(replace(about, view=late | {"standstill": "until there is room"}))
    assert ours.level == "ok", "the controller lets it run again"


@pytest.mark.parametrize(
    ("state", "reason", "stopped"),
    [
        (libvirt.VIR_DOMAIN_RUNNING, 1, ""),
        (libvirt.VIR_DOMAIN_SHUTOFF, 1, ""),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER, "paused"),
        (libvirt.VIR_DOMAIN_PAUSED, 99, "paused"),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, "by an error of its disk"),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_CRASHED, "crashed"),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_SAVE, "by a job"),
        (libvirt.VIR_DOMAIN_PMSUSPENDED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, "asleep"),
        (libvirt.VIR_DOMAIN_CRASHED, 0, "crashed"),
    ],
)
def test_why_a_vm_stands_still_is_asked_of_libvirt(state: int, reason: int, stopped: str) -> None:
    domain: Any = SimpleNamespace(state=lambda: (state, reason))
    assert why_stopped(domain) == stopped
    assert not stopped or stopped in vm.STANDS_STILL


def test_what_runs_has_shown_that_its_processor_reaches_as_far() -> None:
    facts = survey(LARGE, running=True, host=HostAbilities(address_bits=36))
    assert finding([judge(facts) for judge in vm.CHECKS], "definition").level == "ok"


def test_a_vm_that_lost_its_metadata_is_found_by_its_traces() -> None:
    prepared = enable(Q35, Limits(GIB, GIB, 2 * GIB), Growth.HOTADD).xml
    stripped = re.sub(r"<dynmem:vm .*</dynmem:vm>", "", prepared, flags=re.DOTALL)
    assert was_prepared(stripped)
    assert not was_prepared(Q35)
    about = VmSurvey("web", running=False, root=parse_xml(stripped), domain=read_domain(stripped))
    one = finding([judge(about) for judge in vm.CHECKS], "limits")
    assert one.level == "problem"
    assert "without its limits" in one.found
    assert "dynmem enable web" in one.remedy


@pytest.mark.parametrize(
    ("uri", "where"), [("qemu:///system", "machine.slice"), ("qemu:///session", "user's")]
)
def test_where_systemd_oomd_would_find_vms_depends_on_whose_libvirt_it_is(
    uri: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    found = host.killers(replace(HOST, uri=uri, killers=("systemd-oomd",)))
    assert where in found.remedy


def test_of_a_users_own_libvirt_the_hook_asks_the_systems_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    unasked = replace(HOST, controller=about_controller(unasked_start="web"))
    assert host.hook(unasked).level == "problem"
    assert host.hook(replace(unasked, uri="qemu:///session")).level == "ok"


def test_nothing_is_made_of_a_vm_that_is_off() -> None:
    findings = [judge(survey(running=False, view=None, statistics={})) for judge in vm.CHECKS]
    assert {one.level for one in findings} == {"ok"}
    for unseen in ("claims", "offline memory"):
        assert finding(findings, unseen).found.startswith("not known")


def test_kvm_is_not_usable_because_a_device_is_there(tmp_path: Path) -> None:
    assert kernel.kvm_problem(tmp_path) == "there is no /dev/kvm"
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kvm").touch()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("vendor_id : GenuineIntel\nflags : fpu sse\n")
    assert kernel.kvm_problem(tmp_path) == "the processor shows neither vmx nor svm"
    (tmp_path / "proc" / "cpuinfo").write_text("vendor_id : HygonGenuine\nflags : fpu sse\n")
    assert kernel.kvm_problem(tmp_path) == "the processor shows neither vmx nor svm"
    (tmp_path / "proc" / "cpuinfo").write_text("Features : fp asimd\n")
    assert kernel.kvm_problem(tmp_path) is None
    (tmp_path / "proc" / "cpuinfo").write_text("vendor_id : GenuineIntel\nflags : fpu vmx\n")
    assert kernel.kvm_problem(tmp_path) is None


def test_a_kernel_whose_files_say_nothing_of_use_ends_no_look_at_the_host(tmp_path: Path) -> None:
    """Containers put others in their place."""
    for file in ("proc/sys/vm/overcommit_memory", "proc/meminfo", "sys/kernel/mm/ksm/run"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("not here\n")
    assert kernel.read_kernel(tmp_path).overcommit_memory == 0


def test_khugepaged_fills_holes_unless_it_is_told_not_to(tmp_path: Path) -> None:
    assert not kernel.read_kernel(tmp_path).khugepaged_fills, "a kernel without huge pages"
    directory = tmp_path / "sys/kernel/mm/transparent_hugepage"
    (directory / "khugepaged").mkdir(parents=True)
    (directory / "enabled").write_text("always [madvise] never\n")
    (directory / "khugepaged/max_ptes_none").write_text("511\n")
    assert kernel.read_kernel(tmp_path).khugepaged_fills
    (directory / "khugepaged/max_ptes_none").write_text("0\n")
    assert not kernel.read_kernel(tmp_path).khugepaged_fills
    (directory / "khugepaged/max_ptes_none").write_text("511\n")
    (directory / "enabled").write_text("always madvise [never]\n")
    assert not kernel.read_kernel(tmp_path).khugepaged_fills


def test_all_of_it_over_libvirts_test_driver(tmp_path: Path) -> None:
    arguments = ["--connect", "test:///default", "--socket", str(tmp_path / "none")]
    result = CliRunner().invoke(doctor, [*arguments, "--json"])
    found = msgspec.convert(json.loads(result.output), DoctorView)
    assert result.exit_code == 1
    assert {one.check for one in found.findings} == {check(HOST).check for check in host.CHECKS}
    assert (
        "start dynmem"
        in finding(
            [Finding(o.check, o.level, o.found, o.remedy) for o in found.findings], "controller"
        ).remedy
    )
    text = CliRunner().invoke(doctor, arguments).output
    assert "BAD   controller: no controller is running" in text
    assert "-> start it with systemctl start dynmem" in text


def test_a_rule_that_is_for_nobody_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dynmem.toml"
    path.write_text('[[rule]]\nmatch = {name = "te*"}\n[[rule]]\nmatch = {name = "web-*"}\n')
    configuration = load(path)
    monkeypatch.setattr(command, "load", lambda: configuration)
    arguments = ["--connect", "test:///default", "--socket", str(tmp_path / "none")]
    said = CliRunner().invoke(doctor, arguments).output
    assert "note  rules: rule[2] (name = 'web-*') is for no VM that there is now" in said
    assert "BAD   test: limits: rule[1] cannot take it on" in said, "it is a problem of its VM's"
    assert "rule[1] (" not in said


def test_without_libvirt_that_is_the_first_finding(tmp_path: Path) -> None:
    result = CliRunner().invoke(doctor, ["--connect", "test:///none.xml", "--socket", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert result.output.startswith("BAD   libvirt: test:///none.xml cannot be reached")


def test_a_hook_is_seen_without_libvirt_and_one_that_nobody_may_see_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(hook: Path) -> str:
        monkeypatch.setattr(command, "HOOK", hook)
        none = ["--connect", "test:///none.xml", "--socket", str(tmp_path / "none"), "--all"]
        line = next(one for one in CliRunner().invoke(doctor, none).output.splitlines() if "hook:" in one)
        return line.replace(str(tmp_path), "")

    (tmp_path / "hook").touch()
    assert said(tmp_path / "hook") == "ok    start hook: /hook"
    assert said(tmp_path / "none").startswith("note  start hook: not installed")
    assert said(tmp_path / ("x" * 300)).endswith("xxx: File name too long"), "as where one may not look"


@pytest.mark.parametrize("in_charge_of", ["qemu:///system", "test:///default"])
def test_of_another_machine_nothing_is_said_by_what_this_one_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_charge_of: str
) -> None:
    for module in (command, about_host):
        monkeypatch.setattr(module, "is_local", lambda uri: False)
    status = {"host": about_controller(connection=in_charge_of), "vms": []}
    monkeypatch.setattr(command, "Client", lambda path: SimpleNamespace(get=lambda what: status))
    monkeypatch.setattr(command, "check_shape", lambda *asked: None)
    result = CliRunner().invoke(doctor, ["--connect", "test:///default", "--json"])
    found = {one["check"]: one["found"] for one in json.loads(result.output)["findings"]}
    assert "test:///default is another machine" in found["libvirt"]
    by_controller = {"controller", "capacity", "rules", "overdraft"}
    by_this_machine = {"KVM", "overcommit", "host swap", "KSM", "khugepaged", "start hook", "burn-in"}
    assert {"libvirt version", "QEMU version"} <= found.keys()
    assert not by_this_machine & found.keys()
    assert by_controller & found.keys() == (by_controller if "test" in in_charge_of else set())


def test_what_is_in_order_is_counted_and_shown_on_demand() -> None:
    findings = [(None, Finding("a", "ok", "fine")), ("web", Finding("b", "problem", "broken", "mend it"))]
    assert lines(findings, everything=False) == [
        "BAD   web: b: broken",
        "      -> mend it",
        "1 of 2 checks are in order",
    ]
    assert "ok    a: fine" in lines(findings, everything=True)


def finding(findings: list[Finding], check: str) -> Finding:
    return next(one for one in findings if one.check == check)


@pytest.mark.parametrize(
    ("growth", "part", "small"),
    [
        (Growth.HOTADD, "maxMemory", "3145728"),
        (Growth.BALLOON, "memory", "3145728"),
    ],
)
def test_a_definition_that_was_made_smaller_since_it_was_prepared_is_told(
    growth: Growth, part: str, small: str
) -> None:
    limits = Limits(GIB, GIB // 2, 4 * GIB)
    prepared = enable(Q35, limits, growth).xml
    assert vm.definition.metadata(survey(prepared)).level == "ok"
    edited = re.sub(rf"(<{part}\b[^>]*>)\d+", rf"\g<1>{small}", prepared)
    assert edited != prepared
    told = vm.definition.metadata(survey(edited))
    assert (told.level, "3 GiB at most" in told.found) == ("note", True)
    assert "dynmem enable" in told.remedy
