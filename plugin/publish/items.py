"""A monitored item: what a client wants to hear of one attribute, and what waits for the next message.

What differs from asyncua 2.1.0:

* A deadband compares with the last value that was *reported* (OPC 10000-4, 7.22.2); asyncua compares with the last one
  written, so that a slow ramp is never reported. A percent deadband is one of the EURange (OPC 10000-8, 6.2).
* A filter that the attribute can't have is refused.
* What is kept is the value's bytes, the same for all subscribers; asyncua keeps a deep copy for each.
* A value that a full queue drops is told by the overflow bit (OPC 10000-4, 5.13.1.5), and the client chooses whether
  the oldest or the newest is dropped.
* An item that samples only keeps its values until it reports.
* Of the timestamps, the client has those that it asked for.
"""

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.address_space import AddressSpace

from plugin.publish.audience import NOWHERE, Wish
from plugin.publish.backlog import Backlog, Changes
from plugin.publish.cells import Face
from plugin.publish.stamps import BOTH, Stamps
from plugin.publish.wire import any_data_value, overflowed, stamped

_NEVER = -1
"""Status of what was not reported yet."""

_DISABLED, _REPORTING = ua.MonitoringMode.Disabled, ua.MonitoringMode.Reporting
_STATUS_VALUE, _TIMESTAMP = ua.DataChangeTrigger.StatusValue, ua.DataChangeTrigger.StatusValueTimestamp
_WISHES = {_STATUS_VALUE: Wish.CHANGE, _TIMESTAMP: Wish.STAMP}


_ID = ua.ObjectIds
_NUMBERS = frozenset(
    ua.NodeId(ua.Int32(number))
    for number in (
        _ID.SByte, _ID.Byte, _ID.Int16, _ID.UInt16, _ID.Int32, _ID.UInt32, _ID.Int64, _ID.UInt64, _ID.Float, _ID.Double,
        _ID.Number, _ID.Integer, _ID.UInteger, _ID.Duration, _ID.BaseDataType,
    )
)  # fmt: skip
"""Data types that have a deadband, and the one that may be a number."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What a deadband can be on."""

    numeric: bool = True
    """The attribute is a number, an array of them, or may be one."""
    span: float = math.nan
    """Of its EURange; NaN: it has none."""


