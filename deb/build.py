"""`make packages`: two .deb from this tree, without a network for the agent's.

    dynmem-agent_VERSION_all.deb    the agent on Debian's own Python packages (Debian 12 and 13)
    dynmem_VERSION_ARCH.deb         the controller with its Python packages in /usr/lib/dynmem

Both are private directories, because the packages' names are general. Versions are those of constraints.txt.
"""

import compileall
import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
HERE: Final = ROOT / "deb"
MAINTAINER: Final = "dynmem maintainers <maintainers@dynmem.invalid>"
DATE: Final = "Mon, 01 Jan 2024 00:00:00 +0000"
SYSTEM_PYTHON: Final = "/usr/bin/python3"

WRAPPER: Final = """#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/usr/lib/{package}")
from {module} import main

sys.exit(main())
"""


def version() -> str:
    """The project's."""
    found = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert found is not None
    return found[1]


def build_agent(out: Path, work: Path) -> Path:
    """The guest's package."""
    tree = _fresh(work / "dynmem-agent")
    _copy_package(ROOT / "agent", tree / "usr/lib/dynmem-agent/agent")
    _program(tree / "usr/bin/dynmem-agent", "dynmem-agent", "agent.cli")
    _put(ROOT / "systemd/dynmem-agent.service", tree / "usr/lib/systemd/system/dynmem-agent.service")
    _put(ROOT / "systemd/90-dynmem-agent.rules", tree / "usr/lib/udev/rules.d/90-dynmem-agent.rules")
    _manual(tree, work, lambda name: name.startswith("dynmem-agent."))
    _documents(tree, "dynmem-agent", ["PROTOCOL.md"])
    return _pack(tree, out, "dynmem-agent", "all", HERE / "agent")


def build_controller(out: Path, work: Path) -> Path:
    """The host's package, for this machine's architecture and minor version of Python."""
    tree = _fresh(work / "dynmem")
    lib = tree / "usr/lib/dynmem"
    _install_dependencies(lib, work)
    _copy_package(ROOT / "agent", lib / "agent")
    _copy_package(ROOT / "host_controller", lib / "host_controller")
    _program(tree / "usr/bin/dynmem", "dynmem", "host_controller.cli")
    _put(ROOT / "systemd/dynmem.service", tree / "usr/lib/systemd/system/dynmem.service")
    _put(ROOT / "systemd/dynmem.sysusers", tree / "usr/lib/sysusers.d/dynmem.conf")
    _put(ROOT / "systemd/dynmem.tmpfiles", tree / "usr/lib/tmpfiles.d/dynmem.conf")
    _put(HERE / "dynmem.toml", tree / "etc/dynmem/dynmem.toml")
    _manual(tree, work, lambda name: not name.startswith("dynmem-agent."))
    for shell, place in (
        ("bash", "usr/share/bash-completion/completions/dynmem"),
        ("zsh", "usr/share/zsh/vendor-completions/_dynmem"),
        ("fish", "usr/share/fish/vendor_completions.d/dynmem.fish"),
    ):
        _write(tree / place, _dynmem("completion", shell))
    _documents(tree, "dynmem", ["README.md", "ARCHITECTURE.md", "OPERATIONS.md"])
    for file in sorted((ROOT / "monitoring").glob("*[!t].*")):
        _put(file, tree / "usr/share/doc/dynmem/examples" / file.name)
    return _pack(tree, out, "dynmem", _output("dpkg", "--print-architecture").strip(), HERE / "controller")


