"""The forecaster: what it makes of a series that follows the clock, and what stands in where it has no number."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import boosted, calendar, forecast_trees, phases
from models.forecast_lstm import ForecastLstm
from models.kind import Spec, TrainingData
from models.lagged import Lags, plain, series, table, width

DAY, LENGTH, AHEAD = 8, 64, [1, 8]
SMALL = {"ahead": AHEAD, "day": DAY, "context": 8, "hidden": 4, "members": 2, "trees": 40, "steps": 8, "batch": 4}
SPEC = Spec("forecast_lstm", ("load", "other", *calendar.NAMES), LENGTH, {"target": "load"}, SMALL)


def dates(cells):
    """[feature, cell] of cells counted from a Monday's midnight; Saturday and Sunday are off."""
    hour, week = (2 * np.pi * cells / period for period in (DAY, 7 * DAY))
    off = [(cells // DAY + later) % 7 >= 5 for later in (0, 1)]
    return np.stack([np.sin(hour), np.cos(hour), np.sin(week), np.cos(week), *off])


def plant(cells, noise=0.3):
    """A load that is low at night and on days off, and another feature that says nothing."""
    generator = np.random.default_rng(3)
    there = dates(cells)
    load = 10.0 + 5.0 * (1.0 - there[4]) * (1.0 - there[1]) + noise * generator.normal(size=len(cells))
    return np.concatenate([[load, generator.normal(size=len(cells))], there]).astype(np.float32)


def blocks(values, own=LENGTH + 8):
    """As they are cut from the historian: each led in by the one before it."""
    found, target = [], []
    for end in range(values.shape[1], 2 * own - 1, -own):
        found.append(values[:, end - 2 * own : end])
        target.append(np.where(np.arange(2 * own) < own, np.nan, values[0, end - 2 * own : end]))
    every = np.stack(found[::-1])
    group = np.arange(len(every), dtype=np.int32)
    return TrainingData(every, np.ones(every.shape, bool), np.stack(target[::-1]).astype(np.float32), group)


@pytest.fixture(scope="module")
def fitted():
    return ForecastLstm().fit(SPEC, blocks(plant(np.arange(1500))), lambda share, message: None)


def asked(fitted, values, observed=None):
    predict = jax.jit(partial(ForecastLstm().predict, SPEC))
    observed = np.ones(values.shape, bool) if observed is None else observed
    return jax.device_get(predict(fitted.params, np.where(observed, values, 0), observed)["load"])


def prepared(lags, scale, values, observed):
    return jax.device_get(jax.jit(partial(series, SPEC, scale, lags))(values, observed))


def known(lags, rows):
    return np.asarray(jax.jit(partial(table, SPEC, lags, last=1))(rows))


def test_each_horizon_is_foretold_from_the_past_and_the_date(fitted):
    cells = np.arange(1500, 2100)
    values = plant(cells)
    ends = np.arange(LENGTH, 580)
    told = asked(fitted, np.stack([values[:, end - LENGTH : end] for end in ends]))
    truth = np.stack([values[0, ends + ahead - 1] for ahead in AHEAD], 1)
    assert np.sqrt(np.mean((told.value - truth) ** 2, 0)).max() < 0.6  # of a noise of 0.3; the load's spread is 4
    inside = np.mean((told.lower <= truth) & (truth <= told.upper), 0)
    assert inside.min() > 0.6


def test_its_metrics_name_the_ridge_and_the_shares_of_network_and_trees(fitted):
    assert {"rmse_1", "rmse_ridge_1", "network_share_8", "coverage_8", "rmse_last_value_8"} <= set(fitted.metrics)
    shares = [fitted.metrics[f"{part}_share_8"] for part in ("network", "trees")]
    assert min(shares) >= 0.0
    assert sum(shares) <= 1.0 + 1e-6
    assert fitted.metrics["rmse_8"] <= fitted.metrics["rmse_ridge_8"] + 1e-6
    assert fitted.metrics["rmse_8"] < fitted.metrics["rmse_last_value_8"] * 1.5


def test_what_goes_up_at_a_threshold_is_left_to_the_trees():
    values = plant(np.arange(1500))
    values[0, 1:] = 10.0 * (np.abs(values[1, :-1]) > 1.0)
    spec = replace(SPEC, options={**SMALL, "trees": 150})
    told = ForecastLstm().fit(spec, blocks(values), lambda share, message: None)
    assert told.metrics["trees_share_1"] > 0.8
    assert told.metrics["rmse_1"] < 0.5 * told.metrics["rmse_ridge_1"]


def test_a_members_trees_see_nothing_of_its_fold():
    lags, generator = Lags(LENGTH, tuple(AHEAD), DAY, 4), np.random.default_rng(1)
    rows = generator.normal(size=(2, LENGTH + 99, len(SPEC.features))).astype(np.float32)
    truth = np.full((2, 100, 2), np.nan, np.float32)
    truth[0, 10:], truth[1, 20:, 0] = 3.0, 5.0
    fold = np.array([0, 1], np.int32)
    told = set()
    trees = forecast_trees.grown(SPEC, lags, rows, truth, fold, 2, 6, lambda share, message: told.add(message))
    assert trees["mean"].tolist() == [[5.0, 0.0], [3.0, 3.0]]  # of the one block that the member may see
    assert told == {f"trees of member {member} of 2: {tree}" for member in (1, 2) for tree in (0, 4)}
    assert trees["leaf"].shape == (2, 2 * 6 << boosted.DEPTH)


def test_after_an_outage_longer_than_its_context_the_ridge_stands_in(fitted):
    values = plant(np.arange(1500, 1500 + LENGTH))[None]
    observed = np.ones(values.shape, bool)
    observed[:, :2, -13:] = False
    told = asked(fitted, values, observed)
    lags = Lags(LENGTH, tuple(AHEAD), DAY, 4)
    rows, seen = prepared(lags, fitted.params["scale"], np.where(observed, values, 0), observed)
    line = np.einsum("hd,hd->h", known(lags, rows)[0, 0], fitted.params["ridge"])
    mean, scale = (fitted.params["scale"][name][0] for name in ("mean", "scale"))
    assert not seen[:, -8:].any()
    np.testing.assert_allclose(told.value[0], mean + scale * line, rtol=1e-4)


def test_a_network_that_gives_no_number_leaves_the_ridge(fitted):
    values = plant(np.arange(1500, 1500 + LENGTH))[None]
    weights = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), fitted.params["network"])
    told = asked(replace(fitted, params={**fitted.params, "network": weights}), values)
    assert np.isfinite(np.stack(told)).all()
    assert (told.lower <= told.value).all()
    assert (told.value <= told.upper).all()


