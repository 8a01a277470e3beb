"""What `set` can change at once, and what commands cost before they do anything."""

import platform
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from host_controller import cli
from host_controller.cli import abilities
from host_controller.cli import enable as enabling
from host_controller.cli.limits import live_limits
from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.host_abilities import HostAbilities
from host_controller.errors import (
    DomainMustBeOff,
    DomainNotFound,
    DynmemError,
    HypervisorUnreachable,
    InputError,
)
from host_controller.hypervisor import abilities as of_host
from host_controller.hypervisor.definitions import Definitions
from host_controller.records.burn_in import BurnIn, Outcome, Verdict, Versions
from host_controller.units import GIB, MIB
from tests.support import build
from tests.unit.hypervisor.domains import Q35

NOW = Limits(GIB, 512 * MIB, 2 * GIB, buffer_percent=20, weight=100)


def test_maximum_up_minimum_down_buffer_and_weight_change_at_once() -> None:
    wanted = Limits(GIB, 256 * MIB, 3 * GIB, buffer_percent=50, weight=7)
    assert live_limits(NOW, wanted, ceiling_bytes=4 * GIB) == (wanted, ())


def test_maximum_rises_only_as_far_as_the_running_vm_has_room() -> None:
    limits, waits = live_limits(NOW, Limits(GIB, 512 * MIB, 8 * GIB), ceiling_bytes=3 * GIB)
    assert limits.maximum_bytes == 3 * GIB
    assert waits == ("maximum 8 GiB waits for the next start: the running VM has room for 3 GiB",)


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        (Limits(GIB, 512 * MIB, GIB), "maximum 1 GiB waits"),
        (Limits(GIB, GIB, 2 * GIB), "minimum 1 GiB waits"),
        (Limits(2 * GIB, 512 * MIB, 2 * GIB), "startup 2 GiB waits"),
    ],
)
def test_what_a_running_vm_cannot_have_waits_for_its_next_start(wanted: Limits, word: str) -> None:
    limits, (wait,) = live_limits(NOW, wanted, ceiling_bytes=4 * GIB)
    assert limits == NOW
    assert wait.startswith(word)


@pytest.mark.parametrize("option", ["--startup", "--minimum", "--maximum"])
@pytest.mark.parametrize(
    ("value", "meant"),
    [("1024", "1024M"), ("4", "4G"), ("1.5", "1.5G"), (" 2.0 ", "2.0G"), ("1048576", "1048576K")],
)
def test_a_size_without_its_unit_is_asked_about(option: str, value: str, meant: str) -> None:
    result = CliRunner().invoke(cli.group, ["enable", "web", option, value])
    assert result.exit_code == 2
    assert f"did you mean {meant}?" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("value", "meant"), [("512", "512M"), ("4", "4G"), ("1.5", "1.5G"), ("524288", "524288K")]
)
def test_adopt_asks_the_same_of_a_size_that_may_be_a_share(value: str, meant: str) -> None:
    result = CliRunner().invoke(cli.group, ["adopt", "web", "--minimum", value])
    assert result.exit_code == 2
    assert f"did you mean {meant}?" in " ".join(result.output.split())


