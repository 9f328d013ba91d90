"""Samples in PostgreSQL: statements of the driver's own connection, inside a transaction."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Gap, Micros, Remark, SampleBatch, to_micros
from plugin.historian.copying import ARRIVED, STORED, Decoder, Fields, encoded
from plugin.historian.postgres import UNIQUE_VIOLATION
from plugin.protocols import Written

Connection = Any
"""``asyncpg.Connection``, which has no types."""


class Overlap(Exception):
    """Some of the samples are there already, or carry a stamp that is taken: nothing is written, the transaction is
    lost, and :func:`merge` is the way."""


_ARRIVED = """
CREATE TEMPORARY TABLE IF NOT EXISTS arrived (place integer, source_time bigint, tag_id integer, value float8,
  status bigint, server_time bigint, received_time bigint) ON COMMIT DELETE ROWS
"""
# The bounds let PostgreSQL leave out the partitions that none of the samples can be in.
_TEXT_OF_OLD = """
SELECT beside.text FROM sample_texts AS beside WHERE beside.source_time = old.source_time
AND beside.tag_id = old.tag_id AND beside.ordinal = old.ordinal
"""
_MERGE = f"""
WITH sent AS (
  SELECT arrived.*, texts.text FROM arrived
  LEFT JOIN unnest($3::integer[], $4::text[]) AS texts (place, text) ON texts.place = arrived.place),
fresh AS (
  SELECT DISTINCT ON (tag_id, source_time, value, status, text) * FROM sent
  WHERE NOT EXISTS (
    SELECT FROM samples AS old WHERE old.source_time = sent.source_time AND old.tag_id = sent.tag_id
    AND old.source_time BETWEEN $1 AND $2 AND old.value IS NOT DISTINCT FROM sent.value AND old.status = sent.status
    AND ({_TEXT_OF_OLD}) IS NOT DISTINCT FROM sent.text)
  ORDER BY tag_id, source_time, value, status, text, place),
keyed AS (
  SELECT fresh.*,
    coalesce((SELECT max(old.ordinal) FROM samples AS old WHERE old.source_time = fresh.source_time
              AND old.tag_id = fresh.tag_id AND old.source_time BETWEEN $1 AND $2), -1)
    + row_number() OVER (PARTITION BY source_time, tag_id ORDER BY place) AS ordinal
  FROM fresh),
texts AS (
  INSERT INTO sample_texts (source_time, tag_id, ordinal, text)
  SELECT source_time, tag_id, ordinal, text FROM keyed WHERE text IS NOT NULL)
INSERT INTO samples (source_time, tag_id, ordinal, value, status, server_time, received_time)
SELECT source_time, tag_id, ordinal, value, status, server_time, received_time FROM keyed
"""  # noqa: S608  only names are put in

_GAP = "id, source, tag, start_time, end_time, cause, detected, state, rows_filled, detail"
_TYPES = "text, text, text, bigint, bigint, text, bigint, text, bigint, text"
_SENT = ", ".join(f"${number}::{name}" for number, name in enumerate(_TYPES.split(", "), start=1))
_KEEP_GAP = f"""
INSERT INTO gap_history (known_until, gap_id, known_from, start_time, end_time, state, rows_filled, detail)
SELECT $11::bigint, id, known_from, start_time, end_time, state, rows_filled, detail FROM gaps
WHERE id = $1 AND ({_GAP}) IS DISTINCT FROM ({_SENT})
ON CONFLICT (known_until, gap_id) DO UPDATE SET known_from = excluded.known_from, start_time = excluded.start_time,
  end_time = excluded.end_time, state = excluded.state, rows_filled = excluded.rows_filled, detail = excluded.detail
"""  # noqa: S608  only names are put in
_UPSERT_GAP = f"""
INSERT INTO gaps ({_GAP}, known_from) VALUES ({_SENT}, $11)
ON CONFLICT (id) DO UPDATE SET source = excluded.source, tag = excluded.tag, start_time = excluded.start_time,
  end_time = excluded.end_time, cause = excluded.cause, detected = excluded.detected, state = excluded.state,
  rows_filled = excluded.rows_filled, detail = excluded.detail, known_from = excluded.known_from
WHERE ({", ".join(f"gaps.{name}" for name in _GAP.split(", "))})
  IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in _GAP.split(", "))})
