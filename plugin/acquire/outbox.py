"""What was acquired and waits for the database: bounded, so that a slow database slows the server's reports down."""

import asyncio
from collections import deque

from prometheus_client import Gauge

from plugin.acquire.gaps import Gaps
from plugin.domain import SampleBatch
from plugin.protocols import Delivery


class Outbox:
    """A queue bounded in samples. One delivery always finds room, however big."""

    def __init__(self, limit: int, gaps: Gaps, depth: Gauge) -> None:
        self._limit = limit
        self._gaps = gaps
        self._depth = depth
        self._queue: deque[Delivery] = deque()
        self._samples = 0
        self._changed = asyncio.Condition()

    async def put(self, delivery: Delivery, share: float = 1.0) -> None:
        """Wait for room, then leave it here, with all gaps that changed. Cancelled, it and they are not here.

        ``share`` < 1: only that part of the room is used (history yields to live values).
        """
        async with self._changed:
            await self._changed.wait_for(lambda: not self._queue or self._samples < share * self._limit)
            self._queue.append(self._gaps.with_news(delivery))
            self._samples += len(delivery.samples)
            self._depth.set(len(self._queue))
            self._changed.notify_all()

    async def tell(self) -> None:
        """Leave the changed gaps here, where there are any."""
        if self._gaps.changed():
            await self.put(Delivery(SampleBatch.empty()))

    async def get(self) -> Delivery:
        """The oldest, as soon as there is one."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._queue))
            delivery = self._queue.popleft()
            self._samples -= len(delivery.samples)
            self._depth.set(len(self._queue))
            self._changed.notify_all()
            return delivery
