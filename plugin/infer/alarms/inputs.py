"""What becomes of a condition by what is seen, and by time alone. Pure functions of (state, input, time)."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from plugin.domain import Alarm, Status, quality
from plugin.infer.alarms.state import Pending, State, Step, event_id, told, with_branch


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found out about a condition at one instant."""

    level: int
    """0: all is well; 1, 2: beyond the first, the second limit."""
    message: str = ""
    """With cause and advice, for when it becomes active or worse; empty: as it was."""
    quality: int = Status.GOOD
    model: str = ""
    version: int = 0
    run: int = 0
    as_of: datetime | None = None


def see(state: State, seen: Seen, now: datetime) -> Step:
    """Take what was found. A disabled condition takes nothing (OPC 10000-9, 4.4)."""
    current = state.current
    if not current.enabled:
        return Step(state)
    since = _since(state, seen.level, now)
    if seen.level != current.level and now - since >= _delay(state, seen.level):  # one notification, not one for each
        return _take(replace(state, current=replace(current, quality=seen.quality), pending=None), seen, now)
    step = _quality(state, seen.quality, now)
    pending = None if seen.level == current.level else Pending(seen.level, since)
    return replace(step, state=replace(step.state, pending=pending))


def pass_time(state: State, now: datetime) -> Step:
    """What is due by now: a shelf that ends, an alarm that is raised again. Delays end with the next :func:`see`."""
    current = state.current
    if current.shelved_until is not None and current.shelved_until <= now:
        current = told(current, now, shelved_until=None, one_shot=False)
        return Step(replace(state, current=current), (current,))
    due = _raised_again(state)
    if due is not None and due <= now:
        message = f"Still active: {current.message.removeprefix('Still active: ')}"
        again = {"acknowledged": False, "confirmed": True, "active_time": now, "repeats": current.repeats + 1}
        current = told(current, now, message=message, **again)
        return Step(replace(state, current=current), (current,), raised=True)
    return Step(state)


def due(state: State) -> datetime | None:
    """When :func:`pass_time` has something to do; None: never, as things are."""
    times = [time for time in (state.current.shelved_until, _raised_again(state)) if time is not None]
    return min(times, default=None)


def gather(state: State, gathered: bool, now: datetime) -> Step:
    """Into its asset's case, or out of it."""
    if state.current.gathered == gathered or not state.current.enabled:
        return Step(state)
    current = told(state.current, now, gathered=gathered)
    return Step(replace(state, current=current), (current,))


def retire(state: State, now: datetime) -> Step:
    """The condition is configured no more: nobody is shown it any longer."""
    calm = {"active": False, "level": 0, "acknowledged": True, "confirmed": True, "message": "No longer configured"}
    gone = [told(alarm, now, **calm) for alarm in (*state.branches, state.current) if alarm.retain]
    return Step(replace(state, current=gone[-1] if gone else state.current, branches=(), pending=None), tuple(gone))


def _since(state: State, level: int, now: datetime) -> datetime:
    """A delay goes on while the level stays on the same side of the present one."""
    pending, at = state.pending, state.current.level
    same_side = pending is not None and (pending.level > at) == (level > at)
    return min(pending.since, now) if pending is not None and same_side else now


def _delay(state: State, level: int) -> timedelta:
    rules = state.condition.rules
    return rules.on_delay if level > state.current.level else rules.off_delay


def _raised_again(state: State) -> datetime | None:
    current, period = state.current, state.condition.rules.realarm
    quiet = not current.active or not current.enabled or current.put_aside or current.active_time is None
    return None if quiet or not period or current.active_time is None else current.active_time + period


def _quality(state: State, status: int, now: datetime) -> Step:
    """A change between Good, Uncertain and Bad is told while there is something to show (OPC 10000-9, 5.5.2)."""
    current = state.current
    if current.retain and quality(current.quality) != quality(status):
        current = told(current, now, quality=status)
        return Step(replace(state, current=current), (current,))
    return Step(replace(state, current=replace(current, quality=status)))


def _take(state: State, seen: Seen, now: datetime) -> Step:
    before = state.current
    if seen.level == 0:
        return _return(state, seen, now)
    if seen.level < before.level:  # less bad, and known: the severity stays, or who filters by it sees no end
        current = told(before, now, level=seen.level, message=seen.message or before.message)
        return Step(replace(state, current=current), (current,))
    return _raise(state, seen, now)


def _return(state: State, seen: Seen, now: datetime) -> Step:
    """The severity stays as high as it was; a one-shot shelf ends here (OPC 10000-9, 5.8.17)."""
    before = state.current
    unshelved: dict[str, Any] = {"shelved_until": None, "one_shot": False} if before.one_shot else {}
    message = f"Returned to normal: {state.condition.name}"
    ended: dict[str, Any] = {"active": False, "level": 0, "returned_time": now, "repeats": 0, "message": message}
    current = told(before, now, **ended, **unshelved)
    return Step(replace(state, current=current), (current,))


def _raise(state: State, seen: Seen, now: datetime) -> Step:
    condition, before = state.condition, state.current
    step = _branch_off(state, now) if not before.active and before.retain else Step(state)
    worst = condition.severity(seen.level)
    severity = max(worst, before.severity) if before.active else worst
    occurrence: dict[str, Any] = {"model": seen.model, "version": seen.version, "run": seen.run, "as_of": seen.as_of}
    if not before.active:
        occurrence |= {"active_time": now, "comment": "", "user": ""}
    current = told(
        before, now, active=True, level=seen.level, acknowledged=False, confirmed=True, severity=severity,
        last_severity=before.severity, message=seen.message or condition.name, quality=seen.quality, **occurrence,
    )  # fmt: skip
    return Step(replace(step.state, current=current), (*step.told, current), raised=not current.put_aside)


def _branch_off(state: State, now: datetime) -> Step:
    """What nobody acknowledged yet stays to be acknowledged, beside what is new (OPC 10000-9, annex B.1.3)."""
    rules, taken = state.condition.rules, {each.branch for each in state.branches}
    free = next((str(n) for n in range(1, rules.branches + 1) if str(n) not in taken), None)
    if free is None:
        return Step(state)
    named = replace(state.current, branch=free)
    branch: Alarm = replace(named, time=now, event_id=event_id(named, now))
    return Step(with_branch(state, branch), (branch,))
