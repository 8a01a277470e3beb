"""`dynmem simulate`: from a file to a summary, and from a bad file to a sentence."""

import json
import statistics
import tomllib
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from host_controller.cli import group, main
from host_controller.core.engine import Engine
from host_controller.core.interface import HypervisorEvent, Tick
from host_controller.core.model import Growth, Limits, Settings
from host_controller.errors import InputError
from host_controller.records.recording import Recorder
from host_controller.simulator import text_file
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.laws import LAWS
from host_controller.simulator.trace_file import read_trace
from host_controller.simulator.trial import simulate
from host_controller.simulator.trial_file import parse, read_trial, render
from host_controller.simulator.what_if import replay_with
from host_controller.simulator.workload import Workload, ramp
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

GOOD = """
[host]
capacity = "6GiB"
duration = "5min"

[[vm]]
name = "web"
count = 2
startup = "512MiB"
minimum = "512MiB"
maximum = "2GiB"
demand = { kind = "diurnal", low = "200MiB", high = "1GiB", period = "5min" }

[[vm]]
name = "db"
startup = "1GiB"
minimum = "512MiB"
maximum = "4GiB"
weight = 300
growth = "balloon"
start = "10s"
demand = { kind = "ramp", low = "300MiB", high = "2GiB", start = 60, over = "30s" }
"""


def file(folder: Path, text: str = GOOD) -> Path:
    path = folder / "host.toml"
    path.write_text(text)
    return path


def dynmem(*arguments: object) -> Result:
    return CliRunner().invoke(group, ["simulate", *map(str, arguments)])


def test_a_host_is_simulated_and_summed_up(tmp_path: Path) -> None:
    told = dynmem(file(tmp_path))
    assert told.exit_code == 0, told.output
    assert all(name in told.output for name in ("web1", "web2", "db", "footprint"))


@pytest.mark.parametrize("law", LAWS)
def test_every_law_can_be_simulated(tmp_path: Path, law: str) -> None:
    path = file(tmp_path, GOOD.replace("5min", "2min"))
    told = dynmem(path, "--law", law, "--json")
    assert told.exit_code == 0, told.output
    result = json.loads(told.output)
    assert {"assigned_gib", "demand_gib"} <= result["vms"][0].keys()
    assert result.keys() >= {"times_seconds"}
    assert result["law"] == law
    assert [vm["name"] for vm in result["vms"]] == ["web1", "web2", "db"]


@pytest.mark.parametrize(
    ("demand", "values"),
    [
        ('kind = "sine", low = 0, high = "100MiB", period = 40', {0: 0, 10: 50, 20: 100, 30: 50, 40: 0}),
        ('kind = "sine", low = 0, high = "100MiB", period = 40, phase = 0.5', {0: 100, 20: 0}),
        ('kind = "saw", low = 0, high = "100MiB", period = 40', {0: 0, 10: 25, 39: 97.5, 40: 0, 50: 25}),
        ('kind = "saw", low = 0, high = "100MiB", period = 40, phase = 0.75', {0: 75, 10: 0, 20: 25}),
        ('kind = "square", low = 0, high = "100MiB", period = 40', {0: 0, 19: 0, 20: 100, 39: 100, 40: 0}),
        ('kind = "square", low = 0, high = "100MiB", period = 40, phase = 0.75', {0: 100, 10: 0, 30: 100}),
        ('kind = "burst", base = 0, peak = "100MiB", every = 40, hold = 9, first = 5', {4: 0, 6: 100, 15: 0}),
    ],
)  # fmt: skip
def test_waves_are_where_their_file_says(tmp_path: Path, demand: str, values: dict[int, float]) -> None:
    old = 'kind = "ramp", low = "300MiB", high = "2GiB", start = 60, over = "30s"'
    db = read_trial(file(tmp_path, GOOD.replace(old, demand))).vms[-1]
    found = {at: db.spec.workload.anonymous.at(float(at)) / MIB for at in values}
    assert found == pytest.approx(values)


def test_noise_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    old = 'kind = "ramp", low = "300MiB", high = "2GiB", start = 60, over = "30s"'
    text = GOOD.replace(old, 'kind = "steady", level = "1000MiB", noise = 0.05')
    curve = read_trial(file(tmp_path, text)).vms[-1].spec.workload.anonymous
    levels = [curve.at(float(at)) / MIB for at in range(300)]
    assert statistics.mean(levels) == pytest.approx(1000, rel=0.02)
    assert statistics.stdev(levels) == pytest.approx(50, rel=0.2)


