"""What waits for the next message of each subscription, kept once for all of them.

Most monitored items want each change of value or status. What a variable says to those is the same for all, so it is
packed and kept once, in :class:`Changes`, with its place; a subscription (:class:`Backlog`) looks there when it
publishes, for thousands of values in a few NumPy calls: which are its own, what their queues hold, and their client
handles, which are written between the values. A further client costs less than 0.1 µs per value that way; an object for
each item and value, all of them in other lines of the processor's cache, took 1 µs.

Items that choose (a deadband, another trigger, sampling) keep what waits themselves, see :mod:`plugin.publish.items`.
"""

from array import array
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

import numpy as np

from plugin.publish.packed import EMPTY, HANDLE_BYTES, Packed
from plugin.publish.wire import overflowed

_KEPT = 20_000
"""Changes after which all subscriptions look, also those that do not publish: what they keep is bounded by queues."""

_MESSAGE_BYTES = 512 * 1024
"""Of values that all want, in one message; a larger value has one of its own."""

_NOBODY = 0
"""Queue size where there is no item."""


class _Loose:
    """Values that come one by one, until somebody wants them packed."""

    def __init__(self) -> None:
        self.places = array("q")
        self.contents: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self.contents)

    def taken(self) -> Packed:
        """All of them; none is left."""
        packed = Packed.of(np.frombuffer(self.places, np.int64), self.contents)
        self.places, self.contents = array("q"), []
        return packed


