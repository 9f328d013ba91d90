"""Remaining useful life on C-MAPSS (simulated turbofans): error, PHM score and coverage, beside simpler ways.

All units are in a database first, a cycle an hour; the model is trained on it, and asked once for each test unit, at
its last cycle, by the product's own code. It learns from the units of the training file alone, with its default options
and the three settings in their roles. Labels are capped at 125 cycles unless a row says otherwise. Each figure is the
mean of the seeds, with the least and the most. The peers know what the model's own trees are asked about, at all cells.
"""

import os
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import rul_inputs
from models.baselines import baselines, has_trees
from models.kind import Spec, TrainingData
from plugin.domain import Asset, ModelVersion
from plugin.infer.config import ModelConfig
from plugin.infer.explaining import MEANS
from tests.benchmarks import _deletion, _history
from tests.benchmarks._history import BEGIN, History, Series, numbers
from tests.benchmarks.harness import Better, Goal, Peer, Row, Spread

CAP = 125.0
_SEEDS = 5
_SENSORS = 21
_SETTINGS = ("setting1", "setting2", "setting3")
FEATURES = ("cycle", *_SETTINGS, *(f"s{number}" for number in range(1, _SENSORS + 1)))
ROLES = {"age": "cycle", **{f"setting_{number}": name for number, name in enumerate(_SETTINGS, 1)}}
_STEP = timedelta(hours=1)
"""A cycle."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Goals:
    """RMSE and PHM score to get below."""

    rmse: float
    phm: float


GOALS = {"FD001": Goals(10.5, 170), "FD002": Goals(10.6, 555), "FD003": Goals(9.2, 202), "FD004": Goals(11.2, 679)}


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """One of the four sets: each unit's features [f, t], and the true RUL [cycles] of the test units."""

    train: Sequence[Array]
    test: Sequence[Array]
    left: NDArray[np.float64]

    @property
    def length(self) -> int:
        return max(int(life.shape[1]) for life in (*self.train, *self.test))


async def measure(quick: bool) -> Sequence[Row]:
    """The four sets, one after the other; one seed with ``quick``."""
    folder = Path(os.environ.get("FORETAG_DATA", Path(__file__).parents[3] / "shared" / "data")) / "cmapss"
    files = [folder / f"{part}_{name}.txt" for name in GOALS for part in ("train", "test", "RUL")]
    if lacking := [file for file in files if not file.exists()]:
        print(f"rul is left out: {lacking[0]} is not there (FORETAG_DATA names the folder that holds cmapss)")
        return []
    if not has_trees():
        print("rul: scikit-learn is not installed, so no boosted tree stands beside")
    seeds = 1 if quick else _SEEDS
    print(f"rul: what is trained with a seed is shown as the mean (not the median) of {seeds}")
    rows: list[Row] = []
    for name, goals in GOALS.items():
        fleet = read(folder, name)
        rows += _rows(name, goals, fleet, await _trained(name, fleet, range(seeds)))
    return rows


def read(folder: Path, name: str) -> Fleet:
    """Space separated, no header: unit, cycle, 3 settings, 21 sensors."""
    left = np.loadtxt(folder / f"RUL_{name}.txt", ndmin=1)
    return Fleet(_units(folder / f"train_{name}.txt"), _units(folder / f"test_{name}.txt"), left)


def _units(path: Path) -> Sequence[Array]:
    table = np.loadtxt(path, dtype=np.float64)
    starts = np.flatnonzero(np.diff(table[:, 0])) + 1
    return [life[:, 1:].T.astype(np.float32) for life in np.split(table, starts)]


# --- scores ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What one training says of the test units [cycles], and what it took [s]."""

    value: NDArray[Any]
    lower: NDArray[Any]
    upper: NDArray[Any]
    seconds: float
    busy: float
    """Of all processors, for the training [s]."""
    named: float
    """Area under the deletion curve of its explanations, and of tags in any order."""
    by_chance: float


def rmse(told: NDArray[Any], left: NDArray[np.float64]) -> float:
    """Root of the mean square error."""
    return float(np.sqrt(np.mean((told - left) ** 2)))


def phm(told: NDArray[Any], left: NDArray[np.float64]) -> float:
    """Sum over the units of the score of the PHM08 challenge: late is worse than early (Saxena et al. 2008)."""
    error = told - left
    return float(np.sum(np.where(error < 0, np.exp(-error / 13.0), np.exp(error / 10.0)) - 1.0))


