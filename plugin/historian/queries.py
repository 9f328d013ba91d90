"""What the store asks of its tables, but for samples: statements to run inside a transaction, and queries."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Subquery,
    Table,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin.domain import (
    GapCause,
    GapState,
    Import,
    Micros,
    ModelState,
    ModelVersion,
    Outcome,
    OutputTag,
    Reject,
    Run,
    RunKind,
    Tag,
    to_micros,
)
from plugin.errors import StoreError
from plugin.historian import records, schema
from plugin.historian.people_records import States

_COUNTED = ("gaps", "predictions", "flags", "runs", "model_versions")

Insert = postgresql.Insert | sqlite.Insert


def insert(connection: AsyncConnection, table: Table) -> Insert:
    """An insertion that may say what to do where the key is taken already, which either database says alike."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def upsert(connection: AsyncConnection, table: Table, *key: str) -> Insert:
    """Insert, or update all but the key."""
    statement = insert(connection, table)
    changed = {column.name: column for column in statement.excluded if column.name not in {"id", *key}}
    return statement.on_conflict_do_update(index_elements=key, set_=changed)


# --- tags, gaps, checkpoints ---


async def same_tags(connection: AsyncConnection, tags: Sequence[Tag]) -> tuple[Mapping[str, int], int] | None:
    """What :func:`put_tags` would give, where it would change nothing; else None."""
    known = await _known_tags(connection)
    if any(tag.name not in known or _differs(tag, known[tag.name]) for tag in tags):
        return None
    return _keys(known)


async def put_tags(connection: AsyncConnection, tags: Sequence[Tag]) -> tuple[Mapping[str, int], int]:
    """Add or update tags and their assets; the keys of all tags by name, and the highest."""
    assets = [{"name": asset} for asset in dict.fromkeys(tag.asset for tag in tags if tag.asset)]
    if assets:
        await connection.execute(insert(connection, schema.assets).on_conflict_do_nothing(), assets)
    known = await _known_tags(connection)
    # A conflict costs PostgreSQL a key: only new tags are inserted.
    if new := [records.tag_record(tag) for tag in tags if tag.name not in known]:
        await connection.execute(upsert(connection, schema.tags, "name"), new)
    changed = [tag for tag in tags if tag.name in known and _differs(tag, known[tag.name])]
    if changed:
        statement = update(schema.tags).where(schema.tags.c.name == bindparam("known"))
        await connection.execute(statement, [records.tag_record(tag) | {"known": tag.name} for tag in changed])
    return _keys(await _known_tags(connection))


async def _known_tags(connection: AsyncConnection) -> Mapping[str, Mapping[str, Any]]:
    return {row["name"]: dict(row) for row in (await connection.execute(select(schema.tags))).mappings()}


def _differs(tag: Tag, row: Mapping[str, Any]) -> bool:
    record = records.tag_record(tag)
    return record != {name: row[name] for name in record}


def _keys(rows: Mapping[str, Mapping[str, Any]]) -> tuple[Mapping[str, int], int]:
    keys: dict[str, int] = {name: row["id"] for name, row in rows.items()}
    return keys, max(keys.values(), default=0)


def gaps(
    open_only: bool,
    since: datetime | None,
    until: datetime | None,
    source: str | None,
    tag: str | None,
    cause: GapCause | None,
    known_by: Micros | None,
    limit: int,
) -> Select[Any]:
    """Newest first; ``since``: only those that had not ended by then, ``until``: that had begun before; ``tag``: its
    own and those of all tags."""
    table: FromClause = schema.gaps if known_by is None else _gaps_as_known(known_by)
    query = select(table).order_by(table.c.detected.desc(), table.c.id).limit(limit)
    if since is not None:
        query = query.where(or_(table.c.end_time.is_(None), table.c.end_time >= to_micros(since)))
    if until is not None:
        query = query.where(table.c.start_time < to_micros(until))
    if source is not None:
        query = query.where(table.c.source == source)
    if tag is not None:
        query = query.where(or_(table.c.tag.is_(None), table.c.tag == tag))
    if cause is not None:
        query = query.where(table.c.cause == cause)
    return query.where(table.c.state == GapState.OPEN) if open_only else query


