"""What one VM's limits could be, from its own past alone: candidates, cheaply. The replay proves them.

A maximum is what was wanted at most, with room for what a few weeks have not shown. How much room was
measured on Bitbrains 2013-07 (bench/advice.py): after a fortnight a quarter more leaves 0 or 1 of 241 VMs
short in the weeks that follow. After one week it leaves up to 6, so there it is half as much again and 512
MiB.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from host_controller.advice.past import Past, in_words
from host_controller.core.model import BUFFER_RANGE, LARGEST_MAXIMUM_BYTES, SMALLEST_MINIMUM_BYTES, Limits
from host_controller.core.vm.demand import margin_bytes
from host_controller.units import MIB, format_size, round_down, round_up

WEEK_DAYS: Final = 7.0
NEARLY: Final = 0.98
"""A week of which a restart or two are missing is a week."""
GRANULE_BYTES: Final = 128 * MIB
"""Of a maximum: a memory block of the guest."""
MINIMUM_GRANULE_BYTES: Final = 64 * MIB
QUIET_PERCENT: Final = 1.0
"""The slots that show how little a VM needs."""
WORTH: Final = 0.05
"""A change by less than this share is not worth a restart."""
CENSORED_SECONDS: Final = 300.0
ALWAYS: Final = 0.9
NEVER_HEARD: Final = 0.05


@dataclass(frozen=True, slots=True)
class Margin:
    """What is added to the largest demand."""

    from_days: float
    share: float
    more_bytes: int
    confidence: str


MARGINS: Final = (
    Margin(14 * NEARLY, 0.25, 0, "good"),
    Margin(7 * NEARLY, 0.5, 512 * MIB, "fair"),
    Margin(0.0, 1.0, 1024 * MIB, "poor"),
)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a VM's limits could be, and why."""

    limits: Limits
    confidence: str
    """good, fair, poor: by the days that were seen."""
    reasons: tuple[str, ...]
    findings: tuple[str, ...]
    refused: str | None = None
    """Why there is no advice; then the limits are those of now."""
    lower_bound: bool = False
    """It wanted more than it may have, and nobody knows how much."""


def margin_for(days: float) -> Margin:
    """By how long the VM was seen."""
    return next(one for one in MARGINS if days >= one.from_days)


def suggest(past: Past, now: Limits, *, anyway: bool = False) -> Suggestion:
    """Limits for a VM, by what it wanted. `anyway`: from less than a week, too."""
    margin = margin_for(past.days)
    findings = tuple(_findings(past, now))
    refused = _refusal(past, anyway)
    peak = past.peak_bytes
    if refused is not None or peak is None:
        return Suggestion(now, margin.confidence, (), findings, refused or "nothing is known of its demand")
    if past.censored_seconds >= CENSORED_SECONDS:
        return _more(now, past, margin, findings)
    reasons: list[str] = []
    limits = _with_maximum(now, peak, margin, reasons)
    limits = _with_minimum(limits, past, reasons)
    limits = _with_buffer(limits, past, margin, reasons)
    startup = min(limits.maximum_bytes, max(limits.minimum_bytes, limits.startup_bytes))
    if startup != limits.startup_bytes:
        limits = replace(limits, startup_bytes=startup)
        reasons.append(f"startup {format_size(startup)}: no more than its maximum")
    return Suggestion(limits, margin.confidence, tuple(reasons), findings)


def sufficient_bytes(peak_bytes: int, margin: Margin) -> int:
    """A maximum for a largest demand."""
    needed = peak_bytes + margin_bytes(peak_bytes)
    wanted = round_up(needed + int(needed * margin.share) + margin.more_bytes, GRANULE_BYTES)
    return min(wanted, LARGEST_MAXIMUM_BYTES)


def _refusal(past: Past, anyway: bool) -> str | None:
    if past.seen_seconds and past.known_seconds < NEVER_HEARD * past.seen_seconds:
        return "its guest was hardly ever heard, so its demand is not known: is dynmem-agent running in it?"
    if past.days < WEEK_DAYS * NEARLY and not anyway:
        return f"it was seen for {in_words(past.days)}; advice wants a week (--anyway gives it all the same)"
    return None


