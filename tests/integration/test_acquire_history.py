"""The past over OPC UA: at the first start, after our own downtime, into gaps; and what can't be had."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua

from plugin.acquire.config import HistoryConfig
from plugin.domain import Gap, GapCause, GapState
from tests.integration.acquire_plant import EPOCH, Historian, Plant, Wire, make, running, until

TAGS = 2
PAST: dict[str, Any] = {"history": {"back": "all", "settle": "0s", "page": 7, "tags": 5}}


async def test_first_start_reads_the_past_in_pages_and_says_how_far(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS, history=True), Historian()
    await plant.start()
    for number in range(1, 101):
        await plant.write(number)
    source = make(plant.port, TAGS, tmp_path, **PAST)
    assert not source.history_progress().finished
    async with running(source, historian):
        await until(lambda: source.history_progress().finished)
        await plant.write(101)
        await until(lambda: 101 in historian.numbers(1))
        progress = source.history_progress()
        assert (progress.done, progress.total) == (TAGS, TAGS)
        assert progress.samples >= 100 * TAGS
    await plant.stop()
    for tag in (1, 2):
        assert historian.stored(tag) == list(range(1, 102))
        assert historian.checkpoints[f"plant/history/t{tag - 1}"] == "done"
    assert not historian.gaps


async def test_our_own_downtime_is_a_gap_that_history_fills(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS, history=True), Historian()
    await plant.start()
    await plant.write(1)
    first = make(plant.port, TAGS, tmp_path, **PAST)
    async with running(first, historian):
        await until(lambda: first.history_progress().finished and historian.stored(2) == [1])
    for number in range(2, 60):
        await plant.write(number)
    again = make(plant.port, TAGS, tmp_path, historian, **PAST)
    async with running(again, historian):
        await until(lambda: again.history_progress().finished)
        await until(lambda: any(gap.state is GapState.FILLED for gap in historian.gaps.values()))
    await plant.stop()
    assert historian.stored(1) == historian.stored(2) == list(range(1, 60))
    (gap,) = historian.gaps.values()
    assert (gap.cause, gap.tag, gap.state) == (GapCause.CLIENT_DOWN, None, GapState.FILLED)
    assert gap.rows_filled >= 58 * TAGS
    assert gap.end is not None


async def test_a_lost_subscription_is_filled_and_late_values_with_it(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS, history=True), Historian()
    await plant.start()
    async with (
        Wire(plant.port) as wire,
        running(make(wire.port, TAGS, tmp_path, **PAST), historian) as source,
    ):
        await until(source.connected)
        await plant.write(10)
        await plant.write(20)
        await until(lambda: historian.stored(2) == [10, 20])
        wire.cut()
        await until(lambda: not source.connected())
        service = plant.server.iserver.subscription_service
        await service.delete_subscriptions(list(service.subscriptions))
        for number in (18, 25, 30):  # 18 is older than the last stored value
            await plant.write(number)
        wire.mend()
        await until(lambda: {18, 25, 30} <= set(historian.stored(1)) & set(historian.stored(2)))
        await until(lambda: any(gap.state is GapState.FILLED for gap in historian.gaps.values()))
    await plant.stop()
    assert [gap.cause for gap in historian.gaps.values()] == [GapCause.SUBSCRIPTION_LOST]


async def test_what_was_missed_is_found_though_the_sources_clock_was_set_back_meanwhile(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS, history=True), Historian()
    await plant.start()
    back = EPOCH + timedelta(seconds=500)
    past: dict[str, Any] = {"history": {**PAST["history"], "settle": "300ms", "margin": "1s"}}
    async with Wire(plant.port) as wire, running(make(wire.port, TAGS, tmp_path, **past), historian) as source:
        await until(lambda: source.history_progress().finished)
        await plant.write(1000)
        await until(lambda: historian.stored(1) == [1000])
        wire.cut()
        await until(lambda: not source.connected())
        service = plant.server.iserver.subscription_service
        await service.delete_subscriptions(list(service.subscriptions))
        for number in range(1, 6):
            await plant.put(plant.nodes[0], float(number), back + number * timedelta(milliseconds=20))
        wire.mend()
        await until(lambda: historian.stored(1) == [1, 2, 3, 4, 5, 1000])
    await plant.stop()


async def test_tags_without_history_keep_a_gap_of_their_own(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS, history=True), Historian()
    await plant.start()
    level = ua.DataValue(ua.Variant(1, ua.VariantType.Byte))
    await plant.nodes[1].write_attribute(ua.AttributeIds.AccessLevel, level)
    await plant.write(1)
    first = make(plant.port, TAGS, tmp_path, **PAST)
    async with running(first, historian):
        await until(lambda: first.history_progress().finished and historian.stored(2) == [1])
    await plant.write(2)
    again = make(plant.port, TAGS, tmp_path, historian, **PAST)
    async with running(again, historian):
        await until(lambda: len(historian.gaps) == 2 and not _open(historian))
    await plant.stop()
    states = {gap.tag: gap.state for gap in historian.gaps.values()}
    assert states == {None: GapState.FILLED, "t1": GapState.UNFILLABLE}


async def test_a_gap_that_was_not_filled_before_we_stopped_is_filled_after(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS, history=True), Historian()
    await plant.start()
    slow: dict[str, Any] = {"history": {**PAST["history"], "settle": "60s"}}
    async with Wire(plant.port) as wire:
        source = make(wire.port, TAGS, tmp_path, **slow)
        async with running(source, historian):
            await until(source.connected)
            await plant.write(4)
            await until(lambda: historian.stored(1) == [4])
            wire.cut()
            await until(lambda: not source.connected())
            service = plant.server.iserver.subscription_service
            await service.delete_subscriptions(list(service.subscriptions))
            await plant.write(5)
            await plant.write(6)
            wire.mend()
            await until(lambda: any(gap.end for gap in historian.gaps.values()))
            await until(lambda: historian.stored(1) == [4, 6])  # 5 is in the gap
        lost = next(iter(historian.gaps))
        again = make(wire.port, TAGS, tmp_path, historian, **PAST)
        async with running(again, historian):
            await until(lambda: historian.gaps[lost].state is GapState.FILLED)
    await plant.stop()
    assert historian.stored(1) == [4, 5, 6]


async def test_gaps_that_no_checkpoint_remembers_are_looked_after_all_the_same(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS, history=True), Historian()
    await plant.start()
    await plant.write(1)
    first = make(plant.port, TAGS, tmp_path, **PAST)
    async with running(first, historian):
        await until(lambda: first.history_progress().finished and historian.stored(2) == [1])
    causes = {
        "refused": ("t0", GapCause.BAD_ITEM),
        "twice": ("t0", GapCause.BAD_ITEM),
        "all": (None, GapCause.SEQUENCE),
    }
    causes |= {"gone": ("was here", GapCause.BAD_ITEM)}
    historian.gaps = {name: Gap(name, "plant", tag, EPOCH, None, cause, EPOCH) for name, (tag, cause) in causes.items()}
    again = make(plant.port, TAGS, tmp_path, historian, **PAST)
    async with running(again, historian):
        await until(lambda: not _open(historian))
    await plant.stop()
    states = {name: historian.gaps[name].state for name in causes}
    assert states.pop("gone") is GapState.UNFILLABLE
    assert set(states.values()) == {GapState.FILLED}
    assert all(gap.end is not None for gap in historian.gaps.values())


async def test_more_values_of_one_time_than_a_page_holds(tmp_path: Path) -> None:
    plant, historian = Plant(1, history=True), Historian()
    await plant.start()
    when = datetime.now(UTC) - timedelta(hours=1)
    for number in range(1, 31):
        await plant.put(plant.nodes[0], float(number), when)
    await plant.put(plant.nodes[0], 31.0, when + timedelta(seconds=1))
    source = make(plant.port, 1, tmp_path, **PAST)
    async with running(source, historian):
        await until(lambda: source.history_progress().finished)
    await plant.stop()
    assert historian.stored(1) == list(range(1, 32))


async def test_an_overflowed_queue_is_a_gap_of_that_tag(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS, history=True), Historian()
    await plant.start()
    off: dict[str, Any] = {"history": HistoryConfig(enabled=False)}
    async with running(make(plant.port, TAGS, tmp_path, **off), historian) as source:
        await until(source.connected)
        begin = datetime(2026, 3, 1, tzinfo=UTC)
        await plant.put(plant.nodes[1], 1.0, begin)
        await until(lambda: historian.stored(2) == [1])
        await plant.put(plant.nodes[1], 5.0, begin + timedelta(seconds=4), status=0x480)
        await until(lambda: bool(historian.gaps))
    await plant.stop()
    (gap,) = historian.gaps.values()
    assert (gap.tag, gap.cause) == ("t1", GapCause.OVERFLOW)
    assert (gap.start, gap.end) == (begin, begin + timedelta(seconds=4))
    assert historian.stored(2) == [1, 5]


@pytest.mark.parametrize("fault", ["BadTooManyOperations", "BadServiceUnsupported"])
async def test_a_server_that_refuses_history_requests(tmp_path: Path, fault: str) -> None:
    plant, historian = Plant(TAGS, history=True), Historian()
    await plant.start()
    await plant.write(1)
    manager: Any = plant.server.iserver.history_manager
    read = manager.read_history

    async def limited(params: ua.HistoryReadParameters) -> Any:
        if len(params.NodesToRead) > 1 or fault == "BadServiceUnsupported":
            raise ua.UaStatusCodeError(getattr(ua.StatusCodes, fault))
        return await read(params)

    manager.read_history = limited
    source = make(plant.port, TAGS, tmp_path, **PAST)
    async with running(source, historian):
        await until(lambda: source.history_progress().finished)
        assert source.connected()
        await asyncio.sleep(0)
    await plant.stop()
    assert (source.history_progress().samples > 0) == (fault == "BadTooManyOperations")


def _open(historian: Historian) -> list[Gap]:
    return [gap for gap in historian.gaps.values() if gap.state is GapState.OPEN]
