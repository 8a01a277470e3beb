"""Debian from packages, which come from where this machine's own apt gets them: never named here."""

import os
import subprocess
from collections.abc import Iterable

ARCHIVE_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_FIELDS = "$(CREATED_BY)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
_INHERITED = ("Acquire::Check-", "Acquire::Retries", "Acquire::http", "Acquire::https", "Acquire::ForceIP")
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


def mmdebstrap(codename: str, target: str, packages: Iterable[str], *options: str) -> list[str]:
    """The command that makes a small Debian of these packages in `target`, a directory or a tar."""
    return [
        *("mmdebstrap", "--variant=minbase", "--include=" + ",".join(packages)),
        *(f"--aptopt={line}" for line in ('Acquire::Languages "none"', *inherited_options())),
        *(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT),
        "--dpkgopt=force-unsafe-io",  # what is only half written is not kept
        *options,
        *(codename, target, *debian_sources(codename)),
    ]


def contained() -> list[str]:
    """What goes before `mmdebstrap`: it and its mounts end with whoever asked for it, however that ends.

    Without root mmdebstrap makes namespaces of its own.
    """
    if os.geteuid() != 0:
        return []
    return [
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--pid", "--mount-proc", "--kill-child=KILL"),
    ]


def debian_sources(codename: str) -> list[str]:
    """The machine's own apt sources for a Debian release, as one-line entries for mmdebstrap.

    Empty on a machine that has none (Ubuntu, another Debian release): mmdebstrap then takes its default.
    """
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", _FIELDS], capture_output=True, text=True, check=False
    ).stdout
    suites = (codename, f"{codename}-updates", f"{codename}-security")
    found: dict[str, str] = {}
    for line in listing.splitlines():
        created_by, _, rest = line.partition("|")
        uri, _, rest = rest.partition("|")
        suite, _, component = rest.partition("|")
        is_debian = uri.rstrip("/").endswith(("/debian", "/debian-security"))
        if created_by == "Packages" and component == "main" and suite in suites and is_debian:
            found.setdefault(suite, f"deb [signed-by={ARCHIVE_KEYRING}] {uri} {suite} main")
    return list(found.values()) if codename in found else []


def backports(codename: str) -> list[str]:
    """The archive of a release's backports, beside that of the release. Empty as `debian_sources` is."""
    suite = f"{codename}-backports"
    return [line.replace(f" {codename} ", f" {suite} ") for line in debian_sources(codename)[:1]]


def inherited_options() -> list[str]:
    """The machine's own settings for fetching (proxies, dates, retries), as apt configuration lines."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    return [line for line in dump.splitlines() if line.startswith(_INHERITED) and not line.endswith(' "";')]
