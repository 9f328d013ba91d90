"""A notification of a condition: its fields as they go over the wire, by path (OPC 10000-9, 5.5 to 5.8)."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from asyncua import ua

from plugin.domain import Alarm
from plugin.infer.alarms.condition import Condition, ConditionType
from plugin.infer.alarms.told import Notice, limit_state, shelved_state
from plugin.publish.conditions.shelf import time_left
from plugin.publish.event_filter import CONDITION_ID, Occurrence
from plugin.publish.tree import Tree
from plugin.publish.types import OURS, Ref, event_type

_T = ua.VariantType
_ID = ua.ObjectIds
_SHELVED = {
    "Unshelved": _ID.ShelvedStateMachineType_Unshelved,
    "TimedShelved": _ID.ShelvedStateMachineType_TimedShelved,
    "OneShotShelved": _ID.ShelvedStateMachineType_OneShotShelved,
}
_LIMITS = {
    "High": _ID.ExclusiveLimitStateMachineType_High,
    "HighHigh": _ID.ExclusiveLimitStateMachineType_HighHigh,
    "Low": _ID.ExclusiveLimitStateMachineType_Low,
    "LowLow": _ID.ExclusiveLimitStateMachineType_LowLow,
}
_NOWHERE = ua.NodeId()
OF_STATES = ConditionType.OFF_NORMAL, ConditionType.SYSTEM, ConditionType.SOURCE_LOST, ConditionType.INSTRUMENT
"""Types with a NormalState (OPC 10000-9, 5.8.23)."""


def type_of(condition: Condition) -> Ref:
    """The node of its type."""
    return event_type(condition.type)


def fields(tree: Tree, notice: Notice, source: ua.NodeId, now: datetime) -> dict[str, ua.Variant]:
    """By path; what a condition does not have is not there. ``source``: the node that it is about."""
    condition, alarm = notice.condition, notice.alarm
    found = dict(_of_event(tree, condition, alarm, source, now))
    for path, fact in _states(alarm):
        found[path] = ua.Variant(ua.LocalizedText(fact[0]), _T.LocalizedText)
        found[f"{path}/Id"] = ua.Variant(fact[1], _T.Boolean)
    found |= _of_condition(tree, condition, alarm)
    found |= _of_shelf(condition, alarm, now)
    found |= _of_limits(tree, condition, alarm)
    if alarm.active_time is not None:
        found["ActiveState/TransitionTime"] = ua.Variant(alarm.active_time, _T.DateTime)
    return found


def occurrence(
    tree: Tree, notice: Notice, source: ua.NodeId, emitters: tuple[ua.NodeId, ...], types: frozenset[ua.NodeId]
) -> Occurrence:
    """Ready to be told."""
    return Occurrence(fields(tree, notice, source, datetime.now(UTC)), types, emitters)


def _of_event(
    tree: Tree, condition: Condition, alarm: Alarm, source: ua.NodeId, now: datetime
) -> Iterator[tuple[str, ua.Variant]]:
    yield "EventId", ua.Variant(bytes.fromhex(alarm.event_id), _T.ByteString)
    yield "EventType", ua.Variant(tree.ref(type_of(condition)), _T.NodeId)
    yield "SourceNode", ua.Variant(source, _T.NodeId)
    yield "SourceName", ua.Variant(condition.source, _T.String)
    yield "Time", ua.Variant(alarm.time, _T.DateTime)
    yield "ReceiveTime", ua.Variant(max(now, alarm.time), _T.DateTime)
    yield "Message", ua.Variant(ua.LocalizedText(alarm.message), _T.LocalizedText)
    yield "Severity", ua.Variant(alarm.severity, _T.UInt16)


def _states(alarm: Alarm) -> Iterator[tuple[str, tuple[str, bool]]]:
    """Two-state variables: text and Id."""
    suppressed = alarm.suppressed or alarm.gathered
    yield "EnabledState", ("Enabled" if alarm.enabled else "Disabled", alarm.enabled)
    yield "ActiveState", ("Active" if alarm.active else "Inactive", alarm.active)
    yield "AckedState", ("Acknowledged" if alarm.acknowledged else "Unacknowledged", alarm.acknowledged)
    yield "ConfirmedState", ("Confirmed" if alarm.confirmed else "Unconfirmed", alarm.confirmed)
    yield "SuppressedState", ("Suppressed" if suppressed else "Unsuppressed", suppressed)


def _of_condition(tree: Tree, condition: Condition, alarm: Alarm) -> dict[str, ua.Variant]:
    time = ua.Variant(alarm.time, _T.DateTime)
    branch = tree.id(f"{condition.id}.Branch{alarm.branch}") if alarm.branch else _NOWHERE
    classed = tree.ref(Ref(getattr(_ID, alarm.condition_class)))
    return {
        CONDITION_ID: ua.Variant(tree.id(condition.id), _T.NodeId),
        "ConditionClassId": ua.Variant(classed, _T.NodeId),
        "ConditionClassName": ua.Variant(ua.LocalizedText(alarm.condition_class.removesuffix("ConditionClassType"))),
        "ConditionName": ua.Variant(condition.name, _T.String),
        "BranchId": ua.Variant(branch, _T.NodeId),
        "Retain": ua.Variant(alarm.retain, _T.Boolean),
        "Quality": ua.Variant(ua.StatusCode(ua.UInt32(alarm.quality)), _T.StatusCode),
        "Quality/SourceTimestamp": time,
        "LastSeverity": ua.Variant(alarm.last_severity or alarm.severity, _T.UInt16),
        "LastSeverity/SourceTimestamp": time,
        "Comment": ua.Variant(ua.LocalizedText(alarm.comment), _T.LocalizedText),
        "Comment/SourceTimestamp": time,
        "ClientUserId": ua.Variant(alarm.user, _T.String),
        "InputNode": ua.Variant(tree.id(condition.input) if condition.input else _NOWHERE, _T.NodeId),
        "SuppressedOrShelved": ua.Variant(alarm.put_aside, _T.Boolean),
        "ReAlarmRepeatCount": ua.Variant(alarm.repeats, _T.Int16),
    }


def _of_shelf(condition: Condition, alarm: Alarm, now: datetime) -> dict[str, ua.Variant]:
    name = shelved_state(alarm)
    longest = condition.rules.longest_shelf.total_seconds() * 1000.0
    return {
        "ShelvingState/CurrentState": ua.Variant(ua.LocalizedText(name), _T.LocalizedText),
        "ShelvingState/CurrentState/Id": ua.Variant(ua.NodeId(ua.Int32(_SHELVED[name])), _T.NodeId),
        "ShelvingState/UnshelveTime": ua.Variant(time_left(alarm.shelved_until, now), _T.Double),
        "MaxTimeShelved": ua.Variant(longest, _T.Double),
    }


def _of_limits(tree: Tree, condition: Condition, alarm: Alarm) -> dict[str, ua.Variant]:
    if condition.type in OF_STATES:
        return {"NormalState": ua.Variant(_NOWHERE, _T.NodeId)}
    found: dict[str, Any] = {
        f"{name}Limit": ua.Variant(limit, _T.Double)
        for name, limit in zip(condition.level_names, condition.limits, strict=False)
    }
    name = limit_state(condition, alarm)
    if name:
        found["LimitState/CurrentState"] = ua.Variant(ua.LocalizedText(name), _T.LocalizedText)
        found["LimitState/CurrentState/Id"] = ua.Variant(ua.NodeId(ua.Int32(_LIMITS[name])), _T.NodeId)
    if condition.type is ConditionType.DEVIATION:
        found["SetpointNode"] = ua.Variant(tree.ref(Ref(condition.input, OURS)), _T.NodeId)
    return found
