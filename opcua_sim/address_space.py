"""The plant's nodes: Objects/Plant/Fleet/engine-01/T24, Objects/Plant/GasTurbine/gas-turbine/AT, and so on.

Nodes are added in one batch straight from their attributes, which is ten times as fast as one call per node; machines
stand in folders of their own because asyncua looks through all children of a parent for each new one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from asyncua import Server, ua

from opcua_sim import history
from opcua_sim.plant import Plant
from opcua_sim.tags import Feature, Tag
from opcua_sim.units import UNITS

NAMESPACE = "urn:opcua-sim:plant"

_Ids = ua.ObjectIds
_READ, _WRITE, _HISTORY = (
    1 << ua.AccessLevel.CurrentRead,
    1 << ua.AccessLevel.CurrentWrite,
    1 << ua.AccessLevel.HistoryRead,
)
_STATUS_AND_TIME = 1 << ua.AccessLevel.StatusWrite | 1 << ua.AccessLevel.TimestampWrite

_HEALTH = Feature("health", "", 0.0, 1.0, "Health: 1 new, 0 failed")


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """Which node is which."""

    tags: dict[ua.NodeId, Tag]
    """In the order of :attr:`Plant.tags`."""
    advisory: tuple[ua.NodeId, ...]
    """Nodes for advice from outside; the only ones that clients may write."""
    faults: ua.NodeId
    """The object that the fault methods belong to."""


def build(server: Server, namespace: int, plant: Plant, period: float) -> Nodes:
    """Add all nodes of a plant; ``period`` [s] is the fastest that a tag changes."""
    batch = _Batch(namespace, period)
    objects = _standard(_Ids.ObjectsFolder)
    batch.object(objects, "plant", "Plant", _Ids.FolderType, reference=_Ids.Organizes)
    faults = batch.object(batch.id("plant"), "faults", "Faults")
    batch.object(batch.id("plant"), "fleet", "Fleet", _Ids.FolderType, reference=_Ids.Organizes)
    tags: dict[ua.NodeId, Tag] = {}
    advisory: list[ua.NodeId] = []
    for machine in plant.machines:
        folder = batch.id("fleet")
        if machine is plant.turbine:
            folder = batch.object(
                batch.id("plant"), "turbines", "GasTurbine", _Ids.FolderType, reference=_Ids.Organizes
            )
        batch.object(folder, machine.name, machine.name)
        for feature in machine.features:
            tag = Tag(machine.name, feature)
            tags[batch.analog(machine.name, tag.name, feature, _READ | _HISTORY)] = tag
        advisory += _advisory(batch, machine.name, _advice(plant, machine.features, machine is plant.turbine))
    batch.add_to(server)
    for node in advisory:
        server.set_attribute_value_setter(node, _keep_stamped)
    clear(server, [*tags, *advisory])
    return Nodes(tags, tuple(advisory), faults)


def clear(server: Server, nodes: Iterable[ua.NodeId]) -> None:
    """Set nodes back to what they have before anybody wrote them."""
    waiting = ua.StatusCode(ua.UInt32(ua.StatusCodes.BadWaitingForInitialData))
    for node in nodes:
        now: Any = datetime.now(UTC)
        value = ua.DataValue(ua.Variant(), waiting, SourceTimestamp=now, ServerTimestamp=now)
        server.iserver.aspace[node].attributes[ua.AttributeIds.Value].value = value


async def describe_history(server: Server) -> None:
    """Say truthfully what HistoryRead offers (OPC 10000-11, 5.4) and how much one request may ask for."""
    limits = {
        _Ids.HistoryServerCapabilities_AccessHistoryDataCapability: ua.Variant(True, ua.VariantType.Boolean),
        _Ids.HistoryServerCapabilities_ServerTimestampSupported: ua.Variant(True, ua.VariantType.Boolean),
        _Ids.HistoryServerCapabilities_MaxReturnDataValues: _uint32(history.MAX_VALUES_PER_NODE),
        _Ids.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadData: _uint32(history.MAX_NODES),
    }
    for node, value in limits.items():
        await server.get_node(_standard(node)).write_value(value)


def _advice(plant: Plant, features: tuple[Feature, ...], turbine: bool) -> list[Feature]:
    """What a model may say of a machine."""
    by_name = {feature.name: feature for feature in features}
    if turbine:
        lab = by_name["NOX_lab"]
        return [replace(lab, name="nox", description="Nitrogen oxides, predicted", delay=0)]
    return [Feature("rul", "cycles", 0.0, by_name["cycle"].high, "Remaining useful life"), _HEALTH]


def _advisory(batch: "_Batch", machine: str, features: list[Feature]) -> list[ua.NodeId]:
    name = f"{machine}.advisory"
    batch.object(batch.id(machine), name, "advisory")
    access = _READ | _WRITE | _STATUS_AND_TIME
    nodes = [batch.analog(name, f"{name}.{feature.name}", feature, access) for feature in features]
    return [*nodes, batch.two_state(name, f"{name}.anomaly", "anomaly", ("normal", "anomalous"), access)]


def _keep_stamped(node: Any, attribute: ua.AttributeIds, value: ua.DataValue) -> None:
    """Store what a client wrote; a value without a source time gets the time of its arrival."""
    if value.SourceTimestamp is None:
        now: Any = datetime.now(UTC)
        value = replace(value, SourceTimestamp=now)
    node.attributes[attribute].value = value


class _Batch:
    """Nodes to be added, parents first."""

    def __init__(self, namespace: int, period: float) -> None:
        self._namespace = namespace
        self._period = period
        self._items: list[ua.AddNodesItem] = []
        self._properties: dict[Feature, tuple[ua.Variant, ua.Variant]] = {}

    def id(self, name: str) -> ua.NodeId:
        """NodeId of a string identifier."""
        return ua.NodeId(ua.String(name), ua.Int16(self._namespace))

    def object(
        self,
        parent: ua.NodeId,
        name: str,
        browse: str,
        kind: int = _Ids.BaseObjectType,
        reference: int = _Ids.HasComponent,
    ) -> ua.NodeId:
        attributes = ua.ObjectAttributes(DisplayName=ua.LocalizedText(browse))
        return self._add(parent, name, browse, ua.NodeClass.Object, attributes, kind, reference)

    def analog(self, parent: str, name: str, feature: Feature, access: int) -> ua.NodeId:
        """An AnalogItemType with EURange and EngineeringUnits (OPC 10000-8, 5.3.2.3)."""
        kind = ua.VariantType.UInt32 if feature.counter else ua.VariantType.Double
        value = ua.Variant(0 if feature.counter else 0.0, kind)
        node = self._variable(parent, name, feature.name, value, kind, _Ids.AnalogItemType, access, feature.description)
        if feature not in self._properties:
            unit = UNITS[feature.unit]
            texts = ua.LocalizedText(unit.display), ua.LocalizedText(unit.description)
            information = ua.EUInformation(ua.String(unit.namespace), ua.Int32(unit.unit_id), *texts)
            self._properties[feature] = (
                ua.Variant(ua.Range(ua.Double(feature.low), ua.Double(feature.high)), ua.VariantType.ExtensionObject),
                ua.Variant(information, ua.VariantType.ExtensionObject),
            )
        low_high, unit_information = self._properties[feature]
        self._property(node, f"{name}.EURange", "EURange", low_high, _Ids.Range)
        self._property(node, f"{name}.EngineeringUnits", "EngineeringUnits", unit_information, _Ids.EUInformation)
        return node

    def two_state(self, parent: str, name: str, browse: str, states: tuple[str, str], access: int) -> ua.NodeId:
        """A TwoStateDiscreteType with the texts for False and True (OPC 10000-8, 5.3.3.2)."""
        value = ua.Variant(False, ua.VariantType.Boolean)
        node = self._variable(
            parent, name, browse, value, ua.VariantType.Boolean, _Ids.TwoStateDiscreteType, access, ""
        )
        for state, text in zip(("FalseState", "TrueState"), states, strict=True):
            self._property(node, f"{name}.{state}", state, ua.Variant(ua.LocalizedText(text)), _Ids.LocalizedText)
        return node

    def add_to(self, server: Server) -> None:
        """Add all of them."""
        added = server.iserver.node_mgt_service.add_nodes(self._items)
        for result in added:
            result.StatusCode.check()

    def _variable(
        self,
        parent: str,
        name: str,
        browse: str,
        value: ua.Variant,
        kind: ua.VariantType,
        type_definition: int,
        access: int,
        description: str,
    ) -> ua.NodeId:
        attributes = ua.VariableAttributes(
            DisplayName=ua.LocalizedText(browse),
            Description=ua.LocalizedText(description),
            Value=value,
            DataType=_standard(kind.value),
            ValueRank=ua.Int32(ua.ValueRank.Scalar),
            AccessLevel=ua.Byte(access),
            UserAccessLevel=ua.Byte(access),
            MinimumSamplingInterval=ua.Duration(self._period * 1000),
            Historizing=bool(access & _HISTORY),
        )
        return self._add(
            self.id(parent), name, browse, ua.NodeClass.Variable, attributes, type_definition, _Ids.HasComponent
        )

    def _property(self, parent: ua.NodeId, name: str, browse: str, value: ua.Variant, data_type: int) -> None:
        attributes = ua.VariableAttributes(
            DisplayName=ua.LocalizedText(browse),
            Value=value,
            DataType=_standard(data_type),
            ValueRank=ua.Int32(ua.ValueRank.Scalar),
            AccessLevel=ua.Byte(_READ),
            UserAccessLevel=ua.Byte(_READ),
        )
        node, kind = ua.NodeClass.Variable, _Ids.PropertyType
        self._add(parent, name, browse, node, attributes, kind, _Ids.HasProperty, namespace=0)

    def _add(
        self,
        parent: ua.NodeId,
        name: str,
        browse: str,
        node_class: ua.NodeClass,
        attributes: Any,
        kind: int,
        reference: int,
        namespace: int | None = None,
    ) -> ua.NodeId:
        node = self.id(name)
        item = ua.AddNodesItem()
        item.ParentNodeId = parent
        item.ReferenceTypeId = _standard(reference)
        item.RequestedNewNodeId = node
        item.BrowseName = ua.QualifiedName(
            ua.String(browse), ua.UInt16(self._namespace if namespace is None else namespace)
        )
        item.NodeClass = node_class
        item.NodeAttributes = attributes
        item.TypeDefinition = _standard(kind)
        self._items.append(item)
        return node


def _standard(number: int) -> ua.NodeId:
    return ua.NodeId(ua.Int32(number))


def _uint32(number: int) -> ua.Variant:
    return ua.Variant(number, ua.VariantType.UInt32)
