"""Parquet, whose columns have types."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from plugin.errors import ExchangeError
from plugin.exchange.pieces import CELLS, Piece, heading
from plugin.exchange.terms import Terms

_BUFFER = 2**20
_READ = (
    pa.types.is_timestamp, pa.types.is_date, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal,
    pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string, pa.types.is_null,
)  # fmt: skip

_BYTES = pa.types.is_string_view, pa.types.is_binary, pa.types.is_large_binary
"""What Polars, and what Impala and older writers take for a text."""


class ParquetTable:
    """See :class:`plugin.exchange.reading.Table`."""

    commas = True
    from_1904 = False
    notes: Sequence[str] = ()

    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file = path, file
        self._done = 0
        self.names = heading(file.schema_arrow.names, path)

    @classmethod
    @contextmanager
    def opened(cls, path: Path, _terms: Terms) -> Iterator["ParquetTable"]:
        """For as long as the context lasts."""
        with _translated(path), pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
            yield cls(path, file)

    @property
    def share(self) -> float:
        """See the protocol."""
        return self._done / max(1, int(self._file.metadata.num_rows))

    def pieces(self, columns: Sequence[int], _texts: Collection[int] = ()) -> Iterator[Piece]:
        """See the protocol."""
        stored = self._file.schema_arrow.names
        with _translated(self._path):
            size = max(1, CELLS // max(1, len(columns)))
            for batch in self._file.iter_batches(size, columns=[stored[column] for column in columns]):
                rows = np.arange(self._done + 1, self._done + 1 + batch.num_rows)
                self._done += batch.num_rows
                yield Piece(rows, {column: self._plain(batch.column(stored[column]), column) for column in columns})

    def _plain(self, cells: Any, column: int) -> Any:
        if pa.types.is_dictionary(cells.type):
            cells = cells.dictionary_decode()
        if any(is_kind(cells.type) for is_kind in _BYTES):
            cells = cells.cast(pa.string())
        if not any(fits(cells.type) for fits in _READ):
            raise ExchangeError(f"{self._path.name}: the column {self.names[column]!r} holds {cells.type}, no values")
        if pa.types.is_date(cells.type):
            return cells.cast(pa.timestamp("us"))
        return cells.cast(pa.string()) if pa.types.is_null(cells.type) else cells


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Errors of reading become ExchangeError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ExchangeError(f"{path.name} can't be read as Parquet: {str(error).splitlines()[0]}") from error
