"""The power of a node: all that runs in its namespaces is under one PID 1, and ends with it."""

import subprocess
import sys
from pathlib import Path

from lab.cluster.shell import of_this_tree
from lab.code_disk import REPOSITORY
from lab.errors import LabError


class Machine:
    """One node, off at first. `directory`: the cluster's; `space`: of its network."""

    def __init__(self, name: str, directory: Path, space: str) -> None:
        self._name, self._directory, self._space = name, directory, space
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def off(self) -> bool:
        """Its power was cut, by whomsoever, or it never was on."""
        return self._process is None or self._process.poll() is not None

    def switch_on(self) -> None:
        """Start it. It runs when there is somebody `within`."""
        with self._log.open("ab") as log:
            # When we are killed, so is unshare, and with it PID 1 and all that it has started.
            self._process = subprocess.Popen(
                [
                    "setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self._space, "unshare",
                    "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--propagation",
                    "private", sys.executable, "-m", "lab.cluster.node", str(self._directory), self._name,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=REPOSITORY, env=of_this_tree(),
            )  # fmt: skip

    def cut_power(self) -> None:
        """Kill it. Its PID 1 is killed with it, and ends when all others within have ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def within(self) -> list[str]:
        """Its PID 1, as this machine sees it; nobody while it is off."""
        if self._process is None:
            return []
        parent = self._process.pid
        try:
            return Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except FileNotFoundError:  # its power was cut
            return []

    def init(self) -> int:
        """The same, of one that runs.

        Raises:
            LabError: it does not.
        """
        found = self.within()
        if len(found) != 1:
            raise LabError(f"{self._name} does not run: {self._log.read_text()[-2000:]}")
        return int(found[0])

    @property
    def _log(self) -> Path:
        return self._directory / f"{self._name}.log"


def has_ended(process: str) -> bool:
    """It is not there any more, or waits for its exit code to be read."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"
