"""Anomalies on SKAB (a real pump loop, a sample a second): what is told apart, and at which rate of false alarms.

Each of the 34 files is a plant of its own: a kind learns from its first 400 rows, which its protocol calls healthy
(in one file 296 of them are not), and is judged on the others. All rows are in a database first, at their own times:
every twentieth second or so has none, and some files have holes of minutes. Each file's model is trained by the
product's own code at the time of row 400, and asked in every second after it by the product's backtest, which raises
and withdraws the flags. Options and the threshold's rule are the same for all files; which were tried, and what comes
of it where each third of the files is judged by what the two others chose, is in docs/benchmarks.md. The false-alarm
rate (FAR) is the share of the rows labelled healthy that are flagged, the missed one (MAR) that of the anomalous rows
which are not, over all files.
"""

import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Asset, Outcome
from plugin.infer.backtest import backtest
from plugin.infer.config import ModelConfig
from plugin.infer.flags import Decision
from tests.benchmarks import _history
from tests.benchmarks._history import History, Series, numbers
from tests.benchmarks.harness import Better, Goal, Row, Spread

_SEEDS = 5
_HEALTHY = 400
_WINDOW = 80
_FEATURES = (
    "accelerometer_1",
    "accelerometer_2",
    "current",
    "pressure",
    "temperature",
    "thermocouple",
    "voltage",
    "flow",
)
_RULE = {"smooth": 15, "threshold": "gumbel", "false_alarms_per_week": 10.0}
"""Seven minutes of healthy rows are far too few to see what happens ten times a week: a law tells it."""
_SHORT = {"steps": 100}
"""Of networks: a quarter of the default, as there are hundreds of them to train."""
_SECOND = timedelta(seconds=1)
_FLAGS = {"persistence": 5, "dead_band": 0.4}
_KINDS: Mapping[str, Mapping[str, int]] = {
    "var_anomaly": {},
    "pca_anomaly": {},
    "conv_autoencoder": _SHORT,
    "lstm_autoencoder": _SHORT,
    "anomaly": _SHORT,
}
"""With the options that they have besides."""

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One file: its rows [t, 8], when each was taken, and which of them are anomalous [t]."""

    name: str
    rows: Floats
    begin: datetime
    seconds: NDArray[np.int64]
    """From the beginning [t], ascending."""
    anomalous: Labels

    def time(self, row: int) -> datetime:
        """When it was taken."""
        return self.begin + int(self.seconds[row]) * _SECOND


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What is said of the rows after the healthy ones."""

    score: Floats
    """Over 1 where it is over the threshold."""
    flagged: Labels
    anomalous: Labels


async def measure(quick: bool) -> Sequence[Row]:
    """All kinds and their peers; with ``quick`` no network. What has no weights drawn by chance needs one seed."""
    folder = Path(os.environ.get("FORETAG_DATA", Path(__file__).parents[3] / "shared" / "data")) / "skab" / "data"
    if not folder.is_dir():
        print(f"anomaly is left out: {folder} is not there (FORETAG_DATA names the folder that holds skab)")
        return []
    trials = read(folder)
    rows: list[Row] = []
    async with _history.opened() as history:
        assets = await history.keep([plant(trial) for trial in trials])
        pairs = [*zip(trials, assets, strict=True)]
        for name, short in _KINDS.items():
            if quick and short:
                continue
            seeds = []
            for seed in range(_SEEDS if short else 1):
                seeds.append([await told(history, name, *pair, seed) for pair in pairs])
                print(_line(name, seed, seeds[-1]), flush=True)
            rows += _rows(name, seeds)
    for name, peer in _peers().items():
        rows += _rows(name, [[peer(trial) for trial in trials]])
    return rows


def read(folder: Path) -> Sequence[Trial]:
    """``;`` between the columns: time, eight sensors, anomaly, changepoint."""
    # By the whole path, as when each third was judged by the others.
    return [_trial(path) for path in sorted(folder.glob("*/*.csv")) if path.parent.name != "anomaly-free"]


