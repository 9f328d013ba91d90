"""What models are compared with."""

import sys

import numpy as np
import pytest

from models import baselines
from models.baselines import BoostedTree, Mean, Pca, Persistence, Ridge


def table(rows=400, seed=1):
    inputs = np.random.default_rng(seed).normal(size=(rows, 3))
    return inputs, 60 + inputs @ np.array([10.0, -5.0, 0.0])


def test_the_mean_and_the_last_value_know_nothing_else():
    inputs, target = table()
    target[::2] = np.nan
    asked = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0]])
    assert Mean().fit(inputs, target)(asked) == pytest.approx([np.nanmean(target)] * 2)
    assert Persistence(1).fit(inputs, target)(asked) == pytest.approx([2.0, np.nanmean(target)])


def test_ridge_finds_a_line_also_where_rows_have_holes():
    inputs, target = table()
    holed = np.where(np.random.default_rng(2).random(inputs.shape) < [0.0, 0.0, 0.3], np.nan, inputs)
    holed[:5, 0] = np.nan
    assert Ridge().fit(holed, target)(inputs[:9]) == pytest.approx(target[:9], abs=1.0)
    assert Ridge().fit(inputs, target)(inputs[:9]) == pytest.approx(target[:9], abs=0.1)


def test_ridge_is_not_upset_by_a_constant_or_an_input_that_is_never_there():
    inputs, target = table()
    dull = np.concatenate([inputs, np.full((400, 1), 7.0), np.full((400, 1), np.nan)], 1)
    assert Ridge().fit(dull, target)(dull[:9]) == pytest.approx(target[:9], abs=0.1)


def test_the_tree_learns_what_no_line_can_and_equal_fits_are_equal():
    inputs, _ = table()
    target = inputs[:, 0] * np.sign(inputs[:, 1])
    inputs[::10, 2] = np.nan
    target[::7] = np.nan
    known = ~np.isnan(target)
    told = BoostedTree(rounds=60).fit(inputs, target)(inputs)
    line = Ridge().fit(inputs, target)(inputs)
    assert np.mean((told - target)[known] ** 2) < 0.2 * np.mean((line - target)[known] ** 2)
    assert np.array_equal(told, BoostedTree(rounds=60).fit(inputs, target)(inputs))


def test_of_classes_probabilities_are_told():
    inputs, _ = table()
    target = (inputs[:, 0] > 1).astype(float)
    for baseline in (Mean(), Ridge(classes=True), BoostedTree(rounds=20, classes=True)):
        told = baseline.fit(inputs, target)(inputs)
        assert told.min() >= 0.0
        assert told.max() <= 1.0
        assert told[target == 1].mean() >= told[target == 0].mean()
    assert BoostedTree(classes=True).fit(inputs, np.zeros(400))(inputs[:3]).tolist() == [0, 0, 0]


def test_components_tell_what_breaks_the_habits_of_healthy_rows():
    generator = np.random.default_rng(3)
    along = generator.normal(size=(600, 1))
    inputs = 50 + np.concatenate([along, 2 * along, -along], 1) + generator.normal(0, 0.1, (600, 3))
    target = np.zeros(600)
    target[500:] = 1
    inputs[500:, 1] -= 2
    score = Pca().fit(inputs, target)(inputs)
    assert np.mean(score[:500] > 1) < 0.03
    assert np.mean(score[500:] > 1) > 0.95
    with pytest.raises(ValueError, match="2 healthy rows and 3 inputs are too few"):
        Pca().fit(inputs[:3], np.array([0.0, 0.0, 1.0]))


def test_the_simplest_stands_first():
    assert [each.name for each in baselines.baselines(last=0)] == ["mean", "last value", "ridge", "boosted tree"]
    assert [each.name for each in baselines.baselines()] == ["mean", "ridge", "boosted tree"]


def test_without_scikit_learn_the_others_remain_and_the_tree_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert [each.name for each in baselines.baselines()] == ["mean", "ridge"]
    with pytest.raises(ModuleNotFoundError, match=r"foretag\[trees\]"):
        BoostedTree().fit(*table())


@pytest.mark.parametrize("baseline", [Mean(), Persistence(0), Ridge(), BoostedTree()])
def test_without_a_target_there_is_nothing_to_learn(baseline):
    with pytest.raises(ValueError, match="no row has a target"):
        baseline.fit(table()[0], np.full(400, np.nan))
