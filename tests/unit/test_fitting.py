"""Verdicts on what was lately seen: errors of what was published, and which of several counts."""

from dataclasses import replace

import numpy as np
import pytest

from models.drift import Reference
from models.references import References
from plugin.domain import DriftKind, OutputTag
from plugin.infer.fitting import bias_verdicts, error_verdict, worst

NOX = OutputTag("nox", "turbine", "nox", "mg/m3", 0.0, 130.0, "")
TIMES = range(0, 400_000_000, 1_000_000)


@pytest.mark.parametrize(("spread", "drifted"), [(1.0, False), (2.0, False), (3.0, True)])
def test_errors_are_too_large_when_they_are_far_from_those_on_held_out_data(spread: float, drifted: bool) -> None:
    verdict = error_verdict("turbine", NOX, np.random.default_rng(3).normal(0, spread, 400), TIMES, 1.0)
    assert verdict is not None
    assert (verdict.kind, verdict.drifted, verdict.since) == (DriftKind.RESIDUAL, drifted, 0)
    assert verdict.statistic == pytest.approx(spread, rel=0.2)
    assert "on held-out data it was 1" in verdict.detail


def test_errors_that_are_alike_say_as_little_as_a_few() -> None:
    noise = np.random.default_rng(4)
    slow = np.repeat(noise.normal(0, 5, 4), 100)
    assert error_verdict("turbine", NOX, slow, TIMES, 1.0) is None
    assert error_verdict("turbine", NOX, noise.normal(0, 5, 12), TIMES, 1.0) is None


def test_of_several_verdicts_on_one_thing_the_one_that_found_a_drift_counts() -> None:
    found = error_verdict("turbine", NOX, np.random.default_rng(5).normal(0, 5, 400), TIMES, 1.0)
    assert found is not None
    none = replace(found, drifted=False)
    other = replace(none, kind=DriftKind.BIAS)
    assert worst([none, found, none, other]) == [found, other]


@pytest.mark.parametrize(("level", "drifted"), [(0.0, False), (0.8, True)])
def test_a_small_bias_that_lasts_is_a_remark_by_how_residuals_are_distributed(level: float, drifted: bool) -> None:
    noise = np.random.default_rng(6)
    reference = Reference.of(noise.normal(0, 1, (4, 1000)))
    values, times = noise.normal(level, 1, 400), TIMES
    found = bias_verdicts("turbine", NOX, References({}, reference, reference), (values, times), 100, lasts=False, of=3)
    assert [verdict.kind for verdict in found] == [DriftKind.BIAS, DriftKind.BIAS, DriftKind.RESIDUAL]
    assert [verdict.drifted for verdict in found] == [drifted, False, False], "0.8 of 3.3 is easily carried"
    assert found[0].since == TIMES[-60 * reference.spacing]
    assert "distributed otherwise" in found[0].detail


def test_a_few_truths_say_nothing_of_a_bias() -> None:
    reference = Reference.of(np.random.default_rng(7).normal(0, 1, (4, 1000)))
    values = np.full(400, np.nan)
    values[-3:] = 5.0
    assert bias_verdicts("x", NOX, References({}, reference, reference), (values, TIMES), 100, lasts=False, of=1) == []
