"""What a scorer looks at: a store, or the past that a backtest walks through."""

from datetime import datetime
from typing import Protocol

from plugin.domain import Drift, Flag, Gap, Grid, Micros, Window


class Sight(Protocol):
    """What a scorer looks at: of a :class:`plugin.protocols.Store` this much."""

    async def grid(self, window: Window, *, known_by: Micros | None = None, received_by: Micros | None = None) -> Grid:
        """As there."""

    async def gaps(self, *, since: datetime | None, known_by: Micros | None, limit: int) -> tuple[Gap, ...]:
        """As there."""

    async def flags(self, start: datetime, end: datetime, *, shadow: bool = False) -> tuple[Flag, ...]:
        """As there."""

    async def drifts(self, *, model: str, since: datetime) -> tuple[Drift, ...]:
        """As there."""
