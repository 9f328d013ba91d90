"""What the running service looks like at this moment: fed with commits and outcomes, asked for a snapshot by a view."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np

from plugin.diagnostics import STATES, Diagnostics
from plugin.domain import (
    Asset,
    Flag,
    Outage,
    Outcome,
    OutputTag,
    Prediction,
    Quality,
    RunKind,
    RunResult,
    SampleBatch,
    Standing,
    Status,
    from_micros,
    quality,
)
from plugin.errors import StoreError
from plugin.hmi.snapshot import AssetLine, ModelLine, Reading, Snapshot, SourceLine, Totals, TrainingLine
from plugin.hmi.words import few
from plugin.infer.config import ModelConfig
from plugin.protocols import Health, Source, Store

_RATE_SPAN = timedelta(seconds=10)
_WATCH_EVERY = 1.0
_MONTH = 30 * 86_400.0


class Overview:
    """A sink (see :class:`plugin.protocols.Sink`) that keeps the newest of everything, in memory."""

    name = "overview"

    def __init__(
        self,
        sources: Sequence[Source],
        assets: Sequence[Asset],
        models: Sequence[ModelConfig],
        diagnostics: Diagnostics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._sources = sources
        self._models = models
        self._diagnostics = diagnostics
        self._clock = clock
        self._started = clock()
        self._newest = np.zeros(0, np.int64)
        self._value = np.zeros(0)
        self.change(assets)
        self._outcomes: dict[str, Outcome] = {}
        self._cut_off: frozenset[str] = frozenset()
        self._trainings: dict[str, TrainingLine] = {}
        self._stored: list[tuple[datetime, float]] = [(self._started, 0.0)]
        self._facts: dict[str, dict[str, str]] = {}
        self.gaps_open = 0
        """As the store last said."""

    def open(self, tags: Sequence[OutputTag]) -> AbstractAsyncContextManager[None]:
        """Nothing to make ready."""
        return nullcontext()

    async def extend(self, tags: Sequence[OutputTag]) -> None:
        """Nothing to make ready."""

    def change(self, assets: Sequence[Asset]) -> None:
        """These assets from now on."""
        self._assets = assets
        size = 1 + max((tag.id for asset in assets for tag in asset.tags.values()), default=0)
        more = max(0, size - len(self._newest))
        self._newest = np.append(self._newest, np.zeros(more, np.int64))
        self._value = np.append(self._value, np.full(more, np.nan))

    async def publish(self, outcome: Outcome) -> None:
        """Keep the newest outcome of each model."""
        self._outcomes[outcome.run.model] = outcome

    async def degrade(self, outage: Outage) -> None:
        """What draws on a source that is away is shown in doubt."""
        self._cut_off = outage.outputs

    async def inform(self, standings: Sequence[Standing]) -> None:
        """What the store tells is enough here."""

    async def watch(self, store: Store) -> None:
        """For ever: what nobody tells, and is asked for: the sources' health, and the store for its open gaps."""
        while True:
            for source in self._sources:
                self._measure(source.name, source.health())
            with suppress(StoreError):
                self.gaps_open = await store.open_gaps()
                self._diagnostics.gaps_open.set(self.gaps_open)
            await asyncio.sleep(_WATCH_EVERY)

    def _measure(self, name: str, health: Health) -> None:
        metrics = self._diagnostics
        metrics.connected.labels(name).set(health.connected)
        metrics.away.labels(name).set(health.away_since is not None)
        metrics.heard.labels(name).set(health.heard / 1e6)
        metrics.tags.labels(name).set(health.tags)
        metrics.tags_monitored.labels(name).set(health.monitored)
        if health.ahead is not None:
            metrics.ahead.labels(name).set(health.ahead / 1e6)
        if health.service_level is not None:
            metrics.service_level.labels(name).set(health.service_level)
        facts = {"state": health.state, "trouble": health.trouble} | {
            kind: few(names) for kind, names in
            (("silent", health.silent), ("late", health.late), ("flat", health.flat))
        }  # fmt: skip
        if self._facts.get(name) != facts:
            self._facts[name] = facts
            metrics.source_info.labels(name).info(facts)

    def committed(self, samples: SampleBatch) -> None:
        """Samples that are in the database now."""
        known = samples.take(samples.tag < len(self._newest))
        order = np.argsort(known.source_time, kind="stable")
        tag, time = known.tag[order], known.source_time[order]
        newer = time >= self._newest[tag]
        self._value[tag[newer]] = known.value[order][newer]
        np.maximum.at(self._newest, tag, time)

    def training(self, model: str, share: float | None, message: str = "") -> None:
        """How far a training is; None: it ended."""
        if share is None:
            self._trainings.pop(model, None)
        else:
            self._trainings[model] = TrainingLine(model, share, message)

    def snapshot(self) -> Snapshot:
        """The picture of this moment."""
        now = self._clock()
        by_asset: dict[str, list[Prediction]] = {}
        for prediction in (p for outcome in self._outcomes.values() for p in outcome.predictions):
            by_asset.setdefault(prediction.tag.asset, []).append(self._as_seen(prediction, now))
        flags = {flag.asset: flag for outcome in reversed(self._outcomes.values()) for flag in outcome.flags}
        return Snapshot(
            uptime=now - self._started,
            sources=tuple(_source_line(source) for source in self._sources),
            trainings=tuple(self._trainings.values()),
            assets=tuple(
                self._asset_line(asset, by_asset.get(asset.name, ()), flags.get(asset.name), now)
                for asset in self._assets
            ),
            models=tuple(self._model_line(model, now) for model in self._models),
            totals=self._totals(now),
        )

    def _as_seen(self, prediction: Prediction, now: datetime) -> Prediction:
        """With the status that its node shows too."""
        if quality(prediction.status) is Quality.BAD:
            return prediction
        if prediction.valid_until < now:
            return replace(prediction, status=Status.UNCERTAIN_LAST_USABLE_VALUE)
        if prediction.tag.name in self._cut_off:
            return replace(prediction, status=Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE)
        return prediction

    def _asset_line(
        self, asset: Asset, predictions: Sequence[Prediction], flag: Flag | None, now: datetime
    ) -> AssetLine:
        newest = int(max((self._newest[tag.id] for tag in asset.tags.values()), default=0))
        outputs = {prediction.tag.output: prediction for prediction in predictions}
        score = outputs.get("score")
        soft = next((m for m in self._models if "lab" in m.roles and m.roles["lab"] in asset.tags), None)
        inferred = next((p for p in predictions if soft and p.tag.model == soft.name), None)
        lab = asset.tags[soft.roles["lab"]] if soft else None
        lab_time = int(self._newest[lab.id]) if lab else 0
        health = outputs.get("health")
        return AssetLine(
            name=asset.name,
            status=max((p.status for p in predictions), default=int(Status.BAD_WAITING_FOR_INITIAL_DATA), key=quality),
            data_age=now - from_micros(newest) if newest else None,
            rul=_reading(outputs.get("rul")),
            health=_reading(health, scale=0.01) if health else None,
            flag=flag.raised if flag else None,
            score=score.value if score else None,
            threshold=flag.threshold if flag else None,
            quality=_reading(inferred),
            quality_name=inferred.tag.output if inferred else "",
            lab=float(self._value[lab.id]) if lab and lab_time else None,
            lab_age=timedelta(microseconds=newest - lab_time) if lab_time else None,
        )

    def _model_line(self, model: ModelConfig, now: datetime) -> ModelLine:
        outcome = self._outcomes.get(model.name)
        finished = outcome.run.finished if outcome else None
        runs = partial(self._diagnostics.runs_so_far, model.name, RunKind.SCORE)
        return ModelLine(
            name=model.name,
            version=outcome.run.version if outcome else 0,
            since_run=now - finished if finished else None,
            assets=outcome.run.assets if outcome else 0,
            inference=timedelta(seconds=outcome.run.stages["infer"]) if outcome else None,
            missed=runs(RunResult.MISSED),
            failed=runs(RunResult.FAILED),
        )

    def _totals(self, now: datetime) -> Totals:
        stored = self._diagnostics.total("samples_stored_total")
        recent = [(t, n) for t, n in self._stored if now - t <= _RATE_SPAN]
        self._stored = [*(recent or self._stored[-1:]), (now, stored)]
        (then, before), span = self._stored[0], now - self._stored[0][0]
        full = self._diagnostics.value("disk_full_seconds")  # NaN where it is not known
        return Totals(
            samples_stored=int(stored),
            samples_per_second=(stored - before) / span.total_seconds() if then < now else 0.0,
            gaps_open=self.gaps_open,
            dropped=int(self._diagnostics.total("samples_dropped_total")),
            loop_lag_p99=self._diagnostics.lag_p99(),
            storing=next((s for s in STATES if self._diagnostics.value("historian", state=s)), STATES[0]),
            spilled=int(self._diagnostics.value("spill_samples")),
            disk_full=timedelta(seconds=full) if full < _MONTH else None,
        )


def _source_line(source: Source) -> SourceLine:
    history, health = source.history_progress(), source.health()
    counts = {
        "refused": health.tags - health.monitored if health.connected else 0,
        "silent": len(health.silent), "late": len(health.late), "flat": len(health.flat),
    }  # fmt: skip
    return SourceLine(
        name=source.name,
        connected=health.connected,
        history_done=history.done,
        history_total=history.total,
        history_samples=history.samples,
        away=health.away_since is not None,
        trouble=health.trouble,
        unwell=tuple((what, tags) for what, tags in counts.items() if tags),
    )


def _reading(prediction: Prediction | None, scale: float = 1.0) -> Reading | None:
    if prediction is None:
        return None

    def scaled(number: float | None) -> float | None:
        return None if number is None else number * scale

    value, lower, upper = map(scaled, (prediction.value, prediction.lower, prediction.upper))
    return Reading(value, lower, upper, prediction.tag.unit, prediction.status)