def test_a_vm_may_grow_by_virtio_mem_and_have_its_own_slots(tmp_path: Path) -> None:
    text = GOOD.replace('growth = "balloon"', 'growth = "virtio-mem"').replace("count = 2", "slots = 3")
    trial = read_trial(file(tmp_path, text))
    assert [vm.spec.growth for vm in trial.vms] == [Growth.HOTADD, Growth.VIRTIO_MEM]
    assert trial.vms[0].spec.slots == 3
    result = simulate(trial)
    assert result.vms[1].largest_assigned_bytes > 2 * GIB, "beyond startup"
    assert not result.violations


@pytest.mark.parametrize("law", ["dynmem", "static"])
def test_a_guest_may_boot_in_no_time(tmp_path: Path, law: str) -> None:
    path = file(tmp_path, GOOD.replace('name = "db"', 'name = "db"\nboot = 0'))
    assert dynmem(path, "--law", law).exit_code == 0


def test_what_comes_before_the_measuring_is_not_measured(tmp_path: Path) -> None:
    late = GOOD.replace("[host]", '[host]\nwarm_up = "4min"')
    whole, part = simulate(read_trial(file(tmp_path))), simulate(read_trial(file(tmp_path, late)))
    assert (whole.seconds, part.seconds) == (300, 60)
    assert sum(vm.commands for vm in part.vms) < sum(vm.commands for vm in whole.vms)


def test_a_host_is_written_as_it_is_read(tmp_path: Path) -> None:
    tables = tomllib.loads(GOOD)
    assert tomllib.loads(render(tables)) == tables
    assert (
        parse(tables, "tables", tmp_path).vms[2].spec.limits == read_trial(file(tmp_path)).vms[2].spec.limits
    )


