"""Closing moves samples from rows into chunks, and nobody who reads can tell; the roll-ups are those of the samples."""

import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import StaticPool, create_engine

from plugin.domain import Level, RollUps, SampleBatch
from plugin.historian import schema
from plugin.historian.closed.closing import Changed, Closed, close
from plugin.historian.closed.rollup import roll_up
from plugin.historian.recent.ring import Ring
from plugin.historian.sqlite.closing import next_slice, read, roll_up_again, write
from plugin.historian.sqlite.connections import transaction
from plugin.historian.sqlite.newest import Newest
from plugin.historian.sqlite.refill import refill
from plugin.historian.sqlite.rollups import select_roll_ups
from plugin.historian.sqlite.samples import insert_samples
from plugin.historian.sqlite.selecting import FIRST, book, latest_samples, select_samples

TAGS = 3
SECOND = 1_000_000
BEGIN = 1_714_521_600 * SECOND + 23 * 3600 * SECOND  # an hour before midnight, UTC
EVER = (-(2**60), 2**60)

TIMES = st.one_of(st.integers(0, 20), st.integers(0, 3 * 3600), st.integers(-90_000, 90_000))
SAMPLES = st.tuples(
    st.integers(1, TAGS),
    TIMES,
    st.sampled_from([0.0, 1.5, 1.5, -2.25, math.nan, 7.0]),
    st.sampled_from([0, 0, 0, 0x40000000, 0x80000000]),
    st.sampled_from([None, None, None, "on"]),
)
STEPS = st.lists(st.one_of(st.lists(SAMPLES, max_size=8), st.integers(-90_000, 100_000)), max_size=10)
AT_ONCE = st.sampled_from([1, 2, 5, 1000])
"""Rows that are closed in one transaction, about."""


@cache
def template() -> sqlite3.Connection:
    """Our tables and a few tags."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    schema.metadata.create_all(engine)
    for number in range(1, TAGS + 1):
        connection.execute(
            "INSERT INTO tags (id, name, source, node, feature, unit, deadband) VALUES (?, ?, 's', '', '', '', 0)",
            (number, f"T{number}"),
        )
    return connection


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    template().backup(connection)
    return connection


@contextmanager
def closed_at_once(rows: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plugin.historian.closed.closing._AT_ONCE", rows)
        yield


class Plant:
    """The database, and a list of all that it should hold."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.database = connection
        self.newest = Newest()
        self.held: dict[tuple[int, int], list[tuple[float | None, int, str | None]]] = {}
        self.received = 0

    def arrive(self, samples: Sequence[tuple[int, int, float, int, str | None]]) -> None:
        if not samples:
            return
        tag, time, value, status, text = zip(*samples, strict=True)
        self.received += 1
        batch = SampleBatch.of(tag, BEGIN + np.array(time) * SECOND, value, status, 5, self.received)
        if any(text):
            batch = replace(batch, text=np.array(text, np.object_))
        stored = 0
        for each, moment, number, code, word in samples:
            there = self.held.setdefault((each, BEGIN + moment * SECOND), [])
            key = None if math.isnan(number) else number, code, word
            if key not in there:
                there.append(key)
                stored += 1
        with transaction(self.database):
            written = insert_samples(self.database, batch, book(self.database, "closed_until", FIRST))
            self.newest.stored(self.database, batch)
        assert (written.stored, written.duplicates) == (stored, len(batch) - stored)

    def close(self, until: int, *, cut: bool = False) -> Closed:
        """``cut``: off after the first transaction."""
        done = Closed()
        while (slice_ := next_slice(self.database, until)) is not None:
            for before in read(self.database, slice_).portions():
                after = close(before)
                roll_ups = roll_up_again(self.database, before, after.minutes)
                with transaction(self.database):
                    self.newest.keep_before(self.database, slice_.end)
                    done += write(self.database, before, after, roll_ups, 0)
                if cut:
                    return done
        return done

    def expected(self) -> Iterator[tuple[int, int, float | None, int, str | None]]:
        for (tag, time), values in sorted(self.held.items(), key=lambda item: item[0]):
            for value, status, text in values:
                yield tag, time, value, status, text


def rows(batch: SampleBatch) -> list[tuple[int, int, float | None, int, str | None]]:
    value = [None if math.isnan(each) else each for each in batch.value.tolist()]
    text = [None] * len(batch) if batch.text is None else batch.text.tolist()
    columns = batch.tag.tolist(), batch.source_time.tolist(), value, batch.status.tolist(), text
    return list(zip(*columns, strict=True))


def same(left: RollUps, right: RollUps) -> bool:
    return all(
        np.allclose(getattr(left, each.name), getattr(right, each.name), rtol=1e-9, atol=1e-9, equal_nan=True)
        if len(left) == len(right)
        else False
        for each in fields(RollUps)
    )


