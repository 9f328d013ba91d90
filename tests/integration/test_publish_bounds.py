"""What one request, and all clients together, may cost our OPC UA server."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua

from plugin.acquire.browse import browse
from plugin.diagnostics import Diagnostics
from plugin.publish import asyncua_connection, asyncua_subscriptions, browsing
from plugin.publish.asyncua_server import PlantServer
from plugin.publish.config import PublishConfig
from plugin.publish.event_filter import Occurrence
from plugin.publish.people import People
from tests.integration.acquire_plant import config
from tests.integration.alarm_plant import event_filter

pytestmark = pytest.mark.asyncio(loop_scope="module")

_WAIT = 10.0
_OBJECTS = ua.NodeId(ua.Int32(ua.ObjectIds.ObjectsFolder))
_BASE = ua.NodeId(ua.Int32(ua.ObjectIds.BaseEventType))
_COMPONENTS = ua.NodeId(ua.Int32(ua.ObjectIds.HierarchicalReferences))


class House:
    """An open server, and what is counted of it."""

    def __init__(self) -> None:
        self.diagnostics = Diagnostics()
        people = People(PublishConfig(), self.diagnostics)
        self.server = PlantServer(
            people,
            cut_off=lambda cause: self.diagnostics.clients_cut_off.labels(cause).inc(),
            failed=lambda cause: self.diagnostics.requests_failed.labels(cause).inc(),
            lose_event=self.diagnostics.client_events_lost.inc,
            lose_values=self.diagnostics.client_values_lost.inc,
        )

    def client(self) -> Client:
        return Client(f"opc.tcp://127.0.0.1:{self.server.port}", timeout=_WAIT)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    made = House()
    server = made.server
    server.set_endpoint("opc.tcp://127.0.0.1:0")
    await server.init()
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    folder = await server.nodes.objects.add_folder(ua.NodeId(ua.String("plant"), ua.Int16(1)), "1:plant")
    for number in range(300):
        await folder.add_variable(ua.NodeId(ua.Int32(9000 + number), ua.Int16(1)), f"1:tag-{number}", 1.0)
    await folder.add_variable(ua.NodeId(ua.String("large"), ua.Int16(1)), "1:large", bytes(1_000_000))
    await server.start()
    yield made
    await server.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def session(house: House) -> AsyncIterator[Any]:
    async with house.client() as client:
        yield client.uaclient.session


_FOLDER = ua.NodeId(ua.String("plant"), ua.Int16(1))


def _asked(node: ua.NodeId, **more: Any) -> ua.BrowseDescription:
    return ua.BrowseDescription(
        NodeId=node,
        BrowseDirection=more.get("direction", ua.BrowseDirection.Both),
        ReferenceTypeId=more.get("kind", ua.NodeId()),
        IncludeSubtypes=more.get("subtypes", True),
        NodeClassMask=ua.UInt32(more.get("classes", 0)),
        ResultMask=ua.UInt32(63),
    )


async def _browse(session: Any, *asked: ua.BrowseDescription) -> Any:
    return await session.browse(ua.BrowseParameters(NodesToBrowse=list(asked)))


def _path(*names: str, start: ua.NodeId = _OBJECTS) -> ua.BrowsePath:
    no: Any = False
    yes: Any = True
    names_ = [ua.QualifiedName(ua.String(name), ua.UInt16(1)) for name in names]
    elements = [ua.RelativePathElement(_COMPONENTS, no, yes, name) for name in names_]
    return ua.BrowsePath(start, ua.RelativePath(elements))


async def test_the_limits_are_told_to_clients(house, session):
    for name in ("Browse", "TranslateBrowsePathsToNodeIds"):
        number = getattr(ua.ObjectIds, f"Server_ServerCapabilities_OperationLimits_MaxNodesPer{name}")
        (told,) = await session.read_attributes([ua.NodeId(ua.Int32(number))], ua.AttributeIds.Value)
        assert told.Value.Value == browsing.NODES


async def test_one_node_asked_for_again_and_again_is_no_endless_answer(session, monkeypatch):
    monkeypatch.setattr(browsing, "_ANSWERED", 1000)
    found = await _browse(session, *[_asked(_FOLDER)] * 300)
    assert sum(len(one.References) for one in found) < 1000 + 300
    names = [one.StatusCode.name for one in found]
    assert (names[0], names[-1]) == ("Good", "BadNoContinuationPoints")
    assert [bool(one.ContinuationPoint) for one in found].count(True) == browsing.POINTS
    await _release(session, found)
    nothing = _asked(_FOLDER, classes=ua.NodeClass.DataType)
    (one, *_) = await _browse(session, *[nothing] * 300)
    assert one.References == []
    with pytest.raises(ua.UaStatusCodeError, match="BadTooManyOperations"):
        await _browse(session, *[nothing] * (browsing.NODES + 1))


async def _release(session: Any, found: Any) -> list[str]:
    points = [one.ContinuationPoint for one in found if one.ContinuationPoint]
    return [one.StatusCode.name for one in await _next(session, *points, release=True)]


async def _next(session: Any, *points: bytes, release: bool = False) -> Any:
    asked = ua.BrowseNextParameters(ReleaseContinuationPoints=release, ContinuationPoints=list(points))
    return await session.browse_next(asked)


async def _in_pages(session: Any, most: int, *asked: ua.BrowseDescription) -> list[list[Any]]:
    """References of each node, in pages of so many."""
    params = ua.BrowseParameters(NodesToBrowse=list(asked), RequestedMaxReferencesPerNode=ua.UInt32(most))
    found = await session.browse(params)
    pages = [list(one.References) for one in found]
    open_ = [(place, one) for place, one in enumerate(found) if one.ContinuationPoint]
    while open_:
        more = await _next(session, *(one.ContinuationPoint for _, one in open_))
        for (place, _), one in zip(open_, more, strict=True):
            assert len(one.References) <= most
            pages[place] += one.References
        open_ = [(place, one) for (place, _), one in zip(open_, more, strict=True) if one.ContinuationPoint]
    return pages


@pytest.mark.parametrize("most", [1, 7, 150, 301, 302, 1000])
async def test_a_browse_goes_on_where_it_ended(session, most):
    asked = [_asked(_FOLDER), _asked(_FOLDER, kind=_COMPONENTS, direction=ua.BrowseDirection.Forward), _asked(_OBJECTS)]
    whole = [one.References for one in await _browse(session, *asked)]
    assert await _in_pages(session, most, *asked) == whole


async def test_a_continuation_point_is_its_sessions_counts_once_and_can_be_released(house, session):
    params = ua.BrowseParameters(NodesToBrowse=[_asked(_FOLDER)] * 3, RequestedMaxReferencesPerNode=ua.UInt32(10))
    first, second, third = [one.ContinuationPoint for one in await session.browse(params)]
    assert len({first, second, third}) == 3
    async with house.client() as other:
        (stranger,) = await _next(other.uaclient.session, first)
        assert stranger.StatusCode.name == "BadContinuationPointInvalid"
    (going_on,) = await _next(session, first)
    assert len(going_on.References) == 10
    (again,) = await _next(session, first)
    assert (again.StatusCode.name, again.References) == ("BadContinuationPointInvalid", [])
    released = await _next(session, second, third, b"nonsense", release=True)
    assert [one.StatusCode.name for one in released] == ["Good", "Good", "BadContinuationPointInvalid"]
    assert all(not one.References for one in released)
    (gone,) = await _next(session, second)
    assert gone.StatusCode.name == "BadContinuationPointInvalid"
    await _next(session, going_on.ContinuationPoint, release=True)
    with pytest.raises(ua.UaStatusCodeError, match="BadTooManyOperations"):
        await _next(session, *[b"nonsense"] * (browsing.NODES + 1))
    view = ua.ViewDescription(ViewId=ua.NodeId(ua.Int32(4711)))
    with pytest.raises(ua.UaStatusCodeError, match="BadViewIdUnknown"):
        await session.browse(ua.BrowseParameters(View=view, NodesToBrowse=[_asked(_FOLDER)]))


async def test_our_own_client_reads_on_too(house, monkeypatch, tmp_path):
    monkeypatch.setattr(browsing, "_ANSWERED", 100)
    found = await browse(config(house.server.port), tmp_path, "urn:test", under="plant", limit=1000)
    assert len(found) == 301


async def test_references_that_are_looked_at_for_nothing_are_counted_too(session, monkeypatch):
    monkeypatch.setattr(browsing, "_LOOKED_AT", 5000)
    with pytest.raises(ua.UaStatusCodeError, match="BadTooManyOperations"):
        await _browse(session, *[_asked(_FOLDER, classes=ua.NodeClass.DataType)] * 100)


@pytest.mark.parametrize("direction", list(ua.BrowseDirection)[:3])
@pytest.mark.parametrize("kind", [ua.NodeId(), _COMPONENTS])
@pytest.mark.parametrize("subtypes", [True, False])
async def test_what_is_answered_is_what_asyncua_answers(house, session, direction, kind, subtypes):
    asked = [
        _asked(node, direction=direction, kind=kind, subtypes=subtypes, classes=classes)
        for node in (_OBJECTS, _BASE, _FOLDER)
        for classes in (0, ua.NodeClass.Variable)
    ]
    ours = await _browse(session, *asked)
    view = house.server.iserver.view_service
    assert [one.References for one in ours] == [
        one.References for one in view.browse(ua.BrowseParameters(NodesToBrowse=asked))
    ]


async def test_values_are_read_as_they_are_and_many_large_ones_are_no_endless_answer(session, monkeypatch):
    nodes = [ua.NodeId(ua.Int32(9000 + number % 300), ua.Int16(1)) for number in range(1200)]
    values = await session.read_attributes(nodes, ua.AttributeIds.DisplayName)
    assert [value.Value.Value.Text for value in values] == [f"tag-{number % 300}" for number in range(1200)]
    monkeypatch.setattr(browsing, "_ANSWER_BYTES", 3_000_000)
    large = ua.NodeId(ua.String("large"), ua.Int16(1))
    assert len(await session.read_attributes([large] * 2, ua.AttributeIds.Value)) == 2
    with pytest.raises(ua.UaStatusCodeError, match="BadResponseTooLarge"):
        await session.read_attributes([large] * 4, ua.AttributeIds.Value)


async def test_a_path_leads_where_it_says(session):
    found = await session.translate_browsepaths_to_nodeids(
        [
            _path("plant", "tag-7"),
            _path("plant", "nowhere"),
            _path("tag-7", start=_FOLDER),
            _path("tag-7", start=ua.NodeId(ua.Int32(4711), ua.Int16(1))),
            _path(),
        ]
    )
    names = [one.StatusCode.name for one in found]
    assert names == ["Good", "BadNoMatch", "Good", "BadNodeIdUnknown", "BadNothingToDo"]
    assert [target.TargetId for one in found for target in one.Targets] == [
        ua.NodeId(ua.Int32(9007), ua.Int16(1)) for _ in range(2)
    ]


async def test_paths_are_bounded_in_number_and_length(session):
    for paths in ([_path("plant")] * (browsing.NODES + 1), [_path(*["plant"] * 10_001)]):
        with pytest.raises(ua.UaStatusCodeError, match="BadTooManyOperations"):
            await session.translate_browsepaths_to_nodeids(paths)


async def test_a_long_answer_leaves_the_loop_its_turns(house, session):
    """Another's request, sent while a long one is at work, is answered before it."""
    order: list[str] = []

    async def ask(name: str, work: Any) -> None:
        await work
        order.append(name)

    async with house.client() as other, asyncio.TaskGroup() as group:
        group.create_task(ask("long", _browse(session, *[_asked(_FOLDER)] * 80)))
        group.create_task(ask("short", other.nodes.server_state.read_value()))
    assert order == ["short", "long"]


