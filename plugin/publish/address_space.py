"""What our server shows: the nodes below ``Objects/Foretag``, built before the server listens; others may join later.

::

    Foretag
    ├── Assets/<asset>/<model>/<output>      AnalogUnitRangeType, or TwoStateDiscreteType for a flag
    │       LowerBound UpperBound            (Score Threshold for a flag)
    │       AsOfTime TargetTime ValidUntil ModelName ModelVersion Coverage
    ├── Models/<model>                       Version LastRun LastResult LastDuration
    └── Server                               Heartbeat Version

Node ids are strings that survive every restart: ``engine-01.rul.rul``, ``engine-01.rul.rul.LowerBound``.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asyncua import ua
from asyncua.server.internal_server import InternalServer

from plugin.domain import OutputTag, Status
from plugin.publish.nodes import Cell, Context, FlagNode, ModelNode, NumberNode, OutputNode, ServerNode
from plugin.publish.units import engineering_units

NAMESPACE = "urn:foretag:predictions"
"""Namespace URI of all our nodes."""

_TRUE, _FALSE = "Anomaly", "Normal"
_READ = ua.Byte(ua.AccessLevel.CurrentRead.mask)
_SCALAR = ua.Int32(-1)


def _mask(*names: str) -> ua.UInt32:
    return ua.UInt32(sum(getattr(ua.NodeAttributesMask, name) for name in names))


_OBJECT = _mask("DisplayName", "EventNotifier")
_VARIABLE = _mask(
    "DisplayName", "Description", "DataType", "ValueRank", "AccessLevel", "UserAccessLevel", "Historizing", "Value"
)


def _standard(number: int) -> ua.NodeId:
    return ua.NodeId(ua.Int32(number))


_DOUBLE = _standard(ua.ObjectIds.Double)
_BOOLEAN = _standard(ua.ObjectIds.Boolean)
_STRING = _standard(ua.ObjectIds.String)
_UINT32 = _standard(ua.ObjectIds.UInt32)
_UTC_TIME = _standard(ua.ObjectIds.UtcTime)
_DURATION = _standard(ua.ObjectIds.Duration)
_RANGE = _standard(ua.ObjectIds.Range)
_UNITS = _standard(ua.ObjectIds.EUInformation)
_TEXT = _standard(ua.ObjectIds.LocalizedText)


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes that change while the server runs."""

    outputs: Mapping[str, OutputNode]
    """By :attr:`OutputTag.name`."""
    flags: Mapping[tuple[str, str], FlagNode]
    """By model and asset."""
    models: Mapping[str, ModelNode]
    server: ServerNode


