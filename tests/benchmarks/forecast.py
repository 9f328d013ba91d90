"""Energy of a steel works (real, 15 min, the year 2018), 15 min, an hour and a day ahead, beside simpler ways.

The year is in a database; the model is trained on its first four fifths, and asked at every quarter of an hour of the
last fifth, by the product's own code. What is measured in the quarter that is foretold (reactive power, CO2) is never
an input: all inputs are of the past but for the calendar. Each figure is the mean of the seeds, with the least and the
most. The simpler ways know the same past and the same calendar; the trees are not tuned.
"""

import csv
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from models.baselines import baselines, has_trees
from models.training import pinball
from plugin.domain import Asset
from plugin.infer.config import ModelConfig
from tests.benchmarks import _history
from tests.benchmarks._history import History, Series, numbers
from tests.benchmarks.harness import Better, Goal, Peer, Row, Spread

STEP = timedelta(minutes=15)
AHEAD = {1: "15 min", 4: "1 h", 96: "24 h"}
"""Horizons [cells]."""
GOALS = {1: 8.30, 4: 12.18, 96: 18.97}
"""RMSE to get below [kWh]."""
_DAY, _WEEK = 96, 7 * 96
_COLUMNS = {
    "usage": "Usage_kWh",
    "lagging": "Lagging_Current_Reactive.Power_kVarh",
    "leading": "Leading_Current_Reactive_Power_kVarh",
    "lagging_factor": "Lagging_Current_Power_Factor",
    "leading_factor": "Leading_Current_Power_Factor",
}
_TRAINED = 0.8
_SEEDS = 5
BEGIN = datetime(2018, 1, 1, tzinfo=UTC)
"""In the works' own time, a Monday."""
_READ = STEP - timedelta(seconds=1)
"""A quarter's energy is read a second before it ends: a window that ends with the quarter sees it."""

Column = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Year:
    """What was measured in each quarter of an hour, in the order of the file (whose midnights bear the wrong date)."""

    columns: Mapping[str, Column]

    @property
    def usage(self) -> Column:
        return self.columns["usage"]

    @property
    def split(self) -> int:
        """The first quarter that is not learnt from."""
        return int(_TRAINED * len(self.usage))

    def truth(self, ahead: int) -> Column:
        """Of the forecasts made at the end of each quarter of the test, from the one before it on."""
        return self.usage[self.split - 1 + ahead :]


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What one training says of the test at one horizon: value, lower and upper bound [n, 3]; and what it took [s]."""

    numbers: Column
    seconds: float
    share: float
    """Of the network in what is said."""
    trees: float
    """Share of the trees; the rest is the ridge's."""


