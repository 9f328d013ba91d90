"""Puts nodes into a server's address space: 50,000 of them in seconds, for what never changes is shared between them.

asyncua's own way looks at all children of the parent for each node (many of them take hours), and keeps some 8 kB of
attributes and references per node. Here attributes that are equal are one object, and so are the references that the
children of one node have to it, and to their type.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from asyncua import ua
from asyncua.server.address_space import AttributeValue, NodeData
from asyncua.server.internal_server import InternalServer

from plugin.publish.cells import Cell, Face
from plugin.publish.types import OURS, STANDARD, Member, Name, Ref, encoding

SCALAR, ARRAY = -1, 1
_A, _T = ua.AttributeIds, ua.VariantType
_Made = TypeVar("_Made")
_READ = ua.AccessLevel.CurrentRead.mask
_READ_HISTORY = ua.AccessLevel.HistoryRead.mask


class Tree:
    """Adds nodes to a server's address space. A name in our namespace is there once: the second is a ``ua.UaError``."""

    def __init__(self, server: InternalServer, namespaces: dict[str, int], now: datetime) -> None:
        """``namespaces``: index by URI, those of all that is put there."""
        self._space = server.aspace
        self._namespaces = {STANDARD: 0} | namespaces
        self._now = now
        self._shared: dict[Any, Any] = {}

    def id(self, name: str) -> ua.NodeId:
        """NodeId of a name in our namespace."""
        return ua.NodeId(ua.String(name), ua.Int16(self._namespaces[OURS]))

    def ref(self, ref: Ref) -> ua.NodeId:
        """NodeId of a description."""
        return self._share(("node", ref), lambda: self._node_id(ref))

    def _node_id(self, ref: Ref) -> ua.NodeId:
        number = ua.Int32(ref.id) if isinstance(ref.id, int) else ua.String(ref.id)
        return ua.NodeId(number, ua.Int16(self._namespaces[ref.namespace]))

    def has(self, name: str) -> bool:
        """A node of that name is there."""
        return self.id(name) in self._space

    def folder(self, name: str, label: str, parent: ua.NodeId) -> ua.NodeId:
        """A folder of our own."""
        return self.object(name, label, parent, Ref(ua.ObjectIds.FolderType))

    def object(self, name: str, label: str | Name, parent: ua.NodeId, kind: Ref | None = None) -> ua.NodeId:
        """An object of our own, organized by a folder or object."""
        node, attributes = self.id(name), {_A.EventNotifier: self._attribute(0, _T.Byte)}
        kind = kind or Ref(ua.ObjectIds.BaseObjectType)
        label = Name(label) if isinstance(label, str) else label
        self.put(node, ua.NodeClass.Object, label, attributes, parent, ua.ObjectIds.Organizes, kind)
        return node

    def component(self, name: str, label: Name, parent: ua.NodeId, kind: Ref) -> ua.NodeId:
        """An object that belongs to another."""
        node, attributes = self.id(name), {_A.EventNotifier: self._attribute(0, _T.Byte)}
        self.put(node, ua.NodeClass.Object, label, attributes, parent, ua.ObjectIds.HasComponent, kind)
        return node

    def method(
        self,
        name: str,
        label: str,
        parent: ua.NodeId,
        arguments: list[ua.Argument],
        answers: list[ua.Argument] | None = None,
    ) -> ua.NodeId:
        """A method of our own; :meth:`answer` says what it does."""
        node = self.id(name)
        executable = {attribute: self._attribute(True, _T.Boolean) for attribute in (_A.Executable, _A.UserExecutable)}
        self.put(node, ua.NodeClass.Method, Name(label), executable, parent, ua.ObjectIds.HasComponent)
        for text, described in (("InputArguments", arguments), ("OutputArguments", answers)):
            if described:
                self.member(name, Member(Name(text, STANDARD), Ref(ua.ObjectIds.Argument), many=True), described)
        return node

    def show(
        self,
        face: Face,
        name: str,
        label: Name,
        parent: ua.NodeId,
        kind: Ref,
        data_type: Ref,
        *,
        reference: int = ua.ObjectIds.HasComponent,
        rank: int = SCALAR,
        text: str = "",
    ) -> None:
        """A variable of our own, whose value is kept elsewhere."""
        attributes = self.variable_attributes(data_type, rank, text) | {_A.Value: face}
        self.put(self.id(name), ua.NodeClass.Variable, label, attributes, parent, reference, kind)

    @property
    def begun(self) -> datetime:
        """Since when it is put together."""
        return self._now

    def member(self, owner: str, member: Member, fact: Any = None, text: str = "") -> Cell:
        """A member of a node of our own; with a fact it is Good from the start."""
        cell = Cell(encoding(member.concrete), self._now)
        self.show_member(cell, owner, member, text)
        if fact is not None:
            cell.note(fact, self._now, self._now)
        return cell

    def show_member(self, face: Face, owner: str, member: Member, text: str = "") -> None:
        """A member whose value is kept elsewhere."""
        self.show(
            face, f"{owner}.{member.name.text}", member.name, self.id(owner), member.kind, member.concrete,
            reference=member.reference, rank=ARRAY if member.many else SCALAR, text=text,
        )  # fmt: skip

    def historize(self, name: str, configuration: Ref) -> None:
        """A variable's values are kept and can be asked for (OPC 10000-11, 5.2)."""
        node = self.id(name)
        attributes, access = self._space[node].attributes, self._attribute(_READ | _READ_HISTORY, _T.Byte)
        attributes[_A.AccessLevel] = attributes[_A.UserAccessLevel] = access
        attributes[_A.Historizing] = self._attribute(True, _T.Boolean)
        self.link(node, ua.ObjectIds.HasHistoricalConfiguration, configuration)

    def existing(self, number: int, data_type: Ref) -> Cell:
        """The value of a standard node that is there already, made one of our own."""
        attributes = self._space[self.ref(Ref(number))].attributes
        before = attributes[_A.Value].value
        cell = Cell(encoding(data_type), self._now)
        if before is not None:
            cell.value = before
        attributes[_A.Value] = cell
        return cell

    def put(
        self,
        node: ua.NodeId,
        node_class: ua.NodeClass,
        label: Name,
        attributes: dict[Any, AttributeValue],
        parent: ua.NodeId,
        reference: int,
        kind: Ref | None = None,
    ) -> None:
        """Any node, referenced by a parent that is there."""
        if node in self._space:
            raise ua.UaError(f"there is a node {node.to_string()} already")
        data, above = NodeData(node), self._space[parent]
        name = self._name(label)
        data.attributes = {
            _A.NodeId: AttributeValue(ua.DataValue(ua.Variant(node, _T.NodeId))),
            _A.NodeClass: self._attribute(node_class, _T.Int32),
            _A.BrowseName: self._attribute(name, _T.QualifiedName, label),
            _A.DisplayName: self._attribute(ua.LocalizedText(label.text), _T.LocalizedText, label.text),
            **attributes,
        }
        data.references = [self._back(above, parent, reference)]
        if kind is not None:
            data.references.append(self.reference_to(kind, ua.ObjectIds.HasTypeDefinition))
        self._space[node] = data
        above.references.append(self._forward(node, reference, name, label, node_class, kind))

    def link(self, node: ua.NodeId, reference: int, target: Ref) -> None:
        """A further reference from a node to one that is there."""
        self._space[node].references.append(self.reference_to(target, reference))

    def emit(self, node: ua.NodeId, parent: ua.NodeId | None = None) -> None:
        """Events can be heard at the node; those that ``parent`` hears too (OPC 10000-3, 7.18)."""
        attributes = self._space[node].attributes
        before = attributes.get(_A.EventNotifier)
        mask = before.value.Value.Value if before is not None and before.value and before.value.Value else 0
        if not mask & ua.EventNotifier.SubscribeToEvents.mask:
            heard = ua.Variant((mask or 0) | ua.EventNotifier.SubscribeToEvents.mask, _T.Byte)
            attributes[_A.EventNotifier] = AttributeValue(ua.DataValue(heard))
        if parent is not None:
            self.refer(parent, ua.ObjectIds.HasNotifier, node)

    def remember_events(self, node: ua.NodeId) -> None:
        """Events of the past can be asked for at the node."""
        attributes = self._space[node].attributes
        before = attributes.get(_A.EventNotifier)
        mask = before.value.Value.Value if before is not None and before.value and before.value.Value else 0
        kept = ua.Variant((mask or 0) | ua.EventNotifier.HistoryRead.mask, _T.Byte)
        attributes[_A.EventNotifier] = AttributeValue(ua.DataValue(kept))

    def refer(self, node: ua.NodeId, reference: int, target: ua.NodeId) -> None:
        """A further reference between nodes that are there, once."""
        made = self._describe(self._space[target], target, reference, forward=True)
        if not any(
            each.NodeId == target and each.ReferenceTypeId == made.ReferenceTypeId and each.IsForward
            for each in self._space[node].references
        ):
            self._space[node].references.append(made)

    def types_of(self, kind: Ref) -> frozenset[ua.NodeId]:
        """A type and all that it derives from."""
        found, open_ = set[ua.NodeId](), [self.ref(kind)]
        while open_:
            node = open_.pop()
            found.add(node)
            open_ += [
                each.NodeId
                for each in self._space[node].references
                if not each.IsForward and each.ReferenceTypeId.Identifier == ua.ObjectIds.HasSubtype
            ]
        return frozenset(found)

    def answer(self, method: ua.NodeId, call: Callable[..., Any]) -> None:
        """Who answers calls of a method that is there, given the object's NodeId and the arguments."""
        self._space[method].call = call

    def reference_to(self, target: Ref, reference: int) -> ua.ReferenceDescription:
        """To a node that many refer to; it does not refer back."""

        def make() -> ua.ReferenceDescription:
            node = self.ref(target)
            return self._describe(self._space[node], node, reference, forward=True)

        return self._share(("to", target, reference), make)

    def variable_attributes(self, data_type: Ref, rank: int, text: str = "") -> dict[Any, AttributeValue]:
        """All but the value."""
        access, dimensions = self._attribute(_READ, _T.Byte), {}
        if rank == ARRAY:
            dimensions = {_A.ArrayDimensions: self._attribute([0], _T.UInt32, "dimensions")}
        return dimensions | {
            _A.Description: self._attribute(ua.LocalizedText(text), _T.LocalizedText, text),
            _A.DataType: self._attribute(self.ref(data_type), _T.NodeId),
            _A.ValueRank: self._attribute(rank, _T.Int32),
            _A.AccessLevel: access,
            _A.UserAccessLevel: access,
            _A.Historizing: self._attribute(False, _T.Boolean),
        }

    def _attribute(self, fact: Any, variant: ua.VariantType, key: Any = None) -> AttributeValue:
        """One for all nodes: nobody may write it."""
        key = ("attribute", variant, fact if key is None else key)
        return self._share(key, lambda: AttributeValue(ua.DataValue(ua.Variant(fact, variant))))

    def _name(self, label: Name) -> ua.QualifiedName:
        index = ua.UInt16(self._namespaces[label.namespace])
        return self._share(("name", label), lambda: ua.QualifiedName(ua.String(label.text), index))

    def _back(self, above: NodeData, parent: ua.NodeId, reference: int) -> ua.ReferenceDescription:
        key = "back", parent, reference
        return self._share(key, lambda: self._describe(above, parent, reference, forward=False))

    def _forward(
        self,
        node: ua.NodeId,
        reference: int,
        name: ua.QualifiedName,
        label: Name,
        node_class: ua.NodeClass,
        kind: Ref | None,
    ) -> ua.ReferenceDescription:
        made = ua.ReferenceDescription(ReferenceTypeId=self.ref(Ref(reference)), IsForward=True)
        made.NodeId, made.BrowseName, made.NodeClass = node, name, node_class
        made.DisplayName = self._share(("text", label.text), lambda: ua.LocalizedText(label.text))
        if kind is not None:
            made.TypeDefinition = self.ref(kind)
        return made

    def _describe(self, of: NodeData, node: ua.NodeId, reference: int, *, forward: bool) -> ua.ReferenceDescription:
        made = ua.ReferenceDescription(ReferenceTypeId=self.ref(Ref(reference)), IsForward=forward)
        made.NodeId = node
        made.BrowseName, made.DisplayName, made.NodeClass = (
            _fact(of, attribute) for attribute in (_A.BrowseName, _A.DisplayName, _A.NodeClass)
        )
        kinds = (r.NodeId for r in of.references if r.ReferenceTypeId.Identifier == ua.ObjectIds.HasTypeDefinition)
        made.TypeDefinition = next(kinds, ua.NodeId())
        return made

    def _share(self, key: Any, make: Callable[[], _Made]) -> _Made:
        if key not in self._shared:
            self._shared[key] = make()
        shared: _Made = self._shared[key]
        return shared


def _fact(of: NodeData, attribute: ua.AttributeIds) -> Any:
    value = of.attributes[attribute].value
    return value.Value.Value if value is not None and value.Value is not None else None
