"""Databases that went bad: refused with what to do, nothing lost, and the next start goes on."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from plugin.config import load
from plugin.diagnostics import Diagnostics
from plugin.domain import SampleBatch, Tag
from plugin.errors import StoreDamaged, StoreError
from plugin.historian.config import SpillConfig
from plugin.historian.ingest import Ingest
from plugin.historian.migrate import check_revision, migrate
from plugin.historian.spilling.spill import Spill
from plugin.historian.sqlite.integrity import check
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery, Health, HistoryProgress
from plugin.service import Service

EVER = (-(2**60), 2**60)
TAGS = [Tag("T1", "plant", "i=1")]
ROOT = Path(__file__).parents[2]
PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "historian.db"


def url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def samples(count: int, first: int = 0) -> SampleBatch:
    time = np.arange(first, first + count)
    return SampleBatch.of(np.ones(count), time, time / 2, 0, time, time)


async def filled(path: Path, count: int = 50_000) -> None:
    async with SqliteStore(url(path)) as store:
        await store.register_tags(TAGS)
        await store.write([Delivery(samples(count))])


def pages_of(path: Path, table: str) -> list[int]:
    """Leaf pages of a table that have no text in them, so that no damage to them goes unseen."""
    with closing(sqlite3.connect(path)) as database:
        root = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        count = database.execute("PRAGMA page_count").fetchone()[0]
    content = path.read_bytes()
    kinds = {number: content[(number - 1) * PAGE] for number in range(2, count + 1)}
    return [root, *(number for number, kind in kinds.items() if kind in {2, 10} and number > root)]


def last_page_of(path: Path, table: str) -> int:
    """The leaf that the next samples go into: interior pages name their right-most child at offset 8."""
    with closing(sqlite3.connect(path)) as database:
        page: int = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    content = path.read_bytes()
    while content[start := (page - 1) * PAGE] in {2, 5}:
        page = int.from_bytes(content[start + 8 : start + 12], "big")
    return page


def damage(path: Path, pages: list[int]) -> None:
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(b"\xa5" * PAGE)


def config_of(folder: Path, path: Path) -> Path:
    (folder / "tags.csv").write_text("name,node\nT1,i=1\n")
    (folder / "foretag.toml").write_text(
        f'tags = ["tags.csv"]\n[[sources]]\nname = "plant"\nendpoint = "opc.tcp://127.0.0.1:1/"\n'
        f'security_policy = "None"\n[foretag]\ndata = "{path.parent}"\n[publish]\nenabled = false\n'
        '[diagnostics]\nlisten = ""\n'
    )
    return folder / "foretag.toml"


# --- at the start ---


async def test_a_sound_file_is_found_sound_also_beside_who_writes_it(path):
    await filled(path)
    check(path)
    async with SqliteStore(url(path)) as store:
        await store.write([Delivery(samples(10, 10**6))])
        check(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            check(path)
            other.execute("ROLLBACK")


@pytest.mark.parametrize("share", [0.3, 0.999])
async def test_a_file_that_lost_its_end_is_refused(path, share):
    await filled(path)
    size = path.stat().st_size
    os.truncate(path, int(size * share) // PAGE * PAGE)
    with pytest.raises(StoreDamaged, match=r"is damaged \(.*move it away.*backup"):
        check(path)


async def test_a_file_that_lost_all_but_its_log_is_refused(path):
    await filled(path)
    path.with_name("historian.db-wal").write_bytes(b"\0" * 100)
    os.truncate(path, 0)
    with pytest.raises(StoreDamaged, match=r"it is empty, and historian\.db-wal is not"):
        check(path)


async def test_damage_within_is_found_and_the_small_tables_are_looked_at_first(path):
    await filled(path)
    sound = path.read_bytes()
    content = bytearray(sound)
    content[(pages_of(path, "samples")[-2] - 1) * PAGE + 4] -= 10  # some of the page's rows
    path.write_bytes(content)
    with pytest.raises(StoreDamaged, match=r"\(samples: "):
        check(path)
    check(path, seconds=0.0)  # no time for the large one
    path.write_bytes(sound)
    with closing(sqlite3.connect(path)) as database:
        root = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'checkpoints'").fetchone()[0]
    damage(path, [root])
    with pytest.raises(StoreDamaged):
        check(path)


async def test_the_service_says_what_to_do_and_touches_nothing(path, tmp_path):
    await filled(path)
    damage(path, pages_of(path, "samples")[-3:])
    before = path.read_bytes()
    config = load(config_of(tmp_path, path))
    with pytest.raises(StoreDamaged, match="put a backup"):
        await Service(config, Diagnostics()).run(asyncio.Event())
    assert path.read_bytes() == before


def test_a_file_of_something_else_is_refused(path):
    path.parent.mkdir()
    path.write_bytes(b"%PDF-1.7 " * 1000)
    with pytest.raises(StoreError, match="is no SQLite database: name another file, or move this one away"):
        check(path)
    assert path.read_bytes().startswith(b"%PDF")


# --- while it runs ---


class Plant:
    name = "plant"

    def __init__(self) -> None:
        self.confirmed = 0

    async def deliveries(self):
        for number in range(20):
            yield Delivery(samples(100, 10**9 + number * 100), confirm=self._confirm)
        await asyncio.Event().wait()

    def _confirm(self) -> None:
        self.confirmed += 1

    def history_progress(self) -> HistoryProgress:
        return HistoryProgress("plant", 0, 0, 0, True)

    def health(self) -> Health:
        return Health("running", connected=True, away_since=None)


async def ingest_until(path: Path, folder: Path, diagnostics: Diagnostics, done) -> Plant:
    plant, spill = Plant(), Spill(folder, SpillConfig(after=timedelta(milliseconds=20)))
    async with SqliteStore(url(path), diagnostics) as store:
        tags = await store.register_tags(TAGS)
        await spill.open(int((await store.checkpoints("/spill")).get("/spill", "0")))
        spill.know(tags)
        task = asyncio.create_task(Ingest([plant], store, diagnostics, spill=spill).run())
        try:
            async with asyncio.timeout(30):
                while not done(plant, spill):
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            spill.close()
    return plant


async def test_what_arrives_while_the_file_is_damaged_waits_in_the_spill(path, tmp_path, caplog):
    """The damage is where the next samples go: the table of progress is sound, and a gap could be written."""
    await filled(path)
    sound = path.read_bytes()
    damage(path, [last_page_of(path, "samples")])
    diagnostics = Diagnostics()
    await ingest_until(path, tmp_path / "spill", diagnostics, lambda plant, _: plant.confirmed == 20)
    assert diagnostics.total("samples_dropped_total") == 0
    assert diagnostics.total("samples_spilled_total") == 2000
    (told,) = [record for record in caplog.records if "unavailable" in record.getMessage()]
    assert told.levelname == "ERROR"
    assert "is damaged" in told.getMessage()

    path.write_bytes(sound)  # what the backup had
    for beside in ("-wal", "-shm"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
    await ingest_until(path, tmp_path / "spill", diagnostics, lambda _, spill: spill.empty)
    async with SqliteStore(url(path)) as store:
        assert len(await store.read_samples([1], *EVER)) == 52_000
        assert await store.gaps() == ()


# --- migrations that do not end ---

PAST = "0003"
KILL = """
import os, resource, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from plugin.historian.migrate import migrate
left = [int(sys.argv[2])]
@event.listens_for(Engine, "after_cursor_execute")
def count(*_):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
migrate(sys.argv[1])
"""
FULL = """
import resource, signal, sys
from plugin.errors import StoreUnavailable
from plugin.historian.migrate import migrate
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    migrate(sys.argv[1])
except StoreUnavailable as error:
    sys.exit(f"unavailable: {error}")
