"""Samples out of SQLite: rows that are not yet closed together with chunks that are, as they were at one moment."""

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from plugin.domain import Micros, SampleBatch
from plugin.historian.closed.chunks import SPAN, Chunk, decode
from plugin.historian.closed.keyed import Key, Keyed, merged, newest
from plugin.historian.corrected import as_known
from plugin.historian.rows import COLUMNS, from_rows
from plugin.historian.schema.plant import clocks
from plugin.historian.sqlite.connections import snapshot

ROWS = f"{COLUMNS}, ordinal"
"""Of a sample that is not closed."""
_WHOLE = "tag_id, source_time, value, status, server_time, received_time, ordinal"
"""Of one in another table, whose stamps are whole."""
CHUNK_COLUMNS = ", ".join(f"c.{name}" for name in Chunk._fields)
FIRST, LAST = -(2**63), 2**63 - 1
"""The times that there are [µs]."""
_FETCH = 500
"""Rows at a time: what they are made of stays in the cache, and is gone before the garbage collector looks. With 10,000
at a time a row costs three times as much."""
_CHUNKS = 2_000
"""Fetched and decoded at a time."""

_TEXT = """
SELECT text FROM sample_texts AS beside
WHERE beside.source_time = s.source_time AND beside.tag_id = s.tag_id AND beside.ordinal = s.ordinal
"""


def select_samples(
    database: sqlite3.Connection,
    tags: Sequence[int],
    start: Micros,
    end: Micros,
    known_by: Micros | None = None,
    received_by: Micros | None = None,
) -> SampleBatch:
    """See :meth:`plugin.protocols.Store.read_samples`."""
    with snapshot(database):
        found = select_keyed(database, tags, start, end)
        texts = select_texts(database, tags, start, end)
        earlier = [] if known_by is None and received_by is None else select_earlier(database, tags, start, end)
    batch = found.with_texts(texts)
    if earlier:
        return as_known(Keyed(batch, found.ordinals), _states(earlier), known_by, received_by)
    return batch.known(known_by, received_by)


def select_earlier(
    database: sqlite3.Connection, tags: Sequence[int], start: Micros, end: Micros
) -> list[tuple[Any, ...]]:
    """Whole columns and text of samples as they were before they were corrected, in the order that this happened."""
    query = f"""
        SELECT {_WHOLE}, text FROM modified_samples
        WHERE tag_id IN (SELECT value FROM json_each(?)) AND source_time >= ? AND source_time < ? ORDER BY modified
    """  # noqa: S608  only names are put in
    return database.execute(query, (listed(tags), start, end)).fetchall()


def _states(rows: Sequence[tuple[Any, ...]]) -> Keyed:
    """From whole columns and text."""
    tag, time, value, status, server, received, ordinals, text = zip(*rows, strict=True)
    batch = SampleBatch.of(tag, time, np.array(value, np.float64), status, server, received)
    return Keyed(replace(batch, text=np.array(text, np.object_)), np.array(ordinals, np.int32))


def select_keyed(database: sqlite3.Connection, tags: Sequence[int], start: Micros, end: Micros) -> Keyed:
    """The same without texts, in a transaction of the caller."""
    return merged([select_closed(database, tags, start, end), select_open(database, tags, start, end)])


def select_open(database: sqlite3.Connection, tags: Sequence[int] | None, start: Micros, end: Micros) -> Keyed:
    """Rows that are not yet closed, of ``tags`` (None: of all), in the order of time."""
    condition = "source_time >= ?1 AND source_time < ?2 AND (?3 IS NULL OR tag_id IN (SELECT value FROM json_each(?3)))"
    parameters = start, end, None if tags is None else listed(tags)
    query = f"SELECT {ROWS} FROM samples WHERE {condition} ORDER BY source_time, tag_id, ordinal"  # noqa: S608
    return fetch(database.execute(query, parameters))


def select_closed(database: sqlite3.Connection, tags: Sequence[int], start: Micros, end: Micros) -> Keyed:
    """Samples in chunks, by tag and time."""
    portions = closed_chunks(database, tags, start, end)
    return merged([Keyed(*decode(chunks)).between(start, end) for chunks in portions])


def closed_chunks(
    database: sqlite3.Connection, tags: Sequence[int], start: Micros, end: Micros
) -> Iterator[Sequence[Chunk]]:
    """Chunks with samples of that time, by tag and time, some at a time."""
    if end <= start:
        return
    query = f"""
        SELECT {CHUNK_COLUMNS} FROM json_each(?) AS t CROSS JOIN sample_chunks AS c ON c.tag_id = t.value
        WHERE c.first_time > ? AND c.first_time < ? AND c.last_time >= ?
    """  # noqa: S608  only names are put in
    cursor = database.execute(query, (listed(tags), max(start - SPAN, FIRST), end, start))
    while rows := cursor.fetchmany(_CHUNKS):
        yield [Chunk._make(row) for row in rows]


