"""promtool from the machine, or out of Debian's prometheus package: installed, that would start a server."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lab.cache import cache_directory


def promtool(directory: Path) -> Path:
    """The program; skips the test where there is none and no apt-get to get it with."""
    found = shutil.which("promtool")
    if found is not None:
        return Path(found)
    cached = cache_directory() / "promtool"
    if cached.exists():
        return cached
    if shutil.which("apt-get") is None:
        pytest.skip("needs promtool")
    fetched = subprocess.run(
        ["apt-get", "download", "-q", "prometheus"], cwd=directory, capture_output=True, text=True
    )
    packages = list(directory.glob("prometheus_*.deb"))
    if not packages:
        pytest.skip(f"needs promtool; apt-get could not fetch it: {fetched.stderr.strip()[-200:]}")
    subprocess.run(["dpkg-deb", "--extract", packages[0], directory / "tree"], check=True)
    cached.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(directory / "tree" / "usr" / "bin" / "promtool", cached)
    return cached
