"""Anomalies on SKAB (a real pump loop, a sample a second): what is told apart, and at which rate of false alarms.

Each of the 34 files is a plant of its own: a kind learns from its first 400 rows, which its protocol calls healthy
(in one file 296 of them are not), and is judged on the others. Options and the threshold's rule are the same for all
files; they were chosen on every third of them (sorted by folder and name), so the others stand beside. The kinds are
given arrays directly: no historian stands between; their flags are raised and withdrawn by the rule that runs live. The
false-alarm rate (FAR) is the share of the rows labelled healthy that are flagged, the missed one (MAR) that of the
anomalous rows which are not, over all files.
"""

import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from models.catalogue import kinds
from models.kind import Spec, TrainingData
from models.runtime import enable_compile_cache
from plugin.infer.flags import Decision, Rule
from tests.benchmarks.harness import Better, Goal, Row, Spread

_SEEDS = 5
_HEALTHY = 400
_WINDOW = 80
_EVERY = 3
"""Every third file: options were chosen there."""
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
_RULE = {"smooth": 15, "threshold": "conformal", "false_alarms_per_week": 1000.0}
"""One excursion in ten healthy minutes, which is more than 400 rows can tell of: the threshold is the highest score of
healthy rows that were held out."""
_SECOND, _BEGIN = timedelta(seconds=1), datetime(2020, 3, 9, tzinfo=UTC)
_FLAGS = Rule(persistence=5, every=_SECOND, dead_band=0.4)
_KINDS = ("var_anomaly", "pca_anomaly", "lstm_autoencoder", "conv_autoencoder", "anomaly")
_QUICK = ("var_anomaly", "pca_anomaly")

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One file: its rows [t, 8], and which of them are anomalous [t]."""

    name: str
    rows: Floats
    anomalous: Labels


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What is said of the rows after the healthy ones."""

    score: Floats
    """Over 1 where it is over the threshold."""
    flagged: Labels
    anomalous: Labels


async def measure(quick: bool) -> Sequence[Row]:
    """All kinds and their peers; with ``quick`` one seed, and no network."""
    folder = Path(os.environ.get("FORETAG_DATA", Path(__file__).parents[3] / "shared" / "data")) / "skab" / "data"
    if not folder.is_dir():
        print(f"anomaly is left out: {folder} is not there (FORETAG_DATA names the folder that holds skab)")
        return []
    trials = read(folder)
    seeds = range(1 if quick else _SEEDS)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="foretag-benchmark-") as cache:
        enable_compile_cache(Path(cache))
        for name in _QUICK if quick else _KINDS:
            rows += _rows(name, [[_judged(name, trial, seed) for trial in trials] for seed in seeds])
    for name, peer in _peers().items():
        rows += _rows(name, [[peer(trial) for trial in trials]])
    return rows


def read(folder: Path) -> Sequence[Trial]:
    """``;`` between the columns: time, eight sensors, anomaly, changepoint."""
    # By the whole path, as when the options were chosen: another order would call files unseen that were not.
    return [_trial(path) for path in sorted(folder.glob("*/*.csv")) if path.parent.name != "anomaly-free"]


def _trial(path: Path) -> Trial:
    table = np.genfromtxt(path, delimiter=";", skip_header=1, usecols=range(1, 10))
    return Trial(f"{path.parent.name}/{path.stem}", table[:, :-1], table[:, -1] > 0)


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
    """What the flag would have been in each second, by the rule that runs live; ``score`` as in :class:`Told`."""
    decision = Decision(1.0, _FLAGS)
    return np.array([decision.decide(float(each), _BEGIN + row * _SECOND) for row, each in enumerate(score)], bool)


