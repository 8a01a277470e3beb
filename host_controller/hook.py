"""libvirt's QEMU hook: asks the controller whether a VM may start. Run by libvirt as

    hook.py [--config FILE] [--socket PATH] NAME OPERATION SUB-OPERATION EXTRA   < domain.xml

Only the standard library, and nothing of dynmem: it is run by the system's own Python. It never calls
libvirt, which waits for it (that would be a deadlock), and it says nothing on stdout, which libvirt may take
for XML. Exit code 0 lets the VM start. Anything else refuses it, and stderr appears in virsh's error.

While no controller answers, [admission] without_controller in the configuration decides about managed VMs:
those with metadata of ours, and those that a [[rule]] is for, which is found out here as by `rules.matching`.
libvirt starts nothing while the hook runs. So whatever the configuration, the domain and the controller are,
it ends within its limit, and what went wrong with it refuses nobody but who is managed where the policy is
"deny".
"""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from io import StringIO
from typing import NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree

CONFIG = "/etc/dynmem/dynmem.toml"
SOCKET = "/run/dynmem/control.sock"
NAMESPACE = "urn:dynmem:domain:1"
WAIT_SECONDS = 20.0
LONGEST_WAIT_SECONDS = 120.0  # the configuration's own limit
DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*")
UNITS = {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "day": 86400, "days": 86400}
"""As in `units`."""
ANSWER_MARGIN_SECONDS = 5.0
READ_SECONDS = 5.0  # for configuration and domain: both are files or pipes that are there
TOLD_SECONDS = 2.0
RETRY_SECONDS = 0.5
LARGEST_INPUT = 1 << 20
LARGEST_ANSWER = 1 << 16
LONGEST_TEXT = 1000
WORDS_OF_A_MATCH = frozenset({"name", "uuid", "title", "metadata"})
IN_METADATA = re.compile(
    r"\s*(?://)?(?P<path>[\w.-]+(?::[\w.-]+)?(?:/[\w.-]+(?::[\w.-]+)?)*)(?:/@(?P<attribute>[\w.:-]+))?"
    r"""\s*(?:=\s*(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)")\s*)?"""
)
"""As in `config.rule`."""


class Settings(NamedTuple):
    """What the configuration says about starts."""

    socket: str
    wait: float
    policy: str
    rules: list[dict[str, str]]
    """What each is for; without those that can be no rule."""


class Connection(http.client.HTTPConnection):
    """HTTP over the controller's socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """To the unix socket, whatever name the request has."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Deadline:
    """Ends what is within it by a TimeoutError: a time-out of a socket begins anew with each byte."""

    def __init__(self, seconds: float) -> None:
        self._seconds = max(0.01, seconds)

    def __enter__(self) -> None:
        signal.signal(signal.SIGALRM, self._over)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)

    def _over(self, *_: object) -> None:
        raise TimeoutError(f"no answer within {self._seconds:.0f} s")


def main(arguments: list[str]) -> int:
    """Do what the hook is asked for; returns the exit code."""
    options = {"--config": CONFIG, "--socket": ""}
    # Three words at least are libvirt's own: the first is the VM's name, which may be that of an option.
    while len(arguments) >= 5 and arguments[0] in options:
        options[arguments[0]] = arguments[1]
        arguments = arguments[2:]
    if len(arguments) < 3:
        say("dynmem hook: libvirt gives NAME OPERATION SUB-OPERATION")
        return 2
    name, operation, moment = arguments[:3]
    given = settings(options["--config"], options["--socket"])
    if (operation, moment) == ("prepare", "begin"):
        return admit(given, name, domain_xml())
    if (operation, moment) == ("started", "begin"):
        tell(given.socket, name, "started")
    elif (operation, moment) == ("release", "end"):
        tell(given.socket, name, "stopped")
    return 0


def domain_xml() -> bytes:
    """What libvirt gives on stdin; of one that is too large or does not end, what came."""
    pieces: list[bytes] = []
    try:
        with Deadline(READ_SECONDS):
            while sum(map(len, pieces)) <= LARGEST_INPUT and (piece := os.read(0, 1 << 16)):
                pieces.append(piece)
    except (OSError, ValueError) as error:
        say(f"dynmem: the domain: {error}")
    return b"".join(pieces)


