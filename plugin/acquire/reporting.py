"""The server reports: subscriptions are taken up after a cut or made anew, kept complete, and asked for what is due.

The usual way; a server that knows no subscriptions is read instead (:mod:`plugin.acquire.polling`).
"""

import asyncio
import contextlib
import logging

from asyncua.client.ua_session import UaSession

from plugin.acquire.arrivals import Arrivals
from plugin.acquire.bridge import Bridge
from plugin.acquire.config import SourceConfig
from plugin.acquire.connection import Connection, Review
from plugin.acquire.pump import Pumps
from plugin.acquire.refusals import Refusals
from plugin.acquire.roster import Roster
from plugin.acquire.server import describe
from plugin.acquire.session import ServiceFault, Session, status_name
from plugin.acquire.silence import Silence
from plugin.acquire.subscription import Subscription
from plugin.acquire.wire import now_micros
from plugin.diagnostics import Diagnostics
from plugin.domain import GapCause
from plugin.errors import SourceUnreachable

_log = logging.getLogger(__name__)

_RETRY = (2.0, 60.0)  # [s] first and longest pause before refused tags are asked for again
_STRANGER = 12  # timeouts: so long may a subscription of ours take to be made


class Reporting:
    """Of one source, over many connections."""

    def __init__(
        self,
        config: SourceConfig,
        session: Session,
        roster: Roster,
        arrivals: Arrivals,
        refusals: Refusals,
        diagnostics: Diagnostics,
    ) -> None:
        self._config = config
        self._session = session
        self._roster = roster
        self._arrivals = arrivals
        self._refusals = refusals
        self._diagnostics = diagnostics
        self._silence = Silence(config, session, roster.subscriptions)
        self._bridge = Bridge(config, diagnostics.bridge.labels(config.name))

    @property
    def overdue(self) -> bool:
        """The server should have spoken by now; it may yet."""
        return self._silence.overdue

    def failed(self) -> int:
        """Tags that the server refuses, alone or with their subscription."""
        return self._roster.refused() + sum(len(one.items) for one in self._roster.subscriptions if not one.id)

    # --- after a connect ---

    async def begin(self, connection: Connection) -> None:
        """Every subscription lives: taken up, or made anew with a gap for what was missed."""
        subscriptions, refusal = self._roster.subscriptions, None
        if connection.first and not any(subscription.id for subscription in subscriptions):
            self._roster.fit(connection.info)
        for subscription in tuple(subscriptions):
            if not await subscription.take_up(connection.services, connection.info, new_session=not connection.again):
                refusal = await self._make(subscription, connection) or refusal
            elif not subscription.complete:
                self._roster.changed.set()
            self._arrivals.mark(subscription)
        if refusal is not None and not any(subscription.id for subscription in subscriptions):
            raise refusal
        self._bridge.measure(self._session.lifetime, subscriptions)

    async def _make(self, subscription: Subscription, connection: Connection) -> ServiceFault | None:
        """Anew, with a gap for what was missed; the first time it is our own downtime that was missed.

        A server that has enough of subscriptions may refuse one and keep the others: returns what it said.
        """
        info, tags = connection.info, len(subscription.items)
        cause = GapCause.SERVER_DOWN if connection.restarted else GapCause.SUBSCRIPTION_LOST
        if subscription.latest and not connection.first:
            set_back = min(0, info.ahead - subscription.ahead)  # the server's clock, meanwhile
            await self._arrivals.cease(subscription, cause, subscription.latest + set_back)
        if tags or not self._roster.items:  # without a subscription the server would refuse to publish
            try:
                await subscription.create(connection.services, info)
            except ServiceFault as fault:
                if self._config.mode == "auto" and unsupported(fault):
                    raise
                _log.warning("%s: %d tag(s) are not monitored: %s", self._config.name, tags, fault)
                await self._arrivals.cease(subscription, cause, now_micros() + min(0, info.ahead), str(fault))
                return fault
        self._arrivals.resume(subscription)
        return None

    # --- while the connection lasts ---

    async def run(self, connection: Connection, review: Review) -> None:
        """Until the connection or a subscription is lost: that is raised."""
        await review(self._roster.items, connection.since)
        pumps = self._pumps(connection.services)
        async with asyncio.TaskGroup() as group:
            group.create_task(pumps.run())
            group.create_task(self._silence.watch(pumps))
            group.create_task(self._keep_items(connection.services, pumps, review))
            group.create_task(self._arrivals.currents.run(connection.services, connection.info))

    def _pumps(self, services: UaSession) -> Pumps:
        alive = [subscription for subscription in self._roster.subscriptions if subscription.id]
        acks, name, most = self._arrivals.acks, self._config.name, self._config.publish_requests
        acks.keep(frozenset(subscription.id for subscription in alive))
        patience = _STRANGER * self._config.timeout.total_seconds()
        return Pumps(name, services, alive, acks, self._diagnostics, patience, most)

    async def _keep_items(self, services: UaSession, pumps: Pumps, review: Review) -> None:
        """Ask for tags that are new at once; and again for those that the server refused or whose node went away, less
        and less often."""
        pause = _RETRY[0]
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._roster.changed.wait()
            changed = self._roster.changed.is_set()
            if changed or any(one.items and not one.id for one in self._roster.subscriptions):
                self._roster.changed.clear()
                await self._bring_about(services, pumps, review)
            if not changed:
                pause = _RETRY[0] if await self._ask_again(services, review) else min(2 * pause, _RETRY[1])

    async def _bring_about(self, services: UaSession, pumps: Pumps, review: Review) -> None:
        """The server hears of all changes."""
        subscriptions, asked = await self._roster.bring_about(services, await describe(services))
        for subscription in subscriptions:
            pumps.add(subscription)
            self._arrivals.resume(subscription)
        self._arrivals.expect(asked)
        await review(asked, now_micros())
        await self._arrivals.unheard(await self._roster.let_go(services))

    async def _ask_again(self, services: UaSession, review: Review) -> bool:
        """For what was refused or removed; False: it is of no use at present."""
        removed = self._arrivals.removed
        wanted = [item for item in self._roster.items if not item.monitored or item.handle in removed]
        if not wanted:
            return True
        info = await describe(services)
        self._refusals.removed(removed)
        asked = {item.handle for item in wanted}
        for subscription in tuple(self._roster.subscriptions):
            if subscription.id and (mine := [item for item in subscription.items if item.handle in asked]):
                await subscription.retry(services, info, mine)
        for handle in asked:
            removed.pop(handle, None)
        self._arrivals.expect(wanted)
        better = any(item.monitored for item in wanted)
        await review(wanted, now_micros())
        return better


def unsupported(error: SourceUnreachable) -> bool:
    """The server says that it knows no subscriptions."""
    return isinstance(error, ServiceFault) and status_name(error.code) == "BadServiceUnsupported"
