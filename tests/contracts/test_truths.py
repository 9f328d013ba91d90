"""What came true of predictions: the same by the code and by the view, in SQLite and in PostgreSQL."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from plugin.domain import (
    Asset,
    Label,
    LabelKind,
    LabSample,
    Meaning,
    OutputTag,
    Run,
    RunKind,
    RunResult,
    SampleBatch,
    Status,
    Verdict,
    to_micros,
)
from plugin.domain import Flag as Raised
from plugin.domain import Outcome as Given
from plugin.historian.config import HistorianConfig
from plugin.historian.memory import MemoryStore
from plugin.infer.config import ModelConfig
from plugin.infer.truths import Proof, Truth, judged, proofs
from plugin.protocols import Delivery, Store
from tests.contracts.reports import AHEAD, HOUR, LIFE, MINUTE, NOON, NOX, RUL, TAGS, Plant, said, version
from tests.contracts.test_views import plant

__all__ = ["plant"]

LATER = NOON + 4 * HOUR


def config(name: str, horizon: str = "0s", **roles: str) -> ModelConfig:
    features = ("temperature", "NOX_lab", *roles.values())
    fields = {
        "name": name, "kind": "any", "assets": ["*"], "features": tuple(dict.fromkeys(features)), "roles": roles,
        "window": "1h", "step": "1min", "horizon": horizon, "training": {"learn": "laboratory"},
    }  # fmt: skip
    return ModelConfig.model_validate(fields)


async def told(store: Store) -> None:
    """Predictions of champions and of a challenger, and what came true of them."""
    await store.register_tags(TAGS)
    for each in (
        version("nox", lab="NOX_lab"),
        version("nox", lab="NOX_lab"),
        version("rul", age="cycle"),
        version("life"),
    ):
        await store.add_version(each)
    await store.add_version(version("ahead"))
    run = await store.write_run(Run(0, "nox", RunKind.SCORE, NOON, NOON, NOON, RunResult.DONE, 1, 1))
    shadow = await store.write_run(Run(0, "nox", RunKind.SHADOW, NOON, NOON, NOON, RunResult.DONE, 2, 1))
    given = [
        *(said(NOX, run, NOON + n * 5 * MINUTE, 30.0 + n) for n in range(4)),
        said(NOX, run, NOON + 20 * MINUTE, None, status=Status.BAD_NO_DATA),
        said(RUL, run, NOON - HOUR, 80.0, upper=None),
        said(RUL, run, NOON, 60.0),
        said(LIFE, run, NOON - HOUR, 3.0, lower=2.5),
        said(LIFE, run, NOON - 1000 * HOUR, 1000.0),
        said(AHEAD, run, NOON, 60.0, target_time=NOON + HOUR),
        said(AHEAD, run, NOON, 61.0, target_time=NOON + 2 * HOUR),
    ]
    await store.write_outcome(Given(run, tuple(given), ()))
    beside = tuple(said(NOX, shadow, NOON + n * MINUTE, 70.0 + n, version=2) for n in range(0, 20, 2))
    await store.write_outcome(Given(shadow, beside, ()))
    await store.write_lab_samples(
        [
            LabSample("L1", "boiler", "nox", NOON + 7 * MINUTE, NOON + HOUR, 45.0, "mg/m3"),
            LabSample("L2", "boiler", "nox", NOON + 8 * MINUTE, NOON + HOUR, 45.0, "mg/m3", status=Status.BAD),
            LabSample("L3", "boiler", "nox", NOON + 21 * MINUTE, NOON + 2 * HOUR, 46.0, "mg/m3"),
            LabSample("L4", "boiler", "nox", NOON + 9 * HOUR, NOON + 10 * HOUR, 47.0, "mg/m3"),
        ]
    )
    failure = Label("1", LabelKind.FAILURE, "pump", NOON + HOUR, NOON + 2 * HOUR)
    await store.write_labels([failure, replace(failure, id="2", start=NOON - 3 * HOUR)])
    await store.write([Delivery(measured())])


def measured() -> SampleBatch:
    """The laboratory's tag, the pump's age, and a temperature whose second hour is not all Good."""
    rows = [
        (2, NOON + 12.5 * MINUTE, 33.0, 0), (2, NOON + 13.5 * MINUTE, 99.0, int(Status.BAD)),
        (3, NOON - 61 * MINUTE, 10.0, 0), (3, NOON - MINUTE, 40.0, 0), (3, NOON + 59 * MINUTE, 90.0, 0),
        (1, NOON + HOUR, 61.0, 0), (1, NOON + HOUR + MINUTE / 2, 62.0, 0),
        (1, NOON + 2 * HOUR, 61.0, 0), (1, NOON + 2 * HOUR + MINUTE / 2, 62.0, int(Status.UNCERTAIN)),
    ]  # fmt: skip
    tags, times, values, statuses = zip(*rows, strict=True)
    stamps = [to_micros(time) for time in times]
    return SampleBatch.of(tags, stamps, values, statuses, [stamp + 3_600_000_000 for stamp in stamps], stamps)


async def found(store: Store) -> list[Proof]:
    assets = Asset.gather(await store.tags())
    by: list[Proof] = []
    for name, roles in (("nox", {"lab": "NOX_lab"}), ("rul", {"age": "cycle"}), ("life", {}), ("ahead", {})):
        given = [
            *await store.predictions(name, NOON - 2000 * HOUR, LATER),
            *await store.predictions(name, NOON - 2000 * HOUR, LATER, shadow=True),
        ]
        by += await proofs(store, config(name, **roles), assets, given)
    return by


def row(proof: Proof) -> tuple[object, ...]:
    made = proof.prediction
    what = (made.tag.model, made.version, proof.truth.value, to_micros(made.as_of), to_micros(proof.time))
    return (*what, proof.value, proof.actual, proof.error, proof.inside)


EXPECTED = [
    ("ahead", 1, Truth.MEASURED, 60.0, 61.5), ("life", 1, Truth.FAILURE, 3.0, 2.0),
    ("life", 1, Truth.FAILURE, 1000.0, 997.0), ("nox", 1, Truth.LABORATORY, 31.0, 45.0),
    ("nox", 1, Truth.LABORATORY, 32.0, 33.0), ("nox", 2, Truth.LABORATORY, 76.0, 45.0),
    ("nox", 2, Truth.LABORATORY, 82.0, 33.0), ("nox", 2, Truth.LABORATORY, 88.0, 46.0),
    ("rul", 1, Truth.FAILURE, 60.0, 50.0), ("rul", 1, Truth.FAILURE, 80.0, 80.0),
]  # fmt: skip


async def test_what_came_true_is_the_same_by_the_code_and_by_the_view(plant: Plant) -> None:
    await told(plant.store)
    await plant.roll_up("minute", 1, NOON + HOUR, mean=61.5, samples=2, good=2)
    await plant.roll_up("minute", 1, NOON + 2 * HOUR, mean=61.5, samples=2, good=1)
    for tag, minutes, value in ((2, 12, 33.0), (3, -61, 10.0), (3, -1, 40.0), (3, 59, 90.0)):
        at = NOON + minutes * MINUTE
        last = to_micros(at) + (30_000_000 if tag == 2 else 0)
        await plant.roll_up("minute", tag, at, last_value=value, last_time=last)
    ours = await found(plant.store)
    theirs = await plant.rows(
        "SELECT model, version, truth, as_of_us, actual_time_us, value, actual, error, inside "
        "FROM v_prediction_accuracy"
    )
    assert sorted(map(row, ours), key=repr) == sorted((tuple(each.values()) for each in theirs), key=repr)
    pairs = sorted((p.prediction.tag.model, p.prediction.version, p.truth, p.value, p.actual) for p in ours)
    assert pairs == EXPECTED


async def test_a_laboratory_s_value_is_none_of_a_share_or_a_state_beside_it(plant: Plant) -> None:
    """Of a unit that is the laboratory's own, as a share of what has to be in per cent."""
    await told(plant.store)
    beside = [
        replace(NOX, output="nox_out_of_spec", meaning=Meaning.PROBABILITY),
        replace(NOX, output="nox_verdict", meaning=Meaning.STATE, states=("pass", "doubtful", "fail")),
    ]
    run = (await plant.store.runs("nox"))[0]
    await plant.store.write_outcome(Given(run, tuple(said(tag, run, NOON, 2.0) for tag in beside), ()))
    await plant.roll_up("minute", 2, NOON + 12 * MINUTE, last_value=33.0, last_time=to_micros(NOON + 12.5 * MINUTE))
    theirs = await plant.rows("SELECT DISTINCT output FROM v_prediction_accuracy WHERE truth = 'laboratory'")
    assert [row["output"] for row in theirs] == ["nox"]
    ours = {each.prediction.tag.output for each in await found(plant.store) if each.truth is Truth.LABORATORY}
    assert ours == {"nox"}


