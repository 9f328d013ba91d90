"""What every store must do with events, alarms, the laboratory, labels and the audit log."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from plugin.domain import (
    Alarm,
    AlarmState,
    Audit,
    Event,
    Label,
    LabelKind,
    LabSample,
    ModelState,
    ModelVersion,
    Outcome,
    OutputTag,
    Prediction,
    Run,
    RunKind,
    Status,
    Verdict,
    to_micros,
)
from plugin.errors import StoreError
from plugin.protocols import Store

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
YEAR = timedelta(days=365)
ALWAYS = (NOON - 30 * YEAR, NOON + 30 * YEAR)


# --- events and alarms ---


def event(name: str, hours: int = 0, **changes: object) -> Event:
    time = NOON + hours * HOUR
    made = Event(name, time, time + timedelta(microseconds=1), "plant", "Pump 1", "BaseEventType", 500, "seal leaks")
    return replace(made, **changes)  # type: ignore[arg-type]


async def test_events_are_kept_once_and_listed_newest_first(store: Store) -> None:
    nested = {"ActiveState": {"Id": True}, "Limits": [1.5, None, "°C"]}
    first, second = event("a", fields=nested, asset="pump", condition="c1", severity=1), event("b", 1, severity=1000)
    await store.write_events([first, second])
    await store.write_events([replace(first, message="told again"), event("c", 2, source="mill")])
    assert await store.events(*ALWAYS) == (event("c", 2, source="mill"), second, first)
    assert await store.events(NOON, NOON + HOUR) == (first,)
    assert await store.events(*ALWAYS, source="plant") == (second, first)
    assert await store.events(*ALWAYS, asset="pump") == (first,)
    assert await store.events(*ALWAYS, limit=1) == (event("c", 2, source="mill"),)
    assert await store.events(*ALWAYS, oldest_first=True) == (first, second, event("c", 2, source="mill"))
    await store.write_events([])


async def test_a_severity_beyond_the_scale_is_refused_with_all_that_came_with_it(store: Store) -> None:
    for severity in (0, 1001):
        with pytest.raises(StoreError):
            await store.write_events([event("a"), event("b", severity=severity)])
        with pytest.raises(StoreError):
            await store.write_alarms([alarm("a", severity=severity)], [event("a")])
    assert await store.events(*ALWAYS) == ()
    assert await store.alarms() == ()


def alarm(name: str, hours: int = 0, **changes: object) -> Alarm:
    made = Alarm(
        name, f"{name}{hours}", "pump", "ExclusiveLevelAlarmType", "ProcessConditionClassType", 700, NOON + hours * HOUR
    )
    return replace(made, **changes)  # type: ignore[arg-type]


async def test_an_alarm_is_as_it_was_last_told_with_the_event_that_tells_it(store: Store) -> None:
    full = alarm(
        "a", active=True, acknowledged=False, confirmed=False, retain=True, quality=0x40920000, message="high",
        comment="seen", user="anna", active_time=NOON, acknowledged_time=NOON + HOUR, returned_time=NOON - HOUR,
        shelved_until=NOON + 2 * HOUR, suppressed=True, enabled=False, run=7,
        as_of=NOON, level=2, last_severity=300, one_shot=True, gathered=True, repeats=3,
    )  # fmt: skip
    await store.write_alarms([full, alarm("b", severity=900)], [event("e", condition="a")])
    assert await store.alarms() == (alarm("b", severity=900), full)
    assert await store.alarms(active_only=True) == (full,)
    assert [found.condition for found in await store.events(*ALWAYS)] == ["a"]
    branch = replace(full, branch="1", event_id="branch", time=NOON + HOUR)
    await store.write_alarms([alarm("a", 1), branch])
    assert await store.alarms() == (alarm("b", severity=900), alarm("a", 1), branch)
    assert await store.alarms(active_only=True) == (branch,)


async def test_an_alarm_names_a_model_version_that_there_is(store: Store) -> None:
    await store.add_version(version())
    followed = alarm("a", model="rul", version=1)
    await store.write_alarms([followed])
    assert await store.alarms() == (followed,)
    with pytest.raises(StoreError):
        await store.write_alarms([alarm("b", model="rul", version=2)])
    assert await store.alarms() == (followed,)


def test_an_alarm_shows_the_state_that_an_operator_acts_on() -> None:
    assert alarm("a").state is AlarmState.NORMAL
    assert alarm("a", active=True).state is AlarmState.ACKNOWLEDGED
    assert alarm("a", active=True, acknowledged=False).state is AlarmState.UNACKNOWLEDGED
    assert alarm("a", acknowledged=False).state is AlarmState.RETURNED
    assert alarm("a", active=True, suppressed=True).state is AlarmState.SUPPRESSED
    assert alarm("a", suppressed=True, shelved_until=NOON).state is AlarmState.SHELVED
    assert alarm("a", enabled=False, shelved_until=NOON).state is AlarmState.OUT_OF_SERVICE


# --- the laboratory ---


def lab(name: str, hours: int = 0, **changes: object) -> LabSample:
    taken = NOON + hours * HOUR
    return replace(LabSample(name, "boiler", "nox", taken, taken + HOUR, 61.5, "mg/m3", user="anna"), **changes)  # type: ignore[arg-type]


async def test_lab_samples_are_chosen_by_asset_quantity_and_when_they_were_taken(store: Store) -> None:
    first, second = lab("1", note="centrifuged"), lab("2", 1, value=None, status=Status.BAD)
    other, co = lab("3", asset="kiln"), lab("4", quantity="co", value=float("nan"))
    assert await store.write_lab_samples([second, first, other, co]) == 4
    assert await store.lab_samples("boiler", "nox", *ALWAYS) == (first, second)
    assert await store.lab_samples("boiler", "nox", NOON, NOON + HOUR) == (first,)
    assert await store.lab_samples("boiler", None, *ALWAYS) == (replace(co, value=None), first, second)
    assert await store.lab_samples(None, "nox", *ALWAYS) == (first, other, second)
    assert await store.lab_samples("mill", "nox", *ALWAYS) == ()


async def test_a_lab_sample_told_again_changes_nothing(store: Store) -> None:
    assert await store.write_lab_samples([lab("1"), lab("2", 1, value=float("nan"))]) == 2
    again = [lab("1"), lab("2", 1, value=float("nan"))]
    assert await store.write_lab_samples([replace(each, known=NOON + 9 * HOUR, user="ben") for each in again]) == 0
    assert await store.lab_samples("boiler", "nox", *ALWAYS) == (lab("1"), lab("2", 1, value=None))
    assert len(await store.audit()) == 2


async def test_what_a_person_tells_is_in_the_audit_log_whole(store: Store) -> None:
    verdict = label("7", LabelKind.VERDICT, verdict=Verdict.UNCLEAR, model="health", as_of=NOON, run=3, end=None)
    await store.write_labels([verdict, verdict], origin="page")
    await store.write_lab_samples([lab("1", value=float("nan"))])
    entries = {entry.subject: entry for entry in await store.audit()}
    told = entries["label 7"]
    assert (told.user, told.origin, told.action, told.before) == ("anna", "page", "label", {})
    assert (told.after["kind"], told.after["verdict"], told.after["as_of"]) == (
        "verdict", "unclear", "2024-05-01T12:00:00+00:00",
    )  # fmt: skip
    result = entries["lab sample 1"]
    assert (result.user, result.origin, result.action, result.before) == ("anna", "command", "lab", {})
    assert (result.after["quantity"], result.after["value"]) == ("nox", None)
    assert len(entries) == len(await store.audit()) == 2


async def test_a_corrected_lab_sample_keeps_the_old_one_in_the_log(store: Store) -> None:
    await store.write_lab_samples([lab("1")])
    right = lab("1", value=16.5, user="ben", known=NOON + 5 * HOUR)
    assert await store.write_lab_samples([right], origin="page") == 1
    assert await store.lab_samples("boiler", "nox", *ALWAYS) == (right,)
    entry, _ = await store.audit()
    assert (entry.user, entry.origin, entry.action, entry.subject) == ("ben", "page", "correct", "lab sample 1")
    assert (entry.before["value"], entry.after["value"]) == (61.5, 16.5)
    assert entry.before["taken"] == "2024-05-01T12:00:00+00:00"


async def test_a_write_that_tells_one_sample_twice_keeps_the_last_and_logs_the_first(store: Store) -> None:
    assert await store.write_lab_samples([lab("1"), lab("1", value=2.0), lab("1", value=2.0)]) == 1
    assert await store.lab_samples("boiler", "nox", *ALWAYS) == (lab("1", value=2.0),)
    assert [entry.before.get("value") for entry in await store.audit()] == [61.5, None]


async def test_a_reader_of_the_past_sees_the_laboratory_as_it_was_known_then(store: Store) -> None:
    now = datetime.now(UTC)
    known, late = now - 3 * HOUR, now + 3 * HOUR
    first = lab("1", known=known)
    await store.write_lab_samples([first, lab("2", 1, known=late), lab("3", 2, known=known)])
    corrected = lab("1", 3, known=now, value=5.0)
    again = lab("1", 3, known=now, value=6.0, asset="kiln")
    await store.write_lab_samples([corrected])
    await store.write_lab_samples([again])
    before = to_micros(now - HOUR)
    assert await store.lab_samples(None, "nox", *ALWAYS, known_by=before) == (first, lab("3", 2, known=known))
    assert await store.lab_samples("boiler", "nox", NOON, NOON + HOUR, known_by=before) == (first,)
    assert await store.lab_samples("kiln", "nox", *ALWAYS, known_by=before) == ()
    assert await store.lab_samples("boiler", "nox", *ALWAYS, known_by=to_micros(known) - 1) == ()
    assert await store.lab_samples("kiln", "nox", *ALWAYS, known_by=to_micros(late)) == (again,)
    assert [found.id for found in await store.lab_samples("boiler", "nox", *ALWAYS)] == ["2", "3"]


async def test_many_lab_samples_in_one_write(store: Store) -> None:
    many = [lab(f"{n}", n, value=float(n)) for n in range(1200)]
    assert await store.write_lab_samples(many) == 1200
    assert await store.write_lab_samples([*many[:-1], replace(many[-1], value=-1.0)]) == 1
    assert len(await store.lab_samples("boiler", "nox", *ALWAYS)) == 1200
    assert len(await store.audit(action="correct")) == 1


# --- labels ---


def label(name: str, kind: LabelKind = LabelKind.FAILURE, hours: int = 0, **changes: object) -> Label:
    start = NOON + hours * HOUR
    return replace(Label(name, kind, "pump", start, start + HOUR, user="anna"), **changes)  # type: ignore[arg-type]


async def test_labels_are_found_where_they_lie_or_reach(store: Store) -> None:
    failure = label("1", end=None)
    order = label("2", LabelKind.WORK_ORDER, -2, end=None, reference="WO-4711", note="bearing")
    normal = label("3", LabelKind.NORMAL, -5, end=NOON)
    moment = label("4", LabelKind.NORMAL, end=NOON)
    verdict = label("5", LabelKind.VERDICT, verdict=Verdict.FALSE_ALARM, model="health", as_of=NOON, run=3, end=None)
    other = label("6", asset="mill", end=None)
    assert await store.write_labels([failure, order, normal, moment, verdict, other]) == 6
    assert await store.labels("pump", *ALWAYS) == (normal, order, failure, moment, verdict)
    assert await store.labels("pump", NOON, NOON + HOUR) == (order, failure, moment, verdict)
    assert await store.labels("pump", NOON - HOUR, NOON) == (normal, order)
    assert await store.labels("pump", NOON + HOUR, NOON + 2 * HOUR) == (order,)
    assert await store.labels(None, *ALWAYS, kind=LabelKind.FAILURE) == (other, failure)
    assert await store.labels("pump", *ALWAYS, kind=LabelKind.VERDICT) == (verdict,)
    assert await store.labels("fan", *ALWAYS) == ()


async def test_a_corrected_label_keeps_the_old_one_in_the_log_and_for_who_looks_back(store: Store) -> None:
    now = datetime.now(UTC)
    wrong = label("1", LabelKind.VERDICT, verdict=Verdict.CONFIRMED, model="health", as_of=NOON, created=now - HOUR)
    right = replace(wrong, verdict=Verdict.FALSE_ALARM, created=now, user="ben")
    assert await store.write_labels([wrong]) == 1
    assert await store.write_labels([replace(wrong, created=now, user="eve")]) == 0
    assert await store.write_labels([right]) == 1
    assert await store.labels("pump", *ALWAYS) == (right,)
    assert await store.labels("pump", *ALWAYS, known_by=to_micros(now) - 1) == (wrong,)
    assert await store.labels("pump", *ALWAYS, known_by=to_micros(now - 2 * HOUR)) == ()
    (entry,) = await store.audit(action="correct")
    assert (entry.user, entry.subject, entry.before["verdict"]) == ("ben", "label 1", "confirmed")


# --- the audit log ---


async def test_the_audit_log_is_added_to_and_read_newest_first(store: Store) -> None:
    first = Audit(NOON, "anna", "command", "reload", "tags", {"tags": 3}, {"tags": 4, "added": ["é"]})
    second, third = replace(first, action="trust"), replace(first, time=NOON + HOUR, user="ben")
    await store.write_audit(third)
    await store.write_audit(first, second, first)
    await store.write_audit()
    assert await store.audit() == (third, first, second, first)
    assert await store.audit(NOON + HOUR) == (third,)
    assert await store.audit(NOON, action="trust") == (second,)
    assert await store.audit(limit=2) == (third, first)


def version(state: ModelState = ModelState.CHALLENGER) -> ModelVersion:
    return ModelVersion("rul", 0, "rul_lstm", state, NOON, {}, {}, {}, "rul-1.st", "ab" * 32)


async def test_a_promotion_is_in_the_audit_log(store: Store) -> None:
    async def log() -> list[tuple[object, ...]]:
        found = await store.audit()
        return sorted((e.subject, e.action, e.user, e.origin, e.before.get("state"), e.after["state"]) for e in found)

    await store.add_version(version())
    assert await log() == []
    await store.add_version(version(ModelState.CHAMPION), user="anna", origin="page")
    await store.set_state("rul", 2, ModelState.CHAMPION)
    expected: list[tuple[object, ...]] = [("rul-2", "promote", "anna", "page", None, "champion")]
    assert await log() == expected
    await store.set_state("rul", 1, ModelState.CHAMPION, user="ben", origin="command")
    expected += [
        ("rul-1", "promote", "ben", "command", "challenger", "champion"),
        ("rul-2", "retire", "ben", "command", "champion", "retired"),
    ]
    assert await log() == sorted(expected, key=str)
    await store.set_state("rul", 2, ModelState.CHALLENGER)
    assert ("rul-2", "challenge", "foretag", "service", "retired", "challenger") in await log()
    with pytest.raises(StoreError, match="no version 9"):
        await store.set_state("rul", 9, ModelState.CHAMPION)
    assert len(await log()) == 4


async def test_why_a_version_was_promoted_stands_in_its_own_entry(store: Store) -> None:
    await store.add_version(version(ModelState.CHAMPION))
    await store.add_version(version())
    figures = {"better": 0.25, "outputs": {"nox": {"errors": [1.5, 1.0]}}}
    await store.set_state("rul", 2, ModelState.CHAMPION, because=figures)
    found = {entry.subject: dict(entry.after) for entry in (await store.audit(limit=2))}
    assert found == {"rul-1": {"state": "retired"}, "rul-2": {"state": "champion", **figures}}


# --- forecasts ---


async def test_a_forecast_speaks_of_several_instants_of_the_future_at_once(store: Store) -> None:
    run = await store.write_run(Run(0, "demand", RunKind.SCORE, NOON))
    tag = OutputTag("demand", "boiler", "steam", "t/h", 0, 100, "Steam demand")
    points = tuple(
        Prediction(
            tag, 1, NOON, NOON + n * HOUR, NOON + 2 * HOUR, 50.0 + n, 40.0 - n, 60.0 + n, Status.GOOD, 1.0, run.id
        )
        for n in range(1, 49)
    )
    newer = tuple(replace(each, as_of=each.as_of + HOUR, target_time=each.target_time + HOUR) for each in points)
    for _ in range(2):
        await store.write_outcome(Outcome(run, points[::-1] + newer, ()))
    assert await store.predictions("demand", NOON, NOON + HOUR) == points
    assert await store.predictions("demand", NOON, NOON + 2 * HOUR) == points + newer
    assert (await store.counts())["predictions"] == 96
