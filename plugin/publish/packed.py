"""Thousands of packed values in a few NumPy calls: picked, put in a row, and addressed to a client's items."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HANDLE_BYTES = 4
"""A client handle, which stands before each value of a message."""


@dataclass(frozen=True, slots=True)
class Packed:
    """DataValues as they go over the wire, oldest first, each said at a place."""

    places: NDArray[np.int64]
    starts: NDArray[np.int64]
    """Of each value in ``content``, which may hold others too."""
    lengths: NDArray[np.int64]
    content: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.places)

    @classmethod
    def of(cls, places: Sequence[int] | NDArray[np.int64], contents: Sequence[bytes]) -> "Packed":
        """Of values of any length."""
        lengths = np.fromiter(map(len, contents), np.int64, len(contents))
        content = np.frombuffer(b"".join(contents), np.uint8)
        return cls(np.array(places, np.int64), np.cumsum(lengths) - lengths, lengths, content)

    @classmethod
    def records(cls, places: NDArray[np.int64], records: NDArray[np.void]) -> "Packed":
        """Of values of one length; ``records`` as :func:`plugin.publish.wire.doubles` makes them."""
        size = records.dtype.itemsize
        starts = np.arange(0, size * len(records), size)
        return cls(places, starts, np.full(len(records), size), records.view(np.uint8))

    @classmethod
    def joined(cls, parts: Sequence["Packed"]) -> "Packed":
        """One after the other."""
        parts = [part._dense() for part in parts if len(part)]
        if len(parts) < 2:
            return parts[0] if parts else EMPTY
        before = np.cumsum([0, *(len(part.content) for part in parts[:-1])])
        starts = [part.starts + offset for part, offset in zip(parts, before.tolist(), strict=True)]
        places, lengths, content = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("places", "lengths", "content")
        )
        return cls(places, np.concatenate(starts), lengths, content)

    def pick(self, which: NDArray[np.bool_] | slice) -> "Packed":
        """Some of them, with the same content."""
        picked = Packed(self.places[which], self.starts[which], self.lengths[which], self.content)
        return picked if len(picked) else EMPTY

    def bytes_at(self, index: int) -> bytes:
        """One value."""
        start = int(self.starts[index])
        return self.content[start : start + int(self.lengths[index])].tobytes()

    def replaced(self, which: NDArray[np.int64], contents: Sequence[bytes]) -> "Packed":
        """Other values in place of some."""
        new = Packed.of(which, contents)
        starts, lengths = self.starts.copy(), self.lengths.copy()
        starts[which], lengths[which] = new.starts + len(self.content), new.lengths
        return Packed(self.places, starts, lengths, np.concatenate((self.content, new.content)))

    def addressed(self, handles: NDArray[np.uint32]) -> bytes:
        """Each behind its client handle, as MonitoredItemNotifications."""
        size = int(self.lengths[0])
        if (self.lengths == size).all():  # nearly always
            told = np.empty(len(self), [("handle", "<u4"), ("value", f"V{size}")])
            told["handle"], told["value"] = handles, _windows(self.content, f"V{size}")[self.starts]
            return told.tobytes()
        ends = np.cumsum(self.lengths + HANDLE_BYTES)
        told = np.empty(int(ends[-1]), np.uint8)
        _copy(self.content, self.starts, self.lengths, told, ends - self.lengths)
        _windows(told, "<u4")[ends - self.lengths - HANDLE_BYTES] = handles
        return told.tobytes()

    def _dense(self) -> "Packed":
        """The same, with a content that is not mostly what nobody waits for: what grows does so through here."""
        used = int(self.lengths.sum())
        if 2 * used >= len(self.content):
            return self
        starts, content = np.cumsum(self.lengths) - self.lengths, np.empty(used, np.uint8)
        _copy(self.content, self.starts, self.lengths, content, starts)
        return Packed(self.places, starts, self.lengths, content)


def _windows(content: NDArray[np.uint8], kind: str) -> NDArray[Any]:
    """At each byte what begins there."""
    dtype = np.dtype(kind)
    return np.ndarray((len(content) - dtype.itemsize + 1,), dtype, content, 0, (1,))


def _copy(
    source: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    target: NDArray[np.uint8],
    begins: NDArray[np.int64],
) -> None:
    """Bytes from ``starts`` to ``begins``, of several lengths."""
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    target[within + np.repeat(begins, lengths)] = source[within + np.repeat(starts, lengths)]


_NONE = np.zeros(0, np.int64)
EMPTY = Packed(_NONE, _NONE, _NONE, np.zeros(0, np.uint8))
"""Nothing."""
