"""A subscription at the server: its items, its messages in order, and what becomes of it after a cut.

After a cut (OPC 10000-4, 6.7): where the session lives, Republish until the server has no more, then Publish; where it
does not, TransferSubscriptions first; where that is refused too, the subscription is lost: made anew, with a gap.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Sequence

from asyncua import ua
from asyncua.client.ua_session import UaSession

from plugin.acquire.config import SourceConfig
from plugin.acquire.items import Item, ItemMaker
from plugin.acquire.measuring import Malformed
from plugin.acquire.sequence import Sequence as Numbers
from plugin.acquire.server import ServerInfo
from plugin.acquire.session import ServiceFault, status_name, translated
from plugin.acquire.wire import DATA_CHANGE, STATUS_CHANGE, Message, now_micros, republish, status_change
from plugin.domain import Micros
from plugin.errors import SourceUnreachable

_log = logging.getLogger(__name__)

_PASSING = 0.05  # [s] answers to Publish requests that wait side by side may overtake each other
_MOST_AGAIN = 1000  # messages fetched before Publish goes on; a server that makes them up would never end
_GONE = frozenset((int(ua.StatusCodes.BadSubscriptionIdInvalid), int(ua.StatusCodes.BadNoSubscription)))

Deliver = Callable[["Subscription", Message], Awaitable[None]]
"""Takes a message that is due; waits where the database is slow."""
Missed = Callable[["Subscription", Sequence[int], Micros], Awaitable[None]]
"""Takes numbers that will never come, and the time of what came after them [µs]."""


class SubscriptionLost(SourceUnreachable):
    """The server has ended the subscription."""


class Subscription:
    """One of a source's subscriptions, over many sessions."""

    def __init__(
        self, config: SourceConfig, items: Sequence[Item], maker: ItemMaker, deliver: Deliver, missed: Missed
    ) -> None:
        self.items = tuple(items)
        self.leaving: tuple[Item, ...] = ()
        """Items that the server still has and that are wanted no longer."""
        self.id = 0
        """At the server; 0: there is none."""
        self.heard = 0.0
        """When the server last spoke of it [s, loop time]."""
        self.proven = False
        """It has spoken since it was last created or taken up."""
        self.silence = 0.0
        """Longest silence that the server may keep [s]."""
        self.latest: Micros = 0
        """All that was sampled before this is here [µs]: the earlier of the server's clock and ours at the newest
        message, or at a keep-alive since."""
        self.ahead: Micros = 0
        """How far the server's clock was ahead of ours when it last spoke."""
        self._config = config
        self._maker = maker
        self._deliver = deliver
        self._missed = missed
        self._numbers = Numbers()
        self._order = asyncio.Lock()

    # --- at the server ---

    async def create(self, services: UaSession, info: ServerInfo) -> None:
        """Make it with all its items; it publishes only when the last item is there."""
        self.forget()
        interval = self._config.publishing_interval
        parameters = ua.CreateSubscriptionParameters()
        parameters.RequestedPublishingInterval = interval.total_seconds() * 1000
        alive = max(1, math.ceil(self._config.keep_alive / interval))
        parameters.RequestedMaxKeepAliveCount = ua.UInt32(alive)
        parameters.RequestedLifetimeCount = ua.UInt32(max(3 * alive, math.ceil(self._config.bridge / interval)))
        parameters.MaxNotificationsPerPublish = ua.UInt32(self._config.subscription_size)
        parameters.PublishingEnabled = False
        with translated("create a subscription"):
            made = await services.create_subscription(parameters, _ignored)
        self.silence = made.RevisedPublishingInterval / 1000 * made.RevisedMaxKeepAliveCount
        try:
            await self._maker.create(services, info, made.SubscriptionId, self.items)
            await self._enable(services, made.SubscriptionId)
        except ServiceFault:
            with contextlib.suppress(SourceUnreachable), translated("delete a subscription that is not complete"):
                await services.delete_subscriptions([made.SubscriptionId])
            raise
        self.id = int(made.SubscriptionId)
        self.latest = self.latest or now_micros() + min(info.ahead, 0)
        self._begin()

    @staticmethod
    async def _enable(services: UaSession, subscription: int) -> None:
        parameters = ua.SetPublishingModeParameters(PublishingEnabled=True)
        parameters.SubscriptionIds = [ua.UInt32(subscription)]
        with translated("enable publishing"):
            results = await services.set_publishing_mode(parameters)
            results[0].check()

    def change(self, joining: Sequence[Item], leaving: frozenset[int]) -> None:
        """Other items from now on; ``leaving`` by handle. The server hears of it by :meth:`ask_new`, :meth:`let_go`."""
        self.leaving += tuple(item for item in self.items if item.handle in leaving)
        self.items = (*(item for item in self.items if item.handle not in leaving), *joining)

    async def ask_new(self, services: UaSession, info: ServerInfo) -> list[Item]:
        """Ask for the items that joined; returns them."""
        new = [item for item in self.items if not item.asked]
        await self._maker.create(services, info, self.id, new)
        return new

    async def let_go(self, services: UaSession, items: Sequence[Item]) -> None:
        """Have items deleted that left."""
        await self._maker.delete(services, self.id, [item.id for item in items if item.id])
        gone = {item.handle for item in items}
        self.leaving = tuple(item for item in self.leaving if item.handle not in gone)

    async def retry(self, services: UaSession, info: ServerInfo, items: Sequence[Item]) -> None:
        """Ask again for items that the server refused, or whose node it had removed."""
        stale = [item.id for item in items if item.id]
        if stale:
            await self._maker.delete(services, self.id, stale)
        await self._maker.create(services, info, self.id, items)

    async def take_up(self, services: UaSession, *, new_session: bool) -> bool:
        """After a cut: have what was missed sent again, before anything new. False: the subscription is lost."""
        if not self.id:
            return False
        if new_session and not await self._transfer(services):
            return False
        async with self._order:
            if not await self._catch_up(services):
                return False
            await self._mend(services, self.latest)
        self._begin()
        return True

    async def _transfer(self, services: UaSession) -> bool:
        parameters = ua.TransferSubscriptionsParameters(SendInitialValues=False)
        parameters.SubscriptionIds = [ua.UInt32(self.id)]
        try:
            with translated("transfer the subscription"):
                results = await services.transfer_subscriptions(parameters)
        except ServiceFault as fault:
            _log.info("%s: %s", self._config.name, fault)
            return False
        return bool(results) and results[0].StatusCode.is_good()

    async def _catch_up(self, services: UaSession) -> bool:
        """Republish from the next number on, until the server has no more. False: it doesn't know the subscription."""
        for _ in range(_MOST_AGAIN):
            await self._give_out_due()
            try:
                message = await self._republish(services, self._numbers.expected)
            except ServiceFault as fault:
                return fault.code not in _GONE
            if message is None:
                return True
            self._numbers.offer(message)
        await self._give_out_due()
        return True  # what is still missing is found by its number

    async def _republish(self, services: UaSession, number: int) -> Message | None:
        """The message, or None where the server answers without one (some say so by an empty or a wrong message)."""
        try:
            with translated(f"republish {number}"):
                message = await republish(services, self.id, number)
        except SourceUnreachable as error:
            if isinstance(error.__cause__, Malformed):
                return None
            raise
        return message if message.sequence == number and message.notifications else None

    def forget(self) -> None:
        """The server has it no longer."""
        self.id, self.leaving = 0, ()
        self._numbers.restart(0)
        for item in self.items:
            item.forget()

    def _begin(self) -> None:
        self.heard, self.proven = asyncio.get_running_loop().time(), False

    # --- its messages ---

    async def receive(self, services: UaSession, message: Message) -> None:
        """A message from Publish: give out what is due, fetch what is missing."""
        self.heard, self.proven = asyncio.get_running_loop().time(), True
        self.ahead = _clock(message) - message.received
        async with self._order:
            if not message.notifications:
                self._numbers.keep_alive(message.sequence)
                if not self._numbers.missing():
                    self._reached(message)
            else:
                if self._numbers.broken(message.sequence):
                    await self._start_over(message)
                if not self._numbers.offer(message):
                    await self._give_out(message)
                await self._give_out_due()
        if self._numbers.missing():
            await asyncio.sleep(_PASSING)
            async with self._order:
                await self._mend(services, _clock(message))

    async def _start_over(self, message: Message) -> None:
        """The server counts anew: what it sent before, and we did not get, is a gap."""
        await self._missed(self, [self._numbers.expected], _clock(message))
        self._numbers.restart(message.sequence - 1)

    async def _mend(self, services: UaSession, after: Micros) -> None:
        """Fetch each missing message; one that can't be had becomes a gap, before what follows it is given out.

        ``after``: the server's clock when it let us know of them.
        """
        while missing := self._numbers.missing():
            number = missing[0]
            try:
                message = await self._republish(services, number)
            except ServiceFault as fault:
                if fault.code in _GONE:
                    self.forget()
                    raise SubscriptionLost(str(fault)) from fault
                message = None
            if message is not None:
                self._numbers.offer(message)
            else:
                await self._missed(self, [number], after)
                self._numbers.done(number)
            await self._give_out_due()

    async def _give_out_due(self) -> None:
        while (message := self._numbers.due()) is not None:
            await self._give_out(message)  # cut off here, the message stays due
            self._numbers.done(message.sequence)

    async def _give_out(self, message: Message) -> None:
        for kind, body in message.notifications:
            if kind == STATUS_CHANGE:
                ended = f"the server ended subscription {self.id}: {status_name(status_change(body))}"
                self.forget()
                raise SubscriptionLost(ended)
            if kind != DATA_CHANGE:
                _log.debug("notification of type %d is not ours", kind)
        await self._deliver(self, message)
        self._reached(message)

    def _reached(self, message: Message) -> None:
        self.latest = min(_clock(message), message.received)


def _clock(message: Message) -> Micros:
    """The server's clock, else ours."""
    return message.published or message.received


def _ignored(_: object) -> None:
    """asyncua wants a callback per subscription; its publish loop, which would call it, does not run."""
