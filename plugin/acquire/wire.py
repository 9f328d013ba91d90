"""The services that carry values: Publish, Republish, HistoryRead. Requests are encoded by asyncua, answers read here.

asyncua decodes an answer into an object per value, and one value that it can't decode loses the whole answer.
"""

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from asyncua import ua
from asyncua.client.ua_session import UaSession
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary

from plugin.acquire.decoding import Values, decode_values
from plugin.acquire.measuring import Malformed
from plugin.domain import Micros

DATA_CHANGE = 811
STATUS_CHANGE = 820
_HISTORY = (658, 11227)  # HistoryData, HistoryModifiedData: both begin with the DataValues

_TICKS_TO_1970 = 116_444_736_000_000_000
_NO_DATA = 0x00A50000


@dataclass(frozen=True, slots=True)
class Message:
    """A NotificationMessage (OPC 10000-4, 7.26) and when it came."""

    subscription: int
    sequence: int
    published: Micros
    """The server's clock [µs]; 0 where it gave none."""
    received: Micros
    """Our clock [µs]."""
    notifications: tuple[tuple[int, bytes], ...] = ()
    """Encoding id and body; none: a keep-alive, and ``sequence`` is that of the next message."""


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """One node's part of a HistoryRead answer."""

    status: int
    values: Values
    continuation: bytes
    """Empty: that was all."""


def now_micros() -> Micros:
    """Our clock [µs]."""
    return time.time_ns() // 1000


async def publish(session: UaSession, acks: Sequence[tuple[int, int]]) -> Message:
    """Ask for the next message, acknowledging (subscription, sequence) pairs. Waits as long as the server is silent."""
    request = ua.PublishRequest()
    request.Parameters.SubscriptionAcknowledgements = [ua.SubscriptionAcknowledgement(*ack) for ack in acks]
    reader = await _ask(session, request, bound=0)
    subscription = reader.uint32()
    for _ in range(reader.count()):  # available sequence numbers
        reader.uint32()
    reader.skip(1)  # more notifications: the next Publish fetches them
    return _message(reader, subscription)


async def republish(session: UaSession, subscription: int, sequence: int) -> Message:
    """Ask once more for a message that did not come."""
    request = ua.RepublishRequest()
    request.Parameters.SubscriptionId = subscription
    request.Parameters.RetransmitSequenceNumber = sequence
    return _message(await _ask(session, request), subscription)


async def history_read(
    session: UaSession, nodes: Sequence[tuple[ua.NodeId, bytes]], start: datetime, end: datetime, size: int
) -> list[Page]:
    """Raw values of several (node, continuation point), ``start <= source time < end``, at most ``size`` of each."""
    request = ua.HistoryReadRequest()
    parameters = request.Parameters
    parameters.HistoryReadDetails = ua.ReadRawModifiedDetails(False, start, end, size, False)
    parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
    parameters.ReleaseContinuationPoints = False  # asyncua's default is True: release, and read nothing
    parameters.NodesToRead = [_to_read(node, point) for node, point in nodes]
    reader = await _ask(session, request)
    received = now_micros()
    return [_page(reader, received) for _ in range(reader.count())]


async def release(session: UaSession, nodes: Sequence[tuple[ua.NodeId, bytes]]) -> None:
    """Give back continuation points that will not be followed."""
    request = ua.HistoryReadRequest()
    request.Parameters.HistoryReadDetails = ua.ReadRawModifiedDetails()
    request.Parameters.ReleaseContinuationPoints = True
    request.Parameters.NodesToRead = [_to_read(node, point) for node, point in nodes]
    await _ask(session, request)


def _to_read(node: ua.NodeId, point: bytes) -> ua.HistoryReadValueId:
    value = ua.HistoryReadValueId(NodeId=node)
    value.ContinuationPoint = point or None
    return value


async def _ask(session: UaSession, request: object, bound: float | None = None) -> "_Reader":
    """Send, await (None: the client's timeout; 0: without one), check; the reader stands behind the response header."""
    buffer = await session._send_request(request, bound)
    nodeid_from_binary(buffer)
    struct_from_binary(ua.ResponseHeader, buffer).ServiceResult.check()
    return _Reader(bytes(buffer))


def _message(reader: "_Reader", subscription: int) -> Message:
    sequence, published = reader.uint32(), reader.int64()
    parts = tuple(reader.extension_object() for _ in range(reader.count()))
    clock = (published - _TICKS_TO_1970) // 10 if published > 0 else 0
    return Message(subscription, sequence, clock, now_micros(), parts)


def _page(reader: "_Reader", received: Micros) -> Page:
    status, continuation = reader.uint32(), reader.byte_string()
    kind, body = reader.extension_object()
    values = decode_values(body if kind in _HISTORY else b"\0\0\0\0", received)
    return Page(0 if status == _NO_DATA else status, values, continuation)


def status_change(body: bytes) -> int:
    """The StatusCode of a StatusChangeNotification's body."""
    return _Reader(body).uint32()


class _Reader:
    """A cursor over a message's bytes. Raises :class:`Malformed` at the end."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._position = 0

    def _unpack(self, code: str, size: int) -> int:
        try:
            found: int = struct.unpack_from(code, self._body, self._position)[0]
        except struct.error as error:
            raise Malformed("cut short") from error
        self._position += size
        return found

    def uint32(self) -> int:
        return self._unpack("<I", 4)

    def int64(self) -> int:
        return self._unpack("<q", 8)

    def skip(self, size: int) -> None:
        self._position += size

    def count(self) -> int:
        """Length of an array; null reads as empty."""
        count = max(self._unpack("<i", 4), 0)
        if count > len(self._body):
            raise Malformed(f"{count} elements announced in {len(self._body)} bytes")
        return count

    def byte_string(self) -> bytes:
        count = self.count()
        found = self._body[self._position : self._position + count]
        if len(found) < count:
            raise Malformed("cut short")
        self._position += count
        return found

    def extension_object(self) -> tuple[int, bytes]:
        """Encoding id (0 unless numeric in namespace 0) and body."""
        kind = self._node_id()
        encoding = self._unpack("<B", 1)
        return kind, self.byte_string() if encoding else b""

    def _node_id(self) -> int:
        kind = self._unpack("<B", 1)
        if kind == 0:
            return self._unpack("<B", 1)
        if kind == 1:
            namespace, number = self._unpack("<B", 1), self._unpack("<H", 2)
        elif kind == 2:
            namespace, number = self._unpack("<H", 2), self.uint32()
        else:
            raise Malformed(f"a structure's type is NodeId of kind {kind}")
        return 0 if namespace else number
