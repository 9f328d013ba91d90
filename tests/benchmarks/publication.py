"""From a value written to the bytes that each client is sent: CPU of the server's process, beside other servers.

10,000 Doubles change once a second, in every server (:mod:`tests.benchmarks._publishing`) at the same pace; 0, 1 and 5
clients subscribe to all of them, each a process of its own that takes them as foretag's acquisition does
(:mod:`tests.benchmarks._drain`). What is counted is the server's CPU, system time and all threads included, for all
that it does in those seconds: writing, comparing, queueing, encoding, sending, and answering. Channels are not
encrypted: what encryption costs is the same for every server.

A prediction is written to its nodes in this process, by the sink, with nobody listening. Its way to a client
(:mod:`tests.benchmarks._arrivals`) ends where acquisition has it as a column, and begins with the run's making.
"""

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from plugin.diagnostics import Diagnostics
from plugin.domain import Outcome, OutputTag, Prediction, Run, RunKind, Status
from plugin.publish.config import PublishConfig
from plugin.publish.server import OpcUaSink
from tests.benchmarks._arrivals import outputs
from tests.benchmarks.harness import Goal, Peer, Row, Spread

_PYTHON = sys.executable, "-m"
_OTHERS = "tests.benchmarks._publishing"
_NODE = Path(__file__).parents[1] / "acceptance" / "node_opcua"
_TAGS = 10_000
_LIMIT = 120.0
_SUBSCRIPTIONS = 2
"""Of each client, which shares its items among them."""
_SETTLED = 2.0
"""After so long all clients have their first values [s]."""
_OUTPUTS = 2000
"""Predictions of a run that is written."""
_RUN = 1000
"""Those of a run whose way to a client is timed."""
_BUILT = 3100
"""Outputs that are built: some 50,000 nodes."""
_NODES = 50_000