async def test_every_list_of_a_request_is_bounded(session):
    many = [ua.UInt32(1)] * 10_001
    created = await session.create_subscription(ua.CreateSubscriptionParameters(1000.0, 100, 10, 0, True, 0), print)
    number = created.SubscriptionId
    modify = ua.MonitoredItemModifyRequest(ua.UInt32(1))
    acknowledged = [ua.SubscriptionAcknowledgement(number, ua.UInt32(1))] * 10_001
    for work in (
        session.delete_monitored_items(ua.DeleteMonitoredItemsParameters(number, many)),
        session.modify_monitored_items(ua.ModifyMonitoredItemsParameters(number, ItemsToModify=[modify] * 10_001)),
        session.set_monitoring_mode(ua.SetMonitoringModeParameters(number, ua.MonitoringMode.Disabled, many)),
        session.set_publishing_mode(ua.SetPublishingModeParameters(True, many)),
        session.delete_subscriptions(many),
        session.transfer_subscriptions(ua.TransferSubscriptionsParameters(many, False)),
        session.register_nodes([_OBJECTS] * 10_001),
        session.publish(acknowledged),
    ):
        with pytest.raises(ua.UaStatusCodeError, match="BadTooManyOperations"):
            await work
    assert await session.register_nodes([_OBJECTS]) == [_OBJECTS]
    await session.delete_subscriptions([number])


