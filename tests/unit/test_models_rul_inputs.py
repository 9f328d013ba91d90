"""What a model of remaining useful life reads of a life."""

import jax
import numpy as np
import pytest

from models import rul_inputs
from models.blend import shares
from models.kind import Spec

SPEC = Spec("rul_lstm", ("cycle", "a", "b"), 140, {"age": "cycle"})
PARAMS = rul_inputs.unlearnt(SPEC, 8)


def lives():
    generator = np.random.default_rng(2)
    values = generator.normal(size=(3, 3, 140)).astype(np.float32)
    values[:, 0] = np.arange(140) / 70
    observed = generator.random(values.shape) < 0.8
    observed[:, 0] = True
    return values, observed


def test_a_summary_is_of_means_and_how_far_they_are_apart():
    values, observed = lives()
    ends = np.array([[0, 7, 60, 139]] * 3)
    found = rul_inputs.summaries(SPEC, PARAMS, values, observed, ends).reshape(3, 4, 4, 3)
    there = observed & observed[:, :1] & (observed.sum(1) > 1)[:, None]
    for row, place, feature in np.ndindex(3, 4, 3):
        seen, series = there[row, feature], values[row, feature]
        end = ends[row, place]

        def mean(cells, end=end, seen=seen, series=series):
            span = slice(max(0, end + 1 - cells), end + 1)
            return series[span][seen[span]].mean() if seen[span].any() else 0.0

        start = series[: end + 1][seen[: end + 1]][:20]
        now = mean(10)
        apart = [now - mean(30), now - mean(100), now - start.mean()] if len(start) else [0.0] * 3
        assert found[row, place, :, feature] == pytest.approx([now, *apart], abs=1e-5)


def test_a_summary_knows_nothing_of_what_comes_later():
    values, observed = lives()
    program = jax.jit(lambda *window: rul_inputs.summary(rul_inputs.life(SPEC, PARAMS, *window), 1)[:, 0])
    for end in (5, 50, 139):
        found = rul_inputs.summaries(SPEC, PARAMS, values, observed, np.full((3, 1), end))[:, 0]
        alone = program(values[..., : end + 1], observed[..., : end + 1])
        assert found == pytest.approx(np.asarray(alone), abs=1e-4)


def test_the_way_between_two_estimates_goes_as_far_as_errors_become_smaller():
    generator = np.random.default_rng(3)
    truth = generator.random(4000)
    near, far = (truth + generator.normal(0, spread, 4000) for spread in (0.1, 0.2))
    share = shares((near, far), truth)[1]
    # Of two that err apart, the weights are as the inverse of their variances.
    assert share == pytest.approx(0.2, abs=0.03)
    assert shares((near, near), truth)[1] == 0.0
    assert shares((near, truth), truth)[1] == 1.0
    assert shares((near, 2 * near - truth), truth)[1] == 0.0
