"""A server without subscriptions is read: what changed is a sample, what could not be read is a gap."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asyncua import ua

from plugin.acquire.config import SourceConfig
from plugin.acquire.source import OpcUaSource, State
from plugin.diagnostics import Diagnostics
from plugin.domain import GapCause, GapState, SampleBatch, Tag
from tests.integration.acquire_plant import EPOCH, URI, Historian, Plant, Wire, config, make, running, tags, until

POLL: dict[str, Any] = {"mode": "poll"}


@pytest.fixture
async def plant() -> AsyncIterator[Plant]:
    plant = Plant(4, history=True)
    await plant.start()
    yield plant
    await plant.stop()


class Reads:
    """What the server is asked to read of the plant's tags; it may be slow, or refuse."""

    def __init__(self, plant: Plant) -> None:
        service: Any = plant.server.iserver.attribute_service
        self.asked: list[list[str]] = []
        self.limit = 1000
        self._read = service.read
        service.read = self

    def __call__(self, params: ua.ReadParameters) -> Any:
        names = [str(wanted.NodeId.Identifier) for wanted in params.NodesToRead or ()]
        if any(name.startswith("t") for name in names):
            self.asked.append(names)
            if len(names) > self.limit:
                raise ua.UaStatusCodeError(ua.StatusCodes.BadTooManyOperations)
        return self._read(params)

    async def more(self, count: int) -> None:
        """Wait for so many more."""
        seen = len(self.asked)
        await until(lambda: len(self.asked) >= seen + count)

    def of(self, name: str) -> int:
        return sum(name in names for names in self.asked)


def without_subscriptions(plant: Plant) -> None:
    async def refuse(*_: Any, **__: Any) -> Any:
        raise ua.UaStatusCodeError(ua.StatusCodes.BadServiceUnsupported)

    service: Any = plant.server.iserver.subscription_service
    service.create_subscription = refuse


def source_of(plant: Plant, found: list[Tag], folder: Path, **more: Any) -> OpcUaSource:
    settings: SourceConfig = config(plant.port, **{**POLL, **more})
    return OpcUaSource(settings, found, Diagnostics(), folder / "pki")


async def feed(plant: Plant, historian: Historian, *numbers: int, tag: int = 1) -> None:
    """One after the other, each after the one before was seen."""
    for number in numbers:
        await plant.write(number)
        await until(partial(_has, historian, tag, number))


def _has(historian: Historian, tag: int, number: int) -> bool:
    return number in historian.numbers(tag)


@pytest.mark.parametrize("mode", ["auto", "poll"])
async def test_tags_are_read_where_the_server_knows_no_subscriptions(tmp_path: Path, plant: Plant, mode: str) -> None:
    if mode == "auto":
        without_subscriptions(plant)
    reads, historian = Reads(plant), Historian()
    source = make(plant.port, 4, tmp_path, mode=mode)
    async with running(source, historian):
        await feed(plant, historian, 1, 2, 3)
        assert source.connected()
        assert source.state is State.RUNNING
        await reads.more(5)  # nothing new: nothing is sent
    for tag in range(1, 5):
        assert historian.numbers(tag) == [1, 2, 3]
    assert not historian.gaps
    samples = SampleBatch.concatenate(historian.batches)
    assert len(samples) == len(set(zip(samples.tag.tolist(), samples.value.tolist(), strict=True)))
    assert samples.source_time[-1] == int((EPOCH + timedelta(seconds=3)).timestamp()) * 1_000_000


async def test_subscribe_never_falls_back_to_reading(tmp_path: Path, plant: Plant) -> None:
    without_subscriptions(plant)
    reads = Reads(plant)
    source = make(plant.port, 1, tmp_path, mode="subscribe")
    async with running(source, Historian()):
        await until(lambda: "BadServiceUnsupported" in source.trouble)
    assert not reads.asked


