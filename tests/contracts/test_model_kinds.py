"""Every kind that foretag ships keeps the promises of the seam; and the suite itself sees a broken promise."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import calendar
from models.anomaly import Anomaly
from models.autoencoders import ConvAutoencoderKind, LstmAutoencoderKind
from models.checks import check_kind
from models.failure_lstm import FailureLstm
from models.failure_mlp import FailureMlp
from models.forecast_lstm import ForecastLstm
from models.kind import Estimate, Fitted, Spec, TrainingData
from models.pca_anomaly import PcaAnomaly
from models.quality_mlp import QualityMlp
from models.rul_lstm import RulLstm
from models.var_anomaly import VarAnomaly

FORECAST = {"ahead": [1, 4], "day": 4, "context": 8, "trees": 8}
TINY = {"hidden": 4, "members": 2, "steps": 20, "batch": 4}
SMALL = {"context": 8, "hidden": 4, "latent": 2, "steps": 8, "batch": 4}
CONDITIONS = Spec(
    "rul_lstm", ("cycle", "a", "b", "c"), 24, {"age": "cycle", "setting_1": "c"}, {**TINY, "context": 8}
)  # fmt: skip


def training_data(roles, cells=24, windows=12):
    """Random windows; an age that counts, a target in its range, holes in all windows but the first."""
    generator = np.random.default_rng(7)
    values = generator.normal(size=(windows, 4, cells)).astype(np.float32)
    if "age" in roles:
        values[:, 0] = np.arange(cells)
    if "setting_1" in roles:
        values[:, 3] = np.round(2 * values[:, 3]) % 3
    observed = generator.random(values.shape) < 0.9
    observed[0], observed[:, :, -1] = True, True
    target = generator.uniform(0, 50, (windows, cells)).astype(np.float32)
    return TrainingData(np.where(observed, values, 0), observed, target, np.arange(windows, dtype=np.int32))


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        (RulLstm(), Spec("rul_lstm", ("cycle", "a", "b", "c"), 24, {"age": "cycle"}, {**TINY, "context": 8})),
        (RulLstm(), CONDITIONS),
        (RulLstm(), replace(CONDITIONS, options={**CONDITIONS.options, "cell": "gru"})),
        (RulLstm(), replace(CONDITIONS, options={**CONDITIONS.options, "cell": "mingru"})),
        (
            QualityMlp(),
            Spec(
                "quality_mlp",
                ("a", "b", "c", "y"),
                24,
                {"lab": "y"},
                {**TINY, "output": "y", "delay": 2, "spec_low": -1.0},
            ),
        ),
        (
            ForecastLstm(),
            Spec("forecast_lstm", ("a", "b", "c", "y"), 24, {"target": "y"}, {**TINY, **FORECAST}),
        ),
        (
            ForecastLstm(),
            Spec("forecast_lstm", ("y", "b", *calendar.NAMES[:2]), 16, {"target": "y"}, {**TINY, **FORECAST}),
        ),
        (FailureMlp(), Spec("failure_mlp", ("a", "b", "c", "d"), 24, {}, {**TINY, "trees": 4})),
        (
            FailureMlp(),
            Spec(
                "failure_mlp",
                ("a", "b", "c", "d"),
                24,
                {"outcome": "d"},
                {**TINY, "trees": 0, "products": 0, "network": "tanh"},
            ),
        ),
        (
            FailureLstm(),
            Spec("failure_lstm", ("a", "b", "c", "d"), 24, {}, {**TINY, "context": 8, "cost": 5.0, "trees": 4}),
        ),
        (PcaAnomaly(), Spec("pca_anomaly", ("cycle", "a", "b", "c"), 24, {"age": "cycle"}, {"own_start": 1})),
        (PcaAnomaly(), Spec("pca_anomaly", ("a", "b", "c", "d"), 24)),
        (VarAnomaly(), Spec("var_anomaly", ("a", "b", "c", "d"), 24, {}, {"order": 2})),
        (LstmAutoencoderKind(), Spec("lstm_autoencoder", ("a", "b", "c", "d"), 24, {}, SMALL)),
        (ConvAutoencoderKind(), Spec("conv_autoencoder", ("a", "b", "c", "d"), 24, {}, SMALL)),
        (Anomaly(), Spec("anomaly", ("a", "b", "c", "d"), 24, {}, {"detectors": "pca var", "order": 2})),
    ],
    ids=[
        "rul_lstm",
        "rul_lstm with settings",
        "rul_lstm of GRU cells",
        "rul_lstm of minGRU cells",
        "quality_mlp",
        "forecast_lstm",
        "forecast_lstm with a date, and blocks longer than its window",
        "failure_mlp",
        "failure_mlp with an outcome",
        "failure_lstm",
        "pca_anomaly with an own start",
        "pca_anomaly",
        "var_anomaly",
        "lstm_autoencoder",
        "conv_autoencoder",
        "anomaly",
    ],
)
def test_a_shipped_kind_keeps_every_promise(kind, spec):
    data = training_data(spec.roles)
    if any(output.name == "score" for output in kind.outputs(spec)):
        data = replace(data, target=np.zeros_like(data.target))
    if spec.kind.startswith("failure"):
        data = replace(data, target=(data.target < 10).astype(np.float32))
    assert check_kind(kind, spec, data) == []


_FEATURES = ("y", "b", "c", "d")


@pytest.mark.parametrize(
    ("kind", "spec", "unseen"),
    [
        (RulLstm(), Spec("rul_lstm", _FEATURES, 24, {"age": "y"}, {**TINY, "context": 8, "trees": 4}), 2),
        (QualityMlp(), Spec("quality_mlp", _FEATURES, 24, {"lab": "y"}, {**TINY, "output": "y", "delay": 2}), None),
        (FailureMlp(), Spec("failure_mlp", _FEATURES, 24, {}, {**TINY, "trees": 4}), 2),
        (VarAnomaly(), Spec("var_anomaly", _FEATURES, 24, {}, {"order": 2}), None),
    ],
    ids=["rul_lstm", "quality_mlp", "failure_mlp", "var_anomaly"],
)
def test_a_feature_that_never_moved_or_was_never_seen_does_no_harm(kind, spec, unseen):
    """Neither in training nor when it moves at last, by as much as a float32 holds. ``unseen``: where that can be."""
    data = training_data(spec.roles)
    values, observed = data.values.copy(), data.observed.copy()
    values[:, 1] = np.where(observed[:, 1], 5.0, 0.0)
    if unseen is not None:
        values[:, unseen], observed[:, unseen] = 0.0, False
    target = {"failure_mlp": data.target < 10, "var_anomaly": np.zeros_like(data.target)}.get(spec.kind, data.target)
    data = TrainingData(values, observed, target.astype(np.float32), data.group)
    fitted = kind.fit(spec, data, lambda share, message: None)
    assert all(np.isfinite(figure) for figure in fitted.metrics.values()), fitted.metrics
    told = jax.jit(lambda values, observed: kind.predict(spec, fitted.params, values, observed))
    for value in (5.0, 6.0, 3e38, -3e38):
        values[:, 1], observed[:, 1] = value, True
        for name, estimate in jax.device_get(told(values, observed)).items():
            assert not np.isinf(np.stack(estimate)).any(), f"{name} where it is {value}"


class Careless:
    """A stranger's kind that breaks what can be broken without raising."""

    name = "careless"
    roles = ("lab",)

    def check(self, spec):
        pass

    def outputs(self, spec):
        return PcaAnomaly().outputs(spec)

    def init(self, spec, key):
        return {"weight": jax.random.normal(key, (2,))}

    def fit(self, spec, data, progress):
        self.calls = getattr(self, "calls", 0) + 1
        return Fitted({"weight": np.full(3, self.calls, np.float32)}, {})

    free: frozenset[str] = frozenset()

    def adapt(self, spec, start, data, progress, *, head_only):
        start["weight"] += 1
        return Fitted({"weight": start["weight"].copy()}, {})

    def predict(self, spec, params, values, observed):
        value = jnp.mean(values, axis=(1, 2)) + jnp.mean(values)
        return {"score": Estimate(value, value + 1, value - 1), "more": Estimate(value, value, value)}


def test_the_suite_names_each_broken_promise():
    spec = Spec("careless", ("a", "b", "c", "y"), 24, {"lab": "y"})
    broken = "\n".join(check_kind(Careless(), spec, training_data(spec.roles)))
    for words in (
        "init['weight']",
        "two fits",
        "outputs promises",
        "outside its bounds",
        "changes with the other rows",
        "cells in front",
        "nothing observed gives a number",
        "reads what is not observed",
        "option that does not exist",
        "without the role lab",
        "no threshold",
        "changes what it begins from",
        "with head_only changes all weights",
    ):
        assert words in broken


def test_init_depends_on_the_key_alone():
    spec = Spec("rul_lstm", ("cycle", "a"), 24, {"age": "cycle"}, TINY)
    first, same, other = (RulLstm().init(spec, jax.random.key(seed))["network"]["recurrent"] for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
