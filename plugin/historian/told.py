"""What was said of one output, as a series: the SQL, and its rows as columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Select, Table, and_, exists, func, select, tuple_

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
    if tag.flag:
        table, own = _FLAGS, ["model", "asset"]
        mine = and_(table.c.model == tag.model, table.c.asset == tag.asset)
        value = table.c.raised if part is Part.VALUE else _COLUMNS[part]
    else:
        table, own = _PREDICTIONS, ["output_id"]
        mine = table.c.output_id == _key(tag)
        value = _COLUMNS[part]
    time = table.c.target_time if tag.meaning is Meaning.FORECAST else table.c.as_of
    query = (
        select(time, value, table.c.status, func.coalesce(_RUNS.c.finished, table.c.as_of))
        .join(_RUNS, _RUNS.c.id == table.c.run_id)
        .where(mine, time >= start, time < end, _RUNS.c.kind != RunKind.SHADOW)
        .where(~_said_again(table, [*own, time.name]))
    )
    return query.order_by(time.desc() if newest_first else time).limit(limit)


def _key(tag: OutputTag) -> Any:
    of = _OUTPUTS.c
    mine = of.model == tag.model, of.asset == tag.asset, of.output == tag.output
    return select(of.id).where(*mine).scalar_subquery()


def _said_again(table: Table, same: Sequence[str]) -> ColumnElement[bool]:
    """Something was said later where these columns are the same.

    Asked of each row, so that a page is read by an index and no further: what ranks all rows first reads them all.
    """
    later, run = table.alias(), _RUNS.alias()
    alike = [later.c[name] == table.c[name] for name in same]
    after = tuple_(later.c.as_of, later.c.run_id) > tuple_(table.c.as_of, table.c.run_id)
    return exists().where(*alike, after, run.c.id == later.c.run_id, run.c.kind != RunKind.SHADOW)


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
