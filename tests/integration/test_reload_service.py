"""``foretag reload``: a running service takes up other tags, and a wrong file changes nothing; one to a data folder."""

import asyncio
import contextlib
import json
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asyncua import Client, ua
from sqlalchemy.engine import make_url
from typer.testing import CliRunner, Result

from plugin import lock
from plugin.__main__ import app
from plugin.asking import OUTCOME, beside, reload_running
from plugin.auditing import whoami
from plugin.config import load
from plugin.diagnostics import Diagnostics
from plugin.errors import AlreadyRunning, ConfigError, ServiceError
from plugin.opening import open_store
from plugin.publish.config import WriteBackConfig, WriteRule
from plugin.publish.server import OpcUaSink
from plugin.reloading import writing
from plugin.running import _reload_on
from plugin.service import Service
from plugin.tasks import running
from tests.integration.acquire_plant import EPOCH, URI, Plant, until

FILE = """
tags = ["tags.csv"]
[foretag]
device = "cpu"
[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:{port}/plant"
security_policy = "None"
publishing_interval = "50ms"
sampling_interval = "50ms"
history = {{ back = "all", settle = "0s" }}
{more}
[publish]
enabled = false
"""


def write(folder: Path, port: int, names: str, more: str = "", header: str = "name,node") -> Path:
    """A configuration whose tags are the plant's nodes of these names."""
    (folder / "foretag.toml").write_text(FILE.format(port=port, more=more))
    write_tags(folder, names, header)
    return folder / "foretag.toml"


