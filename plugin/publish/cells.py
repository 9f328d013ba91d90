"""The value of one node, made of as little as it takes: a write stores five references, encoding waits for a reader.

A :class:`Cell` stands in the address space where asyncua has an ``AttributeValue``. Most values are written each second
and read by nobody: what a client would get is put together when one asks, and packed, once for all of them, when
monitored items (:class:`Watcher`) are there to be told.
Private names of asyncua are used: ``tests/contracts`` fails when one of them changes.
"""

from datetime import datetime
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


class Watcher(Protocol):
    """Who is told of a cell's values."""

    @property
    def plain(self) -> bool:
        """It wants each change of value or status, now: the cell need not ask it. Stays as it is from join to leave."""

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


class Cell(AttributeValue):
    """The value of one node. Values are replaced, never changed: subscriptions keep references to them."""

    __slots__ = (
        "_changes", "_choosy", "_kind", "_made", "_now", "_place", "_plain", "_status",
        "fact", "source_time", "watched",
    )  # fmt: skip

    value_callback = None
    value_setter = None
    datachange_callbacks: Any = MappingProxyType({})  # nobody's: who subscribes is a watcher

    def __init__(self, kind: ua.VariantType, now: datetime) -> None:
        """Waiting for its first data since ``now``."""
        self.watched = False
        self._plain: tuple[Watcher, ...] = ()
        self._choosy: tuple[Watcher, ...] = ()
        self._changes: Changes | None = None
        self._place = 0
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
        changed = self.watched and (status != self._status or (status < _BAD and fact != self.fact))
        self.fact = fact
        self.source_time = source
        self._status = status
        self._now = now
        self._made = made
        if self.watched:
            self._tell_all(changed)

    def _tell_all(self, changed: bool) -> None:
        """What was reported to those that are plain is what was said before: it is compared once for all of them."""
        content = b""
        if changed and self._plain:
            content = self._content()
            self._changes.add(self._place, content)  # type: ignore[union-attr]
        for each in self._choosy:
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
        if self._changes is None:
            self._changes = watcher.changes
            self._place = self._changes.new_place()
        if watcher.plain and watcher.follow(self._place):
            self._plain = (*self._plain, watcher)
        else:
            self._choosy = (*self._choosy, watcher)
        self.watched = True

    def leave(self, watcher: Watcher) -> None:
        """From now on it is told no more. What it was told last it knows itself then."""
        if any(each is watcher for each in self._plain):
            watcher.takes(*self._present)
            watcher.unfollow()
        self._plain = tuple(each for each in self._plain if each is not watcher)
        self._choosy = tuple(each for each in self._choosy if each is not watcher)
        self.watched = bool(self._plain or self._choosy)

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
