"""CreateMonitoredItems (OPC 10000-4, 5.13.2) with its structures laid flat: after a reconnect every tag waits for it.

asyncua's own records, an object for each structure of each item both ways, take five times as long.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncua import ua
from asyncua.client.ua_session import UaSession

from plugin.acquire.wire import ask

_TYPE = ua.NodeId(ua.Int32(ua.ObjectIds.CreateMonitoredItemsRequest_Encoding_DefaultBinary))
_NULL = ua.Int32(-1)  # the length of a String that is none


@dataclass(slots=True)
class Wish:
    """A MonitoredItemCreateRequest for a Value: asyncua encodes the fields in their order, each as its type says."""

    node: ua.NodeId
    attribute: ua.UInt32 = field(init=False, default=ua.UInt32(ua.AttributeIds.Value))
    index_range: ua.Int32 = field(init=False, default=_NULL)
    encoding_namespace: ua.UInt16 = field(init=False, default=ua.UInt16(0))
    encoding: ua.Int32 = field(init=False, default=_NULL)
    mode: ua.UInt32 = field(init=False, default=ua.UInt32(ua.MonitoringMode.Reporting))
    client: ua.UInt32
    """ClientHandle."""
    sampling: ua.Double
    """[ms]"""
    filter: ua.ExtensionObject
    queue: ua.UInt32
    discard_oldest: ua.Byte = field(init=False, default=ua.Byte(1))


@dataclass(slots=True)
class _Request:
    TypeId: ua.NodeId
    RequestHeader: ua.RequestHeader  # the name by which asyncua fills it in
    subscription: ua.UInt32
    timestamps: ua.UInt32
    items: list[Wish]


@dataclass(frozen=True, slots=True)
class Granted:
    """A MonitoredItemCreateResult."""

    status: int
    id: int
    sampling: float
    """[ms]"""
    queue: int


def request(subscription: int, wishes: Sequence[Wish]) -> object:
    """A CreateMonitoredItemsRequest, with both times of each value."""
    both = ua.UInt32(ua.TimestampsToReturn.Both)
    return _Request(_TYPE, ua.RequestHeader(), ua.UInt32(subscription), both, list(wishes))


async def create_items(session: UaSession, subscription: int, wishes: Sequence[Wish]) -> list[Granted]:
    """Ask for items; there should be an answer for each. Raises what asyncua raises, and Malformed."""
    reader = await ask(session, request(subscription, wishes))
    granted = []
    for _ in range(reader.count()):
        granted.append(Granted(reader.uint32(), reader.uint32(), reader.unpack("<d", 8), reader.uint32()))
        reader.extension_object()  # what the filter became
    return granted