class _Done:
    """An awaitable that is done already."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_DONE = _Done()


class Item:
    """``backlog`` is the subscription's. ``close`` parts with the node."""

    __slots__ = (
        "_backlog", "_deadband", "_discard_oldest", "_source", "_status", "_trigger", "_value", "cell",
        "client_handle", "close", "mode", "monitored_item_id", "place", "prefix", "queue_size",
        "read_value_id", "stamps", "waiting",
    )  # fmt: skip

    def __init__(self, number: int, asked: ua.MonitoredItemCreateRequest, backlog: Backlog) -> None:
        self.monitored_item_id = number
        self.read_value_id: Any = asked.ItemToMonitor
        self.mode: ua.MonitoringMode = asked.MonitoringMode
        self.cell: Face | None = None
        """Whose values it is told; None: of an attribute that asyncua keeps."""
        self.close: Callable[[], None] = lambda: None
        self.waiting: list[bytes] = []
        """Of an item that chooses; elsewhere it is the backlog that knows."""
        self.prefix = bytes(4)
        self._backlog = backlog
        self.place = NOWHERE
        self.client_handle: Any = 0
        self.queue_size = 1
        self._value: Any = None
        self._status = _NEVER
        self._source: datetime | None = None
        self._deadband = 0.0
        self._discard_oldest = True
        self._trigger: Any = _STATUS_VALUE
        self.stamps = BOTH

    def ask(self, asked: ua.MonitoringParameters, queue_size: int, scale: Scale, stamps: Stamps = BOTH) -> None:
        """Take up what the client asks for; without a filter there is none from now on. ServiceError for one that can't
        be."""
        with self._apart():
            self._ask(asked, queue_size, scale)
            self.stamps = stamps

    def _ask(self, asked: ua.MonitoringParameters, queue_size: int, scale: Scale) -> None:
        demand: Any = asked.Filter
        if hasattr(demand, "DeadbandType"):  # what asyncua decodes is not its ua.DataChangeFilter
            self._deadband, self._trigger = _deadband(demand, scale), ua.DataChangeTrigger(demand.Trigger)
        elif demand is None or getattr(demand, "TypeId", None) == ua.NodeId():
            self._deadband, self._trigger = 0.0, _STATUS_VALUE
        else:
            raise ServiceError(ua.StatusCodes.BadMonitoredItemFilterUnsupported)
        self.client_handle = asked.ClientHandle
        self.prefix = int(asked.ClientHandle or 0).to_bytes(4, "little")
        self.queue_size = queue_size
        self._discard_oldest = bool(asked.DiscardOldest)

    def switch(self, mode: ua.MonitoringMode) -> bool:
        """Change the mode (OPC 10000-4, 5.13.4); True where the present value is to be told anew."""
        with self._apart():
            before, self.mode = self.mode, mode
            if mode != _REPORTING:
                self._backlog.withdraw(self)
            elif before == ua.MonitoringMode.Sampling and self.waiting:
                self._backlog.choosers[self] = None
            if mode == _DISABLED:
                self.waiting.clear()
                self._status = _NEVER
        return before == _DISABLED and mode != before

    def forget(self) -> None:
        """What was reported before: the present value is news."""
        self._status = _NEVER

    def watch(self, cell: Face) -> None:
        """It is told of the cell's values from now on; :meth:`plugin.publish.cells.Face.tell` tells the present one."""
        self.cell = cell
        self.close = partial(cell.leave, self)
        cell.join(self)

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """It changes what it wants: its cell does not count on it meanwhile."""
        if self.cell is not None:
            self.cell.leave(self)
        try:
            yield
        finally:
            if self.cell is not None:
                self.cell.join(self)

    @property
    def wish(self) -> Wish:
        """As :class:`plugin.publish.audience.Watcher`."""
        if self.mode is not _REPORTING or self._deadband or self.stamps != BOTH:
            return Wish.ITS_OWN
        return _WISHES.get(self._trigger, Wish.ITS_OWN)

    def takes(self, value: Any, status: int, source: datetime | None) -> bool:
        """As :class:`plugin.publish.audience.Watcher`."""
        if self.mode is _DISABLED or (status == self._status and not self._differs(value, source)):
            return False
        self._value, self._status, self._source = value, status, source
        return True

    def _differs(self, value: Any, source: datetime | None) -> bool:
        if self._trigger is _TIMESTAMP and source != self._source:
            return True
        if self._trigger is ua.DataChangeTrigger.Status or value == self._value:
            return False
        return not self._deadband or not _within(self._deadband, value, self._value)

    def put(self, content: bytes) -> None:
        """Keep the newest values, or the oldest, as the queue holds; the neighbour of one that is lost says so."""
        waiting = self.waiting
        if self.place != NOWHERE:
            self._backlog.tell(self.place, content)
        elif not waiting:
            waiting.append(content)
            if self.mode is _REPORTING:
                self._backlog.choosers[self] = None
        elif len(waiting) < self.queue_size:
            waiting.append(content)
        elif not self._discard_oldest:
            self._lose(1)
            waiting[-1] = overflowed(content) if self.queue_size > 1 else content
        else:
            self._lose(len(waiting) - self.queue_size + 1)
            del waiting[: len(waiting) - self.queue_size + 1]
            if waiting:
                waiting[0] = overflowed(waiting[0])
            waiting.append(content)

    def _lose(self, count: int) -> None:
        if self.queue_size > 1:
            self.changes.lost(count)

    @property
    def changes(self) -> Changes:
        """As :class:`plugin.publish.audience.Watcher`."""
        return self._backlog.changes

    def follow(self, place: int) -> bool:
        """As :class:`plugin.publish.audience.Watcher`."""
        handle, oldest = int(self.client_handle or 0), self._discard_oldest
        if not self._backlog.follow(place, handle, self.queue_size, discard_oldest=oldest):
            return False
        self._backlog.withdraw(self)
        self.place, waited, self.waiting = place, self.waiting, []
        for content in waited:
            self.put(content)
        return True

    def unfollow(self) -> None:
        """As :class:`plugin.publish.audience.Watcher`."""
        waited, self.place = self._backlog.leave(self.place), NOWHERE
        for content in waited:
            self.put(content)

    def waits(self) -> bool:
        """As :class:`plugin.publish.backlog.Chooser`, and so is the next."""
        return bool(self.waiting)

    def give(self, most: int) -> list[bytes]:
        """See above."""
        found = self.waiting[:most]
        del self.waiting[:most]
        return found if self.stamps == BOTH else [stamped(content, self.stamps) for content in found]

    def notice(self, _: int, value: ua.DataValue) -> _Done:
        """For attributes that asyncua keeps; the work is done when the call returns, though asyncua awaits it."""
        value = BOTH.of(value, self.read_value_id.AttributeId, datetime.now(UTC))
        status = value.StatusCode.value if value.StatusCode is not None else 0
        if self.takes(value.Value.Value if value.Value is not None else None, status, value.SourceTimestamp):
            self.put(any_data_value(value))
        return _DONE