def _worn(told: NDArray[Any], left: NDArray[np.float64]) -> float:
    near = left < 30
    return rmse(told[near], left[near])


def _coverage(told: Told, left: NDArray[np.float64]) -> float:
    return 100.0 * float(np.mean((told.lower <= left) & (left <= told.upper)))


def _width(told: Told) -> float:
    return float(np.mean(np.minimum(told.upper, CAP) - told.lower))


def _rows(name: str, goals: Goals, fleet: Fleet, seeds: Sequence[Told]) -> Iterable[Row]:
    capped = np.minimum(fleet.left, CAP)
    error, score = _mean(rmse(told.value, capped) for told in seeds), _mean(phm(told.value, capped) for told in seeds)
    coverage = _mean(_coverage(told, capped) for told in seeds)
    width = _mean(_width(told) for told in seeds)
    yield Row(f"{name}: RMSE", error, "cycles", goal=Goal(goals.rmse))
    yield Row(f"{name}: PHM score", score, "", goal=Goal(goals.phm))
    for peer, told in _peers(fleet).items():
        beside = Peer(peer, Spread.of([rmse(told, capped)])), Peer(peer, Spread.of([phm(told, capped)]))
        print(f"rul: {name}, {peer}: RMSE {rmse(told, capped):.2f}, PHM score {phm(told, capped):.0f}", flush=True)
        yield Row(f"{name}: RMSE", error, "cycles", peer=beside[0])
        yield Row(f"{name}: PHM score", score, "", peer=beside[1])
    yield Row(f"{name}: RMSE, labels not capped", _mean(rmse(told.value, fleet.left) for told in seeds), "cycles")
    yield Row(f"{name}: RMSE, RUL below 30", _mean(_worn(told.value, capped) for told in seeds), "cycles")
    yield Row(f"{name}: 90 % interval, coverage", coverage, "%", Better.MORE)
    yield Row(f"{name}: 90 % interval, coverage off by", _off(coverage), "points", goal=Goal(3))
    yield Row(f"{name}: 90 % interval, width", width, "cycles")
    left = _mean(told.named for told in seeds)
    chance = Peer("in any order", _mean(told.by_chance for told in seeds))
    yield Row(f"{name}: left of the fall, tags put back as explained", left, "", peer=chance)
    limit = Goal(300) if name == "FD001" else None
    yield Row(f"{name}: training", _mean(told.seconds for told in seeds), "s", goal=limit)
    yield Row(f"{name}: training, of all processors", _mean(told.busy for told in seeds), "s")


def _line(name: str, seed: int, told: Told, left: NDArray[np.float64]) -> str:
    """One seed's figures, said at once: whoever waits sees how far it is, and what ends early has said them."""
    capped = np.minimum(left, CAP)
    return (
        f"rul: {name}, seed {seed}: RMSE {rmse(told.value, capped):.2f}, PHM score {phm(told.value, capped):.0f}, "
        f"not capped {rmse(told.value, left):.2f}, RUL below 30 {_worn(told.value, capped):.2f}, "
        f"coverage {_coverage(told, capped):.1f} %, width {_width(told):.1f}, "
        f"deletion {told.named:.3f} beside {told.by_chance:.3f}, {told.seconds:.0f} s ({told.busy:.0f} s of processors)"
    )


def _mean(figures: Iterable[float]) -> Spread:
    """The mean stands in the middle: it is what C-MAPSS is compared by."""
    runs = list(figures)
    return Spread(statistics.fmean(runs), min(runs), max(runs))


def _off(coverage: Spread) -> Spread:
    return Spread.of([abs(coverage.median - 90.0)])


# --- ours --------------------------------------------------------------------------------------------------------


async def _trained(name: str, fleet: Fleet, seeds: Iterable[int]) -> list[Told]:
    every = []
    async with _history.opened() as history:
        worn, asked = await _kept(history, fleet)
        for seed in seeds:
            every.append(await _told(history, fleet, seed, worn, asked))
            print(_line(name, seed, every[-1], fleet.left), flush=True)
    return every


