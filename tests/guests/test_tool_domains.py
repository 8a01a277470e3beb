"""Domains of four tools are taken on and given back by a real libvirt, to the letter. Their vCPUs stand."""

import libvirt
import pytest

from host_controller.domain_xml.edit import difference
from lab.controller import dynmem
from lab.domain import GuestSpec
from lab.guest import Guest
from lab.lab import Lab
from tests.guests.conftest import GuestFactory
from tests.guests.tool_domains import Tool, Wanted, cockpit, defined_by, terraform, vagrant, virt_install

RAM = 512
INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
WAYS = {
    "installed": "balloon and DIMMs move it between 256 MiB and 1 GiB",
    "planned": "its balloon moves it between 128 MiB and 512 MiB",
    "clicked": "its balloon moves it between 128 MiB and 512 MiB",
    "roomy": "balloon and virtio-mem move it between 256 MiB and 1 GiB",
}
MADE: tuple[tuple[Tool, Wanted], ...] = (
    (virt_install, Wanted("installed", RAM, maximum=2 * RAM)),
    (terraform, Wanted("planned", RAM)),
    (cockpit, Wanted("clicked", RAM)),
    (virt_install, Wanted("roomy", RAM, virtio_mem=RAM)),
    (vagrant, Wanted("lab-default", RAM)),
)


@pytest.fixture
def guests(make_guest: GuestFactory) -> list[Guest]:
    made = []
    for tool, wanted in MADE:
        guest = make_guest(GuestSpec(wanted.name, startup_mib=wanted.ram, agent=None))
        guest.redefine(defined_by(tool, wanted, guest.xml))
        guest.domain().createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        made.append(guest)
    return made


def test_what_four_tools_define_is_taken_on_as_it_can_grow_and_given_back_to_the_letter(
    lab: Lab, guests: list[Guest]
) -> None:
    before = {
        guest.name: (guest.domain().XMLDesc(0), guest.domain().XMLDesc(INACTIVE), guest.qemu_pid())
        for guest in guests
    }
    to = ("--connect", lab.session.uri)
    done = dynmem("adopt", "--all", "--minimum", "25%", *to, limit=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lab-default: refused: it belongs to Vagrant" in done.stdout
    for name, way in WAYS.items():
        assert f"\n{name}: adopted\n  now: {way}" in done.stdout, done.stdout
        again = dynmem("release", name, *to)
        assert again.returncode == 0, again.stdout + again.stderr
    for guest in guests:
        live, definition, pid = before[guest.name]
        # Empty metadata stays (fact: metadata-leaves-its-element).
        assert difference(live, guest.domain().XMLDesc(0).replace("  <metadata/>\n", ""), guest.name) == ""
        assert difference(definition, guest.domain().XMLDesc(INACTIVE), guest.name) == ""
        assert guest.qemu_pid() == pid
