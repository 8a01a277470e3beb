"""PostgreSQL itself, as Debian packages it, in a guest that has less memory than its shared buffers."""

import pytest

from host_controller.units import MIB
from lab.controller import Limits
from lab.guest import Guest
from lab.image import ensure_image
from tests.guests.conftest import RigFactory

CAPACITY = 2000
LIMITS = Limits(startup=400, minimum=200, maximum=1536, growth="balloon")
SQUEEZED_BYTES = 260 * MIB
SHARED_MIB = 400

# The lab's guest has neither tmpfs on /dev/shm nor /run/postgresql: systemd would have made both.
START = (
    "cd /tmp; setpriv --reuid postgres --regid postgres --init-groups "
    "/usr/lib/postgresql/15/bin/pg_ctl start -s -w -t 60 -D /etc/postgresql/15/main -l /tmp/postgresql.log "
    f"-o '-c shared_buffers={SHARED_MIB}MB -c ssl=off -c dynamic_shared_memory_type=mmap "
    "-c unix_socket_directories=/tmp' < /dev/null > /dev/null 2>&1 && echo started; cat /tmp/postgresql.log"
)
STOP = "pkill -INT -o postgres; while pgrep postgres > /dev/null; do sleep 0.1; done; rm /tmp/postgresql.log"
ROWS = 60_000
FILL = f"create unlogged table t as select n, repeat('x', 1000) from generate_series(1, {ROWS}) n"


def ask(guest: Guest, sql: str) -> str:
    code = f'cd /tmp; setpriv --reuid postgres --regid postgres --init-groups psql -h /tmp -tAc "{sql}"'
    return guest.workload.exec(code, limit=120).strip()


@pytest.mark.faults  # it has an image of its own
def test_postgresql_starts_in_a_squeezed_guest_whose_kernel_alone_would_refuse_its_buffers(
    make_rig: RigFactory,
) -> None:
    rig = make_rig(CAPACITY, shrink_after=2)
    guest = rig.add("database", LIMITS, image=ensure_image("postgresql"))
    rig.controller.wait_vm(guest, lambda vm: vm["assigned_bytes"] < SQUEEZED_BYTES, 90, "squeezed")
    assert guest.workload.memory().total_bytes < SHARED_MIB * MIB

    guest.workload.exec("echo 0 > /proc/sys/vm/overcommit_memory")
    alone = guest.workload.exec(START, limit=90)
    guest.workload.exec("rm /tmp/postgresql.log; echo 1 > /proc/sys/vm/overcommit_memory")
    assert "could not map anonymous shared memory" in alone

    assert guest.workload.exec(START, limit=90).startswith("started")
    assert ask(guest, "show shared_buffers") == f"{SHARED_MIB}MB"
    ask(guest, FILL)
    assert ask(guest, "select count(*) from t") == str(ROWS)
    assert guest.workload.memory().vmstat["oom_kill"] == 0
    guest.workload.exec(STOP, limit=60)
    rig.assert_within()
