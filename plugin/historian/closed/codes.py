"""Columns as small whole numbers, chunk by chunk, and as the byte planes of a chunk's ``data``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)
Ints = NDArray[np.int64]
Codes = NDArray[np.uint64]

_LIMITS = np.array([0, *(2 ** (8 * width) - 1 for width in range(1, 8))], np.uint64)
"""Highest code of a width of 0, 1, … 7 bytes."""
_UNITS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Rows that lie together, run after run; no run is empty."""

    starts: Ints
    counts: Ints

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def total(self) -> int:
        """Rows of all runs."""
        return int(self.starts[-1] + self.counts[-1]) if len(self.starts) else 0

    def spread(self, of_runs: NDArray[T]) -> NDArray[T]:
        """What is said of each run, for each of its rows."""
        return np.repeat(of_runs, self.counts)

    def places(self) -> Ints:
        """0, 1, … within each run."""
        return np.arange(self.total, dtype=np.int64) - self.spread(self.starts)

    def all(self, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Of each run, whether it is so in all its rows."""
        every: NDArray[np.bool_] = np.logical_and.reduceat(rows, self.starts)
        return every

    def some(self, runs: NDArray[np.intp]) -> tuple["Runs", NDArray[np.intp] | slice]:
        """A choice of the runs, and where their rows are."""
        if len(runs) == len(self):
            return self, slice(None)
        counts = self.counts[runs]
        starts = np.cumsum(counts) - counts
        return Runs(starts, counts), np.repeat(self.starts[runs] - starts, counts) + np.arange(counts.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """A column, run by run: of a row ``base + unit * code``."""

    codes: Codes
    """By row."""
    width: Ints
    """Bytes that hold a code of the run, by run like what follows."""
    base: Ints
    unit: Ints


def coded(column: Ints, runs: Runs, *, units: bool = False) -> Coded:
    """Any numbers; ``units``: try steps of 10, 100, … 10^6. Differences of 2^63 and more need 8 bytes, and wrap."""
    base = np.minimum.reduceat(column, runs.starts)
    codes = (column - runs.spread(base)).view(np.uint64)
    highest = np.maximum.reduceat(codes, runs.starts)
    unit = _units(codes, highest, runs) if units else np.ones(len(runs), np.int64)
    if (unit != 1).any():
        codes //= runs.spread(unit).view(np.uint64)
        highest //= unit.view(np.uint64)
    return Coded(codes, widths(highest), base, unit)


def widths(highest: Codes) -> Ints:
    """Bytes that hold a code, 0 to 8."""
    return np.searchsorted(_LIMITS, highest).astype(np.int64)


def _units(codes: Codes, highest: Codes, runs: Runs) -> Ints:
    """The largest of ``_UNITS`` that all codes of a run are multiples of; 1 where none is, or all codes are 0."""
    unit = np.ones(len(runs), np.int64)
    left = np.flatnonzero(highest)
    for each in _UNITS:
        size = np.uint64(each)
        left = left[highest[left] // size * size == highest[left]]  # most runs fail by one look at one code
        if not len(left):
            break
        some, rows = runs.some(left)
        chosen = codes[rows]
        left = left[some.all(chosen // size * size == chosen)]  # a division by a scalar is a multiplication, % is none
        unit[left] = each
    return unit


def planes(columns: Sequence[Coded], runs: Runs) -> list[bytes]:
    """The bytes of each run: column after column, of each the lowest bytes of all its rows first."""
    octets = [column.codes.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8) for column in columns]
    sizes = zip(*(column.width.tolist() for column in columns), strict=True)
    begins, ends = runs.starts.tolist(), (runs.starts + runs.counts).tolist()
    return [
        b"".join(rows[begin:end, :width].T.tobytes() for rows, width in zip(octets, of_run, strict=True) if width)
        for begin, end, of_run in zip(begins, ends, sizes, strict=True)
    ]


def codes_of(data: Sequence[bytes], offsets: Ints, width: Ints, runs: Runs) -> Codes:
    """What :func:`planes` was given, of one column; its planes begin at ``offsets`` of each run's bytes."""
    codes = np.zeros((runs.total, 8), np.uint8)
    chosen = np.flatnonzero(width)
    begins, counts = runs.starts[chosen].tolist(), runs.counts[chosen].tolist()
    for run, begin, count, offset, size in zip(
        chosen.tolist(), begins, counts, offsets[chosen].tolist(), width[chosen].tolist(), strict=True
    ):
        rows = np.frombuffer(data[run], np.uint8, count * size, offset)
        codes[begin : begin + count, :size] = rows.reshape(size, count).T
    return codes.reshape(-1).view("<u8").astype(np.uint64, copy=False)
