"""How much room the database has left, and for how long: measured, kept as marks in ``growth``, and told."""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from math import isnan
from typing import Any

import numpy as np
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin.diagnostics import Diagnostics
from plugin.domain import Micros
from plugin.ending import to_its_end
from plugin.historian import queries, schema
from plugin.historian.config import HistorianConfig
from plugin.historian.database import Database, Room
from plugin.historian.keeping.forecast import HOT_SAMPLE, Marks, Stock, full_in
from plugin.historian.keeping.upkeep import Chore
from plugin.historian.queries import insert

_log = logging.getLogger(__name__)

_EVERY = timedelta(minutes=10)
_HOUR: Micros = 3_600_000_000
_DAY: Micros = 24 * _HOUR
_SPAN = 7 * _DAY
"""That growth is judged by."""
_KEPT = 30 * _DAY
"""Marks of every hour; older ones are of every day."""
_LEVELS = ((3 * 86_400.0, logging.ERROR), (30 * 86_400.0, logging.WARNING))
"""Who is told when the disk is full so soon [s]."""
_RELIEF = 1.2
"""So many times later it has to be full before a warning is taken back: no line a day at the bound."""


class Disk:
    """Looks at the disk; :meth:`run` is a chore."""

    def __init__(
        self,
        database: Database,
        config: HistorianConfig,
        diagnostics: Diagnostics,
        clock: Callable[[], Micros] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._database = database
        self._config = config
        self._diagnostics = diagnostics
        self._clock = clock
        self._level = logging.INFO

    async def run(self) -> None:
        """Measure, and say when the disk is full."""
        now = self._clock()
        room = await self._database.room()
        free = room.free
        if free is None and self._config.disk is not None:
            free = max(0, self._config.disk - room.used)
        marks, stocks = await self._look(room, now)
        self._diagnostics.database_bytes.set(room.used)
        if free is None:
            return
        seconds = full_in(free, stocks, marks.rate())
        self._diagnostics.disk_free.set(free)
        self._diagnostics.disk_full.set(seconds)
        self._judge(seconds, free)

    @to_its_end
    async def _look(self, room: Room, now: Micros) -> tuple[Marks, Sequence[Stock]]:
        async with self._database.reading() as connection:
            stocks = await self._stocks(connection, now)
            closed = sum(stock.size for stock in stocks)
            hot = await _hot(connection)
            marks = await _marks(connection, now)
        if not marks or now - marks[-1].time >= _HOUR:
            row = {"time": now, "used": room.used, "closed": closed, "hot": hot}
            async with self._database.writing() as connection:
                await _mark(connection, row, now)
        seen = [(mark.time, mark.used - mark.closed - HOT_SAMPLE * mark.hot) for mark in marks]
        seen.append((now, room.used - closed - HOT_SAMPLE * hot))
        times, rest = np.array(seen, np.float64).T
        return Marks(times / 1e6, rest), stocks

    async def _stocks(self, connection: AsyncConnection, now: Micros) -> list[Stock]:
        """Of all classes, those too that the file no longer has."""
        table = schema.sample_partitions
        newest = await connection.scalar(select(func.max(table.c.end_time)).where(table.c.end_time <= now + _DAY))
        since = (newest or 0) - _SPAN
        lately = func.sum(table.c.bytes).filter(table.c.end_time > since, table.c.end_time <= now + _DAY)
        begin = func.min(table.c.start_time).filter(table.c.end_time > since)
        query = select(table.c.retention, func.sum(table.c.bytes), lately, begin).group_by(table.c.retention)
        classes = {each.stored_name: each for each in self._config.retention}
        stocks = []
        for name, size, recent, first in await connection.execute(query):
            span = max((newest or 0) - max(first or since, since), _HOUR)
            rate = 1e6 * int(recent or 0) / span
            known = classes.get(name)
            bounds = (None, None) if known is None else (known.samples, known.size)
            stocks.append(Stock(int(size), rate, *bounds))
        return stocks

    def _judge(self, seconds: float, free: int) -> None:
        """A line in the log where it comes to another state, and none while it stays."""
        level = next((level for bound, level in _LEVELS if seconds < bound), logging.INFO)
        if level < self._level:
            level = next((level for bound, level in _LEVELS if seconds < _RELIEF * bound), logging.INFO)
        if level != self._level and not isnan(seconds):
            self._level = level
            if level == logging.INFO:
                _log.warning("the disk of the database has room again: %.1f GiB are free", free / 2**30)
            else:
                _log.log(
                    level,
                    "as it grows now, the disk of the database is full in %.1f days, %.1f GiB are free: make room, or "
                    "have less kept (historian.retention)",
                    seconds / 86_400, free / 2**30,
                )  # fmt: skip


def watch(database: Database, config: HistorianConfig, diagnostics: Diagnostics) -> Chore:
    """What says in time that the disk gets full."""
    return Chore("disk forecast", _EVERY, Disk(database, config, diagnostics).run)


async def _hot(connection: AsyncConnection) -> int:
    """Samples that are in no partition."""
    table = schema.sample_partitions
    stored = await queries.stored_samples(connection)
    closed = await connection.scalar(select(func.coalesce(func.sum(table.c.samples), 0))) or 0
    return max(0, stored - int(closed))


async def _marks(connection: AsyncConnection, now: Micros) -> Sequence[Any]:
    """Of the last days; a clock that was set back has left none of the future behind."""
    table = schema.growth
    query = select(table).where(table.c.time > now - _SPAN - _DAY, table.c.time < now).order_by(table.c.time)
    return (await connection.execute(query)).all()


async def _mark(connection: AsyncConnection, row: dict[str, int], now: Micros) -> None:
    table = schema.growth
    await connection.execute(insert(connection, table).on_conflict_do_nothing(), row)
    await connection.execute(delete(table).where(table.c.time < now - _KEPT, table.c.time % _DAY >= _HOUR))
