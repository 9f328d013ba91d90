"""Cuts, restarts, refusals: what is stored and what gaps record is all that was written, each once and in order."""

import asyncio
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asyncua import ua

from plugin.acquire.source import State
from plugin.domain import GapCause, GapState, SampleBatch
from tests.integration.acquire_plant import Historian, Plant, Wire, make, running, until

TAGS = 3


async def feed(plant: Plant, *numbers: int) -> None:
    for number in numbers:
        await plant.write(number)
        await asyncio.sleep(0.01)


async def arrived(historian: Historian, number: int) -> None:
    await until(lambda: all(historian.numbers(tag)[-1:] == [number] for tag in range(1, TAGS + 1)))


def whole(historian: Historian, last: int) -> None:
    """Every number once, in order, for every tag."""
    for tag in range(1, TAGS + 1):
        assert historian.numbers(tag) == list(range(1, last + 1))


@pytest.mark.parametrize("cut", ["reset", "half-open"])
async def test_nothing_is_lost_over_a_cut(tmp_path: Path, cut: str) -> None:
    plant, historian = Plant(TAGS), Historian()
    await plant.start()
    async with Wire(plant.port) as wire, running(make(wire.port, TAGS, tmp_path), historian) as source:
        await until(source.connected)
        await feed(plant, *range(1, 11))
        await arrived(historian, 10)
        await asyncio.sleep(0.7)  # keep-alives just before the cut carry the next number
        wire.cut() if cut == "reset" else wire.swallow()
        await feed(plant, *range(11, 31))
        if cut == "half-open":
            await until(lambda: source.state is State.CONNECTING)
        wire.mend()
        await feed(plant, *range(31, 41))
        await arrived(historian, 40)
    await plant.stop()
    whole(historian, 40)
    assert not historian.gaps


async def test_messages_swallowed_on_their_way_are_sent_again(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS), Historian()
    await plant.start()
    async with Wire(plant.port) as wire, running(make(wire.port, TAGS, tmp_path), historian) as source:
        await until(source.connected)
        wire.swallow()
        await feed(plant, *range(1, 21))  # published into the hole, unacknowledged
        await asyncio.sleep(0.3)
        wire.mend()
        await feed(plant, 21)
        await arrived(historian, 21)
    await plant.stop()
    whole(historian, 21)


async def test_a_restarted_server_gets_all_items_again_and_the_gap_is_recorded(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS), Historian()
    await plant.start()
    async with running(make(plant.port, TAGS, tmp_path), historian) as source:
        await until(source.connected)
        await feed(plant, 1, 2)
        await arrived(historian, 2)
        await plant.stop()
        await until(lambda: not source.connected())
        again = Plant(TAGS, port=plant.port)
        await again.start(missing=1)  # t0 appears later
        await until(source.connected)
        assert source.state is State.DEGRADED
        assert [item.tag.name for item in source.items if not item.monitored] == ["t0"]
        await again.add(0)
        await until(lambda: source.state is State.RUNNING)
        await feed(again, 5)
        await arrived(historian, 5)
    await again.stop()
    assert historian.stored(2) == [1, 2, 5]
    causes = {gap.cause for gap in historian.gaps.values() if gap.tag is None}
    assert causes <= {GapCause.SERVER_DOWN, GapCause.SUBSCRIPTION_LOST}
    assert causes
    assert all(gap.end is not None and gap.state is GapState.UNFILLABLE for gap in historian.gaps.values())
    refused = [gap for gap in historian.gaps.values() if gap.tag == "t0"]
    assert [gap.cause for gap in refused] == [GapCause.BAD_ITEM]


async def test_one_unknown_node_among_many(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS), Historian()
    await plant.start()
    source = make(plant.port, TAGS + 1, tmp_path)
    async with running(source, historian):
        await until(source.connected)
        await feed(plant, 1, 2, 3)
        await arrived(historian, 3)
        assert source.state is State.DEGRADED
        gap = next(iter(historian.gaps.values()))
        assert (gap.tag, gap.cause, gap.end) == (f"t{TAGS}", GapCause.BAD_ITEM, None)
        assert "BadNodeIdUnknown" in gap.detail
    await plant.stop()
    whole(historian, 3)


