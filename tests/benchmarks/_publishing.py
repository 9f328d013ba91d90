"""OPC UA servers, each in a process of its own: ``python -m tests.benchmarks._publishing SERVER --tags N``.

A server has N Doubles, writes all of them once a second as :data:`WRITERS` says, and prints ``{"port": …}`` when it
listens. Each line that it reads is answered by one: the CPU of its process so far [s], and how many values it wrote.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from asyncua import Server, ua

from plugin.diagnostics import Diagnostics
from plugin.domain import SampleBatch, Tag, to_micros
from plugin.publish.address_space import NAMESPACE
from plugin.publish.asyncua_server import PlantServer
from plugin.publish.cells import Cell
from plugin.publish.config import PublishConfig
from plugin.publish.mirror import Mirror
from plugin.publish.people import People
from plugin.publish.tree import Tree
from plugin.publish.types import DI, Ref
from tests.benchmarks._measuring import cpu
from tests.benchmarks._notifications import URI

_PERIOD = 1.0
_FOLDER = 100  # nodes: asyncua slows down with the square of it

Write = Callable[[range, float, datetime], Any]


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


async def mirrored(server: PlantServer, nodes: Sequence[ua.NodeId]) -> AsyncIterator[Write]:
    """As the plant's tags are: in commits, which the mirror's task puts on its nodes."""
    tags = [Tag(f"uniform.{number}", "plant", "", unit="degC", id=number) for number in range(len(nodes))]
    mirror, space = Mirror(["*"], tags), server.iserver.aspace
    tree = Tree(server.iserver, {uri: await server.register_namespace(uri) for uri in (NAMESPACE, DI)}, _now())
    tree.folder("Foretag", "Foretag", tree.ref(Ref(ua.ObjectIds.ObjectsFolder)))
    mirror.build(tree)
    for number, node in enumerate(nodes):  # under the same name in every server
        space[node].attributes = space[tree.id(f"Foretag.Tags.uniform.{number}")].attributes
    numbers = np.arange(len(nodes), dtype=np.int32)

    async def write(which: range, value: float, now: datetime) -> None:
        rows, time = numbers[which.start : which.stop], to_micros(now)
        mirror.committed(SampleBatch.of(rows, time, value + rows, 0, time, time))

    running = asyncio.create_task(mirror.run(_now, contextlib.nullcontext))
    try:
        yield write
    finally:
        running.cancel()


async def alone(server: PlantServer, nodes: Sequence[ua.NodeId]) -> AsyncIterator[Write]:
    """As a prediction is: one by one."""
    cells = [Cell(ua.VariantType.Double, _now()) for _ in nodes]
    for node, cell in zip(nodes, cells, strict=True):
        server.iserver.aspace[node].attributes[ua.AttributeIds.Value] = cell

    async def write(which: range, value: float, now: datetime) -> None:
        for number in which:
            cells[number].write(value + number, 0, now, now)

    yield write


async def stock(server: Server, nodes: Sequence[ua.NodeId]) -> AsyncIterator[Write]:
    """The cheapest way that asyncua offers."""
    space = server.iserver.aspace

    async def write(which: range, value: float, now: Any) -> None:
        for number in which:
            data = ua.DataValue(ua.Variant(value + number, ua.VariantType.Double), ua.StatusCode(), now, now)
            await space.write_attribute_value(nodes[number], ua.AttributeIds.Value, data)

    yield write


WRITERS: Mapping[str, tuple[Callable[[Any, Sequence[ua.NodeId]], AsyncIterator[Write]], int]] = {
    "foretag": (mirrored, 5000),
    "foretag-alone": (alone, 500),
    "asyncua": (stock, 500),
}
"""And how many values are written before the loop gets its turn: a commit, as it comes from one notification."""


def _now() -> datetime:
    return datetime.now(UTC)


async def serve(kind: str, tags: int) -> None:
    config, (writer, at_once) = PublishConfig(security=("None",)), WRITERS[kind]
    server = Server() if kind == "asyncua" else PlantServer(People(config, Diagnostics()))
    server.set_endpoint("opc.tcp://127.0.0.1:0")
    await server.init()
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    nodes = await fill(server, tags)
    async with contextlib.asynccontextmanager(writer)(server, nodes) as write:
        await server.start()
        if kind != "asyncua":
            gc.freeze()  # as the sink does
        assert server.bserver is not None
        print(json.dumps({"port": server.bserver.port}), flush=True)
        await _write_until_told(write, tags, at_once)
        await server.stop()


async def _write_until_told(write: Write, tags: int, at_once: int) -> None:
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
        value, now = value + 1.0, _now()
        for start in range(0, tags, at_once):
            await write(range(start, min(start + at_once, tags)), value, now)
            await asyncio.sleep(0)
        written += tags
        due = max(due + _PERIOD, loop.time() - _PERIOD)
        await asyncio.sleep(max(0.0, due - loop.time()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m tests.benchmarks._publishing", description="A server to be measured.")
    parser.add_argument("server", choices=sorted(WRITERS))
    parser.add_argument("--tags", type=int, default=10_000)
    asked = parser.parse_args()
    logging.disable()
    asyncio.run(serve(asked.server, asked.tags))
