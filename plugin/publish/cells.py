"""The value of one node, made of as little as it takes: a write stores five references, encoding waits for a reader.

A :class:`Cell` stands in the address space where asyncua has an ``AttributeValue``. Most values are written each second
and read by nobody: what a client would get is put together when one asks, and packed, once for all of them, when
monitored items (:class:`Watcher`) are there to be told.
Private names of asyncua are used: ``tests/contracts`` fails when one of them changes.
"""

from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Any, Protocol

from asyncua import ua
from asyncua.server.address_space import AttributeValue

from plugin.domain import Status
from plugin.publish.backlog import Changes
from plugin.publish.wire import any_data_value, data_value

_NULL = ua.Variant(None, ua.VariantType.Null)
_STATUSES: dict[int, ua.StatusCode] = {}
"""Those that were given so far; they are never changed, and few."""
_MOST_STATUSES = 1000
_BAD = 0x8000_0000
"""From here on a status is Bad (OPC 10000-4, 7.39.1)."""


class Wish(Enum):
    """Of what a watcher is to be told: the first two the cell can tell by itself, once for all who wish it."""

    CHANGE = "change"
    """Each other value or status."""
    STAMP = "stamp"
    """The same, and each other source time: what historians ask for."""
    ITS_OWN = "its own"
    """It has to be asked."""


class Watcher(Protocol):
    """Who is told of a cell's values."""

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


def status_code(status: int) -> ua.StatusCode:
    """One object for one code."""
    if status not in _STATUSES and len(_STATUSES) < _MOST_STATUSES:
        _STATUSES[status] = ua.StatusCode(ua.UInt32(status))
    return _STATUSES.get(status) or ua.StatusCode(ua.UInt32(status))


class _Audience:
    """The watchers of one cell. Those of a shared wish have a place of their own among the server's changes."""

    __slots__ = ("_places", "_sharing", "at_change", "at_stamp", "changes", "choosy")

    def __init__(self, changes: Changes) -> None:
        self.changes = changes
        self._places: dict[Wish, int] = {}
        self._sharing: dict[Wish, tuple[Watcher, ...]] = {}
        self.choosy: tuple[Watcher, ...] = ()
        self._settle()

    def add(self, watcher: Watcher) -> None:
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
        self._sharing = {wish: _without(watcher, sharing) for wish, sharing in self._sharing.items()}
        self.choosy = _without(watcher, self.choosy)
        self._settle()

    def _settle(self) -> None:
        heard = [wish for wish, sharing in self._sharing.items() if sharing]
        self.at_change = tuple(self._places[wish] for wish in heard)
        self.at_stamp = tuple(self._places[wish] for wish in heard if wish is Wish.STAMP)


def _without(watcher: Watcher, watchers: tuple[Watcher, ...]) -> tuple[Watcher, ...]:
    return tuple(each for each in watchers if each is not watcher)


class Cell(AttributeValue):
    """The value of one node. Values are replaced, never changed: subscriptions keep references to them."""

    __slots__ = (
        "_audience", "_kind", "_made", "_now", "_status", "fact", "source_time",
    )  # fmt: skip

    value_callback = None
    value_setter = None
    datachange_callbacks: Any = MappingProxyType({})  # nobody's: who subscribes is a watcher

    def __init__(self, kind: ua.VariantType, now: datetime) -> None:
        """Waiting for its first data since ``now``."""
        self._audience: _Audience | None = None
        self._kind = kind
        self.fact: Any = None
        """The value, whatever its status; None: there is none."""
        self.source_time = now
        self._status: int = Status.BAD_WAITING_FOR_INITIAL_DATA
        self._now = now
        self._made: ua.DataValue | None = None

    @property
    def value(self) -> ua.DataValue:
        """What a client reads at present."""
        if self._made is None:
            empty = self.fact is None or self._status >= _BAD
            variant = _NULL if empty else ua.Variant(self.fact, self._kind)
            times: Any = self.source_time, self._now
            self._made = ua.DataValue(variant, status_code(self._status), *times)
        return self._made

    @value.setter
    def value(self, value: ua.DataValue) -> None:  # asyncua's own writes, to standard nodes alone
        fact = value.Value.Value if value.Value is not None else None
        status = value.StatusCode.value if value.StatusCode is not None else Status.GOOD
        source, now = value.SourceTimestamp or self.source_time, value.ServerTimestamp or self._now
        self.write(fact, status, source, now, value)

    def write(self, fact: Any, status: int, source: datetime, now: datetime, made: ua.DataValue | None = None) -> None:
        """Set value, status and times, and hand them to the subscriptions before it returns; ``made``: all in one."""
        audience = self._audience
        # What was reported to those that share is what was said before: it is compared once for all of them.
        if audience is None:
            places = None
        elif status != self._status or (status < _BAD and fact != self.fact):
            places = audience.at_change
        else:
            places = audience.at_stamp if source != self.source_time else None
        self.fact = fact
        self.source_time = source
        self._status = status
        self._now = now
        self._made = made
        if places is None or audience is None:
            return
        if places:
            plain = made is None and status < _BAD  # nearly all: they save a call
            said = data_value(fact, self._kind, status, source, now) if plain else self._content()
            audience.changes.add(places, said)
        if audience.choosy:
            self._tell_choosy(audience.choosy)

    def _tell_choosy(self, watchers: tuple[Watcher, ...]) -> None:
        content = b""
        for each in watchers:
            if each.takes(*self._present):
                content = content or self._content()
                each.put(content)

    def _content(self) -> bytes:
        if self._made is not None:
            return any_data_value(self._made)
        fact = None if self._status >= _BAD else self.fact
        return data_value(fact, self._kind, self._status, self.source_time, self._now)

    def retype(self, kind: ua.VariantType) -> None:
        """Values of another kind from now on, where the node's data type allows several."""
        self._kind = kind

    def join(self, watcher: Watcher) -> None:
        """From now on it is told of each value; of the present one :meth:`tell` tells it."""
        if self._audience is None:
            self._audience = _Audience(watcher.changes)
        self._audience.add(watcher)

    def leave(self, watcher: Watcher) -> None:
        """From now on it is told no more. What it was told last it knows itself then."""
        if self._audience is None:
            return
        if self._audience.has_sharing(watcher):
            watcher.takes(*self._present)
            watcher.unfollow()
        self._audience.remove(watcher)

    def tell(self, watcher: Watcher) -> None:
        """The present value, to one who does not know it."""
        if watcher.takes(*self._present):
            watcher.put(any_data_value(self.value))

    @property
    def _present(self) -> tuple[Any, int, datetime]:
        return None if self._status >= _BAD else self.fact, self._status, self.source_time

    def note(self, fact: Any, source: datetime, now: datetime, status: int = Status.GOOD) -> None:
        """Write a value if it, or its status, differs from the present one: for what seldom changes."""
        if self.fact != fact or self._status != status:
            self.write(fact, status, source, now)

    def restate(self, status: int, now: datetime, source: datetime | None = None) -> None:
        """Another status for the value that there is, if there is one; ``source``: and another source time."""
        if self.fact is not None:
            self.write(self.fact, status, source or self.source_time, now)
