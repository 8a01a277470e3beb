"""The agent's services under OpenRC and runit themselves: it is started, kept and stopped."""

from pathlib import Path

import pytest

from host_controller.delivery.agent_file import agent_file
from lab import inits, namespaces
from lab.errors import FetchError

ROOT = Path(__file__).parents[2]
OPENRC = ROOT / "services/openrc/dynmem-agent"
RUNIT = ROOT / "services/runit/dynmem-agent"
STORY = """
set -e
pids() {
    for one in /proc/[0-9]*; do
        if tr '\\0' ' ' 2> /dev/null < "$one/cmdline" | grep -q "$1"; then echo "${one#/proc/}"; fi
    done
}
agent() { pids 'dynmem-agent run'; }
wait_for() {
    tries=0
    until eval "$1"; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || { echo "not true: $1"; exit 1; }
        sleep 0.1
    done
}
"""
LIFE = """
wait_for '[ -n "$(agent)" ]'
first=$(agent)
grep Umask "/proc/$first/status"
stat -c '%n %a' /run/dynmem-agent
kill -KILL "$first"
wait_for '[ -n "$(agent)" ] && [ "$(agent)" != "$first" ]'
echo is started again
# As if it had set 7 where 0 was before. 7 is not there now, so this is only forgotten.
echo 'overcommit_memory 7 0' > /run/dynmem-agent/overcommit
"""
START_OPENRC = """
rc-update add dynmem-agent default
openrc default
rc-service dynmem-agent status
"""
STOP_OPENRC = """
rc-service dynmem-agent stop
"""
START_RUNIT = """
mkdir -p /var/service
ln -s /etc/sv/dynmem-agent /var/service/
runsvdir /var/service &
"""
STOP_RUNIT = """
sv stop /var/service/dynmem-agent
rm /var/service/dynmem-agent
wait_for '[ -z "$(pids "^runsv ")" ]'
kill $!
"""
END = """
wait_for '[ -z "$(pids dynmem-agent)" ]'
ls /run/dynmem-agent
echo that is all
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why_not := namespaces.why_not(namespaces.NODES):
        pytest.skip(why_not)
    try:
        inits.unpacked()
    except FetchError as error:
        pytest.skip(str(error))
    path = tmp_path_factory.mktemp("agent") / "dynmem-agent"
    path.write_bytes(agent_file())
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("service", "target", "start", "stop"),
    [
        (OPENRC, "/etc/init.d/dynmem-agent", START_OPENRC, STOP_OPENRC),
        (RUNIT, "/etc/sv/dynmem-agent", START_RUNIT, STOP_RUNIT),
    ],
    ids=["OpenRC", "runit"],
)
def test_an_init_starts_the_agent_keeps_it_and_stops_it_and_nothing_is_left(
    program: Path, service: Path, target: str, start: str, stop: str
) -> None:
    files = {"/usr/bin/dynmem-agent": program, target: service}
    done = inits.run(STORY + start + LIFE + stop + END, files)
    said = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout
    assert "Umask:\t0077" in said
    assert "/run/dynmem-agent 755" in said, "whoever runs a program may read the guest's maximum"
    assert said[said.index("is started again") :][-1] == "that is all", "what it had set was not put back"
    assert "overcommit" not in said
