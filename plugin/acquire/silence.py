"""Is the server still there? It has to say a word every now and then, be it only that there is nothing to say."""

import asyncio
from collections.abc import Sequence

from plugin.acquire.config import SourceConfig
from plugin.acquire.pump import Pumps
from plugin.acquire.server import describe
from plugin.acquire.session import Session
from plugin.acquire.subscription import Subscription
from plugin.errors import SourceUnreachable

_LOOK = 0.5  # [s]
_GRACE = 1.0  # [s] beyond which a server is not relied on, long before it is given up
_PATIENCE = 1.5  # times the longest silence that a subscription may keep


class Silence:
    """Of one source, over many connections."""

    def __init__(self, config: SourceConfig, session: Session, subscriptions: Sequence[Subscription]) -> None:
        self.overdue = False
        """The server should have spoken by now; it may yet."""
        self._config = config
        self._session = session
        self._subscriptions = subscriptions
        self._timeout = config.timeout.total_seconds()
        self._mute: set[Subscription] = set()

    async def watch(self, pumps: Pumps) -> None:
        """Raise when the server has been silent for too long, or will soon not hear us."""
        try:
            await self._watch(pumps)
        finally:
            self.overdue = False

    async def _watch(self, pumps: Pumps) -> None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        while True:
            before = loop.time()
            await asyncio.sleep(_LOOK)
            now = loop.time()
            if now - before > 2 * _LOOK:  # we were held up, not the server
                for subscription in self._subscriptions:
                    subscription.heard = now
            if self._session.renewal_failed():
                raise SourceUnreachable(f"{self._config.name}: the secure channel could not be renewed")
            since = pumps.waiting_since()
            self.overdue = False
            if since is not None:
                asked = now
                for subscription in [one for one in self._subscriptions if one.id]:
                    self._check(subscription, now - max(subscription.heard, since))
            elif now - asked > self._config.bridge.total_seconds() / 2:
                asked = now  # the database is slow and no request is waiting: the session must not end meanwhile
                await describe(self._session.services)

    def _check(self, subscription: Subscription, quiet: float) -> None:
        self.overdue |= quiet > _PATIENCE * subscription.silence + _GRACE
        if quiet <= _PATIENCE * subscription.silence + self._timeout:
            return
        if subscription.proven:
            self._mute.discard(subscription)
        elif subscription in self._mute:  # it was taken up twice and never spoke: the server only said that it lives
            self._mute.discard(subscription)
            subscription.forget()
        else:
            self._mute.add(subscription)
        raise SourceUnreachable(f"{self._config.name}: no word from the server for {quiet:.1f} s")
