"""The agent for VMs that cloud-init sets up: user data, whole as they are."""

import base64
import bz2
from typing import Final

from agent.installation import DROP

_PACKED: Final = f"{DROP}.bz2.b85"
_UNPACK: Final = (
    f"import base64, bz2, pathlib; packed = pathlib.Path('{_PACKED}'); "
    f"pathlib.Path('{DROP}').write_bytes(bz2.decompress(base64.b85decode(packed.read_bytes()))); "
    "packed.unlink()"
)


def cloud_config(content: bytes) -> str:
    """User data that bring the agent's file in and have it install itself at the first boot.

    Some 59 KiB: less than the 64 KiB that OpenStack and Azure take, which gzip and base64 would miss, and
    cloud-init itself unpacks no others. Of sources bzip2 makes a fourteenth less than xz. It is more than
    EC2's 16 KiB, and no matter to a NoCloud seed or a config drive.
    """
    # No letter of base85 means anything between YAML's single quotes.
    packed = base64.b85encode(bz2.compress(content)).decode()
    return f"""#cloud-config
# dynmem-agent as one file, for the guest's own Python; no package and no network is needed.
write_files:
  - path: {_PACKED}
    content: '{packed}'
runcmd:
  - [python3, -I, -c, "{_UNPACK}"]
  - [python3, -I, {DROP}, install]
"""
