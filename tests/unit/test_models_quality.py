"""The soft sensor on a plant whose laboratory drifts in a known way."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.kind import Estimate, Spec, TrainingData
from models.quality_mlp import QualityMlp, _laboratory, _residual, uncorrected
from models.specification import Specification

KIND = QualityMlp()
CELLS, LATE = 120, 6
SPEC = Spec(
    "quality_mlp", ("feed", "heat", "lab"), CELLS, {"lab": "lab"},
    {"output": "purity", "delay": LATE, "hidden": 8, "members": 2, "steps": 300, "hold": 2},
)  # fmt: skip


residual = jax.jit(partial(_residual, SPEC))


def plant(windows=24, seed=1, drift=0.0):
    """Blocks of a plant in time order: purity = 50 + 3·feed + 2·tanh(heat) + drift + noise."""
    generator = np.random.default_rng(seed)
    process = generator.normal(size=(windows, 2, CELLS))
    truth = 50 + 3 * process[:, 0] + 2 * np.tanh(process[:, 1]) + drift + generator.normal(0, 0.3, (windows, CELLS))
    values = np.concatenate([process, truth[:, None]], 1).astype(np.float32)
    observed = np.ones(values.shape, bool)
    return TrainingData(values, observed, truth.astype(np.float32), np.arange(windows, dtype=np.int32))


def live(data):
    """As it is scored: the laboratory's last answers are still to come."""
    observed = data.observed.copy()
    observed[:, 2, -LATE:] = False
    return np.where(observed, data.values, 0).astype(np.float32), observed


@pytest.fixture(scope="module")
def fitted():
    return KIND.fit(SPEC, plant(), lambda share, message: None)


@pytest.fixture(scope="module")
def predict(fitted):
    program = jax.jit(lambda values, observed: KIND.predict(SPEC, fitted.params, values, observed))
    return lambda values, observed: jax.device_get(program(values, observed))["purity"]


def test_a_drift_that_training_never_saw_is_followed(fitted, predict):
    data = plant(windows=60, seed=2, drift=25.0)
    found, truth = predict(*live(data)), data.target[:, -1]
    assert np.sqrt(np.mean((found.value - truth) ** 2)) < 2.0
    assert np.mean((found.lower <= truth) & (truth <= found.upper)) >= 0.8
    assert fitted.metrics["r2"] > 0.9
    assert fitted.metrics["r2_last_lab"] < 0.1


def test_the_estimate_is_the_network_and_the_bias_of_a_plain_loop(fitted, predict):
    data = plant(windows=3, seed=3, drift=4.0)
    values, observed = live(data)
    observed[:, 2, ::3] = False
    lab = np.where(observed[:, 2], values[:, 2], np.nan)
    network = np.asarray(jax.jit(partial(uncorrected, SPEC))(fitted.params, values, observed))
    for row, value in enumerate(predict(values, observed).value):
        total = weight = 0.0
        for cell in range(CELLS):
            if observed[row, 2, cell]:
                total = 0.95 * total + lab[row, cell] - network[row, cell]
                weight = 0.95 * weight + 1.0
        assert value == pytest.approx(network[row, -1] + total / weight, abs=2e-2)


def test_the_laboratory_is_no_input_of_the_network(fitted):
    values, observed = live(plant(windows=2))
    other = values.copy()
    other[:, 2] = -1e3
    blind = observed.copy()
    blind[:, 2] = False
    lab = values[:, 2]
    first = residual(fitted.params, values, observed, lab).network
    assert np.array_equal(first, residual(fitted.params, other, observed, lab).network)
    assert np.array_equal(first, residual(fitted.params, values, blind, lab).network)


def test_an_answer_that_is_still_to_come_changes_nothing(predict):
    values, observed = live(plant(windows=2))
    leaked = values.copy()
    leaked[:, 2, -LATE:] = 1e3
    assert np.array_equal(predict(values, observed).value, predict(leaked, observed).value)


def test_an_input_is_held_for_so_long_and_then_there_is_no_number(predict):
    values, observed = live(plant(windows=3))
    observed[1, 0, -2:] = False
    observed[2, 0, -3:] = False
    found = predict(values, observed)
    assert np.isfinite(found.value).tolist() == [True, True, False]
    assert np.isnan(found.lower[2])


def test_without_an_answer_in_the_window_there_is_no_number(predict):
    values, observed = live(plant(windows=2))
    observed[1, 2] = False
    assert np.isfinite(predict(values, observed).value).tolist() == [True, False]


