"""Why a VM has what it has, and what holds it."""

from host_controller.api.schema.answers import View
from host_controller.api.schema.vm import VmView


class Part(View, frozen=True, kw_only=True, gc=False):
    """A figure and what it is."""

    name: str
    size_bytes: int
    text: str
    deciding: bool = False


class HolderView(View, frozen=True, kw_only=True, gc=False):
    """A service or a program of a guest, by the guest's word."""

    name: str
    size_bytes: int
    grown_bytes: int | None
    """Since `HoldersView.since`; null where there is nothing to compare with, or it has not grown."""
    grown_at_least: bool = False
    """It was not among the largest then: it has grown by that or more."""


class HoldersView(View, frozen=True, kw_only=True, gc=False):
    """Who holds most of a guest's memory: what its agent answered last."""

    by: str | None
    """`services` (control groups, less their file cache) or `processes` (by name, less what they share)."""
    at: float | None
    since: float | None
    """When the look that growth is counted from was answered."""
    top: list[HolderView]
    """The largest first, five at most."""
    missing: str | None
    """Why nothing is known, or nothing new: a sentence."""
    pending: bool = False
    """The guest was asked, since somebody looks: look again in a moment."""


class ExplainView(View, frozen=True, kw_only=True, gc=False):
    """All about the current decision for one VM."""

    vm: VmView
    demand: list[Part]
    """What its need was put together from, in order."""
    charge: list[Part]
    """What it costs the host, rule by rule; the largest rule decides, extras come on top."""
    balance: list[Part]
    """What it asks for and what it gets."""
    why: list[str]
    """What holds it back, and why nothing else is done, in sentences."""
    holders: HoldersView | None = None
    """Null from a controller that does not ask."""
