"""Operating conditions learnt from settings, and scales by condition."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import cells, regimes
from models.kind import Spec

SIX = np.array([[0, 0, 100], [10, 0.25, 100], [20, 0.7, 100], [25, 0.62, 60], [35, 0.84, 100], [42, 0.84, 100]])
"""Altitude, Mach number and throttle: the last two lie close together."""
regime = jax.jit(regimes.regime)
SPEC = Spec("rul_lstm", ("cycle", "a", "b", "c"), 40, {"age": "cycle", "setting_2": "a", "setting_1": "b"})


def flown(seed=1, units=8, length=60, centres=SIX):
    """Values [n, 5, t] of three settings and two sensors that follow them; and which condition each cell had [n, t]."""
    generator = np.random.default_rng(seed)
    place = generator.integers(0, len(centres), (units, length))
    chosen = centres[place] + generator.normal(0, [0.002, 0.0003, 0.0], (units, length, 3))
    sensors = [500 + 7 * place + generator.normal(0, 0.5, place.shape), np.where(place == 3, 60.0, 100.0)]
    values = np.concatenate([np.moveaxis(chosen, -1, 1), np.stack(sensors, 1)], 1).astype(np.float32)
    return values, np.ones(values.shape, bool), place


def learnt(values, observed, count=8, common=(), seed=0):
    return regimes.learnt(values, observed, (0, 1, 2), common, count, seed).values()


def centres(conditions):
    used = conditions["centres"][np.isfinite(conditions["centres"]).all(1)]
    return used * conditions["scale"] + conditions["mean"]


def test_settings_are_ordered_by_number_as_an_artifact_sorts_them_by_text():
    roles = {f"setting_{number}": f"s{number}" for number in (10, 2, 1)}
    spec = Spec("rul_lstm", ("s1", "s2", "s10"), 9, roles)
    assert regimes.settings(spec) == (0, 1, 2)


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"setting": "a"}, "roles: 'setting' is no role of rul_lstm"),
        ({"setting_0": "a"}, "settings are setting_1, setting_2"),
        ({"settings_1": "a"}, "'settings_1' is no role"),
        ({"setting_1": "cycle"}, "roles.setting_1 = 'cycle': is in the role 'age' already"),
        ({"setting_1": "a", "setting_2": "a"}, "roles.setting_1 = 'a': is in the role 'setting_2' already"),
    ],
)
def test_a_role_that_is_off_is_refused(roles, message):
    with pytest.raises(ValueError, match=message):
        regimes.settings(replace(SPEC, roles={"age": "cycle", **roles}))


@pytest.mark.parametrize("seed", range(4))
def test_six_conditions_are_told_apart(seed):
    values, observed, place = flown(seed)
    conditions, _ = learnt(values, observed, seed=seed)
    found, known = regime(conditions, values[:, :3], observed[:, :3])
    assert np.isfinite(conditions["centres"]).all(1).sum() == 6
    assert known.all()
    pairs = set(zip(np.asarray(found).ravel().tolist(), place.ravel().tolist(), strict=True))
    assert len(pairs) == 6, "one place for each condition"


def test_each_condition_has_a_mean_and_a_deviation_of_its_own_and_a_constant_the_whole_one():
    values, observed, place = flown()
    conditions, scales = learnt(values, observed)
    whole = cells.scale(values, observed)
    found = np.asarray(regime(conditions, values[:, :3], observed[:, :3])[0])
    for number in range(6):
        row = found[place == number][0]
        assert scales["mean"][row, 3] == pytest.approx(values[:, 3][place == number].mean(), rel=1e-5)
        assert scales["scale"][row, 3] == pytest.approx(values[:, 3][place == number].std(), rel=1e-3)
        assert scales["mean"][row, 4] == (60 if number == 3 else 100)
        assert scales["scale"][row, 4] == whole["scale"][4]
        assert scales["mean"][row, :3].tolist() == whole["mean"][:3].tolist(), "settings are told apart by their scale"


def test_a_common_feature_has_one_scale():
    values, observed, _ = flown()
    _, scales = learnt(values, observed, common=(3,))
    assert (scales["mean"][:, 3] == cells.scale(values, observed)["mean"][3]).all()


@pytest.mark.parametrize(
    "draw",
    [
        lambda generator, shape: generator.normal(size=shape),
        lambda generator, shape: generator.uniform(size=shape),
        lambda generator, shape: generator.exponential(size=shape),
        lambda generator, shape: np.full(shape, 518.67),
        lambda generator, shape: np.where(generator.random(shape) < 1e-4, 1e9, generator.normal(size=shape)),
    ],
    ids=["normal", "uniform", "skewed", "constant", "with spikes"],
)
def test_settings_without_groups_are_one_condition_with_the_scale_of_the_whole(draw):
    generator = np.random.default_rng(3)
    values, observed, _ = flown(units=40)
    values[:, :3] = draw(generator, (40, 3, 60))
    conditions, scales = learnt(values, observed)
    assert np.isfinite(conditions["centres"]).all(1).tolist() == [True] + [False] * 7
    whole = cells.scale(values, observed)
    for name in ("mean", "scale"):
        assert scales[name][0] == pytest.approx(whole[name], rel=1e-5)


def test_spikes_do_not_hide_the_groups():
    values, observed, _ = flown(units=60)
    values[5, 0, 7] = 1e9
    conditions, _ = learnt(values, observed)
    assert len(centres(conditions)) == 6


def test_more_groups_than_there_is_room_for_are_one_condition():
    values, observed, _ = flown()
    conditions, _ = learnt(values, observed, count=4)
    assert len(centres(conditions)) == 1


def test_a_condition_of_few_cells_takes_the_scale_of_the_whole():
    values, observed, place = flown(units=30)
    observed[:, 3][place == 2] = False
    _, scales = learnt(values, observed)
    whole = cells.scale(values, observed)
    assert (scales["mean"][:6, 3] == whole["mean"][3]).sum() == 1
    assert np.isfinite(scales["mean"]).all()


def test_no_cell_at_all_is_one_condition():
    values, observed, _ = flown()
    conditions, scales = learnt(np.zeros_like(values), np.zeros_like(observed))
    assert len(centres(conditions)) == 1
    assert (scales["scale"] == 1).all()


def test_a_missing_setting_leaves_a_condition_known_that_the_others_tell():
    values, observed, place = flown()
    conditions, _ = learnt(values, observed)
    whole = np.asarray(regime(conditions, values[:, :3], observed[:, :3])[0])
    observed[:, 0] = False
    values[:, 0] = 1e6
    found, known = map(np.asarray, regime(conditions, values[:, :3], observed[:, :3]))
    close = np.isin(place, (4, 5))
    assert (known == ~close).all(), "but for altitude the last two are alike"
    assert (found == whole)[~close].all()


def test_without_its_settings_a_cell_has_a_condition_only_where_there_is_one():
    values, observed, _ = flown()
    hidden = np.zeros_like(observed[:, :3])
    several, _ = learnt(values, observed)
    one, _ = learnt(values, observed, count=1)
    assert not np.asarray(regime(several, values[:, :3], hidden)[1]).any()
    assert np.asarray(regime(one, values[:, :3], hidden)[1]).all()


def test_scaled_by_condition_the_conditions_can_not_be_seen():
    values, observed, place = flown()
    conditions, scales = learnt(values, observed)
    units, known = regimes.scaled({"conditions": conditions, "scale": scales}, values, observed, (0, 1, 2), 5.0)
    assert known.all()
    for number in range(6):
        here = np.asarray(units)[:, 3][place == number]
        assert (here.mean(), here.std()) == (pytest.approx(0, abs=1e-3), pytest.approx(1, abs=1e-3))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), order=st.permutations(range(8)), groups=st.integers(2, 8))
def test_the_order_of_the_units_changes_nothing(seed, order, groups):
    generator = np.random.default_rng(seed)
    grid = generator.permutation(27)[:groups]
    values, observed, _ = flown(seed, centres=np.stack([grid % 3, grid // 3 % 3, grid // 9], 1).astype(float))
    first, second = learnt(values, observed), learnt(values[list(order)], observed[list(order)])
    one, other = (np.unique(np.round(centres(conditions), 2), axis=0) for conditions, _ in (first, second))
    assert one == pytest.approx(other, abs=0.02)
    units = (
        np.asarray(
            regimes.scaled(dict(zip(("conditions", "scale"), found, strict=True)), values, observed, (0, 1, 2), 5.0)[0]
        )
        for found in (first, second)
    )
    assert next(units) == pytest.approx(next(units), abs=1e-2)
