"""The peers are the peers: each law gives the figures that its published rule gives on paper."""

import pytest

from host_controller.core.model import Growth, Limits
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.laws.clairvoyant import Clairvoyant, cut
from host_controller.simulator.laws.controller import LawController
from host_controller.simulator.laws.fixed import Peak, Static
from host_controller.simulator.laws.ghaf import Ghaf
from host_controller.simulator.laws.hyperv import HyperV, floor_bytes
from host_controller.simulator.laws.mom import Mom, grown, shrunk
from host_controller.simulator.laws.proxmox import Proxmox
from host_controller.simulator.laws.qmemman import Qmemman
from host_controller.simulator.laws.squeezed import Squeezed
from host_controller.simulator.laws.views import GuestSight, HostSight, Law
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB


def guest(name: str = "a", **mib: float) -> GuestSight:
    """1 GiB of 256 to 4096, of which 300 MiB are available, 200 free, 100 cached; figures in MiB."""
    sizes = {
        "minimum": 256.0,
        "maximum": 4096.0,
        "current": 1024.0,
        "available": 300.0,
        "free": 200.0,
        "cached": 100.0,
    }
    sizes |= {key: value for key, value in mib.items() if key not in ("weight", "booted")}
    sizes.setdefault("target", sizes["current"])
    sizes.setdefault("total", sizes["current"])
    rest = {key: value for key, value in mib.items() if key in ("weight", "booted")}
    return GuestSight(name, **{key: value * MIB for key, value in sizes.items()}, **rest)  # type: ignore[arg-type]


def host(total: float = 16384, available: float = 8192, unassigned: float | None = None) -> HostSight:
    free = available if unassigned is None else unassigned
    return HostSight(total * MIB, available * MIB, free * MIB)


def ask(law: Law, sight: HostSight, *guests: GuestSight, now: float = 100.0) -> dict[str, float]:
    return {name: size / MIB for name, size in law.targets(sight, guests, now).items()}


def test_static_gives_everybody_its_maximum() -> None:
    assert ask(Static(), host(), guest()) == {"a": 4096}


def test_peak_gives_everybody_its_own_peak_and_a_fifth() -> None:
    law = Peak({"a": 1000.0 * MIB, "b": 100.0 * MIB, "c": 4000.0 * MIB})
    # 1000 × 1.2; 100 × 1.2 is below the minimum; 4000 × 1.2 above the maximum.
    assert ask(law, host(), guest("a"), guest("b"), guest("c")) == {"a": 1200, "b": 256, "c": 4096}


@pytest.mark.parametrize(
    ("total", "floor"),
    [(100, 58), (256, 104), (1024, 232), (4096, 488), (16384, 1000)],
    # 8 + 100/2; 40 + 256/4; 104 + 1024/8; 232 + 4096/16; 488 + 16384/32
)
def test_hyperv_floors(total: int, floor: int) -> None:
    assert floor_bytes(total * MIB) == floor * MIB


def test_hyperv_gives_committed_memory_its_floor_and_a_fifth() -> None:
    # (512 + 488) × 1.2
    assert ask(HyperV(), host(), guest(committed=512)) == {"a": pytest.approx(1200)}


def test_hyperv_does_not_inflate_below_the_drivers_floor() -> None:
    # (100 + 488) × 1.2 = 705.6 is asked; available 600 less the floor 488 leave 112 to take from 1024
    assert ask(HyperV(), host(), guest(committed=100, available=600)) == {"a": pytest.approx(912)}


def test_hyperv_gives_equal_pressure_when_it_does_not_reach() -> None:
    a, b = guest("a", committed=512, current=512), guest("b", committed=2512, current=512)
    # wanted 1200 and 3600; 2400 of the host's are there: both get half, and both may have that
    got = ask(HyperV(), host(2400), a, b)
    assert got == {"a": pytest.approx(600), "b": pytest.approx(1800)}


def test_hyperv_knows_nothing_of_a_guest_in_its_first_45_seconds() -> None:
    assert ask(HyperV(), host(), guest(committed=512, booted=44)) == {}


def test_mom_shrinks_to_what_is_used_and_a_little_while_the_host_has_ten_percent_free() -> None:
    # used = 1024 - 200 = 824; p = 0.10; used + p × current = 926.4; 0.95 × current = 972.8 is more
    assert shrunk(guest(), 824.0 * MIB, 0.10) / MIB == pytest.approx(972.8)
    # and with 150 free: used 874 + 102.4 = 976.4 is more than 972.8
    assert shrunk(guest(free=150), 874.0 * MIB, 0.10) / MIB == pytest.approx(976.4)


def test_mom_shrinks_below_what_is_used_on_a_host_with_two_percent_free() -> None:
    # p = 0.02 - 0.05 = -0.03; used 1014 - 30.72 = 983.28 is more than 0.95 × 1024 = 972.8
    assert shrunk(guest(), 1014.0 * MIB, 0.02) / MIB == pytest.approx(983.28)


