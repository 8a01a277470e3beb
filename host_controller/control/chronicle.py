"""What of the loop's work is written down, in journal and log: VMs by name, errors ever more seldom."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

import structlog

from host_controller.core.engine import Engine, Event
from host_controller.core.interface import Command, CommandDone, VmAppeared, VmConfigChanged, VmGone
from host_controller.core.policy.plan import HOLD, WAIT, Decision
from host_controller.core.state import Notice
from host_controller.records.journal import Failure, Journal
from host_controller.records.samples import KEPT_SECONDS, sample_of
from host_controller.units import format_size

log: Final = structlog.get_logger(__name__)


class Chronicle:
    """Writes what an engine is told, decides and has to say into a journal. `now`, `at`: of its clock.

    dry_run: nothing of what it decides is carried out, so that it decides the same anew in each step.
    """

    def __init__(self, engine: Engine, journal: Journal, *, dry_run: bool = False) -> None:
        self._engine, self._journal = engine, journal
        self._dry_run = dry_run
        self._names: dict[str, str] = {}
        """Of the VMs that are there, by UUID."""
        self._told: list[Notice] = []
        """What others than the engine have to say, until it is written down."""
        self._errors: Counter[str] = Counter()

    def name_of(self, uuid: str) -> str:
        """What a VM is called; its UUID where nobody has said."""
        return self._names.get(uuid, uuid)

    def hear(self, event: Event, at: float) -> str | None:
        """Take note of what came in. Returns the name of the VM that it is about, as far as it is known."""
        name = self._names.get(getattr(event, "vm", ""))
        match event:
            case VmAppeared(vm, config) | VmConfigChanged(vm, config):
                self._names[vm] = name = config.name
            case CommandDone(vm):
                self._journal.done(event, name or vm, at)
            case VmGone(vm):
                self._journal.forget(vm)
                self._names.pop(vm, None)
        return name

    def tell(self, notices: Iterable[Notice]) -> None:
        """Keep these for when the next step is written down."""
        self._told += notices

    def commanded(self, command: Command, now: float) -> None:
        """It is about to be sent."""
        self._journal.commanded(command, self.name_of(command.vm), now)

    def write_down(self, touched: Iterable[str], now: float) -> None:
        """What this step has come to: notices, its decisions, and a sample of each VM that was touched."""
        engine = self._engine
        notices = [*engine.notices(), *self._told]
        self._told.clear()
        if notices:
            for one in self._journal.notices(notices):
                log.info(one.text, kind=one.kind, vm=one.name)
        for uuid, decision in engine.decisions.items():
            if decision.at == now:
                self._decided(decision, self.name_of(uuid))
        for uuid in touched:
            vm = engine.vms.get(uuid)
            if vm is not None:
                sample = sample_of(
                    vm, engine.claims.get(uuid), engine.goals.get(uuid), engine.charges.get(uuid, 0), now
                )
                self._journal.sampled(uuid, vm.name, sample)

    def _decided(self, decision: Decision, name: str) -> None:
        noted = self._journal.decided(decision, name, carried_out=not self._dry_run)
        if self._dry_run and noted and decision.action not in (HOLD, WAIT):
            size = decision.size_bytes if decision.target_bytes is None else decision.target_bytes
            told = None if size is None else format_size(size)
            log.info("not done: dry run", vm=name, action=decision.action, size=told, why=decision.reason)

    def forget_old(self, now: float) -> None:
        """Samples that are older than anybody asks for."""
        self._journal.samples.forget_before(now - KEPT_SECONDS)

    def failed(self, kind: Failure, error: Exception, **about: object) -> None:
        """Count an error, and log it in full the 1st, 10th, 100th … time: it may come ten times a second."""
        self._journal.count_error(kind)
        key = f"{kind} {type(error).__name__} {about.get('vm')}"
        self._errors[key] += 1
        count = self._errors[key]
        if math.log10(count).is_integer():
            log.error(f"{kind} failed", error=str(error), times=count, exc_info=error, **about)
