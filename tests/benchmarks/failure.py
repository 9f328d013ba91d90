"""Failures of a milling machine (AI4I 2020, *synthetic*: rules and chance): PR-AUC, F1 and reliability, beside others.

Five parts with as many failures each; what is told of one part was learnt from the four others. The rows of those lie
in a database, an item an hour, with what became of each in the role ``outcome``; each row of the fifth is an item of
its own, asked once, by the product's own code. The five modes of failure in the file are never read: they say why a
machine failed, and so that it did. Peers know the same inputs, once as they are and once with their products.
"""

import csv
import os
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import probability
from models.baselines import baselines, has_trees
from plugin.domain import Asset
from plugin.infer.config import ModelConfig
from tests.benchmarks import _history
from tests.benchmarks._history import BEGIN, History, Series, numbers
from tests.benchmarks.harness import Better, Goal, Peer, Row, Spread

_SEEDS, _PARTS = 5, 5
_INPUTS = {
    "air": "Air_temperature",
    "process": "Process_temperature",
    "speed": "Rotational_speed",
    "torque": "Torque",
    "wear": "Tool_wear",
}
_FAILED = "Machine.failure"
_STEP = timedelta(hours=1)

Column = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """What is known of each item [n], and whether it failed."""

    columns: Mapping[str, Column]
    failed: NDArray[np.bool_]

    @property
    def part(self) -> NDArray[np.intp]:
        """[n], 0 to 4; failures are dealt out apart from the rest."""
        part = np.zeros(len(self.failed), np.intp)
        for rows in (np.flatnonzero(self.failed), np.flatnonzero(~self.failed)):
            part[np.random.default_rng(0).permutation(rows)] = np.arange(len(rows)) % _PARTS
        return part


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What one seed says of all items, each by the model that had not seen it."""

    probability: Column
    """[n] 0 to 1."""
    expected: NDArray[np.bool_]
    seconds: float
    """Of one training."""
    busy: float
    """Of all processors, for one training [s]."""


async def measure(quick: bool) -> Sequence[Row]:
    """One seed with ``quick``."""
    data = Path(os.environ.get("FORETAG_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = data / "ai4i2020" / "ai4i2020.csv"
    if not path.exists():
        print(f"failure is left out: {path} is not there (FORETAG_DATA names the folder that holds ai4i2020)")
        return []
    if not has_trees():
        print("failure: scikit-learn is not installed, so no boosted tree stands beside")
    items = read(path)
    print("failure: what is trained with a seed is shown as the mean of the seeds")
    seeds = []
    for seed in range(1 if quick else _SEEDS):
        seeds.append(await _told(items, seed))
        print(_line(items, seed, seeds[-1]), flush=True)
    return [*_rows(items, seeds)]


def read(path: Path) -> Items:
    """The type L, M or H counts as 0, 1 or 2, as it would come from a controller."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [{name.strip(): value for name, value in row.items()} for row in csv.DictReader(file)]
    columns = {short: np.array([float(row[name]) for row in rows]) for short, name in _INPUTS.items()}
    columns["type"] = np.array(["LMH".index(row["Type"]) for row in rows], np.float64)
    return Items(columns, np.array([row[_FAILED] == "1" for row in rows]))


def _rows(items: Items, seeds: Sequence[Told]) -> Iterable[Row]:
    def figure(score: Any) -> Spread:
        runs = [score(told) for told in seeds]
        return Spread(statistics.fmean(runs), min(runs), max(runs))

    area = figure(lambda told: _area(items, told))
    yield Row("PR-AUC", area, "", Better.MORE, goal=Goal(0.9))
    for name, score in _peers(items).items():
        found = Spread.of([probability.average_precision(score, items.failed)])
        yield Row("PR-AUC", area, "", Better.MORE, peer=Peer(name, found))
    yield Row("F1 of the state", figure(lambda told: probability.f1(told.expected, items.failed)), "", Better.MORE)
    yield Row("told off what came, mean of ten parts", figure(lambda told: _off(items, told)), "points")
    yield Row("training", figure(lambda told: told.seconds), "s")
    yield Row("training, of all processors", figure(lambda told: told.busy), "s")