async def test_a_failure_after_an_overhaul_proves_nothing_of_the_life_before(plant: Plant) -> None:
    await told(plant.store)
    order = Label("3", LabelKind.WORK_ORDER, "pump", NOON - 40 * MINUTE, NOON, NOON - 20 * MINUTE)
    about_the_failure = replace(order, id="4", start=NOON + 50 * MINUTE, end=NOON + 70 * MINUTE)
    await plant.store.write_labels([order, about_the_failure])
    for minutes, value in ((-61, 10.0), (-1, 40.0), (59, 90.0)):
        await plant.roll_up("minute", 3, NOON + minutes * MINUTE, last_value=value)
    theirs = await plant.rows("SELECT model, value, actual FROM v_prediction_accuracy WHERE truth = 'failure'")
    proven = [proof for proof in await found(plant.store) if proof.truth is Truth.FAILURE]
    ours = [(proof.prediction.tag.model, proof.value, proof.actual) for proof in proven]
    assert sorted(ours) == sorted(tuple(each.values()) for each in theirs)
    assert sorted(ours) == [("life", 1000.0, 997.0), ("rul", 60.0, 50.0)]


HOURS = OutputTag("hours", "pump", "rul", "h", 0, 1000, "Remaining useful life", Meaning.LIFETIME)
GROWN = (-61, 10.0), (-1, 40.0), (29, 88.0)
"""Minutes from noon, and the pump's age then."""
OLD = {(-60, 78.0), (0, 48.0), (10, 48.0), (-60, 89 / 60), (0, 29 / 60), (10, 19 / 60)}
"""What was left of that life at some minutes, in cycles and in hours."""
INFANT = {(at, left) for at in (-60, 0, 10, 30, 40) for left in (6.0, (60 - at) / 60)}


