"""What events change in what is known, where no other test says it."""

from host_controller.hypervisor.interface import BalloonSampled, GuestGone
from host_controller.intake import Intake, State
from host_controller.ledger import Ledger
from host_controller.model import BalloonStats
from host_controller.units import MIB
from tests.unit.build import facts, settings, vm


def test_an_agent_that_left_its_port_is_stood_in_for_at_once() -> None:
    web = vm(300, facts=facts(300, 150, at=10.0), reported_at=10.0, stats=_stats(updated=9))
    state = State(settings(), Ledger(settings()), {web.config.uuid: web})
    intake = Intake(state)
    intake.apply(BalloonSampled(web.config.uuid, 300 * MIB, _stats(updated=11)), 11.0)
    assert web.facts is not None
    assert web.facts.from_agent, "as long as an agent speaks, it is the one who is believed"
    intake.apply(GuestGone(web.config.uuid), 11.5)
    intake.apply(BalloonSampled(web.config.uuid, 300 * MIB, _stats(updated=12)), 12.0)
    assert not web.facts.from_agent
    assert web.facts.available_bytes == 20 * MIB


def _stats(updated: int) -> BalloonStats:
    return BalloonStats(total_bytes=200 * MIB, available_bytes=20 * MIB, updated=updated)
