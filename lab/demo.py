"""`make demo`: three real guests that contend for memory, live, with a verdict at the end and a plot.

Exit 0 only if every step of the story happened and no sample of the observer was above the capacity.
"""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from host_controller.api.client import ControllerUnreachable
from host_controller.units import MIB
from host_controller.verify.errors import VerifyError
from host_controller.verify.observer import Observer, Sight
from lab.controller import Controller, enable
from lab.domain import GuestSpec
from lab.lab import Lab
from lab.status_text import describe, mib
from lab.story import CAPACITY, CAST, KEEP_READY, Seen, Stage, play

PLOT = Path("dynmem-demo.png")
PLAIN_SECONDS = 5.0
"""Where nobody looks on live, a line so often."""


@dataclass(slots=True)
class Figures:
    """What the controller said, sampled for the table and for the plot; `at` is CLOCK_MONOTONIC."""

    rows: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    def take(self, controller: Controller) -> None:
        """One more, if the controller answers."""
        try:
            self.rows.append((time.monotonic(), controller.status()))
        except ControllerUnreachable:
            return

    def table(self, title: str) -> Table:
        """The newest, as a table."""
        table = Table(title=title, title_justify="left")
        for name in ("VM", "phase", "assigned", "demand", "wants", "RAM", "max", "weight", "charge"):
            table.add_column(name, justify="left" if name in ("VM", "phase") else "right")
        table.add_column("last decision", ratio=1)
        if not self.rows:
            return table
        status = self.rows[-1][1]
        for vm in sorted(status["vms"], key=lambda vm: list(CAST).index(vm["name"])):
            decision = vm["decision"] or {}
            sizes = (vm["assigned_bytes"], vm["demand_bytes"], vm["desired_bytes"], vm["ram_bytes"])
            table.add_row(
                vm["name"],
                vm["phase"],
                *(mib(size) for size in sizes),
                mib(vm["limits"]["maximum_bytes"]),
                str(vm["limits"]["weight"]),
                mib(vm["charge_bytes"]),
                f"{decision.get('action', '')}: {decision.get('reason', '')}",
            )
        host = status["host"]
        table.caption = (
            f"capacity {mib(host['capacity_bytes'])} MiB, charged {mib(host['charged_bytes'])}, "
            f"free {mib(host['headroom_bytes'])}"
        )
        return table


def main() -> int:
    """Play it; the exit code."""
    console = Console()
    seen: list[Seen] = []
    failure: str | None = None
    try:
        with Lab() as lab:
            console.print(f"Guests run under [b]{lab.accelerator.name}[/b]: {lab.accelerator.reason}.")
            console.print(
                f"They belong to the account {lab.account.name}, in a libvirt session of their own."
            )
            with (
                Observer() as observer,
                Controller(
                    lab.directory / "controller",
                    lab.session.uri,
                    CAPACITY,
                    shrink_after=6,
                    settle=2,
                    keep_ready=KEEP_READY,
                ) as controller,
            ):
                figures = Figures()
                with _Screen(console, figures, controller) as screen:
                    try:
                        stage = _set_up(screen, lab, controller, observer)
                        for step in play(stage):
                            seen.append(step)
                            screen.say(f"✓ {step.title} {step.text}. [{step.seconds:.0f} s]")
                    except (VerifyError, AssertionError) as error:
                        failure = f"{error}\n{describe(controller.status())}\n{controller.log_tail()}"
                violations = observer.violations(CAPACITY * MIB)
                sight = observer.sight()
                plotted = _plot(observer, figures)
    except VerifyError as error:
        console.print(f"[red]✗ {error}[/red]")
        return 1
    except KeyboardInterrupt:
        console.print("Ended; nothing is left but the cached guest image.")
        return 130
    console.print(plotted)
    return _verdict(console, seen, failure, len(violations), sight)


def _plot(observer: Observer, figures: Figures) -> str:
    """Draw it; says where it is."""
    try:
        from lab.plot import plot
    except ImportError:
        return "No plot: matplotlib is missing."
    plot(PLOT, observer.samples, figures.rows, CAPACITY)
    return f"Plot: {PLOT.resolve()}"


def _set_up(screen: "_Screen", lab: Lab, controller: Controller, observer: Observer) -> Stage:
    guests = {name: lab.guest(GuestSpec(name, startup_mib=limits.startup)) for name, limits in CAST.items()}
    for name, guest in guests.items():
        enable(guest, CAST[name])
        guest.start()
        observer.start(guest)
    for guest in guests.values():
        guest.wait_booted()
    controller.wait_managed(*guests.values())
    boots = ", ".join(f"{name} in {guest.boot_seconds:.0f} s" for name, guest in guests.items())
    screen.say(f"Booted, with their agents: {boots}. All they may cost together: {CAPACITY} MiB.")
    return Stage(guests, controller, observer)


class _Screen:
    """The live table, or plain lines where the output is no terminal; samples the controller meanwhile."""

    def __init__(self, console: Console, figures: Figures, controller: Controller) -> None:
        self._console = console
        self._figures = figures
        self._controller = controller
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="screen", daemon=True)

    def __enter__(self) -> "_Screen":
        if self._live is not None:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(5)
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line above the table."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _run(self) -> None:
        plain_at = 0.0
        while not self._end.wait(0.25):
            self._figures.take(self._controller)
            if self._live is not None:
                self._live.update(self._figures.table("dynmem demo"))
            elif time.monotonic() - plain_at >= PLAIN_SECONDS and self._figures.rows:
                plain_at = time.monotonic()
                self.say(_line(self._figures.rows[-1][1]))


def _line(status: dict[str, Any]) -> str:
    vms = sorted(status["vms"], key=lambda vm: list(CAST).index(vm["name"]))
    parts = [f"{vm['name']} {mib(vm['assigned_bytes'])} (demand {mib(vm['demand_bytes'])})" for vm in vms]
    return f"  {'   '.join(parts)}   charged {mib(status['host']['charged_bytes'])} of {CAPACITY} MiB"


def _verdict(console: Console, seen: list[Seen], failure: str | None, violations: int, sight: Sight) -> int:
    console.rule("What was seen")
    for step in seen:
        console.print(
            f"[green]✓[/green] {step.title} [dim]{step.seconds:.0f} s[/dim]\n  {step.text}", highlight=False
        )
    if failure is not None:
        console.print(f"✗ {failure}", style="red", markup=False, highlight=False)
    told: list[tuple[Callable[[], bool], str]] = [
        (
            lambda: violations == 0,
            f"{violations} of {sight.samples} samples above the capacity of {CAPACITY} MiB",
        ),
        (lambda: sight.clear, f"{sight}{'' if sight.clear else ': inconclusive, the machine was busy'}"),
    ]
    for holds, text in told:
        console.print(
            f"[{'green' if holds() else 'red'}]{'✓' if holds() else '✗'}[/] {text}", highlight=False
        )
    return 0 if failure is None and all(holds() for holds, _ in told) else 1


if __name__ == "__main__":
    sys.exit(main())
