"""Samples or roll-ups of the store into a file, slice by slice."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from plugin.domain import Level, Micros, Quality, SampleBatch, Tag, qualities
from plugin.exchange.columns import escaped
from plugin.exchange.summaries import Summaries, intervals
from plugin.exchange.terms import Layout, fault
from plugin.exchange.whole import Writer
from plugin.exchange.writing import open_writer
from plugin.protocols import Store
from plugin.slices import slices as slices_of
from plugin.zones import Zone

_ROWS = 200_000
"""Samples in a slice, about."""
_STAMP = pa.timestamp("us", "UTC")
_LONG = {
    "time": _STAMP, "tag": pa.string(), "value": pa.float64(), "status": pa.string(), "server time": _STAMP,
    "text": pa.string(),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Extract:
    """What is to be written."""

    tags: Sequence[Tag]
    start: Micros
    end: Micros
    layout: Layout = Layout.LONG
    zone: str = "UTC"
    statuses: bool = False
    """Wide: a column of statuses beside each tag's; else Bad samples are left out."""
    texts: bool = False
    """Wide: all values as text; else samples that are texts are left out."""
    level: Level | None = None
    """Roll-ups in place of samples, long."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was."""

    samples: int
    rows: int
    left_out: int
    """Samples that a wide file without statuses or texts can't hold."""


async def export(
    store: Store, path: Path, extract: Extract, progress: Callable[[float, int], None] = lambda _share, _rows: None
) -> Written:
    """Write a file. ConfigError, ExchangeError, StoreError; then there is no file, or that of before."""
    zone = Zone.named(extract.zone)
    sheet = not path.name.lower().endswith((".parquet", ".pq"))
    shape, found = _shape(store, extract, sheet)
    samples = rows = 0
    # One thread has the file: nobody closes it while it is written.
    with ThreadPoolExecutor(1, "export") as thread:
        in_thread = partial(asyncio.get_running_loop().run_in_executor, thread)
        stack = ExitStack()
        opened = partial(stack.enter_context, open_writer(path, shape.names, shape.kinds, zone))
        writer: Writer = await in_thread(opened)
        try:
            async for batch, until in found:
                columns = await in_thread(shape.columns, batch)
                await in_thread(writer.write, columns)
                samples, rows = samples + len(batch), rows + len(columns[0])
                progress((until - extract.start) / (extract.end - extract.start), rows)
        except BaseException as error:
            thread.submit(stack.__exit__, type(error), error, error.__traceback__)
            raise
        await in_thread(stack.close)
    return Written(samples - shape.left_out, rows, shape.left_out)


def _shape(store: Store, extract: Extract, sheet: bool) -> tuple[Any, AsyncIterator[tuple[Any, Micros]]]:
    """What makes columns of batches, and the batches."""
    what = [tag.id for tag in extract.tags], extract.start, extract.end
    if extract.level is None:
        make = _Long if extract.layout is Layout.LONG else _Wide
        return make(extract, sheet), slices(store, *what)
    if extract.layout is not Layout.LONG:
        raise fault("--layout", extract.layout, "is for samples alone", "Leave it out, or leave out --level")
    return Summaries(extract.tags, sheet), intervals(store, *what, extract.level)


async def slices(
    store: Store, tags: Sequence[int], start: Micros, end: Micros
) -> AsyncIterator[tuple[SampleBatch, Micros]]:
    """Samples in order of time, some ``_ROWS`` at most and none empty, each with the time up to which all have come."""
    async for batch, until in slices_of(store, tags, start, end, size=_ROWS):
        order = np.lexsort((batch.tag, batch.source_time))
        for first in range(0, len(order), _ROWS):
            yield batch.take(order[first : first + _ROWS]), until


class _Long:
    """A row per sample."""

    left_out = 0

    def __init__(self, extract: Extract, sheet: bool) -> None:
        """``sheet``: a spreadsheet may read it."""
        self.names, self.kinds = list(_LONG), list(_LONG.values())
        self._harmless = escaped if sheet else _same
        self._tags = sorted(extract.tags, key=lambda tag: tag.id)
        self._keys = np.array([tag.id for tag in self._tags], np.int64)
        self._names = self._harmless(pa.array([tag.name for tag in self._tags], pa.string()))

    def columns(self, batch: SampleBatch) -> list[Any]:
        """In the order of the heading."""
        texts = pa.nulls(len(batch), pa.string()) if batch.text is None else pa.array(batch.text.tolist(), pa.string())
        return [
            pa.array(batch.source_time).cast(_STAMP),
            self._names.take(pa.array(np.searchsorted(self._keys, batch.tag))),
            pa.array(batch.value, mask=np.isnan(batch.value)),
            hexadecimal(batch.status),
            pa.array(batch.server_time).cast(_STAMP),
            self._harmless(texts),
        ]


