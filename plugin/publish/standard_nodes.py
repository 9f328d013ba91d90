"""The nodes of the standard, put into a server's address space in a quarter of the time that asyncua takes for them.

asyncua has a list of them, which is quickly gone through; it then looks all up at each reference, and makes an object
for each of 80,000 attributes. Here, as in :mod:`plugin.publish.tree`, what is equal and never written is one object.
What a client finds is the same: ``tests/contracts`` compares it node by node.
"""

from collections.abc import Hashable, Iterable
from typing import Any

from asyncua import ua
from asyncua.server.address_space import AddressSpace, AttributeValue, NodeData

_A, _T = ua.AttributeIds, ua.VariantType
_TYPES = {
    _A.AccessLevel: _T.Byte,
    _A.ArrayDimensions: _T.UInt32,
    _A.ContainsNoLoops: _T.Boolean,
    _A.DataType: _T.NodeId,
    _A.Description: _T.LocalizedText,
    _A.DisplayName: _T.LocalizedText,
    _A.EventNotifier: _T.Byte,
    _A.Executable: _T.Boolean,
    _A.Historizing: _T.Boolean,
    _A.InverseName: _T.LocalizedText,
    _A.IsAbstract: _T.Boolean,
    _A.MinimumSamplingInterval: _T.Double,
    _A.Symmetric: _T.Boolean,
    _A.UserAccessLevel: _T.Byte,
    _A.UserExecutable: _T.Boolean,
    _A.ValueRank: _T.Int32,
    _A.WriteMask: _T.UInt32,
    _A.UserWriteMask: _T.UInt32,
    _A.DataTypeDefinition: _T.ExtensionObject,
    _A.Value: _T.Null,
}
"""The attributes that an item may have beside its names (OPC 10000-3, 5.2 to 5.8); a value says its type itself."""
_OWN = (_A.Value, _A.DataTypeDefinition)
"""Those that no other node has the same of, or that are written."""

_Number = Any
"""A standard node's identifier in namespace 0; it is looked up faster than the NodeId."""


def fill(space: AddressSpace) -> None:
    """Put them into an address space that is empty. ``ua.UaError`` where one refers to a node that there is not."""
    # Some 9 MB of program, read for a second where nobody has compiled it yet: not before it is needed.
    from asyncua.server.standard_address_space import standard_address_space_services as generated  # noqa: PLC0415

    nodes = _Nodes()
    generated.create_standard_address_space_Services(nodes)  # type: ignore[no-untyped-call]
    for data in nodes.linked():
        space[data.nodeid] = data


class _Nodes:
    """Stands where the generated list expects a server."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._nodes: dict[_Number, tuple[NodeData, Any]] = {}
        self._plans: dict[Hashable, list[tuple[str, ua.AttributeIds, ua.VariantType]]] = {}
        self._attributes: dict[Hashable, AttributeValue] = {}
        self._references: dict[Hashable, ua.ReferenceDescription] = {}
        self._linked: set[tuple[_Number, _Number, _Number]] = set()

    def add_nodes(self, items: Iterable[ua.AddNodesItem]) -> None:
        """As the generated list calls it."""
        for item in items:
            data = NodeData(item.RequestedNewNodeId)
            data.attributes = self._attributes_of(item)
            self._nodes[data.nodeid.Identifier] = data, item
            self._items.append(item)

    def add_references(self, items: Iterable[ua.AddReferencesItem]) -> None:
        """As the generated list calls it."""
        self._items += items

    def linked(self) -> Iterable[NodeData]:
        """All nodes, with their references: a node may refer to one that comes later."""
        to_type = ua.NodeId(ua.Int32(ua.ObjectIds.HasTypeDefinition))
        try:
            for item in self._items:
                if isinstance(item, ua.AddReferencesItem):
                    self._link(item.SourceNodeId, item.ReferenceTypeId, item.TargetNodeId, item.IsForward)
                    continue
                node, parent = item.RequestedNewNodeId, item.ParentNodeId
                if parent.Identifier:
                    self._link(parent, item.ReferenceTypeId, node, True)
                    self._link(node, item.ReferenceTypeId, parent, False)
                if item.TypeDefinition.Identifier:
                    self._link(node, to_type, item.TypeDefinition, True)
        except KeyError as error:
            raise ua.UaError(f"a standard node refers to i={error}, and there is none") from error
        return [data for data, _ in self._nodes.values()]

    def _attributes_of(self, item: ua.AddNodesItem) -> dict[ua.AttributeIds, AttributeValue]:
        given: Any = item.NodeAttributes
        found = {
            _A.NodeId: _attribute(item.RequestedNewNodeId, _T.NodeId),
            _A.BrowseName: _attribute(item.BrowseName, _T.QualifiedName),
            _A.NodeClass: self._shared(_A.NodeClass, item.NodeClass, _T.Int32),
        }
        for name, attribute, variant in self._plan(type(given), given.SpecifiedAttributes):
            fact = getattr(given, name)
            if attribute in _OWN:
                found[attribute] = _own(attribute, fact)
            else:
                found[attribute] = self._shared(attribute, fact, variant)
        return found

    def _plan(self, kind: type, specified: int) -> list[tuple[str, ua.AttributeIds, ua.VariantType]]:
        """Of a kind of items the attributes that they say they have."""
        key = kind, specified
        if key not in self._plans:
            said = ((attribute.name, attribute, variant) for attribute, variant in _TYPES.items())
            self._plans[key] = [each for each in said if specified & ua.NodeAttributesMask[each[0]]]
        return self._plans[key]

    def _shared(self, attribute: ua.AttributeIds, fact: Any, variant: ua.VariantType) -> AttributeValue:
        key = attribute, _key(fact)
        found = self._attributes.get(key)
        if found is None:
            found = self._attributes[key] = _attribute(fact, variant, attribute is _A.ArrayDimensions)
        return found

    def _link(self, source: ua.NodeId, kind: ua.NodeId, target: ua.NodeId, forward: bool) -> None:
        """Once: most references are listed at either end."""
        link = source.Identifier, kind.Identifier, target.Identifier
        if link in self._linked:
            return
        self._linked.add(link)
        key = kind.Identifier, target.Identifier, forward
        reference = self._references.get(key)
        if reference is None:
            reference = self._references[key] = self._reference(kind, target, forward)
        self._nodes[source.Identifier][0].references.append(reference)

    def _reference(self, kind: ua.NodeId, target: ua.NodeId, forward: bool) -> ua.ReferenceDescription:
        data, item = self._nodes[target.Identifier]
        name, label = item.BrowseName, item.NodeAttributes.DisplayName
        return ua.ReferenceDescription(kind, forward, data.nodeid, name, label, item.NodeClass, item.TypeDefinition)


def _key(fact: Any) -> Hashable:
    if isinstance(fact, ua.LocalizedText):
        return fact.Locale, fact.Text
    return tuple(fact) if isinstance(fact, list) else fact


def _attribute(fact: Any, variant: ua.VariantType, is_array: bool = False) -> AttributeValue:
    return AttributeValue(ua.DataValue(ua.Variant(fact, variant, is_array=is_array)))


def _own(attribute: ua.AttributeIds, fact: Any) -> AttributeValue:
    if attribute is _A.Value:
        return AttributeValue(ua.DataValue(ua.Variant(fact)))
    if isinstance(fact, ua.DataTypeDefinition):
        return _attribute(fact, _TYPES[attribute])
    return AttributeValue(ua.DataValue(ua.Variant()))  # a data type without one
