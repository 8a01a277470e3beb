"""A guest kernel's memory as sums: who holds how much, what reclaim gives, who then still stalls.

Formulas are Linux's where there is one: watermarks (mm/page_alloc.c and mm/khugepaged.c), MemAvailable
(si_mem_available), memmap of 64 bytes a page; the figures are of Debian 12 guests. A recorded guest agrees
with this one within 5 % (tests/simulated/test_recorded_guest.py). Not modelled: zones, fragmentation, the
OOM killer (a denial that lasts is counted instead).
"""

import math
from dataclasses import dataclass
from typing import Final

from host_controller.units import GIB, MIB

KERNEL_BYTES: Final = 36 * MIB
"""Image, per-CPU areas and the like, of Debian 12's cloud kernel."""
BOUNCE_BYTES: Final = 64 * MIB
"""The kernel's bounce buffer (swiotlb), where RAM may lie above 4 GiB, as all that is hot-added does."""
LOW_BYTES: Final = 2816 * MIB
"""QEMU's q35 lays RAM above 4 GiB when there is as much as this: a third zone."""
MEMMAP_SHARE: Final = 64
HUGE_PAGES_FROM: Final = 512 * MIB
"""With less at boot the kernel turns transparent huge pages off (hugepage_init)."""
HUGE_PAGES_KEEP: Final = 22 * MIB
"""Kept free in each zone so that there are huge pages to be had (set_recommended_min_freepages)."""
SCALE: Final = 1000
"""Low and high watermarks are at least so small a part of memory apart (watermark_scale_factor)."""
LOW_RESERVE: Final = 256
"""The part of memory that the zones below withhold from it, in pages of theirs (lowmem_reserve_ratio)."""
UNRECLAIMABLE_CACHE: Final = 4 * MIB
"""Text of what runs right now: reclaim that takes it gets it back at once."""
SLAB_CACHE: Final = 9 * MIB
"""Dentries and inodes: the part of the cache of which MemAvailable leaves a half, too."""


