"""What keeps the historian in order beside its work: chores, each done again and again at its own interval."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from plugin.diagnostics import Diagnostics
from plugin.errors import StoreUnavailable

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to be done now and then."""

    name: str
    """A few words: `closing partitions` in `closing partitions failed`, and a label of its metrics."""
    every: timedelta
    """From the end of one time to the beginning of the next."""
    do: Callable[[], Awaitable[None]]
    """May be cancelled at any await, and leaves all in order then; may raise, and is tried again next time."""


class Upkeep:
    """Chores, side by side: a long one holds up no other."""

    def __init__(
        self,
        chores: Sequence[Chore],
        diagnostics: Diagnostics,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._chores = tuple(chores)
        self._diagnostics = diagnostics
        self._sleep = sleep

    async def run(self) -> None:
        """Until it is cancelled; each chore is done at once for the first time."""
        async with asyncio.TaskGroup() as tasks:
            for chore in self._chores:
                tasks.create_task(self._keep(chore), name=f"upkeep: {chore.name}")

    async def _keep(self, chore: Chore) -> None:
        failed = False
        while True:
            failed = not await self._do(chore, failed_before=failed)
            await self._sleep(chore.every.total_seconds())

    async def _do(self, chore: Chore, *, failed_before: bool) -> bool:
        """Whether it went well. A failure is in the log once, until it goes well again."""
        try:
            await chore.do()
        except Exception as error:  # noqa: BLE001  the wrapper that supervises a chore: logged, counted, done again
            self._diagnostics.chores_failed.labels(chore.name).inc()
            if not failed_before:
                known = isinstance(error, StoreUnavailable)  # it passes, and where it came up says nothing
                _log.error("%s failed, to be tried again: %s", chore.name, error, exc_info=None if known else error)
            return False
        if failed_before:
            _log.warning("%s: done again", chore.name)
        self._diagnostics.chore_done.labels(chore.name).set_to_current_time()
        return True
