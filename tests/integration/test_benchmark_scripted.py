"""The plant that benchmarks are measured on says what it should, in None and encrypted."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from plugin.acquire.config import SourceConfig
from plugin.acquire.source import OpcUaSource
from plugin.diagnostics import Diagnostics
from plugin.domain import SampleBatch, Tag
from tests.benchmarks._drain import CLIENTS, described, source
from tests.benchmarks._measuring import Task
from tests.benchmarks._notifications import KINDS, URI
from tests.benchmarks._notifications import Tag as PlantTag
from tests.benchmarks._scripted import scripted


async def received(plant: OpcUaSource, values: int) -> SampleBatch:
    """The first so many."""
    batches: list[SampleBatch] = []
    deliveries = plant.deliveries()
    async with asyncio.timeout(20):
        while sum(map(len, batches)) < values:
            delivery = await anext(deliveries)
            delivery.confirm()
            batches.append(delivery.samples)
    await deliveries.aclose()  # type: ignore[attr-defined]
    return SampleBatch.concatenate(batches)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("secured", [False, True])
async def test_values_statuses_and_times_arrive_as_the_plant_has_them(tmp_path: Path, kind: str, secured: bool) -> None:
    async with scripted(folder=tmp_path / "plant") as port:
        certificate = tmp_path / "plant" / "own" / "own.der" if secured else None
        task = Task(port, kind, tags=300, seconds=0.0, server_certificate=certificate)
        samples = await received(source(task, tmp_path, described(task), Diagnostics()), 1200)

    tags = [PlantTag(kind, int(number) - 1) for number in samples.tag]
    assert samples.value.tolist() == [tag.value for tag in tags]
    assert samples.status.tolist() == [tag.status for tag in tags]
    delays = np.array([tag.delay for tag in tags])
    assert (np.abs(samples.server_time - samples.source_time - delays / 10) <= 1).all()
    for number in set(samples.tag.tolist()):  # a second between a tag's values
        times = samples.source_time[samples.tag == number]
        assert (np.diff(times) % 1_000_000 == 0).all()
        assert (np.diff(times) > 0).all()
    assert (len(set(samples.tag.tolist())) == 300) or kind == "half"


async def test_subscriptions_take_turns_and_an_interval_paces_them(tmp_path: Path) -> None:
    async with scripted(interval=0.05) as port:
        tags = [Tag(f"t{place}", "plant", f"nsu={URI};s=mixed.{place}", id=place + 1) for place in range(30)]
        config = SourceConfig.model_validate(
            {
                "name": "plant", "endpoint": f"opc.tcp://127.0.0.1:{port}/plant", "security_policy": "None",
                "subscription_size": 10, "history": {"enabled": False},
            }
        )  # fmt: skip
        samples = await received(OpcUaSource(config, tags, Diagnostics(), tmp_path / "pki"), 90)

    assert sorted(samples.tag.tolist()) == sorted(list(range(1, 31)) * 3)


@pytest.mark.parametrize("client", CLIENTS)
async def test_every_client_counts_what_it_takes(tmp_path: Path, client: str) -> None:
    async with scripted() as port:
        task = Task(port, "mixed", tags=50, seconds=0.1)
        async with asyncio.timeout(20):
            result = await CLIENTS[client](task, tmp_path)

    assert result["values"] >= 50
    assert result["cpu"] > 0
    if client == "to_rows":
        assert result["stored"] >= result["values"]
        assert not result["duplicates"]


def test_the_plant_knows_no_other_tags() -> None:
    for name in ("mixed", "mixed.x", "other.1", ""):
        with pytest.raises(ValueError, match=name or "^$"):
            PlantTag.named(name)


async def test_the_plant_refuses_nodes_that_it_has_not(tmp_path: Path) -> None:
    async with scripted() as port:
        tags = [
            Tag(f"t{number}", "plant", node, id=number + 1)
            for number, node in enumerate((f"nsu={URI};s=mixed.1", f"nsu={URI};s=other.1", "i=2258", f"nsu={URI};i=7"))
        ]
        plant = source(Task(port, "mixed", tags=1, seconds=0.0), tmp_path, tags, Diagnostics())
        samples = await received(plant, 3)

    assert [item.status for item in plant.items] == [0, *3 * [0x80340000]]  # BadNodeIdUnknown
    assert set(samples.tag.tolist()) == {1}
