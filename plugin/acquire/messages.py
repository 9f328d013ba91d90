"""A subscription's messages in their order, each once; what did not come is fetched again, or told as missed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from asyncua import ua
from asyncua.client.ua_session import UaSession

from plugin.acquire.measuring import Malformed
from plugin.acquire.sequence import Sequence as Numbers
from plugin.acquire.sequence import following
from plugin.acquire.session import ServiceFault, status_name, translated
from plugin.acquire.wire import DATA_CHANGE, STATUS_CHANGE, Message, republish, status_change
from plugin.domain import Micros
from plugin.errors import SourceUnreachable

_log = logging.getLogger(__name__)

_PASSING = 0.05  # [s] answers to Publish requests that wait side by side may overtake each other
_MOST_AGAIN = 1000  # messages fetched before Publish goes on; a server that makes them up would never end
_GONE = frozenset((int(ua.StatusCodes.BadSubscriptionIdInvalid), int(ua.StatusCodes.BadNoSubscription)))


class SubscriptionLost(SourceUnreachable):
    """The server has ended the subscription."""


class Messages:
    """Of one subscription, over many sessions. One at a time is given out."""

    def __init__(
        self,
        deliver: Callable[[Message], Awaitable[None]],
        missed: Callable[[Sequence[int], Micros], Awaitable[None]],
    ) -> None:
        """``missed`` takes numbers that will never come, and the time of what came after them [µs]."""
        self.latest: Micros = 0
        """All that was sampled before this is here [µs]: the earlier of the server's clock and ours at the newest
        message, or at a keep-alive since."""
        self._deliver = deliver
        self._missed = missed
        self._numbers = Numbers()
        self._order = asyncio.Lock()

    @property
    def expected(self) -> int:
        """The number that is due."""
        return self._numbers.expected

    def restart(self, last: int) -> None:
        """The next number is the one after ``last``."""
        self._numbers.restart(last)

    async def catch_up(self, services: UaSession, subscription: int) -> bool:
        """After a cut: Republish from the next number on, until the server has no more, then look for holes.

        False: the server doesn't know the subscription. Raises SubscriptionLost.
        """
        async with self._order:
            if not await self._again(services, subscription):
                return False
            await self._mend(services, subscription, self.latest)
        return True

    async def take(self, services: UaSession, subscription: int, message: Message) -> None:
        """A message from Publish: give out what is due, fetch what is missing. Raises SubscriptionLost."""
        async with self._order:
            if not message.notifications:
                self._numbers.keep_alive(message.sequence)
                if not self._numbers.missing():
                    self.latest = sampled(message)
            else:
                if self._numbers.broken(message.sequence):
                    await self._start_over(message)
                if not self._numbers.offer(message):
                    await self._give_out(message)
                await self._give_out_due()
        if self._numbers.missing():
            await asyncio.sleep(_PASSING)
            async with self._order:
                await self._mend(services, subscription, clock(message))

    async def _again(self, services: UaSession, subscription: int) -> bool:
        for _ in range(_MOST_AGAIN):
            await self._give_out_due()
            try:
                message = await _republished(services, subscription, self._numbers.expected)
            except ServiceFault as fault:
                return fault.code not in _GONE
            if message is None:
                return True
            self._numbers.offer(message)
        await self._give_out_due()
        return True  # what is still missing is found by its number

    async def _start_over(self, message: Message) -> None:
        """The server counts anew: what it sent before, and we did not get, is a gap."""
        await self._missed([self._numbers.expected], clock(message))
        self._numbers.restart(message.sequence - 1)

    async def _mend(self, services: UaSession, subscription: int, after: Micros) -> None:
        """Fetch each missing message; one that can't be had becomes a gap, before what follows it is given out.

        ``after``: the server's clock when it let us know of them.
        """
        while missing := self._numbers.missing():
            lost, found = await self._fetch(services, subscription, missing)
            if lost:
                await self._missed(lost, after)
            for number in lost:
                self._numbers.done(number)
            if found is not None:
                self._numbers.offer(found)
            await self._give_out_due()

    async def _fetch(
        self, services: UaSession, subscription: int, missing: Sequence[int]
    ) -> tuple[list[int], Message | None]:
        """Ask for missing messages up to the first that comes, or that others follow which are here: those before it
        are lost."""
        lost: list[int] = []
        for number in missing:
            if lost and number != following(lost[-1]):
                break
            try:
                message = await _republished(services, subscription, number)
            except ServiceFault as fault:
                if fault.code in _GONE:
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
                raise SubscriptionLost(f"the server ended the subscription: {status_name(status_change(body))}")
            if kind != DATA_CHANGE:
                _log.debug("notification of type %d is not ours", kind)
        await self._deliver(message)
        self.latest = sampled(message)


async def _republished(services: UaSession, subscription: int, number: int) -> Message | None:
    """The message, or None where the server answers without one (some say so by an empty or a wrong message)."""
    try:
        with translated(f"republish {number}"):
            message = await republish(services, subscription, number)
    except SourceUnreachable as error:
        if isinstance(error.__cause__, Malformed):
            return None
        raise
    return message if message.sequence == number and message.notifications else None


def sampled(message: Message) -> Micros:
    """All that was sampled before this is in the message, or in one before it."""
    return min(clock(message), message.received)


def clock(message: Message) -> Micros:
    """The server's clock, else ours."""
    return message.published or message.received