def chunks_of(database: sqlite3.Connection, stretches: Sequence[tuple[int, Micros, Micros]]) -> list[tuple[int, Chunk]]:
    """Chunks with samples in one of the stretches (tag, first, last), each once, with the keys of their rows."""
    tag, first, last, before = (f"json_extract(k.value, '$[{place}]')" for place in range(4))
    query = f"""
        SELECT c.rowid, {CHUNK_COLUMNS} FROM json_each(?) AS k CROSS JOIN sample_chunks AS c ON c.tag_id = {tag}
        WHERE c.first_time > {before} AND c.first_time <= {last} AND c.last_time >= {first}
    """  # noqa: S608  only names are put in
    asked = [(tag, first, last, max(first - SPAN, FIRST)) for tag, first, last in stretches]
    found = {row[0]: Chunk(*row[1:]) for row in database.execute(query, (json.dumps(asked),))}
    return sorted(found.items(), key=_by_first_sample)


def _by_first_sample(keyed: tuple[int, Chunk]) -> Key:
    return keyed[1].tag_id, keyed[1].first_time, keyed[1].first_ordinal


def select_texts(database: sqlite3.Connection, tags: Sequence[int], start: Micros, end: Micros) -> Mapping[Key, str]:
    """Texts by the keys of their samples, whether these are closed or not."""
    query = """
        SELECT tag_id, source_time, ordinal, text FROM sample_texts
        WHERE source_time >= ? AND source_time < ? AND tag_id IN (SELECT value FROM json_each(?))
    """
    rows = database.execute(query, (start, end, listed(tags)))
    return {(tag, time, ordinal): text for tag, time, ordinal, text in rows}


def select_texts_at(database: sqlite3.Connection, keyed: Keyed) -> Mapping[Key, str]:
    """Texts of these samples."""
    query = """
        SELECT s.tag_id, s.source_time, s.ordinal, s.text FROM json_each(?) AS k CROSS JOIN sample_texts AS s
        ON s.source_time = json_extract(k.value, '$[1]') AND s.tag_id = json_extract(k.value, '$[0]')
        AND s.ordinal = json_extract(k.value, '$[2]')
    """
    rows = database.execute(query, (json.dumps(list(keyed.each_key())),))
    return {(tag, time, ordinal): text for tag, time, ordinal, text in rows}


# --- the newest ---


def latest_samples(database: sqlite3.Connection, tags: Sequence[int]) -> SampleBatch:
    """The newest sample of each tag that has one, by tag."""
    with snapshot(database):
        kept = _found(database, "latest_samples AS s WHERE s.tag_id IN (SELECT value FROM json_each(?))", listed(tags))
        since = book(database, "latest_since", FIRST)
        newer = _found(database, f"({_NEWEST_OPEN}) AS s", since, listed(tags))
    found = newest(kept, newer).samples
    return found if found.with_text().any() else replace(found, text=None)


_NEWEST_OPEN = f"""
SELECT n.tag_id, n.source_time, max(o.ordinal) AS ordinal, o.value, o.status, {clocks("o")}
FROM (SELECT tag_id, max(source_time) AS source_time FROM samples WHERE source_time >= ?
      AND tag_id IN (SELECT value FROM json_each(?)) GROUP BY tag_id) AS n
CROSS JOIN samples AS o ON o.source_time = n.source_time AND o.tag_id = n.tag_id
GROUP BY n.tag_id
"""  # noqa: S608  only names are put in


def _found(database: sqlite3.Connection, source: str, *parameters: Micros | str) -> Keyed:
    columns = ", ".join(f"s.{name}" for name in _WHOLE.split(", "))
    cursor = database.execute(f"SELECT {columns}, ({_TEXT}) FROM {source}", parameters)  # noqa: S608  only names
    parts = []
    while rows := cursor.fetchmany(_FETCH):
        parts.append(_states(rows))
    return merged(parts)


def book(database: sqlite3.Connection, name: str, default: int) -> int:
    """A number of the historian's bookkeeping."""
    row = database.execute("SELECT value FROM bookkeeping WHERE name = ?", (name,)).fetchone()
    return default if row is None else int(row[0])


# --- rows to columns ---


def fetch(cursor: sqlite3.Cursor) -> Keyed:
    """What is left of a cursor over ``ROWS``."""
    parts = []
    while rows := cursor.fetchmany(_FETCH):
        *columns, ordinals = zip(*rows, strict=True)
        parts.append((from_rows(columns), np.array(ordinals, np.int32)))
    if not parts:
        return Keyed.empty()
    return Keyed(SampleBatch.concatenate([batch for batch, _ in parts]), np.concatenate([each for _, each in parts]))


def listed(tags: Collection[int]) -> str:
    """For json_each: each once, in order."""
    return json.dumps(sorted({int(tag) for tag in tags}))
