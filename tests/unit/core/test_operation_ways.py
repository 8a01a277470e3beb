"""Every way that an operation can take, as a table: what happens → how it ends, and why.

The guest has said that it has memory to spare, and the operation has had its first look. Then each word
happens, and the operation looks again. What stands before `|` happens before the first look. `…` cuts a
sentence short.
"""

import pytest

from agent import wire
from host_controller.core.interface import Command
from host_controller.core.operations.stages import Outcome
from tests.support.lives import KINDS, Life, happens

PLUGS = """
yes done online                                    -> done      the guest uses the new DIMM
crowded agentless crowded |                        -> dropped   the guest had no room for a DIMM any more
crowded yes                                        -> dropped   the guest had no room for a DIMM any more
no                                                 -> failed    the agent could not set the zone: EBUSY
0.6s yes done online                               -> done      the guest uses the new DIMM
0.6s no                                            -> failed    the agent could not set the zone: EBUSY
0.6s 1.1s done online                              -> done      the guest uses the new DIMM
0.6s 1.1s crowded                                  -> under way
0.6s crowded 1.1s                                  -> dropped   the guest had no room for a DIMM any more
0.6s job                                           -> dropped   it was given up: the VM must not be touched…
job                                                -> dropped   it was given up: the VM must not be touched…
reset                                              -> dropped   the guest started anew
yes done-first online                              -> done      the guest uses the new DIMM
yes refused                                        -> failed    hot add was refused: its reason
yes job refused                                    -> dropped   hot add was refused: its reason
yes done 20.1s                                     -> failed    the guest did not bring the new DIMM online
yes done 19.9s                                     -> under way
yes done reset                                     -> dropped   the guest started anew
yes late 999s                                      -> under way
yes late nothing-came                              -> failed    the hypervisor took too long, and plugged no…
yes late it-came online                            -> done      the guest uses the new DIMM
yes late reset reset 999s                          -> under way
yes late reset it-came                             -> dropped   the guest started anew
yes late reset nothing-came                        -> dropped   the guest started anew
yes reset reset 999s                               -> under way
yes reset done                                     -> dropped   the guest started anew
yes reset done-first                               -> dropped   the guest started anew
yes reset refused                                  -> dropped   the guest started anew
yes reset job refused                              -> dropped   the guest started anew
yes reset late 999s                                -> under way
yes reset late reset it-came                       -> dropped   the guest started anew
"""
UNPLUGS = """
done yes done gone                                 -> done      the DIMM is gone
gone |                                             -> done      the DIMM is gone
gone                                               -> done      the DIMM is gone
done gone                                          -> done      the DIMM is gone
done job yes gone job                              -> done      the DIMM is gone
refused                                            -> failed    the balloon's target was not confirmed
10.1s                                              -> failed    the balloon did not make room for the DIMM t…
job                                                -> dropped   it was given up: the VM must not be touched…
done no                                            -> failed    the guest needs the DIMM: EBUSY
done needy                                         -> failed    the guest has come to need the DIMM
done 30.1s                                         -> failed    the guest did not offline the DIMM in time
done reset                                         -> dropped   the guest started anew
agentless done done gone                           -> done      the DIMM is gone
done yes refused                                   -> failed    unplug was refused: its reason
done yes job refused job done gone                 -> done      the DIMM is gone
done yes 15.1s                                     -> failed    the DIMM did not leave in time
done yes done stays                                -> failed    the guest's kernel did not give the DIMM back
done yes done 15.1s                                -> failed    the DIMM did not leave in time
done yes late 119.9s                               -> under way
done yes late 120.1s                               -> failed    the DIMM did not leave in time
done yes late nothing-came gone                    -> done      the DIMM is gone
done yes late nothing-came stays                   -> failed    the guest's kernel did not give the DIMM back
done yes late dimm-came stays                      -> failed    the guest's kernel did not give the DIMM back
done yes late nothing-came 121s                    -> failed    the DIMM did not leave in time
done yes reset reset done                          -> dropped   the guest started anew
done yes reset refused                             -> dropped   the guest started anew
done yes reset job refused                         -> dropped   the guest started anew
done yes reset 15.1s                               -> dropped   the guest started anew
done yes reset gone                                -> done      the DIMM is gone
done yes reset late reset 119.9s                   -> under way
done yes reset late nothing-came                   -> dropped   the guest started anew
done yes reset late dimm-came                      -> dropped   the guest started anew
done yes reset late 120.1s                         -> dropped   the guest started anew
done yes reset late gone                           -> dropped   the guest started anew
done yes late reset nothing-came                   -> dropped   the guest started anew
done yes done offline 5.1s done stays              -> failed    the guest's kernel did not give the DIMM back
done yes done offline 5.1s late nothing-came gone  -> done      the DIMM is gone
done yes done offline 5.1s gone                    -> under way
done yes done offline 5.1s gone 15.1s              -> done      the DIMM is gone
done yes done offline 5.1s refused                 -> failed    unplug was refused: its reason
done yes done offline 5.1s job refused job done gone -> done      the DIMM is gone
done yes done offline 5.1s 15.1s                   -> failed    the DIMM did not leave in time
done yes done offline 5.1s reset done              -> dropped   the guest started anew
done yes reset reset                               -> under way
done yes done offline 5.1s reset                   -> under way
done yes late reset                                -> under way
done yes done offline 5.1s gone late 119.9s        -> under way
done yes done offline 5.1s gone late 120.1s        -> done      the DIMM is gone
"""
GROWTHS = """
yes offline done 512MiB online                     -> done
yes done 512MiB online                             -> done
no                                                 -> failed    the agent could not set the zone: EBUSY
0.6s yes done 512MiB online                        -> done
0.6s no                                            -> failed    the agent could not set the zone: EBUSY
0.6s 1.1s done 512MiB online                       -> done      the agent did not confirm the zone of new me…
crowded agentless crowded |                        -> dropped   the guest had no room for more memory any more
crowded yes                                        -> dropped   the guest had no room for more memory any more
yes refused                                        -> failed    another size of virtio-mem was refused: its…
yes late                                           -> failed    another size of virtio-mem was refused: no a…
yes job refused                                    -> dropped   another size of virtio-mem was refused: its…
yes 60.1s                                          -> failed    the hypervisor did not answer
yes done 384MiB 5.1s done                          -> failed    its virtio-mem stays at 384 MiB: the guest d…
yes done 384MiB 5.1s refused                       -> failed    another size of virtio-mem was refused: its…
yes done 384MiB 5.1s job refused                   -> dropped   another size of virtio-mem was refused: its…
yes done 384MiB 5.1s 60.1s                         -> failed    the hypervisor did not answer
yes offline done 512MiB 19.9s                      -> under way
yes offline done 512MiB 20.1s                      -> failed    the guest did not bring the new memory online
yes offline done 512MiB 19s offline 1.1s done      -> failed    the guest did not bring the new memory online
yes offline done 512MiB 384MiB 5.1s done           -> failed    its virtio-mem stays at 384 MiB: the guest d…
"""
SHRINKS = """
done 128MiB                                        -> under way
done done 0.1s 128MiB                              -> done
done done 128MiB                                   -> under way
done done 0.1s 200MiB 5.1s done                    -> failed    its virtio-mem stays at 200 MiB: the guest d…
needy done                                         -> dropped   the guest needs its virtio-mem after all
refused                                            -> failed    the balloon's target was not confirmed
10.1s                                              -> failed    the balloon did not make room for virtio-mem…
job                                                -> dropped   it was given up: the VM must not be touched…
"""