def _area(items: Items, told: Told) -> float:
    return probability.average_precision(told.probability, items.failed)


def _off(items: Items, told: Told) -> float:
    return 100.0 * probability.reliability(told.probability, items.failed.astype(np.float64))


def _line(items: Items, seed: int, told: Told) -> str:
    """One seed's figures, said at once: whoever waits sees how far it is, and what ends early has said them."""
    return (
        f"failure: seed {seed}: PR-AUC {_area(items, told):.4f}, F1 {probability.f1(told.expected, items.failed):.3f}, "
        f"off {_off(items, told):.2f} points, {told.seconds:.0f} s ({told.busy:.0f} s of processors)"
    )


# --- ours --------------------------------------------------------------------------------------------------------


async def _told(items: Items, seed: int) -> Told:
    told, expected = np.zeros(len(items.failed)), np.zeros(len(items.failed), bool)
    took = []
    async with _history.opened() as history:
        for part in range(_PARTS):
            rows = np.flatnonzero(items.part == part)
            told[rows], expected[rows], *seconds = await _part(history, items, part, seed)
            took.append(seconds)
    return Told(told, expected, *np.mean(took, 0).tolist())


async def _part(history: History, items: Items, part: int, seed: int) -> tuple[Column, NDArray[np.bool_], float, float]:
    """One model, asked for all items of the part at once; what its training took, by the clock and of processors."""
    here = np.flatnonzero(items.part == part)
    seen = BEGIN + _STEP * (len(items.failed) + 1)
    line = Series(f"line-{part}", _columns(items, np.flatnonzero(items.part != part), known=True), _STEP)
    asked = [Series(f"item-{row}", _columns(items, np.array([row]), known=False), _STEP, seen - _STEP) for row in here]
    assets: Sequence[Asset] = await history.keep([line, *asked])
    by_name = {asset.name: asset for asset in assets}
    config = _config(f"failure_{part}", items, seed)
    begin = time.process_time()
    version = await history.train(config, [by_name[line.asset]], seen)
    busy = time.process_time() - begin
    units = [by_name[each.asset] for each in asked]
    (outcome,) = [outcome async for outcome in history.score(config, units, [seen])]
    percent, state = (numbers(outcome.predictions, f"failure_{name}")[:, 0] for name in ("probability", "state"))
    return percent / 100.0, state == 1.0, version.provenance["seconds"], busy


def _columns(items: Items, rows: NDArray[np.intp], *, known: bool) -> Mapping[str, Column]:
    """``known``: whether what became of them is."""
    failed = items.failed[rows].astype(np.float64) if known else np.full(len(rows), np.nan)
    return {**{name: column[rows] for name, column in items.columns.items()}, "failed": failed}


def _config(name: str, items: Items, seed: int) -> ModelConfig:
    fields = {
        "name": name, "kind": "failure_mlp", "assets": ["*"], "features": [*items.columns, "failed"],
        "roles": {"outcome": "failed"}, "seed": seed, "step": _STEP, "window": _STEP, "hold": 0,
        "training": {"learn": "labels"},
    }  # fmt: skip
    return ModelConfig.model_validate(fields)


# --- peers -------------------------------------------------------------------------------------------------------


def _peers(items: Items) -> Mapping[str, Column]:
    """By name the probability of each item, by what had not seen it."""
    inputs = np.stack([*items.columns.values()], 1)
    units = (inputs - inputs.mean(0)) / inputs.std(0)
    first, second = np.triu_indices(units.shape[1])
    tables = {"": units, ", with products": np.concatenate([units, units[:, first] * units[:, second]], 1)}
    found = {}
    for suffix, table in tables.items():
        for peer in baselines(classes=True):
            told = np.zeros(len(table))
            for part in range(_PARTS):
                here = items.part == part
                told[here] = peer.fit(table[~here], items.failed[~here].astype(np.float64))(table[here])
            found[peer.name + suffix] = told
    return {name: told for name, told in found.items() if name != "mean, with products"}
