"""`make vagrant-lab`: the box, three guests by Vagrant, the controller beside them, and what to try."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from host_controller.verify.errors import VerifyError
from host_controller.verify.processes import send, start_time, wait_gone
from lab import packages
from lab.errors import LabError
from vagrant import box
from vagrant.checks import CAPACITY_BYTES, MIB, Problem, problems
from vagrant.facts import (
    HERE,
    HOME,
    PACKAGES,
    ROOT,
    SOCKET,
    STATE,
    answers,
    boxes,
    gather,
    inside,
    our_controller,
    present_box,
    virsh,
)

DYNMEM: Final = Path(sys.executable).parent / "dynmem"
CONFIGURATION: Final = f"""# Written by `make vagrant-lab`: little memory and short times, to see something.
[libvirt]
uri = "qemu:///system"
[host]
capacity = "{CAPACITY_BYTES // MIB}MiB"
keep_ready = "64MiB"
[timing]
shrink_after = "15s"
settle = "15s"
unplug_after = "2min"
[paths]
history = "{STATE}/history.sqlite"
"""

WHAT_TO_TRY: Final = """
The lab is up: guests small, burst and important, and a controller that has {capacity} MiB for them.
{enter}
    dynmem top                                    watch, in a second terminal
    vagrant ssh burst -c 'work stress 600 60'     a burst is served by balloon and DIMMs
    vagrant ssh important -c 'work postgres 60'   and gives way to what weighs more
    vagrant ssh small -c 'work redis 600'         a guest fills its maximum, and not a byte more
    vagrant ssh burst -c 'work compile 2'
    vagrant reload important                      a reboot keeps limits and promises
    dynmem explain dynmem-burst                   why it is so; dynmem events -n 20

vagrant/README.md walks through them. `make vagrant-end` ends all of it."""


def main() -> int:
    """The exit code: 0 done, 1 it went wrong, 2 it cannot be and nothing was changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["up", "end"])
    parser.add_argument("--netns", action="store_true", help="in namespaces of its own, see ./enter")
    parser.add_argument("guests", nargs="*", help="of those in the Vagrantfile; all by default")
    chosen = parser.parse_intermixed_args()
    try:
        if chosen.what == "end":
            return end()
        return up(chosen.guests, netns=chosen.netns)
    except VerifyError as error:
        print(f"✗ {error}", file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"✗ `{' '.join(map(str, error.cmd))}` failed; see above.", file=sys.stderr)
    return 1


def up(guests: list[str], *, netns: bool) -> int:
    """Bring the lab up, as far as it is not up already."""
    found = gather(netns=netns)
    if refused(problems(found)):
        return 2
    if found.missing_packages:
        subprocess.run([ROOT / "lab/install-packages", PACKAGES], check=True)
        if not netns and refused(problems(gather(netns=False))):
            return 2
    public_box = os.environ.get("DYNMEM_BOX")
    if netns:
        # Out here, since in there nothing can be fetched: the packages of our box, or a public one.
        if public_box is None:
            box.ensure_box(public_key())
        elif not boxes(HOME, public_box):
            home = {**os.environ, "VAGRANT_HOME": str(HOME)}
            vagrant("box", "add", "--provider", "libvirt", public_box, environment=home)
        again = [sys.executable, "-m", "vagrant.lab", "up", *guests]
        return subprocess.run([HERE / "enter", *again], cwd=ROOT, check=False).returncode
    build_agent()
    if public_box is None and present_box() is None:
        file = box.ensure_box(public_key())
        vagrant("box", "add", "--name", box.NAME, str(file))
    start_controller()
    vagrant("up", "--provider", "libvirt", *guests)
    enter = "Type `vagrant/enter` first: it gives a shell in the lab." if inside() else "In vagrant/:"
    print(WHAT_TO_TRY.format(capacity=CAPACITY_BYTES // MIB, enter=enter))
    return 0


def end() -> int:
    """Remove guests, box, controller and namespaces; the cache keeps the built box for the next time."""
    if os.geteuid() != 0:
        raise LabError("Only root may end what root has begun. Run: sudo make vagrant-end")
    if (STATE / "anchor").exists() and not inside():
        subprocess.run([HERE / "enter", sys.executable, "-m", "vagrant.lab", "end"], cwd=ROOT, check=True)
        subprocess.run([HERE / "enter", "--end"], check=True)
    else:
        vagrant("destroy", "--force")
        if present_box() is not None:
            vagrant("box", "remove", "--force", "--all", box.NAME)
        for image in (virsh("vol-list", "--pool", "default") or "").split():
            if image.startswith(f"{box.NAME}_vagrant_box_image_"):  # vagrant-libvirt leaves it
                virsh("vol-delete", "--pool", "default", image)
        stop_controller()
    if not inside():
        shutil.rmtree(STATE, ignore_errors=True)
    return 0


def refused(found: list[Problem]) -> bool:
    """Whether there was any problem; each is said."""
    for problem in found:
        print(f"✗ {problem}", file=sys.stderr)
    return bool(found)


def vagrant(*arguments: str, environment: Mapping[str, str] | None = None) -> None:
    """Vagrant, on this directory's Vagrantfile; its words are for the user."""
    subprocess.run(["vagrant", *arguments], cwd=HERE, env=environment, check=True)


def public_key() -> Path:
    """The key that every Vagrant carries."""
    for place in ("/usr/share/rubygems-integration/all/gems", "/usr/share", "/opt/vagrant"):
        for found in Path(place).glob("**/vagrant*/keys/vagrant.pub"):
            return found
    raise LabError("Vagrant's public key keys/vagrant.pub is not there. Install the package vagrant again.")


def build_agent() -> None:
    """dist/dynmem-agent.deb, for the Vagrantfile."""
    agent = next(path for path in packages.build(ROOT / "dist") if path.name.startswith("dynmem-agent_"))
    shutil.copyfile(agent, ROOT / "dist/dynmem-agent.deb")


def start_controller(limit: float = 60.0) -> None:
    """Beside the guests, until `make vagrant-end`."""
    if our_controller() is not None:
        return
    STATE.mkdir(parents=True, exist_ok=True)
    SOCKET.parent.mkdir(exist_ok=True)
    configuration, log = STATE / "dynmem.toml", STATE / "controller.log"
    configuration.write_text(CONFIGURATION)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [DYNMEM, "run", "--config", configuration],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    (STATE / "controller").write_text(f"{process.pid} {start_time(process.pid)}")
    deadline = time.monotonic() + limit
    while not answers(SOCKET):
        if process.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"The controller does not answer. It said:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)


def stop_controller() -> None:
    """If it runs."""
    pid = our_controller()
    if pid is not None:
        send([pid], signal.SIGTERM)
        wait_gone([pid], limit=15.0)
    (STATE / "controller").unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
