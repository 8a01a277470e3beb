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

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from host_controller import __version__
from host_controller.api import page, start_xml
from host_controller.api.door import MOST_FOLLOWERS, connection_of
from host_controller.api.explain import balance_now, explain
from host_controller.api.fleet import FleetListener, FleetRoutes
from host_controller.api.http import (
    Refused,
    answer_json,
    answer_problems,
    duration,
    entry_line,
    expect,
    expect_no_body,
    flag,
    in_turns,
    one_of,
    read_body,
    whole_number,
)
from host_controller.api.listeners import GROUP, VIEW_GROUP, Listeners
from host_controller.api.metrics import Metrics
from host_controller.api.peer import peer_of
from host_controller.api.schema.answers import ApiView, DoneView
from host_controller.api.schema.history import ChartLine, ChartView, SampleView
from host_controller.api.schema.host import StatusView
from host_controller.api.schema.json_schema import json_schema
from host_controller.api.schema.vm import VmView
from host_controller.api.stored_history import (
    CHARTS,
    STEPS,
    one_in,
    read_chart,
    read_moment,
    read_stored,
    step_for,
)
from host_controller.api.turns import Turn
from host_controller.api.views import admission_view, history_view, host_view, sample_views, vm_view
from host_controller.config import ConfigError
from host_controller.control.admission import Admission, read_start
from host_controller.control.controller import Controller
from host_controller.core.vm.record import Vm
from host_controller.credentials import Credentials
from host_controller.errors import DynmemError
from host_controller.exposition import CONTENT_TYPE
from host_controller.neutral import by_name, neutral
from host_controller.records import fleet_figures
from host_controller.records.samples import KEPT_SECONDS

