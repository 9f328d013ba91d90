"""Noise, a dead tag and an attack, on a kind whose answer to each is known."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from models import robust
from models.kind import Estimate, Spec
from models.robust import Case


class Weighed:
    """Twice the last cell of ``a``, plus the age; NaN where nothing is observed."""

    name = "weighed"
    roles = ("age",)

    def predict(self, spec, params, values, observed):
        last = jnp.where(observed, values, 0.0)[:, :, -1]
        value = jnp.where(observed.any((1, 2)), params["weight"] * last[:, 1] + last[:, 0], jnp.nan)
        return {"y": Estimate(value, value, value)}


@pytest.fixture
def case():
    values = np.random.default_rng(1).normal(5.0, 3.0, (400, 3, 6)).astype(np.float32)
    observed = np.ones(values.shape, bool)
    observed[0] = False
    spec = Spec("weighed", ("age", "a", "b"), 6, {"age": "age"})
    truth = (2.0 * values[:, 1, -1] + values[:, 0, -1]).astype(np.float32)
    truth[1] = np.nan
    kind: Any = Weighed()
    return Case(kind, spec, {"weight": np.float32(2.0)}, "y", values, observed, truth)


def test_what_is_right_has_no_error(case):
    assert robust.error(case) == pytest.approx(0.0, abs=1e-5)


def test_noise_adds_what_the_weight_makes_of_it(case):
    assert robust.with_noise(case, 0.5) == pytest.approx(2.0 * 0.5 * 3.0, rel=0.1)


def test_a_dead_tag_matters_where_it_is_used_and_a_role_is_left_alone(case):
    found = robust.without(case)
    assert set(found) == {"a", "b"}
    assert found["b"] == pytest.approx(0.0, abs=1e-5)
    assert found["a"] == pytest.approx(2.0 * np.sqrt(34.0), rel=0.1)  # the root mean square of a, twice


def test_an_attack_finds_the_worst_that_there_is(case):
    assert robust.under_attack(case, 0.1) == pytest.approx(2.0 * 0.1 * 3.0, rel=0.05)


def test_without_any_truth_there_is_no_error(case):
    unknown = Case(case.kind, case.spec, case.params, "y", case.values, case.observed, np.full(400, np.nan, np.float32))
    assert np.isnan(robust.error(unknown))
