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
from models.rul_lstm import RulLstm
from models.runtime import Predictor

SPEC = Spec(
    "failure_mlp",
    ("a", "b", "c"),
    4,
    {},
    {"hidden": 32, "members": 5, "steps": 120, "batch": 64, "network": "tanh", "trees": 4},
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


@pytest.mark.parametrize("native", [False, True])
def test_bfloat16_halves_a_network_and_says_nearly_the_same(tmp_path, monkeypatch, native):
    monkeypatch.setattr(light, "multiplies_bf16", lambda: native)
    options = {"cap": 40, "horizon": 10, "context": 8, "hidden": 32, "members": 2, "trees": 1}
    spec = Spec("rul_lstm", ("cycle", "wear"), 24, {"age": "cycle"}, options)
    kind = RulLstm()
    full = jax.device_get(kind.init(spec, jax.random.key(0)))
    halved = light.halved(full)
    assert light.size(halved["network"]) < 0.55 * light.size(full["network"])
    read = load(save(tmp_path, "light", spec, halved, metrics={}, provenance={}).path).params
    values = np.random.default_rng(1).normal(size=(9, 2, 24)).astype(np.float32)
    for windows in (values, values[:1]):
        observed = np.ones(windows.shape, bool)
        told = Predictor(kind, spec, read, jax.devices("cpu")[0]).predict(windows, observed)["rul"].value
        whole = Predictor(kind, spec, full, jax.devices("cpu")[0]).predict(windows, observed)["rul"].value
        assert told == pytest.approx(whole, abs=0.2)
        assert not np.array_equal(told, whole)


def test_matrices_that_are_no_network_s_stay_as_they_are():
    kept = {"inverse": np.ones((2, 3, 3), np.float32), "network": {"kernel": np.ones((2, 3, 3), np.float32)}}
    halved = light.halved(kept)
    assert halved["inverse"].dtype == np.float32
    assert halved["network"]["kernel"]["bf16"].dtype == np.uint16
    assert light.is_halved(halved)
    assert not light.is_halved(kept)


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
    assert light.fit(FailureMlp(), SPEC, data, "bf16", 0.2, quiet).metrics["light_error"] < 0.2
    with pytest.raises(ValueError, match=r"strays by .* more than light_error = 1e-06; allow more"):
        light.fit(FailureMlp(), SPEC, data, "int8", 1e-6, quiet)


def test_a_student_learns_half_of_what_its_teacher_says_and_labels_alone_where_none_was_asked(data, full):
    asked = data.group < 40
    said = light.taught(FailureMlp(), SPEC, full, data, asked).target
    assert np.array_equal(said[~asked], data.target[~asked])
    teacher = 2.0 * said[asked] - data.target[asked]
    assert ((teacher > 0.0) & (teacher < 1.0)).all()
    assert np.corrcoef(teacher.ravel(), data.target[asked].ravel())[0, 1] > 0.5
    assert np.array_equal(said >= 0.5, data.target >= 0.5)


class Traced(FailureMlp):
    """Counts how often it is traced: once for each program."""

    traced = 0

    def predict(self, spec, params, values, observed):
        self.traced += 1
        return super().predict(spec, params, values, observed)


def test_a_teacher_is_compiled_once_however_many_cells_it_is_asked_of(data, full):
    kind = Traced()
    light.taught(kind, SPEC, full, data, np.ones(60, bool))
    assert data.target.size > 256
    assert kind.traced == 1


def test_a_life_beyond_the_cap_is_taught_as_the_cap():
    options = {"cap": 40, "horizon": 10, "context": 8, "hidden": 4, "members": 1, "trees": 1}
    spec = Spec("rul_lstm", ("cycle", "wear"), 100, {"age": "cycle"}, options)
    values = np.tile(np.arange(100, dtype=np.float32), (3, 2, 1))
    left = np.tile(np.arange(100, dtype=np.float32)[::-1], (3, 1))
    data = TrainingData(values, np.ones(values.shape, bool), left, np.arange(3, dtype=np.int32))
    params = RulLstm().init(spec, jax.random.key(0))
    said = light.taught(RulLstm(), spec, params, data, np.ones(3, bool)).target
    assert (said[left >= 40] <= 40).all()
    assert (np.abs(said - np.minimum(left, 40)) <= 20).all()


def test_a_student_is_a_model_of_its_kind(data):
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


def test_a_state_strays_by_the_share_of_the_windows_that_are_in_another():
    full = {"x": np.array([0, 1, 1, 1, np.nan], np.float32)}
    light_one = {"x": np.array([0, 1, 0, 1, np.nan], np.float32)}
    assert light.strayed(full, light_one, ["x"])["x"] == 0.25
    assert light.strayed(full, light_one)["x"] > 1
    assert light.strayed(full, full, ["x"])["x"] == 0
