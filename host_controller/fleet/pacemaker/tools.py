"""Pacemaker's command-line tools: each asked with a limit of time, nothing of its words taken on trust."""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from host_controller.fleet.errors import EngineError, RaceLost
from host_controller.fleet.pacemaker.bounded_xml import read_xml
from host_controller.fleet.pacemaker.cib import Cib, read_cib, version_of, with_copies
from host_controller.fleet.pacemaker.simulation import Simulation, read_simulation
from host_controller.neutral import neutral

SECONDS: Final = 30.0
SIMULATION_SECONDS: Final = 120.0
"""A cell of 64 hosts takes 8 s of processor time."""
CLEAN_SECONDS: Final = 60.0
"""Every host is asked whether it has the VM."""
COPY_SECONDS: Final = 5
"""For a node to tell the version of its copy."""
OLD: Final = 103
"""CRM_EX_OLD: the patch is for another version of the configuration."""
CHANGED: Final = 1
"""`crm_diff` when there is a difference."""
IDLE: Final = re.compile(r"\bS_IDLE\b")


@contextmanager
def _directory() -> Iterator[Path]:
    """For what a tool reads. A full disk costs one answer, and ends nobody."""
    try:
        with tempfile.TemporaryDirectory(prefix="dynmem-fleet-") as directory:
            yield Path(directory)
    except OSError as error:
        raise EngineError(f"nothing can be written for the engine to read: {error.strerror}") from None


class Tools:
    """Pacemaker on this host. `environment`: CIB_file=… works on a file instead of a cluster."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        self._environment = environment

    def query(self) -> Cib:
        """The configuration and its status.

        Raises:
            EngineError
        """
        return read_cib(self._run("cibadmin", "--query"))

    def idle(self) -> bool:
        """Whether the controller that decides has nothing under way."""
        name = self._run("crmadmin", "-q", "-D").decode(errors="replace").split()
        if not name:
            return False
        return IDLE.search(self._run("crmadmin", "-S", name[-1]).decode(errors="replace")) is not None

    def simulate(self, text: bytes) -> Simulation:
        """What the scheduler would do with this configuration.

        Raises:
            EngineError
        """
        with _directory() as directory:
            file = directory / "cib.xml"
            file.write_bytes(text)
            return read_simulation(
                self._run(
                    "crm_simulate", "-R", "-U", "-x", str(file), "--output-as=xml", limit=SIMULATION_SECONDS
                )
            )

    def replace(self, before: bytes, after: bytes) -> None:
        """Turn one configuration into the other, if it still is what it was, on each node.

        Raises:
            RaceLost: somebody else changed it meanwhile, or a node has joined and has not all of it yet.
            EngineError: it was refused for another reason.
        """
        with _directory() as directory:
            old, new, patch = (directory / name for name in ("old.xml", "new.xml", "patch.xml"))
            old.write_bytes(before)
            new.write_bytes(after)
            asked = ("crm_diff", "--original", str(old), "--new", str(new))
            patch.write_bytes(self._run(*asked, fine=(0, CHANGED)))
            self._require_same_copies(before)
            self._run("cibadmin", "--patch", "--xml-file", str(patch))

    def _require_same_copies(self, text: bytes) -> None:
        """Every node judges a patch by its own copy. That of a node that has just joined may be another, and
        would take what the others refuse (fact: copies-judge-alone). Copies that are the same stay so.
        """
        root = read_xml(text, "cib")
        for node in with_copies(root):
            asked = ("cibadmin", "--query", "--no-children", f"--node={node}", f"--timeout={COPY_SECONDS}")
            if version_of(read_xml(self._run(*asked), "cib")) != version_of(root):
                why = f"the cluster's configuration was changed meanwhile, or is not the same on {node} yet"
                raise RaceLost(why, hint="try again")

    def clean_up(self, vm: str, node: str, operation: str = "start") -> None:
        """Forget that an operation of a VM has failed on a node; what else failed there stays known.

        Raises:
            EngineError
        """
        asked = (f"--resource={vm}", f"--node={node}", f"--operation={operation}")
        self._run("crm_resource", "--cleanup", *asked, limit=CLEAN_SECONDS)

    def refresh(self, vm: str, node: str) -> None:
        """Forget all that has happened to a VM on a node, and probe the node for it.

        Raises:
            EngineError
        """
        asked = ("--refresh", f"--resource={vm}", f"--node={node}")
        self._run("crm_resource", *asked, limit=CLEAN_SECONDS)

    def run(self, *command: str, limit: float = SECONDS) -> str:
        """Any other of its tools; what it says.

        Raises:
            EngineError
        """
        return self._run(*command, limit=limit).decode(errors="replace")

    def _run(self, *command: str, limit: float = SECONDS, fine: tuple[int, ...] = (0,)) -> bytes:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, env=self._environment
            )
        except FileNotFoundError:
            hint = "install pacemaker and pacemaker-cli-utils, and run this on a node of the cluster"
            raise EngineError(f"there is no {command[0]} here", hint=hint) from None
        except OSError as error:
            raise EngineError(f"{command[0]} cannot be run: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise EngineError(f"{command[0]} did not answer within {limit:.0f} s") from None
        if done.returncode == OLD:
            raise RaceLost("the cluster's configuration was changed meanwhile", hint="try again")
        if done.returncode not in fine:
            said = neutral(done.stderr.decode(errors="replace").strip().replace("\n", "; "), 300)
            hint = "crm_mon -1 shows whether the cluster works"
            raise EngineError(f"{command[0]} failed with {done.returncode}: {said}", hint=hint)
        return done.stdout
