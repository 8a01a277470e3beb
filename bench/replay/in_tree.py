"""What `bench.replay` has a tree's own code do, whatever commit it is of.

    python -P -m in_tree record DIRECTORY STORIES     recordings of simulated stories and of both benchmarks
    python -P -m in_tree trace DIRECTORY RECORDING…   what the engine makes of each, in DIRECTORY
    python -P -m in_tree time                         for each line that comes in, what a turn takes

The tree is the working directory; PYTHONPATH has it, and then this folder.
"""

import gzip
import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from names import the
from stories import fast_fleet, record

TIMED_SECONDS: Final = 90.0
BEST_OF: Final = 3
DECIDED: Final = ("action", "goal_bytes", "target_bytes", "size_bytes", "zone", "alias")
"""Of a decision: what was done. Why it was done is worded for people."""


def trace(recording: Path, to: Path) -> None:
    """A line for each decision: the commands, and all that led to them and is not prose."""
    opened = gzip.open if recording.suffix == ".gz" else open
    with opened(recording, "rb") as stream, to.open("w", encoding="utf-8") as lines:
        played = the("Recording")(stream, str(recording))
        engine = _engine(recording, played.settings)
        told: dict[str, Any] = {}
        for one in played:
            try:
                if hasattr(one, "event"):
                    engine.handle(one.event, one.at)
                    continue
                commands = engine.decide(one.at)
            except Exception as error:  # noqa: BLE001 # it is an outcome, too, and the daemon goes on
                lines.write(json.dumps({"at": one.at, "raised": repr(error)}) + "\n")
                continue
            line = {
                "at": one.at,
                "commands": [str(command) for command in commands],
                "as_recorded": commands == one.commands,
                **_figures(engine, one.at, told),
            }
            lines.write(json.dumps(line) + "\n")


def _engine(recording: Path, settings: Any) -> Any:
    """One that goes on from what the controller found in its state directory, as the daemon has it do."""
    state = recording.with_name(recording.name.partition(".jsonl")[0] + ".state.json")
    if not state.exists():
        return the("Engine")(settings)
    before = msgspec.json.decode(state.read_bytes(), type=the("Remembered"))
    controller = the("Controller", "host_controller/control", "host_controller")
    return controller(None, settings, before=before).engine


def _figures(engine: Any, now: float, told: dict[str, Any]) -> dict[str, Any]:
    """Of goals and charges only those that are not as in the line before."""
    return {
        "decisions": {
            uuid: [getattr(decision, name) for name in DECIDED]
            for uuid, decision in engine.decisions.items()
            if decision.at == now
        },
        "goals": _changes(told, "goals", engine.goals),
        "charges": _changes(told, "charges", engine.charges),
        "host": [engine.budget_bytes, engine.headroom_bytes, engine.waiting_bytes, engine.uncovered_bytes],
        "notices": [[notice.kind, getattr(notice, "name", notice.vm)] for notice in engine.notices()],
    }


def _changes(told: dict[str, Any], key: str, figures: Mapping[str, int]) -> dict[str, int | None]:
    before, told[key] = told.get(key, {}), dict(figures)
    changed: dict[str, int | None] = {uuid: None for uuid in before if uuid not in figures}
    return changed | {uuid: size for uuid, size in figures.items() if before.get(uuid) != size}


def take_times(vms: int) -> None:
    """For each line on standard input the seconds of one turn of both benchmarks, as JSON.

    An engine's step with everything, with a hundredth and with nothing changed, as `bench.scale` has it, and
    our run of `bench.fast`. It is processor time, the best of a few: what the machine does besides only adds.
    """
    scale = importlib.import_module("bench.scale")
    for _ in sys.stdin:
        bench = scale.Bench(vms)  # anew, so that all turns are alike
        few = bench.names[: vms // 100]
        turn = {
            "scale, all": _best(bench.change, bench.names),
            "scale, 1 %": _best(bench.change, few),
            "scale, tick": _best(bench.step, (), True),
            "fast": _best(_fast_seconds),
        }
        print(json.dumps(turn), flush=True)


def _best(take: Callable[..., float], *arguments: Any) -> float:
    return min(take(*arguments) for _ in range(BEST_OF))


def _fast_seconds() -> float:
    run = importlib.import_module("bench.runner").run
    fleet, capacity = fast_fleet(TIMED_SECONDS)
    began = time.process_time()
    run(fleet, capacity)
    return time.process_time() - began


def main(command: str, *arguments: str) -> None:
    """See above."""
    home = Path(importlib.import_module("host_controller").__file__ or "")
    assert home.is_relative_to(Path.cwd()), f"{home} is not of this tree"
    match command:
        case "record":
            record(Path(arguments[0]), int(arguments[1]))
        case "trace":
            for recording in map(Path, arguments[1:]):
                trace(recording, Path(arguments[0]) / f"{recording.name}.trace")
        case "time":
            take_times(int(arguments[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
