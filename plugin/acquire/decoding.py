"""DataValues from the wire into columns, without a Python object per value.

The encoding is that of OPC 10000-6, 5.2.2.16 (Variant) and 5.2.2.17 (DataValue). A value starts with its layout: a
mask of the fields that follow, and the type of the Variant. Two values of one layout differ in their numbers only, so
NumPy takes all values of a layout at once:

* a run of one layout (ten thousand Doubles) is one strided view of the message;
* where layouts mix, the places of the message before are tried first (the same items tend to come in the same order),
  and proven by comparing the layouts that stand there; what they don't explain, a loop finds value by value;
* what has no fixed length (strings, arrays, structures) is measured and skipped: a row without a number, whose Variant
  :mod:`plugin.acquire.contents` can read.

So nothing but a malformed message can fail, and that costs only what stands behind the fault.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.acquire.measuring import NUMBERS, SIZES, TAIL, VALUE, Malformed, unpacked
from plugin.acquire.places import ODD, Finder, Found, Places, code_of, length_of
from plugin.domain import Quality, qualities

_EPOCH_MICROS = 11_644_473_600_000_000  # 1601 to 1970
_LAST_MICROS = 253_402_300_799_999_999  # the end of the year 9999
_EPOCH_TICKS = 10 * _EPOCH_MICROS
_LAST_TICKS = 10 * (_LAST_MICROS + _EPOCH_MICROS)
_EXACT = 2**53

_OVERFLOW = 0x480  # InfoType DataValue with the overflow bit (OPC 10000-4, 7.39.1)
_OVERFLOW_MASK = 0xC80

_PROBE = 32  # values that must look alike before a run is worth a strided view
_STRIDE = 2048  # values that the loop walks before it looks for a run again
_EXCEPTIONS = 8  # values that stand otherwise before a message is searched value by value
_REMEMBERED = 16  # messages whose places are kept: a subscription has one, or a few

Memory = dict[tuple[int, bytes], Places]
"""Places by number of values and first client handle. Owned by who decodes; empty at first."""


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """Decoded DataValues as columns of one length, in the order of the message."""

    handle: NDArray[np.uint32]
    """Client handle of the monitored item; 0 in history."""
    source_time: NDArray[np.int64]
    """[µs]; where the source gave none: the server time, else the time of arrival."""
    timed: NDArray[np.bool_]
    """The source gave its time."""
    server_time: NDArray[np.int64]
    """[µs]; where the server gave none: the time of arrival."""
    value: NDArray[np.float64]
    """A DateTime is seconds since 1970."""
    status: NDArray[np.uint32]
    kind: NDArray[np.uint8]
    """Encoding byte of the Variant: built-in type, with 0x80 for an array; 0: null, or none."""
    without_number: int
    """Values that are not Bad and yet no number: text, arrays, structures, null."""
    lost: int
    """Values behind a malformed one."""
    body: bytes
    """The message, of which ``variants`` speaks."""
    odd: NDArray[np.intp]
    """Rows whose Variant says more than the number does: text, arrays, structures, integers beyond 2^53; ascending."""
    variants: NDArray[np.intp]
    """Of those: where the Variant begins."""
    text: NDArray[np.object_] | None = None
    """As :attr:`plugin.domain.SampleBatch.text`; this and the next two by :mod:`plugin.acquire.portions`."""
    undecodable: int = 0
    """Values whose own content can't be read."""
    cut: int = 0
    """Texts that were longer than is kept."""

    def __len__(self) -> int:
        return len(self.handle)

    def take(self, rows: NDArray[np.bool_]) -> "Values":
        """The rows of a mask."""
        columns = ["handle", "source_time", "timed", "server_time", "value", "status", "kind"]
        columns += ["text"] if self.text is not None else []
        kept = rows[self.odd]
        place = np.cumsum(rows) - 1
        taken = replace(self, **{name: getattr(self, name)[rows] for name in columns})
        bare = np.isnan(taken.value) & (qualities(taken.status) != Quality.BAD)
        return replace(
            taken, odd=place[self.odd[kept]], variants=self.variants[kept], without_number=int(np.count_nonzero(bare))
        )

    def overflowed(self) -> NDArray[np.bool_]:
        """Rows before which the server's queue dropped values."""
        flagged: NDArray[np.bool_] = (self.status & np.uint32(_OVERFLOW_MASK)) == _OVERFLOW
        return flagged


