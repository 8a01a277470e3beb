"""`dynmem doctor`: looks at the host and every managed VM, and says what is wrong and what to do."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from agent.finding import Finding
from host_controller.api.client import Client, check_shape
from host_controller.cli.abilities import abilities
from host_controller.cli.hook import DIRECTORY, NAME
from host_controller.cli.options import at_socket, connect, vm_names
from host_controller.cli.text import json_text, paint, wants_colour
from host_controller.config import DEFAULT_PATH, Config, ConfigError, load
from host_controller.credentials import Credentials
from host_controller.doctor import cluster, host, vm
from host_controller.doctor.cluster import FleetSurvey, Setting
from host_controller.doctor.facts import HostSurvey, VmSurvey
from host_controller.doctor.kernel import read_kernel
from host_controller.domain_xml.host_abilities import NOTHING_KNOWN, HostAbilities
from host_controller.domain_xml.values import parse_xml
from host_controller.errors import (
    CallFailed,
    DynmemError,
    HypervisorUnreachable,
    InputError,
)
from host_controller.host.libvirt_run import is_local
from host_controller.hypervisor.abilities import abilities_of
from host_controller.hypervisor.survey import Domains, Survey, SurveyedDomain, UnseenDomain
from host_controller.neutral import neutral
from host_controller.records.burn_in import load as load_burn_ins
from host_controller.rules.taking import Rulebook, Taken, idle

COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}
SIGNS = {"ok": "ok  ", "note": "note", "problem": "BAD "}
HOOK = DIRECTORY / NAME
START = "systemctl status dynmem"
LOOK = "say it again, as root perhaps; if that does not help: journalctl -u virtqemud -u libvirtd"
BY_LIBVIRT = (host.libvirt_version, host.qemu_version)
BY_THIS_MACHINE = (
    host.kvm,
    host.overcommit,
    host.swap,
    host.memmap_on_memory,
    host.ksm,
    host.khugepaged,
    host.hook,
    host.burn_in,
)
"""Checks of what nobody sees of another machine."""

Found = tuple[str | None, Finding]


@click.command()
@click.argument("name", metavar="[VM]", required=False, shell_complete=vm_names)
@click.option("--all", "everything", is_flag=True, help="Show what is in order too.")
@click.option("--json", "as_json", is_flag=True, help="All findings (DoctorView of GET /v1/schema).")
@connect
@at_socket
def doctor(
    name: str | None, *, everything: bool, as_json: bool, connect: str | None, socket: str | None
) -> None:
    """Look for what keeps the host, or VM, from good dynamic memory, with the remedy for each finding.

    OPERATIONS.md says more about each. Exit code 0 without problems (notes are none), 1 with.
    """
    configuration, file_problem = _configured()
    findings = examine(name, configuration.at(connect), socket, file_problem)
    if as_json:
        click.echo(json_text({"findings": [_plain(one) for one in findings]}))
    else:
        click.echo("\n".join(lines(findings, everything)))
    if any(finding.level == "problem" for _, finding in findings):
        sys.exit(1)


def examine(
    name: str | None, configuration: Config, socket: str | None, file_problem: str = ""
) -> list[Found]:
    """All findings: the host's first, then each VM's. file_problem: as HostSurvey's.

    Raises:
        InputError: there is no managed VM of this name.
    """
    uri = configuration.libvirt.uri
    status, known = _asked(socket)
    known["file_problem"] = file_problem
    if not is_local(uri):
        return _elsewhere(name, configuration, status, known)
    known |= {**read_kernel()._asdict(), **_hook()}
    try:
        survey = Survey(uri)
    except HypervisorUnreachable as error:
        unasked = (*BY_LIBVIRT, host.rules, host.burn_in)
        about = _host(HostSurvey(uri, **known), unasked)
        return [_unreachable(error), *about, *_fleet(configuration)]
    try:
        return _seen_by_libvirt(survey, name, configuration, status, known)
    finally:
        survey.close()


def _elsewhere(name: str | None, configuration: Config, status: Any, known: dict[str, Any]) -> list[Found]:
    """Of another machine: what its libvirt says, and a controller that is in charge of it from here."""
    uri = configuration.libvirt.uri
    ours = status is not None and str(status["host"]["connection"]).startswith(uri)
    if not ours:
        status, configuration = None, Config().at(uri)
    try:
        survey = Survey(uri)
    except HypervisorUnreachable as error:
        return [_unreachable(error)]
    found = f"{uri} is another machine: its kernel, its start hook and its burn-in are not seen from here"
    finding = Finding("libvirt", "note", found, "dynmem doctor there")
    unasked = BY_THIS_MACHINE if ours else [one for one in host.CHECKS if one not in BY_LIBVIRT]
    try:
        seen = _seen_by_libvirt(survey, name, configuration, status, known, unasked)
    finally:
        survey.close()
    return [(None, finding), *seen]


def _unreachable(error: HypervisorUnreachable) -> Found:
    return None, Finding("libvirt", "problem", error.message, error.hint or "")


def _seen_by_libvirt(
    survey: Survey,
    name: str | None,
    configuration: Config,
    status: Any,
    known: dict[str, Any],
    unasked: Sequence[object] = (),
) -> list[Found]:
    versions, local = survey.versions(), survey.local
    book = Rulebook(configuration.rule, configuration.default_limits, abilities_of(versions, local=local))
    domains, unlisted = Domains([], []), None
    try:
        domains = survey.domains(book)
    except CallFailed as error:
        unlisted = Finding("libvirt", "problem", f"it lists no VMs: {error.message}", LOOK)
    findings: list[Found] = []
    if name is None:
        about_host = HostSurvey(
            configuration.libvirt.uri,
            libvirt_version=versions[0],
            qemu_version=versions[1],
            kernel_release=platform.release(),
            burn_ins=load_burn_ins(),
            **({} if unlisted is not None else _rules(book, domains.all)),
            **known,
        )
        findings += [*_host(about_host, unasked), *(_fleet(configuration) if local else ())]
    meant = [one for one in domains.ours if name is None or name.lower() == one.uuid or name == one.name]
    views = {one["uuid"]: one for one in status["vms"]} if status else {}
    known_of_host = abilities(survey) if meant else NOTHING_KNOWN
    # Another machine has another clock.
    now = time.time() if local else 0.0
    for one in meant:
        findings += _vm(one, views.get(one.uuid), now, known_of_host, controller=status is not None)
    if unlisted is not None:
        findings.append((None, unlisted))
    elif name is not None and not meant:
        raise InputError("no managed VM of this name", vm=name, hint="virsh list --all; dynmem enable")
    return findings


def _vm(
    one: SurveyedDomain | UnseenDomain,
    view: Any,
    now: float,
    abilities: HostAbilities,
    *,
    controller: bool,
) -> list[Found]:
    """view: what the controller says of it, or None. now: seconds since 1970; 0: on another host's clock."""
    if isinstance(one, UnseenDomain):
        unseen = f"it cannot be looked at: {one.problem}"
        return [(one.name, Finding("libvirt", "problem", unseen, LOOK))]
    about = VmSurvey(
        one.name,
        one.running,
        parse_xml(one.xml),
        one.view,
        view,
        one.statistics,
        now,
        controller=controller,
        rule=one.rule,
        host=abilities,
        stopped=one.stopped,
    )
    return [(one.name, check(about)) for check in vm.CHECKS]


