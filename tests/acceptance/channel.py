"""The lower half of the scripted server: a secure channel (policy None) in chunks, and values as bytes."""

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary

_TICKS_TO_1970 = 116_444_736_000_000_000
_CHUNK = 60_000  # bytes of a message in one chunk


class Terms(Protocol):
    """What a server says of its channels."""

    token_lifetime: int
    """The longest that it grants [ms]."""

    def now(self) -> float:
        """Its clock [s since 1970]."""


@dataclass(slots=True)
class Datum:
    """A value in a queue."""

    value: float
    source: float
    """[s since 1970]"""
    status: int = 0


class Connection:
    """One TCP connection: chunks in, messages out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, channel: int, server: Terms) -> None:
        self.request = 0
        """Id of the request that is being answered."""
        self.writer = writer
        self.channel = channel
        self._server = server
        self._reader = reader
        self.tokens: dict[int, float] = {}
        self._token = 0
        self._sequence = itertools.count(1)

    async def messages(self) -> AsyncIterator[tuple[int, bytes]]:
        parts = b""
        while True:
            head = await self._reader.readexactly(8)
            kind, size = head[:4], int.from_bytes(head[4:], "little")
            body = await self._reader.readexactly(size - 8)
            if kind == b"HELF":
                self.write(b"ACKF" + struct.pack("<6I", 28, 0, 65535, 65535, 0, 0))
            elif kind == b"OPNF":
                self._open(body)
            elif kind[:3] == b"CLO":
                return
            elif kind[:3] == b"MSG":
                self._check_token(int.from_bytes(body[4:8], "little"))
                parts += body[16:]
                if kind == b"MSGF":
                    yield int.from_bytes(body[12:16], "little"), parts
                    parts = b""

    def _open(self, body: bytes) -> None:
        buffer = Buffer(body[4:])
        struct_from_binary(ua.AsymmetricAlgorithmHeader, buffer)
        sequence = struct_from_binary(ua.SequenceHeader, buffer)
        request = struct_from_binary(ua.OpenSecureChannelRequest, buffer)
        token = len(self.tokens) + 1
        lifetime = min(request.Parameters.RequestedLifetime, self._server.token_lifetime)
        self.tokens[token] = asyncio.get_running_loop().time() + 1.25 * lifetime / 1000
        self._token = self._token or token
        response = ua.OpenSecureChannelResponse()
        response.ResponseHeader.RequestHandle = request.RequestHeader.RequestHandle
        created = stamp(self._server.now())
        response.Parameters.SecurityToken = ua.ChannelSecurityToken(self.channel, token, created, lifetime)
        response.Parameters.ServerNonce = b""
        policy = b"http://opcfoundation.org/UA/SecurityPolicy#None"
        security = struct.pack("<Ii", self.channel, len(policy)) + policy + struct.pack("<ii", -1, -1)
        body = security + struct.pack("<II", next(self._sequence), sequence.RequestId) + struct_to_binary(response)
        self.write(b"OPNF" + struct.pack("<I", 8 + len(body)) + body)

    def _check_token(self, token: int) -> None:
        """Close the channel of a client that did not renew in time; go over to a new token once it is used."""
        if asyncio.get_running_loop().time() > self.tokens.get(token, 0.0):
            raise OSError("token")
        self._token = max(self._token, token)

    def send(self, request: int, body: bytes) -> None:
        """An answer, in as many chunks as it takes."""
        for at in range(0, len(body), _CHUNK):
            self.chunk(b"F" if at + _CHUNK >= len(body) else b"C", request, body[at : at + _CHUNK])

    def chunk(self, final: bytes, request: int, part: bytes) -> None:
        head = struct.pack("<IIIII", 24 + len(part), self.channel, self._token, next(self._sequence), request)
        self.write(b"MSG" + final + head + part)

    def write(self, data: bytes) -> None:
        if not self.writer.is_closing():
            self.writer.write(data)

    def abort(self) -> None:
        self.writer.transport.abort()


def data_change(values: Iterable[tuple[int, Datum]], server_time: float) -> tuple[int, bytes]:
    """A DataChangeNotification of (client handle, Double)."""
    rows = [_encoded(handle, datum, ticks(server_time)) for handle, datum in values]
    return ua.ObjectIds.DataChangeNotification_Encoding_DefaultBinary, struct.pack("<i", len(rows)) + b"".join(
        rows
    ) + NO_INFO


NO_INFO = struct.pack("<i", -1)


def _encoded(handle: int, datum: Datum, server: int) -> bytes:
    source = ticks(datum.source)
    if datum.status:
        return struct.pack("<IBBdIqq", handle, 0x0F, 11, datum.value, datum.status, source, server)
    return struct.pack("<IBBdqq", handle, 0x0D, 11, datum.value, source, server)


def status_change(code: int) -> tuple[int, bytes]:
    """A StatusChangeNotification."""
    return ua.ObjectIds.StatusChangeNotification_Encoding_DefaultBinary, struct.pack("<IB", code, 0)


def ticks(seconds: float) -> int:
    """An OPC UA DateTime, to the microsecond."""
    return round(seconds * 1e6) * 10 + _TICKS_TO_1970


def stamp(seconds: float) -> Any:
    """A time for asyncua to encode."""
    return datetime.fromtimestamp(seconds, UTC)
