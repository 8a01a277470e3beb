"""This host's Python as files for an initramfs: the interpreter, its libraries, and the modules it needs.

Nothing is downloaded and nothing is assumed of a distribution: the interpreter itself says which files it
opened to import what the guest's programs import.
"""

import importlib.util
import json
import os
import py_compile
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import agent
from host_controller.verify.errors import VerifyError

_LIBRARY: Final = re.compile(r"(/\S+) \(0x[0-9a-f]+\)")
# What a program needs beyond what importing it loads: codecs, and what subprocess and ctypes fetch when used.
_ASK: Final = """
import importlib, json, os, sys
names, agent = json.load(sys.stdin)
sys.path.insert(0, agent)
for name in names:
    importlib.import_module(name)
loaded = [one for name, one in list(sys.modules.items()) if name.partition(".")[0] != "agent"]
files = {one.__spec__.origin for one in loaded if getattr(one, "__spec__", None)}
json.dump([os.__file__, *sorted(one for one in files if one and one.startswith("/"))], sys.stdout)
"""
MODULES: Final = (
    *(
        "encodings.utf_8",
        "encodings.ascii",
        "encodings.latin_1",
        "encodings.idna",
        "runpy",
        "zipimport",
        "pkgutil",
    ),
    *(
        "ctypes",
        "subprocess",
        "contextlib",
        "json",
        "mmap",
        "os",
        "select",
        "signal",
        "time",
        "pathlib",
        "typing",
    ),
    *("collections.abc", "platform", "struct", "errno", "gc", "socket", "math", "types", "base64", "random"),
    *("agent.cli", "agent.daemon"),
)


def interpreter() -> Path:
    """The real file of the interpreter that runs this, outside of any virtual environment."""
    return Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))


def files() -> Iterator[tuple[str, bytes, int]]:
    """Path, content and mode of each file; the path is the one that it has on this host.

    Raises:
        VerifyError: the interpreter or a library cannot be read.
    """
    python = interpreter()
    done = subprocess.run(
        [python, "-I", "-S", "-c", _ASK],
        input=json.dumps([MODULES, str(Path(agent.__file__).parents[1])]),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise VerifyError(f"{python} cannot be asked for its modules: {done.stderr.strip()[-300:]}")
    modules = [Path(one) for one in json.loads(done.stdout)]
    yield str(python), python.read_bytes(), 0o755
    for path in sorted(set(modules)):
        yield str(path), path.read_bytes(), 0o644
    yield from _compiled(one for one in set(modules) if one.suffix == ".py")
    for library in sorted(_libraries([python, *(one for one in modules if one.suffix == ".so")])):
        yield library, Path(library).read_bytes(), 0o755


def _compiled(sources: Iterable[Path]) -> Iterator[tuple[str, bytes, int]]:
    """The code of each, so that a guest under TCG need not compile it at every boot."""
    if interpreter().name.removeprefix("python") != f"{sys.version_info[0]}.{sys.version_info[1]}":
        return  # our code is not what that interpreter reads
    with tempfile.TemporaryDirectory(prefix="dynmem-verify-") as directory:
        target = os.path.join(directory, "code")
        for source in sorted(sources):
            py_compile.compile(
                str(source),
                target,
                dfile=str(source),
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
            yield importlib.util.cache_from_source(str(source)), Path(target).read_bytes(), 0o644


def _libraries(binaries: Iterable[Path]) -> set[str]:
    found: set[str] = set()
    for binary in binaries:
        done = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False)
        found.update(_LIBRARY.findall(done.stdout))
    return found
