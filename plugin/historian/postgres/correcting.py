"""Corrections in PostgreSQL: a value takes the place of another, which is kept (as :mod:`.correcting` in SQLite)."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Audit, Level, Micros, Modified, SampleBatch, UpdateType
from plugin.historian.closed.chunks import Chunk, decode
from plugin.historian.closed.keyed import Keyed, merged
from plugin.historian.closed.late import clusters
from plugin.historian.closed.rolling import TABLES
from plugin.historian.corrected import Act, equal, last_of_each, modified_of, standing, without
from plugin.historian.people_records import audit_record
from plugin.historian.postgres.closing import insert_chunks, key_of
from plugin.historian.postgres.samples import Connection, said, written
from plugin.historian.postgres.selecting import chunks_of, keyed, texts_of
from plugin.historian.rows import COLUMNS, to_rows
from plugin.historian.schema.plant import clocks
from plugin.protocols import Corrected

_COLUMNS = "tag_id, source_time, value, status, server_time, received_time"
_OPEN = f"""
SELECT s.tag_id, s.source_time, s.value, s.status, {clocks("s")}, s.ordinal
FROM unnest($1::integer[], $2::bigint[]) AS k (tag_id, source_time)
JOIN samples AS s ON s.source_time = k.source_time AND s.tag_id = k.tag_id
"""  # noqa: S608  only names are put in
_KEEP = f"""
INSERT INTO modified_samples ({_COLUMNS}, ordinal, modified, text, update_type, user_name, reason)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""  # noqa: S608  only names are put in
_PUT = f"""
INSERT INTO samples ({COLUMNS}, ordinal) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (source_time, tag_id, ordinal) DO UPDATE SET value = excluded.value, status = excluded.status,
  server_delay = excluded.server_delay, received_delay = excluded.received_delay
"""  # noqa: S608  only names are put in
_MODIFIED = f"""
SELECT {_COLUMNS}, ordinal, text, modified, update_type, user_name, reason FROM modified_samples
WHERE tag_id = ANY ($1::integer[]) AND source_time >= $2 AND source_time < $3
ORDER BY tag_id, source_time, ordinal, modified
"""  # noqa: S608  only names are put in


async def begin(connection: Connection) -> None:
    """First in a transaction: nobody else writes samples until it ends, and closing reads anew what it had read."""
    # In this order, which closing keeps to as well.
    await connection.execute("UPDATE bookkeeping SET value = value + 1 WHERE name = 'corrections'")
    await connection.fetch("SELECT FROM bookkeeping WHERE name = 'closed_until' FOR UPDATE")


async def correct(connection: Connection, batch: SampleBatch, act: Act) -> tuple[Corrected, SampleBatch]:
    """Samples of times that have none are given back, to be inserted.

    The audit log tells of all that was changed, these included.
    """
    batch = last_of_each(batch)
    chunks = [chunk for _, chunk in await chunks_of(connection, clusters(batch))]
    rows = keyed(await connection.fetch(_OPEN, batch.tag.tolist(), batch.source_time.tolist()))
    there, old = standing(merged([Keyed(*decode(chunks)), rows]), batch)
    new, before = batch.take(there), old.with_texts(await texts_of(connection, old))
    differs = ~equal(before, new)
    if differs.any():
        await _exchange(connection, old.take(differs), before.take(differs), new.take(differs), act)
        await _take_out(connection, chunks, old.take(differs))
    done = Corrected(int(differs.sum()), int((~there).sum()), int((~differs).sum()))
    changed = SampleBatch.concatenate([new.take(differs), batch.take(~there)])
    if len(changed):
        await _tell(connection, act.entry(done, changed, await _names(connection, changed)))
    return done, batch.take(~there)


async def _names(connection: Connection, batch: SampleBatch) -> list[str]:
    query = "SELECT name FROM tags WHERE id = ANY ($1::integer[])"
    return [name for (name,) in await connection.fetch(query, np.unique(batch.tag).tolist())]


async def _tell(connection: Connection, entry: Audit) -> None:
    record = audit_record(entry)
    cells = [json.dumps(cell) if isinstance(cell, dict) else cell for cell in record.values()]
    places = ", ".join(f"${n}" for n in range(1, len(record) + 1))
    await connection.execute(f"INSERT INTO audit_log ({', '.join(record)}) VALUES ({places})", *cells)  # noqa: S608


async def select_modified(connection: Connection, tags: Sequence[int], start: Micros, end: Micros) -> Modified:
    """See :meth:`plugin.protocols.Store.modified`."""
    rows = await connection.fetch(_MODIFIED, sorted({int(tag) for tag in tags}), start, end)
    return modified_of([(*row[:7], None if row[7] is None else said(row[7]), *row[8:]) for row in rows])


async def _exchange(connection: Connection, old: Keyed, before: SampleBatch, new: SampleBatch, act: Act) -> None:
    words = [[None] * len(old) if each.text is None else each.text.tolist() for each in (before, new)]
    stored = [[None if word is None else written(word) for word in each] for each in words]
    ordinals = old.ordinals.tolist()
    rows = zip(*_cells(before.columns()), ordinals, stored[0], strict=True)
    why = UpdateType.REPLACED, act.user, act.reason
    await connection.executemany(_KEEP, [(*row[:7], act.time, row[7], *why) for row in rows])
    await connection.executemany(_PUT, list(zip(*_cells(to_rows(new)), ordinals, strict=True)))
    keys = list(old.each_key())
    of_key = "tag_id = $1 AND source_time = $2 AND ordinal = $3"
    await connection.executemany(f"DELETE FROM sample_texts WHERE {of_key}", keys)  # noqa: S608  only names
    put = "INSERT INTO sample_texts (tag_id, source_time, ordinal, text) VALUES ($1, $2, $3, $4)"
    with_text = [(*key, word) for key, word in zip(keys, stored[1], strict=True) if word is not None]
    await connection.executemany(put, with_text)


def _cells(of: Sequence[NDArray[Any]]) -> list[list[float | None]]:
    """Columns, of which the third is the value; NULL where there is no number."""
    columns = [column.tolist() for column in of]
    columns[2] = [None if each != each else each + 0.0 for each in columns[2]]  # noqa: PLR0124
    return columns


async def _take_out(connection: Connection, chunks: Sequence[Chunk], old: Keyed) -> None:
    """What is corrected out of its chunks, and their minutes out of the roll-ups: closing makes them anew."""
    gone = set(old.each_key())
    for chunk in chunks:
        rest = without(chunk, gone)
        if rest is None:
            continue
        partition = await connection.fetchval(
            "DELETE FROM sample_chunks WHERE tag_id = $1 AND first_time = $2 AND first_ordinal = $3 "
            "RETURNING partition_id",
            *key_of(chunk),
        )
        await insert_chunks(connection, partition, rest.chunks)
        await connection.execute(
            "UPDATE sample_partitions SET samples = samples - $1, bytes = bytes + $2 WHERE id = $3",
            *(rest.taken, rest.growth, partition),
        )
        drop = f"DELETE FROM {TABLES[Level.MINUTE]} WHERE tag_id = $1 AND start_time = $2"  # noqa: S608  a name
        await connection.executemany(drop, rest.minutes)