def _more(now: Limits, past: Past, margin: Margin, findings: tuple[str, ...]) -> Suggestion:
    """It had its maximum and wanted more: only that it is too little is known."""
    maximum = sufficient_bytes(now.maximum_bytes, margin)
    minutes = past.censored_seconds / 60
    reason = (
        f"maximum at least {format_size(maximum)}: for {minutes:.0f} min it had its "
        f"{format_size(now.maximum_bytes)} "
        "and nothing to spare; what it wanted beyond is not known, so this is a lower bound"
    )
    limits = replace(now, maximum_bytes=maximum)
    return Suggestion(limits, margin.confidence, (reason,), findings, lower_bound=True)


def _with_maximum(now: Limits, peak: int, margin: Margin, reasons: list[str]) -> Limits:
    maximum = max(sufficient_bytes(peak, margin), now.minimum_bytes)
    if maximum > now.maximum_bytes * (1 - WORTH):
        return now
    more = f" and {format_size(margin.more_bytes)}" if margin.more_bytes else ""
    reasons.append(
        f"maximum {format_size(maximum)} instead of {format_size(now.maximum_bytes)}: it wanted "
        f"{format_size(peak)} at most; {100 * margin.share:.0f} %{more} is left for what was not seen"
    )
    return replace(now, maximum_bytes=maximum)


def _with_minimum(now: Limits, past: Past, reasons: list[str]) -> Limits:
    quiet = past.percentile(QUIET_PERCENT)
    assert quiet is not None
    wanted = quiet + quiet * now.buffer_percent // 100 + margin_bytes(quiet)
    minimum = max(SMALLEST_MINIMUM_BYTES, round_down(wanted, MINIMUM_GRANULE_BYTES))
    if minimum > now.minimum_bytes * (1 - WORTH):
        return now
    reasons.append(
        f"minimum {format_size(minimum)} instead of {format_size(now.minimum_bytes)}: "
        f"in its quiet hours it wants {format_size(quiet)}"
    )
    return replace(now, minimum_bytes=minimum)


def _with_buffer(now: Limits, past: Past, margin: Margin, reasons: list[str]) -> Limits:
    buffer = _useful_buffer(past)
    if buffer is None or margin.confidence != "good" or buffer > now.buffer_percent / 2:
        return now
    reasons.append(f"buffer {buffer} % instead of {now.buffer_percent} %: {_growth_in_words(past)}")
    return replace(now, buffer_percent=buffer)


def _useful_buffer(past: Past) -> int | None:
    """Twice what it grows by within a minute."""
    if past.growth_percent is None:
        return None
    return max(BUFFER_RANGE.start, math.ceil(2 * past.growth_percent))


def _growth_in_words(past: Past) -> str:
    return f"within a minute it grew by more than {past.growth_percent:.1f} % once in a thousand minutes"


def _findings(past: Past, now: Limits) -> list[str]:
    """What is worth naming, with its reason."""
    found = []
    if past.seen_seconds and past.known_seconds < NEVER_HEARD * past.seen_seconds:
        found.append("it never reports: without its agent it is charged all that it may touch")
        return found
    if past.at_maximum_seconds > ALWAYS * past.seen_seconds:
        share = past.at_maximum_seconds / past.seen_seconds
        why = (
            "and has nothing to spare"
            if past.censored_seconds > CENSORED_SECONDS
            else "though it could spare some"
        )
        found.append(f"it sits at its maximum, {100 * share:.0f} % of the time, {why}")
    if past.assigned_range is not None and past.days >= 1:
        least, most = past.assigned_range
        quiet = past.percentile(50.0) or 0
        could = max(now.minimum_bytes, quiet + quiet * now.buffer_percent // 100)
        if least > most * NEARLY and could < least * 0.8:
            found.append(
                f"it never shrinks, though {format_size(could)} would do: nobody else had a use "
                "for its memory, or "
                "its balloon cannot give it (dynmem explain)"
            )
    buffer = _useful_buffer(past)
    if buffer is not None and buffer <= now.buffer_percent / 4:
        found.append(f"its buffer of {now.buffer_percent} % is never used: {_growth_in_words(past)}")
    return found
