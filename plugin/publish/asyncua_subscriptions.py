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
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.internal_subscription import InternalSubscription
from asyncua.server.subscription_service import SubscriptionService

from plugin.publish import wire
from plugin.publish.asyncua_items import PlantItems
from plugin.publish.backlog import Changes
from plugin.publish.cells import status_code
from plugin.publish.event_filter import Occurrence
from plugin.publish.unacknowledged import Unacknowledged

SHORTEST, _LONGEST = 50.0, 3_600_000.0
"""Publishing interval [ms]."""

_LIFE = 3_600_000.0
"""Longest time that a subscription lives without its client [ms]."""

_AT_ONCE = 5000
"""Values in one message: 200 KiB, and less than 1 ms. Each message takes a request and a turn of the loop as well."""

_EVENTS_AT_ONCE = 200
"""Events in one message: some 100 KiB."""

_KEPT_IN_ALL = 256 * 1024 * 1024
"""Messages of all subscriptions that no client acknowledged: beyond it, the one that holds most parts with its
oldest."""


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
        self.monitored_item_srv = PlantItems(self, self.backlog, server)
        self.unacknowledged = Unacknowledged(self._no_acks_limit)
        self._not_acknowledged_results: Any = self.unacknowledged
        self._server = server
        self._measure: Any = server.measure
        self._modified = asyncio.Event()
        self.bound(at_once)

    async def start(self) -> None:
        """As asyncua's; what nobody foresaw ends the subscription, and its client finds that it is gone."""
        await super().start()
        if self._task is not None:
            self._task.add_done_callback(self._tell_failure)

    def _tell_failure(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._server.forget(self.data.SubscriptionId, error)

    async def _subscription_loop(self) -> None:
        """As asyncua's, at the interval that is in force; what was missed, as by a stopped process, is not made up."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._closing:
            await self.publish_results()
            interval, now = self.data.RevisedPublishingInterval / 1000.0, loop.time()
            due = due + interval if due + interval > now else now + interval
            try:
                async with asyncio.timeout_at(due):
                    await self._modified.wait()
            except TimeoutError:
                continue
            self._modified.clear()
            due = loop.time()

    def modify(self, terms: tuple[Any, Any, Any], at_once: int) -> None:
        """Interval, lifetime and keep-alive, in force at once (OPC 10000-4, 5.14.3)."""
        data = self.data
        data.RevisedPublishingInterval, data.RevisedLifetimeCount, data.RevisedMaxKeepAliveCount = terms
        self.bound(at_once)
        self._modified.set()

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
                self.unacknowledged.keep(number, message)
                self._server.part_with_excess()
            available = tuple(self.unacknowledged)
            more = self._publishing_enabled and bool(self.backlog or self._triggered_events)
            return wire.Notice(self.data.SubscriptionId, available, more, message)

    def _notifications(self) -> Any:
        if self._publishing_enabled:
            events = self._take_events(min(self._at_once, _EVENTS_AT_ONCE))
            if events:
                yield wire.notification(ua.EventNotificationList(events))
            count, parts = self.backlog.take(self._at_once - len(events))
            if count:
                yield wire.data_change(count, parts)
        rest = ua.PublishResult()
        self._pop_triggered_statuschanges(rest)
        yield from map(wire.notification, rest.NotificationMessage.NotificationData)

    def _take_events(self, most: int) -> list[Any]:
        """What waits, up to a bound; it goes on with the same queues."""
        events: list[Any] = []
        for number, queue in list(self._triggered_events.items()):
            left = most - len(events)
            events += queue[:left]
            del queue[:left]
            if not queue:
                del self._triggered_events[number]
        return events

    def parting(self) -> wire.Notice:
        """To the session that it leaves (OPC 10000-4, 5.14.7)."""
        moved = ua.StatusChangeNotification(status_code(ua.StatusCodes.GoodSubscriptionTransferred))
        message = wire.message(self._notification_seq, [wire.notification(moved)], datetime.now(UTC))
        return wire.Notice(self.data.SubscriptionId, (), False, message)

    def republish(self, nb: int) -> ua.NotificationMessage:
        """Empty where there is no such message."""
        found = self.unacknowledged.get(nb)
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
        """See :meth:`PlantSubscription.modify`."""
        found, terms = self.subscriptions[params.SubscriptionId], self._terms(params)
        if isinstance(found, PlantSubscription):
            found.modify(terms, params.MaxNotificationsPerPublish)
        return ua.ModifySubscriptionResult(*terms)

    def forget(self, number: int, error: BaseException) -> None:
        """A subscription ended in an error."""
        found = self.subscriptions.pop(number, None)
        if found is not None:
            found.monitored_item_srv.delete_all_monitored_items()
        server: Any = self.iserver
        server.tell_failure(ua.ObjectIds.PublishRequest_Encoding_DefaultBinary, error)

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
        subscriptions = (each for each in self.subscriptions.values() if isinstance(each, PlantSubscription))
        every = [each.unacknowledged for each in subscriptions]
        while sum(each.size for each in every) > _KEPT_IN_ALL:
            max(every, key=lambda each: each.size).part_with_oldest()

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