def forsaken_gaps(sources: Collection[str]) -> Select[Any]:
    """Open gaps of sources that are neither among these nor claimed by a shard of the database."""
    table, claims = schema.gaps, schema.claims
    claimed = exists().where(claims.c.kind == "source", claims.c.name == table.c.source)
    return select(table).where(table.c.state == GapState.OPEN, table.c.source.not_in(sources), ~claimed)


def _gaps_as_known(by: Micros) -> Subquery:
    """All gaps of that moment: those that are still as they were, and the earlier states of the others."""
    now, past = schema.gaps, schema.gap_history
    columns = [past.c.get(column.name, column) for column in now.c]
    earlier = select(*columns).join(past, past.c.gap_id == now.c.id)
    return union_all(
        select(now).where(now.c.known_from <= by),
        earlier.where(past.c.known_from <= by, past.c.known_until > by),
    ).subquery()


def remarks(tag: str | None, since: datetime | None, limit: int) -> Select[Any]:
    """Newest source time first."""
    table = schema.remarks
    query = select(table).order_by(table.c.source_time.desc(), table.c.source, table.c.tag, table.c.kind).limit(limit)
    if since is not None:
        query = query.where(table.c.source_time >= to_micros(since))
    return query if tag is None else query.where(table.c.tag == tag)


def checkpoints(prefix: str) -> Select[Any]:
    """Keys that begin with ``prefix``, letter case included (LIKE would leave it out)."""
    table = schema.checkpoints
    return select(table).where(func.substr(table.c.key, 1, len(prefix)) == prefix)


def kept_since() -> Select[Any]:
    """Of all tags that samples were dropped of."""
    table = schema.kept_since
    return select(table).where(table.c.what == "samples")


# --- runs and what they give ---


async def put_run(connection: AsyncConnection, run: Run) -> Run:
    """Insert (``id`` 0) or update."""
    if not run.id:
        statement = insert(connection, schema.runs).returning(schema.runs.c.id)
        return replace(run, id=(await connection.execute(statement, records.run_record(run))).scalar_one())
    chosen = update(schema.runs).where(schema.runs.c.id == run.id)
    if not (await connection.execute(chosen.values(records.run_record(run)))).rowcount:
        raise StoreError(f"There is no run {run.id}")
    return run


async def put_outputs(connection: AsyncConnection, tags: Sequence[OutputTag]) -> dict[OutputTag, int]:
    """Add output tags, or update their descriptions; gives their keys."""
    key = ("model", "asset", "output")
    table = schema.output_tags
    await connection.execute(upsert(connection, table, *key), [records.output_record(tag) for tag in tags])
    rows = await connection.execute(select(table))
    keys: dict[tuple[str, str, str], int] = {(row.model, row.asset, row.output): row.id for row in rows}
    return {tag: keys[tag.model, tag.asset, tag.output] for tag in tags}


async def put_outcome(connection: AsyncConnection, outcome: Outcome, keys: Mapping[OutputTag, int]) -> None:
    """A prediction or flag that its run has written already stays as it is."""
    await put_run(connection, outcome.run)
    predictions = [records.prediction_record(each, keys[each.tag]) for each in outcome.predictions]
    flags = [records.flag_record(flag) for flag in outcome.flags]
    shares = [row for each in outcome.explanations for row in records.explanation_records(each, keys[each.tag])]
    for table, rows in ((schema.predictions, predictions), (schema.flags, flags), (schema.explanations, shares)):
        if rows:
            await connection.execute(insert(connection, table).on_conflict_do_nothing(), rows)


def _in_shadow(table: Table, shadow: bool) -> ColumnElement[bool]:
    """Of predictions or flags: a challenger gave it, or not."""
    kind = select(schema.runs.c.kind).where(schema.runs.c.id == table.c.run_id).scalar_subquery()
    return kind == RunKind.SHADOW if shadow else kind != RunKind.SHADOW


