"""What our server shows: the nodes below ``Objects/Foretag``, built before the server listens; others may join later.

::

    Foretag
    ├── Assets/<asset>                       AssetType (IDeviceHealthType)
    │   ├── DeviceHealth                     NAMUR NE 107, see plugin.publish.health
    │   ├── <model>/<output>                 one of the types below
    │   └── Tags/<feature>                   the plant's own tags, where they are mirrored
    ├── Models/<model>                       ModelType
    └── Server                               GatewayType

An output's type follows from what it means (:class:`models.meaning.Meaning`): PredictedLifetimeType, PredictedFlagType,
PredictedStateType, ForecastType, and PredictedValueType for all others. :mod:`plugin.publish.types` says what each has.

Node ids are strings that survive every restart: ``engine-01.rul.rul``, ``engine-01.rul.rul.LowerBound``.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from asyncua import ua

from plugin.domain import Meaning, OutputTag
from plugin.publish import nodes as shown_as
from plugin.publish import types
from plugin.publish.cells import Cell
from plugin.publish.health import HealthNode
from plugin.publish.nodes import Context, ModelNode, OutputNode, ServerNode
from plugin.publish.nodeset import add_types
from plugin.publish.sheets import Sheet
from plugin.publish.shown import Shown
from plugin.publish.tree import ARRAY, SCALAR, Tree
from plugin.publish.types import Member, Name, Ref, Type, encoding
from plugin.publish.units import engineering_units

NAMESPACE = types.OURS

_TRUE, _FALSE = "Anomaly", "Normal"
_INDICATIONS = {"s": 474, "min": 474, "h": 474, "d": 474, "cycles": 476, "cycle": 476, "m": 477, "mm": 477, "km": 477}
"""By unit: what a lifetime counts (OPC 10000-100, 10.2)."""
_DURATIONS = {"s": timedelta(seconds=1), "min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_JUDGED = Meaning.LIFETIME, Meaning.FLAG


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes that change while the server runs."""

    outputs: Mapping[str, OutputNode]
    """By :attr:`OutputTag.name`."""
    flags: Mapping[tuple[str, str], OutputNode]
    """By model and asset."""
    models: Mapping[str, ModelNode]
    health: Mapping[str, HealthNode]
    """By asset, of those that an output tells of."""
    server: ServerNode


async def build(tree: Tree, tags: Sequence[OutputTag], version: str, *, simulated: bool = False) -> Nodes:
    """Add all nodes, giving the loop back after each output. ``ua.UaError`` where a name is there twice."""
    add_types(tree)
    root = tree.folder("Foretag", "Foretag", tree.ref(Ref(ua.ObjectIds.ObjectsFolder)))
    for label in ("Assets", "Models"):
        tree.folder(f"Foretag.{label}", label, root)
    return await grow(tree, Nodes({}, {}, {}, {}, _server(tree, root, version)), tags, simulated=simulated)


async def grow(tree: Tree, nodes: Nodes, tags: Sequence[OutputTag], *, simulated: bool = False) -> Nodes:
    """Add the nodes of more outputs, also to a server that listens; returns the old and the new."""
    outputs: dict[str, OutputNode] = {}
    for tag in tags:
        outputs[tag.name] = _output(tree, tag, model_of(tree, tag), Shown(simulated=simulated))
        await asyncio.sleep(0)
    flags = {(node.tag.model, node.tag.asset): node for node in outputs.values() if node.tag.flag}
    new = dict.fromkeys(tag.model for tag in tags if tag.model not in nodes.models)
    models = {name: _model(tree, name) for name in new}
    every = {**nodes.outputs, **outputs}
    return Nodes(
        every, {**nodes.flags, **flags}, {**nodes.models, **models}, _health(tree, nodes.health, every), nodes.server
    )


def asset_of(tree: Tree, asset: str) -> ua.NodeId:
    """The node of an asset, made where there is none yet."""
    name = f"Foretag.Assets.{asset}"
    return tree.id(name) if tree.has(name) else tree.object(name, asset, tree.id("Foretag.Assets"), types.ASSET.id)


def model_of(tree: Tree, tag: OutputTag) -> ua.NodeId:
    """The node below an asset that holds one model's outputs, made where there is none yet."""
    name = f"Foretag.Assets.{tag.asset}.{tag.model}"
    return tree.id(name) if tree.has(name) else tree.object(name, tag.model, asset_of(tree, tag.asset))


def _health(tree: Tree, before: Mapping[str, HealthNode], outputs: Mapping[str, OutputNode]) -> dict[str, HealthNode]:
    judged: dict[str, list[OutputNode]] = {}
    for node in outputs.values():
        if node.tag.meaning in _JUDGED:
            judged.setdefault(node.tag.asset, []).append(node)
    found = {}
    for asset, of_asset in judged.items():
        name = f"Foretag.Assets.{asset}"
        cell = before[asset].cell if asset in before else tree.member(name, types.DEVICE_HEALTH)
        found[asset] = HealthNode(cell, of_asset)
    return found


# --- outputs --------------------------------------------------------------------------------------------------------