@pytest.mark.parametrize(
    ("ages", "order", "expected"),
    [
        ((*GROWN, (31, 2.0), (59, 8.0)), None, OLD),
        ((*GROWN, (31, 2.0), (59, 9.0)), None, {(40, 7.0), (40, 1 / 3)}),
        ((*((minutes - 5000, age) for minutes, age in GROWN), (-4970, 2.0), (59, 8.0)), None, INFANT),
        ((*GROWN, (31, 2.0), (59, 95.0)), None, {(40, 93.0), (40, 1 / 3)}),
        ((*GROWN, (31, 2.0), (59, 8.0)), (25, 33), {(40, 6.0), (40, 1 / 3)}),
        ((*GROWN, (31, 2.0), (59, 8.0)), (25, None), {(40, 6.0), (40, 1 / 3)}),
        ((*GROWN, (9, 3.0), (31, 2.0), (59, 8.0)), None, {(10, 85.0), (10, 19 / 60)}),
        ((*GROWN, (59, 8.0)), None, OLD),
    ],
    ids=[
        "told late", "failed young", "days after", "lived as long", "overhauled", "in an overhaul", "the life between",
        "at once",
    ],
)  # fmt: skip
async def test_a_failure_is_of_the_life_that_it_ended(
    plant: Plant,
    ages: tuple[tuple[int, float], ...],
    order: tuple[int, int | None] | None,
    expected: set[tuple[int, float]],
) -> None:
    """It is told an hour after noon: by then the pump runs again, where its age has started over."""
    await plant.store.register_tags(TAGS)
    for name in ("rul", "hours"):
        await plant.store.add_version(version(name, age="cycle"))
    run = await plant.store.write_run(Run(0, "rul", RunKind.SCORE, NOON, NOON, NOON, RunResult.DONE, 1, 1))
    moments = [NOON + minutes * MINUTE for minutes in (-60, 0, 10, 30, 40)]
    given = [said(tag, run, each, 5.0) for tag in (RUL, HOURS) for each in moments]
    await plant.store.write_outcome(Given(run, tuple(given), ()))
    await plant.store.write_labels([Label("1", LabelKind.FAILURE, "pump", NOON + HOUR, NOON + 2 * HOUR)])
    if order is not None:
        end = None if order[1] is None else NOON + order[1] * MINUTE
        overhaul = Label("2", LabelKind.WORK_ORDER, "pump", NOON + order[0] * MINUTE, NOON + 2 * HOUR, end)
        await plant.store.write_labels([overhaul])
    for minutes, age in sorted(ages):
        await plant.roll_up("minute", 3, NOON + minutes * MINUTE, last_value=age)
    machines, found = Asset.gather(await plant.store.tags()), list[Proof]()
    for tag in (RUL, HOURS):
        of_model = [each for each in given if each.tag == tag]
        found += await proofs(plant.store, config(tag.model, age="cycle"), machines, of_model)
    ours = {(round((each.prediction.as_of - NOON) / MINUTE), each.actual) for each in found}
    rows = await plant.rows("SELECT as_of_us, actual FROM v_prediction_accuracy")
    theirs = {((row["as_of_us"] - to_micros(NOON)) // 60_000_000, row["actual"]) for row in rows}
    assert ours == theirs
    assert sorted(ours) == [pytest.approx(each) for each in sorted(expected)]


async def test_an_age_within_a_minute_is_that_of_the_last_sample_before(plant: Plant) -> None:
    """Also where the minute's last sample is Bad; where the samples are gone, the minute before has to do."""
    second, seen = MINUTE / 60, NOON + 30 * MINUTE
    await told(plant.store)
    told_ages = [(10, 41.0, 0), (20, 42.0, 0), (30, 43.0, 0), (40, 44.0, int(Status.BAD)), (50, 45.0, 0)]
    stamps = [to_micros(seen + n * second) for n, _, _ in told_ages]
    values, statuses = [value for _, value, _ in told_ages], [status for _, _, status in told_ages]
    await plant.store.write([Delivery(SampleBatch.of([3] * 5, stamps, values, statuses, stamps, stamps))])
    for minutes, value in ((-61, 10.0), (-1, 40.0), (59, 90.0)):
        await plant.roll_up("minute", 3, NOON + minutes * MINUTE, last_value=value)
    await plant.roll_up("minute", 3, seen, first_time=stamps[0], last_time=stamps[-1], last_value=45.0, samples=5)
    run = (await plant.store.runs("nox"))[0]
    given = [said(RUL, run, seen + n * second, float(n)) for n in (5, 20, 21, 45, 51)]
    await plant.store.write_outcome(Given(run, tuple(given), ()))

    async def lives() -> list[tuple[object, ...]]:
        theirs = await plant.rows(
            "SELECT value, actual FROM v_prediction_accuracy WHERE model = 'rul' AND value < 60 ORDER BY value"
        )
        return [tuple(each.values()) for each in theirs]

    expected = [(5.0, 50.0), (20.0, 49.0), (21.0, 48.0), (45.0, 47.0), (51.0, 45.0)]
    assert await lives() == expected
    ours = [(each.value, each.actual) for each in await found(plant.store) if each.prediction.tag.model == "rul"]
    assert sorted(ours)[:5] == expected
    await plant.owner.rows("DELETE FROM samples WHERE tag_id = 3")
    assert await lives() == [(5.0, 50.0), (20.0, 50.0), (21.0, 50.0), (45.0, 50.0), (51.0, 45.0)]


@pytest.mark.parametrize("jitter", [0, 400_000], ids=["even", "uneven"])
async def test_an_age_is_found_in_what_is_closed(plant: Plant, jitter: int) -> None:
    """By the code, and by the view, which decodes it in SQL."""
    chance, noon = np.random.default_rng(1), to_micros(NOON)
    stamps = noon + np.arange(1500) * 1_000_000 + chance.integers(0, jitter + 1, 1500)
    ages = np.where(np.arange(1500) % 9 == 8, np.nan, np.arange(1500.0))
    statuses = np.where(np.isnan(ages), int(Status.BAD), 0)
    await plant.store.register_tags(TAGS)
    await plant.store.add_version(version("rul", age="cycle"))
    later = to_micros(LATER)
    samples = SampleBatch.of([3] * 1500, stamps, ages, statuses, stamps, stamps)
    await plant.store.write([Delivery(samples), Delivery(SampleBatch.of([1], [later], 1.0, 0, later, later))])
    for chore in plant.store.chores(HistorianConfig()):
        await chore.do()
    assert (await plant.owner.rows("SELECT count(*) AS n FROM samples WHERE tag_id = 3")) == [{"n": 0}]
    run = await plant.store.write_run(Run(0, "rul", RunKind.SCORE, NOON, NOON, NOON, RunResult.DONE, 1, 1))
    at = [NOON + timedelta(seconds=10.7 * n + 5) for n in range(130)]
    await plant.store.write_outcome(Given(run, tuple(said(RUL, run, each, 5.0) for each in at), ()))
    failed = NOON + timedelta(seconds=1450.5)
    await plant.store.write_labels([Label("1", LabelKind.FAILURE, "pump", failed, failed)])
    there = ~np.isnan(ages)
    known = [ages[there][np.searchsorted(stamps[there], to_micros(each)) - 1] for each in (*at, failed)]
    expected = [known[-1] - age for age in known[:-1]]
    asked = "SELECT actual FROM v_prediction_accuracy ORDER BY as_of_us"
    assert [row["actual"] for row in await plant.rows(asked)] == expected
    given = await plant.store.predictions("rul", NOON, LATER)
    made = await proofs(plant.store, config("rul", age="cycle"), Asset.gather(await plant.store.tags()), given)
    assert [each.actual for each in sorted(made, key=lambda each: each.prediction.as_of)] == expected


@pytest.fixture
async def store() -> MemoryStore:
    made = MemoryStore()
    await told(made)
    return made


async def test_the_store_in_memory_gives_the_same(store: MemoryStore) -> None:
    pairs = sorted(
        (p.prediction.tag.model, p.prediction.version, p.truth, p.value, p.actual) for p in await found(store)
    )
    assert pairs == EXPECTED


async def test_what_came_true_later_is_not_known_yet(store: MemoryStore) -> None:
    assets = Asset.gather(await store.tags())
    given = await store.predictions("nox", NOON, LATER)

    async def known(by: timedelta) -> list[float]:
        made = await proofs(store, config("nox", lab="NOX_lab"), assets, given, known_by=NOON + by)
        assert [proof.known for proof in made] == sorted(proof.known for proof in made)
        assert all(proof.known <= NOON + by for proof in made)
        return [proof.actual for proof in made]

    assert await known(59 * MINUTE) == []
    assert await known(HOUR) == [45.0]
    assert await known(2 * HOUR) == [45.0, 33.0], "the server had the tag's value an hour after it was taken"
    ahead = await store.predictions("ahead", NOON, LATER)
    assert await proofs(store, config("ahead"), assets, ahead, known_by=NOON + HOUR) == []
    assert len(await proofs(store, config("ahead"), assets, ahead, known_by=NOON + HOUR + MINUTE)) == 1


async def test_a_life_beyond_what_can_be_said_counts_as_its_limit(store: MemoryStore) -> None:
    tag = replace(RUL, high=40.0)
    proof = (await proofs(store, config("rul", age="cycle"), Asset.gather(await store.tags()), [
        replace(each, tag=tag) for each in await store.predictions("rul", NOON, LATER)
    ]))[0]  # fmt: skip
    assert (proof.actual, proof.said_at_best, proof.error, proof.inside) == (50.0, 40.0, 20.0, False)


async def test_a_remaining_life_without_clock_or_age_proves_nothing(store: MemoryStore) -> None:
    given = await store.predictions("rul", NOON, LATER)
    assert await proofs(store, config("rul"), Asset.gather(await store.tags()), given) == []
    unknown = replace(given[0], tag=OutputTag("rul", "other", "rul", "h", 0, 9, "", Meaning.LIFETIME))
    assert await proofs(store, config("rul"), (), [unknown]) == []


async def test_a_flag_is_judged_by_the_newest_verdict_else_by_what_was_the_case() -> None:
    store = MemoryStore()
    flags = [Raised("odd", "pump", 1, NOON + n * HOUR, n % 2 == 0, 1.5, 1.0, Status.GOOD, 1) for n in range(6)]
    base = Label("0", LabelKind.VERDICT, "pump", NOON, NOON + HOUR, model="odd")
    normal = replace(base, kind=LabelKind.NORMAL, model="")

    def verdict(name: str, hour: int, word: Verdict, created: int = 1) -> Label:
        return replace(
            base, id=name, verdict=word, start=NOON + 9 * HOUR, as_of=NOON + hour * HOUR, created=NOON + created * HOUR
        )

    await store.write_labels([
        verdict("1", 0, Verdict.FALSE_ALARM), verdict("2", 0, Verdict.CONFIRMED, 2), verdict("3", 1, Verdict.UNCLEAR),
        replace(normal, id="4", start=NOON, end=NOON + 2.5 * HOUR, created=NOON + 3 * HOUR),
        replace(normal, id="7", start=NOON - HOUR),  # it lasts, as far as was known an hour after noon
        replace(base, id="5", kind=LabelKind.FAILURE, start=NOON + 5 * HOUR, created=NOON + 9 * HOUR, model=""),
        replace(verdict("6", 3, Verdict.CONFIRMED), asset="other"),
    ])  # fmt: skip
    made = await judged(store, config("odd", "1h"), flags)
    assert [((each.flag.as_of - NOON) / HOUR, each.real) for each in made] == [(0.0, True), (2.0, False), (4.0, True)]
    early = await judged(store, config("odd", "1h"), flags, known_by=NOON + HOUR)
    assert [((each.flag.as_of - NOON) / HOUR, each.real) for each in early] == [(0.0, False)]
    assert await judged(store, config("odd"), []) == []
