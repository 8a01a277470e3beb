"""What nodes say when something has failed: their logs end with the cluster."""

import contextlib
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.cluster.cluster import Cluster

SHOWN: Final = (
    "crm_mon -1",
    "crm_simulate -L -S",
    "cibadmin --query --scope constraints",
    "tail -n 30 /var/log/dynmem.log",
    "tail -n 30 /var/log/dynmem-fleet.log",
    "tail -n 150 /var/log/pacemaker/pacemaker.log",
)
LIMIT_SECONDS: Final = 20.0


def said_by(cluster: "Cluster") -> Iterator[tuple[str, str]]:
    """Node and command, and what it says; of nodes that are on, and of commands that end."""
    for node in cluster.nodes:
        for command in () if cluster.off(node) else SHOWN:
            with contextlib.suppress(LabError, subprocess.TimeoutExpired):
                said = cluster.on(node, *command.split(), check=False, limit=LIMIT_SECONDS)
                yield f"{node}: {command}", said
