"""The ring filled from SQLite: with the newest rows, and chunks where these do not reach back far enough."""

import sqlite3
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Micros
from plugin.historian.closed.chunks import Chunk, decode
from plugin.historian.closed.keyed import Keyed, merged
from plugin.historian.recent.ring import Ring
from plugin.historian.sqlite.connections import snapshot
from plugin.historian.sqlite.selecting import CHUNK_COLUMNS, FIRST, ROWS, fetch, listed


def refill(database: sqlite3.Connection, ring: Ring, last_tag: int, limit: int) -> None:
    """Put into a ring that is empty what it can hold, read from ``limit`` rows at most and about as many in chunks."""
    ring.reserve(last_tag)
    if ring.tags == ():
        return
    with snapshot(database):
        rows, missing = _newest_open(database, limit, ring.tags)
        ring.leave_out(_tags_with_text(database, missing))
        held = range(1, last_tag + 1) if ring.tags is None else ring.tags
        closed, since = _newest_closed(database, limit, held, ring.capacity)
        ring.cover_each_from(since)
        # What a corrected sample was before, only SQL can say.
        corrected = database.execute("SELECT tag_id, max(source_time) + 1 FROM modified_samples GROUP BY tag_id")
        ring.cover_each_from(dict(corrected.fetchall()))
    ring.append(merged([closed, rows]).samples)
    if missing is not None:
        ring.cover_from(missing + 1)


def _newest_open(
    database: sqlite3.Connection, limit: int, tags: Collection[int] | None = None
) -> tuple[Keyed, Micros | None]:
    """Of the newest ``limit`` rows that are not closed those of ``tags`` (None: all), without their texts.

    And the source time up to which rows are missing (None: it is all).
    """
    order = "ORDER BY source_time DESC, tag_id DESC, ordinal DESC"
    last = database.execute(f"SELECT source_time FROM samples {order} LIMIT 1 OFFSET ?", (limit - 1,)).fetchone()  # noqa: S608
    missing: Micros | None = None if last is None else last[0]
    chosen = "source_time >= ? AND (? OR tag_id IN (SELECT value FROM json_each(?)))"
    parameters = (FIRST if missing is None else missing, tags is None, listed(tags or ()))
    query = f"SELECT {ROWS} FROM samples WHERE {chosen} {order} LIMIT ?"  # noqa: S608
    return fetch(database.execute(query, (*parameters, limit))).take(slice(None, None, -1)), missing


def _newest_closed(
    database: sqlite3.Connection, limit: int, tags: Collection[int], each: int
) -> tuple[Keyed, Mapping[int, Micros]]:
    """Newest samples in chunks, ``each`` of each tag but at most ``limit`` in all, and a few more.

    And from which source time on that is all of a tag, where it has older ones.
    """
    query = f"SELECT {CHUNK_COLUMNS} FROM sample_chunks AS c WHERE c.tag_id = ? ORDER BY c.first_time DESC"  # noqa: S608
    each = min(each, limit // max(len(tags), 1))
    found: list[Chunk] = []
    since: dict[int, Micros] = {}
    for tag in tags:
        left, cursor = each, database.execute(query, (tag,))
        while left > 0 and (row := cursor.fetchone()) is not None:
            found.append(Chunk(*row))
            left -= found[-1].samples
        if left <= 0 and cursor.fetchone() is not None:
            # The chunk before it may end with other values of the time that this one begins with.
            since[tag] = found[-1].first_time + 1
        cursor.close()
    return merged([Keyed(*decode(found))]), since


def _tags_with_text(database: sqlite3.Connection, after: Micros | None) -> NDArray[np.int32]:
    """Tags of which a sample after that source time (None: any sample) has a text."""
    query = "SELECT DISTINCT tag_id FROM sample_texts"
    if after is None:
        return np.array(database.execute(query).fetchall(), np.int32).ravel()
    return np.array(database.execute(f"{query} WHERE source_time > ?", (after,)).fetchall(), np.int32).ravel()
