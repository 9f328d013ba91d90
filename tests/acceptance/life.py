"""A small plant and foretag beside it, for the tests of a tag's life. A cycle of the plant lasts 0.2 s."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncua import Client

from plugin.config import load
from plugin.service import Service

PERIOD = 0.2
NAMESPACE = "urn:foretag:predictions"
ENGINE = ["cycle", "setting1", "setting2", "T24", "T30", "T50", "P30", "Nf", "Nc", "Ps30", "phi", "NRf", "NRc", "BPR"]
TURBINE = ["AT", "AP", "AH", "AFDP", "GTEP", "TIT", "TAT", "TEY", "CDP", "NOX_lab"]

CONFIG = """
[foretag]
device = "cpu"

[[sources]]
name = "plant"
endpoint = "{plant}"
security_policy = "None"
publishing_interval = "50ms"
sampling_interval = "50ms"
keep_alive = "500ms"
timeout = "2s"
reconnect_max = "500ms"
history = {{ back = "all", settle = "500ms" }}

[[assets]]
names = ["engine-{{01..06}}"]
node = "nsu=urn:opcua-sim:plant;s={{asset}}.{{feature}}"
tags = {{ {engine_tags} }}

[[assets]]
names = ["gas-turbine"]
node = "nsu=urn:opcua-sim:plant;s={{asset}}.{{feature}}"
tags = {{ {turbine_tags} }}

[[models]]
name = "rul"
kind = "rul_lstm"
assets = ["engine-*"]
features = {engine}
roles = {{ age = "cycle" }}
window = "80s"
step = "200ms"
hold = "3s"
recent = "2s"
valid = "2s"
schedule = {{ every = "600ms", offset = "200ms", deadline = "1s" }}
training = {{ learn = "failures", retry = "1s" }}
options = {{ members = 1, steps = 40, hidden = 16 }}

[[models]]
name = "nox"
kind = "quality_mlp"
assets = ["gas-turbine"]
features = {turbine}
roles = {{ lab = "NOX_lab" }}
window = "30s"
step = "200ms"
hold = "3s"
recent = "2s"
valid = "2s"
schedule = {{ every = "600ms", offset = "200ms", deadline = "1s" }}
training = {{ learn = "laboratory", retry = "1s" }}
options = {{ output = "nox", members = 1, steps = 40 }}

[publish]
endpoint = "opc.tcp://127.0.0.1:{port}/foretag"
security = ["None"]

[diagnostics]
listen = "127.0.0.1:0"

[write_back]
enabled = true
[[write_back.rules]]
source = "plant"
model = "rul"
output = "rul"
assets = "engine-01"
node = "nsu=urn:opcua-sim:plant;s={{asset}}.advisory.rul"
low = 0.0
high = 200.0
uncertain = "write"
"""


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_config(folder: Path, plant: str, port: int) -> Path:
    """``foretag.toml`` for a plant of six engines and a gas turbine."""
    text = CONFIG.format(
        plant=plant,
        port=port,
        engine=ENGINE,
        turbine=TURBINE,
        engine_tags=", ".join(f"{name} = {{}}" for name in ENGINE),
        turbine_tags=", ".join(f"{name} = {{}}" for name in TURBINE),
    )
    path = folder / "foretag.toml"
    path.write_text(text)
    return path


@dataclass(frozen=True)
class Running:
    """A service that runs, and where its nodes are."""

    service: Service
    endpoint: str

    async def published(self, *models: str) -> None:
        """Wait until these models have published."""
        runs = await self.service.runs
        await until(lambda: set(models) <= set(runs.published), 90)


@asynccontextmanager
async def running(config: Path, port: int) -> AsyncIterator[Running]:
    """The service, for as long as the context lasts; leaving it is bounded."""
    stop = asyncio.Event()
    service = Service(load(config))
    task = asyncio.create_task(service.run(stop))
    started = asyncio.ensure_future(service.runs)
    try:
        both: set[asyncio.Future[Any]] = {task, started}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        if task.done():
            await task
        yield Running(service, f"opc.tcp://127.0.0.1:{port}/foretag")
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await task


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 30) -> None:
    """Wait for a condition, asked ten times a second; TimeoutError when it does not come."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if (await found) if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.1)


async def read(endpoint: str, *names: str, namespace: str = NAMESPACE) -> list[Any]:
    """Values of nodes by their string ids, whatever their status."""
    async with Client(endpoint, timeout=10) as client:
        index = await client.get_namespace_index(namespace)
        nodes: list[Any] = [client.get_node(f"ns={index};s={name}") for name in names]
        return [await node.read_data_value(raise_on_bad_status=False) for node in nodes]
