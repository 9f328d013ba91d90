"""A subscription at the server: its items, its messages in order, and what becomes of it after a cut.

After a cut (OPC 10000-4, 6.7): where the session lives, Republish until the server has no more, then Publish; where it
does not, TransferSubscriptions first; where that is refused too, the subscription is lost: made anew, with a gap.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

from asyncua import ua
from asyncua.client.ua_session import UaSession

from plugin.acquire.config import SourceConfig
from plugin.acquire.decoding import Memory
from plugin.acquire.handles import ClientHandles
from plugin.acquire.items import Item, ItemMaker
from plugin.acquire.measuring import Malformed
from plugin.acquire.resume import (
    KeptItem,
    KeptSubscription,
    reached_key,
    subscription_key,
    write_reached,
    write_subscription,
)
from plugin.acquire.sequence import Sequence as Numbers
from plugin.acquire.sequence import following
from plugin.acquire.server import ServerInfo
from plugin.acquire.session import ServiceFault, status_name, translated
from plugin.acquire.terms import Terms
from plugin.acquire.wire import DATA_CHANGE, STATUS_CHANGE, Message, now_micros, republish, status_change
from plugin.domain import Micros, Status
from plugin.errors import SourceUnreachable

_log = logging.getLogger(__name__)

_PASSING = 0.05  # [s] answers to Publish requests that wait side by side may overtake each other
_MOST_AGAIN = 1000  # messages fetched before Publish goes on; a server that makes them up would never end
_GONE = frozenset((int(ua.StatusCodes.BadSubscriptionIdInvalid), int(ua.StatusCodes.BadNoSubscription)))

_LEAP = 1 << 14  # a killed process may have made items that nobody wrote down: new numbers keep clear of theirs
_STARTED_ALIKE = 2_000_000  # [µs] some servers reckon their start time from their uptime

Deliver = Callable[["Subscription", Message], Awaitable[None]]
"""Takes a message that is due; waits where the database is slow."""
Missed = Callable[["Subscription", Sequence[int], Micros], Awaitable[None]]
"""Takes numbers that will never come, and the time of what came after them [µs]."""


class SubscriptionLost(SourceUnreachable):
    """The server has ended the subscription."""


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
        self.latest: Micros = 0
        """All that was sampled before this is here [µs]: the earlier of the server's clock and ours at the newest
        message, or at a keep-alive since."""
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
        self._deliver = deliver
        self._missed = missed
        self._numbers = Numbers()
        self._order = asyncio.Lock()

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
        self.latest = self.latest or now_micros() + min(info.ahead, 0)
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
        async with self._order:
            if not await self._catch_up(services):
                return False
            await self._mend(services, self.latest)
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

    # --- over our own restart ---

    def resume(self, kept: KeptSubscription, wanted: Mapping[str, list[Item]]) -> None:
        """Go on with what the process before this one left: its items serve those ``wanted``, by demand.

        Who is served is taken out of ``wanted``; what serves nobody is taken from the server by :meth:`ask_new`.
        """
        self.id, self.silence, self.lifetime = kept.id, kept.silence, kept.lifetime
        self.latest, self._server_started = kept.latest, kept.server_started
        self._numbers.restart(kept.last)
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
        if message is not None and message.sequence == self._numbers.expected:  # a late one tells nothing new
            marks[reached_key(name, self.slot)] = write_reached(self.id, message.sequence, _sampled(message))
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
            lost, found = await self._fetch(services, missing)
            if lost:
                await self._missed(self, lost, after)
            for number in lost:
                self._numbers.done(number)
            if found is not None:
                self._numbers.offer(found)
            await self._give_out_due()

    async def _fetch(self, services: UaSession, missing: Sequence[int]) -> tuple[list[int], Message | None]:
        """Ask for missing messages up to the first that comes, or that others follow which are here: those before it
        are lost."""
        lost: list[int] = []
        for number in missing:
            if lost and number != following(lost[-1]):
                break
            try:
                message = await self._republish(services, number)
            except ServiceFault as fault:
                if fault.code in _GONE:
                    self.forget()
                    raise SubscriptionLost(str(fault)) from fault
                message = None
            if message is not None:
                return lost, message
            lost.append(number)
        return lost, None

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
        self.latest = _sampled(message)


def restarted(before: Micros, after: Micros) -> bool:
    """Two readings of a server's start time are of two lives of it; one that it doesn't tell says nothing."""
    return bool(before and after) and abs(after - before) > _STARTED_ALIKE


def _sampled(message: Message) -> Micros:
    """All that was sampled before this is in the message, or in one before it."""
    return min(_clock(message), message.received)


def _clock(message: Message) -> Micros:
    """The server's clock, else ours."""
    return message.published or message.received


def _ignored(_: object) -> None:
    """asyncua wants a callback per subscription; its publish loop, which would call it, does not run."""
