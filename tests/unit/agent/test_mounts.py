"""File systems in memory that kept the limit of a smaller guest."""

import pytest

from agent.mounts import left_behind

MIB = 1 << 20
TOTAL = 4096 * MIB


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ("rw,nosuid", None),  # half of what MemTotal is now
        ("rw,size=2097152k", None),
        ("rw,size=2097151k", 2097151 << 10),
        ("rw,size=200m,mode=1777", 200 * MIB),
        ("rw,size=1g", 1024 * MIB),
        ("rw,size=1048576", MIB),
        ("rw,nr_blocks=5,size=,mode=755", None),
        ("rw,size=50%", None),
        ("rw,size=²k", None),
        (f"rw,size={'9' * 400}k", None),
    ],
)
def test_what_holds_less_than_half_of_memtotal_is_found(options: str, size: int | None) -> None:
    found = left_behind(f"tmpfs /dev/shm tmpfs {options} 0 0\n", TOTAL)
    assert found == ([] if size is None else [("/dev/shm", size)])


def test_small_ones_of_the_systems_own_and_those_on_disk_are_none() -> None:
    mounts = (
        "tmpfs /run tmpfs rw,size=1000k 0 0\n/dev/vda1 /tmp ext4 rw 0 0\ncut\n"
        "tmpfs /var/tmp tmpfs rw,size=1m 0 0\n/dev/vdb /var/tmp xfs rw 0 0\n"
    )
    assert left_behind(mounts, TOTAL) == []
