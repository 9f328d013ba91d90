"""What is asked of a client that is measured, and how it counts (see :mod:`tests.benchmarks._drain`)."""

import asyncio
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SUBSCRIPTION = 5000
"""Values in one notification, for every client."""

Result = dict[str, float]
"""Values, CPU and wall time [s], and what else there is to say."""


@dataclass(frozen=True)
class Task:
    """What is asked of a client."""

    port: int
    kind: str
    tags: int
    seconds: float
    server_certificate: Path | None = None
    interval: float = 0.5
    ring: bool = True

    def names(self) -> list[str]:
        return [f"{self.kind}.{place}" for place in range(self.tags)]


def cpu() -> float:
    """CPU time of this process so far [s]."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Count:
    """Values of a stretch of time that begins when the client is warm: after some values of every tag."""

    def __init__(self, task: Task, rounds: int = 3) -> None:
        self.done = asyncio.Event()
        self._warm = rounds * task.tags
        self._seconds = task.seconds
        self._values = 0
        self._begin: tuple[int, float, float] | None = None
        self.result: Result = {}

    def add(self, values: int) -> None:
        """So many have arrived."""
        self._values += values
        now = time.perf_counter()
        if self._begin is None:
            if self._values >= self._warm:
                self._begin = self._values, cpu(), now
        elif not self.result and now - self._begin[2] >= self._seconds:
            before, used, since = self._begin
            self.result = {"values": self._values - before, "cpu": cpu() - used, "wall": now - since}
            self.done.set()


def peak() -> float:
    """Most memory that this process has had [MB]."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
