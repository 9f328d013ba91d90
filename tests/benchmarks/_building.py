"""What it takes to build the address space, in a process of its own: ``python -m tests.benchmarks._building NODES``.

Prints ``{"nodes": …, "cpu": …, "memory": …}``: CPU [s] and growth of the process [MB], from a server that has the
standard's nodes to one that has ours too.
"""

import asyncio
import json
import logging
import resource
import sys
from datetime import UTC, datetime
from pathlib import Path

from plugin.diagnostics import Diagnostics
from plugin.publish.address_space import NAMESPACE, build
from plugin.publish.asyncua_server import PlantServer
from plugin.publish.config import PublishConfig
from plugin.publish.people import People
from plugin.publish.tree import Tree
from plugin.publish.types import DI
from tests.benchmarks._arrivals import outputs
from tests.benchmarks._measuring import cpu


def _resident() -> float:
    """[MB]"""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def _count(server: PlantServer) -> int:
    return len(list(server.iserver.aspace.keys()))


async def measure(count: int) -> dict[str, float]:
    """``count``: of outputs."""
    server = PlantServer(People(PublishConfig(security=("None",)), Diagnostics()))
    server.set_endpoint("opc.tcp://127.0.0.1:0")
    await server.init()
    await server.start()
    namespaces = {uri: await server.register_namespace(uri) for uri in (NAMESPACE, DI)}
    before, used, memory = _count(server), cpu(), _resident()
    await build(Tree(server.iserver, namespaces, datetime.now(UTC)), outputs(count), "0")
    used, grown = cpu() - used, _resident() - memory
    await server.stop()
    return {"nodes": _count(server) - before, "cpu": used, "memory": grown}


if __name__ == "__main__":
    logging.disable()
    print(json.dumps(asyncio.run(measure(int(sys.argv[1])))), flush=True)
