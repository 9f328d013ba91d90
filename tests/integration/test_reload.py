"""Other tags while values flow: nothing else is touched, nothing is lost, what is new is asked for at once."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from plugin.acquire.source import OpcUaSource, State
from plugin.domain import GapCause, GapState, Tag
from tests.integration.acquire_plant import URI, Historian, Plant, Wire, make, running, tags, until


async def feed(plant: Plant, *numbers: int) -> None:
    for number in numbers:
        await plant.write(number)
        await asyncio.sleep(0.01)


async def arrived(historian: Historian, number: int, *ids: int) -> None:
    await until(lambda: all(number in historian.numbers(tag) for tag in ids))


class Calls:
    """How often, and with how many items, the server was asked to create and to delete."""

    def __init__(self, plant: Plant) -> None:
        service: Any = plant.server.iserver.subscription_service
        self.created: list[int] = []
        self.deleted: list[int] = []
        create, delete = service.create_monitored_items, service.delete_monitored_items

        async def creating(params: Any, *more: Any) -> Any:
            self.created.append(len(params.ItemsToCreate))
            return await create(params, *more)

        def deleting(params: Any, *more: Any) -> Any:
            self.deleted.append(len(params.MonitoredItemIds))
            return delete(params, *more)

        service.create_monitored_items, service.delete_monitored_items = creating, deleting


@pytest.fixture
async def plant() -> Any:
    plant = Plant(6, history=True)
    await plant.start()
    yield plant
    await plant.stop()


async def test_tags_come_and_go_and_the_others_are_not_touched(tmp_path: Path, plant: Plant) -> None:
    historian = Historian()
    source = make(plant.port, 3, tmp_path)
    async with running(source, historian):
        await until(source.connected)
        calls, before = Calls(plant), {item.tag.name: item.id for item in source.items}
        await feed(plant, 1, 2)
        await arrived(historian, 2, 1, 2, 3)
        source.change([*tags(5)[:2], *tags(5)[3:]])
        await feed(plant, *range(3, 10))
        await until(lambda: calls.deleted == [1])
        await feed(plant, 10)
        await arrived(historian, 10, 1, 2, 4, 5)
        assert {item.tag.name for item in source.items} == {"t0", "t1", "t3", "t4"}
        assert {item.tag.name: item.id for item in source.items}.items() >= {
            "t0": before["t0"],
            "t1": before["t1"],
        }.items()
        assert calls.created == [2]
    for tag in (1, 2):
        assert historian.numbers(tag) == list(range(1, 11))
    assert historian.numbers(3)[-1:] < [10]
    assert not historian.gaps


@pytest.mark.parametrize(
    "change", [{"sampling": timedelta(milliseconds=20)}, {"node": f"nsu={URI};s=t5"}], ids=["sampling", "node"]
)
async def test_a_changed_tag_is_asked_for_anew_without_a_gap(tmp_path: Path, plant: Plant, change: Any) -> None:
    historian = Historian()
    source = make(plant.port, 2, tmp_path)
    async with running(source, historian):
        await until(source.connected)
        calls, old = Calls(plant), source.items[1]
        await feed(plant, 1, 2)
        await arrived(historian, 2, 1, 2)
        source.change([tags(1)[0], replace(tags(2)[1], **change)])
        await feed(plant, *range(3, 12))
        await until(lambda: calls.deleted == [1])
        await feed(plant, 12)
        await arrived(historian, 12, 1, 2)
        assert calls.created == [1]
        assert source.items[1].handle != old.handle
        assert source.state is State.RUNNING
    assert historian.stored(1) == historian.stored(2) == list(range(1, 13))
    assert not historian.gaps


async def test_what_the_server_need_not_know_is_not_told_to_it(tmp_path: Path, plant: Plant) -> None:
    source = make(plant.port, 2, tmp_path)
    async with running(source, Historian()):
        await until(source.connected)
        calls, items = Calls(plant), source.items
        source.change([replace(tag, unit="bar", low=0.0, high=9.0, asset="pump", feature=tag.name) for tag in tags(2)])
        source.change([*source_tags(source), tags(3)[2]])
        await until(lambda: calls.created == [1])
        assert source.items[:2] == items
        assert source.items[0].tag.unit == "bar"
        assert not calls.deleted


def source_tags(source: OpcUaSource) -> list[Tag]:
    return [item.tag for item in source.items]


async def test_a_change_during_a_cut_takes_effect_after_it(tmp_path: Path, plant: Plant) -> None:
    historian = Historian()
    async with Wire(plant.port) as wire, running(make(wire.port, 3, tmp_path), historian) as source:
        await until(source.connected)
        await feed(plant, 1, 2)
        await arrived(historian, 2, 1, 2, 3)
        wire.cut()
        await until(lambda: not source.connected())
        source.change([tags(4)[0], replace(tags(4)[1], deadband=0.1), tags(4)[3]])
        await feed(plant, 3, 4)
        wire.mend()
        await until(lambda: source.connected() and all(item.monitored for item in source.items))
        await feed(plant, 5)
        await arrived(historian, 5, 1, 2, 4)
    assert historian.stored(1) == historian.stored(2) == [1, 2, 3, 4, 5]
    assert 5 not in historian.stored(3)
    assert not historian.gaps


async def test_a_refused_tag_that_is_removed_closes_its_gap(tmp_path: Path, plant: Plant) -> None:
    historian = Historian()
    source = make(plant.port, 7, tmp_path)
    async with running(source, historian):
        await until(lambda: source.state is State.DEGRADED)
        source.change(tags(6))
        await until(lambda: source.state is State.RUNNING)
        await until(lambda: all(gap.state is not GapState.OPEN for gap in historian.gaps.values()))
    (gap,) = historian.gaps.values()
    assert (gap.tag, gap.cause, gap.state) == ("t6", GapCause.BAD_ITEM, GapState.UNFILLABLE)
    assert gap.end is not None
    assert "removed from the configuration" in gap.detail


async def test_a_refused_tag_whose_node_is_corrected_is_filled_from_the_right_node(
    tmp_path: Path, plant: Plant
) -> None:
    historian = Historian()
    source = make(plant.port, 7, tmp_path, history={"back": "all", "settle": "0s"})
    async with running(source, historian):
        await until(lambda: source.state is State.DEGRADED and source.history_progress().finished)
        for number in (1, 2):
            await plant.put(plant.nodes[0], float(number), datetime.now(UTC))
        source.change([*tags(6), replace(tags(7)[6], node=f"nsu={URI};s=t0")])
        await until(lambda: any(gap.state is GapState.FILLED for gap in historian.gaps.values()))
        await plant.put(plant.nodes[0], 3.0, datetime.now(UTC))
        await arrived(historian, 3, 7)
    assert historian.stored(7) == [1, 2, 3]


async def test_more_tags_than_a_subscription_holds_get_one_of_their_own(tmp_path: Path, plant: Plant) -> None:
    historian = Historian()
    source = make(plant.port, 2, tmp_path, subscription_size=3)
    async with running(source, historian):
        await until(source.connected)
        source.change(tags(6))
        await until(lambda: all(item.monitored for item in source.items))
        assert [len(subscription.items) for subscription in source._roster.subscriptions] == [3, 3]
        await feed(plant, 1, 2, 3)
        await arrived(historian, 3, *range(1, 7))
        await asyncio.sleep(1.0)  # both keep alive
        assert source.connected()
    assert all(historian.stored(tag)[-2:] == [2, 3] for tag in range(1, 7))


async def test_the_past_of_an_added_tag_is_read_and_what_a_returning_one_missed(tmp_path: Path, plant: Plant) -> None:
    historian = Historian()
    await feed(plant, *range(1, 11))
    source = make(plant.port, 2, tmp_path, history={"back": "all", "settle": "0s"})
    async with running(source, historian):
        await until(lambda: source.history_progress().finished and source.connected())
        source.change(tags(3)[::2])
        await until(lambda: source.history_progress().finished and historian.stored(3) == list(range(1, 11)))
        await feed(plant, 11, 12)
        await arrived(historian, 12, 1, 3)
        assert 12 not in historian.stored(2)
        source.change(tags(3), historian.known(), historian.checkpoints)
        await until(lambda: any(gap.state is GapState.FILLED for gap in historian.gaps.values()))
        assert source.history_progress().total == 4
    assert historian.stored(1) == historian.stored(2) == historian.stored(3) == list(range(1, 13))
    (gap,) = historian.gaps.values()
    assert (gap.tag, gap.cause) == ("t1", GapCause.CLIENT_DOWN)


async def test_a_source_without_tags_gets_some_and_loses_them_again(tmp_path: Path, plant: Plant) -> None:
    historian = Historian()
    async with Wire(plant.port) as wire:
        source = make(wire.port, 0, tmp_path)
        async with running(source, historian):
            await asyncio.sleep(0)
            source.change(tags(1))
            await until(source.connected)
            await feed(plant, 1)
            await arrived(historian, 1, 1)
            source.change([])
            await until(lambda: not source._roster.subscriptions[0].leaving)
            wire.cut()
            service = plant.server.iserver.subscription_service
            await service.delete_subscriptions(list(service.subscriptions))
            wire.mend()
            await until(lambda: source.state is State.RUNNING)
            source.change(tags(2))
            await until(lambda: len(source.items) == 2 and all(item.monitored for item in source.items))
            await feed(plant, 2)
            await arrived(historian, 2, 1, 2)
