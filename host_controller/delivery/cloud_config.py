"""The agent for VMs that cloud-init sets up: user data, whole as they are."""

import base64
import gzip

from agent.installation import DROP


def cloud_config(content: bytes) -> str:
    """User data that bring the agent's file in and have it install itself at the first boot.

    Some 50 KiB: more than EC2's 16 KiB, and no matter to a NoCloud seed or a config drive.
    """
    packed = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    return f"""#cloud-config
# dynmem-agent as one file, for the guest's own Python; no package and no network is needed.
write_files:
  - path: {DROP}
    permissions: "0755"
    encoding: gz+b64
    content: {packed}
runcmd:
  - [python3, -I, {DROP}, install]
"""