class Tree:
    """Adds nodes to a server's address space."""

    def __init__(self, server: InternalServer, namespace: int, now: datetime) -> None:
        self._server = server
        self._namespace = ua.Int16(namespace)
        self._now = now

    def id(self, name: str) -> ua.NodeId:
        """NodeId of a name in our namespace."""
        return ua.NodeId(ua.String(name), self._namespace)

    def has(self, name: str) -> bool:
        """A node of that name is there."""
        return self.id(name) in self._server.aspace

    def folder(self, name: str, label: str, parent: ua.NodeId) -> ua.NodeId:
        """A folder of our own."""
        return self._object(name, label, parent, ua.ObjectIds.FolderType)

    def object(self, name: str, label: str, parent: ua.NodeId) -> ua.NodeId:
        """An object of our own, organized by a folder or object."""
        return self._object(name, label, parent, ua.ObjectIds.BaseObjectType)

    def output(self, tag: OutputTag, parent: ua.NodeId, kind: int, data_type: ua.NodeId) -> Cell:
        """The variable that carries an output's value."""
        return self._variable(
            tag.name, self._own(tag.output), parent, ua.ObjectIds.HasComponent, kind, data_type, text=tag.description
        )

    def component(self, name: str, parent: ua.NodeId, data_type: ua.NodeId) -> Cell:
        """A variable of our own below another node."""
        kind = ua.ObjectIds.BaseDataVariableType
        label = self._own(name.rpartition(".")[2])
        return self._variable(name, label, parent, ua.ObjectIds.HasComponent, kind, data_type)

    def property(self, name: str, parent: ua.NodeId, data_type: ua.NodeId, fact: Any = None) -> Cell:
        """A property of our own; with a fact it is Good from the start."""
        label = self._own(name.rpartition(".")[2])
        return self._property(name, label, parent, data_type, fact)

    def standard(self, name: str, parent: ua.NodeId, data_type: ua.NodeId, fact: Any) -> None:
        """A property that the standard's type defines."""
        label = ua.QualifiedName(ua.String(name.rpartition(".")[2]), ua.UInt16(0))
        self._property(name, label, parent, data_type, fact)

    def existing(self, node: int) -> Cell:
        """A standard node that is there already."""
        return Cell(self._server.aspace[_standard(node)].attributes[ua.AttributeIds.Value])

    def _own(self, text: str) -> ua.QualifiedName:
        return ua.QualifiedName(ua.String(text), self._namespace)

    def _property(self, name: str, label: ua.QualifiedName, parent: ua.NodeId, data_type: ua.NodeId, fact: Any) -> Cell:
        return self._variable(name, label, parent, ua.ObjectIds.HasProperty, ua.ObjectIds.PropertyType, data_type, fact)

    def _object(self, name: str, label: str, parent: ua.NodeId, kind: int) -> ua.NodeId:
        attributes = ua.ObjectAttributes(DisplayName=ua.LocalizedText(label))
        attributes.SpecifiedAttributes = _OBJECT
        return self._add(name, self._own(label), parent, ua.ObjectIds.Organizes, kind, ua.NodeClass.Object, attributes)

    def _variable(
        self,
        name: str,
        label: ua.QualifiedName,
        parent: ua.NodeId,
        reference: int,
        kind: int,
        data_type: ua.NodeId,
        fact: Any = None,
        *,
        text: str = "",
    ) -> Cell:
        attributes = ua.VariableAttributes(
            DisplayName=ua.LocalizedText(label.Name),
            Description=ua.LocalizedText(text),
            DataType=data_type,
            ValueRank=_SCALAR,
            AccessLevel=_READ,
            UserAccessLevel=_READ,
            Historizing=False,
        )
        attributes.SpecifiedAttributes = _VARIABLE
        node = self._add(name, label, parent, reference, kind, ua.NodeClass.Variable, attributes)
        cell = Cell(self._server.aspace[node].attributes[ua.AttributeIds.Value])
        if fact is None:
            cell.write(None, ua.VariantType.Null, Status.BAD_WAITING_FOR_INITIAL_DATA, self._now, self._now)
        else:
            cell.write(fact, ua.Variant(fact).VariantType, Status.GOOD, self._now, self._now)
        return cell

    def _add(
        self,
        name: str,
        label: ua.QualifiedName,
        parent: ua.NodeId,
        reference: int,
        kind: int,
        node_class: ua.NodeClass,
        attributes: Any,
    ) -> ua.NodeId:
        item = ua.AddNodesItem(
            parent, _standard(reference), self.id(name), label, node_class, attributes, _standard(kind)
        )
        (result,) = self._server.node_mgt_service.add_nodes([item])
        result.StatusCode.check()
        return self.id(name)


async def build(tree: Tree, tags: Sequence[OutputTag], version: str) -> Nodes:
    """Add all nodes, giving the loop back after each output. ``ua.UaError`` where a name is there twice."""
    root = tree.folder("Foretag", "Foretag", _standard(ua.ObjectIds.ObjectsFolder))
    for label in ("Assets", "Models"):
        tree.folder(f"Foretag.{label}", label, root)
    return await grow(tree, Nodes({}, {}, {}, _server(tree, root, version)), tags)


