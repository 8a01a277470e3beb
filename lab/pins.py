"""`make pins`: requirements.txt, every version with the hashes of its files. Runs where pip-tools is."""

import subprocess
import sys
from pathlib import Path
from typing import Final

FILE: Final = Path("requirements.txt")
HEAD: Final = """\
# What this tree is developed, tested and packed with: each version, with the hashes of its files.
# Written by `make pins`, read by `make setup` and by the packages for what they carry.
"""
OPTIONS: Final = (
    *("--quiet", "--generate-hashes", "--strip-extras", "--all-extras", "--all-build-deps", "--allow-unsafe"),
    *(
        "--no-header",
        "--no-annotate",
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--no-emit-trusted-host",
    ),
)


def main() -> int:
    """Compile them from pyproject.toml, and put our own words at the top."""
    command = [sys.executable, "-m", "piptools", "compile", *OPTIONS, *sys.argv[1:]]
    done = subprocess.run([*command, f"--output-file={FILE}", "pyproject.toml"], check=False)
    if done.returncode == 0:
        lines = FILE.read_text(encoding="utf-8").splitlines()
        pins = [line for line in lines if line and not line.startswith("#")]
        FILE.write_text(HEAD + "\n".join(pins) + "\n", encoding="utf-8")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
