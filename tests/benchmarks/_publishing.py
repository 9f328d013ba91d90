"""OPC UA servers, each in a process of its own: ``python -m tests.benchmarks._publishing SERVER --tags N``.

A server has N Doubles, writes all of them once a second, and prints ``{"port": …}`` when it listens. Each line that it
reads is answered by one: the CPU of its process so far [s], and how many values it wrote.
"""

import argparse
import asyncio
import gc
import json
import logging
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from asyncua import Server, ua
from asyncua.server.address_space import AddressSpace

from plugin.diagnostics import Diagnostics
from plugin.publish.asyncua_server import PlantServer
from plugin.publish.cells import Cell
from plugin.publish.config import PublishConfig
from plugin.publish.people import People
from tests.benchmarks._measuring import cpu
from tests.benchmarks._notifications import URI

_PERIOD = 1.0
_AT_ONCE = 500  # written before the loop gets its turn
_FOLDER = 100  # nodes: asyncua slows down with the square of it

Write = Callable[[Sequence[int], float, datetime], Any]


async def fill(server: Server, tags: int) -> list[ua.NodeId]:
    """Doubles ``uniform.0`` and on."""
    index = await server.register_namespace(URI)
    nodes = [ua.NodeId(ua.String(f"uniform.{number}"), ua.Int16(index)) for number in range(tags)]
    folder: Any = None
    for number, node in enumerate(nodes):
        if number % _FOLDER == 0:
            folder = await server.nodes.objects.add_folder(index, f"folder {number}")
        await folder.add_variable(node, f"uniform.{number}", 0.0)
    return nodes


def ours(space: AddressSpace, nodes: Sequence[ua.NodeId]) -> Write:
    """As a prediction is written."""
    cells = [Cell(ua.VariantType.Double, datetime.now(UTC)) for _ in nodes]
    for node, cell in zip(nodes, cells, strict=True):
        space[node].attributes[ua.AttributeIds.Value] = cell

    async def write(which: Sequence[int], value: float, now: datetime) -> None:
        for number in which:
            cells[number].write(value + number, 0, now, now)

    return write


def stock(space: AddressSpace, nodes: Sequence[ua.NodeId]) -> Write:
    """The cheapest way that asyncua offers."""

    async def write(which: Sequence[int], value: float, now: Any) -> None:
        for number in which:
            data = ua.DataValue(ua.Variant(value + number, ua.VariantType.Double), ua.StatusCode(), now, now)
            await space.write_attribute_value(nodes[number], ua.AttributeIds.Value, data)

    return write


async def serve(kind: str, tags: int) -> None:
    config = PublishConfig(security=("None",))
    server = PlantServer(People(config, Diagnostics())) if kind == "foretag" else Server()
    server.set_endpoint("opc.tcp://127.0.0.1:0")
    await server.init()
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    nodes = await fill(server, tags)
    write = (ours if kind == "foretag" else stock)(server.iserver.aspace, nodes)
    await server.start()
    if kind == "foretag":
        gc.freeze()  # as the sink does
    assert server.bserver is not None
    print(json.dumps({"port": server.bserver.port}), flush=True)
    written = 0

    def tell() -> None:
        if not sys.stdin.readline():
            asyncio.get_running_loop().call_soon(ended.set)
        print(json.dumps({"cpu": cpu(), "written": written}), flush=True)

    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, tell)
    loop, value = asyncio.get_running_loop(), 0.0
    due = loop.time()
    while not ended.is_set():
        value, now = value + 1.0, datetime.now(UTC)
        for start in range(0, tags, _AT_ONCE):
            await write(range(start, min(start + _AT_ONCE, tags)), value, now)
            await asyncio.sleep(0)
        written += tags
        due = max(due + _PERIOD, loop.time() - _PERIOD)
        await asyncio.sleep(max(0.0, due - loop.time()))
    await server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m tests.benchmarks._publishing", description="A server to be measured.")
    parser.add_argument("server", choices=["foretag", "asyncua"])
    parser.add_argument("--tags", type=int, default=10_000)
    asked = parser.parse_args()
    logging.disable()
    asyncio.run(serve(asked.server, asked.tags))
