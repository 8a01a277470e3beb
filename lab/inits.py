"""OpenRC and runit over this machine's own root, in namespaces: a guest's services are started for real."""

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lab.cache import build_once, cache_directory, key_of
from lab.errors import FetchError, LabError
from lab.namespaces import SEPARATE

PACKAGES: Final = ("insserv", "libeinfo1", "librc1", "openrc", "runit")
"""They are unpacked, not installed: what they would do to this machine's own init does not happen."""
_FETCH: Final = """
cd "$1"
shift
apt-get -qq download "$@" || { apt-get -qq update && apt-get -qq download "$@"; }
"""
_UNPACK: Final = """
cd "$1"
mkdir -p root/usr/bin root/usr/sbin root/usr/lib
for one in bin sbin lib; do ln -s usr/$one root/$one; done
for one in *.deb; do dpkg-deb --fsys-tarfile "$one" | tar -C root -x --keep-directory-symlink; done
rm root/bin root/sbin root/lib *.deb
"""
_ENTER: Final = """
place=$1 root=$2
mount -t tmpfs tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/merged"
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" "$place/merged"
cd "$place/merged"
mount -t proc proc proc
# The agent is not to set anything of this machine's kernel.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount --rbind /dev dev
mount -t tmpfs run run
rm -rf etc/init.d etc/rc?.d
cp -a "$root/." .
shift 2
while [ "$#" -gt 0 ]; do
    mkdir -p "$(dirname ".$2")"
    cp -r "$1" ".$2"
    shift 2
done
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root chroot . /bin/sh /script
"""


def unpacked() -> Path:
    """Both of them. Cached. Raises FetchError where they could not be had, else LabError."""

    def step(script: str, *words: str, failed: str, error: type[LabError]) -> None:
        command = ["sh", "-ec", script, "sh", *words]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise error(f"{', '.join(PACKAGES)} could not be {failed}: {done.stderr.strip()[-2000:]}")

    def build(place: Path) -> None:
        step(_FETCH, str(place), *PACKAGES, failed="had", error=FetchError)
        step(_UNPACK, str(place), failed="unpacked", error=LabError)

    return build_once("inits", key_of(_FETCH, _UNPACK, *PACKAGES), build) / "root"


def run(script: str, files: Mapping[str, Path], limit: float = 60.0) -> "subprocess.CompletedProcess[str]":
    """A shell script in that root, as root. Nothing of it is left, and this machine's kernel stays as it is.

    files: what is copied there first, files and folders, by their new paths. limit: in seconds; raises
    subprocess.TimeoutExpired.
    """
    root = unpacked()
    with tempfile.TemporaryDirectory(prefix="inits-", dir=cache_directory()) as place:
        (file := Path(place) / "script").write_text(script)
        command: list[str | Path] = ["unshare", *SEPARATE, "--net", "sh", "-ec", _ENTER, "sh"]
        (empty := Path(place) / "merged").mkdir()
        command += [empty, root, file, "/script"]
        for target, source in files.items():
            command += [source, target]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", timeout=limit, check=False,
        )  # fmt: skip
