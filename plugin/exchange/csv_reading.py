"""CSV in any of the usual dialects and encodings, compressed or not."""

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from plugin.domain import Reject
from plugin.errors import ExchangeError
from plugin.exchange.pieces import Piece, heading
from plugin.exchange.terms import Terms, fault

_BLOCK = 2 * 2**20
"""Read at once, and so the longest row [byte]; some thirty are read ahead."""
_DELIMITERS = ";\t|,"
_LONGEST = 2**16
"""Of a cell [byte]."""
_OPEN = "holds the end of a line: is a quotation mark not closed?"
_SHOWN = 200
"""Characters of a line that is quarantined."""


class CsvTable:
    """See :class:`plugin.exchange.reading.Table`."""

    notes: Sequence[str] = ()
    from_1904 = False

    def __init__(self, path: Path, terms: Terms, raw: BinaryIO, text: io.BufferedReader) -> None:
        """``raw``: the file as it lies on disk; ``text``: what it says, in UTF-8."""
        self._path, self._raw, self._text = path, raw, text
        self._size = max(1, path.stat().st_size)
        self._plain = path.suffix.lower() != ".gz" and terms.encoding == "utf-8"
        self._told = 0
        """Bytes of the rows that were given: of the file much more is read already."""
        first = self._skip(terms.skip)
        self._delimiter = terms.delimiter or _delimiter(first)
        self.names = self._heading(first)
        self._bad: dict[int, Reject] = {}
        """Rows that have too few cells or too many, until their piece is given."""

    @classmethod
    @contextmanager
    def opened(cls, path: Path, terms: Terms) -> Iterator["CsvTable"]:
        """For as long as the context lasts."""
        with ExitStack() as stack, _translated(path):
            raw = stack.enter_context(path.open("rb"))
            plain: Any = stack.enter_context(gzip.open(raw)) if path.suffix.lower() == ".gz" else raw
            text = _Utf8(plain, terms.encoding)
            yield cls(path, terms, raw, stack.enter_context(io.BufferedReader(text, _BLOCK)))

    @property
    def commas(self) -> bool:
        """See the protocol."""
        return self._delimiter == ","

    @property
    def share(self) -> float:
        """See the protocol."""
        return min(1.0, (self._told if self._plain else self._raw.tell()) / self._size)

    def _skip(self, lines: int) -> str:
        """The heading's first line."""
        for _ in range(lines):
            self._line()
        line = self._line()
        if line.casefold().startswith("sep=") and len(line.strip()) == 5:  # as Excel writes it
            line = self._line()
        return line

    def _line(self) -> str:
        line = self._text.readline(_BLOCK)
        if not line:
            raise ExchangeError(f"{self._path.name} is empty, or ends above its heading (--skip)")
        if len(line) == _BLOCK and not line.endswith(b"\n"):
            raise ExchangeError(f"{self._path.name}: a line of its beginning is longer than {_BLOCK >> 20} MiB")
        try:
            return line.decode().lstrip("\ufeff")
        except UnicodeDecodeError as error:
            raise _no_utf8(self._path) from error

    def _heading(self, first: str) -> tuple[str, ...]:
        def lines() -> Iterator[str]:
            yield first
            while True:
                yield self._line()

        try:
            return heading(next(csv.reader(lines(), delimiter=self._delimiter)), self._path, escaped=True)
        except csv.Error as error:
            raise ExchangeError(f"{self._path.name}: the heading can't be read: {error}") from error

    def pieces(self, columns: Sequence[int], texts: Collection[int] = ()) -> Iterator[Piece]:
        """See the protocol."""
        done = 0
        with _translated(self._path):
            for batch in self._batches():
                rows = self._numbers(done, batch.num_rows)
                done = int(rows[-1]) if len(rows) else done
                self._weigh(rows, batch.columns, texts)
                yield self._piece(rows, {column: batch.column(column) for column in columns})
            yield self._piece(np.array([], np.int64), {column: pa.array([], pa.string()) for column in columns})

    def _batches(self) -> Iterator[Any]:
        everything = [str(column) for column in range(len(self.names))]
        try:
            reader = pyarrow.csv.open_csv(
                self._text,
                pyarrow.csv.ReadOptions(use_threads=False, block_size=_BLOCK, column_names=everything),
                pyarrow.csv.ParseOptions(
                    delimiter=self._delimiter,
                    newlines_in_values=True,
                    ignore_empty_lines=False,
                    invalid_row_handler=self._note,
                ),
                pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(everything, pa.binary()),  # strings that are no UTF-8 would end it all
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV file" in str(error):
                return
            raise
        yield from reader

    def _note(self, row: Any) -> str:
        if row.text.strip():  # an empty line is nothing
            reason = f"has {row.actual_columns} cells, the heading {row.expected_columns}"
            self._bad[row.number] = Reject(row.number, "", _shown(row.text), reason)
        else:
            self._bad[row.number] = Reject(row.number, "", "", "")
        return "skip"

    def _numbers(self, done: int, count: int) -> NDArray[np.int64]:
        """Of the next rows, leaving out those that were noted."""
        noted = sorted(number for number in self._bad if number > done)
        rows = np.arange(done + 1, done + 1 + count + len(noted))
        return np.setdiff1d(rows, np.array(noted, np.int64), assume_unique=True)[:count]

    def _weigh(self, rows: NDArray[np.int64], columns: Sequence[Any], texts: Collection[int]) -> None:
        """A quotation mark that is not closed swallows the rows behind it, and all of it would look like one cell."""
        for column, cells in enumerate(columns):
            lengths = pc.binary_length(cells)
            self._told += (pc.sum(lengths).as_py() or 0) + len(cells)
            if (pc.max(lengths).as_py() or 0) > _LONGEST:
                where = f"{self._path.name}: from row {int(rows[0])} on, a cell of {self.names[column]!r}"
                raise ExchangeError(f"{where} is longer than {_LONGEST >> 10} KiB: is a quotation mark not closed?")
            if column in texts or not pc.any(pc.match_substring(cells, "\n")).as_py():
                continue
            for place in np.flatnonzero(pc.fill_null(pc.match_substring(cells, "\n"), False)).tolist():
                content = _shown(cells[place].as_py().decode(errors="replace"))
                number = int(rows[place])
                self._bad[number] = Reject(number, "", f"{self.names[column]}: {content}", _OPEN)

    def _piece(self, rows: NDArray[np.int64], columns: dict[int, Any]) -> Piece:
        last = int(rows[-1]) if len(rows) else 2**62
        rejects = [self._bad.pop(number) for number in sorted(self._bad) if number <= last]
        decoded = {column: self._decoded(rows, column, cells, rejects) for column, cells in columns.items()}
        return Piece(rows, decoded, tuple(reject for reject in rejects if reject.reason))

    def _decoded(self, rows: NDArray[np.int64], column: int, cells: Any, rejects: list[Reject]) -> Any:
        try:
            return cells.cast(pa.string())
        except pa.ArrowInvalid:
            texts = []
            for row, cell in zip(rows.tolist(), cells.to_pylist(), strict=True):
                try:
                    texts.append(None if cell is None else cell.decode())
                except UnicodeDecodeError:
                    texts.append(None)
                    rejects.append(Reject(row, self.names[column], _shown(repr(cell)), "is no UTF-8: see --encoding"))
            return pa.array(texts, pa.string())


class _Utf8(io.RawIOBase):
    """The bytes of a text in another encoding, in UTF-8."""

    def __init__(self, raw: Any, encoding: str) -> None:
        try:
            found = codecs.lookup(encoding)
            decoder = codecs.getincrementaldecoder(encoding)()
            decoder.decode(b"").encode()  # hex and its like give no text
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise fault("--encoding", encoding, "is no encoding", "Such as utf-8, utf-16, cp1252 or latin-1") from error
        self._raw = raw
        self._decoder = None if found.name in {"utf-8", "ascii"} else decoder
        self._rest = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and not self._ended:
            chunk = self._raw.read(min(len(buffer), _BLOCK))
            self._ended = not chunk
            self._rest = chunk if self._decoder is None else self._decoder.decode(chunk, self._ended).encode()
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _delimiter(line: str) -> str:
    """What parts the heading in most pieces, outside quotes."""
    outside = "".join(line.split('"')[::2])
    return max(_DELIMITERS, key=outside.count)


def _shown(text: str) -> str:
    printable = "".join(character if character.isprintable() else "�" for character in text)
    return printable if len(printable) <= _SHOWN else printable[: _SHOWN - 1] + "…"


def _no_utf8(path: Path) -> ExchangeError:
    return ExchangeError(f"{path.name} is no UTF-8: say --encoding, such as cp1252 or utf-16")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Errors of reading become ExchangeError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ExchangeError(f"{path.name} is not in the encoding {error.encoding}: {error.reason}") from error
    except pa.ArrowInvalid as error:
        if "straddling" in str(error):
            reason = f"a row is longer than {_BLOCK >> 20} MiB: is a quotation mark not closed?"
            raise ExchangeError(f"{path.name}: {reason}") from error
        raise ExchangeError(f"{path.name} can't be read: {error}") from error
    except EOFError as error:
        raise ExchangeError(f"{path.name} ends too early: it is cut off") from error
    except (OSError, zlib.error) as error:
        raise ExchangeError(f"{path.name} can't be read: {error}") from error
