"""DataValues from the wire into columns, without a Python object per value.

The encoding is that of OPC 10000-6, 5.2.2.16 (Variant) and 5.2.2.17 (DataValue). A value starts with its layout: a
mask of the fields that follow, and the type of the Variant. Two values of one layout differ in their numbers only, so
NumPy takes all values of a layout at once:

* a run of one layout (ten thousand Doubles) is one strided view of the message;
* where layouts mix, a loop finds each value's offset, and each layout is gathered by one fancy index;
* what has no fixed length (strings, arrays, structures) is measured and skipped: a row without a number.

So nothing but a malformed message can fail, and that costs only what stands behind the fault.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.acquire.measuring import NUMBERS, SIZES, TAIL, VALUE, Malformed, measure, tail_length, unpacked, variant_end
from plugin.domain import Quality, qualities

_EPOCH_MICROS = 11_644_473_600_000_000  # 1601 to 1970
_LAST_MICROS = 253_402_300_799_999_999  # the end of the year 9999

_OVERFLOW = 0x480  # InfoType DataValue with the overflow bit (OPC 10000-4, 7.39.1)
_OVERFLOW_MASK = 0xC80

_PROBE = 32  # values that must look alike before a run is worth a strided view
_STRIDE = 256  # values that the loop walks before it looks for a run again
_ODD = b"\xff\xff"  # stands for a layout without a fixed length; no mask has all bits
_ODD_CODE = 0xFFFF


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
    status: NDArray[np.uint32]
    without_number: int
    """Values that are not Bad and yet no number: text, arrays, structures, null."""
    lost: int
    """Values behind a malformed one."""

    def __len__(self) -> int:
        return len(self.handle)

    def overflowed(self) -> NDArray[np.bool_]:
        """Rows before which the server's queue dropped values."""
        flagged: NDArray[np.bool_] = (self.status & np.uint32(_OVERFLOW_MASK)) == _OVERFLOW
        return flagged


def decode_items(body: bytes, received: int, position: int = 0) -> Values:
    """The MonitoredItemNotifications of a DataChangeNotification's body, which begins with their number."""
    return _decode(body, position, received, prefix=4)[0]


def decode_values(body: bytes, received: int, position: int = 0) -> Values:
    """The DataValues of a HistoryData body, which begins with their number."""
    return _decode(body, position, received, prefix=0)[0]


def _decode(body: bytes, position: int, received: int, prefix: int) -> tuple[Values, int]:
    count = unpacked("<i", body, position)
    if count > len(body):  # each value takes a byte at least: no allocation on a liar's word
        raise Malformed(f"{count} values announced in {len(body)} bytes")
    count = max(count, 0)
    columns = _Columns(count)
    done, position = _fill(columns, body, position + 4, count, prefix)
    return columns.finish(done, count - done, received), position


def _fill(columns: "_Columns", body: bytes, position: int, count: int, prefix: int) -> tuple[int, int]:
    """Decode up to ``count`` values; returns how many could be, and where they end."""
    done, mixed = 0, _Mixed()
    while done < count:
        run, length = _run(body, position, count - done, prefix)
        if run:
            layout = _layout(*_key(body, position, prefix), prefix)
            columns.take(slice(done, done + run), np.frombuffer(body, layout.dtype, run, position), layout)
            done, position = done + run, position + run * length
            continue
        wanted = min(count - done, _STRIDE)
        walked, position = mixed.walk(body, position, wanted, done, prefix)
        done += walked
        if walked < wanted:
            break
    mixed.gather(columns, body, prefix)
    return done, position


