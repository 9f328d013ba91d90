"""Deletion curves of a model whose reasons are known."""

from typing import Any

import numpy as np
import pytest

from models.kind import Estimate, OutputSpec, Spec, TrainingData
from models.meaning import Meaning
from tests.benchmarks import _deletion

SPEC = Spec("worn", ("age", "a", "b", "c", "d"), 40, {"age": "age"})


class Worn:
    """A life of 100, of which ``b`` alone costs 40 for each unit that it left its start by."""

    def predict(self, spec, params, values, observed):
        rul = 100.0 - params["cost"] * (values[:, 2, -1] - values[:, 2, 0])
        return {"rul": Estimate(rul, rul, rul)}

    def outputs(self, spec):
        return (OutputSpec("rul", "cycles", 0.0, 100.0, "", Meaning.LIFETIME),)


def lives(windows):
    """All but the age leave their start by 1 in the last cell; the age counts."""
    values = np.zeros((windows, 5, 40), np.float32)
    values[:, 0] = np.arange(40)
    values[:, 1:, -1] = 1.0
    return TrainingData(values, np.ones(values.shape, bool), np.zeros((windows, 40), np.float32), np.arange(windows))


def test_the_tag_that_did_it_is_put_back_first_and_by_chance_it_is_one_of_five():
    kind: Any = Worn()
    named, by_chance = _deletion.left(kind, SPEC, {"cost": np.float32(40.0)}, [0.0] * 5, lives(400))
    assert named == pytest.approx(1 / 6)
    assert by_chance == pytest.approx(3 / 6, abs=0.02)


def test_units_that_fell_by_nothing_worth_a_word_are_left_out():
    kind: Any = Worn()
    with pytest.raises(ValueError, match="nothing to explain"):
        _deletion.left(kind, SPEC, {"cost": np.float32(5.0)}, [0.0] * 5, lives(4))
