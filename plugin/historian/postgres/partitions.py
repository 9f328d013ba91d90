"""Partitions of ``samples`` in PostgreSQL, by source time: made ahead, and taken away when they are empty and past.

A sample that belongs to none, late or with a strange stamp, goes to the default partition, from where it is closed like
any other. The tables carry their bounds in their names only for people; the catalog has them.
"""

import logging
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Micros, from_micros
from plugin.historian.keeping.upkeep import Chore

_log = logging.getLogger(__name__)

Connect = Callable[[], AbstractAsyncContextManager[Any]]
"""Gives a connection of the driver, ``asyncpg.Connection``, outside a transaction."""

DEFAULT = "samples_default"

_EVERY = timedelta(minutes=1)
_NARROW: Micros = 600_000_000
"""Where samples are closed: some millions of a big plant, closed and emptied as one [µs]."""
_WIDE: Micros = 86_400_000_000
"""Where they never are: few tables in many years [µs]."""
_AHEAD = 6
"""Partitions beyond the present one."""
_MANY = 2_000
_PATIENCE = "SET LOCAL lock_timeout = '1s'"
"""Nobody who writes or reads is held up longer by a table that comes or goes; it is tried again in a minute."""
_SHARED = 0x666F726574616701
"""Advisory lock: one gateway at a time looks after the partitions."""

_EXISTING = """
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'samples'::regclass
"""
_BOUNDS = re.compile(r"FROM \('?(-?\d+)'?\) TO \('?(-?\d+)'?\)")


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """A table with the samples of ``[start, end)``."""

    start: Micros
    end: Micros
    name: str


async def existing(connection: Any) -> list[Partition]:
    """All but the default one, in order of time."""
    # One that goes while we ask has no bounds any more.
    found = [(name, _BOUNDS.search(bounds or "")) for name, bounds in await connection.fetch(_EXISTING)]
    return sorted(Partition(int(match[1]), int(match[2]), name) for name, match in found if match is not None)


async def place_of(connection: Any, times: NDArray[np.int64]) -> str:
    """Name of the table that rows of these times go to at once: their partition's, or ``samples`` itself.

    To find each row's partition takes PostgreSQL a tenth of a COPY. Where the rows are few, asking would cost more.
    """
    if len(times) >= _MANY:
        first, last = int(times.min()), int(times.max())
        for each in await existing(connection):
            if each.start <= first and last < each.end:
                return each.name
    return "samples"


class Partitions:
    """Looks after the tables; :meth:`chore` is called again and again."""

    def __init__(self, connect: Connect, clock: Callable[[], Micros], *, closing: bool) -> None:
        """``closing``: samples are closed, and leave their tables empty."""
        self._connect = connect
        self._clock = clock
        self._width = _NARROW if closing else _WIDE

    @property
    def chore(self) -> Chore:
        """To be done beside the writing."""
        return Chore("partitions of samples", _EVERY, self.tend)

    async def tend(self) -> None:
        """Make what will be needed soon, and take away what will not be needed any more."""
        async with self._connect() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _SHARED):
                return
            try:
                await self._make_ahead(connection)
                await self._drop_empty(connection)
            finally:
                if not connection.is_closed():
                    await connection.execute("SELECT pg_advisory_unlock($1)", _SHARED)

    async def _make_ahead(self, connection: Any) -> None:
        now = self._clock()
        known = await existing(connection)
        start = max([now // self._width * self._width, *(each.end for each in known if each.start <= now)])
        until = now + _AHEAD * self._width
        while start < until:
            end = (start // self._width + 1) * self._width
            later = [each for each in known if each.start < end and each.end > start]
            if later:  # of another width, from before the configuration was changed
                start = max(each.end for each in later)
                continue
            await _make(connection, Partition(start, end, f"samples_{from_micros(start):%Y%m%d_%H%M%S}"))
            start = end

    async def _drop_empty(self, connection: Any) -> None:
        """Those that are past, and so only late samples would go there."""
        for each in await existing(connection):
            if each.end < self._clock() - self._width and await _is_empty(connection, each.name):
                async with connection.transaction():
                    await connection.execute(_PATIENCE)
                    await connection.execute(f"LOCK TABLE {each.name} IN ACCESS EXCLUSIVE MODE")
                    if await _is_empty(connection, each.name):
                        await connection.execute(f"DROP TABLE {each.name}")


async def _make(connection: Any, new: Partition) -> None:
    """Attached, not created in place: that would wait for, and hold up, whoever reads or writes any other partition.

    Samples of its time that came too early for it move over from the default partition.
    """
    inside = f"source_time >= {new.start} AND source_time < {new.end}"
    async with connection.transaction():
        await connection.execute(_PATIENCE)
        await connection.execute(f"CREATE TABLE {new.name} (LIKE samples INCLUDING ALL)")
        if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {DEFAULT} WHERE {inside})"):  # noqa: S608  numbers
            await connection.execute(f"LOCK TABLE {DEFAULT} IN ACCESS EXCLUSIVE MODE")
            await connection.execute(
                f"WITH early AS (DELETE FROM {DEFAULT} WHERE {inside} RETURNING *) "  # noqa: S608  numbers
                f"INSERT INTO {new.name} SELECT * FROM early"
            )
        await connection.execute(
            f"ALTER TABLE samples ATTACH PARTITION {new.name} FOR VALUES FROM ({new.start}) TO ({new.end})"
        )


async def _is_empty(connection: Any, name: str) -> bool:
    found: bool = await connection.fetchval(f"SELECT NOT EXISTS (SELECT FROM {name})")  # noqa: S608  from the catalog
    return found
