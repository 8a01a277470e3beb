"""PID 1 of a node: `python -m lab.cluster.node DIRECTORY NAME`, in namespaces of its own.

What a host keeps for itself is a tmpfs here, so that nothing of this machine is touched and nothing is left.
"""

import grp
import json
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PRIVATE = (
    "/run", "/dev/shm", "/etc/corosync", "/var/lib/corosync", "/var/lib/pacemaker", "/var/log",
    "/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/etc/dynmem", "/var/lib/dynmem",
)  # fmt: skip
AGENTS = Path("/usr/lib/ocf/resource.d")
LIBVIRT = (
    *(f"/etc/libvirt/{one}" for one in ("qemu", "hooks", "nwfilter", "storage", "secrets")),
    *(f"/var/lib/libvirt/{one}" for one in ("qemu", "images", "boot")),
    "/var/cache/libvirt/qemu", "/var/log/libvirt/qemu",
)  # fmt: skip
"""What its packages make, and it does not start without."""
SEED = (
    '<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="0">'
    '<configuration><crm_config><cluster_property_set id="cib-bootstrap-options">'
    '<nvpair id="o1" name="dc-deadtime" value="2s"/><nvpair id="o2" name="stonith-enabled" value="false"/>'
    "</cluster_property_set></crm_config><nodes/><resources/><constraints/></configuration><status/></cib>"
)
"""With it the first election takes two seconds and not twenty."""


def main(directory: Path, name: str) -> None:
    """Start everything, then collect orphans for ever."""
    plan = json.loads((directory / "plan.json").read_text())
    run("hostname", name)
    run("mount", "-t", "proc", "proc", "/proc")
    for path in PRIVATE:
        Path(path).mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", path)
    for one in ("hosts", "passwd", "group"):
        run("mount", "--bind", str(directory / one), f"/etc/{one}")
    run("mount", "--bind", str(directory / "ocf"), str(AGENTS))
    # The engine finds fencing agents in /usr/sbin alone.
    run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={directory}/sbin:/usr/sbin", "/usr/sbin")
    start_cluster(plan)
    dynmem = plan["dynmem"][name]
    prepare_dynmem(directory, name, plan, dynmem)
    start_libvirt(plan["nodes"].index(name) + 1, plan["guests"])
    start_dynmem(dynmem)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.2)


def start_cluster(plan: dict[str, Any]) -> None:
    user, group = pwd.getpwnam("hacluster").pw_uid, grp.getgrnam("haclient").gr_gid
    for path, mode in (
        ("/var/lib/pacemaker", 0o750),
        *((f"/var/lib/pacemaker/{one}", 0o750) for one in ("cib", "pengine", "blackbox", "cores")),
        ("/var/log/pacemaker", 0o770),
        ("/run/crm", 0o750),
    ):
        Path(path).mkdir(exist_ok=True)
        os.chown(path, user, group)
        os.chmod(path, mode)
    for path in ("/var/log/corosync", "/run/resource-agents", "/run/lock"):
        Path(path).mkdir()
    seed = Path("/var/lib/pacemaker/cib/cib.xml")
    seed.write_text(SEED)
    os.chown(seed, user, group)
    seed.chmod(0o600)
    nodes = "".join(
        f"node {{\n name: {name}\n nodeid: {number}\n ring0_addr: {plan['network']}.{number}\n}}\n"
        for number, name in enumerate(plan["nodes"], 1)
    )
    Path("/etc/corosync/corosync.conf").write_text(
        "totem {\n version: 2\n cluster_name: lab\n transport: knet\n"
        " crypto_cipher: none\n crypto_hash: none\n token: 5000\n}\n"
        "logging {\n to_syslog: no\n to_logfile: yes\n logfile: /var/log/corosync/corosync.log\n}\n"
        "system {\n sched_rr: no\n move_to_root_cgroup: no\n}\n"
        f"quorum {{\n provider: corosync_votequorum\n}}\nnodelist {{\n{nodes}}}\n"
    )
    run("corosync")
    more = {"PCMK_logfile": "/var/log/pacemaker/pacemaker.log", "PCMK_logfacility": "none"}
    subprocess.Popen(["pacemakerd", "-f"], env={**os.environ, **more})


def start_libvirt(number: int, guests: list[str]) -> None:
    for path in LIBVIRT:
        Path(path).mkdir(parents=True, exist_ok=True)
    for guest in guests:
        Path("/run/lab", guest).mkdir(parents=True)
    Path("/etc/libvirt/libvirt.conf").touch()
    Path("/etc/libvirt/libvirtd.conf").write_text(
        f'host_uuid = "6c616200-0000-4000-8000-{number:012d}"\nlisten_tls = 0\nlisten_tcp = 1\n'
        'listen_addr = "0.0.0.0"\nauth_tcp = "none"\nauth_unix_rw = "none"\n'
    )
    Path("/etc/libvirt/qemu.conf").write_text(
        'user = "root"\ngroup = "root"\nstdio_handler = "file"\nsecurity_driver = "none"\n'
        "cgroup_controllers = [ ]\nnamespaces = [ ]\nremember_owner = 0\n"
    )
    run("libvirtd", "-d", "-l")


def prepare_dynmem(directory: Path, name: str, plan: dict[str, Any], dynmem: str) -> None:
    run("cp", "-r", str(directory / "ca" / name), "/etc/dynmem/fleet")
    Path("/etc/dynmem/dynmem.toml").write_text(
        f'[host]\ncapacity = "{plan["capacity_mib"]}MiB"\n[admission]\nwait = 10\n'
        f'[history]\nenabled = false\n[fleet]\nlisten = "0.0.0.0:{plan["port"]}"\n'
    )
    # libvirtd looks for hooks when it starts, and calls none where it found none.
    Path("/etc/libvirt/hooks").mkdir()
    run(dynmem, "hook", "install")


def start_dynmem(dynmem: str) -> None:
    with Path("/var/log/dynmem.log").open("ab") as log:
        subprocess.Popen([dynmem, "run"], stdout=log, stderr=log)


def run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
