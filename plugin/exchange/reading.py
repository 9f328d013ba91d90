"""A file of history, open for reading: its heading, and its rows piece by piece in bounded memory."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from plugin.domain import Reject
from plugin.errors import ExchangeError
from plugin.exchange.columns import unescaped
from plugin.exchange.terms import Terms, needs

CELLS = 200_000
"""In a piece, about."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some rows of a file that follow one another."""

    rows: NDArray[np.int64]
    """Their numbers, from 1, the heading left out [n]."""
    columns: dict[int, Any]
    """Arrow arrays [n] of those that were asked for, by their place in the heading."""
    rejects: tuple[Reject, ...] = ()
    """What is not among the rows, or of a row among them can't be read."""

    def after(self, row: int) -> "Piece":
        """What is behind that row."""
        first = int(np.searchsorted(self.rows, row, side="right"))
        columns = {column: cells.slice(first) for column, cells in self.columns.items()}
        return Piece(self.rows[first:], columns, tuple(reject for reject in self.rejects if reject.row > row))


class Table(Protocol):
    """One file."""

    @property
    def names(self) -> Sequence[str]:
        """The heading."""

    @property
    def commas(self) -> bool:
        """Whether commas part its columns, so that none can stand in a number."""

    @property
    def share(self) -> float:
        """How much of it is read, 0..1."""

    @property
    def notes(self) -> Sequence[str]:
        """What was left out, for a person."""

    def pieces(self, columns: Sequence[int], texts: Collection[int] = ()) -> Iterator[Piece]:
        """From the first row on; once. Blocking. ExchangeError where it can't be read on.

        ``texts``: columns whose cells may hold the end of a line; in another it is a sign of an open quotation mark.
        """


def open_table(path: Path, terms: Terms) -> AbstractContextManager[Table]:
    """By the name's ending. Blocking. ExchangeError where it can't be read, ConfigError where a term does not fit."""
    needs(path)
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".parquet", ".pq")):
        from plugin.exchange.parquet_reading import ParquetTable  # noqa: PLC0415 - each needs a library of its own

        return ParquetTable.opened(path, terms)
    if name.endswith((".xlsx", ".xlsm")):
        from plugin.exchange.excel_reading import ExcelTable  # noqa: PLC0415

        return ExcelTable.opened(path, terms)
    if name.endswith((".csv", ".txt", ".tsv")):
        from plugin.exchange.csv_reading import CsvTable  # noqa: PLC0415

        return CsvTable.opened(path, terms)
    raise ExchangeError(f"{path.name} is no file that can be read: .csv, .txt, .tsv (also .gz), .parquet or .xlsx can")


def heading(names: Sequence[str], path: Path, *, escaped: bool = False) -> tuple[str, ...]:
    """Without blanks round them, nor the mark that made them harmless. ExchangeError where it can be no heading."""
    found = tuple(name.strip() for name in names)
    found = tuple(unescaped(pa.array(found, pa.string())).to_pylist()) if escaped else found
    twins = sorted({name for name in found if name and found.count(name) > 1})
    if twins:
        raise ExchangeError(
            f"{path.name}: the heading has {twins[0]!r} {found.count(twins[0])} times: rename one of them"
        )
    if len([name for name in found if name]) < 2:
        raise ExchangeError(
            f"{path.name}: the heading {', '.join(found)[:80]!r} names fewer than two columns; --delimiter says what "
            "parts them, --skip how many lines stand above it"
        )
    return found