def lines(findings: list[Found], everything: bool) -> list[str]:
    """The findings as text: problems, notes, and in the end how many were in order."""
    colour = wants_colour()
    found = []
    for about, one in findings:
        if one.level == "ok" and not everything:
            continue
        where = f"{neutral(about)}: " if about else ""
        sign = paint(SIGNS[one.level], COLOURS[one.level], colour)
        found.append(f"{sign}  {where}{one.check}: {neutral(one.found)}")
        if one.remedy:
            found.append(f"      -> {neutral(one.remedy)}")
    count = sum(one.level == "ok" for _, one in findings)
    return [*found, f"{count} of {len(findings)} checks are in order"]


def _configured() -> tuple[Config, str]:
    """It, and what is wrong with its file, which is no reason not to look; nothing where who asks may not
    read it.
    """
    try:
        return load(), ""
    except ConfigError as error:
        return Config(), error.in_one_line if os.access(DEFAULT_PATH, os.R_OK) else ""


def _rules(book: Rulebook, vms: list[Taken]) -> dict[str, Any]:
    if not book.rules:
        return {}
    return {"rules": len(book.rules), "idle_rules": tuple(idle(book.rules, vms))}


def _host(facts: HostSurvey, without: Sequence[object]) -> list[Found]:
    return [(None, check(facts)) for check in host.CHECKS if check not in without]


def _fleet(configuration: Config) -> list[Found]:
    """Of a host that is in a fleet."""
    if configuration.fleet_listen is None:
        return []
    from host_controller.fleet.certificates import end_of
    from host_controller.fleet.errors import FleetError
    from host_controller.fleet.expiry import ends
    from host_controller.fleet.pacemaker.needs import missing
    from host_controller.fleet.pacemaker.tools import Tools
    from host_controller.fleet.startup import unprepared

    settings: tuple[Setting, ...] = ()
    problem, clustered = "", shutil.which("cibadmin") is not None
    if clustered:
        try:
            cib = Tools().query()
            needs = (*missing(cib), *unprepared(cib, configuration.rule))
            settings = tuple(
                Setting(one.what, one.found, one.wanted, one.protects, one.by_hand) for one in needs
            )
        except FleetError as error:
            problem = error.message
    certificate = Credentials.within(Path(configuration.fleet.credentials)).certificate
    try:
        warning = ends("this host", end_of(certificate), time.time())
    except FleetError as error:
        warning = error.message
    survey = FleetSurvey(settings, problem, clustered, warning)
    return [(None, one) for one in cluster.checked(survey)]


def _asked(socket: str | None) -> tuple[Any, dict[str, Any]]:
    """What the controller says, None where it says nothing; and what that means for the host."""
    try:
        found = Client(socket).get("status")
        check_shape(found, "host", "StatusView")
    except DynmemError as error:
        return None, {"controller_problem": error.message, "controller_remedy": error.hint or START}
    return found, {"controller": found["host"]}


def _hook() -> dict[str, Any]:
    try:
        HOOK.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:  # Fedora lets nobody but root look into /etc/libvirt
        return {"hook_unseen": f"{HOOK}: {error.strerror}"}
    return {"hook": str(HOOK)}


def _plain(found: Found) -> dict[str, Any]:
    about, one = found
    return {"vm": about, **one._asdict()}
