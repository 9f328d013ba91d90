"""Figures of an evaluation that are no finite numbers, and of remaining lives that are long."""

import json
import math
from datetime import timedelta

import numpy as np

from models.rul_held_out import HeldOut
from plugin.infer.evaluation import Errors, Judgement


def test_what_is_no_finite_number_is_null_in_json():
    errors = Errors("this version", 3, 1.0, 1.0, r2=math.nan, phm=math.inf)
    found = Judgement("rul", "min", timedelta(0), (errors,), None, None, {"as it is": math.nan}, ())
    told = json.loads(json.dumps(found.record(), allow_nan=False))
    assert (told["errors"][0]["r2"], told["errors"][0]["phm"], told["strain"]["as it is"]) == (None, None, None)
    assert told["errors"][0]["rmse"] == 1.0


def test_lives_of_many_cells_have_figures():
    middle, fold = np.array([0.1, 0.9, 0.5, 0.2], np.float32), np.array([0, 0, 1, 1], np.int32)
    quantiles = np.stack([middle - 0.1, middle, middle + 0.1], -1)
    found = HeldOut(quantiles, np.array([0.9, 0.1, 0.5, 0.2], np.float32), fold, fold).metrics(100_000.0)
    assert found["phm"] == math.inf, "one of 80,000 cells too late is beyond what a float holds"
    assert math.isclose(found["mae"], 40_000.0, rel_tol=1e-5)
