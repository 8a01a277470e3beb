"""One domain's way: enabled on paper, then started, grown, shrunk, enabled again and put back for real."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import canonicalize

import libvirt

from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.edit import difference, enable
from host_controller.domain_xml.fitness.judge import refusals
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.restore import restore
from host_controller.errors import DynmemError
from host_controller.hypervisor.memory_devices import dimm_xml, resized
from host_controller.units import KIB, MIB, round_down
from lab.domains.replace import for_this_machine

INACTIVE: Final = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
LIVE: Final = libvirt.VIR_DOMAIN_AFFECT_LIVE
LIMITS: Final = Limits(512 * MIB, 256 * MIB, 2048 * MIB)
MOST_STEPS: Final = 8
"""Refusals that may lie in a row on a way out."""
FIRST_DIMM_BYTES: Final = 128 * MIB


class Verdict(StrEnum):
    """What became of a domain."""

    RIGHT = "right"
    ON_PAPER = "right on paper"
    """This machine cannot start it, prepared or not: only the editing was looked at."""
    REFUSED = "refused"
    """With at least one way out, all of which were followed; or with none, which the sentence says."""
    WRONG = "wrong"
    NO_DOMAIN = "no domain"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict and its sentences."""

    verdict: Verdict
    said: tuple[str, ...] = ()


class Wrong(Exception):  # noqa: N818 # read as what happened
    """The product did what it must not do."""


@dataclass
class Bench:
    """A libvirt to try domains on."""

    connection: libvirt.virConnect
    domain_type: str
    place: Path
    machines: frozenset[str]
    _tried: dict[tuple[str, Limits, Growth], str | None] = field(default_factory=dict)
    """Why a machine could not be tried; without disks and networks many files are the same machine."""

    def try_domain(self, xml: str, growth: Growth, limits: Limits = LIMITS) -> Outcome:
        """Take a domain through all of it, along every way out of every refusal."""
        try:
            read_domain(xml)
            found = refusals(xml, limits, growth)
        except DynmemError as error:
            return Outcome(Verdict.NO_DOMAIN, (str(error),))
        try:
            if not found:
                return self._accepted(xml, limits, growth)
            for refusal in found:
                for way in refusal.ways_out:
                    self._follow(*way.follow(xml, limits, growth), way.say)
        except Wrong as wrong:
            return Outcome(Verdict.WRONG, (str(wrong),))
        return Outcome(Verdict.REFUSED, tuple(f"{one.reason}; {one.hint}" for one in found))

    def _follow(self, xml: str, limits: Limits, growth: Growth, said: str) -> None:
        """From a hint on, taking the first way out of whatever else stands there, something must start."""
        path = [said]
        for _ in range(MOST_STEPS):
            found = refusals(xml, limits, growth)
            if not found:
                outcome = self._accepted(xml, limits, growth)
                if outcome.verdict is Verdict.WRONG:
                    raise Wrong(f"[{' → '.join(path)}] {outcome.said[0]}")
                return
            if not found[0].ways_out:
                return  # that says itself that there is none
            way = found[0].ways_out[0]
            path.append(way.say)
            xml, limits, growth = way.follow(xml, limits, growth)
        raise Wrong(f"the hints lead nowhere: {' → '.join(path)}")

    def _accepted(self, xml: str, limits: Limits, growth: Growth) -> Outcome:
        try:
            _on_paper(xml, limits, growth)
            bare = for_this_machine(xml, "trial", self.domain_type, self.place, self.machines)
            key = canonicalize(bare, strip_text=True), limits, growth
            if key not in self._tried:
                self._tried[key] = self._for_real(bare, limits, growth)
            excuse = self._tried[key]
        except Wrong as wrong:
            return Outcome(Verdict.WRONG, (str(wrong),))
        return Outcome(Verdict.RIGHT) if excuse is None else Outcome(Verdict.ON_PAPER, (excuse,))

    def _for_real(self, bare: str, limits: Limits, growth: Growth) -> str | None:
        """Why it cannot be tried here, or None when it was and all went well."""
        try:
            domain = self.connection.defineXML(bare)
        except libvirt.libvirtError as error:
            return f"libvirt does not define it here: {error}"
        try:
            # libvirt puts controllers into another order the second time.
            self.connection.defineXML(domain.XMLDesc(INACTIVE))
            before = domain.XMLDesc(INACTIVE)
            if found := refusals(before, limits, growth):
                return f"what libvirt made of it is refused: {found[0].reason}"
            self.connection.defineXML(_enabled(before, limits, growth))
            prepared = domain.XMLDesc(INACTIVE)
            self._live(domain, limits, growth)
            if not _same(_enabled(prepared, limits, growth), prepared):
                raise Wrong("enabled again, it changes once more")
            self.connection.defineXML(restore(prepared).xml)
            after = domain.XMLDesc(INACTIVE)
            if after != before:
                raise Wrong(f"after disable it is another domain:\n{difference(before, after, 'trial')}")
        except libvirt.libvirtError as error:
            if (excuse := self._starts_not(domain, before)) is not None:
                return excuse
            raise Wrong(f"libvirt: {error}") from None
        finally:
            if domain.isActive():
                domain.destroy()
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        return None

    @staticmethod
    def _live(domain: libvirt.virDomain, limits: Limits, growth: Growth) -> None:
        """Start it (its vCPUs stand still: nothing boots), grow it and shrink it."""
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        view = read_domain(domain.XMLDesc(0))
        if view.config is None or view.problems:
            raise Wrong(f"running, it is read as {view.problems or 'not managed'}")
        if growth is Growth.HOTADD:
            room = view.ceiling_bytes - view.boot_ram_bytes
            rest = round_down(room - FIRST_DIMM_BYTES, FIRST_DIMM_BYTES)
            for size in (FIRST_DIMM_BYTES, *([rest] if rest else [])):
                domain.attachDeviceFlags(dimm_xml(size), LIVE)
        elif growth is Growth.VIRTIO_MEM:
            domain.updateDeviceFlags(resized(domain.XMLDesc(0), view.config.virtio_mem_bytes), LIVE)
        domain.setMemoryFlags(limits.minimum_bytes // KIB, LIVE)
        domain.destroy()

    def _starts_not(self, domain: libvirt.virDomain, before: str) -> str | None:
        """Why the domain does not start here as it was before `enable`; None when it does."""
        try:
            if domain.isActive():
                return None
            self.connection.defineXML(before)
            domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        except libvirt.libvirtError as error:
            return f"it does not start here as it is: {error}"
        return None


def _on_paper(xml: str, limits: Limits, growth: Growth) -> None:
    once = _enabled(xml, limits, growth)
    if not _same(_enabled(once, limits, growth), once):
        raise Wrong("enabled twice on paper, it changes once more")
    if not _same(restore(once).xml, xml):
        raise Wrong("disabled on paper, it is not what it was")


def _same(one: str, other: str) -> bool:
    """Nothing but layout and the spelling of characters differs."""
    return canonicalize(one, strip_text=True) == canonicalize(other, strip_text=True)


def _enabled(xml: str, limits: Limits, growth: Growth) -> str:
    try:
        return enable(xml, limits, growth).xml
    except DynmemError as error:
        raise Wrong(f"accepted, and then refused: {error}") from None
