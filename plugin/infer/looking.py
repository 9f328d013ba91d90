"""What a model sees: windows of all its assets, cleaned, with what could not be seen; and the status that follows."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from models.cleaning import Mask
from models.references import Ranges
from plugin.diagnostics import Diagnostics
from plugin.domain import Asset, Grid, Micros, Run, Status, Window, from_micros, micros, to_micros
from plugin.infer.cleaning import Cleaner
from plugin.infer.config import ModelConfig
from plugin.infer.dates import with_calendar
from plugin.infer.far_off import Far
from plugin.infer.outputs import input_status
from plugin.infer.sight import Sight
from plugin.infer.windows import policies, stretches, unheard

_GAPS = 100_000
"""Gaps that one window may touch."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """What a model sees of all its assets at one instant."""

    values: NDArray[np.float32]
    """[asset, feature, cell]."""
    observed: NDArray[np.bool_]
    """[asset, feature, cell]."""
    coverage: NDArray[np.float64]
    """[asset] share of the recent cells that were observed, late roles left out."""
    complete: NDArray[np.bool_]
    """[asset] whether the newest cell holds a Good value of every feature, late roles left out."""
    removed: Mapping[str, Mask]
    """[asset, feature, cell] of the cells that each step of the cleaning took."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one run saw."""

    run: Run
    end: datetime
    windows: Windows
    seconds: float
    """That it took."""


class Looking:
    """The assets of one model, looked at."""

    def __init__(
        self, config: ModelConfig, assets: Sequence[Asset], store: Sight, away: Callable[[str], Micros | None]
    ) -> None:
        """``away``: last word of a source that is away [µs]."""
        self._config = config
        self._assets = assets
        self._store = store
        self._away = away
        self._tag_ids = tuple(asset.tags[feature].id for asset in assets for feature in config.features)
        self._prompt = ~np.array(config.late)
        self._policies = policies(config, assets)
        self._cleaner = Cleaner(config, assets)

    async def look(self, run: Run, end: datetime, known_by: Micros | None = None) -> Look:
        """What a run sees of the window up to ``end``; ``known_by`` as for :meth:`plugin.protocols.Store.grid`."""
        begin = time.perf_counter()
        windows = await self.windows(run, end, known_by)
        return Look(run, end, windows, time.perf_counter() - begin)

    def count(self, look: Look, diagnostics: Diagnostics) -> None:
        """What the cleaning took moves its counters."""
        self._cleaner.count(look.windows.removed, diagnostics)

    def cut_off(self, away: frozenset[str]) -> set[str]:
        """Names of the assets that draw on one of these sources."""
        return {asset.name for asset in self._assets if not self._reach(asset).isdisjoint(away)}

    def _reach(self, asset: Asset) -> set[str]:
        return {asset.tags[feature].source for feature in self._config.features}

    def sources_away(self) -> dict[str, Micros]:
        """Those that this model draws on and that are away, each with its last word."""
        sources = {source for asset in self._assets for source in self._reach(asset)}
        return {source: since for source in sources if (since := self._away(source)) is not None}

    async def windows(self, run: Run, end: datetime, known_by: Micros | None, length: int = 0) -> Windows:
        """Of so many cells; 0: of a whole window."""
        step, length = micros(self._config.step), length or self._config.length
        start = to_micros(end) - length * step
        begun = None if run.started is None else to_micros(run.started)
        # One that ended before the window keeps what came before it from being held into the window.
        since = from_micros(start - int(self._policies.hold.max()))
        gaps = await self._store.gaps(since=since, known_by=begun, limit=_GAPS)
        holes = (*stretches(gaps, self._assets, to_micros(end)), *unheard(run.unheard, self._assets, to_micros(end)))
        window = Window(self._tag_ids, start, step, length, self._policies, holes)
        grid = await self._store.grid(window, known_by=known_by, received_by=begun)
        return await asyncio.to_thread(self._split, grid) if self._cleaner.on else self._split(grid)

    def _split(self, grid: Grid) -> Windows:
        shape = (len(self._assets), len(self._config.features), len(grid.cells))
        found = self._cleaner.clean(grid.values.reshape(shape), grid.observed.reshape(shape))
        good = grid.good.reshape(shape) & found.observed
        recent = found.observed[:, self._prompt, -self._config.recent_cells :]
        values, observed = with_calendar(self._config, grid.cells, found.values, found.observed)
        return Windows(
            values=values,
            observed=observed,
            coverage=recent.mean(axis=(1, 2)),
            complete=np.all(good[:, self._prompt, -1], axis=1),
            removed=found.removed,
        )

    async def _doubtful(self, run: Run) -> set[str]:
        """Assets that the version did not fit, as was known when the run was begun."""
        if not self._config.monitor or run.started is None:
            return set()
        drifts = await self._store.drifts(model=run.model, since=run.started)
        known = (drift for drift in drifts if drift.version == run.version and drift.noticed <= run.started)
        return {drift.asset for drift in known if drift.doubtful}

    def far(self, windows: Windows, ranges: Ranges) -> Far:
        """Of the recent cells."""
        recent = np.s_[..., -self._config.recent_cells :]
        return windows.observed[recent] & ranges.beyond(windows.values[recent])

    async def statuses(self, windows: Windows, run: Run, far: Far) -> list[Status]:
        """The best status of each asset that its inputs allow, and the version's fit to them: a value that is far off
        counts here as one that was not observed."""
        far_off = np.any(far[..., -1], axis=1).tolist()
        doubtful = await self._doubtful(run)
        coverage = windows.coverage - far[:, : len(self._prompt)][:, self._prompt].mean(axis=(1, 2))
        return [
            input_status(
                connected=self._reach(asset).isdisjoint(run.unheard),
                complete=bool(windows.complete[row]) and not far_off[row] and asset.name not in doubtful,
                coverage=float(coverage[row]),
                required=self._config.required,
            )
            for row, asset in enumerate(self._assets)
        ]
