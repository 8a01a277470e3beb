"""`dynmem run`: the controller itself."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from host_controller.cli.options import config_file, size
from host_controller.cli.text import may_colour

if TYPE_CHECKING:
    from host_controller.config import Config
    from host_controller.core.interface import Hypervisor


@click.command()
@config_file
@click.option("--connect", metavar="URI", help="The libvirt to manage, for example qemu:///system.")
@size("--capacity", "What all VMs together may cost.")
@click.option("--socket", type=click.Path(path_type=Path), help="Where the control API listens.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Instead of /run/dynmem.")
@click.option("--dry-run", is_flag=True, help="Decide and show; change nothing.")
@click.option("--record", type=click.Path(path_type=Path), help="Write all that comes in and goes out here.")
def run(
    config: Path | None,
    connect: str | None,
    capacity: int | None,
    socket: Path | None,
    state_dir: Path | None,
    dry_run: bool,
    record: Path | None,
) -> None:
    """Manage this host's VMs until a signal says to stop. SIGHUP reads the configuration again."""
    # Only this command needs any of these, and they take most of a second.
    from host_controller.service import Options, Service

    _log_to_stderr()
    options = Options(config, connect, capacity, socket, state_dir, dry_run, record)

    async def work() -> None:
        await Service(options, _libvirt).run()

    asyncio.run(work())


def _libvirt(config: "Config") -> "Hypervisor":
    from host_controller.hypervisor.adapter import LibvirtHypervisor
    from host_controller.service import rules_of

    meminfo = Path(config.paths.meminfo)
    return LibvirtHypervisor(
        config.libvirt.uri,
        meminfo=meminfo,
        rules=rules_of(config),
        guest_agents=config.libvirt.guest_agent,
    )


def _log_to_stderr() -> None:
    import structlog

    from host_controller.neutral import neutral_event

    tty = sys.stderr.isatty()
    stamp = [structlog.processors.TimeStamper("%H:%M:%S.%f", utc=False)] if tty else []
    shown: list[structlog.types.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=may_colour())]
        if tty
        else [
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["level", "event"]),
        ]
    )
    structlog.configure(
        processors=[neutral_event, structlog.processors.add_log_level, *stamp, *shown],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(20),  # info
    )
