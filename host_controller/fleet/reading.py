"""A host's words about itself, validated: what is absurd, stale or of another kind is no figure. No I/O."""

from typing import Annotated, Final

import msgspec

from host_controller.fleet.core.model import HostFigures, VmFigures
from host_controller.fleet.errors import HostSilent
from host_controller.neutral import neutral
from host_controller.units import TIB

LARGEST_ANSWER: Final = 4 << 20
"""A host of 1,000 VMs says 300 KiB."""
CLOCK_SECONDS: Final = 60.0
"""Hosts whose clocks are further apart are not believed: nobody could say how old their figures are."""

MOST_NEEDED: Final = 512 * TIB
"""By all VMs of a host. With an eighth more and what it admits, the engine can still be told."""

Size = Annotated[int, msgspec.Meta(ge=0, le=1024 * TIB)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class _Vm(msgspec.Struct, frozen=True, gc=False):
    """With the names of VmFigures."""

    uuid: Name
    name: Name
    need_bytes: Size | None
    minimum_bytes: Size
    charge_bytes: Size
    beside_bytes: Size
    arrival_bytes: Size
    settled: bool
    stands_still: bool = False
    """Versions before it do not say. So with what follows."""
    huge_bytes: Size = 0
    huge_page_bytes: Size | None = None


class _Unmanaged(msgspec.Struct, frozen=True, gc=False):
    uuid: Name
    name: Name
    size_bytes: Size


class _Host(msgspec.Struct, frozen=True):
    at: float
    capacity_bytes: Size
    reserved_bytes: Size
    admits_bytes: Size
    overdraft: bool
    emergency: Annotated[str, msgspec.Meta(max_length=2000)] | None
    vms: Annotated[list[_Vm], msgspec.Meta(max_length=8192)]
    unmanaged: Annotated[list[_Unmanaged], msgspec.Meta(max_length=8192)] = msgspec.field(
        default_factory=list
    )
    """Versions before it do not tell of them."""
    connected: bool = True
    """Versions before it do not say."""


_DECODER: Final = msgspec.json.Decoder(_Host)


def read_figures(host: str, untrusted: bytes, wall: float) -> HostFigures:
    """What `GET /v1/figures` of a host says; `wall`: seconds since 1970, here.

    Raises:
        HostSilent: it cannot be, with the reason. Fields that are not known are left out.
    """
    if len(untrusted) > LARGEST_ANSWER:
        raise HostSilent(f"{host}: its answer is larger than {LARGEST_ANSWER} bytes")
    try:
        found = _DECODER.decode(untrusted)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HostSilent(f"{host}: its figures cannot be: {neutral(error, 200)}") from None
    apart = found.at - wall
    if not abs(apart) <= CLOCK_SECONDS:
        raise HostSilent(f"{host}: its clock is {apart:.0f} s from ours", hint="let both keep the same time")
    names = [*(vm.name for vm in found.vms), *(vm.name for vm in found.unmanaged)]
    if len(set(names)) != len(names):
        raise HostSilent(f"{host}: it tells of two VMs of one name")
    if found.admits_bytes > found.capacity_bytes:
        raise HostSilent(f"{host}: it would admit more than its capacity")
    vms = tuple(VmFigures(**msgspec.structs.asdict(vm)) for vm in found.vms)
    unmanaged = tuple(map(_of_fixed_size, found.unmanaged))
    if sum(one.floor_bytes for one in (*vms, *unmanaged)) > MOST_NEEDED:
        raise HostSilent(f"{host}: its VMs need more than any host has")
    return HostFigures(
        found.capacity_bytes,
        found.reserved_bytes,
        found.admits_bytes,
        vms,
        found.overdraft,
        None if found.emergency is None else neutral(found.emergency, 200),
        unmanaged=unmanaged,
        connected=found.connected,
    )


def _of_fixed_size(vm: _Unmanaged) -> VmFigures:
    return VmFigures(
        vm.uuid,
        vm.name,
        need_bytes=None,
        minimum_bytes=0,
        charge_bytes=vm.size_bytes,
        beside_bytes=0,
        arrival_bytes=vm.size_bytes,
        settled=False,
        managed=False,
    )
