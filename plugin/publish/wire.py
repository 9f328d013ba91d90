"""Values, notifications and answers to Publish as bytes (OPC 10000-6, 5.2), without an object for each.

asyncua builds and walks a dataclass per value and subscriber; here a value is packed once, and its bytes are shared by
all who subscribed: a MonitoredItemNotification is a ClientHandle, which is the subscriber's own, and a DataValue.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import extensionobject_to_binary, struct_from_binary, struct_to_binary
from numpy.typing import NDArray

from plugin.domain import Micros
from plugin.publish.stamps import Stamps

_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
_WHOLE = 0x0F
"""A DataValue's mask: value, status, source and server timestamp are there, picoseconds are not (5.2.2.17)."""

_SOURCE, _SERVER = 0x04, 0x08
"""Of the mask: the timestamps, which stand at the end."""

_SCALARS = {
    ua.VariantType.Double: struct.Struct("<BBdI"),
    ua.VariantType.Boolean: struct.Struct("<BB?I"),
    ua.VariantType.UInt32: struct.Struct("<BBII"),
    ua.VariantType.DateTime: struct.Struct("<BBqI"),
}
_DOUBLE, _DATE_TIME = ua.VariantType.Double, ua.VariantType.DateTime
_WHOLE_DOUBLE = _WHOLE | _DOUBLE.value << 8
_pack_double = struct.Struct("<HdI16s").pack
_NULL = struct.Struct("<BBI")
_TIMES = [("source", "<i8"), ("server", "<i8")]
_DOUBLES = np.dtype([("head", "<u2"), ("value", "<f8"), ("status", "<u4"), *_TIMES])
_NULLS = np.dtype([("head", "<u2"), ("status", "<u4"), *_TIMES])
_UNIX = 11_644_473_600_000_000
"""1970 on the clock that begins in 1601 [µs]."""
_STATUS = struct.Struct("<I")
_STAMPS = struct.Struct("<qq")
_OVERFLOW = 0x480
"""InfoType DataValue and the Overflow bit (OPC 10000-4, 7.39.1)."""

_HEADER = struct.Struct("<4sqII8s")
_PUBLISH_RESPONSE = b"\x01\x00" + struct.pack("<H", ua.ObjectIds.PublishResponse_Encoding_DefaultBinary)
_NO_DETAILS = b"\x00" + b"\xff\xff\xff\xff" + b"\x00\x00\x00"
"""Of a ResponseHeader: no diagnostics, no strings, no additional header."""
_DATA_CHANGE = b"\x01\x00" + struct.pack("<H", ua.ObjectIds.DataChangeNotification_Encoding_DefaultBinary) + b"\x01"
_NONE = b"\xff\xff\xff\xff"


def _ticks(time: datetime) -> int:
    """100 ns since 1601 (5.2.2.5)."""
    delta = time - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 10_000_000 + delta.microseconds * 10


class _Stamps:
    """Source and server time. Thousands of values in a row have the same: they are packed once."""

    __slots__ = ("packed", "server", "source")

    def __init__(self) -> None:
        self.source, self.server, self.packed = _EPOCH, _EPOCH, bytes(16)

    def of(self, source: datetime, server: datetime) -> bytes:
        """As they go over the wire."""
        if source is not self.source or server is not self.server:
            self.source, self.server, self.packed = source, server, _STAMPS.pack(_ticks(source), _ticks(server))
        return self.packed


_stamps = _Stamps()


def data_value(value: Any, kind: ua.VariantType, status: int, source: datetime, server: datetime) -> bytes:
    """A DataValue. ``source`` and ``server`` are aware; None is a null value of whatever ``kind``."""
    if kind is _DOUBLE and isinstance(value, float):  # nearly all
        return _pack_double(_WHOLE_DOUBLE, value, status, _stamps.of(source, server))
    if value is None:
        return _NULL.pack(_WHOLE, 0, status) + _stamps.of(source, server)
    scalar = _SCALARS.get(kind)
    if scalar is None or isinstance(value, list):
        return any_data_value(_whole(value, kind, status, source, server))
    said = _ticks(value) if kind is _DATE_TIME else value
    return scalar.pack(_WHOLE, kind.value, said, status) + _stamps.of(source, server)


