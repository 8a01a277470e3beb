"""What takes several steps: plugging a DIMM, taking one out, another size of virtio-mem; standing still.

Theory of operation
-------------------
Three operations change a VM's RAM. Each is a table in its own file, `TABLE`: in this stage, having heard
this, go to that stage, or end. Nothing else changes a stage, so the table is all there is to know of the
order of things. `stages.py` has the words of all tables, `operation.py` what runs over them.

An operation hears two kinds of things:

- **What others say.** The agent answers, the hypervisor answers, DIMMs come and go, the guest starts anew.
  They say it when they like, and twice if they like. So what no row waits for is nothing to this operation.
- **What the operation sees** when the engine lets it look (`advance`). The balloon has made room, the DIMM is
  gone, the time of the stage is over. A look without a row is an error of ours, and raises.

Only a look gives commands: those of the stage or the end that it leads to. One exception: a round of grants
may have a virtio-mem device give back more where all has left (`Resize.further`). The engine lets an
operation look after every event about its VM, and at least every few seconds. An operation never waits.

Each stage that waits for somebody has its time in `LIMITS`, with one exception. While the hypervisor has not
said what became of a hot add, that DIMM may still come: it stays paid for, and the operation stays.

While an operation is under way nobody else sends its VM a balloon target: the two must not overlap (fact:
unplug-shrinks-the-guest). While the VM may not be touched (its vCPUs stand still, or it is being migrated or
saved) the operation is held. What has changed nothing yet is given up, the rest waits, and that time does not
count. A VM that is left alone (its operator paused it, or we ran into an error of our own) is begun nothing
new with: what has changed nothing yet is given up, and the rest goes on to its end.

An operation ends done, failed or dropped. Failed means that somebody is to blame, and the engine lets that VM
rest before the next try. A failed operation undoes what it did in the guest. What it leaves behind in QEMU (a
DIMM that is plugged and offline) is not its own to clean up: the engine sees it and takes it out, whoever
left it.

A standstill (`standstill.py`) is another thing, in the same form. It stops the vCPUs of a VM that was reset
without room for its RAM, beside whatever else is done to that VM.
"""

from host_controller.core.operations.plug import Plug
from host_controller.core.operations.resize import Resize
from host_controller.core.operations.unplug import Unplug

Operation = Plug | Unplug | Resize

__all__ = ["Operation", "Plug", "Resize", "Unplug"]
