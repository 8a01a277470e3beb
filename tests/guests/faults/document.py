"""docs/faults.md: each module of faults, and the soak, replaces its own section."""

import re
from collections.abc import Sequence
from pathlib import Path

from tests.guests.faults.ward import PATIENCE, RECOVERY, Row

TITLE = f"""\
# Faults survived

Written by `make faults` and `make soak-guests`, on real guests; nothing below was written by hand. Asserted
of every fault, beside what its line says:

- Σ charge is within capacity in every sample of the independent observer (five a second), or within an
  overdraft that the controller recorded with its cause (and, where a guest took memory back, with the
  last second, in which QEMU may have kept that to itself);
- a neighbour's job that needs memory moved to it waits for memory at most {PATIENCE:g} s longer, by its own
  kernel's count, than the same job just before the fault (before → during); where libvirt or the controller
  is the victim, at most {PATIENCE:g} s longer than the outage;
- no guest below its maximum kills a program for memory;
- {RECOVERY:g} s after the end of the fault at the latest all VMs are live, their agents are heard, and memory
  is moved to the victim on demand;
- no task, thread or descriptor is left behind in the controller (three connections may come, with a thread
  and three descriptors each: one for VMs in quarantine, a second one for streams, one that is in use just
  then), and no more memory than the journal takes.
"""


def replace_section(path: Path, heading: str, body: str) -> None:
    """Put the section in the place of an older one of that heading, or at the end."""
    text = path.read_text() if path.exists() else ""
    old = re.compile(r"^## ([^\n]*)\n\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    sections = {name: found.strip() for name, found in old.findall(text)}
    sections[heading] = body.strip()
    path.write_text(TITLE + "".join(f"\n## {name}\n\n{found}\n" for name, found in sections.items()))


def table(rows: Sequence[Row], accelerator: str) -> str:
    """What became of the faults of one module."""
    held = sum(row.verdict == "held" for row in rows)
    lines = [
        (row.fault, row.asserted, row.seen, row.verdict)
        for row in (Row("fault", "asserted", "seen", "verdict"), *rows)
    ]
    text = ["| " + " | ".join(_cell(one) for one in line) + " |" for line in lines]
    text.insert(1, "|---|---|---|---|")
    return f"{held} of {len(rows)} held, under {accelerator}.\n\n" + "\n".join(text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
