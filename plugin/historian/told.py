"""What was said of one output, as a series: the SQL, and its rows as columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Select, Table, and_, exists, func, select

from plugin.domain import HIGH_LIMITED, Meaning, Micros, OutputTag, Part, RunKind, SampleBatch, Status
from plugin.historian import schema

_RUNS, _PREDICTIONS, _FLAGS, _OUTPUTS = schema.runs, schema.predictions, schema.flags, schema.output_tags
_COLUMNS = {
    Part.VALUE: _PREDICTIONS.c.value,
    Part.LOWER: _PREDICTIONS.c.lower,
    Part.UPPER: _PREDICTIONS.c.upper,
    Part.SCORE: _FLAGS.c.score,
    Part.THRESHOLD: _FLAGS.c.threshold,
}


def told(
    tag: OutputTag, part: Part, start: Micros, end: Micros, limit: int | None, *, newest_first: bool
) -> Select[Any]:
    """Rows of time, value, status, and when its run had ended. See :meth:`plugin.protocols.Store.told`."""
    if tag.meaning is Meaning.FORECAST:
        return _latest_by_target(tag, part, start, end, limit, newest_first=newest_first)
    if tag.flag:
        table, own = _FLAGS, ["model", "asset"]
        mine = and_(table.c.model == tag.model, table.c.asset == tag.asset)
        value = table.c.raised if part is Part.VALUE else _COLUMNS[part]
    else:
        table, own = _PREDICTIONS, ["output_id"]
        mine = table.c.output_id == _key(tag)
        value = _COLUMNS[part]
    query = (
        select(table.c.as_of, value, table.c.status, func.coalesce(_RUNS.c.finished, table.c.as_of))
        .join(_RUNS, _RUNS.c.id == table.c.run_id)
        .where(mine, table.c.as_of >= start, table.c.as_of < end, _RUNS.c.kind != RunKind.SHADOW)
        .where(~_said_again(table, own))
    )
    return query.order_by(table.c.as_of.desc() if newest_first else table.c.as_of).limit(limit)


def _key(tag: OutputTag) -> Any:
    of = _OUTPUTS.c
    mine = of.model == tag.model, of.asset == tag.asset, of.output == tag.output
    return select(of.id).where(*mine).scalar_subquery()


def _said_again(table: Table, own: Sequence[str]) -> ColumnElement[bool]:
    """A later run said it of the same instant."""
    later, run = table.alias(), _RUNS.alias()
    same = [later.c[name] == table.c[name] for name in ("as_of", *own)]
    return exists().where(*same, later.c.run_id > table.c.run_id, run.c.id == later.c.run_id, run.c.kind != "shadow")


def _latest_by_target(
    tag: OutputTag, part: Part, start: Micros, end: Micros, limit: int | None, *, newest_first: bool
) -> Select[Any]:
    table = _PREDICTIONS
    last = func.row_number().over(
        partition_by=table.c.target_time, order_by=(table.c.as_of.desc(), table.c.run_id.desc())
    )
    said = (
        select(
            table.c.target_time.label("time"),
            _COLUMNS[part].label("value"),
            table.c.status,
            func.coalesce(_RUNS.c.finished, table.c.as_of).label("finished"),
            last.label("place"),
        )
        .join(_RUNS, _RUNS.c.id == table.c.run_id)
        .where(table.c.output_id == _key(tag), table.c.target_time >= start, table.c.target_time < end)
        .where(_RUNS.c.kind != RunKind.SHADOW)
        .subquery()
    )
    query = select(said.c.time, said.c.value, said.c.status, said.c.finished).where(said.c.place == 1)
    return query.order_by(said.c.time.desc() if newest_first else said.c.time).limit(limit)


def series(rows: Sequence[Sequence[Any]], part: Part) -> SampleBatch:
    """Rows of :func:`told` as columns; what says nothing of this part is Bad."""
    if not rows:
        return SampleBatch.empty()
    time, number, given, ended = zip(*rows, strict=True)
    value = np.array([np.nan if one is None else one for one in number], np.float64)
    status = np.array(given, np.uint32)
    if part is not Part.VALUE:  # what is at its limit is the value
        status &= np.uint32(~HIGH_LIMITED & 0xFFFF_FFFF)
    status[np.isnan(value) & (status < Status.BAD)] = Status.BAD_NO_DATA
    return SampleBatch.of([0] * len(rows), time, value, status, ended, ended)