def _run(body: bytes, position: int, left: int, prefix: int) -> tuple[int, int]:
    """How many values from here have the layout of the first, and its length; 0 where a run doesn't pay."""
    if position + prefix + 2 > len(body):
        return 0, 0
    mask, kind = _key(body, position, prefix)
    length = _length(mask, kind, prefix)
    fit = min(left, (len(body) - position) // length) if length else 0
    probe = min(fit, _PROBE)
    if probe < min(left, _PROBE) or _alike(body, position, probe, length, mask, kind, prefix) < probe:
        return 0, 0
    return _alike(body, position, fit, length, mask, kind, prefix), length


def _alike(body: bytes, position: int, count: int, length: int, mask: int, kind: int, prefix: int) -> int:
    """How many of ``count`` values, each ``length`` bytes behind the other, have this layout."""
    raw = np.frombuffer(body, np.uint8, count * length, position).reshape(count, length)
    same = raw[:, prefix] == mask
    if mask & VALUE:
        same &= raw[:, prefix + 1] == kind
    return count if same.all() else int(same.argmin())


class _Mixed:
    """Values whose layouts mix: first where each one stands, then layout by layout what it says."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._offsets: list[int] = []
        self._keys: list[bytes] = []

    def walk(self, body: bytes, position: int, count: int, row: int, prefix: int) -> tuple[int, int]:
        """Note up to ``count`` values from here; returns how many there are, and where they end."""
        lengths, head = _lengths(prefix), prefix + 2
        offsets, keys = [], []
        for _ in range(count):
            key = body[position + prefix : position + head]
            offsets.append(position)
            try:
                position += lengths[key]
            except KeyError:
                try:
                    position, key = measure(body, position, prefix), _ODD
                except (Malformed, RecursionError):
                    offsets.pop()
                    break
            keys.append(key)
        if position > len(body):  # the last one is cut short; what has a fixed length was not measured
            position = offsets.pop()
            keys.pop()
        self._rows += range(row, row + len(offsets))
        self._offsets += offsets
        self._keys += keys
        return len(offsets), position

    def gather(self, columns: "_Columns", body: bytes, prefix: int) -> None:
        """Put the values that were noted into their rows."""
        if not self._rows:
            return
        raw = np.frombuffer(body, np.uint8)
        rows, offsets = np.array(self._rows, np.intp), np.array(self._offsets, np.intp)
        codes = np.frombuffer(b"".join(self._keys), "<u2")
        codes = np.where(codes & VALUE, codes, codes & 0xFF)  # without a Value the second byte is another field's
        for code in np.unique(codes).tolist():
            chosen = np.flatnonzero(codes == code)
            if code == _ODD_CODE:
                for index in chosen.tolist():
                    columns.take_odd(self._rows[index], body, self._offsets[index], prefix)
                continue
            layout = _layout(code & 0xFF, code >> 8, prefix)
            block = raw[offsets[chosen][:, None] + layout.span]
            columns.take(rows[chosen], block.view(layout.dtype)[:, 0], layout)


# --- layouts ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the fields of a value stand."""

    dtype: np.dtype[Any]
    span: NDArray[np.intp]
    number: bool


@cache
def _layout(mask: int, kind: int, prefix: int) -> _Layout:
    fields: list[tuple[str, str]] = [("handle", "<u4")] if prefix else []
    fields.append(("mask", "u1"))
    if mask & VALUE:
        fields.append(("kind", "u1"))
        fields.append(("value", NUMBERS[kind]) if kind in NUMBERS else ("other", f"V{SIZES[kind]}"))
    for bit, name, code in TAIL:
        if mask & bit:
            fields.append((name, code))
    dtype = np.dtype([field for field in fields if field[1] != "V0"])
    return _Layout(dtype, np.arange(dtype.itemsize), bool(mask & VALUE) and kind in NUMBERS)


def _length(mask: int, kind: int, prefix: int) -> int:
    """Bytes of a value with this layout; 0 where the layout doesn't say."""
    if mask & VALUE and kind not in SIZES:
        return 0
    value = 1 + SIZES[kind] if mask & VALUE else 0
    return prefix + 1 + value + tail_length(mask)


@cache
def _lengths(prefix: int) -> dict[bytes, int]:
    """Length by the two bytes (mask, type); without a Value the second byte is another field's and may be anything."""
    found = {}
    for mask in range(64):
        for kind in SIZES if mask & VALUE else range(256):
            found[bytes((mask, kind))] = _length(mask, kind, prefix)
    return found


def _key(body: bytes, position: int, prefix: int) -> tuple[int, int]:
    mask, kind = body[position + prefix], body[position + prefix + 1]
    return (mask, kind) if mask & VALUE else (mask, 0)


class _Columns:
    """The columns while they fill. Times are ticks (100 ns since 1601), 0 where there is none."""

    def __init__(self, count: int) -> None:
        self.handle = np.zeros(count, np.uint32)
        self.value = np.full(count, np.nan)
        self.status = np.zeros(count, np.uint32)
        self.source = np.zeros(count, np.int64)
        self.server = np.zeros(count, np.int64)
        self.number = np.zeros(count, np.bool_)

    def take(self, rows: Any, block: NDArray[Any], layout: _Layout) -> None:
        """All values of one layout."""
        names = layout.dtype.names or ()
        if layout.number:
            self.value[rows] = block["value"]
            self.number[rows] = True
        for name in ("handle", "status", "source", "server"):
            if name in names:
                getattr(self, name)[rows] = block[name]

    def take_odd(self, row: int, body: bytes, position: int, prefix: int) -> None:
        """One value whose length stands in itself: its times and status count, its content is no number."""
        if prefix:
            self.handle[row] = unpacked("<I", body, position)
        mask = body[position + prefix]
        position += prefix + 1
        if mask & VALUE:
            position = variant_end(body, position)
        for bit, name, code in TAIL:
            if mask & bit:
                if name in ("status", "source", "server"):
                    getattr(self, name)[row] = unpacked("<I" if name == "status" else "<q", body, position)
                position += np.dtype(code).itemsize

    def finish(self, done: int, lost: int, received: int) -> Values:
        """The first ``done`` rows, times in µs, no time left null, no number left under a Bad status."""
        server = _micros(self.server[:done], received)
        source = _micros(self.source[:done], server)
        status, number, value = self.status[:done], self.number[:done], self.value[:done]
        bad = qualities(status) == Quality.BAD
        value[bad] = np.nan
        without = int(np.count_nonzero(~number & ~bad))
        timed = self.source[:done] > 0
        return Values(self.handle[:done], source, timed, server, value, status, without, lost)


def _micros(ticks: NDArray[np.int64], otherwise: Any) -> NDArray[np.int64]:
    """Ticks to µs since 1970; null, and what is before 1601, becomes ``otherwise``."""
    micros = np.minimum(ticks // 10 - _EPOCH_MICROS, _LAST_MICROS)
    return np.where(ticks > 0, micros, otherwise)
