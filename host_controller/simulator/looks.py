"""When a simulated guest is looked at: its workload changes, its agent is due, or something is done to it.

So a guest in which nothing moves costs nothing.
"""

from typing import TYPE_CHECKING

from host_controller.core import interface as hv
from host_controller.core.model import OFF
from host_controller.simulator.behaviours import Speech
from host_controller.units import MIB

if TYPE_CHECKING:
    from host_controller.simulator.guest import SimulatedVm


class Looks:
    """At one VM. step: seconds from one to the next while it moves."""

    def __init__(self, vm: "SimulatedVm", step: float) -> None:
        self._vm = vm
        self._step = max(step, vm.agenda.resolution)
        self._begun = 0

    def again(self) -> None:
        """Look now, and from then on as it needs; what was to come of the looks before is void."""
        self._begun += 1
        self._look_at(self._vm.agenda.now, self._begun)

    def _look_at(self, when: float, mine: int) -> None:
        self._vm.agenda.at(when, lambda: self._look(mine))

    def _look(self, mine: int) -> None:
        vm = self._vm
        if mine != self._begun or vm.state is OFF:
            return
        vm.advance()
        now, soonest = vm.agenda.now, vm.agenda.now + vm.agenda.resolution
        if not vm.up:
            if vm.starved_until > now:
                self._look_at(max(vm.starved_until, soonest), mine)
            return
        moves = self._moves()
        due = min(self._agent_due(moves), now + self._step if moves else vm.workload.constant_until(now))
        if due != float("inf"):
            self._look_at(max(due, soonest), mine)

    def _agent_due(self, moves: bool) -> float:
        """Let its agent do its part. Returns when that is due again."""
        vm, now = self._vm, self._vm.agenda.now
        agent, speech = vm.agent, vm.behaviour.speech
        if agent is None or speech is Speech.NOTHING:
            return float("inf")
        if speech is Speech.NOISE and now >= agent.reporter.sample_due():
            vm.emit(hv.GuestNoise(vm.uuid, "not-json", 1))
        agent.step(vm.memory, vm.slots.blocks, now, vm.behaviour)
        return agent.next_look(moves)

    def _moves(self) -> bool:
        """Whether another instant would change anything in it, which is up."""
        vm, now = self._vm, self._vm.agenda.now
        memory, work = vm.memory, vm.workload
        return (
            memory.restless
            or vm.balloon.step(1.0) != 0.0
            or work.anonymous.at(now) != memory.ideal
            or work.constant_until(now) <= now
            or work.working_set.at(now) - memory.cache >= MIB
        )