def _within(deadband: float, value: Any, before: Any) -> bool:
    """An array is told whole where one of its elements leaves the deadband (OPC 10000-4, 7.22.2)."""
    if isinstance(value, list) and isinstance(before, list):
        pairs = zip(value, before, strict=False)
        return len(value) == len(before) and all(_within(deadband, *pair) for pair in pairs)
    numbers = isinstance(value, int | float) and isinstance(before, int | float)
    return numbers and abs(value - before) <= deadband


def _deadband(demand: ua.DataChangeFilter, scale: Scale) -> float:
    if demand.DeadbandType == ua.DeadbandType.None_:
        return 0.0
    if not scale.numeric:  # a flag would never leave a deadband of 1
        raise ServiceError(ua.StatusCodes.BadFilterNotAllowed)
    size = float(demand.DeadbandValue)
    if not 0.0 <= size < math.inf:
        raise ServiceError(ua.StatusCodes.BadDeadbandFilterInvalid)
    if demand.DeadbandType == ua.DeadbandType.Absolute:
        return size
    if demand.DeadbandType != ua.DeadbandType.Percent or size > 100.0:
        raise ServiceError(ua.StatusCodes.BadDeadbandFilterInvalid)
    if math.isnan(scale.span):
        raise ServiceError(ua.StatusCodes.BadMonitoredItemFilterUnsupported)
    return size / 100.0 * scale.span


def scale_of(space: AddressSpace, asked: ua.ReadValueId) -> Scale:
    """Of what is to be monitored, which is there."""
    if asked.AttributeId != ua.AttributeIds.Value:
        return Scale(numeric=False)
    kind = space.read_attribute_value(asked.NodeId, ua.AttributeIds.DataType)
    numeric = kind.Value is not None and kind.Value.Value in _NUMBERS
    return Scale(numeric, _span(space, asked.NodeId)) if numeric else Scale(numeric=False)


def _span(space: AddressSpace, node: ua.NodeId) -> float:
    for reference in space[node].references:
        if reference.IsForward and reference.BrowseName.Name == "EURange":
            found = space.read_attribute_value(reference.NodeId, ua.AttributeIds.Value)
            if found.Value is not None and isinstance(found.Value.Value, ua.Range):
                return float(found.Value.Value.High - found.Value.Value.Low)
    return math.nan
