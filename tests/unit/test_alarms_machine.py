"""The state machine of an alarm: whatever is seen and done, in whatever order, it keeps its promises (ISA-18.2)."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.domain import Alarm, AlarmState, Status
from plugin.infer.alarms import acts, inputs
from plugin.infer.alarms.acts import By, Refusal, Refused
from plugin.infer.alarms.condition import Condition, ConditionClass, ConditionType, Rules
from plugin.infer.alarms.inputs import Seen
from plugin.infer.alarms.state import State, Step, first

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
RUL = Condition(
    "engine.rul.rul.Alarm", "Remaining life short", ConditionType.LEVEL, ConditionClass.MAINTENANCE, "engine",
    (500, 800), (30.0, 10.0), low=True, dead_band=5.0,
)  # fmt: skip


class Desk:
    """One condition, the clock, and all that was told."""

    def __init__(self, **rules: Any) -> None:
        self.now = NOON
        self.state = first(replace(RUL, rules=Rules(**rules)), NOON)
        self.told: list[Alarm] = []
        self.raised = 0

    @property
    def current(self) -> Alarm:
        return self.state.current

    @property
    def by(self) -> By:
        return By("otto", self.now, "seen")

    def take(self, step: Step) -> None:
        self.state = step.state
        self.told += step.told
        self.raised += step.raised

    def see(self, level: int, after: float = 1.0, **more: Any) -> None:
        self.now += timedelta(seconds=after)
        self.take(inputs.see(self.state, Seen(level, **more), self.now))

    def do(self, act: Callable[..., Step], *arguments: Any) -> None:
        self.now += SECOND
        self.take(act(self.state, *arguments, self.by))

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.take(inputs.pass_time(self.state, self.now))


def test_it_is_raised_acknowledged_and_gone() -> None:
    desk = Desk()
    desk.see(1, message="life short", model="rul", version=3, run=9, as_of=NOON)
    assert (desk.current.state, desk.current.retain, desk.current.severity) == (AlarmState.UNACKNOWLEDGED, True, 500)
    assert (desk.current.message, desk.current.run, desk.current.as_of) == ("life short", 9, NOON)
    desk.do(acts.acknowledge, desk.current.event_id)
    assert (desk.current.state, desk.current.user, desk.current.comment) == (AlarmState.ACKNOWLEDGED, "otto", "seen")
    desk.see(0)
    assert (desk.current.state, desk.current.retain) == (AlarmState.NORMAL, False)
    assert len({alarm.event_id for alarm in desk.told}) == 3


def test_worse_asks_for_attention_anew_and_better_does_not_and_neither_lowers_the_severity() -> None:
    desk = Desk()
    desk.see(1)
    desk.do(acts.acknowledge, desk.current.event_id)
    desk.see(2)
    assert (desk.current.acknowledged, desk.current.severity, desk.current.last_severity) == (False, 800, 500)
    desk.do(acts.acknowledge, desk.current.event_id)
    desk.see(1)
    assert (desk.current.acknowledged, desk.current.severity, desk.current.level) == (True, 800, 1)
    desk.see(0)
    assert desk.current.severity == 800
    desk.see(1)
    assert desk.current.severity == 500
    assert desk.raised == 3


def test_what_nobody_acknowledged_becomes_a_branch_and_goes_when_somebody_has() -> None:
    desk = Desk(confirm=True)
    desk.see(1, message="the first")
    desk.see(0)
    desk.see(2, message="the second")
    (branch,) = desk.state.branches
    assert (branch.active, branch.acknowledged, branch.retain) == (False, False, True)
    assert (desk.current.active, desk.current.branch, desk.current.message) == (True, "", "the second")
    assert desk.state.retained == (branch, desk.current)
    desk.do(acts.acknowledge, branch.event_id)
    (branch,) = desk.state.branches
    assert (branch.acknowledged, branch.confirmed) == (True, False)
    assert not desk.current.acknowledged
    desk.do(acts.confirm, branch.event_id)
    assert desk.state.branches == ()
    assert (desk.told[-1].branch, desk.told[-1].retain) == ("1", False)


def test_there_are_no_more_branches_than_are_allowed() -> None:
    desk = Desk(branches=2)
    for _ in range(5):
        desk.see(1)
        desk.see(0)
    assert [branch.branch for branch in desk.state.branches] == ["1", "2"]
    assert not desk.current.acknowledged


def test_delays_hold_back_what_does_not_last() -> None:
    desk = Desk(on_delay=10 * SECOND, off_delay=5 * SECOND)
    desk.see(1)
    desk.see(1, after=9)
    desk.see(0)
    desk.see(2)
    assert desk.told == []
    desk.see(1, after=10)
    assert (desk.current.active, desk.current.level) == (True, 1)
    desk.see(0)
    desk.see(1)
    desk.see(0)
    desk.see(0, after=4.9)
    assert desk.current.active
    desk.see(0, after=0.1)
    assert not desk.current.active


@pytest.mark.parametrize(("value", "before", "level"), [
    (30.0, 0, 0), (29.9, 0, 1), (34.9, 1, 1), (35.0, 1, 0), (9.9, 0, 2), (14.9, 2, 2), (15.0, 2, 1), (34.9, 0, 0),
])  # fmt: skip
def test_a_limit_is_left_with_the_dead_band_alone(value: float, before: int, level: int) -> None:
    assert RUL.level_of(value, before) == level
    high = replace(RUL, limits=(-30.0, -10.0), low=False)
    assert high.level_of(-value, before) == level


def test_it_is_raised_again_when_it_stays() -> None:
    desk = Desk(realarm=60 * SECOND)
    desk.see(1)
    desk.do(acts.acknowledge, desk.current.event_id)
    desk.pass_time(58)
    assert desk.current.acknowledged
    assert inputs.due(desk.state) == desk.now + SECOND
    desk.pass_time(1)
    assert (desk.current.acknowledged, desk.current.repeats, desk.current.active_time) == (False, 1, desk.now)
    assert desk.raised == 2


def test_a_shelf_ends_by_itself() -> None:
    desk = Desk()
    desk.do(acts.shelve, 60 * SECOND)
    desk.see(1)
    assert (desk.current.state, desk.current.put_aside, desk.raised) == (AlarmState.SHELVED, True, 0)
    desk.pass_time(58)
    assert desk.current.shelved_until is not None
    desk.pass_time(1)
    assert desk.current.state is AlarmState.UNACKNOWLEDGED


def test_a_one_shot_shelf_ends_with_the_return_to_normal() -> None:
    desk = Desk()
    desk.see(1)
    desk.do(acts.shelve_once)
    desk.see(2)
    assert desk.current.one_shot
    desk.see(0)
    assert (desk.current.one_shot, desk.current.shelved_until) == (False, None)


def _refused(reason: Refusal, desk: Desk, act: Callable[..., Step], *arguments: Any) -> None:
    with pytest.raises(Refused) as caught:
        desk.do(act, *arguments)
    assert caught.value.reason is reason


def test_acts_that_make_no_sense_are_refused_by_name() -> None:
    desk = Desk(confirm=True, longest_shelf=timedelta(hours=1))
    known = desk.current.event_id
    _refused(Refusal.ALREADY_ACKNOWLEDGED, desk, acts.acknowledge, known)
    _refused(Refusal.ALREADY_CONFIRMED, desk, acts.confirm, known)
    _refused(Refusal.UNKNOWN_EVENT, desk, acts.comment, "00")
    _refused(Refusal.NOT_SHELVED, desk, acts.unshelve)
    for span in (timedelta(0), timedelta(hours=1, microseconds=1)):
        _refused(Refusal.SHELF_TIME, desk, acts.shelve, span)
    desk.see(1)
    _refused(Refusal.UNKNOWN_EVENT, desk, acts.acknowledge, known)
    desk.do(acts.shelve, timedelta(hours=1))
    _refused(Refusal.ALREADY_SHELVED, desk, acts.shelve, SECOND)
    desk.do(acts.shelve_once)
    _refused(Refusal.ALREADY_SHELVED, desk, acts.shelve_once)
    desk.do(acts.shelve, SECOND)
    _refused(Refusal.ALREADY_ENABLED, desk, acts.enable)
    desk.do(acts.disable)
    _refused(Refusal.ALREADY_DISABLED, desk, acts.disable)
    for act, more in (
        (acts.acknowledge, ("x",)), (acts.confirm, ("x",)), (acts.comment, ("x",)), (acts.shelve, (SECOND,)),
        (acts.shelve_once, ()), (acts.unshelve, ()), (acts.suppress, (True,)),
    ):  # fmt: skip
        _refused(Refusal.DISABLED, desk, act, *more)


def test_a_disabled_condition_takes_nothing_and_begins_anew() -> None:
    desk = Desk()
    desk.see(1)
    desk.see(0)
    desk.see(1)
    desk.do(acts.disable)
    assert (desk.current.state, desk.state.retained) == (AlarmState.OUT_OF_SERVICE, ())
    told = len(desk.told)
    desk.see(2)
    assert len(desk.told) == told
    desk.do(acts.enable)
    desk.see(1)
    assert desk.current.state is AlarmState.UNACKNOWLEDGED


def test_a_change_of_quality_is_told_while_there_is_something_to_show() -> None:
    desk = Desk()
    desk.see(0, quality=Status.UNCERTAIN)
    assert desk.told == []
    assert desk.current.quality == Status.UNCERTAIN
    desk.see(1, quality=Status.GOOD)
    desk.see(1, quality=Status.UNCERTAIN_SUB_NORMAL)
    desk.see(1, quality=Status.UNCERTAIN)
    assert [alarm.quality for alarm in desk.told] == [Status.GOOD, Status.UNCERTAIN_SUB_NORMAL]


def test_what_changes_at_once_is_one_notification() -> None:
    desk = Desk()
    desk.see(1, quality=Status.GOOD)
    desk.see(0, quality=Status.UNCERTAIN)
    assert [(alarm.active, alarm.quality) for alarm in desk.told] == [(True, Status.GOOD), (False, Status.UNCERTAIN)]


_LEVELS = st.tuples(st.just("see"), st.integers(0, 2))
_NAMED = st.tuples(st.sampled_from(("acknowledge", "confirm", "comment")), st.integers(-1, 8))
_PLAIN = st.tuples(
    st.sampled_from(("enable", "disable", "shelve", "shelve_once", "unshelve", "suppress", "unsuppress", "time",
                     "gather", "release")), st.just(0)
)  # fmt: skip
_RULES = st.builds(
    Rules,
    on_delay=st.sampled_from((timedelta(0), 2 * SECOND)),
    off_delay=st.sampled_from((timedelta(0), 2 * SECOND)),
    realarm=st.sampled_from((timedelta(0), 7 * SECOND)),
    confirm=st.booleans(),
    longest_shelf=st.just(5 * SECOND),
    branches=st.integers(0, 3),
)


_PLAIN_ACTS: dict[str, Callable[[State, datetime], Step]] = {
    "time": inputs.pass_time,
    "gather": lambda state, now: inputs.gather(state, True, now),
    "release": lambda state, now: inputs.gather(state, False, now),
    "suppress": lambda state, now: acts.suppress(state, True, By("otto", now)),
    "unsuppress": lambda state, now: acts.suppress(state, False, By("otto", now)),
    "shelve": lambda state, now: acts.shelve(state, 3 * SECOND, By("otto", now)),
    "shelve_once": lambda state, now: acts.shelve_once(state, By("otto", now)),
    "unshelve": lambda state, now: acts.unshelve(state, By("otto", now)),
    "enable": lambda state, now: acts.enable(state, By("otto", now)),
    "disable": lambda state, now: acts.disable(state, By("otto", now)),
}
_NAMED_ACTS: dict[str, Callable[..., Step]] = {
    "acknowledge": acts.acknowledge,
    "confirm": acts.confirm,
    "comment": acts.comment,
}


def _step(state: State, what: str, choice: int, told: list[Alarm], now: datetime) -> Step:
    if what == "see":
        return inputs.see(state, Seen(choice), now)
    if what in _PLAIN_ACTS:
        return _PLAIN_ACTS[what](state, now)
    event = told[-choice].event_id if 0 < choice <= len(told) else state.current.event_id if choice == 0 else "none"
    if event not in {alarm.event_id for alarm in (state.current, *state.branches)}:
        with pytest.raises(Refused) as caught:
            _NAMED_ACTS[what](state, event, By("otto", now))
        assert caught.value.reason in {Refusal.UNKNOWN_EVENT, Refusal.DISABLED}
        return Step(state)
    return _NAMED_ACTS[what](state, event, By("otto", now))


def _check(state: State) -> None:
    current = state.current
    for alarm in (current, *state.branches):
        waits = not (alarm.acknowledged and alarm.confirmed)
        assert alarm.retain == (alarm.enabled and (alarm.active or waits))
        assert alarm.acknowledged or alarm.confirmed, "nothing is to be confirmed before it is acknowledged"
        assert alarm.confirmed or state.condition.rules.confirm
        assert 1 <= alarm.severity <= 1000
    assert current.active == (current.level > 0)
    assert current.branch == ""
    assert not current.one_shot or current.shelved_until is not None
    assert all(branch.retain and not branch.active and branch.branch for branch in state.branches)
    assert len({branch.branch for branch in state.branches}) == len(state.branches) <= state.condition.rules.branches
    assert current.enabled or not state.retained
    assert len({alarm.event_id for alarm in (current, *state.branches)}) == 1 + len(state.branches)


@settings(max_examples=150, deadline=None)
@given(rules=_RULES, moves=st.lists(st.one_of(_LEVELS, _NAMED, _PLAIN), max_size=40))
def test_whatever_comes_in_whatever_order_it_keeps_its_promises(rules: Rules, moves: list[tuple[str, int]]) -> None:
    now, state, told = NOON, first(replace(RUL, rules=rules), NOON), list[Alarm]()
    for what, choice in moves:
        now += SECOND
        try:
            step = _step(state, what, choice, told, now)
        except Refused:
            continue
        _check(step.state)
        assert not step.raised or (step.state.current.active and not step.state.current.acknowledged)
        if not step.told:
            calm = replace(step.state.current, quality=state.current.quality)
            assert (calm, step.state.branches) == (state.current, state.branches), "a change that nobody was told of"
        for alarm in step.told:
            assert alarm.event_id not in {other.event_id for other in told}
            told.append(alarm)
        state = step.state
        due = inputs.due(state)
        assert due is None or inputs.pass_time(state, due).told
    latest = {alarm.branch: alarm for alarm in told}
    assert {alarm.event_id for alarm in latest.values() if alarm.retain} == {a.event_id for a in state.retained}
