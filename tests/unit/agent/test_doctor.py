"""status and doctor tell people what the agent needs, and how to get it."""

import json

import pytest
from click.testing import CliRunner

from agent import disk_swap, doctor, doctor_devices, doctor_live
from agent.codec import decode_from_guest
from agent.commands import cli
from agent.finding import Finding
from agent.wire import PORT_NAME
from tests.unit.agent.record import add_block, add_memory, copy_of, set_kib

WELL = 1 << doctor_devices.STATS_BIT | 1 << doctor_devices.REPORTING_BIT


def add_balloon(root, bits: int = WELL, driver: bool = True) -> None:
    device = root / "sys/bus/virtio/devices/virtio3"
    device.mkdir(parents=True, exist_ok=True)
    (device / "device").write_text("0x0005\n")
    (device / "features").write_text("".join("1" if bits >> bit & 1 else "0" for bit in range(64)) + "\n")
    if driver:
        (device / "driver").mkdir(exist_ok=True)


def add_virtio_mem(root, driver: bool) -> None:
    device = root / "sys/bus/virtio/devices/virtio4"
    device.mkdir(parents=True)
    (device / "device").write_text("0x0018\n")
    if driver:
        (device / "driver").mkdir()


@pytest.fixture
def guest(tmp_path):
    """A guest with all that is wanted."""
    copy_of("debian12", tmp_path)
    add_memory(tmp_path)
    add_balloon(tmp_path)
    port = tmp_path / "dev/virtio-ports" / PORT_NAME
    port.parent.mkdir(parents=True)
    port.write_text("")
    parameters = tmp_path / "sys/module/memory_hotplug/parameters"
    parameters.mkdir(parents=True)
    (parameters / "memmap_on_memory").write_text("Y\n")
    return tmp_path


def finding(root, check: str) -> Finding:
    return next(one for one in doctor.examine(str(root)) if one.check == check)


def test_a_guest_with_all_that_is_wanted_has_no_findings(guest):
    assert [one for one in doctor.examine(str(guest)) if one.level != "ok"] == []


@pytest.mark.parametrize(
    ("check", "level", "spoil"),
    [
        ("psi", "problem", lambda root: (root / "proc/pressure/memory").unlink()),
        ("port", "problem", lambda root: (root / "dev/virtio-ports" / PORT_NAME).unlink()),
        ("balloon", "problem", lambda root: (root / "sys/bus/virtio/devices/virtio3/driver").rmdir()),
        ("balloon", "problem", lambda root: (root / "sys/bus/virtio/devices/virtio3/device").unlink()),
        (
            "deflate on OOM",
            "problem",
            lambda root: add_balloon(root, WELL | 1 << doctor_devices.DEFLATE_ON_OOM_BIT),
        ),
        ("free page reporting", "note", lambda root: add_balloon(root, 1 << doctor_devices.STATS_BIT)),
        ("virtio-mem", "problem", lambda root: add_virtio_mem(root, driver=False)),
        ("swap", "note", lambda root: (root / "proc/swaps").write_text("Filename Type\n")),
        ("offline memory", "note", lambda root: add_block(root, 32, "offline\n")),
        (
            "online policy",
            "problem",
            lambda root: (root / "sys/devices/system/memory/block_size_bytes").unlink(),
        ),
        (
            "memmap on memory",
            "note",
            lambda root: (root / "sys/module/memory_hotplug/parameters/memmap_on_memory").write_text("N\n"),
        ),
        (
            "block size",
            "note",
            lambda root: (root / "sys/devices/system/memory/block_size_bytes").write_text("80000000\n"),
        ),
        (
            "zones",
            "problem",
            lambda root: [add_block(root, number, "online\n", "Movable\n") for number in range(32, 45)],
        ),
    ],
)
def test_what_is_amiss_is_found_with_a_remedy(guest, check, level, spoil):
    spoil(guest)
    found = finding(guest, check)
    assert found.level == level
    assert found.remedy


def test_the_kernels_figures_are_read_once(guest, monkeypatch):
    opened = []

    class Counted(doctor.Probe):
        def __init__(self, root):
            opened.append(root)
            super().__init__(root)

    monkeypatch.setattr(doctor, "Probe", Counted)
    doctor.examine(str(guest))
    assert opened == [str(guest)]


