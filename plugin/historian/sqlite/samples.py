"""Samples into SQLite, on the plain connection and in the thread that owns it.

A statement carries many rows, because ``sqlite3`` gives the interpreter away round every step of a statement: row by
row, it would get it back only after the other threads' turns, and a busy event loop would slow a writer of 700,000
rows/s down to 1,000.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from typing import Any

import numpy as np

from plugin.domain import Gap, Micros, Remark, SampleBatch, to_micros
from plugin.historian.closed.chunks import decode
from plugin.historian.closed.keyed import Keyed
from plugin.historian.closed.late import Stamp, Stamped, clusters, places, stamped
from plugin.historian.rows import COLUMNS, to_rows
from plugin.historian.sqlite.selecting import FIRST, chunks_of
from plugin.protocols import Written

_SIZES = (1024, 256, 64, 16, 4, 1)
"""Rows per statement; the largest has 6,144 parameters, and SQLite allows 32,766."""

_GAP = "id, source, tag, start_time, end_time, cause, detected, state, rows_filled, detail"
_KEEP_GAP = f"""
INSERT OR REPLACE INTO gap_history (known_until, gap_id, known_from, start_time, end_time, state, rows_filled, detail)
SELECT ?11, id, known_from, start_time, end_time, state, rows_filled, detail FROM gaps
WHERE id = ?1 AND ({_GAP}) IS NOT (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
"""  # noqa: S608  only names are put in
_UPSERT_GAP = f"""
INSERT INTO gaps ({_GAP}, known_from) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET source = excluded.source, tag = excluded.tag, start_time = excluded.start_time,
  end_time = excluded.end_time, cause = excluded.cause, detected = excluded.detected, state = excluded.state,
  rows_filled = excluded.rows_filled, detail = excluded.detail, known_from = excluded.known_from
WHERE ({", ".join(f"gaps.{name}" for name in _GAP.split(", "))})
  IS NOT ({", ".join(f"excluded.{name}" for name in _GAP.split(", "))})
"""  # noqa: S608  only names are put in
_UPSERT_REMARK = """
INSERT INTO remarks (source_time, source, tag, kind, detail) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (source_time, source, tag, kind) DO UPDATE SET detail = excluded.detail
"""
_UPSERT_CHECKPOINT = """
INSERT INTO checkpoints (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""


_TEXT_OF_OLD = """
SELECT text FROM sample_texts AS beside
WHERE beside.source_time = old.source_time AND beside.tag_id = old.tag_id AND beside.ordinal = old.ordinal
"""


@cache
def _insert_first(rows: int) -> str:
    values = ", ".join(["(?, ?, 0, ?, ?, ?, ?)"] * rows)
    columns = "tag_id, source_time, ordinal, value, status, server_delay, received_delay"
    return f"INSERT OR IGNORE INTO samples ({columns}) VALUES {values}"  # noqa: S608  only place holders are put in


@cache
def _insert_collisions(rows: int) -> str:
    """Insert those rows, of the same parameters, whose source time is taken by another value; equal ones are left out.

    They get the next ordinals in order of arrival. ``min(place)`` makes SQLite take the other columns from that row, so
    of equal rows in one statement the first is kept.
    """
    values = ", ".join(f"({place}, ?, ?, ?, ?, ?, ?)" for place in range(rows))
    return f"""
        INSERT INTO samples (tag_id, source_time, ordinal, value, status, server_delay, received_delay)
        WITH sent (place, {COLUMNS}) AS (VALUES {values}),
        fresh AS (
          SELECT min(place) AS place, {COLUMNS} FROM sent
          WHERE NOT EXISTS (
            SELECT 1 FROM samples AS old WHERE old.source_time = sent.source_time AND old.tag_id = sent.tag_id
            AND old.value IS sent.value AND old.status = sent.status
            AND NOT EXISTS ({_TEXT_OF_OLD}))
          GROUP BY tag_id, source_time, value, status)
        SELECT tag_id, source_time,
          (SELECT max(ordinal) FROM samples AS old
           WHERE old.source_time = fresh.source_time AND old.tag_id = fresh.tag_id)
          + row_number() OVER (PARTITION BY source_time, tag_id ORDER BY place),
          value, status, server_delay, received_delay
        FROM fresh
    """  # noqa: S608  only place holders and numbers are put in


@cache
def _ordinals(rows: int) -> str:
    """One row, a JSON list of (place, ordinal): which of the rows sent are new, texts considered, and their keys."""
    values = ", ".join(f"({place}, ?, ?, ?, ?, ?)" for place in range(rows))
    return f"""
        WITH sent (place, tag_id, source_time, value, status, text) AS (VALUES {values}),
        fresh AS (
          SELECT min(place) AS place, tag_id, source_time FROM sent
          WHERE NOT EXISTS (
            SELECT 1 FROM samples AS old WHERE old.source_time = sent.source_time AND old.tag_id = sent.tag_id
            AND old.value IS sent.value AND old.status = sent.status AND ({_TEXT_OF_OLD}) IS sent.text)
          GROUP BY tag_id, source_time, value, status, text),
        keyed AS (
          SELECT place,
            coalesce((SELECT max(ordinal) FROM samples AS old
                      WHERE old.source_time = fresh.source_time AND old.tag_id = fresh.tag_id), -1)
            + row_number() OVER (PARTITION BY source_time, tag_id ORDER BY place) AS ordinal
          FROM fresh)
        SELECT json_group_array(json_array(place, ordinal)) FROM keyed
    """  # noqa: S608  only place holders and numbers are put in


@cache
def _insert_keyed(rows: int) -> str:
    values = ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * rows)
    columns = f"{COLUMNS}, ordinal"
    return f"INSERT INTO samples ({columns}) VALUES {values}"  # noqa: S608  only place holders are put in


@cache
def _insert_texts(rows: int) -> str:
    values = ", ".join(["(?, ?, ?, ?)"] * rows)
    return f"INSERT INTO sample_texts (tag_id, source_time, ordinal, text) VALUES {values}"  # noqa: S608  place holders


def insert_samples(database: sqlite3.Connection, batch: SampleBatch, closed_until: Micros = FIRST) -> Written:
    """Insert a batch inside a transaction; samples that are there already change nothing (NaN is stored as NULL).

    ``closed_until``: samples from before that time may be in a chunk.
    """
    late = batch.source_time < closed_until
    if not late.any():
        return _insert(database, batch)
    prompt, behind = _insert(database, batch.take(~late)), _insert_late(database, batch.take(late))
    return Written(prompt.stored + behind.stored, prompt.duplicates + behind.duplicates)


def _insert_late(database: sqlite3.Connection, batch: SampleBatch) -> Written:
    """Where a chunk has a sample of the same tag and time, the value decides."""
    closed = Keyed(*decode([chunk for _, chunk in chunks_of(database, clusters(batch))]))
    taken = places(closed, batch) >= 0
    free = _insert(database, batch.take(~taken))
    if not taken.any():
        return free
    rest = batch.take(taken)
    stored = _insert_beside(database, rest, stamped(database, closed, rest))
    return Written(free.stored + stored, free.duplicates + len(rest) - stored)


def _insert_beside(database: sqlite3.Connection, batch: SampleBatch, stamps: Mapping[Stamp, Stamped]) -> int:
    """Insert what is new at times that have samples, behind them; returns how many it was."""
    fresh, texts = [], []
    columns = [column.tolist() for column in to_rows(batch)]
    words = [None] * len(batch) if batch.text is None else batch.text.tolist()
    for row, text in zip(zip(*columns, strict=True), words, strict=True):
        (tag, time, value, status), there = row[:4], stamps[row[:2]]
        ordinal = there.add(None if value != value else value, status, text)  # noqa: PLR0124  NaN is NULL
        if ordinal is not None:
            fresh.append((*row, ordinal))
            texts += [] if text is None else [(tag, time, ordinal, text)]
    _insert_rows(database, _insert_keyed, fresh)
    _insert_rows(database, _insert_texts, texts)
    return len(fresh)


def _insert(database: sqlite3.Connection, batch: SampleBatch) -> Written:
    if batch.text is None:
        return _insert_numbers(database, batch)
    # All samples of a tag go one way, so that ordinals follow arrival.
    written = np.isin(batch.tag, batch.tag[batch.with_text()])
    numbers = _insert_numbers(database, replace(batch.take(~written), text=None))
    stored = sum(_insert_with_texts(database, part) for part in _parts(batch.take(written)))
    return Written(numbers.stored + stored, len(batch) - numbers.stored - stored)


def _parts(batch: SampleBatch) -> Iterator[SampleBatch]:
    for start, size in _slices(len(batch)):
        yield batch.take(slice(start, start + size))


def _insert_with_texts(database: sqlite3.Connection, batch: SampleBatch) -> int:
    """Insert rows that may have a text; returns how many were new."""
    columns = [column.tolist() for column in to_rows(batch)]
    texts = batch.text.tolist() if batch.text is not None else [None] * len(batch)
    rows = list(zip(*columns, strict=True))
    sent = chain.from_iterable(zip(*columns[:4], texts, strict=True))
    found = json.loads(database.execute(_ordinals(len(rows)), list(sent)).fetchone()[0])
    _insert_rows(database, _insert_keyed, [(*rows[place], ordinal) for place, ordinal in found])
    keyed = [(*rows[place][:2], ordinal, texts[place]) for place, ordinal in found if texts[place] is not None]
    _insert_rows(database, _insert_texts, keyed)
    return len(found)


def _insert_rows(
    database: sqlite3.Connection, statement: Callable[[int], str], rows: Sequence[tuple[Any, ...]]
) -> None:
    for start, size in _slices(len(rows)):
        database.execute(statement(size), list(chain.from_iterable(rows[start : start + size])))


def _insert_numbers(database: sqlite3.Connection, batch: SampleBatch) -> Written:
    """Insert rows of tags that have no text."""
    if (batch.source_time[1:] < batch.source_time[:-1]).any():
        # In the order of the key neighbouring rows share a page; stable, so that ordinals follow arrival.
        batch = batch.take(np.lexsort((batch.tag, batch.source_time)))
    rows, stored = to_rows(batch), 0
    for start, size in _slices(len(batch)):
        columns = [column[start : start + size].tolist() for column in rows]
        parameters = list(chain.from_iterable(zip(*columns, strict=True)))
        inserted = database.execute(_insert_first(size), parameters).rowcount
        if inserted < size:
            inserted += database.execute(_insert_collisions(size), parameters).rowcount
        stored += inserted
    return Written(stored, len(batch) - stored)


def _slices(rows: int) -> Iterator[tuple[int, int]]:
    """(start, size) of the statements that carry so many rows."""
    start = 0
    for size in _SIZES:
        while rows - start >= size:
            yield start, size
            start += size


def count(database: sqlite3.Connection, more: int) -> None:
    """Add to how many samples there are."""
    if more:
        database.execute(
            "INSERT INTO bookkeeping (name, value) VALUES ('samples', ?) "
            "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (more,),
        )


def upsert_gaps(database: sqlite3.Connection, gaps: Iterable[Gap], now: Micros) -> None:
    """A gap with a known id replaces the one before, which is kept as what was known until ``now``."""
    rows = [(*_gap_row(gap), now) for gap in {gap.id: gap for gap in gaps}.values()]
    database.executemany(_KEEP_GAP, rows)
    database.executemany(_UPSERT_GAP, rows)


def _gap_row(gap: Gap) -> tuple[Any, ...]:
    end = None if gap.end is None else to_micros(gap.end)
    span = (to_micros(gap.start), end)
    return (
        gap.id,
        gap.source,
        gap.tag,
        *span,
        gap.cause,
        to_micros(gap.detected),
        gap.state,
        gap.rows_filled,
        gap.detail,
    )


def upsert_remarks(database: sqlite3.Connection, remarks: Iterable[Remark]) -> None:
    """A remark with a known key replaces the one before."""
    database.executemany(
        _UPSERT_REMARK, [(to_micros(r.source_time), r.source, r.tag, r.kind, r.detail) for r in remarks]
    )


def upsert_checkpoints(database: sqlite3.Connection, checkpoints: Mapping[str, str]) -> None:
    """What a source needs at its next start; the last text under a key wins."""
    database.executemany(_UPSERT_CHECKPOINT, checkpoints.items())
