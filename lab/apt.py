"""Debian from packages, which come from where this machine's own apt gets them: never named here."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from lab.code_disk import REPOSITORY
from lab.errors import FetchError, LabError, error_of

ARCHIVE_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_FIELDS = "$(CREATED_BY)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
_INHERITED = ("Acquire::Check-", "Acquire::Retries", "Acquire::http", "Acquire::https", "Acquire::ForceIP")
_CANNOT_BE_HAD: Final = os.EX_TEMPFAIL
"""How lab/install-packages ends where nobody and nothing here would fetch them."""
_NOT_INSTALLED: Final = 1
"""How it ends where they were fetched and could not be installed."""
_FETCH_SECONDS: Final = "240"
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


def install(packages: Path) -> None:
    """On this machine, what a file lists and it lacks.

    Raises:
        FetchError: no archive was reached, or there is none, or nobody who may install.
        LabError: they came, and could not be installed. Both with the end of what was said.
    """
    command = [str(REPOSITORY / "lab/install-packages"), str(packages)]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "FETCH_SECONDS": _FETCH_SECONDS}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", env=environment, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return
    known = {_CANNOT_BE_HAD: FetchError, _NOT_INSTALLED: LabError}
    error = known.get(done.returncode) or error_of(done.stdout, LabError)
    raise error(f"{packages.name} could not be installed: {done.stdout.strip()[-2000:]}")


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
