"""Which of libvirt's jobs hold a VM, and that nothing is sent to one that is held."""

import libvirt
import pytest
from pytest_mock import MockerFixture

from host_controller.core.interface import AttachDimm, DetachDimm, SetTarget
from host_controller.errors import CallFailed
from host_controller.hypervisor import libvirt_calls
from host_controller.hypervisor.jobs import running_job
from host_controller.units import MIB

RUNS, CANCELLED = libvirt.VIR_DOMAIN_JOB_UNBOUNDED, libvirt.VIR_DOMAIN_JOB_CANCELLED


class Domain:
    """As much of libvirt's domain as is asked before a command; any other call fails the test."""

    def __init__(self, kind: int = libvirt.VIR_DOMAIN_JOB_NONE, operation: int = -1, error: int = 0) -> None:
        self._kind, self._operation, self._error = kind, operation, error

    def jobInfo(self) -> list[int]:  # noqa: N802 # libvirt's name
        if self._error:
            error = libvirt.libvirtError("not now")
            error.err = (self._error, 10, "not now", 2, "", None, None, -1, -1)
            raise error
        return [self._kind]

    def jobStats(self) -> dict[str, int]:  # noqa: N802 # libvirt's name
        return {"operation": self._operation}

    def isActive(self) -> bool:  # noqa: N802 # libvirt's name
        return True


@pytest.mark.parametrize(
    ("domain", "job"),
    [
        (Domain(), None),
        (Domain(RUNS, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT), "migration"),
        # It has been called off, and libvirt still holds its lock.
        (Domain(CANCELLED, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT), "migration"),
        (Domain(RUNS, libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE), "save"),
        (Domain(RUNS, libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT), "snapshot"),
        (Domain(RUNS, libvirt.VIR_DOMAIN_JOB_OPERATION_UNKNOWN), "libvirt job"),
        (Domain(error=libvirt.VIR_ERR_OPERATION_UNSUPPORTED), "incoming migration"),
        (Domain(RUNS, libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP), None),
    ],
)
def test_a_job_that_moves_or_copies_the_vm_holds_it_and_a_backup_does_not(
    domain: Domain, job: str | None
) -> None:
    assert running_job(domain) == job


@pytest.mark.parametrize(
    "command", [SetTarget("vm", 1, 100 * MIB), AttachDimm("vm", 1, 128 * MIB), DetachDimm("vm", 1, "dimm0")]
)
def test_nothing_is_sent_to_a_vm_that_is_held_or_after_its_time(
    command: libvirt_calls.VmCommand, mocker: MockerFixture
) -> None:
    connection = mocker.Mock()
    connection.domain.return_value = Domain(RUNS, libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE)
    with pytest.raises(libvirt_calls.JobRunning, match="save"):
        libvirt_calls.carry_out(connection, command, 2.0)
    # Held up by a job until now: by now something else may be right.
    connection.domain.return_value = Domain()
    with pytest.raises(CallFailed, match="not sent"):
        libvirt_calls.carry_out(connection, command, -1.0)
