"""The services that carry values: Publish, Republish, HistoryRead, Read. asyncua encodes requests, we read answers.

asyncua decodes an answer into an object per value, and one value that it can't decode loses the whole answer.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from asyncua import ua
from asyncua.client.ua_session import UaSession

from plugin.acquire.decoding import Values, decode_values
from plugin.acquire.measuring import Malformed
from plugin.acquire.reading import Reader
from plugin.domain import Micros

DATA_CHANGE = 811
STATUS_CHANGE = 820
_HISTORY = (658, 11227)  # HistoryData, HistoryModifiedData: both begin with the DataValues

_CENTURY = 100 * 365 * 86_400_000_000  # [µs]
_TICKS_TO_1970 = 116_444_736_000_000_000
_NO_DATA = 0x00A50000


@dataclass(frozen=True, slots=True)
class Message:
    """A NotificationMessage (OPC 10000-4, 7.26) and when it came."""

    subscription: int
    sequence: int
    published: Micros
    """The server's clock [µs]; 0 where it gave none that makes sense."""
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


def sensible(clock: Micros, ours: Micros) -> bool:
    """A clock that may be wrong by years, but not by a century: then there is none (null is 1601, the end is 9999)."""
    return abs(clock - ours) < _CENTURY


async def publish(session: UaSession, acks: Sequence[tuple[int, int]]) -> Message:
    """Ask for the next message, acknowledging (subscription, sequence) pairs. Waits as long as the server is silent."""
    request = ua.PublishRequest()
    request.Parameters.SubscriptionAcknowledgements = [ua.SubscriptionAcknowledgement(*ack) for ack in acks]
    reader = await ask(session, request, bound=0)
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
    return _message(await ask(session, request), subscription)


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
    reader = await ask(session, request)
    received, count = now_micros(), reader.count()
    if count != len(nodes):
        raise Malformed(f"{count} answers to {len(nodes)} questions")
    return [_page(reader, received) for _ in range(count)]


async def read(session: UaSession, asked: Sequence[tuple[ua.NodeId, int]]) -> Values:
    """Attributes of nodes, in the order asked for (``handle`` is 0); with both times where it is the Value."""
    request = ua.ReadRequest()
    request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
    request.Parameters.NodesToRead = [ua.ReadValueId(NodeId=node, AttributeId=number) for node, number in asked]
    reader = await ask(session, request)
    values = decode_values(reader.body, now_micros(), reader.position)
    if len(values) != len(asked):
        raise Malformed(f"{len(values)} answers to {len(asked)} questions")
    return values


async def release(session: UaSession, nodes: Sequence[tuple[ua.NodeId, bytes]]) -> None:
    """Give back continuation points that will not be followed."""
    request = ua.HistoryReadRequest()
    request.Parameters.HistoryReadDetails = ua.ReadRawModifiedDetails()
    request.Parameters.ReleaseContinuationPoints = True
    request.Parameters.NodesToRead = [_to_read(node, point) for node, point in nodes]
    await ask(session, request)


def _to_read(node: ua.NodeId, point: bytes) -> ua.HistoryReadValueId:
    value = ua.HistoryReadValueId(NodeId=node)
    value.ContinuationPoint = point or None
    return value


async def ask(session: UaSession, request: object, bound: float | None = None) -> Reader:
    """Send, await (None: the client's timeout; 0: without one), check; the reader stands behind the response header."""
    reader = Reader(bytes(await session._send_request(request, bound)))
    reader.node_id()
    reader.skip(12)  # time and handle of the request
    result = reader.uint32()
    reader.diagnostic_info()
    for _ in range(reader.count()):  # texts of the diagnostics
        reader.string()
    reader.extension_object()
    ua.StatusCode(ua.UInt32(result)).check()
    return reader


def _message(reader: Reader, subscription: int) -> Message:
    sequence, published = reader.uint32(), reader.int64()
    parts = tuple(_part(reader) for _ in range(reader.count()))
    clock, received = (published - _TICKS_TO_1970) // 10, now_micros()
    return Message(subscription, sequence, clock if sensible(clock, received) else 0, received, parts)


def _part(reader: Reader) -> tuple[int, bytes]:
    """Encoding id (0 unless it is a standard one) and body of a structure."""
    (namespace, identifier), _, body = reader.extension_object()
    return identifier if isinstance(identifier, int) and not namespace else 0, body


def _page(reader: Reader, received: Micros) -> Page:
    status, continuation = reader.uint32(), reader.byte_string()
    kind, body = _part(reader)
    values = decode_values(body if kind in _HISTORY else b"\0\0\0\0", received)
    return Page(0 if status == _NO_DATA else status, values, continuation)


def status_change(body: bytes) -> int:
    """The StatusCode of a StatusChangeNotification's body."""
    return Reader(body).uint32()
