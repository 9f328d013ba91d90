"""What looks for anomalies beside principal components, and the choice among them."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from models import faults, residuals, thresholds
from models.anomaly import Anomaly
from models.autoencoders import ConvAutoencoderKind
from models.kind import Spec, TrainingData
from models.var_anomaly import VarAnomaly

FEATURES = ("a", "b", "c")
VAR = Spec("var_anomaly", FEATURES, 40, {}, {"smooth": 4, "order": 2, "ridge": 1.0, "cells_per_week": 400.0})


def wandering(windows=40, seed=1):
    """Three features that remember where they were, the third what the first was a cell ago."""
    noise = np.random.default_rng(seed).normal(size=(windows, 3, 60)).astype(np.float32)
    values = np.zeros_like(noise)
    for cell in range(1, 60):
        values[..., cell] = 0.9 * values[..., cell - 1] + noise[..., cell]
        values[:, 2, cell] = values[:, 0, cell - 1] + 0.1 * noise[:, 2, cell]
    values = values[..., 20:]
    return TrainingData(values, np.ones(values.shape, bool), np.zeros((windows, 40), np.float32), np.arange(windows))


def scores(kind, spec, fitted, values, observed):
    found = jax.jit(lambda v, o: kind.predict(spec, fitted.params, v, o))(values, observed)["score"]
    return np.asarray(found.value)


def test_a_feature_that_no_longer_follows_the_others_is_seen_within_its_usual_range():
    fitted = VarAnomaly().fit(VAR, wandering(), lambda share, message: None)
    data = wandering(seed=2)
    healthy = scores(VarAnomaly(), VAR, fitted, data.values, data.observed)
    values = data.values.copy()
    values[:, 2, -8:] = values[::-1, 2, -8:]
    other = scores(VarAnomaly(), VAR, fitted, values, data.observed)
    assert np.mean(healthy > fitted.metrics["threshold"]) < 0.1
    assert np.mean(other > fitted.metrics["threshold"]) > 0.9
    shares = np.asarray(VarAnomaly().contributions(VAR, fitted.params, values, data.observed))
    assert np.mean(shares.argmax(1) == 2) > 0.9


def test_a_short_hole_in_the_past_costs_no_score_and_a_long_one_does():
    fitted = VarAnomaly().fit(VAR, wandering(), lambda share, message: None)
    data = wandering(windows=2)
    data.observed[0, 1, -3:-1] = False
    data.observed[1, 1, -12:-1] = False
    assert np.isnan(scores(VarAnomaly(), VAR, fitted, data.values, data.observed)).tolist() == [False, True]


def test_an_autoencoder_tells_again_what_it_knows_and_no_fault():
    wave = np.sin(np.arange(40) / 3.0 + np.random.default_rng(1).uniform(0, 6, (30, 1, 1)))
    values = (wave * np.array([1.0, 2.0, -1.0])[:, None]).astype(np.float32)
    data = replace(wandering(30), values=values, observed=np.ones(values.shape, bool))
    options = {"smooth": 4, "context": 8, "hidden": 16, "latent": 2, "steps": 100, "batch": 32, "noise": 0.1}
    spec = Spec("conv_autoencoder", FEATURES, 40, {}, options)
    fitted = ConvAutoencoderKind().fit(spec, data, lambda share, message: None)
    broken = values.copy()
    broken[:, 2, -4:] *= -1.0
    assert np.median(scores(ConvAutoencoderKind(), spec, fitted, values, data.observed)) < 1.0
    assert np.median(scores(ConvAutoencoderKind(), spec, fitted, broken, data.observed)) > 1.0


def test_the_best_detector_is_used_and_said():
    spec = replace(VAR, kind="anomaly", options={**VAR.options, "detectors": "pca var"})
    fitted = Anomaly().fit(spec, wandering(), lambda share, message: None)
    metrics = fitted.metrics
    assert metrics["sees_var"] > metrics["sees_pca"]
    assert (metrics["uses_var"], metrics["uses_pca"]) == (1.0, 0.0)
    alone = VarAnomaly().fit(VAR, wandering(), lambda share, message: None)
    data = wandering(seed=3)
    ours = scores(Anomaly(), spec, fitted, data.values, data.observed)
    theirs = scores(VarAnomaly(), VAR, alone, data.values, data.observed)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert metrics["threshold"] == pytest.approx(alone.metrics["threshold"], rel=1e-4)


@pytest.mark.parametrize("names", ["", "pca forest", "pca pca"])
def test_detectors_that_do_not_exist_are_refused(names):
    with pytest.raises(ValueError, match=r"detectors"):
        Anomaly().check(replace(VAR, kind="anomaly", options={"detectors": names}))


def test_a_fault_is_in_its_feature_alone_and_in_the_newest_cells():
    crops = np.random.default_rng(1).normal(size=(6, 20, 3)).astype(np.float32)
    feature = np.arange(6) % 3
    for changed in faults.faulty(crops, feature, lasting=5):
        row, cell, which = np.nonzero(changed != crops)
        assert len(row)
        assert (cell >= 15).all()
        assert (which == feature[row]).all()


def test_a_conformal_threshold_is_kept_on_new_scores_and_never_beyond_the_data():
    generator = np.random.default_rng(1)
    runs = [generator.exponential(size=100) for _ in range(20)]
    found = thresholds.threshold(runs, 5, 0.01, "conformal")
    tops = generator.exponential(size=(4000, 5)).max(1)
    assert np.mean(tops > found) == pytest.approx(0.05, abs=0.02)
    assert thresholds.threshold(runs, 5, 1e-9, "conformal") == max(run.max() for run in runs)


def test_extreme_values_reach_beyond_the_data():
    runs = [np.random.default_rng(1).exponential(size=2000)]
    # Of an exponential law a share p lies above -log(p).
    assert thresholds.threshold(runs, 1, 1e-5, "pareto") == pytest.approx(-np.log(1e-5), rel=0.35)
    assert thresholds.threshold(runs, 1, 1e-5, "pareto") > runs[0].max()


def test_a_law_of_block_maxima_reaches_beyond_a_few_hundred_scores():
    generator = np.random.default_rng(1)
    found = [thresholds.threshold([generator.exponential(size=300)], 10, 1e-4, "gumbel") for _ in range(200)]
    # Of an exponential law a block of ten passes -log(1 - (1 - p)^(1/10)) with probability p.
    assert np.median(found) == pytest.approx(-np.log(1.0 - (1.0 - 1e-3) ** 0.1), rel=0.1)
    few = [generator.exponential(size=40)]
    assert thresholds.threshold(few, 10, 1e-4, "gumbel") == few[0].max(), "four blocks tell no law"


def distances(root, fresh):
    return np.square(fresh @ root[0].T).sum(1)


def test_few_residuals_make_no_direction_look_smaller_than_it_is():
    generator = np.random.default_rng(1)
    few, fresh = generator.normal(size=(20, 8)), generator.normal(size=(2000, 8))
    overlapping = np.repeat(few, 15, axis=0)
    counted = distances(residuals.mahalanobis(overlapping, 15), fresh).mean()
    assert counted == pytest.approx(8.0, rel=0.3)
    assert distances(residuals.mahalanobis(overlapping, 1), fresh).mean() > 1.3 * counted


def test_many_residuals_are_taken_as_they_are():
    generator = np.random.default_rng(1)
    mixed = generator.normal(size=(20_000, 3)) @ np.array([[1.0, 0.8, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 2.0]])
    (root,) = residuals.mahalanobis(mixed, 1)
    assert root @ root.T @ np.cov(mixed.T) == pytest.approx(np.eye(3), abs=0.02)


def test_what_never_moved_is_at_no_infinite_distance():
    assert np.isfinite(residuals.mahalanobis(np.zeros((50, 1)), 5)).all()
    assert np.isfinite(residuals.mahalanobis(np.zeros((50, 4)), 5)).all()
