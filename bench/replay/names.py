"""Where a tree defines something. Modules move from commit to commit, and names stay."""

import importlib
import re
from functools import cache
from pathlib import Path
from typing import Any


@cache
def the(name: str, *rooms: str) -> Any:
    """What the tree in the working directory defines by that name, in the first of these folders that has it.

    Raises LookupError when none has.
    """
    defined = re.compile(rf"^(class {name}\b|def {name}\b|{name}\b.* = )", re.MULTILINE)
    for room in rooms or ("host_controller",):
        for path in sorted(Path(room).rglob("*.py")):
            if defined.search(path.read_text(encoding="utf-8")):
                return getattr(importlib.import_module(".".join(path.with_suffix("").parts)), name)
    raise LookupError(f"{Path.cwd()} defines no {name}")
