"""What of a VM's configuration history keeps beside its figures: enough to play it again elsewhere."""

from typing import Annotated

import msgspec

from host_controller.core.model import LARGEST_MAXIMUM_BYTES, Growth, Limits, VmConfig

Bytes = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_MAXIMUM_BYTES)]


class StoredLimits(msgspec.Struct, frozen=True):
    """A VM's settings, sizes in bytes."""

    startup_bytes: Bytes
    minimum_bytes: Bytes
    maximum_bytes: Bytes
    buffer_percent: int = 20
    weight: int = 100
    growth: Growth = Growth.HOTADD
    boot_ram_bytes: Bytes = 0

    @classmethod
    def of(cls, config: VmConfig) -> "StoredLimits":
        """Those of a VM that runs."""
        limits = config.limits
        return cls(
            limits.startup_bytes,
            limits.minimum_bytes,
            limits.maximum_bytes,
            limits.buffer_percent,
            limits.weight,
            config.growth,
            config.boot_ram_bytes,
        )

    def limits(self) -> Limits:
        """As the engine takes them."""
        return Limits(
            self.startup_bytes, self.minimum_bytes, self.maximum_bytes, self.buffer_percent, self.weight
        )


def read_limits(text: str | bytes | None) -> StoredLimits | None:
    """From JSON; None where there are none, or none that make sense."""
    try:
        return limits_of(msgspec.json.decode(text) if text else None)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def limits_of(told: object) -> StoredLimits | None:
    """From what JSON says; None where there are none, or none that make sense."""
    try:
        found = msgspec.convert(told, StoredLimits)
    except (msgspec.ValidationError, ValueError):  # the latter for text that is no UTF-8
        return None
    return None if found.limits().problems() else found
