"""Nodes, the switch between them, and an exit that leaves nothing behind."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self
from xml.etree import ElementTree

from host_controller.verify.accelerator import find_accelerator
from host_controller.verify.workload import Workload
from lab.cluster import remains, resources
from lab.cluster.evidence import said_by
from lab.cluster.layout import check_out, lay_out
from lab.cluster.machine import Machine, has_ended
from lab.cluster.network import ADDRESSES, Network
from lab.cluster.power import PowerSwitch
from lab.cluster.shell import of_this_tree, run
from lab.code_disk import make_code_disk
from lab.domain import GuestSpec, domain_xml
from lab.errors import LabError
from lab.image import ensure_image

PORT = 8686
UP_SECONDS = 240.0
DYNMEM = str(Path(sys.executable).parent / "dynmem")


class Cluster:
    """Use as a context manager, as root. `guests`: the names of guests that may be made; `older`: nodes where
    dynmem is of a commit before.
    """

    def __init__(
        self,
        nodes: tuple[str, ...] = ("n1", "n2", "n3"),
        guests: tuple[str, ...] = (),
        capacity_mib: int = 1400,
        older: Mapping[str, str] | None = None,
    ) -> None:
        self.nodes, self.guests, self.capacity_mib = nodes, guests, capacity_mib
        self._older = older or {}
        self._name = remains.name_of(os.getpid())
        self._network = Network(self._name, nodes)
        self._machines: dict[str, Machine] = {}
        self._away: set[str] = set()
        self._switch: PowerSwitch | None = None
        self._workloads: dict[str, Workload] = {}

    def __enter__(self) -> Self:
        remains.remove_crashed()
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self._name}-", dir=remains.DIRECTORIES))
        try:
            self.directory.chmod(0o755)
            self._prepare()
            self._network.make()
            for name in self.nodes:
                self._machines[name] = Machine(name, self.directory, self._network.space(name))
                self.switch_on(name)
            self.wait_whole()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Exception):
            for what, said in said_by(self):
                print(f"--- {what}\n{said}")
        self.close()

    def close(self) -> None:
        """End every process: with PID 1 of a namespace all of its processes end."""
        if self._switch is not None:
            self._switch.close()
        for workload in self._workloads.values():
            workload.close()
        for machine in self._machines.values():
            machine.cut_power()
        remains.remove(os.getpid())

    def on(self, node: str, *command: str, check: bool = True, limit: float = 120.0) -> str:
        """What a command on a node says; its errors, too, when they are not to be raised."""
        inside = ["nsenter", "-t", str(self._machines[node].init()), "-r", "-m", "-u", "-i", "-n", "-p", "--"]
        words = [*inside, *command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit, env=of_this_tree())
        if check and done.returncode != 0:
            raise LabError(f"{command[0]} on {node}: {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout if check else done.stdout + done.stderr

    def dynmem(self, node: str) -> str:
        """The command of the version that a node has."""
        return str(self.directory / f"dynmem-{node}" / "dynmem") if node in self._older else DYNMEM

    @property
    def first(self) -> str:
        """A node that can be asked."""
        return next(name for name in self.nodes if name not in self._away)

    def fence(self) -> None:
        """Give the cluster a power switch for its nodes, and switch fencing on."""
        self._switch = PowerSwitch(self.directory / "power.sock", self.nodes, self.switch_off)
        self.on(self.first, "cibadmin", "--create", "-o", "resources", "-X", resources.FENCING)
        self.on(self.first, "crm_attribute", "-t", "crm_config", "-n", "stonith-enabled", "-v", "true")
        self.until(lambda: self.place_of("fence") is not None, "the power switch is watched", 60.0)

    def switch_off(self, node: str) -> None:
        """Cut a node's power. When this returns nothing of it runs any more."""
        self._away.add(node)
        within = self._machines[node].within()
        self._machines[node].cut_power()
        self.until(lambda: all(map(has_ended, within)), f"all of {node} has ended", 60.0)

    def switch_on(self, node: str) -> None:
        """Start a node."""
        self._machines[node].switch_on()
        self._away.discard(node)
        self.until(self._machines[node].within, f"{node} is switched on", 20.0)

    def off(self, node: str) -> bool:
        """Its power was cut, by whomsoever."""
        return self._machines[node].off

    def cut(self, *nodes: str) -> None:
        """Take nodes off the network."""
        self._away.update(nodes)
        for node in nodes:
            self._network.cut(node)

    def mend(self, *nodes: str) -> None:
        """Put them back."""
        for node in nodes:
            self._network.mend(node)
            if not self.off(node):
                self._away.discard(node)

    def repair(self, *nodes: str) -> None:
        """Put nodes back, one after the other, and switch those on that are off.

        Two that met first would be the cluster, and fence the third.
        """
        for node in nodes:
            self.mend(node)
            self.until(partial(self._is_back, node), f"{node} is back", UP_SECONDS)
        self.wait_whole()
        self.rest(self.first)

    def wait_whole(self) -> None:
        """Until every node is online and managed.

        Raises:
            LabError: a node is not. Seldom that is the engine's own doing (fact: former-dc-writes-late).
        """
        self.until(self._all_online, "every node is online", UP_SECONDS)
        for name in self.nodes:
            self.until(partial(self._manages, name), f"{name} is managed", UP_SECONDS)

    def give(self, node: str, capacity_mib: int) -> None:
        """Let a node's VMs cost so much from now on."""
        file = "/etc/dynmem/dynmem.toml"
        self.on(node, "sed", "-i", f's/^capacity = .*/capacity = "{capacity_mib}MiB"/', file)
        self.on(node, DYNMEM, "reload")

    def processes(self, guest: str) -> frozenset[int]:
        """QEMUs that have the guest's disk open by their command lines, on all nodes."""
        disk = str(self.directory / f"{guest}.qcow2").encode()
        found = (
            one.parent.name for one in Path("/proc").glob("[0-9]*/cmdline") if disk in _command_line(one)
        )
        return frozenset(int(one) for one in found)

    def fleet(self, node: str, *words: str, check: bool = True) -> str:
        """`dynmem fleet …` on a node."""
        return self.on(node, DYNMEM, "fleet", *words, check=check)

    def publish(self, node: str) -> None:
        """A turn of the arbiter, once the engine rests; anew while the engine gets to work before it.

        Raises:
            LabError: for a minute it did.
        """

        def done() -> bool:
            self.rest(node)
            try:
                self.on(node, self.dynmem(node), "fleet", "run", "--once")
            except LabError:
                return False
            return True

        self.until(done, "a turn of the arbiter is not left out", 60.0)

    def rest(self, node: str) -> None:
        """Wait until the engine rests."""
        self.on(node, "crm_resource", "--wait", "--timeout=60s")

    def status(self) -> dict[str, Any]:
        """`dynmem fleet status --json`."""
        found: dict[str, Any] = json.loads(self.fleet(self.first, "status", "--json"))
        return found

    def place_of(self, guest: str) -> str | None:
        """Where a guest runs, by the engine."""
        root = ElementTree.fromstring(self.on(self.first, "crm_mon", "-1", "--output-as=xml"))
        found = root.find(f".//resource[@id='{guest}']/node")
        return None if found is None else found.get("name")

    def file_of(
        self, guest: str, startup_mib: int = 384, maximum_mib: int = 1024, *, boots: bool = True
    ) -> Path:
        """A guest's transient domain, prepared by `dynmem enable`, where every node reads it.

        One that does not boot stays in its firmware: enough where it only matters where its QEMU is.
        """
        file = self.directory / f"{guest}.xml"
        disk = self.directory / f"{guest}.qcow2"
        base = str(self._image.root_disk)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, str(disk))
        spec = GuestSpec(guest, startup_mib)
        text = domain_xml(spec, find_accelerator(), self._image, self._code, disk, Path("/run/lab", guest))
        if not boots:
            text = re.sub(r"<(kernel|initrd|cmdline)>.*?</\1>", "", text, flags=re.DOTALL)
        file.write_text(text)
        first = self.first
        self.on(first, "virsh", "define", str(file))
        sizes = ("--startup", f"{startup_mib}M", "--minimum", "256M", "--maximum", f"{maximum_mib}M")
        self.on(first, DYNMEM, "enable", guest, *sizes)
        file.write_text(self.on(first, "virsh", "dumpxml", "--inactive", guest))
        self.on(first, "virsh", "undefine", guest)
        return file

    def add(self, guest: str, file: Path) -> None:
        """Give a guest to the cluster as anybody would, without what `dynmem fleet init` sets."""
        xml = resources.vm(guest, str(file))
        self.on(self.first, "cibadmin", "--create", "-o", "resources", "-X", xml)

    def add_arbiter(self) -> None:
        """Have the cluster run dynmem's arbiter."""
        xml = resources.arbiter(DYNMEM)
        self.on(self.first, "cibadmin", "--create", "-o", "resources", "-X", xml)
        self.until(lambda: self.place_of("arbiter") is not None, "the arbiter runs", 60.0)

    def start(self, guest: str, limit: float = 90.0) -> str:
        """Ask the engine to start a guest; returns where it did."""
        first = self.first
        self.on(first, "crm_resource", "-r", guest, "--meta", "-p", "target-role", "-v", "Started")
        self.until(lambda: self.place_of(guest) is not None, f"{guest} is started", limit)
        self.rest(first)
        place = self.place_of(guest)
        assert place is not None
        return place

    def workload(self, guest: str, node: str) -> Workload:
        """What commands a guest from the inside. Its port takes one client: the one before is closed."""
        if guest in self._workloads:
            self._workloads.pop(guest).close()
        place = Path(f"/proc/{self._machines[node].init()}/root/run/lab/{guest}")
        socket, console = place / "lab.sock", place / "console.log"
        found = Workload(guest, socket, lambda: console.read_text(errors="replace")[-2000:])
        self._workloads[guest] = found
        return found

    def until(self, true: Callable[[], object], what: str, limit: float) -> None:
        """Wait for a condition.

        Raises:
            LabError: it did not become true within the limit.
        """
        end = time.monotonic() + limit
        while not true():
            if time.monotonic() > end:
                raise LabError(f"it did not come about within {limit:.0f} s that {what}")
            time.sleep(0.2)

    def _prepare(self) -> None:
        self._image = ensure_image()
        self._code = self.directory / "code.ext4"
        make_code_disk(self._code, self._image.initrd)
        for name, commit in self._older.items():
            check_out(commit, Path(self.dynmem(name)).parent)
        lay_out(self.directory, self.nodes)
        plan = {"nodes": self.nodes, "guests": self.guests, "network": ADDRESSES, "port": PORT}
        plan |= {
            "capacity_mib": self.capacity_mib,
            "dynmem": {name: self.dynmem(name) for name in self.nodes},
        }
        (self.directory / "plan.json").write_text(json.dumps(plan))

    def _is_back(self, node: str) -> bool:
        """Whether the cluster has it. It may be fenced as it comes: then it is switched on."""
        if self.off(node):
            self.switch_on(node)
        return node in self._online()

    def _all_online(self) -> bool:
        return self._online() == set(self.nodes)

    def _online(self) -> set[str | None]:
        """Nodes that the cluster has; none without quorum."""
        try:
            said = self.on(self.first, "crm_mon", "-1", "--output-as=xml", check=False)
            root = ElementTree.fromstring(said)
        except (LabError, ElementTree.ParseError):
            return set()
        if root.find("summary/current_dc[@with_quorum='true']") is None:
            return set()
        return {one.get("name") for one in root.findall("nodes/node[@online='true'][@pending='false']")}

    def _manages(self, name: str) -> bool:
        """Whether the node's controller is at work with the node's libvirt."""
        try:
            found = json.loads(self.on(name, DYNMEM, "status", "--json", check=False))
        except ValueError:
            return False
        return found["host"]["connected"] is True


def _command_line(file: Path) -> bytes:
    try:
        found = file.read_bytes()
    except OSError:  # it has ended
        return b""
    return found if found.startswith(b"/usr/bin/qemu-system") else b""
