"""What changes something, and who did it: holds, the configuration, and starts as the hook tells of them."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from host_controller.api import start_xml
from host_controller.api.finding import find_vm
from host_controller.api.http import Refused, answer_json, expect, expect_no_body, read_body
from host_controller.api.peer import Names
from host_controller.api.schema.answers import DoneView
from host_controller.api.views import admission_view
from host_controller.config import ConfigError
from host_controller.control.admission import Admission
from host_controller.control.controller import Controller
from host_controller.control.pausing import MIGRATION
from host_controller.control.start_queue import read_start
from host_controller.core.vm.record import Vm
from host_controller.errors import DynmemError
from host_controller.neutral import neutral

Reload = Callable[[str, dict[str, object]], None]
"""Who wanted it, and what is known of them."""
Note = Callable[[str, dict[str, object], Vm | None], None]
"""What was changed by whom, what is known of them, and the VM that it concerns."""


class ChangingRoutes:
    """Acts on one controller, for those whom the socket's mode lets.

    reload: takes over the configuration, or raises ConfigError. note: tells the journal.
    """

    def __init__(self, controller: Controller, admission: Admission, reload: Reload, note: Note) -> None:
        self._controller = controller
        self._admission = admission
        self._reload = reload
        self._note = note
        self._reading_xml = asyncio.Lock()
        self._names = Names()

    def close(self) -> None:
        """Nobody changes anything any more."""
        self._names.close()

    def routes(self) -> list[web.RouteDef]:
        """What the socket for changes serves beside all that reads."""
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

    def refused(self) -> list[web.RouteDef]:
        """The same paths where one may only look: they say so."""
        return [web.post(one.path, _only_looks) for one in self.routes()]

    async def _note_change(self, request: web.Request, what: str, vm: Vm | None = None) -> None:
        peer = await self._names.peer_of(request.transport)
        self._note(f"{peer} {what}", peer.detail(), vm)

    async def _pause_all(self, request: web.Request) -> web.Response:
        return await self._hold_all(request, True)

    async def _resume_all(self, request: web.Request) -> web.Response:
        return await self._hold_all(request, False)

    async def _hold_all(self, request: web.Request, on: bool) -> web.Response:
        await expect_no_body(request)
        self._controller.hold_all(on)
        done = f"{'paused' if on else 'resumed'} all VMs"
        await self._note_change(request, done)
        return answer_json(DoneView(done=done))

    async def _pause(self, request: web.Request) -> web.Response:
        return await self._hold(request, True)

    async def _resume(self, request: web.Request) -> web.Response:
        if self._controller.pausing.paused_all:
            raise Refused(
                409,
                "all-paused",
                "all VMs are paused, so one alone cannot be resumed",
                "resume all of them: dynmem resume --all",
            )
        try:
            return await self._hold(request, False)
        except Refused:
            uuid, name = self._told_of(request.match_info["vm"])
            if uuid not in self._controller.pausing.paused:
                raise
        # It does not run: otherwise it would be paused when it starts, and only then could be resumed.
        self._controller.hold(uuid, False)
        done = f"resumed {name}, which does not run"
        await self._note_change(request, done)
        return answer_json(DoneView(done=done))

    def _told_of(self, wanted: str) -> tuple[str, str]:
        """UUID and name of a VM that does not run; where nothing is known of it, what was asked for."""
        return self._controller.journal.find(wanted) or (wanted.lower(), wanted)

    async def _hold(self, request: web.Request, on: bool) -> web.Response:
        await expect_no_body(request)
        vm = find_vm(self._controller, request)
        self._controller.hold(vm.config.uuid, on)
        done = f"{'paused' if on else 'resumed'} {vm.name}"
        if vm.pauses.job == MIGRATION:
            done += " here: the migration that is under way does not take that along"
        await self._note_change(request, done, vm)
        return answer_json(DoneView(done=done))

    async def _reload_now(self, request: web.Request) -> web.Response:
        await expect_no_body(request)
        peer = await self._names.peer_of(request.transport)
        try:
            self._reload(str(peer), peer.detail())
        except ConfigError as error:
            hint = "correct the file; the configuration before it stays in force"
            raise Refused(409, "bad-configuration", str(error), hint) from None
        return answer_json(DoneView(done="the configuration was read again"))

    # --- starts, as the hook tells of them ---

    async def _admit(self, request: web.Request) -> web.Response:
        expect(request)
        body = await read_body(request, start_xml.LARGEST_BYTES)
        overhead = self._controller.engine.state.settings.overhead_floor_bytes
        try:
            # One at a time: each takes the interpreter from the control loop for a moment.
            async with self._reading_xml:
                rules = self._admission.rules
                start = await asyncio.to_thread(lambda: read_start(start_xml.check(body), overhead, rules))
        except (DynmemError, start_xml.UnfitXml) as error:
            raise Refused(400, "bad-domain", neutral(error), "the body is a domain's XML") from None
        by = (await self._names.peer_of(request.transport)).detail()
        return answer_json(admission_view(await self._admission.admit(start, by)))

    async def _started(self, request: web.Request) -> web.Response:
        await expect_no_body(request)
        self._admission.started(request.match_info["name"])
        return answer_json(DoneView(done="noted"))

    async def _stopped(self, request: web.Request) -> web.Response:
        await expect_no_body(request)
        name = request.match_info["name"]
        if name in self._controller.engine.ledger.reservations:
            await self._note_change(request, f"gave back what was reserved for {name}")
        self._admission.stopped(name)
        return answer_json(DoneView(done="noted"))


async def _only_looks(_request: web.Request) -> web.Response:
    hint = "ask at the control socket, as root or in the group dynmem"
    raise Refused(403, "read-only", "this socket is for those who look: it changes nothing", hint)
