"""A mark in a running domain's XML: a controller has stopped its vCPUs after a reset. Pure.

    <standing:still xmlns:standing="urn:dynmem:standing:1" vcpu-ms="1830"/>

What a controller remembers stays on its host. The mark goes wherever somebody migrates, saves or restores
the VM meanwhile (fact: paused-goes-along). It stands apart from our limits, since another tool's VM has none,
and is taken off once the VM runs.
"""

from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.core.operations.standstill import VCPU_NOISE_SECONDS
from host_controller.domain_xml.values import number

NAMESPACE: Final = "urn:dynmem:standing:1"
PREFIX: Final = "standing"
_TAG: Final = f"{{{NAMESPACE}}}still"
_ATTRIBUTE: Final = "vcpu-ms"
ARRIVED_SECONDS: Final = 1.0
"""What the vCPUs of a QEMU take before they are let run, a hundred of them included."""


@dataclass(frozen=True, slots=True)
class Mark:
    """As it was found. It may be anybody's word, who could let the VM run as well."""

    vcpu_seconds: float
    """Processor time of its vCPUs when they were stopped, in the QEMU of then; 0 where that was not known."""

    def holds(self, vcpu_seconds: float | None) -> bool:
        """Whether a VM that stands still with this mark has not run since. Else somebody else stopped it.

        vcpu_seconds: processor time of its vCPUs now. A QEMU that it was moved or restored into begins at 0;
        None: it is not known.
        """
        if vcpu_seconds is None or vcpu_seconds <= ARRIVED_SECONDS:
            return True
        return abs(vcpu_seconds - self.vcpu_seconds) <= VCPU_NOISE_SECONDS


def mark_of(root: Element) -> Mark | None:
    """The mark of a <domain>; None without one."""
    found = root.find(f"./metadata/{_TAG}")
    return None if found is None else Mark(number(found.get(_ATTRIBUTE)) / 1e3)


def element(vcpu_seconds: float | None) -> str:
    """The mark as virDomainSetMetadata wants it: without prefix and namespace."""
    return f'<still {_ATTRIBUTE}="{round((vcpu_seconds or 0.0) * 1e3)}"/>'
