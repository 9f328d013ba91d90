"""Servers that restart, stall, overflow, take nodes away, and one that is far away."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugin.diagnostics import Diagnostics
from plugin.domain import GapCause, GapState, SampleBatch
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery
from tests.acceptance.line import Line, line
from tests.acceptance.proxy import Fault
from tests.acceptance.scripted import Server
from tests.integration.acquire_plant import tags, until


def sessions(parts: Line) -> float:
    """How often we connected."""
    return parts.diagnostics.total("reconnects_total")


@pytest.mark.parametrize("history", [{"enabled": False}, {"back": "all", "settle": "0s"}])
async def test_an_expired_subscription_without_history_leaves_its_gap(tmp_path: Path, history: dict[str, Any]) -> None:
    async with line(tmp_path, history=history) as parts:
        await parts.server.feed(10)
        await parts.settled()
        for subscription in parts.server.subscriptions.values():
            subscription.lifetime = 10  # half a second
        await parts.proxy.strike(Fault.RESET)
        await until(lambda: not parts.server.subscriptions)
        await parts.server.feed(10)
        await parts.proxy.mend()
        await until(lambda: sessions(parts) >= 2 and parts.source.connected())
        await parts.server.feed(10)
        await parts.settled()
        await until(lambda: all(gap.state is GapState.UNFILLABLE for gap in parts.historian.gaps.values()))
    parts.calm()
    assert parts.balance().in_gaps >= 9 * parts.tags
    lost = [gap for gap in parts.historian.gaps.values() if gap.tag is None]
    assert [gap.cause for gap in lost] == [GapCause.SUBSCRIPTION_LOST]


async def test_ten_thousand_tags_come_back_after_a_restart(tmp_path: Path) -> None:
    count = 10_000
    async with line(tmp_path, count, batch=1000) as parts:
        server = parts.server
        server.write()
        await parts.settled()
        await server.stop()
        server.write()
        await server.start()
        await until(lambda: sessions(parts) >= 2 and parts.source.connected())
        assert all(item.monitored for item in parts.source.items)
        server.write()
        await parts.settled()
    parts.calm()
    assert parts.balance().written == 3 * count
    assert {gap.cause for gap in parts.historian.gaps.values()} == {GapCause.SERVER_DOWN}


async def test_nodes_that_come_later_are_asked_for_until_they_are_there(tmp_path: Path) -> None:
    """Every number that was written meanwhile lies in a gap of the server, or of the tag."""
    count = 12
    async with line(tmp_path, count, subscription_size=4, timeout="5s") as parts:
        server = parts.server
        await server.feed(10)
        await parts.settled()
        await server.stop()
        server.missing = set(range(0, count, 2))
        await server.start()

        async def slow(request: Any, connection: Any) -> Any:
            await asyncio.sleep(0.15)
            return await server._on_CreateMonitoredItems(request, connection)

        server.answers["CreateMonitoredItems"] = slow
        feeding = asyncio.create_task(server.feed(400))
        await until(lambda: sessions(parts) >= 2 and parts.source.connected())
        refused = {item.tag.name for item in parts.source.items if not item.monitored}
        assert refused == {f"t{number}" for number in range(0, count, 2)}
        server.missing = set()
        await until(lambda: all(item.monitored for item in parts.source.items))
        await feeding
        server.write()
        await parts.settled()
    parts.calm()
    assert parts.balance().in_gaps > 0
    assert {gap.cause for gap in parts.historian.gaps.values()} == {GapCause.SERVER_DOWN, GapCause.BAD_ITEM}
    assert all(gap.end is not None for gap in parts.historian.gaps.values())


async def stalled(folder: Path, seconds: float, patience: str) -> Line:
    async with line(folder / f"{seconds}", timeout=patience) as parts:
        await parts.server.feed(10)
        async with asyncio.TaskGroup() as group:
            group.create_task(parts.server.stall(seconds))
            group.create_task(parts.server.feed(int(seconds * 20), 0.05))
        parts.server.write()
        await parts.settled()
    parts.calm()
    assert parts.balance().in_gaps == 0
    assert not parts.historian.gaps
    return parts


async def test_a_server_that_stalls_is_not_given_up_before_its_time(tmp_path: Path) -> None:
    """Patience is 1.5 times the keep-alive of 0.3 s, and the timeout."""
    short, longer, too_long = await asyncio.gather(
        stalled(tmp_path, 1.3, "2s"), stalled(tmp_path, 5.0, "6s"), stalled(tmp_path, 3.0, "1s")
    )
    assert (sessions(short), sessions(longer)) == (1, 1)
    assert sessions(too_long) == 2


async def test_our_own_stall_is_not_taken_for_the_servers(tmp_path: Path) -> None:
    async with line(tmp_path, timeout="1s") as parts:
        for _ in range(2):
            await parts.server.feed(10)
            time.sleep(1.5)  # noqa: ASYNC251 - that is what is tested
            await parts.server.feed(10)
        await parts.settled()
        assert sessions(parts) == 1
    parts.calm()
    assert parts.balance().in_gaps == 0


async def test_a_slow_consumer_slows_publish_down_and_loses_nothing(tmp_path: Path) -> None:
    count = 300
    async with line(tmp_path, count, buffer=1000) as parts:
        parts.historian.pause = 0.3
        await parts.server.feed(80, 0.05)
        (subscription,) = parts.server.subscriptions.values()
        waiting = max(len(item.queue) for item in subscription.items.values())
        assert waiting > 1, "what we don't ask for waits at the server"
        parts.historian.pause = 0.0
        await parts.settled()
        await parts.server.feed(10, 0.06)
        await parts.settled()
        await until(lambda: len(subscription.kept) <= 3)
    parts.calm()
    assert parts.balance().in_gaps == 0
    assert not parts.historian.gaps


async def test_a_queue_that_overflows_is_a_gap_of_its_tag(tmp_path: Path) -> None:
    server = Server(3)
    server.queue_limit = 4
    async with line(tmp_path, server=server) as parts:
        await server.feed(5, 0.06)
        await parts.settled()
        await parts.proxy.strike(Fault.RESET)
        for _ in range(20):
            server.write()
        await parts.proxy.mend()
        await until(lambda: sessions(parts) >= 2 and parts.source.connected())
        await parts.settled()  # else the next value may still find the queues full
        await server.feed(5, 0.06)
        await parts.settled()
    parts.calm()
    assert parts.balance().in_gaps == (20 - 4) * parts.tags
    gaps = parts.historian.gaps.values()
    assert {(gap.cause, gap.tag) for gap in gaps} == {(GapCause.OVERFLOW, f"t{number}") for number in range(3)}


async def test_a_node_that_goes_and_comes_back_leaves_a_gap(tmp_path: Path) -> None:
    async with line(tmp_path) as parts:
        server = parts.server
        await server.feed(5)
        await parts.settled()
        server.remove(1)
        await server.feed(5)
        server.restore(1)
        await server.feed(5)  # of the new node; we still monitor the old one
        first = parts.source.items[1].id
        await until(lambda: parts.source.items[1].id not in (0, first))
        await server.feed(5)
        await parts.settled()
        await until(lambda: bool(parts.historian.gaps))
    parts.calm()
    assert parts.balance().in_gaps >= 9
    assert {(gap.tag, gap.cause) for gap in parts.historian.gaps.values()} == {("t1", GapCause.BAD_ITEM)}


async def test_odd_times_cost_no_row(tmp_path: Path) -> None:
    """Several values of one time, one value at several times, and times that go back."""
    moment = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
    odd = [(1.0, 0), (2.0, 0), (2.0, 1), (3.0, 5), (4.0, 2), (5.0, -3600), (6.0, -3600), (7.0, 6)]
    async with line(tmp_path, 1) as parts:
        for value, seconds in odd:
            parts.server.put(value, moment + seconds)
            await asyncio.sleep(0.01)
        await until(lambda: parts.historian.numbers(1)[-1:] == [7])
    parts.calm()
    written = [(value, round((moment + seconds) * 1e6)) for value, seconds in odd]
    arrived = SampleBatch.concatenate(parts.historian.batches)
    mine = arrived.take(arrived.value > 0)
    assert list(zip(mine.value.tolist(), mine.source_time.tolist(), strict=True)) == written
    async with SqliteStore(f"sqlite+aiosqlite:///{tmp_path / 'rows.sqlite'}", Diagnostics()) as store:
        (tag,) = await store.register_tags(tags(1))
        rows = mine.take(slice(None))
        await store.write([Delivery(SampleBatch.of(np.full(len(rows), tag.id), *rows.columns()[1:]))])
        kept = await store.read_samples([tag.id], 0, 1 << 60)
    assert list(zip(kept.value.tolist(), kept.source_time.tolist(), strict=True)) == sorted(
        written, key=lambda row: row[1]
    )
    assert not parts.historian.gaps


async def test_odd_statuses_are_stored_whole(tmp_path: Path) -> None:
    """Bad, Uncertain, limits, info bits; a Bad one has no number."""
    statuses = [0x80000000, 0x808D0000, 0x40000000, 0x40900000, 0x00000500, 0x40940100, 0xC0000000]
    async with line(tmp_path, 1) as parts:
        for status in statuses:
            parts.server.write(status=status)
        parts.server.write()
        await parts.settled()
    parts.calm()
    arrived = SampleBatch.concatenate(parts.historian.batches)
    mine = arrived.take(arrived.source_time >= round(parts.server.times[0] * 1e6))
    assert mine.status.tolist() == [*statuses, 0]
    assert np.isnan(mine.value).tolist() == [status >= 0x80000000 for status in [*statuses, 0]]
    assert not parts.historian.gaps


async def test_twenty_subscriptions_over_a_slow_line_are_all_served(tmp_path: Path) -> None:
    server = Server(20)
    server.queue_limit = 4
    slow: dict[str, Any] = {"subscription_size": 1, "publishing_interval": "500ms", "keep_alive": "3s", "timeout": "5s"}
    async with line(tmp_path, 20, server=server, **slow) as parts:
        parts.proxy.delay = 0.1
        assert len(server.subscriptions) == 20
        await asyncio.sleep(1.0)
        before = [(each.cycles, each.served) for each in server.subscriptions.values()]
        await server.feed(30, 0.2)
        cycles = sum(each.cycles for each in server.subscriptions.values()) - sum(row[0] for row in before)
        await asyncio.sleep(0.4)  # the answer to the last interval is on its way
        served = sum(each.served for each in server.subscriptions.values()) - sum(row[1] for row in before)
        await parts.settled()
        assert served >= 0.95 * cycles
        assert server.overflows == 0
    parts.calm()
    assert parts.balance().in_gaps == 0