async def _kept(history: History, fleet: Fleet) -> tuple[Sequence[Asset], Sequence[Asset]]:
    """One stand ran the units for training to their end, one after the other; each test unit is on a stand of its own.

    After the last one a new one begins, which shows that it had failed. The test units are all seen at one time.
    """
    new = np.full((len(FEATURES), 1), np.nan, np.float32)
    new[0] = 1.0
    train = _series("stand", np.concatenate([*fleet.train, new], 1), BEGIN)
    cells = [life.shape[1] for life in fleet.test]
    test = [
        _series(f"unit-{number}", life, _seen(fleet) - count * _STEP)
        for number, (life, count) in enumerate(zip(fleet.test, cells, strict=True), 1)
    ]
    stand, *units = await history.keep([train, *test])
    return (stand,), units


def _seen(fleet: Fleet) -> datetime:
    """When the test units are looked at."""
    return BEGIN + _STEP * (sum(int(life.shape[1]) for life in fleet.train) + fleet.length + 1)


def _series(asset: str, life: Array, start: datetime) -> Series:
    return Series(asset, dict(zip(FEATURES, life, strict=True)), _STEP, start)


def _config(fleet: Fleet, seed: int) -> ModelConfig:
    fields = {
        "name": "rul", "kind": "rul_lstm", "assets": ["*"], "features": FEATURES, "roles": ROLES, "seed": seed,
        "step": _STEP, "window": _STEP * fleet.length, "hold": 0, "training": {"learn": "failures"},
    }  # fmt: skip
    return ModelConfig.model_validate(fields)


async def _told(history: History, fleet: Fleet, seed: int, worn: Sequence[Asset], asked: Sequence[Asset]) -> Told:
    config, now = _config(fleet, seed), _seen(fleet)
    begin = time.process_time()
    version = await history.train(config, worn, now)
    busy = time.process_time() - begin
    (outcome,) = [outcome async for outcome in history.score(config, asked, [now])]
    value, lower, upper = numbers(outcome.predictions, "rul").T
    named, by_chance = await _explained(history, fleet, config, version)
    upper = np.where(np.isnan(upper), np.inf, upper)
    return Told(value, lower, upper, version.provenance["seconds"], busy, named, by_chance)


async def _explained(history: History, fleet: Fleet, config: ModelConfig, version: ModelVersion) -> tuple[float, float]:
    spec, params = await history.registry.load(version)
    means = [version.provenance[MEANS][name] for name in spec.features]
    return _deletion.left(history.compute.kinds[config.kind], spec, params, means, windows(fleet.test, fleet.length))


def windows(lives: Sequence[Array], length: int) -> TrainingData:
    """Whole lives, each at the end of its window; the RUL counts down to 0 at the last cell."""
    values = np.zeros((len(lives), len(FEATURES), length), np.float32)
    observed = np.zeros(values.shape, bool)
    target = np.full((len(lives), length), np.nan, np.float32)
    for place, life in enumerate(lives):
        cells = life.shape[1]
        values[place, :, -cells:], observed[place, :, -cells:] = life, True
        target[place, -cells:] = np.arange(cells)[::-1]
    return TrainingData(values, observed, target, np.arange(len(lives), dtype=np.int32))


# --- peers -------------------------------------------------------------------------------------------------------


def _peers(fleet: Fleet) -> Mapping[str, NDArray[Any]]:
    life = statistics.fmean(unit.shape[1] for unit in fleet.train)
    naive = np.array([np.clip(life - unit.shape[1], 0, CAP) for unit in fleet.test])
    train, test = _tables(fleet)
    known = np.concatenate(train)
    left = np.concatenate([np.minimum(np.arange(len(rows))[::-1], CAP) for rows in train])
    asked = np.stack([rows[-1] for rows in test])
    learnt = {peer.name: peer.fit(known, left)(asked) for peer in baselines() if peer.name != "mean"}
    return {"mean life": naive, **{name: np.clip(told, 0, CAP) for name, told in learnt.items()}}


def _tables(fleet: Fleet) -> tuple[Sequence[NDArray[np.float32]], Sequence[NDArray[np.float32]]]:
    """Per unit and cycle [t, d]: what the model's own trees are asked about."""
    spec = Spec("rul_lstm", FEATURES, fleet.length, ROLES)
    learnt = rul_inputs.learnt(spec, 8, windows(fleet.train, fleet.length))

    def tables(lives: Sequence[Array]) -> Sequence[NDArray[np.float32]]:
        whole = windows(lives, fleet.length)
        every = np.tile(np.arange(fleet.length), (len(lives), 1))
        rows = rul_inputs.summaries(spec, learnt, whole.values, whole.observed, every)
        return [each[-life.shape[1] :] for each, life in zip(rows, lives, strict=True)]

    return tables(fleet.train), tables(fleet.test)
