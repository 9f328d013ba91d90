"""asyncua's subscriptions, made honest and cheap.

What differs from asyncua 2.1.0 (for the items see :mod:`plugin.publish.items`):

* Messages are put together from bytes (:mod:`plugin.publish.wire`) and kept as bytes until they are acknowledged,
  within a bound; asyncua keeps every value as an object, and forgets a message that was asked for again.
* A message carries no more values than the client asked for (asyncua ignores it), nor so many that one client holds the
  loop; the rest follows in the next one.
* What a client may ask for is bounded: publishing interval, lifetime, queue size (also when it is modified), number of
  items.

Private names of asyncua are used: ``tests/contracts`` fails when one of them changes.
"""

import asyncio
import secrets
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial
from typing import Any, NoReturn

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.internal_subscription import InternalSubscription
from asyncua.server.monitored_item_service import MonitoredItemService
from asyncua.server.subscription_service import SubscriptionService

from plugin.publish import wire
from plugin.publish.backlog import Changes
from plugin.publish.cells import Face
from plugin.publish.event_filter import Occurrence
from plugin.publish.event_items import EventItem
from plugin.publish.items import Item, span_of

SHORTEST, _LONGEST = 50.0, 3_600_000.0
"""Publishing interval [ms]."""

MOST_ITEMS = 20_000
"""Monitored items of one subscription."""

_LIFE = 3_600_000.0
"""Longest time that a subscription lives without its client [ms]."""

_AT_ONCE = 5000
"""Values in one message: 200 KiB, and less than 1 ms. Each message takes a request and a turn of the loop as well."""

_TOLD_AT_ONCE = 500
"""Values that are sent again before the loop has its turn."""

_EVENTS_AT_ONCE = 200
"""Events in one message: some 100 KiB."""

_KEPT_BYTES = 16 * 1024 * 1024
"""Messages of one subscription that the client has not acknowledged."""

_KEPT_IN_ALL = 256 * 1024 * 1024
"""The same of all subscriptions: beyond it, the one that holds most parts with its oldest."""


def _status(code: int) -> ua.StatusCode:
    return ua.StatusCode(ua.UInt32(code))


