"""Our own server and trust: the list is that of the sources, and what a person changes takes effect at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.crypto.uacrypto import CertProperties

from plugin import pki
from plugin.diagnostics import Diagnostics
from plugin.domain import OutputTag
from plugin.publish import admission
from plugin.publish.config import PublishConfig
from plugin.publish.server import OpcUaSink
from tests.certificates import CLIENT, DAY, SERVER, Made, authority, make

pytestmark = pytest.mark.asyncio(loop_scope="module")

_TAG = OutputTag("rul", "engine-01", "rul", "cycles", 0.0, 125.0, "")
_NODE = ua.NodeId(ua.String(_TAG.name), ua.Int16(2))
_URI = "urn:foretag"


@dataclass
class House:
    """Our server, whose certificate was renewed 10 days ago, and its trust list."""

    sink: OpcUaSink
    pki: Path

    async def client(self, made: Made) -> Client:
        """Ready to connect as its owner."""
        client = Client(self.sink.endpoint, timeout=10)
        client.application_uri = "urn:test:client"
        await client.set_security(
            SecurityPolicyBasic256Sha256, CertProperties(made.der, "der"), CertProperties(made.key_pem, "pem")
        )
        return client

    async def shown(self) -> set[str]:
        """Thumbprints of what the endpoints show."""
        found = await Client(self.sink.endpoint).connect_and_get_server_endpoints()
        return {pki.thumbprint(endpoint.ServerCertificate) for endpoint in found}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("house") / "pki"
    (folder / "own").mkdir(parents=True)
    (folder / "own" / "own.key").write_bytes(make("own").key_pem)
    pki.own_certificates(folder, _URI, ["localhost"], datetime.now(UTC) - timedelta(days=5 * 365) + 20 * DAY)
    before, admission._REVIEW_SECONDS = admission._REVIEW_SECONDS, 0.1
    sink = OpcUaSink(PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag"), folder, Diagnostics())
    async with sink.open([_TAG]):
        yield House(sink, folder)
    admission._REVIEW_SECONDS = before


def client_certificate(name: str, issuer: Made | None = None, **more: Any) -> Made:
    return make(name, issuer, **{"uri": "urn:test:client", **more})


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_a_client_needs_a_clients_certificate_of_an_authority_on_the_one_trust_list(house: House) -> None:
    root = authority("plant authority")
    pki.trust(house.pki, root.der)
    async with await house.client(client_certificate("scada", root, roles=[CLIENT])):
        pass
    with pytest.raises(ua.UaStatusCodeError, match="BadCertificateUseNotAllowed"):
        await (await house.client(client_certificate("another server", root, roles=[SERVER]))).connect()


async def test_a_client_that_is_trusted_no_more_loses_its_session(house: House) -> None:
    visitor, friend = client_certificate("visitor"), client_certificate("friend")
    for made in (visitor, friend):
        pki.trust(house.pki, made.der)
    async with await house.client(friend) as stays:
        client = await house.client(visitor)
        await client.connect()
        pki.move(house.pki, visitor.cert, pki.Place.REJECTED)

        async def is_out() -> bool:
            try:
                await client.get_node(_NODE).read_display_name()
            except (ua.UaError, ConnectionError):
                return True
            return False

        await until(is_out)
        assert (await stays.get_node(_NODE).read_display_name()).Text
        await client._cancel_task(client._supervisor_task)
        await client._cancel_task(client._stale_watchdog_task)
        await client._cancel_task(client._renew_channel_task)
        client.disconnect_socket()
        with pytest.raises(ua.UaStatusCodeError, match="BadCertificateUntrusted"):
            await (await house.client(visitor)).connect()


async def test_clients_are_shown_the_old_certificate_while_they_learn_to_trust_the_new_one(house: House) -> None:
    newest, old = pki.own_certificates(house.pki, _URI, ["localhost"])
    assert newest.thumbprint != old.thumbprint
    assert await house.shown() == {old.thumbprint}


async def test_a_certificate_that_is_brought_is_shown_to_who_comes_and_cuts_off_nobody(house: House) -> None:
    friend = client_certificate("friend")
    pki.trust(house.pki, friend.der)
    brought = make("foretag", authority("company"), uri=_URI)
    async with await house.client(friend) as stays:
        (house.pki / "own" / "own.key").write_bytes(brought.key_pem)
        (house.pki / "own" / "own.der").write_bytes(brought.der)

        async def is_shown() -> bool:
            return await house.shown() == {pki.thumbprint(brought.der)}

        await until(is_shown)
        assert (await stays.get_node(_NODE).read_display_name()).Text
        async with await house.client(friend) as comes:
            assert (await comes.get_node(_NODE).read_display_name()).Text


async def test_one_that_will_not_do_changes_nothing(house: House, caplog: pytest.LogCaptureFixture) -> None:
    before = await house.shown()
    (house.pki / "own" / "own.der").write_bytes(make("foretag", uri="urn:other").der)

    async def is_told() -> bool:
        return "goes on with its certificate" in caplog.text

    await until(is_told)
    assert await house.shown() == before