async def grow(tree: Tree, nodes: Nodes, tags: Sequence[OutputTag]) -> Nodes:
    """Add the nodes of more outputs, also to a server that listens; returns the old and the new."""
    assets, models = (tree.id(f"Foretag.{label}") for label in ("Assets", "Models"))
    outputs: dict[str, OutputNode] = {}
    for tag in tags:
        asset = f"Foretag.Assets.{tag.asset}"
        if not tree.has(asset):
            tree.object(asset, tag.asset, assets)
        model = f"{asset}.{tag.model}"
        if not tree.has(model):
            tree.object(model, tag.model, tree.id(asset))
        parent = tree.id(model)
        outputs[tag.name] = _flag(tree, tag, parent) if tag.flag else _number(tree, tag, parent)
        await asyncio.sleep(0)
    flags = {(node.tag.model, node.tag.asset): node for node in outputs.values() if isinstance(node, FlagNode)}
    new = dict.fromkeys(tag.model for tag in tags if tag.model not in nodes.models)
    states = {name: _model(tree, name, models) for name in new}
    return Nodes({**nodes.outputs, **outputs}, {**nodes.flags, **flags}, {**nodes.models, **states}, nodes.server)


def _number(tree: Tree, tag: OutputTag, parent: ua.NodeId) -> NumberNode:
    """OPC 10000-8, 5.3.2.5: an AnalogUnitRangeType has a range; where none is known it is an AnalogUnitType."""
    ranged = math.isfinite(tag.low) and math.isfinite(tag.high)
    kind = ua.ObjectIds.AnalogUnitRangeType if ranged else ua.ObjectIds.AnalogUnitType
    value, node, name = tree.output(tag, parent, kind, _DOUBLE), tree.id(tag.name), tag.name
    if ranged:
        tree.standard(f"{name}.EURange", node, _RANGE, ua.Range(tag.low, tag.high))
    tree.standard(f"{name}.EngineeringUnits", node, _UNITS, engineering_units(tag.unit, NAMESPACE))
    lower, upper = (tree.component(f"{name}.{bound}", node, _DOUBLE) for bound in ("LowerBound", "UpperBound"))
    target = tree.property(f"{name}.TargetTime", node, _UTC_TIME)
    coverage = tree.property(f"{name}.Coverage", node, _DOUBLE)
    return NumberNode(tag, value, lower, upper, _context(tree, tag, node), target, coverage)


def _flag(tree: Tree, tag: OutputTag, parent: ua.NodeId) -> FlagNode:
    """OPC 10000-8, 5.3.3.2: a TwoStateDiscreteType says what its two states are called."""
    kind, node, name = ua.ObjectIds.TwoStateDiscreteType, tree.id(tag.name), tag.name
    raised = tree.output(tag, parent, kind, _BOOLEAN)
    tree.standard(f"{name}.TrueState", node, _TEXT, ua.LocalizedText(_TRUE))
    tree.standard(f"{name}.FalseState", node, _TEXT, ua.LocalizedText(_FALSE))
    score, threshold = (tree.component(f"{name}.{label}", node, _DOUBLE) for label in ("Score", "Threshold"))
    return FlagNode(tag, raised, score, threshold, _context(tree, tag, node))


def _context(tree: Tree, tag: OutputTag, node: ua.NodeId) -> Context:
    tree.property(f"{tag.name}.ModelName", node, _STRING, tag.model)
    return Context(
        as_of=tree.property(f"{tag.name}.AsOfTime", node, _UTC_TIME),
        valid_until=tree.property(f"{tag.name}.ValidUntil", node, _UTC_TIME),
        version=tree.property(f"{tag.name}.ModelVersion", node, _UINT32),
    )


def _model(tree: Tree, name: str, parent: ua.NodeId) -> ModelNode:
    path = f"Foretag.Models.{name}"
    node = tree.object(path, name, parent)
    return ModelNode(
        version=tree.component(f"{path}.Version", node, _UINT32),
        time=tree.component(f"{path}.LastRun", node, _UTC_TIME),
        result=tree.component(f"{path}.LastResult", node, _STRING),
        duration=tree.component(f"{path}.LastDuration", node, _DURATION),
    )


def _server(tree: Tree, parent: ua.NodeId, version: str) -> ServerNode:
    node = tree.object("Foretag.Server", "Server", parent)
    tree.property("Foretag.Server.Version", node, _STRING, version)
    heartbeat = tree.component("Foretag.Server.Heartbeat", node, _UINT32)
    return ServerNode(heartbeat, tree.existing(ua.ObjectIds.Server_ServiceLevel))
