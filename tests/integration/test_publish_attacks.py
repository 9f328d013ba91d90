"""What a stranger sends to our OPC UA server before anybody asks who it is, and connections that do not end."""

import asyncio
import contextlib
import itertools
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua
from asyncua.common.connection import SecureConnection, TransportLimits
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.crypto.uacrypto import CertProperties
from asyncua.ua.ua_binary import struct_to_binary

from plugin import pki
from plugin.diagnostics import Diagnostics
from plugin.domain import OutputTag
from plugin.publish import admission, reception
from plugin.publish.config import PublishConfig
from plugin.publish.reception import Reception
from plugin.publish.server import OpcUaSink

pytestmark = pytest.mark.asyncio(loop_scope="module")

_TAG = OutputTag("rul", "engine-01", "rul", "cycles", 0.0, 125.0, "")
_NODE = ua.NodeId(ua.String(_TAG.name), ua.Int16(2))
_SESSIONS = 4
_CONNECTIONS = 2 * _SESSIONS
_WAIT = 10.0


class _House:
    """A server that takes secured channels alone, and trusts one client."""

    def __init__(self, sink: OpcUaSink, diagnostics: Diagnostics, folder: Path) -> None:
        self.sink = sink
        self.diagnostics = diagnostics
        self._own = pki.ensure_own_certificate(folder / "friend", "urn:test:friend", ["localhost"])
        pki.trust(folder / "pki", self._own.cert_path.read_bytes())

    async def client(self) -> Client:
        """Trusted, ready to connect."""
        client = Client(self.sink.endpoint, timeout=_WAIT)
        client.application_uri = self._own.application_uri
        key = CertProperties(self._own.key_path, "pem")
        await client.set_security(SecurityPolicyBasic256Sha256, self._own.cert_path, key)
        return client

    async def stranger(self, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection, from one of this machine's addresses."""
        port = int(self.sink.endpoint.split(":")[2].split("/")[0])
        return await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))

    async def opening(self, entry: str) -> bytes:
        """A request for a channel, signed and encrypted; ``entry``: what the client calls it in its own log."""
        policy = (await self.client()).security_policy
        params = ua.OpenSecureChannelParameters(
            0, ua.SecurityTokenRequestType.Issue, ua.MessageSecurityMode.SignAndEncrypt, bytes(32), 60_000
        )
        request = ua.OpenSecureChannelRequest(RequestHeader=ua.RequestHeader(AuditEntryId=entry), Parameters=params)
        channel = SecureConnection(policy, TransportLimits())
        kind: Any = ua.MessageType.SecureOpen
        message: bytes = channel.message_to_binary(struct_to_binary(request), kind, 1)
        return message

    async def cuts_off(self, *messages: bytes, cause: str = "protocol") -> bool:
        """Whether the connection that these came over is closed, and counted."""
        before = self.diagnostics.value("clients_cut_off_total", cause=cause)
        reader, writer = await self.stranger()
        with contextlib.suppress(ConnectionError):
            for message in messages:
                writer.write(message)
                await writer.drain()
            async with asyncio.timeout(_WAIT):
                while await reader.read(65536):
                    pass
        writer.close()
        return self.diagnostics.value("clients_cut_off_total", cause=cause) == before + 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[_House]:
    folder = tmp_path_factory.mktemp("house")
    config = PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", max_sessions=_SESSIONS)
    diagnostics = Diagnostics()
    sink = OpcUaSink(config, folder / "pki", diagnostics)
    async with sink.open([_TAG]):
        yield _House(sink, diagnostics, folder)


def _hello(buffer: int = 65535) -> bytes:
    return b"HELF" + struct.pack("<IIIIIIi", 32, 0, buffer, buffer, 0, 0, -1)


def _message(body: bytes, number: int = 1, kind: bytes = b"F") -> bytes:
    return b"MSG" + kind + struct.pack("<IIIII", 24 + len(body), 0, 0, number, 1) + body


def _request(kind: int, additional: bytes) -> bytes:
    header = b"\x00\x00" + struct.pack("<qIIiI", 0, 1, 0, -1, 0) + additional
    return b"\x01\x00" + struct.pack("<H", kind) + header


def _literal(variant: bytes) -> bytes:
    """An ExtensionObject with a LiteralOperand."""
    return b"\x01\x00" + struct.pack("<HBi", 597, 1, len(variant)) + variant


_GET_ENDPOINTS = ua.ObjectIds.GetEndpointsRequest_Encoding_DefaultBinary
_ENDPOINTS = _request(_GET_ENDPOINTS, b"\x00\x00\x00") + struct.pack("<iii", -1, -1, -1)


async def test_a_stranger_may_ask_for_the_endpoints(house):
    """What the others below do wrong is not how they ask."""
    reader, writer = await house.stranger()
    writer.write(_hello() + _message(_ENDPOINTS))
    async with asyncio.timeout(_WAIT):
        assert (await reader.readexactly(4)) == b"ACKF"
        assert b"Basic256Sha256" in await reader.readuntil(b"Basic256Sha256")
    writer.close()


@pytest.mark.parametrize(
    "variant",
    [
        b"\x80" + struct.pack("<i", 1_000_000),
        b"\xc6" + struct.pack("<iii", 0, 1, 200_000),
        b"\x98" + struct.pack("<i", 1) + b"\x98\x01\x00\x00\x00" * 2000 + b"\x00",
    ],
    ids=["a million of nothing", "a matrix that is not there", "variants in variants"],
)
async def test_some_bytes_of_a_header_do_not_become_megabytes(house, variant):
    rest = struct.pack("<iii", -1, -1, -1)
    assert await house.cuts_off(_hello(), _message(_request(_GET_ENDPOINTS, _literal(variant)) + rest))


