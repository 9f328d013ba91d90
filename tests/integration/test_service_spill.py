"""The service and a database that is away: at its start, while it runs, and when it is stopped meanwhile."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

from plugin.config import Config, load
from plugin.historian.ingest import Ingest
from plugin.service import Service
from tests.integration.acquire_plant import EPOCH, URI, Plant, until

FILE = """
tags = ["tags.csv"]
[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:{plant}/"
security_policy = "None"
publishing_interval = "50ms"
sampling_interval = "50ms"
keep_alive = "300ms"
timeout = "1s"
reconnect_max = "300ms"
history = {{ enabled = false }}
[historian]
busy_timeout = "10ms"
spill = {{ after = "100ms", reserve = "0" }}
[publish]
enabled = false
[diagnostics]
listen = ""
"""


@pytest.fixture
async def plant() -> AsyncIterator[Plant]:
    plant = Plant(2)
    await plant.start()
    yield plant
    await plant.stop()


def configured(folder: Path, port: int) -> Config:
    (folder / "tags.csv").write_text(f"name,node\nt0,nsu={URI};s=t0\nt1,nsu={URI};s=t1\n")
    (folder / "foretag.toml").write_text(FILE.format(plant=port))
    return load(folder / "foretag.toml")


@pytest.fixture
def config(plant: Plant, tmp_path: Path) -> Config:
    return configured(tmp_path, plant.port)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Service]:
    stop, service = asyncio.Event(), Service(config)
    task = asyncio.create_task(service.run(stop))
    try:
        yield service
    finally:
        stop.set()
        await task


@contextmanager
def locked(config: Config, how: str = "EXCLUSIVE") -> Iterator[None]:
    with closing(sqlite3.connect(config.data / "historian.db", isolation_level=None)) as other:
        other.execute(f"BEGIN {how}")
        yield
        other.execute("ROLLBACK")


def stored(config: Config) -> list[tuple[float, ...]]:
    """The numbers of each tag by source time; the plant's initial 0 is none."""
    begin = int(EPOCH.timestamp() * 1e6)
    query = "SELECT value FROM samples WHERE tag_id = ? AND source_time > ? ORDER BY source_time"
    with closing(sqlite3.connect(config.data / "historian.db")) as database:
        return [tuple(value for (value,) in database.execute(query, (tag, begin))) for tag in (1, 2)]


def all_of(plant: Plant) -> list[tuple[float, ...]]:
    return [tuple(map(float, plant.written))] * 2


def has(service: Service, metric: str, at_least: float = 1, **labels: str) -> Callable[[], bool]:
    return lambda: service.diagnostics.value(metric, **labels) >= at_least


async def write(plant: Plant, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await plant.write(number)
        await asyncio.sleep(0.05)


async def test_away_while_it_runs_and_over_a_restart(plant: Plant, config: Config) -> None:
    """Started again while the database takes nothing, the service goes on behind what is in the spill."""
    async with running(config) as service:
        await until(has(service, "source_connected", source="plant"))
        await write(plant, 1, 5)
        await until(lambda: stored(config) == all_of(plant))
        with locked(config):
            await write(plant, 6, 15)
            await until(has(service, "samples_spilled_total", 20))
        await until(lambda: stored(config) == all_of(plant))
        await until(lambda: service.diagnostics.value("historian", state="writing") == 1)
    with locked(config):
        for first in (16, 31):
            async with running(config) as service:
                await until(has(service, "source_connected", source="plant"))
                await write(plant, first, first + 14)
                await until(has(service, "samples_spilled_total", 30))
            assert list((config.data / "spill").iterdir())
    assert len(stored(config)[0]) == 15
    async with running(config) as service:
        await until(lambda: stored(config) == all_of(plant))
        await until(has(service, "historian", state="writing"))
    assert service.diagnostics.total("samples_dropped_total") == 0


async def test_a_database_that_can_not_be_read_is_waited_for(
    plant: Plant, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(config) as service:
        await until(has(service, "source_connected", source="plant"))
    path = config.data / "historian.db"
    path.rename(path.with_suffix(".away"))
    path.mkdir()
    async with running(config) as service:
        await until(lambda: "waiting for the database" in caplog.text)
        path.rmdir()
        path.with_suffix(".away").rename(path)
        await until(has(service, "source_connected", source="plant"))
        await write(plant, 1, 3)
        await until(lambda: stored(config) == all_of(plant))


async def test_stopped_while_it_waits_it_stops(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = configured(tmp_path, port=1)
    caplog.set_level(logging.INFO)
    (config.data / "historian.db").mkdir(parents=True)
    async with running(config):
        await until(lambda: "waiting for the database" in caplog.text)
    assert "stopped before the database was available" in caplog.messages


class Unlucky(Ingest):
    """Breaks down in the very moment that it is told to end, as a TaskGroup does whose task has an error then."""

    async def run(self) -> None:
        try:
            await super().run()
        except asyncio.CancelledError:
            raise ExceptionGroup("unhandled errors in a TaskGroup", [OSError("the disk is gone")]) from None


async def test_acquisition_that_breaks_down_while_it_is_stopped_is_not_started_again(
    plant: Plant, config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("plugin.service.Ingest", Unlucky)
    stop, service = asyncio.Event(), Service(config)
    task = asyncio.create_task(service.run(stop))
    await until(has(service, "source_connected", source="plant"))
    stop.set()
    ended, _ = await asyncio.wait({task}, timeout=10)
    for _ in range(3):  # where it did not
        task.cancel()
        await asyncio.wait({task}, timeout=1)
    assert ended
    assert "acquisition failed while it was stopped" in caplog.messages
    assert service.diagnostics.value("task_failures_total", task="acquisition") == 1
