"""What live values are compared with, and that it comes back from an artifact as it was."""

from pathlib import Path

import numpy as np

from models.artifact import load, save
from models.drift import correlation_time
from models.kind import Spec
from models.references import References, of_rows, of_seasons, outside


def walk(seed: int, cells: int, memory: float) -> np.ndarray:
    """Autoregressive: a value becomes independent after some (1 + memory) / (1 − memory) cells."""
    noise = np.random.default_rng(seed).normal(size=cells)
    values = np.zeros(cells, np.float32)
    for cell in range(1, cells):
        values[cell] = memory * values[cell - 1] + noise[cell]
    return values


def test_rows_of_any_length_tell_range_and_correlation():
    rows = [walk(1, 6000, 0.9), walk(2, 3000, 0.9)]
    reference = of_rows(rows)
    assert reference is not None
    assert 14 <= reference.spacing <= 25
    assert reference.quantiles[0] == min(row.min() for row in rows)
    assert reference.quantiles[-1] == max(row.max() for row in rows)
    assert 9000 / 25 <= reference.independent <= 9000 / 14


def test_a_long_row_tells_of_slow_movements_that_its_pieces_do_not():
    row = walk(3, 20_000, 0.98)
    whole = of_rows([row])
    assert whole is not None
    assert whole.spacing > 3 * correlation_time(row.reshape(-1, 40))


def test_what_moves_slower_than_a_season_is_no_noise():
    row = walk(5, 20_000, 0.5) + np.repeat(np.random.default_rng(5).normal(0, 5, 20), 1000)
    seasonal, whole = of_seasons([row], 1000), of_rows([row])
    assert seasonal is not None
    assert whole is not None
    assert seasonal.spacing <= 5
    assert whole.spacing > 100
    assert of_seasons([np.full(30, np.nan), np.empty(0)], 10) is None
    assert of_seasons([], 10) is None


def test_what_was_never_observed_has_no_reference():
    assert of_rows([np.full(30, np.nan), np.empty(0)]) is None


def test_beyond_the_training_is_more_than_its_margin_beyond_and_a_constant_has_none():
    reference, constant = of_rows([np.linspace(0.0, 10.0, 50)]), of_rows([np.full(50, 7.0)])
    assert reference is not None
    assert constant is not None
    values = np.array([-1.1, -0.9, 5.0, 10.9, 11.1, np.nan])
    assert outside(reference, values, 0.1).tolist() == [True, False, False, False, True, False]
    assert outside(constant, np.array([7.0, np.float32(7.000001), 7.1]), 0.1).tolist() == [False, False, True]


def test_what_hardly_moved_may_move_a_little_and_what_is_not_compared_anywhere():
    moved, still = of_rows([np.linspace(10.0, 20.0, 50)]), of_rows([np.full(50, 1000.0)])
    assert moved is not None
    assert still is not None
    ranges = References({0: moved, 2: still}, None).ranges(4, 0.5, 0.05)
    values = np.array([[4.9, 5.1, 24.9, 25.1], [-9e9, 0, 0, 9e9], [949.0, 951.0, 1049.0, 1051.0], [-9e9, 0, 0, 9e9]])
    outside_ends, nowhere = [True, False, False, True], [False] * 4
    assert ranges.beyond(values.astype(np.float32)).tolist() == [outside_ends, nowhere, outside_ends, nowhere]


def test_an_artifact_keeps_them(tmp_path: Path):
    row = walk(4, 500, 0.5)
    reference = of_rows([row])
    assert reference is not None
    inputs = {0: reference, 3: reference}
    every = References({}, None), References({1: reference}, reference), References(inputs, reference, reference)
    for kept in every:
        spec = Spec("x", ("a",), 3)
        path = save(tmp_path, f"m{len(kept.inputs)}", spec, {"r": kept.packed()}, metrics={}, provenance={}).path
        found = References.unpacked(load(path).params["r"])
        assert list(found.inputs) == list(kept.inputs)
        assert (found.residual is None) == (kept.residual is None)
        assert (found.seasonal is None) == (kept.seasonal is None)
        for place, each in kept.inputs.items():
            assert np.array_equal(found.inputs[place].quantiles, each.quantiles)
            assert (found.inputs[place].spacing, found.inputs[place].independent) == (each.spacing, each.independent)
