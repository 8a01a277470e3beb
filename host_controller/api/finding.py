"""Which VM a request means: by name or UUID, running or remembered."""

from aiohttp import web

from host_controller.api.http import Refused
from host_controller.control.controller import Controller
from host_controller.core.vm.record import Vm
from host_controller.neutral import by_name, neutral


def find_vm(controller: Controller, request: web.Request) -> Vm:
    """The running VM that a path names, by name or UUID.

    Raises:
        Refused: no managed VM of that name is running.
    """
    wanted = request.match_info["vm"]
    vms = controller.engine.vms
    found = vms.get(wanted.lower()) or next((vm for vm in vms.values() if vm.name == wanted), None)
    if found is None:
        raise unknown_vm(controller, wanted)
    return found


def find_uuid(controller: Controller, wanted: str) -> str:
    """The UUID of a VM that runs or ran.

    Raises:
        Refused: nothing is known of it.
    """
    uuid = known_uuid(controller, wanted)
    if uuid is None:
        raise unknown_vm(controller, wanted)
    return uuid


def known_uuid(controller: Controller, wanted: str) -> str | None:
    """Also of a VM that has stopped, as long as something is known of it."""
    vms = controller.engine.vms
    if wanted.lower() in vms:
        return wanted.lower()
    running = next((uuid for uuid, vm in vms.items() if vm.name == wanted), None)
    told = controller.journal.find(wanted) or controller.journal.find(wanted.lower())
    return running or (told[0] if told else None)


def unknown_vm(controller: Controller, wanted: str) -> Refused:
    """The refusal that names the VMs that are there."""
    names = sorted((neutral(vm.name) for vm in controller.engine.vms.values()), key=by_name)
    some = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    hint = f"managed and running: {some}" if names else "no managed VM is running; see dynmem enable"
    if untold := controller.engine.state.why_nobody():
        hint = f"managed and running: {some}; {untold}" if names else untold
    return Refused(404, "unknown-vm", f"no managed VM {neutral(wanted, 100)!r} is running", hint)
