"""A forecast from the database and back: trained on a series, told of the date, one stored prediction per horizon."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from plugin.domain import Meaning, Run, RunKind, RunResult
from plugin.infer.config import ModelConfig
from tests.benchmarks import _history
from tests.benchmarks._history import Series, numbers

STEP, BEGIN = timedelta(hours=3), datetime(2026, 1, 5, tzinfo=UTC)
AHEAD = (1, 8)


def config() -> ModelConfig:
    fields = {
        "name": "energy", "kind": "forecast_lstm", "assets": ["*"], "features": ["load"], "roles": {"target": "load"},
        "calendar": ["hour_of_day", "day_off"], "window": 16 * STEP, "step": STEP, "hold": 0,
        "training": {"learn": "series"},
        "options": {
            "ahead": list(AHEAD), "day": 8, "context": 4, "hidden": 4, "members": 1, "trees": 8, "steps": 8, "batch": 4,
        },
    }  # fmt: skip
    return ModelConfig.model_validate(fields)


async def test_each_horizon_of_a_forecast_is_stored_under_the_time_that_it_speaks_of():
    cells = np.arange(400)
    load = 10.0 + 5.0 * (cells % 8 >= 4) * (cells // 8 % 7 < 5)
    series = Series("works", {"load": load + np.random.default_rng(1).normal(0, 0.1, 400)}, STEP, BEGIN + STEP / 2)
    end = BEGIN + 400 * STEP
    async with _history.opened() as history:
        works = await history.keep([series])
        version = await history.train(config(), works, end)
        assert version.metrics["rmse_8"] < 3.0
        (outcome,) = [outcome async for outcome in history.score(config(), works, [end])]
        run = await history.store.write_run(Run(0, "energy", RunKind.SCORE, end))
        given = tuple(replace(each, run=run.id) for each in outcome.predictions)
        await history.store.write_outcome(
            replace(outcome, run=replace(run, version=1, result=RunResult.DONE), predictions=given)
        )
        stored = await history.store.predictions("energy", end, end + STEP)
    assert [each.target_time for each in stored] == [end + cells * STEP for cells in AHEAD]
    assert {each.tag.meaning for each in stored} == {Meaning.FORECAST}
    assert {each.tag.name for each in stored} == {"works.energy.load"}
    truth = [10.0 + 5.0 * ((400 + ahead - 1) % 8 >= 4) * ((400 + ahead - 1) // 8 % 7 < 5) for ahead in AHEAD]
    value, lower, upper = numbers(stored, "load").T
    assert value == pytest.approx(truth, abs=4.0)
    assert ((lower <= value) & (value <= upper)).all()
