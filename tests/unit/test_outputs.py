"""From a model's numbers to predictions: the status that each deserves, and bounds that are open."""

from datetime import UTC, datetime

import numpy as np
import pytest

from models.kind import OutputSpec
from models.meaning import Meaning
from models.runtime import Numbers
from plugin.domain import HIGH_LIMITED, Asset, OutputTag, Prediction, Run, RunKind, Status, Tag, at_upper_limit
from plugin.infer.config import ModelConfig
from plugin.infer.outputs import output_tag, predictions, simulated

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NONE = float("nan")
CONFIG = ModelConfig.model_validate(
    {
        "name": "rul", "kind": "rul_lstm", "assets": ["*"], "features": ["a"], "window": 10, "step": 1,
        "training": {"learn": "failures"},
    }
)  # fmt: skip


def given(
    value: float, lower: float = NONE, upper: float = NONE, high: float = 125.0, inputs: Status = Status.GOOD
) -> Prediction:
    tag = OutputTag("rul", "engine", "rul", "cycles", 0.0, high, "")
    numbers = Numbers(*(np.array([part], np.float32) for part in (value, lower, upper)))
    run = Run(1, "rul", RunKind.SCORE, NOON)
    (made,) = predictions(CONFIG, run, NOON, {"rul": [tag]}, [inputs], [1.0], {"rul": numbers})
    return made


def test_a_value_at_its_end_without_an_upper_bound_is_that_or_more():
    made = given(125.0, 98.0)
    assert (made.value, made.lower, made.upper) == (125.0, 98.0, None)
    assert made.status == Status.GOOD | HIGH_LIMITED
    assert at_upper_limit(made.status)
    assert at_upper_limit(given(125.0, 98.0, inputs=Status.UNCERTAIN_SUB_NORMAL).status)


@pytest.mark.parametrize(
    "made", [given(110.0, 98.0), given(125.0, 98.0, 125.0), given(125.0), given(NONE)],
    ids=["below its end", "with an upper bound", "without bounds", "no number"],
)  # fmt: skip
def test_others_are_what_they_say(made):
    assert not at_upper_limit(made.status)


@pytest.mark.parametrize("high", [33.7, 41.1, 0.1, 125.0])
def test_the_end_of_a_range_is_within_it_however_a_float32_rounds_it(high):
    assert given(high, 0.05, high, high=high).status == Status.GOOD
    assert at_upper_limit(given(high, 0.05, high=high).status)


def test_beyond_its_range_a_good_number_is_uncertain():
    assert given(126.0, 98.0, 130.0).status == Status.UNCERTAIN_ENGINEERING_UNITS_EXCEEDED


def test_a_challenger_s_word_is_simulated_and_keeps_that_it_is_that_or_more():
    assert simulated(given(60.0, 50.0, 70.0)).status == Status.UNCERTAIN_SIMULATED_VALUE
    limited = simulated(given(125.0, 98.0)).status
    assert limited == Status.UNCERTAIN_SIMULATED_VALUE | HIGH_LIMITED
    assert simulated(given(NONE)).status == Status.BAD_NO_DATA


def test_unit_and_range_of_the_laboratory_are_those_of_a_quantity_and_not_of_a_state():
    lab = Tag("mill.lab", "plc", "nsu=urn:plant;s=lab", "mill", "lab", "mg/m3", 16.0, 130.0)
    config = ModelConfig.model_validate({**CONFIG.model_dump(), "features": ["a", "lab"], "roles": {"lab": "lab"}})
    asset = Asset("mill", {"lab": lab})
    value = output_tag(config, asset, OutputSpec("nox", "", NONE, NONE, ""))
    state = output_tag(config, asset, OutputSpec("nox_verdict", "", 0.0, 2.0, "", Meaning.STATE, ("pass", "fail")))
    assert (value.unit, value.low, value.high) == ("mg/m3", 16.0, 130.0)
    assert (state.unit, state.low, state.high) == ("", 0.0, 2.0)
