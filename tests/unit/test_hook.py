"""The hook ends within its limit and refuses nobody for a fault of its own, whatever it is given."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from host_controller import hook, units
from host_controller.cli import hook as command
from host_controller.config import ConfigError, parse
from host_controller.config.rule import MatchSection
from host_controller.errors import InputError
from host_controller.rules.matching import Subject, fits
from tests.support.others import KUBEVIRT, NOVA, OVIRT, VIRT_INSTALL, domain
from tests.support.starts import HOOK, call, xml

LIMIT_SECONDS = 25.0
"""More than any of these may take, on a slow machine: then it is ended, and the test fails."""

CONFIGS: dict[str, str] = {
    "a word for a table": 'admission = "deny"',
    "a number for a table": "paths = 1",
    "a list for a table": "admission = []",
    "tables in a list": "[[admission]]\nwait = 1",
    "no number": "[admission]\nwait = nan",
    "for ever": "[admission]\nwait = inf",
    "longer than there are hosts": "[admission]\nwait = 1e300",
    "before it began": "[admission]\nwait = -5",
    "a truth for a number": "[admission]\nwait = true",
    "a word for a number": '[admission]\nwait = "soon"',
    "a unit of nothing": '[admission]\nwait = "s"',
    "more days than digits": f'[admission]\nwait = "{"9" * 5000}d"',
    "a date for a number": "[admission]\nwait = 1979-05-27",
    "a number for a policy": "[admission]\nwithout_controller = 1",
    "a list for a policy": '[admission]\nwithout_controller = ["deny"]',
    "another policy": '[admission]\nwithout_controller = "Deny"',
    "a number for a path": "[paths]\nsocket = 5\nstate_dir = 6",
    "a path that is none": '[paths]\nsocket = "\\u0000"',
    "a path without end": f'[paths]\nsocket = "/{"x" * 5000}"',
    "an empty path": '[paths]\nsocket = ""\nstate_dir = ""',
    "no TOML": "this is not TOML",
    "nothing": "",
    "too deep": f"a = {'[' * 5000}",
    "too many digits": f"[admission]\nwait = {'9' * 5000}",
    "too long": "#" * (2 << 20),
    "a key twice": "[admission]\nwait = 1\nwait = 2",
    "no UTF-8": "[admission]\n# \udcff\n",
}


def run(tmp_path: Path, config: str | None, body: bytes, *more: str) -> tuple[int, str]:
    """The hook, with the socket that the configuration names unless `more` names one."""
    if config is not None:
        (tmp_path / "dynmem.toml").write_bytes(config.encode(errors="surrogateescape"))
    done = subprocess.run(
        [
            *(sys.executable, "-I", "-S", str(HOOK), "--config", str(tmp_path / "dynmem.toml")),
            *(*more, "new", "prepare", "begin", "-"),
        ],
        input=body,
        capture_output=True,
        timeout=LIMIT_SECONDS,
    )
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("ours", [True, False], ids=["managed", "unmanaged"])
def test_no_configuration_refuses_a_start_or_holds_it_up(tmp_path: Path, config: str, ours: bool) -> None:
    code, said = run(tmp_path, config, xml(ours=ours), "--socket", str(tmp_path / "none.sock"))
    assert code == 0, said
    assert "Traceback" not in said


def test_a_configuration_of_an_editor_that_begins_with_a_mark_is_read(tmp_path: Path) -> None:
    config = '\ufeff[admission]\nwait = 0\nwithout_controller = "deny"'
    code, said = run(tmp_path, config, xml(), "--socket", str(tmp_path / "none.sock"))
    assert (code, "may not start" in said) == (1, True)


@pytest.mark.parametrize("text", ["20", "90s", "1.5min", " 2 MIN ", "0.02h", "0s", "2h", "-5s", "20x", ""])
def test_the_hook_waits_as_long_as_the_configuration_says_however_that_is_written(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "dynmem.toml"
    written = f'[admission]\nwait = "{text}"'
    file.write_text(written)
    found = hook.settings(str(file), "").wait
    try:
        assert found == parse(written.encode()).admission.wait
    except ConfigError:
        assert found == hook.WAIT_SECONDS
    assert hook.UNITS == units._SECONDS


@pytest.mark.parametrize("what", ["directory", "pipe", "device", "missing"])
def test_a_configuration_that_is_no_file_refuses_nothing(tmp_path: Path, what: str) -> None:
    file = tmp_path / "dynmem.toml"
    if what == "directory":
        file.mkdir()
    elif what == "pipe":
        os.mkfifo(file)
    elif what == "device":
        file.symlink_to("/dev/zero")
    code, said = run(tmp_path, None, xml(), "--socket", str(tmp_path / "none.sock"))
    assert (code, "Traceback" in said) == (0, False)


def trickle(connection: socket.socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b" " * 1000:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def flood(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x" * (1 << 16))


@pytest.mark.parametrize("name", ["--config", "--socket", "--help", "-"])
@pytest.mark.parametrize("moment", ["prepare begin", "started begin", "release end", "migrate begin"])
def test_a_vm_that_is_called_like_an_option_is_a_vm(tmp_path: Path, name: str, moment: str) -> None:
    code, said = call(tmp_path, moment, xml(name), name)
    assert code == 0
    assert "libvirt gives" not in said
    told = call(
        tmp_path, "prepare begin", xml(name), name, '[admission]\nwithout_controller = "deny"\nwait = 0'
    )
    assert told[0] == 1
    assert f"dynmem: {name} may not start" in told[1]


def answer(body: bytes, status: bytes = b"200 OK") -> Callable[[socket.socket], None]:
    def give(connection: socket.socket) -> None:
        head = b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)

    return give


def silence(connection: socket.socket) -> None:
    connection.settimeout(60)
    while connection.recv(1 << 16):
        pass


ANSWERS: dict[str, Callable[[socket.socket], None]] = {
    "it trickles": trickle,
    "it floods": flood,
    "it says nothing": silence,
    "it hangs up": lambda connection: None,
    "no HTTP": lambda connection: connection.sendall(b"\x00" * 100),
    "heads without end": lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000),
    "no JSON": answer(b"<html>"),
    "nothing": answer(b""),
    "a list": answer(b"[]"),
    "a number": answer(b"1e999"),
    "NaN": answer(b'{"admitted": NaN}'),
    "a word for a truth": answer(b'{"admitted": "no"}'),
    "null": answer(b'{"admitted": null, "message": null}'),
    "too deep": answer(b"[" * 60_000),
    "too many digits": answer(b'{"admitted": ' + b"9" * 6000 + b"}"),
    "too long": answer(b'{"admitted": true, "x": "' + b"x" * 200_000 + b'"}'),
    "no UTF-8": answer(b'{"admitted": "\xff"}'),
    "500": answer(b'{"message": ["x"]}', b"500 Oops"),
    "400 with a list": answer(b"[1]", b"400 Bad"),
    "a version of its own": lambda connection: connection.sendall(b"HTTP/9.9 999 \r\n\r\n"),
}


@contextmanager
def controller(path: Path, give: Callable[[socket.socket], None]) -> Iterator[None]:
    """Something that listens where a controller would."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.recv(1 << 16)
                        give(connection)
                        # What is unread when it is closed would take the answer with it.
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(1 << 16):
                            pass
                    except OSError:
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("give", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("policy", ["allow", "deny"])
def test_no_controller_holds_it_up_and_an_unmanaged_vm_starts(
    tmp_path: Path, give: Callable[[socket.socket], None], policy: str
) -> None:
    config = f'[admission]\nwait = 1\nwithout_controller = "{policy}"\n[paths]\nsocket = "{tmp_path}/c.sock"'
    with controller(tmp_path / "c.sock", give):
        code, said = run(tmp_path, config, xml(ours=False))
    assert (code, "Traceback" in said) == (0, False), said


@pytest.mark.parametrize("event", [("started", "begin"), ("release", "end")])
def test_what_nobody_can_be_told_is_said_with_the_vm_and_the_socket(
    tmp_path: Path, event: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It stands in libvirt's log among all else."""
    assert hook.main(["--socket", str(tmp_path / "none.sock"), "new", *event, "-"]) == 0
    said = capsys.readouterr().err
    assert f"new: the controller at {tmp_path}/none.sock cannot be told" in said
    assert "Errno" not in said


@pytest.mark.parametrize("what", ["it trickles", "a list", "NaN"])
def test_where_the_policy_is_deny_a_managed_vm_is_refused_and_told_why(tmp_path: Path, what: str) -> None:
    config = f'[admission]\nwait = 0\nwithout_controller = "deny"\n[paths]\nsocket = "{tmp_path}/c.sock"'
    with controller(tmp_path / "c.sock", ANSWERS[what]):
        code, said = run(tmp_path, config, xml())
    assert (code, "Traceback" in said) == (1, False)
    assert "may not start while no controller answers" in said


@pytest.mark.parametrize(
    ("rules", "refused"),
    [
        ("[[rule]]\nmatch = {name = 'web-*'}\n[[rule]]\nmatch = {name = 'ne?'}\n", True),
        ("[[rule]]\nmatch = {uuid = 'U-NEW'}\n", True),
        ("[[rule]]\nmatch = {name = 'web-*'}\n", False),
        ("[[rule]]\nmatch = {name = 'new', title = 'shop'}\n", False),
        ("[[rule]]\nmatch = {name = 7}\n[[rule]]\nmatch = {}\n[[rule]]\nmatch = 'new'\n", False),
        ("[[rule]]\nmatch = {name = 'new', moon = 'full'}\n[[rule]]\n", False),
        ("rule = 7\n", False),
        ("rule = [7, {match = {name = '*'}}]\n", True),
    ],
)
def test_where_the_policy_is_deny_a_vm_that_a_rule_is_for_is_refused_too(
    tmp_path: Path, rules: str, refused: bool
) -> None:
    config = rules + '[admission]\nwait = 0\nwithout_controller = "deny"'
    code, said = run(tmp_path, config, xml(ours=False), "--socket", str(tmp_path / "none.sock"))
    assert (code, "Traceback" in said) == (int(refused), False), said


def test_a_domain_that_is_no_xml_is_nobodys_that_a_rule_is_for(tmp_path: Path) -> None:
    config = "[[rule]]\nmatch = {name = '*'}\n[admission]\nwait = 0\nwithout_controller = \"deny\""
    for body in (b"", b"<domain>", b"\xff", xml(ours=False)[:-5]):
        code, said = run(tmp_path, config, body, "--socket", str(tmp_path / "none.sock"))
        assert (code, "Traceback" in said) == (0, False), said


MATCHES: list[dict[str, str]] = [
    {"name": "*"},
    {"name": "INSTANCE-*"},
    {"uuid": "0B8AD6F6-*"},
    {"title": "shop"},
    {"title": "*"},
    {"name": "*", "metadata": "nova:flavor/@name = 'm1.large'"},
    *(
        {"metadata": words}
        for words in (
            "nova:flavor/@name = 'm1.*'",
            '//nova:instance/nova:name = "shop"',
            "nova:flavor/nova:memory",
            "nova:name/nova:flavor",
            "flavor/@name",
            "nova:flavor/@moon",
            "kubevirt/uid",
            "metadata",
            "ovirt-vm:clusterVersion = '4.*'",
            "ovirt-tune:qos",
            "a = 'x'",
            "one:b = 'x'",
            "b = 'y'",
        )
    ),
]
TWO = "".join(f"<{at}a xmlns{of}='urn:a'>x</{at}a>" for at, of in (("", ""), ("one:", ":one")))
SPACED = domain(" two ", f"<b> x </b>{TWO}").replace("<memory", "<title> shop </title><memory", 1)
SUBJECTS = {"nova": NOVA, "kubevirt": KUBEVIRT, "ovirt": OVIRT, "none": VIRT_INSTALL, "two": SPACED}


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_the_hook_and_the_controller_agree_whom_a_rule_is_for(subject: str) -> None:
    for match in MATCHES:
        theirs = fits(MatchSection(**match), Subject.of(subject))
        assert hook.taken_in(subject.encode(), [match]) is theirs, match


@pytest.mark.parametrize("moment", ["started begin", "release end"])
@pytest.mark.parametrize("what", ["it trickles", "it says nothing", "too deep"])
def test_what_became_of_a_vm_is_told_within_its_time(tmp_path: Path, moment: str, what: str) -> None:
    with controller(tmp_path / "control.sock", ANSWERS[what]):
        assert call(tmp_path, moment, xml())[0] == 0


def test_a_message_of_the_controller_commands_no_terminal(tmp_path: Path) -> None:
    body = b'{"admitted": false, "message": "\\u001b[2J\\u202eno\\u009b31m\\nmore"}'
    with controller(tmp_path / "control.sock", answer(body)):
        code, said = call(tmp_path, "prepare begin", xml())
    assert code == 1
    assert said.rstrip("\n").isprintable()


@pytest.fixture
def safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of ours, where nobody else can write."""
    program = tmp_path / "lib" / "dynmem" / "hook.py"
    program.parent.mkdir(parents=True)
    program.write_text("")
    monkeypatch.setattr(command, "PROGRAM", program)
    return program


def install(tmp_path: Path) -> Exception | None:
    arguments = ["install", "--directory", str(tmp_path / "qemu.d")]
    result = CliRunner().invoke(command.hook, arguments)
    return result.exception if isinstance(result.exception, Exception) else None


def test_a_program_that_only_root_can_write_is_installed(tmp_path: Path, safe: Path) -> None:
    assert install(tmp_path) is None


@pytest.mark.parametrize("gone", ["the program", "the interpreter"])
def test_a_hook_whose_program_was_taken_out_refuses_nobody(
    tmp_path: Path, safe: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """An RPM, a checkout or its virtual environment went. libvirt runs what is left at each start."""
    interpreter = tmp_path / "python 3"
    interpreter.symlink_to(sys.executable)
    monkeypatch.setattr(command, "INTERPRETER", interpreter)
    assert install(tmp_path) is None
    installed = [tmp_path / "qemu.d" / "dynmem", "new", "prepare", "begin", "-"]
    safe.write_text("import sys; sys.exit('refused')")
    assert subprocess.run(installed, capture_output=True).returncode == 1
    (safe if gone == "the program" else interpreter).unlink()
    assert subprocess.run(installed, capture_output=True).returncode == 0


@pytest.mark.parametrize("system", ["too old", "not there", "no program"])
def test_where_the_systems_python_cannot_run_the_hook_the_controllers_does(
    tmp_path: Path, safe: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    """RHEL 9 has Python 3.9: without tomllib whoever is to be refused without a controller would start."""
    interpreter = tmp_path / "python3"
    if system != "not there":
        interpreter.write_text("#!/bin/sh\necho no tomllib >&2; exit 1\n")
        interpreter.chmod(0o755 if system == "too old" else 0o644)
    monkeypatch.setattr(command, "INTERPRETER", interpreter)
    assert install(tmp_path) is None
    safe.write_text("import sys, tomllib; print(sys.argv[1:])")
    done = subprocess.run([tmp_path / "qemu.d" / "dynmem", "new"], capture_output=True, text=True)
    assert done.stdout == "['new']\n"
    monkeypatch.setattr(sys, "executable", str(interpreter))
    assert "cannot run the hook" in str(install(tmp_path))


UNSAFE: dict[str, Callable[[Path], None]] = {
    "everybody can write it": lambda program: program.chmod(0o666),
    "everybody can write beside it": lambda program: program.parent.chmod(0o777),
    "everybody can write above it": lambda program: program.parent.parent.chmod(0o757),
    "a user has it": lambda program: os.chown(program, 1000, 0),
    "a user has its directory": lambda program: os.chown(program.parent, 1000, 0),
    "a user has what is above": lambda program: os.chown(program.parent.parent, 1000, 0),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
@pytest.mark.parametrize("unsafe", UNSAFE.values(), ids=UNSAFE)
def test_a_program_that_a_user_can_write_is_refused(
    tmp_path: Path, safe: Path, unsafe: Callable[[Path], None]
) -> None:
    unsafe(safe)
    found = install(tmp_path)
    assert isinstance(found, InputError)
    assert "would be run by libvirtd as root" in str(found)
    assert not (tmp_path / "qemu.d").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_a_group_that_can_write_and_a_link_in_a_users_directory_are_refused(
    tmp_path: Path, safe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(safe, 0, 1000)
    safe.chmod(0o664)
    assert isinstance(install(tmp_path), InputError)
    safe.chmod(0o644)
    assert install(tmp_path) is None
    home = tmp_path / "home"
    home.mkdir()
    (home / "hook.py").symlink_to(safe)
    os.chown(home, 1000, 1000)
    monkeypatch.setattr(command, "PROGRAM", home / "hook.py")
    assert isinstance(install(tmp_path), InputError)