def test_what_swap_lies_in_memory_is_told(guest):
    (guest / "proc/swaps").write_text(
        "Filename\tType\tSize\tUsed\tPriority\n"
        "/dev/zram0 partition 131072 0 100\n/srv/zram/swap file 262144 0 -2\n"
    )
    assert finding(guest, "swap").found == "/dev/zram0 (in memory), /srv/zram/swap"
    (guest / disk_swap.ZSWAP).mkdir(parents=True)
    (guest / disk_swap.ZSWAP / "enabled").write_text("Y\n")
    assert finding(guest, "swap").found.endswith("/srv/zram/swap; zswap keeps a part of it in memory")


def test_three_times_as_much_movable_memory_is_allowed(guest):
    for number in range(32, 44):
        add_block(guest, number, "online\n", "Movable\n")
    assert finding(guest, "zones").level == "ok"


def test_a_virtio_mem_device_with_its_driver_is_as_it_should_be(guest):
    add_virtio_mem(guest, driver=True)
    assert finding(guest, "virtio-mem") == Finding("virtio-mem", "ok", "driver bound")


def test_doctor_exits_with_0_when_all_is_well_and_1_on_problems(guest):
    run = CliRunner()
    assert run.invoke(cli, ["doctor", "--root", str(guest)]).exit_code == 0
    (guest / "proc/pressure/memory").unlink()
    result = run.invoke(cli, ["doctor", "--root", str(guest), "--json"])
    assert result.exit_code == 1
    assert any(one["level"] == "problem" and one["check"] == "psi" for one in json.loads(result.output))


def test_wrong_usage_exits_with_2():
    assert CliRunner().invoke(cli, ["doctor", "--wrong"]).exit_code == 2


def test_status_shows_the_facts_and_the_line_that_would_be_sent(guest):
    result = CliRunner().invoke(cli, ["status", "--root", str(guest), "--json"])
    shown = json.loads(result.output)
    report = decode_from_guest(shown["line"].encode())
    assert report.total_bytes == shown["facts"]["total_bytes"] == 404 << 20
    assert shown["block_bytes"] == 128 << 20
    text = CliRunner().invoke(cli, ["status", "--root", str(guest)]).output
    assert "404.0 MiB" in text
    assert shown["line"] in text


@pytest.mark.parametrize(
    ("mode", "kbytes", "level", "found"),
    [
        ("0", "0", "note", "refused"),
        ("1", "0", "ok", "is 1"),
        ("2", "0", "note", "follows MemTotal"),
        ("2", "4000000", "ok", "is 2"),
    ],
)
def test_what_the_kernel_would_refuse_is_told(guest, mode, kbytes, level, found):
    settings = guest / "proc/sys/vm"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "overcommit_memory").write_text(mode + "\n")
    (settings / "overcommit_kbytes").write_text(kbytes + "\n")
    one = finding(guest, "overcommit")
    assert (one.level, found in one.found) == (level, True)
    assert one.level == "ok" or one.remedy


def test_a_file_system_that_kept_the_limit_of_a_smaller_guest_is_told(guest):
    add_memory(guest)
    (guest / "proc/mounts").write_text(
        "tmpfs /dev/shm tmpfs rw,nosuid,nodev,size=102400k,inode64 0 0\n"
        "tmpfs /run/lock tmpfs rw,size=5120k 0 0\ntmpfs /tmp tmpfs rw,nosuid,nodev 0 0\n"
    )
    one = finding(guest, "file systems in memory")
    assert (one.level, one.found) == ("note", "/dev/shm holds 100 MiB: less than half of MemTotal")
    assert "remount" in one.remedy


def set_limits(root, threads: int, tcp: str) -> None:
    for setting, value in (("kernel/threads-max", str(threads)), ("net/ipv4/tcp_mem", tcp)):
        path = root / "proc/sys" / setting
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


BOOTED = {512: (3148, "4677\t6237\t9354"), 4096: (31330, "45807\t61076\t91614")}
"""By a guest's RAM, MiB, of which MemTotal are 413980 and 4021268 KiB: what Debian 12's kernel took."""