def _install_dependencies(lib: Path, work: Path) -> None:
    """The Python packages at the versions of constraints.txt."""
    # The distribution's Python runs the package, so it builds it: ours may be another.
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", work / "venv"], check=True)
    install = [
        *(str(work / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *(
            "--no-compile",
            "--no-cache-dir",
            "--constraint",
            str(ROOT / "constraints.txt"),
            "--target",
            str(lib),
        ),
    ]
    wanted = re.search(r"^dependencies = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert wanted is not None
    subprocess.run([*install, *re.findall(r'"([^"]+)"', wanted[1])], check=True, cwd=work)
    # Of the chart library only its files are served: what its Python part would pull in stays out.
    subprocess.run([*install, "--no-deps", "uplot-python"], check=True, cwd=work)
    shutil.rmtree(lib / "bin", ignore_errors=True)
    for unwanted in ("**/__pycache__", "**/tests", "**/*.pyi", "**/*.pyx", "**/*.pxd", "**/*.c", "**/*.h"):
        for path in list(lib.glob(unwanted)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for path in lib.rglob("*.so"):
        subprocess.run(["strip", "--strip-unneeded", "--remove-section=.comment", path], check=True)
        path.chmod(0o644)


def _pack(tree: Path, out: Path, package: str, architecture: str, control: Path) -> Path:
    debian = tree / "DEBIAN"
    debian.mkdir()
    for path in tree.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    installed = sum(one.stat().st_size for one in tree.rglob("*") if one.is_file()) // 1024
    minor = int(_output(SYSTEM_PYTHON, "-c", "import sys; print(sys.version_info[1])"))
    text = (
        (control / "control")
        .read_text()
        .format(
            version=version(),
            architecture=architecture,
            maintainer=MAINTAINER,
            installed=installed,
            python=f"python3 (>= 3.{minor}~), python3 (<< 3.{minor + 1})",
        )
    )
    _write(debian / "control", text)
    for script in ("postinst", "prerm", "postrm"):
        _write(debian / script, (control / script).read_text(), 0o755)
    etc = [f"/{one.relative_to(tree)}" for one in (tree / "etc").rglob("*") if one.is_file()]
    if etc:
        _write(debian / "conffiles", "".join(f"{one}\n" for one in etc))
    sums = _output(
        "sh", "-c", "find usr etc -type f 2>/dev/null | LC_ALL=C sort | xargs -d '\\n' md5sum", directory=tree
    )
    _write(debian / "md5sums", sums)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{package}_{version()}_{architecture}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zxz", "--build", tree, file], check=True, stdout=2)
    return file


def _copy_package(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    if not compileall.compile_dir(target, quiet=1, legacy=False, force=True):
        raise SystemExit(f"{source} does not compile")
    for cache in list(target.rglob("__pycache__")):
        shutil.rmtree(cache)  # py3compile makes them where it is installed, for the Python that is there


def _documents(tree: Path, package: str, files: Iterable[str]) -> None:
    place = tree / "usr/share/doc" / package
    for name in files:
        if (ROOT / name).exists():
            _put(ROOT / name, place / name)
    _put(HERE / "copyright", place / "copyright")
    changes = f"{package} ({version()}) unstable; urgency=medium\n\n  * See the repository's history.\n\n"
    _zip(place / "changelog.gz", f"{changes} -- {MAINTAINER}  {DATE}\n")
    overrides = HERE / f"{package}.lintian-overrides"
    if overrides.exists():
        _put(overrides, tree / "usr/share/lintian/overrides" / package)


def _manual(tree: Path, work: Path, wanted: Callable[[str], bool]) -> None:
    pages = _fresh(work / "man")
    subprocess.run([sys.executable, "-m", "host_controller.cli.manual", pages], check=True, cwd=ROOT)
    for page in sorted(pages.iterdir()):
        if wanted(page.name):
            _zip(tree / f"usr/share/man/man{page.suffix[1:]}/{page.name}.gz", page.read_text())


def _dynmem(*arguments: str) -> str:
    code = "from host_controller.cli import main; main()"
    return _output(sys.executable, "-c", code, *arguments, directory=ROOT)


def _program(path: Path, package: str, module: str) -> None:
    _write(path, WRAPPER.format(package=package, module=module), 0o755)


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o644)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _zip(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    path.chmod(0o644)


def _fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def _output(*command: str, directory: Path | None = None) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=directory).stdout


if __name__ == "__main__":
    os.umask(0o022)
    chosen = sys.argv[1:] or ["agent", "controller"]
    builders = {"agent": build_agent, "controller": build_controller}
    for name in chosen:
        sys.stdout.write(f"{builders[name](ROOT / 'dist', ROOT / 'build')}\n")
