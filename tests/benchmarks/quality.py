"""A soft sensor of NOx and CO on a gas turbine (real, hourly, 2011 to 2015); the laboratory is a day late.

All rows are in a database first, an hour apart (the files have no times). The model is trained on 2011 to 2013 and
asked every two hours of 2014 and 2015, in order of time, by the product's own backtest, with the laboratory known 24
hours after its hour. Quarters are quarters of a year's rows. Figures of seeds are the mean, with the least and the
most. Peers have the same inputs, once as they are and once with the same bias update.
"""

import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from models import cells
from models.baselines import baselines, has_trees
from models.drift import Reference, distance
from models.quality_mlp import Options, uncorrected
from plugin.domain import Asset, ModelVersion
from plugin.infer.backtest import backtest
from plugin.infer.config import ModelConfig
from plugin.infer.fitting import INDEPENDENT
from plugin.infer.outputs import model_spec
from tests.benchmarks import _history
from tests.benchmarks._history import BEGIN, History, Series, numbers
from tests.benchmarks.harness import Better, Goal, Peer, Row, Spread

YEARS = (2011, 2012, 2013, 2014, 2015)
_PROCESS = ("AT", "AP", "AH", "AFDP", "GTEP", "TIT", "TAT", "TEY", "CDP")
_GOALS = {"NOX": 0.72, "CO": 0.62}
"""R² to reach."""
_SEEDS = 5
_STEP = timedelta(hours=1)
_WINDOW, _LATE, _EVERY = 240, 24, 2
"""Hours: the model's window, how late the laboratory answers, and from one question to the next."""
_DAY = 24
"""Hours between two looks for a drift."""

Column = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Turbine:
    """Columns by name [hour], and the hour with which each year begins; one more for the end."""

    columns: Mapping[str, Column]
    begins: Sequence[int]

    def year(self, number: int) -> slice:
        """Its hours."""
        place = YEARS.index(number)
        return slice(self.begins[place], self.begins[place + 1])


async def measure(quick: bool) -> Sequence[Row]:
    """NOx, then CO; one seed with ``quick``."""
    folder = Path(os.environ.get("FORETAG_DATA", Path(__file__).parents[3] / "shared" / "data")) / "gas_turbine"
    files = [folder / f"gt_{year}.csv" for year in YEARS]
    if lacking := [file for file in files if not file.exists()]:
        print(f"quality is left out: {lacking[0]} is not there (FORETAG_DATA names the folder that holds gas_turbine)")
        return []
    if not has_trees():
        print("quality: scikit-learn is not installed, so no boosted tree stands beside")
    seeds = range(1 if quick else _SEEDS)
    print(f"quality: what is trained with a seed is shown as the mean (not the median) of {len(seeds)}")
    turbine = read(files)
    rows: list[Row] = []
    async with _history.opened() as history:
        (asset,) = await history.keep([_series(turbine)])
        for lab in _GOALS:
            every = []
            for seed in seeds:
                every.append(await _told(history, turbine, asset, lab, seed))
                print(_line(turbine, lab, seed, every[-1]), flush=True)
            rows += _rows(turbine, lab, every)
    return rows


def read(files: Sequence[Path]) -> Turbine:
    """One file a year, comma separated with a header; all have the same columns."""
    names = files[0].read_text().partition("\n")[0].strip().split(",")
    tables = [np.loadtxt(file, delimiter=",", skiprows=1) for file in files]
    begins = np.cumsum([0, *(len(table) for table in tables)]).tolist()
    return Turbine(dict(zip(names, np.concatenate(tables).T, strict=True)), begins)


# --- scores ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What one seed gave: value and bounds at the asked hours, what training took [s], when drift was noticed."""

    value: Column
    lower: Column
    upper: Column
    seconds: float
    alarm: float
    """Days from the beginning of 2014 until the first; the whole test, where there was none."""
    false_alarms: int
    """Begun in 2012, by a model that knew 2011 alone."""


def r_squared(told: Column, truth: Column) -> float:
    """Share of the variance of ``truth`` that is explained."""
    return 1.0 - float(np.sum((truth - told) ** 2) / np.sum((truth - truth.mean()) ** 2))


