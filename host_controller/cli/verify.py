"""`dynmem verify`: burn this host in before real VMs depend on it."""

import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.client import HTTPException
from pathlib import Path
from typing import Final

import click

from host_controller import hook
from host_controller.api.client import Client, ControllerUnreachable
from host_controller.cli.options import at_socket, connect, plot_option
from host_controller.cli.text import json_text, paint, wants_colour
from host_controller.cli.verify_plot import draw
from host_controller.config import load
from host_controller.delivery.agent_file import agent_file
from host_controller.errors import DynmemError, InputError
from host_controller.host.memory import MEMINFO, read_meminfo
from host_controller.hypervisor.throwaway import ThrowawayDomains
from host_controller.neutral import neutral
from host_controller.records.burn_in import DIRECTORY, BurnIn, Verdict, Versions
from host_controller.units import KIB, format_size
from host_controller.verify.accelerator import find_accelerator
from host_controller.verify.burn_in import session
from host_controller.verify.errors import VerifyError
from host_controller.verify.guest_kernel import GuestKernel
from host_controller.verify.observer import Sample

COLOURS: Final = {"passed": "green", "failed": "red", "skipped": "yellow"}
ADMISSION_SECONDS: Final = 90.0


@click.command()
@click.option("--kernel", type=click.Path(path_type=Path), help="Another kernel than the one that runs.")
@click.option("--modules", type=click.Path(path_type=Path), help="Its directory of modules.")
@click.option("--json", "as_json", is_flag=True, help="The verdicts as they are kept, instead of text.")
@plot_option("Draw what was seen")
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    default=DIRECTORY,
    help=f"Instead of {DIRECTORY}.",
)
@connect
@at_socket
def verify(
    kernel: Path | None,
    modules: Path | None,
    plot: Path | None,
    keep: Path,
    *,
    as_json: bool,
    connect: str | None,
    socket: str | None,
) -> None:
    """Burn this host in: does memory really move here, with this kernel, this QEMU and this libvirt?

    A guest of the host's own kernel and Python, without disk and network, goes through boot, balloon, hot add
    and unplug, virtio-mem, resets, and a guest that lies. It takes at most five minutes and 1 GiB, which a
    running controller reserves or refuses. The verdicts are kept, and `dynmem doctor` shows them.

    Exit code 0 when nothing failed, 1 when something did.
    """
    try:
        found, samples = _run(kernel, modules, connect or load().libvirt.uri, socket, show=not as_json)
    except VerifyError as error:
        raise DynmemError(str(error)) from None
    # It took minutes: what cannot be written costs neither the verdicts nor what can be.
    if as_json:
        click.echo(json_text(asdict(found)))
    try:
        place = found.save(keep)
    except OSError as error:
        raise DynmemError(f"{keep}: {error.strerror}", hint="run as root, or name another --keep") from None
    if not as_json:
        click.echo(f"{found.seconds:.0f} s under {found.accelerator}; kept in {place}")
    if plot is not None:
        draw(samples, session.NAME, plot)
    if found.failed:
        sys.exit(1)


def _run(
    kernel: Path | None, modules: Path | None, uri: str, socket: str | None, *, show: bool
) -> tuple[BurnIn, list[Sample]]:
    found_kernel = GuestKernel.of_host(kernel, modules)
    begun, at = time.monotonic(), time.time()
    verdicts: list[Verdict] = []
    samples: list[Sample] = []
    domains = ThrowawayDomains(uri)
    try:
        libvirt, qemu = domains.versions()
        with (
            _room(socket),
            session.files(found_kernel, agent_file(), domains.owner()) as place,
        ):
            start = session.xml(place)
            for verdict in session.verdicts(place, lambda: domains.start(start), samples.extend):
                verdicts.append(verdict)
                if show:
                    click.echo(line(verdict))
    finally:
        domains.close()
    versions = Versions(found_kernel.release if kernel else platform.release(), qemu, libvirt)
    accelerator = find_accelerator().name
    return BurnIn(versions, accelerator, at, time.monotonic() - begun, tuple(verdicts)), samples


def line(one: Verdict) -> str:
    """A verdict for people."""
    sign = paint(f"{one.outcome:8}", COLOURS[one.outcome], wants_colour())
    figure = "" if one.figure is None else f"{one.figure:,.2f} {one.unit}"
    return f"{sign} {one.check:26} {figure:>16}  {neutral(one.said)}"


@contextmanager
def _room(socket: str | None) -> Iterator[None]:
    """The memory is there, and a running controller knows that it is spoken for.

    Raises:
        InputError: it is not there; nothing was started.
    """
    need = session.MOST_BYTES
    available = read_meminfo(MEMINFO.read_text()).get("MemAvailable", 0)
    if available < need:
        raise InputError(
            f"{format_size(need)} are needed and {format_size(available)} are available",
            hint="try again when the host has less to do",
        )
    path = Client(socket).path
    try:
        Client(path).get("status")
    except ControllerUnreachable:
        yield
        return
    xml = f"<domain><name>{session.NAME}</name><memory unit='KiB'>{need // KIB}</memory></domain>"
    try:
        answer = hook.post(path, "/v1/admission", xml.encode(), ADMISSION_SECONDS)
    except (OSError, ValueError, RecursionError, HTTPException) as error:
        raise InputError(f"the controller does not say whether there is room: {error}") from None
    if answer.get("admitted") is not True:
        raise InputError(neutral(answer.get("message", "the controller refuses")), hint="nothing was started")
    try:
        yield
    finally:
        hook.tell(path, session.NAME, "stopped")
