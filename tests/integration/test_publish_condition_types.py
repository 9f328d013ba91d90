"""What a notification says is what its type has (OPC 10000-9, 5): a client selects fields by the paths of the type."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.server.address_space import AddressSpace

from plugin.diagnostics import Diagnostics
from plugin.domain import Meaning, OutputTag
from plugin.historian.memory import MemoryStore
from plugin.infer.alarms import inputs
from plugin.infer.alarms.catalogue import conditions
from plugin.infer.alarms.condition import ConditionType
from plugin.infer.alarms.config import AlarmsConfig
from plugin.infer.alarms.room import Room
from plugin.infer.alarms.state import State
from plugin.infer.alarms.told import Notice
from plugin.publish.conditions.notification import fields, type_of
from plugin.publish.config import PublishConfig
from plugin.publish.event_filter import CONDITION_ID
from plugin.publish.server import OpcUaSink
from plugin.publish.tree import Tree

pytestmark = pytest.mark.asyncio(loop_scope="module")

_ID = ua.ObjectIds
_OUTPUTS = (
    OutputTag("rul", "pump", "rul", "h", 0.0, 100.0, "", Meaning.LIFETIME, warnings=(30.0, 10.0)),
    OutputTag("anomaly", "pump", "score", "", 0.0, 10.0, "", Meaning.SCORE),
    OutputTag("anomaly", "pump", "flag", "", 0.0, 1.0, "", Meaning.FLAG),
    OutputTag("fault", "pump", "class", "", 0.0, 1.0, "", Meaning.STATE, states=("normal", "cavitation")),
    OutputTag("nox", "pump", "nox", "mg/m3", 0.0, 400.0, ""),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[OpcUaSink, Room]]:
    folder: Path = tmp_path_factory.mktemp("types")
    alarms, diagnostics = AlarmsConfig(), Diagnostics()
    room = Room(alarms, MemoryStore(), diagnostics)
    await room.furnish(conditions(alarms, _OUTPUTS, ["plant"], ["pump"]))
    config = PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", security=("None",))
    sink = OpcUaSink(config, folder, diagnostics, room=room)
    async with sink.open(_OUTPUTS):
        yield sink, room


def _types(space: AddressSpace, node: ua.NodeId) -> Iterator[ua.NodeId]:
    """A type, and what it derives from."""
    yield node
    for each in space[node].references:
        if not each.IsForward and each.ReferenceTypeId.Identifier == _ID.HasSubtype:
            yield from _types(space, each.NodeId)


def _child(space: AddressSpace, node: ua.NodeId, name: str) -> ua.NodeId | None:
    """Of a declaration, or of its type."""
    typed = (each for each in space[node].references if each.ReferenceTypeId.Identifier == _ID.HasTypeDefinition)
    kinds = [each.NodeId for each in typed]
    for owner in (node, *(above for kind in kinds for above in _types(space, kind))):
        for each in space[owner].references:
            if each.IsForward and each.BrowseName.Name == name and not each.BrowseName.NamespaceIndex:
                found: ua.NodeId = each.NodeId
                return found
    return None


def _declared(space: AddressSpace, kind: ua.NodeId, path: str) -> bool:
    for above in _types(space, kind):
        node: ua.NodeId | None = above
        for step in path.split("/"):
            node = _child(space, node, step) if node is not None else None
        if node is not None:
            return True
    return False


def _active(state: State) -> State:
    now = datetime.now(UTC)
    begun = inputs.see(state, inputs.Seen(1, "wrong"), now).state
    return inputs.see(begun, inputs.Seen(1, "wrong"), now + state.condition.rules.on_delay).state


@pytest.mark.parametrize("kind", list(ConditionType))
async def test_each_field_is_one_that_the_type_declares(served, kind):
    sink, room = served
    tree: Tree = sink._tree
    space = sink._server.iserver.aspace
    found = [state for state in room.states.values() if state.condition.type is kind]
    assert found
    for state in map(_active, found):
        assert state.current.active
        said = fields(tree, Notice(state.condition, state.current), ua.NodeId(), datetime.now(UTC))
        type_ = tree.ref(type_of(state.condition))
        assert [path for path in said if path != CONDITION_ID and not _declared(space, type_, path)] == []


@pytest.mark.parametrize("kind", list(ConditionType))
async def test_each_node_of_a_condition_is_one_that_its_type_declares(served, kind):
    sink, room = served
    space = sink._server.iserver.aspace
    for state in room.states.values():
        if state.condition.type is kind:
            type_ = sink._tree.ref(type_of(state.condition))
            node = sink._tree.id(state.condition.id)
            children = [
                each.BrowseName.Name
                for each in space[node].references
                if each.IsForward and each.ReferenceTypeId.Identifier in {_ID.HasComponent, _ID.HasProperty}
            ]
            assert [name for name in children if name != "Verdict" and not _declared(space, type_, name)] == []


def _mandatory(space: AddressSpace, node: ua.NodeId, prefix: str = "") -> Iterator[str]:
    """Paths of the variables and objects that an instance must have."""
    for each in space[node].references:
        owned = each.ReferenceTypeId.Identifier in {_ID.HasComponent, _ID.HasProperty}
        if not (each.IsForward and owned) or each.NodeClass == ua.NodeClass.Method:
            continue
        rules = [r.NodeId.Identifier for r in space[each.NodeId].references
                 if r.ReferenceTypeId.Identifier == _ID.HasModellingRule]  # fmt: skip
        if _ID.ModellingRule_Mandatory in rules:
            yield f"{prefix}{each.BrowseName.Name}"
            yield from _mandatory(space, each.NodeId, f"{prefix}{each.BrowseName.Name}/")


_MACHINES = {"ShelvingState": _ID.ShelvedStateMachineType, "LimitState": _ID.ExclusiveLimitStateMachineType}
"""Optional parts, which have to be whole where they are."""


@pytest.mark.parametrize("kind", list(ConditionType))
async def test_what_a_type_calls_mandatory_is_there(served, kind):
    sink, room = served
    space = sink._server.iserver.aspace
    for state in room.states.values():
        if state.condition.type is kind:
            type_ = sink._tree.ref(type_of(state.condition))
            wanted = {path for above in _types(space, type_) for path in _mandatory(space, above)}
            for part, machine in _MACHINES.items():
                if sink._tree.has(f"{state.condition.id}.{part}"):
                    above = _types(space, ua.NodeId(ua.Int32(machine)))
                    wanted |= {path for each in above for path in _mandatory(space, each, f"{part}/")}
            ids = {path: sink._tree.id(f"{state.condition.id}.{path.replace('/', '.')}") for path in wanted}
            assert [path for path, node in ids.items() if node not in space] == []