@pytest.mark.parametrize("command", ["enable", "set", "adopt"])
@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("--weight", "0", "1<=x<=10000"),
        ("--weight", "10001", "1<=x<=10000"),
        ("--buffer", "4", "5<=x<=2000"),
        ("--buffer", "2001", "5<=x<=2000"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_before_libvirt_is_asked(
    monkeypatch: pytest.MonkeyPatch, command: str, option: str, value: str, allowed: str
) -> None:
    monkeypatch.setattr(Definitions, "__enter__", never)
    result = CliRunner().invoke(cli.group, [command, "web", option, value])
    assert (result.exit_code, allowed in result.output) == (2, True)


@pytest.mark.parametrize("words", [["enable"], ["disable"], ["enable", "web", "--file", "web.xml"]])
def test_that_one_vm_is_named_is_asked_before_libvirt(
    monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(Definitions, "__enter__", never)
    result = CliRunner().invoke(cli.group, words)
    assert str(result.exception).startswith("name one VM, or one --file")


def never(*_: object) -> None:
    raise AssertionError("libvirt was asked")


class Host:
    """A libvirt, as far as `enable` asks it what it can do."""

    def __init__(self, *, local: bool = True) -> None:
        self.local = local

    def versions(self) -> tuple[int, int]:
        return 9_000_000, 7_002_022

    def memory_bytes(self) -> int:
        return 64 * GIB

    def address_bits(self) -> int:
        return 46

    def device_networks(self) -> frozenset[str]:
        return frozenset()


def burnt_in(check: str, outcome: Outcome, **versions: int) -> BurnIn:
    of = {"libvirt": 9_000_000, "qemu": 7_002_022} | versions
    verdict = Verdict(check, outcome, "")
    return BurnIn(Versions(platform.release(), **of), "tcg", 1.0, 1.0, (verdict,))


@pytest.mark.parametrize(
    ("kept", "host", "trusted"),
    [
        ([], Host(), None),
        ([burnt_in("virtio-mem", "passed")], Host(), True),
        ([burnt_in("virtio-mem", "failed")], Host(), False),
        ([burnt_in("virtio-mem", "skipped")], Host(), False),
        ([burnt_in("virtio-mem", "failed"), burnt_in("virtio-mem", "passed")], Host(), True),  # the newest
        ([burnt_in("virtio-mem", "failed", qemu=7_002_021)], Host(), None),  # another QEMU is another host
        ([burnt_in("virtio-mem", "failed")], Host(local=False), None),  # it is about this machine
    ],
)
def test_enable_asks_what_the_burn_in_of_these_very_versions_found(
    kept: list[BurnIn], host: Any, trusted: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_host, "burn_ins", lambda: tuple(kept))
    found = abilities.abilities(host)
    assert (found.libvirt, found.qemu, found.address_bits) == (9_000_000, 7_002_022, 46)
    assert (None if found.passed is None else "virtio-mem" in found.passed) is trusted


@pytest.mark.parametrize(
    ("wish", "had", "growth", "told"),
    [
        (None, None, Growth.VIRTIO_MEM, True),
        (None, Growth.HOTADD, Growth.HOTADD, False),  # what is prepared keeps its way
        ("auto", Growth.HOTADD, Growth.VIRTIO_MEM, True),
        ("balloon", Growth.HOTADD, Growth.BALLOON, False),
        ("hotadd", None, Growth.HOTADD, False),
    ],
)
def test_a_way_to_grow_is_chosen_the_first_time_and_where_auto_is_asked_for(
    wish: str | None, had: Growth | None, growth: Growth, told: bool
) -> None:
    domain: Any = SimpleNamespace(xml=lambda: Q35)
    old = None if had is None else build.config(growth=had)
    found, why = enabling._growth(wish, old, domain, NOW, HostAbilities())
    assert found is growth
    assert bool(why) is told


def test_a_dry_run_says_what_would_keep_the_change_from_being_made_now(
    capsys: pytest.CaptureFixture[str],
) -> None:
    domain: Any = SimpleNamespace(xml=lambda: "<a/>", name="web", persistent=True, running=True, saved=False)
    enabling._change(domain, "<b/>", "<b/>", (), dry_run=True, to_do="shut it down first")
    assert "* not now: it is running" in capsys.readouterr().out
    with pytest.raises(DomainMustBeOff):
        enabling._change(domain, "<b/>", "<b/>", (), dry_run=False, to_do="shut it down first")
    domain.running = False
    enabling._change(domain, "<b/>", "<b/>", (), dry_run=True, to_do="shut it down first")
    assert "not now" not in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_is_where_the_list_says(name: str) -> None:
    result = CliRunner().invoke(cli.group, [name, "--help"])
    assert result.exit_code == 0, result.output


def test_the_command_itself_imports_nothing_heavy() -> None:
    code = (
        "import sys; import host_controller.cli; "
        "print([one for one in ('libvirt', 'asyncio', 'aiohttp', 'structlog', 'rich') if one in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("no", vm="web", hint="do this"), 2),
        (DomainNotFound("no", vm="web", hint="do this"), 2),
        (HypervisorUnreachable("no", vm="web", hint="do this"), 1),
    ],
)
def test_an_error_is_one_sentence_with_the_way_out_and_a_code(
    error: DynmemError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli.group, "main", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert capsys.readouterr().err == "dynmem: web: no; do this\n"
