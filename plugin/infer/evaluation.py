"""How good a version would have been over a stretch of the past, beside what it has to be better than.

It walks forward by the live code (:mod:`plugin.infer.backtest`) and is held against what came true. Baselines learn
from the same history, up to the stretch and no further, and are asked at the same instants; of each instant they see
the newest cell, without what comes late.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from models import residuals, robust
from models.explain import Explainer
from models.kind import Params, Spec
from models.rul_held_out import phm_score
from plugin.domain import Flag, LabelKind, Meaning, ModelVersion, OutputTag, Prediction
from plugin.infer.ancestors import seen_until
from plugin.infer.backtest import Progress, backtest
from plugin.infer.explaining import MEANS
from plugin.infer.occurrences import Occurrence, occurrences
from plugin.infer.outputs import model_spec
from plugin.infer.peers import Instant, history_before, instant_of, peers_of
from plugin.infer.registry import Registry
from plugin.infer.scoring import Scorer
from plugin.infer.truths import Proof, judged, proofs
from plugin.protocols import Store

_WINDOWS = 128
"""At which the model is put under strain."""
_WEEK = timedelta(weeks=1)

Column = NDArray[np.float64]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Errors:
    """Of one way to predict an output."""

    who: str
    outcomes: int
    rmse: float
    """[unit]."""
    mae: float
    r2: float
    phm: float | None = None
    """Of a remaining life, see :func:`models.rul_held_out.phm_score`."""


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """On one output, at one horizon of a forecast."""

    output: str
    unit: str
    ahead: timedelta
    errors: tuple[Errors, ...]
    """The version first, then the baselines, at the instants at which all of them say a number."""
    coverage: float | None
    """Share of truths within the bounds, 0..1; None: it has none."""
    width: float | None
    """Mean of the intervals that are bounded on both sides [unit]."""
    strain: Mapping[str, float]
    """Error [unit] with noise, without each feature and under attack, by name, on a sample of the instants."""
    proofs: tuple[Proof, ...]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        errors = [{name: _plain(getattr(each, name)) for name in Errors.__slots__} for each in self.errors]
        strain = {name: _plain(error) for name, error in self.strain.items()}
        figures = {"coverage": self.coverage, "width": self.width, "strain": strain}
        return {"output": self.output, "unit": self.unit, "ahead": str(self.ahead), "errors": errors, **figures}


@dataclass(frozen=True, slots=True)
class Flags:
    """What was raised."""

    runs: int
    share: float
    """Of the runs in which a flag was raised."""
    rises_per_week: float
    """Of one asset."""
    false_per_week: float | None
    """Rises of which people said that nothing was wrong; None: they said nothing."""
    budget_per_week: float
    """False alarms of one asset that the model was allowed."""
    failures: int
    """That people told of."""
    detected: int
    """Of them with a flag from the model's horizon before it to its end."""
    delay: timedelta | None
    """From such a failure to its first flag, the middle one; negative: before it."""

    def record(self) -> dict[str, Any]:
        """As JSON."""
        figures = {name: getattr(self, name) for name in Flags.__slots__}
        return {**figures, "delay": None if self.delay is None else self.delay.total_seconds()}


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Of one version over a stretch."""

    version: ModelVersion
    start: datetime
    end: datetime
    leak: bool
    """It was trained on what lies in the stretch, or began from one that was: its errors say nothing."""
    judgements: tuple[Judgement, ...]
    occurrences: tuple[Occurrence, ...]
    flags: Flags | None
    importance: Mapping[str, float]
    """Of each feature, or group of them, to the first output: shares, largest first. Empty: of a forecast, or of a
    version that does not say what its features were like."""
    note: str
    """Why there are no baselines; empty: there are."""

    def record(self) -> dict[str, Any]:
        """As JSON."""
        flags = None if self.flags is None else self.flags.record()
        which = {"model": self.version.model, "version": self.version.version}
        stretch = {**which, "start": self.start.isoformat(), "end": self.end.isoformat()}
        judged_ = [each.record() for each in self.judgements]
        told = {
            "importance": dict(self.importance),
            "outputs": judged_,
            "occurrences": [each.record() for each in self.occurrences],
            "flags": flags,
        }
        return {**stretch, "leak": self.leak, **told, "note": self.note}


def _plain(figure: Any) -> Any:
    """JSON knows no number that is not finite."""
    return None if isinstance(figure, float) and not np.isfinite(figure) else figure


async def evaluate(
    scorer: Scorer,
    store: Store,
    registry: Registry,
    version: ModelVersion,
    span: tuple[datetime, datetime],
    progress: Progress,
) -> Evaluation:
    """See the module. Raises ArtifactError where the version can't be loaded."""
    said: list[Prediction] = []
    flags: list[Flag] = []
    async for outcome in backtest(scorer, store, version, *span, progress=progress):
        said += outcome.predictions
        flags += outcome.flags
    by_output: defaultdict[tuple[str, timedelta], list[Proof]] = defaultdict(list)
    proven = await proofs(store, scorer.config, scorer.assets, said)
    for proof in proven:
        ahead = proof.prediction.target_time - proof.prediction.as_of - scorer.config.horizon
        by_output[proof.prediction.tag.output, ahead].append(proof)
    learnt, note = await history_before(scorer, store, span[0])
    trained = await registry.load(version)
    judgements = []
    for (_, ahead), found in sorted(by_output.items()):
        ordered = sorted(found, key=lambda proof: proof.prediction.as_of)
        numbers = learnt if scorer.config.training.learn not in {"normal", "labels"} else None
        peers = await peers_of(scorer, store, numbers, ordered, ahead) if numbers is not None else {}
        strain = await _strained(scorer, *trained, ordered) if not ahead else {}
        judgements.append(_judgement(ordered, ahead, peers, strain))
    seen = seen_until(version)
    leak = seen is None or seen > span[0]
    raised = await _raised(store, scorer, flags, span) if flags else None
    whether = [
        replace(each, strain=await _shaken(scorer, *trained, each)) if each.bins else each
        for each in await occurrences(scorer, store, said, proven, flags, learnt)
    ]
    important = await _important(scorer, *trained, version, said)
    return Evaluation(version, *span, leak, tuple(judgements), tuple(whether), raised, important, note)


