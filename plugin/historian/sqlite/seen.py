"""Samples for a grid, out of SQLite: the columns that a model sees, and no others where they can be left alone."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Micros, SampleBatch
from plugin.historian.closed.chunks import Chunk, decode
from plugin.historian.sqlite.connections import snapshot
from plugin.historian.sqlite.selecting import closed_chunks, listed, select_earlier, select_samples

_FETCH = 500
"""Rows at a time: what they are made of stays in the cache, and is gone before the garbage collector looks. With 10,000
at a time a row costs three times as much."""
_TAG_BITS = 31
"""Of a tag's number; with the 32 of a status they fill an integer of SQLite."""
_MOST = 0.8


def select_seen(
    database: sqlite3.Connection,
    tags: Sequence[int],
    start: Micros,
    end: Micros,
    known_by: Micros | None,
    received_by: Micros | None,
) -> SampleBatch:
    """As :meth:`plugin.protocols.Store.read_samples`, but for texts, server and received time, which say nothing."""
    with snapshot(database):
        if (known_by, received_by) != (None, None) and select_earlier(database, tags, start, end):
            return select_samples(database, tags, start, end, known_by, received_by)
        parts = [
            _seen(chunks, start, end, known_by, received_by) for chunks in closed_chunks(database, tags, start, end)
        ]
        parts.append(_select_open(database, tags, start, end, known_by, received_by))
    return _by_tag_and_time(SampleBatch.concatenate(parts))


def _seen(
    chunks: Sequence[Chunk], start: Micros, end: Micros, known_by: Micros | None, received_by: Micros | None
) -> SampleBatch:
    """Clocks are decoded only of chunks that may hold a sample that is too late."""
    late = [_may_be_late(chunk, known_by, received_by) for chunk in chunks]
    sure, _ = decode([chunk for chunk, each in zip(chunks, late, strict=True) if not each], clocks=False)
    if any(late):
        rest, _ = decode([chunk for chunk, each in zip(chunks, late, strict=True) if each])
        in_time = np.ones(len(rest), np.bool_)
        for clock, bound in ((rest.server_time, known_by), (rest.received_time, received_by)):
            if bound is not None:
                in_time &= clock <= bound
        sure = SampleBatch.concatenate([sure, rest.take(in_time)])
    inside = (sure.source_time >= start) & (sure.source_time < end)
    return sure if inside.all() else sure.take(inside)


def _may_be_late(chunk: Chunk, known_by: Micros | None, received_by: Micros | None) -> bool:
    """From the widths of its codes: the latest that they could say."""
    server = chunk.last_time + chunk.server_base + chunk.server_unit * (256**chunk.server_width - 1)
    received = server + chunk.received_base + chunk.received_unit * (256**chunk.received_width - 1)
    return (known_by is not None and server > known_by) or (received_by is not None and received > received_by)


def _select_open(
    database: sqlite3.Connection,
    tags: Sequence[int],
    start: Micros,
    end: Micros,
    known_by: Micros | None,
    received_by: Micros | None,
) -> SampleBatch:
    """Rows that are not yet closed, in the order of their key."""
    conditions = ["source_time >= :start AND source_time < :end"]
    if known_by is not None:
        conditions.append("source_time + server_delay <= :known_by")
    if received_by is not None:
        conditions.append("source_time + server_delay + received_delay <= :received_by")
    if not _most(database, tags):
        conditions.append("tag_id IN (SELECT value FROM json_each(:tags))")
    # Each number that becomes Python's costs as much as a row's way through the table: two of them travel as one.
    query = f"""
        SELECT source_time, (status << {_TAG_BITS}) | tag_id, value FROM samples
        WHERE {" AND ".join(conditions)} ORDER BY source_time, tag_id, ordinal
    """  # noqa: S608  only conditions of ours are put in
    bounds = {"start": start, "end": end, "known_by": known_by, "received_by": received_by}
    cursor = database.execute(query, bounds | {"tags": listed(tags)})
    parts = []
    while rows := cursor.fetchmany(_FETCH):
        time, both, value = zip(*rows, strict=True)
        parts.append((np.array(time, np.int64), np.array(both, np.int64), np.array(value, np.float64)))
    return _unpacked(parts, tags)


def _most(database: sqlite3.Connection, tags: Sequence[int]) -> bool:
    """Whether they are most of all tags: then it is cheaper to read all, and to leave out the others here."""
    count: int = database.execute("SELECT coalesce(max(id), 0) FROM tags").fetchone()[0]
    return len(tags) > count * _MOST


def _unpacked(parts: Sequence[tuple[NDArray[Any], ...]], tags: Sequence[int]) -> SampleBatch:
    if not parts:
        return SampleBatch.empty()
    time, both, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    tag, status = both & (2**_TAG_BITS - 1), (both >> _TAG_BITS) & (2**32 - 1)
    found = SampleBatch.of(tag, time, value, status, 0, 0)
    asked = np.isin(found.tag, tags)
    return found if asked.all() else found.take(asked)


def _by_tag_and_time(batch: SampleBatch) -> SampleBatch:
    """Stable: of equal times those that were closed came before those that are not yet.

    Either part has its order, and mostly all that is open is newer: only the tags with late samples are sorted by time.
    """
    if (np.diff(batch.tag) < 0).any():
        tag = batch.tag.astype(np.uint16) if batch.tag.max() < 2**16 else batch.tag  # 16 bits are sorted in one pass
        batch = batch.take(np.argsort(tag, kind="stable"))
    back = (np.diff(batch.tag) == 0) & (np.diff(batch.source_time) < 0)
    if not back.any():
        return batch
    rows = np.flatnonzero(np.isin(batch.tag, batch.tag[1:][back]))
    order = np.arange(len(batch))
    order[rows] = rows[np.lexsort((batch.source_time[rows], batch.tag[rows]))]
    return batch.take(order)