async def test_a_refused_tag_is_a_gap_until_it_is_there(tmp_path: Path) -> None:
    plant, historian = Plant(2), Historian()
    await plant.start(missing=1)
    source = make(plant.port, 2, tmp_path, **POLL)
    async with running(source, historian):
        await until(lambda: source.state is State.DEGRADED)
        assert [item.tag.name for item in source.items if not item.monitored] == ["t0"]
        await plant.add(0)
        await until(lambda: source.state is State.RUNNING)
        await feed(plant, historian, 7)
        await until(lambda: all(gap.state is not GapState.OPEN for gap in historian.gaps.values()))
    await plant.stop()
    (gap,) = historian.gaps.values()
    assert (gap.tag, gap.cause, gap.state) == ("t0", GapCause.BAD_ITEM, GapState.UNFILLABLE)
    assert "BadNodeIdUnknown" in gap.detail


async def test_a_bad_value_is_a_sample_and_no_refusal(tmp_path: Path, plant: Plant) -> None:
    historian = Historian()
    source = make(plant.port, 1, tmp_path, **POLL)
    async with running(source, historian):
        await feed(plant, historian, 1)
        await plant.write(2, status=int(ua.StatusCodes.BadSensorFailure))
        await until(lambda: any((batch.status == ua.StatusCodes.BadSensorFailure).any() for batch in historian.batches))
        assert source.state is State.RUNNING
    assert not historian.gaps


async def test_a_cut_is_a_gap_that_history_fills(tmp_path: Path, plant: Plant) -> None:
    historian = Historian()
    async with Wire(plant.port) as wire:
        source = make(wire.port, 2, tmp_path, history={"back": "all", "settle": "0s"}, **POLL)
        async with running(source, historian):
            await feed(plant, historian, 1, 2)
            wire.cut()
            await until(lambda: source.state is State.CONNECTING)
            await plant.write(3)
            await plant.write(4)
            wire.mend()
            await feed(plant, historian, 5)
            await until(lambda: any(gap.state is GapState.FILLED for gap in historian.gaps.values()))
    assert historian.stored(1) == historian.stored(2) == [1, 2, 3, 4, 5]
    assert {gap.cause for gap in historian.gaps.values()} == {GapCause.POLL_MISSED}


async def test_a_slow_server_leaves_out_ticks_which_are_counted_and_a_gap(tmp_path: Path, plant: Plant) -> None:
    historian = Historian()
    async with Wire(plant.port) as wire:
        source = make(wire.port, 1, tmp_path, timeout="5s", **POLL)
        async with running(source, historian):
            await feed(plant, historian, 1)
            wire.delay = 0.3
            await until(lambda: bool(historian.gaps))
            (gap,) = historian.gaps.values()
            assert (gap.cause, gap.end) == (GapCause.POLL_MISSED, None)
            assert "every 0.05 s" in gap.detail
            await feed(plant, historian, 2, 3)  # slowly, and yet
            wire.delay = 0.0
            await until(lambda: all(gap.end is not None for gap in historian.gaps.values()))
        assert source._diagnostics.total("polls_skipped_total") >= 4
    assert historian.stored(1) == [1, 2, 3]


async def test_each_tag_has_its_own_interval(tmp_path: Path, plant: Plant) -> None:
    reads = Reads(plant)
    rare = replace(tags(2)[1], sampling=timedelta(seconds=1))
    async with running(source_of(plant, [tags(1)[0], rare], tmp_path), Historian()):
        await until(lambda: reads.of("t1") == 3)
    assert reads.of("t0") > 2 * reads.of("t1")


async def test_small_changes_stay_out_by_the_deadband(tmp_path: Path, plant: Plant) -> None:
    historian, reads = Historian(), Reads(plant)
    source = source_of(plant, [replace(tags(1)[0], deadband=1.0), tags(2)[1]], tmp_path)
    async with running(source, historian):
        for number, value in enumerate((10.0, 10.6, 11.0, 11.2, 9.9, 11.5), start=1):
            for node in plant.nodes[:2]:
                await plant.put(node, value, EPOCH + timedelta(seconds=number))
            await reads.more(3)
    samples = SampleBatch.concatenate(historian.batches)
    assert samples.value[(samples.tag == 1) & (samples.value > 0)].tolist() == [10.0, 11.2, 9.9, 11.5]
    assert len(samples.value[(samples.tag == 2) & (samples.value > 0)]) == 6