def _trial(path: Path) -> Trial:
    table = np.genfromtxt(path, delimiter=";", skip_header=1, usecols=range(1, 10))
    stamps = np.loadtxt(path, "datetime64[s]", delimiter=";", skiprows=1, usecols=0, ndmin=1)
    begin = stamps[0].item().replace(tzinfo=UTC)
    seconds = (stamps - stamps[0]).astype(np.int64)
    return Trial(f"{path.parent.name}/{path.stem}", table[:, :-1], begin, seconds, table[:, -1] > 0)


# --- figures -----------------------------------------------------------------------------------------------------


def auc(score: Floats, anomalous: Labels) -> float:
    """Area under the ROC curve: the chance that an anomalous row scores higher than a healthy one; ties count half."""
    healthy = np.sort(score[~anomalous])
    below = np.searchsorted(healthy, score[anomalous]) + np.searchsorted(healthy, score[anomalous], side="right")
    return float(below.mean() / 2 / len(healthy))


def rates(told: Sequence[Told]) -> tuple[float, float]:
    """FAR and MAR over all files [%]."""
    flagged, anomalous = (
        np.concatenate(column) for column in zip(*((e.flagged, e.anomalous) for e in told), strict=True)
    )
    return 100.0 * float(np.mean(flagged[~anomalous])), 100.0 * float(np.mean(~flagged[anomalous]))


def delay(told: Sequence[Told]) -> float:
    """From an anomaly's first row to the first one within it that is flagged, median over anomalies [s].

    One that is never seen counts for as long as it lasts.
    """
    late = []
    for each in told:
        edges = np.flatnonzero(np.diff(each.anomalous.astype(np.int8), prepend=0, append=0))
        for begin, end in edges.reshape(-1, 2):
            flagged = np.flatnonzero(each.flagged[begin:end])
            late.append(float(flagged[0]) if len(flagged) else float(end - begin))
    return statistics.median(late)


def flagged(score: Floats) -> Labels:
    """What a peer's flag would have been at each row, by the rule that runs live; ``score`` as in :class:`Told`."""
    decision, begin = Decision(1.0, config("peer", "any", 0).rule), datetime(2020, 1, 1, tzinfo=UTC)
    return np.array([decision.decide(float(each), begin + row * _SECOND) for row, each in enumerate(score)], bool)


def _rows(name: str, seeds: Sequence[Sequence[Told]]) -> Iterable[Row]:
    far, mar = zip(*(rates(told) for told in seeds), strict=True)
    ours = name in _KINDS
    yield Row(
        f"{name}: ROC-AUC, mean of the files",
        _mean(map(_area, seeds)),
        "",
        Better.MORE,
        goal=Goal(0.85) if ours else None,
    )
    yield Row(f"{name}: FAR", _mean(far), "%", goal=Goal(13.5) if ours else None)
    yield Row(f"{name}: MAR", _mean(mar), "%", goal=Goal(28.0) if ours else None)
    yield Row(f"{name}: detection delay", _mean(map(delay, seeds)), "s")


def _area(told: Sequence[Told]) -> float:
    return statistics.fmean(auc(each.score, each.anomalous) for each in told)


def _line(name: str, seed: int, told: Sequence[Told]) -> str:
    """One seed's figures, said at once: whoever waits sees how far it is, and what ends early has said them."""
    far, mar = rates(told)
    return f"anomaly: {name}, seed {seed}: AUC {_area(told):.4f}, FAR {far:.2f} %, MAR {mar:.2f} %, {delay(told):.1f} s"


def _mean(figures: Iterable[float]) -> Spread:
    runs = list(figures)
    return Spread(statistics.fmean(runs), min(runs), max(runs))


# --- ours --------------------------------------------------------------------------------------------------------


def plant(trial: Trial) -> Series:
    columns = np.full((len(_FEATURES), int(trial.seconds[-1]) + 1), np.nan)
    columns[:, trial.seconds] = trial.rows.T
    return Series(trial.name, dict(zip(_FEATURES, columns, strict=True)), _SECOND, trial.begin)


