"""The ring gives what SQL gives, or says that it can't."""

import sqlite3
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from plugin.domain import SampleBatch
from plugin.historian import schema
from plugin.historian.recent.ring import Ring
from plugin.historian.sqlite.refill import refill
from plugin.historian.sqlite.samples import insert_samples
from plugin.historian.sqlite.selecting import latest_samples, select_samples

TAGS = 4
TIMES = st.one_of(st.integers(0, 12), st.integers(-(2**53), 2**53))
VALUES = st.one_of(st.sampled_from([0.0, -0.0, 1.0, 2.5, np.nan, np.inf]), st.floats())
SAMPLES = st.tuples(st.integers(1, TAGS), TIMES, VALUES, st.sampled_from([0, 0x80000000, 2**32 - 1]))
BATCHES = st.lists(st.lists(SAMPLES, max_size=12), max_size=8)


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for table in (
        schema.samples,
        schema.sample_texts,
        schema.sample_chunks,
        schema.modified_samples,
        schema.latest_samples,
        schema.bookkeeping,
    ):
        connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
    return connection


def batch_of(samples: list[tuple[int, int, float, int]], received: int) -> SampleBatch:
    if not samples:
        return SampleBatch.empty()
    tag, time, value, status = zip(*samples, strict=True)
    return SampleBatch.of(tag, time, value, status, np.arange(len(tag)), received)


def same(left: SampleBatch, right: SampleBatch) -> bool:
    return all(
        a.tobytes() == b.tobytes() and a.dtype == b.dtype for a, b in zip(plain(left), plain(right), strict=True)
    )


def plain(batch: SampleBatch) -> list[NDArray[Any]]:
    """One kind of NaN only: bits of a NaN are nobody's promise."""
    return [np.where(np.isnan(c), np.nan, c) if c.dtype == np.float64 else c for c in batch.columns()]


@settings(max_examples=150, deadline=None)
@given(BATCHES, st.integers(1, 9), st.integers(1, 40), st.integers(0, 3))
def test_ring_equals_sql(batches: list[list[tuple[int, int, float, int]]], capacity: int, rows: int, at: int) -> None:
    connection, ring = database(), Ring(capacity)
    ring.reserve(TAGS - 1)
    for number, samples in enumerate(batches):
        if number == at:
            ring = Ring(capacity)
            refill(connection, ring, TAGS, rows)
        ring.reserve(TAGS)
        batch = batch_of(samples, number)
        insert_samples(connection, batch)
        ring.append(batch)
        every = [time for each in batches for _, time, _, _ in each]
        for start in {-(2**60), 0, 3, 8, *every[:4]}:
            for end in (start, start + 1, 10, 2**60):
                for tags in ([1], [3, 2], [4, 1, 2, 3]):
                    got = ring.read(tags, start, end)
                    assert got is None or same(got, select_samples(connection, tags, start, end))
        latest, unknown = ring.latest(range(1, TAGS + 1))
        known = [tag for tag in range(1, TAGS + 1) if tag not in unknown]
        assert same(latest, latest_samples(connection, known))
    connection.close()


@settings(max_examples=80, deadline=None)
@given(BATCHES, st.sets(st.integers(1, TAGS + 1), max_size=3), st.integers(1, 9), st.integers(1, 40), st.integers(0, 3))
def test_a_ring_of_some_tags_equals_sql_and_covers_no_others(
    batches: list[list[tuple[int, int, float, int]]], held: set[int], capacity: int, rows: int, at: int
) -> None:
    connection, ring = database(), Ring(capacity, tags=held)
    for number, samples in enumerate(batches):
        if number == at:
            ring = ring.for_tags(held)
            refill(connection, ring, TAGS, rows)
        ring.reserve(TAGS if number else TAGS - 2)
        batch = batch_of([s for s in samples if number or s[0] <= TAGS - 2], number)
        insert_samples(connection, batch)
        ring.append(batch)
        every = [time for each in batches for _, time, _, _ in each]
        for start in {-(2**60), 0, 3, 8, *every[:4]}:
            for tags in ([1], [3, 2], [4, 1, 2, 3]):
                got = ring.read(tags, start, 2**60)
                assert got is None or (set(tags) <= held and same(got, select_samples(connection, tags, start, 2**60)))
        latest, unknown = ring.latest(range(1, TAGS + 1))
        known = [tag for tag in range(1, TAGS + 1) if tag not in unknown]
        assert set(known) <= held
        assert same(latest, latest_samples(connection, known))
    connection.close()


def test_the_memory_is_shared_by_the_tags_that_are_held() -> None:
    ring = Ring(samples=100, memory=44 * 200, tags=[7, 3])
    ring.reserve(1000)
    ring.append(ticks(0, 100, tags=1000))
    got = ring.read([3, 7], 0, 100)
    assert got is not None
    assert got.tag.tolist() == [3] * 100 + [7] * 100
    assert ring.read([3, 4], 99, 100) is None


def ticks(first: int, count: int, tags: int = 2) -> SampleBatch:
    time = np.repeat(np.arange(first, first + count), tags)
    return SampleBatch.of(np.tile(np.arange(1, tags + 1), count), time, time * 1.5, 0, time, time)


def test_the_newest_samples_are_covered() -> None:
    ring = Ring(samples=10)
    ring.reserve(2)
    for first in range(0, 30, 3):
        ring.append(ticks(first, 3))
    assert ring.read([1, 2], 19, 99) is None
    got = ring.read([1, 2], 20, 99)
    assert got is not None
    assert got.source_time.tolist() == [*range(20, 30)] * 2


def test_a_new_tag_is_covered_from_the_beginning_of_time() -> None:
    ring = Ring(samples=10)
    ring.reserve(2)
    ring.append(ticks(0, 5))
    ring.cover_from(3)
    ring.reserve(3)
    got = ring.read([3], -(2**60), 2**60)
    assert got is not None
    assert not len(got)
    assert ring.read([1], 2, 9) is None
    assert ring.latest([3])[1] == []


def test_an_unknown_tag_is_not_covered() -> None:
    ring = Ring()
    assert ring.read([7], 0, 1) is None
    assert ring.latest([7, -1])[1] == [-1, 7]


def test_memory_bounds_the_ring_when_tags_are_added() -> None:
    ring = Ring(samples=100, memory=44 * 100 * 3)
    ring.reserve(2)
    ring.append(ticks(0, 100))
    assert ring.read([1, 2], 0, 100) is not None
    ring.reserve(29)
    got = ring.read([1, 2], 90, 100)
    assert got is not None
    assert got.source_time.tolist() == [*range(90, 100)] * 2
    assert ring.read([1], 89, 100) is None


def test_a_batch_longer_than_the_ring_leaves_its_end() -> None:
    ring = Ring(samples=4)
    ring.reserve(2)
    ring.append(ticks(0, 3))
    ring.append(ticks(3, 20))
    got = ring.read([2], 19, 99)
    assert got is not None
    assert got.source_time.tolist() == [19, 20, 21, 22]
    assert ring.read([2], 18, 99) is None
