"""One scoring run: windows of all assets → one jitted call → predictions with status → flags.

Live, replay and backtest call :meth:`Scorer.score`; they differ in the clock alone.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from models.kind import ModelKind
from models.runtime import Numbers, Predictor
from plugin.diagnostics import Diagnostics
from plugin.domain import (
    Asset,
    Flag,
    Micros,
    ModelVersion,
    Outcome,
    OutputTag,
    Prediction,
    Run,
    SampleBatch,
    Status,
    from_micros,
    to_micros,
)
from plugin.infer.compute import Compute
from plugin.infer.config import ModelConfig
from plugin.infer.flags import Decision
from plugin.infer.outputs import input_status, model_spec, output_tag, predictions
from plugin.infer.registry import Registry
from plugin.infer.windows import Grid, Stretch, dense, holds, micros, stretches, unheard
from plugin.protocols import Store

log = logging.getLogger(__name__)

_GAPS = 100_000
"""Gaps that one window may touch."""


@dataclass(frozen=True, slots=True)
class Champion:
    """The version in force, ready to predict."""

    version: ModelVersion
    predictor: Predictor


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


class Scorer:
    """One model over all its assets."""

    def __init__(
        self,
        config: ModelConfig,
        kind: ModelKind,
        assets: Sequence[Asset],
        store: Store,
        registry: Registry,
        compute: Compute,
        diagnostics: Diagnostics,
        away: Callable[[str], Micros | None] = lambda source: None,
    ) -> None:
        self.config = config
        self.kind = kind
        self.assets = tuple(assets)
        self._store = store
        self._registry = registry
        self._compute = compute
        self._diagnostics = diagnostics
        self._away = away
        self._champion: Champion | None = None
        self._refreshing = asyncio.Lock()
        self._decisions: dict[str, Decision] = {}
        self._tag_ids = [asset.tags[feature].id for asset in self.assets for feature in config.features]
        self._prompt = ~np.array(config.late)
        self._hold = np.tile(holds(config), len(self.assets))
        self._spec = model_spec(config)
        outputs = kind.outputs(self._spec)
        self._tags = {spec.name: [output_tag(config, asset, spec) for asset in self.assets] for spec in outputs}
        self._flag = next((spec.name for spec in outputs if spec.flag), None)

    @property
    def tags(self) -> tuple[OutputTag, ...]:
        """Every tag from the future that this model gives."""
        return tuple(tag for of_assets in self._tags.values() for tag in of_assets)

    async def refresh(self) -> Champion | None:
        """Take up the version in force; a new one is loaded and compiled, and has effect from this run on."""
        async with self._refreshing:
            version = await self._registry.champion(self.config.name, self._spec)
            if version is None:
                self._champion = None
            elif self._champion is None or self._champion.version.version != version.version:
                self._champion = await self._take_up(version)
            return self._champion

    async def score(
        self, run: Run, end: datetime, *, known_by: Micros | None = None, received_by: Micros | None = None
    ) -> Outcome | None:
        """Predictions of every asset for the window that ends at ``end``; None while there is no model.

        ``known_by`` and ``received_by`` as in :meth:`plugin.protocols.Store.read_samples`.
        """
        champion = self._champion or await self.refresh()  # a scheduled run has refreshed just before
        if champion is None:
            return None
        begin = time.perf_counter()
        away = self._sources_away()
        windows = await self._windows(end, known_by, received_by, away)
        between = time.perf_counter()
        estimates = await self._predict(champion.predictor, windows)
        run = replace(
            run,
            version=champion.version.version,
            assets=len(self.assets),
            stages={"window": between - begin, "infer": time.perf_counter() - between},
        )
        numbers = {name: tags for name, tags in self._tags.items() if name != self._flag}
        inputs = self._input_statuses(windows, away)
        given = tuple(predictions(self.config, run, end, numbers, inputs, windows.coverage.tolist(), estimates))
        flags = await self._decide(champion.version, run, given)
        return Outcome(run, given, flags)

    async def _take_up(self, version: ModelVersion) -> Champion:
        spec, params = await self._registry.load(version)
        predictor = await self._compute.run("infer", Predictor, self.kind, spec, params, self._compute.device)
        await self._compute.run("infer", predictor.warm, len(self.assets))
        self._diagnostics.compilations.labels(self.config.name).inc(predictor.compilations)
        self._decisions = {}
        log.info("model %s is in force for %d assets", version.label, len(self.assets))
        return Champion(version, predictor)

    async def _predict(self, predictor: Predictor, windows: Windows) -> Mapping[str, Numbers]:
        before = predictor.compilations
        estimates = await self._compute.run("infer", predictor.predict, windows.values, windows.observed)
        self._diagnostics.compilations.labels(self.config.name).inc(predictor.compilations - before)
        return estimates

    def cut_off(self, away: frozenset[str]) -> Iterator[OutputTag]:
        """The outputs that draw on one of these sources."""
        assets = {asset.name for asset in self.assets if not self._reach(asset).isdisjoint(away)}
        return (tag for tag in self.tags if tag.asset in assets)

    def _reach(self, asset: Asset) -> set[str]:
        return {asset.tags[feature].source for feature in self.config.features}

    def _sources_away(self) -> dict[str, Micros]:
        """Those that this model draws on and that are away, each with its last word."""
        sources = {source for asset in self.assets for source in self._reach(asset)}
        return {source: since for source in sources if (since := self._away(source)) is not None}

    async def _windows(
        self, end: datetime, known_by: Micros | None, received_by: Micros | None, away: Mapping[str, Micros]
    ) -> Windows:
        step = micros(self.config.step)
        start = to_micros(end) - self.config.length * step
        samples = await self._store.read_samples(
            sorted(set(self._tag_ids)),
            start - int(self._hold.max()),
            to_micros(end),
            known_by=known_by,
            received_by=received_by,
        )
        gaps = await self._store.gaps(since=from_micros(start), limit=_GAPS)
        holes = [*stretches(gaps, self.assets, to_micros(end)), *unheard(away, self.assets, to_micros(end))]
        # In the device's thread: on the event loop, a big window would hold up acquisition.
        return await self._compute.run("window", self._look, samples, start, step, holes)

    def _look(self, samples: SampleBatch, start: Micros, step: Micros, holes: Sequence[Stretch]) -> Windows:
        return self._split(dense(samples, self._tag_ids, start, step, self.config.length, self._hold, holes))

    def _split(self, grid: Grid) -> Windows:
        shape = (len(self.assets), len(self.config.features), self.config.length)
        observed, good = grid.observed.reshape(shape), grid.good.reshape(shape)
        recent = observed[:, self._prompt, -self.config.recent_cells :]
        return Windows(
            values=grid.values.reshape(shape),
            observed=observed,
            coverage=recent.mean(axis=(1, 2)),
            complete=np.all(good[:, self._prompt, -1], axis=1),
        )

    def _input_statuses(self, windows: Windows, away: Mapping[str, Micros]) -> list[Status]:
        return [
            input_status(
                connected=self._reach(asset).isdisjoint(away),
                complete=bool(windows.complete[row]),
                coverage=float(windows.coverage[row]),
                required=self.config.required,
            )
            for row, asset in enumerate(self.assets)
        ]

    async def _decide(self, version: ModelVersion, run: Run, given: Sequence[Prediction]) -> tuple[Flag, ...]:
        threshold = version.metrics.get("threshold")
        if self._flag is None or threshold is None:
            return ()
        scores = [prediction for prediction in given if prediction.tag.output == "score"]
        if not self._decisions:
            self._decisions = await self._past_decisions(float(threshold), version, scores[0].as_of)
        return tuple(
            Flag(
                model=self.config.name,
                asset=score.tag.asset,
                version=run.version,
                as_of=score.as_of,
                raised=self._decisions[score.tag.asset].decide(score.value),
                score=score.value,
                threshold=float(threshold),
                status=score.status,
                run=run.id,
            )
            for score in scores
            if score.value is not None
        )

    async def _past_decisions(self, threshold: float, version: ModelVersion, now: datetime) -> dict[str, Decision]:
        reach = 10 * self.config.persistence * self.config.schedule.every
        past = [f for f in await self._store.flags(now - reach, now) if f.model == version.model]
        return {
            asset.name: Decision(threshold, self.config.persistence, [f for f in past if f.asset == asset.name])
            for asset in self.assets
        }
