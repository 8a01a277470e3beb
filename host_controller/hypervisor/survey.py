"""What `dynmem doctor` asks libvirt: read-only, blocking, on a connection of its own."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import libvirt

from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.traces import was_prepared
from host_controller.domain_xml.view import DomainView
from host_controller.errors import DomainUnsuitable
from host_controller.hypervisor.about_host import AboutHost
from host_controller.hypervisor.failure import call_failed, called
from host_controller.hypervisor.opening import opened
from host_controller.rules.taking import NO_RULES, Rulebook, Taken, take


@dataclass(frozen=True, slots=True)
class SurveyedDomain:
    """A managed domain as the doctor sees it, one that a rule is for, or one that has lost its metadata."""

    uuid: str
    name: str
    running: bool
    xml: str
    """Of what runs, else of its definition."""
    view: DomainView
    """As the controller reads it."""
    rule: int | None
    """The number of the rule that is for it, where it runs and has no limits of its own."""
    statistics: dict[str, int]
    stopped: str = ""
    """As VmSurvey.stopped."""


@dataclass(frozen=True, slots=True)
class UnseenDomain:
    """A domain of which libvirt says no more than that it is there: nobody knows whether it is managed."""

    uuid: str
    name: str
    problem: str
    """What libvirt said."""


class Domains(NamedTuple):
    """All domains of a libvirt."""

    ours: list[SurveyedDomain | UnseenDomain]
    """Those that are managed, or would be, or were; and what cannot be looked at."""
    all: list[Taken]
    """Each domain as rules see it."""


_STOPPED: Final[dict[int, str]] = {
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "asleep",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
}
_PAUSED_BY: Final[dict[int, str]] = {
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: "by an error of its disk",
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION: "by a job",
    libvirt.VIR_DOMAIN_PAUSED_SAVE: "by a job",
    libvirt.VIR_DOMAIN_PAUSED_DUMP: "by a job",
    libvirt.VIR_DOMAIN_PAUSED_FROM_SNAPSHOT: "paused",
    libvirt.VIR_DOMAIN_PAUSED_SNAPSHOT: "by a job",
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: "by a job",
}
LOOK_SECONDS: Final = 10.0
"""For libvirt to answer. The doctor is asked where something hangs, and has more to tell."""
_GOING: Final = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
"""It was undefined, or it stopped."""


class Survey(AboutHost):
    """A read-only connection; close it."""

    def __init__(self, uri: str) -> None:
        super().__init__(opened(uri, read_only=True, limit_seconds=LOOK_SECONDS), uri)

    def domains(self, book: Rulebook = NO_RULES) -> Domains:
        """All domains, each read once, in the order of their names. One that is going away is left out.

        Raises:
            CallFailed: libvirt does not list them.
        """
        found = Domains([], [])
        for domain in sorted(called(self._connection.listAllDomains), key=lambda one: str(one.name())):
            try:
                taken, ours = self._look(domain, book)
            except DomainUnsuitable as error:
                found.ours.append(UnseenDomain(str(domain.UUIDString()), str(domain.name()), error.message))
                continue
            except libvirt.libvirtError as error:
                if error.get_error_code() not in _GOING:
                    said = call_failed(error).message
                    found.ours.append(UnseenDomain(str(domain.UUIDString()), str(domain.name()), said))
                continue
            found.all.append(taken)
            if ours is not None:
                found.ours.append(ours)
        return found

    def close(self) -> None:
        """To be called once, after the last question."""
        self._connection.close()

    @staticmethod
    def _look(domain: Any, book: Rulebook) -> tuple[Taken, SurveyedDomain | None]:
        running = bool(domain.isActive())
        xml = str(domain.XMLDesc(0))
        persistent = None
        if running and domain.isPersistent():
            persistent = str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        taken = take(xml, persistent, book)
        rule = taken.rule if running else None
        if not (taken.view.claimed or rule is not None or was_prepared(xml)):
            return taken, None
        statistics: dict[str, int] = {}
        stopped = why_stopped(domain)
        if running:
            with suppress(libvirt.libvirtError):  # a job holds it: what its XML says is still worth a look
                statistics = dict(domain.memoryStats())
        # A rule takes on what runs: of one that is off its definition is looked at as it is.
        view = taken.view if rule == taken.rule else read_domain(xml, persistent)
        uuid, name = str(domain.UUIDString()), str(domain.name())
        return taken, SurveyedDomain(uuid, name, running, xml, view, rule, statistics, stopped)


def why_stopped(domain: Any) -> str:
    """As VmSurvey.stopped has it."""
    state, reason = domain.state()
    found = _STOPPED.get(state, "")
    return _PAUSED_BY.get(reason, found) if found == "paused" else found
