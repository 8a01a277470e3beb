"""What the observer of a burn-in saw, as a picture."""

from pathlib import Path

from host_controller.cli.plot import pyplot, save
from host_controller.errors import DynmemError
from host_controller.units import MIB
from host_controller.verify.observer import Sample


def draw(samples: list[Sample], name: str, path: Path) -> None:
    """Write a picture of one guest's RAM, claim, virtio-mem and what the host holds of it.

    Raises:
        DynmemError: matplotlib is missing, nothing was seen, or the file cannot be written.
    """
    seen = [(sample.at, sample.guests[name]) for sample in samples if name in sample.guests]
    if not seen:
        raise DynmemError("there is nothing to draw: the guest was not seen running")
    times = [at - seen[0][0] for at, _ in seen]
    figure, axes = pyplot().subplots(figsize=(11, 4.5), layout="constrained")
    axes.fill_between(times, [one.ram / MIB for _, one in seen], step="post", color="#e8e8e8", label="RAM")
    for label, colour, sizes in (
        ("actual", "#1f5fa8", [one.actual / MIB for _, one in seen]),
        ("resident", "#c0392b", [one.resident / MIB for _, one in seen]),
        ("virtio-mem", "#27814a", [one.virtio_mem / MIB for _, one in seen]),
    ):
        axes.step(times, sizes, where="post", label=label, color=colour, linewidth=1.2)
    axes.set_xlabel("s")
    axes.set_ylabel("MiB")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", ncols=4)
    save(figure, path)