@pytest.mark.parametrize("name", ["db", "$x^$", "_db\\u001b[31m\\n"])
def test_a_picture_is_drawn_whatever_vms_are_called(tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    told = dynmem(file(tmp_path, GOOD.replace('"db"', f'"{name}"')), "--plot", tmp_path / "x.png")
    assert told.exit_code == 0
    assert "\x1b" not in told.output
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_host_and_a_trace_may_begin_with_an_editors_mark(tmp_path: Path) -> None:
    trace = '[[vm]]\nname = "old"\nstartup = "1GiB"\nminimum = "512MiB"\nmaximum = "2GiB"\n'
    trace += 'demand = { kind = "trace", file = "t.csv", column = "used" }\n'
    (tmp_path / "t.csv").write_text("seconds,used\n0,100\n60,200\n", encoding="utf-8-sig")
    path = file(tmp_path, f"\ufeff{GOOD}{trace}")
    assert read_trial(path).vms[-1].spec.name == "old"


def test_a_picture_that_cannot_be_written_costs_no_result(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "x.png").mkdir()
    told = dynmem(file(tmp_path), "--json", "--plot", tmp_path / "x.png")
    assert told.exit_code == 1
    assert json.loads(told.output)["law"] == "dynmem"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("weight = 300", "weigth = 300", "vm[2].weigth: unknown; allowed are name"),
        ('duration = "5min"', 'duration = "5 parsecs"', "host.duration: '5 parsecs'; allowed: seconds"),
        ('capacity = "6GiB"', 'capacity = "6GiBs"', "host.capacity"),
        ('capacity = "6GiB"', "capacity = 6", 'host.capacity: 6; allowed: a size such as "512MiB"'),
        ('minimum = "512MiB"\nmaximum = "4GiB"', 'minimum = 512\nmaximum = "4GiB"', 'did you mean "512M"?'),
        ('capacity = "6GiB"', "capacity = 6291456", 'did you mean "6291456K"?'),
        ('minimum = "512MiB"\nmaximum = "4GiB"', 'minimum = "2GiB"\nmaximum = "4GiB"', "below minimum"),
        ('maximum = "4GiB"', 'maximum = "256MiB"', "vm[2]: maximum (256 MiB) is below startup"),
        ('over = "30s"', 'over = "-30s"', "vm[2].demand.over: '-30s'; allowed: seconds"),
        ("start = 60", "start = inf", "vm[2].demand.start: inf; allowed: seconds"),
        ('kind = "ramp"', 'kind = "ramps"', "vm[2].demand.kind: 'ramps'; allowed are steady, ramp"),
        ("start = 60, ", "", "vm[2].demand.start: missing"),
        ('kind = "ramp"', 'kind = ["ramp"]', "vm[2].demand.kind: ['ramp']; allowed are steady, ramp"),
        ('duration = "5min"', "duration = 0", "host.duration: 0; allowed: more than nothing"),
        ('capacity = "6GiB"', 'capacity = "0G"', "host.capacity: '0G'; allowed: more than nothing"),
        ("weight = 300", "weight = true", "vm[2].weight: True; allowed: a whole number from 1"),
        ('name = "db"', 'name = "web1"', "the name 'web1' is used twice"),
        ("[host]", "[host", "line 2"),
        ("weight = 300", f"weight = {'9' * 5000}", "4300 digits"),
        ("weight = 300", f"weight = {'[' * 5000}", "recursion"),
        ('capacity = "6GiB"', f'capacity = "{"9" * 400}"', "more than any memory"),
        ('duration = "5min"', f'duration = "{"9" * 400}"', "host.duration"),
        ('duration = "5min"', f"duration = {'9' * 400}", "host.duration"),
        ('high = "2GiB"', f"high = {'9' * 400}", "vm[2].demand.high"),
        ("[host]", "[hosts]\n[host]", "hosts: unknown"),
        (
            'kind = "ramp", low = "300MiB", high = "2GiB", start = 60, over = "30s"',
            'kind = "trace", file = "no.csv", column = "a"',
            "no.csv",
        ),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in GOOD
    with pytest.raises(InputError) as error:
        read_trial(file(tmp_path, GOOD.replace(old, new)))
    assert said in str(error.value)
    assert "host.toml" in str(error.value) or "no.csv" in str(error.value)


@pytest.mark.parametrize(
    "demand",
    [
        'kind = "sine", low = 0, high = "1GiB", period = 1e-5',
        'kind = "saw", low = 0, high = "1GiB", period = 1e-5',
        'kind = "square", low = 0, high = "1GiB", period = 1e-300',
        'kind = "burst", base = 0, peak = "1GiB", every = 1e-5, hold = 0',
        'kind = "leak", base = "400MiB", per_hour = "16TiB", restart_at = "409601KiB"',
    ],
)
def test_a_wave_that_comes_to_no_end_is_refused_and_not_waited_for(tmp_path: Path, demand: str) -> None:
    old = 'kind = "ramp", low = "300MiB", high = "2GiB", start = 60, over = "30s"'
    with pytest.raises(InputError, match=r"vm\[2\].demand: 300 s in pieces of .* are more than 1000000"):
        read_trial(file(tmp_path, GOOD.replace(old, demand)))


def test_holes_of_a_trace_are_repaired_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("s,a,b\n0,,1\n60,100,1\n120,-5,1\n180,nan,1\n240,200,1\n300,1e12,\n360,300,1\n420,7,1\n")
    trace = read_trace(path, "a", MIB)
    assert (trace.holes, trace.values) == (4, 8)
    assert [trace.curve.at(t) / MIB for t in (0, 60, 130, 190, 240, 310, 400)] == [
        100, 100, 100, 100, 200, 200, 300,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s,a\n0,1\n0,2\n", "line 3"),
        ("s,b\n0,1\n", "no column 'a'"),
        ("s,a\n0,\n1,\n2,1\n", "2 of 3"),
        ("s,a\n", "no values"),
        ("s,a\nx,1\n", "line 2"),
        ("s,a\n\n0,1\n0,2\n", "line 4"),
        ("s,a,a\n0,1,2\n1,1,2\n", "two columns 'a'"),
        ("s;a\n0;1\n", "commas"),
        ('s,a\n0,"1\n1,2\n', "line 3: unexpected end"),
        ('s,a\n0,"1\n' + "1,2\n" * 40000, "larger than field limit"),
    ],
)
def test_a_trace_that_cannot_be_repaired_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        read_trace(tmp_path / "t.csv", "a", MIB)


