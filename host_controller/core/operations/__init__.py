"""What takes several steps: plugging a DIMM, taking one out, another size of virtio-mem.

Each knows its limits and its way back. An operation takes down what it hears, and is advanced by the engine
after every event: then it returns the commands of its next step, and never waits. While one is under way no
balloon target is sent to its VM: the two must not overlap (fact: unplug-shrinks-the-guest). While the VM
may not be touched
(its vCPUs stand still, or it is being migrated or saved) the operation is held: it says nothing, and that
time does not count. What a failed operation leaves behind (a DIMM that is plugged and offline) is not its
own to clean up: the engine sees it and takes it out, whoever left it there.
"""

from host_controller.core.operations.plug import Plug
from host_controller.core.operations.resize import Resize
from host_controller.core.operations.unplug import Unplug

Operation = Plug | Unplug | Resize

__all__ = ["Operation", "Plug", "Resize", "Unplug"]
