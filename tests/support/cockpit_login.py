"""Cockpit's own login by PAM, on loopback: Cockpit as it runs on hosts, in namespaces that end with it."""

import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Final

from tests.support.cockpit import SERVER, install_page, until_heard
from tests.support.ports import free_port

USER: Final = "games"
"""An account that every Debian and Ubuntu has, so that the controller knows its name. Nobody can log in as it
but here, where /etc is a copy.
"""
PASSWORD: Final = "right horse"
_IN_NAMESPACES: Final = f"""
set -e
mount --make-rprivate /
cp -a /etc "$1/etc"
mount --bind "$1/etc" /etc
for traces in /var/log /var/lib/sudo /run/sudo; do
    test ! -d $traces || mount -t tmpfs none $traces
done
usermod --home "$1/home" --shell /bin/bash --append --groups sudo {USER}
echo '{USER}:{PASSWORD}' | chpasswd
chown -R {USER} "$1/home"
exec {SERVER} --no-tls --address 127.0.0.1 --port "$2"
"""


@contextmanager
def cockpit_with_login(directory: Path, control: Path) -> Iterator[str]:
    """Cockpit's server, and our page in its user's home. Yields its address; root only.

    Every process of it ends with it, and what a login writes down (accounts, logs, what sudo remembers) is
    written to copies.
    """
    install_page(directory / "home/.local/share", directory, control)
    for file in (directory / "commands", directory / "commands.answers"):
        file.touch(0o666)
    port = free_port()
    namespaces = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    process = Popen(
        ["unshare", *namespaces, "sh", "-c", _IN_NAMESPACES, "sh", str(directory), str(port)],
        env={name: value for name, value in os.environ.items() if not name.startswith("XDG_")},
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        until_heard(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()  # the first process of its namespace takes all others with it
        process.wait(60)
        shutil.rmtree(directory / "etc", ignore_errors=True)


def left_behind() -> list[str]:
    """What a login could leave on this machine: its processes, its account, and the records of logins."""
    uid = pwd.getpwnam(USER).pw_uid
    found = [one.name for one in Path("/proc").iterdir() if one.name.isdecimal() and _owner(one) == uid]
    for file in ("/etc/passwd", "/etc/shadow", "/etc/group"):
        found += [line for line in Path(file).read_text().splitlines() if USER in line]
    records = (Path("/var/log", name) for name in ("btmp", "wtmp", "lastlog"))
    return found + [f"{file} {file.stat().st_mtime_ns}" for file in records if file.exists()]


def _owner(process: Path) -> int | None:
    try:
        return process.stat().st_uid
    except OSError:  # it went
        return None
