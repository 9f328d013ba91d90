"""What a notification says, as a row and as fields by their path in the type (OPC 10000-9, 5.5 to 5.8)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from plugin.domain import Alarm, Event
from plugin.infer.alarms.condition import Condition, ConditionType

SOURCE = "foretag"


@dataclass(frozen=True, slots=True)
class Notice:
    """One notification: the condition, and how its current state or a branch stands now."""

    condition: Condition
    alarm: Alarm


def event(notice: Notice, received: datetime) -> Event:
    """The row that tells of it; its fields are those that a client selects, so that history can give them again."""
    alarm, condition = notice.alarm, notice.condition
    return Event(
        id=alarm.event_id, time=alarm.time, received=received, source=SOURCE, source_name=alarm.source,
        type=alarm.condition_type, severity=alarm.severity, message=alarm.message, asset=condition.asset,
        condition=alarm.id, fields=_plain(facts(condition, alarm)),
    )  # fmt: skip


def facts(condition: Condition, alarm: Alarm) -> dict[str, Any]:
    """Values by browse path, such as ``ActiveState/Id``; times as datetimes, statuses and levels as numbers."""
    return {
        "ConditionName": condition.name, "ConditionClassName": alarm.condition_class, "BranchId": alarm.branch,
        "Retain": alarm.retain, "EnabledState/Id": alarm.enabled, "Quality": alarm.quality,
        "LastSeverity": alarm.last_severity, "Comment": alarm.comment, "ClientUserId": alarm.user,
        "AckedState/Id": alarm.acknowledged, "ConfirmedState/Id": alarm.confirmed,
        "ActiveState/Id": alarm.active, "ActiveState/TransitionTime": alarm.active_time,
        "SuppressedState/Id": alarm.suppressed or alarm.gathered, "SuppressedOrShelved": alarm.put_aside,
        "ShelvingState/CurrentState": shelved_state(alarm), "ShelvingState/UnshelveTime": alarm.shelved_until,
        "InputNode": condition.input, "ReAlarmRepeatCount": alarm.repeats,
    } | _limits(condition, alarm)  # fmt: skip


def shelved_state(alarm: Alarm) -> str:
    """BrowseName of the state of ShelvingState."""
    if alarm.shelved_until is None:
        return "Unshelved"
    return "OneShotShelved" if alarm.one_shot else "TimedShelved"


def limit_state(condition: Condition, alarm: Alarm) -> str:
    """BrowseName of the state of LimitState; empty: it is beyond none."""
    names = condition.level_names
    return names[min(alarm.level, len(names)) - 1] if names and alarm.level else ""


def _limits(condition: Condition, alarm: Alarm) -> dict[str, Any]:
    if condition.type not in {ConditionType.LEVEL, ConditionType.DEVIATION}:
        return {}
    named = {f"{name}Limit": limit for name, limit in zip(condition.level_names, condition.limits, strict=False)}
    return {"LimitState/CurrentState": limit_state(condition, alarm), **named}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