def test_limits_of_a_kernel_that_booted_with_less_are_told_with_those_of_the_maximum(guest):
    set_kib(guest, MemTotal=4021268)
    set_limits(guest, *BOOTED[512])
    (guest / "run/dynmem-agent").mkdir(parents=True)
    (guest / "run/dynmem-agent/maximum").write_text(f"{8 << 30}\n")
    one = finding(guest, "limits of its boot")
    assert one.level == "note"
    assert one.found.startswith("kernel.threads-max is 3148, net.ipv4.tcp_mem ends at 36 MiB: ")
    assert 'sysctl -w kernel.threads-max=65536 net.ipv4.tcp_mem="98304 131072 196608"' in one.remedy


@pytest.mark.parametrize(
    ("ram", "total_kib"), [(512, 413980), (4096, 4021268), (4096, 5021268), (4096, 413980)]
)
def test_limits_that_fit_the_guests_size_are_nothing_to_tell(guest, ram, total_kib):
    set_kib(guest, MemTotal=total_kib, MemAvailable=1024)
    set_limits(guest, *BOOTED[ram])
    assert finding(guest, "limits of its boot").level == "ok"


SETTINGS_OF_24_GIB = {
    "net/ipv4/tcp_max_orphans": "131072",
    "net/ipv4/tcp_max_tw_buckets": "131072",
    "net/ipv4/udp_mem": "575802\t767736\t1151604",
    "fs/inotify/max_user_watches": "192536",
}
"""As Linux 6.18 took them of a MemTotal of 24684092 KiB."""


def write_settings(root, release: str, settings: dict[str, str]) -> None:
    for setting, value in ({"kernel/osrelease": release} | settings).items():
        path = root / "proc/sys" / setting
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


def test_what_a_kernel_takes_of_its_memory_for_sockets_and_watches_is_known(guest):
    set_kib(guest, MemTotal=24684092)
    write_settings(guest, "6.18.44-fc", SETTINGS_OF_24_GIB)
    assert finding(guest, "limits of its boot").level == "ok"
    small = {"net/ipv4/tcp_max_orphans": "2048", "net/ipv4/udp_mem": "9354\t12474\t18708"}
    write_settings(guest, "6.18.44-fc", {**dict.fromkeys(SETTINGS_OF_24_GIB, "2048"), **small})
    one = finding(guest, "limits of its boot")
    assert one.level == "note"
    for setting in SETTINGS_OF_24_GIB:
        assert setting.replace("/", ".") in one.found
    assert "net.ipv4.udp_mem ends at 73 MiB" in one.found
    assert "net.ipv4.tcp_max_orphans=131072" in one.remedy


@pytest.mark.parametrize(
    ("release", "level"),
    [("5.10.0-30-amd64", "ok"), ("6.1.0-18-amd64", "note"), ("5.11-rc3", "note"), ("6", "note"), ("", "ok")],
)
def test_watches_follow_memory_since_linux_5_11(guest, release, level):
    """A server that is built anew at each change, booted with 512 MiB: no space left on device."""
    set_kib(guest, MemTotal=8 << 20)
    write_settings(guest, release, {"fs/inotify/max_user_watches": "8192"})
    one = finding(guest, "limits of its boot")
    assert one.level == level
    assert ("fs.inotify.max_user_watches is 8192: " in one.found) is (level == "note")


def unit(root, path: str, *lines: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(["[Service]", *lines, ""]))


def test_services_that_are_held_to_a_share_of_what_the_guest_booted_with_are_told(guest):
    set_kib(guest, MemTotal=8 << 20)
    assert finding(guest, "limits of services").level == "ok"
    unit(guest, "usr/lib/systemd/system/web.service", "MemoryMax = 50%")
    unit(guest, "etc/systemd/system/db.service.d/50-memory.conf", "MemoryHigh=75%", "MemoryMax=2G")
    unit(guest, "etc/systemd/system/whole.service", "MemoryMax=100%", "CPUQuota=20%")
    unit(guest, "lib/systemd/system/sized.service", "MemoryMax=2G", "#MemoryMax=10%")
    unit(guest, "usr/lib/systemd/system/mine.slice", "MemoryMax=10%")
    unit(guest, "etc/systemd/system/mine.slice", "MemoryMax=1G")  # it stands in the other's place
    (guest / "etc/systemd/system/odd.service").mkdir()
    (guest / "etc/systemd/system/gone.service.d").symlink_to("/nowhere")
    assert finding(guest, "limits of services").level == "ok", "none of them runs"
    groups = ("web.service", "system-db.slice/db.service", "whole.service", "sized.service", "mine.slice")
    for group, high in zip(groups, (None, 300, None, None, None), strict=True):
        place = guest / "sys/fs/cgroup/system.slice" / group
        place.mkdir(parents=True)
        (place / "memory.high").write_text("max\n" if high is None else f"{high << 20}\n")
        (place / "memory.max").write_text(f"{400 << 20}\n" if group == "web.service" else "max\n")
    one = finding(guest, "limits of services")
    assert one.level == "note"
    assert one.found.startswith(
        "db.service: MemoryHigh=75% is 300 MiB, web.service: MemoryMax=50% is 400 MiB: "
    )
    assert "daemon-reload" in one.remedy
    set_kib(guest, MemTotal=800 << 10, MemAvailable=1024)
    assert finding(guest, "limits of services").level == "ok", "as they are to be"


