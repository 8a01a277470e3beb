"""`dynmem-agent.pyz install` and `remove`: the agent put into a guest that gets no package, and taken out.

Everything is written beside its place and renamed into it, and every step may be repeated: what was cut off
is finished by `install` and undone by `remove`, whichever is run again. Only files with our mark are removed.

Where systemd runs, its unit is started by udev with the virtio port. Where it does not run yet (an image that
is being built), the same files wait for the first boot. Without systemd the agent is started at once, and the
guest's own init must start it from then on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from agent.mounts import lies_in_memory, mounts_of

MARK = "# Put here by `dynmem-agent.pyz install`; `remove` takes it out again.\n"
DROP = "/run/dynmem-agent.pyz"
"""Where a host drops the file: it goes when it is installed, or with the next boot."""
PLACE = "usr/local/lib/dynmem-agent/dynmem-agent.pyz"
UNIT = "etc/systemd/system/dynmem-agent.service"
WANTED = "etc/systemd/system/multi-user.target.wants/dynmem-agent.service"
RULE = "etc/udev/rules.d/90-dynmem-agent.rules"
PACKAGED = "usr/bin/dynmem-agent"
SERVICE = "dynmem-agent.service"
COMMAND_SECONDS = 60.0
_WAYS_OUT = {
    errno.EROFS: " Put the agent into the image that this guest boots.",
    # It is root that is denied.
    errno.EACCES: " Run it from a shell of root's: SELinux confines what a guest agent starts.",
}
_PACKAGED_COMMAND = "/usr/bin/dynmem-agent"

Run = Callable[["list[str]"], "tuple[int, str]"]


class NotInstalled(Exception):  # noqa: N818 # read as what happened
    """A sentence for people: what stood in the way, and the way out."""


class System(NamedTuple):
    """What the guest starts its services with."""

    systemd: bool
    """Its files belong here, whether it runs or not."""
    running: bool
    """It is in charge now."""
    udev: bool


def look(root: str = "/") -> System:
    """See what there is."""

    def there(*paths: str) -> bool:
        return any(os.path.exists(os.path.join(root, path)) for path in paths)

    return System(
        # NixOS has it elsewhere, and runs it.
        systemd=there("lib/systemd/systemd", "usr/lib/systemd/systemd", "run/systemd/system"),
        running=there("run/systemd/system"),
        udev=there("lib/udev/rules.d", "usr/lib/udev/rules.d", "etc/udev/rules.d"),
    )


def install(archive: str, python: str, root: str = "/", run: Run | None = None) -> Iterator[str]:
    """Put `archive` and what starts it in place. Yields what was done, a sentence a step.

    python: the interpreter that the unit names. Raises NotInstalled, with nothing half in place but what a
    second run completes.
    """
    run = run or _run
    if os.path.exists(os.path.join(root, PACKAGED)):
        raise NotInstalled("The package dynmem-agent is installed here: there is nothing to install.")
    for path in (UNIT, RULE):
        if os.path.exists(os.path.join(root, path)) and not _is_ours(root, path):
            raise NotInstalled(f"/{path} is there and is not ours: move it away first.")
    found = look(root)
    command = f"{python} -I -S /{PLACE}"
    try:
        with open(archive, "rb") as file:
            content = file.read()
        yield _put(root, PLACE, content, 0o755)
        if found.systemd:
            yield _put(root, UNIT, _unit(command, udev=found.udev).encode(), 0o644)
            if found.udev:
                yield _put(root, RULE, (MARK + _packaged("90-dynmem-agent.rules")).encode(), 0o644)
            else:
                _link(root, WANTED, f"/{UNIT}")
        if os.path.abspath(archive) == DROP:
            os.unlink(archive)
    except OSError as error:
        way_out = _WAYS_OUT.get(error.errno or 0, "")
        raise NotInstalled(f"{error.filename or archive}: {error.strerror}.{way_out}") from None
    if found.running:
        yield from _start_service(run, udev=found.udev)
    elif found.systemd:
        yield "It starts with the next boot."
        return
    else:
        yield from _start_alone(root, command)
    mounts = mounts_of(root)
    if any(lies_in_memory(mounts, f"/{path}") for path in (PLACE, UNIT)):
        yield "It is gone after the next boot, as this root lies in memory: put it into the image, too."


def remove(root: str = "/", run: Run | None = None) -> Iterator[str]:
    """Stop the agent and take out what `install` put in. Yields what was done. Raises NotInstalled."""
    run = run or _run
    found = look(root)
    ours = _is_ours(root, UNIT)
    if found.running and ours:
        status, said = run(["systemctl", "stop", SERVICE])
        yield "The agent is stopped." if status == 0 else f"systemctl could not stop it: {said}"
    stopped = _end_processes(root)
    if stopped:
        yield f"{stopped} running agent is stopped." if stopped == 1 else f"{stopped} agents are stopped."
    gone = 0
    try:
        for path in (RULE, WANTED, UNIT, PLACE, PLACE + ".new", UNIT + ".new", RULE + ".new", DROP[1:]):
            if path in (RULE, UNIT) and not _is_ours(root, path):
                continue
            if path == WANTED and not ours:
                continue
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(root, path))
                gone += 1
        with contextlib.suppress(OSError):  # somebody else has something there, or it never was
            os.rmdir(os.path.dirname(os.path.join(root, PLACE)))
    except OSError as error:
        raise NotInstalled(f"{error.filename}: {error.strerror}.") from None
    if found.running and ours:
        run(["systemctl", "daemon-reload"])
        run(["systemctl", "reset-failed", SERVICE])
    if found.udev and found.running:
        run(["udevadm", "control", "--reload"])
    yield f"{gone} files are removed." if gone else "There was nothing to remove."


def main(arguments: list[str]) -> int:
    """`install` or `remove`, as root. Returns the exit status."""
    if os.geteuid() != 0:
        sys.stderr.write("dynmem-agent: this needs root.\n")
        return 1
    archive = os.path.abspath(sys.argv[0])
    try:
        if arguments == ["remove"]:
            steps = remove()
        elif arguments == ["install"] and archive.endswith(".pyz"):
            steps = install(archive, sys.executable)
        else:
            sys.stderr.write("dynmem-agent: only the file dynmem-agent.pyz can install itself.\n")
            return 1
        for step in steps:
            sys.stdout.write(step + "\n")
            sys.stdout.flush()
    except NotInstalled as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


# --- files ---


def _packaged(name: str) -> str:
    content = pkgutil.get_data("agent", name)
    assert content is not None
    return content.decode()


def _unit(command: str, *, udev: bool) -> str:
    text = MARK + _packaged(SERVICE).replace(_PACKAGED_COMMAND, command)
    if udev:
        return text
    # Nobody makes device units: it starts at boot and waits for its port itself.
    lines = [line for line in text.splitlines() if "virtio" not in line or line.startswith("DeviceAllow")]
    return "\n".join([*lines, "", "[Install]", "WantedBy=multi-user.target", ""])


def _put(root: str, path: str, content: bytes, mode: int) -> str:
    """Write a file whole or not at all. Raises OSError."""
    target = os.path.join(root, path)
    with contextlib.suppress(OSError), open(target, "rb") as file:
        if file.read() == content:
            return f"/{path} is there."
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    fresh = target + ".new"
    try:
        # What a second run finds there is half a file, or somebody's link: neither is written through.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        with open(fresh, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(fresh, mode)
        os.replace(fresh, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        error.filename = target
        raise
    return f"/{path} is written."


def _link(root: str, path: str, target: str) -> None:
    place = os.path.join(root, path)
    os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.symlink(target, place)


def _is_ours(root: str, path: str) -> bool:
    try:
        with open(os.path.join(root, path), "rb") as file:
            return file.read(len(MARK)) == MARK.encode()
    except OSError:
        return False


# --- the running guest ---


def _start_service(run: Run, *, udev: bool) -> Iterator[str]:
    status, said = run(["systemctl", "daemon-reload"])
    if status != 0:
        raise NotInstalled(f"systemctl daemon-reload: {said}")
    if udev:
        run(["udevadm", "control", "--reload"])
        # The port may have been there for long: its rule is read again.
        run(["udevadm", "trigger", "--action=change", "--subsystem-match=virtio-ports"])
        run(["udevadm", "settle", "--timeout=20"])
        # One that runs takes the file that is there now.
        status, said = run(["systemctl", "try-restart", SERVICE])
    else:
        status, said = run(["systemctl", "restart", SERVICE])
    if status != 0:
        raise NotInstalled(f"systemctl: {said}")
    active = run(["systemctl", "is-active", "--quiet", SERVICE])[0] == 0
    yield "The agent runs." if active else "The agent starts as soon as the host gives this guest its port."


def _start_alone(root: str, command: str) -> Iterator[str]:
    _end_processes(root)
    if root == "/":
        subprocess.Popen(
            [*command.split(), "run"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
    yield f"The agent runs. There is no systemd here: let the guest's init start `{command} run` at boot."


def _end_processes(root: str) -> int:
    """End agents that run from our place. Returns how many there were."""
    count = 0
    directory = os.path.join(root, "proc")
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                with open(os.path.join(directory, name, "cmdline"), "rb") as file:
                    words = file.read(4096).split(b"\0")
                if f"/{PLACE}".encode() in words and b"run" in words:
                    os.kill(int(name), signal.SIGTERM)
                    count += 1
    return count


def _run(command: list[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()[-500:]