def admit(given: Settings, name: str, xml: bytes) -> int:
    """Ask until there is an answer or the limit is over: the controller may just be starting again."""
    end = time.monotonic() + given.wait
    while True:
        left = max(1.0, end - time.monotonic() + ANSWER_MARGIN_SECONDS)
        patient = given.policy != "allow"
        try:
            answer = post(given.socket, "/v1/admission", xml, left)
            admitted = answer.get("admitted")
            if not isinstance(admitted, bool):
                raise ValueError("the answer does not say whether it is admitted")
        except BlockingIOError as error:  # somebody is there, and others wait before us
            problem, patient = said_of(error), True
        except Exception as error:  # noqa: BLE001 # whatever answers, it is no controller of ours
            problem = said_of(error)
        else:
            if admitted:
                return 0
            say(f"dynmem: {answer.get('message', 'refused')}")
            return 1
        # With nobody there and nothing to protect, nobody has to wait.
        if not patient or time.monotonic() + RETRY_SECONDS >= end:
            return alone(given, name, xml, problem)
        time.sleep(RETRY_SECONDS)


def alone(given: Settings, name: str, xml: bytes, problem: str) -> int:
    """The exit status where no controller answers: 0 lets the VM start, 1 does not, and says why."""
    if given.policy == "allow" or not (NAMESPACE.encode() in xml or taken_in(xml, given.rules)):
        return 0
    say(
        f"dynmem: {name} may not start while no controller answers ({problem}): systemctl start dynmem, "
        'or set [admission] without_controller = "allow"'
    )
    return 1


def taken_in(xml: bytes, rules: list[dict[str, str]]) -> bool:
    """Whether a rule is for the domain. Whether it could take it on is the controller's to say."""
    if not rules:
        return False
    try:
        with Deadline(READ_SECONDS):
            text = xml.decode()
            root = ElementTree.fromstring(text)  # noqa: S314 # libvirt's XML, not a guest's
            prefixes: dict[str, set[str]] = {}
            declared = ElementTree.iterparse(StringIO(text), events=("start-ns",))  # noqa: S314 # the same
            for _, (prefix, uri) in declared:
                prefixes.setdefault(prefix or "", set()).add(uri)
            return any(fits(match, root, prefixes) for match in rules)
    except Exception as error:  # noqa: BLE001 # what cannot be read is nobody's that is managed
        say(f"dynmem: the domain: {said_of(error)}")
        return False


def fits(match: dict[str, str], root: ElementTree.Element, prefixes: dict[str, set[str]]) -> bool:
    """All that the rule names fits."""
    title, uuid = ((root.findtext(tag) or "").strip() for tag in ("title", "uuid"))
    texts = {"name": root.findtext("name") or "", "title": title}
    if not all(fnmatchcase(text, match[key]) for key, text in texts.items() if key in match):
        return False
    if "uuid" in match and not fnmatchcase(uuid.lower(), match["uuid"].lower()):
        return False
    return "metadata" not in match or any(in_metadata(match["metadata"], root, prefixes))


def in_metadata(words: str, root: ElementTree.Element, prefixes: dict[str, set[str]]) -> Iterator[bool]:
    """Of each element that such a path leads to: whether it says what is wanted."""
    asked = IN_METADATA.fullmatch(words)
    if asked is None:
        return
    first, *steps = asked["path"].split("/")
    metadata = root.find("metadata")
    inside = () if metadata is None else metadata.iter()
    found = [one for one in inside if one.tag in expanded(first, prefixes)]
    for step in steps:
        found = [below for one in found for below in one if below.tag in expanded(step, prefixes)]
    wanted = asked["double"] if asked["single"] is None else asked["single"]
    for one in found:
        text = one.get(asked["attribute"]) if asked["attribute"] else (one.text or "").strip()
        yield text is not None and (wanted is None or fnmatchcase(text, wanted))


