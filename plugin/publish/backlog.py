"""What waits for the next message of each subscription, kept once for all of them.

Most monitored items want each change of value or status. What a cell says to those is the same for all, so it is packed
and kept once, in :class:`Changes`, with the place of the cell; a subscription (:class:`Backlog`) looks there when it
publishes, for thousands of values in a few NumPy calls: which are its own, what their queues hold, and their client
handles, which are written between the values. A further client costs less than 0.1 µs per value that way; an object for
each item and value, all of them in other lines of the processor's cache, took 1 µs.

Items that choose (a deadband, another trigger, sampling) keep what waits themselves, see :mod:`plugin.publish.items`.
"""

from array import array
from collections.abc import Callable
from operator import itemgetter
from typing import Protocol
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from plugin.publish.wire import overflowed

_KEPT = 20_000
"""Changes after which all subscriptions look, also those that do not publish: what they keep is bounded by queues."""

_MESSAGE_BYTES = 512 * 1024
"""Of values that all want, in one message; a larger value has one of its own."""

_HANDLE = bytes(4)
_NOBODY = 0
"""Queue size where there is no item."""


class Changes:
    """What the cells of one server said to those who want each change, oldest first.

    ``lost`` is told how many values a full queue dropped; one that holds a single value keeps the newest, as is meant.
    """

    def __init__(self, lost: Callable[[int], None] = lambda _: None) -> None:
        self.lost = lost
        self.places = array("q")
        self.contents: list[bytes] = []
        self.cells = 0
        """So many have a place: 0, 1, 2, …"""
        self.begin = 0
        """How many changes there were before the first that is kept."""
        self._backlogs: WeakSet[Backlog] = WeakSet()

    def new_place(self) -> int:
        """For a cell that had no watcher before; it keeps the place."""
        self.cells += 1
        return self.cells - 1

    def add(self, places: tuple[int, ...], content: bytes) -> None:
        """A cell says this DataValue at its places."""
        for place in places:
            self.places.append(place)
            self.contents.append(content)
        if len(self.places) >= _KEPT:
            for backlog in self._backlogs:
                backlog.collect()
            self.begin += len(self.places)
            del self.places[:]
            self.contents.clear()

    def open(self) -> "Backlog":
        """Of a new subscription."""
        backlog = Backlog(self)
        self._backlogs.add(backlog)
        return backlog


class Chooser(Protocol):
    """An item that keeps itself what waits."""

    def waits(self) -> bool:
        """Whether anything does."""

    def give(self, most: int) -> list[bytes]:
        """Take what waits, oldest first, ``most`` at most."""

    prefix: bytes
    """Its client handle."""


