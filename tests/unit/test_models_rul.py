"""The RUL LSTM on units that wear in a known way."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from models.kind import Spec, TrainingData
from models.rul_lstm import RulLstm

KIND = RulLstm()
SPEC = Spec(
    "rul_lstm", ("cycle", "wear", "noise", "constant"), 80, {"age": "cycle"},
    {"cap": 40, "horizon": 10, "context": 24, "hidden": 12, "members": 2, "steps": 200, "batch": 32},
)  # fmt: skip


def lives(count=30, seed=3, cells=80):
    """Units that start from a level of their own and wear ever faster in their last 40 cells; padded at the end."""
    generator = np.random.default_rng(seed)
    values = np.zeros((count, 4, cells), np.float32)
    observed = np.zeros(values.shape, bool)
    target = np.full((count, cells), np.nan, np.float32)
    for unit, length in enumerate(generator.integers(50, cells + 1, count)):
        left = np.arange(length)[::-1]
        wear = generator.normal() + 0.002 * np.maximum(40 - left, 0) ** 2 + generator.normal(0, 0.1, length)
        values[unit, :, :length] = (
            np.arange(1, length + 1),
            wear,
            generator.normal(size=length),
            np.full(length, 518.67),
        )
        observed[unit, :, :length] = True
        target[unit, :length] = left
    return TrainingData(values, observed, target, np.arange(count, dtype=np.int32))


@pytest.fixture(scope="module")
def fitted():
    return KIND.fit(SPEC, lives(), lambda share, message: None)


@pytest.fixture(scope="module")
def predict(fitted):
    program = jax.jit(lambda values, observed: KIND.predict(SPEC, fitted.params, values, observed))
    return lambda values, observed: jax.device_get(program(values, observed))


@pytest.fixture(scope="module")
def unseen():
    """Windows of other units, each ending at a random age, and the RUL there."""
    data, generator = lives(seed=4), np.random.default_rng(9)
    values, observed, left = [], [], []
    for unit in range(len(data.values)):
        end = int(generator.integers(25, int(np.isfinite(data.target[unit]).sum()) + 1))
        front = ((0, 0), (80 - end, 0))
        values.append(np.pad(data.values[unit, :, :end], front))
        observed.append(np.pad(data.observed[unit, :, :end], front))
        left.append(min(data.target[unit, end - 1], 40))
    return np.stack(values), np.stack(observed), np.array(left)


def test_wear_is_learnt(fitted, predict, unseen):
    values, observed, left = unseen
    rul = predict(values, observed)["rul"]
    error = np.sqrt(np.mean((rul.value - left) ** 2))
    assert error < 0.5 * np.std(left)
    assert fitted.metrics["rmse"] < 0.5 * np.std(left)
    assert np.mean((rul.lower <= left) & ~(left > rul.upper)) >= 0.8


@pytest.mark.parametrize("cell", ["gru", "mingru"])
def test_wear_is_learnt_with_other_cells_too(cell, unseen):
    values, observed, left = unseen
    spec = replace(SPEC, options={**SPEC.options, "cell": cell})
    params = KIND.fit(spec, lives(), lambda share, message: None).params
    rul = jax.device_get(jax.jit(partial(KIND.predict, spec))(params, values, observed))["rul"]
    assert np.sqrt(np.mean((rul.value - left) ** 2)) < 0.5 * np.std(left)


def test_health_and_risk_tell_the_same_story(predict, unseen):
    values, observed, left = unseen
    found = predict(values, observed)
    for part in range(3):
        bounded = np.isfinite(found["rul"][part])
        assert found["health"][part][bounded] == pytest.approx(found["rul"][part][bounded] / 40 * 100, abs=1e-3)
        assert found["health"][part][~bounded] == pytest.approx(100)
    risk = found["failure_probability"].value
    assert risk[left <= 5].min() > 50 > risk[left >= 30].max()
    assert np.isnan(found["failure_probability"].lower).all()


def test_a_healthy_unit_is_beyond_the_horizon_and_a_worn_one_within(predict, unseen):
    values, observed, left = unseen
    found = predict(values, observed)
    rul, beyond = found["rul"], found["rul_state"].value == 1
    assert 0 < beyond.sum() < len(left)
    assert np.isnan(rul.upper[beyond]).all()
    assert (rul.lower[beyond] < 40).all()
    assert np.mean(left[beyond]) > 35
    assert not beyond[left < 20].any()
    assert np.isfinite(rul.upper[left < 10]).all()


def test_no_upper_bound_lies_at_the_cap(predict, unseen):
    rul = predict(*unseen[:2])["rul"]
    assert not (rul.upper >= 40).any()


def test_the_life_before_an_overhaul_is_not_seen(predict):
    data = lives(seed=5)
    old, young = data.values[0, :, 10:50], data.values[1, :, :40]
    both = np.concatenate([old, young], 1)[None]
    alone = np.concatenate([np.zeros_like(old), young], 1)[None]
    hidden = np.ones(alone.shape, bool)
    hidden[..., :40] = False
    found, wanted = predict(both, np.ones(both.shape, bool)), predict(alone, hidden)
    assert found["rul"].value == pytest.approx(wanted["rul"].value, abs=1e-3)


def test_a_cell_that_is_not_observed_leaves_the_estimate_as_it_was(predict):
    data = lives(seed=6)
    length = int(np.isfinite(data.target[0]).sum())
    values, observed = data.values[:1, :, :length], data.observed[:1, :, :length]
    front = ((0, 0), (0, 0), (80 - length, 0))
    now = predict(np.pad(values, front), np.pad(observed, front))["rul"].value
    front, back = ((0, 0), (0, 0), (79 - length, 0)), ((0, 0), (0, 0), (0, 1))
    later = predict(np.pad(np.pad(values, front), back), np.pad(np.pad(observed, front), back))["rul"].value
    # Not quite: the LSTM now looks one cell less far back.
    assert later == pytest.approx(now, abs=0.1)


def test_too_few_units_are_refused():
    data = lives(count=4)
    with pytest.raises(ValueError, match="there are 4 units or runs; it takes 5 or more"):
        KIND.fit(SPEC, data, lambda share, message: None)


def test_more_members_than_units_share_the_folds():
    spec = replace(SPEC, options={**SPEC.options, "members": 8, "steps": 8})
    data = lives(count=6)
    fitted = KIND.fit(spec, data, lambda share, message: None)
    assert fitted.metrics["units"] == 6
    assert len(fitted.params["network"]["recurrent"]) == 8


def test_no_label_is_refused():
    data = lives(count=6)
    with pytest.raises(ValueError, match="no labelled cell"):
        KIND.fit(SPEC, replace(data, target=np.full_like(data.target, np.nan)), lambda share, message: None)


def loaded(data, seed=11):
    """The same units under three loads that move the sensors far more than wear does; the load is the last feature."""
    load = np.random.default_rng(seed).integers(0, 3, data.target.shape)
    values = data.values.copy()
    values[:, 1] += 10.0 * load
    values[:, 2] *= 1.0 + load
    values[:, 3] = load
    return replace(data, values=np.where(data.observed, values, 0).astype(np.float32))


LOADED = replace(SPEC, features=("cycle", "wear", "noise", "load"), roles={"age": "cycle", "setting_1": "load"})


@pytest.fixture(scope="module")
def under_load():
    return KIND.fit(LOADED, loaded(lives()), lambda share, message: None)


def test_a_change_of_load_is_not_taken_for_wear(fitted, under_load):
    assert under_load.metrics["rmse"] < 1.25 * fitted.metrics["rmse"]


def test_a_cell_without_its_load_is_not_seen(under_load):
    data = loaded(lives(seed=5))
    values, hidden = data.values[:3, :, :50], data.observed[:3, :, :50].copy()
    program = jax.jit(lambda observed: KIND.predict(LOADED, under_load.params, values, observed)["rul"].value)
    hidden[0, 3, :] = False
    hidden[1, 3, 20:30] = False
    gone = hidden.copy()
    gone[1, :, 20:30] = False
    found, wanted = np.asarray(program(hidden)), np.asarray(program(gone))
    assert np.isnan(found[0])
    assert found[1] == wanted[1]
    assert np.isfinite(found[2])


def test_settings_are_read_from_an_artifact_as_they_were_given():
    features = ("cycle", "wear", *(f"s{number}" for number in range(1, 12)))
    roles = {f"setting_{number}": f"s{number}" for number in range(1, 12)}
    spec = Spec("rul_lstm", features, 8, {"age": "cycle", **roles}, {"members": 1, "hidden": 4})
    sorted_by_name = replace(spec, roles=dict(sorted(spec.roles.items())))
    params = KIND.init(spec, jax.random.key(0))
    params["conditions"]["centres"] = np.random.default_rng(0).normal(size=(8, 11)).astype(np.float32)
    params["scale"]["mean"] = np.random.default_rng(1).normal(size=(8, 13)).astype(np.float32)
    values = np.random.default_rng(2).normal(size=(5, 13, 8)).astype(np.float32)
    values[:, 0] = np.arange(8)
    found, wanted = (
        np.asarray(jax.jit(partial(KIND.predict, each))(params, values, np.ones(values.shape, bool))["rul"].value)
        for each in (sorted_by_name, spec)
    )
    assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("cell", "lower", "value"),
    [
        ("lstm", [65.695724, 67.050003, 65.890381, 68.008812], [90.313530, 92.296417, 90.948563, 92.614715]),
        ("gru", [73.844727, 71.659149, 70.636551, 70.294228], [97.559444, 95.282494, 93.275124, 95.341751]),
    ],
)
def test_an_artifact_of_version_0_1_says_what_it_said(cell, lower, value):
    """The figures were taken with the program that stores every state, before there was one of the last state alone."""
    spec = Spec("rul_lstm", ("a", "b", "age"), 40, {"age": "age"}, {"context": 24, "cell": cell})
    born = KIND.init(spec, jax.random.key(3))
    params = {**jax.tree.map(lambda leaf: 2.0 * np.asarray(leaf), born), "trees": born["trees"]}
    params |= {"beyond": np.float32(9), "margin": np.zeros(2, np.float32)}
    cells, row = np.arange(40), np.arange(4)[:, None]
    values = np.stack([np.sin(cells / 3 + row), np.cos(cells * row / 5), cells + 0 * row], 1).astype(np.float32)
    observed = ((7 * cells + 3 * row) % 11 > 1)[:, None].repeat(3, 1)
    observed[3, :, :30] = False
    found = jax.jit(partial(KIND.predict, spec))(params, values, observed)["rul"]
    assert np.asarray(found.value) == pytest.approx(value, rel=1e-5)
    assert np.asarray(found.lower) == pytest.approx(lower, rel=1e-5)
