"""A stranger's process on a real host: with the VM's UUID, with QEMU's name, before the VM and beside it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from host_controller.host.identity import Identity
from host_controller.host.libvirt_run import pid_directory
from host_controller.units import MIB
from lab.controller import Controller, Limits, dynmem
from tests.guests.conftest import RigFactory

HELD = 1200
"""MiB that the stranger really holds: far more than a busy machine's other programs come and go with."""


WORK = """
import sys, time
open("/proc/self/comm", "w").write(sys.argv[1])
held = b"x" * (int(sys.argv[2]) << 20)
print("ready", flush=True)
time.sleep(600)
"""


@contextmanager
def stranger(uuid: str, *, name: str = "sleep", held: int = HELD) -> Iterator[int]:
    """Another user's process with a name, MiB of its own, and the argument of the VM's QEMU."""
    user = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"]
    program = ["/usr/bin/python3", "-I", "-S", "-c", WORK, name, str(held), "-uuid", uuid]
    with subprocess.Popen([*user, *program], cwd="/", stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == b"ready"
            yield process.pid
        finally:
            process.kill()


def test_a_stranger_with_a_vms_uuid_is_never_taken_for_it_and_counts_as_what_it_holds(
    make_rig: RigFactory,
) -> None:
    rig = make_rig(2000)
    guest = rig.define("vm", Limits(startup=256, minimum=128, maximum=512))
    uuid = guest.session.connection().lookupByName(guest.name).UUIDString()
    with stranger(uuid, name="qemu-system-x86", held=400):
        rig.start(guest)
        rig.controller.wait_managed(guest)
        assert Identity(guest.session.uri).find(uuid) == guest.qemu_pid()
        before = rig.controller.status()["host"]
        with stranger(uuid):
            vm = rig.controller.wait_vm(guest, lambda vm: vm["resident_bytes"] > 0, 60, "it is measured")
            assert vm["resident_bytes"] <= 300 * MIB, "a stranger's memory is not the guest's"
            grown = rig.controller.wait_for(
                lambda status: status["host"]["others_bytes"] >= before["others_bytes"] + HELD // 2 * MIB,
                10,
                "what the stranger really holds counts as others' use",
            )["host"]
            assert grown["others_bytes"] <= before["others_bytes"] + HELD * 3 // 2 * MIB, "it counts once"
            assert grown["charged_bytes"] <= before["charged_bytes"] + 16 * MIB
        assert not grown["unread"]


def test_libvirts_word_is_read_where_this_libvirt_keeps_it(make_rig: RigFactory) -> None:
    rig = make_rig(2000)
    directory = pid_directory(rig.session.uri)
    assert directory is not None
    assert str(directory).startswith(str(rig.session.directory))
    assert os.path.isdir(directory)


def test_a_second_controller_on_one_libvirt_refuses_whatever_its_state_directory(
    make_rig: RigFactory,
) -> None:
    rig = make_rig(2000)
    second = Controller(rig.lab.directory / "second", rig.session.uri, 1000)
    done = dynmem("run", "--config", str(second.config), limit=60)
    assert done.returncode == 1
    assert "another controller is in charge of the libvirt" in done.stderr
    assert f"pid {rig.controller.pid}" in done.stderr
    by_another_name = f"{rig.session.uri}&mode=auto".replace("qemu+unix", "qemu")
    done = dynmem("run", "--config", str(second.config), "--connect", by_another_name, limit=60)
    assert "another controller is in charge of the libvirt" in done.stderr
    checked = dynmem("check-config", str(second.config))
    assert checked.returncode == 2
    assert f"managed by pid {rig.controller.pid}" in checked.stderr
    mine = dynmem("check-config", str(rig.controller.config))
    assert mine.returncode == 0, "its own configuration can be used: that is what a reload would do"
    rig.controller.stop()
    assert dynmem("check-config", str(second.config)).returncode == 0
