"""The room of alarms: from results, sources and drifts to rows and notices; cases, load, and what a restart finds."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.meaning import WITHIN_OR_BEYOND
from plugin.diagnostics import Diagnostics
from plugin.domain import (
    Alarm,
    Drift,
    DriftKind,
    Flag,
    Meaning,
    ModelStanding,
    ModelState,
    ModelVersion,
    Outcome,
    OutputTag,
    Prediction,
    Run,
    RunKind,
    Standing,
    Status,
)
from plugin.errors import StoreUnavailable
from plugin.historian.memory import MemoryStore
from plugin.infer.alarms.acts import By, acknowledge
from plugin.infer.alarms.catalogue import case_of, conditions, drift_of, instruments_of, loss_of
from plugin.infer.alarms.config import AlarmsConfig
from plugin.infer.alarms.findings import of_health, of_proof, of_standings
from plugin.infer.alarms.load import Load, Meter
from plugin.infer.alarms.room import Room
from plugin.infer.alarms.told import Notice
from plugin.infer.alarms.watch import AlarmWatch
from plugin.infer.truths import Proof, Truth
from plugin.protocols import Health

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
STATES = tuple(
    OutputTag("kind", "pump", f"state{n}", "", 0.0, 1.0, "", Meaning.STATE, ("Normal", "Cavitation")) for n in range(8)
)
NOX = OutputTag("nox", "turbine", "nox", "mg/m3", 0.0, 200.0, "")


class House:
    """A room on a store in memory, and a clock that stands still."""

    def __init__(self, store: MemoryStore | None = None, **config: Any) -> None:
        self.now = NOON
        self.store = store or MemoryStore()
        self.config = AlarmsConfig(source_delay=timedelta(0), **config)
        self.diagnostics = Diagnostics()
        self.room = Room(self.config, self.store, self.diagnostics, lambda: self.now)
        self.watch = AlarmWatch(self.config, self.room, self.store, clock=lambda: self.now)
        self.told: list[Notice] = []
        self.room.listen(self.told.extend)

    async def open(self, *tags: OutputTag, sources: tuple[str, ...] = (), assets: tuple[str, ...] = ()) -> "House":
        if not await self.store.versions("kind"):
            for model in ("kind", "nox"):
                made = ModelVersion(model, 0, "k", ModelState.CHAMPION, NOON, {}, {}, {}, "a", "b")
                await self.store.add_version(made)
        await self.room.furnish(conditions(self.config, tags, sources, assets))
        return self

    async def state(self, number: int, value: float) -> None:
        """One output of the pump says so."""
        self.now += SECOND
        tag = STATES[number]
        later = self.now + timedelta(hours=1)
        given = Prediction(tag, 1, self.now, later, later, value, None, None, Status.GOOD, 1.0, 1)
        await self.watch.publish(Outcome(Run(1, "kind", RunKind.SCORE, self.now), (given,), ()))

    def current(self, key: str) -> Alarm:
        return self.room.states[key].current


def test_a_life_that_is_longer_than_one_looks_is_no_trouble():
    horizon = OutputTag("rul", "pump", "rul_state", "", 0.0, 1.0, "", Meaning.STATE, WITHIN_OR_BEYOND)
    made = [each.input for each in conditions(AlarmsConfig(), (horizon, STATES[0]), (), ())]
    assert STATES[0].name in made
    assert horizon.name not in made


async def test_a_state_that_is_not_normal_is_an_alarm_stored_with_its_event_before_it_is_told():
    house = await House().open(*STATES[:1])
    await house.state(0, 1.0)
    (alarm,) = await house.store.alarms(active_only=True)
    assert (alarm.condition_type, alarm.message) == ("OffNormalAlarmType", "state0 is Cavitation.")
    (event,) = await house.store.events(NOON, house.now + SECOND, asset="pump")
    assert (event.id, event.condition, event.fields["ActiveState/Id"]) == (alarm.event_id, alarm.id, True)
    assert [notice.alarm for notice in house.told] == [alarm]
    assert house.diagnostics.value("alarms_active") == 1


async def test_a_message_does_not_say_over_of_a_score_that_is_under_while_the_flag_lasts():
    tag = OutputTag("kind", "pump", "flag", "", 0.0, 1.0, "", Meaning.FLAG)
    house = await House().open()
    await house.watch.furnish([tag])
    messages = []
    for score in (4.0, 0.03):
        house.now += SECOND
        flag = Flag("kind", "pump", 1, house.now, True, score, 1.8, Status.GOOD, 1)
        await house.watch.publish(Outcome(Run(1, "kind", RunKind.SCORE, house.now), (), (flag,)))
        messages.append(house.current("pump.kind.flag.Alarm").message)
    assert messages == [
        "Anomaly score 4 is over 1.8.",
        "Anomaly score 0.03 is no longer over 1.8, and not yet for long enough.",
    ]


async def test_what_can_not_be_stored_is_not_told_and_found_again(monkeypatch):
    house = await House().open(*STATES[:1])

    async def away(*_: Any) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(house.store, "write_alarms", away)
        with pytest.raises(StoreUnavailable):
            await house.state(0, 1.0)
    assert (house.told, house.current("pump.kind.state0.Alarm").active) == ([], False)
    await house.state(0, 1.0)
    assert len(house.told) == 1


async def test_many_alarms_of_an_asset_are_one_case_until_all_are_normal():
    house = await House(flood=3).open(*STATES)
    for number in range(6):
        await house.state(number, 1.0)
    case = house.current(case_of("pump"))
    aside = [notice.condition.input for notice in house.told if notice.alarm.gathered]
    assert aside == [tag.name for tag in STATES[3:6]]
    assert (case.active, case.severity) == (True, 800)
    assert "kind: state3 not normal" in case.message
    assert len([notice for notice in house.told if not notice.alarm.put_aside]) == 4
    assert house.room.load.current == 4
    for number in range(3, 6):
        await house.state(number, 0.0)
    assert not house.current(case_of("pump")).active
    assert not any(state.current.gathered for state in house.room.states.values())
    house.now += timedelta(minutes=11)
    await house.state(7, 1.0)
    assert not house.told[-1].alarm.gathered


async def test_a_restart_finds_what_stood_and_what_is_configured_no_more_is_shown_no_longer():
    house = await House().open(*STATES[:2])
    await house.state(0, 1.0)
    await house.state(1, 1.0)
    stood = house.current("pump.kind.state0.Alarm")
    again = await House(house.store).open(*STATES[:1])
    assert [notice.alarm for notice in again.room.retained()] == [stood]
    (gone,) = [alarm for alarm in await house.store.alarms() if alarm.id == "pump.kind.state1.Alarm"]
    assert (gone.active, gone.retain, gone.message) == (False, False, "No longer configured")


async def test_a_source_that_is_away_says_so_and_nothing_of_its_tags():
    house = await House().open(sources=("plc",), assets=("pump",))
    tags = {"pump.p1": "pump", "pump.p2": "pump"}
    faulty = Health("running", True, None, flat=("pump.p1",), silent=("pump.p2",))
    await house.room.take(of_health("plc", faulty, tags))
    assert house.current(instruments_of("pump")).message.startswith("pump.p2 is silent, pump.p1 is flat.")
    assert not house.current(loss_of("plc")).active
    await house.room.take(of_health("plc", Health("lost", False, 0, trouble="no route"), tags))
    assert house.current(loss_of("plc")).message.startswith("plc is away: no route.")
    assert house.current(instruments_of("pump")).active
    await house.room.take(of_health("plc", Health("running", True, None), tags))
    assert not house.current(instruments_of("pump")).active


async def test_a_model_that_drifts_is_an_alarm_until_it_does_no_more():
    house = await House().open(*STATES[:1])
    drift = Drift("d", "kind", 1, DriftKind.INPUT, "pump", "pressure", NOON, NOON, None, 0.4, 0.2, "")
    standing = Standing("kind", "k", ModelStanding.IN_FORCE, 1, drifts=(drift,))
    await house.room.take(of_standings([standing]))
    assert house.current(drift_of("kind")).message.startswith(
        "kind no longer fits: input pressure of pump since 2026-03-01 12:00 UTC."
    )
    await house.room.take(of_standings([replace(standing, drifts=())]))
    remark = replace(drift, kind=DriftKind.BIAS, detail="the bias carries 9 mg/m3")
    await house.room.take(of_standings([replace(standing, drifts=(remark,))]))
    assert house.current(drift_of("kind")).message.startswith(
        "kind should be trained anew: pump: the bias carries 9 mg/m3."
    )
    await house.room.take(of_standings([replace(standing, drifts=(remark, drift))]))
    assert house.current(drift_of("kind")).message.startswith("kind no longer fits: input pressure")
    await house.room.take(of_standings([replace(standing, drifts=())]))
    assert not house.current(drift_of("kind")).active


@pytest.mark.parametrize(("actual", "level"), [(105.0, 0), (115.0, 0), (125.0, 1), (75.0, 1), (145.0, 2)])
def test_a_measurement_far_from_what_was_expected_is_an_alarm(actual: float, level: int) -> None:
    given = Prediction(NOX, 1, NOON, NOON, NOON, 100.0, 90.0, 110.0, Status.GOOD, 1.0, 1)
    found = of_proof(AlarmsConfig(), Proof(given, 100.0, Truth.LABORATORY, NOON, NOON, actual))
    assert found is not None
    assert (found[0], found[1].level) == ("turbine.nox.nox.Alarm", level)


def test_the_load_is_what_calls_for_an_operator():
    meter = Meter(NOON)
    for minute in (0, 1, 2, 30):
        meter.count(NOON + timedelta(minutes=minute))
    none = timedelta(0)
    late = meter.load(NOON + timedelta(minutes=40, seconds=-1))
    assert late == Load(1, 4 / (2399 / 600), 3, NOON, 4, none, none, 0)
    assert meter.load(NOON + timedelta(days=2)) == Load(0, 0.0, 3, NOON, 4, none, none, 0)


async def test_a_branch_that_nobody_acknowledges_waits_on_whatever_becomes_of_the_alarm():
    """It comes, goes, and comes back: what is acknowledged then is the second coming alone."""
    house = await House().open(*STATES[:1])
    key = "pump.kind.state0.Alarm"
    for value in (1.0, 0.0, 1.0):
        await house.state(0, value)
    minute, raised = timedelta(minutes=1), NOON + SECOND
    house.now = raised + 2 * minute
    current = house.current(key).event_id
    await house.room.act(key, lambda state, now: acknowledge(state, current, By("otto", now)))
    house.now = raised + 7 * minute
    assert house.room.load.longest_unacknowledged == 7 * minute
    (branch,) = house.room.states[key].branches
    await house.room.act(key, lambda state, now: acknowledge(state, branch.event_id, By("otto", now)))
    house.now = raised + 60 * minute
    assert house.room.load.longest_unacknowledged == 7 * minute


def test_how_long_alarms_stand_and_wait_is_metered_until_it_is_reset():
    minute = timedelta(minutes=1)
    alarm = Alarm("a", "", "pump", "OffNormalAlarmType", "ProcessConditionClassType", 500, NOON)
    raised = replace(alarm, active=True, acknowledged=False, active_time=NOON, repeats=2)
    meter = Meter(NOON)
    meter.follow(alarm, NOON)
    meter.follow(raised, NOON)
    assert meter.load(NOON + minute).longest_active == minute
    meter.follow(replace(raised, acknowledged=True), NOON + 2 * minute)
    meter.follow(replace(alarm, active_time=NOON), NOON + 5 * minute)
    stood = meter.load(NOON + 60 * minute)
    assert (stood.longest_active, stood.longest_unacknowledged, stood.most_repeats) == (5 * minute, 2 * minute, 2)
    again = NOON + 61 * minute
    meter.follow(replace(raised, active_time=again), again)
    meter.reset(again + minute)
    anew = meter.load(again + 2 * minute)
    assert (anew.since, anew.count, anew.most_repeats) == (again + minute, 0, 0)
    assert (anew.longest_active, anew.longest_unacknowledged) == (minute, minute), "what lasts begins anew"
