"""The plant's tags beside what is predicted of them, read by a client over a real socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asyncua import Client, ua
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.diagnostics import Diagnostics
from plugin.domain import Outage, SampleBatch, Status, Tag, to_micros
from plugin.publish.config import PublishConfig
from plugin.publish.mirror import Mirror
from plugin.publish.server import OpcUaSink

_START = datetime(2026, 3, 1, tzinfo=UTC)
_WAIT = 10.0
_T24 = Tag("e1.T24", "plant", "nsu=u;s=T24", "e1", "T24", "degR", 600.0, 700.0, id=1)
_NOTE = Tag("e1.note", "plant", "nsu=u;s=note", "e1", "note", id=2)
_LOOSE = Tag("weather", "other", "nsu=u;s=w", unit="degC", id=7)
_HIDDEN = Tag("e2.T24", "plant", "nsu=u;s=T25", "e2", "T24", id=4)
_TAGS = _T24, _NOTE, _LOOSE, _HIDDEN


def _batch(tag: Tag, seconds: Sequence[int], values: Any, status: int = 0, texts: Any = None) -> SampleBatch:
    times = to_micros(_START) + np.array(seconds, np.int64) * 1_000_000
    batch = SampleBatch.of([tag.id] * len(seconds), times, values, status, times, times)
    return batch if texts is None else replace(batch, text=np.array(texts, np.object_))


class _Seen:
    def __init__(self, mirror: Mirror, sink: OpcUaSink, client: Client, namespace: int) -> None:
        self.mirror = mirror
        self.sink = sink
        self.client = client
        self._namespace = namespace

    async def read(self, name: str) -> tuple[Any, int, datetime | None]:
        node = self.client.get_node(ua.NodeId(ua.String(f"Foretag.Tags.{name}"), ua.Int16(self._namespace)))
        data = await node.read_data_value(raise_on_bad_status=False)
        assert data.Value is not None
        assert data.StatusCode is not None
        return data.Value.Value, int(data.StatusCode.value), data.SourceTimestamp

    async def until(self, name: str, value: Any, status: int, second: int) -> None:
        expected = value, status, _START + timedelta(seconds=second)
        async with asyncio.timeout(_WAIT):
            while await self.read(name) != expected:
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def _mirroring(folder: Path, *before: SampleBatch) -> AsyncIterator[_Seen]:
    mirror = Mirror(["e1.*", "weather"], _TAGS)
    for batch in before:
        mirror.committed(batch)
    config = PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", security=("None",))
    sink = OpcUaSink(config, folder, Diagnostics(), mirror=mirror)
    async with sink.open(()), Client(sink.endpoint, watchdog_intervall=60) as client:
        yield _Seen(mirror, sink, client, await client.get_namespace_index("urn:foretag:predictions"))


async def test_value_status_and_source_time_are_the_plants(tmp_path):
    async with _mirroring(tmp_path, _batch(_LOOSE, [1], 5.0)) as seen:
        await seen.until("weather", 5.0, Status.GOOD, 1)
        assert (await seen.read("e1.T24"))[:2] == (None, Status.BAD_WAITING_FOR_INITIAL_DATA)
        odd = 0x40950480  # Uncertain, with the overflow bit: all 32 bits are passed on
        seen.mirror.committed(_batch(_T24, [3, 2], [641.5, 640.0], odd))
        await seen.until("e1.T24", 641.5, odd, 3)
        seen.mirror.committed(_batch(_T24, [1], 600.0))
        seen.mirror.committed(_batch(_T24, [4], float("nan"), Status.BAD_NO_COMMUNICATION))
        await seen.until("e1.T24", None, Status.BAD_NO_COMMUNICATION, 4)
        seen.mirror.committed(_batch(_HIDDEN, [1], 1.0))
        assert (await seen.read("e2.T24"))[1] == ua.StatusCodes.BadNodeIdUnknown
        index = await seen.client.get_namespace_index("urn:foretag:predictions")
        path = [f"{index}:{name}" for name in ("Foretag", "Assets", "e1", "Tags", "T24")]
        node = await seen.client.nodes.objects.get_child(path)
        assert await (await node.get_child("0:EURange")).read_value() == ua.Range(600.0, 700.0)


async def test_a_text_is_shown_as_one_and_a_number_after_it(tmp_path):
    async with _mirroring(tmp_path) as seen:
        seen.mirror.committed(_batch(_NOTE, [1], float("nan"), texts=["running"]))
        await seen.until("e1.note", "running", Status.GOOD, 1)
        seen.mirror.committed(_batch(_NOTE, [2], 2.0))
        await seen.until("e1.note", 2.0, Status.GOOD, 2)
        seen.mirror.committed(_batch(_T24, [2], float("nan"), texts=["hot"]))
        await seen.until("e1.T24", None, Status.BAD_NO_DATA, 2)


async def test_while_its_source_is_away_a_tag_is_in_doubt_and_then_as_before(tmp_path):
    async with _mirroring(tmp_path, _batch(_T24, [1], 641.0), _batch(_LOOSE, [1], 5.0)) as seen:
        await seen.sink.degrade(Outage(frozenset({"plant"}), 2, frozenset()))
        await seen.until("e1.T24", 641.0, Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE, 1)
        await seen.until("weather", 5.0, Status.GOOD, 1)
        await seen.sink.degrade(Outage(frozenset(), 2, frozenset()))
        await seen.until("e1.T24", 641.0, Status.GOOD, 1)


_SAMPLES = st.lists(st.tuples(st.sampled_from([1, 2, 4, 7]), st.integers(0, 20)), max_size=30)


@settings(max_examples=50, deadline=None)
@given(_SAMPLES, st.integers(1, 7))
def test_however_samples_are_committed_the_newest_of_each_tag_stands(samples, size):
    """The value of each is its number: of those of one time, the one that was committed last."""
    mirror = Mirror(["e1.*", "weather"], _TAGS)
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        tags, times = [tag for tag, _ in part], [time for _, time in part]
        mirror.committed(SampleBatch.of(tags, times, np.arange(start, start + len(part)), 0, times, times))
    for place, tag in enumerate(mirror.tags):
        of_tag = [(time, number) for number, (key, time) in enumerate(samples) if key == tag.id]
        shown = (int(mirror._time[place]), mirror._value[place]) if of_tag else None
        assert shown == (max(of_tag) if of_tag else None)


def test_a_mirror_of_nothing_costs_nothing():
    mirror = Mirror((), _TAGS)
    mirror.committed(_batch(_T24, [1], 1.0))
    mirror.cut_off({"plant"})
    assert mirror.tags == ()


@pytest.mark.parametrize("pattern", ["*", "e1.T24"])
def test_patterns_choose_by_the_tags_name(pattern):
    assert _T24 in Mirror([pattern], _TAGS).tags


def test_one_stamp_from_the_future_does_not_hide_what_comes_after_it():
    """The clock of a plant's server jumped ahead by an hour, for one value."""
    mirror = Mirror(["e1.*"], _TAGS)
    late = _batch(_T24, [3601], 1.0)
    mirror.committed(replace(late, received_time=late.received_time - 3_600_000_000))
    mirror.committed(_batch(_T24, [2], 2.0))
    assert mirror._value.tolist()[0] == 2.0
    mirror.committed(_batch(_T24, [1], 3.0))
    assert mirror._value.tolist()[0] == 2.0
