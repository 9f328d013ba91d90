"""The part of the PostgreSQL store that looks after what is there: partitions, the newest samples, closing."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import numpy as np

from plugin.diagnostics import Diagnostics
from plugin.domain import Level, Micros, Modified, RollUps, SampleBatch
from plugin.ending import to_its_end
from plugin.errors import StoreUnavailable
from plugin.historian.arrived import refuse_strangers
from plugin.historian.closed.aged import Aged, present_of
from plugin.historian.closed.closing import Changed, Closed, Slice
from plugin.historian.config import HistorianConfig
from plugin.historian.corrected import Act
from plugin.historian.keeping.upkeep import Chore
from plugin.historian.postgres.closing import close_slice, next_slice, roll_ups, rows_before
from plugin.historian.postgres.connections import PostgresServer
from plugin.historian.postgres.correcting import begin, correct, select_modified
from plugin.historian.postgres.partitions import Partitions
from plugin.historian.postgres.samples import Connection, keep_newest, merge, put_late
from plugin.historian.postgres.selecting import LAST, closed_at, latest_samples
from plugin.historian.tables import Tables
from plugin.protocols import Corrected

_LOOK = timedelta(minutes=1)
"""Between two looks whether there is something to close."""
_LATEST_EVERY = timedelta(seconds=5)
_TRIES = 10


def clock() -> Micros:
    """Ours."""
    return time.time_ns() // 1000


class PostgresArchive(Tables):
    """What becomes of samples when they are there."""

    def __init__(self, server: PostgresServer, diagnostics: Diagnostics) -> None:
        super().__init__(server)
        self._server = server
        self._diagnostics = diagnostics
        self._last_tag = 0

    def _tidying(self, config: HistorianConfig) -> list[Chore]:
        """What one gateway at a time does."""
        chores = [
            Partitions(self._server.copying, clock, closing=bool(config.close_after)).chore,
            Chore("newest samples", _LATEST_EVERY, self.keep_newest),
        ]
        if config.close_after:
            chores.append(Chore("closing partitions", _LOOK, Aged(self, config.close_after, self._diagnostics).close))
        return chores

    async def keep_newest(self) -> None:
        """Bring the table of each tag's newest sample up to date, for whoever asks SQL."""
        async with self._server.copying() as connection:
            await keep_newest(connection)

    async def present(self) -> Micros | None:
        """What time it is in the plant, by its newest samples; None: there is no sample."""
        async with self._server.copying() as connection:
            return present_of(await latest_samples(connection, range(1, self._last_tag + 1)))

    async def rows_before(self, until: Micros, most: int) -> tuple[int, Micros]:
        """How many samples of before then are not closed, counted up to ``most``, and the time of the oldest."""
        async with self._server.copying() as connection:
            return await rows_before(connection, until, most)

    async def close_before(self, until: Micros) -> Closed:
        """Close all samples of before then by whole minutes (see :mod:`plugin.historian.closed.closing`).

        Cancelled, it leaves what is closed by then; called again, it goes on. Another gateway that does it is left to
        it. StoreUnavailable where late samples come faster than they can be closed.
        """
        done = Closed()
        async with self._server.alone("closing") as free, self._server.copying() as connection:
            # The newest have to be in their table before they leave the rows.
            await keep_newest(connection)
            while free and (slice_ := await next_slice(connection, until)) is not None:
                with self._diagnostics.stage("close"):
                    done += replace(await self._close(connection, slice_), slices=1)
        return done

    async def _close(self, connection: Connection, slice_: Slice) -> Closed:
        done = Closed()
        for _ in range(_TRIES):
            with suppress(Changed):
                async for closed in close_slice(connection, slice_, clock(), self._server.check):
                    done += closed
                return done
        raise StoreUnavailable(f"{self._server.place}: late samples come faster than they can be closed")

    @to_its_end
    async def product(self) -> str:
        """What database it is, with its version, for a person."""
        return await self._server.product()

    @to_its_end
    async def used(self) -> int:
        """What it holds now, without its free pages [byte]."""
        return (await self._server.room()).used

    # --- roll-ups and corrections ---

    @to_its_end
    async def roll_ups(
        self, tags: Sequence[int], start: Micros, end: Micros, *, level: Level | None = None, points: int = 1000
    ) -> RollUps:
        """See the protocol."""
        level = level or Level.finest(end - start, points)
        # As of one moment: what is closed between two statements would be missed by both.
        moment = {"isolation": "repeatable_read", "readonly": True}
        async with self._server.copying() as connection, connection.transaction(**moment):
            return await roll_ups(connection, tags, start, end, level)

    @to_its_end
    async def correct(self, samples: SampleBatch, *, user: str, reason: str, origin: str = "command") -> Corrected:
        """See the protocol. A sample of a tag that was never registered refuses all (StoreError)."""
        refuse_strangers(samples, self._last_tag, f"{self._server.place}: corrections")
        if not len(samples):
            return Corrected(0, 0, 0)
        async with self._server.turn:
            async with self._server.copying() as connection, connection.transaction():
                await self._server.check(connection)
                now = clock()
                batch = self._looks.arrive(replace(samples, received_time=np.full(len(samples), now)), now)
                await begin(connection)
                act = Act(int(batch.received_time[0]), user, reason, origin)
                done, new = await correct(connection, batch, act)
                if len(new):
                    await merge(connection, new, await closed_at(connection, new))
                await put_late(connection, batch, LAST)
                await self._count(connection, len(new), done.replaced)
            self._corrected(batch)
        return done

    def _corrected(self, batch: SampleBatch) -> None:
        """For whoever holds samples elsewhere; called before anything else is committed."""

    async def _count(self, connection: Connection, more: int, replaced: int = 0) -> None:
        """Add to how many samples there are; ``replaced``: of those that were there."""

    @to_its_end
    async def modified(self, tags: Sequence[int], start: Micros, end: Micros) -> Modified:
        """See the protocol."""
        async with self._server.copying() as connection:
            return await select_modified(connection, tags, start, end)
