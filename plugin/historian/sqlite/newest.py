"""The newest sample of each tag, as the process that writes knows it; and the table of them, which it keeps for others.

The table is written every few seconds, not with every commit: ``latest_since`` says from which source time on a row may
be newer than what the table has. A row from before then that is its tag's newest all the same is put there at once.
"""

import json
import sqlite3
import time
from typing import Self

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Micros, SampleBatch
from plugin.historian.schema.plant import clocks
from plugin.historian.sqlite.selecting import FIRST, book, latest_samples

_EVERY = 2.0
"""Between two times that the table is written [s]."""

_KEEP = f"""
INSERT OR REPLACE INTO latest_samples (tag_id, source_time, ordinal, value, status, server_time, received_time)
SELECT o.tag_id, o.source_time, max(o.ordinal), o.value, o.status, {clocks("o")}
FROM json_each(?) AS k CROSS JOIN samples AS o
ON o.source_time = json_extract(k.value, '$[1]') AND o.tag_id = json_extract(k.value, '$[0]')
GROUP BY o.tag_id
"""  # noqa: S608  only names are put in


class Newest:
    """By tag; its methods are called in the thread, and inside the transactions, of the connection that writes."""

    def __init__(self) -> None:
        self._time = np.full(0, FIRST, np.int64)
        self._behind = np.zeros(0, np.bool_)
        """Tags whose row in the table may be old."""
        self._since: Micros = FIRST
        self._written = -np.inf

    @classmethod
    def load(cls, database: sqlite3.Connection, last_tag: int) -> Self:
        """As the database has it."""
        newest = cls()
        newest._since = book(database, "latest_since", FIRST)
        found = latest_samples(database, range(1, last_tag + 1))
        newest._note(found)
        newest._behind[found.tag] = found.source_time >= newest._since
        return newest

    def stored(self, database: sqlite3.Connection, batch: SampleBatch) -> None:
        """Take note of samples that were stored just now; some of them may have been there before."""
        if len(batch):
            self._reserve(int(batch.tag.max()))
            # Equal ones too: the last of several values of one time is the newest.
            newer = batch.source_time >= self._time[batch.tag]
            self._note(batch)
            self._behind[batch.tag[newer]] = True
            before = newer & (batch.source_time < self._since)
            if before.any():
                self._put(database, np.unique(batch.tag[before]))
        if time.monotonic() - self._written >= _EVERY:
            self.keep(database)

    def keep(self, database: sqlite3.Connection) -> None:
        """Bring the table up to date: whatever becomes of the rows then, it has the newest."""
        behind = np.flatnonzero(self._behind)
        self._written = time.monotonic()
        if not len(behind):
            return
        self._put(database, behind)
        # The time that half of them have reached, but never one to come: stamps of 9999 would make all others late.
        self._since = min(int(np.sort(self._time[behind])[len(behind) // 2]), time.time_ns() // 1000)
        database.execute("INSERT OR REPLACE INTO bookkeeping (name, value) VALUES ('latest_since', ?)", (self._since,))

    def keep_before(self, database: sqlite3.Connection, until: Micros) -> None:
        """The same for tags that have nothing newer: the rows of before then go."""
        behind = np.flatnonzero(self._behind & (self._time < until))
        if len(behind):
            self._put(database, behind)

    def _put(self, database: sqlite3.Connection, tags: NDArray[np.intp] | NDArray[np.int32]) -> None:
        keys = list(zip(tags.tolist(), self._time[tags].tolist(), strict=True))
        database.execute(_KEEP, (json.dumps(keys),))
        self._behind[tags] = False

    def _note(self, batch: SampleBatch) -> None:
        if len(batch):
            self._reserve(int(batch.tag.max()))
            np.maximum.at(self._time, batch.tag, batch.source_time)

    def _reserve(self, last: int) -> None:
        if last >= len(self._time):
            more = max(last + 1, 2 * len(self._time)) - len(self._time)
            self._time = np.append(self._time, np.full(more, FIRST))
            self._behind = np.append(self._behind, np.zeros(more, np.bool_))
