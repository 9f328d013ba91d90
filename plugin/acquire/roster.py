"""Which tags a source has, and in which subscription each one is: changed while values flow, nothing else touched.

A tag that changes gets a new item under a new handle beside the old one; the old one goes when the new one has spoken.
So no value is missed between the two, and what both report is stored once.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import ceil
from operator import attrgetter

from asyncua.client.ua_session import UaSession

from plugin.acquire.arrivals import Arrivals
from plugin.acquire.config import SourceConfig
from plugin.acquire.intake import Intake
from plugin.acquire.items import Item, ItemMaker
from plugin.acquire.resume import KeptSubscription
from plugin.acquire.server import ServerInfo
from plugin.acquire.session import ServiceFault
from plugin.acquire.subscription import Subscription
from plugin.domain import Micros, Tag

_LOOK = 0.02  # [s] between two looks whether a new item has spoken


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change of the tags does to the items."""

    added: tuple[Item, ...]
    removed: tuple[Item, ...]
    replaced: tuple[tuple[Item, Item], ...]
    """Old and new."""


class Roster:
    """The items of a source, spread over its subscriptions."""

    def __init__(
        self,
        config: SourceConfig,
        tags: Sequence[Tag],
        intake: Intake,
        arrivals: Arrivals,
        kept: Mapping[int, KeptSubscription],
    ) -> None:
        self.items: tuple[Item, ...] = tuple(Item(handle, tag) for handle, tag in enumerate(tags))
        """Every tag with what the server answered for it."""
        self.subscriptions: list[Subscription] = []
        self.changed = asyncio.Event()
        """The server has yet to hear of changes."""
        self._config = config
        self._intake = intake
        self._arrivals = arrivals
        self._maker = ItemMaker(config, intake)
        self._replacing: list[tuple[Item, Item]] = []
        self._size = config.subscription_size
        self._slots = count(max(kept, default=-1) + 1)
        self._place(self._resume(kept))

    def _resume(self, kept: Mapping[int, KeptSubscription]) -> list[Item]:
        """Subscriptions that may still stand at the server serve what they can; returns the items that are left."""
        if not kept:
            return list(self.items)
        wanted = defaultdict[str, list[Item]](list)
        for item in self.items:
            wanted[self._maker.demand(item.tag)].append(item)
        for slot, one in sorted(kept.items()):
            subscription = self._subscription((), slot)
            subscription.resume(one, wanted)
            if subscription.items:  # else its first message will show that it is nobody's
                self.subscriptions.append(subscription)
        return sorted((item for items in wanted.values() for item in items), key=attrgetter("handle"))

    def refused(self) -> int:
        """Tags that the server was asked for, and does not give."""
        return sum(item.asked and not item.monitored for item in self.items)

    def _subscription(self, items: Sequence[Item], slot: int) -> Subscription:
        return Subscription(self._config, items, self._maker, self._arrivals.take, self._arrivals.miss, slot)

    def change(self, tags: Sequence[Tag], known: Mapping[int, Micros]) -> Changed:
        """These tags from now on, and no others; the server hears of it by :meth:`bring_about`."""
        before = {item.tag.name: item for item in self.items}
        wanted = {tag.name for tag in tags}
        for tag in tags:
            if (item := before.get(tag.name)) is not None and _same_at_server(item.tag, tag):
                item.tag = self._intake.tags[item.handle] = tag  # another unit or asset: the server need not know
        removed = tuple(item for name, item in before.items() if name not in wanted)
        added = self._made([tag for tag in tags if tag.name not in before], known)
        outdated = [(before[tag.name], tag) for tag in tags if tag.name in before and before[tag.name].tag != tag]
        reached = {old.tag.id: int(self._intake.reached[old.handle]) for old, _ in outdated}
        successors = self._made([tag for _, tag in outdated], reached)
        replaced = tuple(zip((old for old, _ in outdated), successors, strict=True))
        self._arrange(added, removed, replaced)
        self.changed.set()
        return Changed(added, removed, replaced)

    def _made(self, tags: Sequence[Tag], known: Mapping[int, Micros]) -> tuple[Item, ...]:
        return tuple(Item(handle, tag) for handle, tag in zip(self._intake.admit(tags, known), tags, strict=True))

    def _arrange(self, added: Sequence[Item], removed: Sequence[Item], replaced: Sequence[tuple[Item, Item]]) -> None:
        gone = frozenset(item.handle for item in removed)
        successor = {old.handle: new for old, new in replaced}
        leaving = gone | successor.keys()
        for item in removed:
            self._intake.retire(item.handle)
        self._replacing = [
            (old, successor.get(new.handle, new)) for old, new in self._replacing if new.handle not in gone
        ]
        for subscription in self.subscriptions:
            joining = [successor[item.handle] for item in subscription.items if item.handle in successor]
            subscription.change(joining, leaving)
        self._replacing += replaced
        for handle in leaving:
            self._arrivals.removed.pop(handle, None)
        self._place(added)
        self.items = tuple(item for subscription in self.subscriptions for item in subscription.items)

    def _place(self, items: Sequence[Item]) -> None:
        """Into the subscriptions that have room, then into new ones."""
        left, size = list(items), self._size
        for subscription in self.subscriptions:
            room = max(0, size - len(subscription.items))
            subscription.change(left[:room], frozenset())
            left = left[room:]
        for at in range(0, len(left), size):
            self.subscriptions.append(self._subscription(left[at : at + size], next(self._slots)))

    # --- at the server ---

    def fit(self, info: ServerInfo) -> None:
        """Before there is any subscription: as many and as big ones as the server says that it grants."""
        size, most = self._config.subscription_size, info.subscriptions_per_session
        if most:
            size = max(size, ceil(len(self.items) / most))
        size = min(size, info.items_per_subscription or size)
        if size != self._size:
            self._size = size
            self.subscriptions.clear()
            self._place(self.items)

    async def bring_about(self, services: UaSession, info: ServerInfo) -> tuple[list[Subscription], list[Item]]:
        """Have the server know of all changes; returns subscriptions that are new and items that were asked for.

        Cut off by a lost connection, it goes on from there with the next one.
        """
        subscriptions, items = [], []
        for subscription in tuple(self.subscriptions):
            if subscription.id:
                items += await subscription.ask_new(services, info)
            elif subscription.items:
                try:
                    await subscription.create(services, info)
                except ServiceFault:
                    continue  # refused as before, which is known: it is asked for again later
                subscriptions.append(subscription)
                items += subscription.items
        return subscriptions, items

    def drop_replaced(self) -> None:
        """Where tags are read and not monitored, the server has nothing to let go."""
        for old, _ in self._replacing:
            self._intake.retire(old.handle)
        self._replacing = []
        for subscription in self.subscriptions:
            subscription.leaving = ()

    async def let_go(self, services: UaSession) -> list[Item]:
        """Have the items deleted that are no longer wanted, when those in their place have spoken; returns items
        whose predecessors may have had values left that will not come."""
        ready = [(old, new) for old, new in self._replacing if new.asked]
        self._replacing = [(old, new) for old, new in self._replacing if not new.asked]
        early = {old.handle for old, _ in self._replacing}
        leaving = {
            subscription: [item for item in subscription.leaving if item.handle not in early]
            for subscription in self.subscriptions
        }
        silent = await self._wait_for([new for old, new in ready if old.id and new.monitored])
        for subscription, items in leaving.items():
            if items and subscription.id:
                await subscription.let_go(services, items)
            for item in items:
                self._intake.retire(item.handle)
        for old, _ in ready:
            self._intake.retire(old.handle)
        return silent

    async def _wait_for(self, items: Sequence[Item]) -> list[Item]:
        """Until the first value of each has come, or should long have; returns those of which none came."""
        awaited = self._arrivals.awaited = {item.handle for item in items}
        limit = 2 * self._config.publishing_interval + self._config.timeout
        try:
            async with asyncio.timeout(limit.total_seconds()):
                while awaited:  # noqa: ASYNC110 - a look costs less than an event at each message
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            return [item for item in items if item.handle in awaited]
        finally:
            self._arrivals.awaited = set()
        return []


def _same_at_server(one: Tag, other: Tag) -> bool:
    """Whether both ask the server for the same."""
    return one == replace(other, asset=one.asset, feature=one.feature, unit=one.unit, low=one.low, high=one.high)
