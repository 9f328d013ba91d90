"""From the historian to a trained model: what to learn from, the fit on the device, and the row that tells of it."""

import asyncio
import logging
import math
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import adapting, light
from models.cells import scale
from models.kind import Fitted, ModelKind, Progress, TrainingData
from plugin import __version__
from plugin.domain import (
    Asset,
    Fill,
    ModelVersion,
    SampleBatch,
    from_micros,
    micros,
    to_micros,
)
from plugin.domain import Stretch as Hole
from plugin.errors import TrainingDataError
from plugin.infer.ancestors import Ancestor
from plugin.infer.cleaning import Cleaner
from plugin.infer.compute import Compute
from plugin.infer.config import ModelConfig
from plugin.infer.cutting import MISSING, Stretch, cut_up
from plugin.infer.explaining import MEANS
from plugin.infer.outputs import full_spec, model_spec
from plugin.infer.references import references_of
from plugin.infer.registry import Registry, as_json
from plugin.infer.told import told
from plugin.infer.unfinished import unfinished
from plugin.infer.windows import stretches, thinned
from plugin.protocols import Store
from plugin.slices import slices

log = logging.getLogger(__name__)

_GAPS = 100_000
"""Gaps that a history may have."""
_AT_ONCE = 2_000_000
"""Samples that are read at a time: of a year of seconds the cells of a minute leave a sixtieth."""
_LONGEST_STEP_TO_RESET = 2
"""A run counts as ended by a failure only when the cells around the reset are at most this many steps apart."""


async def train(
    config: ModelConfig,
    kind: ModelKind,
    assets: Sequence[Asset],
    store: Store,
    registry: Registry,
    compute: Compute,
    now: datetime,
    listener: Callable[[float, str], None],
    begin: Ancestor | None = None,
) -> ModelVersion:
    """Train ``config``'s model on what the historian holds and store it; the first version becomes the champion.

    ``begin``: from there, on what that version has not seen.
    Raises TrainingDataError where the historian does not hold enough, naming what is missing.
    """
    began = datetime.now(UTC)
    keep = config.training.keep
    folder = registry.unfinished(config.name) if keep else None
    with unfinished(folder, config.name, _asked(config, compute, assets, begin), now) as left:
        learnt = await _learnt(config, kind, assets, store, left.now, begin)
        if not await asyncio.to_thread(left.goes_on, learnt.data, now):
            learnt = await _learnt(config, kind, assets, store, now, begin)
            await asyncio.to_thread(left.goes_on, learnt.data, now)
        data = learnt.data
        listener(0.0, f"{len(data.values)} stretches of up to {data.values.shape[2]} cells")
        progress = left.keeping(compute.reporter(listener), keep)
        try:
            fitted = await compute.fit(_fit, config, kind, data, begin, progress)
        except ValueError as error:
            left.remove()
            raise TrainingDataError(f"model {config.name}: {error}") from error
        references = await compute.fit(references_of, config, kind, learnt.found, fitted.params)
        provenance = {**_told_of(config, assets, learnt), **_how(compute, began, begin), **left.provenance}
        version = await registry.add(config.name, model_spec(config), fitted, provenance, began, references)
        left.remove()
    return version


@dataclass(frozen=True, slots=True, eq=False)
class _Learnt:
    """What there is to learn from."""

    found: Sequence[Stretch]
    data: TrainingData
    tally: Mapping[str, int]
    """Cells, or runs, that each step of the cleaning took."""


async def _learnt(
    config: ModelConfig,
    kind: ModelKind,
    assets: Sequence[Asset],
    store: Store,
    now: datetime,
    begin: Ancestor | None,
) -> _Learnt:
    ahead = max((cells for output in kind.outputs(model_spec(config)) for cells in output.ahead), default=0)
    tally: Counter[str] = Counter()
    found = await _found(config, assets, store, now, ahead, tally, begin)
    return _Learnt(found, await _put_together(config, assets, found, tally), tally)


