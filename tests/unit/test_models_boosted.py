"""Boosted trees as arrays."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import boosted, light

TOLD = jax.jit(boosted.told)


def steps(rows, seed=0):
    """A target that depends on two of four inputs, in steps; one input never changes."""
    inputs = np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)
    inputs[:, 3] = 2.5
    return inputs, ((inputs[:, 0] > 0.3) * 1.0 + 2.0 * (inputs[:, 1] > -0.5)).astype(np.float32)


def grow(rows, trees, seed=0, told=lambda tree: None):
    inputs, target = steps(rows)
    return boosted.grown(inputs, target, trees, seed, told)


@pytest.fixture(scope="module")
def grown():
    return grow(1500, 120)


def test_steps_are_learnt_and_what_never_changes_is_not_asked_about(grown):
    inputs, target = steps(500, seed=1)
    error = np.asarray(TOLD(grown, inputs)) - target
    assert np.sqrt(np.mean(error**2)) < 0.2 * target.std()
    assert grown["mean"] == pytest.approx(steps(1500)[1].mean())


def test_the_answer_is_the_sum_of_one_leaf_of_each_tree(grown):
    inputs, _ = steps(20, seed=2)
    for row, found in zip(inputs, np.asarray(TOLD(grown, inputs)), strict=True):
        total = float(grown["mean"])
        for tree in range(120):
            leaf = 0
            for question in range(tree * boosted.DEPTH, (tree + 1) * boosted.DEPTH):
                leaf = 2 * leaf + int(row[grown["input"][question]] > grown["above"][question])
            total += float(grown["leaf"][(tree << boosted.DEPTH) + leaf])
        assert found == pytest.approx(total, abs=1e-5)


def test_the_same_seed_grows_the_same_trees_of_the_shapes_of_ungrown_ones():
    told: list[int] = []
    first, again, other = (grow(200, 6, seed, told.append) for seed in (1, 1, 2))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    assert not np.array_equal(first["input"], other["input"])
    empty = boosted.ungrown(6)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), first) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), empty
    )
    assert told == [*range(6)] * 3
    assert np.asarray(TOLD(empty, steps(3)[0])).tolist() == [0.0] * 3


def test_more_bins_find_a_narrower_band():
    inputs = np.random.default_rng(7).normal(size=(4000, 1)).astype(np.float32)
    target = (np.abs(inputs[:, 0]) < 0.005).astype(np.float32)

    def error(bins):
        trees = boosted.grown(inputs, target, 40, 0, lambda tree: None, bins)
        return float(np.mean((np.asarray(TOLD(trees, inputs)) - target) ** 2))

    assert error(512) < 0.5 * error(32)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 3), st.integers(0, 99))
def test_no_threshold_lies_on_a_value_that_occurred(rows, columns, digits, seed):
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(rows, columns)).round(digits).astype(np.float32)
    trees = boosted.grown(inputs, generator.random(rows).astype(np.float32), 8, seed, lambda tree: None)
    for column, edge in zip(trees["input"], trees["above"], strict=True):
        values = inputs[:, column]
        assert edge not in values or edge == values.max()
    assert np.isfinite(np.asarray(boosted.told(trees, jax.numpy.asarray(inputs)))).all()


def test_other_rows_move_the_answers_and_not_the_questions(grown):
    inputs, target = steps(1000, seed=4)
    moved = boosted.onwards(grown, inputs, target + 1, lambda tree: None)
    assert [name for name in grown if not np.array_equal(grown[name], moved[name])] == ["leaf"]
    before, after = (np.asarray(TOLD(trees, inputs)) - target - 1 for trees in (grown, moved))
    assert np.sqrt(np.mean(before**2)) > 0.9
    assert np.sqrt(np.mean(after**2)) < 0.15
    same = boosted.onwards(grown, inputs[:0], target[:0], lambda tree: None)
    assert same["leaf"] == pytest.approx(grown["leaf"])


def test_thresholds_are_not_rounded_when_a_model_is_made_light(grown):
    members = {"trees": jax.tree.map(lambda leaf: np.stack([leaf, leaf]), grown)}
    packed = light.quantised(members, light.PRUNED)
    assert jax.tree.all(jax.tree.map(np.array_equal, packed, members))