@pytest.mark.parametrize("refusal", ["BadServiceUnsupported", "BadNothingToDo", "BadUserAccessDenied"])
async def test_refused_transfer_on_a_living_session_costs_nothing(tmp_path: Path, refusal: str) -> None:
    plant, historian = Plant(TAGS), Historian()
    await plant.start()

    async def refuse(*_: Any) -> Any:
        raise ua.UaStatusCodeError(getattr(ua.StatusCodes, refusal))

    service: Any = plant.server.iserver.subscription_service
    service.transfer_subscriptions = refuse
    async with Wire(plant.port) as wire, running(make(wire.port, TAGS, tmp_path), historian) as source:
        await until(source.connected)
        await feed(plant, 1, 2)
        wire.cut()
        await feed(plant, *range(3, 12))
        wire.mend()
        await feed(plant, 12)
        await arrived(historian, 12)
    await plant.stop()
    whole(historian, 12)
    assert not historian.gaps


async def test_a_lost_session_is_one_gap_and_goes_on(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS), Historian()
    await plant.start()
    async with Wire(plant.port) as wire, running(make(wire.port, TAGS, tmp_path), historian) as source:
        await until(source.connected)
        await feed(plant, 1, 2)
        await arrived(historian, 2)
        wire.cut()
        await until(lambda: not source.connected())
        service = plant.server.iserver.subscription_service
        await service.delete_subscriptions(list(service.subscriptions))
        wire.mend()
        await until(source.connected)
        await feed(plant, 3)
        await arrived(historian, 3)
    await plant.stop()
    assert [gap.cause for gap in historian.gaps.values()] == [GapCause.SUBSCRIPTION_LOST]
    assert historian.stored(1) == [1, 2, 3]


async def test_batches_are_halved_where_the_server_finds_them_too_big(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS + 7), Historian()
    await plant.start()
    service: Any = plant.server.iserver.subscription_service
    create, sizes = service.create_monitored_items, []

    async def limited(params: ua.CreateMonitoredItemsParameters, *more: Any) -> Any:
        sizes.append(len(params.ItemsToCreate))
        if len(params.ItemsToCreate) > 3:
            raise ua.UaStatusCodeError(ua.StatusCodes.BadTooManyOperations)
        return await create(params, *more)

    service.create_monitored_items = limited
    async with running(make(plant.port, TAGS + 7, tmp_path), historian) as source:
        await until(source.connected)
        assert all(item.monitored for item in source.items)
        await feed(plant, 1)
        await arrived(historian, 1)
    await plant.stop()
    assert max(sizes[2:]) <= 3


async def test_a_slow_consumer_slows_the_server_down_and_loses_nothing(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS), Historian()
    await plant.start()
    historian.pause = 0.15
    async with running(make(plant.port, TAGS, tmp_path), historian) as source:
        await until(source.connected)
        await feed(plant, *range(1, 101))
        historian.pause = 0.0
        await arrived(historian, 100)
    await plant.stop()
    whole(historian, 100)
    assert not historian.gaps


async def test_what_is_not_confirmed_is_not_acknowledged(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS), Historian()
    await plant.start()
    historian.confirming = False
    async with running(make(plant.port, TAGS, tmp_path), historian) as source:
        await until(source.connected)
        await feed(plant, *range(1, 6))
        await arrived(historian, 5)
        await feed(plant, *range(6, 11))
        await arrived(historian, 10)
        kept = next(iter(plant.server.iserver.subscription_service.subscriptions.values()))._not_acknowledged_results
        assert len(kept) >= 2
        historian.confirming = True
        await feed(plant, 11)
        await arrived(historian, 11)
        await feed(plant, 12)
        await arrived(historian, 12)
        await feed(plant, 13)
        await arrived(historian, 13)
        assert 1 in kept
        await until(lambda: max(kept) not in kept or len(kept) < 12)
    await plant.stop()
    whole(historian, 13)