def _judgement(
    found: Sequence[Proof], ahead: timedelta, peers: Mapping[str, Column], strain: Mapping[str, float]
) -> Judgement:
    tag = found[0].prediction.tag
    truth = np.array([proof.said_at_best for proof in found])
    told = {"this version": np.array([proof.value for proof in found]), **peers}
    both = np.isfinite(np.stack([*told.values()])).all(0)
    errors = tuple(_errors(who, column[both], truth[both], tag) for who, column in told.items()) if both.any() else ()
    inside = [proof.inside for proof in found if proof.inside is not None]
    bounds = [(each.prediction.lower, each.prediction.upper) for each in found]
    widths = [upper - lower for lower, upper in bounds if lower is not None and upper is not None]
    return Judgement(
        tag.output, tag.unit, ahead, errors,
        float(np.mean(inside)) if inside else None, float(np.mean(widths)) if widths else None, strain, tuple(found),
    )  # fmt: skip


def _errors(who: str, said: Column, truth: Column, tag: OutputTag) -> Errors:
    error = said - truth
    spread = float(np.sum((truth - truth.mean()) ** 2))
    r2 = 1.0 - float(np.sum(error**2)) / spread if spread > 0 else float("nan")
    phm = phm_score(error) if tag.meaning is Meaning.LIFETIME else None
    rmse, mae = float(np.sqrt(np.mean(error**2))), float(np.mean(np.abs(error)))
    return Errors(who, len(error), rmse, mae, r2, phm)


# --- strain, flags ---


async def _strained(scorer: Scorer, spec: Spec, params: Params, found: Sequence[Proof]) -> dict[str, float]:
    """The error on some of the windows as they are known now: as they are, with noise, without tags, under attack."""
    chosen = _some(found)
    values, observed = await _windows(scorer, [instant_of(proof.prediction) for proof in chosen])
    truth = np.array([proof.said_at_best for proof in chosen], np.float32)
    case = robust.Case(scorer.kind, spec, params, found[0].prediction.tag.output, values, observed, truth)
    return await scorer.compute(lambda: _strain(case))


async def _shaken(scorer: Scorer, spec: Spec, params: Params, found: Occurrence) -> dict[str, float]:
    """The same of a probability, which is told in per cent."""
    chosen = _some(range(len(found.instants)))
    values, observed = await _windows(scorer, [found.instants[place] for place in chosen])
    truth = np.where(found.came[chosen], np.float32(100), np.float32(0))
    case = robust.Case(scorer.kind, spec, params, found.output, values, observed, truth)
    strain = await scorer.compute(lambda: _strain(case))
    return {name: (0.01 * error) ** 2 for name, error in strain.items()}


