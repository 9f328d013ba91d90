"""Which timestamps a client of our OPC UA server is told: those that it asked for (OPC 10000-4, 7.40)."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua

from plugin.diagnostics import Diagnostics
from plugin.domain import Meaning, Outcome, OutputTag, Prediction, Run, RunKind, RunResult, Status
from plugin.publish.config import PublishConfig
from plugin.publish.server import OpcUaSink

pytestmark = pytest.mark.asyncio(loop_scope="module")

_TAG = OutputTag("rul", "engine-01", "rul", "cycles", 0.0, 125.0, "remaining life", Meaning.LIFETIME)
_CURRENT_TIME = ua.NodeId(ua.Int32(ua.ObjectIds.Server_ServerStatus_CurrentTime))
_WAIT = 10.0
_ASKED = {
    ua.TimestampsToReturn.Source: (True, False),
    ua.TimestampsToReturn.Server: (False, True),
    ua.TimestampsToReturn.Both: (True, True),
    ua.TimestampsToReturn.Neither: (False, False),
}
"""Whether there is a source time, and a server time."""
_WRONG: tuple[Any, ...] = (ua.TimestampsToReturn.Invalid, 7, -1)


class House:
    """An open sink, and a client of it."""

    def __init__(self, sink: OpcUaSink, client: Client, namespace: int) -> None:
        self.sink, self.client = sink, client
        self.value = ua.NodeId(ua.String(_TAG.name), ua.Int16(namespace))

    async def publish(self, value: float) -> datetime:
        now = datetime.now(UTC)
        later = now + timedelta(minutes=5)
        run = Run(1, "rul", RunKind.SCORE, now, now, now, RunResult.DONE, 3, 1)
        told = Prediction(_TAG, 3, now, later, later, value, None, None, Status.GOOD, 1.0, 1)
        await self.sink.publish(Outcome(run, (told,), ()))
        return now

    async def read(self, stamps: Any, *asked: tuple[ua.NodeId, ua.AttributeIds]) -> list[Any]:
        nodes = [ua.ReadValueId(node, attribute) for node, attribute in asked]
        found: list[Any] = await self.client.uaclient.read(ua.ReadParameters(0.0, stamps, nodes))
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    config = PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", security=("None",))
    sink = OpcUaSink(config, tmp_path_factory.mktemp("pki"), Diagnostics())
    async with sink.open([_TAG]), Client(sink.endpoint, timeout=_WAIT, watchdog_intervall=60) as client:
        house = House(sink, client, await client.get_namespace_index("urn:foretag:predictions"))
        await house.publish(50.0)
        yield house


def _told(value: Any) -> tuple[bool, bool]:
    return value.SourceTimestamp is not None, value.ServerTimestamp is not None


# --- Read -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stamps", list(_ASKED))
async def test_a_read_value_has_the_timestamps_that_were_asked_for(house: House, stamps: Any) -> None:
    since = await house.publish(60.0)
    value, clock = await house.read(
        stamps, (house.value, ua.AttributeIds.Value), (_CURRENT_TIME, ua.AttributeIds.Value)
    )
    assert (_told(value), value.Value.Value, value.StatusCode.value) == (_ASKED[stamps], 60.0, Status.GOOD)
    assert value.SourceTimestamp in {None, since}
    assert (clock.ServerTimestamp is not None) is _ASKED[stamps][1]


@pytest.mark.parametrize("stamps", list(_ASKED))
async def test_an_attribute_that_is_no_value_has_no_source_time(house: House, stamps: Any) -> None:
    (name,) = await house.read(stamps, (house.value, ua.AttributeIds.BrowseName))
    assert _told(name) == (False, _ASKED[stamps][1])
    assert name.Value.Value.Name == "rul"


@pytest.mark.parametrize("stamps", _WRONG)
async def test_a_read_that_asks_for_no_such_timestamps_is_refused(house: House, stamps: Any) -> None:
    with pytest.raises(ua.uaerrors.BadTimestampsToReturnInvalid):
        await house.read(stamps, (house.value, ua.AttributeIds.Value))


# --- monitored items ------------------------------------------------------------------------------------------------


class Ear:
    """A subscription that is asked by hand for each message."""

    def __init__(self, client: Client) -> None:
        self._session: Any = client.uaclient.session
        self.number: Any = 0

    async def open(self) -> None:
        made = await self._session.create_subscription(
            ua.CreateSubscriptionParameters(50.0, ua.UInt32(3000), ua.UInt32(1000), ua.UInt32(0), True, 0), print
        )
        self.number = made.SubscriptionId

    async def watch(self, node: ua.NodeId, attribute: ua.AttributeIds, stamps: Any) -> int:
        more = ua.MonitoringParameters(ua.UInt32(1), 0.0, None, ua.UInt32(10), True)
        request = ua.MonitoredItemCreateRequest(ua.ReadValueId(node, attribute), ua.MonitoringMode.Reporting, more)
        params = ua.CreateMonitoredItemsParameters(self.number, stamps, [request])
        (made,) = await self._session.create_monitored_items(params)
        made.StatusCode.check()
        return int(made.MonitoredItemId)

    async def change(self, item: int, stamps: Any) -> None:
        more = ua.MonitoringParameters(ua.UInt32(1), 0.0, None, ua.UInt32(10), True)
        request = ua.MonitoredItemModifyRequest(ua.IntegerId(item), more)
        (result,) = await self._session.modify_monitored_items(
            ua.ModifyMonitoredItemsParameters(self.number, stamps, [request])
        )
        result.StatusCode.check()

    async def hear(self) -> list[Any]:
        """The values of the next message that has some."""
        found: list[Any] = []
        async with asyncio.timeout(_WAIT):
            while not found:
                told = (await self._session.publish([])).Parameters
                news = told.NotificationMessage.NotificationData or []
                found = [item.Value for each in news for item in getattr(each, "MonitoredItems", ())]
        return found


@pytest_asyncio.fixture(loop_scope="module")
async def ear(house: House) -> AsyncIterator[Ear]:
    async with Client(house.sink.endpoint, timeout=_WAIT) as client:
        client.uaclient.session.ensure_publish_loop = lambda: None  # type: ignore[method-assign]
        ear = Ear(client)
        await ear.open()
        yield ear


@pytest.mark.parametrize("stamps", list(_ASKED))
async def test_a_monitored_value_has_the_timestamps_that_were_asked_for(house: House, ear: Ear, stamps: Any) -> None:
    await house.publish(20.0)
    await ear.watch(house.value, ua.AttributeIds.Value, stamps)
    (first,) = await ear.hear()
    since = await house.publish(30.0)
    (second,) = await ear.hear()
    assert [_told(first), _told(second)] == [_ASKED[stamps]] * 2
    assert (first.Value.Value, second.Value.Value, second.StatusCode.value) == (20.0, 30.0, Status.GOOD)
    assert second.SourceTimestamp in {None, since}


async def test_two_clients_of_a_value_have_each_the_timestamps_that_it_asked_for(house: House, ear: Ear) -> None:
    both, source = ua.TimestampsToReturn.Both, ua.TimestampsToReturn.Source
    await ear.watch(house.value, ua.AttributeIds.Value, both)
    await ear.watch(house.value, ua.AttributeIds.Value, source)
    assert {_told(value) for value in await ear.hear()} == {_ASKED[both], _ASKED[source]}


async def test_other_timestamps_are_told_from_the_change_of_an_item_on(house: House, ear: Ear) -> None:
    item = await ear.watch(house.value, ua.AttributeIds.Value, ua.TimestampsToReturn.Both)
    await ear.hear()
    for value, stamps in enumerate((ua.TimestampsToReturn.Server, ua.TimestampsToReturn.Both)):
        await ear.change(item, stamps)
        await house.publish(70.0 + value)
        assert {_told(told) for told in await ear.hear()} == {_ASKED[stamps]}


@pytest.mark.parametrize("stamps", list(_ASKED))
async def test_a_monitored_attribute_that_is_no_value_has_no_source_time(house: House, ear: Ear, stamps: Any) -> None:
    await ear.watch(house.value, ua.AttributeIds.BrowseName, stamps)
    (name,) = await ear.hear()
    assert _told(name) == (False, _ASKED[stamps][1])
    assert name.Value.Value.Name == "rul"


@pytest.mark.parametrize("stamps", _WRONG)
async def test_items_with_no_such_timestamps_are_refused(house: House, ear: Ear, stamps: Any) -> None:
    item = await ear.watch(house.value, ua.AttributeIds.Value, ua.TimestampsToReturn.Both)
    with pytest.raises(ua.uaerrors.BadTimestampsToReturnInvalid):
        await ear.watch(house.value, ua.AttributeIds.Value, stamps)
    with pytest.raises(ua.uaerrors.BadTimestampsToReturnInvalid):
        await ear.change(item, stamps)
