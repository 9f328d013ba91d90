"""Explanations: what they add up to, which baseline they start from, and that they beat chance."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import explain
from models.explain import Explainer
from models.kind import Estimate, OutputSpec, Spec
from models.meaning import Meaning
from models.pca_anomaly import PcaAnomaly
from tests.contracts.test_model_kinds import training_data

SPEC = Spec("worn", ("age", "a", "b", "c", "d"), 40, {"age": "age"})


class Worn:
    """A life of 100, less what each feature has left its start by in the last cell; ``b`` and ``c`` count together."""

    def predict(self, spec, params, values, observed):
        left = params["weight"] * (values[..., -1] - values[..., 0])
        rul = 100.0 - left.sum(1) - 2.0 * left[:, 2] * left[:, 3]
        return {"rul": Estimate(rul, rul, rul)}

    def outputs(self, spec):
        return (OutputSpec("rul", "cycles", 0.0, 100.0, "", Meaning.LIFETIME),)


PARAMS = {"weight": np.array([0.0, 4.0, 1.0, 2.0, 0.0], np.float32)}


def lives(windows=6, cells=40):
    """Each feature starts somewhere and ends 1 higher; the age counts."""
    values = np.tile(np.arange(windows, dtype=np.float32)[:, None, None], (1, 5, cells))
    values[:, 0] = np.arange(cells)
    values[:, 1:, -1] += 1.0
    return values, np.ones(values.shape, bool)


def read(values, observed):
    return Worn().predict(SPEC, PARAMS, values, observed)["rul"].value


def start(values, observed, means=0.0):
    return explain.healthy(SPEC, jnp.full(5, means), values, observed)


GROUPS = jnp.asarray(np.stack(list(explain.masks(SPEC, {}).values())))


def test_a_units_own_start_is_the_baseline_and_the_training_mean_that_of_one_without():
    values, observed = lives()
    observed[1, :, :-10] = False
    base = np.asarray(start(values, observed, means=7.0))
    assert np.allclose(base[0, 1:], values[0, 1:, :1])
    assert np.allclose(base[0, 0], np.arange(20).mean())
    assert np.allclose(base[1], 7.0)


def test_cells_before_an_overhaul_are_no_start():
    values, observed = lives(1, 60)
    values[0, 0] = [*range(30), *range(30)]
    values[0, 1, :30] = 50.0
    base = np.asarray(start(values, observed))
    assert np.allclose(base[0, 1], 0.0)


def test_the_start_is_compared_under_the_same_settings():
    spec = Spec("worn", ("age", "a", "b", "c", "d"), 40, {"age": "age", "setting_1": "d"})
    values, observed = lives(1)
    values[0, 4] = np.arange(40) % 2
    values[0, 1] = np.where(values[0, 4] == 1, 30.0, 10.0) + np.arange(40) / 40
    base = np.asarray(explain.healthy(spec, jnp.zeros(5), values, observed))[0, 1]
    assert np.abs(base - np.where(values[0, 4] == 1, 30.0, 10.0)).max() < 1.0


@pytest.mark.parametrize("way", [explain.occlusion, explain.integrated_gradients])
def test_effects_sum_to_what_the_estimate_left_its_baseline_by(way):
    values, observed = lives()
    base = start(values, observed)
    effects = np.asarray(way(read, values, observed, base, GROUPS))
    assert np.allclose(effects.sum(1), read(values, observed) - read(base, observed), atol=1e-3)
    assert np.allclose(effects[0], [0.0, -4.0, -3.0, -4.0, 0.0], atol=1e-3), "b and c share what they do together"


@pytest.mark.parametrize("way", [explain.occlusion, explain.integrated_gradients])
def test_what_is_not_observed_explains_nothing(way):
    values, observed = lives()
    observed[:, 1] = False
    shown = partial(lambda values, observed: read(jnp.where(observed, values, 0.0), observed))
    effects = way(shown, values, observed, start(values, observed), GROUPS)
    assert np.allclose(effects[:, 1], 0.0)


def test_shares_are_of_what_made_it_worse_and_sum_to_one():
    effects = jnp.array([[-3.0, 1.0, -1.0], [2.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    found = np.asarray(explain.shares(effects, -1.0))
    assert np.allclose(found[0], [0.75, 0.0, 0.25])
    assert np.allclose(found[1], [0.5, 0.0, 0.5]), "nothing made it worse: what had an effect at all"
    assert np.isnan(found[2]).all()


def test_groups_are_told_as_one_and_largest_first_whatever_the_number_of_windows():
    groups = {"both": ("b", "c")}
    kind: Any = Worn()
    one = Explainer(kind, SPEC, PARAMS, "rul", groups=groups, means=[0.0] * 5)
    values, observed = lives()
    found = one.shares(values, observed, -1.0)
    assert list(found[0]) == ["both", "a", "age", "d"]
    assert found[0]["both"] == pytest.approx(7 / 11, abs=1e-4)
    one.warm(4)
    again = one.shares(values, observed, -1.0)
    assert [list(each.values()) for each in again] == [pytest.approx([*each.values()]) for each in found]
    assert one.shares(values[:0], observed[:0], -1.0) == []


def test_a_score_is_explained_by_the_kind_itself():
    data = training_data({})
    spec = Spec("pca_anomaly", ("a", "b", "c", "d"), 24)
    kind = PcaAnomaly()
    params = kind.fit(spec, type(data)(data.values, data.observed, 0 * data.target, data.group), lambda *_: None).params
    one = Explainer(kind, spec, params, "score", groups={"ab": ("a", "b")}, means=[np.nan] * 4)
    exact = np.asarray(kind.contributions(spec, params, data.values, data.observed))
    effects = one.effects(data.values, data.observed)
    assert one.groups == ("ab", "c", "d")
    assert np.allclose(effects[:, 0], exact[:, :2].sum(1), equal_nan=True)
    assert all(sum(each.values()) == pytest.approx(1.0) for each in one.shares(data.values, data.observed, 1.0) if each)


@pytest.mark.parametrize("way", [explain.occlusion, explain.integrated_gradients])
def test_putting_back_what_is_named_first_undoes_more_than_chance_does(way):
    """Deletion curve of a network with random weights, over windows that left their start at random."""
    generator = np.random.default_rng(3)
    first, second = generator.normal(size=(5, 8)), generator.normal(size=8)

    def network(values, observed):
        return jnp.tanh(values.mean(-1) @ first / 3) @ second

    walks = np.cumsum(generator.normal(size=(64, 5, 40)), -1).astype(np.float32) / 4
    walks[:, 0] = np.arange(40) / 40
    values, observed = jnp.asarray(walks), jnp.ones(walks.shape, bool)
    base = start(values, observed)
    far = np.abs(network(values, observed) - network(base, observed)) > 0.5
    effects = way(network, values, observed, base, GROUPS)
    sign = np.sign(network(values, observed) - network(base, observed))[:, None]

    def area(order):
        return float(
            np.asarray(explain.deletion(network, values, observed, base, GROUPS, jnp.asarray(order)))[far].mean()
        )

    chance = np.mean([area(generator.permuted(np.tile(np.arange(5), (64, 1)), axis=1)) for _ in range(5)])
    assert area(np.argsort(-effects * sign, axis=1)) < 0.8 * chance


def test_a_deletion_curve_goes_from_one_to_nought():
    values, observed = lives()
    order = jnp.tile(jnp.arange(5), (6, 1))
    curve = np.asarray(explain.deletion(read, values, observed, start(values, observed), GROUPS, order))
    assert np.allclose(curve[:, 0], 1.0)
    assert np.allclose(curve[:, -1], 0.0, atol=1e-5)


def test_importance_is_of_the_mean_effect_and_leaves_out_what_has_none():
    effects = np.array([[2.0, -2.0], [4.0, 0.0], [np.nan, np.nan]])
    assert explain.importance(effects).tolist() == [0.75, 0.25]


def test_gradients_pass_through_a_network_that_gives_no_number_for_some():
    values, observed = lives()

    def some(values: jax.Array, observed: jax.Array) -> jax.Array:
        return jnp.where(observed[:, 1, -1], read(values, observed), jnp.nan)

    observed[0, 1, -1] = False
    effects = explain.integrated_gradients(some, values, observed, start(values, observed), GROUPS)
    assert np.isfinite(np.asarray(effects)[1:]).all()
    assert jax.device_get(effects)[1, 1] == pytest.approx(-4.0, abs=1e-3)