class PlantItems(MonitoredItemService):
    """The monitored items of one subscription."""

    def __init__(self, subscription: "PlantSubscription", server: "PlantSubscriptions") -> None:
        super().__init__(subscription, server.aspace)
        self._server = server
        self._backlog = subscription.backlog
        self._monitored_items: dict[int, Any] = {}

    async def create_monitored_items(
        self, params: ua.CreateMonitoredItemsParameters
    ) -> list[ua.MonitoredItemCreateResult]:
        """As asyncua's, within the bound."""
        more = len(params.ItemsToCreate)
        if len(self._monitored_items) + more > MOST_ITEMS or more > self._server.items_left():
            raise ServiceError(ua.StatusCodes.BadTooManyMonitoredItems)
        return await super().create_monitored_items(params)

    async def _create_data_change_monitored_item(
        self, params: ua.MonitoredItemCreateRequest
    ) -> ua.MonitoredItemCreateResult:
        """Also for attributes other than Value, which seldom change and are asyncua's."""
        if not self._server.readable(params.ItemToMonitor):
            return ua.MonitoredItemCreateResult(_status(ua.StatusCodes.BadNotReadable))
        result, _ = self._make_monitored_item_common(params)
        item = Item(result.MonitoredItemId, params, self._backlog)
        node, attribute = params.ItemToMonitor.NodeId, params.ItemToMonitor.AttributeId
        found = self.aspace[node].attributes.get(attribute) if node in self.aspace else None
        try:
            if found is not None:
                item.ask(params.RequestedParameters, result.RevisedQueueSize, span_of(self.aspace, node))
        except ServiceError as error:
            return ua.MonitoredItemCreateResult(_status(error.code))
        if isinstance(found, Face):
            item.watch(found)
        else:
            result.StatusCode, handle = self.aspace.add_datachange_callback(node, attribute, item.notice)
            item.close = partial(self.aspace.delete_datachange_callback, handle)
        if result.StatusCode.is_good():
            self._monitored_items[result.MonitoredItemId] = item
            self._tell(item)
        return result

    def _tell(self, item: Item) -> None:
        if item.cell is not None:
            item.cell.tell(item)
        else:
            asked = item.read_value_id
            item.notice(0, self.aspace.read_attribute_value(asked.NodeId, asked.AttributeId))

    async def resend(self) -> None:
        """The present value of each item that reports, once more (OPC 10000-4, 5.14.7), in turns with others' work."""
        for place, (number, item) in enumerate(list(self._monitored_items.items()), 1):
            if isinstance(item, Item) and item.mode == ua.MonitoringMode.Reporting and number in self._monitored_items:
                item.forget()
                self._tell(item)
            if place % _TOLD_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _modify_monitored_item(self, params: ua.MonitoredItemModifyRequest) -> ua.MonitoredItemModifyResult:
        result = ua.MonitoredItemModifyResult()
        item = self._monitored_items.get(params.MonitoredItemId)
        if item is None:
            result.StatusCode = _status(ua.StatusCodes.BadMonitoredItemIdInvalid)
            return result
        asked = params.RequestedParameters
        size = result.RevisedQueueSize = self._revise_queue_size(asked.QueueSize)
        result.RevisedSamplingInterval = self.isub.data.RevisedPublishingInterval
        if isinstance(item, Item):
            try:
                item.ask(asked, size, span_of(self.aspace, item.read_value_id.NodeId))
            except ServiceError as error:
                return ua.MonitoredItemModifyResult(_status(error.code))
            self._tell(item)  # a deadband may have held back what is wanted now
        elif isinstance(item, EventItem):
            try:
                result.RevisedQueueSize = item.ask(asked)
            except ServiceError as error:
                return ua.MonitoredItemModifyResult(_status(error.code))
        return result

    def _create_events_monitored_item(self, params: ua.MonitoredItemCreateRequest) -> ua.MonitoredItemCreateResult:
        """As asyncua's, with an item that knows what it was asked for before the first event comes."""
        node = params.ItemToMonitor.NodeId
        mask = self.aspace.read_attribute_value(node, ua.AttributeIds.EventNotifier).Value
        if mask is None or not (mask.Value or 0) & ua.EventNotifier.SubscribeToEvents.mask:
            return ua.MonitoredItemCreateResult(_status(ua.StatusCodes.BadNotSupported))
        result, _ = self._make_monitored_item_common(params)
        try:
            item = EventItem(result.MonitoredItemId, params, self.isub._triggered_events, self._server.lose_event)
        except ServiceError as error:
            return ua.MonitoredItemCreateResult(_status(error.code))
        result.RevisedQueueSize = item.queue_size
        self._commit_monitored_item(result, item)
        self._monitored_events.setdefault(node, []).append(result.MonitoredItemId)
        return result

    async def trigger_event(self, event: Any, mid: int | None = None) -> NoReturn:
        """UaError: asyncua's events go past the filters, and past the queues that count what they drop."""
        raise ua.UaError(f"{event}: events of this server are told by PlantSubscriptions.tell_event")

    def tell_event(self, occurrence: Occurrence) -> None:
        """To the items at the nodes that emit it, each once."""
        for emitter in occurrence.emitters:
            for number in self._monitored_events.get(emitter, ()):
                item = self._monitored_items[number]
                if isinstance(item, EventItem):
                    item.offer(occurrence)

    def event_items(self, number: int | None = None) -> list[EventItem]:
        """All that hear events, or that one of them."""
        items = self._monitored_items
        chosen = items.values() if number is None else [items[number]] if number in items else []
        return [item for item in chosen if isinstance(item, EventItem)]

    async def _set_monitoring_mode(self, mode: ua.MonitoringMode, mid: int) -> ua.StatusCode:
        item = self._monitored_items.get(mid)
        if not isinstance(item, Item):
            return await super()._set_monitoring_mode(mode, mid)
        if item.switch(mode):
            self._tell(item)
        return ua.StatusCode()

    def delete_monitored_items(self, ids: list[int]) -> list[ua.StatusCode]:
        """As asyncua's, which looks through all items for each."""
        gone = [item for item in map(self._monitored_items.get, ids) if isinstance(item, Item)]
        self._backlog.forget([item.place for item in gone])
        results = super().delete_monitored_items(ids)
        self._backlog.choosers[:] = [item for item in self._backlog.choosers if item.waits()]
        return results

    def _delete_monitored_items(self, mid: int) -> ua.StatusCode:
        item = self._monitored_items.get(mid)
        if not isinstance(item, Item):
            self.isub._triggered_events.pop(mid, None)
            return super()._delete_monitored_items(mid)
        item.close()
        item.waiting.clear()
        del self._monitored_items[mid]
        return ua.StatusCode()


