"""How one condition stands, and what a change of it gives. Pure: no clock, no identity but what follows from before."""

from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b
from typing import Any

from plugin.domain import Alarm
from plugin.infer.alarms.condition import Condition


@dataclass(frozen=True, slots=True)
class Pending:
    """A level that is not taken yet: its delay runs."""

    level: int
    since: datetime


@dataclass(frozen=True, slots=True)
class State:
    """A condition's current state and its branches: earlier states that somebody has still to look at."""

    condition: Condition
    current: Alarm
    branches: tuple[Alarm, ...] = ()
    pending: Pending | None = None

    def find(self, event_id: str) -> Alarm | None:
        """The current state or branch whose last notification it is."""
        return next((alarm for alarm in (self.current, *self.branches) if alarm.event_id == event_id), None)

    @property
    def retained(self) -> tuple[Alarm, ...]:
        """What a client that refreshes is shown; branches first, for they are older."""
        return tuple(alarm for alarm in (*self.branches, self.current) if alarm.retain)


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from an input or an act: the next state, and each notification in order."""

    state: State
    told: tuple[Alarm, ...] = ()
    """To be stored, then published; nothing: nothing has changed that anybody has to know."""
    raised: bool = False
    """It calls for an operator: it became active, or worse, or was raised again."""


def first(condition: Condition, now: datetime) -> State:
    """Of a condition that has never been active."""
    alarm = Alarm(
        id=condition.id, event_id="", source=condition.source, condition_type=condition.type,
        condition_class=condition.classed, severity=condition.severity(1), time=now,
        message=f"{condition.name}: normal",
    )  # fmt: skip
    return State(condition, replace(alarm, event_id=event_id(alarm, now)))


def event_id(alarm: Alarm, now: datetime) -> str:
    """Of the next notification (OPC 10000-5, 6.4.2): 32 hexadecimal digits that no other notification has."""
    parts = (alarm.id, alarm.branch, alarm.event_id, now.isoformat())
    return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def told(alarm: Alarm, now: datetime, **changes: Any) -> Alarm:
    """The alarm after a change that is a notification: with an id, a time and Retain of its own."""
    changed = replace(alarm, **changes, time=now, event_id=event_id(alarm, now))
    return replace(changed, retain=worth_showing(changed))


def worth_showing(alarm: Alarm) -> bool:
    """Retain (OPC 10000-9, 5.5.2): there is something that an operator has to know or do."""
    waits = not (alarm.acknowledged and alarm.confirmed)
    return alarm.enabled and (waits or (alarm.active and not alarm.branch))


def with_branch(state: State, branch: Alarm) -> State:
    """A branch in the place of its earlier self; one that needs nobody any more is gone."""
    others = tuple(each for each in state.branches if each.branch != branch.branch)
    return replace(state, branches=(*others, branch) if branch.retain else others)
