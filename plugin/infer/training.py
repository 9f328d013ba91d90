"""From the historian to a trained model: what to learn from, the fit on the device, and the row that tells of it."""

import asyncio
import logging
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import light
from models.cells import scale
from models.kind import Fitted, ModelKind, Progress, TrainingData
from plugin import __version__
from plugin.domain import (
    Asset,
    Grid,
    LabelKind,
    Micros,
    ModelVersion,
    Policies,
    SampleBatch,
    Window,
    from_micros,
    micros,
    to_micros,
)
from plugin.domain import Stretch as Hole
from plugin.errors import TrainingDataError
from plugin.infer.cleaning import Cleaner
from plugin.infer.compute import Compute
from plugin.infer.config import ModelConfig
from plugin.infer.dates import with_calendar
from plugin.infer.explaining import MEANS
from plugin.infer.outputs import full_spec, model_spec
from plugin.infer.registry import Registry
from plugin.infer.windows import dense, occupied, policies, stretches
from plugin.protocols import Store

log = logging.getLogger(__name__)

_GAPS = 100_000
"""Gaps that a history may have."""
_LONGEST_STEP_TO_RESET = 2
"""A run counts as ended by a failure only when the cells around the reset are at most this many steps apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Consecutive cells of one asset, with the target of each."""

    group: tuple[int, int]
    """Start of the run or block that it belongs to [µs], and a tag of the asset: no split cuts it."""
    end: int
    """End of the last cell [µs]."""
    values: NDArray[np.float32]
    """[feature, cell]."""
    observed: NDArray[np.bool_]
    target: NDArray[np.float32]
    """[cell]; NaN: not labelled."""


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What people said of an asset."""

    failures: NDArray[np.int64]
    """When it failed [µs], ascending."""
    until: Micros
    """What lies later is not known yet."""


async def train(
    config: ModelConfig,
    kind: ModelKind,
    assets: Sequence[Asset],
    store: Store,
    registry: Registry,
    compute: Compute,
    now: datetime,
    listener: Callable[[float, str], None],
) -> ModelVersion:
    """Train ``config``'s model on what the historian holds and store it; the first version becomes the champion.

    Raises TrainingDataError where the historian does not hold enough, naming what is missing.
    """
    began = datetime.now(UTC)
    spec = model_spec(config)
    ahead = max((cells for output in kind.outputs(spec) for cells in output.ahead), default=0)
    tally: Counter[str] = Counter()
    data, window = await gather(config, assets, store, now, ahead=ahead, tally=tally)
    listener(0.0, f"{len(data.values)} stretches of up to {data.values.shape[2]} cells")
    try:
        fitted = await compute.run("train", _fit, config, kind, data, compute.reporter(listener))
    except ValueError as error:
        raise TrainingDataError(f"model {config.name}: {error}") from error
    provenance = {
        "data_start": window[0].isoformat(),
        "data_end": window[1].isoformat(),
        "assets": [asset.name for asset in assets],
        "stretches": len(data.values),
        "labelled_cells": int(np.isfinite(data.target).sum()),
        "cleaned": dict(tally),
        MEANS: _means(spec.features, data),
        "seed": config.seed,
        "code": __version__,
        "python": platform.python_version(),
        "device": str(compute.device),
        "seconds": round((datetime.now(UTC) - began).total_seconds(), 3),
    }
    return await registry.add(config.name, spec, fitted, provenance, began)


def _fit(config: ModelConfig, kind: ModelKind, data: TrainingData, progress: Progress) -> Fitted:
    training = config.training
    return light.fit(kind, full_spec(config), data, training.light, training.light_error, progress)


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
    found: list[Stretch] = []
    for asset in assets:
        samples, gaps = await _history(config, asset, store, now)
        told = await _told(config, asset, store, now)
        cut = await asyncio.to_thread(_cut_up, config, asset, samples, gaps, ahead, told)
        found += await asyncio.to_thread(_cleaned, config, Cleaner(config, [asset]), cut, tally)
    found = [stretch for stretch in found if np.isfinite(stretch.target).any()]
    if not found:
        raise TrainingDataError(f"model {config.name}: {_MISSING[config.training.learn]}")
    found.sort(key=lambda stretch: stretch.end)
    data = Cleaner(config, assets).whole_runs(await asyncio.to_thread(_stack, found), tally)
    return data, (from_micros(min(stretch.group[0] for stretch in found)), from_micros(found[-1].end))


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
    """Its samples, and where some are missing."""
    tags = [asset.tags[feature].id for feature in config.features]
    since = now - config.training.history
    gaps = await store.gaps(since=since, limit=_GAPS)
    return await store.read_samples(tags, to_micros(since), to_micros(now)), [*stretches(gaps, [asset], to_micros(now))]


async def _told(config: ModelConfig, asset: Asset, store: Store, now: datetime) -> Told:
    """As it was known ``now``."""
    since, until = now - config.training.history, to_micros(now)
    labels = await store.labels(asset.name, since, now, kind=LabelKind.FAILURE, known_by=until)
    return Told(np.unique([to_micros(label.start) for label in labels]).astype(np.int64), until)


def _cut_up(
    config: ModelConfig, asset: Asset, samples: SampleBatch, gaps: Sequence[Hole], ahead: int, told: Told
) -> list[Stretch]:
    tags = [asset.tags[feature].id for feature in config.features]
    if config.training.learn == "series":
        return [*_series(config, tags, samples, policies(config, [asset]), gaps, config.length + ahead)]
    grid = occupied(samples, tags, micros(config.step), policies(config, [asset]), gaps)
    if config.training.learn == "labels":
        return _outcomes(config, grid) if "outcome" in config.roles else _failures_to_come(config, grid, told)
    return _CUTS[config.training.learn](config, grid)


def _runs_to_failure(config: ModelConfig, grid: Grid) -> list[Stretch]:
    """Completed runs, the last ``length`` cells of each; the target is what the age still grows by."""
    found = []
    for run in _completed(config, grid):
        age = _age(config, grid)[run]
        target = (np.nanmax(age) - age).astype(np.float32)
        found.append(_cut(config, grid, slice(max(run.start, run.stop - config.length), run.stop), run, target))
    return found


def _laboratory(config: ModelConfig, grid: Grid) -> list[Stretch]:
    """Consecutive blocks of a window's length; the target is the laboratory's value at its own source time."""
    row = config.features.index(config.roles["lab"])
    lab = np.where(grid.observed[row], grid.values[row], np.nan).astype(np.float32)
    everything = slice(0, len(grid.cells))
    return [_cut(config, grid, block, block, lab[block]) for block in _blocks(config, everything)]


def _outcomes(config: ModelConfig, grid: Grid) -> list[Stretch]:
    """Consecutive blocks; the target is what the role ``outcome`` found of the cell's own time, 0 or 1."""
    row = config.features.index(config.roles["outcome"])
    found = np.where(grid.observed[row], grid.values[row], np.nan).astype(np.float32)
    return [_cut(config, grid, block, block, found[block]) for block in _blocks(config, slice(0, len(found)))]


