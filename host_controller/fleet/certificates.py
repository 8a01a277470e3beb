"""The fleet's own small authority, and a certificate for each host, made by openssl.

The authority's key stays in the directory where it was made: hosts get `ca.pem`, `host.pem` and `host.key`.
"""

import contextlib
import ipaddress
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from host_controller.errors import InputError
from host_controller.fleet.errors import FleetError
from host_controller.neutral import neutral
from host_controller.private import private_directory

AUTHORITY_DAYS: Final = 3650
HOST_DAYS: Final = 397
LONGEST_NAME: Final = 64
"""Of a common name (RFC 5280)."""
_BARE: Final = "[req]\ndistinguished_name = dn\nprompt = no\n[dn]\nCN = {}\n"
"""Without the extensions that the system's own configuration would add."""


def make_authority(directory: Path) -> bool:
    """A new authority, unless there is one; returns whether it was made.

    Raises:
        InputError: half of one is there.
        FleetError: openssl failed, or nothing can be written there.
    """
    certificate, key = directory / "ca.pem", directory / "ca.key"
    with _written():
        there = certificate.exists() + key.exists()
    if there == 2:
        return False
    if there:
        raise InputError(f"{directory} has only one of ca.pem and ca.key", hint="name another directory")
    with _written():
        private_directory(directory)
    extensions = ("basicConstraints=critical,CA:TRUE,pathlen:0", "keyUsage=critical,keyCertSign,cRLSign")
    _make("dynmem fleet", key, certificate, AUTHORITY_DAYS, extensions)
    return True


def make_host(directory: Path, host: str, days: int = HOST_DAYS) -> Path:
    """A host's new key and certificate in a directory of its name, with the authority's; returns that.

    Raises:
        InputError: that is no name of a host.
        FleetError: openssl failed, or nothing can be written there.
    """
    allowed = host.translate({ord(one): None for one in "-._"})
    if not (allowed.isascii() and allowed.isalnum()) or host[0] in "-._" or len(host) > LONGEST_NAME:
        hint = f"letters, digits, dots, dashes and _, at most {LONGEST_NAME}: the node's name in the cluster"
        raise InputError(f"{neutral(host, 100)!r} is no name of a host", hint=hint)
    place = directory / host
    with _written():
        private_directory(place)
    extensions = (
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature",
        "extendedKeyUsage=serverAuth,clientAuth",
        f"subjectAltName={_kind(host)}:{host}",
    )
    authority = ("-CA", str(directory / "ca.pem"), "-CAkey", str(directory / "ca.key"))
    _make(host, place / "host.key", place / "host.pem", days, extensions, authority)
    with _written():
        _write(place / "ca.pem", (directory / "ca.pem").read_bytes())
    return place


def _kind(host: str) -> str:
    """A node can be called by its address: a certificate for a name is not believed of that."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "DNS"
    return "IP"


def end_of(certificate: Path) -> float:
    """When it expires, in seconds since 1970; one that has expired can be read, too.

    Raises:
        FleetError: it cannot be read.
    """
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-enddate"]
    name, _, when = _openssl(command).decode(errors="replace").strip().partition("=")
    try:
        if name != "notAfter":
            raise ValueError(name)
        return float(ssl.cert_time_to_seconds(when))
    except ValueError:
        raise FleetError(f"{certificate}: openssl does not say when it expires") from None


def _openssl(command: Sequence[str]) -> bytes:
    """What it says.

    Raises:
        FleetError: it failed.
    """
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    except FileNotFoundError:
        raise FleetError("there is no openssl here", hint="install the package openssl") from None
    except subprocess.TimeoutExpired:
        raise FleetError("openssl did not end within a minute") from None
    if done.returncode != 0:
        raise FleetError(f"openssl: {neutral(done.stderr.decode(errors='replace').strip(), 300)}")
    return done.stdout


def _make(
    name: str,
    key: Path,
    certificate: Path,
    days: int,
    extensions: Sequence[str],
    authority: Sequence[str] = (),
) -> None:
    """A key and its certificate, in place only when both are made: a host may be reading the old ones."""
    with _written(), tempfile.TemporaryDirectory(dir=key.parent, prefix=".new-") as new:
        configuration, new_key, new_certificate = (Path(new, one) for one in ("cnf", "key", "pem"))
        configuration.write_text(_BARE.format(name))
        command = ["openssl", "req", "-x509", "-config", str(configuration), "-newkey", "ec", "-noenc"]
        command += ["-pkeyopt", "ec_paramgen_curve:P-256", "-days", str(days), *authority]
        command += ["-keyout", str(new_key), "-out", str(new_certificate)]
        for one in extensions:
            command += ["-addext", one]
        _openssl(command)
        new_key.chmod(0o600)
        new_key.rename(key)
        new_certificate.rename(certificate)


@contextlib.contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"{error.filename or 'a file'}: {error.strerror}"
        raise FleetError(text, hint="name another directory or host") from None


def _write(file: Path, content: bytes) -> None:
    new = file.with_suffix(".new")
    new.write_bytes(content)
    new.rename(file)