def write_tags(folder: Path, names: str, header: str = "name,node") -> None:
    lines = [header, *(f"{name},nsu={URI};s={name}" for name in names.split())]
    (folder / "tags.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
async def plant() -> AsyncIterator[Plant]:
    plant = Plant(5, history=True)
    await plant.start()
    yield plant
    await plant.stop()


@asynccontextmanager
async def serving(file: Path) -> AsyncIterator[Service]:
    stop, service = asyncio.Event(), Service(load(file))
    task = asyncio.create_task(service.run(stop))
    try:
        both: set[asyncio.Future[Any]] = {task, service.reloading}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield service
    finally:
        stop.set()
        await asyncio.wait({task})


_VALUES = (
    "SELECT value FROM samples JOIN tags ON tags.id = tag_id WHERE name = ? AND value > 0 ORDER BY source_time, ordinal"
)


async def stored(file: Path, name: str) -> list[int]:
    def read() -> list[int]:
        with contextlib.closing(sqlite3.connect(file.parent / "data" / "historian.db")) as database:
            rows = database.execute(_VALUES, [name])
            return [int(value) for (value,) in rows]

    return await asyncio.to_thread(read)


async def until_stored(file: Path, name: str, number: int) -> None:
    async with asyncio.timeout(20):
        while number not in await stored(file, name):
            await asyncio.sleep(0.05)


async def test_a_reload_takes_up_the_tags_of_the_file(tmp_path: Path, plant: Plant) -> None:
    file = write(tmp_path, plant.port, "t0 t1 t2")
    async with serving(file) as service:
        await plant.write(1)
        await until_stored(file, "t2", 1)
        write_tags(tmp_path, "t0 t2 t3 nobody")
        feeding = asyncio.create_task(_feed(plant, range(2, 30)))
        reloaded = await service.reload()
        await feeding
        assert (reloaded.added, reloaded.removed, reloaded.changed) == (("t3", "nobody"), ("t1",), ())
        assert reloaded.refused == ("nobody",)
        assert not reloaded.restart
        for name in ("t0", "t2", "t3"):
            await until_stored(file, name, 29)
        assert (await service.reload()).lines() == ["Nothing in the file has changed."]
    assert await stored(file, "t0") == await stored(file, "t2") == list(range(1, 30))
    assert 29 not in await stored(file, "t1")
    assert await stored(file, "t3") == list(range(1, 30))  # its past was read


async def test_of_two_reloads_at_once_the_second_finds_what_the_first_did(tmp_path: Path, plant: Plant) -> None:
    file = write(tmp_path, plant.port, "t0")
    async with serving(file) as service:
        write_tags(tmp_path, "t0 t1")
        both = await asyncio.gather(service.reload(), service.reload())
        assert [done.added for done in both] == [("t1",), ()]
        entries = await service.reloading.result()._store.audit(action="reload")
        assert len(entries) == 1


async def _feed(plant: Plant, numbers: range) -> None:
    for number in numbers:
        await plant.write(number)
        await asyncio.sleep(0.02)


async def test_a_wrong_file_changes_nothing_and_says_all_that_is_wrong(tmp_path: Path, plant: Plant) -> None:
    file = write(tmp_path, plant.port, "t0 t1")
    async with serving(file) as service:
        (tmp_path / "tags.csv").write_text("name,node\nt0,ns=2;s=t0\nt1,t1\n")
        with pytest.raises(ConfigError) as caught:
            await service.reload()
        assert len(caught.value.faults) >= 2
        await plant.write(7)
        await until_stored(file, "t1", 7)
        assert [item.tag.name for item in (await service.reloading)._sources[0].items] == ["t0", "t1"]


async def test_what_needs_a_restart_is_named_and_the_tags_are_taken_up_all_the_same(
    tmp_path: Path, plant: Plant
) -> None:
    file = write(tmp_path, plant.port, "t0")
    async with serving(file) as service:
        write(tmp_path, plant.port, "t0 t1", more='keep_alive = "1s"\n[historian]\nqueue = 7')
        for added in (("t1",), ()):
            reloaded = await service.reload()
            assert (reloaded.added, reloaded.restart) == (added, ("historian", "sources"))


async def test_writing_into_the_plant_is_switched_off_and_on_by_a_reload(tmp_path: Path, plant: Plant) -> None:
    on = "[write_back]\nenabled = true"
    file = write(tmp_path, plant.port, "t0", more=on)
    async with serving(file) as service:
        for more, told in (
            (on.replace("true", "false"), "off"), (on + "\ndry_run = true", "dry run"), (on, "on"),
        ):  # fmt: skip
            write(tmp_path, plant.port, "t0", more=more)
            reloaded = await service.reload("anna", "command")
            assert reloaded.lines() == [f"writing into the plant: {told}"]
            assert not reloaded.restart
    async with open_store(load(file), Diagnostics(), alone=False) as store:
        rows = [(row.user, dict(row.after)) for row in await store.audit(action="write back")]
    assert rows[-1] == ("anna", {"enabled": False, "dry_run": False})
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("before", "asked", "after"),
    [
        ((True, False), (False, False), (False, False)),
        ((True, False), (True, True), (True, True)),
        ((True, True), (True, False), (True, True)),
        ((False, False), (True, False), (False, False)),
    ],
)
def test_other_rules_wait_for_the_next_start_and_allow_no_more_meanwhile(before: Any, asked: Any, after: Any) -> None:
    rule = WriteRule(source="plant", model="rul", output="rul", node="nsu=urn:plant;s=rul", low=0.0, high=1.0)
    now = WriteBackConfig(enabled=before[0], dry_run=before[1])
    found = writing(now, WriteBackConfig(enabled=asked[0], dry_run=asked[1], rules=(rule,)))
    assert (found.enabled, found.dry_run, found.rules) == (*after, ())


