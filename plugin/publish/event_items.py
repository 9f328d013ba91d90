"""A monitored item that hears events: what waits for the next message, within a bound that it tells of.

What differs from asyncua 2.1.0: a full queue says so by an event of EventQueueOverflowEventType (OPC 10000-4, 7.22.3),
and the client chooses whether the oldest or the newest is dropped; a client that names no size gets 1,000 events, not
100: an alarm list that refreshes is longer than that.
"""

import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from asyncua import ua
from asyncua.server.monitored_item_service import MonitoredItemData

from plugin.publish.event_filter import EventFilter, Fields, Occurrence

_USUAL, MOST_EVENTS = 1000, 10_000
"""Events that wait: where the client names no number, and at most."""
_SERVER = ua.NodeId(ua.Int32(ua.ObjectIds.Server))

Waiting = dict[int, list[Any]]
"""By item: the events of a subscription that go into the next message."""


class EventItem(MonitoredItemData):
    """``waiting`` is the subscription's; ``lost`` is called for each event that a full queue drops."""

    def __init__(
        self, number: int, asked: ua.MonitoredItemCreateRequest, waiting: Waiting, lost: Callable[[], None]
    ) -> None:
        """ServiceError BadEventFilterInvalid."""
        super().__init__()
        self.monitored_item_id = number
        self.read_value_id = asked.ItemToMonitor
        self.mode = asked.MonitoringMode
        self._waiting = waiting
        self._lost = lost
        self._overflow: ua.EventFieldList | None = None
        self._last: ua.EventFieldList | None = None
        """Of a refresh."""
        self._room = 0
        """Events that may wait beside those of the queue, while a refresh is among them."""
        self._filter = EventFilter(asked.RequestedParameters.Filter)
        self.ask(asked.RequestedParameters)

    def ask(self, asked: ua.MonitoringParameters) -> int:
        """Take up what the client asks for; how many events may wait. ServiceError BadEventFilterInvalid."""
        if asked.Filter is not None:
            self._filter = EventFilter(asked.Filter)
        self.client_handle = asked.ClientHandle
        self.queue_size = min(asked.QueueSize, MOST_EVENTS) if asked.QueueSize > 1 else _USUAL
        self._discard_oldest = asked.DiscardOldest
        return self.queue_size

    def offer(self, occurrence: Occurrence) -> None:
        """Take an event if it passes the filter."""
        if self.mode == ua.MonitoringMode.Reporting and self._filter.passes(occurrence):
            self._put(occurrence.fields)

    @property
    def refreshing(self) -> bool:
        """The client has not got all of its last refresh yet."""
        waiting = self._waiting.get(self.monitored_item_id or 0, ())
        return self._last is not None and any(each is self._last for each in waiting)

    def refresh(self, begin: Fields, retained: Iterable[Occurrence], end: Fields) -> None:
        """All that passes the filter, between two events that pass every filter: whole, however short the queue is."""
        if self.mode != ua.MonitoringMode.Reporting:
            return
        passing = (each.fields for each in retained if self._filter.passes(each))
        told = [self._notification(fields) for fields in (begin, *passing, end)]
        self._last, self._room = told[-1], len(told)
        self._queue.extend(told)

    @property
    def _queue(self) -> list[Any]:
        return self._waiting.setdefault(self.monitored_item_id or 0, [])

    def _put(self, fields: Fields) -> None:
        queue = self._queue
        if len(queue) < self.queue_size or (len(queue) < self.queue_size + self._room and self.refreshing):
            queue.append(self._notification(fields))
            return
        self._lost()
        place = 0 if self._discard_oldest else -1
        told = self._overflow is not None and queue[place] is self._overflow
        if self._discard_oldest:
            del queue[1 if told else 0]
            queue.append(self._notification(fields))
        if not told:
            fields = plain_event(ua.ObjectIds.EventQueueOverflowEventType, "Events were lost: the queue is full")
            self._overflow = self._notification(fields)
            queue.insert(0 if self._discard_oldest else len(queue), self._overflow)

    def _notification(self, fields: Fields) -> ua.EventFieldList:
        return ua.EventFieldList(self.client_handle, self._filter.select(fields))


def plain_event(kind: int, message: str, severity: int = 100) -> dict[str, ua.Variant]:
    """Fields of an event of the server itself."""
    now, variant = datetime.now(UTC), ua.VariantType
    return {
        "EventId": ua.Variant(secrets.token_bytes(16), variant.ByteString),
        "EventType": ua.Variant(ua.NodeId(ua.Int32(kind)), variant.NodeId),
        "SourceNode": ua.Variant(_SERVER, variant.NodeId),
        "SourceName": ua.Variant("Server", variant.String),
        "Time": ua.Variant(now, variant.DateTime),
        "ReceiveTime": ua.Variant(now, variant.DateTime),
        "Message": ua.Variant(ua.LocalizedText(message), variant.LocalizedText),
        "Severity": ua.Variant(severity, variant.UInt16),
    }