class PlantSubscription(InternalSubscription):
    """One client's subscription."""

    def __init__(
        self, server: "PlantSubscriptions", data: ua.CreateSubscriptionResult, *args: Any, at_once: int, **kwargs: Any
    ) -> None:
        super().__init__(data, server.aspace, *args, **kwargs)
        self.owner: Any = None
        """The session that made it or took it over, open or closed."""
        self.backlog = server.changes.open()
        self._triggered_datachanges: Any = self.backlog  # asyncua asks it whether there is anything to say
        self.monitored_item_srv = PlantItems(self, server)
        self._not_acknowledged_results: dict[int, Any] = {}
        self.kept_bytes = 0
        self._server = server
        self._measure: Any = server.measure
        self.bound(at_once)

    def bound(self, at_once: int) -> None:
        """Values in one message, as the client asks for; 0: as many as we like."""
        self._at_once = min(at_once or _AT_ONCE, _AT_ONCE)

    async def publish_results(self, requestdata: Any = None) -> bool:
        """As asyncua's; what one message does not hold follows at once, with a turn for the loop in between."""
        used = more = await super().publish_results(requestdata)
        while more and (self.backlog or self._triggered_events):
            await asyncio.sleep(0)
            more = await super().publish_results()
        return used

    def _pop_publish_result(self) -> Any:
        """A :class:`plugin.publish.wire.Notice`, where asyncua makes a PublishResult."""
        with self._measure():
            found = list(self._notifications())
            self._keep_alive_count = self._publish_cycles_count = 0
            self._startup = False
            number = self._notification_seq
            message = wire.message(number, found, datetime.now(UTC))
            if found:
                self._notification_seq = number % (2**32 - 1) + 1
                self._keep(number, message)
            available = tuple(self._not_acknowledged_results)
            more = bool(self.backlog or self._triggered_events)
            return wire.Notice(self.data.SubscriptionId, available, more, message)

    def _notifications(self) -> Any:
        rest = ua.PublishResult()
        if self._publishing_enabled:
            count, parts = self.backlog.take(self._at_once)
            if count:
                yield wire.data_change(count, parts)
            self._pop_triggered_events(rest)
        self._pop_triggered_statuschanges(rest)
        yield from map(wire.notification, rest.NotificationMessage.NotificationData)

    def _pop_triggered_events(self, result: ua.PublishResult) -> None:
        """As asyncua's, no more in one message than it should hold; it goes on with the same queues."""
        events: list[Any] = []
        for number, queue in list(self._triggered_events.items()):
            left = min(self._at_once, _EVENTS_AT_ONCE) - len(events)
            events += queue[:left]
            del queue[:left]
            if not queue:
                del self._triggered_events[number]
        if events:
            result.NotificationMessage.NotificationData.append(ua.EventNotificationList(events))

    def parting(self) -> wire.Notice:
        """To the session that it leaves (OPC 10000-4, 5.14.7)."""
        moved = ua.StatusChangeNotification(_status(ua.StatusCodes.GoodSubscriptionTransferred))
        message = wire.message(self._notification_seq, [wire.notification(moved)], datetime.now(UTC))
        return wire.Notice(self.data.SubscriptionId, (), False, message)

    def _keep(self, number: int, message: bytes) -> None:
        kept = self._not_acknowledged_results
        kept[number] = message
        self.kept_bytes += len(message)
        while len(kept) > self._no_acks_limit or self.kept_bytes > _KEPT_BYTES:
            self.part_with_oldest()
        self._server.part_with_excess()

    def part_with_oldest(self) -> None:
        """It can't be asked for again from now on."""
        kept = self._not_acknowledged_results
        self.kept_bytes -= len(kept.pop(next(iter(kept))))

    def acknowledge(self, number: int) -> bool:
        """False where there is no such message."""
        message = self._not_acknowledged_results.pop(number, b"")
        self.kept_bytes -= len(message)
        return bool(message)

    def republish(self, nb: int) -> ua.NotificationMessage:
        """Empty where there is no such message."""
        found = self._not_acknowledged_results.get(nb)
        return wire.reread(found) if found is not None else ua.NotificationMessage()


