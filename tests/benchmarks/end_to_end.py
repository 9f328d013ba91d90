"""The demonstration's plant at 20, 200 and 2,000 tags a second: CPU by stage, and how long a value and a result travel.

Simulated plant, service and subscribed client are three processes on this machine. The service's process is new for
each load (a program compiled for one would flatter the start of the next), and measures itself by its own diagnostics.
CPU is that of the service alone, as a share of one core.
"""

import asyncio
import contextlib
import math
import multiprocessing
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import prometheus_client

from plugin.config import Config, load
from plugin.demo.job import Demo, write_config
from plugin.hmi.terminal import line
from plugin.service import Service
from tests.benchmarks.harness import Goal, Histogram, Row, Spread, quantile

STAGES = ("decode", "store", "window", "infer", "publish")
LOADS = {20: 1, 200: 8, 2000: 80}
"""Tags a second at least, and the engines that bring them (25 each, beside the 10 of the gas turbine)."""

_RUNS = 40
"""Completed runs that the plant's history holds at least, so that the same model can be trained at every load."""

_START_LIMIT = 240.0


@dataclass(slots=True)
class Seen:
    """What one load gave, a figure per window of measurement."""

    samples: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    to_row: list[float] = field(default_factory=list)
    to_client: list[float] = field(default_factory=list)
    lag: list[float] = field(default_factory=list)
    lag_at_start: float = math.nan
    lag_training: float = math.nan
    first_rul: float = math.nan


async def measure(quick: bool) -> Sequence[Row]:
    """All loads, one after the other, each with a process, a database and models of its own."""
    loads = [20, 200] if quick else list(LOADS)
    windows, seconds = (2, 10.0) if quick else (3, 30.0)
    loop, rows = asyncio.get_running_loop(), list[Row]()
    for tags in loads:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            rows += _rows(tags, await loop.run_in_executor(process, _measure, LOADS[tags], windows, seconds))
    return rows


def _measure(engines: int, windows: int, seconds: float) -> Seen:
    with tempfile.TemporaryDirectory(prefix="foretag-benchmark-") as folder:
        return asyncio.run(_load(Path(folder), engines, windows, seconds))


def _rows(tags: int, seen: Seen) -> list[Row]:
    def row(figure: str, values: Sequence[float], unit: str, limit: float | None = None) -> Row:
        goal = None if limit is None else Goal(limit)
        return Row(f"{tags} tags/s: {figure}", Spread.of(values), unit, goal=goal)

    rest = [all_ - sum(parts) for all_, *parts in zip(seen.cpu, *seen.stages.values(), strict=True)]
    return [
        row("samples stored", seen.samples, "1/s"),
        row("CPU, all", seen.cpu, "% core"),
        *(row(f"CPU, {stage}", seen.stages[stage], "% core") for stage in STAGES),
        row("CPU, none of these", rest, "% core"),
        row("arrival to row, p99", seen.to_row, "ms"),
        row("scoring tick to client, p99", seen.to_client, "ms"),
        row("event-loop lag while scoring, p99", seen.lag, "ms", 20.0),
        row("event-loop lag while training, p99", [seen.lag_training], "ms", 20.0),
        row("event-loop lag while starting, p99", [seen.lag_at_start], "ms"),
        row("start to first RUL on a node", [seen.first_rul], "s", 90.0),
    ]


async def _load(folder: Path, engines: int, windows: int, seconds: float) -> Seen:
    demo = Demo(folder, engines=engines, plant_port=_free_port(), publish_port=_free_port())
    async with _plant(demo) as endpoint:
        config = load(write_config(demo, endpoint))
        service, stop, seen = Service(config), asyncio.Event(), Seen()
        begin = time.perf_counter()
        running = asyncio.create_task(service.run(stop))
        try:
            await _reached(service, running, lambda: bool(service.overview.result().snapshot().trainings))
            started = _buckets(service.diagnostics.loop_lag)
            await _reached(service, running, lambda: _all_published(service))
            seen.lag_at_start = _p99_ms(started, {})
            seen.lag_training = _p99_ms(_buckets(service.diagnostics.loop_lag), started)
            published = (await service.runs).published
            seen.first_rul = published["rul"].timestamp() - (time.time() - (time.perf_counter() - begin))
            async with _listener(config, engines) as arrivals:
                for _ in range(windows):
                    await _window(service, arrivals, seconds, seen)
        finally:
            stop.set()
            await running
    return seen


