"""Where this machine gets Debian packages: read from its own apt configuration, never named here."""

import subprocess

ARCHIVE_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_FIELDS = "$(CREATED_BY)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
_INHERITED = ("Acquire::Check-", "Acquire::Retries", "Acquire::http", "Acquire::https", "Acquire::ForceIP")


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


def inherited_options() -> list[str]:
    """The machine's own settings for fetching (proxies, dates, retries), as apt configuration lines."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    return [line for line in dump.splitlines() if line.startswith(_INHERITED) and not line.endswith(' "";')]
