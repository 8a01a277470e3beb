"""The agent for VMs that cloud-init sets up: user data, whole as they are."""

import base64
import lzma
from typing import Final

from agent.installation import DROP

_PACKED: Final = f"{DROP}.xz"
_UNPACK: Final = (
    f"import lzma, pathlib; packed = pathlib.Path('{_PACKED}'); "
    f"pathlib.Path('{DROP}').write_bytes(lzma.decompress(packed.read_bytes())); packed.unlink()"
)


def cloud_config(content: bytes) -> str:
    """User data that bring the agent's file in and have it install itself at the first boot.

    Some 60 KiB: less than the 64 KiB that OpenStack and Azure take, which gzip would miss. It is more than
    EC2's 16 KiB, and no matter to a NoCloud seed or a config drive. cloud-init itself unpacks gzip alone.
    """
    packed = base64.b64encode(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)).decode()
    return f"""#cloud-config
# dynmem-agent as one file, for the guest's own Python; no package and no network is needed.
write_files:
  - path: {_PACKED}
    encoding: b64
    content: {packed}
runcmd:
  - [python3, -I, -c, "{_UNPACK}"]
  - [python3, -I, {DROP}, install]
"""
