"""What is known of a domain's memory, from its XML."""

from dataclasses import dataclass

from host_controller.core.model import Dimm, Growth, VmConfig
from host_controller.domain_xml.before import STATISTICS_SECONDS
from host_controller.domain_xml.pinning import NO_BALLOON
from host_controller.domain_xml.standing import Mark


@dataclass(frozen=True, slots=True)
class DomainView:
    """A domain's memory, managed or not."""

    uuid: str
    name: str
    config: VmConfig | None
    """None when the domain is not ours."""
    problems: tuple[str, ...]
    machine: str
    boot_ram_bytes: int
    ram_blocks: tuple[int, ...]
    """Sizes of the mappings that QEMU makes for guest RAM: cells, DIMMs, virtio-mem."""
    dimms: tuple[Dimm, ...]
    actual_bytes: int
    ceiling_bytes: int
    """maxMemory; boot RAM where there is none."""
    virtio_mem_bytes: int
    """Plugged."""
    virtio_mem_requested_bytes: int
    channel_alias: str | None
    """Alias of our channel; None when the domain has none."""
    stats_period: int
    """How often its balloon is asked for statistics, seconds; 0: never."""
    huge_page_bytes: int | None = None
    """As VmConfig.huge_page_bytes; known of unmanaged domains too."""
    in_huge_pages_bytes: int = 0
    """The part of could_take_bytes that lies in huge pages, of whatever sizes."""
    virtio_mem_most_bytes: int = 0
    """Plugged or asked for, whichever is more of each device: the guest may plug all of that."""
    guest_agent: bool = False
    """A QEMU guest agent has its port open in the guest."""
    claimed: bool = False
    """It has metadata of ours, which may be unusable: no rule is for it."""
    unmapped: bool = False
    """Its RAM is mapped by no process: what its QEMU holds does not show it."""
    owner: int | None = None
    """User id as which libvirt runs its QEMU; None where the XML does not say it."""
    standing: Mark | None = None
    """A controller had stopped its vCPUs after a reset, here or where it came from."""
    held: bool = False
    """Its operator had paused its management, here or where it came from."""

    @property
    def wants_statistics(self) -> bool:
        """It is managed and has a balloon that is not asked for statistics as often as it is to be."""
        config = self.config
        return config is not None and config.pinned != NO_BALLOON and self.stats_period != STATISTICS_SECONDS

    @property
    def most_bytes(self) -> int:
        """The most RAM that it can come to have as it is: the room that maxMemory leaves may be for devices
        of its user's.
        """
        match None if self.config is None else self.config.growth:
            case Growth.BALLOON:
                return self.boot_ram_bytes
            case Growth.VIRTIO_MEM:
                assert self.config is not None
                return self.boot_ram_bytes + self.config.virtio_mem_bytes
            case _:
                return self.ceiling_bytes

    @property
    def ram_bytes(self) -> int:
        """All that the guest could touch."""
        return self.boot_ram_bytes + sum(one.size_bytes for one in self.dimms) + self.virtio_mem_bytes

    @property
    def could_take_bytes(self) -> int:
        """All that the guest could come to touch before anybody gives it more."""
        return self.ram_bytes - self.virtio_mem_bytes + self.virtio_mem_most_bytes

    @property
    def ordinary_bytes(self) -> int:
        """What of that it takes of ordinary memory; all of it of a managed VM that is not in one pool whole,
        as it is charged.
        """
        if self.huge_page_bytes is not None:
            return 0
        return self.could_take_bytes - (self.in_huge_pages_bytes if self.config is None else 0)

    @property
    def starts_with_bytes(self) -> int:
        """What a start needs: that, and startup where it boots with less and is given the rest."""
        config, most = self.config, self.could_take_bytes
        if config is None or config.growth is not Growth.VIRTIO_MEM:
            return most
        return max(most, min(config.limits.startup_bytes, most + config.virtio_mem_bytes))
