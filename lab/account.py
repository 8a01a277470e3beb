"""The ordinary account that the guests and their libvirt run under."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    """An account of this machine; `prefix` is what to put before a command to run it as that account."""

    name: str
    uid: int
    gid: int
    prefix: tuple[str, ...]

    def own(self, path: Path) -> None:
        """Give a file or directory to this account (does nothing when it is the caller himself)."""
        if self.prefix:
            os.chown(path, self.uid, self.gid)


def ordinary_account() -> Account:
    """The caller himself; for root, the account that called sudo, else `nobody`.

    libvirt gives root no session daemon of its own, and guests need no root.
    """
    if os.geteuid() != 0:
        entry = pwd.getpwuid(os.geteuid())
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, ())
    sudo_uid = int(os.environ.get("SUDO_UID", "0"))
    entry = pwd.getpwuid(sudo_uid) if sudo_uid else pwd.getpwnam("nobody")
    groups = ["--init-groups"] if sudo_uid else _kvm_group()
    prefix = ("setpriv", "--reuid", str(entry.pw_uid), "--regid", str(entry.pw_gid), *groups, "--")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, prefix)


def _kvm_group() -> list[str]:
    """The group that may open /dev/kvm, so that dropping root does not lose KVM; never root's own group."""
    try:
        gid = os.stat("/dev/kvm").st_gid
    except FileNotFoundError:
        gid = 0
    return ["--groups", str(gid)] if gid else ["--clear-groups"]
