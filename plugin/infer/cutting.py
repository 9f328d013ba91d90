"""What is learnt from a history: cells with their targets, cut into stretches of one asset."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Asset, Grid, Policies, SampleBatch, Window, micros
from plugin.domain import Stretch as Hole
from plugin.infer.config import ModelConfig
from plugin.infer.dates import with_calendar
from plugin.infer.lives import lives
from plugin.infer.told import Told, within
from plugin.infer.windows import dense, occupied, policies


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


def cut_up(
    config: ModelConfig, asset: Asset, samples: SampleBatch, gaps: Sequence[Hole], ahead: int, told: Told
) -> list[Stretch]:
    """All of one asset; ``ahead``: how far a forecast must see [cells]."""
    tags = [asset.tags[feature].id for feature in config.features]
    if config.training.learn == "series":
        return [*_series(config, tags, samples, policies(config, [asset]), gaps, config.length + ahead)]
    step = micros(config.step)
    grid = occupied(samples, tags, step, policies(config, [asset]), gaps)
    sampled = np.isin(grid.cells // step, samples.source_time // step)
    return _CUTS[config.training.learn](_Past(config, grid, told, sampled))


@dataclass(frozen=True, slots=True, eq=False)
class _Past:
    """Of one asset."""

    config: ModelConfig
    grid: Grid
    told: Told
    sampled: NDArray[np.bool_]
    """[cell] it holds a sample."""

    @property
    def age(self) -> NDArray[np.float64]:
        """[cell]; NaN where not observed."""
        row = self.config.features.index(self.config.roles["age"])
        return np.where(self.grid.observed[row], self.grid.values[row], np.nan).astype(np.float64)

    @property
    def lives(self) -> list[slice]:
        """Cells of each completed one. Whether its end was seen is not told by an age that was held."""
        seen = np.where(self.sampled, self.age, np.nan)
        return lives(seen, self.grid.cells, micros(self.config.step), self.told)


def _runs_to_failure(past: _Past) -> list[Stretch]:
    """Completed lives, the last ``length`` cells of each; the target is what the age still grows by."""
    found, ages, length = [], past.age, past.config.length
    for run in past.lives:
        age = ages[run]
        target = (np.nanmax(age) - age).astype(np.float32)
        found.append(_cut(past.config, past.grid, slice(max(run.start, run.stop - length), run.stop), run, target))
    return found


def _laboratory(past: _Past) -> list[Stretch]:
    """Consecutive blocks of a window's length; the target is the laboratory's value at its own source time."""
    config, grid = past.config, past.grid
    row = config.features.index(config.roles["lab"])
    lab = np.where(grid.observed[row], grid.values[row], np.nan).astype(np.float32)
    everything = slice(0, len(grid.cells))
    return [_cut(config, grid, block, block, lab[block]) for block in _blocks(config, everything)]


def _labels(past: _Past) -> list[Stretch]:
    config, grid = past.config, past.grid
    return _outcomes(config, grid) if "outcome" in config.roles else _failures_to_come(config, grid, past.told)


def _outcomes(config: ModelConfig, grid: Grid) -> list[Stretch]:
    """Consecutive blocks; the target is what the role ``outcome`` found of the cell's own time, 0 or 1."""
    row = config.features.index(config.roles["outcome"])
    found = np.where(grid.observed[row], grid.values[row], np.nan).astype(np.float32)
    return [_cut(config, grid, block, block, found[block]) for block in _blocks(config, slice(0, len(found)))]


def _failures_to_come(config: ModelConfig, grid: Grid, told: Told) -> list[Stretch]:
    """Blocks between failures and work orders; the target is 1 where the next failure comes within the horizon, 0 where
    none did.

    Nobody knows of the last stretch before now, nor of what a work order may have prevented: that has no target.
    """
    if not len(told.failures):
        return []
    ends, horizon = grid.cells + micros(config.step), micros(config.horizon)
    failure = _next(told.failures, ends)
    known = np.minimum(_next(np.array([start for start, _ in told.stops], np.int64), ends), told.until)
    target = np.where(failure - ends <= horizon, 1.0, np.where(ends + horizon <= known, 0.0, np.nan))
    target[within(grid.cells, told.stops)] = np.nan
    events = [*told.failures, *(time for stop in told.stops for time in stop)]
    marks = np.unique([0, *np.searchsorted(ends, events, side="right"), len(ends)]).tolist()
    between = [slice(start, stop) for start, stop in pairwise(marks)]
    return [_cut(config, grid, block, part, target[block]) for part in between for block in _blocks(config, part)]


def _next(times: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first of ``times`` that is not before each end; the end of all time where there is none."""
    return np.append(times, np.iinfo(np.int64).max)[np.searchsorted(times, ends)]


def _normal(past: _Past) -> list[Stretch]:
    """Blocks of healthy cells (target 0): the beginning of each life, or everything where nothing ages; and windows
    that people judged, 0 where all was well, 1 where a flag was right. Neither: work orders, what led to a failure.
    """
    config, grid, told = past.config, past.grid, past.told
    target, cells = np.zeros(len(grid.cells)), grid.cells
    before = config.recent or config.window
    target[within(cells, (*told.stops, *((at - micros(before), at + 1) for at in told.failures.tolist())))] = np.nan
    target[within(cells, told.ill)] = 1.0
    target[within(cells, told.well)] = 0.0
    healthy, judged = [slice(0, len(cells))], within(cells, (*told.ill, *told.well))
    if ages := "age" in config.roles:
        share = config.training.clean
        healthy = [slice(life.start, life.start + int(share * (life.stop - life.start))) for life in past.lives]
    for part in healthy:
        judged[part] = False
    found = [
        _cut(config, grid, block, part if ages else block, target[block])
        for part in healthy
        for block in _blocks(config, part)
    ]
    return found + [
        _cut(config, grid, block, part, target[block]) for part in _pieces(judged) for block in _blocks(config, part)
    ]


def _pieces(chosen: NDArray[np.bool_]) -> list[slice]:
    """Where it is true without a break."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]))).tolist()
    return [slice(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


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


_CUTS: dict[str, Callable[[_Past], list[Stretch]]] = {
    "failures": _runs_to_failure,
    "laboratory": _laboratory,
    "normal": _normal,
    "labels": _labels,
}
MISSING = {
    "failures": "the history holds no completed run to failure yet (role age never started over; no failure label)",
    "laboratory": "the history holds no laboratory value yet",
    "normal": "the history holds no healthy stretch yet",
    "series": "the history holds no value of the role target yet",
    "labels": "the history holds neither a failure label nor a value of the role outcome yet",
}


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