async def test_deadband_and_sampling_of_the_csv_reach_the_server(tmp_path: Path, plant: Plant) -> None:
    service: Any = plant.server.iserver.subscription_service
    create, asked = service.create_monitored_items, {}

    async def creating(params: Any, *more: Any) -> Any:
        for item in params.ItemsToCreate:
            asked[item.ItemToMonitor.NodeId.Identifier] = item.RequestedParameters
        return await create(params, *more)

    service.create_monitored_items = creating
    file = write(tmp_path, plant.port, "t0")
    lines = [f"{name},nsu={URI};s={name},{more}" for name, more in (("t0", "1.0,2s"), ("t1", ",100ms"), ("t2", ","))]
    (tmp_path / "tags.csv").write_text("\n".join(["name,node,deadband,sampling", *lines]) + "\n")
    file.write_text(file.read_text().replace('back = "all"', "enabled = false"))
    async with serving(file) as running:
        await until((await running.reloading)._sources[0].connected)
        for number, value in enumerate((10.0, 10.4, 13.0, 13.2, 10.0), start=1):
            for node in plant.nodes:
                await plant.put(node, value, EPOCH + timedelta(seconds=number))
        await plant.write(99)
        await until_stored(file, "t0", 99)
        await until_stored(file, "t1", 99)
    assert [asked[name].SamplingInterval for name in ("t0", "t1", "t2")] == [2000.0, 100.0, 50.0]
    assert await stored(file, "t0") == [10, 13, 10, 99]
    assert await stored(file, "t1") == [10, 10, 13, 13, 10, 99]
    deadband = asked["t0"].Filter
    assert (deadband.DeadbandType, deadband.DeadbandValue) == (ua.DeadbandType.Absolute, 1.0)
    assert asked["t1"].Filter.DeadbandType == ua.DeadbandType.None_


async def test_a_second_service_on_the_same_folder_or_database_is_refused(tmp_path: Path, plant: Plant) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    shared = f'[historian]\nurl = "sqlite+aiosqlite:///{tmp_path}/shared.db"'
    file, second = write(one, plant.port, "t0", shared), write(other, plant.port, "t0", shared)
    async with serving(file):
        found = lock.holder(one / "data" / lock.NAME)
        assert found is not None
        assert found.config == file
        for refused in (file, second):
            with pytest.raises(AlreadyRunning, match="process id"):
                await Service(load(refused)).run(asyncio.Event())
        assert make_url(load(file).historian.url).database == f"{tmp_path}/shared.db"
        async with open_store(load(file), Diagnostics(), alone=False):
            pass  # a look at the database beside the service is allowed
    assert lock.holder(one / "data" / lock.NAME) is None
    async with serving(second):
        pass


async def foretag(*words: str) -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, words))


async def test_no_signal_goes_to_a_process_that_has_the_number_by_chance(tmp_path: Path) -> None:
    """As where the service runs in a container, with this data folder in it, and counts processes anew."""
    config = load(write(tmp_path, 1, "t0"))
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        with lock.hold(config.lock_files, config.path):
            path = config.data / lock.NAME
            path.write_text(json.dumps({"pid": stranger.pid, "config": str(config.path.resolve())}))
            with pytest.raises(ServiceError, match="ask there"):
                await reload_running(config, wait=1)
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_the_command_and_the_signal(tmp_path: Path, plant: Plant) -> None:
    file = write(tmp_path, plant.port, "t0")
    named = ("--config", str(file))
    nobody = await foretag("reload", *named)
    assert nobody.exit_code == 2
    assert "no foretag runs" in nobody.stderr
    process: Any = await asyncio.create_subprocess_exec(sys.executable, "-m", "plugin", "run", "--no-table", *named)
    try:
        await until(lambda: lock.holder(tmp_path / "data" / lock.NAME) is not None, 60)
        write_tags(tmp_path, "t0 t1")
        done = await foretag("reload", *named)
        assert done.exit_code == 0, done.stderr
        assert "added: 1 (t1)" in done.stdout
        write_tags(tmp_path, "t0 t0")
        wrong = await foretag("reload", *named)
        assert wrong.exit_code == 1
        assert "twice" in wrong.stderr
        write_tags(tmp_path, "t0 t1")
        assert "Nothing in the file" in (await foretag("reload", *named)).stdout
        assert process.returncode is None
        process.kill()
        await process.wait()
        assert lock.holder(tmp_path / "data" / lock.NAME) is None  # what a killed one leaves holds nobody up
        async with beside(load(file)) as store:
            (entry,) = await store.audit(action="reload")
        assert (entry.user, entry.origin, entry.after["added"]) == (whoami(), "command", ["t1"])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