def config(kind: str, asset: str, seed: int) -> ModelConfig:
    """As a plant would write it."""
    fields = {
        "name": f"{kind}_{seed}_{asset.replace('/', '_')}", "kind": kind, "assets": [asset], "features": _FEATURES,
        "step": _SECOND, "window": _WINDOW * _SECOND, "hold": 0, "seed": seed, "schedule": {"every": _SECOND},
        "training": {"learn": "normal", "keep": 0}, "options": {**_RULE, **_KINDS.get(kind, {})}, **_FLAGS,
    }  # fmt: skip
    return ModelConfig.model_validate(fields)


async def told(history: History, kind: str, trial: Trial, asset: Asset, seed: int) -> Told:
    """Where there is no score, as after a hole in the data, the last one stands."""
    model = config(kind, asset.name, seed)
    version = await history.train(model, [asset], trial.time(_HEALTHY))
    begin, end = trial.time(_HEALTHY) + _SECOND, trial.time(-1) + 2 * _SECOND
    walk = backtest(history.scorer(model, [asset]), history.store, version, begin, end)
    said = [(numbers(outcome.predictions, "score")[0, 0], *_raised(outcome)) async for outcome in walk]
    score, raised = np.array(said).T
    asked = trial.seconds[_HEALTHY:] - trial.seconds[_HEALTHY]
    over = score / version.metrics["threshold"]
    return Told(_lasting(over)[asked], _lasting(raised)[asked] > 0.0, trial.anomalous[_HEALTHY:])


def _raised(outcome: Outcome) -> Sequence[float]:
    """Whether its one flag is; NaN where there is none."""
    return [float(flag.raised) for flag in outcome.flags] or [np.nan]


def _lasting(column: Floats) -> Floats:
    """NaN replaced by what was there before; 0 where nothing was."""
    newest = np.maximum.accumulate(np.where(np.isnan(column), -1, np.arange(len(column))))
    return np.where(newest < 0, 0.0, column[np.maximum(newest, 0)])


# --- peers and controls ------------------------------------------------------------------------------------------


def _peers() -> dict[str, Callable[[Trial], Told]]:
    found: dict[str, Callable[[Trial], Told]] = {
        "Mahalanobis": partial(_mahalanobis, 1),
        "Mahalanobis of means over 20 s": partial(_mahalanobis, 20),
        "control, every row is flagged": lambda trial: _control(trial, 0, len(trial.rows)),
        "control, flagged by the clock from row 570 to 980": lambda trial: _control(trial, 570, 980),
    }
    if find_spec("sklearn") is None:
        print("anomaly: scikit-learn is not installed, so no isolation forest stands beside")
        return found
    return {**found, "isolation forest": _forest}


def _control(trial: Trial, begin: int, end: int) -> Told:
    """Flags the rows ``begin`` to ``end`` without a look at any sensor."""
    row = np.arange(_HEALTHY, len(trial.rows))
    chosen = (row >= begin) & (row < end)
    return Told(np.where(chosen, 2.0, 0.0), chosen, trial.anomalous[_HEALTHY:])


def _by_rule(trial: Trial, score: Floats, threshold: float) -> Told:
    over = score / threshold
    return Told(over, flagged(over), trial.anomalous[_HEALTHY:])


def _mahalanobis(seconds: int, trial: Trial) -> Told:
    """Its threshold is what 1 % of the healthy rows, which it has learnt from, are over."""
    sums = np.cumsum(np.vstack([np.zeros(trial.rows.shape[1]), trial.rows]), 0)
    end = np.arange(1, len(trial.rows) + 1)
    begin = np.maximum(end - seconds, 0)
    means = (sums[end] - sums[begin]) / (end - begin)[:, None]
    learnt = means[:_HEALTHY]
    off = means - learnt.mean(0)
    score = np.einsum("ti,ij,tj->t", off, np.linalg.pinv(np.cov(learnt.T)), off)
    return _by_rule(trial, score[_HEALTHY:], float(np.quantile(score[:_HEALTHY], 0.99)))


def _forest(trial: Trial) -> Told:
    """scikit-learn's, its defaults; its threshold as that of the Mahalanobis distance."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(random_state=0).fit(trial.rows[:_HEALTHY])
    score = -forest.score_samples(trial.rows)
    return _by_rule(trial, score[_HEALTHY:], float(np.quantile(score[:_HEALTHY], 0.99)))
