"""A release out of the repository's own history, whose code runs beside that of this tree."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, Self

HERE: Final = Path(__file__).resolve().parent
PRESENT: Final = HERE.parents[1]
FIRST_RELEASE: Final = "12af73066c82493f91d970a7a3fa06d911e8bda4"
"""0.1.0."""
LIMIT: Final = 60.0
CLI: Final = "from host_controller.cli import main; main()"


class Release:
    """A tree, and its own code at work."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree

    @property
    def program(self) -> tuple[str, ...]:
        """What is `dynmem` of that release, in `environment`."""
        return (sys.executable, "-P", "-c", CLI)

    @property
    def environment(self) -> dict[str, str]:
        """The tree comes first, and the folder of `bench.replay.names` last."""
        places = (self.tree, HERE, PRESENT / "bench/replay")
        return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places))}

    def dynmem(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Its command line."""
        return self.python(CLI, *arguments)

    def python(self, script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A script on its code."""
        return subprocess.run(
            [sys.executable, "-P", "-c", script, *arguments],
            cwd=self.tree, env=self.environment, capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Its code does what `in_tree.py` says."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "in_tree", *arguments],
            cwd=self.tree,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *arguments: str, told: str = "") -> Any:
        """What `in_tree.py` prints, as JSON, when it is told this."""
        with self.start(*arguments) as process:
            said, _ = process.communicate(told, timeout=LIMIT)
        assert process.returncode == 0, f"{arguments} in {self.tree}: the error stands above"
        return json.loads(said)


class Serving:
    """A release's controller over simulated VMs, which stand still except in `lasts`."""

    def __init__(self, release: Release, directory: Path) -> None:
        self.socket = directory / "control.sock"
        self._process = release.start("serve", str(directory))

    def __enter__(self) -> Self:
        self._ready()
        return self

    def __exit__(self, *_: object) -> None:
        """It is told to end, as by SIGTERM."""
        self._process.communicate(timeout=LIMIT)
        assert self._process.returncode == 0, "it did not end in good order; the error stands above"

    def lasts(self, seconds: float) -> None:
        """Let so much time pass there."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        self._ready()

    def _ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "it ended; the error stands above"