MODEL = """
[[models]]
name = "odd"
kind = "pca_anomaly"
assets = ["pump-*"]
features = ["flow", "power"]
window = "4s"
step = "200ms"
hold = "5s"
recent = "2s"
valid = "5s"
schedule = { every = "500ms", offset = "100ms", deadline = "2s" }
training = { learn = "normal", retry = "1s" }
"""
_PUMPS = "name,node,asset,feature"


def write_pumps(folder: Path, *numbers: int) -> None:
    lines = [_PUMPS]
    for number in numbers:
        for place, feature in enumerate(("flow", "power")):
            node = f"nsu={URI};s=t{2 * number + place}"
            lines.append(f"pump-{number}.{feature},{node},pump-{number},{feature}")
    (folder / "tags.csv").write_text("\n".join(lines) + "\n")


async def pumping(plant: Plant) -> None:
    """Each pump's power follows its flow, from ten minutes ago until for ever."""
    time = datetime.now(UTC) - timedelta(minutes=10)
    draw = np.random.default_rng(1)
    while True:
        flow = draw.normal(10.0, 1.0)
        for place, node in enumerate(plant.nodes):
            await plant.put(node, flow * (1 + place % 2) + draw.normal(0, 0.1), time)
        time += timedelta(milliseconds=200)
        await asyncio.sleep(max(0.0, (time - datetime.now(UTC)).total_seconds()))


async def test_a_new_asset_of_a_model_is_scored_and_served_without_a_restart(tmp_path: Path, plant: Plant) -> None:
    file = write(tmp_path, plant.port, "t0", MODEL)
    publish = 'endpoint = "opc.tcp://127.0.0.1:0/f"\nsecurity = ["None"]\nmirror = ["*.flow"]'
    file.write_text(file.read_text().replace("enabled = false", publish))
    write_pumps(tmp_path, 0)
    feeding = asyncio.create_task(pumping(plant))
    try:
        async with serving(file) as service:
            runs = await service.runs
            await until(lambda: "odd" in runs.published, 60)
            write_pumps(tmp_path, 0, 1)
            reloaded = await service.reload()
            assert reloaded.rescored == ("odd",)
            await until(lambda: scored(tmp_path) == {"pump-0", "pump-1"})
            sink = next(sink for sink in runs._sinks if isinstance(sink, OpcUaSink))
            async with Client(sink.endpoint) as client:
                index = await client.get_namespace_index("urn:foretag:predictions")
                models = "Foretag.Models.odd"
                for name in (
                    "pump-1.odd.score",
                    "Foretag.Tags.pump-0.flow",
                    f"{models}.Hash",
                    "pump-1.odd.score.ModelHash",
                ):
                    node = client.get_node(ua.NodeId(ua.String(name), ua.Int16(index)))
                    async with asyncio.timeout(20):
                        while (await node.read_data_value(raise_on_bad_status=False)).Value == ua.Variant():
                            await asyncio.sleep(0.1)
                state = client.get_node(ua.NodeId(ua.String(f"{models}.State"), ua.Int16(index)))
                assert await state.read_value() == "in force"
            lines = {asset.name for asset in (await service.overview).snapshot().assets}
            assert lines == {"pump-0", "pump-1"}
            assert service.diagnostics.runs_so_far("odd", "score", "failed") == 0
    finally:
        feeding.cancel()


def scored(folder: Path) -> set[str]:
    """Assets that have a number."""
    with contextlib.closing(sqlite3.connect(folder / "data" / "historian.db")) as database:
        wanted = (
            "SELECT DISTINCT asset FROM predictions JOIN output_tags ON output_tags.id = output_id WHERE value NOT NULL"
        )
        return {asset for (asset,) in database.execute(wanted)}


async def test_a_reload_whose_outcome_can_not_be_left_ends_nothing(tmp_path, caplog):
    file = write(tmp_path, 1, "T1")
    service = Service(load(file))
    (service.config.data / OUTCOME).mkdir(parents=True)
    hangup, stop = asyncio.Event(), asyncio.Event()
    async with running(_reload_on(hangup, service, stop)):
        for times in (1, 2):
            hangup.set()
            async with asyncio.timeout(20):
                while caplog.text.count("can't be left") < times:
                    await asyncio.sleep(0.01)
