"""Roll-ups of the store as rows of a file."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from plugin.domain import Level, Micros, RollUps, Tag
from plugin.exchange.columns import escaped
from plugin.protocols import Store

_ROWS = 100_000
"""Intervals in a slice, about."""
_STAMP = pa.timestamp("us", "UTC")
_SPANS = {"observed", "good_time"}


class Summaries:
    """A row per tag and interval; spans of time in seconds."""

    left_out = 0

    def __init__(self, tags: Sequence[Tag], sheet: bool) -> None:
        """``sheet``: a spreadsheet may read it."""
        by_key = sorted(tags, key=lambda tag: tag.id)
        self._keys = np.array([tag.id for tag in by_key], np.int64)
        names = pa.array([tag.name for tag in by_key], pa.string())
        self._names = escaped(names) if sheet else names
        self.names = [_heading(name) for name in _columns()]
        self.kinds = [_kind(name) for name in _columns()]

    def columns(self, rows: RollUps) -> list[Any]:
        """In the order of the heading."""
        return [self._cells(name, getattr(rows, name)) for name in _columns()]

    def _cells(self, name: str, column: Any) -> Any:
        if name == "tag":
            return self._names.take(pa.array(np.searchsorted(self._keys, column)))
        if _kind(name) == _STAMP:
            return pa.array(column).cast(_STAMP)
        if name == "last_status":
            return pa.array([f"0x{code:08X}" for code in column.tolist()], pa.string())
        if name in _SPANS:
            return pa.array(column / 1e6)
        return pa.array(column, mask=np.isnan(column)) if _kind(name) == pa.float64() else pa.array(column)


def _columns() -> list[str]:
    """Start and tag first."""
    names = [field.name for field in fields(RollUps)]
    return ["start", "tag", *(name for name in names if name not in {"start", "tag"})]


def _heading(name: str) -> str:
    return f"{name.replace('_', ' ')} [s]" if name in _SPANS else name.replace("_", " ")


def _kind(name: str) -> Any:
    if name in {"start", "first_time", "last_time"}:
        return _STAMP
    if name in {"tag", "last_status"}:
        return pa.string()
    return pa.int64() if name in {"samples", "good", "numbers"} else pa.float64()


async def intervals(
    store: Store, tags: Sequence[int], start: Micros, end: Micros, level: Level
) -> AsyncIterator[tuple[RollUps, Micros]]:
    """Those that begin in ``[start, end)``, in order of time; none is empty; and up to when all have come."""
    step = max(1, _ROWS // max(1, len(tags))) * level.width
    begin = -(-start // level.width) * level.width
    while begin < end:
        until = min(begin + step, end)
        rows = await store.roll_ups(tags, begin, until, level=level)
        if len(rows):
            order = np.lexsort((rows.tag, rows.start))
            yield RollUps(*(getattr(rows, field.name)[order] for field in fields(RollUps))), until
        begin += step