@pytest.mark.parametrize(
    ("total_mib", "pages", "free_kib", "found"),
    [
        (404, 0, 67584, None),
        (404, 64, 67584, "128 MiB in huge pages (vm.nr_hugepages)"),
        (404, 0, 524288, "512 MiB kept free (vm.min_free_kbytes)"),
        (16384, 0, 524288, None),
        (4096, 512, 1 << 20, "1024 MiB in huge pages (vm.nr_hugepages) and 1024 MiB kept free (vm.min_free_"),
    ],
)
def test_what_settings_take_at_each_boot_is_told(guest, total_mib, pages, free_kib, found):
    """vm.nr_hugepages for a database of 4 GiB takes all of a guest that boots with 512 MiB."""
    path = guest / "proc/meminfo"
    told = path.read_text().replace("HugePages_Total:       0", f"HugePages_Total: {pages}")
    path.write_text(told)
    set_kib(guest, MemTotal=total_mib << 10)
    (guest / "proc/sys/vm").mkdir(parents=True, exist_ok=True)
    (guest / "proc/sys/vm/min_free_kbytes").write_text(f"{free_kib}\n")
    one = finding(guest, "memory set aside")
    assert one.level == ("ok" if found is None else "note")
    assert found is None or (one.found.startswith(found) and "startup" in one.remedy)


def reserve(root, size: int) -> None:
    (root / "sys/kernel").mkdir(parents=True, exist_ok=True)
    (root / "sys/kernel/kexec_crash_size").write_text(f"{size}\n")
    (root / "sys/bus/virtio/drivers/virtio_balloon").mkdir(parents=True)


@pytest.mark.parametrize(
    ("modules", "file", "text", "level"),
    [
        ("", None, "", "note"),
        ("virtio_balloon 28672 0 - Live 0x0\n", None, "", "ok"),
        (
            "virtio_blk 28672 0 - Live 0x0\n",
            "etc/default/kdump-tools",
            'KDUMP_CMDLINE_APPEND="quiet"',
            "note",
        ),
        ("", "etc/default/kdump-tools", "initcall_blacklist=virtio_balloon_driver_init", "ok"),
        ("", "etc/sysconfig/kdump", "initcall_blacklist=virtio_balloon_driver_init", "ok"),
    ],
)
def test_a_crash_kernel_that_would_obey_the_balloon_is_told(guest, modules, file, text, level):
    """A real guest's that was squeezed to 500 MiB of 1536 panicked, and saved nothing."""
    reserve(guest, 192 << 20)
    (guest / "proc/modules").write_text(modules)
    if file is not None:
        (guest / file).parent.mkdir(parents=True)
        (guest / file).write_text(text)
    one = finding(guest, "crash kernel")
    assert one.level == level
    assert ("initcall_blacklist" in one.remedy) is (level == "note")


def test_without_a_crash_kernel_nothing_would_obey(guest):
    reserve(guest, 0)
    (guest / "proc/modules").write_text("")
    assert finding(guest, "crash kernel").level == "ok"


def set_connections(root, most: int) -> None:
    place = root / "proc/sys/net/netfilter"
    place.mkdir(parents=True, exist_ok=True)
    (place / "nf_conntrack_max").write_text(f"{most}\n")