@dataclass(frozen=True, slots=True)
class Look:
    """At a server, at one moment."""

    time: float
    cpu: float
    written: int
    subscriptions: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a server over some seconds."""

    per_write: float
    """CPU per value written [µs], whoever is told of it."""
    share: float
    """Of a core [%]."""
    heard: float
    """Values that a client took, as a share of those written."""


async def measure(quick: bool) -> Sequence[Row]:
    """Servers in turn, round by round."""
    seconds = 5.0 if quick else 10.0
    costs: dict[tuple[str, int], list[Cost]] = defaultdict(list)
    writes: list[float] = []
    late: list[float] = []
    built: list[dict[str, float]] = []
    for _ in range(1 if quick else 3):
        for clients in (0, 1, 5):
            costs["foretag", clients].append(await _cost("foretag", clients, seconds))
        for peer in ("asyncua", *(["node-opcua"] if _node_is_here() else [])):
            for clients in (0, 1):
                costs[peer, clients].append(await _cost(peer, clients, seconds))
        writes.append(await _prediction())
        late.append(await _late(seconds))
        built.append(await _built())
    return [*_rows(costs), *_of_predictions(writes, late, built)]


def _of_predictions(writes: Sequence[float], late: Sequence[float], built: Sequence[dict[str, float]]) -> list[Row]:
    cpu = Spread.of(_NODES * each["cpu"] / each["nodes"] for each in built)
    memory = Spread.of(_NODES * each["memory"] / each["nodes"] for each in built)
    return [
        Row("a prediction, to all its nodes: CPU", Spread.of(writes), "µs", goal=Goal(5)),
        Row("1,000 predictions a run: from given to at a client, p99", Spread.of(late), "ms", goal=Goal(100)),
        Row("50,000 nodes of predictions built: CPU", cpu, "s", goal=Goal(8)),
        Row("… and what they add to the process", memory, "MB", goal=Goal(300)),
    ]


def _node_is_here() -> bool:
    """It is after ``npm ci`` in its folder."""
    return shutil.which("node") is not None and (_NODE / "node_modules" / "node-opcua-server").exists()


def _rows(costs: dict[tuple[str, int], list[Cost]]) -> list[Row]:
    def spread(who: str, clients: int) -> Spread:
        return Spread.of(cost.per_write for cost in costs[who, clients])

    def beside(figure: str, clients: int, goal: Goal | None) -> list[Row]:
        ours, peers = spread("foretag", clients), [who for who, n in costs if n == clients and who != "foretag"]
        return [Row(figure, ours, "µs", peer=Peer(who, spread(who, clients)), goal=goal) for who in peers]

    further = [
        (many.per_write - few.per_write) / 4 for many, few in zip(costs["foretag", 5], costs["foretag", 1], strict=True)
    ]
    share = Spread.of(cost.share for cost in costs["foretag", 5])
    heard = Spread.of(100 * cost.heard for cost in costs["foretag", 5])
    return [
        *beside("write of a value, nobody listens: CPU", 0, None),
        *beside("value written and delivered to one client: CPU", 1, Goal(2)),
        Row("the same value to each further client: CPU", Spread.of(further), "µs", goal=Goal(0.7)),
        Row("value written and delivered to five clients: CPU", spread("foretag", 5), "µs"),
        Row("10,000 values a second to each of five clients: CPU", share, "% core", goal=Goal(5)),
        Row("… of which each client took", heard, "%"),
    ]


async def _cost(server: str, clients: int, seconds: float) -> Cost:
    async with _serving(server) as (port, look), contextlib.AsyncExitStack() as stack:
        taking = [await stack.enter_async_context(_taking(port, seconds + 3)) for _ in range(clients)]
        ends = asyncio.ensure_future(_first(taking) if taking else asyncio.sleep(seconds + 3, 0.0))
        looks = [await look()]
        while not ends.done():
            await asyncio.wait({ends}, timeout=0.5)
            looks.append(await look())
        told = [each for each in looks if each.subscriptions == _SUBSCRIPTIONS * clients]
        first = next(each for each in told if each.time - told[0].time >= _SETTLED)
        last = told[-1]
        spent, written = last.cpu - first.cpu, last.written - first.written
        return Cost(1e6 * spent / written, 100 * spent / (last.time - first.time), ends.result() / _TAGS)


async def _first(taking: Sequence[asyncio.subprocess.Process]) -> float:
    """Values per second of the client that ends first."""
    ends = [asyncio.ensure_future(process.communicate()) for process in taking]
    done, others = await asyncio.wait(ends, timeout=_LIMIT, return_when=asyncio.FIRST_COMPLETED)
    for other in others:
        other.cancel()
    for each in done:
        output, _ = each.result()
        result = json.loads(output.splitlines()[-1])
        return float(result["values"] / result["wall"])
    raise RuntimeError("no client came to an end")


@contextlib.asynccontextmanager
async def _process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*arguments, stdin=pipe, stdout=pipe, stderr=none)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _taking(port: int, seconds: float) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
    shape = ("--kind", "uniform", "--tags", str(_TAGS), "--seconds", str(seconds), "--interval", "1")
    return _process(*_PYTHON, "tests.benchmarks._drain", "to_batches", str(port), *shape)


@contextlib.asynccontextmanager
async def _serving(server: str) -> AsyncIterator[tuple[int, Callable[[], Awaitable[Look]]]]:
    command = ("node", str(_NODE / "serve.mjs")) if server == "node-opcua" else (*_PYTHON, _OTHERS, server)
    async with _process(*command, "--tags", str(_TAGS)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(_LIMIT):
            port = (await _told(process.stdout))["port"]

        async def look() -> Look:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"\n")
            async with asyncio.timeout(_LIMIT):
                found = await _told(process.stdout)
            return Look(time.perf_counter(), found["cpu"], found["written"], found["subscriptions"])

        yield port, look


@contextlib.asynccontextmanager
async def _sink(tags: Sequence[OutputTag]) -> AsyncIterator[OpcUaSink]:
    config = PublishConfig(endpoint="opc.tcp://127.0.0.1:0", security=("None",))
    with tempfile.TemporaryDirectory(prefix="foretag-benchmark-") as folder:
        sink = OpcUaSink(config, Path(folder), Diagnostics())
        async with sink.open(tags):
            yield sink


async def _told(output: asyncio.StreamReader) -> dict[str, Any]:
    """The next line that is meant for us: node-opcua has more to say."""
    while not (line := await output.readline()).startswith(b"{"):
        if not line:
            raise RuntimeError("the server is gone")
    found: dict[str, Any] = json.loads(line)
    return found


async def _prediction() -> float:
    """CPU to write one prediction of a large run [µs]."""
    tags = outputs(_OUTPUTS)
    async with _sink(tags) as sink:
        await sink.publish(_outcome(tags, 1.0))
        outcome = _outcome(tags, 2.0)
        begin = time.process_time()
        await sink.publish(outcome)
        return 1e6 * (time.process_time() - begin) / _OUTPUTS


async def _late(seconds: float) -> float:
    """From giving a prediction to the sink to its value at a client, 99th percentile [ms]."""
    tags = outputs(_RUN)
    async with _sink(tags) as sink:
        port = str(urlparse(sink.endpoint).port)
        async with _process(*_PYTHON, "tests.benchmarks._arrivals", port, str(_RUN), str(seconds)) as client:
            end = asyncio.ensure_future(client.communicate())
            value = 0.0
            while not end.done():
                value += 1.0
                await sink.publish(_outcome(tags, value))
                await asyncio.wait({end}, timeout=0.7)
            output, _ = end.result()
            return 1e3 * float(json.loads(output.splitlines()[-1])["p99"])


async def _built() -> dict[str, float]:
    async with _process(*_PYTHON, "tests.benchmarks._building", str(_BUILT)) as process, asyncio.timeout(_LIMIT):
        assert process.stdout is not None
        found: dict[str, float] = json.loads(await process.stdout.readline())
        return found


def _outcome(tags: Sequence[OutputTag], value: float) -> Outcome:
    now, later = datetime.now(UTC), datetime(2100, 1, 1, tzinfo=UTC)
    predictions = tuple(
        Prediction(tag, 1, now, later, later, value, value - 1, value + 1, Status.GOOD, 1.0, 1) for tag in tags
    )
    return Outcome(Run(1, "rul", RunKind.SCORE, now), predictions, ())
