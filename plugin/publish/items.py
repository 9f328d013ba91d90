"""A monitored item: what a client wants to hear of one attribute, and what waits for the next message.

What differs from asyncua 2.1.0:

* A deadband compares with the last value that was *reported* (OPC 10000-4, 7.22.2); asyncua compares with the last one
  written, so that a slow ramp is never reported. A percent deadband is one of the EURange (OPC 10000-8, 6.2).
* A filter that the attribute can't have is refused.
* What is kept is the value's bytes, the same for all subscribers; asyncua keeps a deep copy for each.
* A value that a full queue drops is told by the overflow bit (OPC 10000-4, 5.13.1.5), and the client chooses whether
  the oldest or the newest is dropped.
* An item that samples only keeps its values until it reports.
"""

import math
from collections.abc import Callable, Generator
from datetime import datetime
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.monitored_item_service import MonitoredItemData

from plugin.publish.wire import any_data_value, overflowed

_NEVER = -1
"""Status of what was not reported yet."""


class _Done:
    """An awaitable that is done already."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_DONE = _Done()


class Item(MonitoredItemData):
    """``ready`` is the subscription's: who has values for the next message. ``close`` parts with the node."""

    def __init__(self, number: int, asked: ua.MonitoredItemCreateRequest, ready: "list[Item]") -> None:
        super().__init__()
        self.monitored_item_id = number
        self.read_value_id = asked.ItemToMonitor
        self.mode = asked.MonitoringMode
        self.close: Callable[[], None] = lambda: None
        self.waiting: list[bytes] = []
        self.prefix = bytes(4)
        self._ready = ready
        self._value: Any = None
        self._status = _NEVER
        self._source: datetime | None = None
        self._deadband = 0.0
        self._discard_oldest = True
        self._trigger = ua.DataChangeTrigger.StatusValue

    def ask(self, asked: ua.MonitoringParameters, queue_size: int, span: float) -> None:
        """Take up what the client asks for. ServiceError for a filter that can't be.

        ``span``: of the EURange, NaN where the attribute is no number with a range; see :func:`span_of`.
        """
        demand: Any = asked.Filter
        if hasattr(demand, "DeadbandType"):  # what asyncua decodes is not its ua.DataChangeFilter
            self._deadband, self._trigger = _deadband(demand, span), demand.Trigger
        elif demand is not None and getattr(demand, "TypeId", None) != ua.NodeId():
            raise ServiceError(ua.StatusCodes.BadMonitoredItemFilterUnsupported)
        self.client_handle = asked.ClientHandle
        self.prefix = int(asked.ClientHandle or 0).to_bytes(4, "little")
        self.queue_size = queue_size
        self._discard_oldest = bool(asked.DiscardOldest)

    def switch(self, mode: ua.MonitoringMode) -> bool:
        """Change the mode (OPC 10000-4, 5.13.4); True where the present value is to be told anew."""
        before, self.mode = self.mode, mode
        if mode == ua.MonitoringMode.Disabled:
            self.waiting.clear()
            self._status = _NEVER
        elif mode == ua.MonitoringMode.Reporting and before == ua.MonitoringMode.Sampling and self.waiting:
            self._ready.append(self)
        return before == ua.MonitoringMode.Disabled and mode != before

    def takes(self, value: Any, status: int, source: datetime | None) -> bool:
        """As :class:`plugin.publish.cells.Watcher`."""
        if status == self._status:
            if self.mode is ua.MonitoringMode.Disabled or not self._differs(value, source):
                return False
        elif self.mode is ua.MonitoringMode.Disabled:
            return False
        self._value, self._status, self._source = value, status, source
        return True

    def _differs(self, value: Any, source: datetime | None) -> bool:
        if self._trigger is ua.DataChangeTrigger.StatusValueTimestamp and source != self._source:
            return True
        if self._trigger is ua.DataChangeTrigger.Status or value == self._value:
            return False
        if not self._deadband or not isinstance(value, int | float) or not isinstance(self._value, int | float):
            return True
        return not abs(value - self._value) <= self._deadband

    def put(self, content: bytes) -> None:
        """Keep the newest values, or the oldest, as the queue holds; the neighbour of one that is lost says so."""
        waiting = self.waiting
        if not waiting:
            waiting.append(content)
            if self.mode is ua.MonitoringMode.Reporting:
                self._ready.append(self)
        elif len(waiting) < self.queue_size:
            waiting.append(content)
        elif not self._discard_oldest:
            waiting[-1] = overflowed(content) if self.queue_size > 1 else content
        else:
            del waiting[: len(waiting) - self.queue_size + 1]
            if waiting:
                waiting[0] = overflowed(waiting[0])
            waiting.append(content)

    def notice(self, _: int, value: ua.DataValue) -> _Done:
        """For attributes that asyncua keeps; the work is done when the call returns, though asyncua awaits it."""
        status = value.StatusCode.value if value.StatusCode is not None else 0
        if self.takes(value.Value.Value if value.Value is not None else None, status, value.SourceTimestamp):
            self.put(any_data_value(value))
        return _DONE


def _deadband(demand: ua.DataChangeFilter, span: float) -> float:
    if demand.DeadbandType == ua.DeadbandType.None_:
        return 0.0
    size = float(demand.DeadbandValue)
    if not 0.0 <= size < math.inf:
        raise ServiceError(ua.StatusCodes.BadDeadbandFilterInvalid)
    if demand.DeadbandType == ua.DeadbandType.Absolute:
        return size
    if demand.DeadbandType != ua.DeadbandType.Percent or size > 100.0:
        raise ServiceError(ua.StatusCodes.BadDeadbandFilterInvalid)
    if math.isnan(span):
        raise ServiceError(ua.StatusCodes.BadMonitoredItemFilterUnsupported)
    return size / 100.0 * span


def span_of(space: Any, node: ua.NodeId) -> float:
    """Of the EURange of a variable; NaN where it has none."""
    for reference in space[node].references:
        if reference.IsForward and reference.BrowseName.Name == "EURange":
            found = space.read_attribute_value(reference.NodeId, ua.AttributeIds.Value)
            if found.Value is not None and isinstance(found.Value.Value, ua.Range):
                return float(found.Value.Value.High - found.Value.Value.Low)
    return math.nan
