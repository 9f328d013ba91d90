"""The nodes of conditions: below what they are about, with what an HMI binds to and the methods of their types.

Of what a type has, what is mandatory is there, and what changes; the rest is in its events.
"""

from collections.abc import Mapping
from datetime import datetime

from asyncua import ua

from plugin.infer.alarms.condition import Condition, ConditionType
from plugin.publish.cells import Cell
from plugin.publish.conditions.notification import OF_STATES, type_of
from plugin.publish.conditions.shelf import UnshelveTime
from plugin.publish.tree import Tree
from plugin.publish.types import BOOLEAN, DURATION, OURS, PROPERTY, STANDARD, STRING, TEXT, UTC_TIME, Member, Name, Ref

_ID = ua.ObjectIds
_TWO_STATES, _CONDITION_VALUE = Ref(_ID.TwoStateVariableType), Ref(_ID.ConditionVariableType)
_STATE = Ref(_ID.FiniteStateVariableType)
_UINT16, _STATUS, _BYTES = Ref(_ID.UInt16), Ref(_ID.StatusCode), Ref(_ID.ByteString)
_NODE, _DOUBLE = Ref(_ID.NodeId), Ref(_ID.Double)

_MEMBERS: tuple[tuple[str, Ref, Ref], ...] = (
    ("EventId", PROPERTY, _BYTES),
    ("EventType", PROPERTY, _NODE),
    ("SourceNode", PROPERTY, _NODE),
    ("SourceName", PROPERTY, STRING),
    ("Time", PROPERTY, UTC_TIME),
    ("ReceiveTime", PROPERTY, UTC_TIME),
    ("Message", PROPERTY, TEXT),
    ("Severity", PROPERTY, _UINT16),
    ("ConditionClassId", PROPERTY, _NODE),
    ("ConditionClassName", PROPERTY, TEXT),
    ("ConditionName", PROPERTY, STRING),
    ("BranchId", PROPERTY, _NODE),
    ("Retain", PROPERTY, BOOLEAN),
    ("InputNode", PROPERTY, _NODE),
    ("ClientUserId", PROPERTY, STRING),
    ("SuppressedOrShelved", PROPERTY, BOOLEAN),
    ("MaxTimeShelved", PROPERTY, DURATION),
    *(
        part
        for name, data_type in (("Quality", _STATUS), ("LastSeverity", _UINT16), ("Comment", TEXT))
        for part in ((name, _CONDITION_VALUE, data_type), (f"{name}/SourceTimestamp", PROPERTY, UTC_TIME))
    ),
    *(
        part
        for state in ("EnabledState", "ActiveState", "AckedState", "ConfirmedState", "SuppressedState")
        for part in ((state, _TWO_STATES, TEXT), (f"{state}/Id", PROPERTY, BOOLEAN))
    ),
    ("ShelvingState/CurrentState", _STATE, TEXT),
    ("ShelvingState/CurrentState/Id", PROPERTY, _NODE),
)
_LIMIT_MEMBERS: tuple[tuple[str, Ref, Ref], ...] = (
    ("LimitState/CurrentState", _STATE, TEXT),
    ("LimitState/CurrentState/Id", PROPERTY, _NODE),
)
_TYPE_MEMBERS: Mapping[ConditionType, tuple[tuple[str, Ref, Ref], ...]] = {
    ConditionType.DEVIATION: (("SetpointNode", PROPERTY, _NODE),),
    **dict.fromkeys(OF_STATES, (("NormalState", PROPERTY, _NODE),)),
}
_METHODS = (
    _ID.ConditionType_Enable, _ID.ConditionType_Disable, _ID.ConditionType_AddComment,
    _ID.AcknowledgeableConditionType_Acknowledge, _ID.AcknowledgeableConditionType_Confirm,
    _ID.AlarmConditionType_Suppress, _ID.AlarmConditionType_Unsuppress,
)  # fmt: skip
_SHELF_METHODS = (
    _ID.ShelvedStateMachineType_TimedShelve, _ID.ShelvedStateMachineType_OneShotShelve,
    _ID.ShelvedStateMachineType_Unshelve,
)  # fmt: skip
VERDICT = Ref("Foretag.Methods.Verdict", OURS)
_UNSHELVE_TIME = Member(Name("UnshelveTime", STANDARD), DURATION)


class Instance:
    """One condition's node."""

    def __init__(self, tree: Tree, condition: Condition, source: ua.NodeId) -> None:
        """``source``: the node that it is about, which is there."""
        self.condition = condition
        kind = type_of(condition)
        self.node = tree.component(condition.id, Name(condition.name, OURS), source, kind)
        tree.refer(source, _ID.HasCondition, self.node)
        shelf = tree.component(f"{condition.id}.ShelvingState", _standard("ShelvingState"), self.node, _SHELF)
        for method in _METHODS:
            tree.link(self.node, _ID.HasComponent, Ref(method))
        tree.link(self.node, _ID.HasComponent, VERDICT)
        self._left = UnshelveTime(tree.begun)
        tree.show_member(self._left, f"{condition.id}.ShelvingState", _UNSHELVE_TIME)
        for method in _SHELF_METHODS:
            tree.link(shelf, _ID.HasComponent, Ref(method))
        members = [*_MEMBERS, *_TYPE_MEMBERS.get(condition.type, ())]
        if condition.level_names:
            tree.component(f"{condition.id}.LimitState", _standard("LimitState"), self.node, _LIMIT)
            members += _LIMIT_MEMBERS
            members += [(f"{name}Limit", PROPERTY, _DOUBLE) for name, _ in _limits(condition)]
        self._cells = {path: _member(tree, condition.id, path, kind, of) for path, kind, of in members}

    def show(self, fields: Mapping[str, ua.Variant], shelved_until: datetime | None, now: datetime) -> None:
        """As a notification of the current state says it."""
        self._left.shelve(shelved_until, now)
        for path, cell in self._cells.items():
            variant = fields.get(path)
            if variant is not None:
                cell.note(variant.Value, now, now)
            else:  # what is beyond no limit is in none of the states of a limit (OPC 10000-5, B.4.5)
                cell.note(None, now, now, int(ua.StatusCodes.BadStateNotActive))

    def tell_left(self) -> None:
        """How long it is still shelved, to who listens to that."""
        self._left.tell_left()


_SHELF, _LIMIT = Ref(_ID.ShelvedStateMachineType), Ref(_ID.ExclusiveLimitStateMachineType)


def _standard(text: str) -> Name:
    return Name(text, STANDARD)


def _limits(condition: Condition) -> list[tuple[str, float]]:
    return list(zip(condition.level_names, condition.limits, strict=False))


def _member(tree: Tree, owner: str, path: str, kind: Ref, data_type: Ref) -> Cell:
    above, _, name = path.rpartition("/")
    parent = f"{owner}.{above.replace('/', '.')}" if above else owner
    return tree.member(parent, Member(_standard(name), data_type, kind))
