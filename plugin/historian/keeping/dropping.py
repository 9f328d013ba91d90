"""What retention says has to go, goes: in pieces so small that no commit waits long for one.

A partition is emptied from its lowest tag to its highest, each piece with the chunks' corrections and remarks, and
with a note of how far back its tags are whole (``kept_since``). Then go the texts that no sample has any more; and last
the partition's own row, with an entry in the audit log. Cut off anywhere, the next pass goes on with what is left.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, delete, exists, func, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin.diagnostics import Diagnostics
from plugin.domain import Audit, GapState, Level, Micros, from_micros, micros
from plugin.ending import to_its_end
from plugin.historian import schema
from plugin.historian.config import HistorianConfig
from plugin.historian.database import Database
from plugin.historian.keeping.retention import KeepConfig, Partition, RetentionConfig, believed, expired
from plugin.historian.keeping.upkeep import Chore
from plugin.historian.people import add_audit
from plugin.historian.people_records import SELF, readable
from plugin.historian.queries import insert

_log = logging.getLogger(__name__)

_EVERY = timedelta(minutes=10)
_DAY: Micros = 86_400_000_000
_FIRST, _END = -(2**63), 2**63 - 1
"""The times that there are [µs]."""
_CHUNKS = 1_500
"""In a piece, which costs a flush of the disk whatever is in it; a tag's chunks of a partition are never parted."""
_TEXTS = 2_000
_ROWS = 2_000
_INTERVALS = 1_440
"""Roll-ups of one tag in a piece."""
_ROLL_UPS = 10 * _INTERVALS
"""That a piece should have, of all its tags."""
_TAGS = 10, 500
"""In the first piece, and at most."""
_PARTITIONS = 1_000
"""Dropped of one class in a pass at most."""
_ROLLUPS = {
    Level.MINUTE: schema.rollup_minutes,
    Level.HOUR: schema.rollup_hours,
    Level.DAY: schema.rollup_days,
}


