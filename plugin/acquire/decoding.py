"""DataValues from the wire into columns, without a Python object per value.

The encoding is that of OPC 10000-6, 5.2.2.16 (Variant) and 5.2.2.17 (DataValue). A value starts with its layout: a
mask of the fields that follow, and the type of the Variant. Two values of one layout differ in their numbers only, so
NumPy takes all values of a layout at once:

* a run of one layout (ten thousand Doubles) is one strided view of the message;
* where layouts mix, a loop finds each value's offset, and each layout is gathered by one fancy index;
* what has no fixed length (strings, arrays, structures) is measured and skipped: a row without a number.

So nothing but a malformed message can fail, and that costs only what stands behind the fault.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Quality, qualities

_VALUE, _STATUS, _SOURCE, _SERVER, _SOURCE_PICO, _SERVER_PICO = 1, 2, 4, 8, 16, 32
_ARRAY, _DIMENSIONS, _TYPE = 0x80, 0x40, 0x3F

_NUMBERS = {
    1: "u1",  # Boolean
    2: "i1",
    3: "u1",
    4: "<i2",
    5: "<u2",
    6: "<i4",
    7: "<u4",
    8: "<i8",  # above 2^53 the float64 column rounds
    9: "<u8",
    10: "<f4",
    11: "<f8",
}
_FIXED = {0: 0, 13: 8, 14: 16, 19: 4}  # Null, DateTime, Guid, StatusCode: a length, but no number
_SIZES = {**{kind: np.dtype(code).itemsize for kind, code in _NUMBERS.items()}, **_FIXED}

_EPOCH_MICROS = 11_644_473_600_000_000  # 1601 to 1970
_LAST_MICROS = 253_402_300_799_999_999  # the end of the year 9999

_OVERFLOW = 0x480  # InfoType DataValue with the overflow bit (OPC 10000-4, 7.39.1)
_OVERFLOW_MASK = 0xC80

_PROBE = 32  # values that must look alike before a run is worth a strided view
_STRIDE = 256  # values that the loop walks before it looks for a run again
_ODD = b"\xff\xff"  # stands for a layout without a fixed length; no mask has all bits
_ODD_CODE = 0xFFFF
_DEPTH = 16  # Variants in Variants; deeper is an attack


class Malformed(ValueError):
    """The bytes are no encoding of what should stand there; the message's rest can't be read."""


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
    count = _number("<i", body, position)
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
    if mask & _VALUE:
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
                    position, key = _measure(body, position, prefix), _ODD
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
        codes = np.where(codes & _VALUE, codes, codes & 0xFF)  # without a Value the second byte is another field's
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
    if mask & _VALUE:
        fields.append(("kind", "u1"))
        fields.append(("value", _NUMBERS[kind]) if kind in _NUMBERS else ("other", f"V{_SIZES[kind]}"))
    for bit, name, code in _TAIL:
        if mask & bit:
            fields.append((name, code))
    dtype = np.dtype([field for field in fields if field[1] != "V0"])
    return _Layout(dtype, np.arange(dtype.itemsize), bool(mask & _VALUE) and kind in _NUMBERS)


_TAIL = (
    (_STATUS, "status", "<u4"),
    (_SOURCE, "source", "<i8"),
    (_SOURCE_PICO, "source_pico", "<u2"),
    (_SERVER, "server", "<i8"),
    (_SERVER_PICO, "server_pico", "<u2"),
)


def _length(mask: int, kind: int, prefix: int) -> int:
    """Bytes of a value with this layout; 0 where the layout doesn't say."""
    if mask & _VALUE and kind not in _SIZES:
        return 0
    value = 1 + _SIZES[kind] if mask & _VALUE else 0
    return prefix + 1 + value + _tail_length(mask)


def _tail_length(mask: int) -> int:
    return sum(np.dtype(code).itemsize for bit, _, code in _TAIL if mask & bit)


@cache
def _lengths(prefix: int) -> dict[bytes, int]:
    """Length by the two bytes (mask, type); without a Value the second byte is another field's and may be anything."""
    found = {}
    for mask in range(64):
        for kind in _SIZES if mask & _VALUE else range(256):
            found[bytes((mask, kind))] = _length(mask, kind, prefix)
    return found


def _key(body: bytes, position: int, prefix: int) -> tuple[int, int]:
    mask, kind = body[position + prefix], body[position + prefix + 1]
    return (mask, kind) if mask & _VALUE else (mask, 0)


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
            self.handle[row] = _number("<I", body, position)
        mask = body[position + prefix]
        position += prefix + 1
        if mask & _VALUE:
            position = _variant_end(body, position)
        for bit, name, code in _TAIL:
            if mask & bit:
                if name in ("status", "source", "server"):
                    getattr(self, name)[row] = _number("<I" if name == "status" else "<q", body, position)
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


