"""A client of our server, in a process of its own: ``python -m tests.benchmarks._arrivals PORT NODES SECONDS``.

It subscribes to the values of a run (:func:`outputs`) as foretag's acquisition does, at the shortest publishing
interval that the server has, and prints ``{"p99": …, "values": …}``: how much later than its source time a value was
there [s]. Both processes have one clock.
"""

import asyncio
import contextlib
import json
import logging
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from plugin.acquire.config import SourceConfig
from plugin.acquire.source import OpcUaSource
from plugin.diagnostics import Diagnostics
from plugin.domain import OutputTag, Tag
from plugin.publish.address_space import NAMESPACE

_WARM = 2.0
"""After the first values, which were there before [s]."""


def outputs(count: int) -> list[OutputTag]:
    """Of one model: forty machines."""
    names = [(f"engine-{number % 40:02}", f"rul-{number // 40}") for number in range(count)]
    return [OutputTag("rul", asset, output, "cycles", 0.0, 125.0, "") for asset, output in names]


async def listen(port: int, nodes: int, seconds: float, folder: Path) -> dict[str, float]:
    tags = [
        Tag(tag.name, "ours", f"nsu={NAMESPACE};s={tag.name}", id=key)
        for key, tag in enumerate(outputs(nodes), start=1)
    ]
    asked: dict[str, Any] = {
        "name": "ours", "endpoint": f"opc.tcp://127.0.0.1:{port}", "security_policy": "None",
        "publishing_interval": "50ms", "history": {"enabled": False},
    }  # fmt: skip
    late: list[Any] = [np.zeros(0)]
    begin = math.inf
    source = OpcUaSource(SourceConfig(**asked), tags, Diagnostics(), folder)
    async with contextlib.aclosing(source.deliveries()) as deliveries:  # type: ignore[type-var]
        async for delivery in deliveries:
            now = time.time()
            begin = min(begin, now)
            delivery.confirm()
            if now - begin > _WARM:
                late.append(now - 1e-6 * delivery.samples.source_time)
            if now - begin > _WARM + seconds:
                break
    every = np.concatenate(late)
    return {"p99": float(np.quantile(every, 0.99)), "values": len(every)}


if __name__ == "__main__":
    logging.disable()
    with tempfile.TemporaryDirectory(prefix="foretag-benchmark-") as place:
        told = asyncio.run(listen(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(place)))
    print(json.dumps(told), flush=True)
