"""In a guest the daemon runs without `typing`: its messages and records are what they are with it."""

import subprocess
import sys
from pathlib import Path

from agent.codec import encode
from agent.wire import Ack, Error, Offline, Online, Ping, Report, Welcome

REPOSITORY = Path(__file__).parents[3]
LINES = (
    encode(Report("0b1c2d3e", 7, 12.5, 1 << 30, 1 << 29, 1 << 28, swap_total_bytes=1 << 28, reason="moved")),
    encode(Ack(3, True, "here", 1 << 27)),
    encode(Error("version", "not spoken here")),
    encode(Welcome("0.2.0", maximum_bytes=1 << 33)),
    encode(Online(4, 1 << 32, 1 << 27, "movable")),
    encode(Offline(5, 1 << 32, 1 << 27)),
    encode(Ping(6)),
    b'{"v":1,"t":"report","b":"0b1c2d3e","n":-1}\n',
    b'{"v":2,"t":"report"}\n',
    b"no message\n",
)
SHOWN = """
import agent.daemon
from agent import blocks, codec, hotplug, killers, probe, proc_text, report, uevents, wire
records = [
    one
    for module in (wire, codec, probe, proc_text, report, killers, uevents, blocks, hotplug)
    for one in vars(module).values()
    if isinstance(one, type) and issubclass(one, tuple) and one.__module__ == module.__name__
]
for one in records:
    verbs = sorted(name for name in vars(one) if not name.startswith("_"))
    print(one.__module__, one.__qualname__, one._fields, sorted(one._field_defaults), verbs, one.__doc__)
for one in codec._NAMES:
    print([(field.name, field.key, type(field.kind).__name__) for field in codec.fields_of(one)])
"""
READ = """
for line in sys.stdin.buffer:
    for decode in (codec.decode_from_guest, codec.decode_from_host):
        try:
            message = decode(line)
            print(message, codec.encode(message))
        except codec.WireError as error:
            print(type(error).__name__, error)
"""
LEAN = "import sys; sys.path.insert(0, '.')\n"
TYPED = LEAN + "import typing\n"


def said(code: str, lines: bytes = b"") -> str:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=REPOSITORY, input=lines, capture_output=True, check=True
    )
    return done.stdout.decode()


def test_every_record_is_the_same_with_and_without_typing() -> None:
    found = said(LEAN + SHOWN)
    assert found == said(TYPED + SHOWN)
    assert found.count("\n") > 20


def test_every_message_is_read_and_written_the_same() -> None:
    found = said(LEAN + SHOWN + READ, b"".join(LINES))
    assert found == said(TYPED + SHOWN + READ, b"".join(LINES))
    for kind in ("Report(", "Welcome(", "UnknownVersion", "BadField", "NotJson"):
        assert kind in found