@settings(max_examples=50, deadline=None)
@given(STEPS, AT_ONCE)
def test_whatever_is_closed_when_what_is_read_is_what_came(
    steps: list[list[tuple[int, int, float, int, str | None]] | int], at_once: int
) -> None:
    with closing(database()) as connection, closed_at_once(at_once):
        plant = Plant(connection)
        expected: list[tuple[int, int, float | None, int, str | None]] = []
        for step in steps:
            if isinstance(step, int):
                plant.close(BEGIN + step * SECOND, cut=step % 2 == 1)
            elif step:
                plant.arrive(step)
            expected = list(plant.expected())
            everything = select_samples(connection, [1, 2, 3], *EVER)
            assert rows(everything) == expected
            part = select_samples(connection, [3, 1], BEGIN, BEGIN + 3600 * SECOND)
            assert rows(part) == [
                row for row in expected if row[0] in {1, 3} and BEGIN <= row[1] < BEGIN + 3600 * SECOND
            ]
            newest = {row[0]: row for row in expected}
            assert rows(latest_samples(connection, [1, 2, 3])) == [newest[tag] for tag in sorted(newest)]
        for capacity, limit in ((2, 100), (50, 100), (50, 3)):
            ring = Ring(capacity)
            refill(connection, ring, TAGS, limit)
            for start in (EVER[0], BEGIN, *{row[1] for row in expected}):
                held = ring.read([1, 2], start, EVER[1])
                assert held is None or rows(held) == [row for row in expected if row[0] < 3 and row[1] >= start]


