"""Everything that a store keeps but samples: SQLAlchemy Core, the same for every database."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import Select

from plugin.domain import (
    Drift,
    Explanation,
    Flag,
    Gap,
    GapCause,
    Import,
    Micros,
    ModelState,
    ModelVersion,
    Outcome,
    OutputTag,
    Part,
    Prediction,
    Reject,
    Remark,
    Run,
    SampleBatch,
    Tag,
)
from plugin.ending import to_its_end
from plugin.historian import queries, records, schema
from plugin.historian import told as said
from plugin.historian.database import Database
from plugin.historian.looks import Looks
from plugin.historian.people import People, add_audit
from plugin.historian.people_records import SELF, now, promotions


@dataclass(frozen=True, slots=True)
class Summary:
    """What ``foretag status`` says of the historian."""

    counts: Mapping[str, int]
    """Rows by table."""
    newest: Micros | None
    """Newest source time of all samples; None: there are none."""
    size: int
    """Database with its write-ahead log [byte]."""
    open_gaps: int


class Tables(People):
    """The half of :class:`plugin.protocols.Store` that is not about samples."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._looks = Looks()
        self._outputs: dict[OutputTag, int] = {}

    async def _recall(self) -> None:
        """What has to be known of runs before samples are written."""
        for run in await self._rows(queries.last_look()):
            self._looks.begun(records.run_of(run))

    @to_its_end
    async def _rows(self, query: Select[Any]) -> Sequence[Any]:
        async with self._database.reading() as connection:
            rows: Sequence[Any] = (await connection.execute(query)).all()
            return rows

    @to_its_end
    async def _put_tags(self, tags: Sequence[Tag]) -> tuple[tuple[Tag, ...], int]:
        """The tags with their keys, and the highest key of all.

        Where nothing changes nothing is written, so a database that is locked does not matter.
        """
        async with self._database.reading() as connection:
            found = await queries.same_tags(connection, tags)
        if found is None:
            async with self._database.writing() as connection:
                found = await queries.put_tags(connection, tags)
        keys, last = found
        return tuple(replace(tag, id=keys[tag.name]) for tag in tags), last

    async def tags(self) -> tuple[Tag, ...]:
        """See the protocol."""
        return tuple(records.tag_of(row) for row in await self._rows(queries.tags()))

    async def checkpoints(self, prefix: str) -> Mapping[str, str]:
        """See the protocol."""
        return {row.key: row.value for row in await self._rows(queries.checkpoints(prefix))}

    async def kept_since(self, tags: Sequence[int]) -> Mapping[int, Micros]:
        """See the protocol."""
        wanted = set(map(int, tags))
        return {row.tag_id: row.since for row in await self._rows(queries.kept_since()) if row.tag_id in wanted}

    async def gaps(
        self,
        *,
        open_only: bool = False,
        since: datetime | None = None,
        until: datetime | None = None,
        source: str | None = None,
        tag: str | None = None,
        cause: GapCause | None = None,
        known_by: Micros | None = None,
        limit: int = 1000,
    ) -> tuple[Gap, ...]:
        """See the protocol."""
        query = queries.gaps(open_only, since, until, source, tag, cause, known_by, limit)
        return tuple(records.gap_of(row) for row in await self._rows(query))

    async def forsaken_gaps(self, sources: Collection[str]) -> tuple[Gap, ...]:
        """Open gaps that nobody looks after: their source is none of these, nor another gateway's."""
        return tuple(records.gap_of(row) for row in await self._rows(queries.forsaken_gaps(sources)))

    @to_its_end
    async def open_gaps(self) -> int:
        """See the protocol."""
        async with self._database.reading() as connection:
            return await queries.open_gaps(connection)

    async def remarks(
        self, *, tag: str | None = None, since: datetime | None = None, limit: int = 1000
    ) -> tuple[Remark, ...]:
        """See the protocol."""
        return tuple(records.remark_of(row) for row in await self._rows(queries.remarks(tag, since, limit)))

    # --- what models give ---

    @to_its_end
    async def write_run(self, run: Run) -> Run:
        """See the protocol; StoreError where there is no run with its key."""
        async with self._database.writing() as connection:
            if not run.id:
                self._looks.begun(run)
            return await queries.put_run(connection, run)

    @to_its_end
    async def write_outcome(self, outcome: Outcome) -> None:
        """See the protocol. A prediction or flag that its run has written already stays as it is."""
        named = (*(each.tag for each in outcome.predictions), *(each.tag for each in outcome.explanations))
        new = [tag for tag in dict.fromkeys(named) if tag not in self._outputs]
        async with self._database.writing() as connection:
            keys = self._outputs | (await queries.put_outputs(connection, new) if new else {})
            await queries.put_outcome(connection, outcome, keys)
        self._outputs = keys

    async def predictions(
        self,
        model: str,
        start: datetime,
        end: datetime,
        *,
        asset: str | None = None,
        output: str | None = None,
        shadow: bool = False,
    ) -> tuple[Prediction, ...]:
        """See the protocol."""
        query = queries.predictions(model, start, end, asset, output, shadow)
        return tuple(records.prediction_of(row) for row in await self._rows(query))

    async def flags(
        self, start: datetime, end: datetime, *, asset: str | None = None, shadow: bool = False
    ) -> tuple[Flag, ...]:
        """See the protocol."""
        return tuple(records.flag_of(row) for row in await self._rows(queries.flags(start, end, asset, shadow)))

    async def told(
        self,
        tag: OutputTag,
        part: Part,
        start: Micros,
        end: Micros,
        *,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> SampleBatch:
        """See the protocol."""
        query = said.told(tag, part, start, end, limit, newest_first=newest_first)
        return said.series(await self._rows(query), part)

    async def explanations(
        self, model: str, start: datetime, end: datetime, *, asset: str | None = None
    ) -> tuple[Explanation, ...]:
        """See the protocol."""
        return tuple(records.explanations_of(await self._rows(queries.explanations(model, start, end, asset))))

    @to_its_end
    async def write_drifts(self, drifts: Sequence[Drift]) -> None:
        """See the protocol; StoreError where a model version is named that there is not."""
        if drifts:
            async with self._database.writing() as connection:
                statement = queries.upsert(connection, schema.drifts, "id")
                await connection.execute(statement, list(map(records.drift_record, drifts)))

    async def drifts(
        self,
        *,
        model: str | None = None,
        open_only: bool = False,
        since: datetime | None = None,
        limit: int = 1000,
    ) -> tuple[Drift, ...]:
        """See the protocol."""
        return tuple(map(records.drift_of, await self._rows(queries.drifts(model, open_only, since, limit))))

    async def runs(self, model: str, limit: int = 100) -> tuple[Run, ...]:
        """See the protocol."""
        return tuple(records.run_of(row) for row in await self._rows(queries.runs(model, limit)))

    @to_its_end
    async def add_version(self, version: ModelVersion, *, user: str = SELF, origin: str = "service") -> ModelVersion:
        """See the protocol; a champion retires the one before it."""
        async with self._database.writing() as connection:
            version, changed = await queries.add_version(connection, version)
            await add_audit(connection, promotions(version.model, changed, user, origin, now()))
            return version

    async def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """See the protocol."""
        return tuple(records.version_of(row) for row in await self._rows(queries.versions(model)))

    @to_its_end
    async def set_state(
        self,
        model: str,
        version: int,
        state: ModelState,
        *,
        user: str = SELF,
        origin: str = "service",
        because: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """See the protocol; StoreError where there is no such version."""
        async with self._database.writing() as connection:
            changed = await queries.set_state(connection, model, version, state)
            await add_audit(connection, promotions(model, changed, user, origin, now(), {version: because}))

    # --- history from files ---

    @to_its_end
    async def next_time(self, start: Micros) -> Micros | None:
        """See the protocol."""
        async with self._database.reading() as connection:
            return await queries.next_time(connection, start)

    @to_its_end
    async def write_import(self, record: Import, rejects: Sequence[Reject] = ()) -> None:
        """See the protocol."""
        async with self._database.writing() as connection:
            await queries.put_import(connection, record, rejects)

    async def imports(self, *, id: str | None = None, limit: int = 100) -> tuple[Import, ...]:  # noqa: A002
        """See the protocol."""
        return tuple(records.import_of(row) for row in await self._rows(queries.imports(id, limit)))

    async def rejects(self, import_id: str, *, limit: int = 1_000_000) -> tuple[Reject, ...]:
        """See the protocol."""
        return tuple(records.reject_of(row) for row in await self._rows(queries.rejects(import_id, limit)))

    # --- for an operator ---

    @to_its_end
    async def counts(self) -> Mapping[str, int]:
        """See the protocol."""
        async with self._database.reading() as connection:
            return await queries.counts(connection)

    @to_its_end
    async def summary(self) -> Summary:
        """Rows, newest sample, size on disk and open gaps, all of one moment but the size."""
        async with self._database.reading() as connection:
            counts = await queries.counts(connection)
            newest, open_gaps = await queries.newest(connection), await queries.open_gaps(connection)
        return Summary(counts, newest, await self._database.size(), open_gaps)
