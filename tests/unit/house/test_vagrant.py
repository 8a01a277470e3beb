"""What keeps the Vagrant lab from coming up is said, with what mends it, before anything is changed."""

import subprocess
from dataclasses import replace

import pytest

from vagrant import facts as machine
from vagrant.checks import GIB, MEMORY_BYTES, Disk, Facts, problems

READY = Facts(names=("small", "burst"), wanted_box="new")
UP = replace(
    READY,
    present_box="new",
    domains={"dynmem-small": "1", "dynmem-burst": "2"},
    running=frozenset({"dynmem-small", "dynmem-burst"}),
    volumes=frozenset({"dynmem-small.img", "dynmem-burst.img"}),
    known={"small": "1", "burst": "2"},
    provisioned=frozenset({"small", "burst"}),
)


@pytest.mark.parametrize(
    "good", [READY, UP, replace(READY, present_box="new"), replace(READY, missing_packages=("vagrant",))]
)
def test_nothing_is_in_the_way(good: Facts) -> None:
    assert problems(good) == []


@pytest.mark.parametrize(
    ("bad", "sentence", "command"),
    [
        (replace(READY, root=False), "Only root", "sudo make vagrant-lab"),
        (replace(READY, root=False, private=True), "Only root", "sudo make vagrant-lab NETNS=1"),
        (replace(READY, can_install=False, missing_packages=("vagrant",)), "packages are missing", "vagrant"),
        (replace(READY, available_bytes=MEMORY_BYTES - 1), "need 2.9 GiB of memory", "ps "),
        (replace(READY, disks=(Disk("/var", 5 * GIB, 6 * GIB),)), "6.0 GiB of disk in /var", "du "),
        (replace(READY, foreign_controller=True), "A controller is in charge", "make vagrant-lab NETNS=1"),
        (replace(READY, libvirt_answers=False), "libvirt does not answer", "systemctl start libvirtd"),
        (replace(READY, present_box="old"), "built from other files", "make vagrant-end vagrant-lab"),
        (replace(READY, present_box=""), "built from other files", "make vagrant-end vagrant-lab"),
        (replace(UP, provisioned=frozenset({"small"})), "burst is half made", "vagrant up --provision"),
        (
            replace(UP, private=True, provisioned=frozenset({"small"})),
            "burst is half made",
            "vagrant/enter sh -c 'vagrant up --provision burst'",
        ),
        (replace(READY, volumes=frozenset({"dynmem-burst.img"})), "disk of a guest burst", "destroy -f b"),
        (replace(UP, known={"small": "1"}), "not this Vagrant's", "virsh destroy dynmem-burst; virsh"),
        (
            replace(UP, known={"small": "1", "burst": "3"}, running=frozenset()),
            "not this Vagrant's",
            "cd vagrant; virsh undefine dynmem-burst",
        ),
    ],
)  # fmt: skip
def test_what_is_in_the_way_is_said_with_what_mends_it(bad: Facts, sentence: str, command: str) -> None:
    (problem,) = problems(bad)
    assert sentence in problem.sentence
    assert command in problem.command
    assert str(problem) == f"{problem.sentence} Run: {problem.command}"


def test_all_that_is_in_the_way_is_said_at_once() -> None:
    assert len(problems(replace(UP, root=False, available_bytes=0, present_box="old", known={}))) == 4


def test_guests_that_run_need_no_more_memory() -> None:
    half = replace(UP, running=frozenset({"dynmem-small"}))
    assert problems(replace(UP, available_bytes=0)) == []
    assert problems(replace(half, available_bytes=MEMORY_BYTES // 2)) == []
    assert len(problems(replace(half, available_bytes=MEMORY_BYTES // 2 - 1))) == 1


def test_the_guests_are_those_of_the_vagrantfile() -> None:
    assert machine.guest_names() == ("small", "burst", "important")


@pytest.mark.parametrize("script", ["enter", "box-setup.sh", "provision.sh", "work"])
def test_every_script_can_be_read_by_a_shell(script: str) -> None:
    subprocess.run(["sh", "-n", machine.HERE / script], check=True)
