"""What our server says of itself and keeps: its limits (OPC 10000-5, 6.3.2 and 6.3.11) and its namespaces (6.3.13)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from asyncua import ua
from asyncua.server.address_space import AddressSpace

from plugin.publish import browsing
from plugin.publish.asyncua_items import MOST_ITEMS
from plugin.publish.asyncua_subscriptions import SHORTEST
from plugin.publish.event_filter import MOST_CLAUSES
from plugin.publish.event_items import MOST_EVENTS
from plugin.publish.nodeset import NEEDED, PUBLISHED, VERSION
from plugin.publish.tree import Tree
from plugin.publish.types import BOOLEAN, DI, OURS, STANDARD, STRING, UTC_TIME, Member, Name, Ref

_ID, _T = ua.ObjectIds, ua.VariantType

OPERATIONS = 10_000
"""Nodes of one request, where it is not said otherwise."""
MESSAGE_BYTES = 4 * 1024 * 1024
"""The largest request: a browse or subscription of some 10,000 nodes."""
_OPERATIONS: Mapping[str, int] = {
    "Read": OPERATIONS, "Write": OPERATIONS, "MethodCall": OPERATIONS, "RegisterNodes": OPERATIONS,
    "HistoryReadData": OPERATIONS, "HistoryReadEvents": OPERATIONS,
    "Browse": browsing.NODES, "TranslateBrowsePathsToNodeIds": browsing.NODES,
    "HistoryUpdateData": 0, "HistoryUpdateEvents": 0, "NodeManagement": 0,
}  # fmt: skip
"""By service; 0: the service is refused, whatever it names."""


def tell_limits(space: AddressSpace, *, sessions: int, subscriptions: int, items: int, queue: int) -> None:
    """``queue``: the longest that a monitored item of values may have."""
    limits = {f"OperationLimits_MaxNodesPer{name}": (most, _T.UInt32) for name, most in _OPERATIONS.items()}
    limits |= {
        "OperationLimits_MaxMonitoredItemsPerCall": (OPERATIONS, _T.UInt32),
        "MaxBrowseContinuationPoints": (browsing.POINTS, _T.UInt16),
        "MaxQueryContinuationPoints": (0, _T.UInt16),
        "MaxSessions": (sessions, _T.UInt32),
        "MaxSubscriptions": (subscriptions, _T.UInt32),
        "MaxSubscriptionsPerSession": (subscriptions, _T.UInt32),
        "MaxMonitoredItems": (items, _T.UInt32),
        "MaxMonitoredItemsPerSubscription": (min(items, MOST_ITEMS), _T.UInt32),
        "MaxMonitoredItemsQueueSize": (max(queue, MOST_EVENTS), _T.UInt32),
        "MaxSelectClauseParameters": (MOST_CLAUSES, _T.UInt32),
        "MaxWhereClauseParameters": (MOST_CLAUSES, _T.UInt32),
    }
    for name, (most, kind) in limits.items():
        _write(space, f"Server_ServerCapabilities_{name}", ua.Variant(most, kind))
    _write(space, "Server_ServerCapabilities_MinSupportedSampleRate", ua.Variant(SHORTEST, _T.Double))
    _write(space, "Server_ServerCapabilities_LocaleIdArray", ua.Variant(["en"], _T.String))


def _write(space: AddressSpace, name: str, fact: ua.Variant) -> None:
    space[ua.NodeId(ua.Int32(getattr(_ID, name)))].attributes[ua.AttributeIds.Value].value = ua.DataValue(fact)


def tell_namespaces(tree: Tree) -> None:
    """NamespaceMetadataType of ours and of Devices, of which there is a part."""
    version, published = NEEDED[DI]
    number, text = ua.IdType.Numeric, ua.IdType.String
    _namespace(tree, OURS, VERSION, PUBLISHED, whole=True, static={"types": [text], "pattern": r"Types\..*"})
    _namespace(tree, DI, version, published, whole=False, static={"types": [number], "range": ["1:65535"]})


def _namespace(tree: Tree, uri: str, version: str, published: str, *, whole: bool, static: Mapping[str, Any]) -> None:
    """``static``: which nodes are the same in every server (OPC 10000-5, 6.3.13): types of ids, range and pattern."""
    name = f"Foretag.Namespaces.{uri}"
    tree.component(name, Name(uri, uri), tree.ref(Ref(_ID.Server_Namespaces)), Ref(_ID.NamespaceMetadataType))
    facts: tuple[tuple[str, Ref, bool, Any], ...] = (
        ("NamespaceUri", STRING, False, uri),
        ("NamespaceVersion", STRING, False, version),
        ("NamespacePublicationDate", UTC_TIME, False, datetime.fromisoformat(published)),
        ("IsNamespaceSubset", BOOLEAN, False, not whole),
        ("StaticNodeIdTypes", Ref(_ID.IdType), True, static["types"]),
        ("StaticNumericNodeIdRange", Ref(_ID.NumericRange), True, static.get("range", [])),
        ("StaticStringNodeIdPattern", STRING, False, static.get("pattern", "")),
    )
    for text, data_type, many, fact in facts:
        tree.member(name, Member(Name(text, STANDARD), data_type, many=many), fact)
