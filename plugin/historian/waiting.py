"""Deliveries in memory, on their way from the sources to the database: bounded, so that slow writing slows reading."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

from plugin.protocols import Delivery


@dataclass(slots=True, eq=False)
class Taken:
    """A delivery that waits for the database."""

    source: str
    delivery: Delivery
    since: float = field(default_factory=time.monotonic)
    """When it was taken [s, monotonic]."""
    stored: bool = False
    """In the database."""
    counted: bool = True
    """Among the deliveries that wait in memory."""
    confirmed: bool = False

    def confirm(self) -> None:
        """Tell its source, once."""
        if not self.confirmed:
            self.confirmed = True
            self.delivery.confirm()


class Waiting:
    """A queue bounded in deliveries and in samples. One delivery always finds room, however big."""

    def __init__(self, deliveries: int, rows: int) -> None:
        self.ended = False
        """Nothing will arrive any more."""
        self._news = asyncio.Event()
        self._deliveries = deliveries
        self._limit = rows
        self._queue: deque[Taken] = deque()
        self._rows = 0
        self._room = asyncio.Event()

    async def put(self, taken: Taken) -> None:
        """Wait for room, then leave it here."""
        while self._queue and (len(self._queue) >= self._deliveries or self._rows >= self._limit):
            self._room.clear()
            await self._room.wait()
        self._queue.append(taken)
        self._rows += len(taken.delivery.samples)
        self.tell()

    def end(self) -> None:
        """Nothing will arrive any more."""
        self.ended = True
        self.tell()

    def empty(self) -> list[Taken]:
        """Take all that is here; from now on something may arrive again."""
        taken, self._rows, self.ended = list(self._queue), 0, False
        self._queue.clear()
        return taken

    def tell(self) -> None:
        """Wake who waits for :meth:`something`."""
        self._news.set()

    async def something(self) -> None:
        """Until something arrives, or happens that whoever waits for it should look at."""
        self._news.clear()
        await self._news.wait()

    def gather(self, rows: int) -> list[Taken]:
        """What is here, up to so many samples."""
        taken: list[Taken] = []
        while self._queue and rows > 0:
            taken.append(self._queue.popleft())
            rows -= len(taken[-1].delivery.samples)
            self._rows -= len(taken[-1].delivery.samples)
        self._room.set()
        return taken

    def oldest(self) -> float | None:
        """Since when a delivery waits here whose source is in haste [s, monotonic]; None: there is none."""
        return next((taken.since for taken in self._queue if not taken.delivery.patient), None)
