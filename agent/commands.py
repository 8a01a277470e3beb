"""The commands for people: status and doctor. Imports what it likes; the daemon never imports this."""

from __future__ import annotations

import json
import sys
import time

import click
import structlog

from agent import __version__, daemon, doctor, installation
from agent.blocks import MemoryBlocks
from agent.codec import encode
from agent.port import find_port
from agent.probe import Probe
from agent.report import Reporter
from agent.said import click_status

_log = structlog.wrap_logger(
    structlog.PrintLogger(sys.stderr),
    processors=[structlog.processors.add_log_level, structlog.dev.ConsoleRenderer(colors=False)],
)


@click.group()
@click.version_option(__version__, prog_name="dynmem-agent")
def cli() -> None:
    """The agent of Dynamic Memory inside a guest."""


@cli.command()
@click.option("--port", "port_path", metavar="DEVICE", help="The virtio port, if its name is not found.")
def run(port_path: str | None) -> None:
    """Report to the host and bring hot-added memory online, until SIGTERM."""
    sys.exit(daemon.main(["--port", port_path] if port_path else []))


@cli.command()
def install() -> None:
    """Of dynmem-agent.pyz: put it and its unit in place, and start it. `remove` is the way back."""
    sys.exit(installation.main(["install"]))


@cli.command()
def remove() -> None:
    """Take out what `dynmem-agent.pyz install` put in."""
    sys.exit(installation.main(["remove"]))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.option("--root", default="/", hidden=True)
def status(as_json: bool, root: str) -> None:
    """What the agent sees, and the report that it would send now."""
    probe = Probe(root)
    blocks = MemoryBlocks(root)
    now = time.monotonic()
    report = Reporter(probe.boot_id(), now).report(probe.sample(), blocks.totals(), "heartbeat", now)
    line = encode(report)
    facts = report._asdict()
    port_path = find_port(root)
    around = {"port": port_path, "block_bytes": blocks.block_bytes, "online_policy": blocks.policy()}
    probe.close()
    if as_json:
        click.echo(json.dumps({"facts": facts, **around, "line": line.decode().rstrip()}, indent=2))
        return
    for name, value in facts.items():
        if name.endswith("_bytes"):
            text = f"{value / (1 << 20):,.1f} MiB"
        else:
            text = "-" if value is None else str(value)
        click.echo(f"{name.removesuffix('_bytes'):20} {text:>18}")
    click.echo(f"{'port':20} {port_path or 'none':>18}")
    click.echo(f"{'memory block':20} {blocks.block_bytes >> 20:>14} MiB")
    click.echo(f"{'online policy':20} {blocks.policy() or 'none':>18}")
    click.echo(f"\nas a line, {len(line)} bytes: {line.decode().rstrip()}")


@cli.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of text.")
@click.option("--root", default="/", hidden=True)
def doctor_command(as_json: bool, root: str) -> None:
    """Check what Dynamic Memory needs of this guest. Exit status: 0 all well, 1 problems, 2 wrong usage."""
    findings = doctor.examine(root)
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.level:8} {finding.check:20} {finding.found}")
            if finding.remedy:
                click.echo(f"{'':29} → {finding.remedy}")
    sys.exit(1 if any(finding.level == "problem" for finding in findings) else 0)


def main(arguments: list[str]) -> int:
    """Run a command. Returns the exit status."""
    try:
        return click_status(cli, arguments, prog_name="dynmem-agent")
    except OSError as error:
        _log.error("the kernel's figures cannot be read", file=error.filename, reason=error.strerror)
        return 1
