"""Roll-ups are what a slow and obvious reckoning makes of the samples, at every level."""

import math
from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.domain import Level, Policies, RollUps, SampleBatch, Status, Tag, Window
from plugin.historian.closed.rollup import NO_HOLES, Holes, coarser, concatenated, holes, last_samples, roll_up
from plugin.infer.windows import dense

SECOND, MINUTE, HOUR, DAY = 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000
NOON = 1_709_208_000_000_000  # of a leap day
GOOD, UNCERTAIN, BAD = int(Status.GOOD), int(Status.UNCERTAIN), int(Status.BAD)

TAGS = [Tag(f"T{number}", "plant", f"i={number}", id=number) for number in (1, 2, 3)]

Row = tuple[int, int, float, int]


def batch_of(rows: list[Row]) -> SampleBatch:
    if not rows:
        return SampleBatch.empty()
    tag, time, value, status = zip(*rows, strict=True)
    return SampleBatch.of(tag, time, value, status, 0, 0)


def usable(row: Row | None) -> bool:
    return row is not None and row[3] >> 30 < 2 and not math.isnan(row[2])


def obvious(rows: list[Row], held: list[Row], start: int, end: int, level: Level, gaps: list[tuple[int, int]]):
    """The fields of RollUps by (tag, start), interval by interval and piece by piece."""
    found = {}
    for tag, begin in sorted({(row[0], row[1] // level.width * level.width) for row in rows}):
        inside = [row for row in rows if row[0] == tag and begin <= row[1] < begin + level.width]
        values = [row[2] for row in inside if usable(row)]
        mine = [row for row in [*held, *rows] if row[0] == tag]
        holed = [begun for t, begun in gaps if t == tag]
        low, high = max(begin, start), min(begin + level.width, end)
        cuts = {low, high, *(row[1] for row in inside), *holed}
        borders = sorted(cut for cut in cuts if low <= cut <= high)
        observed, good, area = 0, 0, 0.0
        for a, b in pairwise(borders):
            now = [row for row in mine if row[1] <= a]
            if now and usable(now[-1]) and not any(now[-1][1] <= c <= a for c in holed):
                observed += b - a
                good += (b - a) * (now[-1][3] >> 30 == 0)
                area += (b - a) * now[-1][2]
        first, last = inside[0], inside[-1]
        found[tag, begin] = {
            "samples": len(inside),
            "good": sum(row[3] >> 30 == 0 for row in inside),
            "numbers": len(values),
            "minimum": min(values, default=math.nan),
            "maximum": max(values, default=math.nan),
            "mean": math.fsum(values) / len(values) if values else math.nan,
            "first_time": first[1],
            "first_value": first[2] if usable(first) else math.nan,
            "last_time": last[1],
            "last_value": last[2] if usable(last) else math.nan,
            "last_status": last[3],
            "weighted_mean": area / observed if observed else math.nan,
            "observed": observed,
            "good_time": good,
        }
    return found


def by_interval(roll_ups: RollUps) -> dict[Any, dict[str, Any]]:
    columns = {each.name: getattr(roll_ups, each.name).tolist() for each in fields(RollUps)}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {(row.pop("tag"), row.pop("start")): row for row in rows}


def assert_alike(found: RollUps, expected: dict[Any, dict[str, Any]]) -> None:
    rows = by_interval(found)
    assert list(rows) == list(expected)
    for key, row in rows.items():
        assert row == pytest.approx(expected[key], rel=1e-9, abs=1e-6, nan_ok=True), key


OFFSETS = st.one_of(
    st.integers(-40, 40).map(lambda i: i * 15 * SECOND),
    st.integers(-4, 80).map(lambda i: i * HOUR // 2),
    st.integers(-DAY, 3 * DAY),
)
VALUES = st.sampled_from([0.0, 0.1, -3.25, 1e3, 2.5e6, math.nan])
STATUSES = st.sampled_from([GOOD, GOOD, UNCERTAIN, BAD, BAD | 0x480])
ROWS = st.lists(st.tuples(st.integers(1, 3), OFFSETS, VALUES, STATUSES), max_size=30)
GAPS = st.lists(st.tuples(st.integers(1, 3), OFFSETS), max_size=4)
STARTS = st.sampled_from([NOON, NOON + 12 * HOUR, NOON - 7 * MINUTE])
LENGTHS = st.sampled_from([3 * MINUTE, 5 * HOUR + 17 * SECOND, 3 * DAY])


@settings(max_examples=180, deadline=None)
@given(ROWS, GAPS, STARTS, LENGTHS)
def test_every_level_is_as_reckoned_from_the_samples(offsets, begun, start, length):
    rows = sorted(((tag, start + offset, *rest) for tag, offset, *rest in offsets), key=lambda row: row[:2])
    end = start + length
    held = list({row[0]: row for row in rows if row[1] < start}.values())
    rows = [row for row in rows if start <= row[1] < end]
    gaps = [(tag, start + offset) for tag, offset in begun]
    context = batch_of(held), start, end
    arrays = holes([("plant", f"T{tag}", begin) for tag, begin in gaps], TAGS)
    finer = roll_up(batch_of(rows), *context, Level.MINUTE, arrays)
    assert_alike(finer, obvious(rows, held, start, end, Level.MINUTE, gaps))
    for level in (Level.HOUR, Level.DAY):
        expected = obvious(rows, held, start, end, level, gaps)
        assert_alike(roll_up(batch_of(rows), *context, level, arrays), expected)
        finer = coarser(finer, *context, level, arrays)
        assert_alike(finer, expected)


def test_gaps_of_many_tags_over_all_of_time():
    tag = np.arange(1, 65, dtype=np.int32)
    time = tag.astype(np.int64) * 1_000_000 * DAY
    gaps = Holes(tag, time + tag * SECOND)
    found = roll_up(SampleBatch.of(tag, time, 1.0, 0, 0, 0), SampleBatch.empty(), 0, 2**63 - 1, Level.DAY, gaps)
    assert found.observed.tolist() == [each * SECOND for each in tag.tolist()]


# Samples and gaps of one tag by the minute; of each hour how many minutes a value stands.
GAPPED: dict[str, tuple[list[int], list[tuple[int, int]], dict[int, int]]] = {
    "inside": ([0, 50], [(20, 40)], {0: 30}),
    "to the end": ([0, 70], [(20, 60)], {0: 20, 1: 50}),
    "from the beginning": ([0, 90], [(60, 80)], {0: 60, 1: 30}),
    "from a sample on": ([0, 30, 50], [(30, 40)], {0: 40}),
    "up to a sample": ([0, 40], [(20, 40)], {0: 40}),
    "over several hours": ([30, 220], [(50, 200)], {0: 20, 3: 20}),
    "in an empty hour": ([30, 150], [(70, 80)], {0: 30, 2: 30}),
    "with a sample in it": ([0, 30], [(20, 50)], {0: 50}),
    "in a gap": ([0, 25, 50], [(20, 45), (30, 40)], {0: 35}),
    "after the last": ([0], [(20, 30)], {0: 20}),
}


@pytest.mark.parametrize(("samples", "gaps", "stands"), GAPPED.values(), ids=GAPPED)
def test_a_value_from_before_a_gap_does_not_stand_again_after_it(samples, gaps, stands):
    rows = [(1, NOON + minute * MINUTE, 4.0, GOOD) for minute in samples]
    missing = holes([("plant", "T1", NOON + start * MINUTE) for start, _ in gaps], TAGS)
    context = SampleBatch.empty(), NOON, NOON + DAY
    hours = roll_up(batch_of(rows), *context, Level.HOUR, missing)
    expected = {NOON + hour * HOUR: minutes * MINUTE for hour, minutes in stands.items()}
    assert dict(zip(hours.start.tolist(), hours.observed.tolist(), strict=True)) == expected
    minutes = roll_up(batch_of(rows), *context, Level.MINUTE, missing)
    assert_alike(coarser(minutes, *context, Level.HOUR, missing), by_interval(hours))
    # And so does a model see it, minute by minute of these hours.
    policies = Policies.of(1, [DAY], [False], [True])
    spans = tuple((1, NOON + start * MINUTE, NOON + end * MINUTE) for start, end in gaps)
    seen = dense(batch_of(rows), Window((1,), NOON, MINUTE, 240, policies, spans)).observed[0]
    seen[[start for start, _ in gaps if start in samples]] = False  # a cell shows its own sample, whatever comes then
    by_hour = seen.reshape(4, 60).sum(axis=1) * MINUTE
    assert {NOON + hour * HOUR: int(by_hour[hour]) for hour in stands} == expected


def test_a_value_that_came_late_in_its_hour_stands_for_the_rest_of_it():
    found = roll_up(batch_of([(1, NOON + 45 * MINUTE, 8.0, GOOD)]), SampleBatch.empty(), NOON, NOON + DAY, Level.HOUR)
    assert found.observed.tolist() == found.good_time.tolist() == [15 * MINUTE]
    assert found.weighted_mean.tolist() == [8.0]


def test_what_is_held_stands_until_the_first_sample():
    held = batch_of([(1, NOON - DAY, 2.0, UNCERTAIN), (2, NOON - 1, math.nan, BAD)])
    rows = batch_of([(1, NOON + 30 * MINUTE, 4.0, GOOD), (2, NOON + 30 * MINUTE, 4.0, GOOD)])
    found = roll_up(rows, held, NOON, NOON + HOUR, Level.HOUR)
    assert found.weighted_mean.tolist() == [3.0, 4.0]
    assert found.observed.tolist() == [HOUR, 30 * MINUTE]
    assert found.good_time.tolist() == [30 * MINUTE, 30 * MINUTE]
    assert found.first_value.tolist() == [4.0, 4.0]


def test_parts_of_a_stretch_join_where_one_holds_what_the_other_ends_with():
    random = np.random.default_rng(5)
    time = np.sort(NOON + random.integers(0, 2 * HOUR, 300))
    rows = SampleBatch.of(np.ones(300), time, random.normal(size=300), 0, 0, 0)
    whole = roll_up(rows, SampleBatch.empty(), NOON, NOON + 2 * HOUR, Level.MINUTE)
    cut = time < NOON + 37 * MINUTE
    first = roll_up(rows.take(cut), SampleBatch.empty(), NOON, NOON + 37 * MINUTE, Level.MINUTE)
    rest = roll_up(rows.take(~cut), last_samples(first), NOON + 37 * MINUTE, NOON + 2 * HOUR, Level.MINUTE)
    assert_alike(concatenated([first, rest]), by_interval(whole))


def test_the_mean_of_a_constant_is_the_constant_and_no_mean_leaves_its_range():
    time = NOON + np.arange(1000) * 7 * SECOND
    value = np.where(np.arange(1000) < 500, 0.1, 0.1 + 1e-16)
    found = roll_up(
        SampleBatch.of(np.ones(1000), time, value, 0, 0, 0), SampleBatch.empty(), NOON, NOON + DAY, Level.DAY
    )
    assert found.minimum <= found.mean <= found.maximum
    same = SampleBatch.of(np.ones(1000), time, 0.1, 0, 0, 0)
    found = coarser(
        roll_up(same, SampleBatch.empty(), NOON, NOON + DAY, Level.MINUTE),
        SampleBatch.empty(),
        NOON,
        NOON + DAY,
        Level.HOUR,
    )
    assert set(found.mean.tolist()) == set(found.weighted_mean.tolist()) == {0.1}


def test_infinities_and_the_largest_numbers_are_summed_without_a_warning():
    rows = batch_of(
        [(1, NOON, math.inf, GOOD), (1, NOON + 1, -math.inf, GOOD), (2, NOON, 1e308, GOOD), (2, NOON + 1, -1e308, GOOD)]
    )
    found = roll_up(rows, SampleBatch.empty(), NOON, NOON + HOUR, Level.HOUR)
    assert found.minimum.tolist() == [-math.inf, -1e308]
    assert found.numbers.tolist() == [2, 2]


def test_nothing_gives_nothing():
    empty = SampleBatch.empty()
    nothing = roll_up(empty, empty, NOON, NOON + HOUR, Level.MINUTE)
    assert (
        len(nothing) == len(coarser(nothing, empty, NOON, NOON + HOUR, Level.HOUR)) == len(last_samples(nothing)) == 0
    )
    assert {each.name for each in fields(RollUps) if getattr(nothing, each.name).dtype == np.float64} == {
        "minimum", "maximum", "mean", "first_value", "last_value", "weighted_mean",
    }  # fmt: skip


def test_gaps_are_of_their_tags():
    def tag(number: int, source: str) -> Tag:
        return Tag(f"t{number}", source, f"i={number}", id=number)

    gaps = [("plant", "t2", NOON + 60), ("plant", None, NOON + 10), ("plant", "t1", NOON + 10), ("plant", "t3", NOON)]
    found = holes(gaps, [tag(1, "plant"), tag(2, "plant"), tag(3, "other")])
    assert list(zip(found.tag.tolist(), found.start.tolist(), strict=True)) == [
        (1, NOON + 10), (2, NOON + 10), (2, NOON + 60),
    ]  # fmt: skip
    assert len(NO_HOLES.tag) == len(holes([], []).tag) == 0
