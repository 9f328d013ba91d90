"""Telling sinks what they do not know yet: each once, in bounded time, none of them at the expense of the others."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from plugin.diagnostics import Diagnostics
from plugin.protocols import Sink

_log = logging.getLogger(__name__)

_LIMIT = 5.0
"""A sink that takes longer [s] has failed, and is told again."""

_News = TypeVar("_News")


class Teller(Generic[_News]):
    """Of one kind of news."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        diagnostics: Diagnostics,
        tell: Callable[[Sink, _News], Awaitable[None]],
        what: str,
    ) -> None:
        """``what``: for the log, where a sink fails: "does not show …"."""
        self._sinks = sinks
        self._diagnostics = diagnostics
        self._tell = tell
        self._what = what
        self._told: dict[str, _News] = {}
        self._complaints: dict[str, str] = {}

    async def tell(self, news: _News) -> None:
        """To each sink that was told something else last, or failed to take it."""
        for sink in self._sinks:
            if self._told.get(sink.name) != news and await self._reaches(sink, news):
                self._told[sink.name] = news

    async def _reaches(self, sink: Sink, news: _News) -> bool:
        try:
            async with asyncio.timeout(_LIMIT):
                await self._tell(sink, news)
        except Exception as error:  # noqa: BLE001 - as in a run: a sink that fails keeps nothing from the others
            self._diagnostics.publish_failures.labels(sink.name, type(error).__name__).inc()
            text = str(error) or type(error).__name__
            if self._complaints.get(sink.name) != text:
                _log.warning("sink %s does not show %s: %s", sink.name, self._what, text, exc_info=error)
                self._complaints[sink.name] = text
            return False
        self._complaints.pop(sink.name, None)
        return True