class PlantSubscriptions(SubscriptionService):
    """All subscriptions of one server."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # asyncua begins at 77: a client that comes back after a restart would take along another's, by its old number.
        self._sub_id_counter = secrets.randbelow(2**31)
        self.changes = Changes(self.lose_values)

    async def create_subscription(
        self,
        params: ua.CreateSubscriptionParameters,
        callback: Callable[..., Any],
        session_id: ua.NodeId,
        request_callback: Callable[..., Any] | None = None,
    ) -> ua.CreateSubscriptionResult:
        """As asyncua's, with a bounded interval and our own subscription."""
        server = self.iserver
        if server is None or len(self.subscriptions) >= server.max_subscriptions:
            raise ServiceError(ua.StatusCodes.BadTooManySubscriptions)
        self._sub_id_counter += 1
        result = ua.CreateSubscriptionResult(self._sub_id_counter, *self._terms(params))
        subscription = PlantSubscription(
            self,
            result,
            callback,
            session_id,
            request_callback=request_callback,
            delete_callback=lambda: self.subscriptions.pop(result.SubscriptionId, None),
            no_acks_limit=server.max_unacked_messages_per_subscription,
            max_queue_size=server.max_monitored_item_queue_size,
            publishing_enabled=params.PublishingEnabled,
            at_once=params.MaxNotificationsPerPublish,
        )
        self.subscriptions[result.SubscriptionId] = subscription
        await subscription.start()
        return result

    def modify_subscription(self, params: ua.ModifySubscriptionParameters) -> ua.ModifySubscriptionResult:
        """In force from the next publishing on."""
        found = self.subscriptions[params.SubscriptionId]
        terms = self._terms(params)
        data = found.data
        data.RevisedPublishingInterval, data.RevisedLifetimeCount, data.RevisedMaxKeepAliveCount = terms
        if isinstance(found, PlantSubscription):
            found.bound(params.MaxNotificationsPerPublish)
        return ua.ModifySubscriptionResult(*terms)

    def tell_event(self, occurrence: Occurrence, sessions: Collection[ua.NodeId] | None = None) -> None:
        """To all who subscribed to it, of these ``sessions`` alone; it is in their next message."""
        for subscription in self.subscriptions.values():
            if sessions is not None and subscription.session_id not in sessions:
                continue
            items = subscription.monitored_item_srv
            if isinstance(items, PlantItems):
                items.tell_event(occurrence)

    def lose_event(self) -> None:
        """A client was too slow for one."""
        server: Any = self.iserver
        server.lose_event()

    def lose_values(self, count: int) -> None:
        """A client was too slow for so many."""
        server: Any = self.iserver
        server.lose_values(count)

    @property
    def measure(self) -> Any:
        """Around work whose CPU time is counted."""
        server: Any = self.iserver
        return server.measure

    def part_with_excess(self) -> None:
        """Keep no more messages for Republish than may be kept in all."""
        every = [each for each in self.subscriptions.values() if isinstance(each, PlantSubscription)]
        while sum(each.kept_bytes for each in every) > _KEPT_IN_ALL:
            max(every, key=lambda each: each.kept_bytes).part_with_oldest()

    def items_left(self) -> int:
        """How many monitored items there may be more, in all subscriptions together."""
        held = sum(len(each.monitored_item_srv._monitored_items) for each in self.subscriptions.values())
        server: Any = self.iserver
        return int(server.max_monitored_items) - held

    def readable(self, asked: ua.ReadValueId) -> bool:
        """Whether a client may know the value."""
        server: Any = self.iserver
        return bool(server.readable(asked))

    def _terms(self, asked: ua.CreateSubscriptionParameters | ua.ModifySubscriptionParameters) -> tuple[Any, Any, Any]:
        """Interval, lifetime, keep-alive (OPC 10000-4, 5.14.2: a lifetime is three keep-alives, at least)."""
        interval = min(max(SHORTEST, asked.RequestedPublishingInterval), _LONGEST)
        longest = max(3, int(_LIFE / interval))
        life = min(self._clamp_lifetime_count(asked.RequestedLifetimeCount), longest)
        keep = min(self._clamp_keep_alive_count(asked.RequestedMaxKeepAliveCount), max(1, longest // 3))
        return interval, ua.UInt32(max(life, 3 * keep)), ua.UInt32(keep)