def expanded(step: str, prefixes: dict[str, set[str]]) -> set[str]:
    """What ElementTree may call `prefix:name`; without a prefix also an element of no namespace."""
    prefix, _, local = step.rpartition(":")
    names = {f"{{{one}}}{local}" if one else local for one in prefixes.get(prefix, ())}
    return names if prefix else {*names, local}


def tell(path: str, name: str, what: str) -> None:
    """Say what became of a VM; without a controller there is nobody to be told."""
    try:
        post(path, f"/v1/admission/{quote(name, '', errors='surrogateescape')}/{what}", b"", TOLD_SECONDS)
    except Exception as error:  # noqa: BLE001 # whatever answers, the VM goes on
        say(f"dynmem: {name}: the controller at {path} cannot be told that it {what}: {said_of(error)}")


def post(path: str, where: str, body: bytes, timeout: float) -> dict[str, object]:
    """The controller's answer. Raises whatever went wrong when there is none within the time."""
    connection = Connection(path, timeout)
    try:
        with Deadline(timeout):
            connection.request("POST", where, body=body, headers={"Connection": "close"})
            response = connection.getresponse()
            answer = json.loads(response.read(LARGEST_ANSWER))
    finally:
        connection.close()
    if not isinstance(answer, dict):
        raise ValueError("the answer is no object")
    if response.status != 200:
        raise ValueError(str(answer.get("message", f"HTTP {response.status}")))
    return answer


def said_of(error: Exception) -> str:
    """What went wrong, in a line."""
    text = getattr(error, "strerror", None) or str(error)
    return text[:LONGEST_TEXT] or type(error).__name__


def say(text: str) -> None:
    """To virsh's error when the start is refused, else to libvirt's log."""
    # A message may come from whoever answered, and the name from whoever defined the domain.
    shown = "".join(one if one.isprintable() else "?" for one in text[: 2 * LONGEST_TEXT])
    with contextlib.suppress(OSError, ValueError):  # nobody may listen
        sys.stderr.write(f"{shown}\n")


def settings(config: str, given_socket: str) -> Settings:
    """What cannot be used of a configuration is left out, key by key."""
    table: dict[str, object] = {}
    try:
        import tomllib

        with contextlib.suppress(FileNotFoundError), Deadline(READ_SECONDS), open(config, "rb") as file:
            table = tomllib.loads(file.read(LARGEST_INPUT).decode("utf-8-sig"))
    except Exception as error:  # noqa: BLE001 # such as one that is nested too deeply
        say(f"dynmem: {config}: {said_of(error)}")
    paths, admission = part(table, "paths"), part(table, "admission")
    directory, socket_path = paths.get("state_dir"), paths.get("socket")
    if not isinstance(socket_path, str) or not socket_path:
        socket_path = f"{directory}/control.sock" if isinstance(directory, str) and directory else SOCKET
    limit = seconds(admission.get("wait"))
    policy = "deny" if admission.get("without_controller") == "deny" else "allow"
    listed = table.get("rule")
    matches = [match_of(one) for one in listed] if isinstance(listed, list) else []
    return Settings(given_socket or socket_path, limit, policy, [one for one in matches if one])


def seconds(wait: object) -> float:
    """How long a start waits; the default where that cannot be used."""
    if isinstance(wait, str) and (text := DURATION.fullmatch(wait.lower())) is not None and text[2] in UNITS:
        wait = float(text[1]) * UNITS[text[2]]
    sane = isinstance(wait, (int, float)) and not isinstance(wait, bool) and 0 <= wait <= LONGEST_WAIT_SECONDS
    return float(wait) if sane else WAIT_SECONDS  # type: ignore[arg-type] # sane


def match_of(rule: object) -> dict[str, str]:
    """What a rule is for; empty where it can be no rule."""
    match = part(rule, "match")
    texts = {key: value for key, value in match.items() if isinstance(value, str)}
    return texts if texts.keys() == match.keys() <= WORDS_OF_A_MATCH else {}


def part(table: object, name: str) -> dict[str, object]:
    """A section; one that is no table counts as empty."""
    section = table.get(name) if isinstance(table, dict) else None
    return section if isinstance(section, dict) else {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
