"""Telling sinks: each in bounded time, and one that fails costs itself alone."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from plugin.complaints import Complaints
from plugin.diagnostics import Diagnostics
from plugin.errors import PublishError
from plugin.protocols import Sink

_log = logging.getLogger(__name__)

_LIMIT = 5.0
"""A sink that takes longer [s] has failed."""

_News = TypeVar("_News")


class Telling:
    """Of one thing that sinks are told again and again."""

    def __init__(self, diagnostics: Diagnostics, what: str) -> None:
        """``what`` they are told, for the log: "does not show …"."""
        self._diagnostics = diagnostics
        self._what = what
        self._complaints = Complaints()

    async def each(self, sinks: Sequence[Sink], tell: Callable[[Sink], Awaitable[None]], values: int = 1) -> list[Sink]:
        """One after the other; returns those that took it. A failure counts for so many ``values``."""
        return [sink for sink in sinks if await self._takes(sink, tell, values)]

    async def _takes(self, sink: Sink, tell: Callable[[Sink], Awaitable[None]], values: int) -> bool:
        try:
            async with asyncio.timeout(_LIMIT):
                await tell(sink)
        except Exception as error:  # noqa: BLE001 - the wrapper of all that sinks do: logged, counted, the others go on
            self._diagnostics.publish_failures.labels(sink.name, type(error).__name__).inc(values)
            self._complain(sink, error)
            return False
        self._complaints.over(sink.name)
        return True

    def _complain(self, sink: Sink, error: Exception) -> None:
        text = "timed out" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        if told := self._complaints.about(sink.name, text):
            trace = None if isinstance(error, PublishError | TimeoutError) else error
            _log.warning("sink %s does not show %s: %s", sink.name, self._what, told, exc_info=trace)


class Teller(Generic[_News]):
    """Of one kind of news: each sink is told it once, and again where it failed to take it."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        diagnostics: Diagnostics,
        tell: Callable[[Sink, _News], Awaitable[None]],
        what: str,
    ) -> None:
        """``what``: see :class:`Telling`."""
        self._sinks = sinks
        self._tell = tell
        self._telling = Telling(diagnostics, what)
        self._known: dict[str, _News] = {}

    async def tell(self, news: _News) -> None:
        """To each sink that was told something else last, or failed to take it."""
        behind = [sink for sink in self._sinks if self._known.get(sink.name) != news]
        for sink in await self._telling.each(behind, lambda sink: self._tell(sink, news)):
            self._known[sink.name] = news
