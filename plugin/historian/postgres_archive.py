"""The part of the PostgreSQL store that looks after what is there: partitions, the newest samples, closing."""

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from plugin.diagnostics import Diagnostics
from plugin.domain import Level, Micros, RollUps
from plugin.errors import StoreUnavailable
from plugin.historian import postgres_samples as samples
from plugin.historian.aged import Aged
from plugin.historian.closing import Changed, Closed, Slice
from plugin.historian.config import HistorianConfig
from plugin.historian.database import to_its_end
from plugin.historian.newest import present_of
from plugin.historian.partitions import Partitions
from plugin.historian.postgres import PostgresServer
from plugin.historian.postgres_closing import close_slice, next_slice, roll_ups, rows_before
from plugin.historian.postgres_selecting import latest_samples
from plugin.historian.tables import Tables
from plugin.historian.upkeep import Chore

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
            await samples.keep_newest(connection)

    async def present(self) -> Micros | None:
        """What time it is in the plant, by its newest samples; None: there is no sample."""
        async with self._server.copying() as connection:
            return present_of(await latest_samples(connection, range(1, self._last_tag + 1)))

    async def rows_before(self, until: Micros, most: int) -> tuple[int, Micros]:
        """How many samples of before then are not closed, counted up to ``most``, and the time of the oldest."""
        async with self._server.copying() as connection:
            return await rows_before(connection, until, most)

    async def close_before(self, until: Micros) -> Closed:
        """Close all samples of before then, by whole minutes, slice after slice: see :mod:`plugin.historian.closing`.

        Cancelled, it leaves what is closed by then; called again, it goes on. Another gateway that does it is left to
        it. StoreUnavailable where late samples come faster than they can be closed.
        """
        done = Closed()
        async with self._server.alone("closing") as free, self._server.copying() as connection:
            # The newest have to be in their table before they leave the rows.
            await samples.keep_newest(connection)
            while free and (slice_ := await next_slice(connection, until)) is not None:
                with self._diagnostics.stage("close"):
                    done += await self._close(connection, slice_)
        return done

    async def _close(self, connection: samples.Connection, slice_: Slice) -> Closed:
        for _ in range(_TRIES):
            with suppress(Changed):
                return await close_slice(connection, slice_, clock(), self._server.check)
        raise StoreUnavailable(f"{self._server.place}: late samples come faster than they can be closed")

    # --- roll-ups ---

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
