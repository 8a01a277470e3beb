"""`python -m lab.domains DIR`: what `enable` makes of every domain in a folder; 1 when any is wrong."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import click
import libvirt

from host_controller.core.model import Growth
from lab.domains.trial import Bench, Outcome, Verdict
from lab.lab import Lab

COUNTED = (Verdict.RIGHT, Verdict.ON_PAPER, Verdict.REFUSED, Verdict.WRONG)


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--growth", type=click.Choice([one.value for one in Growth]), default=Growth.HOTADD.value)
@click.option("--all", "everything", is_flag=True, help="Show those that are right, too.")
def main(folder: Path, growth: str, *, everything: bool) -> None:
    """Take every *.xml in FOLDER through enable, start, growth, enable again and disable."""
    files = sorted(folder.rglob("*.xml")) if folder.is_dir() else [folder]
    counts: Counter[Verdict] = Counter()
    reasons: Counter[str] = Counter()
    with bench() as place:
        for file in files:
            outcome = place.try_domain(file.read_text(errors="replace"), Growth(growth))
            counts[outcome.verdict] += 1
            if outcome.verdict is Verdict.REFUSED:
                reasons.update(outcome.said)
            if everything or outcome.verdict is Verdict.WRONG:
                show(file, outcome)
    for reason, number in reasons.most_common():
        click.echo(f"  {number:4} × {reason}")
    said = ", ".join(f"{counts[one]} {one}" for one in COUNTED)
    click.echo(f"{sum(counts[one] for one in COUNTED)} files, {said}")
    sys.exit(1 if counts[Verdict.WRONG] else 0)


def show(file: Path, outcome: Outcome) -> None:
    """One file's verdict and why."""
    click.echo(f"{outcome.verdict}: {file}" + "".join(f"\n    {one}" for one in outcome.said))


@contextmanager
def bench() -> Iterator[Bench]:
    """A private libvirt, of which nothing is left."""
    with Lab(with_image=False) as lab:
        place = lab.directory / "d"
        place.mkdir()
        lab.account.own(place)
        connection = lab.session.connection()
        yield Bench(connection, lab.accelerator.domain_type, place, known_machines(connection))


def known_machines(connection: libvirt.virConnect) -> frozenset[str]:
    """The machine types that this QEMU knows."""
    capabilities = ElementTree.fromstring(connection.getCapabilities())
    return frozenset((one.text or "") for one in capabilities.findall("./guest/arch/machine"))


if __name__ == "__main__":
    main()
