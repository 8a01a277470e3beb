"""Ratios written to Placement: each by its provider's generation, so that nobody's change is overwritten."""

import http.client
import json
import re
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from host_controller.errors import InputError
from host_controller.fleet.asking import UNHEARD, ask, read_object
from host_controller.fleet.core.model import HostFigures
from host_controller.fleet.errors import FleetError
from host_controller.fleet.placement.ratio import Inventory, ratio_of
from host_controller.neutral import neutral

VERSION: Final = "placement 1.20"
"""From Rocky on: a provider's generation comes with its inventory."""
SECONDS: Final = 30.0
AT_A_TIME: Final = 4
LISTED_FROM: Final = 32
"""From so many hosts on all providers are asked for at once, and not each by its name."""
LARGEST_ANSWER: Final = 16 << 20
MEMORY: Final = "MEMORY_MB"
KEPT: Final = ("total", "reserved", "min_unit", "max_unit", "step_size")
STALE: Final = 409
TRIES: Final = 4
"""Of one ratio: instances that come and go change a provider's generation, and that is soon read again."""
LARGEST_MIB: Final = 1 << 40
"""An exbibyte: beyond it something is wrong with the figures."""
LARGEST_TOKEN: Final = 1 << 16


_TOKEN: Final = re.compile(rf"[!-~]{{1,{LARGEST_TOKEN}}}")


class PlacementError(FleetError):
    """Placement does not answer, or not as it should. Nothing was changed."""


class Stale(PlacementError):  # noqa: N818 # read as what happened
    """Somebody else has changed the provider since it was read."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one host's ratio."""

    host: str
    ratio: float | None = None
    """None: it was near enough, or could not be written."""
    problem: str | None = None


class Placement:
    """One service. `endpoint`: as Keystone's catalogue has it. `token`: its user may write inventories."""

    def __init__(self, endpoint: str, token: str, context: ssl.SSLContext | None = None) -> None:
        """Raises InputError: that is no address of a service, or no token."""
        try:
            parts = urlsplit(endpoint)
            self._port = parts.port
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                f"{neutral(endpoint, 200)!r} is no address of a service", hint="https://host/placement"
            )
        if not _TOKEN.fullmatch(token):
            raise InputError("that is no token of Keystone's", hint="openstack token issue -f value -c id")
        # Said to http.client always: it takes the end of an IPv6 address for one.
        self._port = self._port or (443 if parts.scheme == "https" else 80)
        self._parts, self._context = parts, context
        self._headers = {
            "X-Auth-Token": token,
            "OpenStack-API-Version": VERSION,
            "Content-Type": "application/json",
            "Accept": "application/json",
        }

    def publish(self, figures: Mapping[str, HostFigures | None]) -> list[Outcome]:
        """Set the ratios of these hosts, where they differ; `None`: the host does not answer.

        Providers have the hosts' names. One that fails harms no other.
        """
        known = self._all() if len(figures) >= LISTED_FROM else {}
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            return list(pool.map(lambda host: self._one(host, figures[host], known.get(host)), figures))

    def _all(self) -> dict[str, object]:
        """Every provider's UUID by its name; none where they cannot be had at once."""
        with closing(self._connect()) as connection:
            try:
                listed = self._ask(connection, "GET", "/resource_providers")["resource_providers"]
                return {one["name"]: one["uuid"] for one in listed}
            except (PlacementError, KeyError, TypeError):
                return {}

    def _one(self, host: str, figures: HostFigures | None, uuid: object) -> Outcome:
        with closing(self._connect()) as connection:
            try:
                uuid = uuid or self._uuid_of(connection, host)
                for _ in range(TRIES - 1):
                    with suppress(Stale):
                        return self._set(connection, host, figures, uuid)
                return self._set(connection, host, figures, uuid)
            except PlacementError as error:
                return Outcome(host, problem=error.message)

    def _uuid_of(self, connection: http.client.HTTPConnection, host: str) -> object:
        try:
            asked = f"/resource_providers?name={quote(host, safe='')}"
        except UnicodeEncodeError:
            raise PlacementError(f"{neutral(host, 100)!r} is no name of a provider") from None
        listed = self._ask(connection, "GET", asked)
        providers = listed.get("resource_providers", ())
        try:
            # A database may take upper and lower case for the same.
            found = [one["uuid"] for one in providers if one["name"] == host]
        except (KeyError, TypeError):
            raise PlacementError(f"Placement's answer about {host} is not understood") from None
        if len(found) != 1:
            raise PlacementError(f"Placement has no provider {host}")
        return found[0]

    def _set(
        self, connection: http.client.HTTPConnection, host: str, figures: HostFigures | None, uuid: object
    ) -> Outcome:
        try:
            place = f"/resource_providers/{quote(str(uuid), safe='')}"
            found = self._ask(connection, "GET", f"{place}/inventories/{MEMORY}")
            allocations = self._ask(connection, "GET", f"{place}/allocations").get("allocations", {})
            allocated = {
                str(uuid): _whole(one["resources"].get(MEMORY, 0)) for uuid, one in allocations.items()
            }
            total, reserved = _whole(found["total"]), _whole(found["reserved"])
            inventory = Inventory(total, reserved, _ratio(found["allocation_ratio"]), allocated)
            body: dict[str, Any] = {key: _whole(found[key]) for key in KEPT}
            generation = _whole(found["resource_provider_generation"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            said = neutral(error, 200)
            raise PlacementError(f"Placement's answer about {host} is not understood: {said}") from None
        ratio = ratio_of(inventory, figures)
        if ratio is None:
            return Outcome(host)
        body |= {"allocation_ratio": ratio, "resource_provider_generation": generation}
        self._ask(connection, "PUT", f"{place}/inventories/{MEMORY}", body)
        return Outcome(host, ratio)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = str(self._parts.hostname), self._port
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=SECONDS)
        return http.client.HTTPSConnection(host, port, timeout=SECONDS, context=self._context)

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: object = None
    ) -> dict[str, Any]:
        sent = None if body is None else json.dumps(body)
        where = f"{self._parts.path.rstrip('/')}{path}"
        try:
            status, text = ask(
                connection,
                method,
                where,
                seconds=SECONDS,
                largest=LARGEST_ANSWER,
                headers=self._headers,
                body=sent,
            )
        except UNHEARD as error:
            raise PlacementError(f"Placement does not answer: {neutral(error, 200)}") from None
        if status == STALE:
            raise Stale(f"others changed the provider meanwhile, {TRIES} times: the next turn tries again")
        if status >= 300:
            raise PlacementError(f"Placement refuses {method} {path}: HTTP {status}")
        try:
            return read_object(text)
        except ValueError:
            raise PlacementError(f"Placement's answer to {method} {path} is not understood") from None


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST_MIB:  # a truth is a number to Python
        raise ValueError(f"{value!r} is no number of Placement's")
    return value


def _ratio(value: object) -> float:
    if type(value) in (int, float) and 0 <= value <= LARGEST_MIB:  # type: ignore[operator] # so NaN is none
        return float(value)  # type: ignore[arg-type] # a number
    raise ValueError(f"{value!r} is no ratio")