async def _important(
    scorer: Scorer, spec: Spec, params: Params, version: ModelVersion, said: Sequence[Prediction]
) -> Mapping[str, float]:
    """Shares of features, or of their groups, in what the kind's first output did at some of the instants."""
    first = next(
        output for output in scorer.kind.outputs(model_spec(scorer.config)) if output.meaning is not Meaning.FLAG
    )
    known: Mapping[str, float | None] | None = version.provenance.get(MEANS)
    numbers = [each for each in said if each.tag.output == first.name and each.value is not None]
    if first.ahead or known is None or not numbers:
        return {}
    means = [np.nan if (mean := known.get(name)) is None else mean for name in spec.features]
    groups = scorer.config.explain.groups
    chosen = _some(sorted(numbers, key=lambda each: each.as_of))
    values, observed = await _windows(scorer, [instant_of(each) for each in chosen])

    def work() -> Mapping[str, float]:
        return Explainer(scorer.kind, spec, params, first.name, groups=groups, means=means).importance(values, observed)

    return await scorer.compute(work)


def _some(found: Sequence[_T]) -> list[_T]:
    """Spread over all of them."""
    return [found[place] for place in np.unique(np.linspace(0, len(found) - 1, _WINDOWS).astype(int))]


async def _windows(scorer: Scorer, chosen: Sequence[Instant]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What each looked at, as it is known now [n, f, t]."""
    rows = {asset.name: row for row, asset in enumerate(scorer.assets)}
    seen = []
    for asset, as_of in chosen:
        windows = await scorer.past(as_of, scorer.config.length)
        seen.append((windows.values[rows[asset]], windows.observed[rows[asset]]))
    values, observed = (np.stack(parts) for parts in zip(*seen, strict=True))
    return values, observed


def _strain(case: robust.Case) -> dict[str, float]:
    noise = {f"with noise of {sigma:g} deviations": robust.with_noise(case, sigma) for sigma in (0.1, 0.5)}
    dead = {f"without {name}": error for name, error in robust.without(case).items()}
    attack = {"under attack by 0.1 deviations": robust.under_attack(case, 0.1)}
    return {"as it is": robust.error(case), **noise, **attack, **dead}


async def _raised(store: Store, scorer: Scorer, flags: Sequence[Flag], span: tuple[datetime, datetime]) -> Flags:
    by_asset: defaultdict[str, list[Flag]] = defaultdict(list)
    for flag in flags:
        by_asset[flag.asset].append(flag)
    rises = [
        now
        for of_asset in by_asset.values()
        for before, now in zip([None, *of_asset[:-1]], of_asset, strict=True)
        if now.raised and not (before and before.raised)
    ]
    weeks = len(by_asset) * max((span[1] - span[0]) / _WEEK, 1e-9)
    said = await judged(store, scorer.config, flags)
    starts = {(flag.asset, flag.as_of) for flag in rises}
    false = sum((each.flag.asset, each.flag.as_of) in starts and not each.real for each in said)
    share = sum(flag.raised for flag in flags) / len(flags)
    budget = float(scorer.config.options.get("false_alarms_per_week", residuals.Options().false_alarms_per_week))
    delays = await _delays(store, scorer, by_asset, span)
    seen = [each for each in delays if each is not None]
    return Flags(
        len(flags), share, len(rises) / weeks, false / weeks if said else None, budget,
        len(delays), len(seen), sorted(seen)[len(seen) // 2] if seen else None,
    )  # fmt: skip


async def _delays(
    store: Store, scorer: Scorer, flags: Mapping[str, Sequence[Flag]], span: tuple[datetime, datetime]
) -> list[timedelta | None]:
    """From each failure of the stretch to its first flag; None: there was none."""
    found: list[timedelta | None] = []
    for asset, of_asset in flags.items():
        for label in await store.labels(asset, *span, kind=LabelKind.FAILURE):
            if not span[0] <= label.start < span[1]:
                continue
            begin, end = label.start - scorer.config.horizon, label.end or label.start
            raised = (flag.as_of for flag in of_asset if flag.raised and begin <= flag.as_of <= end)
            first = min(raised, default=None)
            found.append(None if first is None else first - label.start)
    return found
