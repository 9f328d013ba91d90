"""What every store must do, whatever it is made of."""

import math
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from plugin.domain import (
    Drift,
    DriftKind,
    Explanation,
    Flag,
    Gap,
    GapCause,
    GapState,
    Meaning,
    ModelState,
    ModelVersion,
    Outcome,
    OutputTag,
    Part,
    Policies,
    Prediction,
    Remark,
    RemarkKind,
    Run,
    RunKind,
    RunResult,
    SampleBatch,
    Status,
    Tag,
    Window,
    from_micros,
    to_micros,
)
from plugin.errors import StoreError
from plugin.infer.windows import dense
from plugin.protocols import Delivery, Store, Written

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ANY = (-(2**62), 2**62)


def tags(count: int) -> list[Tag]:
    return [Tag(f"engine.T{n}", "plant", f"nsu=urn:plant;s=T{n}", "engine", f"T{n}", "K") for n in range(count)]


def delivery(samples: SampleBatch, *gaps: Gap, **checkpoint: str) -> Delivery:
    return Delivery(samples, gaps, checkpoint)


def rows(batch: SampleBatch) -> list[tuple[object, ...]]:
    """Comparable: NaN as None."""
    columns = [column.tolist() for column in batch.columns()]
    return [
        tuple(None if isinstance(x, float) and math.isnan(x) else x for x in row) for row in zip(*columns, strict=True)
    ]


# --- tags ---


async def test_tags_keep_their_keys_and_take_what_changed(store: Store) -> None:
    first = await store.register_tags(tags(3))
    assert len({tag.id for tag in first}) == 3
    assert all(tag.id > 0 for tag in first)
    changed = replace(
        tags(3)[1], unit="degC", element=".Motors[2].Current", sampling=timedelta(milliseconds=500), low=-1.5, asset=""
    )
    again = await store.register_tags([changed, Tag("new", "plant", "nsu=urn:plant;s=new")])
    assert again[0] == replace(changed, id=first[1].id)
    assert again[1].id not in {tag.id for tag in first}
    assert await store.register_tags([]) == ()


# --- samples ---


async def test_samples_come_back_exactly_in_order_of_tag_and_source_time(store: Store) -> None:
    await store.register_tags(tags(2))
    batch = SampleBatch.of(
        [2, 1, 2, 1, 1],
        [30, 20, 10, 10, 40],
        [0.1, np.nan, 5e-324, np.inf, -np.inf],
        [0, Status.BAD, 0x40920480, 0xFFFFFFFF, 0],
        [31, 21, 11, 12, 41],
        [32, 22, 12, 13, 42],
    )
    assert await store.write([delivery(batch)]) == Written(5, 0)
    got = await store.read_samples([2, 1, 2], 10, 40)
    assert rows(got) == [
        (1, 10, np.inf, 0xFFFFFFFF, 12, 13),
        (1, 20, None, Status.BAD, 21, 22),
        (2, 10, 5e-324, 0x40920480, 11, 12),
        (2, 30, 0.1, 0, 31, 32),
    ]
    assert [column.dtype for column in got.columns()] == [column.dtype for column in batch.columns()]
    assert not len(await store.read_samples([1], 40, 40))
    assert not len(await store.read_samples([], *ANY))


