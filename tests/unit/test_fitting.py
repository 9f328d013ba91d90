"""Verdicts on what was lately seen: errors of what was published, and which of several counts."""

from dataclasses import replace

import numpy as np
import pytest

from plugin.domain import DriftKind, OutputTag
from plugin.infer.fitting import error_verdict, worst

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
