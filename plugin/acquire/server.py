"""What a server says of itself, and NodeIds by namespace URI."""

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from asyncua import ua
from asyncua.client.ua_session import UaSession

from plugin.acquire.session import translated
from plugin.acquire.wire import now_micros, sensible
from plugin.domain import Micros, to_micros
from plugin.errors import SourceUnreachable


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What is read of a server after each connect."""

    namespaces: tuple[str, ...]
    started: Micros
    """When the server started [µs, its clock]; 0 where it doesn't say."""
    ahead: Micros
    """How far its clock is ahead of ours [µs]; 0 where it gave none that makes sense."""
    items_per_call: int
    """0: no limit."""
    history_nodes_per_call: int
    nodes_per_read: int
    subscriptions_per_session: int
    items_per_subscription: int


async def describe(services: UaSession) -> ServerInfo:
    """Read what we need to know of the server; what it doesn't have reads as 0."""
    ids = ua.ObjectIds
    wanted = (
        ids.Server_NamespaceArray,
        ids.Server_ServerStatus_StartTime,
        ids.Server_ServerStatus_CurrentTime,
        ids.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
        ids.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadData,
        ids.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
        ids.Server_ServerCapabilities_MaxSubscriptionsPerSession,
        ids.Server_ServerCapabilities_MaxMonitoredItemsPerSubscription,
    )
    what = "read the server's description"
    with translated(what):
        values = await services.read_attributes(
            [ua.NodeId(ua.Int32(number)) for number in wanted], ua.AttributeIds.Value
        )
    if len(values) != len(wanted):
        raise SourceUnreachable(f"{what}: {len(values)} answers to {len(wanted)} questions")
    namespaces, started, clock, *limits = (value.Value.Value if value.Value else None for value in values)
    now = now_micros()
    ahead = to_micros(clock) - now if isinstance(clock, datetime) and sensible(to_micros(clock), now) else 0
    return ServerInfo(
        tuple(str(uri) for uri in namespaces) if isinstance(namespaces, list) else (),
        to_micros(started) if isinstance(started, datetime) else 0,
        ahead,
        *(limit if isinstance(limit, int) and limit > 0 else 0 for limit in limits),
    )


def resolve(node: str, namespaces: tuple[str, ...]) -> ua.NodeId | None:
    """``nsu=URI;s=…`` (or ``ns=2;s=…``, ``i=2258``) as a NodeId of this session (OPC 10000-6, 5.1.12).

    None: the server has no such namespace at present, or the text is no NodeId.
    """
    namespace, identifier = 0, node
    if node.startswith(("nsu=", "ns=")):
        where, _, identifier = node.partition(";")
        kind, _, name = where.partition("=")
        uri = name.replace("%3B", ";").replace("%25", "%")
        if kind == "nsu":
            namespace = namespaces.index(uri) if uri in namespaces else -1
        else:
            namespace = int(name) if name.isdecimal() else -1
        if not 0 <= namespace <= 0xFFFF:
            return None
    kind, _, text = identifier.partition("=")
    try:
        return _NODE_IDS[kind](text, namespace)
    except (KeyError, ValueError):
        return None


def _uint32(text: str) -> ua.Int32:
    if not text.isdecimal() or int(text) >> 32:
        raise ValueError(text)
    return ua.Int32(int(text))


_NODE_IDS: dict[str, Callable[[str, int], ua.NodeId]] = {
    "i": lambda text, namespace: ua.NodeId(_uint32(text), ua.Int16(namespace)),
    "s": lambda text, namespace: ua.NodeId(ua.String(text), ua.Int16(namespace)),
    "g": lambda text, namespace: ua.NodeId(UUID(text), ua.Int16(namespace)),  # type: ignore[arg-type]
    "b": lambda text, namespace: ua.NodeId(ua.ByteString(b64decode(text, validate=True)), ua.Int16(namespace)),
}


def node_text(node: ua.NodeId, namespaces: tuple[str, ...]) -> str:
    """The way back: by namespace URI, which outlives the server's restarts."""
    letter, value = _LETTERS[node.NodeIdType], node.Identifier
    text = b64encode(value).decode() if isinstance(value, bytes) else str(value)
    if not node.NamespaceIndex:
        return f"{letter}={text}"
    uri = namespaces[node.NamespaceIndex].replace("%", "%25").replace(";", "%3B")
    return f"nsu={uri};{letter}={text}"


_LETTERS = {
    ua.NodeIdType.TwoByte: "i",
    ua.NodeIdType.FourByte: "i",
    ua.NodeIdType.Numeric: "i",
    ua.NodeIdType.String: "s",
    ua.NodeIdType.Guid: "g",
    ua.NodeIdType.ByteString: "b",
}