async def test_an_internal_error_is_counted_and_told_once(house, session, monkeypatch, caplog):
    def fail(_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(house.server.iserver, "readable", fail)
    logging.getLogger("asyncua.server.uaprocessor").setLevel(logging.CRITICAL)
    for _ in range(3):
        with pytest.raises(ua.UaStatusCodeError, match="BadInternalError"):
            await session.read_attributes([_OBJECTS], ua.AttributeIds.BrowseName)
    assert house.diagnostics.value("requests_failed_total", cause="RuntimeError") == 3
    (told,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "ReadRequest ended in an internal error" in told.message
    assert "broken" in str(told.exc_info)
    with pytest.raises(ua.UaStatusCodeError, match="BadSubscriptionIdInvalid"):
        await session.republish(4711, 1)
    assert house.diagnostics.value("requests_failed_total", cause="ServiceError") == 0


async def test_a_request_that_is_none_is_the_clients_fault(house, session):
    """The bytes of one kind under the name of another; a number that no enumeration has."""
    failed = ("NotEnoughData", "ValueError")
    before = [house.diagnostics.value("requests_failed_total", cause=cause) for cause in failed]
    for kind in (ua.ObjectIds.ReadRequest_Encoding_DefaultBinary,
                 ua.ObjectIds.SetMonitoringModeRequest_Encoding_DefaultBinary):  # fmt: skip
        request = ua.RepublishRequest(ua.FourByteNodeId(ua.Int32(kind)))
        request.Parameters = ua.RepublishParameters(ua.IntegerId(1), ua.Counter(4711))
        with pytest.raises(ua.UaStatusCodeError, match="BadDecodingError"):
            await session._send_request(request)
    number = ua.Int32(ua.ObjectIds.RegisterNodesRequest_Encoding_DefaultBinary)
    with pytest.raises(ua.UaStatusCodeError, match="BadDecodingError"):
        await session._send_request(ua.CloseSecureChannelRequest(ua.FourByteNodeId(number)))
    assert [house.diagnostics.value("requests_failed_total", cause=cause) for cause in failed] == before


async def test_messages_are_kept_up_to_a_total_of_all_subscriptions(house, session, monkeypatch):
    monkeypatch.setattr(asyncua_subscriptions, "_KEPT_IN_ALL", 2500)
    params = ua.CreateSubscriptionParameters(60_000.0, 100, 10, 0, True, 0)
    numbers = [(await session.create_subscription(params, print)).SubscriptionId for _ in range(2)]
    greedy, modest = (house.server.subscriptions.subscriptions[number] for number in numbers)
    modest.unacknowledged.keep(1, bytes(500))
    for number in range(1, 11):
        greedy.unacknowledged.keep(number, bytes(500))
        house.server.subscriptions.part_with_excess()
    assert (list(modest.unacknowledged), list(greedy.unacknowledged)) == ([1], [7, 8, 9, 10])
    assert greedy.unacknowledged.size == 2000
    await session.delete_subscriptions(numbers)


async def test_answers_that_nobody_reads_are_bounded_in_all(house, session, monkeypatch):
    """Two that don't read; the bound is below that of one alone."""
    monkeypatch.setattr(asyncua_connection, "_UNREAD_IN_ALL", 1_500_000)
    client = house.client()
    await client.connect()
    protocol: Any = client.uaclient.protocol
    protocol.transport.pause_reading()
    large = client.get_node(ua.NodeId(ua.String("large"), ua.Int16(1)))
    waiting = [asyncio.create_task(large.read_data_value()) for _ in range(12)]
    async with asyncio.timeout(_WAIT):
        while not house.diagnostics.value("clients_cut_off_total", cause="unread"):
            await asyncio.sleep(0.02)
    assert await session.read_attributes([_OBJECTS], ua.AttributeIds.BrowseName)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    protocol.transport.abort()
    for task in (client._renew_channel_task, client._supervisor_task, client._stale_watchdog_task):
        await client._cancel_task(task)


async def test_events_that_a_client_is_too_slow_for_are_counted_and_told_to_it(house: House) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()

    class Listen:
        def event_notification(self, event: Any) -> None:
            heard.put_nowait((event.EventType.Identifier, event.Severity))

    async with house.client() as client:
        subscription = await client.create_subscription(50, Listen())
        asked = event_filter("EventType", "Severity")
        await subscription.subscribe_events(client.nodes.server, evfilter=asked, queuesize=3)
        before = house.diagnostics.value("client_events_lost_total")
        for severity in range(1, 6):
            fields = {
                "EventType": ua.Variant(_BASE, ua.VariantType.NodeId),
                "Severity": ua.Variant(severity, ua.VariantType.UInt16),
            }
            server = ua.NodeId(ua.Int32(ua.ObjectIds.Server))
            house.server.subscriptions.tell_event(Occurrence(fields, frozenset((_BASE,)), (server,)))
        found = [await asyncio.wait_for(heard.get(), _WAIT) for _ in range(4)]
    assert found[0][0] == ua.ObjectIds.EventQueueOverflowEventType
    assert [severity for _, severity in found[1:]] == [3, 4, 5]
    assert house.diagnostics.value("client_events_lost_total") == before + 2


async def test_no_event_goes_past_the_queues_that_count(house: House) -> None:
    async with house.client() as client:
        subscription = await client.create_subscription(50, None)
        await subscription.subscribe_events(client.nodes.server, evfilter=event_filter("Severity"))
        strangers = await house.server.get_event_generator()
        with pytest.raises(ua.UaError, match="tell_event"):
            await strangers.trigger()
