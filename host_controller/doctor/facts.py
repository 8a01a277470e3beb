"""What the checks are given. Nothing here does I/O, so the checks are tested without libvirt."""

from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element

from host_controller.domain_xml.host_abilities import NOTHING_KNOWN, HostAbilities
from host_controller.domain_xml.view import DomainView
from host_controller.records.burn_in import BurnIn


@dataclass(frozen=True, slots=True)
class HostSurvey:
    """The host. Versions are as libvirt has them: 1,000,000 × major + 1,000 × minor + release; 0: unknown."""

    uri: str
    libvirt_version: int = 0
    qemu_version: int = 0
    kvm: str | None = None
    """Why KVM cannot be used; None when it can."""
    overcommit_memory: int = 0
    """vm.overcommit_memory."""
    memmap_on_memory: bool | None = None
    swap_total_bytes: int = 0
    swap_used_bytes: int = 0
    ksm: bool = False
    killers: tuple[str, ...] = ()
    """Programs that kill where others stall for memory."""
    khugepaged_fills: bool = False
    """Whether khugepaged makes whole huge pages of those with holes."""
    hook: str | None = None
    """Path of the installed start hook."""
    selinux: bool = False
    """It enforces what programs may do."""
    hook_unseen: str = ""
    """Why nobody can see whether it is installed."""
    kernel_release: str = ""
    """As `uname -r`."""
    burn_ins: tuple[BurnIn, ...] = ()
    """What `dynmem verify` has found on this host, the newest last."""
    rules: int = 0
    """How many the configuration has."""
    idle_rules: tuple[str, ...] = ()
    """A sentence for each that is for nobody."""
    file_problem: str = ""
    """What is wrong with the configuration's file, in a line; empty also where who asks may not read it."""
    controller: dict[str, Any] | None = None
    """The `host` of StatusView; None when no controller answers."""
    controller_problem: str = ""
    """Why not."""
    controller_remedy: str = ""


@dataclass(frozen=True, slots=True)
class VmSurvey:
    """One managed VM."""

    name: str
    running: bool
    root: Element
    """The live XML of a running VM, else the persistent one."""
    domain: DomainView
    """The same, read."""
    view: dict[str, Any] | None = None
    """Its VmView; None when the controller does not know it or is not there."""
    statistics: dict[str, int] = field(default_factory=dict)
    """What the balloon driver answered, libvirt's names; empty when it did not."""
    asked_at: float = 0.0
    """Seconds since the epoch when the driver's answer was looked at; 0: nobody looked at the clock."""
    controller: bool = True
    """Whether a controller answered, so that a missing view means something."""
    rule: int | None = None
    """The number of the rule that it is managed by, or would be; None: it has limits of its own."""
    host: HostAbilities = NOTHING_KNOWN
    """Of the host that it is defined on."""
    stopped: str = ""
    """Why its vCPUs stand still: `paused`, `asleep`, `crashed`, `by an error of its disk`, `by a job`; empty
    where they do not. Nobody in it can be asked meanwhile.
    """
