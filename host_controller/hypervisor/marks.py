"""Marks in a running VM's XML, written and taken off: it was stopped after a reset (`domain_xml.standing`),
or its management is paused (`domain_xml.held`). It blocks.

They are for the controller of another host, to which somebody may move the VM: where one cannot be written,
all else goes on.
"""

from typing import Any, Final

import libvirt
import structlog

from host_controller.domain_xml import held, standing
from host_controller.hypervisor.jobs import running_job

_Mark = tuple[str, str]
"""Its prefix and its namespace."""
_STANDING: Final = (standing.PREFIX, standing.NAMESPACE)
_HELD: Final = (held.PREFIX, held.NAMESPACE)
_ELEMENT: Final = libvirt.VIR_DOMAIN_METADATA_ELEMENT
_LIVE: Final = libvirt.VIR_DOMAIN_AFFECT_LIVE
_CONFIG: Final = libvirt.VIR_DOMAIN_AFFECT_CONFIG
_INACTIVE: Final = libvirt.VIR_DOMAIN_XML_INACTIVE

log = structlog.get_logger(__name__)


def write(domain: Any, vcpu_seconds: float | None) -> None:
    """A controller has stopped it, at this processor time of its vCPUs."""
    _set(domain, _STANDING, standing.element(vcpu_seconds), _LIVE)


def take_off(domain: Any) -> None:
    """It runs."""
    _take_off(domain, _STANDING)


def hold(domain: Any, *, on: bool) -> None:
    """Its operator has paused its management, or resumed it."""
    if on:
        _set(domain, _HELD, held.ELEMENT, _LIVE)
    else:
        _take_off(domain, _HELD)


def _take_off(domain: Any, mark: _Mark) -> None:
    """Also from its definition, into which a migration that made it persistent has written it."""
    try:
        defined = domain.isPersistent() and mark[1] in domain.XMLDesc(_INACTIVE)
    except libvirt.libvirtError:  # it may just have ended
        return
    _set(domain, mark, None, _LIVE | (_CONFIG if defined else 0))


def _set(domain: Any, mark: _Mark, text: str | None, flags: int) -> None:
    try:
        # libvirt would hold the call for up to 30 s (fact: job-lock). A later look takes a mark off.
        if running_job(domain) is None:
            domain.setMetadata(_ELEMENT, text, *mark, flags)
    except libvirt.libvirtError as error:
        log.info(
            "a mark in the VM's XML is not as it should be", vm=domain.name(), mark=mark[1], error=str(error)
        )
