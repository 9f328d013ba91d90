"""Corrections in SQLite: a value takes the place of another, which is kept.

A sample that is in a chunk is taken out of it and put, corrected, among the rows: closing puts it back, and rolls up
anew what it stands in.
"""

import json
import sqlite3
from collections.abc import Sequence

import numpy as np

from plugin.domain import Audit, Level, Micros, Modified, SampleBatch, UpdateType
from plugin.historian.closed.chunks import Chunk, decode
from plugin.historian.closed.keyed import Keyed, merged
from plugin.historian.closed.late import clusters
from plugin.historian.closed.rolling import TABLES
from plugin.historian.corrected import Act, equal, last_of_each, modified_of, standing, without
from plugin.historian.people_records import audit_record
from plugin.historian.rows import to_rows
from plugin.historian.sqlite.closing import insert_chunks
from plugin.historian.sqlite.selecting import ROWS, chunks_of, fetch, listed, select_texts_at
from plugin.protocols import Corrected

_COLUMNS = "tag_id, source_time, value, status, server_time, received_time"
_OPEN = f"""
SELECT {", ".join(f"s.{name}" for name in ROWS.split(", "))}
FROM json_each(?) AS k CROSS JOIN samples AS s
ON s.source_time = json_extract(k.value, '$[1]') AND s.tag_id = json_extract(k.value, '$[0]')
"""  # noqa: S608  only names are put in
_KEEP = f"""
INSERT INTO modified_samples ({_COLUMNS}, ordinal, modified, text, update_type, user_name, reason)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""  # noqa: S608  only names are put in
_PUT = f"INSERT OR REPLACE INTO samples ({ROWS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  only names
_MODIFIED = f"""
SELECT {_COLUMNS}, ordinal, text, modified, update_type, user_name, reason FROM modified_samples
WHERE tag_id IN (SELECT value FROM json_each(?)) AND source_time >= ? AND source_time < ?
ORDER BY tag_id, source_time, ordinal, modified
"""  # noqa: S608  only names are put in


def correct(database: sqlite3.Connection, batch: SampleBatch, act: Act) -> tuple[Corrected, SampleBatch]:
    """Inside a transaction. Samples of times that have none are given back, to be inserted.

    The audit log tells of all that was changed, these included.
    """
    batch = last_of_each(batch)
    chunks = chunks_of(database, clusters(batch))
    closed = Keyed(*decode([chunk for _, chunk in chunks]))
    stamps = list(zip(batch.tag.tolist(), batch.source_time.tolist(), strict=True))
    known = merged([closed, fetch(database.execute(_OPEN, (json.dumps(stamps),)))])
    there, old = standing(known, batch)
    new, texts = batch.take(there), select_texts_at(database, old)
    before = old.with_texts(texts)
    differs = ~equal(before, new)
    if differs.any():
        _exchange(database, old.take(differs), before.take(differs), new.take(differs), act)
        _take_out(database, chunks, old.take(differs))
    done = Corrected(int(differs.sum()), int((~there).sum()), int((~differs).sum()))
    changed = SampleBatch.concatenate([new.take(differs), batch.take(~there)])
    if len(changed):
        _tell(database, act.entry(done, changed, _names(database, changed)))
    return done, batch.take(~there)


def _names(database: sqlite3.Connection, batch: SampleBatch) -> list[str]:
    query = "SELECT name FROM tags WHERE id IN (SELECT value FROM json_each(?))"
    return [name for (name,) in database.execute(query, (listed(np.unique(batch.tag)),))]


def _tell(database: sqlite3.Connection, entry: Audit) -> None:
    record = audit_record(entry)
    cells = [json.dumps(cell) if isinstance(cell, dict) else cell for cell in record.values()]
    database.execute(
        f"INSERT INTO audit_log ({', '.join(record)}) VALUES ({', '.join('?' * len(record))})",  # noqa: S608  names
        cells,
    )


def select_modified(database: sqlite3.Connection, tags: Sequence[int], start: Micros, end: Micros) -> Modified:
    """See :meth:`plugin.protocols.Store.modified`."""
    rows = database.execute(_MODIFIED, (listed(tags), start, end)).fetchall()
    return modified_of(rows)


def _exchange(
    database: sqlite3.Connection,
    old: Keyed,
    before: SampleBatch,
    new: SampleBatch,
    act: Act,
) -> None:
    ordinals = old.ordinals.tolist()
    words = [[None] * len(old) if each.text is None else each.text.tolist() for each in (before, new)]
    rows = zip(*(column.tolist() for column in before.columns()), ordinals, words[0], strict=True)
    kept = [(*row[:7], act.time, row[7], UpdateType.REPLACED, act.user, act.reason) for row in rows]
    database.executemany(_KEEP, kept)
    database.executemany(_PUT, zip(*(column.tolist() for column in to_rows(new)), ordinals, strict=True))
    keys = list(old.each_key())
    database.executemany("DELETE FROM sample_texts WHERE tag_id = ? AND source_time = ? AND ordinal = ?", keys)
    with_text = [(*key, word) for key, word in zip(keys, words[1], strict=True) if word is not None]
    database.executemany("INSERT INTO sample_texts (tag_id, source_time, ordinal, text) VALUES (?, ?, ?, ?)", with_text)


def _take_out(database: sqlite3.Connection, chunks: Sequence[tuple[int, Chunk]], old: Keyed) -> None:
    """What is corrected out of its chunks, and their minutes out of the roll-ups: closing makes them anew."""
    gone = set(old.each_key())
    for row, chunk in chunks:
        rest = without(chunk, gone)
        if rest is None:
            continue
        (partition,) = database.execute("SELECT partition_id FROM sample_chunks WHERE rowid = ?", (row,)).fetchone()
        database.execute("DELETE FROM sample_chunks WHERE rowid = ?", (row,))
        insert_chunks(database, partition, rest.chunks)
        database.execute(
            "UPDATE sample_partitions SET samples = samples - ?, bytes = bytes + ? WHERE id = ?",
            (rest.taken, rest.growth, partition),
        )
        database.executemany(
            f"DELETE FROM {TABLES[Level.MINUTE]} WHERE tag_id = ? AND start_time = ?",  # noqa: S608  a name
            rest.minutes,
        )