def _rows(name: str, seeds: Sequence[Sequence[Told]]) -> Iterable[Row]:
    far, mar = zip(*(rates(told) for told in seeds), strict=True)
    ours = name in _KINDS
    areas = [[auc(each.score, each.anomalous) for each in told] for told in seeds]
    others = [statistics.fmean(area for place, area in enumerate(row) if place % _EVERY) for row in areas]
    yield Row(
        f"{name}: ROC-AUC, mean of the files",
        _mean(map(statistics.fmean, areas)),
        "",
        Better.MORE,
        goal=Goal(0.85) if ours else None,
    )
    yield Row(f"{name}: ROC-AUC, files that nothing was chosen on", _mean(others), "", Better.MORE)
    yield Row(f"{name}: FAR", _mean(far), "%", goal=Goal(13.5) if ours else None)
    yield Row(f"{name}: MAR", _mean(mar), "%", goal=Goal(28.0) if ours else None)
    unseen = [rates([each for place, each in enumerate(told) if place % _EVERY]) for told in seeds]
    yield Row(f"{name}: FAR, files that nothing was chosen on", _mean(each[0] for each in unseen), "%")
    yield Row(f"{name}: MAR, files that nothing was chosen on", _mean(each[1] for each in unseen), "%")
    yield Row(f"{name}: detection delay", _mean(map(delay, seeds)), "s")


def _mean(figures: Iterable[float]) -> Spread:
    runs = list(figures)
    return Spread(statistics.fmean(runs), min(runs), max(runs))


# --- ours --------------------------------------------------------------------------------------------------------


def _judged(name: str, trial: Trial, seed: int) -> Told:
    spec = _spec(name, seed)
    fitted = kinds()[name].fit(spec, _healthy(trial), lambda share, message: None)
    windows = np.lib.stride_tricks.sliding_window_view(trial.rows.astype(np.float32), _WINDOW, axis=0)
    values = windows[_HEALTHY + 1 - _WINDOW :]
    found: Any = jax.device_get(_predict(name, seed)(fitted.params, values, np.ones(values.shape, bool)))["score"].value
    return _told(trial, np.asarray(found, np.float64), fitted.metrics["threshold"])


def _spec(name: str, seed: int) -> Spec:
    return Spec(name, _FEATURES, _WINDOW, {}, _RULE, seed=seed)


@cache
def _predict(name: str, seed: int) -> Any:
    """One program for the files that are equally long."""
    return jax.jit(partial(kinds()[name].predict, _spec(name, seed)))


def _told(trial: Trial, score: Floats, threshold: float) -> Told:
    over = score / threshold
    return Told(over, flagged(over), trial.anomalous[_HEALTHY:])


def _healthy(trial: Trial) -> TrainingData:
    """The first rows in blocks of a window, as the historian's history is cut."""
    blocks = trial.rows[:_HEALTHY].reshape(-1, _WINDOW, trial.rows.shape[1])
    values = np.ascontiguousarray(np.swapaxes(blocks, 1, 2), np.float32)
    target = np.zeros((len(values), _WINDOW), np.float32)
    return TrainingData(values, np.ones(values.shape, bool), target, np.arange(len(values), dtype=np.int32))


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


def _mahalanobis(seconds: int, trial: Trial) -> Told:
    """Its threshold is what 1 % of the healthy rows, which it has learnt from, are over."""
    sums = np.cumsum(np.vstack([np.zeros(trial.rows.shape[1]), trial.rows]), 0)
    end = np.arange(1, len(trial.rows) + 1)
    begin = np.maximum(end - seconds, 0)
    means = (sums[end] - sums[begin]) / (end - begin)[:, None]
    learnt = means[:_HEALTHY]
    off = means - learnt.mean(0)
    score = np.einsum("ti,ij,tj->t", off, np.linalg.pinv(np.cov(learnt.T)), off)
    return _told(trial, score[_HEALTHY:], float(np.quantile(score[:_HEALTHY], 0.99)))


def _forest(trial: Trial) -> Told:
    """scikit-learn's, its defaults; its threshold as that of the Mahalanobis distance."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(random_state=0).fit(trial.rows[:_HEALTHY])
    score = -forest.score_samples(trial.rows)
    return _told(trial, score[_HEALTHY:], float(np.quantile(score[:_HEALTHY], 0.99)))
