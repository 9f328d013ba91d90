"""Notifications that are encoded once and sent for ever: only their times move.

A scripted plant has tags of three kinds, named ``KIND.PLACE`` (``mixed.17``); the value of a tag is its place.

* ``uniform``: Doubles, all read in one scan, so all with one source time;
* ``mixed``: six types in no order, each with a source time of its own, every twentieth with a status;
* ``half``: as ``mixed``, and each notification brings another half of the tags.
"""

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

URI = "urn:foretag:scripted-plant"
"""Of the plant's namespace."""

KINDS = ("uniform", "mixed", "half")
UNCERTAIN = 0x40900000  # UncertainLastUsableValue

_DOUBLE = (11, "<d")
_SCALARS = (_DOUBLE, (10, "<f"), (6, "<i"), (5, "<H"), (1, "<?"), (8, "<q"))
_VALUE, _STATUS, _SOURCE, _SERVER = 1, 2, 4, 8
_SPREAD = 5_000_000  # [100 ns] source times of one notification lie within half a second
_HALVES = 100  # so many that nobody remembers them


@dataclass(frozen=True, slots=True)
class Tag:
    """What the plant knows of a tag: all follows from its name."""

    kind: str
    place: int

    @classmethod
    def named(cls, name: str) -> "Tag":
        """ValueError where the plant has no such tag."""
        kind, _, place = name.partition(".")
        if kind not in KINDS or not place.isdecimal():
            raise ValueError(name)
        return cls(kind, int(place))

    @property
    def scalar(self) -> tuple[int, str]:
        """Built-in type (OPC 10000-6, 5.1.2) and struct code."""
        return _DOUBLE if self.kind == "uniform" else random.Random(self.place).choice(_SCALARS)

    @property
    def value(self) -> float:
        """The place, as far as the type can hold it."""
        return float(bool(self.place) if self.scalar[0] == 1 else self.place)

    @property
    def status(self) -> int:
        """Good, but for every twentieth of those that mix."""
        return UNCERTAIN if self.kind != "uniform" and self.place % 20 == 7 else 0

    @property
    def delay(self) -> int:
        """How far the source time is behind the notification's [100 ns]."""
        return 0 if self.kind == "uniform" else random.Random(-self.place).randrange(_SPREAD)

    def encoded(self, handle: int) -> "Encoded":
        """Its MonitoredItemNotification (OPC 10000-4, 7.25.2)."""
        kind, code = self.scalar
        mask = _VALUE | _SOURCE | _SERVER | (_STATUS if self.status else 0)
        value = struct.pack(code, self.value if code in "<d<f" else int(self.value))
        status = struct.pack("<I", self.status) if self.status else b""
        return Encoded(struct.pack("<IBB", handle, mask, kind) + value + status, self.delay)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A MonitoredItemNotification up to its two times, and by how much the source's is the earlier."""

    begin: bytes
    delay: int


class Notification:
    """The body of a DataChangeNotification whose times can be set."""

    def __init__(self, items: Sequence[Encoded]) -> None:
        self.values = len(items)
        parts = [struct.pack("<i", len(items)), *(item.begin + bytes(16) for item in items), struct.pack("<i", -1)]
        self._body = bytearray(b"".join(parts))
        ends = np.cumsum([4, *(len(item.begin) + 16 for item in items)])
        self._sources = ends[1:] - 16
        self._delays = np.array([item.delay for item in items], np.int64)
        # every byte as the begin of a number: the times stand anywhere
        self._numbers: NDArray[np.int64] = np.ndarray((len(self._body) - 7,), "<i8", self._body, 0, (1,))

    def at(self, ticks: int) -> bytearray:
        """The body with server time ``ticks`` [100 ns since 1601]; the same buffer each time."""
        if self.values:
            self._numbers[self._sources] = ticks - self._delays
            self._numbers[self._sources + 8] = ticks
        return self._body


def notifications(items: Sequence[tuple[int, Tag]]) -> list[Notification]:
    """What a subscription with these items (client handle and tag) sends, over and over."""
    encoded = [tag.encoded(handle) for handle, tag in items]
    if not any(tag.kind == "half" for _, tag in items):
        return [Notification(encoded)]
    chance = random.Random(len(items))
    return [Notification([item for item in encoded if chance.random() < 0.5]) for _ in range(_HALVES)]
