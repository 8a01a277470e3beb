"""Coverage-guided fuzzing: `python -m tests.fuzz [TARGET ...] --runs N`.

Each target runs in a process of its own, since the fuzzer ends its process. What it finds is kept in
`findings/TARGET/`, where `test_fuzz.py` tries it again for ever: commit it together with its remedy.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

FINDINGS = Path(__file__).parent / "findings"
LONGEST = 8192
"""Bytes of one input: two lines of the wire's largest size."""
MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
"""Where inputs and what readers write of them lie while a target is fuzzed."""
INSTRUMENTED = ["agent", "host_controller", "tomllib", "json"]
"""Where the fuzzer looks for new paths."""


def fuzz(target: "Target", runs: int, seed: int) -> int:
    """Fuzz one target in a process of its own. Returns its exit status: 0 when nothing was found."""
    (FINDINGS / target.name).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dynmem-fuzz-", dir=MEMORY) as scratch:
        corpus, words = Path(scratch) / "corpus", Path(scratch) / "words"
        corpus.mkdir()
        for number, data in enumerate([*target.seeds, *found(target)]):
            (corpus / str(number)).write_bytes(data)
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        options = [f"-runs={runs}", f"-seed={seed}", f"-max_len={LONGEST}", f"-dict={words}", "-timeout=10"]
        options.append(f"-artifact_prefix={FINDINGS / target.name}/")
        command = [sys.executable, "-m", "tests.fuzz", "--inside", target.name, *options, str(corpus)]
        return subprocess.run(command, check=False, env={**os.environ, "TMPDIR": scratch}).returncode


def found(target: "Target") -> list[bytes]:
    """What was found once."""
    return [path.read_bytes() for path in sorted((FINDINGS / target.name).glob("*"))]


def _escaped(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


def _inside(name: str, options: list[str]) -> None:
    """The process that the fuzzer takes over: it never returns."""
    import atheris

    # Only what is first imported here is instrumented.
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *options], TARGETS[name].run)
    atheris.Fuzz()


def main() -> int:
    """Fuzz the named targets, or all. Returns the exit status."""
    if sys.argv[1:2] == ["--inside"]:
        _inside(sys.argv[2], sys.argv[3:])
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    if unknown := set(chosen.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(unknown)}")
    return max(fuzz(TARGETS[name], chosen.runs, chosen.seed) for name in chosen.targets or TARGETS)


if __name__ == "__main__":
    sys.exit(main())
