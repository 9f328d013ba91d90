"""Clients of the scripted plant, each in a process of its own: ``python -m tests.benchmarks._drain CLIENT PORT …``.

A client subscribes, takes values for some seconds after the first, and prints one JSON object:
``{"values": …, "cpu": …, "wall": …}``; CPU is that of its process [s], system time and all threads included.
"""

import argparse
import asyncio
import contextlib
import csv
import json
import logging
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from plugin import pki
from plugin.acquire.config import SourceConfig
from plugin.acquire.source import OpcUaSource
from plugin.diagnostics import Diagnostics
from plugin.domain import Tag
from plugin.historian.ingest import Ingest
from plugin.historian.recent.ring import Ring
from plugin.historian.sqlite.store import SqliteStore
from tests.benchmarks import _stock
from tests.benchmarks._measuring import SUBSCRIPTION, Count, Result, Task, cpu, peak
from tests.benchmarks._notifications import URI


def source(task: Task, folder: Path, tags: Sequence[Tag], diagnostics: Diagnostics) -> OpcUaSource:
    """The plant as the service has it."""
    asked: dict[str, Any] = {
        "name": "plant", "endpoint": f"opc.tcp://127.0.0.1:{task.port}/plant", "security_policy": "None",
        "publishing_interval": f"{task.interval}s", "history": {"enabled": False}, "subscription_size": SUBSCRIPTION,
    }  # fmt: skip
    if task.server_certificate is not None:
        asked["security_policy"] = "Basic256Sha256"
        pki.trust(folder / "pki", task.server_certificate.read_bytes())
    return OpcUaSource(SourceConfig(**asked), tags, diagnostics, folder / "pki")


def described(task: Task) -> list[Tag]:
    return [Tag(name, "plant", f"nsu={URI};s={name}", id=number) for number, name in enumerate(task.names(), start=1)]


async def to_batches(task: Task, folder: Path) -> Result:
    """Socket to columnar batch, thrown away."""
    count = Count(task)
    async with contextlib.aclosing(source(task, folder, described(task), Diagnostics()).deliveries()) as deliveries:  # type: ignore[type-var]
        async for delivery in deliveries:
            delivery.confirm()
            count.add(len(delivery.samples))
            if count.result:
                break
    return count.result


async def to_rows(task: Task, folder: Path) -> Result:
    """Socket to committed rows, and into the ring of the newest samples that models read."""
    diagnostics, count, ring = Diagnostics(), Count(task), Ring() if task.ring else None
    async with SqliteStore(f"sqlite+aiosqlite:///{folder / 'historian.db'}", diagnostics, ring=ring) as store:
        tags = await store.register_tags(described(task))
        ingest = Ingest(
            [source(task, folder, tags, diagnostics)], store, diagnostics,
            on_commit=[lambda batch: count.add(len(batch))],
        )  # fmt: skip
        running = asyncio.create_task(ingest.run())
        await _first(running, count.done)
        running.cancel()
        await asyncio.wait({running})
        stored = (await store.counts())["samples"]
    size = (folder / "historian.db").stat().st_size
    return count.result | {"stored": stored, "duplicates": diagnostics.total("samples_duplicate_total"), "bytes": size}


async def to_subscribed(task: Task, folder: Path) -> Result:
    """Connecting and subscribing alone."""
    plant = source(task, folder, described(task), Diagnostics())
    used, begin = cpu(), time.perf_counter()
    async with contextlib.aclosing(plant.deliveries()) as deliveries:  # type: ignore[type-var]
        waiting = asyncio.ensure_future(anext(deliveries))
        while not plant.connected():
            await asyncio.sleep(0.005)
        result = {"values": task.tags, "cpu": cpu() - used, "wall": time.perf_counter() - begin}
        await waiting
    return result


async def service(task: Task, folder: Path) -> Result:
    """All of foretag, with no model to run: what an installation costs that only stores."""
    from plugin.config import load  # with all that they need, which the others shall not have
    from plugin.service import Service

    with (folder / "tags.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("name", "source", "node"))
        rows.writerows((tag.name, tag.source, tag.node) for tag in described(task))
    (folder / "foretag.toml").write_text(_SERVICE.format(port=task.port))
    diagnostics, count, stored = Diagnostics(), Count(task), 0
    running = Service(load(folder / "foretag.toml"), diagnostics)
    stop = asyncio.Event()
    ended = asyncio.create_task(running.run(stop))
    while not count.result and not ended.done():
        await asyncio.sleep(0.2)
        before, stored = stored, int(diagnostics.total("samples_stored_total"))
        count.add(stored - before)
    stop.set()
    await ended
    return count.result


_SERVICE = """
tags = ["tags.csv"]
[publish]
enabled = false
[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:{port}/plant"
security_policy = "None"
publishing_interval = "1s"
history = {{ enabled = false }}
"""


async def _first(running: "asyncio.Task[None]", done: asyncio.Event) -> None:
    """Until it is done; raises what ended the task before."""
    waiting = asyncio.create_task(done.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        await running


CLIENTS: dict[str, Callable[[Task, Path], Awaitable[Result]]] = {
    "to_batches": to_batches,
    "to_rows": to_rows,
    "to_subscribed": to_subscribed,
    "service": service,
    "asyncua": _stock.handled,
    "asyncua_decoded": _stock.decoded,
}


async def _main() -> None:
    parser = argparse.ArgumentParser("python -m tests.benchmarks._drain", description="A client to be measured.")
    parser.add_argument("client", choices=list(CLIENTS))
    parser.add_argument("port", type=int)
    parser.add_argument("--kind", default="mixed")
    parser.add_argument("--tags", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--interval", type=float, default=0.5)
    parser.add_argument("--server-certificate", type=Path)
    parser.add_argument("--no-ring", dest="ring", action="store_false")
    options = vars(parser.parse_args())
    client = CLIENTS[options.pop("client")]
    logging.disable()  # asyncua warns of the answers that it leaves behind
    with tempfile.TemporaryDirectory(prefix="foretag-benchmark-") as folder:
        result = await client(Task(**options), Path(folder))
    result |= {"memory": peak(), "jax": float("jax" in sys.modules)}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