def decode_items(body: bytes, received: int, position: int = 0, memory: Memory | None = None) -> Values:
    """The MonitoredItemNotifications of a DataChangeNotification's body, which begins with their number."""
    return _decode(body, position, received, 4, memory)


def decode_values(body: bytes, received: int, position: int = 0) -> Values:
    """The DataValues of a HistoryData body, which begins with their number."""
    return _decode(body, position, received, 0, None)


def _decode(body: bytes, position: int, received: int, prefix: int, memory: Memory | None) -> Values:
    count = unpacked("<i", body, position)
    if count > len(body):  # each value takes a byte at least: no allocation on a liar's word
        raise Malformed(f"{count} values announced in {len(body)} bytes")
    count = max(count, 0)
    columns = _Columns(count, body, prefix)
    done = _fill(columns, position + 4, count, memory)
    return columns.finish(done, count - done, received)


def _fill(columns: "_Columns", position: int, count: int, memory: Memory | None) -> int:
    """Decode up to ``count`` values; returns how many could be."""
    body, prefix = columns.body, columns.prefix
    if count and _run(body, position, count, prefix)[0] == count:
        columns.take_run(slice(0, count), position)
        return count
    key = (count, body[position : position + prefix])
    known = memory.get(key) if memory else None
    search = _Search(columns, position, count)
    if known is not None:
        search.explain(known)
    search.walk()
    found = search.finish()
    if memory is not None and search.walked and len(found) == count:
        memory.pop(key, None)
        memory[key] = Places(found, body, position, prefix)
        if len(memory) > _REMEMBERED:
            del memory[next(iter(memory))]
    return len(found)


class _Search:
    """Finds the values of a message and puts them into the columns: what is explained, what runs, and the rest."""

    def __init__(self, columns: "_Columns", position: int, count: int) -> None:
        self.walked: list[slice] = []
        """Rows that were found value by value."""
        self._columns = columns
        self._finder = Finder(columns.body, columns.prefix)
        self._position = position
        self._count = count
        self._done = 0

    def explain(self, known: Places) -> None:
        """By the places of a message before; values in between that stand otherwise are walked, if they are few."""
        for _ in range(_EXCEPTIONS):
            found = known.explain(self._columns.body, self._position, self._done)
            self._columns.gather(found, known.groups(self._done, self._done + len(found)), self._done)
            self._finder.add(found)
            self._done, self._position = self._done + len(found), found.end
            if self._done == self._count or not self._step(1):
                return

    def walk(self) -> None:
        """What is left, in runs of one layout or value by value; up to a value that can't be found."""
        body, prefix = self._columns.body, self._columns.prefix
        while self._done < self._count:
            run, length = _run(body, self._position, self._count - self._done, prefix)
            if run:
                code = self._columns.take_run(slice(self._done, self._done + run), self._position)
                self._finder.run(self._position, run, length, code)
                self._done, self._position = self._done + run, self._position + run * length
            elif not self._step(min(self._count - self._done, _STRIDE)):
                return

    def _step(self, wanted: int) -> bool:
        found, self._position = self._finder.walk(self._position, wanted)
        self.walked.append(slice(self._done, self._done + found))
        self._done += found
        return found == wanted

    def finish(self) -> Found:
        """Where all of them are, after putting the rest into the columns."""
        found = self._finder.found(self._position)
        if self.walked:
            rows = np.concatenate([np.arange(part.start, part.stop) for part in self.walked])
            codes = found.codes[rows]
            groups = [(code, rows[codes == code]) for code in np.unique(codes).tolist()]
            self._columns.gather(found, groups, 0)
        self._columns.gather_odd(found)
        return found


