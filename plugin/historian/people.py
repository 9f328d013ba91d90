"""The part of a store that is about events and alarms, the laboratory, labels and the audit log."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, Table, and_, insert, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin.domain import (
    LASTING,
    Alarm,
    Audit,
    Event,
    Label,
    LabelKind,
    LabSample,
    Micros,
    to_micros,
)
from plugin.ending import to_its_end
from plugin.historian import people_records as records
from plugin.historian import queries, schema
from plugin.historian.database import Database
from plugin.historian.people_records import Told

_IDS = 500
"""Keys asked for in one statement."""


class People:
    """See :class:`plugin.protocols.Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- events and alarms ---

    @to_its_end
    async def write_events(self, events: Sequence[Event]) -> None:
        """See the protocol."""
        async with self._database.writing() as connection:
            await _add_events(connection, events)

    @to_its_end
    async def events(
        self,
        start: datetime,
        end: datetime,
        *,
        source: str | None = None,
        asset: str | None = None,
        limit: int = 1000,
        oldest_first: bool = False,
    ) -> tuple[Event, ...]:
        """See the protocol."""
        table = schema.events
        query = (
            select(table)
            .where(table.c.time >= to_micros(start), table.c.time < to_micros(end))
            .where(*_equal(table, source=source, asset=asset))
            .order_by(table.c.time if oldest_first else table.c.time.desc(), table.c.id)
            .limit(limit)
        )
        async with self._database.reading() as connection:
            return tuple(map(records.event_of, await _mappings(connection, query)))

    @to_its_end
    async def write_alarms(self, alarms: Sequence[Alarm], events: Sequence[Event] = ()) -> None:
        """See the protocol; StoreError where a model version is named that there is not."""
        async with self._database.writing() as connection:
            if alarms:
                statement = queries.upsert(connection, schema.alarms, "id", "branch")
                await connection.execute(statement, list(map(records.alarm_record, alarms)))
            await _add_events(connection, events)

    @to_its_end
    async def alarms(self, *, active_only: bool = False) -> tuple[Alarm, ...]:
        """See the protocol."""
        table = schema.alarms
        query = select(table).order_by(table.c.severity.desc(), table.c.time.desc(), table.c.id, table.c.branch)
        async with self._database.reading() as connection:
            rows = await _mappings(connection, query.where(table.c.active) if active_only else query)
            return tuple(map(records.alarm_of, rows))

    # --- what people say ---

    @to_its_end
    async def write_lab_samples(self, samples: Sequence[LabSample], *, origin: str = "command") -> int:
        """See the protocol."""
        return await self._tell(schema.lab_samples, samples, records.lab_of, records.lab_record, origin)

    @to_its_end
    async def lab_samples(
        self,
        asset: str | None,
        quantity: str | None,
        start: datetime,
        end: datetime,
        *,
        known_by: Micros | None = None,
    ) -> tuple[LabSample, ...]:
        """See the protocol."""
        table = schema.lab_samples
        query = select(table).where(table.c.taken >= to_micros(start), table.c.taken < to_micros(end))
        query = query.where(*_equal(table, asset=asset, quantity=quantity))
        async with self._database.reading() as connection:
            found = list(map(records.lab_of, await _mappings(connection, query)))
            if known_by is not None:
                corrections = await _corrections(connection, records.LAB, known_by)
                found = records.as_known(found, corrections, known_by, records.lab_before)
        return records.chosen_lab(found, asset, quantity, start, end)

    @to_its_end
    async def write_labels(self, labels: Sequence[Label], *, origin: str = "command") -> int:
        """See the protocol."""
        return await self._tell(schema.labels, labels, records.label_of, records.label_record, origin)

    @to_its_end
    async def labels(
        self,
        asset: str | None,
        start: datetime,
        end: datetime,
        *,
        kind: LabelKind | None = None,
        known_by: Micros | None = None,
    ) -> tuple[Label, ...]:
        """See the protocol."""
        table = schema.labels
        begin = to_micros(start)
        lasts = and_(table.c.end_time.is_(None), table.c.kind.in_(LASTING))
        query = (
            select(table)
            .where(table.c.start_time < to_micros(end))
            .where(or_(table.c.start_time >= begin, table.c.end_time > begin, lasts))
            .where(*_equal(table, asset=asset, kind=kind))
        )
        async with self._database.reading() as connection:
            found = list(map(records.label_of, await _mappings(connection, query)))
            if known_by is not None:
                corrections = await _corrections(connection, records.LABEL, known_by)
                found = records.as_known(found, corrections, known_by, records.label_before)
        return records.chosen_labels(found, asset, kind, start, end)

    async def _tell(
        self,
        table: Table,
        told: Sequence[Told],
        of: Callable[[Mapping[str, Any]], Told],
        record: Callable[[Told], records.Record],
        origin: str,
    ) -> int:
        """Store what is new or corrects something, with its entries in the audit log; how many these are."""
        async with self._database.writing() as connection:
            await _alone(connection, table)
            known = {row["id"]: of(row) for row in await _by_ids(connection, table, {each.id for each in told})}
            news, entries = records.sort_out(told, known, records.now(), origin)
            await _put(connection, table, list(map(record, news.values())), entries)
            return len(news)

    # --- the audit log ---

    @to_its_end
    async def write_audit(self, *entries: Audit) -> None:
        """See the protocol."""
        async with self._database.writing() as connection:
            await add_audit(connection, entries)

    @to_its_end
    async def audit(
        self, since: datetime | None = None, *, action: str | None = None, limit: int = 1000
    ) -> tuple[Audit, ...]:
        """See the protocol."""
        table = schema.audit_log
        query = select(table).order_by(table.c.time.desc(), table.c.id.desc()).limit(limit)
        query = query.where(*_equal(table, action=action))
        if since is not None:
            query = query.where(table.c.time >= to_micros(since))
        async with self._database.reading() as connection:
            return tuple(map(records.audit_of, await _mappings(connection, query)))


async def add_audit(connection: AsyncConnection, entries: Iterable[Audit]) -> None:
    """In the transaction of the change that they tell of."""
    rows = list(map(records.audit_record, entries))
    if rows:
        await connection.execute(insert(schema.audit_log), rows)


def _equal(table: Table, **wanted: str | None) -> list[Any]:
    return [table.c[name] == value for name, value in wanted.items() if value is not None]


async def _mappings(connection: AsyncConnection, query: Select[Any]) -> Sequence[Mapping[str, Any]]:
    rows: Sequence[Any] = (await connection.execute(query)).mappings().all()
    return rows


async def _by_ids(connection: AsyncConnection, table: Table, ids: Iterable[str]) -> list[Mapping[str, Any]]:
    wanted, rows = sorted(ids), list[Mapping[str, Any]]()
    for first in range(0, len(wanted), _IDS):
        query = select(table).where(table.c.id.in_(wanted[first : first + _IDS]))
        rows += await _mappings(connection, query)
    return rows


async def _alone(connection: AsyncConnection, table: Table) -> None:
    """Nobody else writes the table until the transaction ends, so no correction goes unseen; SQLite has one writer."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))


async def _add_events(connection: AsyncConnection, events: Sequence[Event]) -> None:
    if events:
        statement = queries.insert(connection, schema.events).on_conflict_do_nothing()
        await connection.execute(statement, list(map(records.event_record, events)))


async def _put(connection: AsyncConnection, table: Table, rows: list[records.Record], entries: Iterable[Audit]) -> None:
    if rows:
        await connection.execute(queries.upsert(connection, table, "id"), rows)
    await add_audit(connection, entries)


async def _corrections(connection: AsyncConnection, subject: str, later_than: Micros) -> list[Audit]:
    table = schema.audit_log
    query = select(table).where(
        table.c.time > later_than, table.c.action == records.CORRECT, table.c.subject.startswith(subject)
    )
    return list(map(records.audit_of, await _mappings(connection, query.order_by(table.c.id))))
