"""The agent brought into a running guest through its QEMU guest agent, and taken out again.

Every step may be repeated, and a push that was cut off anywhere is finished by a push and undone by a
removal. Until the guest's own `install` runs nothing but one file below /run is there, which goes with the
next boot.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from agent.installation import DROP, PLACE
from host_controller.delivery.agent_file import digest
from host_controller.errors import DynmemError
from host_controller.guest_agent.conversation import ASKS_FROZEN, RUNS, WRITES, GuestAgent
from host_controller.guest_agent.errors import GuestAgentError, GuestAgentRefused
from host_controller.guest_agent.words import Ended
from host_controller.neutral import neutral

SHELL: Final = "/bin/sh"
LOOK_SECONDS: Final = 30.0
SETUP_SECONDS: Final = 180.0
"""systemd reloads, udev settles; under load that takes long."""
DENIED: Final = "Permission denied"
"""To root, whom only SELinux or the like denies anything."""
CONFINED: Final = "SELinux confines the guest agent of Fedora, RHEL and the like: do it by hand"
INSTALLED: Final = f"/{PLACE}"
PACKAGED: Final = "/usr/bin/dynmem-agent"

# The first Python that is new enough, whether the package is there, and the digests of what is.
LOOK: Final = f"""
for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do
    path=$(command -v $name) || continue
    "$path" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2> /dev/null || continue
    echo "python=$path"
    for file in {INSTALLED} {DROP}; do
        [ -e $file ] && "$path" -I -c 'import hashlib, sys
