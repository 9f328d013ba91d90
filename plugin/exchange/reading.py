"""A file of history, open for reading: its heading, and its rows piece by piece in bounded memory."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from plugin.errors import ExchangeError
from plugin.exchange.pieces import Piece
from plugin.exchange.terms import Terms, needs


class Table(Protocol):
    """One file."""

    @property
    def names(self) -> Sequence[str]:
        """The heading."""

    @property
    def commas(self) -> bool:
        """Whether commas part its columns, so that none can stand in a number."""

    @property
    def from_1904(self) -> bool:
        """Whether numbers that stand for days are counted from 1904."""

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
