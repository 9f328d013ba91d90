"""How good a version would have been over a stretch of the past, beside what it has to be better than.

It walks forward by the live code (:mod:`plugin.infer.backtest`) and is held against what came true. Baselines learn
from the same history, up to the stretch and no further, and are asked at the same instants; of each instant they see
the newest cell, without what comes late.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import robust
from models.baselines import baselines
from models.kind import TrainingData
from plugin.domain import Flag, Meaning, Micros, ModelVersion, OutputTag, Prediction, micros, to_micros
from plugin.errors import TrainingDataError
from plugin.infer.backtest import Progress, backtest
from plugin.infer.config import ModelConfig
from plugin.infer.outputs import model_spec
from plugin.infer.registry import Registry
from plugin.infer.scoring import Scorer
from plugin.infer.training import gather
from plugin.infer.truths import Proof, Truth, judged, proofs, results
from plugin.protocols import Store

_ROWS = 20_000
"""That a baseline learns from, at most."""
_CELLS = 5_000
"""That are read at a time."""
_WINDOWS = 128
"""At which the model is put under strain."""
_WEEK = timedelta(weeks=1)

Column = NDArray[np.float64]


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
    """Of a remaining life: sum of exp(−d/13) − 1 or exp(d/10) − 1 with d = predicted − true (Saxena et al. 2008)."""


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
        errors = [{name: getattr(each, name) for name in Errors.__slots__} for each in self.errors]
        figures = {"coverage": self.coverage, "width": self.width, "strain": dict(self.strain)}
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


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Of one version over a stretch."""

    version: ModelVersion
    start: datetime
    end: datetime
    leak: bool
    """It was trained on what lies in the stretch: its errors say nothing."""
    judgements: tuple[Judgement, ...]
    flags: Flags | None
    note: str
    """Why there are no baselines; empty: there are."""

    def record(self) -> dict[str, Any]:
        """As JSON."""
        flags = None if self.flags is None else {name: getattr(self.flags, name) for name in Flags.__slots__}
        stretch = {"version": self.version.version, "start": self.start.isoformat(), "end": self.end.isoformat()}
        judged_ = [each.record() for each in self.judgements]
        return {**stretch, "leak": self.leak, "outputs": judged_, "flags": flags, "note": self.note}


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
    for proof in await proofs(store, scorer.config, scorer.assets, said):
        ahead = proof.prediction.target_time - proof.prediction.as_of - scorer.config.horizon
        by_output[proof.prediction.tag.output, ahead].append(proof)
    learnt, note = await _learnt(scorer, store, span[0])
    judgements = []
    for (_, ahead), found in sorted(by_output.items()):
        ordered = sorted(found, key=lambda proof: proof.prediction.as_of)
        peers = await _peers(scorer, store, learnt, ordered, ahead) if learnt is not None else {}
        strain = await _strained(scorer, registry, version, ordered) if not ahead else {}
        judgements.append(_judgement(ordered, ahead, peers, strain))
    trained = str(version.provenance.get("data_end", ""))
    leak = not trained or datetime.fromisoformat(trained) > span[0]
    raised = await _raised(store, scorer, flags, span) if flags else None
    return Evaluation(version, *span, leak, tuple(judgements), raised, note)


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
    phm = float(np.sum(np.expm1(np.where(error < 0, -error / 13.0, error / 10.0))))
    rmse, mae = float(np.sqrt(np.mean(error**2))), float(np.mean(np.abs(error)))
    return Errors(who, len(error), rmse, mae, r2, phm if tag.meaning is Meaning.LIFETIME else None)


# --- baselines ---


async def _learnt(scorer: Scorer, store: Store, start: datetime) -> tuple[TrainingData | None, str]:
    """What there was to learn from before the stretch, or why there is none."""
    if scorer.config.training.learn in {"normal", "labels"}:
        return None, ""
    outputs = scorer.kind.outputs(model_spec(scorer.config))
    ahead = max((cells for output in outputs for cells in output.ahead), default=0)
    try:
        data, _ = await gather(scorer.config, scorer.assets, store, start, ahead=ahead)
    except TrainingDataError as error:
        return None, f"no baselines: {error}"
    return data, ""


