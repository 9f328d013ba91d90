"""Cuts of every kind and length between us and a server that counts what it writes."""

import asyncio
from pathlib import Path

import pytest

from tests.acceptance.account import Account
from tests.acceptance.line import line
from tests.acceptance.proxy import Fault


async def survive(folder: Path, fault: Fault, seconds: float) -> tuple[Account, int]:
    """Numbers before, during and after one cut; the account, and how many gaps there are."""
    # twenty values a second: the server's queues bridge the longest cut
    async with line(folder / f"{fault.value}-{seconds}", reconnect_max="500ms", queue_limit=5000) as parts:
        await parts.server.feed(20, 0.02)
        await parts.settled()
        await asyncio.sleep(0.7)  # keep-alives just before the cut carry the next number
        async with asyncio.TaskGroup() as group:
            group.create_task(parts.proxy.outage(fault, seconds))
            group.create_task(parts.server.feed(int(seconds / 0.05) + 20, 0.05))
        parts.server.write()
        await parts.settled()
    parts.calm()
    return parts.balance(), len(parts.historian.gaps)


async def test_nothing_is_lost_over_cuts_of_every_kind(tmp_path: Path) -> None:
    cases = [(fault, seconds) for fault in Fault for seconds in (0.8, 3.0, 8.0)]
    results = await asyncio.gather(*(survive(tmp_path, *case) for case in cases))
    for case, (found, gaps) in zip(cases, results, strict=True):
        assert (found.in_gaps, gaps) == (0, 0), case


@pytest.mark.long
async def test_nothing_is_lost_over_a_minute(tmp_path: Path) -> None:
    results = await asyncio.gather(*(survive(tmp_path, fault, 60.0) for fault in Fault))
    for fault, (found, gaps) in zip(Fault, results, strict=True):
        assert (found.in_gaps, gaps) == (0, 0), fault


async def cut_and_end(folder: Path, turns: int) -> None:
    async with line(folder) as parts:
        for connection in list(parts.server.connections):
            connection.abort()
        for _ in range(turns):
            await asyncio.sleep(0)


async def test_we_end_when_asked_to_also_in_the_moment_of_a_cut(tmp_path: Path) -> None:
    """Whatever turn of the loop it comes in: an error of that moment must not swallow it."""
    async with asyncio.timeout(30):
        for turns in range(25):
            await cut_and_end(tmp_path / str(turns), turns)
