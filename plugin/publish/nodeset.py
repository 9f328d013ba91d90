"""The types of :mod:`plugin.publish.types`, as nodes of a running server and as a NodeSet2 file (OPC 10000-6, annex F).

``python -m plugin.publish.nodeset`` writes the file anew; a test fails where it is not what the description says.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from asyncua import ua
from asyncua.server.address_space import AttributeValue

from plugin.domain import Status
from plugin.publish.tree import ARRAY, SCALAR, Tree
from plugin.publish.types import DI, DI_TYPES, OUR_TYPES, OURS, STANDARD, Member, Name, Ref, Type

FILE = Path(__file__).with_name("foretag.NodeSet2.xml")
VERSION, PUBLISHED = "1.0.0", "2026-11-21T00:00:00Z"
"""Of the types: a change that a client may notice raises the version."""

NEEDED = {STANDARD: ("1.04", "2019-05-01T00:00:00Z"), DI: ("1.03.1", "2021-09-07T00:00:00Z")}
"""The oldest editions that have what our types derive from."""
_SCHEMA = "http://opcfoundation.org/UA/2011/03/UANodeSet.xsd"
_ID, _A, _T = ua.ObjectIds, ua.AttributeIds, ua.VariantType
_ANY = -2
_CLASSES = {
    ua.NodeClass.VariableType: "UAVariableType",
    ua.NodeClass.ObjectType: "UAObjectType",
    ua.NodeClass.DataType: "UADataType",
}


def add_types(tree: Tree, types: Sequence[Type] = (*DI_TYPES, *OUR_TYPES)) -> None:
    """Add types to a server, each after what it derives from."""
    for made in types:
        _add_type(tree, made)
        for member in made.members:
            _declare(tree, made, member)
        if made.names:
            _add_names(tree, made)


def _add_type(tree: Tree, made: Type) -> None:
    attributes: dict[Any, AttributeValue] = {_A.IsAbstract: _value(made.abstract, _T.Boolean)}
    attributes[_A.Description] = _value(ua.LocalizedText(made.text), _T.LocalizedText)
    if made.names:
        fields = [ua.EnumField(Value=ua.Int64(n), Name=ua.String(name)) for n, name in enumerate(made.names)]
        attributes[_A.DataTypeDefinition] = _value(ua.EnumDefinition(fields), _T.ExtensionObject)
    if made.data_type is not None:
        attributes[_A.DataType] = _value(tree.ref(made.data_type), _T.NodeId)
        attributes[_A.ValueRank] = _value(_rank(made), _T.Int32)
    tree.put(tree.ref(made.id), made.node_class, made.name, attributes, tree.ref(made.above), _ID.HasSubtype)
    for interface in made.interfaces:
        tree.link(tree.ref(made.id), _ID.HasInterface, interface)


def _declare(tree: Tree, made: Type, member: Member) -> None:
    node = tree.ref(made.declaration(member))
    attributes = tree.variable_attributes(member.data_type, ARRAY if member.many else SCALAR)
    attributes[_A.Value] = AttributeValue(ua.DataValue(ua.Variant(), ua.StatusCode(ua.UInt32(Status.BAD_NO_DATA))))
    parent, reference = tree.ref(made.id), member.reference
    tree.put(node, ua.NodeClass.Variable, member.name, attributes, parent, reference, member.kind)
    tree.link(node, _ID.HasModellingRule, _rule(member))


def _add_names(tree: Tree, made: Type) -> None:
    """OPC 10000-3, 8.40: the values of an enumeration, for clients old and new."""
    texts = [ua.LocalizedText(name) for name in made.names]
    attributes = tree.variable_attributes(Ref(_ID.LocalizedText), ARRAY)
    attributes[_A.Value] = _value(texts, _T.LocalizedText)
    node, name, parent = tree.ref(Ref(6450, DI)), Name("EnumStrings", STANDARD), tree.ref(made.id)
    tree.put(node, ua.NodeClass.Variable, name, attributes, parent, _ID.HasProperty, Ref(_ID.PropertyType))
    tree.link(node, _ID.HasModellingRule, Ref(_ID.ModellingRule_Mandatory))


def _value(fact: Any, variant: ua.VariantType) -> AttributeValue:
    return AttributeValue(ua.DataValue(ua.Variant(fact, variant)))


def _rule(member: Member) -> Ref:
    return Ref(_ID.ModellingRule_Mandatory if member.mandatory else _ID.ModellingRule_Optional)


def _rank(made: Type) -> int:
    return ARRAY if made.many else SCALAR if made.id.namespace == OURS else _ANY


# --- as a file -------------------------------------------------------------------------------------------------------


def nodeset(types: Sequence[Type] = OUR_TYPES, uri: str = OURS, requires: Sequence[str] = (DI,)) -> str:
    """The text of a NodeSet2 file of types of one namespace, which names those that it ``requires``."""
    indexes = {STANDARD: 0} | {known: index for index, known in enumerate((uri, *requires), 1)}
    root = Xml.Element("UANodeSet", xmlns=_SCHEMA)
    for known in (uri, *requires):
        Xml.SubElement(_child(root, "NamespaceUris"), "Uri").text = known
    model = Xml.SubElement(_child(root, "Models"), "Model", ModelUri=uri, Version=VERSION, PublicationDate=PUBLISHED)
    for known in (STANDARD, *requires):
        version, published = NEEDED[known]
        Xml.SubElement(model, "RequiredModel", ModelUri=known, Version=version, PublicationDate=published)
    for made in types:
        root.extend(_elements(made, indexes))
    Xml.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _elements(made: Type, indexes: dict[str, int]) -> Iterator[Xml.Element]:
    about: dict[str, str] = {"IsAbstract": "true"} if made.abstract else {}
    if made.data_type is not None:
        about |= {"DataType": _node(made.data_type, indexes), "ValueRank": str(_rank(made))}
        about |= {"ArrayDimensions": "0"} if made.many else {}
    element = _element(_CLASSES[made.node_class], made.id, made.name, indexes, about)
    if made.text:
        Xml.SubElement(element, "Description").text = made.text
    _refer(element, _ID.HasSubtype, made.above, indexes, forward=False)
    for interface in made.interfaces:
        _refer(element, _ID.HasInterface, interface, indexes)
    yield element
    for member in made.members:
        yield _declared(made, member, indexes)


def _declared(made: Type, member: Member, indexes: dict[str, int]) -> Xml.Element:
    about = {"ParentNodeId": _node(made.id, indexes), "DataType": _node(member.data_type, indexes)}
    about |= {"ValueRank": "1", "ArrayDimensions": "0"} if member.many else {}
    element = _element("UAVariable", made.declaration(member), member.name, indexes, about)
    _refer(element, member.reference, made.id, indexes, forward=False)
    _refer(element, _ID.HasTypeDefinition, member.kind, indexes)
    _refer(element, _ID.HasModellingRule, _rule(member), indexes)
    return element


def _element(kind: str, node: Ref, name: Name, indexes: dict[str, int], about: dict[str, str]) -> Xml.Element:
    index = indexes[name.namespace]
    label = f"{index}:{name.text}" if index else name.text
    element = Xml.Element(kind, {"NodeId": _node(node, indexes), "BrowseName": label} | about)
    Xml.SubElement(element, "DisplayName").text = name.text
    return element


def _refer(element: Xml.Element, kind: int, target: Ref, indexes: dict[str, int], *, forward: bool = True) -> None:
    about = {"ReferenceType": f"i={kind}"} | ({} if forward else {"IsForward": "false"})
    Xml.SubElement(_child(element, "References"), "Reference", about).text = _node(target, indexes)


def _child(parent: Xml.Element, name: str) -> Xml.Element:
    found = parent.find(name)
    return Xml.SubElement(parent, name) if found is None else found


def _node(ref: Ref, indexes: dict[str, int]) -> str:
    kind = "i" if isinstance(ref.id, int) else "s"
    index = indexes[ref.namespace]
    return f"ns={index};{kind}={ref.id}" if index else f"{kind}={ref.id}"


if __name__ == "__main__":
    FILE.write_text(nodeset(), encoding="utf-8")
