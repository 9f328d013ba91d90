"""Samples into PostgreSQL: statements of the driver's own connection, inside a transaction."""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

from plugin.domain import Gap, Micros, Remark, SampleBatch, to_micros
from plugin.historian.closed.keyed import Keyed
from plugin.historian.postgres.connections import UNDEFINED_TABLE, UNIQUE_VIOLATION
from plugin.historian.postgres.copying import ARRIVED, STORED, Fields, encoded
from plugin.historian.postgres.partitions import place_of
from plugin.historian.rows import COLUMNS
from plugin.historian.schema.plant import clocks
from plugin.protocols import Written

Connection = Any
"""``asyncpg.Connection``, which has no types."""


class Overlap(Exception):
    """Some of the samples are there already, or carry a stamp that is taken, or their partition is gone: nothing is
    written, the transaction is lost, and :func:`merge` is the way."""


_ARRIVED = """
CREATE TEMPORARY TABLE IF NOT EXISTS arrived (place integer, source_time bigint, tag_id integer, value float8,
  status bigint, server_delay bigint, received_delay bigint) ON COMMIT DELETE ROWS;
TRUNCATE arrived
"""
# The bounds let PostgreSQL leave out the partitions that none of the samples can be in.
_TEXT_OF_OLD = """
SELECT beside.text FROM sample_texts AS beside WHERE beside.source_time = old.source_time
AND beside.tag_id = old.tag_id AND beside.ordinal = old.ordinal
"""
_BEHIND_ROWS = """
coalesce((SELECT max(old.ordinal) FROM samples AS old WHERE old.source_time = fresh.source_time
          AND old.tag_id = fresh.tag_id AND old.source_time BETWEEN $1 AND $2), -1)
"""
_BEHIND_CLOSED = """
coalesce((SELECT max(old.ordinal) FROM closed AS old WHERE old.source_time = fresh.source_time
          AND old.tag_id = fresh.tag_id), -1)
"""
_CLOSED = """
closed AS (
  SELECT * FROM unnest($5::integer[], $6::bigint[], $7::integer[], $8::float8[], $9::bigint[])
  AS closed (tag_id, source_time, ordinal, value, status)),
"""


def _is_there(table: str, bounds: str) -> str:
    return f"""
    EXISTS (SELECT FROM {table} AS old WHERE old.source_time = sent.source_time AND old.tag_id = sent.tag_id {bounds}
            AND old.value IS NOT DISTINCT FROM sent.value AND old.status = sent.status
            AND ({_TEXT_OF_OLD}) IS NOT DISTINCT FROM sent.text)
    """  # noqa: S608  only names are put in


def _merge(condition: str, ordinal: str, closed: str = "") -> str:
    columns = f"{COLUMNS}, ordinal"
    return f"""
    WITH {closed} sent AS (
      SELECT arrived.*, texts.text FROM arrived
      LEFT JOIN unnest($3::integer[], $4::text[]) AS texts (place, text) ON texts.place = arrived.place),
    fresh AS (
      SELECT DISTINCT ON (tag_id, source_time, value, status, text) * FROM sent WHERE {condition}
      ORDER BY tag_id, source_time, value, status, text, place),
    keyed AS (
      SELECT fresh.*, {ordinal} + row_number() OVER (PARTITION BY source_time, tag_id ORDER BY place) AS ordinal
      FROM fresh),
    texts AS (
      INSERT INTO sample_texts (source_time, tag_id, ordinal, text)
      SELECT source_time, tag_id, ordinal, text FROM keyed WHERE text IS NOT NULL)
    INSERT INTO samples ({columns}) SELECT {columns} FROM keyed
    """  # noqa: S608  only names are put in


_NOT_IN_ROWS = f"NOT {_is_there('samples', 'AND old.source_time BETWEEN $1 AND $2')}"
_MERGE = _merge(_NOT_IN_ROWS, _BEHIND_ROWS)
_MERGE_LATE = _merge(
    f"{_NOT_IN_ROWS} AND NOT {_is_there('closed', '')}", f"greatest({_BEHIND_ROWS}, {_BEHIND_CLOSED})", _CLOSED
)

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

_FIRST: Micros = -(2**63)
_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
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
        await _copy(connection, await place_of(connection, batch.source_time), batch, STORED)
    except Exception as error:
        # A partition that is past and empty may go while we look.
        if getattr(error, "sqlstate", None) in (UNIQUE_VIOLATION, UNDEFINED_TABLE):
            raise Overlap from error
        raise
    return Written(len(batch), 0)


async def merge(connection: Connection, batch: SampleBatch, closed: Keyed | None = None) -> Written:
    """Any samples: those that are there already change nothing, those whose stamp is taken get the next ordinal.

    ``closed``: samples of these stamps that are in chunks.
    """
    await connection.execute(_ARRIVED)
    await _copy(connection, "arrived", batch, ARRIVED)
    mask = batch.with_text()
    places = np.flatnonzero(mask).tolist()
    texts = [] if batch.text is None else [written(text) for text in compress(batch.text.tolist(), mask.tolist())]
    told: list[Any] = [int(batch.source_time.min()), int(batch.source_time.max()), places, texts]
    if closed is None or not len(closed):
        done: str = await connection.execute(_MERGE, *told)
    else:
        done = await connection.execute(_MERGE_LATE, *told, *_columns(closed))
    stored = int(done.rpartition(" ")[2])
    return Written(stored, len(batch) - stored)