async def measure(quick: bool) -> Sequence[Row]:
    """One seed with ``quick``."""
    folder = Path(os.environ.get("FORETAG_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = folder / "steel_energy" / "Steel_industry_data.csv"
    if not path.exists():
        print(f"forecast is left out: {path} is not there (FORETAG_DATA names the folder that holds steel_energy)")
        return []
    if not has_trees():
        print("forecast: scikit-learn is not installed, so no boosted tree stands beside")
    year, rows = read(path), list[Row]()
    told = await _told(year, range(1 if quick else _SEEDS))
    for ahead in AHEAD:
        rows += _rows(year, ahead, told[ahead])
    return [*rows, Row("training", _mean(each.seconds for each in told[1]), "s")]


def read(path: Path) -> Year:
    """Comma separated with a header."""
    with path.open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    return Year({name: np.array([float(row[column]) for row in table]) for name, column in _COLUMNS.items()})


def _rows(year: Year, ahead: int, seeds: Sequence[Told]) -> Iterator[Row]:
    name, truth = AHEAD[ahead], year.truth(ahead)
    values = [each.numbers[: len(truth)] for each in seeds]
    error = _mean(rmse(each[:, 0], truth) for each in values)
    yield Row(f"{name}: RMSE", error, "kWh", goal=Goal(GOALS[ahead]))
    for peer, said in peers(year, ahead).items():
        yield Row(f"{name}: RMSE", error, "kWh", peer=Peer(peer, Spread.of([rmse(said, truth)])))
    yield Row(f"{name}: MASE", _mean(mase(each[:, 0], truth, year) for each in values), "")
    for column, level in ((1, 0.1), (0, 0.5), (2, 0.9)):
        loss = _mean(float(np.mean(pinball(jnp.asarray(truth - each[:, column]), level))) for each in values)
        yield Row(f"{name}: pinball loss at {level:.0%}", loss, "kWh")
    inside = _mean(100.0 * float(np.mean((each[:, 1] <= truth) & (truth <= each[:, 2]))) for each in values)
    yield Row(f"{name}: 80 % interval, coverage", inside, "%", Better.MORE)
    yield Row(f"{name}: 80 % interval, width", _mean(float(np.mean(each[:, 2] - each[:, 1])) for each in values), "kWh")
    yield Row(f"{name}: share of the network", _mean(100.0 * each.share for each in seeds), "%")
    yield Row(f"{name}: share of its trees", _mean(100.0 * each.trees for each in seeds), "%")


def rmse(said: Column, truth: Column) -> float:
    """Root of the mean square error."""
    return float(np.sqrt(np.mean((said - truth) ** 2)))


def mase(said: Column, truth: Column, year: Year) -> float:
    """Mean absolute error by that of "as a day ago" in the training part (Hyndman & Koehler 2006, equation 3)."""
    learnt = year.usage[: year.split]
    return float(np.mean(np.abs(said - truth)) / np.mean(np.abs(learnt[_DAY:] - learnt[:-_DAY])))


def _mean(figures: Iterable[float]) -> Spread:
    runs = list(figures)
    return Spread(statistics.fmean(runs), min(runs), max(runs))


# --- ours --------------------------------------------------------------------------------------------------------


def config(seed: int, **options: object) -> ModelConfig:
    """As a plant would write it."""
    fields = {
        "name": "energy", "kind": "forecast_lstm", "assets": ["*"], "features": tuple(_COLUMNS), "seed": seed,
        "roles": {"target": "usage"}, "calendar": ["hour_of_day", "day_of_week", "day_off"],
        "window": 8 * _DAY * STEP, "step": STEP, "hold": 0, "training": {"learn": "series"},
        "options": {"ahead": list(AHEAD), **options},
    }  # fmt: skip
    return ModelConfig.model_validate(fields)


async def _told(year: Year, seeds: Iterable[int]) -> Mapping[int, Sequence[Told]]:
    found: dict[int, list[Told]] = {ahead: [] for ahead in AHEAD}
    async with _history.opened() as history:
        works = await history.keep([Series("works", year.columns, STEP, BEGIN + _READ)])
        for seed in seeds:
            for ahead, told in (await _trained(history, works, year, seed)).items():
                found[ahead].append(told)
    return found


async def _trained(history: History, works: Sequence[Asset], year: Year, seed: int) -> Mapping[int, Told]:
    begin = BEGIN + year.split * STEP
    version = await history.train(config(seed), works, begin)
    ends = [begin + number * STEP for number in range(len(year.usage) - year.split)]
    outcomes = [outcome async for outcome in history.score(config(seed), works, ends)]
    of_all = np.stack([numbers(outcome.predictions, "usage") for outcome in outcomes])
    return {
        ahead: Told(
            of_all[:, place],
            version.provenance["seconds"],
            version.metrics[f"network_share_{ahead}"],
            version.metrics[f"trees_share_{ahead}"],
        )
        for place, ahead in enumerate(AHEAD)
    }


# --- simpler ways ------------------------------------------------------------------------------------------------


def peers(year: Year, ahead: int) -> Mapping[str, Column]:
    """What they say at the end of each quarter of the test, from the one before it on."""
    usage, count = year.usage, len(year.usage)
    ends = np.arange(count - ahead)
    table, target = _table(year, ahead)[ends], usage[ends + ahead]
    learnt, asked = ends < year.split - ahead, ends >= year.split - 1
    old = {
        "as now": usage[ends[asked]],
        "as a day ago": usage[ends[asked] + ahead - _DAY],
        "as a week ago": usage[ends[asked] + ahead - _WEEK],
    }
    ways = [way for way in baselines() if way.name != "mean"]
    return {**old, **{way.name: way.fit(table[learnt], target[learnt])(table[asked]) for way in ways}}


def _table(year: Year, ahead: int) -> Column:
    """[quarter, d]: the load some quarters, days and a week before; what else was measured; the time foretold."""
    quarters = np.arange(len(year.usage))
    lags = [*range(9), 12, 16, 20, 24, 48, 96]
    before = [back - ahead + shift for back in (_DAY, 2 * _DAY, _WEEK) for shift in (-1, 0, 1)]
    lags += [lag for lag in before if lag >= 0]
    columns = [np.concatenate([np.full(lag, np.nan), year.usage[: len(quarters) - lag]]) for lag in lags]
    columns += [column for name, column in year.columns.items() if name != "usage"]
    then = quarters + ahead
    hour, day = 2.0 * np.pi * then / _DAY, then // _DAY % 7
    columns += [np.sin(hour), np.cos(hour), then % _DAY, day, day >= 5]
    return np.stack(columns, 1).astype(np.float64)
