"""Where the values of a message stand, and their layouts: found value by value once, and proven at a stroke after.

A layout is the mask of a DataValue's fields and the encoding byte of its Variant. The same items tend to come in the
same order, with the same layouts; then all places follow from those of the message before. The proof is by induction:
the first value stands where it must; if the layout expected stands there, the next one stands where it must, too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from plugin.acquire.measuring import SIZES, VALUE, Malformed, measure, tail_length

Offsets = NDArray[np.intp]

ODD = 0xFFFF
"""Code of a layout without a fixed length; no mask has all bits."""


def code_of(mask: int, kind: int) -> int:
    """A layout as one number; without a Value the second byte is another field's."""
    return mask | kind << 8 if mask & VALUE else mask


def length_of(mask: int, kind: int, prefix: int) -> int:
    """Bytes of a value with this layout; 0 where the layout doesn't say."""
    if mask & VALUE and kind not in SIZES:
        return 0
    value = 1 + SIZES[kind] if mask & VALUE else 0
    return prefix + 1 + value + tail_length(mask)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The values of a message that could be found, which are its first ones."""

    offsets: Offsets
    """Where each value begins."""
    codes: NDArray[np.uint16]
    odd: Offsets
    """Rows without a fixed length."""
    tails: Offsets
    """Of those: where the fields behind the Variant begin."""
    end: int
    """Behind the last value."""

    def __len__(self) -> int:
        return len(self.offsets)


class Places:
    """The places of one message, to explain the next one with."""

    def __init__(self, found: Found, body: bytes, position: int, prefix: int) -> None:
        self._prefix = prefix
        self._offsets = np.append(found.offsets, found.end) - position
        """Of the values, and of the end."""
        self._codes = found.codes
        self._odd = found.odd
        care = np.where(found.codes & VALUE, 0xFFFF, 0xFF)
        self._care = np.where(found.codes == ODD, 0, care).astype(np.uint16)
        self._expected = found.codes & self._care
        self._rows = tuple((code, np.flatnonzero(found.codes == code)) for code in np.unique(found.codes).tolist())

    def groups(self, first: int, end: int) -> Iterator[tuple[int, Offsets]]:
        """Of the rows from ``first`` to before ``end``: those of each code."""
        for code, rows in self._rows:
            yield code, rows if end - first == len(self._codes) else rows[slice(*np.searchsorted(rows, (first, end)))]

    def explain(self, body: bytes, position: int, row: int) -> Found:
        """The values from ``position`` on that stand as this message's from ``row`` on; up to one that does not."""
        offsets, tails = self._shifted(body, position, row)
        fit = int(np.searchsorted(offsets[:-1], len(body) - self._prefix - 2, side="right"))
        heads = heads_of(body)[offsets[:fit] + self._prefix]
        same = (heads & self._care[row : row + fit]) == self._expected[row : row + fit]
        done = fit if same.all() else int(same.argmin())
        if done and offsets[done] > len(body):
            done -= 1  # the last one is cut short
        first, last = np.searchsorted(self._odd, (row, row + done))
        found = np.array(tails[: last - first], np.intp)
        return Found(
            offsets[:done], self._codes[row : row + done], self._odd[first:last] - row, found, int(offsets[done])
        )

    def _shifted(self, body: bytes, position: int, row: int) -> tuple[Offsets, list[int]]:
        """Offsets from ``row`` on, of the end too, after what has no fixed length was measured; and the tails of that.

        Ends before a value that can't be measured, or has a fixed length now.
        """
        planned = self._offsets[row:] + (position - self._offsets[row])
        odd = self._odd[np.searchsorted(self._odd, row) :] - row
        if not len(odd):
            return planned, []
        begins, ends = planned[odd].tolist(), planned[odd + 1].tolist()
        tails: list[int] = []
        shifts = [0]
        for begin, end in zip(begins, ends, strict=True):
            try:
                tail, found = _measure_odd(body, begin + shifts[-1], self._prefix)
            except Malformed:
                planned = planned[: odd[len(tails)] + 1]
                break
            tails.append(tail)
            shifts.append(found - end)
        spans = np.diff(np.minimum(odd + 1, len(planned)), prepend=0, append=len(planned))
        return planned + np.repeat(shifts, spans[: len(shifts)]), tails


def _measure_odd(body: bytes, position: int, prefix: int) -> tuple[int, int]:
    tail, end = measure(body, position, prefix)
    head = position + prefix
    if not body[head] & VALUE or body[head + 1] in SIZES:
        raise Malformed("not a value without a fixed length")
    return tail, end