def quarters(turbine: Turbine, hours: NDArray[np.int64]) -> Sequence[NDArray[np.intp]]:
    """Which of the hours lie in each of the eight quarters of the test."""
    bounds = [np.linspace(turbine.begins[place], turbine.begins[place + 1], 5)[:4] for place in (3, 4)]
    quarter = np.searchsorted(np.concatenate(bounds), hours, side="right") - 1
    return [np.flatnonzero(quarter == number) for number in range(8)]


def asked(turbine: Turbine) -> NDArray[np.int64]:
    """The hours at whose ends the model is asked, by the clock."""
    first = turbine.begins[3]
    return np.arange(first + -(first + 1) % _EVERY, turbine.begins[5], _EVERY)


def _coverage(turbine: Turbine, told: Told, truth: Column) -> tuple[float, float]:
    """Of the 90 % interval [%], and by how many points the worst quarter's is off."""
    inside = (told.lower <= truth) & (truth <= told.upper)
    by_quarter = [100.0 * float(inside[part].mean()) for part in quarters(turbine, asked(turbine))]
    return 100.0 * float(inside.mean()), max(abs(share - 90.0) for share in by_quarter)


def _line(turbine: Turbine, lab: str, seed: int, told: Told) -> str:
    """One seed's figures, said at once: whoever waits sees how far it is, and what ends early has said them."""
    truth = turbine.columns[lab][asked(turbine)]
    covered, worst = _coverage(turbine, told, truth)
    return (
        f"quality: {lab}, seed {seed}: R² {r_squared(told.value, truth):.4f}, covered {covered:.1f} %, "
        f"worst quarter off by {worst:.1f} points, drift on day {told.alarm:.0f}, {told.false_alarms} in 2012, "
        f"{told.seconds:.0f} s"
    )


def _rows(turbine: Turbine, lab: str, seeds: Sequence[Told]) -> Iterable[Row]:
    hours = asked(turbine)
    truth = turbine.columns[lab][hours]
    ours = _mean(r_squared(told.value, truth) for told in seeds)
    yield Row(f"{lab}: R²", ours, "", Better.MORE, goal=Goal(_GOALS[lab]))
    for name, told in _peers(turbine, lab).items():
        yield Row(f"{lab}: R²", ours, "", Better.MORE, peer=Peer(name, Spread.of([r_squared(told[hours], truth)])))
    covered, worst = map(_mean, zip(*(_coverage(turbine, told, truth) for told in seeds), strict=True))
    yield Row(f"{lab}: 90 % interval, coverage", covered, "%", Better.MORE)
    yield Row(f"{lab}: 90 % interval, coverage of the worst quarter off by", worst, "points", goal=Goal(3))
    yield Row(f"{lab}: 90 % interval, width", _mean(float(np.mean(told.upper - told.lower)) for told in seeds), "mg/m³")
    alarm, false = _mean(told.alarm for told in seeds), _mean(float(told.false_alarms) for told in seeds)
    goals = (Goal(90), Goal(0)) if lab == "NOX" else (None, None)
    yield Row(f"{lab}: first drift alarm, days into 2014", alarm, "d", goal=goals[0])
    yield Row(f"{lab}: drift alarms in 2012, model of 2011", false, "", goal=goals[1])
    yield Row(f"{lab}: training", _mean(told.seconds for told in seeds), "s")


def _mean(figures: Iterable[float]) -> Spread:
    runs = list(figures)
    return Spread(statistics.fmean(runs), min(runs), max(runs))


# --- ours --------------------------------------------------------------------------------------------------------


def _series(turbine: Turbine) -> Series:
    # A value of an hour is asked for at the hour's end: a day late is a day before the hour itself.
    late = dict.fromkeys(_GOALS, _LATE * _STEP + _STEP)
    return Series("turbine", turbine.columns, _STEP, late=late)


