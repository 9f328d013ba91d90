"""The failure classifiers: what they learn, what a missing or a foreign label does, and the threshold by cost."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from models import failure_trees
from models.cells import unscaled
from models.failure_held_out import HeldOut
from models.failure_lstm import FailureLstm
from models.failure_mlp import FailureMlp, MlpClassifier, Options
from models.kind import Spec, TrainingData
from models.probability import sigmoid

MLP = Spec("failure_mlp", ("a", "b"), 1, {}, {"members": 5, "steps": 200, "batch": 128, "trees": 20})
LSTM = Spec("failure_lstm", ("a", "b"), 12, {}, {"context": 6, "hidden": 8, "members": 2, "steps": 100, "batch": 32})


def quiet(share: float, line: str) -> None:
    pass


def items(count: int = 600) -> TrainingData:
    """One fails where the product of its features is large, whatever each of them is."""
    values = np.random.default_rng(2).normal(20.0, 2.0, (count, 2, 1)).astype(np.float32)
    target = ((values[:, 0] - 20) * (values[:, 1] - 20) > 4.0).astype(np.float32)
    return TrainingData(values, np.ones(values.shape, bool), target, np.arange(count, dtype=np.int32))


def runs(count: int = 24) -> TrainingData:
    """``a`` rises over the last cells of a run, which ends in a failure."""
    values = np.random.default_rng(4).normal(size=(count, 2, 12)).astype(np.float32)
    values[: count // 2, 0, 6:] += np.arange(6, dtype=np.float32)
    target = np.zeros((count, 12), np.float32)
    target[: count // 2, 8:] = 1.0
    return TrainingData(values, np.ones(values.shape, bool), target, np.arange(count, dtype=np.int32))


def told(kind, spec, params, values, observed=None):
    observed = np.ones(values.shape, bool) if observed is None else observed
    found = jax.device_get(kind.predict(spec, params, values, observed))
    return found["failure_probability"].value, found["failure_state"].value


def test_a_product_is_learnt_and_told_as_a_calibrated_probability():
    data = items()
    fitted = FailureMlp().fit(MLP, data, quiet)
    assert fitted.metrics["pr_auc"] > 0.8
    assert fitted.metrics["reliability"] < 0.05
    high, low = told(FailureMlp(), MLP, fitted.params, np.array([[[25.0], [25.0]], [[25.0], [19.0]]], np.float32))[0]
    assert high > 80.0
    assert low < 20.0


def test_trees_find_a_narrow_band_that_the_network_does_not():
    """Those fail whose ``a`` lies in a band of a fifth of a standard deviation."""
    data = items(1500)
    data = replace(data, target=(np.abs(data.values[:, 0] - 20.5) < 0.2).astype(np.float32))
    spec = replace(MLP, options={**MLP.options, "network": "tanh", "products": 0, "hidden": 3})
    without, beside = (
        FailureMlp().fit(replace(spec, options={**spec.options, "trees": trees}), data, quiet) for trees in (0, 100)
    )
    assert beside.metrics["pr_auc"] > without.metrics["pr_auc"] + 0.3
    assert beside.params["calibration"][1] > 0.0
    assert without.params["calibration"][1] == 0.0


def test_a_forest_knows_nothing_of_the_fold_that_it_stands_for():
    asked = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    target, fold = (asked[:, 0] > 0).astype(np.float32), np.arange(300, dtype=np.int32) % 3
    other = np.where(fold == 1, 1.0 - target, target).astype(np.float32)
    first, second = (failure_trees.grown(asked, each, fold, 5, 3, 0, quiet)["leaf"] for each in (target, other))
    assert [np.array_equal(*pair) for pair in zip(first, second, strict=True)] == [False, True, False, False, True]


def test_what_one_of_two_features_has_of_its_own_is_an_input():
    generator = np.random.default_rng(3)
    air, alone = generator.normal(size=(2, 500))
    values = np.stack([air, air + 0.1 * generator.normal(size=500), alone, alone], 1)[:, :, None].astype(np.float32)
    data = TrainingData(
        values, np.ones(values.shape, bool), np.zeros((500, 1), np.float32), np.arange(500, dtype=np.int32)
    )
    spec = replace(MLP, features=("air", "process", "wear", "same"))
    own = MlpClassifier().learnt(spec, Options(), unscaled(4), data)["rest"]
    difference = values[:, :, 0] @ own[:, 0]
    assert difference.std() == pytest.approx(1.0, abs=0.01)
    assert abs(np.corrcoef(difference, values[:, 1, 0])[0, 1]) < 0.01
    assert not own[:, 1:].any(), "neither two that have nothing in common nor two that are the same"


def test_few_inputs_are_read_where_weights_cost_something():
    data = items()
    read = [
        FailureMlp().fit(replace(MLP, options={**MLP.options, "sparsity": cost}), data, quiet) for cost in (0.0, 3e-3)
    ]
    free, sparse = (np.abs(fitted.params["network"]["conditions"]["kernel"]) for fitted in read)
    assert (sparse < 0.01).mean() > 2 * (free < 0.01).mean()


def test_a_window_that_rises_is_told_from_one_that_does_not():
    data = runs()
    fitted = FailureLstm().fit(LSTM, data, quiet)
    probability, state = told(FailureLstm(), LSTM, fitted.params, data.values)
    assert probability[:12].mean() > probability[12:].mean() + 30.0
    assert set(np.unique(state)) <= {0.0, 1.0}


def test_a_dear_failure_lowers_the_threshold():
    logit = np.random.default_rng(1).normal(-1, 2, 3000)
    came = (np.random.default_rng(2).random(3000) < sigmoid(logit)).astype(float)
    judged = HeldOut(logit[:, None], came, np.zeros(3000, np.int32))
    assert judged.learnt(50.0)["threshold"] < judged.learnt(1.0)["threshold"]


def test_a_feature_that_is_missing_counts_as_its_mean():
    params = FailureMlp().init(MLP, jax.random.key(1))
    params["scale"] = {"mean": np.array([20, 5], np.float32), "scale": np.array([2, 1], np.float32)}
    values = np.array([[[21.0], [5.0]], [[21.0], [99.0]]], np.float32)
    observed = np.array([[[True], [True]], [[True], [False]]])
    first, second = told(FailureMlp(), MLP, params, values, observed)[0]
    assert first == pytest.approx(second)


def test_the_outcome_is_never_an_input():
    spec = replace(MLP, features=("a", "b", "failed"), roles={"outcome": "failed"})
    values = np.concatenate([items(100).values, items(100).target[:, None]], 1)
    params = FailureMlp().init(spec, jax.random.key(1))
    lied = values.copy()
    lied[:, 2] = 1.0 - lied[:, 2]
    assert np.array_equal(told(FailureMlp(), spec, params, values)[0], told(FailureMlp(), spec, params, lied)[0])


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (np.full((40, 1), 2.0), "labels must be 0 or 1"),
        (np.zeros((40, 1)), "two or more to hold one out"),
        (np.ones((40, 1)), "every labelled cell has a failure"),
    ],
)
def test_labels_of_no_use_are_refused(target, words):
    data = replace(items(40), target=target.astype(np.float32))
    with pytest.raises(ValueError, match=words):
        FailureMlp().fit(MLP, data, quiet)


def test_a_role_that_it_does_not_know_is_refused():
    with pytest.raises(ValueError, match="knows the role 'outcome' alone"):
        FailureMlp().check(replace(MLP, roles={"age": "a"}))