def _failures_to_come(config: ModelConfig, grid: Grid, told: Told) -> list[Stretch]:
    """Blocks between failures; the target is 1 where the next one comes within the horizon, 0 where none did.

    The last stretch before now has no target: nobody knows yet.
    """
    if not len(told.failures):
        return []
    ends, horizon = grid.cells + micros(config.step), micros(config.horizon)
    following = np.append(told.failures, np.iinfo(np.int64).max)[np.searchsorted(told.failures, ends)]
    target = np.where(following - ends <= horizon, 1.0, np.where(ends + horizon <= told.until, 0.0, np.nan))
    marks = [0, *np.searchsorted(ends, told.failures, side="right"), len(ends)]
    between = [slice(int(start), int(stop)) for start, stop in pairwise(marks) if start < stop]
    return [_cut(config, grid, block, part, target[block]) for part in between for block in _blocks(config, part)]


def _normal(config: ModelConfig, grid: Grid) -> list[Stretch]:
    """Blocks of healthy cells (target 0): the beginning of each run to failure, or everything where nothing ages."""
    if "age" not in config.roles:
        healthy = [slice(0, len(grid.cells))]
    else:
        share = config.training.clean
        healthy = [slice(r.start, r.start + int(share * (r.stop - r.start))) for r in _completed(config, grid)]
    return [
        _cut(config, grid, block, part if "age" in config.roles else block, np.zeros(block.stop - block.start))
        for part in healthy
        for block in _blocks(config, part)
    ]


