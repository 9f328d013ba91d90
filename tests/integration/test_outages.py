"""A plant's server that goes away, or says that it is unwell: what is seen of it downstream, from cut to node."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from asyncua import Client, ua

from plugin.acquire.source import OpcUaSource
from plugin.diagnostics import Diagnostics
from plugin.domain import Asset, Micros, Outcome, SampleBatch, Status, Tag, to_micros
from plugin.historian.ingest import Ingest
from plugin.historian.memory import MemoryStore
from plugin.infer.compute import Compute
from plugin.infer.config import ModelConfig
from plugin.infer.outages import Outages
from plugin.infer.registry import Registry
from plugin.infer.runs import Runs
from plugin.infer.scoring import Scorer
from plugin.infer.training_runs import Training
from plugin.protocols import Delivery
from plugin.publish.config import PublishConfig
from plugin.publish.server import OpcUaSink
from tests.integration.acquire_plant import URI, Historian, Plant, Wire, config, make, running, until

CUT_OFF = Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE
STATE, LEVEL, CLOCK = (ua.NodeId(ua.Int32(number)) for number in (2259, 2267, 2258))


@pytest.fixture
async def plant() -> AsyncIterator[Plant]:
    plant = Plant(3)
    await plant.start()
    yield plant
    await plant.stop()


async def says(plant: Plant, node: ua.NodeId, value: object, kind: ua.VariantType) -> None:
    data = ua.DataValue(ua.Variant(value, kind))
    await plant.server.iserver.aspace.write_attribute_value(node, ua.AttributeIds.Value, data)


async def test_what_the_server_says_of_itself_decides_whether_it_is_relied_on(plant, tmp_path, caplog):
    source = make(plant.port, 3, tmp_path)
    assert (source.health().connected, source.health().away_since) == (False, 0)
    async with running(source, Historian()):
        await until(lambda: source.health().service_level == 255)
        health = source.health()
        assert (health.state, health.away_since, health.trouble, health.tags, health.monitored) == (
            "running", None, "", 3, 3,
        )  # fmt: skip
        assert health.ahead is not None
        assert abs(health.ahead) < 5_000_000

        await says(plant, LEVEL, 150, ua.VariantType.Byte)
        await until(lambda: source.health().trouble == "its ServiceLevel is 150")
        assert source.health().away_since is None, "degraded is still there"
        await says(plant, LEVEL, 1, ua.VariantType.Byte)
        await until(lambda: source.health().away_since is not None)
        assert "not relied on" in source.health().trouble
        assert source.health().connected
        await says(plant, LEVEL, 255, ua.VariantType.Byte)
        await until(lambda: source.health().away_since is None)
        await says(plant, STATE, ua.ServerState.Failed, ua.VariantType.Int32)
        await until(lambda: source.health().away_since is not None)
        assert "Failed" in source.health().trouble
        await says(plant, STATE, ua.ServerState.Running, ua.VariantType.Int32)
        await until(lambda: not source.health().trouble)
    assert len([r for r in caplog.records if r.name == "plugin.acquire.condition" and r.levelname == "WARNING"]) == 3

    source = make(plant.port, 3, tmp_path, watchdog={"service_level": 0})
    await says(plant, LEVEL, 0, ua.VariantType.Byte)
    async with running(source, Historian()):
        await until(lambda: source.health().service_level == 0)
        assert source.health().away_since is None, (
            "where its ServiceLevel means nothing a server is relied on all the same"
        )


async def test_a_tag_that_stops_is_named_and_a_cut_blames_none(plant, tmp_path):
    async with Wire(plant.port) as wire:
        source = make(wire.port, 3, tmp_path, watchdog={"silent": "1s"})
        async with running(source, Historian()):
            await until(lambda: set(source.health().silent) == {"t0", "t1", "t2"})
            await plant.write(1)
            await until(lambda: not source.health().silent)
            await until(lambda: len(source.health().silent) == 3)
            wire.cut()
            await until(lambda: not source.health().connected)
            health = source.health()
            assert (health.silent, health.monitored) == ((), 0)
            assert health.away_since is not None
            assert 0 < health.away_since <= health.heard


async def test_a_server_that_falls_silent_is_not_relied_on_long_before_it_is_given_up(plant, tmp_path):
    async with Wire(plant.port) as wire:
        source = make(wire.port, 3, tmp_path, timeout="60s")
        async with running(source, Historian()):
            await until(lambda: source.connected() and source.health().away_since is None)
            wire.swallow()
            await until(lambda: source.health().away_since is not None)
            health = source.health()
            assert health.connected
            assert health.away_since is not None
            assert 0 < health.away_since <= health.heard
            assert "has not spoken" in health.trouble


class Line:
    """Plant, wire, source, store, model, our server and a client of it; a run where a test wants one."""

    def __init__(self, plant: Plant, wire: Wire, scorer: Scorer, runs: Runs, client: Client) -> None:
        self.plant, self.wire = plant, wire
        self._scorer, self._runs, self._client = scorer, runs, client

    async def write(self) -> None:
        for node in self.plant.nodes:
            await self.plant.put(node, 10.0 + np.random.default_rng().normal(), datetime.now(UTC))

    async def run(self) -> Outcome:
        now = datetime.now(UTC)
        outcome = await self._runs.score(self._scorer, now, now)
        assert outcome
        return outcome

    async def node(self) -> ua.DataValue:
        index = await self._client.get_namespace_index("urn:foretag:predictions")
        node = self._client.get_node(ua.NodeId(ua.String("pump.odd.score"), ua.Int16(index)))
        return await node.read_data_value(raise_on_bad_status=False)

    async def shows(self, status: int) -> ua.DataValue:
        """The node, as soon as it has this status."""
        async with asyncio.timeout(20):
            while (data := await self.node()).StatusCode.value != status:  # type: ignore[union-attr]
                await asyncio.sleep(0.05)
        return data


@pytest.fixture
async def line(plant: Plant, tmp_path: Path) -> AsyncIterator[Line]:
    store, diagnostics = MemoryStore(), Diagnostics()
    tags = await store.register_tags([Tag(f"t{n}", "plant", f"nsu={URI};s=t{n}", "pump", f"f{n}") for n in range(3)])
    await store.write([Delivery(past(tags))])
    model = ModelConfig.model_validate(
        {
            "name": "odd", "kind": "pca_anomaly", "assets": ["*"], "features": ["f0", "f1", "f2"], "window": "10s",
            "step": "1s", "hold": "1h", "recent": "5s", "required": 0.5, "valid": "1h",
            "schedule": {"every": "1s", "deadline": "30s"}, "training": {"learn": "normal"}, "options": {"smooth": 1},
        }
    )  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        wire = await enter(Wire(plant.port))
        source = OpcUaSource(config(wire.port), tags, diagnostics, tmp_path / "pki")
        compute = await enter(Compute("cpu", tmp_path / "compiled", diagnostics))
        registry = Registry(store, tmp_path / "models")

        def away(_: str) -> Micros | None:
            return source.health().away_since

        kind = compute.kinds["pca_anomaly"]
        scorer = Scorer(model, kind, Asset.gather(tags), store, registry, compute, diagnostics, away)
        await Training(store, registry, compute, diagnostics, lambda *told: None).train(scorer)
        sink = OpcUaSink(
            PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", security=("None",)), tmp_path / "own", diagnostics
        )
        await enter(sink.open(scorer.tags))
        client = await enter(Client(sink.endpoint))
        tasks = await enter(asyncio.TaskGroup())
        started = [
            tasks.create_task(Ingest([source], store, diagnostics).run()),
            tasks.create_task(Outages([source], [scorer], [sink], diagnostics).watch()),
        ]
        await until(source.connected)
        yield Line(plant, wire, scorer, Runs(store, [sink], diagnostics), client)
        for task in started:
            task.cancel()


def past(tags: tuple[Tag, ...]) -> SampleBatch:
    now = to_micros(datetime.now(UTC))
    times = now - np.arange(400, 0, -1, dtype=np.int64) * 1_000_000
    noise = np.random.default_rng(1)
    return SampleBatch.concatenate(
        [SampleBatch.of([t.id] * 400, times, noise.normal(10, 1, 400), 0, times, times) for t in tags]
    )


async def test_a_cut_is_seen_on_the_node_at_once_and_in_the_windows_of_the_runs_meanwhile(line):
    await line.write()
    held = await line.run()
    before = await line.shows(Status.GOOD)
    assert {p.coverage for p in held.predictions} == {1.0}

    line.wire.cut()
    lost = await line.shows(CUT_OFF)
    assert (lost.Value, lost.SourceTimestamp) == (before.Value, before.SourceTimestamp), "no run was there in between"
    line.wire.mend()
    again = await line.shows(Status.GOOD)
    assert (again.Value, again.SourceTimestamp) == (before.Value, before.SourceTimestamp), "what was said holds again"

    line.wire.cut()
    await line.shows(CUT_OFF)
    await asyncio.sleep(3)
    during = await line.run()
    assert all(p.coverage < 1.0 for p in during.predictions), "the hold of an hour ends with the server's last word"
    assert all(p.status & 0xC0000000 for p in during.predictions)

    line.wire.mend()
    await until(lambda: not line._scorer._looking.sources_away())
    await line.write()
    await asyncio.sleep(0.3)
    after = await line.run()
    assert {p.status for p in after.predictions} == {Status.GOOD}
    assert {p.coverage for p in after.predictions} == {1.0}, "the server sent what it had: nothing changed meanwhile"
    await line.shows(Status.GOOD)
