"""Excel workbooks, row by row: what the cells show, formulas by their last result."""

import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from plugin.errors import ExchangeError
from plugin.exchange.pieces import CELLS, Piece, heading
from plugin.exchange.terms import Terms, fault

_LARGEST_SHEET = 8 * 2**30
"""Unpacked [byte]; a full sheet of numbers has about a tenth of it."""
_LARGEST_PART = 256 * 2**20
"""Of what is read whole into memory, such as the texts that cells share [byte]."""
_ROWS, _COLUMNS = 1_048_576, 16_384
_ODD = (KeyError, ValueError, TypeError, AttributeError, IndexError, SyntaxError, zlib.error, EOFError, OSError)
"""What openpyxl lets through where a part of a workbook is not what it should be."""


class ExcelTable:
    """See :class:`plugin.exchange.reading.Table`. Sheets with the heading of the first one follow it."""

    def __init__(self, path: Path, terms: Terms, book: Any) -> None:
        self._path, self._book = path, book
        self._decimal = terms.decimal
        self._sheets = self._chosen(terms.sheet)
        self._skip = terms.skip
        self._done, self._total = 0, sum(max(1, sheet.max_row or 1) for sheet in self._sheets)
        self.notes: list[str] = []
        beginning = _some(self._rows(self._sheets[0]), 1)
        if not beginning:
            raise ExchangeError(f"{path.name}: the sheet {self._sheets[0].title!r} is empty")
        first = beginning[0]
        self._first = list(first)
        while first and first[-1] is None:
            first.pop()
        self.names = heading([name or "" for name in first], path, escaped=True)

    @classmethod
    @contextmanager
    def opened(cls, path: Path, terms: Terms) -> Iterator["ExcelTable"]:
        """For as long as the context lasts."""
        from openpyxl import load_workbook  # noqa: PLC0415 - slow to load

        with _translated(path), path.open("rb") as file:
            _weigh(path)
            with _quiet():
                book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
            try:
                yield cls(path, terms, book)
            finally:
                book.close()

    @property
    def commas(self) -> bool:
        """See the protocol; numbers are stored as such, texts as people wrote them."""
        return True

    @property
    def from_1904(self) -> bool:
        """See the protocol: a choice of the workbook, once usual on the Macintosh."""
        return int(self._book.epoch.year) == 1904

    @property
    def share(self) -> float:
        """See the protocol."""
        return min(1.0, self._done / self._total)

    def _chosen(self, name: str) -> list[Any]:
        sheets = list(self._book.worksheets)
        if not name:
            return sheets
        found = [sheet for sheet in sheets if sheet.title == name]
        if not found:
            raise fault("--sheet", name, "is no sheet", f"Sheets are {[sheet.title for sheet in sheets]}")
        return found

    def _rows(self, sheet: Any) -> Iterator[list[str | None]]:
        sheet.reset_dimensions()  # what the file says of its size need not be so
        for number, row in enumerate(sheet.iter_rows(values_only=True)):
            if number >= _ROWS:
                raise ExchangeError(f"{self._path.name}: the sheet {sheet.title!r} has more rows than Excel allows")
            if number >= self._skip:
                yield [self._shown(cell) for cell in row[:_COLUMNS]]

    def _shown(self, cell: Any) -> str | None:
        if cell is None or isinstance(cell, str):
            return _unescaped(cell) if cell else None
        if isinstance(cell, bool):
            return "TRUE" if cell else "FALSE"
        if isinstance(cell, datetime):
            return cell.isoformat(" ")
        text = repr(cell) if isinstance(cell, int | float) else str(cell)
        return text.replace(".", ",") if self._decimal == "," else text

    def pieces(self, columns: Sequence[int], _texts: Collection[int] = ()) -> Iterator[Piece]:
        """See the protocol."""
        size = max(1, CELLS // max(1, len(self.names)))
        number = 0
        with _translated(self._path):
            for sheet in self._sheets:
                rows = self._rows(sheet)
                if _some(rows, 1) != [self._first]:
                    self.notes.append(f"the sheet {sheet.title!r} has another heading than the first: left out")
                    continue
                while some := _some(rows, size):
                    yield self._piece(number, some, columns)
                    number += len(some)
                    self._done += len(some)

    def _piece(self, number: int, rows: Sequence[Sequence[str | None]], columns: Sequence[int]) -> Piece:
        def column(place: int) -> Any:
            return pa.array([row[place] if place < len(row) else None for row in rows], pa.string())

        return Piece(np.arange(number + 1, number + 1 + len(rows)), {place: column(place) for place in columns})


@contextmanager
def _quiet() -> Iterator[None]:
    """What openpyxl warns of, such as styles that it does not know, is nothing to us."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _some(rows: Iterator[list[str | None]], count: int) -> list[list[str | None]]:
    with _quiet():
        return list(islice(rows, count))


def _unescaped(text: str) -> str:
    """``_x000D_`` stands for a character that XML can't hold (ECMA-376-1, 22.9.2.19, ST_Xstring)."""
    if "_x" not in text:
        return text
    from openpyxl.utils.escape import unescape  # noqa: PLC0415

    found: str = unescape(text)
    return found


def _weigh(path: Path) -> None:
    """ExchangeError where it would unpack to more than a workbook can hold, or to more than it says."""
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            is_sheet = part.filename.startswith("xl/worksheets/")
            if part.file_size > (_LARGEST_SHEET if is_sheet else _LARGEST_PART):
                raise ExchangeError(
                    f"{path.name}: its part {part.filename} unpacks to {part.file_size / 2**20:,.0f} MiB: it is refused"
                )


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Errors of reading become ExchangeError."""
    from openpyxl.utils.exceptions import InvalidFileException  # noqa: PLC0415

    try:
        yield
    except (zipfile.BadZipFile, InvalidFileException) as error:
        raise ExchangeError(f"{path.name} is no workbook of Excel, or is cut off: {error}") from error
    except _ODD as error:
        raise ExchangeError(f"{path.name} can't be read as a workbook: {type(error).__name__}: {error}") from error