async def _peers(
    scorer: Scorer, store: Store, data: TrainingData, found: Sequence[Proof], ahead: timedelta
) -> Mapping[str, Column]:
    """By name, what each says of the same."""
    config, tag = scorer.config, found[0].prediction.tag
    prompt = np.array([name not in _late(config) for name in config.inputs])
    inputs, target = _table(data, prompt, ahead // config.step)
    if tag.meaning is Meaning.LIFETIME:
        target = np.minimum(target, tag.high)
    asked = (await _asked(scorer, found))[:, prompt]
    last = config.roles.get("target")
    names = [name for name, wanted in zip(config.inputs, prompt, strict=True) if wanted]
    peers = baselines(last=names.index(last) if last in names else None, seed=config.seed)
    said = {peer.name: peer.fit(inputs, target)(asked) for peer in peers}
    if found[0].truth is Truth.LABORATORY:
        said = {"last result": await _last_results(scorer, store, found), **said}
    return said


def _late(config: ModelConfig) -> set[str]:
    return {name for name, late in zip(config.features, config.late, strict=True) if late}


def _table(data: TrainingData, prompt: NDArray[np.bool_], ahead: int) -> tuple[NDArray[np.float32], Column]:
    """Inputs [n, d] of labelled cells and what was true so many cells later."""
    count = data.target.shape[1] - ahead
    row, cell = np.nonzero(np.isfinite(data.target[:, ahead:]) & data.observed[:, prompt, :count].any(1))
    if len(row) > _ROWS:
        chosen = np.sort(np.random.default_rng(0).choice(len(row), _ROWS, replace=False))
        row, cell = row[chosen], cell[chosen]
    values = np.where(data.observed[row, :, cell], data.values[row, :, cell], np.float32(np.nan))
    return values[:, prompt], data.target[row, cell + ahead].astype(np.float64)


async def _asked(scorer: Scorer, found: Sequence[Proof]) -> NDArray[np.float32]:
    """Of each, the newest cell that its prediction saw [n, f]; NaN where not observed."""
    step, rows = micros(scorer.config.step), {asset.name: row for row, asset in enumerate(scorer.assets)}
    asked = np.full((len(found), len(scorer.config.inputs)), np.nan, np.float32)
    ends = np.array([to_micros(proof.prediction.as_of) for proof in found])
    for first, last in _slices(ends, _CELLS * step):
        cells = int((ends[last - 1] - ends[first]) // step) + 1
        windows = await scorer.past(found[last - 1].prediction.as_of, cells)
        values = np.where(windows.observed, windows.values, np.float32(np.nan))
        for place in range(first, last):
            cell = cells - 1 - int((ends[last - 1] - ends[place]) // step)
            asked[place] = values[rows[found[place].prediction.tag.asset], :, cell]
    return asked


def _slices(ends: NDArray[np.int64], width: Micros) -> Iterator[tuple[int, int]]:
    first = 0
    while first < len(ends):
        last = int(np.searchsorted(ends, ends[first] + width))
        yield first, last
        first = last


async def _last_results(scorer: Scorer, store: Store, found: Sequence[Proof]) -> Column:
    """Of the laboratory, as it was known when each prediction was made."""
    told: dict[str, tuple[list[datetime], list[float]]] = {}
    start, end = found[0].prediction.as_of - timedelta(days=90), found[-1].prediction.as_of
    for asset in scorer.assets:
        tag = next(
            each for each in scorer.tags if (each.asset, each.output) == (asset.name, found[0].prediction.tag.output)
        )
        known = sorted(
            (known, value) for _, known, value in await results(store, scorer.config, asset, tag, start, end)
        )
        told[asset.name] = [each for each, _ in known], [value for _, value in known]
    said = np.full(len(found), np.nan)
    for place, proof in enumerate(found):
        times, values = told[proof.prediction.tag.asset]
        before = int(
            np.searchsorted(np.array([to_micros(t) for t in times]), to_micros(proof.prediction.as_of), "right")
        )
        said[place] = values[before - 1] if before else np.nan
    return said


# --- strain, flags ---


async def _strained(
    scorer: Scorer, registry: Registry, version: ModelVersion, found: Sequence[Proof]
) -> dict[str, float]:
    """The error on some of the windows as they are known now: as they are, with noise, without tags, under attack."""
    chosen = [found[place] for place in np.unique(np.linspace(0, len(found) - 1, _WINDOWS).astype(int))]
    rows = {asset.name: row for row, asset in enumerate(scorer.assets)}
    seen = []
    for proof in chosen:
        windows = await scorer.past(proof.prediction.as_of, scorer.config.length)
        row = rows[proof.prediction.tag.asset]
        seen.append((windows.values[row], windows.observed[row]))
    spec, params = await registry.load(version)
    values, observed = (np.stack(parts) for parts in zip(*seen, strict=True))
    truth = np.array([proof.said_at_best for proof in chosen], np.float32)
    case = robust.Case(scorer.kind, spec, params, found[0].prediction.tag.output, values, observed, truth)
    return await scorer.compute(lambda: _strain(case))


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
    return Flags(len(flags), share, len(rises) / weeks, false / weeks if said else None)
