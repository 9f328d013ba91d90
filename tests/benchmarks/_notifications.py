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
_HALVES = 16


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

    def encoded(self, handle: int) -> tuple[bytes, bytes]:
        """The MonitoredItemNotification before and behind its SourceTimestamp."""
        kind, code = self.scalar
        mask = _VALUE | _SOURCE | _SERVER | (_STATUS if self.status else 0)
        value = struct.pack(code, self.value if code in "<d<f" else int(self.value))
        status = struct.pack("<I", self.status) if self.status else b""
        return struct.pack("<IBB", handle, mask, kind) + value + status, bytes(8)


class Notification:
    """The body of a DataChangeNotification (OPC 10000-4, 7.25.2) whose times can be set."""

    def __init__(self, items: Sequence[tuple[int, Tag]]) -> None:
        """Client handle and tag of each value."""
        self.values = len(items)
        parts, sources, at = [struct.pack("<i", len(items))], [], 4
        for handle, tag in items:
            before, behind = tag.encoded(handle)
            parts += [before, bytes(8), behind]
            sources.append(at + len(before))
            at += len(before) + 8 + len(behind)
        self._body = bytearray(b"".join([*parts, struct.pack("<i", -1)]))
        self._sources = np.array(sources, np.intp)
        self._delays = np.array([tag.delay for _, tag in items], np.int64)
        # every byte as the begin of a number: the times stand anywhere
        self._numbers: NDArray[np.int64] = np.ndarray((len(self._body) - 7,), "<i8", self._body, 0, (1,))

    def at(self, ticks: int) -> bytearray:
        """The body with server time ``ticks`` [100 ns since 1601]; the same buffer each time."""
        if len(self._sources):
            self._numbers[self._sources] = ticks - self._delays
            self._numbers[self._sources + 8] = ticks
        return self._body


def notifications(items: Sequence[tuple[int, Tag]]) -> list[Notification]:
    """What a subscription with these items sends, over and over."""
    if not any(tag.kind == "half" for _, tag in items):
        return [Notification(items)]
    chance = random.Random(len(items))
    return [Notification([item for item in items if chance.random() < 0.5]) for _ in range(_HALVES)]
