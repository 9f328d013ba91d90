"""When models are trained: those that have none in force, on a schedule, after a drift, and as a person asks."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from plugin.complaints import Complaints
from plugin.diagnostics import Diagnostics
from plugin.domain import ModelState, ModelVersion, Run, RunKind, RunResult
from plugin.errors import ForetagError, ModelError, StoreError
from plugin.infer.ancestors import Wish, ancestor
from plugin.infer.compute import Cancelled, Compute
from plugin.infer.config import RetrainingConfig
from plugin.infer.outputs import model_spec
from plugin.infer.registry import Registry
from plugin.infer.scoring import Scorer
from plugin.infer.training import train
from plugin.infer.unfinished import sweep
from plugin.protocols import Store

log = logging.getLogger(__name__)

_HISTORY_POLL = 0.2
_LOOK = 30.0
"""Between two looks at whether a model is due to be trained again [s]."""
_ERRORS = ("rmse", "mae")
"""Metrics on held-out data by which a new version is compared with the one in force: the first that both have."""

Listener = Callable[[str, float | None, str], None]
"""Called with model, share done (None: ended) and a line for a person."""


class Training:
    """Trains what has no model yet, and whatever a person asks for."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        compute: Compute,
        diagnostics: Diagnostics,
        listener: Listener,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._registry = registry
        self._compute = compute
        self._diagnostics = diagnostics
        self._listener = listener
        self._clock = clock
        self._tried: dict[str, datetime] = {}
        self._complaints = Complaints()

    async def train_missing(self, scorers: Sequence[Scorer], past_is_read: Callable[[Scorer], bool]) -> None:
        """Train each model that has none in force, in their order, once the past of its own sources has been read.

        One whose source is away, or for which the historian does not hold enough, is tried again later; the others do
        not wait for it.
        """
        turn = asyncio.Lock()
        await asyncio.to_thread(sweep, self._registry.unfinished(), self._clock())
        async with asyncio.TaskGroup() as group:
            for scorer in scorers:
                if await self._lacks_a_version(scorer):
                    group.create_task(self._until_trained(scorer, past_is_read, turn))

    async def _lacks_a_version(self, scorer: Scorer) -> bool:
        """One that waits for a signature, or can't be loaded, is there: it is for a person, not to be trained anew."""
        if not (scorer.config.enabled and scorer.config.training.at_start) or await scorer.version() is not None:
            return False
        return not await self._registry.waits_for_signature(scorer.config.name, model_spec(scorer.config))

    async def _until_trained(self, scorer: Scorer, past_is_read: Callable[[Scorer], bool], turn: asyncio.Lock) -> None:
        while not past_is_read(scorer):  # noqa: ASYNC110 - how far a source is, is asked for, not told
            await asyncio.sleep(_HISTORY_POLL)
        while True:
            async with turn:
                if await self._try(scorer):
                    return
            await asyncio.sleep(scorer.config.training.retry.total_seconds())

    async def retrain(self, scorers: Sequence[Scorer]) -> None:
        """For ever: train anew what is due; which scorers there are is looked at each time.

        What comes of it is a challenger. Scoring goes on: predictions go before the next step of a fit.
        """
        while True:
            for scorer in tuple(scorers):
                await self.retrain_if_due(scorer)
            await asyncio.sleep(_LOOK)

    async def retrain_if_due(self, scorer: Scorer) -> Run | None:
        """None: it was not due, or it could not be trained, of which its run tells; it is tried again a turn later."""
        name, rule = scorer.config.name, scorer.config.retraining
        if not scorer.config.enabled or (rule.every is None and not rule.on_drift):
            return None
        champion = (await self._registry.line_up(name, model_spec(scorer.config))).champion
        if champion is None or not await self._due(scorer, champion):
            return None
        self._tried[name] = self._clock()
        try:
            run = await self.train(scorer, wish=_wish(scorer.config.retraining, champion))
        except ForetagError as error:
            log.warning("model %s could not be trained again: %s", name, error)
            return None
        await self._retire_if_worse(scorer, champion, await self._registry.version(name, run.version))
        return run

    async def _due(self, scorer: Scorer, champion: ModelVersion) -> bool:
        name, rule = scorer.config.name, scorer.config.retraining
        newest = (await self._store.versions(name))[0].created
        last = max(newest, self._tried.get(name, newest))
        if rule.every is not None and self._clock() - last >= rule.every:
            return True
        drifts = await self._store.drifts(model=name, open_only=True) if rule.on_drift else ()
        return any(drift.version == champion.version and drift.noticed > last for drift in drifts)

    async def _retire_if_worse(self, scorer: Scorer, champion: ModelVersion, new: ModelVersion) -> None:
        metric = next((each for each in _ERRORS if each in new.metrics and each in champion.metrics), None)
        if metric is None or new.state is not ModelState.CHALLENGER:
            return
        before, now = champion.metrics[metric], new.metrics[metric]
        if now > before * (1.0 + scorer.config.retraining.worse):
            because = {"reason": f"its {metric} on held-out data is {now:.6g}, that of {champion.label} {before:.6g}"}
            log.warning("model %s is retired at once: %s", new.label, because["reason"])
            await self._registry.retire(new.model, new.version, because=because)

    async def train(self, scorer: Scorer, begun: Callable[[Run], None] | None = None, wish: Wish | None = None) -> Run:
        """Train one model now; the run's row tells how it went. Raises ForetagError. ``begun`` is told of the run.

        ``wish``: not from scratch.
        """
        name = scorer.config.name
        run = await self._store.write_run(Run(0, name, RunKind.TRAIN, self._clock(), started=self._clock()))
        if begun is not None:
            begun(run)
        self._listener(name, 0.0, "reading the past")
        try:
            begin = None if wish is None else await ancestor(wish, scorer.config, self._registry)
            version = await train(
                scorer.config, scorer.kind, scorer.assets, self._store, self._registry, self._compute, self._clock(),
                lambda share, message: self._listener(name, share, message), begin,
            )  # fmt: skip
        except (ForetagError, asyncio.CancelledError, Cancelled) as error:
            await self._fail(run, str(error) or "stopped")
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            log.exception("model %s could not be trained, in a way that nobody foresaw", name)
            await self._fail(run, text)
            raise ModelError(f"model {name}: {text}; the log has more") from error
        finally:
            self._listener(name, None, "")
        self._diagnostics.runs.labels(name, RunKind.TRAIN.value, RunResult.DONE.value).inc()
        done = replace(
            run, finished=self._clock(), result=RunResult.DONE, version=version.version, assets=len(scorer.assets)
        )
        return await self._store.write_run(done)

    async def _fail(self, run: Run, text: str) -> None:
        """Counted, also where the row can't be written: then the next start gives it its end."""
        self._diagnostics.runs.labels(run.model, RunKind.TRAIN.value, RunResult.FAILED.value).inc()
        try:
            await self._store.write_run(replace(run, finished=self._clock(), result=RunResult.FAILED, error=text))
        except StoreError as error:
            log.warning("that the training of model %s failed (%s) is not on record: %s", run.model, text, error)

    async def _try(self, scorer: Scorer) -> bool:
        """Whatever is wrong with one model, the others learn on; the log hears of it once."""
        name = scorer.config.name
        try:
            await self.train(scorer)
        except ForetagError as error:
            if told := self._complaints.about(name, str(error)):
                log.warning("%s; trying again every %s", told, scorer.config.training.retry)
            return False
        self._complaints.over(name)
        with suppress(ForetagError):  # the next run tells of it
            await scorer.refresh()
        return True


def _wish(rule: RetrainingConfig, champion: ModelVersion) -> Wish | None:
    return None if rule.how == "scratch" else Wish(champion.label, head_only=rule.how == "head")
