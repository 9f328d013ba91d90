"""Light models: how small, how near the full one, and refused where they are not near."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models import light
from models.artifact import load, save
from models.failure_mlp import FailureMlp
from models.kind import Spec, TrainingData
from models.pca_anomaly import PcaAnomaly
from models.runtime import Predictor

SPEC = Spec(
    "failure_mlp", ("a", "b", "c"), 4, {}, {"hidden": 32, "members": 5, "steps": 120, "batch": 64, "network": "tanh"}
)


def quiet(share: float, line: str) -> None:
    pass


@pytest.fixture(scope="module")
def data() -> TrainingData:
    """A failure where the product of two features is large."""
    values = np.random.default_rng(3).normal(size=(60, 3, 8)).astype(np.float32)
    target = (values[:, 0] * values[:, 1] > 0.8).astype(np.float32)
    return TrainingData(values, np.ones(values.shape, bool), target, np.arange(60, dtype=np.int32))


@pytest.fixture(scope="module")
def full(data):
    return FailureMlp().fit(SPEC, data, quiet).params


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.float32, (2, 5, 3), elements=st.floats(-1e3, 1e3, width=32)))
def test_a_weight_moves_by_half_a_step_at_most(weights):
    packed = light.quantised({"network": {"kernel": weights}})["network"]["kernel"]
    assert packed["int8"].dtype == np.int8
    found = np.asarray(light.widened({"kernel": packed})["kernel"])
    assert (np.abs(found - weights) <= 0.5001 * packed["step"] + 1e-30).all()


def test_a_pruned_matrix_loses_its_smallest_weights_alone():
    weights = np.arange(1, 1025, dtype=np.float32).reshape(1, 32, 32)
    packed = light.quantised({"kernel": weights}, 0.25)
    found = np.asarray(light.widened(light.unpacked(packed))["kernel"]).ravel()
    assert (found[:256] == 0).all()
    assert found[256:] == pytest.approx(weights.ravel()[256:], abs=1024 / 127)
    assert light.size(packed) < light.size(light.quantised({"kernel": weights}))


@pytest.mark.parametrize("pruned", [0.0, 0.3])
def test_an_artifact_carries_a_light_model_and_the_predictor_runs_it(data, full, tmp_path, pruned):
    small = light.quantised(full, pruned)
    assert light.size(small) < 0.45 * light.size(full)
    artifact = save(tmp_path, "light", SPEC, small, metrics={}, provenance={})
    read = load(artifact.path, artifact.sha256).params
    assert read["network"]["first"]["kernel"]["int8"].dtype == np.int8
    values, observed = data.values[..., :4], data.observed[..., :4]
    told = Predictor(FailureMlp(), SPEC, read, jax.devices("cpu")[0]).predict(values, observed)
    asked = light.outputs_of(FailureMlp(), SPEC, small, values, observed)
    assert told["failure_probability"].value == pytest.approx(asked["failure_probability"], abs=1e-3)
    whole = light.outputs_of(FailureMlp(), SPEC, full, values, observed)
    assert light.strayed(whole, asked)["failure_probability"] < 0.5


def test_a_light_model_that_strays_is_refused(data):
    assert light.fit(FailureMlp(), SPEC, data, "int8", 0.2, quiet).metrics["light_error"] < 0.2
    with pytest.raises(ValueError, match=r"strays by .* more than light_error = 1e-06; allow more"):
        light.fit(FailureMlp(), SPEC, data, "int8", 1e-6, quiet)


def test_a_student_learns_what_its_teacher_says(data, full):
    said = light.taught(FailureMlp(), SPEC, full, data).target
    assert not np.isin(said, [0.0, 1.0]).any()
    assert np.corrcoef(said.ravel(), data.target.ravel())[0, 1] > 0.5
    fitted = light.fit(FailureMlp(), SPEC, data, "student", 10.0, quiet)
    fresh = FailureMlp().init(light.student(SPEC), jax.random.key(0))
    assert jax.tree.map(np.shape, fitted.params) == jax.tree.map(np.shape, fresh)


def test_what_gives_no_life_and_no_probability_has_no_student(data):
    spec = Spec("pca_anomaly", ("a", "b", "c"), 4)
    healthy = replace(data, target=np.zeros_like(data.target))
    with pytest.raises(ValueError, match="no life and no probability"):
        light.fit(PcaAnomaly(), spec, healthy, "student", 1.0, quiet)


def test_a_number_in_place_of_none_is_no_light_model():
    full = {"x": np.array([1.0, np.nan], np.float32)}
    assert light.strayed(full, {"x": np.array([1.0, 1.0], np.float32)})["x"] == np.inf
    assert light.strayed(full, full)["x"] == 0.0
