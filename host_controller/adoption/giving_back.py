"""What is to be done to give a domain back as it was before it was adopted. Pure.

The balloon is emptied first, by the controller: it is told of a minimum, so others give what is missing,
within the capacity. The record of what was there before goes last, so a release that was cut off is finished
by running it again.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Final

from host_controller.adoption.facts import Facts, Refused, refuse_busy
from host_controller.adoption.steps import (
    AskStatistics,
    Define,
    EmptyBalloon,
    SetBalloon,
    SetVirtioMem,
    Step,
    UnplugChannel,
    WriteMetadata,
)
from host_controller.core.model import ADOPTED, Growth, Limits, VmConfig
from host_controller.core.policy.dead_band import shrink_dead_band
from host_controller.domain_xml.adopted import (
    Before,
    adopted_element,
    channel_of,
    is_adopted,
    let_go_element,
)
from host_controller.domain_xml.ours import LET_GO, OWED, is_claimed, metadata_element
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.restore import restore
from host_controller.domain_xml.values import parse_xml
from host_controller.domain_xml.view import DomainView
from host_controller.neutral import shell_word
from host_controller.units import format_size

MANAGED_AGAIN: Final = "it is managed as before"
NOT_KNOWN: Final = "what its balloon was before is not recorded any more: it gets all of its RAM"
REDEFINED: Final = "its RAM is not what it was when it was adopted: it gets all of what it has"


@dataclass(frozen=True, slots=True)
class Room:
    """Who can give the VM its memory back."""

    controller: bool
    """One manages this libvirt: it moves others within the capacity."""
    spare_bytes: int | None = None
    """What the host has available beyond what it should keep, where no controller runs; None: not known."""
    of_another_libvirt: bool = False
    """A controller answers, and does not know this VM."""

    @property
    def way_out(self) -> str:
        """How to come by a controller that makes room."""
        if self.of_another_libvirt:
            return "name the socket of this libvirt's controller: the one that answers does not know it"
        return "start the controller, which makes room (systemctl start dynmem)"


@dataclass(frozen=True, slots=True)
class Undo:
    """What a domain is managed by again, where its memory could not be had: its limits as they are by then,
    since `dynmem set` may have changed them while its guest was waited for.
    """

    before: VmConfig
    """As its operator had it when the plan was made."""
    owed: Limits
    """What the running domain was told instead."""
    live_xml: str = field(repr=False)
    """By then: it has the record, and does not say that the domain is let go."""
    say: str = MANAGED_AGAIN

    def element(self, live_xml: str, definition: str | None) -> str:
        """Our element for the running domain."""
        now = read_domain(live_xml, definition).config or replace(self.before, limits=self.owed)
        limits = limits_of_operator(definition, replace(now, limits=self._changed(now.limits)))
        return _element(self.live_xml, now, limits)

    def _changed(self, now: Limits) -> Limits:
        """Those of before, each of which counts that is not what it was owed any more."""
        old, owed, new = (asdict(one) for one in (self.before.limits, self.owed, now))
        found = Limits(**{name: old[name] if new[name] == owed[name] else new[name] for name in old})
        maximum = max(found.minimum_bytes, found.maximum_bytes)
        startup = min(maximum, max(found.minimum_bytes, found.startup_bytes))
        return replace(found, startup_bytes=startup, maximum_bytes=maximum)


@dataclass(frozen=True, slots=True)
class Release:
    """How one domain is given back."""

    vm: str
    uuid: str
    steps: tuple[Step, ...]
    undo: Undo | None
    """By which it is managed as it was, where its memory cannot be had now."""
    notes: tuple[str, ...]


def plan_release(facts: Facts, room: Room) -> Release:
    """What is missing until the domain is as it was.

    Raises:
        Refused: it is not adopted, or its memory cannot be had, with what is missing.
    """
    _refuse_unadopted(facts)
    notes: tuple[str, ...] = ()
    definition: list[Step] = []
    if facts.definition is not None and is_claimed(parse_xml(facts.definition)):
        notes += restore(facts.definition).notes
        definition = [Define(lambda now: restore(now).xml, "its definition is as it was")]
    if facts.live_xml is None:
        return Release(facts.name, facts.uuid, tuple(definition), None, notes)
    refuse_busy(facts, f"`dynmem release {shell_word(facts.name)}`")
    view = read_domain(facts.live_xml, facts.definition)
    before, said = _before(facts.live_xml, facts.definition, view)
    notes += said
    grown = view.config is not None and view.config.growth is Growth.VIRTIO_MEM
    device = before.virtio_mem_bytes if grown else 0
    size, has = before.actual_bytes + device, view.actual_bytes + (view.virtio_mem_bytes if grown else 0)
    steps: list[Step] = []
    undo = None
    if view.config is not None:
        if room.controller:
            owed = replace(view.config.limits, startup_bytes=size, minimum_bytes=size, maximum_bytes=size)
            mine = limits_of_operator(facts.definition, view.config)
            undo = Undo(replace(view.config, limits=mine), owed, facts.live_xml)
            element = _marked(OWED, _element(facts.live_xml, view.config, owed))
            steps.append(WriteMetadata(element, "it is owed all that it had"))
            steps.append(EmptyBalloon(size, before.memory_devices, grown))
        else:
            _refuse_short(facts, size - has, room)
    if undo is None:
        _refuse_long(facts, has, size, room)
        _refuse_dimms(facts, before, room)
    channel = channel_of(facts.live_xml)
    if channel is not None and not before.channel:
        steps.append(UnplugChannel(channel))
    steps += definition
    if view.config is not None:
        steps.append(WriteMetadata(_let_go(facts.live_xml, view.config), "it is managed no more"))
    steps.append(AskStatistics(before.statistics_seconds))
    steps.append(SetBalloon(before.actual_bytes))
    if grown:
        steps.append(SetVirtioMem(device))
    steps.append(WriteMetadata(None, "nothing of dynmem's is left in it"))
    return Release(facts.name, facts.uuid, tuple(steps), undo, notes)


def limits_of_operator(definition: str | None, running: VmConfig) -> Limits:
    """The limits that its operator gave it: while it is given back, the running domain has others."""
    defined = None if definition is None else read_domain(definition).config
    return running.limits if defined is None or defined.source != ADOPTED else defined.limits


def _before(live_xml: str, definition: str | None, view: DomainView) -> tuple[Before, tuple[str, ...]]:
    """What it was, as far as that fits what it is, and what is to be said of it."""
    found = Before.read(live_xml) or (Before.read(definition) if definition else None)
    if found is None:
        boot = view.boot_ram_bytes
        asked = view.virtio_mem_requested_bytes
        # Who grows by DIMMs had none.
        hot = view.config is not None and view.config.growth is Growth.HOTADD
        devices = 0 if hot else _memory_devices(live_xml)
        return Before(boot, boot, 0, False, devices, virtio_mem_bytes=asked), (NOT_KNOWN,)
    started_anew = found.only_virtio_mem and found.ram_bytes != view.boot_ram_bytes
    if started_anew or found.actual_bytes > view.ram_bytes:
        return replace(found, ram_bytes=view.boot_ram_bytes, actual_bytes=view.boot_ram_bytes), (REDEFINED,)
    return found, ()


def _memory_devices(live_xml: str) -> int:
    return len(parse_xml(live_xml).findall("./devices/memory"))


def _refuse_unadopted(facts: Facts) -> None:
    xmls = [one for one in (facts.live_xml, facts.definition) if one is not None]
    if any(is_adopted(one) for one in xmls):
        return
    if any(is_claimed(parse_xml(one)) for one in xmls):
        hint = f"shut it down; then `dynmem disable {shell_word(facts.name)}` puts its definition back"
        raise Refused("it was not adopted: `dynmem enable` prepared it", vm=facts.name, hint=hint)
    hint = "a VM that a rule is for is let go by taking the rule out and `dynmem reload`"
    raise Refused("it is not adopted", vm=facts.name, hint=hint)


def _refuse_short(facts: Facts, needed_bytes: int, room: Room) -> None:
    """Without a controller nobody makes room: it is there, or it is not."""
    if needed_bytes <= 0 or (room.spare_bytes is not None and needed_bytes <= room.spare_bytes):
        return
    has = (
        "nobody knows what the host has"
        if room.spare_bytes is None
        else (f"the host can spare {format_size(max(0, room.spare_bytes))}")
    )
    raise Refused(
        f"it is to have {format_size(needed_bytes)} back, and {has}",
        vm=facts.name,
        hint=f"{room.way_out}, or stop a VM",
    )


def _refuse_long(facts: Facts, has_bytes: int, size_bytes: int, room: Room) -> None:
    """Only a controller takes memory from a guest step by step, and no more than it can spare."""
    if has_bytes <= size_bytes + shrink_dead_band(size_bytes):
        return
    raise Refused(
        f"it has {format_size(has_bytes)} by now, and {format_size(size_bytes)} when it was adopted",
        vm=facts.name,
        hint=f"lower its balloon as far as the guest can spare (virsh setmem {shell_word(facts.name)}), "
        f"or {room.way_out}",
    )


def _refuse_dimms(facts: Facts, before: Before, room: Room) -> None:
    """Only a controller has a guest give DIMMs up."""
    more = _memory_devices(facts.running_xml) - before.memory_devices
    if more <= 0:
        return
    raise Refused(
        f"{more} DIMM{'s have' if more > 1 else ' has'} been plugged into it since it was adopted",
        vm=facts.name,
        hint=f"{room.way_out}; or take them out yourself, as far as the guest can spare them "
        f"(virsh detach-device --live {shell_word(facts.name)})",
    )


def _element(live_xml: str, config: VmConfig, limits: Limits) -> str:
    """Our element with other limits, and the record that it has."""
    if is_claimed(parse_xml(live_xml)):
        return metadata_element(limits, config.growth, config.trust, live_xml)
    return adopted_element(live_xml, limits, config.growth, config.trust)


def _let_go(live_xml: str, config: VmConfig) -> str:
    if is_claimed(parse_xml(live_xml)):
        return let_go_element(live_xml, config.limits, config.growth, config.trust)
    element = adopted_element(live_xml, config.limits, config.growth, config.trust)
    return _marked(LET_GO, element)


def _marked(name: str, element: str) -> str:
    return element.replace("<vm ", f'<vm {name}="yes" ', 1)
