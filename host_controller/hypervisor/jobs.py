"""The jobs that hold a domain: libvirt lets nobody else near it meanwhile (fact: job-lock)."""

from typing import Any, Final

import libvirt

INCOMING: Final = "incoming migration"

_JOB_NAMES: Final = {
    getattr(libvirt, f"VIR_DOMAIN_JOB_OPERATION_{name.upper().replace(' ', '_')}", -1): name
    for name in (
        "start",
        "save",
        "restore",
        "dump",
        "snapshot",
        "snapshot revert",
        "snapshot delete",
    )
} | {
    libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN: INCOMING,
    libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT: "migration",
}


def running_job(domain: Any) -> str | None:
    """The job that holds a domain, or None. Asks QEMU only while there is one.

    Backups and block jobs (copy, commit, pull) do not count: they last for hours, read and write disks only,
    and libvirt holds its lock for none of that time but the beginning and the end.
    """
    try:
        # One that has failed or was cancelled holds the domain until libvirt has tidied up behind it.
        if domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE:
            return None
        operation = domain.jobStats().get("operation", -1)
    except libvirt.libvirtError as error:
        refused = (libvirt.VIR_ERR_OPERATION_UNSUPPORTED, libvirt.VIR_ERR_OPERATION_INVALID)
        if error.get_error_code() in refused and domain.isActive():
            return INCOMING  # the one job whose figures libvirt refuses to give
        raise
    if operation == libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP:
        return None
    return _JOB_NAMES.get(operation, "libvirt job")