def test_mom_grows_by_a_twentieth_or_to_a_fifth_free() -> None:
    # used 824 + 0.20 × 1024 = 1028.8 is less than 1.05 × 1024 = 1075.2
    assert grown(guest(), 824.0 * MIB) / MIB == pytest.approx(1075.2)
    # with 50 free: used 974 + 204.8 = 1178.8 is more
    assert grown(guest(), 974.0 * MIB) / MIB == pytest.approx(1178.8)


def test_mom_decides_every_ten_seconds_on_the_mean_of_its_samples() -> None:
    law = Mom()
    assert ask(law, host(), guest(free=100), now=5) == {}
    # mean used (924 + 824)/2 = 874, + 204.8 = 1078.8
    assert ask(law, host(), guest(free=200), now=10) == {"a": pytest.approx(1078.8)}
    assert ask(law, host(), guest(), now=15) == {}


def test_mom_in_production_waits_fifteen_seconds() -> None:
    law = Mom(15)
    assert [bool(ask(law, host(), guest(), now=t)) for t in (5, 10, 15, 20, 25, 30)] == [
        False, False, True, False, False, True,
    ]  # fmt: skip


def test_proxmox_grows_pressured_guests_first_by_100_mib_a_cycle() -> None:
    pressured, idle = guest("a", free=50), guest("b", free=200)
    # goal = 16384 × 0.8 - (16384 - 8192) = 4915; a is pressured: 50 < 0.25 × 256
    assert ask(Proxmox(), host(), pressured, idle) == {"a": 1124}


def test_proxmox_shrinks_idle_guests_first() -> None:
    pressured, idle = guest("a", free=50), guest("b", free=200)
    # goal = 16384 × 0.8 - (16384 - 3200) = -76.8: b's desired = 256 + (768 - 76.8) = 947.2
    assert ask(Proxmox(), host(available=3200), pressured, idle) == {"b": pytest.approx(947.2)}


def test_proxmox_shares_by_shares() -> None:
    a, b = guest("a", free=50, weight=100, current=512), guest("b", free=50, weight=300, current=512)
    # goal 40; Σ(balloon - minimum) + rest = 552; a's quarter: 256 + 138 = 394; b: 670, 612 at most
    got = ask(Proxmox(), host(total=1600, available=360), a, b)
    assert got["b"] == pytest.approx(612)
    assert got["a"] == pytest.approx(412), "shrunk by 100 at the most"


def test_proxmox_leaves_ten_mib_alone() -> None:
    assert ask(Proxmox(), host(total=1000, available=209), guest()) == {}


def test_qmemman_gives_all_that_there_is_in_proportion_to_what_is_preferred() -> None:
    a, b = guest("a", free=100, cached=400), guest("b", free=400, cached=100, current=1024)
    # used 524 each, pref 681.2; F = 2048/1.00781 - 50 = 1982.13; A = F - 2 (681.2 - 1024) = 2667.73
    # target = 0.999 × 681.2 × (1 + 2667.73/1362.4) = 2013.05
    got = ask(Qmemman(), host(unassigned=2048), a, b)
    assert got == {"a": pytest.approx(2013.05, abs=0.1), "b": pytest.approx(2013.05, abs=0.1)}


def test_qmemman_takes_donors_to_what_they_prefer_and_gives_it_to_acceptors() -> None:
    # a: used 200, pref 260, 764 too many; b: pref 1300, 276 short; c: pref 2600, 1576 short
    a = guest("a", free=800, cached=24)
    b = guest("b", free=24, cached=0)
    c = guest("c", current=2024, free=24, cached=0)
    law = Qmemman()
    law.heard([a, b, guest("c", current=2024, free=74, cached=0)])
    told = ask(law, host(unassigned=60 * 1.00781), a, b, c, now=1.0)
    assert told == {"a": pytest.approx(260)}, "donors first; the gifts wait"
    # F = 10; the pool is 774, shared 1300 : 2600
    gone = guest("a", current=260, free=36, cached=24)
    given = ask(law, host(unassigned=824 * 1.00781), gone, b, c, now=1.1)
    assert given["b"] == pytest.approx(0.999 * (1024 + 774 / 3), abs=0.1)
    assert given["c"] == pytest.approx(0.999 * (2024 + 774 * 2 / 3), abs=0.1)


def test_qmemman_gives_what_there_is_when_a_donor_has_not_given_for_half_a_second() -> None:
    law = Qmemman()
    a, b = guest("a", free=800, cached=24), guest("b", free=0, cached=0, current=3000)
    law.heard([a, guest("b", free=50, cached=0, current=3000)])
    asked = [ask(law, host(unassigned=60), a, b, now=1 + i / 10) for i in range(8)]
    assert asked[0] == {"a": pytest.approx(260)}
    # 60/1.00781 - 50 = 9.535 are there for it
    assert asked[1:] == [{}, {}, {}, {}, {"b": pytest.approx(3009.535, abs=0.01)}, {}, {}]


