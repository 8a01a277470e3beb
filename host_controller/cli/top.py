"""`dynmem top`: the host and its VMs, live, until q."""

from typing import Any

import click

from host_controller.cli.options import at_socket, interval_option, needs_screen

SORTS = ("name", "assigned", "demand", "pressure", "charge", "weight")


@click.command()
@click.option("--sort", type=click.Choice(SORTS), default="name", help="What to begin with.")
@interval_option(0.2, 1.0, "How often to ask.")
@at_socket
def top(sort: str, interval: float, socket: str | None) -> None:
    """Show the host and every VM live.

    Keys: q quits, n a d p c w sort by name, assigned, demand, pressure, charge and weight, r reverses, arrows
    and page keys scroll. TREND is what a VM had in the last minute, drawn against its own largest.
    """
    needs_screen("dynmem status")
    # Only this command needs rich, and it takes a third of a second.
    from host_controller.api.client import Client, check_shape
    from host_controller.cli.live import Live
    from host_controller.cli.screen import View

    client = Client(socket)

    def ask() -> Any:
        found = client.get("status")
        check_shape(found, "host", "StatusView")
        return found

    Live(ask, View(sort), interval).run()
