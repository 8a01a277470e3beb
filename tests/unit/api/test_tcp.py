"""What a network peer can do, where the configuration lets it in at all: read."""

import asyncio

import pytest
import structlog

from host_controller.api.server import Api
from host_controller.errors import DynmemError
from tests.support.serving import ask
from tests.support.virtual import Host, aside, run


def test_over_tcp_nothing_can_be_changed_and_no_foreign_name_is_answered() -> None:
    async def story() -> None:
        host = Host()
        host.vm("web")
        async with host.controller() as controller:
            await asyncio.sleep(1)
            api = Api(controller, lambda: None)
            port = await api.start_tcp("127.0.0.1", 0)
            try:
                assert (await aside(ask, port, "/v1/status"))[0] == 200
                for path in ("/v1/pause", "/v1/vms/web/pause", "/v1/reload", "/v1/admission"):
                    status, _ = await aside(ask, port, path, "POST")
                    assert status in (404, 405), path
                assert not controller.pausing.paused_all
                # A page from elsewhere comes by a name of its own that was bent to this address.
                assert (await aside(lambda: ask(port, "/v1/status", Host="evil.example")))[0] == 403
            finally:
                await api.stop()

    run(story())


def test_an_address_that_comes_later_is_listened_at_and_one_that_somebody_has_is_not() -> None:
    async def story() -> None:
        async with Host().controller() as controller:
            api = Api(controller, lambda: None)
            try:
                with structlog.testing.capture_logs() as said:
                    port = await api.start_tcp("203.0.113.7", 0)  # a network for documents, and nobody's
                assert [one["address"] for one in said] == ["203.0.113.7"]
                with pytest.raises(DynmemError, match="in use"):
                    await api.start_tcp("203.0.113.7", port)
            finally:
                await api.stop()

    run(story())