def test_qmemman_leaves_a_donor_out_that_did_not_move() -> None:
    law = Qmemman()
    a, b = guest("a", free=800, cached=24), guest("b", free=0, cached=0, current=3000)
    law.heard([a, guest("b", free=50, cached=0, current=3000)])
    for i in range(6):
        ask(law, host(unassigned=60), a, b, now=1 + i / 10)
    # b wants more again: nobody gives, so there are 9.5 MiB, of which it has been told already
    more = guest("b", free=0, cached=0, current=3000, swapped=100)
    assert "a" not in ask(law, host(unassigned=60), a, more, now=2)
    # once it has given what it was told it takes part again
    gone = guest("a", current=265, free=41, cached=24)
    more = guest("b", free=0, cached=0, current=3009, swapped=200)
    assert ask(law, host(unassigned=60 + 759), gone, more, now=3)["b"] > 3700


def test_qmemman_hears_nobody_else_while_a_gift_waits() -> None:
    law = Qmemman()
    a, b = guest("a", free=800, cached=24), guest("b", free=0, cached=0, current=3000)
    c = guest("c", free=724, cached=0, current=1024)
    law.heard([a, guest("b", free=50, cached=0, current=3000), c])
    assert "a" in ask(law, host(unassigned=60), a, b, c, now=1.0)
    grown = guest("c", free=24, cached=0, current=1024)
    assert ask(law, host(unassigned=60), a, b, grown, now=1.1) == {}


def test_qmemman_counts_the_kernel_of_a_guest_as_used() -> None:
    # 1024 given, of which MemTotal shows 900: used 1024 - 200 - 100 = 724, pref 941.2
    law = Qmemman()
    law.heard([guest(total=900)])
    assert law.pref(guest(total=900)) / MIB == pytest.approx(941.2)


def test_qmemman_does_not_move_for_less_than_15_mib() -> None:
    law = Qmemman()
    a = guest(current=1300, free=276, cached=24, maximum=1310)  # used 1000, pref 1300
    assert ask(law, host(unassigned=52), a) == {}


def test_squeezed_shares_the_surplus_by_range_and_shrinks_first() -> None:
    # ranges 3840 and 768; surplus = 512 + 768 + 768 = 2048; γ = 2048/4608 = 4/9
    a, b = guest("a"), guest("b", maximum=1024)
    law = Squeezed()
    assert ask(law, host(unassigned=512), a, b) == {"b": pytest.approx(256 + 768 * 4 / 9)}
    b = guest("b", maximum=1024, current=597.33)
    assert ask(law, host(unassigned=512 + 426.67), a, b) == {"a": pytest.approx(256 + 3840 * 4 / 9, abs=0.1)}


def test_squeezed_counts_a_stuck_guest_with_what_it_has_after_five_seconds() -> None:
    law = Squeezed()
    stuck, other = guest("a", target=300), guest("b", current=400)
    ask(law, host(unassigned=0), stuck, other, now=0)
    # without a, what there is belongs to b alone: 144 + 0 of its own range
    assert ask(law, host(unassigned=100), stuck, other, now=6) == {"b": pytest.approx(500)}


def test_ghaf_keeps_used_between_seventy_and_eighty_percent() -> None:
    # used 724 of 1024 is 70.7 %: nothing; 524 is 51 %: 524/0.70; 924 is 90 %: 924/0.78
    assert ask(Ghaf(), host(), guest(available=300)) == {}
    assert ask(Ghaf(), host(), guest(available=500)) == {"a": pytest.approx(524 / 0.70)}
    assert ask(Ghaf(), host(), guest(available=100)) == {"a": pytest.approx(924 / 0.78)}


def test_ghaf_rests_three_seconds() -> None:
    law = Ghaf()
    assert ask(law, host(), guest(available=500), now=10)
    assert ask(law, host(), guest(available=100), now=12) == {}
    assert ask(law, host(), guest(available=100), now=13)


def test_the_clairvoyant_gives_what_will_be_needed_and_cuts_the_largest() -> None:
    needs = {"a": 1000.0 * MIB, "b": 3000.0 * MIB}
    law = Clairvoyant(lambda name, lead: needs[name])
    assert ask(law, host(8192), guest("a"), guest("b")) == {"a": 1000, "b": 3000}
    assert ask(law, host(3500), guest("a"), guest("b")) == {"a": 1000, "b": pytest.approx(2500)}
    assert cut({}, {}, -1.0) == {}  # nobody is up, on a host that has less than QEMU's own memory
    assert cut({"a": 5.0, "b": 9.0}, {"a": 4.0, "b": 0.0}, 7.0)["b"] == pytest.approx(3)


def test_a_law_acts_through_the_balloons_of_simulated_guests() -> None:
    world = World(8 * GIB, check=False)
    limits = Limits(2 * GIB, 512 * MIB, 4 * GIB)
    spec = GuestSpec("a", limits, growth=Growth.BALLOON, workload=Workload(steady(600 * MIB)))
    world.add(spec)
    world.control(lambda capacity: LawController(Ghaf(), world.hypervisor, capacity))
    world.run(60.0)
    vm = world.vm("a")
    share = (vm.actual_bytes - vm.memory.available) / vm.actual_bytes
    assert 0.69 <= share <= 0.80
