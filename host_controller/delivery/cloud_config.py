"""The agent for VMs that cloud-init sets up: user data, whole as they are."""

import base64
import lzma
from typing import Final

from agent.installation import DROP

_PACKED: Final = f"{DROP}.xz.b85"
_UNPACK: Final = (
    f"import base64, lzma, pathlib; packed = pathlib.Path('{_PACKED}'); "
    f"pathlib.Path('{DROP}').write_bytes(lzma.decompress(base64.b85decode(packed.read_bytes()))); "
    "packed.unlink()"
)


def cloud_config(content: bytes) -> str:
    """User data that bring the agent's file in and have it install itself at the first boot.

    Some 60 KiB: less than the 64 KiB that OpenStack and Azure take, which gzip and base64 would miss, and
    cloud-init itself unpacks no others. It is more than EC2's 16 KiB, and no matter to a NoCloud seed or a
    config drive.
    """
    # No letter of base85 means anything between YAML's single quotes.
    packed = base64.b85encode(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)).decode()
    return f"""#cloud-config
# dynmem-agent as one file, for the guest's own Python; no package and no network is needed.
write_files:
  - path: {_PACKED}
    content: '{packed}'
runcmd:
  - [python3, -I, -c, "{_UNPACK}"]
  - [python3, -I, {DROP}, install]
"""