@pytest.mark.parametrize(
    ("total_kib", "most", "setting"),
    [
        (413980, 3234, None),  # as Linux takes it at that size
        (2097152, 3234, "net.netfilter.nf_conntrack_max=65536"),
        (8388608, 3234, "net.netfilter.nf_conntrack_max=262144"),
        (8388608, 65536, "net.netfilter.nf_conntrack_max=262144"),
        (4021268, 65536, None),
        (8388608, 262144, None),
        (8388608, 0, None),  # no connection is tracked
    ],
)
def test_connections_that_a_guest_which_booted_with_less_would_drop_are_told(guest, total_kib, most, setting):
    set_kib(guest, MemTotal=total_kib, MemAvailable=1024)
    set_connections(guest, most)
    one = finding(guest, "limits of its boot")
    assert one.level == ("ok" if setting is None else "note")
    if setting is not None:
        assert one.found.startswith(f"net.netfilter.nf_conntrack_max is {most}: ")
        assert f"sysctl -w {setting}, and" in one.remedy, "and nothing that is as it should be"


@pytest.mark.parametrize(
    ("line", "size", "told"),
    [
        ("ro crashkernel=1G-4G:192M,4G-64G:256M,64G-:512M quiet", "0", "crashkernel=1G-4G:192M"),
        ("crashkernel=auto", "0", "crashkernel=auto"),
        ("crashkernel=1G-4G:192M,4G-64G:256M,64G-:512M", "201326592", ""),
        ("crashkernel=no", "0", ""),
        ("quiet", "0", ""),
        ("crashkernel=auto", None, ""),
    ],
)
def test_a_crash_kernel_for_which_the_guest_boots_with_too_little_is_told(guest, line, size, told):
    """Its administrator had kdump, and with a smaller startup nothing is left of it."""
    (guest / "proc/cmdline").write_text(f"{line}\n")
    if size is not None:
        (guest / "sys/kernel").mkdir(parents=True, exist_ok=True)
        (guest / "sys/kernel/kexec_crash_size").write_text(f"{size}\n")
    one = finding(guest, "crash kernel")
    assert (one.level, told in one.found) == ("note" if told else "ok", True)


@pytest.mark.parametrize("tcp", ["", "x", "1 2"])
def test_a_limit_that_cannot_be_read_is_nothing_to_tell(guest, tcp):
    set_kib(guest, MemTotal=4021268)
    set_limits(guest, 31330, tcp)
    assert finding(guest, "limits of its boot").level == "ok"


@pytest.mark.parametrize("name", ["earlyoom", "nohang", "systemd-oomd", "bustd", "kubelet"])
def test_a_daemon_that_kills_at_a_share_of_memory_is_named_with_a_remedy(guest, name):
    process = guest / "proc/321"
    process.mkdir(parents=True)
    (process / "comm").write_text(name + "\n")
    (process / "cmdline").write_text(f"/usr/bin/{name}\0")
    one = finding(guest, "killing daemons")
    assert one.level == "note"
    assert name in one.found
    assert name in one.remedy


@pytest.mark.parametrize(
    ("with_systemd", "remedy"),
    [(True, "systemctl start dynmem-agent"), (False, "let this guest's init start `dynmem-agent run`")],
)
def test_a_daemon_that_does_not_run_is_started_with_what_the_guest_has(
    monkeypatch, tmp_path, with_systemd, remedy
):
    monkeypatch.setattr(doctor_live.psutil, "process_iter", lambda *_: [])
    if with_systemd:
        (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert doctor_live.daemon(str(tmp_path)).remedy.startswith(remedy)


def test_without_pyroute2_uevents_are_not_tried_and_nothing_is_said_to_be_wrong(monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    found = doctor_live.uevents("/")
    assert (found.level, found.found) == ("note", "not tried")
    assert "pyroute2" in found.remedy


def test_an_empty_meminfo_is_named_and_no_traceback(guest):
    (guest / "proc/meminfo").write_text("")
    for command in ("doctor", "status"):
        done = CliRunner().invoke(cli, [command, "--root", str(guest)])
        assert isinstance(done.exception, OSError), done.exception
        assert done.exception.filename == str(guest / "proc/meminfo")


def test_who_kills_below_a_size_is_told_with_its_share_of_this_guest(guest):
    process = guest / "proc/77"
    process.mkdir()
    (process / "comm").write_text("earlyoom\n")
    (process / "cmdline").write_bytes(b"/usr/bin/earlyoom\0-M\x0020480\0")
    assert "kills below 5 % of MemTotal" in finding(guest, "killing daemons").found  # 20 of 404 MiB