# --- values without a fixed length -----------------------------------------------------------------------------


def _measure(body: bytes, position: int, prefix: int) -> int:
    """End of the value that starts here."""
    mask = _number("<B", body, position + prefix)
    position = _bounded(body, position + prefix + 1)
    if mask & _VALUE:
        position = _variant_end(body, position)
    return _bounded(body, position + _tail_length(mask))


def _variant_end(body: bytes, position: int, depth: int = 0) -> int:
    if depth > _DEPTH:
        raise Malformed("nested too deep")
    encoding = _number("<B", body, position)
    kind, position = encoding & _TYPE, position + 1
    if encoding & _ARRAY:
        count = _number("<i", body, position)
        position += 4
        if kind in _SIZES:
            position = _bounded(body, position + max(count, 0) * _SIZES[kind])
        else:
            for _ in _counted(body, count):
                position = _element_end(body, position, kind, depth)
        if encoding & _DIMENSIONS:
            position += 4 + 4 * max(_number("<i", body, position), 0)
    else:
        position = _element_end(body, position, kind, depth)
    return _bounded(body, position)


def _element_end(body: bytes, position: int, kind: int, depth: int) -> int:
    """End of one element of a built-in type (OPC 10000-6, table 1)."""
    if kind in _SIZES:
        return position + _SIZES[kind]
    return _ELEMENT_ENDS.get(kind, _string_end)(body, position, depth)


def _string_end(body: bytes, position: int, _depth: int = 0) -> int:
    """String, ByteString, XmlElement; and the reserved types 26 to 31, which read as ByteString."""
    return _bounded(body, position + 4 + max(_number("<i", body, position), 0))


def _qualified_name_end(body: bytes, position: int, _depth: int = 0) -> int:
    return _string_end(body, position + 2)


def _node_id_end(body: bytes, position: int, _depth: int = 0) -> int:
    encoding = _number("<B", body, position)
    position += 1
    kind = encoding & _TYPE
    fixed = {0: 1, 1: 3, 2: 6, 4: 18}
    if kind in fixed:
        position += fixed[kind]
    elif kind in (3, 5):
        position = _string_end(body, position + 2)
    else:
        raise Malformed(f"NodeId of kind {kind}")
    if encoding & 0x80:
        position = _string_end(body, position)
    return position + 4 if encoding & 0x40 else position


def _localized_text_end(body: bytes, position: int, _depth: int = 0) -> int:
    mask = _number("<B", body, position)
    position += 1
    for bit in (1, 2):
        if mask & bit:
            position = _string_end(body, position)
    return position


def _extension_object_end(body: bytes, position: int, _depth: int = 0) -> int:
    position = _node_id_end(body, position)
    encoding = _number("<B", body, position)
    if not encoding:
        return position + 1
    if _number("<i", body, position + 1) < 0:
        raise Malformed("structure without a length")
    return _string_end(body, position + 1)


def _data_value_end(body: bytes, position: int, depth: int) -> int:
    mask = _number("<B", body, position)
    position = _variant_end(body, position + 1, depth + 1) if mask & _VALUE else position + 1
    return position + _tail_length(mask)


def diagnostic_info_end(body: bytes, position: int, depth: int = 0) -> int:
    """End of a DiagnosticInfo (OPC 10000-6, 5.2.2.12)."""
    if depth > _DEPTH:
        raise Malformed("nested too deep")
    mask = _number("<B", body, position)
    position += 1 + 4 * (mask & 0xF).bit_count()
    if mask & 0x10:
        position = _string_end(body, position)
    if mask & 0x20:
        position += 4
    return diagnostic_info_end(body, position, depth + 1) if mask & 0x40 else position


_ELEMENT_ENDS: dict[int, Callable[[bytes, int, int], int]] = {
    17: _node_id_end,
    18: _node_id_end,
    20: _qualified_name_end,
    21: _localized_text_end,
    22: _extension_object_end,
    23: _data_value_end,
    24: lambda body, position, depth: _variant_end(body, position, depth + 1),
    25: diagnostic_info_end,
}


def _counted(body: bytes, count: int) -> Iterator[int]:
    if count > len(body):
        raise Malformed(f"{count} elements announced in {len(body)} bytes")
    return iter(range(count))


def _bounded(body: bytes, position: int) -> int:
    if position > len(body):
        raise Malformed("cut short")
    return position


def _number(code: str, body: bytes, position: int) -> int:
    try:
        found: int = struct.unpack_from(code, body, position)[0]
    except struct.error as error:
        raise Malformed("cut short") from error
    return found
