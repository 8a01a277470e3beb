"""`dynmem verify` on this host, with the lab's kernel: this machine has none of its own."""

import time

import pytest

from host_controller.delivery.agent_file import agent_file
from host_controller.hypervisor.throwaway import ThrowawayDomains
from host_controller.verify.burn_in import course, session
from host_controller.verify.guest_kernel import GuestKernel
from host_controller.verify.initramfs import members
from lab.image import Image
from lab.lab import Lab


def kernel_of(image: Image) -> GuestKernel:
    """The lab's, with the modules of its initrd."""
    files = members(image.initrd.read_bytes())
    order = files["modules/order"].decode().split()
    return GuestKernel(image.kernel, "lab", tuple((name, files[f"modules/{name}"]) for name in order))


@pytest.mark.faults
@pytest.mark.figures
def test_a_burn_in_goes_through_everything_and_leaves_nothing(lab: Lab) -> None:
    domains = ThrowawayDomains(lab.session.uri)
    begun = time.monotonic()
    found = {}
    try:
        owner = (lab.account.uid, lab.account.gid)
        with session.files(kernel_of(lab.image), agent_file(), owner) as place:
            for verdict in session.verdicts(place, lambda: domains.start(session.xml(place))):
                print(f"{time.monotonic() - begun:6.1f} s  {verdict}", flush=True)
                found[verdict.check] = verdict
    finally:
        domains.close()
    print(f"a burn-in: {time.monotonic() - begun:.0f} s")
    assert found.keys() == {*course.NAMES, "observer"}
    assert [one for one in found.values() if one.outcome == "failed"] == []
    assert not place.initrd.exists()
    assert session.NAME not in [one.name() for one in lab.session.connection().listAllDomains()]
