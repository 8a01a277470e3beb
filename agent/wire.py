"""The contract between agent and host: messages, and how each field is written. PROTOCOL.md is its prose.

`codec.py` makes lines of them, and messages of lines.

Messages are NamedTuples, not dataclasses: importing dataclasses costs the guest's daemon 1 MiB more.
Sizes are bytes here; on the wire a report carries KiB, to stay below 100 B/s when all is calm.
"""

from agent.lean import Annotated, Literal, NamedTuple, Optional, Union
from agent.values import MAX_SIZE_BYTES, Choice, Decimal, Flag, Holders, Integer, Kib, Kind, Text, Versions

VERSION = 1
SUPPORTED_VERSIONS = (VERSION,)
PORT_NAME = "org.dynmem.agent.0"

MAX_DETAIL_CHARS = 200
MOST_PAGE_BYTES = 1 << 18  # the largest base page of any Linux architecture is 256 KiB

Zone = Literal["movable", "kernel"]
Hotplug = Literal["kernel", "agent", "none", "other"]
Willing = Literal["on", "off", "unknown"]
HeldBy = Literal["services", "processes", "other"]
Seen = Literal["all", "cut", "hidden", "other"]
Reason = Literal["heartbeat", "moved", "pressure", "hotplug", "hello", "other"]
# "other" stands for a word that a newer agent has; no agent says it.


class On(NamedTuple):
    """How a field is written on the wire: its key, and the values that are accepted."""

    key: str
    kind: Kind


_COUNT = Integer()
_SIZE = Integer(MAX_SIZE_BYTES)
_REQUEST = On("id", _COUNT)
_ZONE = On("zone", Choice("movable", "kernel"))
_START, _LENGTH = On("start", _SIZE), On("size", _SIZE)
_KIB = Kib()
_PERCENT = Decimal(0.0, 100.0)
_NAME = Text(64)
_DETAIL = Text(MAX_DETAIL_CHARS)
_HEX = "0123456789abcdef"


class Hello(NamedTuple):
    """Guest: who I am. First message after the port opens, and the answer to every Welcome.

    boot_id: /proc/sys/kernel/random/boot_id. block_bytes: size of a memory block, 0 without memory
    hotplug. psi: the kernel has PSI. online_policy: auto_online_blocks, "" if there is none. hotplug:
    who brings new memory online. welcomed: this Hello answers a Welcome and must not be answered.
    holders: whether it answers WhoHolds; "off": its administrator does not want it; "unknown": too old.
    """

    boot_id: Annotated[str, On("boot", Text(36, least=36, alphabet=_HEX + "-"))]
    agent_version: Annotated[str, On("agent", _NAME)]
    kernel_release: Annotated[str, On("kernel", _NAME)]
    block_bytes: Annotated[int, On("block", _SIZE)]
    psi: Annotated[bool, On("psi", Flag())]
    online_policy: Annotated[str, On("policy", Text(32))]
    hotplug: Annotated[Hotplug, On("hotplug", Choice("kernel", "agent", "none", other="other"))]
    welcomed: Annotated[bool, On("welcomed", Flag())] = False
    holders: Annotated[Willing, On("holders", Choice("on", "off", other="unknown"))] = "unknown"


class Report(NamedTuple):
    """Guest: memory facts of one instant, so that usable minus available means something.

    Sizes in bytes, 0..1 PiB. `*_pages`, `major_faults` and `psi_*_total_us` count from boot.
    PSI averages are percent, 0..100; the four are None together when the kernel has no PSI.
    commit_limit_bytes: CommitLimit where the kernel refuses by it (vm.overcommit_memory=2), else 0.
    kill_percent: the available share of MemTotal at which a daemon in the guest kills.
    page_bytes: the page that the counters count.
    sequence restarts at 0 with the agent. Sources of each figure: agent/probe.py.
    """

    boot_id_prefix: Annotated[str, On("b", Text(8, least=8, alphabet=_HEX))]
    sequence: Annotated[int, On("n", _COUNT)]
    uptime_seconds: Annotated[float, On("up", Decimal(0.0, 1e10))]
    total_bytes: Annotated[int, On("mt", _KIB)]
    available_bytes: Annotated[int, On("ma", _KIB)]
    free_bytes: Annotated[int, On("mf", _KIB)]
    reclaimable_bytes: Annotated[int, On("rc", _KIB)] = 0
    swap_total_bytes: Annotated[int, On("st", _KIB)] = 0
    swap_used_bytes: Annotated[int, On("su", _KIB)] = 0
    swap_cached_bytes: Annotated[int, On("sc", _KIB)] = 0
    swap_disk_used_bytes: Annotated[int, On("sd", _KIB)] = 0
    swap_disk_free_bytes: Annotated[int, On("sf", _KIB)] = 0
    swap_in_pages: Annotated[int, On("si", _COUNT)] = 0
    committed_bytes: Annotated[int, On("ca", _KIB)] = 0
    psi_some_avg10: Annotated[Optional[float], On("ps", _PERCENT)] = None
    psi_full_avg10: Annotated[Optional[float], On("pf", _PERCENT)] = None
    psi_some_total_us: Annotated[Optional[int], On("pst", _COUNT)] = None
    psi_full_total_us: Annotated[Optional[int], On("pft", _COUNT)] = None
    refault_pages: Annotated[int, On("rf", _COUNT)] = 0
    major_faults: Annotated[int, On("mj", _COUNT)] = 0
    online_bytes: Annotated[int, On("on", _KIB)] = 0
    offline_bytes: Annotated[int, On("of", _KIB)] = 0
    movable_bytes: Annotated[int, On("mv", _KIB)] = 0
    ballooned_bytes: Annotated[int, On("bl", _KIB)] = 0
    floor_bytes: Annotated[int, On("fl", _KIB)] = 0
    commit_limit_bytes: Annotated[int, On("cl", _KIB)] = 0
    kill_percent: Annotated[int, On("kp", Integer(100))] = 0
    page_bytes: Annotated[int, On("pg", Integer(MOST_PAGE_BYTES))] = 4096
    reason: Annotated[
        Reason, On("w", Choice("heartbeat", "moved", "pressure", "hotplug", "hello", other="other"))
    ] = "heartbeat"


