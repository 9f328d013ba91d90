"""From the plant to the node: real servers, a real database, real models, over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asyncua import ua

from opcua_sim.options import Options
from opcua_sim.server import serve
from plugin.diagnostics import Diagnostics
from plugin.domain import Quality, RunKind, RunResult, Status, quality, to_micros
from plugin.infer.registry import Registry
from plugin.opening import open_compute, open_store
from plugin.scorers import Scorers
from tests.acceptance.life import PERIOD, free_port, read, running, until, write_config

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Any]:
    options = Options(
        port=0, engines=6, period=PERIOD, history_runs=2, state=tmp_path / "state", truth=tmp_path / "truth"
    )
    async with serve(options) as plant:
        yield plant


async def test_a_tags_life_from_plant_to_node_and_over_a_restart(plant, tmp_path, second_stack):
    port = free_port()
    path, begun = write_config(tmp_path, plant.endpoint, port), datetime.now(UTC)
    async with running(path, port) as foretag:
        await foretag.published("rul", "nox")
        await _is_served_as_measured(foretag, begun)
        await _is_written_back(plant)
        await _moves_for_a_stranger(foretag, second_stack)
        await _degrades_with_its_inputs(plant, foretag)
        config = foretag.service.config
    first = await _stored(config)
    assert first.gap_free
    await asyncio.sleep(2)  # the plant goes on while nobody listens

    async with running(path, port) as foretag:
        begin = asyncio.get_running_loop().time()
        await foretag.published("rul", "nox")
        assert asyncio.get_running_loop().time() - begin < 60
        await until(lambda: _caught_up(foretag))
    second = await _stored(config)
    assert second.samples > first.samples
    assert second.gap_free, "our own downtime was not filled from the plant's history"
    assert second.versions == 1, "the second start did not reuse the model"
    await _can_be_computed_again(config)


async def _can_be_computed_again(config) -> int:
    """Every stored prediction follows from the stored samples and the named version: live and backtest are one path.

    Gives how many of the runs looked while a source was away.
    """
    unheard = 0
    diagnostics = Diagnostics()
    async with open_store(config, diagnostics, alone=False) as store, open_compute(config, diagnostics) as compute:
        registry = Registry(store, config.model_folder)
        tags = await store.register_tags(config.tags)
        for scorer in Scorers(config, tags, store, registry, compute, diagnostics).in_force:
            done = [run for run in await store.runs(scorer.config.name, 100) if run.result is RunResult.DONE]
            for run in [run for run in done if run.kind is RunKind.SCORE]:
                unheard += bool(run.unheard)
                now = datetime.now(UTC)
                stored = [
                    p for p in await store.predictions(run.model, now - timedelta(minutes=9), now) if p.run == run.id
                ]
                again = await scorer.again(run, stored[0].as_of)
                assert {p.tag.name: p for p in again.predictions} == {p.tag.name: p for p in stored}
    return unheard


async def _is_served_as_measured(foretag, begun):
    rul, lower, upper, span, unit = await read(
        foretag.endpoint,
        *(f"engine-01.rul.rul{child}" for child in ("", ".LowerBound", ".UpperBound", ".EURange", ".EngineeringUnits")),
    )
    assert quality(rul.StatusCode.value) is not Quality.BAD
    assert lower.Value.Value <= rul.Value.Value
    beyond_the_horizon = quality(upper.StatusCode.value) is Quality.BAD
    assert beyond_the_horizon or rul.Value.Value <= upper.Value.Value
    assert (span.Value.Value.Low, span.Value.Value.High) == (0, 125)
    assert unit.Value.Value.DisplayName.Text in {"cycles", "cycle"}
    assert begun < rul.SourceTimestamp <= datetime.now(UTC)


async def _is_written_back(plant):
    async def arrived() -> bool:
        (value,) = await read(plant.endpoint, "engine-01.advisory.rul", namespace="urn:opcua-sim:plant")
        return value.Value.Value is not None and quality(value.StatusCode.value) is not Quality.BAD

    await until(arrived)
    (stranger,) = await read(plant.endpoint, "engine-02.advisory.rul", namespace="urn:opcua-sim:plant")
    assert stranger.StatusCode.value == ua.StatusCodes.BadWaitingForInitialData, "no rule allows this node"


async def _moves_for_a_stranger(foretag, second_stack):
    seen = await second_stack(
        foretag.endpoint, "subscribe", "nsu=urn:foretag:predictions;s=engine-01.rul.rul", "20", "4"
    )
    values = [line for line in seen if line.get("value") is not None]
    assert len({line["source_time"] for line in values}) > 2, seen


async def _degrades_with_its_inputs(plant, foretag):
    async def status() -> int:
        (value,) = await read(foretag.endpoint, "engine-02.rul.rul")
        return int(value.StatusCode.value)

    async def degraded() -> bool:
        return await status() == Status.UNCERTAIN_SUB_NORMAL

    async def healthy() -> bool:
        return await status() == Status.GOOD

    await until(healthy)
    plant.inject("bad", "engine-02.T50", 4)
    await until(degraded)
    (other,) = await read(foretag.endpoint, "engine-03.rul.rul")
    assert other.StatusCode.value == Status.GOOD, "another asset's fault is none of ours"
    plant.clear()
    await until(healthy)
    store_status = await _statuses(foretag.service.config, "engine-02")
    assert Status.UNCERTAIN_SUB_NORMAL in store_status


async def test_a_lost_plant_is_seen_and_comes_back_without_a_hole(plant, tmp_path):
    port = free_port()
    path = write_config(tmp_path, plant.endpoint, port)
    async with running(path, port) as foretag:
        await foretag.published("rul")
        config = foretag.service.config

        async def lost() -> bool:
            (value,) = await read(foretag.endpoint, "engine-01.rul.rul")
            return bool(value.StatusCode.value == Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE)

        async def healthy() -> bool:
            (value,) = await read(foretag.endpoint, "engine-01.rul.rul")
            return bool(value.StatusCode.value == Status.GOOD)

        await until(healthy)
        outage = asyncio.create_task(plant.cut(5))
        await until(lost)
        await outage
        await until(healthy, 40)
        outage = asyncio.create_task(plant.restart(3))
        await until(lost)
        await outage
        await until(healthy, 40)
        await until(lambda: _caught_up(foretag))
    assert (await _stored(config)).gap_free
    assert await _can_be_computed_again(config), "no run looked while the plant was away"


async def _caught_up(foretag) -> bool:
    """No gap is open any more."""
    async with open_store(foretag.service.config, foretag.service.diagnostics, alone=False) as store:
        return not await store.gaps(open_only=True)


class _Stored:
    def __init__(self, samples: int, gap_free: bool, versions: int) -> None:
        self.samples, self.gap_free, self.versions = samples, gap_free, versions


async def _stored(config) -> _Stored:
    """What the database holds; free of gaps: no instant of the plant is missing between the first and the last."""
    async with open_store(config, Diagnostics(), alone=False) as store:
        tags = await store.register_tags(config.tags)
        cycle = next(tag.id for tag in tags if tag.name == "engine-04.T24")
        now = to_micros(datetime.now(UTC))
        samples = await store.read_samples([cycle], now - 200_000_000, now)
        steps = np.diff(samples.source_time)
        assert (steps > 0).all(), "a sample is there twice, or out of order"
        counts = await store.counts()
        versions = await store.versions("rul")
        runs = await store.runs("rul", 10_000)
        assert not [run for run in runs if run.result is RunResult.RUNNING], "a run was left half-written"
        return _Stored(counts["samples"], bool((steps == PERIOD * 1e6).all()), len(versions))


async def _statuses(config, asset: str) -> set[int]:
    async with open_store(config, Diagnostics(), alone=False) as store:
        now = datetime.now(UTC)
        found = await store.predictions("rul", now - timedelta(minutes=5), now, asset=asset, output="rul")
        return {prediction.status for prediction in found}