"""


def of_before(path: Path) -> None:
    migrate(url(path), PAST)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "INSERT INTO tags (name, source, node, feature, unit, deadband) VALUES ('T1', 'plant', 'i=1', '', '', 0)"
        )
        database.executemany("INSERT INTO samples VALUES (?, 1, 0, 1.5, 0, 1, 1)", [(n,) for n in range(2000)])


def run_python(program: str, *arguments: object, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)


async def is_whole(path: Path) -> None:
    """As of before, and what a migration makes of it."""
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [(PAST,)]
        assert database.execute("SELECT count(*), min(value) FROM samples").fetchone() == (2000, 1.5)
    migrate(url(path))
    check_revision(url(path))
    async with SqliteStore(url(path)) as store:
        assert len(await store.read_samples([1], *EVER)) == 2000
        assert (await store.counts())["samples"] == 2000


@pytest.mark.parametrize("statements", [5, 40])
async def test_a_migration_that_is_killed_leaves_the_database_as_it_was(path, statements):
    of_before(path)
    done = run_python(KILL, url(path), statements)
    assert done.returncode == -signal.SIGKILL, done.stderr
    await is_whole(path)


async def test_a_first_migration_that_is_killed_is_made_by_the_next_start(path):
    done = run_python(KILL, url(path), 30)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert path.exists()
    async with SqliteStore(url(path)) as store:
        assert await store.register_tags(TAGS)


async def test_a_migration_without_room_leaves_the_database_as_it_was(path):
    of_before(path)
    done = run_python(FULL, url(path), path.stat().st_size + 5 * PAGE)
    assert done.returncode == 1
    assert done.stderr.startswith("unavailable: "), done.stderr
    await is_whole(path)


# --- a file that can't be written ---

READ_ONLY = """
import asyncio, sys
from plugin.domain import SampleBatch, Tag
from plugin.errors import StoreError, StoreUnavailable
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery
async def main():
    try:
        async with SqliteStore(sys.argv[1]) as store:
            await store.write([Delivery(SampleBatch.of([1], 10**7, 1.0, 0, 1, 1))])
    except StoreUnavailable as error:
        sys.exit(f"unavailable: {error}")
asyncio.run(main())
"""


async def test_a_file_that_is_read_only_is_waited_for(path):
    """Root may write everything, unless it has no capabilities."""
    await filled(path, 100)
    path.chmod(0o444)
    path.parent.chmod(0o555)
    mortal = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    done = run_python(READ_ONLY, url(path), before=mortal)
    path.parent.chmod(0o700)
    assert done.returncode == 1
    assert done.stderr.startswith("unavailable: "), done.stderr
    path.chmod(0o600)
    async with SqliteStore(url(path)) as store:
        assert len(await store.read_samples([1], *EVER)) == 100
