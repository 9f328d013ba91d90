"""The monitored items of one subscription of asyncua's, with ours in their place (:mod:`plugin.publish.items`).

Private names of asyncua are used: ``tests/contracts`` fails when one of them changes.
"""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any, NoReturn, Protocol

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.address_space import AddressSpace
from asyncua.server.internal_subscription import InternalSubscription
from asyncua.server.monitored_item_service import MonitoredItemService

from plugin.publish.audience import NOWHERE
from plugin.publish.backlog import Backlog
from plugin.publish.cells import Face, status_code
from plugin.publish.event_filter import Occurrence
from plugin.publish.event_items import EventItem
from plugin.publish.items import Item, scale_of
from plugin.publish.ranges import is_part
from plugin.publish.stamps import Stamps, asked_stamps

MOST_ITEMS = 20_000
"""Monitored items of one subscription."""

_TOLD_AT_ONCE = 500
"""Values that are sent again before the loop has its turn."""


class Server(Protocol):
    """What all subscriptions share."""

    aspace: AddressSpace

    def items_left(self) -> int:
        """How many monitored items there may be more, in all subscriptions together."""

    def readable(self, asked: ua.ReadValueId) -> bool:
        """Whether a client may know the value."""

    def lose_event(self) -> None:
        """A client was too slow for one."""


class PlantItems(MonitoredItemService):
    """The monitored items of one subscription."""

    def __init__(self, subscription: InternalSubscription, backlog: Backlog, server: Server) -> None:
        super().__init__(subscription, server.aspace)
        self._server = server
        self._backlog = backlog
        self._monitored_items: dict[int, Any] = {}

    async def create_monitored_items(
        self, params: ua.CreateMonitoredItemsParameters
    ) -> list[ua.MonitoredItemCreateResult]:
        """As asyncua's, within the bound."""
        stamps, more = asked_stamps(params.TimestampsToReturn), len(params.ItemsToCreate)
        if len(self._monitored_items) + more > MOST_ITEMS or more > self._server.items_left():
            raise ServiceError(ua.StatusCodes.BadTooManyMonitoredItems)
        return [
            self._create_events_monitored_item(asked)
            if asked.ItemToMonitor.AttributeId == ua.AttributeIds.EventNotifier
            else self._create_item(asked, stamps)
            for asked in params.ItemsToCreate
        ]

    def _create_item(self, params: ua.MonitoredItemCreateRequest, stamps: Stamps) -> ua.MonitoredItemCreateResult:
        """Also for attributes other than Value, which seldom change and are asyncua's."""
        if not self._server.readable(params.ItemToMonitor):
            return ua.MonitoredItemCreateResult(status_code(ua.StatusCodes.BadNotReadable))
        if is_part(params.ItemToMonitor):
            return ua.MonitoredItemCreateResult(status_code(ua.StatusCodes.BadNotSupported))
        result, _ = self._make_monitored_item_common(params)
        item = Item(result.MonitoredItemId, params, self._backlog)
        node, attribute = params.ItemToMonitor.NodeId, params.ItemToMonitor.AttributeId
        found = self.aspace[node].attributes.get(attribute) if node in self.aspace else None
        try:
            if found is not None:
                scale = scale_of(self.aspace, params.ItemToMonitor)
                item.ask(params.RequestedParameters, result.RevisedQueueSize, scale, stamps)
        except ServiceError as error:
            return ua.MonitoredItemCreateResult(status_code(error.code))
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

    def modify_monitored_items(self, params: ua.ModifyMonitoredItemsParameters) -> list[ua.MonitoredItemModifyResult]:
        """As asyncua's, which changes no more than the queue's size and the filter."""
        stamps = asked_stamps(params.TimestampsToReturn)
        with self._backlog.parting(self._places(asked.MonitoredItemId for asked in params.ItemsToModify)):
            return [self._modify_item(asked, stamps) for asked in params.ItemsToModify]

    def _places(self, numbers: Iterable[int]) -> list[int]:
        """Where those of these items that share what is said are told."""
        items = map(self._monitored_items.get, numbers)
        return [item.place for item in items if isinstance(item, Item) and item.place != NOWHERE]

    def _modify_item(self, params: ua.MonitoredItemModifyRequest, stamps: Stamps) -> ua.MonitoredItemModifyResult:
        result = ua.MonitoredItemModifyResult()
        item = self._monitored_items.get(params.MonitoredItemId)
        if item is None:
            result.StatusCode = status_code(ua.StatusCodes.BadMonitoredItemIdInvalid)
            return result
        asked = params.RequestedParameters
        size = result.RevisedQueueSize = self._revise_queue_size(asked.QueueSize)
        result.RevisedSamplingInterval = self.isub.data.RevisedPublishingInterval
        if isinstance(item, Item):
            try:
                item.ask(asked, size, scale_of(self.aspace, item.read_value_id), stamps)
            except ServiceError as error:
                return ua.MonitoredItemModifyResult(status_code(error.code))
            self._tell(item)  # a deadband may have held back what is wanted now
        elif isinstance(item, EventItem):
            try:
                result.RevisedQueueSize = item.ask(asked)
            except ServiceError as error:
                return ua.MonitoredItemModifyResult(status_code(error.code))
        return result

    def _create_events_monitored_item(self, params: ua.MonitoredItemCreateRequest) -> ua.MonitoredItemCreateResult:
        """As asyncua's, with an item that knows what it was asked for before the first event comes."""
        if is_part(params.ItemToMonitor):
            return ua.MonitoredItemCreateResult(status_code(ua.StatusCodes.BadNotSupported))
        node = params.ItemToMonitor.NodeId
        mask = self.aspace.read_attribute_value(node, ua.AttributeIds.EventNotifier).Value
        if mask is None or not (mask.Value or 0) & ua.EventNotifier.SubscribeToEvents.mask:
            return ua.MonitoredItemCreateResult(status_code(ua.StatusCodes.BadNotSupported))
        result, _ = self._make_monitored_item_common(params)
        try:
            item = EventItem(result.MonitoredItemId, params, self.isub._triggered_events, self._server.lose_event)
        except ServiceError as error:
            return ua.MonitoredItemCreateResult(status_code(error.code))
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

    async def set_monitoring_mode(self, mode: ua.MonitoringMode, ids: list[int]) -> list[ua.StatusCode]:
        """As asyncua's, which awaits nothing."""
        with self._backlog.parting(self._places(ids)):
            return await super().set_monitoring_mode(mode, ids)

    async def _set_monitoring_mode(self, mode: ua.MonitoringMode, mid: int) -> ua.StatusCode:
        item = self._monitored_items.get(mid)
        if not isinstance(item, Item):
            if mode == ua.MonitoringMode.Disabled:
                self.isub._triggered_events.pop(mid, None)
            return await super()._set_monitoring_mode(mode, mid)
        if item.switch(mode):
            self._tell(item)
        return ua.StatusCode()

    def delete_monitored_items(self, ids: list[int]) -> list[ua.StatusCode]:
        """As asyncua's, which looks through all items for each."""
        gone = [item for item in map(self._monitored_items.get, ids) if isinstance(item, Item)]
        with self._backlog.parting(self._places(ids)):
            results = super().delete_monitored_items(ids)
        for item in gone:
            self._backlog.withdraw(item)
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
