"""A program in a lab guest waits for memory while there is none left; a greedy one does not."""

from types import SimpleNamespace

import pytest

from host_controller.verify.inside import workloads

MIB = 1 << 20
LEFT_MIB = workloads.LEFT_TO_OTHERS // MIB


class Guest:
    """Each piece that is touched takes a MiB of it, and each wait brings `comes_mib`."""

    def __init__(self, available_mib: int, swap_mib: int = 0, comes_mib: int = 0) -> None:
        self.free_mib, self._swap_mib, self._comes_mib = available_mib, swap_mib, comes_mib
        self.least_mib, self.waits, self.now = available_mib + swap_mib, 0, 0.0

    def read(self, path: str) -> str:
        assert path == "/proc/meminfo"
        swapped = max(0, -self.free_mib)
        swap_free = max(0, self._swap_mib - swapped)
        lines = (f"MemAvailable: {max(0, self.free_mib) << 10} kB", f"SwapFree: {swap_free << 10} kB")
        return "\n".join(("HugePages_Free: 0", *lines))

    def map(self, *_: object, **__: object) -> bytearray:
        self.free_mib -= 1
        self.least_mib = min(self.least_mib, self.free_mib + self._swap_mib)
        return bytearray(MIB)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits += 1
        self.free_mib += self._comes_mib


class Done(Exception):  # noqa: N818  no error: the program has touched it all
    pass


def touched(guest: Guest, mib: int, monkeypatch: pytest.MonkeyPatch, **how: bool) -> None:
    def say(event: str, **_: int) -> None:
        if event == "done":
            raise Done

    monkeypatch.setattr(workloads, "read", guest.read)
    monkeypatch.setattr(workloads, "time", SimpleNamespace(monotonic=lambda: guest.now, sleep=guest.sleep))
    monkeypatch.setattr(workloads, "signal", SimpleNamespace(SIGUSR1=10, signal=lambda *_: None))
    monkeypatch.setattr(workloads.mmap, "mmap", guest.map)
    with pytest.raises(Done):
        workloads.touch(say, mib, rate=0, **how)


def test_a_program_waits_until_memory_comes_and_never_takes_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(available_mib=20, comes_mib=2)
    touched(guest, 60, monkeypatch)
    assert guest.waits
    assert guest.least_mib >= LEFT_MIB - 1


@pytest.mark.parametrize("swaps", [True, False])
def test_free_swap_is_memory_that_is_left_to_one_that_swaps(
    monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    guest = Guest(available_mib=20, swap_mib=60, comes_mib=2)
    touched(guest, 60, monkeypatch, swaps=swaps)
    assert bool(guest.waits) == (not swaps)


def test_a_greedy_program_takes_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(available_mib=20)
    touched(guest, 60, monkeypatch, greedy=True)
    assert not guest.waits
    assert guest.least_mib < 0


def test_a_program_that_finds_enough_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(available_mib=60 + LEFT_MIB)
    touched(guest, 60, monkeypatch)
    assert not guest.waits
