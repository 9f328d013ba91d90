"""The types that our server has are those of the NodeSet2 file that is shipped, and strangers can load it."""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asyncua import Server, ua

from plugin.publish.nodeset import FILE, add_types, nodeset
from plugin.publish.tree import Tree
from plugin.publish.types import DI, DI_TYPES, OUR_TYPES, OURS

_COMPARED = (
    ua.AttributeIds.NodeClass,
    ua.AttributeIds.BrowseName,
    ua.AttributeIds.DisplayName,
    ua.AttributeIds.Description,
    ua.AttributeIds.DataType,
    ua.AttributeIds.ValueRank,
    ua.AttributeIds.IsAbstract,
)
_TEXTS = 6450
"""EnumStrings of DeviceHealthEnumeration, which asyncua makes by itself from a file."""


def test_the_file_is_what_the_description_says():
    assert FILE.read_text(encoding="utf-8") == nodeset(), "make it anew: python -m plugin.publish.nodeset"


async def test_the_file_loads_into_a_plain_server_and_is_what_ours_builds(tmp_path: Path):
    di = tmp_path / "di.xml"
    text = nodeset(DI_TYPES, DI, ())
    di.write_text(text.replace('Version="1.0.0"', 'Version="1.04.0"'), encoding="utf-8")
    async with _bare() as plain, _bare() as ours:
        for file in (di, FILE):
            await plain.import_xml(str(file))
        namespaces = {uri: await ours.register_namespace(uri) for uri in (DI, OURS)}
        add_types(Tree(ours.iserver, namespaces, datetime.now(UTC)))
        loaded, built = await _described(plain), await _described(ours)
    texts = {name for name in loaded if "Types." in name}
    assert texts == {name for name in built if "Types." in name}, "asyncua adds nodes with numbers, about the file"
    assert len([name for name in built if OURS in name]) > 80
    for name, facts in built.items():
        assert loaded[name] == facts, name


@contextlib.asynccontextmanager
async def _bare() -> AsyncIterator[Server]:
    server = Server()
    await server.init()
    try:
        yield server
    finally:
        await server.stop()


async def _described(server: Server) -> dict[str, dict[str, Any]]:
    """All nodes of DI's namespace and ours: attributes and references, by namespace URI."""
    uris = await server.get_namespace_array()
    space = server.iserver.aspace
    return {
        _name(node, uris): _facts(space[node], uris)
        for node in list(space.keys())
        if uris[node.NamespaceIndex] in (DI, OURS) and node.Identifier != _TEXTS
    }


def _facts(data: Any, uris: list[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "references": {_reference(r, uris) for r in data.references if r.NodeId.Identifier != _TEXTS}
    }
    for attribute in _COMPARED:
        held = data.attributes.get(attribute)
        fact = held.value.Value.Value if held is not None else None
        if isinstance(fact, ua.NodeId | ua.QualifiedName):
            fact = _name(fact, uris)
        facts[attribute.name] = getattr(fact, "Text", fact) or None
    return facts


def _reference(reference: Any, uris: list[str]) -> tuple[str, bool, str]:
    return _name(reference.ReferenceTypeId, uris), reference.IsForward, _name(reference.NodeId, uris)


def _name(node: Any, uris: list[str]) -> str:
    return f"{uris[node.NamespaceIndex]} {node.Name if isinstance(node, ua.QualifiedName) else node.Identifier}"


@pytest.mark.parametrize("made", [*DI_TYPES, *OUR_TYPES], ids=lambda made: made.name.text)
def test_no_type_says_a_thing_twice(made):
    names = [member.name for member in made.members]
    assert len(names) == len(set(names))