def test_empty_lines_of_a_trace_are_none_and_no_time_is_taken_for_a_value(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\na,a\n0,100\n\n60,200\n\n")
    trace = read_trace(path, "a", MIB)
    assert (trace.holes, trace.values, trace.begins) == (0, 2, 0.0)
    assert [trace.curve.at(t) / MIB for t in (0, 61)] == [100, 200]


def test_a_trace_by_the_clock_of_the_world_is_refused_since_nothing_of_it_would_be_seen(
    tmp_path: Path,
) -> None:
    (tmp_path / "t.csv").write_text("s,a\n1376314846,100\n1376314906,2000\n")
    trace = 'kind = "trace", file = "t.csv", column = "a"'
    old = 'kind = "ramp", low = "300MiB", high = "2GiB", start = 60, over = "30s"'
    with pytest.raises(InputError, match="begins at 1376314846 s, and 300 s are simulated"):
        read_trial(file(tmp_path, GOOD.replace(old, trace)))


def test_a_trace_that_was_repaired_is_told_with_the_count_of_its_values(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("s,a\n0,100\n60,-5\n120,\n180,200\n240,150\n")
    trace = 'kind = "trace", file = "t.csv", column = "a", unit = "1MiB"'
    old = 'kind = "ramp", low = "300MiB", high = "2GiB", start = 60, over = "30s"'
    path = file(tmp_path, GOOD.replace(old, trace))
    assert "db: 2 values of its trace were" in dynmem(path).output
    [db] = [vm for vm in json.loads(dynmem(path, "--json").output)["vms"] if vm["name"] == "db"]
    assert db["repaired_values"] == 2


def test_a_bad_file_ends_the_command_with_2_and_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file(tmp_path, GOOD.replace("weight = 300", "weigth = 300"))
    monkeypatch.setattr("sys.argv", ["dynmem", "simulate", str(path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "vm[2].weigth: unknown" in capsys.readouterr().err


def test_an_unknown_law_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    told = dynmem(file(tmp_path), "--law", "magic")
    assert isinstance(told.exception, InputError)
    assert "qmemman" in str(told.exception)


class Recorded(Engine):
    """An engine that is recorded as the daemon records it."""

    recorder: Recorder

    def handle(self, event: HypervisorEvent | Tick, now: float) -> None:  # type: ignore[override]
        self.recorder.handled(event, now)
        super().handle(event, now)

    def decide(self, now: float) -> list:  # type: ignore[type-arg]
        commands = super().decide(now)
        self.recorder.decided(commands, now)
        return commands


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return recorded(tmp_path / "run.jsonl", {"web": 0.0, "db": 0.0})


def recorded(path: Path, starts: dict[str, float]) -> Path:
    """What is decided in 90 seconds; starts: when each VM does."""
    settings = Settings(3 * GIB)
    engine = Recorded(settings)
    engine.recorder = Recorder(path, settings, 0.0)
    world = World(3 * GIB, check=False)
    for name in starts:
        limits = Limits(512 * MIB, 256 * MIB, 2 * GIB)
        world.define(GuestSpec(name, limits, workload=Workload(ramp(64 * MIB, 900 * MIB, 40, 20))))
    world.control(lambda _: engine)
    for name, at in starts.items():
        world.agenda.at(at, partial(world.start, name))
    world.run(90.0)
    engine.recorder.close()
    return path


def test_a_recording_played_again_decides_the_same(recording: Path) -> None:
    found = replay_with(recording)
    assert found.first_difference is None
    assert found.then == found.now


def test_what_a_vm_would_have_been_given_is_the_mean_over_the_time_in_which_it_ran(
    tmp_path: Path,
) -> None:
    found = replay_with(recorded(tmp_path / "late.jsonl", {"web": 0.0, "db": 75.0}))
    assert found.goals["db"] >= 256 * MIB, "it is never given less than its minimum"


def test_damage_at_the_end_of_a_recording_is_told_too_also_in_json(recording: Path) -> None:
    with recording.open("a") as file:
        file.write("{\n")
    assert "1 damaged lines" in dynmem("--replay", recording).output
    assert json.loads(dynmem("--replay", recording, "--json").output)["damaged"] == 1


def test_what_if_a_vm_had_had_another_buffer(recording: Path) -> None:
    found = replay_with(recording, changes={"web": {"buffer": 100}})
    assert found.first_difference is not None
    assert found.goals["web"] > found.goals["db"]
    told = dynmem("--replay", recording, "--with", "web:weight=300", "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.output)["decisions"] == found.decisions


@pytest.mark.parametrize(
    "change", ["web", "web:color=1", "web:weight=x", "mail:weight=3", "web:minimum=9GiB"]
)
def test_what_if_of_what_cannot_be_is_refused(recording: Path, change: str) -> None:
    told = dynmem("--replay", recording, "--with", change)
    assert isinstance(told.exception, InputError)


def test_a_file_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "LARGEST_BYTES", 1 << 16)
    with pytest.raises(InputError, match="larger than 65536 bytes"):
        read_trial(Path("/dev/zero"))
