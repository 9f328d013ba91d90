"""Who is told of a variable's values: monitored items, by what they wish to hear."""

from datetime import datetime
from enum import Enum
from typing import Any, Protocol

from plugin.publish.backlog import Changes

NOWHERE = -1
"""The place of who shares nothing with others."""


class Wish(Enum):
    """Of what a watcher is to be told: the first two can be told once for all who wish it."""

    CHANGE = "change"
    """Each other value or status."""
    STAMP = "stamp"
    """The same, and each other source time: what historians ask for."""
    ITS_OWN = "its own"
    """It has to be asked."""


class Watcher(Protocol):
    """Who is told of a variable's values."""

    @property
    def wish(self) -> Wish:
        """Stays as it is from join to leave."""

    def takes(self, fact: Any, status: int, source: datetime) -> bool:
        """Whether it wants the value; then it counts as reported, and :meth:`put` follows."""

    def put(self, content: bytes) -> None:
        """A DataValue as it goes over the wire."""

    @property
    def changes(self) -> Changes:
        """Of its server."""

    def follow(self, place: int) -> bool:
        """It hears of all changes of that place; False where it has to be told by :meth:`put`."""

    def unfollow(self) -> None:
        """No more; what waits stays."""


class Audience:
    """The watchers of one variable. Those of a shared wish have a place of their own among the server's changes."""

    __slots__ = ("_places", "_sharing", "at_change", "at_stamp", "changes", "choosy")

    def __init__(self, changes: Changes) -> None:
        self.changes = changes
        self._places: dict[Wish, int] = {}
        self._sharing: dict[Wish, tuple[Watcher, ...]] = {}
        self.choosy: tuple[Watcher, ...] = ()
        self._settle()

    def __bool__(self) -> bool:
        """Whether anybody is left."""
        return bool(self.at_change or self.choosy)

    def add(self, watcher: Watcher) -> None:
        """It is told from now on."""
        wish = watcher.wish
        if wish is not Wish.ITS_OWN and wish not in self._places:
            self._places[wish] = self.changes.new_place()
        if wish is not Wish.ITS_OWN and watcher.follow(self._places[wish]):
            self._sharing[wish] = (*self._sharing.get(wish, ()), watcher)
        else:
            self.choosy = (*self.choosy, watcher)
        self._settle()

    def has_sharing(self, watcher: Watcher) -> bool:
        """What others are told tells it too."""
        return any(each is watcher for sharing in self._sharing.values() for each in sharing)

    def remove(self, watcher: Watcher) -> None:
        """It is told no more."""
        self._sharing = {wish: _without(watcher, sharing) for wish, sharing in self._sharing.items()}
        self.choosy = _without(watcher, self.choosy)
        self._settle()

    def place(self, wish: Wish) -> int:
        """Where those of a shared wish are told; :data:`NOWHERE` where there are none."""
        return self._places[wish] if self._sharing.get(wish) else NOWHERE

    def _settle(self) -> None:
        change, stamp = self.place(Wish.CHANGE), self.place(Wish.STAMP)
        self.at_change = tuple(place for place in (change, stamp) if place != NOWHERE)
        self.at_stamp = tuple(place for place in (stamp,) if place != NOWHERE)


def _without(watcher: Watcher, watchers: tuple[Watcher, ...]) -> tuple[Watcher, ...]:
    return tuple(each for each in watchers if each is not watcher)
