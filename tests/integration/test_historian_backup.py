"""``foretag backup``: a copy of one moment, made while samples arrive."""

import asyncio
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from plugin.domain import SampleBatch, Tag
from plugin.errors import StoreError
from plugin.historian.config import HistorianConfig
from plugin.historian.sqlite import backup
from plugin.historian.sqlite.backup import back_up
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery

CONFIG = HistorianConfig()
EACH = 1000


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def store_in(folder: Path, name: str = "historian.db") -> SqliteStore:
    return SqliteStore(f"sqlite+aiosqlite:///{folder / name}")


async def add(store: SqliteStore, number: int) -> None:
    time = np.arange(number * EACH, (number + 1) * EACH)
    await store.write([Delivery(SampleBatch.of(np.ones(EACH), time, time * 0.5, 0, time, time))])


async def filled(data: Path, batches: int = 50) -> None:
    async with store_in(data) as store:
        await store.register_tags([Tag("t", "plant", "nsu=u;s=t")])
        for number in range(batches):
            await add(store, number)


async def test_it_is_of_one_moment_and_whole_though_samples_arrive(data, tmp_path, monkeypatch):
    monkeypatch.setattr(backup, "_STEP", 50)
    await filled(data)
    loop, told = asyncio.get_running_loop(), []
    async with store_in(data) as store:

        def progress(done: int, total: int) -> None:
            told.append((done, total))
            asyncio.run_coroutine_threadsafe(add(store, 50 + len(told)), loop).result()

        made = await asyncio.to_thread(back_up, CONFIG, data, tmp_path / "copy.db", progress)
        assert (await store.counts())["samples"] == EACH * (50 + len(told))
    assert len(told) > 5
    assert told[-1][0] == told[-1][1] == made.size
    assert sorted(told) == told
    assert {file.name for file in tmp_path.iterdir()} == {"data", "copy.db"}
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    async with store_in(tmp_path, "copy.db") as copy:
        assert (await copy.read_samples([1], 0, 2**60)).source_time.tolist() == list(range(50 * EACH))


async def test_a_folder_gets_a_file_with_the_time_in_its_name(data, tmp_path):
    await filled(data, 1)
    (tmp_path / "copies").mkdir()
    made = await asyncio.to_thread(back_up, CONFIG, data, tmp_path / "copies")
    assert [made.path] == list((tmp_path / "copies").glob("historian-2*Z.db"))


@pytest.mark.parametrize(
    ("before", "target", "said"),
    [
        ("copy.db", "copy.db", "is there already"),
        ("copy.db.part", "copy.db", "delete it"),
        ("other", "none/copy.db", "no folder"),
    ],
)
async def test_nothing_is_overwritten(data, tmp_path, before, target, said):
    await filled(data, 1)
    (tmp_path / before).write_text("mine")
    with pytest.raises(StoreError, match=said):
        back_up(CONFIG, data, tmp_path / target)
    assert (tmp_path / before).read_text() == "mine"
    assert {file.name for file in tmp_path.iterdir()} == {"data", before}


async def test_without_a_database_there_is_none(data, tmp_path):
    with pytest.raises(StoreError, match="foretag run"):
        back_up(CONFIG, data, tmp_path / "copy.db")


async def test_a_copy_that_is_not_sound_is_not_kept(data, tmp_path):
    await filled(data)
    with closing(sqlite3.connect(data / "historian.db")) as database:
        (root,) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'samples'").fetchone()
    content = bytearray((data / "historian.db").read_bytes())
    content[4096 * (root - 1) : 4096 * root] = b"\xff" * 4096
    (data / "historian.db").write_bytes(content)
    with pytest.raises(StoreError, match="not sound"):
        back_up(CONFIG, data, tmp_path / "copy.db")
    assert {file.name for file in tmp_path.iterdir()} == {"data"}


async def test_one_that_is_interrupted_leaves_nothing(data, tmp_path):
    await filled(data)

    def interrupt(_done: int, _all: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(CONFIG, data, tmp_path / "copy.db", interrupt)
    assert {file.name for file in tmp_path.iterdir()} == {"data"}


async def test_a_disk_that_is_too_small_is_told_before(data, tmp_path, monkeypatch):
    await filled(data, 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(StoreError, match="needs"):
        back_up(CONFIG, data, tmp_path / "copy.db")
    assert {file.name for file in tmp_path.iterdir()} == {"data"}


def test_postgresql_has_its_own_means_and_no_password_is_told(data, tmp_path):
    config = HistorianConfig(url="postgresql+asyncpg://writer@db.plant:5433/history", password_env="SECRET")
    with pytest.raises(StoreError) as told:
        back_up(config, data, tmp_path / "copy.dump")
    command = (
        f"pg_dump --format=custom --file={tmp_path}/copy.dump --host=db.plant --port=5433 --username=writer history"
    )
    assert command in str(told.value)
    assert "pg_restore" in str(told.value)
