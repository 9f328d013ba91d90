"""One scoring run: windows of all assets → one jitted call → predictions with status → flags.

Live, replay and backtest call :meth:`Scorer.score`; they differ in the clock alone.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.kind import ModelKind
from models.runtime import Numbers, Predictor
from plugin.diagnostics import Diagnostics
from plugin.domain import (
    Asset,
    Flag,
    Gap,
    Grid,
    Meaning,
    Micros,
    ModelVersion,
    Outcome,
    OutputTag,
    Prediction,
    Run,
    Status,
    Window,
    from_micros,
    micros,
    to_micros,
)
from plugin.infer.compute import Compute
from plugin.infer.config import ModelConfig
from plugin.infer.flags import Decision
from plugin.infer.outputs import input_status, model_spec, output_tag, predictions
from plugin.infer.registry import Registry
from plugin.infer.windows import policies, stretches, unheard, whole_steps

log = logging.getLogger(__name__)

_GAPS = 100_000
"""Gaps that one window may touch."""


class Sight(Protocol):
    """What a scorer looks at: of a :class:`plugin.protocols.Store` this much."""

    async def grid(self, window: Window, *, known_by: Micros | None = None, received_by: Micros | None = None) -> Grid:
        """As there."""

    async def gaps(self, *, since: datetime | None, known_by: Micros | None, limit: int) -> tuple[Gap, ...]:
        """As there."""

    async def flags(self, start: datetime, end: datetime) -> tuple[Flag, ...]:
        """As there."""


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
        store: Sight,
        registry: Registry,
        compute: Compute,
        diagnostics: Diagnostics,
        away: Callable[[str], Micros | None] = lambda source: None,
        only: ModelVersion | None = None,
    ) -> None:
        """``away``: last word of a source that is away [µs]. ``only``: score by this version, whichever is in force."""
        self.config = config
        self.kind = kind
        self.assets = tuple(assets)
        self._store = store
        self._registry = registry
        self._compute = compute
        self._diagnostics = diagnostics
        self._away = away
        self._only = only
        self._champion: Champion | None = None
        self._refreshing = asyncio.Lock()
        self._decisions: dict[str, Decision] = {}
        self._tag_ids = tuple(asset.tags[feature].id for asset in self.assets for feature in config.features)
        self._prompt = ~np.array(config.late)
        self._policies = policies(config, self.assets)
        self._spec = model_spec(config)
        outputs = kind.outputs(self._spec)
        self._tags = {spec.name: [output_tag(config, asset, spec) for asset in self.assets] for spec in outputs}
        self._flag = next((spec.name for spec in outputs if spec.meaning is Meaning.FLAG), None)

    @property
    def tags(self) -> tuple[OutputTag, ...]:
        """Every tag from the future that this model gives."""
        return tuple(tag for of_assets in self._tags.values() for tag in of_assets)

    async def refresh(self) -> Champion | None:
        """Take up the version in force; a new one is loaded and compiled, and has effect from this run on."""
        async with self._refreshing:
            version = self._only or await self._registry.champion(self.config.name, self._spec)
            if version is None:
                self._champion = None
            elif self._champion is None or self._champion.version.version != version.version:
                self._champion = await self._take_up(version)
            return self._champion

    def by(self, version: ModelVersion, store: Sight) -> "Scorer":
        """The same model over the same assets by this version alone, none of whose sources is away."""
        return Scorer(
            self.config, self.kind, self.assets, store, self._registry, self._compute, self._diagnostics, only=version
        )

    async def score(self, run: Run, end: datetime, *, known_by: Micros | None = None) -> Outcome | None:
        """Predictions of every asset for the window up to ``end``; None while there is no model.

        The window ends with the last whole step that is not after ``end``, and so does what is said of it (``as_of``).

        It looks at what the store had when the run was begun (``started``; None: at all that there is); ``known_by`` as
        in :meth:`plugin.protocols.Store.read_samples`. What else it could not see is in the outcome's run.
        """
        end = whole_steps(self.config, end)
        champion = self._champion or await self.refresh()  # a scheduled run has refreshed just before
        if champion is None:
            return None
        run, given = await self._estimate(champion, replace(run, unheard=self._sources_away()), end, known_by)
        if not self._decisions:
            self._decisions = await self._past_decisions(champion.version, end)
        return Outcome(run, given, self._decide(champion.version, given, self._decisions))

    async def again(self, run: Run, end: datetime) -> Outcome:
        """What a stored run gave as of ``end``, computed again from what it could see.

        By the version that it names, whichever is in force now. Raises ModelError where that is not to be had.
        """
        champion = self._champion
        if champion is None or champion.version.version != run.version:
            champion = await self._load(await self._registry.version(run.model, run.version))
        run, given = await self._estimate(champion, run, end, None)
        decisions = await self._past_decisions(champion.version, end)
        return Outcome(run, given, self._decide(champion.version, given, decisions))

    async def _estimate(
        self, champion: Champion, run: Run, end: datetime, known_by: Micros | None
    ) -> tuple[Run, tuple[Prediction, ...]]:
        begin = time.perf_counter()
        windows = await self._windows(run, end, known_by)
        between = time.perf_counter()
        estimates = await self._predict(champion.predictor, windows)
        run = replace(
            run,
            version=champion.version.version,
            assets=len(self.assets),
            stages={"window": between - begin, "infer": time.perf_counter() - between},
        )
        numbers = {name: tags for name, tags in self._tags.items() if name != self._flag}
        inputs = self._input_statuses(windows, run.unheard)
        return run, tuple(predictions(self.config, run, end, numbers, inputs, windows.coverage.tolist(), estimates))

    async def _take_up(self, version: ModelVersion) -> Champion:
        champion = await self._load(version)
        self._decisions = {}
        log.info("model %s is in force for %d assets", version.label, len(self.assets))
        return champion

    async def _load(self, version: ModelVersion) -> Champion:
        spec, params = await self._registry.load(version)
        predictor = await self._compute.run("infer", Predictor, self.kind, spec, params, self._compute.device)
        await self._compute.run("infer", predictor.warm, len(self.assets))
        self._diagnostics.compilations.labels(self.config.name).inc(predictor.compilations)
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

    async def _windows(self, run: Run, end: datetime, known_by: Micros | None) -> Windows:
        step = micros(self.config.step)
        start = to_micros(end) - self.config.length * step
        begun = None if run.started is None else to_micros(run.started)
        # One that ended before the window keeps what came before it from being held into the window.
        since = from_micros(start - int(self._policies.hold.max()))
        gaps = await self._store.gaps(since=since, known_by=begun, limit=_GAPS)
        holes = (*stretches(gaps, self.assets, to_micros(end)), *unheard(run.unheard, self.assets, to_micros(end)))
        window = Window(self._tag_ids, start, step, self.config.length, self._policies, holes)
        return self._split(await self._store.grid(window, known_by=known_by, received_by=begun))

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

    def _decide(
        self, version: ModelVersion, given: Sequence[Prediction], decisions: Mapping[str, Decision]
    ) -> tuple[Flag, ...]:
        return tuple(
            Flag(
                model=self.config.name,
                asset=score.tag.asset,
                version=version.version,
                as_of=score.as_of,
                raised=decisions[score.tag.asset].decide(score.value),
                score=score.value,
                threshold=decisions[score.tag.asset].threshold,
                status=score.status,
                run=score.run,
            )
            for score in given
            if decisions and score.tag.output == "score" and score.value is not None
        )

    async def _past_decisions(self, version: ModelVersion, now: datetime) -> dict[str, Decision]:
        """By asset; none where the model gives no flags."""
        threshold = version.metrics.get("threshold")
        if self._flag is None or threshold is None:
            return {}
        reach = 10 * self.config.persistence * self.config.schedule.every
        past = [f for f in await self._store.flags(now - reach, now) if f.model == version.model]
        return {
            asset.name: Decision(float(threshold), self.config.persistence, [f for f in past if f.asset == asset.name])
            for asset in self.assets
        }
