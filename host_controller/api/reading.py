"""What may be asked of the control API without changing anything, but for events (`following.py`)."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from host_controller import __version__
from host_controller.api.explain import balance_now, explain
from host_controller.api.finding import find_uuid, find_vm, known_uuid
from host_controller.api.http import (
    Refused,
    answer_json,
    duration,
    expect,
    in_turns,
    one_of,
    whole_number,
)
from host_controller.api.metrics import Metrics
from host_controller.api.past import Past
from host_controller.api.schema.answers import ApiView
from host_controller.api.schema.history import ChartLine, ChartView, SampleView
from host_controller.api.schema.host import StatusView
from host_controller.api.schema.json_schema import json_schema
from host_controller.api.schema.vm import VmView
from host_controller.api.stored_history import (
    CHARTS,
    STEPS,
    TooMuch,
    one_in,
    read_chart,
    read_moment,
    read_stored,
    step_for,
)
from host_controller.api.views import history_view, host_view, sample_views, vm_view
from host_controller.control.controller import Controller
from host_controller.exposition import CONTENT_TYPE
from host_controller.neutral import by_name
from host_controller.records import fleet_figures
from host_controller.records.samples import KEPT_SECONDS

MOMENTS: Final = 60
"""Of the chart: one a minute."""
SAMPLES: Final = 100
"""Samples that are unpacked together: well below a turn."""


class ReadingRoutes:
    """Looks at one controller.

    problem: why the last configuration was refused, or None. history: the file of what is past, or None.
    """

    def __init__(
        self,
        controller: Controller,
        metrics: Metrics,
        problem: Callable[[], str | None],
        history: Path | None,
    ) -> None:
        self._controller = controller
        self._metrics = metrics
        self._problem = problem
        self._history_path = history
        self._past = Past()

    def close(self) -> None:
        """Nobody is told of the past any more."""
        self._past.close()

    def routes(self) -> list[web.RouteDef]:
        """What both sockets and TCP serve."""
        return [
            web.get("/v1", self._api),
            web.get("/v1/status", self._status),
            web.get("/v1/vms", self._vms),
            web.get("/v1/vms/{vm:[^/]+}", self._vm),
            web.get("/v1/vms/{vm:[^/]+}/explain", self._explain),
            web.get("/v1/vms/{vm:[^/]+}/history", self._history),
            web.get("/v1/chart", self._chart),
            web.get("/v1/balance", self._balance),
            web.get("/v1/schema", self._schema),
            web.get("/metrics", self._metrics_text),
        ]

    async def _api(self, request: web.Request) -> web.Response:
        expect(request)
        return answer_json(ApiView(api=1, version=__version__))

    async def _status(self, request: web.Request) -> web.Response:
        expect(request)
        host = host_view(self._controller, self._problem())
        return answer_json(StatusView(host=host, vms=await self._all_vms()))

    async def _vms(self, request: web.Request) -> web.Response:
        expect(request)
        return answer_json(await self._all_vms())

    async def _all_vms(self) -> list[VmView]:
        views: list[VmView] = []
        async for uuid in in_turns(list(self._controller.engine.vms)):
            vm = self._controller.engine.vms.get(uuid)
            if vm is not None:
                views.append(vm_view(self._controller, vm))
        views.sort(key=lambda view: by_name(view.name))
        return views

    async def _vm(self, request: web.Request) -> web.Response:
        expect(request)
        return answer_json(vm_view(self._controller, find_vm(self._controller, request)))

    async def _explain(self, request: web.Request) -> web.Response:
        expect(request)
        vm = find_vm(self._controller, request)
        self._controller.ask_who_holds(vm)
        return answer_json(explain(self._controller, vm))

    async def _history(self, request: web.Request) -> web.StreamResponse:
        query = expect(request, "since", "step", "points")
        seconds = duration(query.get("since", f"{KEPT_SECONDS:.0f}"))
        step = STEPS[one_of(query, "step", STEPS)] or step_for(seconds)
        points = whole_number(query, "points")
        wanted = request.match_info["vm"]
        path, known = self._history_path, known_uuid(self._controller, wanted)
        in_memory = seconds <= KEPT_SECONDS and step == "detail" and known is not None
        if path is not None and not in_memory:
            since = time.time() - seconds
            spread = one_in(seconds, step, points)
            # By its UUID: others may have had its name.
            read = partial(read_stored, path, known or wanted, since, step, spread)
            try:
                answer = await self._past.answer(request, read)
            except TooMuch as error:
                raise Refused(400, "too-much", str(error), "a shorter since, or a coarser step") from None
            if answer is not None:
                return answer
        uuid = find_uuid(self._controller, wanted)
        begin = self._controller.now() - seconds
        journal = self._controller.journal
        entries = [one for one in journal.entries() if one.vm == uuid and one.at >= begin]
        samples: list[SampleView] = []
        packed = journal.samples.packed(uuid)
        async for at in in_turns(range(0, len(packed), SAMPLES)):
            samples += sample_views(self._controller, packed[at : at + SAMPLES], begin)
        return answer_json(history_view(self._controller, uuid, samples, entries))

    async def _chart(self, request: web.Request) -> web.StreamResponse:
        since = one_of(expect(request, "since"), "since", ("1h", *CHARTS))
        if since != "1h":
            answer = None
            if (path := self._history_path) is not None:
                read = partial(read_chart, path, CHARTS[since], time.time())
                answer = await self._past.answer(request, read)
            if answer is None:
                raise Refused(404, "no-history", "nothing is kept for so long", "[paths] history")
            return answer
        now, journal = self._controller.now(), self._controller.journal
        step = KEPT_SECONDS / MOMENTS
        moments = [now - step * back for back in range(MOMENTS - 1, -1, -1)]
        lines = [
            ChartLine(uuid=uuid, assigned_bytes=journal.samples.assigned_at(uuid, moments))
            async for uuid in in_turns(list(self._controller.engine.vms))
        ]
        at = [round(journal.wall_time(one), 3) for one in moments]
        return answer_json(ChartView(at=at, vms=lines))

    async def _balance(self, request: web.Request) -> web.StreamResponse:
        query = expect(request, "at")
        if "at" not in query:
            return answer_json(balance_now(self._controller))
        at = whole_number(query, "at")
        answer = None
        if (path := self._history_path) is not None:
            answer = await self._past.answer(request, partial(read_moment, path, float(at)))
        if answer is None:
            raise Refused(404, "no-history", "no history is kept", "[history] enabled, [paths] history")
        return answer

    async def _metrics_text(self, request: web.Request) -> web.Response:
        expect(request)
        pieces = []
        for piece in self._metrics.render(self._problem()):
            pieces.append(piece)
            await asyncio.sleep(0)  # the control loop's turn
        pieces.append(await asyncio.to_thread(fleet_figures.fresh, time.time(), fleet_figures.METRICS))
        return web.Response(body=b"".join(pieces), headers={"Content-Type": CONTENT_TYPE})

    async def _schema(self, request: web.Request) -> web.Response:
        expect(request)
        return answer_json(json_schema())