def _output(tree: Tree, tag: OutputTag, parent: ua.NodeId, shown: Shown) -> OutputNode:
    if tag.flag:
        facts: dict[Member, Any] = {
            types.TRUE_STATE: ua.LocalizedText(_TRUE), types.FALSE_STATE: ua.LocalizedText(_FALSE)
        }  # fmt: skip
        return _node(tree, tag, parent, types.FLAG, facts, ("Score", "Threshold"), shown_as.number, shown)
    if tag.meaning is Meaning.LIFETIME:
        return _lifetime(tree, tag, parent, shown)
    if tag.meaning is Meaning.STATE:
        texts = [ua.LocalizedText(name) for name in tag.states]
        values = [ua.EnumValueType(ua.Int64(n), text, ua.LocalizedText("")) for n, text in enumerate(texts)]
        facts = {types.ENUM_VALUES: values, types.VALUE_AS_TEXT: None}
        return _node(tree, tag, parent, types.STATE, facts, ("ValueAsText",), shown_as.state(texts), shown)
    if tag.meaning is Meaning.FORECAST:
        parts = "LowerBounds", "UpperBounds", "TargetTimes", "Expected"
        return _node(tree, tag, parent, types.FORECAST, _scale(tag), parts, shown_as.forecast, shown)
    return _number(tree, tag, parent, shown)


def _number(tree: Tree, tag: OutputTag, parent: ua.NodeId, shown: Shown) -> OutputNode:
    """OPC 10000-8, 5.3.2: one that has no range is an AnalogUnitType. A share of 1 is shown in percent."""
    parts = "LowerBound", "UpperBound"
    if shown_as.in_percent(tag):
        facts = {types.EU_RANGE: ua.Range(0.0, 100.0), types.ENGINEERING_UNITS: engineering_units("%", NAMESPACE)}
        return _node(tree, tag, parent, types.VALUE, facts, parts, shown_as.percent, shown)
    ranged = math.isfinite(tag.low) and math.isfinite(tag.high)
    kind = types.VALUE if ranged else types.UNRANGED
    return _node(tree, tag, parent, kind, _scale(tag, ranged=ranged), parts, shown_as.number, shown)


def _lifetime(tree: Tree, tag: OutputTag, parent: ua.NodeId, shown: Shown) -> OutputNode:
    """OPC 10000-100, 10.2: from StartValue, a whole life, down to LimitValue, its end."""
    cycle = tag.cycle if tag.unit.startswith("cycle") else _DURATIONS.get(tag.unit)
    facts = _scale(tag) | {
        types.START_VALUE: tag.high,
        types.LIMIT_VALUE: tag.low,
        types.INDICATION: tree.ref(Ref(_INDICATIONS.get(tag.unit, 473), types.DI)),
    }
    if tag.warnings:
        facts[types.WARNING_VALUES] = list(tag.warnings)
    parts = "LowerBound", "UpperBound", "PredictedTime"
    unknown = f"No date: how long one of its {tag.unit or 'units'} takes is not configured."
    texts = {} if cycle else {"PredictedTime": unknown}
    return _node(tree, tag, parent, types.LIFETIME, facts, parts, shown_as.lifetime(cycle), shown, texts)


def _scale(tag: OutputTag, *, ranged: bool = True) -> dict[Member, Any]:
    units = {types.ENGINEERING_UNITS: engineering_units(tag.unit, NAMESPACE)}
    return units | ({types.EU_RANGE: ua.Range(tag.low, tag.high)} if ranged else {})


def _node(
    tree: Tree,
    tag: OutputTag,
    parent: ua.NodeId,
    kind: Type,
    facts: Mapping[Member, Any],
    parts: Sequence[str],
    shows: Any,
    shown: Shown,
    texts: Mapping[str, str] = MappingProxyType({}),
) -> OutputNode:
    """``facts``: members that the standard's types define, with what stays as it is; ``parts``: the members that share
    the value's status; ``texts``: descriptions."""
    data_type, now = kind.data_type or types.DOUBLE, tree.begun
    members = {member.name.text: member for member in (*facts, *kind.members)}
    times = [name for name in _TIMES if name in members]
    said = Sheet([encoding(data_type), *(members[part].variant for part in parts)], len(times), now)
    together = dict(zip((*parts, *times), said.faces[1:], strict=True))
    rank = ARRAY if kind.many else SCALAR
    tree.show(
        said.faces[0], tag.name, Name(tag.output), parent, kind.id, data_type, rank=rank, text=tag.description
    )  # fmt: skip
    cells: dict[str, Cell] = {}
    known: dict[str, Any] = {"ModelName": tag.model, "Confidence": tag.confidence}
    for name, member in members.items():
        if name in together:
            tree.show_member(together[name], tag.name, member, texts.get(name, ""))
        else:
            cells[name] = tree.member(tag.name, member, facts.get(member, known.get(name)), texts.get(name, ""))
    context = Context(
        version=cells["ModelVersion"], hash=cells["ModelHash"],
        features=cells["Contributions"], shares=cells["ContributionShares"], coverage=cells.get("Coverage"),
    )  # fmt: skip
    return OutputNode(tag, said, context, shows, shown)


_TIMES = "AsOfTime", "ValidUntil", "TargetTime"
"""Members that say when, in the order in which a prediction gives them."""


# --- models and the server ------------------------------------------------------------------------------------------


def _model(tree: Tree, name: str) -> ModelNode:
    path = f"Foretag.Models.{name}"
    tree.object(path, name, tree.id("Foretag.Models"), types.MODEL.id)
    return ModelNode({member.name.text: tree.member(path, member) for member in types.MODEL.members})


def _server(tree: Tree, parent: ua.NodeId, version: str) -> ServerNode:
    tree.object("Foretag.Server", "Server", parent, types.GATEWAY.id)
    facts = {"Version": version}
    cells = {
        member.name.text: tree.member("Foretag.Server", member, facts.get(member.name.text))
        for member in types.GATEWAY.members
    }
    return ServerNode(cells["Heartbeat"], tree.existing(ua.ObjectIds.Server_ServiceLevel, Ref(ua.ObjectIds.Byte)))
