"""Checks of a host as one of a fleet: its cluster's settings, and its certificate."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from agent.finding import Finding

PACEMAKER: Final = "Pacemaker"
CERTIFICATE: Final = "fleet certificate"
CHECKS: Final = (PACEMAKER, CERTIFICATE)


class Setting(NamedTuple):
    """One setting of the cluster that is not as it should be."""

    what: str
    found: str
    wanted: str
    protects: str
    """What it protects from."""
    by_hand: bool = False
    """`dynmem fleet init` does not set it."""


@dataclass(frozen=True, slots=True)
class FleetSurvey:
    """A host that listens to the others of its fleet."""

    missing: tuple[Setting, ...] = ()
    problem: str = ""
    """Why the cluster could not be asked."""
    clustered: bool = True
    """Pacemaker is installed here."""
    certificate_warning: str | None = None
    """It expires soon, or cannot be read."""


def checked(survey: FleetSurvey) -> tuple[Finding, ...]:
    """A finding for each setting that is missing, and one for the certificate."""
    return (*_pacemaker(survey), _certificate(survey))


def _pacemaker(survey: FleetSurvey) -> tuple[Finding, ...]:
    if not survey.clustered:
        return (Finding(PACEMAKER, "ok", "not installed: this host's fleet is no Pacemaker cluster"),)
    if survey.problem:
        remedy = "crm_mon -1 shows whether the cluster works; each host goes on by its own rules"
        return (Finding(PACEMAKER, "note", survey.problem, remedy),)
    if not survey.missing:
        return (Finding(PACEMAKER, "ok", "all that VMs of dynamic size need is set"),)
    return tuple(_missing(one) for one in survey.missing)


def _missing(one: Setting) -> Finding:
    found = f"{one.what}: {one.found}, wanted {one.wanted}. It protects from {one.protects}"
    remedy = (
        "dynmem fleet init does not do that: it is done by hand"
        if one.by_hand
        else "dynmem fleet init sets it"
    )
    return Finding(PACEMAKER, "problem", found, remedy)


def _certificate(survey: FleetSurvey) -> Finding:
    if survey.certificate_warning is None:
        return Finding(CERTIFICATE, "ok", "good for a month at least")
    remedy = "make a new one where ca.key is, and copy it here; no restart is needed"
    return Finding(CERTIFICATE, "problem", survey.certificate_warning, remedy)