@pytest.mark.parametrize(("report", "more"), [("update", True), ("change", False)])
async def test_a_steady_value_with_new_times(tmp_path: Path, plant: Plant, report: str, more: bool) -> None:
    historian = Historian()
    source = source_of(plant, tags(2), tmp_path, report=report)
    async with running(source, historian):
        await feed(plant, historian, 5)
        await plant.put(plant.nodes[0], 5.0, EPOCH + timedelta(seconds=9))
        await plant.put(plant.nodes[1], 6.0, EPOCH + timedelta(seconds=9))
        await until(lambda: 6 in historian.numbers(2))
        await asyncio.sleep(0.2)
    assert len(historian.numbers(1)) == 1 + more


async def test_readings_that_are_too_big_are_halved(tmp_path: Path, plant: Plant) -> None:
    reads, historian = Reads(plant), Historian()
    reads.limit = 1
    source = make(plant.port, 4, tmp_path, **POLL)
    async with running(source, historian):
        await feed(plant, historian, 1, 2, tag=4)
    assert max(len(names) for names in reads.asked[3:]) == 1
    assert historian.stored(1) == historian.stored(4) == [1, 2]


async def test_tags_come_go_and_change_while_they_are_read(tmp_path: Path, plant: Plant) -> None:
    historian, reads = Historian(), Reads(plant)
    source = make(plant.port, 2, tmp_path, **POLL)
    async with running(source, historian):
        await feed(plant, historian, 1, tag=2)
        faster = replace(tags(3)[2], sampling=timedelta(milliseconds=20))
        source.change([replace(tags(1)[0], node=f"nsu={URI};s=t3"), faster])
        await feed(plant, historian, 2, 3, tag=3)
        await until(lambda: 3 in historian.numbers(1))
        asked = reads.of("t1")
        await feed(plant, historian, 4, tag=3)
        await until(lambda: 4 in historian.numbers(1))
        assert reads.of("t1") == asked
        assert reads.of("t3") > 0
        assert all(item.monitored for item in source.items)
    assert historian.stored(3)[-3:] == [2, 3, 4]
    assert not historian.gaps


async def test_a_value_without_times_is_dated_on_arrival(tmp_path: Path, plant: Plant) -> None:
    historian = Historian()
    begin = datetime.now(UTC).timestamp() * 1e6
    attribute: Any = plant.server.iserver.aspace._nodes[plant.nodes[0].nodeid].attributes[ua.AttributeIds.Value]
    attribute.value = ua.DataValue(ua.Variant(3.0, ua.VariantType.Double))
    source = source_of(plant, tags(1), tmp_path)
    async with running(source, historian):
        await until(lambda: len(historian.numbers(1)) >= 2)  # each reading is a sample: nothing says when it was taken
    samples = SampleBatch.concatenate(historian.batches)
    assert np.all(samples.source_time >= begin)
    assert len(set(samples.source_time.tolist())) == len(samples)


async def test_texts_are_samples_where_they_change(tmp_path: Path, plant: Plant) -> None:
    historian, reads = Historian(), Reads(plant)
    attribute: Any = plant.server.iserver.aspace._nodes[plant.nodes[0].nodeid].attributes[ua.AttributeIds.Value]
    source = source_of(plant, tags(1), tmp_path, report="change")
    async with running(source, historian):
        for text in ("open", "open", "shut"):
            attribute.value = ua.DataValue(ua.Variant(text, ua.VariantType.String))
            await reads.more(3)
    samples = SampleBatch.concatenate(historian.batches)
    assert samples.text is not None
    assert [text for text in samples.text.tolist() if text] == ["open", "shut"]
