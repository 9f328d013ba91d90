"""asyncua's subscriptions, made honest and cheap.

What differs from asyncua 2.1.0:

* A deadband compares with the last value that was *reported* (OPC 10000-4, 7.22.2); asyncua compares with the last one
  written, so that a slow ramp is never reported.
* References are kept where asyncua makes deep copies: the copying was 83 % of a write to a subscribed node. It asks
  that a DataValue is never changed after it was written.
* A value that a full queue drops marks its successor with the overflow bit (OPC 10000-4, 5.13.1.5).
* A message carries no more values than the client asked for (asyncua ignores it), nor so many that encoding them holds
  the loop; the rest follows in the next one.
* What a client may ask for is bounded: publishing interval, queue size (also when it is modified), number of items.

Private names of asyncua are used: ``tests/contracts`` fails when one of them changes.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Generator
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.internal_subscription import InternalSubscription
from asyncua.server.monitored_item_service import MonitoredItemData, MonitoredItemService
from asyncua.server.subscription_service import SubscriptionService

_INTERVALS = 50.0, 3_600_000.0
"""Shortest and longest publishing interval [ms]."""

_MAX_ITEMS = 20_000
"""Monitored items of one subscription."""

_LIFE = 3_600_000.0
"""Longest time that a subscription lives without its client [ms]."""

_AT_ONCE = 100
"""Values in one message: encoding them holds the loop for about 2 ms."""

_OVERFLOW = 0x480
"""InfoType DataValue and the Overflow bit (OPC 10000-4, 7.39.1)."""


class _Done:
    """An awaitable that is done already."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_DONE = _Done()


class PlantItems(MonitoredItemService):
    """The monitored items of one subscription."""

    async def create_monitored_items(
        self, params: ua.CreateMonitoredItemsParameters
    ) -> list[ua.MonitoredItemCreateResult]:
        """As asyncua's, within the bound."""
        more = len(params.ItemsToCreate)
        subscription: PlantSubscription = self.isub  # type: ignore[assignment]
        if len(self._monitored_items) + more > _MAX_ITEMS or more > subscription.server.items_left():
            raise ServiceError(ua.StatusCodes.BadTooManyMonitoredItems)
        return await super().create_monitored_items(params)

    async def _create_data_change_monitored_item(
        self, params: ua.MonitoredItemCreateRequest
    ) -> ua.MonitoredItemCreateResult:
        subscription: PlantSubscription = self.isub  # type: ignore[assignment]
        if not subscription.server.readable(params.ItemToMonitor):
            return ua.MonitoredItemCreateResult(ua.StatusCode(ua.UInt32(ua.StatusCodes.BadNotReadable)))
        return await super()._create_data_change_monitored_item(params)

    def _modify_monitored_item(self, params: ua.MonitoredItemModifyRequest) -> ua.MonitoredItemModifyResult:
        result = ua.MonitoredItemModifyResult()
        item = self._monitored_items.get(params.MonitoredItemId)
        if item is None:
            result.StatusCode = ua.StatusCode(ua.UInt32(ua.StatusCodes.BadMonitoredItemIdInvalid))
            return result
        asked = params.RequestedParameters
        item.queue_size = result.RevisedQueueSize = self._revise_queue_size(asked.QueueSize)
        item.filter = asked.Filter if asked.Filter is not None else item.filter
        item.client_handle = asked.ClientHandle
        result.RevisedSamplingInterval = self.isub.data.RevisedPublishingInterval
        return result

    def datachange_callback(  # type: ignore[override]
        self, handle: int, value: ua.DataValue, error: ua.StatusCode | None = None
    ) -> "_Done":
        """Report the value if it differs enough from the one that was reported last.

        The work is done when the call returns; the result is there for asyncua, which awaits it.
        """
        subscription: PlantSubscription = self.isub  # type: ignore[assignment]
        if error:
            subscription.enqueue_status(error)
            return _DONE
        item_id = self._monitored_datachange[handle]
        item = self._monitored_items[item_id]
        if item.mode != ua.MonitoringMode.Disabled and self._differs(item, value):
            item.mvalue.current_dvalue = value
            subscription.enqueue(item_id, ua.MonitoredItemNotification(item.client_handle, value), item.queue_size)
        return _DONE

    def _differs(self, item: MonitoredItemData, value: ua.DataValue) -> bool:
        reported, demand = item.mvalue.current_dvalue, item.filter
        if reported is None or reported.StatusCode != value.StatusCode:
            return True
        trigger = demand.Trigger if demand else ua.DataChangeTrigger.StatusValue
        if trigger == ua.DataChangeTrigger.StatusValueTimestamp and reported.SourceTimestamp != value.SourceTimestamp:
            return True
        if trigger == ua.DataChangeTrigger.Status or reported.Value == value.Value:
            return False
        return not demand or _leaves_deadband(demand, reported, value)


