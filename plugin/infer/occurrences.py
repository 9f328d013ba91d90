"""How well a version says whether something is the case: a failure that comes, an anomaly; beside what knows less.

A probability is held against what was learnt from, as it is known by now: whether the failure came within the horizon,
or what the role ``outcome`` said; that of a quantity out of its specification, against the laboratory. A score is held
against what people said of the time of its flags.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import probability
from models.baselines import Column
from models.kind import TrainingData
from plugin.domain import Flag, Meaning, Prediction
from plugin.infer.outputs import model_spec
from plugin.infer.peers import Instant, instant_of, rivals
from plugin.infer.scoring import Scorer
from plugin.infer.training import targets
from plugin.infer.truths import Proof, judged
from plugin.protocols import Store


@dataclass(frozen=True, slots=True)
class Ranked:
    """Of one way to tell."""

    who: str
    pr_auc: float
    """Area under precision over recall; who knows nothing has the share of what was the case."""
    brier: float | None
    """Mean squared error of the probability; None: it is a score."""
    reliability: float | None
    """Expected calibration error: how far what is told lies from how often it comes."""


@dataclass(frozen=True, slots=True, eq=False)
class Occurrence:
    """Of one output."""

    output: str
    outcomes: int
    share: float
    """Of them in which it was the case."""
    ranked: tuple[Ranked, ...]
    """The version first."""
    bins: tuple[probability.Bin, ...]
    """Of the version's probability, from low to high."""
    told: Column
    """[outcomes] the version's probability 0..1, or its score."""
    came: NDArray[np.bool_]
    instants: tuple[Instant, ...]
    """Of them, in order of time."""
    strain: Mapping[str, float] = field(default_factory=dict)
    """Mean squared error of the probability with noise, without each feature and under attack, by name, on a sample."""

    def record(self) -> dict[str, Any]:
        """As JSON."""
        strain = {name: error if np.isfinite(error) else None for name, error in self.strain.items()}
        figures = {"output": self.output, "outcomes": self.outcomes, "share": self.share}
        return {
            **figures,
            "strain": strain,
            "ways": [asdict(each) for each in self.ranked],
            "bins": [each._asdict() for each in self.bins],
        }


async def occurrences(
    scorer: Scorer,
    store: Store,
    said: Sequence[Prediction],
    proven: Sequence[Proof],
    flags: Sequence[Flag],
    data: TrainingData | None,
) -> tuple[Occurrence, ...]:
    """``data``: what baselines learn from; None: there is nothing."""
    found = await _out_of_specification(scorer, said, proven, data)
    if scorer.config.training.learn == "labels":
        by_output: dict[str, list[Prediction]] = {}
        for each in said:
            if each.tag.meaning is Meaning.PROBABILITY and each.value is not None:
                by_output.setdefault(each.tag.output, []).append(each)
        until = max(each.as_of for each in said) + scorer.config.horizon if said else datetime.now(UTC)
        truth = await targets(scorer.config, scorer.assets, store, max(until, datetime.now(UTC))) if by_output else {}
        for output, of_output in sorted(by_output.items()):
            told = {(each.tag.asset, each.as_of): 0.01 * (each.value or 0.0) for each in of_output}
            came = {instant: truth[instant] >= 0.5 for instant in told if instant in truth}
            found.append(await _occurrence(scorer, output, told, came, data))
    verdicts = await judged(store, scorer.config, flags)
    scores = {(each.flag.asset, each.flag.as_of): each.flag.score for each in verdicts}
    real = {(each.flag.asset, each.flag.as_of): each.real for each in verdicts}
    found.append(await _occurrence(scorer, "score", scores, real, data, score=True))
    return tuple(each for each in found if each is not None)


async def _out_of_specification(
    scorer: Scorer, said: Sequence[Prediction], proven: Sequence[Proof], data: TrainingData | None
) -> list[Occurrence | None]:
    first, *others = scorer.kind.outputs(model_spec(scorer.config))
    actual = {instant_of(each.prediction): each.actual for each in proven if each.prediction.tag.output == first.name}
    found = []
    for output in others:
        if output.beyond is None:
            continue
        low, high = output.beyond
        of_output = [each for each in said if each.tag.output == output.name and instant_of(each) in actual]
        told = {instant_of(each): 0.01 * each.value for each in of_output if each.value is not None}
        came = {instant: not low <= actual[instant] <= high for instant in told}
        classes = None if data is None else _outside(data, low, high)
        found.append(await _occurrence(scorer, output.name, told, came, classes))
    return found


def _outside(data: TrainingData, low: float, high: float) -> TrainingData:
    """The same with classes for its targets."""
    outside = ((data.target < low) | (data.target > high)).astype(np.float32)
    return replace(data, target=np.where(np.isfinite(data.target), outside, np.float32(np.nan)))


async def _occurrence(
    scorer: Scorer,
    output: str,
    told: Mapping[Instant, float],
    came: Mapping[Instant, bool],
    data: TrainingData | None,
    *,
    score: bool = False,
) -> Occurrence | None:
    """None where it is not known of both, what was the case and what was not."""
    instants = sorted((each for each in came if np.isfinite(told[each])), key=lambda each: each[1])
    truth = np.array([came[each] for each in instants], bool)
    if not truth.any() or truth.all():
        return None
    ours = np.array([told[each] for each in instants])
    peers = await _peers(scorer, data, instants, score=score)
    ways = {"this version": ours, **peers}
    ranked = tuple(_ranked(who, column, truth, score=score) for who, column in ways.items())
    bins = () if score else probability.bins(ours, truth.astype(np.float64))
    return Occurrence(output, len(truth), float(truth.mean()), ranked, bins, ours, truth, tuple(instants))


async def _peers(
    scorer: Scorer, data: TrainingData | None, instants: Sequence[Instant], *, score: bool
) -> Mapping[str, Column]:
    nothing = {"all normal": np.zeros(len(instants))} if score else {}
    if data is None:
        return nothing
    try:
        return {**nothing, **await rivals(scorer, data, instants, pca=score)}
    except ValueError:  # too few healthy rows, or one input: no components can be had of them
        return nothing


def _ranked(who: str, told: Column, came: NDArray[np.bool_], *, score: bool) -> Ranked:
    area = probability.average_precision(told, came)
    if score:
        return Ranked(who, area, None, None)
    brier = float(np.mean((told - came) ** 2))
    return Ranked(who, area, brier, probability.reliability(told, came.astype(np.float64)))
