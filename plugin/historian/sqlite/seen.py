"""Samples for a grid, out of SQLite: the columns that a model sees, and no others where they can be left alone."""

import sqlite3
from collections.abc import Sequence

import numpy as np

from plugin.domain import Micros, SampleBatch
from plugin.historian.closed.chunks import Chunk, decode
from plugin.historian.sqlite.connections import snapshot
from plugin.historian.sqlite.selecting import closed_chunks, listed, select_earlier, select_samples

_FETCH = 500
"""Rows at a time: what they are made of stays in the cache, and is gone before the garbage collector looks. With 10,000
at a time a row costs three times as much."""


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
    query = """
        SELECT tag_id, source_time, value, status FROM samples
        WHERE source_time >= ?1 AND source_time < ?2 AND tag_id IN (SELECT value FROM json_each(?3))
        AND (?4 IS NULL OR source_time + server_delay <= ?4)
        AND (?5 IS NULL OR source_time + server_delay + received_delay <= ?5)
        ORDER BY source_time, tag_id, ordinal
    """
    cursor = database.execute(query, (start, end, listed(tags), known_by, received_by))
    parts = []
    while rows := cursor.fetchmany(_FETCH):
        tag, time, value, status = zip(*rows, strict=True)
        parts.append(SampleBatch.of(tag, time, value, status, 0, 0))
    return SampleBatch.concatenate(parts)


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
