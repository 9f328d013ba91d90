"""What goes into a plant's nodes: numbers as a node's type holds them, with status and time as the server takes it."""

import math
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from asyncua import ua

from plugin.domain import quality


class Form(IntEnum):
    """What a server takes in a write, fullest first: many refuse times, some a status, with BadWriteNotSupported."""

    FULL = 2
    """Value, StatusCode and SourceTimestamp."""
    STATUS = 1
    """Value and StatusCode."""
    BARE = 0
    """The value alone: it becomes Good, whatever it was."""


@dataclass(frozen=True, slots=True)
class Value:
    """What is to be written to one node."""

    number: float
    status: int
    source_time: datetime


@dataclass(frozen=True, slots=True)
class Demand:
    """A node that is to be written."""

    text: str
    """By namespace URI: ``nsu=urn:plant;s=engine-01.rul``."""
    create: bool | None = None
    """To be made where the server has none: True as a Boolean, False as a Double. None: not to be made."""
    tolerance: float = 0.0
    """How far what is read back may be from what was written [unit of the value]."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the server, resolved in the present session."""

    id: ua.NodeId
    kind: ua.VariantType
    tolerance: float = 0.0
    present: tuple[float, datetime] | None = None
    """The number that it held when it was resolved, and since when, where the server says both and calls it Good."""


_INTEGERS = {
    ua.VariantType.SByte: (-(2**7), 2**7 - 1),
    ua.VariantType.Byte: (0, 2**8 - 1),
    ua.VariantType.Int16: (-(2**15), 2**15 - 1),
    ua.VariantType.UInt16: (0, 2**16 - 1),
    ua.VariantType.Int32: (-(2**31), 2**31 - 1),
    ua.VariantType.UInt32: (0, 2**32 - 1),
    ua.VariantType.Int64: (-(2**63), 2**63 - 1),
    ua.VariantType.UInt64: (0, 2**64 - 1),
}
_WRITABLE = {*_INTEGERS, ua.VariantType.Boolean, ua.VariantType.Float, ua.VariantType.Double}
_GENERAL = {ua.ObjectIds.Number: ua.VariantType.Double, ua.ObjectIds.Duration: ua.VariantType.Double}
_LARGEST_FLOAT = 3.4e38


def node_of(node: ua.NodeId, demand: Demand, kind: ua.DataValue, value: ua.DataValue) -> Node | str:
    """The type of the present value where there is one: a DataType may be abstract. BadTypeMismatch for what no number
    goes into, arrays among it."""
    if quality(status_of(kind.StatusCode)) or kind.Value is None:
        return kind.StatusCode.name if kind.StatusCode is not None else "BadNodeIdUnknown"
    present = value.Value
    if present is not None and isinstance(present.Value, list):
        return "BadTypeMismatch"
    if present is not None and present.VariantType in _WRITABLE:
        return Node(node, present.VariantType, demand.tolerance, _known(value))
    identifier = kind.Value.Value.Identifier
    variants = {variant.value: variant for variant in _WRITABLE}
    found = _GENERAL.get(identifier, variants.get(identifier))
    wrong = found is None or kind.Value.Value.NamespaceIndex
    return "BadTypeMismatch" if wrong or found is None else Node(node, found, demand.tolerance)


def _known(data: ua.DataValue) -> tuple[float, datetime] | None:
    since = data.SourceTimestamp or data.ServerTimestamp
    if data.Value is None or since is None or quality(status_of(data.StatusCode)):
        return None
    return float(data.Value.Value), since.replace(tzinfo=since.tzinfo or UTC)


def fits(kind: ua.VariantType, number: float) -> bool:
    """A node of this type holds the number: in range, and 0 or 1 where it is a Boolean."""
    if not math.isfinite(number):
        return False
    if kind is ua.VariantType.Boolean:
        return number in (0.0, 1.0)
    low, high = _INTEGERS.get(kind, (-math.inf, math.inf))
    return low <= round(number) <= high and (kind is not ua.VariantType.Float or abs(number) < _LARGEST_FLOAT)


def as_stored(kind: ua.VariantType, number: float) -> float | int | bool:
    """The number as a node of this type holds it: integers are rounded to the nearest, floats to 32 bits."""
    if kind is ua.VariantType.Boolean:
        return number != 0
    if kind is ua.VariantType.Float:
        (single,) = struct.unpack("<f", struct.pack("<f", number))
        return float(single)
    return round(number) if kind in _INTEGERS else float(number)


def same(node: Node, number: float, data: ua.DataValue) -> bool:
    """What was read back is what was written, within the node's tolerance."""
    written, found = as_stored(node.kind, number), data.Value.Value if data.Value is not None else None
    if node.kind is ua.VariantType.Boolean or not isinstance(found, int | float):
        return bool(found == written)
    return abs(found - written) <= node.tolerance


def data_value(kind: ua.VariantType, value: Value, form: Form) -> ua.DataValue:
    """As it goes over the wire."""
    variant = ua.Variant(as_stored(kind, value.number), kind)
    status = ua.StatusCode(ua.UInt32(value.status)) if form >= Form.STATUS else None
    source = value.source_time if form is Form.FULL else None
    return ua.DataValue(variant, status, source)  # type: ignore[arg-type]


def status_of(status: ua.StatusCode | None) -> int:
    """0 where none was sent, which says Good (OPC 10000-6, 5.2.2.17)."""
    return 0 if status is None else int(status.value)


def new_node(node: ua.NodeId, *, boolean: bool) -> ua.AddNodesItem:
    """A variable below the Objects folder that may be read and written (OPC 10000-4, 5.8.2)."""
    number = ua.ObjectIds.Boolean if boolean else ua.ObjectIds.Double
    level = ua.Byte(ua.AccessLevel.CurrentRead.mask | ua.AccessLevel.CurrentWrite.mask)
    label = str(node.Identifier)
    attributes = ua.VariableAttributes(
        DisplayName=ua.LocalizedText(label),
        Value=ua.Variant(None, ua.VariantType.Null),
        DataType=_numeric(number),
        ValueRank=ua.Int32(-1),
        AccessLevel=level,
        UserAccessLevel=level,
    )
    return ua.AddNodesItem(
        ParentNodeId=_numeric(ua.ObjectIds.ObjectsFolder),
        ReferenceTypeId=_numeric(ua.ObjectIds.Organizes),
        RequestedNewNodeId=node,
        BrowseName=ua.QualifiedName(ua.String(label), ua.UInt16(node.NamespaceIndex)),
        NodeClass=ua.NodeClass.Variable,
        NodeAttributes=attributes,
        TypeDefinition=_numeric(ua.ObjectIds.BaseDataVariableType),
    )


def _numeric(number: int) -> ua.NodeId:
    return ua.NodeId(ua.Int32(number))