def test_without_the_target_there_is_no_number_whatever_else_is_seen(fitted):
    values = plant(np.arange(1500, 1500 + LENGTH))[None]
    observed = np.ones(values.shape, bool)
    observed[:, 0] = False
    assert np.isnan(np.stack(asked(fitted, values, observed))).all()


def test_a_missing_value_is_that_of_the_day_before():
    values = plant(np.arange(LENGTH))[None]
    observed = np.ones(values.shape, bool)
    observed[0, 0, 20:28] = False
    scale = {"mean": np.zeros(8, np.float32), "scale": np.full(8, 100, np.float32)}
    lags = Lags(LENGTH, (1,), DAY, hold=2)
    rows, seen = prepared(lags, scale, values, observed)
    assert rows[0, 22:28, 0] == pytest.approx(values[0, 0, 14:20] / 100, rel=1e-5)
    assert rows[0, 20:22, 0] == pytest.approx(values[0, 0, 19] / 100, rel=1e-5)
    assert seen[0].tolist() == [not 22 <= cell < 28 for cell in range(LENGTH)]


def test_every_horizon_has_the_same_cells_of_the_same_time_of_day():
    values = np.zeros((1, 8, LENGTH), np.float32)
    values[0, 0] = np.arange(LENGTH)
    lags = Lags(LENGTH, (1, 3, 8), DAY, 0)
    scale = {"mean": np.zeros(8, np.float32), "scale": np.full(8, 100, np.float32)}
    rows, _ = prepared(lags, scale, values, np.ones(values.shape, bool))
    found = known(lags, rows)[0, 0] * 100
    assert found.shape == (3, width(SPEC, lags))
    for row, ahead in zip(found, lags.ahead, strict=True):
        wanted = LENGTH - 1 + ahead - 7 * DAY
        assert wanted in np.round(row)


@pytest.mark.parametrize("start", range(0, 7 * DAY, 5))
@pytest.mark.parametrize("ahead", [1, 5, 8, 13])
def test_the_date_to_come_follows_from_the_present_one(start, ahead):
    now, then = dates(np.array([start])), dates(np.array([start + ahead]))
    rows = {name: jnp.asarray(row, jnp.float32) for name, row in zip(calendar.NAMES, now, strict=True)}
    told = np.asarray(phases.coming(rows, (1, ahead), DAY))[0, 1]
    weekday = ((start + ahead) // DAY) % 7
    assert told[8:15].tolist() == [float(day == weekday) for day in range(7)]
    assert told[15] == (then[4] if (start % DAY + ahead) < 2 * DAY else 0)
    angle = 2 * np.pi * (start + ahead + 0.5) / DAY
    assert told[[0, 4]] == pytest.approx([np.sin(angle), np.cos(angle)], abs=1e-5)
    instant = np.asarray(phases.instants(rows, (1, ahead), DAY))[0, 1]
    assert instant[:8].tolist() == told[:8].tolist()
    assert instant[8:] == pytest.approx([(start + ahead + 0.5) % DAY / DAY, weekday, told[15]], abs=1e-5)


def test_without_a_calendar_trees_are_asked_about_the_past_alone():
    rows = np.zeros((1, LENGTH, 1), np.float32)
    spec = replace(SPEC, features=("load",))
    lags = Lags(LENGTH, (1,), DAY, 0)
    assert plain(spec, lags, jnp.asarray(rows), 1).shape[-1] == width(spec, lags) - 1  # less the ones


def test_of_later_days_than_tomorrow_nothing_is_claimed():
    rows = {name: jnp.ones(1) for name in calendar.NAMES}
    assert phases.coming(rows, (3 * DAY,), DAY)[0, 0, 15] == 0.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ahead": [4, 1]}, "the least first"),
        ({"ahead": [0]}, "from 1 to"),
        ({"ahead": 4}, "must be a list"),
        ({"ahead": []}, "list of 1 to"),
        ({"ahead": [True]}, "whole numbers"),
        ({"context": 65}, "at most the window, 64 cells"),
    ],
)
def test_options_of_no_use_are_refused(options, words):
    spec = Spec("forecast_lstm", ("load",), LENGTH, {"target": "load"}, {"context": 8, **options})
    with pytest.raises(ValueError, match=words):
        ForecastLstm().check(spec)


def test_too_few_blocks_are_refused():
    with pytest.raises(ValueError, match="it takes 5 or more"):
        ForecastLstm().fit(SPEC, blocks(plant(np.arange(400))), lambda share, message: None)


def test_the_outputs_speak_of_their_horizons():
    (output,) = ForecastLstm().outputs(SPEC)
    assert (output.name, output.ahead, output.meaning) == ("load", (1, 8), "forecast")
