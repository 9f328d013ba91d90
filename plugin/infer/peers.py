"""What simple baselines would have said in place of a version: they learn from the same history, up to the stretch that
is evaluated and no further, and are asked at the same instants, of which they see the newest cell without what comes
late.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from models.baselines import Column, Pca, baselines
from models.kind import TrainingData
from plugin.domain import Meaning, Micros, Prediction, micros, to_micros
from plugin.errors import TrainingDataError
from plugin.infer.config import ModelConfig
from plugin.infer.outputs import model_spec
from plugin.infer.scoring import Scorer
from plugin.infer.training import gather
from plugin.infer.truths import Proof, Truth, results
from plugin.protocols import Store

_ROWS = 20_000
"""That a baseline learns from, at most."""
_CELLS = 5_000
"""That are read at a time."""

Instant = tuple[str, datetime]
"""Asset, and the end of the window that was looked at."""


def instant_of(prediction: Prediction) -> Instant:
    """See above."""
    return prediction.tag.asset, prediction.as_of


async def history_before(scorer: Scorer, store: Store, start: datetime) -> tuple[TrainingData | None, str]:
    """What there was to learn from before the stretch, or why there is none."""
    outputs = scorer.kind.outputs(model_spec(scorer.config))
    ahead = max((cells for output in outputs for cells in output.ahead), default=0)
    try:
        data, _ = await gather(scorer.config, scorer.assets, store, start, ahead=ahead)
    except TrainingDataError as error:
        return None, f"no baselines: {error}"
    return data, ""


async def peers_of(
    scorer: Scorer, store: Store, data: TrainingData, found: Sequence[Proof], ahead: timedelta
) -> Mapping[str, Column]:
    """By name, what each says of the same."""
    config, tag = scorer.config, found[0].prediction.tag
    prompt = np.array([name not in _late(config) for name in config.inputs])
    inputs, target = _table(data, prompt, ahead // config.step)
    if tag.meaning is Meaning.LIFETIME:
        target = np.minimum(target, tag.high)
    instants = [instant_of(proof.prediction) for proof in found]
    asked = (await _asked(scorer, instants))[:, prompt]
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


async def _asked(scorer: Scorer, found: Sequence[Instant]) -> NDArray[np.float32]:
    """Of each, the newest cell that its prediction saw [n, f]; NaN where not observed."""
    step, rows = micros(scorer.config.step), {asset.name: row for row, asset in enumerate(scorer.assets)}
    asked = np.full((len(found), len(scorer.config.inputs)), np.nan, np.float32)
    ends = np.array([to_micros(as_of) for _, as_of in found])
    for first, last in _slices(ends, _CELLS * step):
        cells = int((ends[last - 1] - ends[first]) // step) + 1
        windows = await scorer.past(found[last - 1][1], cells)
        values = np.where(windows.observed, windows.values, np.float32(np.nan))
        for place in range(first, last):
            cell = cells - 1 - int((ends[last - 1] - ends[place]) // step)
            asked[place] = values[rows[found[place][0]], :, cell]
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


async def rivals(scorer: Scorer, data: TrainingData, found: Sequence[Instant], *, pca: bool) -> Mapping[str, Column]:
    """By name, how likely each holds it that something is wrong, or is about to be; of ``pca`` a score."""
    prompt = np.array([name not in _late(scorer.config) for name in scorer.config.inputs])
    inputs, target = _table(data, prompt, 0)
    asked = (await _asked(scorer, found))[:, prompt]
    chosen = (Pca(),) if pca else baselines(seed=scorer.config.seed, classes=True)
    return {peer.name: peer.fit(inputs, target)(asked) for peer in chosen}
