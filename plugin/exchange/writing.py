"""A file of history, open for writing: tables of one heading, one after the other, in bounded memory."""

import gzip
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from plugin.errors import ExchangeError
from plugin.exchange.terms import needs
from plugin.exchange.whole import Writer, iso, unfinished
from plugin.zones import Zone


def open_writer(path: Path, names: Sequence[str], kinds: Sequence[Any], zone: Zone) -> AbstractContextManager[Writer]:
    """By the name's ending. The file has its name only when it is whole; what had it before is replaced then.

    ``kinds``: Arrow types of the columns. ``zone``: of the times, where the format has them as text or local times.
    """
    needs(path)
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return _csv(path, names, kinds, zone)
    if name.endswith((".parquet", ".pq")):
        return _parquet(path, names, kinds)
    if name.endswith(".xlsx"):
        from plugin.exchange.excel_writing import excel_writer  # noqa: PLC0415

        return excel_writer(path, names, kinds, zone)
    raise ExchangeError(f"{path.name} is no file that can be written: .csv, .csv.gz, .parquet and .xlsx can")


@contextmanager
def _csv(path: Path, names: Sequence[str], kinds: Sequence[Any], zone: Zone) -> Iterator[Writer]:
    schema = pa.schema(
        [(name, pa.string() if pa.types.is_timestamp(kind) else kind) for name, kind in zip(names, kinds, strict=True)]
    )
    with unfinished(path) as beside:
        opened = gzip.open if path.suffix.lower() == ".gz" else open
        with cast("BinaryIO", opened(beside, "wb")) as file:
            heading = ",".join(_quoted(name) for name in names)
            file.write(heading.encode() + b"\n")
            options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
            with pyarrow.csv.CSVWriter(file, schema, write_options=options) as writer:
                yield _Csv(writer, schema, zone)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class _Csv:
    def __init__(self, writer: Any, schema: Any, zone: Zone) -> None:
        self._writer, self._schema, self._zone = writer, schema, zone

    def write(self, columns: Sequence[Any]) -> None:
        """See the protocol."""
        arrays = [self._cells(cells) for cells in columns]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))

    def _cells(self, cells: Any) -> Any:
        return iso(cells, self._zone) if pa.types.is_timestamp(cells.type) else cells


@contextmanager
def _parquet(path: Path, names: Sequence[str], kinds: Sequence[Any]) -> Iterator[Writer]:
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    with unfinished(path) as beside, pq.ParquetWriter(beside, schema, compression="zstd") as writer:
        yield _Parquet(writer, schema)


class _Parquet:
    def __init__(self, writer: Any, schema: Any) -> None:
        self._writer, self._schema = writer, schema

    def write(self, columns: Sequence[Any]) -> None:
        """See the protocol."""
        self._writer.write_batch(pa.record_batch(list(columns), schema=self._schema))