def doubles(
    value: NDArray[np.float64], status: NDArray[np.uint32], source: NDArray[np.int64], server: Micros
) -> NDArray[np.void]:
    """Many DataValues of a Double, all of one size; ``source`` [µs since 1970]."""
    found = np.empty(len(value), _DOUBLES)
    found["head"], found["value"] = _WHOLE_DOUBLE, value
    return _told(found, status, source, server)


def nulls(status: NDArray[np.uint32], source: NDArray[np.int64], server: Micros) -> NDArray[np.void]:
    """The same of null values."""
    found = np.empty(len(status), _NULLS)
    found["head"] = _WHOLE
    return _told(found, status, source, server)


def _told(
    found: NDArray[np.void], status: NDArray[np.uint32], source: NDArray[np.int64], server: Micros
) -> NDArray[np.void]:
    found["status"], found["source"], found["server"] = status, 10 * (source + _UNIX), 10 * (server + _UNIX)
    return found


def _whole(value: Any, kind: ua.VariantType, status: int, source: Any, server: Any) -> ua.DataValue:
    return ua.DataValue(ua.Variant(value, kind), ua.StatusCode(ua.UInt32(status)), source, server)


def any_data_value(value: ua.DataValue) -> bytes:
    """A DataValue of any type, by asyncua: ten times as slow."""
    encoded: bytes = struct_to_binary(value)
    return encoded


def overflowed(content: bytes) -> bytes:
    """The DataValue, saying that others before or after it were lost."""
    if content[0] == _WHOLE:  # the status is the last but the times
        (status,) = _STATUS.unpack_from(content, len(content) - 20)
        return b"".join((content[:-20], _STATUS.pack(status | _OVERFLOW), content[-16:]))
    value = struct_from_binary(ua.DataValue, Buffer(content))
    status = value.StatusCode.value if value.StatusCode is not None else 0
    return any_data_value(replace(value, StatusCode=ua.StatusCode(ua.UInt32(status | _OVERFLOW))))


def stamped(content: bytes, stamps: Stamps) -> bytes:
    """The DataValue with those of its timestamps alone that are asked for."""
    if content[0] == _WHOLE:
        mask = bytes((_WHOLE & ~(0 if stamps.source else _SOURCE) & ~(0 if stamps.server else _SERVER),))
        return b"".join((mask, content[1:-16], content[-16:-8] * stamps.source, content[-8:] * stamps.server))
    value = struct_from_binary(ua.DataValue, Buffer(content))
    return any_data_value(stamps.of(value, ua.AttributeIds.Value, datetime.now(UTC)))


def data_change(count: int, parts: Sequence[bytes]) -> bytes:
    """A DataChangeNotification in its ExtensionObject; ``parts``: handle, DataValue, handle, DataValue, …"""
    items = b"".join(parts)
    return b"".join((_DATA_CHANGE, struct.pack("<ii", len(items) + 8, count), items, _NONE))


def notification(data: Any) -> bytes:
    """Any other NotificationData in its ExtensionObject."""
    encoded: bytes = extensionobject_to_binary(data)
    return encoded


@dataclass(frozen=True, slots=True)
class Notice:
    """What an answer to Publish says, but for the request that it answers."""

    subscription: int
    available: tuple[int, ...]
    """Numbers of the messages that can be asked for again."""
    more: bool
    message: bytes
    """NotificationMessage."""


def message(number: int, notifications: Sequence[bytes], now: datetime) -> bytes:
    """A NotificationMessage (OPC 10000-4, 7.26); without notifications it is a keep-alive."""
    head = struct.pack("<Iqi", number, _ticks(now), len(notifications))
    return b"".join((head, *notifications))


def reread(encoded: bytes) -> ua.NotificationMessage:
    """What a NotificationMessage says, for Republish."""
    found: ua.NotificationMessage = struct_from_binary(ua.NotificationMessage, Buffer(encoded))
    return found


def publish_response(notice: Notice, results: Sequence[ua.StatusCode] | None, request: int, now: datetime) -> bytes:
    """A PublishResponse; ``request``: the RequestHandle, ``results``: of the acknowledgements."""
    numbers = (len(notice.available), *notice.available)
    codes = [code.value for code in results or ()]
    return b"".join(
        (
            _HEADER.pack(_PUBLISH_RESPONSE, _ticks(now), request, 0, _NO_DETAILS),
            struct.pack(f"<Ii{len(notice.available)}I?", notice.subscription, *numbers, notice.more),
            notice.message,
            struct.pack(f"<i{len(codes)}I", len(codes), *codes),
            _NONE,
        )
    )