"""  # noqa: S608  only names are put in
_UPSERT_REMARK = """
INSERT INTO remarks (source_time, source, tag, kind, detail) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (source_time, source, tag, kind) DO UPDATE SET detail = excluded.detail
"""
_UPSERT_CHECKPOINT = """
INSERT INTO checkpoints (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""

# In the order of STORED; NaN for NULL makes every row equally long.
_SELECTED = """SELECT source_time, tag_id, ordinal, coalesce(value, 'NaN'), status, server_time, received_time
FROM samples"""

_HOUR: Micros = 3_600_000_000
_ESCAPE = "\x10"
"""PostgreSQL's text can't hold the character NUL. It is written as this one (DLE) and a digit, and this one twice."""


def written(text: str) -> str:
    """A text of a sample as it is stored."""
    return text.replace(_ESCAPE, _ESCAPE * 2).replace("\0", f"{_ESCAPE}0")


def said(stored: str) -> str:
    """The text that was stored as this."""
    if _ESCAPE not in stored:
        return stored
    return _ESCAPE.join(part.replace(f"{_ESCAPE}0", "\0") for part in stored.split(_ESCAPE * 2))


# --- what arrives ---


async def _copy(connection: Connection, table: str, batch: SampleBatch, fields: Fields) -> None:
    columns = [name for name, _ in fields]
    await connection.copy_to_table(table, columns=columns, source=_portions(batch, fields), format="binary")


async def _portions(batch: SampleBatch, fields: Fields) -> AsyncIterator[bytes]:
    for portion in encoded(batch, fields):
        yield portion


async def append(connection: Connection, batch: SampleBatch) -> Written:
    """Samples of which none is expected to be there already, straight into the table; else Overlap.

    A batch with texts is not for it.
    """
    try:
        await _copy(connection, "samples", batch, STORED)
    except Exception as error:
        if getattr(error, "sqlstate", None) == UNIQUE_VIOLATION:
            raise Overlap from error
        raise
    return Written(len(batch), 0)


async def merge(connection: Connection, batch: SampleBatch) -> Written:
    """Any samples: those that are there already change nothing, those whose stamp is taken get the next ordinal."""
    await connection.execute(_ARRIVED)
    await _copy(connection, "arrived", batch, ARRIVED)
    mask = batch.with_text()
    places = np.flatnonzero(mask).tolist()
    texts = [] if batch.text is None else [written(text) for text in compress(batch.text.tolist(), mask.tolist())]
    bounds = int(batch.source_time.min()), int(batch.source_time.max())
    done: str = await connection.execute(_MERGE, *bounds, places, texts)
    stored = int(done.rpartition(" ")[2])
    return Written(stored, len(batch) - stored)


async def count(connection: Connection, more: int) -> None:
    """Add to how many samples there are."""
    if more:
        await connection.execute(
            "INSERT INTO bookkeeping (name, value) VALUES ('samples', $1) "
            "ON CONFLICT (name) DO UPDATE SET value = bookkeeping.value + excluded.value",
            more,
        )


async def upsert_gaps(connection: Connection, gaps: Iterable[Gap], now: Micros) -> None:
    """A gap with a known id replaces the one before, which is kept as what was known until ``now``."""
    rows = [(*_gap_row(gap), now) for gap in {gap.id: gap for gap in gaps}.values()]
    if rows:
        await connection.executemany(_KEEP_GAP, rows)
        await connection.executemany(_UPSERT_GAP, rows)


def _gap_row(gap: Gap) -> tuple[Any, ...]:
    end = None if gap.end is None else to_micros(gap.end)
    told = (gap.cause, to_micros(gap.detected), gap.state, gap.rows_filled, gap.detail)
    return gap.id, gap.source, gap.tag, to_micros(gap.start), end, *told


async def upsert_remarks(connection: Connection, remarks: Iterable[Remark]) -> None:
    """A remark with a known key replaces the one before."""
    rows = [(to_micros(r.source_time), r.source, r.tag, r.kind, r.detail) for r in remarks]
    if rows:
        await connection.executemany(_UPSERT_REMARK, rows)


async def upsert_checkpoints(connection: Connection, checkpoints: Mapping[str, str]) -> None:
    """What a source needs at its next start; the last text under a key wins."""
    if checkpoints:
        await connection.executemany(_UPSERT_CHECKPOINT, [*checkpoints.items()])


# --- what is read ---


async def select_samples(
    connection: Connection,
    tags: Collection[int],
    start: Micros,
    end: Micros,
    known_by: Micros | None = None,
    received_by: Micros | None = None,
) -> SampleBatch:
    """See :meth:`plugin.protocols.Store.read_samples`."""
    condition = f"source_time >= {int(start)} AND source_time < {int(end)} AND {_of(tags)}"
    for column, bound in (("server_time", known_by), ("received_time", received_by)):
        if bound is not None:
            condition += f" AND {column} <= {int(bound)}"
    batch, ordinals = await copied(connection, f"{_SELECTED} WHERE {condition}")
    return await with_texts(connection, batch, ordinals)


async def copied(connection: Connection, query: str) -> tuple[SampleBatch, NDArray[np.int16]]:
    """What a query gives whose columns are those of STORED, ordered by (tag, source time, ordinal)."""
    decoder = Decoder()
    await connection.copy_from_query(query, output=decoder.take, format="binary")
    return decoder.rows()


def _of(tags: Collection[int]) -> str:
    """A condition; the numbers are written into it, because COPY takes no parameters."""
    return f"tag_id = ANY ('{{{','.join(str(int(tag)) for tag in tags)}}}'::integer[])"


async def with_texts(connection: Connection, batch: SampleBatch, ordinals: NDArray[np.int16]) -> SampleBatch:
    """The batch, ordered by (tag, source time, ordinal), with the texts that its samples have."""
    if not len(batch):
        return batch
    first, last = int(batch.source_time.min()), int(batch.source_time.max())
    tags = np.unique(batch.tag).tolist()
    query = "SELECT tag_id, source_time, ordinal, text FROM sample_texts WHERE source_time BETWEEN $1 AND $2"
    rows = await connection.fetch(f"{query} AND tag_id = ANY ($3::integer[])", first, last, tags)
    if not rows:
        return batch
    found = {(tag, time, ordinal): said(text) for tag, time, ordinal, text in rows}
    keys = zip(batch.tag.tolist(), batch.source_time.tolist(), ordinals.tolist(), strict=True)
    texts = [found.get(key) for key in keys]
    return batch if not any(text is not None for text in texts) else replace(batch, text=_texts(texts))


def _texts(texts: Sequence[str | None]) -> NDArray[np.object_]:
    return np.array(texts, np.object_)


async def newest_samples(
    connection: Connection, limit: int, tags: Collection[int] | None = None
) -> tuple[SampleBatch, Micros | None]:
    """Of the newest ``limit`` rows those of ``tags`` (None: all), without their texts.

    And the source time up to which rows are missing (None: it is all).
    """
    order = "ORDER BY source_time DESC, tag_id DESC, ordinal DESC"
    missing = await connection.fetchval(f"SELECT source_time FROM samples {order} LIMIT 1 OFFSET $1", limit - 1)  # noqa: S608
    condition = "true" if tags is None else _of(tags)
    since = "" if missing is None else f" AND source_time > {int(missing)}"
    batch, _ = await copied(connection, f"{_SELECTED} WHERE {condition}{since}")
    return batch, missing


async def tags_with_text(connection: Connection, after: Micros | None) -> NDArray[np.int32]:
    """Tags of which a sample after that source time (None: any sample) has a text."""
    query = "SELECT DISTINCT tag_id FROM sample_texts WHERE source_time > $1"
    rows = await connection.fetch(query, -(2**63) if after is None else after)
    return np.array([row[0] for row in rows], np.int32)


async def latest_samples(connection: Connection, tags: Collection[int]) -> SampleBatch:
    """The newest sample of each tag that has one, ordered by tag; the whole table is read for a tag that has none."""
    wanted, found = {int(tag) for tag in tags}, [SampleBatch.empty()]
    oldest, newest = await connection.fetchrow("SELECT min(source_time), max(source_time) FROM samples")
    span, end = _HOUR, 0 if newest is None else newest + 1
    while wanted and newest is not None and end > oldest:
        start = max(end - span, oldest)
        bounds = f"WHERE source_time >= {start} AND source_time < {end} AND {_of(wanted)}"
        last = "ORDER BY tag_id, source_time DESC, ordinal DESC"
        query = _SELECTED.replace("SELECT", "SELECT DISTINCT ON (tag_id)")
        batch, ordinals = await copied(connection, f"{query} {bounds} {last}")
        found.append(await with_texts(connection, batch, ordinals))
        wanted.difference_update(batch.tag.tolist())
        end, span = start, 4 * span
    batch = SampleBatch.concatenate(found)
    return batch.take(np.argsort(batch.tag, kind="stable"))