def _run(body: bytes, position: int, left: int, prefix: int) -> tuple[int, int]:
    """How many values from here have the layout of the first, and its length; 0 where a run doesn't pay."""
    if position + prefix + 2 > len(body):
        return 0, 0
    mask, kind = body[position + prefix], body[position + prefix + 1]
    length = length_of(mask, kind, prefix)
    fit = min(left, (len(body) - position) // length) if length else 0
    probe = min(fit, _PROBE)
    if probe < min(left, _PROBE) or _alike(body, position, probe, length, prefix) < probe:
        return 0, 0
    return _alike(body, position, fit, length, prefix), length


def _alike(body: bytes, position: int, count: int, length: int, prefix: int) -> int:
    """How many of ``count`` values, each ``length`` bytes behind the other, have the layout of the first."""
    raw = np.frombuffer(body, np.uint8, count * length, position).reshape(count, length)
    same = raw[:, prefix] == raw[0, prefix]
    if raw[0, prefix] & VALUE:
        same &= raw[:, prefix + 1] == raw[0, prefix + 1]
    return count if same.all() else int(same.argmin())


_NONE = np.zeros(0, np.intp)


# --- layouts ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the fields of a value stand, and what they mean."""

    dtype: np.dtype[Any]
    kind: int
    number: Callable[[NDArray[Any]], NDArray[Any]] | None
    """From what stands there to the value; None: it is no number."""

    def says_more(self, block: NDArray[Any]) -> NDArray[np.intp]:
        """Places of values that are no number, or more than a float64 holds."""
        if self.kind in {8, 9}:
            return np.flatnonzero(_wide(block["value"]))
        return np.arange(len(block)) if self.kind == _GUID else _NONE


@cache
def _layout(code: int, prefix: int) -> _Layout:
    mask, kind = code & 0xFF, code >> 8
    fields: list[tuple[str, str]] = [("handle", "<u4")] if prefix else []
    fields.append(("mask", "u1"))
    if mask & VALUE:
        fields += [("kind", "u1"), ("value", _STORED.get(kind) or f"V{SIZES[kind]}")]
    dtype = np.dtype([field for field in fields if field[1] != "V0"] + _tail(mask))
    number = _NUMBERS.get(kind, _as_it_is) if mask & VALUE and kind in _STORED else None
    return _Layout(dtype, kind if mask & VALUE else 0, number)


def _tail(mask: int) -> list[tuple[str, str]]:
    return [(name, code) for bit, name, code in TAIL if mask & bit]


def _as_it_is(stored: NDArray[Any]) -> NDArray[Any]:
    return stored


def _seconds(ticks: NDArray[Any]) -> NDArray[Any]:
    """Of DateTimes, since 1970; NaN where there is none."""
    return np.where(ticks > 0, (np.minimum(ticks, _LAST_TICKS) - _EPOCH_TICKS) / 1e7, np.nan)


_DATE_TIME, _GUID = 13, 14
_STORED = {**NUMBERS, _DATE_TIME: "<i8"}
_NUMBERS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {1: lambda stored: stored != 0, _DATE_TIME: _seconds}


class _Columns:
    """The columns while they fill. Times are ticks (100 ns since 1601), 0 where there is none."""

    def __init__(self, count: int, body: bytes, prefix: int) -> None:
        self.body = body
        self.prefix = prefix
        self.handle = np.zeros(count, np.uint32)
        self.value = np.full(count, np.nan)
        self.status = np.zeros(count, np.uint32)
        self.source = np.zeros(count, np.int64)
        self.server = np.zeros(count, np.int64)
        self.kind = np.zeros(count, np.uint8)
        self.number = np.zeros(count, np.bool_)
        self._odd: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []

    def take_run(self, rows: slice, position: int) -> int:
        """Values of one layout, one behind the other; returns its code."""
        code = code_of(self.body[position + self.prefix], self.body[position + self.prefix + 1])
        layout, count = _layout(code, self.prefix), rows.stop - rows.start
        block = np.frombuffer(self.body, layout.dtype, count, position)
        self._take(rows, block, layout)
        if len(more := layout.says_more(block)):
            self._note(more + rows.start, position + more * layout.dtype.itemsize)
        return code

    def gather(self, found: Found, groups: Iterable[tuple[int, NDArray[np.intp]]], first: int) -> None:
        """Rows by code, of which the first that was found is ``first``; what has no fixed length is left out."""
        for code, rows in groups:
            if code == ODD or not len(rows):
                continue
            layout = _layout(code, self.prefix)
            offsets = found.offsets[rows - first if first else rows]
            block = _window(self.body, layout.dtype)[offsets]
            self._take(rows, block, layout)
            if len(more := layout.says_more(block)):
                self._note(rows[more], offsets[more])

    def gather_odd(self, found: Found) -> None:
        """What has no fixed length: times and status; the content is not looked at."""
        if not len(found.odd):
            return
        rows, offsets = found.odd, found.offsets[found.odd]
        if self.prefix:
            self.handle[rows] = _window(self.body, np.dtype("<u4"))[offsets]
        masks = np.frombuffer(self.body, np.uint8)[offsets + self.prefix]
        for mask in np.unique(masks).tolist():
            alike = np.flatnonzero(masks == mask)
            if mask & VALUE:
                self._note(rows[alike], offsets[alike])
                self.kind[rows[alike]] = np.frombuffer(self.body, np.uint8)[offsets[alike] + self.prefix + 1]
            if tail := _tail(mask):
                dtype = np.dtype(tail)
                self._put(rows[alike], _window(self.body, dtype)[found.tails[alike]], dtype)

    def _take(self, rows: Any, block: NDArray[Any], layout: _Layout) -> None:
        if layout.number is not None:
            self.value[rows] = layout.number(block["value"])
            self.number[rows] = True
        self.kind[rows] = layout.kind
        self._put(rows, block, layout.dtype)

    def _put(self, rows: Any, block: NDArray[Any], dtype: np.dtype[Any]) -> None:
        names = dtype.names or ()
        for name in ("handle", "status", "source", "server"):
            if name in names:
                getattr(self, name)[rows] = block[name]

    def _note(self, rows: NDArray[np.intp], offsets: NDArray[np.intp]) -> None:
        """Rows whose Variant says more than the number does."""
        self._odd.append((rows, offsets + self.prefix + 1))

    def finish(self, done: int, lost: int, received: int) -> Values:
        """The first ``done`` rows, times in µs, no time left null, no number left under a Bad status."""
        server = _micros(self.server[:done], received)
        source = _micros(self.source[:done], server)
        status, number, value = self.status[:done], self.number[:done], self.value[:done]
        bad = qualities(status) == Quality.BAD
        value[bad] = np.nan
        without = int(np.count_nonzero(~number & ~bad))
        odd, variants = self._noted()
        return Values(
            self.handle[:done], source, self.source[:done] > 0, server, value, status, self.kind[:done], without, lost,
            self.body, odd, variants,
        )  # fmt: skip

    def _noted(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        if not self._odd:
            return _NONE, _NONE
        rows, variants = (np.concatenate(parts) for parts in zip(*self._odd, strict=True))
        order = np.argsort(rows)
        return rows[order], variants[order]


def _window(body: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The body as an array in which every byte begins an element: its index is an offset."""
    return np.ndarray((max(len(body) - dtype.itemsize + 1, 0),), dtype, body, strides=(1,))


def _wide(stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Integers that a float64 may round."""
    wide: NDArray[np.bool_] = stored > _EXACT
    return wide if stored.dtype.kind == "u" else wide | (stored < -_EXACT)


def _micros(ticks: NDArray[np.int64], otherwise: Any) -> NDArray[np.int64]:
    """Ticks to µs since 1970; null, and what is before 1601, becomes ``otherwise``."""
    micros = np.minimum(ticks // 10 - _EPOCH_MICROS, _LAST_MICROS)
    return np.where(ticks > 0, micros, otherwise)