async def test_writing_again_changes_nothing(store: Store) -> None:
    await store.register_tags(tags(3))
    rng = np.random.default_rng(1)
    batch = SampleBatch.of(np.tile([1, 2, 3], 2000), np.arange(6000) // 3, rng.normal(size=6000), 0, 1, 2)
    assert await store.write([delivery(batch)]) == Written(6000, 0)
    before = rows(await store.read_samples([1, 2, 3], *ANY))
    later = replace(batch, received_time=batch.received_time + 99)
    assert await store.write([delivery(later), delivery(batch)]) == Written(0, 12_000)
    assert rows(await store.read_samples([1, 2, 3], *ANY)) == before


async def test_a_batch_that_overlaps_stores_what_is_new(store: Store) -> None:
    await store.register_tags(tags(1))
    times = np.arange(3000)
    batch = SampleBatch.of(np.ones(3000), times, times * 0.5, 0, times, times)
    await store.write([delivery(batch.take(slice(500, 1500)))])
    assert await store.write([delivery(batch)]) == Written(2000, 1000)
    assert rows(await store.read_samples([1], *ANY)) == rows(batch)


async def test_different_values_of_one_source_time_are_all_kept_in_order_of_arrival(store: Store) -> None:
    await store.register_tags(tags(1))
    first = SampleBatch.of([1, 1, 1, 1], 10, [3.0, 1.0, 3.0, np.nan], [0, 0, 0, Status.BAD], 10, [1, 2, 3, 4])
    assert await store.write([delivery(first)]) == Written(3, 1)
    second = SampleBatch.of([1, 1, 1, 1], 10, [np.nan, 2.0, 1.0, 1.0], [Status.BAD, 0, 0, 0x400], 10, [5, 6, 7, 8])
    assert await store.write([delivery(second)]) == Written(2, 2)
    got = await store.read_samples([1], *ANY)
    assert rows(got.take([0, 1, 3, 4])) == [
        (1, 10, 3.0, 0, 10, 1),
        (1, 10, 1.0, 0, 10, 2),
        (1, 10, 2.0, 0, 10, 6),
        (1, 10, 1.0, 0x400, 10, 8),
    ]
    assert rows(got.take([2])) == [(1, 10, None, Status.BAD, 10, 4)]
    assert rows(await store.latest([1])) == rows(got.take([4]))


async def test_the_same_value_with_and_without_a_sign_of_zero_is_one_value(store: Store) -> None:
    await store.register_tags(tags(1))
    assert await store.write([delivery(SampleBatch.of([1, 1], 10, [-0.0, 0.0], 0, 1, 1))]) == Written(1, 1)
    value = (await store.read_samples([1], *ANY)).value
    assert not np.signbit(value[0])


async def test_late_samples_go_where_they_belong(store: Store) -> None:
    await store.register_tags(tags(2))
    for times in ([50, 60], [10], [70], [55, 40]):
        await store.write([delivery(SampleBatch.of([1] * len(times), times, np.array(times) / 2, 0, times, 99))])
    got = await store.read_samples([1], 40, 70)
    assert got.source_time.tolist() == [40, 50, 55, 60]
    assert rows(await store.latest([1, 2])) == [(1, 70, 35.0, 0, 70, 99)]


async def test_a_reader_of_the_past_sees_only_what_was_known_then(store: Store) -> None:
    await store.register_tags(tags(1))
    batch = SampleBatch.of([1, 1, 1], [10, 20, 30], [1.0, 2.0, 3.0], 0, [10, 500, 30], [11, 501, 900])
    await store.write([delivery(batch)])
    assert (await store.read_samples([1], 0, 99, known_by=30)).source_time.tolist() == [10, 30]
    assert (await store.read_samples([1], 0, 99, received_by=501)).source_time.tolist() == [10, 20]
    assert (await store.read_samples([1], 0, 99, known_by=499, received_by=899)).source_time.tolist() == [10]


def moment() -> int:
    """Our clock [µs], once all that was written before has an earlier time."""
    now = time.time_ns() // 1000
    while time.time_ns() // 1000 <= now:
        pass
    return now + 1


async def test_a_sample_that_comes_in_after_a_run_was_begun_was_not_received_before_it(store: Store) -> None:
    await store.register_tags(tags(1))
    begun = moment()
    await store.write([delivery(SampleBatch.of([1, 1], [10, 20], 1.0, 0, 1, [begun - 9, begun + 9]))])
    assert (await store.read_samples([1], *ANY)).received_time.tolist() == [begun - 9, begun + 9], "no run was begun"
    first = await store.write_run(replace(run(), started=from_micros(begun)))
    await store.write([delivery(SampleBatch.of([1, 1], [30, 40], 1.0, 0, 1, [begun - 5, begun + 2**50]))])
    assert (await store.read_samples([1], *ANY, received_by=begun)).source_time.tolist() == [10]
    assert (await store.read_samples([1], *ANY, received_by=moment())).source_time.tolist() == [10, 20, 30]
    future = first.started + HOUR if first.started else NOON
    await store.write_run(replace(run(), started=future))
    await store.write_run(replace(run(), kind=RunKind.TRAIN, started=NOON))
    await store.write([delivery(SampleBatch.of([1], 50, 1.0, 0, 1, begun))])
    got = await store.read_samples([1], 50, 51)
    assert got.received_time.tolist() == [begun], "a clock that was set back hides nothing from the runs that follow"


async def test_the_years_1601_and_9999_are_times_like_others(store: Store) -> None:
    await store.register_tags(tags(1))
    ends = [-11_644_473_600_000_000, 253_402_300_799_999_999]
    await store.write([delivery(SampleBatch.of([1, 1, 1], [ends[1], 0, ends[0]], [1.0, 2.0, 3.0], 0, 0, 0))])
    assert (await store.read_samples([1], ends[0], ends[1] + 1)).source_time.tolist() == [ends[0], 0, ends[1]]
    assert (await store.latest([1])).source_time.tolist() == [ends[1]]


async def test_an_unknown_tag_refuses_the_write_and_all_that_came_with_it(store: Store) -> None:
    await store.register_tags(tags(1))
    good = SampleBatch.of([1], 1, 1.0, 0, 1, 1)
    for key in (0, -1, 2, 2**31 - 1):
        with pytest.raises(StoreError, match=str(key)):
            await store.write([delivery(good, gap("a"), key="text"), delivery(SampleBatch.of([key], 1, 1.0, 0, 1, 1))])
    assert (await store.counts())["samples"] == 0
    assert await store.gaps() == ()
    assert not await store.checkpoints("")
    with pytest.raises(OverflowError):
        SampleBatch.of([2**31], 1, 1.0, 0, 1, 1)


async def test_an_empty_write_is_no_error(store: Store) -> None:
    assert await store.write([]) == Written(0, 0)
    assert await store.write([delivery(SampleBatch.empty())]) == Written(0, 0)


async def test_latest_finds_the_newest_of_each_tag_however_old(store: Store) -> None:
    await store.register_tags(tags(4))
    year = 365 * 86_400_000_000
    await store.write(
        [delivery(SampleBatch.of([1, 2, 1, 3, 2], [5 * year, year, 1, 0, 2], [1.0, 2, 3, 4, 5], 0, 0, 0))]
    )
    assert rows(await store.latest([3, 2, 1, 4])) == [
        (1, 5 * year, 1.0, 0, 0, 0),
        (2, year, 2.0, 0, 0, 0),
        (3, 0, 4.0, 0, 0, 0),
    ]


async def test_a_grid_is_what_the_samples_give(store: Store) -> None:
    await store.register_tags(tags(4))
    time = np.repeat(np.arange(20), 3) * 1000
    ticks = SampleBatch.of(np.tile([1, 2, 3], 20), time + 7, time * 0.5, 0, time + 8, time + 9)
    odd = SampleBatch.of(
        [3, 3, 2, 4], [15_500, 16_100, 17_900, 300], [np.nan, 2.0, 1e39, 5.0], [0x80000000, 0, 0, 0], 0, 9
    )
    await store.write([delivery(ticks), delivery(odd)])
    policies = Policies.of(4, [3000, 500, 0, 15_000], [True, False, True, False], [True, False, True, True])
    for start, length, received_by in (
        (10_000, 10, None),
        (10_000, 10, 18_500),
        (14_000, 3, None),
        (10_300, 4, 16_000),
    ):
        window = Window((4, 2, 1, 3), start, 1000, length, policies, ((1, 12_500, 13_500),))
        for bounds in ({"received_by": received_by}, {"known_by": received_by}):
            grid = await store.grid(window, **bounds)
            expected = dense(await store.read_samples(window.tags, -(2**50), window.end, **bounds), window)
            assert expected.observed.any()
            for name in ("cells", "values", "observed", "good", "held"):
                assert np.array_equal(getattr(grid, name), getattr(expected, name)), name
    assert not (await store.grid(Window((), 0, 1000, 3, Policies.of(0, 0)))).values.size


# --- texts ---


def with_texts(batch: SampleBatch, *texts: str | None) -> SampleBatch:
    return replace(batch, text=np.array(texts, np.object_))


def texts(batch: SampleBatch) -> list[str | None] | None:
    return None if batch.text is None else batch.text.tolist()


async def test_texts_come_back_with_their_samples(store: Store) -> None:
    await store.register_tags(tags(3))
    words = ["running", None, "", "a\0b \N{PILE OF POO}'", "9007199254740993", None]
    batch = SampleBatch.of(
        [1, 2, 1, 1, 3, 3], [10, 10, 20, 30, 5, 6], [np.nan, 1.0, np.nan, np.nan, 2.0**53, 7], 0, 1, 2
    )
    assert await store.write([delivery(with_texts(batch, *words))]) == Written(6, 0)
    got = await store.read_samples([1, 2, 3], *ANY)
    assert texts(got) == ["running", "", words[3], None, words[4], None]
    assert got.tag.tolist() == [1, 1, 1, 2, 3, 3]
    assert texts(await store.latest([1, 2, 3])) == [words[3], None, None]
    assert texts(await store.latest([2])) is None
    assert texts(await store.read_samples([2], *ANY)) is None
    assert texts(await store.read_samples([1], 10, 11, known_by=1)) == ["running"]


async def test_samples_that_differ_in_their_text_alone_are_different(store: Store) -> None:
    await store.register_tags(tags(2))
    first = SampleBatch.of([1, 1, 1, 1], 10, np.nan, 0, 10, [1, 2, 3, 4])
    assert await store.write([delivery(with_texts(first, "b", "a", "b", None))]) == Written(3, 1)
    again = SampleBatch.of([1, 1, 1, 1, 2], 10, [np.nan, np.nan, np.nan, 5.0, np.nan], 0, 10, [5, 6, 7, 8, 9])
    assert await store.write([delivery(with_texts(again, "a", "c", None, "5", None))]) == Written(3, 2)
    assert await store.write([delivery(replace(again, text=None).take([2, 3, 4]))]) == Written(1, 2)
    got = await store.read_samples([1, 2], *ANY)
    assert texts(got) == ["b", "a", None, "c", "5", None, None]
    assert got.received_time.tolist() == [1, 2, 4, 6, 8, 8, 9]
    assert texts(await store.latest([1])) is None


async def test_a_number_at_the_time_of_a_text_is_another_sample(store: Store) -> None:
    await store.register_tags(tags(1))
    text = with_texts(SampleBatch.of([1], 10, np.nan, 0, 10, 1), "on")
    assert await store.write([delivery(text)]) == Written(1, 0)
    numbers = SampleBatch.of([1, 1, 1], 10, [1.0, np.nan, 1.0], 0, 10, [2, 3, 4])
    assert await store.write([delivery(numbers)]) == Written(2, 1)
    assert await store.write([delivery(numbers), delivery(text)]) == Written(0, 4)
    got = await store.read_samples([1], *ANY)
    assert texts(got) == ["on", None, None]
    assert got.received_time.tolist() == [1, 2, 3]


async def test_many_texts_in_one_write(store: Store) -> None:
    await store.register_tags(tags(5))
    count = 5000
    tag = np.tile([1, 2, 3, 4, 5], count // 5)
    words = [f"batch {n}" if n % 5 < 2 else None for n in range(count)]
    batch = with_texts(SampleBatch.of(tag, np.arange(count) // 5, np.where(tag < 3, np.nan, tag), 0, 1, 2), *words)
    assert await store.write([delivery(batch.take(slice(1500, 2600)))]) == Written(1100, 0)
    assert await store.write([delivery(batch)]) == Written(count - 1100, 1100)
    got = await store.read_samples([2], *ANY)
    assert texts(got) == words[1::5]


# --- remarks ---


async def test_remarks_are_kept_once_and_listed_newest_first(store: Store) -> None:
    await store.register_tags(tags(1))
    first = Remark("plant", "engine.T0", RemarkKind.TIME_WENT_BACK, NOON, "3 values up to 2.5 s older")
    second = Remark("plant", "engine.T0", RemarkKind.TYPE_CHANGED, NOON + HOUR, "Double before, String now")
    third = replace(second, tag="engine.T1")
    samples = SampleBatch.of([1], 1, 1.0, 0, 1, 1)
    assert await store.write([Delivery(samples, remarks=(first, second))]) == Written(1, 0)
    await store.write([Delivery(SampleBatch.empty(), remarks=(third, replace(first, detail="again")))])
    assert await store.remarks() == (second, third, replace(first, detail="again"))
    assert await store.remarks(limit=1) == (second,)
    assert await store.remarks(since=NOON + HOUR) == (second, third)
    assert await store.remarks(tag="engine.T1") == (third,)


# --- gaps and checkpoints ---


def gap(name: str, at: datetime = NOON, **changes: object) -> Gap:
    return replace(Gap(name, "plant", None, at - HOUR, at, GapCause.SERVER_DOWN, at), **changes)  # type: ignore[arg-type]


async def test_gaps_are_replaced_by_id_and_listed_newest_first(store: Store) -> None:
    first, second = gap("a", tag="engine.T1", end=None), gap("b", NOON + HOUR, detail="cable")
    assert await store.write([delivery(SampleBatch.empty(), first, second)]) == Written(0, 0)
    assert await store.gaps() == (second, first)
    filled = replace(first, end=NOON, state=GapState.FILLED, rows_filled=7)
    await store.write([delivery(SampleBatch.empty(), filled)])
    assert await store.gaps() == (second, filled)
    assert await store.gaps(open_only=True) == (second,)
    assert await store.gaps(limit=1) == (second,)
    assert await store.gaps(since=NOON) == (second, filled)
    assert await store.gaps(since=NOON + HOUR) == (second,)
    lasting = gap("c", end=None)
    await store.write([delivery(SampleBatch.empty(), lasting)])
    assert lasting in await store.gaps(since=NOON + 9 * HOUR)
    assert await store.gaps(until=NOON) == (filled, lasting), "of the other one the first moment is not before it"
    assert await store.gaps(since=NOON - HOUR, until=NOON - HOUR) == ()
    assert (await store.counts())["gaps"] == 3


async def test_gaps_are_chosen_by_what_a_person_asks_for(store: Store) -> None:
    whole, own = gap("a"), gap("b", NOON + HOUR, tag="engine.T1", cause=GapCause.OVERFLOW)
    other, strange = gap("c", NOON + 2 * HOUR, tag="engine.T2"), gap("d", NOON + 3 * HOUR, source="mill")
    assert await store.open_gaps() == 0
    filled = replace(other, state=GapState.FILLED)
    await store.write([delivery(SampleBatch.empty(), whole, own, filled, strange)])
    assert await store.gaps(source="mill") == (strange,)
    assert await store.gaps(tag="engine.T1") == (strange, own, whole)
    assert await store.gaps(tag="engine.T1", source="plant") == (own, whole)
    assert await store.gaps(cause=GapCause.OVERFLOW) == (own,)
    assert await store.gaps(cause=GapCause.SEQUENCE) == ()
    assert await store.gaps(source="plant", open_only=True, since=NOON + HOUR) == (own,)
    assert await store.open_gaps() == 3


async def test_gaps_are_given_as_they_were_known_at_a_moment(store: Store) -> None:
    before = moment()
    lasting, other = gap("a", tag="engine.T1", end=None), gap("b", NOON + HOUR)
    await store.write([delivery(SampleBatch.empty(), replace(lasting, detail="superseded at once"), lasting, other)])
    opened = moment()
    ended = replace(lasting, end=NOON, detail="cable")
    await store.write([delivery(SampleBatch.empty(), ended)])
    closed = moment()
    await store.write([delivery(SampleBatch.empty(), ended)])  # told again: nothing new
    filled = replace(ended, state=GapState.FILLED, rows_filled=7)
    await store.write([delivery(SampleBatch.empty(), filled)])
    assert await store.gaps(known_by=before) == ()
    assert await store.gaps(known_by=opened) == (other, lasting)
    assert await store.gaps(known_by=closed) == (other, ended)
    assert await store.gaps(known_by=moment()) == (other, filled) == await store.gaps()
    assert await store.gaps(known_by=opened, since=NOON + HOUR) == (other, lasting), "it lasted then"
    assert await store.gaps(known_by=closed, since=NOON + HOUR) == (other,)
    assert await store.gaps(known_by=closed, open_only=True, tag="engine.T1", limit=1) == (other,)
    assert await store.open_gaps() == 1
    assert (await store.counts())["gaps"] == 2


async def test_checkpoints_are_found_by_prefix(store: Store) -> None:
    await store.write([Delivery(SampleBatch.empty(), checkpoint={"plant/a": "1", "plant_/a": "2", "Plant/a": "3"})])
    await store.write([Delivery(SampleBatch.empty(), checkpoint={"plant/a": "4", "plant/%": "é"})])
    assert await store.checkpoints("plant/") == {"plant/a": "4", "plant/%": "é"}
    assert await store.checkpoints("plant_") == {"plant_/a": "2"}
    assert len(await store.checkpoints("")) == 4


# --- runs and what they give ---

RUL = OutputTag("rul", "engine", "rul", "cycles", 0, 125, "Remaining useful life")
SCORE = OutputTag("health", "engine", "score", "", 0, 1, "Anomaly score", Meaning.FLAG)


def prediction(run: Run, tag: OutputTag = RUL, hours: int = 0, value: float | None = 80.5) -> Prediction:
    as_of = NOON + hours * HOUR
    return Prediction(tag, 3, as_of, as_of, as_of + HOUR, value, 70.0, None, Status.UNCERTAIN_SUB_NORMAL, 0.75, run.id)


def run(hours: int = 0, model: str = "rul") -> Run:
    return Run(0, model, RunKind.SCORE, NOON + hours * HOUR)


async def test_a_run_gets_a_key_and_can_be_finished(store: Store) -> None:
    first, second = await store.write_run(run()), await store.write_run(run(1))
    assert 0 < first.id < second.id
    done = replace(
        first,
        started=NOON,
        finished=NOON + HOUR,
        result=RunResult.DONE,
        version=2,
        assets=20,
        stages={"window": 0.25, "infer": 0.5},
        unheard={"plant": 1_714_564_800_000_001, "mill": 0},
    )
    assert await store.write_run(done) == done
    assert await store.runs("rul") == (second, done)
    assert await store.runs("rul", limit=1) == (second,)
    assert await store.runs("nox") == ()
    with pytest.raises(StoreError, match="no run 99"):
        await store.write_run(replace(first, id=99))


async def test_what_a_challenger_said_in_shadow_is_given_only_to_who_asks_for_it(store: Store) -> None:
    champions, shadows = await store.write_run(run()), await store.write_run(replace(run(), kind=RunKind.SHADOW))
    flag = Flag("rul", "engine", 3, NOON, True, 0.9, 0.5, Status.GOOD, champions.id)
    for each in (champions, shadows):
        given = prediction(each), prediction(each, SCORE)
        await store.write_outcome(Outcome(each, given, (replace(flag, run=each.id),)))
    for each, shadow in ((champions, False), (shadows, True)):
        found = await store.predictions("rul", NOON, NOON + HOUR, shadow=shadow)
        assert [made.run for made in found] == [each.id]
        assert [made.run for made in await store.flags(NOON, NOON + HOUR, shadow=shadow)] == [each.id]
    assert {made.run for made in await store.predictions("rul", NOON, NOON + HOUR)} == {champions.id}
    assert {made.run for made in await store.flags(NOON, NOON + HOUR)} == {champions.id}
    other = await store.predictions("rul", NOON, NOON + HOUR, asset="engine", output="rul", shadow=True)
    assert [made.run for made in other] == [shadows.id]


async def test_an_outcome_is_written_together_and_only_once(store: Store) -> None:
    started = await store.write_run(run())
    predictions = (prediction(started), prediction(started, SCORE, value=None))
    flag = Flag("health", "engine", 3, NOON, True, 0.9, float("inf"), Status.GOOD, started.id)
    done = replace(started, result=RunResult.DONE)
    for _ in range(2):
        await store.write_outcome(Outcome(done, predictions, (flag,)))
    assert await store.predictions("rul", NOON, NOON + HOUR) == predictions[:1]
    assert await store.predictions("health", NOON, NOON + HOUR) == predictions[1:]
    assert await store.flags(NOON, NOON + HOUR) == (flag,)
    assert await store.flags(NOON, NOON) == ()
    assert await store.flags(NOON, NOON + HOUR, asset="pump") == ()
    assert await store.runs("rul") == (done,)
    counts = await store.counts()
    assert (counts["predictions"], counts["flags"], counts["runs"]) == (2, 1, 1)


async def test_what_explains_a_result_is_kept_with_it(store: Store) -> None:
    started = await store.write_run(run())
    told = Explanation(RUL, NOON, started.id, {"T50": 0.5, "age": 0.3, "P30": 0.2})
    other = Explanation(replace(RUL, asset="pump"), NOON, started.id, {"flow": 1.0})
    for _ in range(2):
        await store.write_outcome(Outcome(started, (prediction(started),), (), (told, other)))
    got = await store.explanations("rul", NOON, NOON + HOUR)
    assert got == (told, other)
    assert list(got[0].shares) == ["T50", "age", "P30"], "the largest first"
    assert await store.explanations("rul", NOON, NOON + HOUR, asset="pump") == (other,)
    assert await store.explanations("health", NOON, NOON + HOUR) == await store.explanations("rul", NOON, NOON) == ()


async def test_drifts_are_replaced_by_id_and_found_newest_first(store: Store) -> None:
    await store.add_version(version())
    first = Drift("a", "rul", 1, DriftKind.INPUT, "engine", "T50", NOON, NOON + HOUR, None, 0.4, 0.2, "warmer")
    second = replace(first, id="b", kind=DriftKind.RESIDUAL, subject="rul", noticed=NOON + 2 * HOUR)
    await store.write_drifts((first, second))
    ended = replace(first, until=NOON + 3 * HOUR)
    await store.write_drifts((ended,))
    assert await store.drifts() == (second, ended)
    assert await store.drifts(open_only=True) == (second,)
    assert await store.drifts(model="rul", limit=1) == (second,)
    assert await store.drifts(since=NOON + 2 * HOUR) == (second, ended)
    assert await store.drifts(model="rul", since=NOON + 3 * HOUR) == (second,)
    assert await store.drifts(model="nox") == ()
    with pytest.raises(StoreError):
        await store.write_drifts((replace(first, id="c", version=9),))


async def test_predictions_are_chosen_by_time_asset_and_output_in_order(store: Store) -> None:
    started = await store.write_run(run())
    other = replace(RUL, asset="compressor")
    health = replace(RUL, output="health")
    made = [prediction(started, tag, hours) for hours in (1, 0, 2) for tag in (RUL, other, health)]
    await store.write_outcome(Outcome(started, tuple(made), ()))
    got = await store.predictions("rul", NOON, NOON + 2 * HOUR)
    assert [(p.as_of.hour, p.tag.asset, p.tag.output) for p in got] == [
        (hour, asset, output)
        for hour in (12, 13)
        for asset, output in (("compressor", "rul"), ("engine", "health"), ("engine", "rul"))
    ]
    assert await store.predictions("rul", NOON, NOON + HOUR, asset="engine", output="health") == (made[5],)


FORECAST = replace(RUL, output="load", meaning=Meaning.FORECAST)
ALARM = replace(RUL, output="flag", meaning=Meaning.FLAG)


async def test_what_was_said_of_an_output_is_a_series_in_which_the_last_word_stands(store: Store) -> None:
    first = replace(await store.write_run(run()), finished=NOON + timedelta(minutes=1))
    second, shadow = await store.write_run(run(1)), await store.write_run(replace(run(2), kind=RunKind.SHADOW))
    health = replace(RUL, output="health")
    await store.write_outcome(Outcome(first, tuple(prediction(first, t, h) for t in (RUL, health) for h in (2, 0)), ()))
    await store.write_outcome(Outcome(second, (prediction(second, hours=2, value=7), prediction(second, hours=3)), ()))
    await store.write_outcome(Outcome(shadow, tuple(prediction(shadow, hours=hour) for hour in (2, 4)), ()))
    start, end = to_micros(NOON), to_micros(NOON + 9 * HOUR)

    told = await store.told(RUL, Part.VALUE, start, end)
    hour = to_micros(NOON + HOUR) - start
    assert told.source_time.tolist() == [start, start + 2 * hour, start + 3 * hour]
    assert told.value.tolist() == [80.5, 7.0, 80.5]
    assert told.status.tolist() == [Status.UNCERTAIN_SUB_NORMAL] * 3
    assert told.server_time.tolist() == [start + hour // 60, start + 2 * hour, start + 3 * hour]
    newest = await store.told(RUL, Part.LOWER, start, start + 3 * hour, limit=1, newest_first=True)
    assert (newest.source_time.tolist(), newest.value.tolist()) == ([start + 2 * hour], [70.0])
    upper = await store.told(RUL, Part.UPPER, start, start + hour)
    assert (np.isnan(upper.value).tolist(), upper.status.tolist()) == ([True], [Status.BAD_NO_DATA])
    assert len(await store.told(replace(RUL, asset="nowhere"), Part.VALUE, start, end)) == 0


async def test_a_forecast_is_a_series_of_what_was_said_last_of_each_instant(store: Store) -> None:
    first, second = await store.write_run(run()), await store.write_run(run(1))
    for started, hours, value in ((second, 1, 20.0), (first, 0, 10.0)):
        said = prediction(started, FORECAST, hours)
        ahead = (replace(said, target_time=said.as_of + n * HOUR, value=value + n) for n in (1, 2))
        await store.write_outcome(Outcome(started, tuple(ahead), ()))
    start = to_micros(NOON)
    told = await store.told(FORECAST, Part.VALUE, start, to_micros(NOON + 9 * HOUR))
    assert told.value.tolist() == [11.0, 21.0, 22.0]
    assert ((told.source_time - start) // 3_600_000_000).tolist() == [1, 2, 3]
    back = await store.told(FORECAST, Part.VALUE, start, to_micros(NOON + 3 * HOUR), limit=1, newest_first=True)
    assert back.value.tolist() == [21.0]


async def test_flags_are_a_series_of_raised_or_not(store: Store) -> None:
    first, second = await store.write_run(run()), await store.write_run(run(1))
    flag = Flag("rul", "engine", 3, NOON, True, 3.5, float("nan"), Status.GOOD, first.id)
    later = replace(flag, run=second.id, raised=False, score=1.5)
    await store.write_outcome(Outcome(second, (), (later,)))
    await store.write_outcome(Outcome(first, (), (flag, replace(flag, as_of=NOON + HOUR))))
    span = to_micros(NOON), to_micros(NOON + 2 * HOUR)
    assert (await store.told(ALARM, Part.VALUE, *span)).value.tolist() == [0.0, 1.0]
    assert (await store.told(ALARM, Part.SCORE, *span)).value.tolist() == [1.5, 3.5]
    threshold = await store.told(ALARM, Part.THRESHOLD, *span, newest_first=True)
    assert threshold.status.tolist() == [Status.BAD_NO_DATA] * 2
    assert np.isnan(threshold.value).all()


async def test_an_outcome_of_no_run_writes_nothing(store: Store) -> None:
    started = await store.write_run(run())
    with pytest.raises(StoreError):
        await store.write_outcome(Outcome(replace(started, id=77), (prediction(started),), ()))
    with pytest.raises(StoreError):
        await store.write_outcome(Outcome(started, (prediction(started), prediction(replace(started, id=77))), ()))
    assert await store.predictions("rul", NOON, NOON + HOUR) == ()


# --- model versions ---


def version(state: ModelState = ModelState.CHALLENGER) -> ModelVersion:
    spec = {"features": ["T24", "T30"], "window": 30, "quantiles": [0.05, 0.95], "cell": None}
    return ModelVersion(
        "rul", 9, "rul_lstm", state, NOON, spec, {"rmse": 11.5}, {"seeds": [1, 2]}, "rul-1.st", "ab" * 32
    )


async def test_versions_count_up_within_a_model(store: Store) -> None:
    first = await store.add_version(version())
    assert first == replace(version(), version=1)
    assert (await store.add_version(replace(version(), model="nox"))).version == 1
    second = await store.add_version(version())
    assert second.version == 2
    assert await store.versions("rul") == (second, first)
    assert await store.versions("none") == ()
    assert (await store.counts())["model_versions"] == 3


async def test_there_is_one_champion(store: Store) -> None:
    async def states() -> list[ModelState]:
        return [version.state for version in await store.versions("rul")]

    for _ in range(2):
        await store.add_version(version(ModelState.CHAMPION))
    await store.add_version(version())
    assert await states() == [ModelState.CHALLENGER, ModelState.CHAMPION, ModelState.RETIRED]
    await store.set_state("rul", 3, ModelState.CHAMPION)
    await store.set_state("rul", 3, ModelState.CHAMPION)
    assert await states() == [ModelState.CHAMPION, ModelState.RETIRED, ModelState.RETIRED]
    await store.set_state("rul", 3, ModelState.RETIRED)
    assert ModelState.CHAMPION not in await states()
    await store.set_state("rul", 1, ModelState.CHAMPION)
    with pytest.raises(StoreError, match="no version 4"):
        await store.set_state("rul", 4, ModelState.CHAMPION)
    assert await states() == [ModelState.RETIRED, ModelState.RETIRED, ModelState.CHAMPION]


async def test_a_metric_that_is_no_number_is_kept_as_such(store: Store) -> None:
    await store.add_version(replace(version(), metrics={"rmse": 1.5, "coverage": float("nan")}))
    metrics = (await store.versions("rul"))[0].metrics
    assert metrics["rmse"] == 1.5
    assert np.isnan(metrics["coverage"])


async def test_a_tag_is_whole_as_long_as_nothing_of_it_was_dropped(store: Store) -> None:
    await store.register_tags(tags(2))
    await store.write([Delivery(SampleBatch.of([1], [5], 1.0, 0, 5, 5))])
    assert await store.kept_since([1, 2]) == {}
