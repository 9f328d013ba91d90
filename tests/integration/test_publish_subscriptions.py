"""Subscriptions and reads of our OPC UA server, where asyncua's says Good and does something else."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua

from plugin.diagnostics import Diagnostics
from plugin.publish import wire
from plugin.publish.asyncua_server import PlantServer
from plugin.publish.config import PublishConfig
from plugin.publish.event_filter import Occurrence
from plugin.publish.people import People
from tests.integration.alarm_plant import event_filter

pytestmark = pytest.mark.asyncio(loop_scope="module")

_WAIT = 10.0
_NEVER = 3_600_000.0
"""Publishing interval [ms] of one that is asked by hand."""
_SERVER = ua.NodeId(ua.Int32(ua.ObjectIds.Server))
_BASE = ua.NodeId(ua.Int32(ua.ObjectIds.BaseEventType))
_NUMBER, _FLAG, _ARRAY = (ua.NodeId(ua.String(name), ua.Int16(1)) for name in ("number", "flag", "array"))


class House:
    """An open server, what is counted of it, and one client."""

    def __init__(self, server: PlantServer, client: Client, diagnostics: Diagnostics) -> None:
        self.server, self.client, self.diagnostics = server, client, diagnostics

    @property
    def session(self) -> Any:
        return self.client.uaclient.session

    async def subscribe(self, interval: float = _NEVER, keep: int = 10, at_once: int = 0) -> Any:
        """The server's side of a subscription for which nobody waits."""
        params = ua.CreateSubscriptionParameters(
            interval, ua.UInt32(3 * keep), ua.UInt32(keep), ua.UInt32(at_once), True, 0
        )
        made = await self.session.create_subscription(params, print)
        return self.server.subscriptions.subscriptions[made.SubscriptionId]

    async def item(self, subscription: Any, asked: ua.ReadValueId, demand: Any = None) -> Any:
        more = ua.MonitoringParameters(ua.UInt32(1), 0.0, demand, ua.UInt32(10), True)
        request = ua.MonitoredItemCreateRequest(asked, ua.MonitoringMode.Reporting, more)
        number = subscription.data.SubscriptionId
        params = ua.CreateMonitoredItemsParameters(number, ua.TimestampsToReturn.Both, [request])
        (result,) = await self.session.create_monitored_items(params)
        return result

    async def write(self, value: float) -> None:
        await self.server.write_attribute_value(_NUMBER, ua.DataValue(ua.Variant(value)))

    async def read(self, node: ua.NodeId, part: str = "", encoding: str | None = None) -> Any:
        name = ua.QualifiedName(ua.String(encoding)) if encoding else ua.QualifiedName()
        asked = ua.ReadValueId(node, ua.AttributeIds.Value, part, name)
        (found,) = await self.session.read(ua.ReadParameters(0.0, ua.TimestampsToReturn.Both, [asked]))
        return found

    def happen(self, count: int) -> None:
        """Events of the server."""
        for severity in range(1, count + 1):
            fields = {
                "EventType": ua.Variant(_BASE, ua.VariantType.NodeId),
                "Severity": ua.Variant(severity, ua.VariantType.UInt16),
            }
            self.server.subscriptions.tell_event(Occurrence(fields, frozenset((_BASE,)), (_SERVER,)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    diagnostics = Diagnostics()
    people = People(PublishConfig(), diagnostics)
    server = PlantServer(people, failed=lambda cause: diagnostics.requests_failed.labels(cause).inc())
    server.set_endpoint("opc.tcp://127.0.0.1:0")
    await server.init()
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    for node, value in ((_NUMBER, 1.0), (_FLAG, False), (_ARRAY, [1.0, 2.0, 3.0, 4.0])):
        await server.nodes.objects.add_variable(node, f"1:{node.Identifier!s}", value)
    await server.start()
    async with Client(f"opc.tcp://127.0.0.1:{server.port}", timeout=_WAIT) as client:
        client.uaclient.session.ensure_publish_loop = lambda: None  # type: ignore[method-assign]
        yield House(server, client, diagnostics)
    await server.stop()


def _value(node: ua.NodeId) -> ua.ReadValueId:
    return ua.ReadValueId(node, ua.AttributeIds.Value)


# --- time -----------------------------------------------------------------------------------------------------------


async def test_another_interval_is_in_force_at_once(house: House) -> None:
    heard: asyncio.Queue[float] = asyncio.Queue()

    class Listen:
        def datachange_notification(self, node: Any, value: float, data: Any) -> None:
            heard.put_nowait(value)

    async with Client(f"opc.tcp://127.0.0.1:{house.server.port}", timeout=_WAIT) as client:
        subscription = await client.create_subscription(_NEVER, Listen())
        await subscription.subscribe_data_change(client.get_node(_NUMBER))
        number: Any = subscription.subscription_id
        faster = ua.ModifySubscriptionParameters(number, 50.0, ua.UInt32(3000), ua.UInt32(1000), ua.UInt32(0))
        await client.uaclient.session.update_subscription(faster)
        for value in (2.0, 3.0):
            await house.write(value)
            while await asyncio.wait_for(heard.get(), _WAIT) != value:
                pass
        await subscription.delete()


async def test_what_a_stopped_process_missed_is_not_made_up(house: House) -> None:
    """Each turn without a client counts against the lifetime: a plant's gateway that was frozen would lose them all."""
    subscription = await house.subscribe(interval=50.0, keep=1)
    await house.item(subscription, _value(_NUMBER))
    while not subscription._publish_cycles_count:
        await asyncio.sleep(0.01)
    before = subscription._publish_cycles_count
    time.sleep(0.5)  # noqa: ASYNC251 - the loop stands still
    for _ in range(50):
        await asyncio.sleep(0)
    assert subscription._publish_cycles_count <= before + 1
    await house.session.delete_subscriptions([subscription.data.SubscriptionId])


async def test_a_subscription_that_fails_is_gone_and_counted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> Any:
        raise ZeroDivisionError

    subscription = await house.subscribe(interval=50.0, keep=1000)
    number = subscription.data.SubscriptionId
    await house.session.publish([])  # what a new one says first
    monkeypatch.setattr(subscription.backlog, "take", fail)
    publishing = asyncio.create_task(house.session.publish([]))
    await house.read(_NUMBER)  # now it waits there
    await house.item(subscription, _value(_NUMBER))
    async with asyncio.timeout(_WAIT):
        while number in house.server.subscriptions.subscriptions:
            await asyncio.sleep(0.02)
    assert house.diagnostics.value("requests_failed_total", cause="ZeroDivisionError") == 1
    publishing.cancel()
    with pytest.raises(ua.UaStatusCodeError, match="BadSubscriptionIdInvalid"):
        await house.session.republish(number, 1)


# --- messages -------------------------------------------------------------------------------------------------------


async def test_a_message_holds_no_more_values_and_events_than_the_client_asked_for(house: House) -> None:
    subscription = await house.subscribe(at_once=3)
    for node in (_NUMBER, _FLAG, _ARRAY):
        await house.item(subscription, _value(node))
    heard = ua.ReadValueId(_SERVER, ua.AttributeIds.EventNotifier)
    await house.item(subscription, heard, event_filter("Severity"))
    house.happen(2)
    sizes = []
    while subscription.backlog or subscription._triggered_events:
        data: Any = wire.reread(subscription._pop_publish_result().message).NotificationData
        sizes.append(sum(len(getattr(each, "Events", None) or each.MonitoredItems) for each in data))
    assert sizes == [3, 2]
    await house.session.delete_subscriptions([subscription.data.SubscriptionId])


async def test_a_request_that_waits_takes_no_room(house: House) -> None:
    """A client has as many of them as subscriptions, and some more."""
    subscription = await house.subscribe()
    await house.session.publish([])  # what a new one says first
    request = ua.PublishRequest()
    request.RequestHeader.AuditEntryId = "x" * 100_000
    waiting = asyncio.create_task(house.session._send_request(request, timeout=0))
    await house.read(_NUMBER)  # now it waits there
    listening: Any = house.server.bserver
    (kept,) = [data for each in listening.clients for data in each.processor._publish_requests]
    assert len(repr(kept.requesthdr)) < 10_000
    await house.item(subscription, _value(_NUMBER))
    await subscription.publish_results()
    await waiting
    await house.session.delete_subscriptions([subscription.data.SubscriptionId])


async def test_the_oldest_of_too_many_requests_is_answered_that_there_are_too_many(house: House) -> None:
    """As many as subscriptions, and ten."""
    subscription = await house.subscribe()
    await house.session.publish([])  # what a new one says first
    waiting = [asyncio.create_task(house.session.publish([])) for _ in range(12)]
    async with asyncio.timeout(_WAIT):
        with pytest.raises(ua.UaStatusCodeError, match="BadTooManyPublishRequests"):
            await waiting[0]
    assert not any(task.done() for task in waiting[1:])
    for task in waiting[1:]:
        task.cancel()
    await asyncio.wait(waiting)
    await house.session.delete_subscriptions([subscription.data.SubscriptionId])


async def test_a_request_that_is_larger_than_may_be_ends_the_connection(house: House) -> None:
    async with Client(f"opc.tcp://127.0.0.1:{house.server.port}", timeout=_WAIT) as client:
        large = ua.ReadParameters(0.0, ua.TimestampsToReturn.Both, [ua.ReadValueId(_ARRAY, 13, "9" * 5_000_000)])
        with pytest.raises((ua.uaerrors.BadRequestTooLarge, ConnectionError)):
            await client.uaclient.session.read(large)
    assert (await house.read(_NUMBER)).StatusCode.is_good()


async def test_what_waits_while_nothing_is_published_is_not_announced(house: House) -> None:
    subscription = await house.subscribe()
    await house.item(subscription, _value(_NUMBER))
    await subscription.set_publishing_mode(False)
    assert not subscription._pop_publish_result().more
    await subscription.set_publishing_mode(True)
    assert wire.reread(subscription._pop_publish_result().message).NotificationData
    await house.session.delete_subscriptions([subscription.data.SubscriptionId])


async def test_events_that_wait_are_dropped_when_their_item_is_switched_off(house: House) -> None:
    subscription = await house.subscribe()
    heard = ua.ReadValueId(_SERVER, ua.AttributeIds.EventNotifier)
    item = (await house.item(subscription, heard, event_filter("Severity"))).MonitoredItemId
    house.happen(2)
    number = subscription.data.SubscriptionId
    await house.session.set_monitoring_mode(ua.SetMonitoringModeParameters(number, ua.MonitoringMode.Disabled, [item]))
    assert not subscription._triggered_events
    await house.session.delete_subscriptions([number])


# --- filters and parts of values ------------------------------------------------------------------------------------


async def test_a_flag_has_no_deadband_that_it_could_never_leave(house: House) -> None:
    subscription = await house.subscribe()
    demand = ua.DataChangeFilter(ua.DataChangeTrigger.StatusValue, ua.UInt32(ua.DeadbandType.Absolute), 1.0)
    codes = [
        (await house.item(subscription, _value(node), demand)).StatusCode.name for node in (_FLAG, _NUMBER, _ARRAY)
    ]
    assert codes == ["BadFilterNotAllowed", "Good", "Good"]
    name = ua.ReadValueId(_NUMBER, ua.AttributeIds.DisplayName)
    assert (await house.item(subscription, name, demand)).StatusCode.name == "BadFilterNotAllowed"
    await house.session.delete_subscriptions([subscription.data.SubscriptionId])


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("1:2", [2.0, 3.0]), ("0", [1.0]), ("3:9", [4.0]), ("4", "BadIndexRangeNoData"), ("0,1", "BadIndexRangeNoData"),
        ("2:1", "BadIndexRangeInvalid"), ("1:1", "BadIndexRangeInvalid"), ("all", "BadIndexRangeInvalid"),
    ],
)  # fmt: skip
async def test_who_asks_for_a_part_of_an_array_gets_no_more(house: House, part: str, found: Any) -> None:
    answer = await house.read(_ARRAY, part)
    value = answer.Value.Value if answer.Value is not None else None
    assert (value if isinstance(found, list) else answer.StatusCode.name) == found
    assert isinstance(found, list) or value is None


