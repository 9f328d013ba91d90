"""The value of one node, made of as little as it takes: a write stores five references, encoding waits for a reader.

A :class:`Face` stands in the address space where asyncua has an ``AttributeValue``. Most values are written each second
and read by nobody: what a client would get is put together when one asks, and packed, once for all of them, when
monitored items (:class:`plugin.publish.audience.Watcher`) are there to be told. A :class:`Cell` keeps its value itself;
those of a :class:`plugin.publish.columns.Column` or of a :class:`plugin.publish.sheets.Sheet` are kept, and written,
together.
Private names of asyncua are used: ``tests/contracts`` fails when one of them changes.
"""

from datetime import datetime
from types import MappingProxyType
from typing import Any

from asyncua import ua
from asyncua.server.address_space import AttributeValue

from plugin.domain import Status
from plugin.publish.audience import Audience, Watcher
from plugin.publish.wire import any_data_value, data_value

_NULL = ua.Variant(None, ua.VariantType.Null)
_STATUSES: dict[int, ua.StatusCode] = {}
"""Those that were given so far; they are never changed, and few."""
_MOST_STATUSES = 1000
BAD = 0x8000_0000
"""From here on a status is Bad (OPC 10000-4, 7.39.1)."""


def status_code(status: int) -> ua.StatusCode:
    """One object for one code."""
    if status not in _STATUSES and len(_STATUSES) < _MOST_STATUSES:
        _STATUSES[status] = ua.StatusCode(ua.UInt32(status))
    return _STATUSES.get(status) or ua.StatusCode(ua.UInt32(status))


def data_of(kind: ua.VariantType, fact: Any, status: int, source: Any, server: Any) -> ua.DataValue:
    """What a client reads; None is a null value of whatever ``kind``."""
    return ua.DataValue(_NULL if fact is None else ua.Variant(fact, kind), status_code(status), source, server)


class Face(AttributeValue):
    """What clients see of one variable, wherever its value is kept. Values are replaced, never changed."""

    __slots__ = ("audience",)

    value_callback = None
    value_setter = None
    datachange_callbacks: Any = MappingProxyType({})  # nobody's: who subscribes is a watcher

    def __init__(self) -> None:
        self.audience: Audience | None = None

    @property
    def present(self) -> tuple[Any, int, datetime]:
        """Value (None under a Bad status), status and source time."""
        raise NotImplementedError

    @property
    def content(self) -> bytes:
        """The present DataValue as it goes over the wire."""
        raise NotImplementedError

    def join(self, watcher: Watcher) -> None:
        """From now on it is told of each value; of the present one :meth:`tell` tells it."""
        if self.audience is None:
            self.audience = Audience(watcher.changes)
        self.audience.add(watcher)
        self._settle()

    def leave(self, watcher: Watcher) -> None:
        """From now on it is told no more. What it was told last it knows itself then."""
        if self.audience is None:
            return
        if self.audience.has_sharing(watcher):
            watcher.takes(*self.present)
            watcher.unfollow()
        self.audience.remove(watcher)
        self._settle()

    def tell(self, watcher: Watcher) -> None:
        """The present value, to one who does not know it."""
        if watcher.takes(*self.present):
            watcher.put(self.content)

    def _settle(self) -> None:
        """Who listens has changed."""

    def tell_news(self, before: tuple[Any, int, datetime]) -> None:
        """The present value to those to whom it is news; ``before``: what was present when they were told last."""
        fact, status, source = self.present
        if self.audience is None or before == (fact, status, source):
            return
        places = self.audience.at_change if before[:2] != (fact, status) else self.audience.at_stamp
        if places:
            self.audience.changes.add(places, self.content)
        self.tell_choosy()

    def tell_choosy(self) -> None:
        """The present value, to those who have to be asked."""
        if self.audience is None or not self.audience.choosy:
            return
        content, present = b"", self.present
        for each in self.audience.choosy:
            if each.takes(*present):
                content = content or self.content
                each.put(content)


class Cell(Face):
    """One that keeps its value itself."""

    __slots__ = (
        "_kind", "_made", "_now", "_status", "fact", "source_time",
    )  # fmt: skip

    def __init__(self, kind: ua.VariantType, now: datetime) -> None:
        """Waiting for its first data since ``now``."""
        super().__init__()
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
            self._made = data_of(self._kind, *self.present, self._now)
        return self._made

    @value.setter
    def value(self, value: ua.DataValue) -> None:  # asyncua's own writes, to standard nodes alone
        fact = value.Value.Value if value.Value is not None else None
        status = value.StatusCode.value if value.StatusCode is not None else Status.GOOD
        source, now = value.SourceTimestamp or self.source_time, value.ServerTimestamp or self._now
        self.write(fact, status, source, now, value)

    def write(self, fact: Any, status: int, source: datetime, now: datetime, made: ua.DataValue | None = None) -> None:
        """Set value, status and times, and hand them to the subscriptions before it returns; ``made``: all in one."""
        audience = self.audience
        # What was reported to those that share is what was said before: it is compared once for all of them.
        if audience is None:
            places = None
        elif status != self._status or (status < BAD and fact != self.fact):
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
            plain = made is None and status < BAD  # nearly all: they save a call
            said = data_value(fact, self._kind, status, source, now) if plain else self.content
            audience.changes.add(places, said)
        if audience.choosy:
            self.tell_choosy()

    @property
    def content(self) -> bytes:
        """As :class:`Face`."""
        if self._made is not None:
            return any_data_value(self._made)
        fact = None if self._status >= BAD else self.fact
        return data_value(fact, self._kind, self._status, self.source_time, self._now)

    @property
    def present(self) -> tuple[Any, int, datetime]:
        """As :class:`Face`."""
        return None if self._status >= BAD else self.fact, self._status, self.source_time

    def note(self, fact: Any, source: datetime, now: datetime, status: int = Status.GOOD) -> None:
        """Write a value if it, or its status, differs from the present one: for what seldom changes."""
        if self.fact != fact or self._status != status:
            self.write(fact, status, source, now)

    def restate(self, status: int, now: datetime, source: datetime | None = None) -> None:
        """Another status for the value that there is, if there is one; ``source``: and another source time."""
        if self.fact is not None:
            self.write(self.fact, status, source or self.source_time, now)
