"""The control API: HTTP and JSON on a unix socket, for the CLI, for curl, and for whoever builds on it.

    GET  /v1                            the API's and the controller's version  ApiView
    GET  /v1/status                     the host and every VM            StatusView
    GET  /v1/vms  /v1/vms/VM            VMs, by name or UUID             [VmView], VmView
    GET  /v1/vms/VM/explain             why it has what it has           ExplainView
    GET  /v1/vms/VM/history?since=10m   what was; step=minute or hour,   HistoryView
                                        points=N: no more of these than N
    GET  /v1/chart?since=1h             what each had; or 1d, 7d, 365d   ChartView
    GET  /v1/balance?at=SECONDS         who asked for what, now or then  MomentView
    GET  /v1/events?follow=true&vm=VM   what happened, a JSON object a line; after=NUMBER goes on, last=N
                                        leaves out all but the last N of what was
    GET  /v1/schema                     JSON Schema of all answers
    GET  /v1/figures                    what other hosts have to know      FiguresView
    GET  /v1/fleet                      all hosts, where the arbiter runs  FleetView
    POST /v1/pause  /v1/resume          stop or go on managing all VMs   DoneView
    POST /v1/vms/VM/pause  …/resume     the same for one VM
    POST /v1/reload                     read the configuration again
    POST /v1/admission                  may this VM start? (the hook)    AdmissionView
    POST /v1/admission/NAME/started     …/stopped: it runs, or does not  DoneView
    GET  /metrics                       the same figures for Prometheus

The paths that only read are also served on a second socket, and over TCP, together with a page at /, where
the configuration names an address ([http] listen). Other hosts have a listener of their own (`fleet.py`).

Whatever cannot be done is answered with a Problem, and nothing has changed. The sockets' modes say who may
ask: their owner and the group `dynmem`, to look and to change, and the group `dynmem-view`, to look. Whoever
changes something is named by the kernel's word in the events and in the log.
"""

from collections.abc import Callable
from pathlib import Path

import structlog
from aiohttp import web

from host_controller.api import page
from host_controller.api.changing import ChangingRoutes
from host_controller.api.fleet import FleetListener, FleetRoutes
from host_controller.api.following import EventRoutes
from host_controller.api.http import answer_problems
from host_controller.api.listeners import GROUP, VIEW_GROUP, Listeners
from host_controller.api.metrics import Metrics
from host_controller.api.reading import ReadingRoutes
from host_controller.config import ConfigError
from host_controller.control.admission import Admission
from host_controller.control.controller import Controller
from host_controller.core.vm.record import Vm
from host_controller.credentials import Credentials

log = structlog.get_logger(__name__)


class Api:
    """Serves one controller.

    reload: takes over the configuration whole, or raises ConfigError. history: the file of what is past.
    """

    def __init__(
        self, controller: Controller, reload: Callable[[], None], *, history: Path | None = None
    ) -> None:
        self.controller = controller
        self.configuration_error: str | None = None
        self._reload = reload
        self.admission = Admission(controller)
        metrics = Metrics(controller)
        controller.journal.add_sink(metrics.tally)
        self._reading = ReadingRoutes(controller, metrics, lambda: self.configuration_error, history)
        self._events = EventRoutes(controller)
        self._changing = ChangingRoutes(controller, self.admission, self.reload, self._note)
        self._fleet_routes = FleetRoutes(controller, self.admission)
        self._fleet: FleetListener | None = None
        self.listeners = Listeners(answer_problems(controller))

    async def start(self, path: Path) -> None:
        """Listen for those who may look and change. A socket that is there is a dead controller's.

        Raises:
            DynmemError: the socket cannot be made.
        """
        await self.listeners.unix(path, GROUP, self.routes(), "name another --socket")

    async def start_view(self, path: Path) -> None:
        """Listen for those who may look and change nothing.

        Raises:
            DynmemError: the socket cannot be made.
        """
        routes = [*self._looks(), *self._changing.refused()]
        await self.listeners.unix(path, VIEW_GROUP, routes, "name another [paths] view_socket")

    async def start_tcp(self, address: str, port: int) -> int:
        """Serve what only reads over TCP; returns the port, which was chosen where 0 was asked for.

        Raises:
            DynmemError: the address cannot be used.
        """
        return await self.listeners.tcp(address, port, [*self._looks(), *page.routes()])

    async def start_fleet(self, address: str, port: int, credentials: Credentials) -> int:
        """Listen for the other hosts of the fleet; returns the port.

        Raises:
            DynmemError: the address or the credentials cannot be used.
        """
        self._fleet = FleetListener(self.listeners, credentials)
        return await self._fleet.start(address, port, self._fleet_routes.routes())

    def routes(self) -> list[web.RouteDef]:
        """All that the socket for changes serves."""
        return [*self._looks(), *self._changing.routes()]

    async def stop(self) -> None:
        """End all answers and remove the sockets."""
        self._events.end()
        if self._fleet is not None:
            await self._fleet.stop()
        await self.listeners.close()
        self._reading.close()
        self._changing.close()

    def reload(self, by: str, detail: dict[str, object] | None = None) -> None:
        """Take over the whole new configuration, or keep the old one and remember why; `by`: who wanted it.

        Raises:
            ConfigError: nothing was changed.
        """
        try:
            self._reload()
        except ConfigError as error:
            self.configuration_error = error.in_one_line
            log.error("configuration refused; the one before stays in force", error=error.in_one_line, by=by)
            raise
        self.configuration_error = None
        self._note(f"{by} had the configuration read again", detail)

    def _note(self, text: str, detail: dict[str, object] | None, vm: Vm | None = None) -> None:
        """Who changed what, in the events, the history and the log."""
        uuid, name = (None, None) if vm is None else (vm.config.uuid, vm.name)
        self.controller.journal.said("operator", text, self.controller.now(), uuid, name, detail)
        log.info(text)

    def _looks(self) -> list[web.RouteDef]:
        return [*self._reading.routes(), *self._events.routes(), *self._fleet_routes.reading()]
