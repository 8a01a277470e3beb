"""The agent as one file, `dynmem-agent.pyz`: its sources in a zip that any Python from 3.9 on runs.

    python -m host_controller.delivery.agent_file FILE

It is made from the `agent` package that lies beside this one, so a push needs neither a network nor a file
that might be missing. Equal sources give equal bytes on every machine: names are sorted, times are left out,
and nothing is compressed, since versions of zlib differ in what they write. Without compression a guest does
not load zlib either.
"""

import hashlib
import io
import sys
import zipfile
from pathlib import Path
from typing import Final

import agent

NAME: Final = "dynmem-agent.pyz"
SHEBANG: Final = b"#!/usr/bin/python3 -I\n"
"""-I: neither the environment nor the working directory decides what is imported."""
MAIN: Final = b"import sys\n\nfrom agent.cli import main\n\nsys.exit(main())\n"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The oldest date that a zip can hold."""
_MODE: Final = 0o100644 << 16
_UNIX: Final = 3


def agent_file(sources: Path | None = None) -> bytes:
    """The file's bytes. sources: the directory of the `agent` package; by default the one imported here."""
    if sources is None:
        sources = Path(agent.__file__).parent
    members = {
        f"agent/{path.name}": path.read_bytes()
        for pattern in ("*.py", "*.service", "*.rules")
        for path in sources.glob(pattern)
    }
    members["__main__.py"] = MAIN
    archive = io.BytesIO()
    archive.write(SHEBANG)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as file:
        for name, content in sorted(members.items()):
            about = zipfile.ZipInfo(name, _EPOCH)
            about.create_system, about.external_attr = _UNIX, _MODE
            file.writestr(about, content)
    return archive.getvalue()


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal, as `sha256sum` in a guest says it."""
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(agent_file())
    target.chmod(0o755)
