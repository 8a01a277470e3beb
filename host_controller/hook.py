"""libvirt's QEMU hook: asks the controller whether a VM may start. Run by libvirt as

    hook.py [--config FILE] [--socket PATH] NAME OPERATION SUB-OPERATION EXTRA   < domain.xml

Only the standard library, and nothing of dynmem: it is run by the system's own Python. It never calls
libvirt, which waits for it (that would be a deadlock), and it says nothing on stdout, which libvirt may take
for XML. Exit code 0 lets the VM start. Anything else refuses it, and stderr appears in virsh's error.

While no controller answers, [admission] without_controller in the configuration decides about managed VMs.
"""

import http.client
import json
import socket
import sys
import time
from urllib.parse import quote

CONFIG = "/etc/dynmem/dynmem.toml"
SOCKET = "/run/dynmem/control.sock"
NAMESPACE = "urn:dynmem:domain:1"
ANSWER_MARGIN_SECONDS = 5.0
TOLD_SECONDS = 2.0
RETRY_SECONDS = 0.5


class Connection(http.client.HTTPConnection):
    """HTTP over the controller's socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def main(arguments: list[str]) -> int:
    """Do what the hook is asked for; returns the exit code."""
    options = {"--config": CONFIG, "--socket": ""}
    while len(arguments) > 1 and arguments[0] in options:
        options[arguments[0]] = arguments[1]
        arguments = arguments[2:]
    if len(arguments) < 3:
        say("dynmem hook: libvirt gives NAME OPERATION SUB-OPERATION")
        return 2
    name, operation, moment = arguments[:3]
    path, limit, policy = settings(options["--config"], options["--socket"])
    if (operation, moment) == ("prepare", "begin"):
        return admit(path, name, sys.stdin.buffer.read(), limit, policy)
    if (operation, moment) == ("started", "begin"):
        tell(path, name, "started")
    elif (operation, moment) == ("release", "end"):
        tell(path, name, "stopped")
    return 0


def admit(path: str, name: str, xml: bytes, limit: float, policy: str) -> int:
    """Ask until there is an answer or the limit is over: the controller may just be starting again."""
    end = time.monotonic() + limit
    problem = ""
    while True:
        left = max(1.0, end - time.monotonic() + ANSWER_MARGIN_SECONDS)
        try:
            answer = post(path, "/v1/admission", xml, left)
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = str(error) or type(error).__name__
        else:
            if answer.get("admitted"):
                return 0
            say(f"dynmem: {answer.get('message', 'refused')}")
            return 1
        # With nobody there and nothing to protect, nobody has to wait.
        if policy == "allow" or time.monotonic() + RETRY_SECONDS >= end:
            return alone(name, xml, policy, problem)
        time.sleep(RETRY_SECONDS)


def alone(name: str, xml: bytes, policy: str, problem: str) -> int:
    """No controller answers."""
    if policy == "allow" or NAMESPACE.encode() not in xml:
        return 0
    say(
        f"dynmem: {name} may not start while no controller answers ({problem}): systemctl start dynmem, "
        'or set [admission] without_controller = "allow"'
    )
    return 1


def tell(path: str, name: str, what: str) -> None:
    """Say what became of a VM; without a controller there is nobody to be told."""
    try:
        post(path, f"/v1/admission/{quote(name, safe='')}/{what}", b"", TOLD_SECONDS)
    except (OSError, http.client.HTTPException, ValueError) as error:
        say(f"dynmem: {error}")


def post(path: str, where: str, body: bytes, timeout: float) -> dict[str, object]:
    """The controller's answer. Raises OSError, HTTPException or ValueError when there is none."""
    connection = Connection(path, timeout)
    try:
        connection.request("POST", where, body=body, headers={"Connection": "close"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise ValueError(answer.get("message", f"HTTP {response.status}"))
        return dict(answer)
    finally:
        connection.close()


def say(text: str) -> None:
    """To virsh's error when the start is refused, else to libvirt's log."""
    sys.stderr.write(f"{text}\n")


def settings(config: str, given_socket: str) -> tuple[str, float, str]:
    """Socket, limit in seconds and policy; a configuration that cannot be read counts as empty."""
    table: dict[str, dict[str, object]] = {}
    try:
        import tomllib

        with open(config, "rb") as file:
            table = tomllib.load(file)
    except (ImportError, OSError, ValueError) as error:
        if not isinstance(error, FileNotFoundError):
            say(f"dynmem: {config}: {error}")
    paths, admission = table.get("paths", {}), table.get("admission", {})
    directory = paths.get("state_dir")
    path = given_socket or paths.get("socket") or (f"{directory}/control.sock" if directory else SOCKET)
    wait = admission.get("wait", 20.0)
    policy = "deny" if admission.get("without_controller") == "deny" else "allow"
    return str(path), float(wait) if isinstance(wait, (int, float)) else 20.0, policy


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
