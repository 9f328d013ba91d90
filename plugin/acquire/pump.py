"""Publish requests: several wait at the server at a time, and each answer is handled before the next is sent.

So a slow database slows the requests down, and the values wait in the server's queues: nothing is dropped here.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence
from functools import partial

from asyncua import ua
from asyncua.client.ua_session import UaSession

from plugin.acquire.measuring import Malformed
from plugin.acquire.session import ServiceFault, translated
from plugin.acquire.subscription import Subscription
from plugin.acquire.wire import Message, publish
from plugin.diagnostics import Diagnostics
from plugin.errors import SourceUnreachable

_log = logging.getLogger(__name__)

_TOO_MANY = int(ua.StatusCodes.BadTooManyPublishRequests)
_TIMEOUT = int(ua.StatusCodes.BadTimeout)
_NO_SUBSCRIPTION = int(ua.StatusCodes.BadNoSubscription)
_MOST_STRANGERS = 100
_PAUSE = 0.5  # [s] where the server takes not even one request, or answers without end and says nothing
_AT_ONCE = 0.05  # [s]
_EMPTY_IN_A_ROW = 5

Ack = tuple[int, int]
"""Subscription and sequence number."""


class Acknowledgements:
    """Messages that are safely stored: the server hears of them with the next Publish."""

    def __init__(self) -> None:
        self._ready: list[Ack] = []

    def add(self, ack: Ack) -> None:
        """A message was committed."""
        self._ready.append(ack)

    @contextlib.contextmanager
    def sending(self) -> Iterator[list[Ack]]:
        """All that are ready; they are ready again where sending fails."""
        acks, self._ready = self._ready, []
        try:
            yield acks
        except BaseException:
            self._ready = acks + self._ready
            raise

    def keep(self, subscriptions: frozenset[int]) -> None:
        """Forget those of subscriptions that are no more."""
        self._ready = [ack for ack in self._ready if ack[0] in subscriptions]


class Pumps:
    """The Publish requests of one session."""

    def __init__(
        self,
        source: str,
        services: UaSession,
        subscriptions: Sequence[Subscription],
        acks: Acknowledgements,
        diagnostics: Diagnostics,
        patience: float,
        most: int = 10,
    ) -> None:
        """``patience``: after so long a subscription that is not among ours is deleted [s]; ``most``: requests that
        wait at the server at a time."""
        self._services = services
        self._subscriptions = {subscription.id: subscription for subscription in subscriptions}
        self._acks = acks
        self._source = source
        self._malformed = partial(diagnostics.decode_errors.labels(source).inc, 1)
        self._foreign = diagnostics.foreign_messages.labels(source)
        self._most = most
        self._running = min(max(2, len(subscriptions) + 1), most)
        self._asking = 0
        self._since = 0.0
        self._group: asyncio.TaskGroup | None = None
        self._patience = patience
        self._strangers: dict[int, float] = {}
        self._said = False

    async def run(self) -> None:
        """Until the connection or a subscription is lost: that is raised."""
        async with asyncio.TaskGroup() as self._group:
            for _ in range(self._running):
                self._group.create_task(self._pump())

    def add(self, subscription: Subscription) -> None:
        """One more subscription, made while the pumps run, and one more request for it."""
        self._subscriptions[subscription.id] = subscription
        if self._group is not None and self._running < self._most:
            self._running += 1
            self._group.create_task(self._pump())

    def waiting_since(self) -> float | None:
        """Since when there has always been a request at the server [s, loop time]; None: there is none now."""
        return self._since if self._asking else None

    async def _pump(self) -> None:
        loop, empty = asyncio.get_running_loop(), 0
        while True:
            if empty > _EMPTY_IN_A_ROW:
                await asyncio.sleep(_PAUSE)
            asked = loop.time()
            try:
                message = await self._ask()
            except ServiceFault as fault:
                if fault.code == _TOO_MANY and self._running > 1:
                    self._running -= 1
                    return
                if fault.code == _NO_SUBSCRIPTION:
                    for subscription in self._subscriptions.values():
                        subscription.forget()
                if fault.code not in (_TOO_MANY, _TIMEOUT):
                    raise
                await asyncio.sleep(_PAUSE)
                continue
            except SourceUnreachable as error:
                if not isinstance(error.__cause__, Malformed):
                    raise
                self._malformed()  # its number is missing: it will be asked for again, and then be a gap
                empty += 1
                continue
            known = self._subscriptions.get(message.subscription)
            says_nothing = known is None or not message.notifications
            empty = empty + 1 if says_nothing and loop.time() - asked < _AT_ONCE else 0
            if known is not None:
                await known.receive(self._services, message)
            else:
                await self._dismiss(message)

    async def _dismiss(self, message: Message) -> None:
        """A subscription that we don't know is being made at this moment, or was left by a process before this one.

        One that is being made loses nothing: its first messages are missed by their numbers, and fetched.
        """
        now, stranger = asyncio.get_running_loop().time(), message.subscription
        if len(self._strangers) < _MOST_STRANGERS:
            self._strangers.setdefault(stranger, now)
        since = self._strangers.get(stranger)
        overdue = since is not None and now - since > self._patience
        if message.notifications:
            self._foreign.inc()
            if (overdue or since is None) and not self._said:
                self._said = True  # once a connection; the counter tells how many
                _log.warning("%s: values of subscription %d, which is not ours, are left out", self._source, stranger)
        if overdue:
            self._strangers[stranger] = now
            with contextlib.suppress(ServiceFault), translated("delete a subscription that is nobody's"):
                await self._services.delete_subscriptions([stranger])

    async def _ask(self) -> Message:
        if not self._asking:
            self._since = asyncio.get_running_loop().time()
        self._asking += 1
        try:
            with translated("publish"), self._acks.sending() as acks:
                return await publish(self._services, acks)
        finally:
            self._asking -= 1