MOMENTS: Final = 60
"""Of the chart: one a minute."""
SAMPLES: Final = 100
"""Samples that are unpacked together: well below a turn."""

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
        self._history_path = history
        self.admission = Admission(controller)
        self._fleet_routes = FleetRoutes(controller, self.admission)
        self._fleet: FleetListener | None = None
        self._metrics = Metrics(controller)
        controller.journal.add_sink(self._metrics.tally)
        self.listeners = Listeners(answer_problems(controller))
        self._closing = asyncio.Event()
        self._reading_xml = asyncio.Lock()

    async def start(self, path: Path) -> None:
        """Listen for those who may look and change. A socket that is there is a dead controller's.

        Raises:
            DynmemError: the socket cannot be made.
        """
        routes = [*self._reading(), *self._changing()]
        await self.listeners.unix(path, GROUP, routes, "name another --socket")

    async def start_view(self, path: Path) -> None:
        """Listen for those who may look and change nothing.

        Raises:
            DynmemError: the socket cannot be made.
        """
        await self.listeners.unix(path, VIEW_GROUP, self._reading(), "name another [paths] view_socket")

    async def start_tcp(self, address: str, port: int) -> int:
        """Serve what only reads over TCP; returns the port, which was chosen where 0 was asked for.

        Raises:
            DynmemError: the address cannot be used.
        """
        return await self.listeners.tcp(address, port, [*self._reading(), *page.routes()])

    async def start_fleet(self, address: str, port: int, credentials: Credentials) -> int:
        """Listen for the other hosts of the fleet; returns the port.

        Raises:
            DynmemError: the address or the credentials cannot be used.
        """
        self._fleet = FleetListener(self.listeners, credentials)
        return await self._fleet.start(address, port, self._fleet_routes.routes())

    async def stop(self) -> None:
        """End all answers and remove the sockets."""
        self._closing.set()
        if self._fleet is not None:
            await self._fleet.stop()
        await self.listeners.close()

    def reload(self, by: str, detail: dict[str, object] | None = None) -> None:
        """Take over the whole new configuration, or keep the old one and remember why; `by`: who wanted it.

        Raises:
            ConfigError: nothing was changed.
        """
        try:
            self._reload()
        except ConfigError as error:
            self.configuration_error = str(error)
            log.error("configuration refused; the one before stays in force", error=str(error), by=by)
            raise
        self.configuration_error = None
        self._note(f"{by} had the configuration read again", detail)

    def _note(self, text: str, detail: dict[str, object] | None, vm: Vm | None = None) -> None:
        """Who changed what, in the events, the history and the log."""
        uuid, name = (None, None) if vm is None else (vm.config.uuid, vm.name)
        self.controller.journal.said("operator", text, self.controller.now(), uuid, name, detail)
        log.info(text)

    def _note_change(self, request: web.Request, what: str, vm: Vm | None = None) -> None:
        peer = peer_of(request.transport)
        self._note(f"{peer} {what}", peer.detail(), vm)

    def _reading(self) -> list[web.RouteDef]:
        return [
            web.get("/v1", self._api),
            web.get("/v1/status", self._status),
            web.get("/v1/vms", self._vms),
            web.get("/v1/vms/{vm:[^/]+}", self._vm),
            web.get("/v1/vms/{vm:[^/]+}/explain", self._explain),
            web.get("/v1/vms/{vm:[^/]+}/history", self._history),
            web.get("/v1/chart", self._chart),
            web.get("/v1/balance", self._balance),
            web.get("/v1/events", self._events),
            web.get("/v1/schema", self._schema),
            web.get("/metrics", self._metrics_text),
            *self._fleet_routes.reading(),
        ]

    def _changing(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/pause", self._pause_all),
            web.post("/v1/resume", self._resume_all),
            web.post("/v1/vms/{vm:[^/]+}/pause", self._pause),
            web.post("/v1/vms/{vm:[^/]+}/resume", self._resume),
            web.post("/v1/reload", self._reload_now),
            web.post("/v1/admission", self._admit),
            web.post("/v1/admission/{name:[^/]+}/started", self._started),
            web.post("/v1/admission/{name:[^/]+}/stopped", self._stopped),
        ]

    # --- reading ---

    async def _api(self, request: web.Request) -> web.Response:
        expect(request)
        return answer_json(ApiView(api=1, version=__version__))

    async def _status(self, request: web.Request) -> web.Response:
        expect(request)
        host = host_view(self.controller, self.configuration_error)
        return answer_json(StatusView(host=host, vms=await self._all_vms()))

    async def _vms(self, request: web.Request) -> web.Response:
        expect(request)
        return answer_json(await self._all_vms())

    async def _all_vms(self) -> list[VmView]:
        views: list[VmView] = []
        async for uuid in in_turns(list(self.controller.engine.vms)):
            vm = self.controller.engine.vms.get(uuid)
            if vm is not None:
                views.append(vm_view(self.controller, vm))
        views.sort(key=lambda view: by_name(view.name))
        return views

    async def _vm(self, request: web.Request) -> web.Response:
        expect(request)
        return answer_json(vm_view(self.controller, self._find(request)))

    async def _explain(self, request: web.Request) -> web.Response:
        expect(request)
        vm = self._find(request)
        self.controller.ask_who_holds(vm)
        return answer_json(explain(self.controller, vm))

    async def _history(self, request: web.Request) -> web.Response:
        query = expect(request, "since", "step", "points")
        seconds = duration(query.get("since", f"{KEPT_SECONDS:.0f}"))
        step = STEPS[one_of(query, "step", STEPS)] or step_for(seconds)
        points = whole_number(query, "points")
        wanted = request.match_info["vm"]
        path = self._history_path
        in_memory = seconds <= KEPT_SECONDS and step == "detail" and self._known_uuid(wanted) is not None
        if path is not None and not in_memory:
            since = time.time() - seconds
            spread = one_in(seconds, step, points)
            body = await asyncio.to_thread(read_stored, path, wanted, since, step, spread)
            if body is None:
                raise self._unknown(wanted)
            return web.Response(body=body, content_type="application/json")
        uuid = self._find_uuid(wanted)
        begin = self.controller.now() - seconds
        journal = self.controller.journal
        entries = [one for one in journal.entries() if one.vm == uuid and one.at >= begin]
        samples: list[SampleView] = []
        packed = journal.samples.packed(uuid)
        async for at in in_turns(range(0, len(packed), SAMPLES)):
            samples += sample_views(self.controller, packed[at : at + SAMPLES], begin)
        return answer_json(history_view(self.controller, uuid, samples, entries))

    async def _chart(self, request: web.Request) -> web.Response:
        since = one_of(expect(request, "since"), "since", ("1h", *CHARTS))
        if since != "1h":
            body = None
            if self._history_path is not None:
                body = await asyncio.to_thread(read_chart, self._history_path, CHARTS[since], time.time())
            if body is None:
                raise Refused(404, "no-history", "nothing is kept for so long", "[paths] history")
            return web.Response(body=body, content_type="application/json")
        now, journal = self.controller.now(), self.controller.journal
        step = KEPT_SECONDS / MOMENTS
        moments = [now - step * back for back in range(MOMENTS - 1, -1, -1)]
        lines = [
            ChartLine(uuid=uuid, assigned_bytes=journal.samples.assigned_at(uuid, moments))
            async for uuid in in_turns(list(self.controller.engine.vms))
        ]
        at = [round(journal.wall_time(one), 3) for one in moments]
        return answer_json(ChartView(at=at, vms=lines))

    async def _balance(self, request: web.Request) -> web.Response:
        query = expect(request, "at")
        if "at" not in query:
            return answer_json(balance_now(self.controller))
        at = whole_number(query, "at")
        body = None
        if self._history_path is not None:
            body = await asyncio.to_thread(read_moment, self._history_path, float(at))
        if body is None:
            raise Refused(404, "no-history", "no history is kept", "[history] enabled, [paths] history")
        return web.Response(body=body, content_type="application/json")

    async def _metrics_text(self, request: web.Request) -> web.Response:
        expect(request)
        pieces = []
        for piece in self._metrics.render(self.configuration_error):
            pieces.append(piece)
            await asyncio.sleep(0)  # the control loop's turn
        pieces.append(await asyncio.to_thread(fleet_figures.fresh, time.time(), fleet_figures.METRICS))
        return web.Response(body=b"".join(pieces), headers={"Content-Type": CONTENT_TYPE})

    async def _schema(self, request: web.Request) -> web.Response:
        expect(request)
        return answer_json(json_schema())

    async def _events(self, request: web.Request) -> web.StreamResponse:
        query = expect(request, "after", "follow", "last", "vm")
        after, follow = whole_number(query, "after"), flag(query, "follow")
        uuid = self._find_uuid(query["vm"]) if "vm" in query else None
        if "last" in query:
            after = max(after, self._before_last(whole_number(query, "last"), uuid))
        if follow:
            self._let_follow(request)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        news = asyncio.Event()
        stop_listening = self.controller.journal.listen(news.set)
        try:
            while True:
                news.clear()
                lines: list[bytes] = []
                turn = Turn()
                for one in list(self.controller.journal.entries(after)):
                    after = one.number
                    if uuid is None or one.vm == uuid:
                        lines.append(entry_line(one))
                    if turn.over():
                        await response.write(b"".join(lines))
                        lines.clear()
                        await asyncio.sleep(0)
                if lines:
                    await response.write(b"".join(lines))
                if not follow or not await self._wait(news):
                    break
        finally:
            stop_listening()
        await response.write_eof()
        return response

    @staticmethod
    def _let_follow(request: web.Request) -> None:
        """Followers stay, so there are few of one peer."""
        connection = connection_of(request)
        if connection is None or connection.peer is None:
            return
        if connection.door.followers_of(connection.peer) >= MOST_FOLLOWERS:
            problem = f"{connection.peer.key} follows events {MOST_FOLLOWERS} times already"
            raise Refused(503, "too-many-followers", problem, "end one of them")
        connection.follows = True

    def _before_last(self, count: int, uuid: str | None) -> int:
        """The number of the entry after which there are so many, of one VM or at all."""
        journal = self.controller.journal
        if uuid is None:
            return max(0, journal.last_number - count)
        numbers = [one.number for one in journal.entries() if one.vm == uuid]
        if count == 0 or not numbers:
            return journal.last_number
        return numbers[-count] - 1 if count <= len(numbers) else 0

    async def _wait(self, news: asyncio.Event) -> bool:
        """Wait for news; False when the controller ends."""
        waiting = [asyncio.ensure_future(one.wait()) for one in (news, self._closing)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
        return not self._closing.is_set()

    # --- changing ---

    async def _pause_all(self, request: web.Request) -> web.Response:
        return await self._hold_all(request, True)

    async def _resume_all(self, request: web.Request) -> web.Response:
        return await self._hold_all(request, False)

    async def _hold_all(self, request: web.Request, on: bool) -> web.Response:
        await expect_no_body(request)
        self.controller.hold_all(on)
        done = f"{'paused' if on else 'resumed'} all VMs"
        self._note_change(request, done)
        return answer_json(DoneView(done=done))

    async def _pause(self, request: web.Request) -> web.Response:
        return await self._hold(request, True)

    async def _resume(self, request: web.Request) -> web.Response:
        return await self._hold(request, False)

    async def _hold(self, request: web.Request, on: bool) -> web.Response:
        await expect_no_body(request)
        vm = self._find(request)
        if not on and self.controller.paused_all:
            raise Refused(
                409,
                "all-paused",
                "all VMs are paused, so one alone cannot be resumed",
                "resume all of them: dynmem resume --all",
            )
        self.controller.hold(vm.config.uuid, on)
        done = f"{'paused' if on else 'resumed'} {vm.name}"
        self._note_change(request, done, vm)
        return answer_json(DoneView(done=done))

    async def _reload_now(self, request: web.Request) -> web.Response:
        await expect_no_body(request)
        peer = peer_of(request.transport)
        try:
            self.reload(str(peer), peer.detail())
        except ConfigError as error:
            hint = "correct the file; the configuration before it stays in force"
            raise Refused(409, "bad-configuration", str(error), hint) from None
        return answer_json(DoneView(done="the configuration was read again"))

    # --- starts, as the hook tells of them ---

    async def _admit(self, request: web.Request) -> web.Response:
        expect(request)
        body = await read_body(request, start_xml.LARGEST_BYTES)
        overhead = self.controller.engine.state.settings.overhead_floor_bytes
        try:
            # One at a time: each takes the interpreter from the control loop for a moment.
            async with self._reading_xml:
                start = await asyncio.to_thread(lambda: read_start(start_xml.check(body), overhead))
        except (DynmemError, start_xml.UnfitXml) as error:
            raise Refused(400, "bad-domain", neutral(error), "the body is a domain's XML") from None
        by = peer_of(request.transport).detail()
        return answer_json(admission_view(await self.admission.admit(start, by)))

    async def _started(self, request: web.Request) -> web.Response:
        await expect_no_body(request)
        self.admission.started(request.match_info["name"])
        return answer_json(DoneView(done="noted"))

    async def _stopped(self, request: web.Request) -> web.Response:
        await expect_no_body(request)
        name = request.match_info["name"]
        if name in self.controller.engine.ledger.reservations:
            self._note_change(request, f"gave back what was reserved for {name}")
        self.admission.stopped(name)
        return answer_json(DoneView(done="noted"))

    # --- finding ---

    def _find(self, request: web.Request) -> Vm:
        wanted = request.match_info["vm"]
        vms = self.controller.engine.vms
        found = vms.get(wanted.lower()) or next((vm for vm in vms.values() if vm.name == wanted), None)
        if found is None:
            raise self._unknown(wanted)
        return found

    def _find_uuid(self, wanted: str) -> str:
        uuid = self._known_uuid(wanted)
        if uuid is None:
            raise self._unknown(wanted)
        return uuid

    def _known_uuid(self, wanted: str) -> str | None:
        """Also of a VM that has stopped, as long as something is known of it."""
        vms = self.controller.engine.vms
        if wanted.lower() in vms:
            return wanted.lower()
        running = next((uuid for uuid, vm in vms.items() if vm.name == wanted), None)
        told = self.controller.journal.find(wanted) or self.controller.journal.find(wanted.lower())
        return running or (told[0] if told else None)

    def _unknown(self, wanted: str) -> Refused:
        names = sorted((neutral(vm.name) for vm in self.controller.engine.vms.values()), key=by_name)
        some = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        hint = f"managed and running: {some}" if names else "no managed VM is running; see dynmem enable"
        return Refused(404, "unknown-vm", f"no managed VM {neutral(wanted, 100)!r} is running", hint)
