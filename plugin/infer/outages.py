"""A source that goes away is seen downstream at once: what was published from it is in doubt before the next run."""

import asyncio
from collections.abc import Sequence

from plugin.diagnostics import Diagnostics
from plugin.domain import Outage
from plugin.infer.scoring import Scorer
from plugin.infer.telling import Teller
from plugin.protocols import Sink, Source

_EVERY = 0.25
"""Between two looks at the sources [s]."""


class Outages:
    """Looks at the sources and tells the sinks. Which sources and scorers there are is looked at each time."""

    def __init__(
        self, sources: Sequence[Source], scorers: Sequence[Scorer], sinks: Sequence[Sink], diagnostics: Diagnostics
    ) -> None:
        self._sources = sources
        self._scorers = scorers
        self._diagnostics = diagnostics
        self._teller = Teller[Outage](
            sinks, diagnostics, lambda sink, outage: sink.degrade(outage), "that a source is away"
        )

    async def watch(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await asyncio.sleep(_EVERY)

    async def look(self) -> None:
        """Tell each sink that does not know yet how it is now."""
        outage = self._now()
        self._diagnostics.outputs_cut_off.set(len(outage.outputs))
        await self._teller.tell(outage)

    def _now(self) -> Outage:
        away = frozenset(source.name for source in self._sources if source.health().away_since is not None)
        outputs = (tag.name for scorer in self._scorers for tag in scorer.cut_off(away)) if away else ()
        return Outage(away, len(self._sources), frozenset(outputs))
