"""What an operator does to a condition. Pure: each act gives the next state, or raises :class:`Refused` and why.

OPC 10000-9, 5.5 to 5.8: the names of the refusals are those of its status codes.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from plugin.domain import Alarm
from plugin.infer.alarms.state import State, Step, told, with_branch


class Refusal(StrEnum):
    """Why an act can't be done; the value is the name of the status code."""

    UNKNOWN_EVENT = "BadEventIdUnknown"
    UNKNOWN_CONDITION = "BadNodeIdUnknown"
    DISABLED = "BadConditionDisabled"
    ALREADY_DISABLED = "BadConditionAlreadyDisabled"
    ALREADY_ENABLED = "BadConditionAlreadyEnabled"
    ALREADY_ACKNOWLEDGED = "BadConditionBranchAlreadyAcked"
    ALREADY_CONFIRMED = "BadConditionBranchAlreadyConfirmed"
    ALREADY_SHELVED = "BadConditionAlreadyShelved"
    NOT_SHELVED = "BadConditionNotShelved"
    SHELF_TIME = "BadShelvingTimeOutOfRange"
    ARGUMENT = "BadInvalidArgument"
    NOT_STORED = "BadResourceUnavailable"


class Refused(Exception):
    """Nothing has changed."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class By:
    """Who acts, when, and what they say about it; None: nothing, an earlier comment stays."""

    user: str
    now: datetime
    comment: str | None = None

    @property
    def words(self) -> dict[str, Any]:
        """What of it is kept in the alarm."""
        return {"user": self.user} | ({} if self.comment is None else {"comment": self.comment})


def acknowledge(state: State, event_id: str, by: By) -> Step:
    """Somebody has taken note of what that notification said."""
    alarm = _named(state, event_id)
    if alarm.acknowledged:
        raise Refused(Refusal.ALREADY_ACKNOWLEDGED)
    confirmed = not state.condition.rules.confirm
    known = told(alarm, by.now, acknowledged=True, confirmed=confirmed, acknowledged_time=by.now, **by.words)
    return _put(state, known)


def confirm(state: State, event_id: str, by: By) -> Step:
    """Something was done about it. Asked for after an acknowledgement alone, and where it is configured."""
    alarm = _named(state, event_id)
    if alarm.confirmed:
        raise Refused(Refusal.ALREADY_CONFIRMED)
    return _put(state, told(alarm, by.now, confirmed=True, **by.words))


def comment(state: State, event_id: str, by: By) -> Step:
    """Words alone."""
    return _put(state, told(_named(state, event_id), by.now, **by.words))


def enable(state: State, by: By) -> Step:
    """It begins anew; what is seen from now on counts."""
    if state.current.enabled:
        raise Refused(Refusal.ALREADY_ENABLED)
    return _put(state, told(state.current, by.now, enabled=True, **by.words))


def disable(state: State, by: By) -> Step:
    """Out of service: it is forgotten with all its branches, and nobody is shown it (OPC 10000-9, 5.5.2)."""
    if not state.current.enabled:
        raise Refused(Refusal.ALREADY_DISABLED)
    calm = {"acknowledged": True, "confirmed": True, "enabled": False}
    gone = [told(branch, by.now, **calm, **by.words) for branch in state.branches]
    current = told(state.current, by.now, active=False, level=0, repeats=0, **calm, **by.words)
    return Step(replace(state, current=current, branches=(), pending=None), (*gone, current))


def shelve(state: State, span: timedelta, by: By) -> Step:
    """Put aside for so long."""
    _demand_enabled(state)
    current = state.current
    if current.shelved_until is not None and not current.one_shot:
        raise Refused(Refusal.ALREADY_SHELVED)
    if not timedelta(0) < span <= state.condition.rules.longest_shelf:
        raise Refused(Refusal.SHELF_TIME)
    return _put(state, told(current, by.now, shelved_until=by.now + span, one_shot=False, **by.words))


def shelve_once(state: State, by: By) -> Step:
    """Put aside until it has returned to normal, but not for longer than a shelf may last."""
    _demand_enabled(state)
    if state.current.one_shot:
        raise Refused(Refusal.ALREADY_SHELVED)
    until = by.now + state.condition.rules.longest_shelf
    return _put(state, told(state.current, by.now, shelved_until=until, one_shot=True, **by.words))


def unshelve(state: State, by: By) -> Step:
    """Announced again."""
    _demand_enabled(state)
    if state.current.shelved_until is None:
        raise Refused(Refusal.NOT_SHELVED)
    return _put(state, told(state.current, by.now, shelved_until=None, one_shot=False, **by.words))


def suppress(state: State, suppressed: bool, by: By) -> Step:
    """Put aside by design, such as of a unit that stands still, or no longer; done twice it is once."""
    _demand_enabled(state)
    if state.current.suppressed == suppressed:
        return Step(state)
    return _put(state, told(state.current, by.now, suppressed=suppressed, **by.words))


def _named(state: State, event_id: str) -> Alarm:
    _demand_enabled(state)
    alarm = state.find(event_id)
    if alarm is None:
        raise Refused(Refusal.UNKNOWN_EVENT)
    return alarm


def _demand_enabled(state: State) -> None:
    if not state.current.enabled:
        raise Refused(Refusal.DISABLED)


def _put(state: State, alarm: Alarm) -> Step:
    state = with_branch(state, alarm) if alarm.branch else replace(state, current=alarm)
    return Step(state, (alarm,))