def predictions(
    model: str, start: datetime, end: datetime, asset: str | None, output: str | None, shadow: bool
) -> Select[Any]:
    """Ordered by (as_of, asset, output)."""
    table, tags = schema.predictions, schema.output_tags
    query = (
        select(table, *(column for column in tags.c if column.name != "id"))
        .join(tags, table.c.output_id == tags.c.id)
        .where(tags.c.model == model, table.c.as_of >= to_micros(start), table.c.as_of < to_micros(end))
        .where(_in_shadow(table, shadow))
        .order_by(table.c.as_of, tags.c.asset, tags.c.output, table.c.target_time, table.c.run_id)
    )
    if asset is not None:
        query = query.where(tags.c.asset == asset)
    return query if output is None else query.where(tags.c.output == output)


def explanations(model: str, start: datetime, end: datetime, asset: str | None) -> Select[Any]:
    """Ordered by (as_of, asset, output, run), the largest share first."""
    table, tags = schema.explanations, schema.output_tags
    query = (
        select(table, *(column for column in tags.c if column.name != "id"))
        .join(tags, table.c.output_id == tags.c.id)
        .where(tags.c.model == model, table.c.as_of >= to_micros(start), table.c.as_of < to_micros(end))
        .order_by(table.c.as_of, tags.c.asset, tags.c.output, table.c.run_id, table.c.share.desc(), table.c.feature)
    )
    return query if asset is None else query.where(tags.c.asset == asset)


def drifts(model: str | None, open_only: bool, since: datetime | None, limit: int) -> Select[Any]:
    """Newest first."""
    table = schema.drifts
    query = select(table).order_by(table.c.noticed.desc(), table.c.id).limit(limit)
    query = query if model is None else query.where(table.c.model == model)
    if since is not None:
        query = query.where(or_(table.c.until.is_(None), table.c.until > to_micros(since)))
    return query.where(table.c.until.is_(None)) if open_only else query


def flags(start: datetime, end: datetime, asset: str | None, shadow: bool) -> Select[Any]:
    """Ordered by (as_of, model, asset)."""
    table = schema.flags
    query = (
        select(table)
        .where(table.c.as_of >= to_micros(start), table.c.as_of < to_micros(end), _in_shadow(table, shadow))
        .order_by(table.c.as_of, table.c.model, table.c.asset, table.c.run_id)
    )
    return query if asset is None else query.where(table.c.asset == asset)


def runs(model: str, limit: int) -> Select[Any]:
    """Newest first."""
    table = schema.runs
    query = select(table).where(table.c.model == model)
    return query.order_by(table.c.scheduled.desc(), table.c.id.desc()).limit(limit)


def last_look() -> Select[Any]:
    """The scoring run that was begun last."""
    table = schema.runs
    began = table.c.kind == RunKind.SCORE, table.c.started.is_not(None)
    return select(table).where(*began).order_by(table.c.id.desc()).limit(1)


# --- model versions ---


async def add_version(connection: AsyncConnection, version: ModelVersion) -> tuple[ModelVersion, States]:
    """Under the next free number; a champion retires the one before it."""
    table = schema.model_versions
    newest = await connection.scalar(select(func.max(table.c.version)).where(table.c.model == version.model))
    version = replace(version, version=(newest or 0) + 1)
    retired: States = {}
    if version.state is ModelState.CHAMPION:
        retired = await _retire_champion(connection, version.model)
    await connection.execute(insert(connection, table), records.version_record(version))
    return version, {**retired, version.version: (None, version.state)}


async def set_state(connection: AsyncConnection, model: str, version: int, state: ModelState) -> States:
    """What it changed; StoreError where there is no such version."""
    table = schema.model_versions
    this = table.c.model == model, table.c.version == version
    before = await connection.scalar(select(table.c.state).where(*this))
    if before is None:
        raise StoreError(f"{model} has no version {version}")
    if before == state:
        return {}
    retired = await _retire_champion(connection, model) if state is ModelState.CHAMPION else {}
    await connection.execute(update(table).where(*this).values(state=state))
    return {**retired, version: (ModelState(before), state)}


