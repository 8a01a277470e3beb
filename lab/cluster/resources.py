"""What the cells of the lab run, as Pacemaker has it in its configuration."""

from collections.abc import Mapping
from typing import Final

FENCING: Final = (
    '<primitive class="stonith" id="fence" type="fence_lab"><instance_attributes id="fence-i">'
    '<nvpair id="fence-c" name="pcmk_host_check" value="dynamic-list"/></instance_attributes>'
    '<operations><op id="fence-m" name="monitor" interval="60s"/></operations></primitive>'
)
"""The power switch of the lab."""


def vm(guest: str, file: str) -> str:
    """A VM by the file of its domain, stopped, without anything that `dynmem fleet init` sets."""
    options = {"config": file, "hypervisor": "qemu:///system", "force_stop": "true"}
    options |= {"remoteuri": "qemu+tcp://%n/system", "migrate_options": "--unsafe"}
    operations = "".join(
        f'<op id="{guest}-{name}" name="{name}" interval="{interval}" timeout="120s"/>'
        for name, interval in (("monitor", "10s"), ("start", "0s"), ("stop", "0s"), ("migrate_to", "0s"))
    )
    return (
        f'<primitive class="ocf" id="{guest}" provider="heartbeat" type="VirtualDomain">'
        f'<instance_attributes id="{guest}-i">{_pairs(guest, options)}</instance_attributes>'
        f'<meta_attributes id="{guest}-t"><nvpair id="{guest}-role" name="target-role" value="Stopped"/>'
        f"</meta_attributes><operations>{operations}</operations></primitive>"
    )


def arbiter(binary: str) -> str:
    """dynmem's resource agent, with this command."""
    return (
        '<primitive class="ocf" id="arbiter" provider="dynmem" type="fleet"><instance_attributes id="a">'
        f'<nvpair id="a-b" name="binary" value="{binary}"/></instance_attributes><operations>'
        '<op id="a-m" name="monitor" interval="10s" timeout="20s"/></operations></primitive>'
    )


def _pairs(name: str, values: Mapping[str, str]) -> str:
    return "".join(
        f'<nvpair id="{name}-{key}" name="{key}" value="{value}"/>' for key, value in values.items()
    )
