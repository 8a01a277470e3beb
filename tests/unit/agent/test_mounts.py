"""File systems in memory that kept the limit of a smaller guest, and what goes with the next boot."""

import pytest

from agent.mounts import left_behind, lies_in_memory

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


ROOTS = {
    "disk": ("/dev/vda1 / ext4 rw 0 0", False),
    "alpine diskless": ("rootfs / rootfs rw 0 0\ntmpfs / tmpfs rw,mode=755 0 0", True),
    "local disk beside": ("tmpfs / tmpfs rw 0 0\n/dev/vda2 /usr/local ext4 rw 0 0", False),
    "ostree": ("/dev/vda4 / xfs rw 0 0\n/dev/vda4 /usr xfs ro 0 0\n/dev/vda4 /var xfs rw 0 0", False),
    "overlayroot": (
        "/dev/vda1 /media/root-ro ext4 ro 0 0\ntmpfs-root /media/root-rw tmpfs rw 0 0\n"
        "overlayroot / overlay rw,lowerdir=/media/root-ro,upperdir=/media/root-rw/overlay,workdir=/w 0 0",
        True,
    ),
    "kept overlay": (
        "/dev/vdb1 /media/rw ext4 rw 0 0\noverlay / overlay rw,lowerdir=/x,upperdir=/media/rw/upper 0 0",
        False,
    ),
    "systemd.volatile": (
        "overlay / overlay rw,lowerdir=/sysroot,upperdir=/run/systemd/overlay-sysroot/upper 0 0\n"
        "tmpfs /run tmpfs rw,size=1g 0 0",
        True,
    ),
    "container": ("overlay / overlay rw,lowerdir=/l,upperdir=/var/lib/docker/overlay2/x/diff 0 0", False),
    "nothing": ("cut\n", False),
}


@pytest.mark.parametrize("name", ROOTS)
def test_what_goes_with_the_next_boot_is_known(name: str) -> None:
    mounts, goes = ROOTS[name]
    assert lies_in_memory(f"{mounts}\n", "/usr/local/lib/dynmem-agent/dynmem-agent.pyz") is goes