class Dropping:
    """One pass of retention after another; :meth:`run` is a chore."""

    def __init__(
        self,
        database: Database,
        classes: Sequence[RetentionConfig],
        keep: KeepConfig,
        diagnostics: Diagnostics,
        clock: Callable[[], Micros] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._database = database
        self._classes = tuple(classes)
        self._keep = keep
        self._diagnostics = diagnostics
        self._clock = clock
        self._told: Micros | None = None
        self._dropped: dict[str, list[Partition]] = {}
        """By class, what the log was not told of yet."""

    async def run(self) -> None:
        """One pass."""
        now = await self._now()
        for each in self._classes:
            await self._drop_samples(each, now)
            for level, age in ((Level.MINUTE, each.minutes), (Level.HOUR, each.hours), (Level.DAY, each.days)):
                if age is not None:
                    await self._drop_roll_ups(each, level, min(_days_before(now, age), await self._needed(level)))
        for table, age, column in (
            (schema.predictions, self._keep.predictions, schema.predictions.c.as_of),
            (schema.flags, self._keep.flags, schema.flags.c.as_of),
            (schema.events, self._keep.events, schema.events.c.time),
        ):
            if age is not None:
                await self._drop_rows(table, column, _days_before(now, age))
        self._tell()

    async def _now(self) -> Micros:
        """What ages are counted from."""
        clock = self._clock()
        latest, parts = schema.latest_samples.c.source_time, schema.sample_partitions.c.end_time
        newest = [await self._ask(select(func.max(column)).where(column <= clock + _DAY)) for column in (latest, parts)]
        return believed(clock, max((stamp for stamp in newest if stamp is not None), default=None))

    # --- samples ---

    async def _drop_samples(self, config: RetentionConfig, now: Micros) -> None:
        held = 0
        for partition in await self._expired(config, now):
            if await self._held(partition):
                held += 1
            else:
                await self._drop(config, partition)
        self._diagnostics.partitions_held.labels(config.name).set(held)

    async def _expired(self, config: RetentionConfig, now: Micros) -> list[Partition]:
        table = schema.sample_partitions
        mine = table.c.retention == config.stored_name
        columns = (table.c.id, table.c.start_time, table.c.end_time, table.c.samples, table.c.bytes)
        query = select(*columns).where(mine).order_by(table.c.end_time, table.c.start_time, table.c.id)
        bound, surplus = None if config.samples is None else _before(now, config.samples), 0
        if config.size is not None:
            surplus = int(await self._ask(select(func.coalesce(func.sum(table.c.bytes), 0)).where(mine))) - config.size
        if bound is None and surplus <= 0:
            return []
        if surplus <= 0:
            query = query.where(table.c.end_time <= bound)
        rows = await self._rows(query.limit(_PARTITIONS))
        return expired([Partition(*row) for row in rows], bound, surplus)

    async def _held(self, partition: Partition) -> bool:
        """Whether a gap of a tag that it has samples of, and that may still be filled, overlaps it.

        What comes of other tags after all is closed by itself: a tag that the server refuses for ever holds nothing.
        """
        gaps, tags, chunks = schema.gaps, schema.tags, schema.sample_chunks
        within = exists().where(chunks.c.partition_id == partition.id, chunks.c.tag_id == tags.c.id)
        concerned = exists().where(
            tags.c.source == gaps.c.source,
            or_(gaps.c.tag.is_(None), gaps.c.tag == tags.c.name),
            within,
        )
        overlapping = (
            gaps.c.state == GapState.OPEN,
            gaps.c.start_time < partition.end,
            or_(gaps.c.end_time.is_(None), gaps.c.end_time > partition.start),
        )
        return await self._ask(select(gaps.c.id).where(*overlapping, concerned).limit(1)) is not None

    async def _drop(self, config: RetentionConfig, partition: Partition) -> None:
        dropped: int | None = None
        while dropped is None:  # late samples that were closed meanwhile may have come into what was emptied
            above = 0
            while (above := await self._drop_chunks(partition, above)) > 0:
                pass
            after: Micros | None = partition.start - 1
            while after is not None:
                after = await self._drop_texts(after, partition.end)
            dropped = await self._forget(config, partition)
        self._dropped.setdefault(config.name, []).append(partition)
        self._diagnostics.samples_expired.labels(config.name).inc(dropped)

    @to_its_end
    async def _drop_chunks(self, partition: Partition, above: int) -> int:
        """A piece of a partition: its tags above that one, to the one that is given; 0: there was none left."""
        chunks = schema.sample_chunks
        left = select(chunks.c.tag_id).where(chunks.c.partition_id == partition.id, chunks.c.tag_id > above)
        async with self._database.writing() as connection:
            last = await connection.scalar(left.order_by(chunks.c.tag_id).limit(1).offset(_CHUNKS - 1))
            last = last or await connection.scalar(left.order_by(chunks.c.tag_id.desc()).limit(1))
            if last is None:
                return 0
            piece = (chunks.c.partition_id == partition.id, chunks.c.tag_id > above, chunks.c.tag_id <= last)
            whole = select(chunks.c.tag_id, literal("samples"), func.max(chunks.c.last_time) + 1).where(*piece)
            await _note_kept(connection, whole.group_by(chunks.c.tag_id))
            await _drop_beside(connection, partition, above, last)
            await connection.execute(delete(chunks).where(*piece))
        return int(last)

    @to_its_end
    async def _drop_texts(self, after: Micros, end: Micros) -> Micros | None:
        """Some texts after that stamp that no sample has any more, to the stamp that is given; None: all are seen."""
        texts, hot, chunks = schema.sample_texts, schema.samples, schema.sample_chunks
        within = (texts.c.source_time > after, texts.c.source_time < end)
        piece = select(texts.c.source_time).where(*within).order_by(texts.c.source_time).limit(1).offset(_TEXTS - 1)
        key = ("source_time", "tag_id", "ordinal")
        of_hot = exists().where(*(hot.c[name] == texts.c[name] for name in key))
        of_chunk = exists().where(
            chunks.c.tag_id == texts.c.tag_id,
            chunks.c.first_time <= texts.c.source_time,
            chunks.c.last_time >= texts.c.source_time,
        )
        async with self._database.writing() as connection:
            last: Micros | None = await connection.scalar(piece)
            upto = texts.c.source_time <= (end - 1 if last is None else last)
            await connection.execute(delete(texts).where(*within, upto, ~of_hot, ~of_chunk))
        return last

    @to_its_end
    async def _forget(self, config: RetentionConfig, partition: Partition) -> int | None:
        """The partition's own row goes, with a record of it; how many samples it had. None: it is not empty."""
        books, parts, chunks = schema.bookkeeping, schema.sample_partitions, schema.sample_chunks
        async with self._database.writing() as connection:
            if await connection.scalar(select(chunks.c.tag_id).where(chunks.c.partition_id == partition.id).limit(1)):
                return None
            gone = delete(parts).where(parts.c.id == partition.id).returning(parts.c.samples)
            samples = int(await connection.scalar(gone) or 0)
            fewer = update(books).where(books.c.name == "samples").values(value=books.c.value - samples)
            await connection.execute(fewer)
            before = {
                "start": readable(partition.start), "end": readable(partition.end),
                "samples": samples, "bytes": partition.bytes,
            }  # fmt: skip
            await self._audit(connection, f"samples of class {config.name}", before)
        return samples

    # --- roll-ups, results, events ---

    async def _needed(self, level: Level) -> Micros:
        """From when on the next coarser roll-ups are still to be made of these."""
        coarser = {Level.MINUTE: Level.HOUR, Level.HOUR: Level.DAY}.get(level)
        if coarser is None:
            return _END
        books = schema.bookkeeping.c
        closed = await self._ask(select(books.value).where(books.name == "closed_until"))
        return _FIRST if closed is None else max(_FIRST, closed // coarser.width * coarser.width)

    async def _drop_roll_ups(self, config: RetentionConfig, level: Level, bound: Micros) -> None:
        """Those that begin before ``bound``."""
        table, tags = _ROLLUPS[level], schema.tags
        oldest = select(func.min(table.c.start_time)).where(table.c.tag_id == tags.c.id).scalar_subquery()
        found = await self._rows(
            select(tags.c.id, oldest).where(tags.c.retention == config.stored_name, oldest < bound)
        )
        until, rows, some = min((first for _, first in found), default=bound), 0, _TAGS[0]
        while until < bound:
            until = min(bound, until + _INTERVALS * level.width)
            old = [tag for tag, first in found if first < until]
            while old:
                gone = await self._drop_intervals(level, old[:some], until)
                rows, old = rows + gone, old[some:]
                some = (
                    max(1, some // 2) if gone > _ROLL_UPS else min(_TAGS[1], 2 * some if 2 * gone < _ROLL_UPS else some)
                )
        if rows:
            what = f"roll-ups by {level} of class {config.name}"
            await self._record(what, {"until": readable(bound), "rows": rows})

    @to_its_end
    async def _drop_intervals(self, level: Level, tags: Sequence[int], until: Micros) -> int:
        table, what = _ROLLUPS[level], f"{level}s"
        async with self._database.writing() as connection:
            await _note_kept(connection, [{"tag_id": tag, "what": what, "since": until} for tag in tags])
            old = delete(table).where(table.c.tag_id.in_(tags), table.c.start_time < until)
            rows = (await connection.execute(old)).rowcount
        self._diagnostics.rows_expired.labels(table.name).inc(rows)
        return int(rows)

    async def _drop_rows(self, table: Table, time: ColumnElement[Micros], bound: Micros) -> None:
        """Rows of before ``bound``."""
        rows = 0
        while found := await self._drop_oldest(table, time, bound):
            rows += found
        if rows:
            await self._record(table.name, {"until": readable(bound), "rows": rows})

    @to_its_end
    async def _drop_oldest(self, table: Table, time: ColumnElement[Micros], bound: Micros) -> int:
        """Some rows of before ``bound``; how many."""
        piece = select(time).where(time < bound).order_by(time).limit(1).offset(_ROWS - 1)
        async with self._database.writing() as connection:
            last = await connection.scalar(piece)
            old = time < bound if last is None else time <= last
            rows = (await connection.execute(delete(table).where(old))).rowcount
        self._diagnostics.rows_expired.labels(table.name).inc(rows)
        return int(rows)

    # --- asking and telling ---

    @to_its_end
    async def _record(self, subject: str, before: Mapping[str, Any]) -> None:
        async with self._database.writing() as connection:
            await self._audit(connection, subject, before)

    async def _audit(self, connection: AsyncConnection, subject: str, before: Mapping[str, Any]) -> None:
        entry = Audit(from_micros(self._clock()), SELF, "service", "drop", subject, before)
        await add_audit(connection, [entry])

    @to_its_end
    async def _rows(self, query: Select[Any]) -> Sequence[Any]:
        async with self._database.reading() as connection:
            rows: Sequence[Any] = (await connection.execute(query)).all()
            return rows

    async def _ask(self, query: Select[Any]) -> Any:
        """The first column of the first row; None: there is none."""
        rows = await self._rows(query)
        return rows[0][0] if rows else None

    def _tell(self) -> None:
        """A line for each class, once a day at most."""
        now = self._clock()
        if not self._dropped or (self._told is not None and 0 <= now - self._told < _DAY):
            return
        for name, gone in self._dropped.items():
            _log.info(
                "retention: %s samples (%.1f MiB) of class %s dropped, up to %s",
                f"{sum(each.samples for each in gone):,}", sum(each.bytes for each in gone) / 2**20, name,
                readable(max(each.end for each in gone)),
            )  # fmt: skip
        self._told = now
        self._dropped = {}


def retention(database: Database, config: HistorianConfig, diagnostics: Diagnostics) -> Chore:
    """What keeps a database as small as the file says."""
    return Chore("retention", _EVERY, Dropping(database, config.retention, config.keep, diagnostics).run)


def _before(now: Micros, age: timedelta) -> Micros:
    return now - micros(age)


def _days_before(now: Micros, age: timedelta) -> Micros:
    """A whole day's beginning, so that a pass an hour is work, and an entry in the log, once a day."""
    return _before(now, age) // _DAY * _DAY


async def _note_kept(connection: AsyncConnection, rows: Select[Any] | Sequence[Mapping[str, Any]]) -> None:
    """Rows of ``kept_since``; what is known already only ever moves on."""
    table = schema.kept_since
    statement = insert(connection, table)
    if isinstance(rows, Select):
        statement = statement.from_select(["tag_id", "what", "since"], rows)
    else:
        statement = statement.values([*rows])
    later = statement.excluded.since > table.c.since
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["tag_id", "what"], set_={"since": statement.excluded.since}, where=later
        )
    )


async def _drop_beside(connection: AsyncConnection, partition: Partition, above: int, last: int) -> None:
    """Corrections and remarks of the samples in a piece of a partition."""
    chunks, modified, remarks, tags = schema.sample_chunks, schema.modified_samples, schema.remarks, schema.tags

    def held(time: ColumnElement[Micros]) -> tuple[ColumnElement[bool], ...]:
        return chunks.c.partition_id == partition.id, chunks.c.first_time <= time, chunks.c.last_time >= time

    of_piece = exists().where(chunks.c.tag_id == modified.c.tag_id, *held(modified.c.source_time))
    await connection.execute(delete(modified).where(modified.c.tag_id > above, modified.c.tag_id <= last, of_piece))
    its_tag = (tags.c.name == remarks.c.tag, tags.c.id > above, tags.c.id <= last, chunks.c.tag_id == tags.c.id)
    within = (remarks.c.source_time >= partition.start, remarks.c.source_time < partition.end)
    await connection.execute(delete(remarks).where(*within, exists().where(*its_tag, *held(remarks.c.source_time))))
