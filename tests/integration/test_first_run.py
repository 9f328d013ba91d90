"""What a start begins with: the newest tick that has passed, where nobody has run it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from plugin.asking import beside
from plugin.config import Config, load
from plugin.diagnostics import Diagnostics
from plugin.domain import Run, RunKind, RunResult, SampleBatch, to_micros
from plugin.infer.registry import Registry
from plugin.infer.runs import Runs
from plugin.opening import open_compute, open_store
from plugin.protocols import Delivery, Health, HistoryProgress
from plugin.running import train_once
from plugin.schedule import last_tick
from plugin.scorers import Scorers
from plugin.service import Service

DAY, SECONDS = timedelta(days=1), 300
FILE = """
[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:1/"
security_policy = "None"

[publish]
enabled = false

[diagnostics]
listen = ""

[[assets]]
names = ["pump-1"]
node = "nsu=u;s={asset}.{feature}"
tags = { a = {}, b = {} }

[[models]]
name = "odd"
kind = "pca_anomaly"
assets = ["*"]
features = ["a", "b"]
window = "20s"
step = "1s"
schedule = { every = "1d", deadline = "60s" }
training = { learn = "normal", at_start = false }
"""


@pytest.fixture
async def config(tmp_path: Path) -> Config:
    """With samples until midnight, and a version in force."""
    path = tmp_path / "foretag.toml"
    path.write_text(FILE, encoding="utf-8")
    config = load(path)
    times = to_micros(midnight()) + np.arange(-SECONDS, 0, dtype=np.int64) * 1_000_000
    noise = np.random.default_rng(1)
    async with beside(config) as store:
        for tag in await store.register_tags(config.tags):
            values = noise.normal(10, 1, SECONDS)
            await store.write([Delivery(SampleBatch.of([tag.id] * SECONDS, times, values, 0, times, times))])
    await train_once(config, "odd", Console(quiet=True))
    return config


def midnight() -> datetime:
    return last_tick(datetime.now(UTC), DAY, timedelta(0))


async def scored(config: Config) -> list[Run]:
    async with beside(config) as store:
        return [run for run in await store.runs("odd") if run.kind is RunKind.SCORE]


async def test_a_start_does_not_wait_for_the_next_tick(config: Config) -> None:
    stop, service = asyncio.Event(), Service(config)
    task = asyncio.create_task(service.run(stop))
    try:
        async with asyncio.timeout(60):
            runs = await service.runs
            while "odd" not in runs.published:
                await runs.news.wait()
    finally:
        stop.set()
        await task
    (run,) = await scored(config)
    assert (run.scheduled, run.result) == (midnight(), RunResult.DONE)


@dataclass
class There:
    """A server that answers, and whose past is being read."""

    name: str = "plant"
    finished: bool = False
    connected: bool = True
    trouble: str = ""

    def deliveries(self) -> AsyncIterator[Delivery]:
        """Nobody asks."""
        raise NotImplementedError

    def history_progress(self) -> HistoryProgress:
        return HistoryProgress(self.name, 0, 1, 0, self.finished)

    def health(self) -> Health:
        return Health("running", self.connected, None, self.trouble)


async def test_it_waits_for_the_past_but_not_beyond_the_next_tick_nor_for_who_is_away(config: Config) -> None:
    diagnostics, source = Diagnostics(), There()
    async with open_store(config, diagnostics, alone=True) as store, open_compute(config, diagnostics) as compute:
        tags, registry = await store.register_tags(config.tags), Registry(store, config.model_folder)
        scorers = Scorers(config, tags, store, registry, compute, diagnostics, [source])
        runs, tick = Runs(store, [], diagnostics), midnight()

        await scorers.first_job(0, runs, tick)(tick, tick)
        await scorers.first_job(0, runs, None)(tick - DAY, tick - DAY)
        assert await scored(config) == [], "the one is done, of the other the next is due"

        waiting = asyncio.ensure_future(scorers.first_job(0, runs, tick - DAY)(tick, tick))
        await asyncio.sleep(0)
        assert not waiting.done()
        source.finished = True
        async with asyncio.timeout(60):
            await waiting
        assert len(await scored(config)) == 1

        source.finished = source.connected = False
        waiting = asyncio.ensure_future(scorers.first_job(0, runs, None)(tick, tick))
        await asyncio.sleep(0)
        assert not waiting.done(), "nobody knows yet whether it can be reached"
        assert len(await scored(config)) == 1
        source.trouble = "connection refused"
        async with asyncio.timeout(60):
            await waiting
        assert len(await scored(config)) == 2


async def test_what_was_run_is_known_after_a_kill(config: Config) -> None:
    tick = midnight()
    async with beside(config) as store:
        await store.write_run(Run(0, "odd", RunKind.SCORE, tick, started=tick))
        await store.write_run(Run(0, "odd", RunKind.SCORE, tick - DAY, result=RunResult.MISSED))
        await store.write_run(Run(0, "odd", RunKind.SHADOW, tick + DAY, started=tick))
        assert await Runs(store, [], Diagnostics()).end_unfinished(["odd", "other"]) == {"odd": tick}
