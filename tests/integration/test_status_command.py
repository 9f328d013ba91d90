"""``foretag status`` beside a running service, after it, and beside somebody else's."""

import asyncio
import io
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from plugin.__main__ import app
from plugin.asking import show_status
from plugin.config import Config, load
from plugin.diagnostics import Diagnostics
from plugin.domain import Gap, GapCause, ModelState, ModelVersion, Run, RunKind, RunResult, SampleBatch
from plugin.errors import StoreError
from plugin.exposition import DiagnosticsConfig, serving
from plugin.historian.memory import MemoryStore
from plugin.protocols import Delivery
from plugin.report.status import Verdict, status_view
from plugin.report.told import Told, ask, parse
from plugin.service import Service
from tests.acceptance.life import free_port
from tests.integration.acquire_plant import URI, Plant, Wire, tags

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
watchdog = {{ silent = "1s" }}
[publish]
enabled = false
[diagnostics]
listen = "{listen}"
"""


def configured(folder: Path, plant: int, listen: str, name: str = "foretag") -> Config:
    (folder / "tags.csv").write_text(f"name,node\nt0,nsu={URI};s=t0\nt1,nsu={URI};s=t1\n")
    path = folder / f"{name}.toml"
    path.write_text(FILE.format(plant=plant, listen=listen))
    return load(path)


async def said(config: Config) -> tuple[Verdict, str]:
    console = Console(file=io.StringIO(), width=160)
    verdict = await show_status(config, console)
    assert isinstance(console.file, io.StringIO)
    return verdict, console.file.getvalue()


async def says(config: Config, text: str) -> tuple[Verdict, str]:
    async with asyncio.timeout(30):
        while True:
            verdict, shown = await said(config)
            if text in shown:
                return verdict, shown
            await asyncio.sleep(0.2)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Service]:
    stop, service = asyncio.Event(), Service(config)
    task = asyncio.create_task(service.run(stop))
    try:
        yield service
    finally:
        stop.set()
        await task


async def test_the_service_is_asked_and_what_is_not_well_is_said(tmp_path):
    plant = Plant(2)
    await plant.start()
    config = configured(tmp_path, 1, "")
    verdict, shown = await said(config)
    assert (verdict, "is empty" in shown) == (Verdict.UNKNOWN, True)
    assert "There is no database" in shown
    assert not (tmp_path / "data").exists(), "a question makes none"
    listen = f"127.0.0.1:{free_port()}"
    async with Wire(plant.port) as wire:
        config = configured(tmp_path, wire.port, listen)
        verdict, shown = await said(config)
        assert (verdict, f"nobody answers at {listen}" in shown) == (Verdict.NOT_RUNNING, True)
        async with running(config):
            verdict, shown = await says(config, "plant: 2 tags silent: t0, t1")
            assert verdict is Verdict.UNWELL
            assert "2/2" in shown
            assert f"SQLite {sqlite3.sqlite_version}" in shown
            writing = asyncio.create_task(_write(plant))
            verdict, shown = await says(config, "all is well")
            assert verdict is Verdict.WELL
            wire.cut()
            verdict, shown = await says(config, "! plant is away: ")
            assert verdict is Verdict.UNWELL
            writing.cancel()
            (tmp_path / "other").mkdir()
            verdict, shown = await said(configured(tmp_path / "other", 1, listen))
            assert (verdict, str(tmp_path / "data") in shown.replace("\n", "")) == (Verdict.NOT_RUNNING, True)
    assert (await said(config))[0] is Verdict.NOT_RUNNING
    result = await asyncio.to_thread(CliRunner().invoke, app, ["status", "--config", str(config.path)])
    assert result.exit_code == 3, "as service managers know it"
    await plant.stop()


async def _write(plant: Plant) -> None:
    for number in range(1, 10_000):
        await plant.write(number)
        await asyncio.sleep(0.2)


TOLD = """
foretag_build_info{version="0.1.0",data="/x"} 1
foretag_source_info{source="plant",state="degraded",trouble="",silent="t0 and 3 more",late="",flat=""} 1
foretag_source_away{source="plant"} 0
foretag_tags{source="plant"} 2
foretag_tags_monitored{source="plant"} 1
foretag_items_failed{source="plant"} 1
foretag_tags_silent{source="plant"} 4
foretag_source_clock_ahead_seconds{source="plant"} -7200
foretag_queue_depth{source="plant"} 3
foretag_bridge_seconds{source="plant"} 300
foretag_samples_stored_total 1234
foretag_samples_dropped_total{source="plant",cause="a"} 1
foretag_samples_dropped_total{source="plant",cause="b"} 2
foretag_spill_samples 500
foretag_spill_bytes 1048576
"""


async def text_of(
    told: Told | None, *models: str, store: MemoryStore | None = None, absence: str = ""
) -> tuple[str, bool]:
    console = Console(file=io.StringIO(), width=160)
    view, well = await status_view(
        store or MemoryStore(), tags(2), dict.fromkeys(models, timedelta(hours=1)), told, absence
    )
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue(), well


async def test_each_thing_that_is_wrong_is_a_line():
    store, now = MemoryStore(), datetime.now(UTC)
    told = f"{TOLD}process_start_time_seconds {now.timestamp() - 7200}\n"
    await store.add_version(ModelVersion("rul", 1, "lstm", ModelState.CHAMPION, now, {}, {}, {}, "a", "b"))
    await store.write_run(Run(0, "rul", RunKind.SCORE, now, result=RunResult.FAILED, error="no disk\x1b[2J"))
    await store.write([Delivery(SampleBatch.empty(), (Gap("1", "plant", None, now, now, GapCause.SEQUENCE, now),))])
    text, well = await text_of(parse(told), "rul", "nox", store=store)
    assert not well
    for part in (
        "1,234 samples stored", "3 dropped", "500 samples in the spill (1.0 MiB)", "degraded", "1/2", "2.0 h behind",
        "5.0 min", "! plant refuses 1 tag: foretag check lists them", "! plant: 4 tags silent: t0 and 3 more",
        "! model nox is not trained yet", "! model rul has given no result for 2.0 h",
        "! the last run of rul failed: no disk",
        "! the database does not keep up or is away: 500 samples wait in the spill",
    ):  # fmt: skip
        assert part in text
    assert "\x1b" not in text
    assert "all is well" not in text


async def test_a_historian_that_waits_is_said():
    text, well = await text_of(parse('foretag_historian{state="waiting"} 1\nforetag_historian{state="writing"} 0\n'))
    assert not well
    assert "! samples do not reach the database, nor the spill" in text


@pytest.mark.parametrize(
    ("seconds", "said", "fine"),
    [
        ("NaN", "when the disk is full is not known yet", True),
        ("+Inf", "the disk is not getting full", True),
        ("3.456e+06", "full in 40 d as it grows now", True),
        ("172000", "full in 48 h as it grows now", False),
    ],
)
async def test_when_the_disk_is_full(seconds: str, said: str, fine: bool):
    room = f"foretag_database_bytes 5e9\nforetag_disk_free_bytes 2e9\nforetag_disk_full_seconds {seconds}\n"
    text, well = await text_of(parse(room))
    assert f"1.9 GiB free, {said}" in text
    assert well is fine
    assert ("! the disk of the database" in text) is not fine


async def test_without_a_service_the_database_speaks_alone():
    text, well = await text_of(None, absence="foretag is not running: nobody answers")
    assert text.startswith("foretag is not running: nobody answers")
    assert "Sources, now" not in text
    assert well, "who knows"


async def test_a_service_whose_database_can_not_be_asked_speaks_alone(tmp_path):
    config = configured(tmp_path, 1, f"127.0.0.1:{free_port()}")
    config.data.mkdir()
    (config.data / "historian.db").write_text("nothing that SQLite knows, and long enough to be looked at" * 20)
    diagnostics = Diagnostics()
    diagnostics.build.info({"version": "1", "data": str(config.data)})
    diagnostics.historian.labels("waiting").set(1)
    async with serving(config.diagnostics, diagnostics):
        verdict, shown = await said(config)
    assert verdict is Verdict.UNWELL
    assert "Sources, now" in shown
    assert "! the database can't be asked: " in shown
    assert "! samples do not reach the database, nor the spill" in shown
    with pytest.raises(StoreError):
        await said(config)


async def test_who_only_looks_makes_no_tags():
    store = MemoryStore()
    await text_of(None, store=store)
    assert await store.tags() == ()


async def test_who_is_no_prometheus_endpoint_is_nobody():
    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n<html>{{{ =")
        writer.close()

    server = await asyncio.start_server(chatter, "127.0.0.1", 0)
    async with server:
        assert await ask(server.sockets[0].getsockname()) is None


async def test_what_is_served_is_what_is_read():
    diagnostics = Diagnostics()
    diagnostics.source_info.labels("plant").info({"state": "running", "trouble": 'a "quoted"\nline \\'})
    port = free_port()
    async with serving(DiagnosticsConfig(listen=f"127.0.0.1:{port}"), diagnostics):
        told = await ask(("127.0.0.1", port))
    assert told
    assert told.facts("foretag_source_info", source="plant")["trouble"] == 'a "quoted"\nline \\'
    assert told.value("foretag_gaps_open") == 0
    assert told.value("foretag_tags", source="plant") is None
    assert told.count("foretag_samples_stored_total") == 0