def _config(lab: str, years: str, seed: int) -> ModelConfig:
    fields = {
        "name": f"{lab.lower()}_{years}_{seed}", "kind": "quality_mlp", "assets": ["turbine"], "seed": seed,
        "features": [*_PROCESS, lab], "roles": {"lab": lab}, "step": _STEP, "window": _WINDOW * _STEP, "hold": 0,
        "training": {"learn": "laboratory"}, "options": {"output": lab.lower(), "delay": _LATE},
    }  # fmt: skip
    return ModelConfig.model_validate(fields)


async def _told(history: History, turbine: Turbine, asset: Asset, lab: str, seed: int) -> Told:
    config = _config(lab, "2013", seed)
    version = await history.train(config, [asset], BEGIN + turbine.begins[3] * _STEP)
    begin, end = (BEGIN + (int(hour) + 1) * _STEP for hour in asked(turbine)[[0, -1]])
    scorer, every = history.scorer(config, [asset]), _EVERY * _STEP
    walk = backtest(scorer, history.store, version, begin, end + every, every=every)
    found = [numbers(outcome.predictions, lab.lower()) async for outcome in walk]
    young = _config(lab, "2011", seed)
    first = await history.train(young, [asset], BEGIN + turbine.begins[1] * _STEP)
    old = await _noticed(history, turbine, lab, young, first, 2011)
    new = await _noticed(history, turbine, lab, config, version, 2013)
    test, year = turbine.begins[5] - turbine.begins[3], turbine.year(2012)
    after = [hour - turbine.begins[3] for hour in new]
    value, lower, upper = np.concatenate(found).T
    return Told(
        value,
        lower,
        upper,
        version.provenance["seconds"],
        min([test, *after]) / 24.0,
        sum(year.start <= hour < year.stop for hour in old),
    )


async def _noticed(
    history: History, turbine: Turbine, lab: str, config: ModelConfig, version: ModelVersion, last: int
) -> Sequence[int]:
    """Hours, after the model's last year of training, at which a drift began to be seen."""
    _, params = await history.registry.load(version)
    references = (await history.registry.contents(version)).references
    assert references is not None
    assert references.seasonal is not None
    residual = _residuals(turbine, lab, config, params)
    return [hour + _LATE for hour in drifts(references.seasonal, residual, turbine.year(last).stop)]


def drifts(seasonal: Reference, residual: Column, first: int) -> Sequence[int]:
    """Hours from ``first`` on, each the first look of some in a row, at which residuals before any bias were
    distributed otherwise than in training, as the service tells it (it looks every hour, here it is every day)."""
    count = INDEPENDENT * seasonal.spacing
    looks = np.arange(first, len(residual) + 1, _DAY)
    drifted = [distance(seasonal, residual[max(0, look - count) : look]).drifted for look in looks]
    begun = np.flatnonzero(np.diff(drifted, prepend=False) & drifted)
    return [int(hour) for hour in looks[begun]]


def _residuals(turbine: Turbine, lab: str, config: ModelConfig, params: Any) -> Column:
    """Of the network alone, at every hour."""
    values = np.stack([turbine.columns[name] for name in config.features])[None].astype(np.float32)
    network = jax.jit(partial(uncorrected, model_spec(config), params))(values, np.ones(values.shape, bool))
    return turbine.columns[lab] - np.asarray(network[0], np.float64)


# --- peers -------------------------------------------------------------------------------------------------------


def _peers(turbine: Turbine, lab: str) -> Mapping[str, Column]:
    """What each says at every hour."""
    inputs = np.stack([turbine.columns[name] for name in _PROCESS], 1)
    truth, trained = turbine.columns[lab], turbine.begins[3]
    found = {"last value of the laboratory": np.concatenate([np.full(_LATE, np.nan), truth[:-_LATE]])}
    for peer in baselines():
        told = peer.fit(inputs[:trained], truth[:trained])(inputs)
        found[peer.name] = told
        found[f"{peer.name}, bias updated"] = told + _bias(truth - told)
    return found


def _bias(residual: Column) -> Column:
    """As the soft sensor's own, with its default weight."""
    alpha = Options(output="").alpha
    running = cells.running_bias(jnp.asarray(residual)[None], jnp.ones((1, len(residual)), bool), alpha)
    return np.asarray(cells.shifted(running, _LATE, 0.0)[0], np.float64)
