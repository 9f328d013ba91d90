"""What was acquired and waits for the database: bounded, so that a slow database slows the server's reports down."""

import asyncio
from collections import deque
from dataclasses import replace
from functools import partial
from itertools import count

from prometheus_client import Gauge

from plugin.acquire.gaps import Gaps
from plugin.domain import SampleBatch
from plugin.protocols import Delivery


class Outbox:
    """A queue bounded in samples. One delivery always finds room, however big.

    ``depth`` is moved by what comes and goes here: others count in it what they hold.
    """

    def __init__(self, limit: int, gaps: Gaps, depth: Gauge) -> None:
        self._limit = limit
        self._gaps = gaps
        self._depth = depth
        self._queue: deque[Delivery] = deque()
        self._samples = 0
        self._given = count()
        self._unconfirmed: dict[int, Delivery] = {}
        self._taken = asyncio.Event()
        self._added = asyncio.Event()

    async def room(self, share: float = 1.0) -> None:
        """Wait for room: there is some until the next await.

        ``share`` < 1: only that part of the room is used (history yields to live values).
        """
        while self._queue and self._samples >= share * self._limit:
            self._taken.clear()
            await self._taken.wait()

    def add(self, delivery: Delivery) -> None:
        """Leave it here, with all gaps that changed."""
        self._queue.append(self._gaps.with_news(delivery))
        self._samples += len(delivery.samples)
        self._depth.inc()
        self._added.set()

    async def put(self, delivery: Delivery, share: float = 1.0) -> None:
        """Wait for room, then leave it here. Cancelled, it is not here."""
        await self.room(share)
        self.add(delivery)

    async def tell(self) -> None:
        """Leave the changed gaps here, where there are any."""
        if self._gaps.changed():
            await self.put(Delivery(SampleBatch.empty()))

    async def get(self) -> Delivery:
        """The oldest, as soon as there is one; kept until it is confirmed."""
        while not self._queue:
            self._added.clear()
            await self._added.wait()
        delivery = self._queue.popleft()
        self._samples -= len(delivery.samples)
        self._depth.dec()
        self._taken.set()
        ticket = next(self._given)
        self._unconfirmed[ticket] = delivery
        return replace(delivery, confirm=partial(self._confirmed, ticket))

    def rewind(self) -> None:
        """Who took deliveries so far is gone: what was not confirmed is given again, in its order."""
        self._queue.extendleft(reversed(self._unconfirmed.values()))
        self._samples += sum(len(delivery.samples) for delivery in self._unconfirmed.values())
        self._depth.inc(len(self._unconfirmed))
        self._unconfirmed.clear()

    def _confirmed(self, ticket: int) -> None:
        delivery = self._unconfirmed.pop(ticket, None)
        if delivery is not None:
            delivery.confirm()