def ways() -> list[object]:
    tables = {
        "hot add": PLUGS,
        "unplug": UNPLUGS,
        "more virtio-mem": GROWTHS,
        "virtio-mem for the balloon": SHRINKS,
    }
    return [
        pytest.param(kind, *(part.strip() for part in row.split("->")), id=f"{kind}: {row}")
        for kind, table in tables.items()
        for row in table.strip().splitlines()
    ]


@pytest.mark.parametrize(("kind", "what", "end"), ways())
def test_each_way_ends_as_the_table_says(kind: str, what: str, end: str) -> None:
    life = KINDS[kind]()
    life.guest_says(300, 0, 512)
    before, after = what.split("|") if "|" in what else ("", what)
    for word in before.split():
        happens(life, word)
    life.look()
    for word in after.split():
        happens(life, word)
        life.look()
    outcome = next(one for one in Outcome if end.startswith(one))
    found = f"{life.operation.outcome} {life.operation.note}, at {life.operation.describe()}"
    assert life.operation.outcome is outcome, found
    why = end[len(outcome) :].strip()
    said = life.operation.note
    assert outcome is Outcome.UNDER_WAY or (said.startswith(why[:-1]) if why.endswith("…") else said == why)
    check_what_is_left(life)


def check_what_is_left(life: Life) -> None:
    """Blocks that were to leave are back after a failure, and only then; nothing is asked twice."""
    offlined = [one for one in life.said if isinstance(one, wire.Offline)]
    back = [one for one in life.said if isinstance(one, wire.Online)]
    assert len(back) == (len(offlined) if life.operation.outcome is Outcome.FAILED else 0)
    waiting: list[Command] = [*life.asked.values(), *life.limbo.values()]
    assert len(waiting) <= 1