class Changes:
    """What the variables of one server said to those who want each change, oldest first.

    ``lost`` is told how many values a full queue dropped; one that holds a single value keeps the newest, as is meant.
    """

    def __init__(self, lost: Callable[[int], None] = lambda _: None) -> None:
        self.lost = lost
        self.places = 0
        """So many there are: 0, 1, 2, …"""
        self._kept = 0
        """Values."""
        self._parts: list[Packed] = []
        self._before = 0
        """How many parts there were before the first that is kept."""
        self._loose = _Loose()
        self._backlogs: WeakSet[Backlog] = WeakSet()

    def __len__(self) -> int:
        """How many values are kept."""
        return self._kept

    def new_place(self) -> int:
        """For a variable that had no watcher before; it keeps the place."""
        self.places += 1
        return self.places - 1

    def add(self, places: tuple[int, ...], content: bytes) -> None:
        """A variable says this DataValue at its places."""
        loose = self._loose
        for place in places:
            loose.places.append(place)
            loose.contents.append(content)
            self._kept += 1
        if self._kept >= _KEPT:
            self._hand_over()

    def add_all(self, said: Packed) -> None:
        """Many say something."""
        self._gather()
        self._parts.append(said)
        self._kept += len(said)
        if self._kept >= _KEPT:
            self._hand_over()

    def _hand_over(self) -> None:
        for backlog in self._backlogs:
            backlog.collect()
        self._gather()
        self._before += len(self._parts)
        self._parts.clear()
        self._kept = 0

    def _gather(self) -> None:
        """What came one by one, packed for all who look."""
        if self._loose:
            self._parts.append(self._loose.taken())

    @property
    def end(self) -> int:
        """Stands for all that was said so far."""
        self._gather()
        return self._before + len(self._parts)

    def since(self, end: int) -> Packed:
        """What was said after an :attr:`end` that is still kept."""
        self._gather()
        return Packed.joined(self._parts[end - self._before :])

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
        self.choosers: dict[Chooser, None] = {}
        """For whom something waits, in their order."""
        self._seen = changes.end
        self._followed = 0
        self._handles = np.zeros(0, np.uint32)
        self._sizes = np.zeros(0, np.int64)
        self._newest = np.zeros(0, np.bool_)
        self._waiting = EMPTY
        self._told = _Loose()
        """Behind those that wait: to join them at each would copy all initial values for each item of a client."""
        self._aside: dict[int, list[bytes]] = {}
        """What waits for those that are about to leave."""

    def __bool__(self) -> bool:
        """Whether anything waits."""
        self.collect()
        return bool(len(self._waiting) or self._told or self.choosers)

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
        waited = self._aside.pop(place) if place in self._aside else self._take_out((place,))[place]
        self._sizes[place] = _NOBODY
        self._followed -= 1
        return waited

    @contextmanager
    def parting(self, places: Collection[int]) -> Iterator[None]:
        """Those that leave before the context ends: it is looked once through all that waits, not for each of them.
        There is no await inside."""
        self._aside = self._take_out(places)
        try:
            yield
        finally:
            stayed, self._aside = self._aside, {}
            for place, contents in stayed.items():
                for content in contents:
                    self.tell(place, content)

    def _take_out(self, places: Collection[int]) -> dict[int, list[bytes]]:
        """What waits for each."""
        self.collect()
        self._gather()
        found: dict[int, list[bytes]] = {place: [] for place in places}
        waiting, taken = self._waiting, np.isin(self._waiting.places, list(found))
        if taken.any():
            for at in np.flatnonzero(taken).tolist():
                found[int(waiting.places[at])].append(waiting.bytes_at(at))
            self._waiting = waiting.pick(~taken)
        return found

    def tell(self, place: int, content: bytes) -> None:
        """Something that is for this subscription alone."""
        self.collect()
        self._told.places.append(place)
        self._told.contents.append(content)

    def withdraw(self, chooser: Chooser) -> None:
        """It is not to be asked."""
        self.choosers.pop(chooser, None)

    # --- values -----------------------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Take over what is new, as far as the queues hold it."""
        changes = self.changes
        if len(self._sizes) < changes.places:
            self._grow(changes.places)
        seen, self._seen = self._seen, changes.end
        if seen == self._seen or not self._followed:
            return
        self._gather()
        said = changes.since(seen)
        mine = self._sizes[said.places] != _NOBODY
        self._waiting = Packed.joined((self._waiting, said if mine.all() else said.pick(mine)))
        self._discard()

    def _gather(self) -> None:
        if self._told:
            self._waiting = Packed.joined((self._waiting, self._told.taken()))

    def _grow(self, places: int) -> None:
        more = max(places, 2 * len(self._sizes)) - len(self._sizes)
        self._handles, self._sizes, self._newest = (
            np.concatenate((old, np.zeros(more, old.dtype))) for old in (self._handles, self._sizes, self._newest)
        )

    def _discard(self) -> None:
        """What is too much for its item's queue: the oldest or, as the client asked, all between the first and the
        last. The neighbour of what is lost says so, where there is more than one (OPC 10000-4, 5.13.1.5)."""
        waiting = self._waiting
        counts = np.bincount(waiting.places, minlength=len(self._sizes))
        if (counts <= self._sizes).all():
            return
        if lost := int((counts - self._sizes)[(counts > self._sizes) & (self._sizes > 1)].sum()):
            self.changes.lost(lost)
        order = np.argsort(waiting.places, kind="stable")
        places = waiting.places[order]
        size, count = self._sizes[places], counts[places]
        rank = np.arange(len(places)) - np.searchsorted(places, places)
        from_end = count - 1 - rank
        newest = self._newest[places]
        kept = np.where(newest, (rank < size - 1) | (from_end == 0), from_end < size)
        marked = order[(count > size) & (size > 1) & np.where(newest, from_end == 0, from_end == size - 1)]
        if len(marked):
            waiting = waiting.replaced(marked, [overflowed(waiting.bytes_at(at)) for at in marked.tolist()])
        stays = np.zeros(len(places), np.bool_)
        stays[order[kept]] = True
        self._waiting = waiting.pick(stays)

    def take(self, most: int) -> tuple[int, list[bytes]]:
        """What waits, up to a bound: how many values, and handle and value of each in turn, joined anyhow."""
        self.collect()
        self._gather()
        parts: list[bytes] = []
        taken = self._take_chosen(most, parts)
        if len(waiting := self._waiting.pick(slice(most - taken))):
            ends = np.cumsum(waiting.lengths + HANDLE_BYTES)
            count = max(1, int(np.searchsorted(ends, _MESSAGE_BYTES, "right")))
            said = waiting.pick(slice(count))
            parts.append(said.addressed(self._handles[said.places]))
            self._waiting = self._waiting.pick(slice(len(said), None))
            taken += len(said)
        return taken, parts

    def _take_chosen(self, most: int, parts: list[bytes]) -> int:
        taken, done = 0, list[Chooser]()
        for chooser in self.choosers:
            if taken == most:
                break
            found = chooser.give(most - taken)
            parts += [part for content in found for part in (chooser.prefix, content)]
            taken += len(found)
            if not chooser.waits():
                done.append(chooser)
        for chooser in done:
            del self.choosers[chooser]
        return taken