async def test_a_message_that_never_comes_is_one_gap_and_order_is_kept(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS), Historian()
    await plant.start()
    async with running(make(plant.port, TAGS, tmp_path), historian) as source:
        await until(source.connected)
        await feed(plant, 1, 2)
        await arrived(historian, 2)
        subscription: Any = next(iter(plant.server.iserver.subscription_service.subscriptions.values()))
        skipped = subscription._notification_seq
        subscription._notification_seq += 1  # the server loses a message, and can't send it again
        await feed(plant, 3, 4, 5)
        await arrived(historian, 5)
    await plant.stop()
    whole(historian, 5)
    (gap,) = historian.gaps.values()
    assert (gap.cause, gap.tag, gap.state) == (GapCause.SEQUENCE, None, GapState.UNFILLABLE)
    assert str(skipped) in gap.detail


async def test_numbers_wrap_without_a_gap(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS), Historian()
    await plant.start()
    async with running(make(plant.port, TAGS, tmp_path), historian) as source:
        await until(source.connected)
        await feed(plant, 1)
        await arrived(historian, 1)
        subscription: Any = next(iter(plant.server.iserver.subscription_service.subscriptions.values()))
        ours: Any = source._roster.subscriptions[0]
        subscription._notification_seq = 0xFFFF_FFFF
        ours._messages.restart(0xFFFF_FFFE)
        await plant.write(2)
        await arrived(historian, 2)
        subscription._notification_seq = 1
        await feed(plant, 3, 4)
        await arrived(historian, 4)
    await plant.stop()
    whole(historian, 4)
    assert not historian.gaps


async def test_a_structure_and_a_text_among_numbers_cost_only_themselves(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS), Historian()
    await plant.start()
    body = ua.ByteString(b"\xff\xff\xff\xff\x7f")
    alien = ua.ExtensionObject(ua.NodeId(ua.Int32(4711), ua.Int16(plant.index)), body)
    odd = [ua.Variant(alien, ua.VariantType.ExtensionObject), ua.Variant("text", ua.VariantType.String)]
    attribute: Any = plant.server.iserver.aspace._nodes[plant.nodes[1].nodeid].attributes[ua.AttributeIds.Value]
    source = make(plant.port, TAGS, tmp_path)
    async with running(source, historian):
        await until(source.connected)
        await feed(plant, 1)
        await arrived(historian, 1)
        for value in odd:  # past the server's check of types
            data = ua.DataValue(value, SourceTimestamp=ua.DateTime(2026, 2, 1, tzinfo=UTC))
            for handle, callback in list(attribute.datachange_callbacks.items()):
                await callback(handle, data)
        await feed(plant, 9)
        await arrived(historian, 9)
    await plant.stop()
    whole = SampleBatch.concatenate(historian.batches)
    assert np.isnan(whole.value[whole.tag == 2]).tolist() == [False, False, True, True, False]
    assert historian.stored(1) == historian.stored(2) == historian.stored(3) == [1, 9]
    assert not historian.gaps


async def test_a_removed_node_is_asked_for_again(tmp_path: Path) -> None:
    plant, historian = Plant(TAGS), Historian()
    await plant.start()
    async with running(make(plant.port, TAGS, tmp_path), historian) as source:
        await until(source.connected)
        await feed(plant, 1)
        await arrived(historian, 1)
        gone = ua.StatusCodes.BadNodeIdUnknown
        await plant.write(2, status=int(gone))  # what a conforming server reports when a node goes away
        first = source.items[0].id
        await until(lambda: source.items[0].id not in (0, first))
        await feed(plant, 3)
        await until(lambda: 3 in historian.numbers(1))
    await plant.stop()