class Ack(NamedTuple):
    """Guest: request_id is done, as far as it will be. changed_bytes went on- or offline for it."""

    request_id: Annotated[int, _REQUEST]
    ok: Annotated[bool, On("ok", Flag())]
    detail: Annotated[str, On("detail", _DETAIL)] = ""
    changed_bytes: Annotated[int, On("changed", _SIZE)] = 0


class Held(NamedTuple):
    """Guest: who holds most of its memory, largest first. Answers WhoHolds.

    by: services (control groups) or processes, summed by their names. Sources: agent/holders.py.
    seen: all of them; cut: there are more than the agent looks at; hidden: the kernel hides some (hidepid).
    """

    request_id: Annotated[int, _REQUEST]
    by: Annotated[HeldBy, On("by", Choice("services", "processes", other="other"))]
    holders: Annotated[tuple[tuple[str, int], ...], On("top", Holders())]
    seen: Annotated[Seen, On("seen", Choice("all", "cut", "hidden", other="other"))] = "all"


class Error(NamedTuple):
    """Either side: what you sent was dropped. Read whatever its version; never answered."""

    code: Annotated[str, On("code", Text(32, least=1, alphabet="abcdefghijklmnopqrstuvwxyz-"))]
    message: Annotated[str, On("message", _DETAIL)] = ""
    supported_versions: Annotated[tuple[int, ...], On("supported", Versions())] = SUPPORTED_VERSIONS


class Welcome(NamedTuple):
    """Host: I am listening, report at these intervals (seconds). Answered by Hello and a Report.

    maximum_bytes: what the guest may come to have in all; 0: not told.
    """

    controller_version: Annotated[str, On("controller", _NAME)]
    calm_seconds: Annotated[float, On("calm", Decimal(0.2, 5.0, clamp=True))] = 0.5
    heartbeat_seconds: Annotated[float, On("heartbeat", Decimal(1.0, 60.0, clamp=True))] = 5.0
    alert_seconds: Annotated[float, On("alert", Decimal(0.05, 1.0, clamp=True))] = 0.1
    maximum_bytes: Annotated[int, On("maximum", _SIZE)] = 0


class OnlineZone(NamedTuple):
    """Host: bring memory that is plugged from now on online in this zone. Answered by Ack."""

    request_id: Annotated[int, _REQUEST]
    zone: Annotated[Zone, _ZONE]


class Offline(NamedTuple):
    """Host: take the memory blocks of this guest-physical range offline. Answered by Ack."""

    request_id: Annotated[int, _REQUEST]
    start_bytes: Annotated[int, _START]
    size_bytes: Annotated[int, _LENGTH]


class Online(NamedTuple):
    """Host: bring the offline blocks of this guest-physical range online. Answered by Ack."""

    request_id: Annotated[int, _REQUEST]
    start_bytes: Annotated[int, _START]
    size_bytes: Annotated[int, _LENGTH]
    zone: Annotated[Zone, _ZONE]


class Ping(NamedTuple):
    """Host: are you there? Answered by Ack and a Report."""

    request_id: Annotated[int, _REQUEST]


class WhoHolds(NamedTuple):
    """Host: which services or processes hold most of your memory? Answered by Held, or by Ack: no.

    Only for an agent whose Hello says that it answers.
    """

    request_id: Annotated[int, _REQUEST]


GuestMessage = Union[Hello, Report, Ack, Held, Error]
HostMessage = Union[Welcome, OnlineZone, Offline, Online, Ping, WhoHolds, Error]
Message = Union[GuestMessage, HostMessage]


def printable(text: str, limit: int = MAX_DETAIL_CHARS) -> str:
    """The text fit for Ack.detail and Error.message: unprintable characters replaced, cut to limit."""
    return "".join(c if c.isprintable() else "?" for c in text)[:limit]
