"""A subscription at the server: its items, and what becomes of it after a cut.

After a cut (OPC 10000-4, 6.7): where the session lives, Republish until the server has no more, then Publish; where it
does not, TransferSubscriptions first; where that is refused too, the subscription is lost: made anew, with a gap.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial

from asyncua import ua
from asyncua.client.ua_session import UaSession

from plugin.acquire.config import SourceConfig
from plugin.acquire.decoding import Memory
from plugin.acquire.handles import ClientHandles
from plugin.acquire.items import Item, ItemMaker
from plugin.acquire.messages import Messages, SubscriptionLost, clock, sampled
from plugin.acquire.resume import (
    KeptItem,
    KeptSubscription,
    reached_key,
    subscription_key,
    write_reached,
    write_subscription,
)
from plugin.acquire.server import ServerInfo
from plugin.acquire.session import ServiceFault, translated
from plugin.acquire.terms import Terms
from plugin.acquire.wire import Message, now_micros
from plugin.domain import Micros, Status
from plugin.errors import SourceUnreachable

_log = logging.getLogger(__name__)

_LEAP = 1 << 14  # a killed process may have made items that nobody wrote down: new numbers keep clear of theirs
_STARTED_ALIKE = 2_000_000  # [µs] some servers reckon their start time from their uptime

Deliver = Callable[["Subscription", Message], Awaitable[None]]
"""Takes a message that is due; waits where the database is slow."""
Missed = Callable[["Subscription", Sequence[int], Micros], Awaitable[None]]
"""Takes numbers that will never come, and the time of what came after them [µs]."""


class Subscription:
    """One of a source's subscriptions, over many sessions."""

    def __init__(
        self,
        config: SourceConfig,
        items: Sequence[Item],
        maker: ItemMaker,
        deliver: Deliver,
        missed: Missed,
        slot: int = 0,
    ) -> None:
        self.items = tuple(items)
        self.slot = slot
        """Its number among the source's subscriptions."""
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
        self.ahead: Micros = 0
        """How far the server's clock was ahead of ours when it last spoke."""
        self.lifetime = 0.0
        """How long the server keeps it without a word from us [s]."""
        self.places: Memory = {}
        """Where the values of its messages stood, which explains the next ones."""
        self._server_started: Micros = 0
        self.handles = ClientHandles()
        self._inherited = False
        self._surplus: list[int] = []
        self._outdated = False
        self._unwritten = False
        self._config = config
        self._terms = Terms.of(config)
        self._maker = maker
        self._messages = Messages(partial(deliver, self), partial(missed, self))

    @property
    def latest(self) -> Micros:
        """See :class:`plugin.acquire.messages.Messages`."""
        return self._messages.latest

    # --- at the server ---

    async def create(self, services: UaSession, info: ServerInfo) -> None:
        """Make it with all its items; it publishes only when the last item is there."""
        self.forget()
        self.handles, self._surplus, self._outdated = ClientHandles(), [], False
        self._server_started, self._inherited = info.started, False
        self.handles.name(self.items)
        parameters = self._terms.asked(ua.CreateSubscriptionParameters())
        parameters.PublishingEnabled = False
        for item in self.items:
            item.forget(Status.BAD_WAITING_FOR_INITIAL_DATA)
        with translated("create a subscription"):
            made = await services.create_subscription(parameters, _ignored)
        self._grant(made)
        try:
            await self._maker.create(services, info, made.SubscriptionId, self.items)
            await self._enable(services, made.SubscriptionId)
        except SourceUnreachable:
            for item in self.items:
                item.forget(Status.BAD_WAITING_FOR_INITIAL_DATA)
            with contextlib.suppress(SourceUnreachable), translated("delete a subscription that is not complete"):
                await services.delete_subscriptions([made.SubscriptionId])
            raise
        self.id = int(made.SubscriptionId)
        self._messages.latest = self.latest or now_micros() + min(info.ahead, 0)
        self._unwritten = True
        self._begin()

    def _grant(self, granted: ua.CreateSubscriptionResult | ua.ModifySubscriptionResult) -> None:
        self.silence, self.lifetime = self._terms.granted(granted)

    @staticmethod
    async def _enable(services: UaSession, subscription: int) -> None:
        parameters = ua.SetPublishingModeParameters(PublishingEnabled=True)
        parameters.SubscriptionIds = [ua.UInt32(subscription)]
        with translated("enable publishing"):
            results = await services.set_publishing_mode(parameters)
        if len(results) != 1:
            raise SourceUnreachable(f"enable publishing: {len(results)} answers to one question")
        with translated("enable publishing"):
            results[0].check()

    def change(self, joining: Sequence[Item], leaving: frozenset[int]) -> None:
        """Other items from now on; ``leaving`` by handle. The server hears of it by :meth:`ask_new`, :meth:`let_go`."""
        self.leaving += tuple(item for item in self.items if item.handle in leaving)
        self.items = (*(item for item in self.items if item.handle not in leaving), *joining)

    async def ask_new(self, services: UaSession, info: ServerInfo) -> list[Item]:
        """Ask for the items that joined; returns them."""
        if self._outdated:
            await self._modify(services)
        if self._surplus:
            await self._maker.delete(services, self.id, self._surplus)
            self._surplus, self._unwritten = [], True
        new = [item for item in self.items if not item.asked]
        self.handles.name(new)
        await self._maker.create(services, info, self.id, new)
        self._unwritten |= bool(new)
        return new

    async def let_go(self, services: UaSession, items: Sequence[Item]) -> None:
        """Have items deleted that left."""
        needed = {item.id for item in self.items}
        await self._maker.delete(services, self.id, sorted({item.id for item in items if item.id} - needed))
        gone = {item.handle for item in items}
        self.leaving = tuple(item for item in self.leaving if item.handle not in gone)
        self._unwritten = True

    async def retry(self, services: UaSession, info: ServerInfo, items: Sequence[Item]) -> None:
        """Ask again for items that the server refused, or whose node it had removed."""
        stale = sorted({item.id for item in items if item.id})
        if stale:
            await self._maker.delete(services, self.id, stale)
        self.handles.name(items)
        await self._maker.create(services, info, self.id, items)
        self._unwritten = True

    async def take_up(self, services: UaSession, info: ServerInfo, *, new_session: bool) -> bool:
        """After a cut: have what was missed sent again, before anything new. False: the subscription is lost."""
        if not self.id:
            return False
        if (new_session or self._inherited) and restarted(self._server_started, info.started):
            return False  # the number may be that of somebody else's subscription
        if new_session and not await self._transfer(services):
            return False
        with self._ending():
            if not await self._messages.catch_up(services, self.id):
                return False
        self._begin()
        self._inherited = False
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

    # --- over our own restart ---

    def resume(self, kept: KeptSubscription, wanted: Mapping[str, list[Item]]) -> None:
        """Go on with what the process before this one left: its items serve those ``wanted``, by demand.

        Who is served is taken out of ``wanted``; what serves nobody is taken from the server by :meth:`ask_new`.
        """
        self.id, self.silence, self.lifetime = kept.id, kept.silence, kept.lifetime
        self._messages.latest, self._server_started = kept.latest, kept.server_started
        self._messages.restart(kept.last)
        self._inherited, self._outdated = True, kept.terms != self._terms.text()
        served: list[Item] = []
        for row in kept.items:
            if not wanted.get(row.demand):
                self._surplus.append(row.id)
                continue
            item = wanted[row.demand].pop(0)
            item.id, item.status, item.bridged = row.id, Status.GOOD, True
            item.client, item.plain, item.sampling, item.queue = row.client, row.plain, row.sampling, row.queue
            served.append(item)
        self.items = tuple(served)
        self._maker.take_up(self.items)
        first = {item.client: item.handle for item in reversed(served)}  # of those that share an item it has the values
        newest = max((row.client for row in kept.items), default=0)
        self.handles = ClientHandles(first, newest + random.randint(1, _LEAP))  # noqa: S311 - no secret
        self._surplus = sorted(set(self._surplus) - {item.id for item in self.items})

    async def _modify(self, services: UaSession) -> None:
        """Other intervals are configured than when it was made."""
        parameters = self._terms.asked(ua.ModifySubscriptionParameters())
        parameters.SubscriptionId = ua.UInt32(self.id)
        try:
            with translated("modify a subscription"):
                self._grant(await services.update_subscription(parameters))
        except ServiceFault as fault:
            _log.warning("%s: the subscription keeps its intervals: %s", self._config.name, fault)
        self._outdated, self._unwritten = False, True

    @property
    def complete(self) -> bool:
        """The server has all that is wanted, and nothing else, as far as it can be."""
        return not self._surplus and not self._outdated and not self.leaving and all(item.asked for item in self.items)

    def checkpoint(self, message: Message | None = None) -> dict[str, str]:
        """What is to be stored with a message that is given out, or at once."""
        name, marks = self._config.name, {}
        if message is not None and message.sequence == self._messages.expected:  # a late one tells nothing new
            marks[reached_key(name, self.slot)] = write_reached(self.id, message.sequence, sampled(message))
        if self._unwritten:
            marks[subscription_key(name, self.slot)] = write_subscription(self._kept())
            self._unwritten = False
        return marks

    def _kept(self) -> KeptSubscription:
        items = tuple(
            KeptItem(item.client, item.id, self._maker.demand(item.tag), item.plain, item.sampling, item.queue)
            for item in self.items
            if item.monitored
        )
        return KeptSubscription(self.id, self._server_started, self._terms.text(), self.silence, self.lifetime, items)

    # --- at its end and at its begin ---

    def forget(self) -> None:
        """The server has it no longer."""
        self.id, self.leaving = 0, ()
        self._messages.restart(0)
        for item in self.items:
            item.forget()

    def _begin(self) -> None:
        self.heard, self.proven = asyncio.get_running_loop().time(), False

    # --- its messages ---

    async def receive(self, services: UaSession, message: Message) -> None:
        """A message from Publish. Raises SubscriptionLost."""
        self.heard, self.proven = asyncio.get_running_loop().time(), True
        self.ahead = clock(message) - message.received
        with self._ending():
            await self._messages.take(services, self.id, message)

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except SubscriptionLost:
            self.forget()
            raise


def restarted(before: Micros, after: Micros) -> bool:
    """Two readings of a server's start time are of two lives of it; one that it doesn't tell says nothing."""
    return bool(before and after) and abs(after - before) > _STARTED_ALIKE


def _ignored(_: object) -> None:
    """asyncua wants a callback per subscription; its publish loop, which would call it, does not run."""
