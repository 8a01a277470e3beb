"""A QEMU guest agent with a guest behind it, in memory: it speaks JSON, and fails on demand."""

import base64
import json
from collections.abc import Callable
from typing import Any

from host_controller.delivery.agent_file import digest
from host_controller.delivery.push import DROP, INSTALLED
from host_controller.guest_agent.errors import GuestAgentRefused, GuestAgentSilent

COMMANDS = (
    *("guest-info", "guest-exec", "guest-exec-status"),
    "guest-fsfreeze-status",
    *("guest-file-open", "guest-file-read", "guest-file-write", "guest-file-close"),
)


class FakeGuestAgent:
    """Call it with a request. `files`: of the guest. `running`: the agent runs in it."""

    def __init__(self, **have: Any) -> None:
        self.files: dict[str, bytes] = have.get("files", {})
        self.running = False
        self.python = have.get("python", "/usr/bin/python3")
        self.forbidden: frozenset[str] = have.get("forbidden", frozenset())
        self.frozen = False
        """Its file systems: it carries out nothing but questions."""
        self.room_bytes: int | None = have.get("room_bytes")
        self.cut_after: int | None = None
        """So many requests are carried out; then the line is cut."""
        self.answer_lost = False
        """The next one is carried out, too, and only its answer is lost."""
        self.twist: Callable[[str, str], str] = lambda command, answer: answer
        """What becomes of an answer."""
        self.install_fails = ""
        self.denied = False
        """It may write no file."""
        self.slow_looks = 0
        """How often a program is still running when it is asked for."""
        self.asked: list[str] = []
        self._open: dict[int, str] = {}
        self._programs: dict[int, tuple[int, str, str]] = {}
        self._looks: dict[int, int] = {}

    def __call__(self, text: str) -> str:
        request = json.loads(text)
        command = request["execute"]
        if self.cut_after is not None and len(self.asked) >= self.cut_after:
            if self.answer_lost and len(self.asked) == self.cut_after:
                self._carry_out(command, request.get("arguments", {}))
            self.asked.append(command)
            raise GuestAgentSilent("cut off")
        self.asked.append(command)
        return self.twist(
            command, json.dumps({"return": self._carry_out(command, request.get("arguments", {}))})
        )

    def _carry_out(self, command: str, given: dict[str, Any]) -> Any:
        if command not in self._enabled():
            raise GuestAgentRefused(f"{command} has been disabled")
        return getattr(self, "_" + command.replace("-", "_"))(
            **{key.replace("-", "_"): v for key, v in given.items()}
        )

    def _enabled(self) -> set[str]:
        asks = {"guest-info", "guest-fsfreeze-status"}
        return (asks if self.frozen else set(COMMANDS)) - self.forbidden

    def _guest_fsfreeze_status(self) -> str:
        return "frozen" if self.frozen else "thawed"

    def _guest_info(self) -> Any:
        names = [
            {"name": name, "enabled": name in self._enabled(), "success-response": True} for name in COMMANDS
        ]
        return {"version": "7.2", "supported_commands": names}

    def _guest_file_open(self, path: str, mode: str) -> int:
        if mode == "r" and path not in self.files:
            raise GuestAgentRefused(f"failed to open file '{path}': No such file or directory")
        if mode == "w" and self.denied:
            raise GuestAgentRefused(f"failed to open file '{path}' (mode: 'w'): Permission denied")
        if mode == "w":
            self.files[path] = b""
        handle = 1000 + len(self._open)
        self._open[handle] = path
        return handle

    def _guest_file_write(self, handle: int, buf_b64: str) -> Any:
        content = base64.b64decode(buf_b64)
        path = self._open[handle]
        if self.room_bytes is not None and len(self.files[path]) + len(content) > self.room_bytes:
            raise GuestAgentRefused("failed to write to file: No space left on device")
        self.files[path] += content
        return {"count": len(content), "eof": False}

    def _guest_file_read(self, handle: int, count: int) -> Any:
        content = self.files[self._open[handle]][:count]
        return {"count": len(content), "buf-b64": base64.b64encode(content).decode(), "eof": True}

    def _guest_file_close(self, handle: int) -> Any:
        del self._open[handle]
        return {}

    def _guest_exec(self, path: str, arg: list[str], capture_output: bool) -> Any:
        assert capture_output
        pid = 100 + len(self._programs)
        self._looks[pid] = self.slow_looks
        self._programs[pid] = self._shell(arg[1]) if path == "/bin/sh" else self._python(*arg[-2:])
        return {"pid": pid}

    def _guest_exec_status(self, pid: int) -> Any:
        self._looks[pid] -= 1
        if self._looks[pid] >= 0:
            return {"exited": False}
        status, output, errors = self._programs[pid]
        data = {
            "out-data": base64.b64encode(output.encode()).decode(),
            "err-data": base64.b64encode(errors.encode()).decode(),
        }
        return {"exited": True, "exitcode": status, **data}

    def _shell(self, script: str) -> tuple[int, str, str]:
        if script.startswith("rm -f"):
            for path in (DROP, INSTALLED + ".new"):
                self.files.pop(path, None)
            return 0, "", ""
        lines = [f"python={self.python}"] if self.python else []
        lines += [
            f"have={path} {digest(self.files[path])}" for path in (INSTALLED, DROP) if path in self.files
        ]
        lines += ["package=yes"] if "/usr/bin/dynmem-agent" in self.files else []
        return 0, "\n".join([*lines, "end=yes"]) + "\n", ""

    def _python(self, source: str, word: str) -> tuple[int, str, str]:
        if word == "remove":
            self.running = False
            for path in (DROP, INSTALLED):
                self.files.pop(path, None)
            return 0, "3 files are removed.\n", ""
        if self.install_fails:
            return 1, "", self.install_fails + "\n"
        self.files[INSTALLED] = self.files[source]
        self.files.pop(DROP, None)
        self.running = True
        return 0, "The agent runs.\n", ""