def _asked(config: ModelConfig, compute: Compute, assets: Sequence[Asset], begin: Ancestor | None) -> Mapping[str, Any]:
    """All that decides, besides the data, what comes of a fit, as JSON."""
    start = None if begin is None else {"sha256": begin.version.sha256, **begin.provenance}
    return {
        "spec": as_json(full_spec(config)),
        "light": [config.training.light, config.training.light_error],
        "assets": [asset.name for asset in assets],
        "from": start,
        "code": __version__,
        "device": str(compute.device),
    }


def _told_of(config: ModelConfig, assets: Sequence[Asset], learnt: _Learnt) -> Mapping[str, Any]:
    data, window = learnt.data, _span(learnt.found)
    return {
        "data_start": window[0].isoformat(),
        "data_end": window[1].isoformat(),
        "assets": [asset.name for asset in assets],
        "stretches": len(data.values),
        "labelled_cells": int(np.isfinite(data.target).sum()),
        "cleaned": dict(learnt.tally),
        MEANS: _means(config.inputs, data),
        "seed": config.seed,
        "code": __version__,
    }


def _how(compute: Compute, began: datetime, begin: Ancestor | None) -> Mapping[str, Any]:
    return {
        "python": platform.python_version(),
        "device": str(compute.device),
        "seconds": round((datetime.now(UTC) - began).total_seconds(), 3),
        **(begin.provenance if begin is not None else {}),
    }


def _fit(
    config: ModelConfig, kind: ModelKind, data: TrainingData, begin: Ancestor | None, progress: Progress
) -> Fitted:
    training = config.training
    if begin is not None:
        fitted = adapting.fit(kind, full_spec(config), begin.start, data, progress)
    else:
        fitted = light.fit(kind, full_spec(config), data, training.light, training.light_error, progress)
    threshold = fitted.metrics.get("threshold", 0.0)
    if not math.isfinite(threshold):
        raise ValueError(f"threshold = {threshold}: no score would pass it, and no flag be raised; give it other data")
    return fitted


def _means(features: Sequence[str], data: TrainingData) -> dict[str, float | None]:
    """By feature; None where it was never observed."""
    seen, mean = data.observed.sum((0, 2)), scale(data.values, data.observed)["mean"]
    return {name: float(mean[f]) if seen[f] else None for f, name in enumerate(features)}


async def gather(
    config: ModelConfig,
    assets: Sequence[Asset],
    store: Store,
    now: datetime,
    *,
    ahead: int = 0,
    tally: Counter[str] | None = None,
) -> tuple[TrainingData, tuple[datetime, datetime]]:
    """Everything to learn from, asset by asset, and the time that it spans.

    ``ahead``: how far it must see [cells]; ``tally``: takes what each step of the cleaning removed [cells, or runs].
    """
    tally = Counter() if tally is None else tally
    found = await _found(config, assets, store, now, ahead, tally)
    return await _put_together(config, assets, found, tally), _span(found)


async def targets(
    config: ModelConfig, assets: Sequence[Asset], store: Store, now: datetime
) -> Mapping[tuple[str, datetime], float]:
    """What is to be predicted, by asset and by the end of the cell; where nobody knows it is left out."""
    names = {asset.tags[config.features[0]].id: asset.name for asset in assets}
    step, known = micros(config.step), {}
    for stretch in await _found(config, assets, store, now, 0, Counter()):
        for place in np.flatnonzero(np.isfinite(stretch.target)):
            end = stretch.end - (len(stretch.target) - 1 - int(place)) * step
            known[names[stretch.group[1]], from_micros(end)] = float(stretch.target[place])
    return known


def _span(found: Sequence[Stretch]) -> tuple[datetime, datetime]:
    return from_micros(min(stretch.group[0] for stretch in found)), from_micros(found[-1].end)


