"""The standard's nodes as our server makes them are those that asyncua makes."""

from typing import Any

from asyncua import ua
from asyncua.server.address_space import AddressSpace, NodeData, NodeManagementService
from asyncua.server.standard_address_space.standard_address_space import fill_address_space

from plugin.diagnostics import Diagnostics
from plugin.publish.asyncua_server import PlantServer
from plugin.publish.config import PublishConfig
from plugin.publish.people import People
from plugin.publish.standard_nodes import fill


def facts(node: NodeData) -> dict[ua.AttributeIds, ua.DataValue | None]:
    """Its attributes, as a client reads them."""
    return {attribute: held.value for attribute, held in node.attributes.items()}


def references(node: NodeData) -> list[tuple[Any, ...]]:
    """In some order: the standard asks for none."""
    found = ((r.ReferenceTypeId, r.NodeId, r.IsForward, r.NodeClass, r.BrowseName, r.DisplayName, r.TypeDefinition)
             for r in node.references)  # fmt: skip
    return sorted(found, key=lambda reference: (reference[0].Identifier, reference[1].Identifier))


def test_each_node_has_the_attributes_and_references_that_asyncua_gives_it():
    ours, theirs = AddressSpace(), AddressSpace()
    fill(ours)
    fill_address_space(NodeManagementService(theirs))
    assert ours.keys() == theirs.keys()
    assert len(ours.keys()) > 6000
    for node in theirs.keys():  # noqa: SIM118 - it is no dict
        assert facts(ours[node]) == facts(theirs[node]), node
        assert references(ours[node]) == references(theirs[node]), node


async def test_a_server_that_starts_changes_nothing_that_nodes_share():
    fresh = AddressSpace()
    fill(fresh)
    server = PlantServer(People(PublishConfig(security=("None",)), Diagnostics()))
    server.set_endpoint("opc.tcp://127.0.0.1:0/")
    await server.init()
    await server.start()
    try:
        for node in fresh.keys():  # noqa: SIM118
            now, before = facts(server.iserver.aspace[node]), facts(fresh[node])
            assert now | {ua.AttributeIds.Value: None} == before | {ua.AttributeIds.Value: None}, node
    finally:
        await server.stop()
