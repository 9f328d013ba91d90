"""A source that goes away is seen downstream at once: what was published from it is in doubt before the next run."""

import asyncio
import logging
from collections.abc import Sequence

from plugin.diagnostics import Diagnostics
from plugin.domain import Outage
from plugin.infer.scoring import Scorer
from plugin.protocols import Sink, Source

_log = logging.getLogger(__name__)

_EVERY = 0.25
"""Between two looks at the sources [s]."""
_LIMIT = 5.0
"""A sink that takes longer [s] has failed, and is told again."""


class Outages:
    """Looks at the sources and tells the sinks. Which sources and scorers there are is looked at each time."""

    def __init__(
        self, sources: Sequence[Source], scorers: Sequence[Scorer], sinks: Sequence[Sink], diagnostics: Diagnostics
    ) -> None:
        self._sources = sources
        self._scorers = scorers
        self._sinks = sinks
        self._diagnostics = diagnostics
        self._told: dict[str, Outage] = {}
        self._complaints: dict[str, str] = {}

    async def watch(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await asyncio.sleep(_EVERY)

    async def look(self) -> None:
        """Tell each sink that does not know yet how it is now."""
        outage = self._now()
        self._diagnostics.outputs_cut_off.set(len(outage.outputs))
        for sink in self._sinks:
            if self._told.get(sink.name) != outage and await self._tell(sink, outage):
                self._told[sink.name] = outage

    def _now(self) -> Outage:
        away = frozenset(source.name for source in self._sources if source.health().away_since is not None)
        outputs = (tag.name for scorer in self._scorers for tag in scorer.cut_off(away)) if away else ()
        return Outage(away, len(self._sources), frozenset(outputs))

    async def _tell(self, sink: Sink, outage: Outage) -> bool:
        try:
            async with asyncio.timeout(_LIMIT):
                await sink.degrade(outage)
        except Exception as error:  # noqa: BLE001 - as in a run: a sink that fails keeps nothing from the others
            self._diagnostics.publish_failures.labels(sink.name, type(error).__name__).inc()
            text = str(error) or type(error).__name__
            if self._complaints.get(sink.name) != text:
                _log.warning("sink %s does not show that a source is away: %s", sink.name, text, exc_info=error)
                self._complaints[sink.name] = text
            return False
        self._complaints.pop(sink.name, None)
        return True