class Finder:
    """Finds places value by value, where nothing else explains them."""

    def __init__(self, body: bytes, prefix: int) -> None:
        self._body = body
        self._prefix = prefix
        self._offsets: list[Offsets] = []
        self._codes: list[NDArray[np.uint16]] = []
        self._odd: list[int] = []
        self._tails: list[int] = []
        self._rows = 0
        self._lengths = (0, b"")

    def add(self, found: Found) -> None:
        """What was explained is not looked for."""
        self._odd += (found.odd + self._rows).tolist()
        self._tails += found.tails.tolist()
        self._note(found.offsets, found.codes)

    def run(self, position: int, count: int, length: int, code: int) -> None:
        """As many values of one layout."""
        offsets = np.arange(position, position + count * length, length, dtype=np.intp)
        self._note(offsets, np.full(count, code, np.uint16))

    def walk(self, position: int, count: int) -> tuple[int, int]:
        """Find up to ``count`` values from here; returns how many there are, and where they end."""
        offsets: list[int] = []
        odd: list[int] = []
        while len(offsets) < count:
            position = self._stride(offsets, position, count)
            if len(offsets) == count:
                break
            try:  # a value without a fixed length; or the end of the body
                tail, end = measure(self._body, position, self._prefix)
            except Malformed:
                break
            odd.append(len(offsets))
            self._tails.append(tail)
            offsets.append(position)
            position = end
        if position > len(self._body):  # the last one is cut short; what has a fixed length was not measured
            position = offsets.pop()
        self._odd += [row + self._rows for row in odd]
        self._note(np.array(offsets, np.intp), self._codes_at(np.array(offsets, np.intp), odd))
        return len(offsets), position

    def _stride(self, offsets: list[int], position: int, count: int) -> int:
        """Note values of fixed length, up to one that has none; returns its offset."""
        note, prefix = offsets.append, self._prefix
        while (left := count - len(offsets)) > 0:
            base, lengths = self._ahead(position)
            try:
                for _ in range(left):
                    length = lengths[position - base]
                    if not length:
                        return position
                    note(position)
                    position += length
            except IndexError:
                if position + prefix >= len(self._body) - 1:
                    return position
        return position

    def _ahead(self, position: int) -> tuple[int, bytes]:
        """Lengths by offset from a base on: a stretch of the body at a time."""
        base, lengths = self._lengths
        if not base <= position < base + len(lengths):
            self._lengths = base, lengths = position, _lengths_from(self._body, position, self._prefix)
        return base, lengths

    def _codes_at(self, offsets: Offsets, odd: list[int]) -> NDArray[np.uint16]:
        codes = np.full(len(offsets), ODD, np.uint16)
        fixed = np.ones(len(offsets), np.bool_)
        fixed[odd] = False
        heads = heads_of(self._body)[offsets[fixed] + self._prefix]
        codes[fixed] = np.where(heads & VALUE, heads, heads & 0xFF)
        return codes

    def found(self, end: int) -> Found:
        """All of it."""
        odd, tails = np.array(self._odd, np.intp), np.array(self._tails, np.intp)
        codes = np.concatenate(self._codes) if self._codes else np.zeros(0, np.uint16)
        offsets = np.concatenate(self._offsets) if self._offsets else np.zeros(0, np.intp)
        return Found(offsets, codes, odd, tails, end)

    def _note(self, offsets: Offsets, codes: NDArray[np.uint16]) -> None:
        self._offsets.append(offsets)
        self._codes.append(codes)
        self._rows += len(offsets)


def heads_of(body: bytes) -> NDArray[np.uint16]:
    """Two bytes (mask and encoding byte, where a value begins) by offset."""
    heads: NDArray[np.uint16] = np.ndarray((max(len(body) - 1, 0),), "<u2", body, strides=(1,))
    return heads


def _lengths_from(body: bytes, position: int, prefix: int) -> bytes:
    """What length a value would have if it began at each of the offsets from here on; 0 where it has no fixed one."""
    part = body[position + prefix : position + prefix + _AHEAD]
    lengths = np.zeros(max(len(part) - 1, 0), np.uint8)
    for first in (0, 1):  # every second pair of bytes is a plain array
        pairs = np.frombuffer(part, "<u2", max(len(part) - first, 0) // 2, min(first, len(part)))
        lengths[first::2] = _lengths(prefix)[pairs]
    return lengths.tobytes()


@cache
def _lengths(prefix: int) -> NDArray[np.uint8]:
    """Length by the two bytes (mask, type) that begin a value; without a Value the second may be anything."""
    found = np.zeros(0x10000, np.uint8)
    for mask in range(64):
        for kind in SIZES if mask & VALUE else range(256):
            found[mask | kind << 8] = length_of(mask, kind, prefix)
    return found


_AHEAD = 65_536  # bytes
