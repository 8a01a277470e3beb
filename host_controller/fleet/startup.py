"""What a stopped VM starts with, by the file of its resource; and whether that is prepared."""

import errno
import os
import stat
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Final, NamedTuple

from host_controller.beside import begun
from host_controller.config.rule import RuleSection
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.view import DomainView
from host_controller.errors import DynmemError
from host_controller.fleet.core.model import mib_up
from host_controller.fleet.pacemaker.cib import Cib, Vm
from host_controller.fleet.pacemaker.needs import Need
from host_controller.neutral import neutral, shell_word
from host_controller.rules.matching import is_managed
from host_controller.units import MIB

LARGEST_BYTES: Final = 1 << 20
READ_SECONDS: Final = 2.0
OVERHEAD_BYTES: Final = 64 * MIB
"""QEMU's own, as a host counts it before it has seen it."""


def startup_mib(config: str | None) -> int | None:
    """RAM and QEMU's own memory, as its host's hook wants it to be free; None where the file is not here, or
    is no domain's. RAM in huge pages is none of what a host has published.
    """
    found = _domain(config)
    if found is None:
        return None
    domain = found.view
    ram = domain.starts_with_bytes if domain.huge_page_bytes is None else 0
    return mib_up(ram + OVERHEAD_BYTES)


def unprepared(cib: Cib, rules: tuple[RuleSection, ...] = ()) -> tuple[Need, ...]:
    """What is wrong with those files of VMs that can be read here: nobody would manage the VM, nobody would
    know it by its resource's name, or the engine has it twice. rules: those of this host's configuration, of
    which one may be for it.
    """
    found = [(one, domain) for one in cib.vms if (domain := _domain(one.config, rules)) is not None]
    return tuple(
        Need(f"{one.name}: {one.config}", what, wanted, protects, by_hand=True)
        for one, domain in found
        for what, wanted, protects in _wrong(one, domain, found)
    )


_hanging: dict[str, Future[bytes]] = {}
"""Folders on file servers that answer nobody, each with whoever still waits there: no signal ends that."""


def _read(path: str) -> bytes:
    """What is in a file, up to a byte more than can be a domain. Nothing in a folder that hangs is here.

    Raises:
        OSError: it is no file, or cannot be read in time.
    """
    folder = os.path.dirname(path)
    if folder in _hanging and not _hanging[folder].done():
        raise TimeoutError
    reading = begun(lambda: _content(path), f"reads in {folder}")
    _hanging[folder] = reading
    return reading.result(READ_SECONDS)


def _content(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        return file.read(LARGEST_BYTES + 1)


class _Domain(NamedTuple):
    view: DomainView
    managed: bool
    """It has limits of its own, or a rule gives it some."""


def _wrong(one: Vm, found: _Domain, all_of_them: list[tuple[Vm, _Domain]]) -> Iterator[tuple[str, ...]]:
    domain = found.view
    if not found.managed:
        file = shell_word(one.config or "")
        yield "not prepared", f"dynmem enable --file {file}", "a VM of fixed size that is charged whole"
    if domain.name != one.name:
        named = f"its domain is called {neutral(domain.name, 100)}"
        yield named, one.name, "what its host tells of it being nobody's: it is not placed by demand"
    for other, same in all_of_them:
        # A file may leave the UUID to libvirt.
        if domain.uuid and same.view.uuid == domain.uuid and other.name < one.name:
            yield f"the VM of {other.name}", "one resource a VM", "one VM running on two hosts"


def _domain(config: str | None, rules: tuple[RuleSection, ...] = ()) -> _Domain | None:
    if config is None:
        return None
    try:
        text = _read(config)
        if len(text) > LARGEST_BYTES or b"<!DOCTYPE" in text:
            return None
        xml = text.decode()
        view = read_domain(xml)
        return _Domain(view, is_managed(xml, view, rules))
    except (OSError, ValueError, DynmemError):
        return None