def _leaves_deadband(demand: ua.DataChangeFilter, reported: ua.DataValue, value: ua.DataValue) -> bool:
    """Percent deadbands are not offered by these nodes (as in asyncua): every change passes."""
    if demand.DeadbandType != ua.DeadbandType.Absolute or reported.Value is None or value.Value is None:
        return True
    numbers = reported.Value.Value, value.Value.Value
    if not all(isinstance(number, int | float) for number in numbers):
        return True
    return bool(abs(numbers[1] - numbers[0]) > demand.DeadbandValue)


class PlantSubscription(InternalSubscription):
    """One client's subscription."""

    def __init__(
        self, server: "PlantSubscriptions", data: ua.CreateSubscriptionResult, *args: Any, at_once: int, **kwargs: Any
    ) -> None:
        super().__init__(data, server.aspace, *args, **kwargs)
        self.server = server
        aspace = server.aspace
        self.monitored_item_srv = PlantItems(self, aspace)
        self.bound(at_once)

    def bound(self, at_once: int) -> None:
        """Values in one message, as the client asks for; 0: as many as we like."""
        self._at_once = min(at_once or _AT_ONCE, _AT_ONCE)

    async def publish_results(self, requestdata: Any = None) -> bool:
        """As asyncua's; what one message does not hold follows at once, with a turn for the loop in between."""
        used = more = await super().publish_results(requestdata)
        while more and self._triggered_datachanges:
            await asyncio.sleep(0)
            more = await super().publish_results()
        return used

    def _pop_triggered_datachanges(self, result: ua.PublishResult) -> None:
        rest: dict[int, list[ua.MonitoredItemNotification]] = {}
        taken: dict[int, list[ua.MonitoredItemNotification]] = {}
        left = self._at_once
        for item, queue in self._triggered_datachanges.items():
            taken[item], rest[item] = queue[:left], queue[left:]
            left -= len(taken[item])
        self._triggered_datachanges = {item: queue for item, queue in taken.items() if queue}
        super()._pop_triggered_datachanges(result)
        self._triggered_datachanges = {item: queue for item, queue in rest.items() if queue}

    def _pop_publish_result(self) -> ua.PublishResult:
        result = super()._pop_publish_result()
        result.MoreNotifications = bool(self._triggered_datachanges)
        return result

    def enqueue(self, item: int, notification: ua.MonitoredItemNotification, size: int) -> None:
        """Keep the newest ``size`` values; where one is lost from a longer queue, the oldest that stays says so."""
        queue = self._triggered_datachanges.setdefault(item, [])
        if 0 < size <= len(queue):
            del queue[: len(queue) - size + 1]
            if queue:
                queue[0] = ua.MonitoredItemNotification(queue[0].ClientHandle, _overflowed(queue[0].Value))
        queue.append(notification)

    def enqueue_status(self, status: ua.StatusCode) -> None:
        """Tell the client of the subscription's own state."""
        self._triggered_statuschanges.append(status)


def _overflowed(value: ua.DataValue) -> ua.DataValue:
    status = value.StatusCode.value if value.StatusCode is not None else 0
    return dataclasses.replace(value, StatusCode=ua.StatusCode(ua.UInt32(status | _OVERFLOW)))


class PlantSubscriptions(SubscriptionService):
    """All subscriptions of one server."""

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
        interval = min(max(_INTERVALS[0], asked.RequestedPublishingInterval), _INTERVALS[1])
        longest = max(3, int(_LIFE / interval))
        life = min(self._clamp_lifetime_count(asked.RequestedLifetimeCount), longest)
        keep = min(self._clamp_keep_alive_count(asked.RequestedMaxKeepAliveCount), max(1, longest // 3))
        return interval, ua.UInt32(max(life, 3 * keep)), ua.UInt32(keep)
