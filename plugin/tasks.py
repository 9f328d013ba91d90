"""Tasks of the service: they live as long as a context, and those that must not end are started again.

And jobs, done once because somebody asked: what nobody foresaw ends the job alone.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from plugin.diagnostics import Diagnostics
from plugin.errors import ForetagError

log = logging.getLogger(__name__)

_Found = TypeVar("_Found")

_RESTART_DELAYS = (0.5, 1.0, 5.0, 30.0)
"""Before a supervised task that ended with an error is started again [s]; the last one repeats."""


class Supervision:
    """Keeps tasks going until the service stops."""

    def __init__(self, diagnostics: Diagnostics) -> None:
        self.stopping = False
        """To be set before the first task is told to end: an error in the moment of a cancellation outdoes it in a
        TaskGroup (Python 3.11), and this is not lost."""
        self._diagnostics = diagnostics

    async def keep(self, name: str, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task to its end; an error is logged, counted, and the task started again after a while."""
        for attempt in range(1_000_000_000):
            try:
                await task()
            except Exception:
                self._diagnostics.task_failures.labels(name).inc()
                if self.stopping:
                    log.exception("%s failed while it was stopped", name)
                    return
                delay = _RESTART_DELAYS[min(attempt, len(_RESTART_DELAYS) - 1)]
                log.exception("%s failed; starting it again in %.1f s", name, delay)
                await asyncio.sleep(delay)
            else:
                return


@asynccontextmanager
async def running(*tasks: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Tasks that run for as long as the context lasts, and are cancelled and awaited when it ends."""
    async with asyncio.TaskGroup() as group:
        begun = [group.create_task(task) for task in tasks]
        try:
            yield
        finally:
            for task in begun:
                task.cancel()


async def job(diagnostics: Diagnostics, task: str, what: str, work: Awaitable[_Found]) -> _Found | None:
    """What comes of ``work``. None: an error that nobody foresaw; it is logged with ``what`` and counted for ``task``.

    Raises ForetagError, which is for whoever asked.
    """
    try:
        return await work
    except ForetagError:
        raise
    except Exception:
        diagnostics.task_failures.labels(task).inc()
        log.exception("%s failed", what)
        return None
