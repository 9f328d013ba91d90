"""Ticks, and what becomes of runs that overlap."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from plugin.schedule import Schedule, last_tick

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("now", "every", "offset", "tick"),
    [
        ("12:00:05.300", "1s", "0s", "12:00:05"),
        ("12:00:05", "5s", "0s", "12:00:05"),
        ("12:00:04.999", "5s", "0s", "12:00:00"),
        ("12:00:05", "5s", "2s", "12:00:02"),
        ("12:00:07", "5s", "2s", "12:00:07"),
    ],
)
def test_ticks_lie_on_whole_multiples(now, every, offset, tick):
    day = "2026-11-21T"
    assert last_tick(
        datetime.fromisoformat(day + now).replace(tzinfo=UTC),
        timedelta(seconds=int(every[:-1])),
        timedelta(seconds=int(offset[:-1])),
    ) == datetime.fromisoformat(day + tick).replace(tzinfo=UTC)


async def test_a_job_gets_its_tick_and_the_end_of_its_window():
    called: asyncio.Queue[tuple[datetime, datetime]] = asyncio.Queue()

    async def job(tick: datetime, end: datetime) -> None:
        called.put_nowait((tick, end))

    schedule = Schedule(lambda name, time: None)
    schedule.add("a", timedelta(milliseconds=50), timedelta(milliseconds=10), job)
    async with schedule, asyncio.timeout(10):
        tick, end = await called.get()
    assert tick - end == timedelta(milliseconds=10)
    assert (end - datetime(1970, 1, 1, tzinfo=UTC)) % timedelta(milliseconds=50) == timedelta(0)


async def test_the_newest_tick_that_has_passed_can_be_run_first_and_the_others_follow():
    called: asyncio.Queue[tuple[str, datetime, datetime]] = asyncio.Queue()
    offset, now = timedelta(seconds=10), datetime.now(UTC)

    async def job(tick: datetime, end: datetime) -> None:
        called.put_nowait(("next", tick, end))

    async def first(tick: datetime, end: datetime) -> None:
        called.put_nowait(("first", tick, end))

    schedule = Schedule(lambda name, time: None, clock=lambda: now)
    async with schedule, asyncio.timeout(10):
        schedule.add("a", timedelta(days=1), offset, job, first)
        newest = last_tick(now, timedelta(days=1), offset)
        assert await called.get() == ("first", newest, newest - offset)
        schedule.add("b", timedelta(milliseconds=50), offset, job)
        assert (await called.get())[0] == "next"
    assert now - timedelta(days=1) < newest <= now


async def test_a_run_that_would_overlap_is_missed_and_told():
    missed: asyncio.Queue[str] = asyncio.Queue()
    release = asyncio.Event()
    runs = 0

    async def job(tick: datetime, end: datetime) -> None:
        nonlocal runs
        runs += 1
        await release.wait()

    schedule = Schedule(lambda name, time: missed.put_nowait(name))
    schedule.add("slow", timedelta(milliseconds=50), timedelta(0), job)
    async with schedule, asyncio.timeout(10):
        assert await missed.get() == "slow"
        assert runs == 1
        release.set()


async def test_leaving_lets_a_running_job_end_and_starts_no_other():
    started, ended = asyncio.Event(), asyncio.Event()

    async def job(tick: datetime, end: datetime) -> None:
        started.set()
        await asyncio.sleep(0.05)
        ended.set()

    schedule = Schedule(lambda name, time: None)
    schedule.add("a", timedelta(milliseconds=20), timedelta(0), job)
    async with schedule, asyncio.timeout(10):
        await started.wait()
    assert ended.is_set()