async def _retire_champion(connection: AsyncConnection, model: str) -> States:
    table = schema.model_versions
    champion = table.c.model == model, table.c.state == ModelState.CHAMPION
    versions = (await connection.scalars(select(table.c.version).where(*champion))).all()
    await connection.execute(update(table).where(*champion).values(state=ModelState.RETIRED))
    return dict.fromkeys(versions, (ModelState.CHAMPION, ModelState.RETIRED))


def versions(model: str) -> Select[Any]:
    """Newest first."""
    table = schema.model_versions
    return select(table).where(table.c.model == model).order_by(table.c.version.desc())


# --- history from files ---


async def put_import(connection: AsyncConnection, record: Import, rejects: Sequence[Reject]) -> None:
    """Insert or update; at position 0 what could not be taken before is forgotten. A reject that is there stays."""
    await connection.execute(upsert(connection, schema.imports, "id"), records.import_record(record))
    table = schema.quarantine
    if not record.position:
        await connection.execute(delete(table).where(table.c.import_id == record.id))
    if rejects:
        rows = [records.reject_record(reject, record.id) for reject in rejects]
        await connection.execute(insert(connection, table).on_conflict_do_nothing(), rows)


def imports(id: str | None, limit: int) -> Select[Any]:  # noqa: A002 - as the column is called
    """Newest first."""
    table = schema.imports
    query = select(table).order_by(table.c.started.desc(), table.c.id).limit(limit)
    return query if id is None else query.where(table.c.id == id)


def rejects(import_id: str, limit: int) -> Select[Any]:
    """Ordered by (row, column)."""
    table = schema.quarantine
    return select(table).where(table.c.import_id == import_id).order_by(table.c.row, table.c.column).limit(limit)


def tags() -> Select[Any]:
    """By key."""
    return select(schema.tags).order_by(schema.tags.c.id)


async def next_time(connection: AsyncConnection, start: Micros) -> Micros | None:
    """Of the next sample that is in no partition, or of the next partition: its samples may begin later."""
    hot, closed = schema.samples.c.source_time, schema.sample_partitions.c
    found = [
        await connection.scalar(select(func.min(hot)).where(hot >= start)),
        await connection.scalar(select(func.min(closed.start_time)).where(closed.end_time > start)),
    ]
    return min((max(time, start) for time in found if time is not None), default=None)


# --- for an operator ---


async def counts(connection: AsyncConnection) -> Mapping[str, int]:
    """Rows by table; of samples as the bookkeeping has it, the others are counted."""
    tables = {name: schema.metadata.tables[name] for name in _COUNTED}
    rows = {name: await connection.scalar(select(func.count()).select_from(table)) for name, table in tables.items()}
    return {"samples": await stored_samples(connection), **{name: count or 0 for name, count in rows.items()}}


async def stored_samples(connection: AsyncConnection) -> int:
    """As the bookkeeping has it: a row of all, and where gateways share the database one of each shard beside it."""
    book = schema.bookkeeping.c
    mine = or_(book.name == "samples", book.name.startswith("samples of shard ", autoescape=True))
    return int(await connection.scalar(select(func.sum(book.value)).where(mine)) or 0)


async def newest(connection: AsyncConnection) -> int | None:
    """Newest source time of all samples [µs]."""
    times = schema.samples.c.source_time, schema.latest_samples.c.source_time
    found = [await connection.scalar(select(func.max(time))) for time in times]
    return max((time for time in found if time is not None), default=None)


async def open_gaps(connection: AsyncConnection) -> int:
    """How many gaps may still be filled."""
    gaps = schema.gaps
    return await connection.scalar(select(func.count()).select_from(gaps).where(gaps.c.state == GapState.OPEN)) or 0