@settings(max_examples=50, deadline=None)
@given(STEPS, AT_ONCE)
def test_roll_ups_are_those_of_the_samples_in_whatever_order_they_came(
    steps: list[list[tuple[int, int, float, int, str | None]] | int], at_once: int
) -> None:
    with closing(database()) as connection, closed_at_once(at_once):
        plant = Plant(connection)
        for step in steps:
            if isinstance(step, int):
                plant.close(BEGIN + step * SECOND, cut=step % 2 == 1)
            elif step:
                plant.arrive(step)
        plant.close(BEGIN + 100_000 * SECOND)
        assert connection.execute("SELECT count(*) FROM samples").fetchone() == (0,)
        closed_until = book(connection, "closed_until", FIRST)
        samples = select_samples(connection, [1, 2, 3], *EVER)
        for level in Level:
            over = max(closed_until // level.width * level.width, EVER[0])
            expected = roll_up(samples.take(samples.source_time < over), SampleBatch.empty(), *EVER, level)
            assert same(select_roll_ups(connection, level, [(tag, *EVER) for tag in (1, 2, 3)]), expected)
        parts = connection.execute("SELECT sum(samples), count(*), count(DISTINCT start_time) FROM sample_partitions")
        count, partitions, stretches = parts.fetchone()
        assert (count or 0) == len(samples)
        assert partitions == stretches, "one class of retention"
        lost = "SELECT count(*) FROM sample_chunks WHERE partition_id NOT IN (SELECT id FROM sample_partitions)"
        assert connection.execute(lost).fetchone() == (0,)


@pytest.mark.parametrize("apart", [0, 1], ids=["the tags share their times", "each has times of its own"])
def test_a_range_of_tags_is_closed_by_itself_unless_something_comes_to_its_samples(apart: int) -> None:
    samples = [(tag, 60 * second + tag * apart, 0.5, 0, None) for second in range(4) for tag in range(1, 121)]
    with closing(database()) as connection, closed_at_once(240):
        plant = Plant(connection)
        plant.arrive(samples)
        slice_ = next_slice(connection, BEGIN + 3600 * SECOND)
        assert slice_ is not None
        first, second = read(connection, slice_).portions()
        assert [portion.slice.tags for portion in (first, second)] == [range(1, 61), range(61, 121)]
        plant.arrive([(1, 60 + apart, 7.0, 0, None)])
        plant.arrive([(61, 30, 7.0, 0, None)] if apart == 0 else [])
        with pytest.raises(Changed), transaction(connection):
            write(connection, first, close(first), {}, 0)
        with transaction(connection):
            plant.newest.keep_before(connection, slice_.end)
            write(connection, second, close(second), {}, 0)
        assert rows(select_samples(connection, range(1, 121), *EVER)) == list(plant.expected())
        assert connection.execute("SELECT min(tag_id), max(tag_id) FROM sample_chunks").fetchone() == (61, 120)
        plant.close(BEGIN + 3600 * SECOND)
        assert rows(select_samples(connection, range(1, 121), *EVER)) == list(plant.expected())
        assert connection.execute("SELECT count(*) FROM samples").fetchone() == (0,)


def test_who_reads_between_two_portions_finds_an_hour_whole_or_not_yet() -> None:
    of_rows = [(tag, second, 0.5, 0, None) for second in (1800, 3590, 3700) for tag in (1, 2)]
    with closing(database()) as connection, closed_at_once(1):
        plant = Plant(connection)
        plant.arrive([*of_rows, (3, 30, 0.5, 0, None)])
        plant.close(BEGIN + 3540 * SECOND)
        slice_ = next_slice(connection, BEGIN + 7200 * SECOND)
        assert slice_ is not None
        seen = []
        for portion in read(connection, slice_).portions():
            after = close(portion)
            with transaction(connection):
                plant.newest.keep_before(connection, slice_.end)
                write(connection, portion, after, roll_up_again(connection, portion, after.minutes), 0)
            hours = select_roll_ups(connection, Level.HOUR, [(tag, *EVER) for tag in (1, 2, 3)])
            seen.append(dict(zip(hours.tag.tolist(), hours.samples.tolist(), strict=True)))
        assert seen == [{1: 2, 3: 1}, {1: 2, 2: 2, 3: 1}]


def test_chunks_grow_while_their_partition_does() -> None:
    with closing(database()) as connection:
        plant = Plant(connection)
        for minute in range(30):
            plant.arrive([(1, 60 * minute + second, 0.5, 0, None) for second in range(60)])
            plant.close(BEGIN + 60 * (minute + 1) * SECOND)
        counts = connection.execute("SELECT samples FROM sample_chunks ORDER BY first_time").fetchall()
        assert sum(count for (count,) in counts) == 1800
        assert len(counts) <= 6
        assert connection.execute("SELECT count(*) FROM sample_partitions").fetchone() == (1,)


def test_the_swinging_door_leaves_out_what_lies_on_a_line_and_the_roll_ups_count_it_all() -> None:
    with closing(database()) as connection:
        connection.execute("UPDATE tags SET compression = 0.1 WHERE id = 1")
        plant = Plant(connection)
        line = [(tag, second, 0.5 * second, 0, None) for second in range(600) for tag in (1, 2)]
        plant.arrive(line)
        done = plant.close(BEGIN + 600 * SECOND)
        assert done.left_out > 500
        assert len(select_samples(connection, [1], *EVER)) == 600 - done.left_out
        assert len(select_samples(connection, [2], *EVER)) == 600
        assert book(connection, "samples", 0) == 0, "whoever writes counts"
        minutes = select_roll_ups(connection, Level.MINUTE, [(1, *EVER), (2, *EVER)])
        assert minutes.samples.tolist() == [60] * 20
        assert np.array_equal(minutes.weighted_mean[:10], minutes.weighted_mean[10:])
        plant.arrive([(1, 90, -7.0, 0x40000000, None)])  # late, and of a minute that was thinned out
        plant.close(BEGIN + 600 * SECOND)
        again = select_roll_ups(connection, Level.MINUTE, [(1, *EVER)])
        assert again.samples.tolist() == [60, 61, *[60] * 8]
        assert again.minimum[1] == -7.0
        assert connection.execute("SELECT sum(left_out) FROM sample_partitions").fetchone() == (done.left_out,)


def test_a_value_from_before_a_gap_stands_up_to_its_begin() -> None:
    with closing(database()) as connection:
        hole = BEGIN + 20 * SECOND, BEGIN + 50 * SECOND
        connection.execute(
            "INSERT INTO gaps VALUES ('g', 's', 'T1', ?, ?, 'sequence', 0, 'unfillable', 0, '', 0)", hole
        )
        plant = Plant(connection)
        plant.arrive([(1, 0, 1.0, 0, None), (2, 0, 1.0, 0, None)])
        plant.close(BEGIN + 3600 * SECOND)
        for level, width in ((Level.MINUTE, 60), (Level.HOUR, 3600)):
            observed = select_roll_ups(connection, level, [(1, *EVER), (2, *EVER)]).observed
            assert observed.tolist() == [20 * SECOND, width * SECOND]


def test_a_value_does_not_stand_again_days_after_a_gap_when_others_have_gone_on() -> None:
    day = 86_400
    with closing(database()) as connection:
        hole = BEGIN + day * SECOND, BEGIN + (day + 7) * SECOND
        connection.execute(
            "INSERT INTO gaps VALUES ('g', 's', 'T1', ?, ?, 'sequence', 0, 'unfillable', 0, '', 0)", hole
        )
        plant = Plant(connection)
        for batch in ([(1, 0), (2, 0), (3, 0)], [(3, 3 * day)], [(1, 4 * day + 15), (2, 4 * day + 15)]):
            plant.arrive([(tag, time, 1.0, 0, None) for tag, time in batch])
            plant.close(BEGIN + (batch[0][1] + 2 * 3600) * SECOND)
        assert book(connection, "closed_until", FIRST) > BEGIN + 3 * day * SECOND
        for level, width in ((Level.MINUTE, 60), (Level.HOUR, 3600)):
            later = BEGIN + 4 * day * SECOND, EVER[1]
            observed = select_roll_ups(connection, level, [(1, *later), (2, *later)]).observed
            assert observed.tolist() == [(width - 15) * SECOND, width * SECOND]


def test_classes_of_retention_have_partitions_of_their_own() -> None:
    with closing(database()) as connection:
        connection.execute("UPDATE tags SET retention = 'short' WHERE id = 1")
        plant = Plant(connection)
        plant.arrive([(tag, second, 1.0, 0, None) for second in range(60) for tag in (1, 2, 3)])
        plant.close(BEGIN + 60 * SECOND)
        query = "SELECT retention, samples, end_time - start_time FROM sample_partitions ORDER BY retention"
        assert connection.execute(query).fetchall() == [("", 120, 60 * SECOND), ("short", 60, 60 * SECOND)]
