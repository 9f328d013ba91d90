"""Grids: what a model sees of the samples."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.domain import Asset, Fill, Grid, Policies, SampleBatch, Status, Stretch, Tag, Window
from plugin.infer import windows
from plugin.infer.config import ModelConfig
from plugin.infer.windows import dense, occupied, policies, thinned

STEP = 1_000_000


def batch(*rows: tuple[int, float, float, int]) -> SampleBatch:
    """Rows of (tag, source time [s], value, status), ordered as a store orders them."""
    rows = tuple(sorted(rows, key=lambda row: row[:2]))
    tags, times, values, status = zip(*rows, strict=True) if rows else ((), (), (), ())
    micros = (np.array(times, np.float64) * STEP).astype(np.int64)
    return SampleBatch.of(tags, micros, values, status, micros, 0)


def seen(
    samples: SampleBatch,
    tags: list[int],
    length: int,
    hold: object = 0,
    gaps: tuple[Stretch, ...] = (),
    *,
    linear: object = False,
    uncertain: object = True,
) -> Grid:
    """The cells 0 .. length-1 [s]; ``hold`` and ``gaps`` in µs."""
    how = Policies.of(len(tags), hold, linear, uncertain)
    return dense(samples, Window(tuple(tags), 0, STEP, length, how, gaps))


def shown(grid: Grid) -> list[str]:
    """Of the first tag, ``.`` being not observed."""
    return [f"{v:g}" if o else "." for v, o in zip(grid.values[0], grid.observed[0], strict=True)]


def test_a_cell_takes_its_last_sample_and_holds_it_no_longer_than_allowed():
    samples = batch((7, 0.2, 1.0, 0), (7, 0.9, 2.0, 0), (7, 4.0, 3.0, 0))
    grid = seen(samples, [7], 6, 2 * STEP)
    assert grid.values[0].tolist() == [2, 2, 2, 0, 3, 3]
    assert grid.observed[0].tolist() == [True, True, True, False, True, True]


def test_the_end_is_exclusive():
    grid = seen(batch((1, 2.0, 5.0, 0)), [1], 2, 10 * STEP)
    assert not grid.observed.any()


def test_a_sample_before_the_window_is_held_into_it():
    grid = seen(batch((1, -1.5, 5.0, 0)), [1], 3, 2 * STEP)
    assert grid.observed[0].tolist() == [True, False, False]


def test_bad_ends_the_hold_and_uncertain_is_observed_but_not_good():
    samples = batch((1, 0.0, 1.0, Status.GOOD), (1, 1.0, np.nan, Status.BAD), (1, 3.0, 4.0, Status.UNCERTAIN))
    grid = seen(samples, [1], 4, 100 * STEP)
    assert grid.observed[0].tolist() == [True, False, False, True]
    assert grid.good[0].tolist() == [True, False, False, False]


def test_info_bits_do_not_lower_good():
    grid = seen(batch((1, 0.0, 1.0, 0x480)), [1], 1)
    assert grid.good.all()


def test_nothing_is_held_into_or_across_a_gap():
    samples = batch((1, 0.0, 1.0, 0), (1, 6.0, 2.0, 0))
    grid = seen(samples, [1], 8, 100 * STEP, ((1, 2 * STEP, 5 * STEP),))
    assert grid.observed[0].tolist() == [True, True, False, False, False, False, True, True]


def test_the_last_sample_before_a_gap_stands_in_its_own_cell():
    grid = seen(batch((1, 2.0, 1.0, 0)), [1], 5, 100 * STEP, ((1, 2 * STEP, 9 * STEP),))
    assert grid.observed[0].tolist() == [False, False, True, False, False]


def test_a_gap_of_another_tag_changes_nothing():
    samples = batch((1, 0.0, 1.0, 0))
    grid = seen(samples, [1], 4, 100 * STEP, ((2, 0, 3 * STEP),))
    assert grid.observed.all()


def test_hold_is_per_tag():
    samples = batch((1, 0.0, 1.0, 0), (2, 0.0, 1.0, 0))
    grid = seen(samples, [1, 2], 3, [0, 100 * STEP])
    assert grid.observed.tolist() == [[True, False, False], [True, True, True]]


def test_rows_follow_the_tags_asked_for():
    samples = batch((1, 0.0, 1.0, 0), (2, 0.0, 2.0, 0), (3, 0.0, 3.0, 0))
    assert seen(samples, [3, 1], 1).values[:, 0].tolist() == [3, 1]


def test_occupied_leaves_out_cells_without_any_sample():
    samples = batch((1, 0.0, 1.0, 0), (2, 1.0, 2.0, 0), (1, 1000.5, 3.0, 0))
    grid = occupied(samples, [1, 2], STEP, Policies.of(2, 10 * STEP))
    assert (grid.cells // STEP).tolist() == [0, 1, 1000]
    assert grid.observed.tolist() == [[True, True, True], [False, True, False]]


SAMPLE = st.tuples(
    st.sampled_from([1, 2]),
    st.integers(0, 40).map(lambda quarter: quarter / 4),
    st.integers(0, 9).map(float),
    st.sampled_from([Status.GOOD, Status.UNCERTAIN, Status.BAD]),
)


def just_before(samples: SampleBatch) -> SampleBatch:
    """Of the first tag."""
    return replace(mine := samples.take(samples.tag == 1), source_time=mine.source_time - 1)


@given(st.lists(SAMPLE, max_size=40), st.booleans(), st.booleans(), st.integers(0, 4))
def test_what_is_thinned_shows_the_same_cells(rows, linear, uncertain, hold):
    """A line of the first tag, and what stands at the very begin of a cell, which ends the one before."""
    samples, how = batch(*rows), Policies.of(2, hold * STEP, [linear, False], uncertain)
    thin = thinned(samples, STEP, {1} if linear else set())
    for seen in (lambda each: each, just_before) if linear else (lambda each: each,):
        ours, theirs = (occupied(seen(each), [1, 2], STEP, how) for each in (thin, samples))
        for name in ("cells", "values", "observed", "good", "held"):
            assert getattr(ours, name).tolist() == getattr(theirs, name).tolist()


def test_a_second_of_samples_becomes_a_cell_of_a_minute():
    samples = batch(*((tag, second, float(second), 0) for tag in (1, 2) for second in range(600)))
    assert len(thinned(samples, 60 * STEP, ())) == 2 * 10
    assert len(thinned(samples, 60 * STEP, {1})) == 10 * 2 + 10


def test_occupied_shows_what_a_window_shows_of_tags_that_report_changes_alone():
    """Else a model would learn from pictures of time that it never meets."""
    samples = batch((1, 0.0, 1.0, 0), (1, 3.5, 2.0, 0), (2, 5.0, 3.0, 0), (1, 8.0, 4.0, 0), (1, 20.0, 5.0, 0))
    policies = Policies.of(2, [4 * STEP, 0])
    grid = occupied(samples, [1, 2], STEP, policies)
    assert (grid.cells // STEP).tolist() == [*range(9), 20], "a hole that nothing is held through stays one"
    window = dense(samples, Window((1, 2), 0, STEP, 9, policies))
    np.testing.assert_array_equal(grid.values[:, :9], window.values)
    np.testing.assert_array_equal(grid.observed[:, :9], window.observed)


def test_the_newest_holes_are_filled_where_there_is_no_room_for_all(monkeypatch):
    monkeypatch.setattr(windows, "_ROOM", 3)
    samples = batch(*((1, 4.0 * n, 1.0, 0) for n in range(4)))
    grid = occupied(samples, [1], STEP, Policies.of(1, 4 * STEP))
    assert (grid.cells // STEP).tolist() == [0, 4, 8, 9, 10, 11, 12]


@pytest.mark.parametrize("tags", [[1], [1, 2]])
def test_no_samples_give_an_empty_grid(tags):
    assert not seen(batch(), tags, 3, STEP).observed.any()
    assert occupied(batch(), tags, STEP, Policies.of(len(tags), STEP)).cells.size == 0


def test_the_timelines_of_the_documentation():
    samples = batch((1, 0.5, 2.0, 0), (1, 6.0, 5.0, 0), (1, 8.2, np.nan, Status.BAD))
    assert shown(seen(samples, [1], 10, 3 * STEP)) == ["2", "2", "2", "2", ".", ".", "5", "5", ".", "."]
    samples = batch((1, 0.0, 2.0, 0), (1, 3.0, 5.0, 0), (1, 8.0, 9.0, 0))
    assert shown(seen(samples, [1], 9, 3 * STEP)) == ["2", "2", "2", "5", "5", "5", "5", ".", "9"]
    grid = seen(samples, [1], 9, 3 * STEP, linear=True)
    assert shown(grid) == ["2", "3", "4", "5", "5", "5", "5", ".", "9"]
    assert grid.held[0].tolist() == [2, 2, 2, 5, 5, 5, 5, 0, 9]


def test_a_line_is_drawn_as_soon_as_its_end_is_there():
    samples = batch((1, 0.0, 0.0, 0), (1, 4.0, 8.0, 0))
    assert shown(seen(samples, [1], 4, 9 * STEP, linear=True)) == ["0", "0", "0", "0"], "it is not in the window yet"
    assert shown(seen(samples, [1], 5, 9 * STEP, linear=True)) == ["0", "2", "4", "6", "8"]


@pytest.mark.parametrize("between", [(2.0, np.nan, Status.BAD), (2.0, 7.0, Status.UNCERTAIN)])
def test_no_line_is_drawn_to_what_is_not_used(between):
    samples = batch((1, 0.0, 0.0, 0), (1, *between), (1, 4.0, 8.0, 0))
    assert shown(seen(samples, [1], 5, 9 * STEP, linear=True, uncertain=False)) == ["0", "0", ".", ".", "8"]


def test_no_line_is_drawn_across_a_gap_and_a_touching_one_does_not_matter():
    samples = batch((1, 0.0, 0.0, 0), (1, 4.0, 8.0, 0))
    across = ((1, 2 * STEP, 3 * STEP),)
    assert shown(seen(samples, [1], 5, 9 * STEP, across, linear=True)) == ["0", "0", ".", ".", "8"]
    beside = ((1, -5 * STEP, 0), (1, 4 * STEP, 9 * STEP))
    assert shown(seen(samples, [1], 5, 9 * STEP, beside, linear=True)) == ["0", "2", "4", "6", "8"]


def test_a_line_from_or_to_an_uncertain_value_is_not_good():
    samples = batch((1, 0.0, 0.0, 0), (1, 2.0, 2.0, Status.UNCERTAIN), (1, 4.0, 4.0, 0))
    grid = seen(samples, [1], 5, 9 * STEP, linear=True)
    assert shown(grid) == ["0", "1", "2", "3", "4"]
    assert grid.good[0].tolist() == [True, False, False, False, True]


def test_a_number_that_no_float32_holds_is_not_observed():
    grid = seen(batch((1, 0.0, 1e39, 0), (2, 0.0, -np.inf, 0), (3, 0.0, -3.4e38, 0)), [1, 2, 3], 1)
    assert grid.observed[:, 0].tolist() == [False, False, True]


def test_a_tags_own_policy_comes_before_the_models_and_a_late_role_is_never_held():
    config = ModelConfig.model_validate(
        {
            "name": "m", "kind": "k", "assets": ["*"], "features": ["a", "b", "c"], "roles": {"lab": "c"},
            "window": "10s", "step": "1s", "hold": "5s", "training": {"learn": "laboratory"},
        }
    )  # fmt: skip
    tags = {
        "a": Tag("a", "s", "n"),
        "b": Tag("b", "s", "n", fill=Fill.LINEAR, max_age=timedelta(0), uncertain=False),
        "c": Tag("c", "s", "n", max_age=timedelta(days=1)),
    }
    found = policies(config, [Asset("x", tags)])
    assert found.hold.tolist() == [5 * STEP, 0, 0]
    assert found.linear.tolist() == [False, True, False]
    assert found.uncertain.tolist() == [True, False, True]


ROWS = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.integers(-5, 15),
        st.floats(-100, 100, width=32) | st.just(float("nan")),
        st.sampled_from([int(Status.GOOD), int(Status.UNCERTAIN), int(Status.BAD), 0x480]),
    ),
    max_size=40,
)


GAPS = st.lists(st.tuples(st.integers(-3, 12), st.integers(0, 6)), max_size=2)


@given(rows=ROWS, hold=st.integers(0, 12), holes=GAPS, linear=st.booleans(), uncertain=st.booleans())
def test_the_grid_equals_a_plain_loop(rows, hold, holes, linear, uncertain):
    """Times in half seconds."""
    samples = batch(*((tag, time / 2, value, status) for tag, time, value, status in rows))
    gaps = [(start, start + length) for start, length in holes]
    spans = tuple((2, start * STEP // 2, end * STEP // 2) for start, end in gaps)
    grid = seen(samples, [2, 1], 6, hold * STEP // 2, spans, linear=linear, uncertain=uncertain)
    for row, tag in enumerate([2, 1]):
        mine = sorted((r[1:] for r in rows if r[0] == tag and r[1] < 12), key=lambda r: r[0])
        for cell in range(6):
            value, good = one_cell(mine, 2 * cell, hold, gaps if tag == 2 else [], linear=linear, uncertain=uncertain)
            assert grid.observed[row, cell] == (value is not None)
            assert grid.values[row, cell] == np.float32(value or 0)
            assert grid.good[row, cell] == good


def one_cell(mine, cell, hold, gaps, *, linear, uncertain):
    """Value or None, and whether it is Good."""

    def usable(sample):
        return not np.isnan(sample[1]) and sample[2] >> 30 < (2 if uncertain else 1)

    place = sum(sample[0] < cell + 2 for sample in mine) - 1
    if place < 0 or not usable(mine[place]) or cell - mine[place][0] > hold:
        return None, False
    time, value, status = mine[place]
    if any(time < cell and time <= start <= cell and time < end for start, end in gaps):
        return None, False
    if linear and time < cell and place + 1 < len(mine):
        later, there, its_status = mine[place + 1]
        crossed = any(start < later and end > time for start, end in gaps)
        if usable(mine[place + 1]) and later - time <= hold and not crossed:
            return value + (cell - time) / (later - time) * (there - value), status >> 30 == its_status >> 30 == 0
    return value, status >> 30 == 0
