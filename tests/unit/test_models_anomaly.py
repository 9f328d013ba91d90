"""PCA scores on features that move together, until they don't."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from models.kind import Spec, TrainingData
from models.pca_anomaly import PcaAnomaly

KIND = PcaAnomaly()
SPEC = Spec("pca_anomaly", ("a", "b", "c", "d"), 40, {}, {"smooth": 4, "cells_per_week": 400.0})
MIX = np.array([[1.0, 0.5], [0.8, -1.0], [-0.6, 0.7], [0.2, 1.0]])


def healthy(windows=60, seed=1, level=0.0):
    """Four features that follow two hidden causes."""
    generator = np.random.default_rng(seed)
    values = np.einsum("fk,nkt->nft", MIX, generator.normal(size=(windows, 2, 40))) + level
    values = (values + generator.normal(0, 0.1, values.shape)).astype(np.float32)
    return TrainingData(values, np.ones(values.shape, bool), np.zeros((windows, 40), np.float32), np.arange(windows))


@pytest.fixture(scope="module")
def fitted():
    return KIND.fit(SPEC, healthy(), lambda share, message: None)


def scores(fitted, values, observed, spec=SPEC):
    found = jax.jit(lambda v, o: KIND.predict(spec, fitted.params, v, o))(values, observed)["score"]
    return np.asarray(found.value)


def test_a_sensor_that_leaves_the_others_is_over_the_threshold_and_named(fitted):
    data = healthy(seed=2)
    values = data.values.copy()
    values[:, 2, -10:] += 1.5
    assert np.mean(scores(fitted, data.values, data.observed) > fitted.metrics["threshold"]) < 0.05
    assert np.mean(scores(fitted, values, data.observed) > fitted.metrics["threshold"]) > 0.95
    shares = np.asarray(KIND.contributions(SPEC, fitted.params, values, data.observed))
    assert np.all(shares.argmax(1) == 2)
    assert shares.sum(1) == pytest.approx(1.0, abs=1e-4)


def test_a_smaller_budget_gives_a_higher_threshold(fitted):
    strict = replace(SPEC, options={**SPEC.options, "false_alarms_per_week": 0.01})
    assert KIND.fit(strict, healthy(), lambda s, m: None).metrics["threshold"] > fitted.metrics["threshold"]


def test_the_budget_is_kept_on_cells_that_were_never_seen(fitted):
    data = healthy(windows=400, seed=3)
    alarms = np.sum(scores(fitted, data.values, data.observed) > fitted.metrics["threshold"])
    # One alarm in 400 cells is the budget; 400 windows with one scored cell each are as many cells.
    assert alarms <= 5


def test_known_anomalies_are_not_learnt_and_judge(fitted):
    data = healthy()
    values, target = data.values.copy(), data.target.copy()
    values[::5, 2, 20:] += 5.0
    target[::5, 20:] = 1.0
    found = KIND.fit(SPEC, TrainingData(values, data.observed, target, data.group), lambda s, m: None)
    assert found.metrics["threshold"] < 3 * fitted.metrics["threshold"]
    assert found.metrics["detected"] > 0.8


def test_the_own_start_takes_a_units_level_away():
    spec = replace(
        SPEC, features=("hours", "a", "b", "c", "d"), roles={"age": "hours"}, options={**SPEC.options, "own_start": 1}
    )

    def aged(data):
        hours = np.broadcast_to(np.arange(40, dtype=np.float32), (len(data.values), 1, 40))
        values = np.concatenate([hours, data.values], 1)
        return replace(data, values=values, observed=np.ones(values.shape, bool))

    levels = np.random.default_rng(4).normal(0, 3, (60, 4, 1))
    model = KIND.fit(spec, aged(healthy(level=levels)), lambda share, message: None)
    data = aged(healthy(seed=5, level=levels[::-1]))
    assert np.mean(scores(model, data.values, data.observed, spec) > model.metrics["threshold"]) < 0.05
    worn = data.values.copy()
    worn[:, 3, -10:] += 3.0
    assert np.mean(scores(model, worn, data.observed, spec) > model.metrics["threshold"]) > 0.9


def test_a_feature_that_is_gone_gives_no_score(fitted):
    data = healthy(windows=2)
    data.observed[0, 1, -4:] = False
    data.observed[1, 1, -3:] = False
    assert np.isnan(scores(fitted, data.values, data.observed)).tolist() == [True, False]


def test_a_constant_feature_does_no_harm():
    data = healthy()
    data.values[:, 3] = 518.67
    model = KIND.fit(SPEC, data, lambda share, message: None)
    assert np.isfinite(scores(model, data.values, data.observed)).all()


def test_too_few_healthy_cells_are_refused():
    data = healthy(windows=3)
    data.target[:] = np.nan
    data.target[:, :1] = 0.0
    with pytest.raises(ValueError, match="healthy cells are too few"):
        KIND.fit(SPEC, data, lambda share, message: None)