print("have=" + sys.argv[1] + " " + hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' $file
    done
    break
done
[ -e {PACKAGED} ] && echo package=yes
echo end=yes
"""
CLEAN: Final = (
    SHELL,
    "-c",
    f"rm -f {DROP} {INSTALLED}.new; rmdir {INSTALLED.rpartition('/')[0]} 2> /dev/null; true",
)
_PYTHON: Final = re.compile(r"python=(/[A-Za-z0-9_./+-]{1,200})")
_HAVE: Final = re.compile(r"have=(/[a-z/.-]{1,100}) ([0-9a-f]{64})")


class PushFailed(DynmemError):  # noqa: N818 # read as what happened
    """The agent was not brought in or not taken out; what is half done is finished by saying it again."""


class PushNotAllowed(PushFailed):
    """This guest's guest agent runs no programs, or none that may do this: people do it by two commands."""


class Guest(NamedTuple):
    """What a guest has."""

    python: str
    """Path of an interpreter that is new enough."""
    packaged: bool
    """The package dynmem-agent is installed."""
    digests: dict[str, str]
    """Of the files of ours that are there, by path."""


def by_hand(vm: str, file: str) -> tuple[str, str]:
    """The two commands that do without a guest agent: one that copies the file, one in the guest."""
    name = file.rpartition("/")[2]
    # Whoever may name a VM must not say what the host's root runs: it is pasted into a shell.
    return (f"scp {shlex.quote(file)} {shlex.quote(f'root@{vm}:/root/')}", f"python3 -I /root/{name} install")


def push(talk: GuestAgent, content: bytes, progress: Callable[[int], None]) -> Iterator[str]:
    """Bring the agent's file in and have it install itself. Yields what was done, a sentence a step.

    progress: told how many bytes of the file are there.

    Raises:
        PushNotAllowed: the guest agent may not run programs or write files; nothing was done.
        PushFailed: with the way out.
        GuestAgentError: it is absent, silent, refuses, or talks nonsense.
    """
    _must_allow(talk, WRITES | RUNS)
    guest = look(talk)
    if guest.packaged:
        raise PushFailed(
            "the package dynmem-agent is installed in it", hint="nothing to bring: see to its service there"
        )
    source, wanted = DROP, digest(content)
    if guest.digests.get(INSTALLED) == wanted:
        source = INSTALLED
        yield "The agent's file is there."
    elif guest.digests.get(DROP) == wanted:
        yield "The agent's file was brought before."
    else:
        _bring(talk, content, progress)
        yield f"The agent's file is brought, {len(content) >> 10} KiB."
    try:
        yield from _said(talk.run((guest.python, "-I", "-S", source, "install"), SETUP_SECONDS))
    except PushFailed:
        if source == DROP:
            _clean(talk)
        raise


def remove(talk: GuestAgent) -> Iterator[str]:
    """Take out what `push` brought, or a part of it. Yields and raises as `push`."""
    _must_allow(talk, RUNS)
    guest = look(talk)
    if guest.packaged and not guest.digests:
        raise PushFailed(
            "its agent came by the package dynmem-agent", hint="in the guest: remove that package"
        )
    if INSTALLED in guest.digests:
        # That file knows what it has put where. It is the first to be there and the last to go.
        yield from _said(talk.run((guest.python, "-I", "-S", INSTALLED, "remove"), SETUP_SECONDS))
    else:
        _must_be_well(talk.run(CLEAN, LOOK_SECONDS))
        left = "What a push had left is removed." if guest.digests else "There is nothing of a push in it."
        yield left


def look(talk: GuestAgent) -> Guest:
    """See what the guest has. Raises as `push`."""
    ended = talk.run((SHELL, "-c", LOOK), LOOK_SECONDS)
    lines = ended.output.splitlines()
    if "end=yes" not in lines:
        raise PushFailed(
            f"the guest could not be looked into: {_last(ended)}",
            hint="it needs /bin/sh; is it a Linux guest?",
        )
    python = next((found[1] for line in lines if (found := _PYTHON.fullmatch(line))), None)
    packaged = "package=yes" in lines
    if python is None and not packaged:
        raise PushFailed(
            "it has no Python 3.9 or newer", hint="install one there; balloon statistics serve till then"
        )
    digests = {found[1]: found[2] for line in lines if (found := _HAVE.fullmatch(line))}
    return Guest(python or "", packaged, digests)


def _must_allow(talk: GuestAgent, needed: frozenset[str]) -> None:
    allowed = talk.allowed()
    missing = sorted(needed - allowed)
    if missing and ASKS_FROZEN in allowed and talk.frozen():
        raise PushFailed(
            "its file systems are frozen, by a backup perhaps; nothing was done",
            hint="say it again once that is over; `virsh domfsthaw` where nobody thaws them",
        )
    if missing:
        raise PushNotAllowed(
            f"its guest agent does not allow {', '.join(missing)}",
            hint="allow it in the guest (/etc/sysconfig/qemu-ga or qemu-ga.conf), or do it by hand",
        )


def _bring(talk: GuestAgent, content: bytes, progress: Callable[[int], None]) -> None:
    try:
        talk.write(DROP, content, progress)
    except GuestAgentRefused as error:
        _clean(talk)
        if DENIED in error.message:
            raise PushNotAllowed(error.message, hint=CONFINED) from None
        error.hint = "is there room in the guest's /run? What was written is gone again"
        raise
    if look(talk).digests.get(DROP) != digest(content):
        _clean(talk)
        raise PushFailed("the file did not arrive as it was sent", hint="push again, one at a time")


def _clean(talk: GuestAgent) -> None:
    try:
        talk.run(CLEAN, LOOK_SECONDS)
    except GuestAgentError:
        return  # it goes with the next boot, or the next push


def _said(ended: Ended) -> Iterator[str]:
    _must_be_well(ended)
    for line in ended.output.splitlines()[-20:]:
        yield f"In the guest: {neutral(line, 300)}"


def _must_be_well(ended: Ended) -> None:
    if ended.status != 0 and DENIED in _last(ended):
        raise PushNotAllowed(f"in the guest: {_last(ended)}", hint=CONFINED)
    if ended.status != 0:
        raise PushFailed(f"in the guest: {_last(ended)}", hint="see to that, then say it again")


def _last(ended: Ended) -> str:
    lines = (ended.errors or ended.output).strip().splitlines()
    return neutral(lines[-1], 300) if lines else f"exit status {ended.status}"
