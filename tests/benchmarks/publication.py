"""From a value written to the bytes that each client is sent: CPU of the server's process, beside other servers.

10,000 Doubles change once a second, in every server (:mod:`tests.benchmarks._publishing`) at the same pace: in ours as
the plant's tags do, in commits that the mirror shows, or one by one, as a prediction is written. 0, 1 and 5 clients
subscribe to all of them, and take them as foretag's acquisition does (:mod:`tests.benchmarks._subscribers`).
What is counted, once every client has had several values of each, is the server's CPU, system time and all threads
included, for all that it does in those seconds: writing, comparing, queueing, encoding, sending, and answering.
Channels are not encrypted: what encryption costs is the same for every server. A server that is too slow for the pace
is given the time that it needs.

A prediction is written to its nodes in this process, by the sink, with nobody listening. Its way to a client
(:mod:`tests.benchmarks._arrivals`) ends where acquisition has it as a column, and begins with the run's making.
"""

import asyncio
import contextlib
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlparse

from plugin.diagnostics import Diagnostics
from plugin.domain import Outcome, OutputTag, Prediction, Run, RunKind, Status
from plugin.publish.config import PublishConfig
from plugin.publish.server import OpcUaSink
from tests.benchmarks._arrivals import outputs
from tests.benchmarks._asked import Asked, asked
from tests.benchmarks.harness import Goal, Peer, Row, Spread

_PYTHON = sys.executable, "-m"
_OTHERS = "tests.benchmarks._publishing"
_NODE = Path(__file__).parents[1] / "acceptance" / "node_opcua"
_ALONE = "foretag-alone"
_OURS = "foretag", _ALONE
_TAGS = 10_000
_START = 180.0
"""A process is up after so long, also on a machine that is fought over [s]."""
_OUTPUTS = 2000
"""Predictions of a run that is written."""
_WRITES, _WARM = 30, 3
"""Such runs, and those of them that are not counted."""
_RUN = 1000
"""Those of a run whose way to a client is timed."""
_BUILT = 3100
"""Outputs that are built: some 50,000 nodes."""
_NODES = 50_000


@dataclass(frozen=True, slots=True)
class Look:
    """At a server, at one moment."""

    cpu: float
    written: int
    heard: int
    """Values that clients took."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a server over some seconds."""

    per_write: float
    """CPU per value written [µs], whoever is told of it."""
    heard: float
    """Values that a client took, as a share of those written; NaN where there is none."""


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
        costs[_ALONE, 1].append(await _cost(_ALONE, 1, seconds))
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
        ours, peers = spread("foretag", clients), [who for who, n in costs if n == clients and who not in _OURS]
        return [Row(figure, ours, "µs", peer=Peer(who, spread(who, clients)), goal=goal) for who in peers]

    further = [
        (many.per_write - few.per_write) / 4 for many, few in zip(costs["foretag", 5], costs["foretag", 1], strict=True)
    ]
    share = Spread.of(100 * _TAGS * 1e-6 * cost.per_write for cost in costs["foretag", 5])
    heard = Spread.of(100 * cost.heard for cost in costs["foretag", 5])
    return [
        *beside("write of a value, nobody listens: CPU", 0, None),
        *beside("value written and delivered to one client: CPU", 1, Goal(2)),
        Row("the same, each value written alone, as predictions are: CPU", spread(_ALONE, 1), "µs", goal=Goal(2)),
        Row("the same value to each further client: CPU", Spread.of(further), "µs", goal=Goal(0.7)),
        Row("value written and delivered to five clients: CPU", spread("foretag", 5), "µs"),
        Row("10,000 values a second to each of five clients: CPU", share, "% core", goal=Goal(5)),
        Row("… of which each client took", heard, "%"),
    ]


async def _cost(server: str, clients: int, seconds: float) -> Cost:
    async with _serving(server) as (port, serving), contextlib.AsyncExitStack() as stack:
        taking = await stack.enter_async_context(_taking(port, clients)) if clients else None
        first = await _look(serving, taking)
        last = first
        while last.written - first.written < _TAGS * seconds:
            await asyncio.sleep(max(1.0, seconds - (last.written - first.written) / _TAGS))
            last = await _look(serving, taking)
    spent, written = last.cpu - first.cpu, last.written - first.written
    heard = (last.heard - first.heard) / (clients * written) if clients else math.nan
    return Cost(1e6 * spent / written, heard)


async def _look(serving: Asked, taking: Asked | None) -> Look:
    found = await serving.ask()
    heard = (await taking.ask())["values"] if taking is not None else 0
    return Look(found["cpu"], found["written"], heard)


@contextlib.asynccontextmanager
async def _serving(server: str) -> AsyncIterator[tuple[int, Asked]]:
    command = ("node", str(_NODE / "serve.mjs")) if server == "node-opcua" else (*_PYTHON, _OTHERS, server)
    async with asked(*command, "--tags", str(_TAGS)) as process:
        yield (await process.told(_START))["port"], process


@contextlib.asynccontextmanager
async def _taking(port: int, clients: int) -> AsyncIterator[Asked]:
    """When all have subscribed and had their first values; a server needs half a second for each, or more."""
    numbers = str(port), str(clients), str(_TAGS)
    async with asked(*_PYTHON, "tests.benchmarks._subscribers", *numbers) as process:
        async with asyncio.timeout((1 + clients) * _START):
            while not (await process.ask())["ready"]:
                await asyncio.sleep(0.5)
        yield process


@contextlib.asynccontextmanager
async def _sink(tags: Sequence[OutputTag]) -> AsyncIterator[OpcUaSink]:
    config = PublishConfig(endpoint="opc.tcp://127.0.0.1:0", security=("None",))
    with tempfile.TemporaryDirectory(prefix="foretag-benchmark-") as folder:
        sink = OpcUaSink(config, Path(folder), Diagnostics())
        async with sink.open(tags):
            yield sink


async def _prediction() -> float:
    """CPU to write one prediction of a large run [µs]: the median of several runs."""
    tags = outputs(_OUTPUTS)
    costs: list[float] = []
    async with _sink(tags) as sink:
        for number in range(_WRITES):
            outcome = _outcome(tags, float(number))
            begin = time.process_time()
            await sink.publish(outcome)
            costs.append(1e6 * (time.process_time() - begin) / _OUTPUTS)
    return statistics.median(costs[_WARM:])


async def _late(seconds: float) -> float:
    """From giving a prediction to the sink to its value at a client, 99th percentile [ms]."""
    tags = outputs(_RUN)
    async with _sink(tags) as sink, asyncio.timeout(_START + 10 * seconds):
        port = str(urlparse(sink.endpoint).port)
        async with asked(*_PYTHON, "tests.benchmarks._arrivals", port, str(_RUN), str(seconds)) as client:
            end = asyncio.ensure_future(client.told(math.inf))
            value = 0.0
            while not end.done():
                value += 1.0
                await sink.publish(_outcome(tags, value))
                await asyncio.wait({end}, timeout=0.7)
            return 1e3 * float(end.result()["p99"])


async def _built() -> dict[str, float]:
    async with asked(*_PYTHON, "tests.benchmarks._building", str(_BUILT)) as process:
        return await process.told(2 * _START)


def _outcome(tags: Sequence[OutputTag], value: float) -> Outcome:
    now, later = datetime.now(UTC), datetime(2100, 1, 1, tzinfo=UTC)
    predictions = tuple(
        Prediction(tag, 1, now, later, later, value, value - 1, value + 1, Status.GOOD, 1.0, 1) for tag in tags
    )
    return Outcome(Run(1, "rul", RunKind.SCORE, now), predictions, ())