def _series(
    config: ModelConfig,
    tags: Sequence[int],
    samples: SampleBatch,
    policies: Policies,
    gaps: Sequence[Hole],
    lead: int,
) -> Iterator[Stretch]:
    """Blocks of ``lead`` cells, each led in by as many before it: whatever is said of a cell, it is seen from a whole
    window, and of no two blocks is it the target.

    Inputs are as held: a line would know of the sample that it leads to.
    """
    step, tag = micros(config.step), tags[config.features.index(config.roles["target"])]
    cells = np.unique(samples.source_time[samples.tag == tag] // step)
    for part in np.split(cells, np.flatnonzero(np.diff(cells) > lead) + 1) if len(cells) else ():
        window = Window(tuple(tags), int(part[0]) * step, step, int(part[-1] - part[0]) + 1, policies, tuple(gaps))
        grid = dense(samples, window)
        truth = _when_cells_end(tag, samples, window)
        for end in range(window.length, 0, -lead):
            own, block = max(0, end - lead), slice(max(0, end - 2 * lead), end)
            target = truth[block].copy()
            target[: own - block.start] = np.nan
            values, observed = with_calendar(config, grid.cells[block], grid.held[:, block], grid.observed[:, block])
            yield Stretch((int(grid.cells[own]), grid.tags[0]), window.start + end * step, values, observed, target)


def _when_cells_end(tag: int, samples: SampleBatch, window: Window) -> NDArray[np.float32]:
    """[cell] a tag's value at the end of each cell; NaN: not observed. A sample of that very moment is the next cell's
    first to see, and yet what the forecast of that moment has to meet."""
    mine = samples.take(samples.tag == tag)
    ends = dense(replace(mine, source_time=mine.source_time - 1), window.take(np.array(window.tags) == tag))
    return np.where(ends.observed[0], ends.held[0], np.float32(np.nan))


_CUTS: dict[str, Callable[[ModelConfig, Grid], list[Stretch]]] = {
    "failures": _runs_to_failure,
    "laboratory": _laboratory,
    "normal": _normal,
}
_MISSING = {
    "failures": "the history holds no completed run to failure yet (the role age never started over)",
    "laboratory": "the history holds no laboratory value yet",
    "normal": "the history holds no healthy stretch yet",
    "series": "the history holds no value of the role target yet",
    "labels": "the history holds neither a failure label nor a value of the role outcome yet",
}


def _age(config: ModelConfig, grid: Grid) -> NDArray[np.float64]:
    """[cell]; NaN where not observed."""
    row = config.features.index(config.roles["age"])
    return np.where(grid.observed[row], grid.values[row], np.nan).astype(np.float64)


def _completed(config: ModelConfig, grid: Grid) -> list[slice]:
    """Runs from a reset of the age to the next, begun at the youngest age and seen up to the reset that ends them."""
    age = _age(config, grid)
    seen = np.flatnonzero(np.isfinite(age))
    resets = np.flatnonzero(np.diff(age[seen]) < 0) + 1
    if not len(resets):
        return []
    begins = np.array([0, *resets])
    young = age[seen[begins]] <= age[seen[resets]].min()
    near = np.diff(grid.cells[seen])[resets - 1] <= _LONGEST_STEP_TO_RESET * micros(config.step)
    return [
        slice(int(seen[begin]), int(seen[end - 1]) + 1)
        for (begin, end), whole in zip(pairwise(begins), young[:-1] & young[1:] & near, strict=True)
        if whole
    ]


def _blocks(config: ModelConfig, part: slice) -> list[slice]:
    """Consecutive blocks of a window's length, counted from the end so that only the oldest is short."""
    ends = range(part.stop, part.start, -config.length)
    return [slice(max(part.start, end - config.length), end) for end in ends]


def _cut(config: ModelConfig, grid: Grid, cells: slice, group: slice, target: NDArray[Any]) -> Stretch:
    """``target`` may be longer than ``cells``: its end counts."""
    values, observed = with_calendar(config, grid.cells[cells], _as_it_ended(grid, cells), grid.observed[:, cells])
    return Stretch(
        group=(int(grid.cells[group.start]), grid.tags[0]),
        end=int(grid.cells[cells.stop - 1]) + micros(config.step),
        values=values,
        observed=observed,
        target=target[-(cells.stop - cells.start) :].astype(np.float32),
    )


def _as_it_ended(grid: Grid, cells: slice) -> NDArray[np.float32]:
    """[feature, cell]; what lies on a line to a sample after the last cell is held, as it was seen at the time."""
    values, held = grid.values[:, cells], grid.held[:, cells]
    to_come = np.logical_and.accumulate((values != held)[:, ::-1], axis=1)[:, ::-1]
    return np.where(to_come, held, values)


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
