"""What libvirt says of one domain that is to be adopted or released."""

from dataclasses import dataclass, field

from host_controller.errors import DomainUnsuitable


@dataclass(frozen=True, slots=True)
class Facts:
    """One domain, read at one moment."""

    name: str
    uuid: str
    live_xml: str | None
    """None: it does not run."""
    definition: str | None = field(repr=False)
    """What it starts with next time, with its secrets; None: it is transient."""
    job: str | None = None
    """A migration, a save or a snapshot under way."""

    @property
    def running_xml(self) -> str:
        """The live XML of one that is known to run."""
        assert self.live_xml is not None
        return self.live_xml


class Refused(DomainUnsuitable):
    """It cannot be adopted, or released; nothing was changed."""


class ManagedAlready(Refused):
    """It is managed already: there is nothing to adopt."""


def refuse_busy(facts: Facts, what: str) -> None:
    """Raise Refused while a job holds the domain: libvirt would hold every call for it."""
    if facts.job is not None:
        raise Refused(f"a job holds it ({facts.job})", vm=facts.name, hint=f"{what} once that is over")