def _same(texts: Any) -> Any:
    return texts


class _Wide:
    """A row per time; of samples that carry one stamp the second goes into a second row of that time, and so on."""

    def __init__(self, extract: Extract, sheet: bool) -> None:
        """``sheet``: a spreadsheet may read it."""
        self.left_out = 0
        self._harmless = escaped if sheet else _same
        tags = sorted(extract.tags, key=lambda tag: tag.name)
        self._keys = np.array([tag.id for tag in tags], np.int64)
        self._order = np.argsort(self._keys)
        self._statuses, self._texts = extract.statuses, extract.texts
        beside = [":status"] if extract.statuses else []
        self.names = ["time", *(f"{tag.name}{end}" for tag in tags for end in ["", *beside])]
        kind = pa.string() if extract.texts else pa.float64()
        self.kinds = [_STAMP, *(kind if not end else pa.string() for _ in tags for end in ["", *beside])]
        if sheet:
            self.names = escaped(pa.array(self.names)).to_pylist()

    def columns(self, batch: SampleBatch) -> list[Any]:
        """In the order of the heading."""
        batch = self._held(batch)
        place = self._order[np.searchsorted(self._keys[self._order], batch.tag)]
        row, times = _rows(batch.source_time, place)
        values = pa.array(batch.value, mask=np.isnan(batch.value))
        values = self._shown(values, batch) if self._texts else values
        columns = [pa.array(times).cast(_STAMP)]
        by_place = np.argsort(place, kind="stable")
        begins = np.searchsorted(place[by_place], np.arange(len(self._keys) + 1))
        codes = hexadecimal(batch.status) if self._statuses else None
        for number in range(len(self._keys)):
            mine = by_place[begins[number] : begins[number + 1]]
            columns.append(_spread(values, mine, row[mine], len(times)))
            if codes is not None:
                columns.append(_spread(codes, mine, row[mine], len(times)))
        return columns

    def _held(self, batch: SampleBatch) -> SampleBatch:
        """Without what has no place."""
        out = np.zeros(len(batch), np.bool_)
        if not self._statuses:
            out |= qualities(batch.status) == Quality.BAD
        if not self._texts:
            out |= batch.with_text()
        self.left_out += int(out.sum())
        return batch.take(~out) if out.any() else batch

    def _shown(self, values: Any, batch: SampleBatch) -> Any:
        """A number with all its digits, or the text."""
        numbers = pc.cast(values, pa.string())
        if batch.text is None:
            return numbers
        return pc.coalesce(self._harmless(pa.array(batch.text.tolist(), pa.string())), numbers)


def _rows(times: NDArray[np.int64], place: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The row of each sample, and the time of each row."""
    order = np.lexsort((place, times))
    same = np.zeros(len(order), np.bool_)
    same[1:] = (times[order][1:] == times[order][:-1]) & (place[order][1:] == place[order][:-1])
    count = np.arange(len(order))
    which = np.empty(len(order), np.int64)
    which[order] = count - np.maximum.accumulate(np.where(same, 0, count))
    keys = np.stack([times, which])
    different, row = np.unique(keys, axis=1, return_inverse=True)
    return row.reshape(-1), different[0]


def _spread(cells: Any, chosen: NDArray[np.int64], rows: NDArray[np.int64], count: int) -> Any:
    where = np.full(count, -1, np.int64)
    where[rows] = chosen
    return cells.take(pa.array(where, mask=where < 0))


def hexadecimal(status: NDArray[np.uint32]) -> Any:
    """``0x80000000``: no one takes it for a quality of OPC DA. There are few different ones."""
    different, where = np.unique(status, return_inverse=True)
    return pa.array([f"0x{code:08X}" for code in different.tolist()], pa.string()).take(pa.array(where.reshape(-1)))


def chosen(tags: Sequence[Tag], patterns: Sequence[str]) -> list[Tag]:
    """Those whose name fits one of the wildcard patterns; ConfigError where a pattern fits none."""
    found: dict[int, Tag] = {}
    for pattern in patterns:
        fitting = [tag for tag in tags if fnmatchcase(tag.name, pattern)]
        if not fitting:
            raise fault("--tags", pattern, "fits no tag that the historian knows", "See `foretag status`, or use '*'")
        found |= {tag.id: tag for tag in fitting}
    return list(found.values())
