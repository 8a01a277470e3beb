"""Who holds a guest's memory, as the control API shows it."""

from typing import Final

from host_controller.api.schema.explain import HoldersView, HolderView
from host_controller.control.controller import Controller
from host_controller.core.model import UNTRUSTED
from host_controller.core.vm.record import Vm

_NOT_ALL: Final = {
    "cut": "It has more processes than its agent looks at: the rest is not counted.",
    "hidden": "Its kernel hides processes from its agent (hidepid): they are not counted.",
    "other": "Its agent did not see all.",
}


def holders_view(controller: Controller, vm: Vm) -> HoldersView:
    """What its agent last answered, and why that is not more."""
    pending = controller.attribution.pending(vm.config.uuid, controller.now())
    last = controller.attribution.last(vm.config.uuid)
    missing = _missing(controller, vm)
    if last is None:
        missing = missing or "It has not answered yet."
        return HoldersView(by=None, at=None, since=None, top=[], missing=missing, pending=pending)
    look, base, grown = last
    by_name = {one.name: one for one in grown}
    top = [
        HolderView(
            name=name,
            size_bytes=size,
            grown_bytes=by_name[name].size_bytes if name in by_name else None,
            grown_at_least=name in by_name and by_name[name].at_least,
        )
        for name, size in look.holders
    ]
    wall = controller.journal.wall_time
    return HoldersView(
        by=look.by,
        at=round(wall(look.at), 3),
        since=None if base is None else round(wall(base.at), 3),
        top=top,
        missing=missing or _NOT_ALL.get(look.seen),
        pending=pending,
    )


def _missing(controller: Controller, vm: Vm) -> str | None:
    willing = controller.attribution.willing(vm.config.uuid)
    if vm.config.trust is UNTRUSTED:
        return "It is not asked, since it is not trusted (trust = none)."
    if not vm.has_agent(controller.now(), controller.engine.state.settings.stale_seconds):
        return "It is not asked: no agent speaks."
    if willing == "off":
        return "The administrator of the guest does not want it told (DYNMEM_HOLDERS=hide)."
    return "Its agent is too old to say." if willing == "unknown" else None
