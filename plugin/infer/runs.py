"""Runs as a plant sees them: bounded in time, persisted first and published then, every failure a row and a counter."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from plugin.complaints import Complaints
from plugin.diagnostics import Diagnostics
from plugin.domain import Outcome, Run, RunKind, RunResult
from plugin.errors import ForetagError, StoreError
from plugin.infer.scoring import Scorer
from plugin.infer.telling import Telling
from plugin.protocols import Sink, Store

log = logging.getLogger(__name__)


def _nobody(_: object) -> None:
    """Nobody asks which run it is, or why there is none."""


class Runs:
    """Executes the runs of all models against one store and its sinks."""

    def __init__(
        self,
        store: Store,
        sinks: Sequence[Sink],
        diagnostics: Diagnostics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._sinks = sinks
        self._diagnostics = diagnostics
        self._clock = clock
        self._telling = Telling(diagnostics, "results")
        self._complaints = Complaints()
        self._turns: dict[str, asyncio.Lock] = {}
        self._missed: asyncio.Queue[tuple[str, datetime]] = asyncio.Queue(maxsize=1000)
        self.published: dict[str, datetime] = {}
        """When each model's first results were published."""
        self.news = asyncio.Event()
        """Set whenever a model is added to :attr:`published`; for others to clear."""

    async def score(
        self,
        scorer: Scorer,
        tick: datetime,
        end: datetime,
        begun: Callable[[Run], None] = _nobody,
        failed: Callable[[Exception], None] = _nobody,
    ) -> Outcome | None:
        """One scoring run of the window that ends at ``end``; never raises but when cancelled.

        When its results are published, challengers are scored in shadow for as long as its deadline lets them.
        Of one model one run at a time: another waits for it. ``begun`` is told of the run that has a key, ``failed`` of
        why it failed, with a key or before it had one.
        """
        async with self._turns.setdefault(scorer.config.name, asyncio.Lock()):
            return await self._score(scorer, tick, end, begun, failed)

    async def _score(
        self,
        scorer: Scorer,
        tick: datetime,
        end: datetime,
        begun: Callable[[Run], None],
        failed: Callable[[Exception], None],
    ) -> Outcome | None:
        limit = scorer.config.schedule.limit
        run = Run(0, scorer.config.name, RunKind.SCORE, tick)

        def work(run: Run) -> Awaitable[Outcome | None]:
            begun(run)
            return scorer.score(run, end)

        outcome = await self._execute(run, limit, work, scorer.refresh, failed)
        if outcome is None:
            scorer.forget()
            return None
        await self._publish(outcome)
        since = outcome.run.started or self._clock()
        for version in scorer.challengers:
            run = Run(0, version.model, RunKind.SHADOW, tick, started=since, version=version.version)
            left = max(since + limit - self._clock(), timedelta(0))
            if await self._execute(run, left, partial(scorer.shadow, version)) is None:
                scorer.forget()
        return outcome

    async def _execute(
        self,
        run: Run,
        limit: timedelta,
        work: Callable[[Run], Awaitable[Outcome | None]],
        ready: Callable[[], Awaitable[object | None]] | None = None,
        failed: Callable[[Exception], None] = _nobody,
    ) -> Outcome | None:
        """Its rows are written; None: it failed, or there is no model yet."""
        what = run.model if run.kind is RunKind.SCORE else f"{run.model} {run.kind.value}"
        try:
            if ready is not None and await ready() is None:
                return None
            run = await self._store.write_run(replace(run, started=run.started or self._clock()))
            async with asyncio.timeout(limit.total_seconds()):
                outcome = await work(run)
                if outcome is None:
                    return None
                outcome = replace(outcome, run=replace(outcome.run, finished=self._clock(), result=RunResult.DONE))
                await self._store.write_outcome(outcome)
        except Exception as error:  # noqa: BLE001 - the job wrapper: logged, counted, a row; the schedule goes on
            failed(error)
            await self._fail(what, run, error)
            return None
        self._count(outcome.run)
        self._complaints.over(what)
        return outcome

    def miss(self, model: str, scheduled: datetime) -> None:
        """Note a run that never started; :meth:`record_missed` writes its row."""
        self._diagnostics.runs.labels(model, RunKind.SCORE.value, RunResult.MISSED.value).inc()
        self._complain(f"{model} missed", "a run was missed: the one before it still ran, or the process was held up")
        if not self._missed.full():
            self._missed.put_nowait((model, scheduled))

    async def end_unfinished(self, models: Iterable[str]) -> dict[str, datetime]:
        """Runs that a killed process left without an end: they failed. Gives each model's newest tick that was run."""
        newest: dict[str, datetime] = {}
        for model in models:
            for run in await self._store.runs(model):
                if run.kind is RunKind.SCORE:
                    newest[model] = max(run.scheduled, newest.get(model, run.scheduled))
                if run.result is RunResult.RUNNING:
                    ended = replace(run, finished=self._clock(), result=RunResult.FAILED, error="the process ended")
                    await self._store.write_run(ended)
        return newest

    async def record_missed(self) -> None:
        """For ever: write the rows of missed runs."""
        while True:
            model, scheduled = await self._missed.get()
            try:
                await self._store.write_run(Run(0, model, RunKind.SCORE, scheduled, result=RunResult.MISSED))
            except ForetagError as error:
                self._complain(f"{model} missed row", str(error))

    async def _publish(self, outcome: Outcome) -> None:
        values = max(1, len(outcome.predictions))
        await self._telling.each(self._sinks, lambda sink: sink.publish(outcome), values)
        if outcome.run.model not in self.published:
            self.published[outcome.run.model] = self._clock()
            self.news.set()

    async def _fail(self, what: str, run: Run, error: Exception) -> None:
        text = "deadline exceeded" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        self._complain(what, text, None if isinstance(error, ForetagError | TimeoutError) else error)
        failed = replace(run, finished=self._clock(), result=RunResult.FAILED, error=text)
        self._count(failed)
        if run.id or not isinstance(error, StoreError):
            try:
                await self._store.write_run(failed)
            except ForetagError as second:
                self._complain(f"{what} row", str(second))

    def _count(self, run: Run) -> None:
        self._diagnostics.runs.labels(run.model, run.kind.value, run.result.value).inc()
        if run.kind is RunKind.SCORE and run.started and run.finished and run.result is RunResult.DONE:
            self._diagnostics.last_run.labels(run.model).set(run.finished.timestamp())
            self._diagnostics.run_seconds.labels(run.model).observe((run.finished - run.started).total_seconds())

    def _complain(self, what: str, text: str, error: BaseException | None = None) -> None:
        if told := self._complaints.about(what, text):
            log.warning("%s: %s", what, told, exc_info=error)
