"""The database away, slow or full: samples wait on disk, are confirmed there, and follow in order."""

import asyncio
import itertools
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugin.diagnostics import Diagnostics
from plugin.domain import Gap, GapCause, GapState, SampleBatch, Tag, to_micros
from plugin.errors import StoreError, StoreUnavailable
from plugin.fields import ByteCount
from plugin.historian.config import SpillConfig
from plugin.historian.ingest import Ingest
from plugin.historian.spilling.frames import Kept
from plugin.historian.spilling.spill import POSITION, Left, Spill
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery, Health, HistoryProgress, Written

EVER = (-(2**60), 2**60)
TAGS = [Tag(f"T{n}", "plant", f"nsu=urn:plant;s=T{n}") for n in (1, 2)]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROWS = 100
"""In a delivery."""


class Plant:
    """A source that delivers as fast as it may, numbered, and remembers what was confirmed."""

    def __init__(self, name: str = "plant", *, tag: int = 1, patient: Callable[[int], bool] = lambda _: False) -> None:
        self.name = name
        self.tag = tag
        self.patient = patient
        self.given = 0
        self.confirmed: list[int] = []
        self.last = 0
        """The deliveries up to this number are given."""
        self.more = asyncio.Event()
        self.ends = False

    def give(self, count: int, *, end: bool = False) -> None:
        self.last += count
        self.ends = end
        self.more.set()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        while True:
            while self.given < self.last:
                self.given += 1
                yield self.delivery(self.given)
            if self.ends:
                return
            self.more.clear()
            await self.more.wait()

    def delivery(self, number: int) -> Delivery:
        return replace(
            numbered(number, self.tag, self.name),
            confirm=partial(self.confirmed.append, number),
            patient=self.patient(number),
        )

    def history_progress(self) -> HistoryProgress:
        return HistoryProgress(self.name, 0, 0, 0, True)

    def health(self) -> Health:
        return Health("running", connected=True, away_since=None)


def numbered(number: int, tag: int = 1, source: str = "plant") -> Delivery:
    time = np.arange(number * ROWS, (number + 1) * ROWS)
    samples = SampleBatch.of(np.full(ROWS, tag), time, time * 0.5, 0, time, time)
    return Delivery(samples, checkpoint={f"{source}/next": str(number)})


def is_safe(plant: Plant) -> bool:
    return len(plant.confirmed) == plant.last


async def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "historian.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(f"sqlite+aiosqlite:///{path}", busy_timeout=timedelta(0)) as store:
        await store.register_tags(TAGS)
        yield store


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes, and takes its time."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def settings(**more: Any) -> SpillConfig:
    """Small and quick; the bound of the configuration is for people."""
    quick = SpillConfig(after=timedelta(milliseconds=50), reserve=ByteCount(0))
    return quick.model_copy(update={name: ByteCount(v) if name == "limit" else v for name, v in more.items()})


@asynccontextmanager
async def opened(folder: Path, position: int = 0, **more: Any) -> AsyncIterator[Spill]:
    spill = Spill(folder, settings(**more))
    await spill.open(position)
    spill.know([replace(tag, id=key) for key, tag in enumerate(TAGS, start=1)])
    try:
        yield spill
    finally:
        spill.close()


