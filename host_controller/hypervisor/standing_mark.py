"""The mark of a VM that was stopped after a reset (`domain_xml.standing`), written and taken off. It blocks.

It is a precaution against others who move the VM meanwhile: where it cannot be written, all else goes on.
"""

from typing import Any, Final

import libvirt
import structlog

from host_controller.domain_xml.standing import NAMESPACE, PREFIX, element
from host_controller.hypervisor.jobs import running_job

_ELEMENT: Final = libvirt.VIR_DOMAIN_METADATA_ELEMENT
_LIVE: Final = libvirt.VIR_DOMAIN_AFFECT_LIVE
_CONFIG: Final = libvirt.VIR_DOMAIN_AFFECT_CONFIG
_INACTIVE: Final = libvirt.VIR_DOMAIN_XML_INACTIVE

log = structlog.get_logger(__name__)


def write(domain: Any, vcpu_seconds: float | None) -> None:
    """A controller has stopped it, at this processor time of its vCPUs."""
    _set(domain, element(vcpu_seconds), _LIVE)


def take_off(domain: Any) -> None:
    """It runs. A migration that made it persistent has written the mark into its definition, too."""
    try:
        defined = domain.isPersistent() and NAMESPACE in domain.XMLDesc(_INACTIVE)
    except libvirt.libvirtError:  # it may just have ended
        return
    _set(domain, None, _LIVE | (_CONFIG if defined else 0))


def _set(domain: Any, text: str | None, flags: int) -> None:
    try:
        # libvirt would hold the call for up to 30 s (fact: job-lock). A later look takes a mark off.
        if running_job(domain) is None:
            domain.setMetadata(_ELEMENT, text, PREFIX, NAMESPACE, flags)
    except libvirt.libvirtError as error:
        log.info("a standstill is not marked in the VM's XML as it is", vm=domain.name(), error=str(error))
