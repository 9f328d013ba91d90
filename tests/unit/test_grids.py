"""A window from the ring is what it would be from all samples, whatever of it was copied."""

import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from plugin.domain import Grid, Policies, SampleBatch, Status, Window
from plugin.historian import schema
from plugin.historian.recent.grids import Gathering
from plugin.historian.recent.ring import Ring
from plugin.historian.sqlite.samples import insert_samples
from plugin.historian.sqlite.selecting import select_samples
from plugin.infer.windows import dense

STEP = 10
TAGS = (3, 1, 2)
EVER = (-(2**40), 2**40)

TICKS = st.tuples(st.integers(1, 9), st.sampled_from(["all", "all", "all", "one is missing", "one moves", "none"]))
"""How many seconds, and how."""
ODD = st.tuples(
    st.integers(1, 3),
    st.integers(-45, 12),
    st.sampled_from([0.0, 1.5, np.nan, np.inf, 1e39]),
    st.sampled_from([0, 0x480, int(Status.UNCERTAIN), int(Status.BAD)]),
)
"""Tag, time from now, value, status."""
PLANT = st.lists(st.one_of(TICKS, TICKS, ODD), max_size=12)
WINDOWS = st.tuples(st.integers(-12, 1), st.integers(0, 8), st.sampled_from([0, 0, 0, 5]))
"""Cells from now to the window's start, how many it has, and by how much it is beside whole steps."""


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for table in (schema.samples, schema.sample_texts, schema.sample_chunks, schema.modified_samples):
        connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
    return connection


def second(number: int, count: int, how: str) -> SampleBatch:
    """Each tag once a second, ``received`` in order."""
    time = STEP * np.repeat(np.arange(number, number + count), 3)
    tag = np.tile(TAGS, count)
    keep = np.ones(len(tag), bool)
    if how == "one is missing":
        keep[-1] = False
    if how == "one moves":
        time[0] += 7
    if how == "none":
        keep[:] = False
    return SampleBatch.of(tag, time + 2, time * 0.1, 0, time, time + 5).take(keep)


def same(left: Grid, right: Grid) -> bool:
    columns = ("cells", "values", "observed", "good", "held")
    return left.tags == right.tags and all(
        np.array_equal(getattr(left, name), getattr(right, name))
        and getattr(left, name).dtype == getattr(right, name).dtype
        for name in columns
    )


@settings(max_examples=250, deadline=None)
@given(
    PLANT,
    st.integers(1, 14),
    st.lists(WINDOWS, min_size=1, max_size=4),
    st.sampled_from([None, 60, 90]),
    st.sampled_from([None, 50]),
    st.booleans(),
)
def test_from_wherever_it_comes_it_is_the_same(plant, capacity, windows, received_by, known_by, uncertain):
    connection, ring = database(), Ring(capacity)
    ring.reserve(3)
    policies = Policies.of(3, [25, 0, 300], [True, False, False], [True, uncertain, uncertain])
    now = 0
    for odd, each in enumerate(plant):
        if len(each) == 2:
            batch = second(now, *each)
            now += each[0]
        else:
            received = STEP * now + odd % 3 * 20
            batch = SampleBatch.of([each[0]], STEP * now + each[1], each[2], each[3], each[1], received)
        insert_samples(connection, batch)
        ring.append(batch)
        for start, length, beside in windows:
            window = Window(TAGS, (now + start) * STEP + beside, STEP, length, policies, ((1, 33, 47),))
            gathering = Gathering(window, ring, known_by, received_by)
            bounds = (window.end, known_by, received_by)
            got = gathering.grid([select_samples(connection, tags, since, *bounds) for tags, since in gathering.asks])
            everything = select_samples(connection, TAGS, EVER[0], *bounds)
            assert same(got, dense(everything, window))
    connection.close()


def window(start: int, length: int) -> Window:
    return Window(TAGS, start * STEP, STEP, length, Policies.of(3, 0))


def test_a_plant_that_ticks_is_copied_and_the_copy_goes_on_round_the_circle():
    ring = Ring(samples=12)
    ring.reserve(3)
    for now in range(40):
        ring.append(second(now, 1, "all"))
        if now >= 11:
            steady, values = ring.read_steady(window(now - 9, 10), None)
            assert steady.all()
            assert values.tolist() == [[np.float32(cell) for cell in range(now - 9, now + 1)]] * 3


@pytest.mark.parametrize(
    ("odd", "ticks", "what"),
    [
        (SampleBatch.of([2], 105, 1.0, 0, 0, 117), 3, "a second one in a cell"),
        (SampleBatch.of([2], 102, 1.0, 0, 0, 117), 3, "another value with a stamp that is taken"),
        (SampleBatch.of([2], 122, 1.0, Status.BAD, 0, 125), 2, "Bad"),
        (SampleBatch.of([2], 122, 1.0, Status.UNCERTAIN, 0, 125), 2, "Uncertain"),
        (SampleBatch.of([2], 122, np.inf, 0, 0, 125), 2, "no number"),
        (SampleBatch.of([2], 122, 12.0, 0, 0, 30), 2, "received before the one before it"),
        (SampleBatch.of([2], 132, 12.0, 0, 0, 135), 2, "a cell was left out"),
    ],
)
@pytest.mark.parametrize("capacity", [13, 40])
def test_one_that_does_not_tick_is_computed_and_only_that(odd, ticks, what, capacity):
    ring = Ring(samples=capacity)
    ring.reserve(3)
    ring.append(second(0, 12, "all"))
    assert ring.read_steady(window(2, 10), None)[0].all()
    ring.append(odd)
    ring.append(second(12, 1, "all").take(slice(ticks)))
    steady, values = ring.read_steady(window(3, 10), None)
    assert steady.tolist() == [True, True, False], what
    assert values.shape == (2, 10)
    assert Gathering(window(3, 10), ring).asks == []


def test_what_ticks_again_is_copied_again():
    ring = Ring(samples=40)
    ring.reserve(3)
    ring.append(second(0, 12, "one is missing"))
    ring.append(second(12, 5, "all"))
    assert ring.read_steady(window(8, 9), None)[0].tolist() == [True, True, False]
    assert ring.read_steady(window(12, 5), None)[0].all()


def test_the_tags_beside_have_nothing_to_do_with_it():
    """In the ring the last sample of tag 1 lies before the first one of tag 2, and in the cell before."""
    ring = Ring(samples=10)
    ring.reserve(2)
    for tag, cells in ((1, range(5)), (2, range(-5, 0)), (2, range(5, 15))):
        time = STEP * np.array(cells)
        ring.append(SampleBatch.of(np.full(len(time), tag), time, 1.0, 0, time, time))
    asked = Window((1, 2), 0, STEP, 5, Policies.of(2, 0))
    assert ring.read_steady(asked, None)[0].tolist() == [True, False]


def test_what_was_received_later_is_not_seen():
    ring = Ring(samples=40)
    ring.reserve(3)
    ring.append(second(0, 12, "all"))
    assert ring.read_steady(window(2, 10), 115)[0].all()
    assert not ring.read_steady(window(2, 10), 114)[0].any()
    assert ring.read_steady(window(2, 9), 114)[0].all(), "the last one is not in this window"


def test_tags_that_reach_back_for_long_have_no_more_read_of_the_others():
    policies = Policies.of(4, [60, 70, 0, 86_400])
    asks = Gathering(Window((1, 2, 3, 4), 1000, STEP, 5, policies), None).asks
    assert asks == [([1, 2], 930), ([3], 1000), ([4], 1000 - 86_400)]