def test_one_answer_gives_a_number_with_the_margin_of_the_training(fitted, predict):
    values, observed = live(plant(windows=1))
    observed[0, 2, 1:] = False
    found = predict(values, observed)
    margin = fitted.params["margin"] * fitted.params["lab"]["scale"][0]
    assert found.upper - found.value == pytest.approx(margin, rel=1e-3)


def test_late_answers_may_come_as_targets_or_as_the_feature():
    data = plant(windows=2)
    data.target[0] = np.nan
    data.observed[1, 2] = False
    assert np.array_equal(_laboratory(SPEC, data), plant(windows=2).target)


@pytest.mark.parametrize(("windows", "labels", "words"), [(1, True, "two or more to hold"), (4, False, "has 0 values")])
def test_data_of_no_use_are_refused(windows, labels, words):
    data = plant(windows=windows)
    if not labels:
        data.observed[:, 2] = False
        data.target[:] = np.nan
    with pytest.raises(ValueError, match=words):
        KIND.fit(SPEC, data, lambda share, message: None)


def limited(**limits: object):
    """The plant's spec with specification limits."""
    return Spec(SPEC.kind, SPEC.features, SPEC.length, SPEC.roles, {**SPEC.options, **limits})


@pytest.fixture(scope="module")
def against_limits(fitted):
    spec = limited(spec_low=46.0, spec_high=54.0)
    program = jax.jit(partial(KIND.predict, spec, fitted.params))
    return lambda values, observed: jax.device_get(program(values, observed))


def test_what_lies_beyond_the_limits_is_expected_as_often_as_it_comes(against_limits):
    data = plant(windows=150, seed=5)
    truth = data.target[:, -1]
    values, observed = live(data)
    observed[0, 2] = False
    found = against_limits(values, observed)
    assert [bool(np.isnan(each.value[0])) for each in found.values()] == [True] * 3
    value, lower, upper = (part[1:] for part in found["purity"])
    share, state = found["purity_out_of_spec"].value[1:], found["purity_verdict"].value[1:]
    outside = ((truth < 46.0) | (truth > 54.0))[1:]
    assert share.mean() == pytest.approx(100 * outside.mean(), abs=6)
    assert outside[share > 90].mean() > 0.8
    assert outside[share < 10].mean() < 0.1
    assert sorted(set(state)) == [0, 1, 2]
    assert np.array_equal(state == 2, (value < 46.0) | (value > 54.0))
    assert np.array_equal(state == 0, (lower >= 46.0) & (upper <= 54.0))


def test_one_limit_is_enough_and_none_adds_no_output():
    found = Estimate(*(jnp.array([part]) for part in (49.0, 44.0, 52.0)))
    low, high = (Specification("purity", *sides).judged(found) for sides in ((50.0, None), (None, 50.0)))
    assert low["purity_out_of_spec"].value + high["purity_out_of_spec"].value == pytest.approx([100], abs=1e-2)
    assert [float(each["purity_verdict"].value[0]) for each in (low, high)] == [2, 1]
    assert Specification("purity", None, None).judged(found) == {}
    assert [output.name for output in KIND.outputs(SPEC)] == ["purity"]
    outputs = KIND.outputs(limited(spec_low=1.0))
    assert [output.name for output in outputs] == ["purity", "purity_out_of_spec", "purity_verdict"]
    assert outputs[2].states == ("pass", "doubtful", "fail")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"spec_low": 5.0, "spec_high": 5}, r"spec_low = 5.0: must be below spec_high, 5"),
        ({"spec_high": "60"}, "spec_high = '60': must be a number"),
        ({"spec_low": float("nan")}, "spec_low = nan: must be a number"),
    ],
)
def test_limits_that_are_none_are_refused(limits, words):
    with pytest.raises(ValueError, match=words):
        KIND.check(limited(**limits))


def test_the_interval_widens_with_what_the_window_saw(fitted, predict):
    values, observed = live(plant(windows=1, seed=7))
    noisy = values.copy()
    noisy[0, 2, 60:] += np.random.default_rng(8).normal(0, 4.0, CELLS - 60)
    calm, wild = (predict(each, observed) for each in (values, noisy))
    assert wild.upper[0] - wild.lower[0] > 2 * (calm.upper[0] - calm.lower[0])
    assert 0.7 <= fitted.metrics["coverage"] <= 1.0