def _columns(closed: Keyed) -> tuple[list[Any], ...]:
    of = closed.samples
    value = [None if each != each else each for each in of.value.tolist()]  # noqa: PLR0124  NaN is NULL
    return of.tag.tolist(), of.source_time.tolist(), closed.ordinals.tolist(), value, of.status.tolist()


@dataclass(frozen=True, slots=True)
class Books:
    """Of the historian's bookkeeping what a writer has to know, and what does not change while it writes."""

    closed_until: Micros
    """Samples from before then may be in a chunk."""
    late_before: Micros
    """Samples from before then are put into the table of the newest by whoever writes them."""


async def books(connection: Connection) -> Books:
    """Locked until the transaction ends: who changes them waits for us, and then knows that all we wrote is there."""
    query = "SELECT name, value FROM bookkeeping WHERE name IN ('closed_until', 'late_before') FOR SHARE"
    return Books(**dict(await connection.fetch(query)))


async def count(connection: Connection, more: int, shard: str | None, replaced: int = 0) -> None:
    """Add to how many samples there are. Each shard has a row of its own: none waits for another one's commit."""
    brought = {} if shard is not None else {_BROUGHT: more + replaced}
    books = {"samples" if shard is None else f"samples of shard {shard}": more, **brought}
    if any(books.values()):
        await connection.execute(
            "INSERT INTO bookkeeping (name, value) SELECT * FROM unnest($1::text[], $2::bigint[]) "
            "ON CONFLICT (name) DO UPDATE SET value = bookkeeping.value + excluded.value",
            [*books],
            [*books.values()],
        )


_BROUGHT = "brought"


async def brought(connection: Connection) -> int:
    """How many samples have come, or were corrected, that no leader of a shard has written."""
    found: int | None = await connection.fetchval("SELECT value FROM bookkeeping WHERE name = $1", _BROUGHT)
    return found or 0


# With the row's own condition two gateways, or a late sample, never put an older one over a newer one; a correction has
# the key of what it replaces.
_NEWER = """
ON CONFLICT (tag_id) DO UPDATE SET source_time = excluded.source_time, ordinal = excluded.ordinal,
  value = excluded.value, status = excluded.status, server_time = excluded.server_time,
  received_time = excluded.received_time
WHERE (latest_samples.source_time, latest_samples.ordinal) {less} (excluded.source_time, excluded.ordinal)
"""
_COLUMNS = "tag_id, source_time, ordinal, value, status, server_time, received_time"
_PUT_LATE = f"""
INSERT INTO latest_samples ({_COLUMNS})
SELECT DISTINCT ON (old.tag_id) old.tag_id, old.source_time, old.ordinal, old.value, old.status, {clocks("old")}
FROM unnest($1::integer[], $2::bigint[]) AS late (tag_id, source_time)
JOIN samples AS old ON old.tag_id = late.tag_id AND old.source_time = late.source_time
ORDER BY old.tag_id, old.source_time DESC, old.ordinal DESC {_NEWER.format(less="<=")}
"""  # noqa: S608  only names are put in
_PUT_NEWEST = f"""
INSERT INTO latest_samples ({_COLUMNS})
SELECT DISTINCT ON (tag_id) tag_id, source_time, ordinal, value, status, {clocks("samples")}
FROM samples WHERE source_time >= $1
ORDER BY tag_id, source_time DESC, ordinal DESC {_NEWER.format(less="<")}
"""  # noqa: S608  only names are put in


async def put_late(connection: Connection, batch: SampleBatch, before: Micros) -> None:
    """Have the table of the newest know those of the samples that are from ``before`` and their tag's newest."""
    late = batch.source_time < before
    if late.any():
        newest = np.full(int(batch.tag.max()) + 1, np.iinfo(np.int64).min)
        np.maximum.at(newest, batch.tag[late], batch.source_time[late])
        tags = np.unique(batch.tag[late])
        await connection.execute(_PUT_LATE, tags.tolist(), newest[tags].tolist())


async def keep_newest(connection: Connection) -> None:
    """Bring the table of the newest up to date; outside a transaction.

    First whoever writes is told to look after what is older than the time that half of the tags have reached; then the
    table is filled; and only then its readers need look no further back than to that time. Stamps of times to come do
    not count: those of 9999 would make all others late.
    """
    since = await connection.fetchval("SELECT value FROM bookkeeping WHERE name = 'latest_since'")
    since = _FIRST if since is None else since
    half = "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY source_time) FROM latest_samples"
    reached = await connection.fetchval(f"{half} WHERE source_time >= $1 AND source_time <= {_CLOCK}", since)
    if reached is not None:
        await connection.execute("UPDATE bookkeeping SET value = $1 WHERE name = 'late_before'", reached)
    await connection.execute(_PUT_NEWEST, since)
    if reached is not None:
        await connection.execute(
            "INSERT INTO bookkeeping (name, value) VALUES ('latest_since', $1) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            reached,
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