async def test_before_a_session_a_message_is_small(house):
    chunks = [_message(bytes(60_000), number, b"C") for number in (1, 2, 3)]
    assert await house.cuts_off(_hello(), *chunks)


async def test_a_request_for_a_channel_is_short(house):
    """Each 256 bytes of it cost 1 ms, whoever sends them."""
    reader, writer = await house.stranger()
    writer.write(_hello() + await house.opening("ours 17"))
    async with asyncio.timeout(_WAIT):
        assert await reader.readuntil(b"OPNF")
    writer.close()
    assert await house.cuts_off(_hello(), await house.opening("17" * 1500))


async def test_what_is_done_for_strangers_has_its_turn(house):
    """Of a client that logs in again and again, at last, each step but those of its session."""
    door = house.sink._server._inner
    before, door.reception = door.reception, Reception(house.diagnostics.handshakes_delayed.inc, lambda: 0.0, _at_once)
    door.reception._left = 0.0

    def delayed() -> Any:
        return house.diagnostics.value("handshakes_delayed_total")

    client, counts = await house.client(), [delayed()]
    await client.connect_sessionless()
    counts.append(delayed())
    await client.create_session()
    counts.append(delayed())
    await client.activate_session()
    counts.append(delayed())
    assert (await client.get_node(_NODE).read_browse_name()).Name == "rul"
    await client.open_secure_channel(renew=True)
    counts.append(delayed())
    await client.close_session()
    await client.disconnect_sessionless()
    door.reception = before
    assert [later - sooner for sooner, later in itertools.pairwise(counts)] == [1, 1, 1, 0]


async def _at_once(_: float) -> None:
    """Nobody waits."""


async def test_an_address_that_makes_too_many_connections_is_not_heard(house, monkeypatch):
    monkeypatch.setattr(reception, "_CONNECTIONS", 3)
    monkeypatch.setattr(reception, "_PER_SECOND", 0)
    before = house.diagnostics.value("clients_cut_off_total", cause="rate")
    lines = [await house.stranger("127.0.0.3") for _ in range(5)]
    for _, writer in lines:
        writer.write(_hello())
    async with asyncio.timeout(_WAIT):
        heard = [await reader.read(3) for reader, _ in lines[:3]]
        with contextlib.suppress(ConnectionError):
            heard += [await reader.read(3) for reader, _ in lines[3:]]
    assert [each for each in heard if each] == [b"ACK"] * 3
    assert house.diagnostics.value("clients_cut_off_total", cause="rate") == before + 2
    for _, writer in lines:
        writer.close()


async def test_a_crowd_from_one_address_pushes_out_its_own(house):
    early = await house.stranger("127.0.0.4")
    crowd = [await house.stranger("127.0.0.5") for _ in range(3 * _CONNECTIONS)]
    early[1].write(_hello())
    async with asyncio.timeout(_WAIT):
        assert await early[0].read(3) == b"ACK"
    for _, writer in (early, *crowd):
        writer.close()


async def test_answers_are_not_cut_into_chunks_of_a_byte(house):
    assert await house.cuts_off(_hello(60))


async def test_a_connection_says_hello_once(house):
    assert await house.cuts_off(_hello(), _hello(8192))


async def test_connections_that_do_nothing_do_not_keep_a_client_out(house):
    before = house.diagnostics.value("clients_cut_off_total", cause="full")
    idle = [await house.stranger() for _ in range(_CONNECTIONS)]
    async with await house.client() as friend:
        assert (await friend.get_node(_NODE).read_browse_name()).Name == "rul"
        idle += [await house.stranger() for _ in range(_CONNECTIONS)]
        assert (await friend.get_node(_NODE).read_browse_name()).Name == "rul"
    assert house.diagnostics.value("clients_cut_off_total", cause="full") > before
    for _, writer in idle:
        writer.close()


async def test_a_session_outlives_the_connection_that_it_has_left(house):
    """A network cut: the client comes back with its session, and the old connection dies minutes later."""
    first, second = await house.client(), await house.client()
    await first.connect()
    await second.connect_sessionless()
    second.uaclient.session.restore_authentication_token(first.uaclient.session.authentication_token)
    second._server_nonce = first._server_nonce
    await second.activate_session()
    with pytest.raises(ua.UaStatusCodeError):
        await first.get_node(_NODE).read_browse_name()
    await first.disconnect_sessionless()
    for _ in range(5):
        assert (await second.get_node(_NODE).read_browse_name()).Name == "rul"
    await second.close_session()
    await second.disconnect_sessionless()


async def test_a_trust_list_that_cannot_be_read_ends_neither_server_nor_session(tmp_path, monkeypatch, caplog):
    """A disk that is full or gone: who is in stays in, who comes is refused, and the log says why."""
    monkeypatch.setattr(admission, "_REVIEW_SECONDS", 0.05)
    diagnostics = Diagnostics()
    sink = OpcUaSink(PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag"), tmp_path / "pki", diagnostics)
    async with sink.open([_TAG]):
        here = _House(sink, diagnostics, tmp_path)
        async with await here.client() as friend:
            trusted = pki.trusted_folder(tmp_path / "pki")
            trusted.rename(tmp_path / "away")
            trusted.write_bytes(b"")
            async with asyncio.timeout(_WAIT):
                while "trust list can't be read" not in caplog.text:
                    await asyncio.sleep(0.01)
            assert (await friend.get_node(_NODE).read_browse_name()).Name == "rul"
            with pytest.raises(ua.UaStatusCodeError, match="BadSecurityChecksFailed"):
                await (await here.client()).connect()