async def test_a_number_has_no_parts_and_a_value_no_other_encoding(house: House) -> None:
    assert (await house.read(_NUMBER, "0")).StatusCode.name == "BadIndexRangeNoData"
    assert (await house.read(_NUMBER, encoding="Default XML")).StatusCode.name == "BadDataEncodingInvalid"
    assert (await house.read(_NUMBER, encoding="Default Binary")).StatusCode.is_good()
    with pytest.raises(ua.UaStatusCodeError, match="BadMaxAgeInvalid"):
        await house.session.read(ua.ReadParameters(-1.0, ua.TimestampsToReturn.Both, [_value(_NUMBER)]))


async def test_parts_are_not_monitored(house: House) -> None:
    """Rather than all of the value, as if it were the part."""
    subscription = await house.subscribe()
    asked = ua.ReadValueId(_ARRAY, ua.AttributeIds.Value, "1:2")
    assert (await house.item(subscription, asked)).StatusCode.name == "BadNotSupported"
    asked = ua.ReadValueId(_SERVER, ua.AttributeIds.EventNotifier, "1:2")
    assert (await house.item(subscription, asked, event_filter("Severity"))).StatusCode.name == "BadNotSupported"
    await house.session.delete_subscriptions([subscription.data.SubscriptionId])


@pytest.mark.parametrize(("asked", "given"), [(math.nan, 5000.0), (-1.0, 5000.0), (math.inf, 600_000.0)])
async def test_a_session_ends_some_time_whatever_its_client_asks_for(house: House, asked: float, given: float) -> None:
    """After not-a-number milliseconds the loop would look without end whether they are over."""
    client = Client(f"opc.tcp://127.0.0.1:{house.server.port}", timeout=_WAIT)
    await client.connect_sessionless()
    params = ua.CreateSessionParameters(RequestedSessionTimeout=asked)
    assert (await client.uaclient.create_session(params)).RevisedSessionTimeout == given
    await client.disconnect_sessionless()


async def test_a_session_is_told_how_much_a_request_may_hold(house: House) -> None:
    client = Client(f"opc.tcp://127.0.0.1:{house.server.port}", timeout=_WAIT)
    await client.connect_sessionless()
    assert (await client.create_session()).MaxRequestMessageSize == house.server.limits.max_message_size
    await client.disconnect_sessionless()
