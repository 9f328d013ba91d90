"""Which job when: APScheduler, with its traps closed.

Ticks lie on whole multiples of ``every`` since 1970 UTC plus ``offset``, so that a run's window is the same whether it
is scored live or again later. A run that is late by less than a period still runs; one that would overlap the run
before it, or was late by more, is missed: counted, recorded by the listener, never queued up. Of the ticks before a
start only the newest is run, where nobody has run it: by then it is late by less than a period as well.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent, JobExecutionEvent
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

log = logging.getLogger(__name__)

Job = Callable[[datetime, datetime], Awaitable[None]]
"""Called with the tick and the window's end (the tick less the offset)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def last_tick(now: datetime, every: timedelta, offset: timedelta) -> datetime:
    """The newest tick that is not after ``now``."""
    return _EPOCH + offset + (now - offset - _EPOCH) // every * every


class Schedule:
    """Jobs by name; a context, in which they run. Leaving it lets running jobs end within ``grace``."""

    def __init__(
        self,
        missed: Callable[[str, datetime], None],
        *,
        grace: timedelta = timedelta(seconds=2),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._missed = missed
        self._grace = grace.total_seconds()
        self._clock = clock
        self._running: set[asyncio.Task[None]] = set()
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._scheduler.add_listener(self._on_missed, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
        self._scheduler.add_listener(self._on_error, EVENT_JOB_ERROR)

    def add(self, name: str, every: timedelta, offset: timedelta, job: Job, first: Job | None = None) -> None:
        """Run ``job`` at every tick from the next one on; errors are its own business to catch and record.

        ``first``: run at once, for the newest tick that has passed.
        """
        newest = last_tick(self._clock(), every, offset)

        async def tick() -> None:
            at = last_tick(self._clock(), every, offset)
            await self._run(job(at, at - offset))

        async def at_once(first: Job) -> None:
            await self._run(first(newest, newest - offset))

        if first is not None:
            self._scheduler.add_job(at_once, args=[first], id=f"{name}, the tick before", misfire_grace_time=None)
        self._scheduler.add_job(
            tick,
            IntervalTrigger(seconds=every.total_seconds(), start_date=newest + every),
            id=name,
            name=name,
            misfire_grace_time=max(1, round(every.total_seconds())),
            coalesce=True,
            max_instances=1,
        )

    async def _run(self, work: Awaitable[None]) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine job runs in a task
        self._running.add(task)
        try:
            await work
        finally:
            self._running.discard(task)

    async def __aenter__(self) -> Self:
        self._scheduler.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scheduler.remove_all_jobs()
        if self._running:
            await asyncio.wait(self._running, timeout=self._grace)
        self._scheduler.shutdown(wait=False)

    def _on_missed(self, event: JobEvent) -> None:
        times = getattr(event, "scheduled_run_times", None) or [getattr(event, "scheduled_run_time", self._clock())]
        for time in times:
            self._missed(event.job_id, time)

    def _on_error(self, event: JobExecutionEvent) -> None:
        log.error("job %s failed", event.job_id, exc_info=event.exception)
