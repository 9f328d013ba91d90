"""Samples as chunks: of one tag and UTC day, at most 512 that follow one another, coded without loss as byte planes.

A code is a whole number of as few bytes as the widest of its column in the chunk needs; none, where all are equal. What
is stored can be read with plain SQL (see the view ``v_samples``): there is no compression library to have.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plugin.domain import SampleBatch
from plugin.historian.closed.codes import Coded, Ints, Runs, coded, codes_of, planes
from plugin.historian.closed.numerals import coded_values, values_of

SAMPLES = 512
"""In a chunk at most."""
SPAN = 86_400_000_000
"""A chunk's times are of one UTC day [µs]: what overlaps [start, end) begins in (start - SPAN, end)."""


class Chunk(NamedTuple):
    """A row of ``sample_chunks``, which explains its columns, but for the partition; a tuple, as drivers take it."""

    tag_id: int
    first_time: int
    first_ordinal: int
    last_time: int
    samples: int
    step: int
    time_base: int
    time_unit: int
    time_width: int
    scale: float | None
    ieee: int
    nulls: int
    value_base: int
    value_width: int
    status_base: int
    status_width: int
    server_base: int
    server_unit: int
    server_width: int
    received_base: int
    received_unit: int
    received_width: int
    ordinal_base: int
    ordinal_width: int
    data: bytes


def encode(samples: SampleBatch, ordinals: NDArray[np.integer]) -> list[Chunk]:
    """Chunks of samples that are sorted by (tag, source time, ordinal), in that order; texts are left out."""
    if not len(samples):
        return []
    runs = _runs(samples.tag, samples.source_time)
    ends = runs.starts + runs.counts - 1
    first, last = samples.source_time[runs.starts], samples.source_time[ends]
    offsets = samples.source_time - runs.spread(first)
    step = _steps(offsets, runs)
    times = _coded_times(offsets, step, runs)
    values = coded_values(samples.value, runs)
    statuses = coded(samples.status.astype(np.int64), runs)
    servers = coded(samples.server_time - samples.source_time, runs, units=True)
    received = coded(samples.received_time - samples.server_time, runs, units=True)
    ordinal = coded(np.asarray(ordinals, np.int64), runs)
    scale = [None if np.isnan(each) else each for each in values.scale.tolist()]
    columns = (
        *(samples.tag[runs.starts], first, ordinals[runs.starts], last, runs.counts),
        *(step, times.base, times.unit, times.width),
        *(values.ieee, values.nulls, values.coded.base, values.coded.width),
        *(statuses.base, statuses.width),
        *(servers.base, servers.unit, servers.width),
        *(received.base, received.unit, received.width),
        *(ordinal.base, ordinal.width),
    )
    listed = [column.tolist() for column in columns]
    data = planes((times, values.coded, statuses, servers, received, ordinal), runs)
    return list(map(Chunk, *listed[:9], scale, *listed[9:], data))


def decode(chunks: Sequence[Chunk], *, clocks: bool = True) -> tuple[SampleBatch, NDArray[np.int32]]:
    """What :func:`encode` was given, without texts, and the ordinals.

    ``clocks``: False leaves server and received time undecoded, which takes half the time; they say the source time.
    """
    if not chunks:
        return SampleBatch.empty(), np.zeros(0, np.int32)
    return _Chunks(chunks).samples(clocks)


def _runs(tag: NDArray[np.int32], time: Ints) -> Runs:
    """Where chunks begin: at a tag, a day, and after so many samples, but not between equal times where it can be."""
    day = time // SPAN
    breaks = np.flatnonzero((tag[1:] != tag[:-1]) | (day[1:] != day[:-1])) + 1
    ends = np.append(breaks, len(tag))
    starts = np.append(0, breaks)
    if (ends - starts).max() > SAMPLES:
        starts = np.array(
            [cut for span in zip(starts.tolist(), ends.tolist(), strict=True) for cut in _cuts(time, *span)]
        )
    return Runs(starts, np.diff(np.append(starts, len(tag))))


def _cuts(time: Ints, start: int, end: int) -> list[int]:
    cuts = [start]
    while end - start > SAMPLES:
        cut = start + SAMPLES
        alike = start + int(np.searchsorted(time[start:cut], time[cut]))  # the first of that time
        start = alike if alike > start else cut
        cuts.append(start)
    return cuts


def _steps(offsets: Ints, runs: Runs) -> Ints:
    """The even pace of each run, from the mean of its first to that of its second half: few odd times don't bend it."""
    sums = np.append(0, np.cumsum(offsets))
    half, ends = runs.counts // 2, runs.starts + runs.counts
    rise = (sums[ends] - sums[ends - half]) - (sums[runs.starts + half] - sums[runs.starts])
    step: Ints = rise // np.maximum(half * (runs.counts - half), 1)
    return step


def _coded_times(offsets: Ints, step: Ints, runs: Runs) -> Coded:
    """What is left of the offsets from the first one beside an even pace, which is counted in whole units."""
    exact = coded(offsets, runs, units=True)
    pace = runs.places() * runs.spread(step)
    if (exact.unit != 1).any():
        pace //= runs.spread(exact.unit)
    rest = coded(exact.codes.view(np.int64) - pace, runs)
    return Coded(rest.codes, rest.width, rest.base * exact.unit, exact.unit)


class _Chunks:
    """Columns of many chunks."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        of = dict(zip(Chunk._fields, zip(*chunks, strict=True), strict=True))
        self._data = of.pop("data")
        self._scale = np.array(of.pop("scale"), np.float64)
        self._of = {name: np.array(column, np.int64) for name, column in of.items()}
        counts = self._of["samples"]
        self._runs = Runs(np.cumsum(counts) - counts, counts)
        self._offset = np.zeros(len(counts), np.int64)

    def samples(self, clocks: bool) -> tuple[SampleBatch, NDArray[np.int32]]:
        of, runs = self._of, self._runs
        source = self._times()
        value = self._values()
        status = self._column("status").astype(np.uint32)
        if clocks:
            server = source + self._column("server")
            received = server + self._column("received")
        else:
            server = received = source
            self._offset += (of["server_width"] + of["received_width"]) * of["samples"]
        ordinals = self._column("ordinal").astype(np.int32)
        tag = runs.spread(of["tag_id"].astype(np.int32))
        return SampleBatch(tag, source, value, status, server, received), ordinals

    def _codes(self, name: str) -> Ints:
        """Of the column whose turn it is."""
        width = self._of[f"{name}_width"]
        codes = codes_of(self._data, self._offset, width, self._runs).view(np.int64)
        self._offset += width * self._of["samples"]
        return codes

    def _column(self, name: str) -> Ints:
        codes, unit, base = self._codes(name), self._of.get(f"{name}_unit"), self._of[f"{name}_base"]
        if unit is not None and (unit != 1).any():
            codes *= self._runs.spread(unit)
        if base.any():
            codes += self._runs.spread(base)
        return codes

    def _times(self) -> Ints:
        of, runs = self._of, self._runs
        step, unit = of["step"], of["time_unit"]
        times = self._column("time")
        times += runs.spread(of["first_time"])
        pace = runs.places() * runs.spread(step)
        if (step % unit).any():
            pace -= pace % runs.spread(unit)
        times += pace
        return times

    def _values(self) -> NDArray[np.float64]:
        of, runs = self._of, self._runs
        codes = self._codes("value")
        none = runs.spread(of["nulls"] > 0) & (codes == 0) if of["nulls"].any() else None
        codes += runs.spread(of["value_base"])
        values = values_of(codes, self._scale, of["ieee"], runs)
        if none is not None:
            values[none] = np.nan
        return values