@asynccontextmanager
async def running(ingest: Ingest) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(ingest.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def stored(store: SqliteStore, tag: int = 1) -> list[int]:
    found: list[int] = (await store.read_samples([tag], *EVER)).source_time.tolist()
    return found


def times(first: int, last: int) -> list[int]:
    """Of the deliveries from ``first`` to ``last``."""
    return [*range(first * ROWS, (last + 1) * ROWS)]


async def test_while_the_database_is_away_samples_go_to_the_spill_and_follow_in_order(
    store: SqliteStore, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plant, diagnostics, heard = Plant(), Diagnostics(), list[int]()
    async with opened(tmp_path / "spill") as spill:
        ingest = Ingest(
            [plant], store, diagnostics, spill=spill, rows_per_commit=5 * ROWS, queue=10,
            on_commit=[lambda batch: heard.extend(batch.source_time.tolist())],
        )  # fmt: skip
        async with running(ingest) as task:
            plant.give(10)
            await until(lambda: len(heard) == 10 * ROWS)  # confirmed alone may mean: in the spill
            with locked(path):
                plant.give(400)
                await until(lambda: len(plant.confirmed) == 410)
                assert await stored(store) == times(1, 10)
                assert diagnostics.value("historian", state="spilling") == 1
                # A copy of what was on its way into the database at the begin may be there too.
                assert diagnostics.value("spill_samples") in range(400 * ROWS, 410 * ROWS + 1)
                assert diagnostics.value("queue_depth", source="plant") == 0
                assert spill.size >= 400 * ROWS * 36
            await until(lambda: spill.empty)
            plant.give(10, end=True)
            await task
    assert plant.confirmed == [*range(1, 421)]
    assert await stored(store) == times(1, 420)
    assert heard == times(1, 420)
    assert await store.checkpoints("plant/") == {"plant/next": "420"}
    assert diagnostics.value("samples_stored_total") == 420 * ROWS
    assert diagnostics.value("samples_duplicate_total") == 0
    assert diagnostics.value("samples_spilled_total") >= 400 * ROWS
    assert diagnostics.value("historian", state="writing") == 1
    assert not list((tmp_path / "spill").iterdir())
    assert ["unavailable" in line or "is back" in line for line in caplog.messages] == [True, True]


async def test_nothing_is_confirmed_while_it_is_durable_nowhere(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    """The database away and the spill full: the source is made to wait, and only so much is in memory."""
    plant, diagnostics = Plant(), Diagnostics()
    async with opened(tmp_path / "spill", limit=100_000) as spill:
        ingest = Ingest([plant], store, diagnostics, spill=spill, rows_per_commit=5 * ROWS, queue=10)
        async with running(ingest) as task:
            with locked(path):
                plant.give(400)
                await until(lambda: diagnostics.value("historian", state="waiting") == 1)
                await until(lambda: diagnostics.value("queue_depth", source="plant") == plant.given - spill.rows / ROWS)
                held = plant.given - len(plant.confirmed)
                assert held <= 10 + 2 * 5 + 1
                assert plant.confirmed == [*range(1, spill.rows // ROWS + 1)]
                assert 0 < spill.size <= 100_000
                assert await stored(store) == []
            plant.give(0, end=True)
            await task
    assert plant.confirmed == [*range(1, 401)]
    assert await stored(store) == times(1, 400)
    assert diagnostics.total("samples_dropped_total") == 0
    assert not await store.gaps()


async def test_a_full_spill_may_leave_out_the_oldest_and_says_so(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    """Gaps, progress and the newest samples stay; what is left out is counted and inside a gap, source by source."""
    plants, diagnostics = [Plant("plant"), Plant("other", tag=2)], Diagnostics()
    async with opened(tmp_path / "spill", limit=200_000, keep="newest") as spill:
        ingest = Ingest(plants, store, diagnostics, spill=spill, rows_per_commit=2 * ROWS, queue=10)
        async with running(ingest) as task:
            with locked(path):
                for _ in range(20):
                    for plant in plants:
                        plant.give(10)
                        await until(partial(is_safe, plant))
                assert spill.size <= 200_000
            for plant in plants:
                plant.give(0, end=True)
            await task
    for plant in plants:
        dropped = int(diagnostics.value("samples_dropped_total", source=plant.name, cause="spool_overflow"))
        assert dropped > 0
        kept = await stored(store, plant.tag)
        assert len(kept) == 200 * ROWS - dropped
        assert kept[-10 * ROWS :] == times(191, 200)
        assert plant.confirmed == [*range(1, 201)]
        assert await store.checkpoints(f"{plant.name}/") == {f"{plant.name}/next": "200"}
        gaps = await store.gaps(source=plant.name)
        assert len(gaps) <= 3  # joined, but for what was on its way into the database just then
        assert {(gap.cause, gap.state, gap.tag) for gap in gaps} == {
            (GapCause.SPILL_OVERFLOW, GapState.UNFILLABLE, None)
        }
        spans = [(to_micros(gap.start), to_micros(gap.end)) for gap in gaps if gap.end is not None]
        missing = set(times(1, 200)) - set(kept)
        assert all(any(start <= time < end for start, end in spans) for time in missing)
        assert max(end for _, end in spans) == max(missing) + 1


async def test_a_restart_finds_what_was_left_and_where_the_sources_stood(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    plant = Plant()
    async with opened(tmp_path / "spill") as spill:
        with locked(path):
            async with running(Ingest([plant], store, Diagnostics(), spill=spill, rows_per_commit=5 * ROWS)):
                plant.give(50)
                await until(lambda: len(plant.confirmed) == 50)
    again = Spill(tmp_path / "spill", settings())
    left = await again.open(0)
    again.know(await store.register_tags(TAGS))
    assert left == Left({"T1": times(50, 50)[-1]}, {"plant/next": "50"})
    assert left.checkpoints_after({"plant/next": "7", "plant/gaps": "[]"}, "plant/") == {
        "plant/next": "50", "plant/gaps": "[]"
    }  # fmt: skip
    diagnostics = Diagnostics()
    plant.give(10, end=True)
    await Ingest([plant], store, diagnostics, spill=again).run()
    assert again.empty
    again.close()
    assert plant.confirmed == [*range(1, 61)]
    assert await stored(store) == times(1, 60)
    assert await store.checkpoints("plant/") == {"plant/next": "60"}
    assert diagnostics.value("samples_duplicate_total") == 0


async def test_what_the_database_has_already_is_not_taken_for_new(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    """Killed between the commit and the deletion of the file: older progress must not come back."""
    async with opened(tmp_path / "spill") as spill:
        number = await spill.append([Kept("plant", numbered(1))])
    await store.write([numbered(1), Delivery(SampleBatch.empty(), checkpoint={POSITION: str(number)})])
    await store.write([numbered(2)])
    spill = Spill(tmp_path / "spill", settings())
    assert await spill.open(int((await store.checkpoints(POSITION))[POSITION])) == Left({}, {})
    assert spill.empty
    spill.close()


async def test_a_spill_finds_its_tags_in_another_database(tmp_path: Path) -> None:
    """The database went bad and a new one was made, in which the tags have other numbers, and one is not configured."""
    async with opened(tmp_path / "spill") as spill:
        await spill.append([Kept("plant", numbered(1, tag=1)), Kept("plant", numbered(2, tag=2))])
    async with SqliteStore(f"sqlite+aiosqlite:///{tmp_path}/new.db") as store:
        tags = await store.register_tags([Tag("T0", "plant", "nsu=urn:plant;s=T0"), TAGS[1]])
        spill = Spill(tmp_path / "spill", settings())
        assert (await spill.open(0)).known == {"T1": times(1, 1)[-1], "T2": times(2, 2)[-1]}
        spill.know(tags)
        await Ingest([], store, Diagnostics(), spill=spill).run()
        spill.close()
        t1, t2 = await store.register_tags(TAGS)
        assert (t1.id, t2.id) == (3, 2)
        assert await stored(store, 3) == times(1, 1)
        assert await stored(store, 2) == times(2, 2)
        assert await stored(store, 1) == []


@pytest.mark.parametrize("reopened", [False, True])
async def test_what_is_disowned_is_read_as_samples_and_not_as_progress(
    store: SqliteStore, tmp_path: Path, reopened: bool
) -> None:
    """Another gateway went on meanwhile: the database has its progress, and knows more of gaps that both know."""
    known = Gap("known", "plant", None, NOON, NOON, GapCause.SEQUENCE, NOON, GapState.FILLED)
    others = {"plant/next": "40", "plant/gaps": "theirs"}
    await store.write([Delivery(SampleBatch.empty(), (known,), others)])
    spill = Spill(tmp_path / "spill", settings())
    await spill.open(0)
    spill.know(await store.register_tags(TAGS))
    lasts, filled = (
        replace(known, id="lasts", state=GapState.OPEN, end=None, start=NOON - timedelta(hours=1)),
        replace(known, id="filled"),
    )
    stale = replace(known, state=GapState.OPEN)
    for number, gaps in enumerate(((lasts,), (stale, filled)), 1):
        await spill.append([Kept("plant", replace(numbered(number), gaps=gaps))])
    await spill.disown()
    if reopened:
        spill.close()
        spill = Spill(tmp_path / "spill", settings())
        assert await spill.open(0) == Left({"T1": times(2, 2)[-1]}, {})
    assert spill.disowned
    spill.know_gaps({"known"})
    await spill.append([Kept("plant", replace(numbered(3), checkpoint={"plant/mine": "again"}))])
    spill.know(await store.register_tags(TAGS))
    await Ingest([], store, Diagnostics(), spill=spill).run()
    assert await stored(store) == times(1, 3)
    assert await store.checkpoints("plant/") == {**others, "plant/mine": "again"}
    told = {gap.id: gap for gap in await store.gaps()}
    assert told["known"] == known
    assert told["filled"] == filled
    assert told["lasts"].state is GapState.UNFILLABLE
    assert (told["lasts"].end, told["lasts"].detail) == (NOON, "another gateway went on before it could be filled")
    spill.close()
    assert await spill.open(3) == Left({}, {})
    spill.close()
    assert list((tmp_path / "spill").iterdir()) == []


async def test_two_spills_of_one_database_keep_their_own_positions(store: SqliteStore, tmp_path: Path) -> None:
    first, second = (Spill(tmp_path / name, settings(), f"{POSITION}/{name}") for name in ("a", "b"))
    for number, spill in enumerate((first, second), 1):
        await spill.open(0)
        spill.know(await store.register_tags(TAGS))
        for _ in range(number):
            await spill.append([Kept("plant", numbered(number, tag=number))])
        await Ingest([], store, Diagnostics(), spill=spill).run()
        spill.close()
    assert await store.checkpoints("/") == {"/spill/a": "1", "/spill/b": "2"}


async def test_history_waits_for_the_database_itself(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    """Who asks whether the past is read then reads the database, not the spill."""
    plant = Plant(patient=lambda number: number % 2 == 0)
    async with opened(tmp_path / "spill") as spill:
        ingest = Ingest([plant], store, Diagnostics(), spill=spill, rows_per_commit=5 * ROWS)
        async with running(ingest) as task:
            with locked(path):
                plant.give(20)
                await until(lambda: spill.rows == 20 * ROWS)
                assert plant.confirmed == [*range(1, 20, 2)]
            plant.give(0, end=True)
            await task
    assert sorted(plant.confirmed) == [*range(1, 21)]


async def test_history_alone_is_never_spilled(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    plant, tries = Plant(patient=lambda _: True), list[float]()

    async def pause(seconds: float) -> None:
        tries.append(seconds)
        await asyncio.sleep(0.02)

    async with opened(tmp_path / "spill") as spill:
        with locked(path):
            task = asyncio.create_task(Ingest([plant], store, Diagnostics(), spill=spill, sleep=pause).run())
            plant.give(20, end=True)
            await until(lambda: len(tries) > 10)
            assert spill.empty
        await task
    assert await stored(store) == times(1, 20)


async def test_a_slow_database_is_relieved_too(path: Path, tmp_path: Path) -> None:
    """It commits, but later than samples arrive: they are safe in the spill long before."""

    class Slow(SqliteStore):
        """A disk that takes its time."""

        async def write(self, deliveries: Sequence[Delivery]) -> Written:
            await asyncio.sleep(0.2)
            return await super().write(deliveries)

    plant, diagnostics = Plant(), Diagnostics()
    async with Slow(f"sqlite+aiosqlite:///{path}") as store, opened(tmp_path / "spill") as spill:
        await store.register_tags(TAGS)
        ingest = Ingest([plant], store, diagnostics, spill=spill, rows_per_commit=5 * ROWS, queue=10)
        async with running(ingest) as task:
            plant.give(60)
            await until(lambda: len(plant.confirmed) == 60)
            assert len(await stored(store)) < 60 * ROWS
            plant.give(1, end=True)
            await task
        assert await stored(store) == times(1, 61)
        assert diagnostics.value("samples_stored_total") == 61 * ROWS
        assert diagnostics.value("samples_duplicate_total") == 0
    assert plant.confirmed == [*range(1, 62)]


# --- disks ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=16m,mode=0700", "none", str(folder)]
    if mount is None or subprocess.run([mount, *options], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_confirms_nothing_says_so_once_and_goes_on_when_there_is_room(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Database and spill on one disk, which another program fills up."""
    plant, diagnostics = Plant(), Diagnostics()
    other = small_disk / "other"
    async with (
        SqliteStore(f"sqlite+aiosqlite:///{small_disk}/historian.db") as store, opened(small_disk / "spill") as spill
    ):  # fmt: skip
        await store.register_tags(TAGS)
        ingest = Ingest([plant], store, diagnostics, spill=spill, rows_per_commit=5 * ROWS, queue=10)
        async with running(ingest) as task:
            plant.give(5)
            await until(lambda: len(plant.confirmed) == 5)
            fill(other)
            plant.give(300)
            await until(lambda: diagnostics.value("historian", state="waiting") == 1)
            assert plant.given <= 5 + 10 + 5 * 5 + spill.rows / ROWS
            assert len(plant.confirmed) == 5 + spill.rows / ROWS
            other.unlink()
            plant.give(0, end=True)
            await task
        assert await stored(store) == times(1, 305)
    assert plant.confirmed == [*range(1, 306)]
    assert diagnostics.total("samples_dropped_total") == 0
    said = [line for line in caplog.messages if "spill" in line]
    assert len([line for line in said if "takes no more" in line]) == 1
    assert [line for line in said if "No space left" in line]


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


async def test_room_is_left_for_the_database(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    async with opened(tmp_path / "spill", reserve=ByteCount(2 * free)) as spill:
        with pytest.raises(StoreUnavailable, match="would be left free"):
            await spill.append([Kept("plant", numbered(1))])
        assert spill.empty


LIMITED = """
import asyncio, resource, sys
from datetime import timedelta
from pathlib import Path
import numpy as np
from plugin.domain import SampleBatch
from plugin.errors import StoreUnavailable
from plugin.fields import ByteCount
from plugin.historian.config import SpillConfig
from plugin.historian.spilling.frames import Kept
from plugin.historian.spilling.spill import Spill
from plugin.protocols import Delivery

async def main():
    spill = Spill(Path(sys.argv[1]), SpillConfig(reserve=ByteCount(0)))
    await spill.open(0)
    time = np.arange(1000)
    kept = [Kept("plant", Delivery(SampleBatch.of(time, time, time, 0, time, time)))]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    print(await spill.append(kept), await spill.append(kept))
    try:
        await spill.append(kept)
    except StoreUnavailable as error:
        print(str(error).rpartition(": ")[2])
    print(spill.rows, [path.stat().st_size for path in Path(sys.argv[1]).iterdir()] == [spill.size])
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(await spill.append(kept), spill.rows)
    frames = []
    while chunk := await spill.read(1000):
        frames.append((chunk.number, chunk.rows))
    print(frames)

asyncio.run(main())
"""


def test_a_write_that_fails_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    """The kernel cuts the write off in the middle, as a quota does."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "spill")], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == [
        "1 2", "File too large", "2000 True", "3 3000", "[(1, 1000), (2, 1000), (3, 1000)]"
    ], done.stderr  # fmt: skip


async def test_a_folder_that_can_not_be_used_is_told_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="no folder that we may write to"):
        await Spill(tmp_path / "file", settings()).open(0)
    async with opened(tmp_path / "spill"):
        with pytest.raises(StoreError, match="in use by another foretag"):
            await Spill(tmp_path / "spill", settings()).open(0)


async def test_what_went_bad_on_disk_is_a_gap_and_not_silence(
    store: SqliteStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path / "spill") as spill:
        for number in range(1, 4):
            await spill.append([Kept("plant", numbered(number))])
    (file,) = (tmp_path / "spill").iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    spill = Spill(tmp_path / "spill", settings())
    await spill.open(0)
    spill.know(await store.register_tags(TAGS))
    await Ingest([], store, Diagnostics(), spill=spill).run()
    spill.close()
    assert await stored(store) == times(1, 1) + times(3, 3)
    (gap,) = await store.gaps()
    assert (gap.source, gap.cause, gap.state) == ("plant", GapCause.DECODE_ERROR, GapState.UNFILLABLE)
    assert "can't be read" in gap.detail
    assert "can't be read" in caplog.text
    assert [path.suffix for path in (tmp_path / "spill").iterdir()] == [".damaged"]


async def test_a_gap_is_never_dropped(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    gaps = [Gap(str(n), "plant", "T1", now, now, GapCause.SEQUENCE, now) for n in range(100)]
    async with opened(tmp_path / "spill", limit=50_000, keep="newest") as spill:
        for number, gap in enumerate(gaps, start=1):
            await spill.append([Kept("plant", replace(numbered(number), gaps=(gap,)))])
        dropped = spill.take_dropped()["plant"]
        await Ingest([], store, Diagnostics(), spill=spill).run()
    kept = await store.gaps()
    assert {gap.id for gap in gaps} < {gap.id for gap in kept}
    assert len(kept) == 101
    assert await store.checkpoints("plant/") == {"plant/next": "100"}
    assert len(await stored(store)) == 100 * ROWS - dropped


async def _each(calls: Iterable[Awaitable[Any]]) -> None:
    for call in calls:
        await call


async def test_what_could_not_be_left_out_is_not_counted(tmp_path: Path) -> None:
    folder = tmp_path / "spill"
    async with opened(folder, limit=50_000, keep="newest") as spill:
        appended = itertools.count(1)
        while not (dropped := spill.take_dropped()):
            await spill.append([Kept("plant", numbered(next(appended)))])
        oldest = sorted(folder.glob("*.spill"))
        for each in oldest:
            each.with_suffix(".tmp").mkdir()
        frames = (spill.append([Kept("plant", numbered(number))]) for number in appended)
        with pytest.raises(StoreUnavailable):
            await _each(frames)
        assert spill.take_dropped() == {}
        for each in oldest:
            each.with_suffix(".tmp").rmdir()
        while not (again := spill.take_dropped()):
            await spill.append([Kept("plant", numbered(next(appended)))])
        assert again == dropped


async def test_tags_that_join_later_are_found_again_too(tmp_path: Path) -> None:
    """A head that was written before they were known says nothing of them; nor may one be written while they come."""
    third = Tag("T3", "plant", "nsu=urn:plant;s=T3", id=3)
    async with opened(tmp_path / "spill") as spill:
        await spill.append([Kept("plant", numbered(1, tag=1))])
        spill.know([third])
        await spill.append([Kept("plant", numbered(2, tag=3))])
    spill = Spill(tmp_path / "spill", settings())
    assert (await spill.open(0)).known == {"T1": times(1, 1)[-1], "T3": times(2, 2)[-1]}
    spill.close()