class Backlog:
    """What waits for one subscription."""

    def __init__(self, changes: Changes) -> None:
        self.changes = changes
        self.choosers: list[Chooser] = []
        """For whom something waits."""
        self._seen = changes.begin + len(changes.places)
        self._followed = 0
        self._handles = np.zeros(0, np.uint32)
        self._sizes = np.zeros(0, np.int64)
        self._newest = np.zeros(0, np.bool_)
        self._places = np.zeros(0, np.int64)
        self._contents: list[bytes] = []

    def __bool__(self) -> bool:
        """Whether anything waits."""
        self.collect()
        return bool(self._contents or self.choosers)

    # --- items ------------------------------------------------------------------------------------------------------

    def follow(self, place: int, handle: int, size: int, *, discard_oldest: bool) -> bool:
        """From now on all changes of a place are wanted; False where another item here wants them already."""
        self.collect()
        if self._sizes[place] != _NOBODY:
            return False
        self._followed += 1
        self._handles[place], self._sizes[place], self._newest[place] = handle, max(size, 1), not discard_oldest
        return True

    def leave(self, place: int) -> list[bytes]:
        """They are wanted no more; returns what waited."""
        self.collect()
        self._sizes[place] = _NOBODY
        self._followed -= 1
        lost = self._places == place
        if not lost.any():
            return []
        found = [self._contents[at] for at in np.flatnonzero(lost).tolist()]
        self._keep(~lost)
        return found

    def forget(self, places: list[int]) -> None:
        """Nothing waits from these any more."""
        self.collect()
        self._keep(~np.isin(self._places, places))

    def tell(self, place: int, content: bytes) -> None:
        """Something that is for this subscription alone."""
        self.collect()
        self._places = np.append(self._places, place)
        self._contents.append(content)

    def withdraw(self, chooser: Chooser) -> None:
        """It is not to be asked."""
        self.choosers[:] = [each for each in self.choosers if each is not chooser]

    # --- values -----------------------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Take over what is new, as far as the queues hold it."""
        changes = self.changes
        if len(self._sizes) < changes.cells:
            self._grow(changes.cells)
        start, self._seen = self._seen - changes.begin, changes.begin + len(changes.places)
        if start == len(changes.places) or not self._followed:
            return
        places = np.array(changes.places, np.int64)[start:]
        mine = self._sizes[places] != _NOBODY
        contents = changes.contents[start:]
        if not mine.all():
            places, contents = places[mine], _picked(contents, mine)
        self._places = np.concatenate((self._places, places)) if self._contents else places
        self._contents += contents
        self._discard()

    def _grow(self, cells: int) -> None:
        more = max(cells, 2 * len(self._sizes)) - len(self._sizes)
        self._handles, self._sizes, self._newest = (
            np.concatenate((old, np.zeros(more, old.dtype))) for old in (self._handles, self._sizes, self._newest)
        )

    def _discard(self) -> None:
        """What is too much for its item's queue: the oldest or, as the client asked, all between the first and the
        last. The neighbour of what is lost says so, where there is more than one (OPC 10000-4, 5.13.1.5)."""
        counts = np.bincount(self._places, minlength=len(self._sizes))
        if (counts <= self._sizes).all():
            return
        if lost := int((counts - self._sizes)[(counts > self._sizes) & (self._sizes > 1)].sum()):
            self.changes.lost(lost)
        order = np.argsort(self._places, kind="stable")
        places = self._places[order]
        size, count = self._sizes[places], counts[places]
        rank = np.arange(len(places)) - np.searchsorted(places, places)
        from_end = count - 1 - rank
        newest = self._newest[places]
        kept = np.where(newest, (rank < size - 1) | (from_end == 0), from_end < size)
        marked = (count > size) & (size > 1) & np.where(newest, from_end == 0, from_end == size - 1)
        for at in order[marked].tolist():
            self._contents[at] = overflowed(self._contents[at])
        stays = np.zeros(len(places), np.bool_)
        stays[order[kept]] = True
        self._keep(stays)

    def _keep(self, which: NDArray[np.bool_]) -> None:
        if not which.all():
            self._places, self._contents = self._places[which], _picked(self._contents, which)

    def take(self, most: int) -> tuple[int, list[bytes]]:
        """What waits, up to a bound: how many values, and handle and value of each in turn, joined anyhow."""
        self.collect()
        parts: list[bytes] = []
        taken = self._take_chosen(most, parts)
        if waiting := self._contents[: most - taken]:
            lengths = np.fromiter(map(len, waiting), np.int64, len(waiting)) + len(_HANDLE)
            count = max(1, int(np.searchsorted(np.cumsum(lengths), _MESSAGE_BYTES, "right")))
            parts.append(_addressed(waiting[:count], lengths[:count], self._handles[self._places[:count]]))
            self._places = self._places[count:]
            del self._contents[:count]
            taken += count
        return taken, parts

    def _take_chosen(self, most: int, parts: list[bytes]) -> int:
        taken = done = 0
        for chooser in self.choosers:
            if taken == most:
                break
            found = chooser.give(most - taken)
            parts += [part for content in found for part in (chooser.prefix, content)]
            taken += len(found)
            done += not chooser.waits()
        del self.choosers[:done]
        return taken


def _addressed(contents: list[bytes], lengths: NDArray[np.int64], handles: NDArray[np.uint32]) -> bytes:
    """Each value behind its client handle; ``lengths``: of both together."""
    joined = bytearray(_HANDLE + _HANDLE.join(contents))
    numbers: NDArray[np.uint32] = np.ndarray((len(joined) - 3,), "<u4", joined, 0, (1,))  # a handle stands anywhere
    numbers[np.cumsum(lengths) - lengths] = handles
    return bytes(joined)


def _picked(contents: list[bytes], which: NDArray[np.bool_]) -> list[bytes]:
    places = np.flatnonzero(which).tolist()
    if len(places) < 2:  # for fewer itemgetter gives no tuple
        return [contents[place] for place in places]
    return list(itemgetter(*places)(contents))