async def _put_together(
    config: ModelConfig, assets: Sequence[Asset], found: Sequence[Stretch], tally: Counter[str]
) -> TrainingData:
    return Cleaner(config, assets).whole_runs(await asyncio.to_thread(_stack, found), tally)


async def _found(
    config: ModelConfig,
    assets: Sequence[Asset],
    store: Store,
    now: datetime,
    ahead: int,
    tally: Counter[str],
    begin: Ancestor | None = None,
) -> list[Stretch]:
    """In order of their ends."""
    found: list[Stretch] = []
    there = False
    for asset in assets:
        samples, gaps = await _history(config, asset, store, now)
        said = await told(config, asset.name, store, now)
        cut = await asyncio.to_thread(cut_up, config, asset, samples, gaps, ahead, said)
        there = there or bool(cut)
        cut = cut if begin is None else begin.unseen(config, asset.name, cut)
        found += await asyncio.to_thread(_cleaned, config, Cleaner(config, [asset]), cut, tally)
    found = [stretch for stretch in found if np.isfinite(stretch.target).any()]
    if not found and there and begin is not None:
        raise begin.nothing_left(config)
    if not found:
        raise TrainingDataError(f"model {config.name}: {MISSING[config.training.learn]}")
    found.sort(key=lambda stretch: stretch.end)
    return found


def _cleaned(config: ModelConfig, cleaner: Cleaner, found: Sequence[Stretch], tally: Counter[str]) -> list[Stretch]:
    """Each as a window that ends with it is cleaned live."""
    if not cleaner.on:
        return list(found)
    width, cleaned = len(config.features), []
    for stretch in found:
        told = cleaner.clean(stretch.values[None, :width], stretch.observed[None, :width])
        tally.update({step: int(cells.sum()) for step, cells in told.removed.items()})
        values = np.concatenate([told.values[0], stretch.values[width:]])
        observed = np.concatenate([told.observed[0], stretch.observed[width:]])
        cleaned.append(replace(stretch, values=values, observed=observed))
    return cleaned


async def _history(config: ModelConfig, asset: Asset, store: Store, now: datetime) -> tuple[SampleBatch, list[Hole]]:
    """Its samples, as far as cells may show them, and where some are missing."""
    tags = [asset.tags[feature].id for feature in config.features]
    since, until = now - config.training.history, to_micros(now)
    gaps = await store.gaps(since=since, limit=_GAPS)
    found = slices(store, tags, to_micros(since), until, size=_AT_ONCE)
    both_ends, step = _read_from_both_ends(config, asset), micros(config.step)
    parts = [await asyncio.to_thread(thinned, part, step, both_ends) async for part, _ in found]
    samples = SampleBatch.concatenate(parts)
    return samples.take(np.argsort(samples.tag, kind="stable")), [*stretches(gaps, [asset], until)]


def _read_from_both_ends(config: ModelConfig, asset: Asset) -> set[int]:
    """Tags of which the first sample of a cell says something of the cell before it."""
    tags = {feature: asset.tags[feature] for feature in config.features}
    target = config.roles.get("target")
    return {tag.id for feature, tag in tags.items() if tag.fill is Fill.LINEAR or feature == target}


def _stack(found: Sequence[Stretch]) -> TrainingData:
    """Padded on the right with cells that are not observed."""
    longest = max(stretch.values.shape[1] for stretch in found)
    number = {group: n for n, group in enumerate(sorted({s.group for s in found}))}

    def padded(arrays: list[NDArray[Any]], fill: float) -> NDArray[Any]:
        widths = [[(0, 0)] * (a.ndim - 1) + [(0, longest - a.shape[-1])] for a in arrays]
        return np.stack([np.pad(a, w, constant_values=fill) for a, w in zip(arrays, widths, strict=True)])

    return TrainingData(
        values=padded([s.values for s in found], 0),
        observed=padded([s.observed for s in found], 0),
        target=padded([s.target for s in found], np.nan),
        group=np.array([number[s.group] for s in found], np.int32),
    )
