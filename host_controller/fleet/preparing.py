"""A cluster made ready for VMs of dynamic size, as `dynmem fleet init` does it."""

import time
from collections.abc import Callable
from xml.etree import ElementTree

from host_controller.config.rule import RuleSection
from host_controller.errors import InputError
from host_controller.fleet.core.drain import harm, in_words
from host_controller.fleet.pacemaker.cell import Engine, commit, require_rest
from host_controller.fleet.pacemaker.cib import Cib
from host_controller.fleet.pacemaker.needs import Need, missing, prepared
from host_controller.fleet.patience import patiently
from host_controller.fleet.startup import unprepared


def needs_of(cib: Cib, rules: tuple[RuleSection, ...] = ()) -> tuple[Need, ...]:
    """All that is not as it should be, of the cluster and of its VMs' files. rules: as of `unprepared`."""
    return (*missing(cib), *unprepared(cib, rules))


def prepare(
    engine: Engine, sleep: Callable[[float], None] = time.sleep, rules: tuple[RuleSection, ...] = ()
) -> tuple[Need, ...]:
    """Set what can be set, unless a VM would be disturbed. Returns all that was not as it should be.

    Raises:
        InputError: a VM would be.
        FleetError: nothing was changed.
    """
    return patiently(lambda: _attempt(engine, rules), sleep)


def _attempt(engine: Engine, rules: tuple[RuleSection, ...]) -> tuple[Need, ...]:
    cib = engine.query()
    needs = needs_of(cib, rules)
    if all(one.by_hand for one in needs):
        return needs
    require_rest(engine)
    old, new = ElementTree.tostring(cib.root), prepared(cib)
    disturbed = harm(engine.simulate(new).actions, engine.simulate(old).actions)
    if disturbed:
        would = f"the engine would {in_words(disturbed)}"
        raise InputError(f"nothing was set: {would}", hint="set it while no VM runs")
    commit(engine, cib, new)
    return needs
