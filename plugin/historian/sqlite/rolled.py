"""Roll-ups as they are asked for: those of the tables, and what rows that are not yet closed make of them."""

import sqlite3
from collections.abc import Sequence

from plugin.domain import Level, Micros, RollUps
from plugin.historian.closed.closing import DAY, Slice, decoded, minutes
from plugin.historian.closed.rolling import MINUTE, merged, rows_of
from plugin.historian.sqlite.closing import read, roll_up_again
from plugin.historian.sqlite.connections import snapshot
from plugin.historian.sqlite.rollups import select_roll_ups


def roll_ups(database: sqlite3.Connection, tags: Sequence[int], start: Micros, end: Micros, level: Level) -> RollUps:
    """See :meth:`plugin.protocols.Store.roll_ups`."""
    width = level.width
    first, last = start // width * width, -(-end // width) * width
    with snapshot(database):
        kept = select_roll_ups(database, level, [(int(tag), first, last) for tag in tags])
        # What is not closed stands into the first interval too; what a day ago was not closed does not come.
        begin = max(min(first, _oldest(database, first)), first - DAY)
        before = read(database, Slice(begin, begin, last, last), sorted({int(tag) for tag in tags}))
        made = minutes(before, decoded(before))
        if level is not Level.MINUTE:
            made = roll_up_again(database, before, made, last)[level]
    return merged([kept, rows_of(made, (made.start >= first) & (made.start < last))])


def _oldest(database: sqlite3.Connection, default: Micros) -> Micros:
    """The minute of the oldest row that is not closed."""
    oldest = database.execute("SELECT min(source_time) FROM samples").fetchone()[0]
    return default if oldest is None else int(oldest) // MINUTE * MINUTE
