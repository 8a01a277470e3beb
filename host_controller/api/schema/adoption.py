"""What became of VMs that are taken on, by hand or by rules."""

from typing import Literal

from host_controller.api.schema.answers import View
from host_controller.api.schema.vm import LimitsView


class RuledVmView(View, frozen=True, kw_only=True, gc=False):
    """A VM, running or not, as the rules of a configuration see it."""

    uuid: str
    name: str
    running: bool
    rule: int | None
    """The first that is for it, from 1 on; null: none is, or its own metadata goes before all."""
    passed_over: int | None
    """The rule that would be for it, had it no metadata of its own."""
    source: str | None
    """Where its limits would come from; null: it would not be managed."""
    growth: str | None
    trust: str | None
    limits: LimitsView | None
    reasons: list[str]
    """Why that rule cannot take it on."""
    notes: list[str]
    """What the rule could not give it on this host, and what would."""


class RulesView(View, frozen=True, kw_only=True, gc=False):
    """What `dynmem rules --json` says."""

    rules: int
    """How many there are."""
    vms: list[RuledVmView]
    notes: list[str]


AdoptionOutcome = Literal[
    "adopted",
    "prepared",
    "released",
    "nothing to do",
    "would be adopted",
    "would be prepared",
    "would be released",
    "refused",
    "failed",
]


class AdoptionView(View, frozen=True, kw_only=True, gc=False):
    """What became of one VM that was to be adopted or released."""

    name: str
    uuid: str | None
    """None: there is no such VM."""
    outcome: AdoptionOutcome
    """Refused: nothing was changed. Failed: cut off; saying it again goes on from there."""
    steps: list[str]
    """Done, or to be done."""
    now: list[str]
    """What works while it runs."""
    later: list[str]
    """What its next start will bring."""
    reason: str | None
    way_out: str | None


class AdoptionsView(View, frozen=True, kw_only=True, gc=False):
    """What `dynmem adopt --json` and `release --json` say."""

    vms: list[AdoptionView]