def reserved_bytes(boot_bytes: int, *, grows: bool) -> int:
    """RAM that never shows in MemTotal. `grows`: more can be plugged later."""
    bounce = BOUNCE_BYTES if grows or boot_bytes >= LOW_BYTES else 0
    return min(boot_bytes // 2, KERNEL_BYTES + bounce + boot_bytes // MEMMAP_SHARE)


def min_free_bytes(boot_bytes: float, managed_boot_bytes: float, kernel_dimm_bytes: float = 0.0) -> float:
    """What the kernel keeps for emergencies: the sum of its min watermarks."""
    managed = managed_boot_bytes + kernel_dimm_bytes
    least = min(math.sqrt(16 * managed / 1024) * 1024, 256.0 * MIB)
    if managed_boot_bytes < HUGE_PAGES_FROM:
        return least
    zones = 3 if boot_bytes >= LOW_BYTES or kernel_dimm_bytes else 2
    return max(least, min(float(zones * HUGE_PAGES_KEEP), managed / 20))


@dataclass(frozen=True, slots=True)
class Speeds:
    """What a guest and its disk can do, bytes/s."""

    touch: float = 2.0 * GIB
    """Programs using new memory: 12 cores that build a compiler add up to 5.4 GiB in 10 s (peers)."""
    release: float = 8.0 * GIB
    reclaim: float = 2.0 * GIB
    """Clean cache dropped."""
    disk: float = 0.4 * GIB
    """Reading back cache and swap, and writing swap."""
    inflate: float = 0.95 * GIB
    """Balloon, touched memory, KVM (fact: tcg-speeds)."""
    deflate: float = 4.0 * GIB


@dataclass(slots=True)
class Memory:
    """State of one boot. Sizes are bytes as float, since rates times seconds make fractions."""

    boot: float
    reserved: float
    slab: float = 32.0 * MIB
    """The kernel's own and the bare system's: neither freed nor swapped."""
    memmap: float = 0.0
    """Of DIMMs; the boot memory's is part of `reserved`."""
    online: float = 0.0
    movable: float = 0.0
    ballooned: float = 0.0
    aside: float = 0.0
    """Of a block that is being taken out: in MemTotal, and free for nobody."""
    anon: float = 0.0
    cache: float = 24.0 * MIB
    """Page cache, and slab that can be dropped."""
    swapped: float = 0.0
    swap_size: float = 0.0
    swap_leaves: bool = False
    """It is being switched off: its size is what still lies in it."""
    ideal: float = 0.0
    """Anonymous memory that the programs would hold by now if nothing had ever been denied to them."""
    read_once: float = 0.0
    """How much of its working set was ever read: what is read beyond that is a refault."""
    resident: float = 0.0
    """What the host holds for it: in use now, or touched once and never given back."""
    unmet: float = 0.0
    """Bytes that programs want and do not have, now."""
    unmet_seconds: float = 0.0
    """∫ unmet dt, bytes times seconds."""
    refaulted: float = 0.0
    swapped_in: float = 0.0
    stall_us: float = 0.0
    stall_share: float = 0.0
    stall_avg10: float = 0.0
    restless: bool = False
    """Whether another second would change anything."""
    _marks: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The min, low and high one, of `_marked`."""
    _marked: tuple[float, float] = (-1.0, -1.0)

    @property
    def total(self) -> float:
        """MemTotal."""
        return self.boot - self.reserved + self.online - self.ballooned

    @property
    def free(self) -> float:
        """MemFree: MemTotal, less all that somebody holds. (Asked for more often than anything.)"""
        managed = self.boot - self.reserved + self.online - self.ballooned
        return managed - self.memmap - self.slab - self.anon - self.cache - self.aside

    @property
    def usable(self) -> float:
        """RAM less ballooned less offline, in the design's sense."""
        return self.boot + self.online - self.ballooned

    @property
    def min_mark(self) -> float:
        """Below it only the kernel's emergencies allocate: programs wait, and MemFree does not get to 0."""
        return self._watermarks()[0]

    @property
    def low_mark(self) -> float:
        """Below it kswapd wakes up."""
        return self._watermarks()[1]

    @property
    def high_mark(self) -> float:
        """What kswapd reclaims up to: the kernel's floor."""
        return self._watermarks()[2]

    def _watermarks(self) -> tuple[float, float, float]:
        """They change with hot add only: the balloon takes pages and leaves watermarks."""
        if self._marked != (self.online, self.movable):
            managed = self.boot - self.reserved
            least = min_free_bytes(self.boot, managed, self.online - self.movable)
            gap = max(least / 4, (managed + self.online) / SCALE)
            self._marks = least, least + gap, least + 2 * gap
            self._marked = self.online, self.movable
        return self._marks

    @property
    def droppable(self) -> float:
        """Cache that reclaim can take."""
        return max(0.0, self.cache - UNRECLAIMABLE_CACHE)

    @property
    def available(self) -> float:
        """MemAvailable."""
        _, low, high = self._watermarks()
        withheld = high + (self.boot - self.reserved + self.online - self.movable) / LOW_RESERVE
        kept = min(self.cache / 2, low + min(SLAB_CACHE / 2, low))
        return max(0.0, self.free - withheld + self.cache - kept)

    def describe_more(self, size: float) -> bool:
        """Place the page structures of memory that was plugged. False if there is no room for them."""
        price = size / MEMMAP_SHARE
        swappable = min(self.anon, self.swap_size - self.swapped)
        if price > self.free + self.cache + swappable:
            return False
        # In need the kernel drops even the text of what runs, which comes back once the memory is online,
        # and swaps (fact: structures-by-reclaim).
        missing = max(0.0, price - max(0.0, self.free - self.min_mark))
        dropped = min(self.cache, missing)
        swapped = min(swappable, missing - dropped)
        self.cache -= dropped
        self.anon -= swapped
        self.swapped += swapped
        self.memmap += price
        return True

    def take_out(self, size: float, movable: bool) -> bool:
        """Take a DIMM offline: what it holds has to find room elsewhere. False if it does not."""
        if not self._make_room(size):
            return False
        self.online -= size
        if movable:
            self.movable -= size
        return True

    def set_aside(self, size: float) -> None:
        """A block begins to leave, if what it holds finds room elsewhere."""
        if self._make_room(size):
            self.aside = size

    def _make_room(self, size: float) -> bool:
        if size > self.free + self.droppable - self.min_mark:
            return False
        self.cache -= max(0.0, min(self.droppable, size - (self.free - self.min_mark)))
        return True

    def step(
        self,
        seconds: float,
        wanted: float,
        working_set: float,
        speeds: Speeds,
        *,
        cold_share: float,
        cache_period: float,
        stream: float,
    ) -> None:
        """Let time pass: programs take and release, caches fill, reclaim works, somebody waits."""
        self.restless = False
        stalled = self._programs(seconds, wanted, speeds)
        stalled += self._swap_back(seconds, speeds, cold_share)
        stalled += self._files(seconds, working_set, speeds, cache_period, stream)
        missing = max(0.0, working_set - self.cache) if self.read_once else 0.0
        hot_out = max(0.0, self._missed(cold_share))
        self.unmet = max(0.0, self.ideal - self.anon - self.swapped) + hot_out + missing
        self.unmet_seconds += self.unmet * seconds
        self._account_stall(seconds, min(1.0, stalled / seconds if seconds else 0.0))

    def account_resident(self, seconds: float, reporting: bool) -> None:
        """What the host holds: it grows with use; free page reporting lowers it 2 s later
        (fact: free-page-reporting).
        """
        in_use = self.usable - self.free
        kept = min(self.resident, self.usable)
        if reporting and kept > in_use:
            left = 0.05 * max(0.0, self.usable - in_use)  # blocks that are too broken up to be reported
            floor = in_use + left
            if kept > floor:
                kept = max(floor, kept - (kept - floor) * min(1.0, seconds / 2.0))
                self.restless = self.restless or kept - floor > MIB
        self.resident = max(in_use, kept)

    def inflate(self, amount: float, seconds: float, speeds: Speeds) -> float:
        """The balloon takes up to `amount`; what it got. It reclaims and swaps like any other taker."""
        got = self._obtain(amount, seconds, speeds, keep=self.low_mark)
        self.ballooned += got
        return got

    def deflate(self, amount: float) -> None:
        """The balloon gives back."""
        self.ballooned -= min(amount, self.ballooned)

    def _programs(self, seconds: float, wanted: float, speeds: Speeds) -> float:
        if self.ideal != wanted:
            if wanted > self.ideal:
                self.ideal = min(wanted, self.ideal + speeds.touch * seconds)
            else:
                self.ideal = max(wanted, self.ideal - speeds.release * seconds)
            self.restless = True
        held = self.anon + self.swapped
        if held > self.ideal:
            excess = held - self.ideal
            from_swap = excess * self.swapped / held
            self.swapped -= from_swap
            self.anon -= excess - from_swap
            return 0.0
        short = self.ideal - held
        if short < 1.0:
            return 0.0
        got = self._obtain(short, seconds, speeds, keep=self.min_mark)
        self.anon += got
        self.restless = True
        return seconds if got < 0.5 * short else 0.0

    def switch_swap_off(self) -> None:
        """All that lies in swap is read back as there is room for it, and nothing more goes there."""
        self.swap_leaves, self.swap_size, self.restless = True, self.swapped, True

    def _missed(self, cold_share: float) -> float:
        """What lies in swap and is wanted in memory."""
        return self.swapped - (0.0 if self.swap_leaves else cold_share * (self.anon + self.swapped))

    def _swap_back(self, seconds: float, speeds: Speeds, cold_share: float) -> float:
        hot_out = self._missed(cold_share)
        if hot_out < 1.0:
            return 0.0
        back = min(hot_out, speeds.disk * seconds)
        got = self._obtain(back, seconds, speeds, keep=self.min_mark)
        got = min(got, self.swapped)
        self.anon += got
        self.swapped -= got
        self.swapped_in += got
        if self.swap_leaves:
            self.swap_size = self.swapped
        self.restless = True
        return got / speeds.disk + (seconds * 0.1 if got < back else 0.0)

    def _files(
        self, seconds: float, working_set: float, speeds: Speeds, cache_period: float, stream: float
    ) -> float:
        self._kswapd(seconds, speeds)
        room = max(0.0, self.free - self.high_mark)
        stalled = 0.0
        missing = working_set - self.cache
        if missing >= MIB:
            read = min(speeds.disk * seconds, missing * seconds / cache_period)
            fresh = min(read, max(0.0, working_set - self.read_once))
            again = read - fresh
            self.read_once += fresh
            self.refaulted += again
            grown = min(read, room)
            self.cache += grown
            room -= grown
            stalled = again / speeds.disk
            self.restless = True
        self.read_once = min(working_set, max(self.read_once, self.cache))
        if stream and room >= MIB:
            self.cache += min(stream * seconds, room)
            self.restless = True
        return stalled

    def _kswapd(self, seconds: float, speeds: Speeds) -> None:
        """Back to the high watermark from below the low one."""
        if self.free < self.low_mark:
            self._reclaim(self.high_mark - self.free, seconds, speeds)

    def _obtain(self, amount: float, seconds: float, speeds: Speeds, keep: float) -> float:
        """Up to `amount` of free memory, `keep` left free, reclaiming as far as time allows."""
        spare = self.free - keep
        if spare < amount:
            spare += self._reclaim(amount - spare, seconds, speeds)
        return max(0.0, min(amount, spare))

    def _reclaim(self, amount: float, seconds: float, speeds: Speeds) -> float:
        if amount <= 0.0:
            return 0.0
        dropped = min(amount, self.droppable, speeds.reclaim * seconds)
        self.cache -= dropped
        swap_room = self.swap_size - self.swapped
        if dropped < amount and swap_room > 0.0:
            out = min(amount - dropped, self.anon, swap_room, speeds.disk * seconds)
            self.anon -= out
            self.swapped += out
            dropped += out
        return dropped

    def _account_stall(self, seconds: float, share: float) -> None:
        self.stall_share = share
        self.stall_us += share * seconds * 1e6
        decay = math.exp(-seconds / 10.0)
        self.stall_avg10 = self.stall_avg10 * decay + 100.0 * share * (1.0 - decay)
        if self.stall_avg10 < 0.05:
            self.stall_avg10 = 0.0
