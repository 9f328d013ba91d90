"""A client in a process of its own: ``python -m tests.benchmarks._listener ENDPOINT NODE …`` prints each value's times.

One line per notification: SourceTimestamp and the moment of arrival, both in microseconds since 1970.
"""

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncua import Client, Node

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Print:
    def datachange_notification(self, node: Node, value: Any, data: Any) -> None:
        source = data.monitored_item.Value.SourceTimestamp
        if source is not None and value is not None:
            moment = (source.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
            print(moment, time.time_ns() // 1000, flush=True)


async def listen(endpoint: str, nodes: list[str]) -> None:
    """Until the process is ended."""
    async with Client(endpoint, timeout=10) as client:
        index = await client.get_namespace_index("urn:foretag:predictions")
        subscription = await client.create_subscription(50, _Print())
        await subscription.subscribe_data_change([client.get_node(f"ns={index};s={node}") for node in nodes])
        await asyncio.Event().wait()


if __name__ == "__main__":
    _, address, *names = sys.argv
    asyncio.run(listen(address, names))
