"""A cluster made ready for VMs of dynamic size, as `dynmem fleet init` does it."""

from host_controller.config.rule import RuleSection
from host_controller.errors import InputError
from host_controller.fleet.clock import REAL, Clock
from host_controller.fleet.core.drain import in_words
from host_controller.fleet.pacemaker.cell import Engine, commit, disturbed_by, require_rest
from host_controller.fleet.pacemaker.cib import Cib
from host_controller.fleet.pacemaker.needs import Need, missing, prepared
from host_controller.fleet.patience import patiently
from host_controller.fleet.startup import unprepared


def needs_of(cib: Cib, rules: tuple[RuleSection, ...] = ()) -> tuple[Need, ...]:
    """All that is not as it should be, of the cluster and of its VMs' files. rules: as of `unprepared`."""
    return (*missing(cib), *unprepared(cib, rules))


def prepare(engine: Engine, rules: tuple[RuleSection, ...] = (), clock: Clock = REAL) -> tuple[Need, ...]:
    """Set what can be set, unless a VM would be disturbed. Returns all that was not as it should be.

    Raises:
        InputError: a VM would be.
        FleetError: nothing was changed.
    """
    return patiently(lambda: _attempt(engine, rules), clock)


def _attempt(engine: Engine, rules: tuple[RuleSection, ...]) -> tuple[Need, ...]:
    cib = engine.query()
    needs = needs_of(cib, rules)
    if all(one.by_hand for one in needs):
        return needs
    require_rest(engine)
    new = prepared(cib)
    if disturbed := disturbed_by(engine, cib, new):
        would = f"the engine would {in_words(disturbed)}"
        raise InputError(f"nothing was set: {would}", hint="set it while no VM runs, in maintenance or not")
    commit(engine, cib, new)
    return needs
