"""Clients of a server that is measured: ``python -m tests.benchmarks._subscribers PORT CLIENTS TAGS``.

Each subscribes as foretag's acquisition does, over a connection of its own; they share a process, for it is the server
that is measured. Each line that is read is answered by one: ``{"ready": …, "values": …}``, whether all have had several
values of every tag, and how many values all of them had together.
"""

import asyncio
import contextlib
import json
import logging
import sys
import tempfile
from pathlib import Path

from plugin.diagnostics import Diagnostics
from tests.benchmarks._drain import described, source
from tests.benchmarks._measuring import Task

_ROUNDS = 10  # node-opcua's server wants to be warm


async def take(task: Task, folder: Path, had: list[int], place: int) -> None:
    folder.mkdir()
    async with contextlib.aclosing(source(task, folder, described(task), Diagnostics()).deliveries()) as deliveries:  # type: ignore[type-var]
        async for delivery in deliveries:
            delivery.confirm()
            had[place] += len(delivery.samples)


async def listen(port: int, clients: int, tags: int, folder: Path) -> None:
    """Until it is cancelled."""
    had = [0] * clients
    task = Task(port, "uniform", tags, 0.0, interval=1.0)

    def tell() -> None:
        sys.stdin.readline()
        print(json.dumps({"ready": min(had) >= _ROUNDS * tags, "values": sum(had)}), flush=True)

    asyncio.get_running_loop().add_reader(sys.stdin, tell)
    async with asyncio.TaskGroup() as group:
        for place in range(clients):
            group.create_task(take(task, folder / str(place), had, place))


if __name__ == "__main__":
    logging.disable()
    with tempfile.TemporaryDirectory(prefix="foretag-benchmark-") as own:
        asyncio.run(listen(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(own)))
