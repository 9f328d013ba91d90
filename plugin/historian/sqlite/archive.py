"""The part of the SQLite store that looks after what is there: closing, roll-ups, corrections."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import numpy as np

from plugin.diagnostics import Diagnostics
from plugin.domain import Level, Micros, Modified, RollUps, SampleBatch
from plugin.historian.arrived import refuse_strangers
from plugin.historian.closed.aged import Aged, present_of
from plugin.historian.closed.closing import After, Before, Changed, Closed, Slice, close
from plugin.historian.config import HistorianConfig
from plugin.historian.corrected import Act
from plugin.historian.keeping.upkeep import Chore
from plugin.historian.sqlite.closing import next_slice, read, roll_up_again, rows_before, write
from plugin.historian.sqlite.connections import SqliteFile, transaction
from plugin.historian.sqlite.correcting import correct, select_modified
from plugin.historian.sqlite.newest import Newest
from plugin.historian.sqlite.rolled import roll_ups
from plugin.historian.sqlite.samples import count, insert_samples
from plugin.historian.sqlite.selecting import FIRST, book, latest_samples
from plugin.historian.tables import Tables
from plugin.protocols import Corrected

_LOOK = timedelta(minutes=1)
"""Between two looks whether there is something to close."""
_TRIES = 3


class SqliteArchive(Tables):
    """What a sample is to be compared with when it comes, and what becomes of it when it is old."""

    def __init__(self, file: SqliteFile, diagnostics: Diagnostics) -> None:
        super().__init__(file)
        self._file = file
        self._diagnostics = diagnostics
        self._last_tag = 0
        self._newest: Newest | None = None
        """None: nothing was written yet, or it is not known what of it was."""
        self._closed_until: Micros = FIRST
        """Where a sample of before then comes, a chunk may have it."""
        self._corrections = 0
        """Since it is open: closing must not go on with what it read before one."""

    @contextmanager
    def _known(self, database: sqlite3.Connection) -> Iterator[Newest]:
        """A transaction, with what has to be known of samples inside; an error leaves it to be read anew."""
        newest, self._newest = self._newest, None
        with transaction(database):
            if newest is None:
                newest = Newest.load(database, self._last_tag)
                self._closed_until = book(database, "closed_until", FIRST)
            yield newest
        self._newest = newest

    def _closing(self, config: HistorianConfig) -> list[Chore]:
        if not config.close_after:
            return []
        return [Chore("closing partitions", _LOOK, Aged(self, config.close_after, self._diagnostics).close)]

    async def product(self) -> str:
        """What database it is, with its version, for a person."""
        return f"SQLite {sqlite3.sqlite_version}"

    async def used(self) -> int:
        """What it holds now, without its free pages [byte]."""
        return (await self._file.room()).used

    async def present(self) -> Micros | None:
        """What time it is in the plant, by its newest samples; None: there is no sample."""
        return present_of(await self._file.read(latest_samples, range(1, self._last_tag + 1)))

    async def rows_before(self, until: Micros, most: int) -> tuple[int, Micros]:
        """How many samples of before then are not closed, counted up to ``most``, and the time of the oldest."""
        return await self._file.read(rows_before, until, most)

    async def close_before(self, until: Micros) -> Closed:
        """Close all samples of before then by whole minutes (see :mod:`plugin.historian.closed.closing`).

        Cancelled, it leaves what is closed by then; called again, it goes on.
        """
        done = Closed()
        while (slice_ := await self._file.read(next_slice, until)) is not None:
            done += replace(await self._close(slice_), slices=1)
        return done

    async def _close(self, slice_: Slice) -> Closed:
        done = Closed()
        for _ in range(_TRIES):
            corrections = self._corrections
            before = await self._file.read(read, slice_)
            with suppress(Changed):
                for portion in before.portions():
                    after = await asyncio.to_thread(close, portion)
                    roll_ups = await self._file.read(roll_up_again, portion, after.minutes)
                    done += await self._file.write(self._replace, portion, after, roll_ups, corrections)
                return done
        # Late samples come as fast as we read: now they have to wait.
        return done + await self._file.write(self._close_at_once, slice_)

    def _replace(
        self,
        database: sqlite3.Connection,
        before: Before,
        after: After,
        roll_ups: Mapping[Level, RollUps],
        corrections: int,
    ) -> Closed:
        if corrections != self._corrections:
            raise Changed
        with self._diagnostics.stage("close"), self._known(database) as newest:
            newest.keep_before(database, before.slice.end)
            done = write(database, before, after, roll_ups, time.time_ns() // 1000)
            self._closed_until = max(self._closed_until, before.slice.end)
        return done

    def _close_at_once(self, database: sqlite3.Connection, slice_: Slice) -> Closed:
        with self._diagnostics.stage("close"), self._known(database) as newest:
            newest.keep_before(database, slice_.end)
            after = close(before := read(database, slice_))
            done = write(
                database, before, after, roll_up_again(database, before, after.minutes), time.time_ns() // 1000
            )
            self._closed_until = max(self._closed_until, slice_.end)
        return done

    # --- roll-ups and corrections ---

    async def roll_ups(
        self, tags: Sequence[int], start: Micros, end: Micros, *, level: Level | None = None, points: int = 1000
    ) -> RollUps:
        """See the protocol."""
        return await self._file.read(roll_ups, tags, start, end, level or Level.finest(end - start, points))

    async def correct(self, samples: SampleBatch, *, user: str, reason: str, origin: str = "command") -> Corrected:
        """See the protocol. A sample of a tag that was never registered refuses all (StoreError)."""
        refuse_strangers(samples, self._last_tag, f"{self._file.path}: corrections")
        if not len(samples):
            return Corrected(0, 0, 0)
        return await self._file.write(self._correct, samples, user, reason, origin)

    def _correct(
        self, database: sqlite3.Connection, batch: SampleBatch, user: str, reason: str, origin: str
    ) -> Corrected:
        self._corrections += 1
        with self._known(database) as newest:
            now = time.time_ns() // 1000
            batch = self._looks.arrive(replace(batch, received_time=np.full(len(batch), now)), now)
            done, new = correct(database, batch, Act(int(batch.received_time[0]), user, reason, origin))
            insert_samples(database, new, self._closed_until)
            newest.stored(database, batch)
            count(database, len(new))
        self._corrected(batch)
        return done

    def _corrected(self, batch: SampleBatch) -> None:
        """For whoever holds samples elsewhere; called in the thread of the commits."""

    async def modified(self, tags: Sequence[int], start: Micros, end: Micros) -> Modified:
        """See the protocol."""
        return await self._file.read(select_modified, tags, start, end)