def _all_published(service: Service) -> bool:
    return service.runs.done() and len(service.runs.result().published) == len(service.config.models)


async def _reached(service: Service, running: "asyncio.Task[None]", reached: Callable[[], bool]) -> None:
    """Until that holds; raises what ended the service before, or where it stood after too long."""
    deadline = time.monotonic() + _START_LIMIT
    while not (service.overview.done() and reached()):
        done, _ = await asyncio.wait([running], timeout=0.2)
        if done:
            await running
            raise RuntimeError("the service ended before it scored")
        if time.monotonic() > deadline:
            state = line((await service.overview).snapshot())
            raise RuntimeError(f"not all models have published within {_START_LIMIT:.0f} s: {state}")


async def _window(service: Service, arrivals: "asyncio.Queue[float]", seconds: float, seen: Seen) -> None:
    """One window of measurement; what the listener saw before it is thrown away."""
    diagnostics = service.diagnostics
    while not arrivals.empty():
        arrivals.get_nowait()

    def counters() -> "dict[str, float]":
        stages = {stage: diagnostics.value("stage_cpu_seconds_total", stage=stage) for stage in STAGES}
        return stages | {"samples": diagnostics.total("samples_stored_total"), "cpu": time.process_time()}

    arrival, lag = diagnostics.arrival_to_row, diagnostics.loop_lag
    before, waited, late, begin = counters(), _buckets(arrival), _buckets(lag), time.perf_counter()
    await asyncio.sleep(seconds)
    wall = time.perf_counter() - begin
    moved = {name: (value - before[name]) / wall for name, value in counters().items()}
    seen.samples.append(moved["samples"])
    seen.cpu.append(100 * moved["cpu"])
    for stage in STAGES:
        seen.stages[stage].append(100 * moved[stage])
    seen.to_row.append(_p99_ms(_buckets(arrival), waited))
    seen.to_client.append(float(np.quantile([arrivals.get_nowait() for _ in range(arrivals.qsize())], 0.99)) * 1e3)
    seen.lag.append(_p99_ms(_buckets(lag), late))


def _buckets(metric: prometheus_client.Histogram) -> Histogram:
    samples = [sample for family in metric.collect() for sample in family.samples if sample.name.endswith("_bucket")]
    return {float(sample.labels["le"]): sample.value for sample in samples}


def _p99_ms(now: Histogram, before: Histogram) -> float:
    return 1e3 * quantile({bound: count - before.get(bound, 0.0) for bound, count in now.items()}, 0.99)


# --- the other processes -----------------------------------------------------------------------------------------


@asynccontextmanager
async def _plant(demo: Demo) -> AsyncIterator[str]:
    runs = max(2, math.ceil(_RUNS / demo.engines))
    arguments = {"--port": demo.plant_port, "--engines": demo.engines, "--history-runs": runs}
    async with _process("opcua_sim", *(str(part) for item in arguments.items() for part in item)) as output:
        async for text in output:
            if text.startswith(b"opcua_sim ready "):
                yield text.split()[2].decode()
                return
        raise RuntimeError("the simulated plant did not start")


@asynccontextmanager
async def _listener(config: Config, engines: int) -> "AsyncIterator[asyncio.Queue[float]]":
    """Seconds from a scoring tick to the arrival of its RUL at a subscribed client, one by one."""
    width = max(2, len(str(engines)))
    nodes = [f"engine-{number:0{width}}.rul.rul" for number in range(1, engines + 1)]
    offset = next(m.schedule.offset for m in config.models if m.name == "rul").total_seconds()
    arrivals: asyncio.Queue[float] = asyncio.Queue()

    async def read(output: asyncio.StreamReader) -> None:
        async for arrival in output:
            source, received = map(int, arrival.split())
            arrivals.put_nowait((received - source) / 1e6 - offset)

    async with _process("tests.benchmarks._listener", config.publish.endpoint, *nodes) as output:
        reading = asyncio.create_task(read(output))
        for _ in nodes:  # what the nodes held when the subscription began is old, and no arrival
            async with asyncio.timeout(30):
                await arrivals.get()
        yield arrivals
    await reading


@asynccontextmanager
async def _process(module: str, *arguments: str) -> AsyncIterator[asyncio.StreamReader]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
