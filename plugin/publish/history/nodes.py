"""What a client can see of the history before it asks: on each node, and of the server (OPC 10000-11, 5.2 to 5.4)."""

from collections.abc import Sequence
from typing import Any

from asyncua import ua
from asyncua.server.internal_server import InternalServer

from plugin.domain import OutputTag, Tag
from plugin.publish import points
from plugin.publish.cells import Cell
from plugin.publish.history.answering import PAGE
from plugin.publish.history.finding import TAGS, names, parts
from plugin.publish.history.past import OutputPast
from plugin.publish.tree import Tree
from plugin.publish.types import BOOLEAN, OURS, STANDARD, STRING, UTC_TIME, Member, Name, Ref

_ID = ua.ObjectIds
_BYTE = Ref(_ID.Byte)
_FOLDER = "Foretag.History"
_AGGREGATION = f"{_FOLDER}.AggregateConfiguration"
_SETTINGS = (
    ("TreatUncertainAsBad", BOOLEAN, False),
    ("PercentDataBad", _BYTE, 100),
    ("PercentDataGood", _BYTE, 100),
    ("UseSlopedExtrapolation", BOOLEAN, False),
)
"""Predictions are often Uncertain, and are used nevertheless; what results says so (OPC 10000-13, 4.2.1.2)."""


def build(tree: Tree, tags: Sequence[Tag]) -> tuple[Cell, ...]:
    """What all nodes share; ``tags``: those that are mirrored. Where it is said since when there are values of them."""
    tree.folder(_FOLDER, "History", tree.id("Foretag"))
    label = Name("AggregateConfiguration", STANDARD)
    tree.object(_AGGREGATION, label, tree.id(_FOLDER), Ref(_ID.AggregateConfigurationType))
    for text, data_type, fact in _SETTINGS:
        tree.member(_AGGREGATION, Member(Name(text, STANDARD), data_type), fact)
    if not tags:
        return ()
    starts = _configure(tree, "Measured", stepped=False, definition="As the plant's server gave it.")
    for tag in tags:
        tree.historize(f"{TAGS}{tag.name}", Ref(f"{_FOLDER}.Measured", OURS))
    return starts


def extend(tree: Tree, tags: Sequence[OutputTag]) -> dict[tuple[str, str], tuple[Cell, ...]]:
    """The nodes of outputs that are there have a past from now on. What is new, by model and output: where it is said
    since when there are values of them."""
    starts: dict[tuple[str, str], tuple[Cell, ...]] = {}
    for tag in tags:
        for name, part in zip(names(tag), parts(tag).values(), strict=True):
            stepped = OutputPast.stands(tag, part)
            label = f"{tag.model}.{tag.output}{'' if stepped else '.Sloped'}"
            if not tree.has(f"{_FOLDER}.{label}"):
                made = _configure(tree, label, stepped=stepped, definition=f"Model {tag.model}: {tag.description}")
                starts[tag.model, tag.output] = (*starts.get((tag.model, tag.output), ()), *made)
            tree.historize(name, Ref(f"{_FOLDER}.{label}", OURS))
    return starts


def _configure(tree: Tree, label: str, *, stepped: bool, definition: str) -> tuple[Cell, ...]:
    """An HA Configuration, which nodes of one model's output share; where it says since when there is an archive."""
    name = f"{_FOLDER}.{label}"
    shown = Name("HA Configuration", STANDARD)
    node = tree.object(name, shown, tree.id(_FOLDER), Ref(_ID.HistoricalDataConfigurationType))
    tree.member(name, Member(Name("Stepped", STANDARD), BOOLEAN), stepped)
    tree.member(name, Member(Name("Definition", STANDARD), STRING), definition)
    tree.member(name, Member(Name("ServerTimestampSupported", STANDARD), BOOLEAN), True)
    tree.link(node, _ID.HasComponent, Ref(_AGGREGATION, OURS))
    return tuple(tree.member(name, Member(Name(text, STANDARD), UTC_TIME)) for text in _STARTS)


_STARTS = "StartOfArchive", "StartOfOnlineArchive"
"""One time: there is no other archive."""


_CAPABILITIES: dict[int, Any] = {
    _ID.HistoryServerCapabilities_AccessHistoryDataCapability: True,
    _ID.HistoryServerCapabilities_ServerTimestampSupported: True,
    _ID.HistoryServerCapabilities_MaxReturnDataValues: PAGE,
    _ID.HistoryServerCapabilities_InsertDataCapability: False,
    _ID.HistoryServerCapabilities_ReplaceDataCapability: False,
    _ID.HistoryServerCapabilities_UpdateDataCapability: False,
    _ID.HistoryServerCapabilities_DeleteRawCapability: False,
    _ID.HistoryServerCapabilities_DeleteAtTimeCapability: False,
    _ID.HistoryServerCapabilities_InsertAnnotationCapability: False,
    _ID.HistoryServerCapabilities_InsertEventCapability: False,
    _ID.HistoryServerCapabilities_ReplaceEventCapability: False,
    _ID.HistoryServerCapabilities_UpdateEventCapability: False,
    _ID.HistoryServerCapabilities_DeleteEventCapability: False,
    _ID.Server_ServerCapabilities_MaxHistoryContinuationPoints: points.MOST,
}


def tell_capabilities(tree: Tree, server: InternalServer, aggregates: Sequence[int], events: int) -> None:
    """HistoryServerCapabilities; ``aggregates``: those that are calculated; ``events``: as many in one answer."""
    told = _CAPABILITIES | {
        _ID.HistoryServerCapabilities_AccessHistoryEventsCapability: events > 0,
        _ID.HistoryServerCapabilities_MaxReturnEventValues: events,
    }
    for number, fact in told.items():
        attribute = server.aspace[ua.NodeId(ua.Int32(number))].attributes[ua.AttributeIds.Value]
        kind = ua.VariantType.Boolean if isinstance(fact, bool) else ua.VariantType.UInt32
        if number == _ID.Server_ServerCapabilities_MaxHistoryContinuationPoints:
            kind = ua.VariantType.UInt16
        attribute.value = ua.DataValue(ua.Variant(fact, kind))
    folder = ua.NodeId(ua.Int32(_ID.HistoryServerCapabilities_AggregateFunctions))
    for aggregate in aggregates:
        tree.link(folder, _ID.Organizes, Ref(aggregate))
