"""Clients of the scripted plant, each in a process of its own: ``python -m tests.benchmarks._drain CLIENT PORT …``.

A client subscribes, takes values for some seconds after the first, and prints one JSON object:
``{"values": …, "cpu": …, "wall": …}``; CPU is that of its process [s], system time and all threads included.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.crypto.uacrypto import CertProperties

from plugin import pki
from plugin.acquire.config import SourceConfig
from plugin.acquire.source import OpcUaSource
from plugin.diagnostics import Diagnostics
from plugin.domain import Tag
from plugin.historian.ingest import Ingest
from plugin.historian.ring import Ring
from plugin.historian.sql import SqlStore
from tests.benchmarks._scripted import URI

_SUBSCRIPTION = 5000  # values in one notification, for every client


@dataclass(frozen=True)
class Task:
    """What is asked of a client."""

    port: int
    kind: str
    tags: int
    seconds: float
    server_certificate: Path | None = None
    interval: float = 0.5

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
        self.result: dict[str, float] = {}

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


# --- foretag -----------------------------------------------------------------------------------------------------


def source(task: Task, folder: Path, tags: Sequence[Tag], diagnostics: Diagnostics) -> OpcUaSource:
    """The plant as the service has it."""
    asked: dict[str, Any] = {
        "name": "plant", "endpoint": f"opc.tcp://127.0.0.1:{task.port}/plant", "security_policy": "None",
        "publishing_interval": f"{task.interval}s", "history": {"enabled": False}, "subscription_size": _SUBSCRIPTION,
    }  # fmt: skip
    if task.server_certificate is not None:
        asked["security_policy"] = "Basic256Sha256"
        pki.trust(folder / "pki", task.server_certificate.read_bytes())
    return OpcUaSource(SourceConfig(**asked), tags, diagnostics, folder / "pki")


def described(task: Task) -> list[Tag]:
    return [Tag(name, "plant", f"nsu={URI};s={name}", id=number) for number, name in enumerate(task.names(), start=1)]


async def to_batches(task: Task, folder: Path) -> dict[str, float]:
    """Socket to columnar batch, thrown away."""
    count = Count(task)
    async with contextlib.aclosing(source(task, folder, described(task), Diagnostics()).deliveries()) as deliveries:  # type: ignore[type-var]
        async for delivery in deliveries:
            delivery.confirm()
            count.add(len(delivery.samples))
            if count.result:
                break
    return count.result


async def to_rows(task: Task, folder: Path) -> dict[str, float]:
    """Socket to committed rows; the ring of the newest samples takes part."""
    diagnostics, count = Diagnostics(), Count(task)
    async with SqlStore(f"sqlite+aiosqlite:///{folder / 'historian.db'}", diagnostics, ring=Ring()) as store:
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


async def to_subscribed(task: Task, folder: Path) -> dict[str, float]:
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


async def _first(running: "asyncio.Task[None]", done: asyncio.Event) -> None:
    """Until it is done; raises what ended the task before."""
    waiting = asyncio.create_task(done.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        await running


# --- asyncua as it comes -----------------------------------------------------------------------------------------


class _Handler:
    def __init__(self, count: Count) -> None:
        self._count = count

    def datachange_notification(self, _node: Any, _value: Any, _data: Any) -> None:
        self._count.add(1)


async def asyncua_handler(task: Task, folder: Path) -> dict[str, float]:
    """Client and Subscription of asyncua, a method called for each value."""
    count = Count(task, rounds=1)
    async with _client(task, folder) as client:
        for nodes in _parts(task):
            subscription = await client.create_subscription(1000 * task.interval, _Handler(count))
            await subscription.subscribe_data_change([client.get_node(node) for node in nodes], queuesize=100)
        await count.done.wait()
    return count.result


async def asyncua_raw(task: Task, folder: Path) -> dict[str, float]:
    """asyncua's services alone: a callback for each decoded notification."""
    count = Count(task, rounds=1)

    def received(result: Any) -> None:
        for notification in result.NotificationMessage.NotificationData or ():
            count.add(len(notification.MonitoredItems))

    async with _client(task, folder) as client:
        for nodes in _parts(task):
            parameters = ua.CreateSubscriptionParameters()
            parameters.RequestedPublishingInterval = 1000 * task.interval
            parameters.PublishingEnabled = True
            parameters.RequestedLifetimeCount, parameters.RequestedMaxKeepAliveCount = ua.UInt32(1000), ua.UInt32(10)
            made = await client.uaclient.create_subscription(parameters, received)
            asked = ua.CreateMonitoredItemsParameters()
            asked.SubscriptionId, asked.TimestampsToReturn = made.SubscriptionId, ua.TimestampsToReturn.Both
            asked.ItemsToCreate = [_asked(handle, node) for handle, node in enumerate(nodes)]
            await client.uaclient.create_monitored_items(asked)
        await count.done.wait()
    return count.result


def _asked(handle: int, node: str) -> ua.MonitoredItemCreateRequest:
    request = ua.MonitoredItemCreateRequest()
    request.ItemToMonitor.NodeId = ua.NodeId.from_string(node)
    request.ItemToMonitor.AttributeId = ua.AttributeIds.Value
    request.MonitoringMode = ua.MonitoringMode.Reporting
    request.RequestedParameters.ClientHandle = ua.UInt32(handle)
    request.RequestedParameters.QueueSize = ua.UInt32(100)
    return request


def _parts(task: Task) -> list[list[str]]:
    nodes = [f"ns=1;s={name}" for name in task.names()]
    return [nodes[at : at + _SUBSCRIPTION] for at in range(0, len(nodes), _SUBSCRIPTION)]


@contextlib.asynccontextmanager
async def _client(task: Task, folder: Path) -> AsyncIterator[Client]:
    client = Client(f"opc.tcp://127.0.0.1:{task.port}/plant", timeout=30, watchdog_intervall=30)
    if task.server_certificate is not None:
        client.application_uri = "urn:foretag"
        own = pki.ensure_own_certificate(folder, client.application_uri, ["localhost"])
        await client.set_security(
            SecurityPolicyBasic256Sha256,
            CertProperties(own.cert_path, "der"),
            CertProperties(own.key_path, "pem"),
            server_certificate=CertProperties(task.server_certificate.read_bytes(), "der"),
            mode=ua.MessageSecurityMode.SignAndEncrypt,
        )
    async with client:
        yield client


CLIENTS: dict[str, Callable[[Task, Path], Awaitable[dict[str, float]]]] = {
    "to_batches": to_batches,
    "to_rows": to_rows,
    "to_subscribed": to_subscribed,
    "asyncua_handler": asyncua_handler,
    "asyncua_raw": asyncua_raw,
}


def _peak() -> float:
    """Most memory that this process has had [MB]."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


async def _main() -> None:
    parser = argparse.ArgumentParser("python -m tests.benchmarks._drain", description="A client to be measured.")
    parser.add_argument("client", choices=list(CLIENTS))
    parser.add_argument("port", type=int)
    parser.add_argument("--kind", default="mixed")
    parser.add_argument("--tags", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--interval", type=float, default=0.5)
    parser.add_argument("--server-certificate", type=Path)
    options = vars(parser.parse_args())
    client = CLIENTS[options.pop("client")]
    logging.disable()  # asyncua warns of the answers that it leaves behind
    with tempfile.TemporaryDirectory(prefix="foretag-benchmark-") as folder:
        result = await client(Task(**options), Path(folder))
    result |= {"memory": _peak(), "jax": float("jax" in sys.modules)}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
