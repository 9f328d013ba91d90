"""Our OPC UA server, read by a client over a real socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua
from asyncua.common.node import Node

from plugin import __version__
from plugin.diagnostics import Diagnostics
from plugin.domain import Flag, Meaning, Outage, Outcome, OutputTag, Prediction, Run, RunKind, RunResult, Status
from plugin.errors import PublishError
from plugin.publish.backlog import Backlog
from plugin.publish.config import PublishConfig
from plugin.publish.server import OpcUaSink

pytestmark = pytest.mark.asyncio(loop_scope="module")

_TAGS = tuple(
    OutputTag("rul", f"engine-{number:02}", output, unit, 0.0, 125.0, f"the {output}", meaning)
    for number in range(1, 6)
    for output, unit, meaning in (
        ("rul", "cycles", Meaning.LIFETIME),
        ("health", "%", Meaning.HEALTH),
        ("flag", "", Meaning.FLAG),
    )
)
_WAIT = 10.0


class _Service:
    """An open sink and a client of it."""

    def __init__(self, sink: OpcUaSink, diagnostics: Diagnostics, client: Client, namespace: int) -> None:
        self.sink = sink
        self.diagnostics = diagnostics
        self.client = client
        self._namespace = namespace

    def node(self, name: str) -> Node:
        return self.client.get_node(ua.NodeId(ua.String(name), ua.Int16(self._namespace)))

    async def read(self, name: str) -> ua.DataValue:
        asked = ua.ReadValueId(self.node(name).nodeid, ua.AttributeIds.Value)
        (found,) = await self.client.uaclient.read(ua.ReadParameters(0.0, ua.TimestampsToReturn.Both, [asked]))
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[_Service]:
    diagnostics = Diagnostics()
    sink = OpcUaSink(_config(), tmp_path_factory.mktemp("pki"), diagnostics)
    # Its own watchdog gives up after a second, and may be a collection of garbage late.
    async with sink.open(_TAGS), Client(sink.endpoint, watchdog_intervall=60) as client:
        yield _Service(sink, diagnostics, client, await client.get_namespace_index("urn:foretag:predictions"))


def _config() -> PublishConfig:
    return PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", security=("None",))


def _outcome(
    value: float,
    *,
    tags: Sequence[OutputTag] = _TAGS,
    status: int = Status.GOOD,
    fresh: timedelta = timedelta(minutes=5),
) -> Outcome:
    now = datetime.now(UTC)
    run = Run(1, "rul", RunKind.SCORE, now, now, now, RunResult.DONE, 3, 5)
    predictions = tuple(
        Prediction(tag, 3, now, now + fresh, now + fresh, value, value - 10, value + 10, status, 1.0, 1)
        for tag in tags
        if not tag.flag
    )
    flags = tuple(Flag("rul", tag.asset, 3, now, value < 50, 1.0, 2.0, status, 1) for tag in tags if tag.flag)
    return Outcome(run, predictions, flags)


class _Heard:
    """What a subscription reported, node by node."""

    def __init__(self) -> None:
        self.values: list[tuple[str, Any, int, datetime]] = []
        self._news = asyncio.Event()

    def datachange_notification(self, node: Node, value: Any, data: Any) -> None:
        notified = data.monitored_item.Value
        name = str(node.nodeid.Identifier)
        self.values.append((name, value, notified.StatusCode.value, notified.SourceTimestamp))
        self._news.set()

    async def until(self, seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(_WAIT):
            while not seen():
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def _listening(service: _Service, *names: str | Node, period: float = 50) -> AsyncIterator[_Heard]:
    heard = _Heard()
    subscription = await service.client.create_subscription(period, heard)
    await subscription.subscribe_data_change([service.node(name) if isinstance(name, str) else name for name in names])
    yield heard
    await subscription.delete()


async def test_before_the_first_run_a_node_waits_for_its_data(service):
    data = await service.read("engine-05.rul.rul")
    assert data.StatusCode.value == Status.BAD_WAITING_FOR_INITIAL_DATA
    assert data.Value.Value is None
    assert data.SourceTimestamp is not None


async def test_a_client_reads_value_bounds_status_times_and_what_they_mean(service):
    outcome = _outcome(80.0, status=Status.UNCERTAIN_SUB_NORMAL)
    await service.sink.publish(outcome)
    as_of = outcome.predictions[0].as_of
    for name, value in {"": 80.0, ".LowerBound": 70.0, ".UpperBound": 90.0}.items():
        data = await service.read(f"engine-01.rul.rul{name}")
        assert (data.Value.Value, data.StatusCode.value) == (value, Status.UNCERTAIN_SUB_NORMAL)
        assert data.SourceTimestamp == as_of
        assert data.ServerTimestamp >= as_of
    facts = {"AsOfTime": as_of, "ModelName": "rul", "ModelVersion": 3, "Coverage": 1.0, "Confidence": 0.9}
    assert {name: (await service.read(f"engine-01.rul.rul.{name}")).Value.Value for name in facts} == facts
    node = service.node("engine-01.rul.rul")
    assert await (await node.get_child("3:StartValue")).read_value() == 125.0
    assert await (await node.get_child("0:EURange")).read_value() == ua.Range(0.0, 125.0)
    assert (await (await node.get_child("0:EngineeringUnits")).read_value()).UnitId == 16951
    assert (await node.read_description()).Text == "the rul"


async def test_the_server_says_what_it_is(service):
    node = service.client.get_node(ua.NodeId(ua.Int32(ua.ObjectIds.Server_ServerStatus_BuildInfo)))
    build = await node.read_value()
    assert (build.ManufacturerName, build.ProductName, build.SoftwareVersion) == ("foretag", "foretag", __version__)


async def test_nodes_keep_their_ids_whatever_else_is_configured(tmp_path):
    found = []
    for tags in (_TAGS[:2], (*reversed(_TAGS), OutputTag("another", "engine-00", "value", "", 0.0, 1.0, ""))):
        sink = OpcUaSink(_config(), tmp_path, Diagnostics())
        async with sink.open(tags), Client(sink.endpoint, timeout=_WAIT) as client:
            uris = await client.get_namespace_array()
            nodes: Any = sink._server
            found.append({f"{uris[node.NamespaceIndex]} {node}" for node in nodes.iserver.aspace.keys()})  # noqa: SIM118
    assert found[0] < found[1]


async def test_a_flag_is_a_two_state_variable_with_texts(service):
    await service.sink.publish(_outcome(40.0))
    flag = service.node("engine-01.rul.flag")
    assert await flag.read_value() is True
    assert (await (await flag.get_child("0:TrueState")).read_value()).Text == "Anomaly"


async def test_the_last_run_of_a_model_is_shown(service):
    await service.sink.publish(_outcome(40.0))
    model = [await service.read(f"Foretag.Models.rul.{name}") for name in ("Version", "LastResult", "LastDuration")]
    assert [data.Value.Value for data in model] == [3, "done", 0.0]


async def test_clients_find_the_tree_by_browsing(service):
    path = ["Foretag", "Assets", "engine-02", "rul", "health", "LowerBound"]
    namespace = await service.client.get_namespace_index("urn:foretag:predictions")
    node = await service.client.nodes.objects.get_child([f"{namespace}:{name}" for name in path])
    assert node.nodeid.Identifier == "engine-02.rul.health.LowerBound"


async def test_no_client_writes_or_changes_the_address_space(service):
    node = service.node("engine-01.rul.rul")
    with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
        await node.write_value(1.0)
    for attribute in (ua.AttributeIds.DisplayName, ua.AttributeIds.AccessLevel):
        with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
            await node.write_attribute(attribute, ua.DataValue(ua.Variant(1, ua.VariantType.Byte)))
    with pytest.raises(ua.UaStatusCodeError, match="BadServiceUnsupported"):
        await service.client.nodes.objects.add_variable(ua.NodeId(), "2:mine", 1.0)


async def test_a_subscriber_sees_each_prediction_whole(service):
    names = [f"engine-01.rul.rul{part}" for part in ("", ".LowerBound", ".UpperBound")]
    async with _listening(service, *names) as heard:
        for number in range(20):
            await service.sink.publish(_outcome(100.0 + number))
        await heard.until(lambda: any(value == 129.0 for _, value, _, _ in heard.values))
    at: dict[datetime, dict[str, float]] = {}
    for name, value, _, time in heard.values:
        at.setdefault(time, {})[name] = value
    whole = [values for values in at.values() if (values.get(names[0]) or 0) > 100]
    assert len(whole) == 19
    assert all(values[names[1]] + 10 == values[names[0]] == values[names[2]] - 10 for values in whole)


async def test_more_values_than_one_message_holds_arrive_in_order(service):
    """A queue of 100 for each of 3 nodes, in messages of at most 7."""
    heard = _Heard()
    params = ua.CreateSubscriptionParameters(50.0, 1000, 10, 7, True, 0)
    subscription = await service.client.create_subscription(params, heard)
    names = [f"engine-0{number}.rul.health" for number in (1, 2, 3)]
    await subscription.subscribe_data_change([service.node(name) for name in names], queuesize=100)
    for number in range(40):
        await service.sink.publish(_outcome(200.0 + number))
    await heard.until(lambda: [value for _, value, _, _ in heard.values].count(239.0) == 3)
    await subscription.delete()
    for name in names:
        values = [value for node, value, _, _ in heard.values if node == name]
        assert values[-39:] == [201.0 + number for number in range(39)]


async def test_a_value_grows_stale_by_itself_at_its_time(service):
    async with _listening(service, "engine-03.rul.rul", "engine-03.rul.flag") as heard:
        outcome = _outcome(66.0, fresh=timedelta(seconds=0.3))
        await service.sink.publish(outcome)
        stale = Status.UNCERTAIN_LAST_USABLE_VALUE
        await heard.until(lambda: len([1 for _, _, status, _ in heard.values if status == stale]) >= 2)
    last = {name: (value, time) for name, value, status, time in heard.values if status == stale}
    until = outcome.predictions[0].valid_until
    assert last == {"engine-03.rul.rul": (66.0, until), "engine-03.rul.flag": (False, until)}


async def test_the_service_level_follows_what_is_fresh_and_the_heart_beats(service):
    level = service.client.get_node(ua.ObjectIds.Server_ServiceLevel)
    beats: list[int] = []
    async with _listening(service, level) as heard:
        for cap, fresh, expected in ((255, 300.0, 255), (255, -1.0, 1), (100, 300.0, 100)):
            service.sink.set_service_level(cap)
            await service.sink.publish(_outcome(50.0, fresh=timedelta(seconds=fresh)))
            await heard.until(_last_is(heard, expected))
            beats.append((await service.read("Foretag.Server.Heartbeat")).Value.Value)
    service.sink.set_service_level(255)
    assert beats == sorted(set(beats))


async def test_results_of_a_lost_source_are_in_doubt_and_the_service_level_says_so(service):
    level = service.client.get_node(ua.ObjectIds.Server_ServiceLevel)
    both = frozenset({"plant", "mill"})
    own = frozenset(tag.name for tag in _TAGS if tag.asset == "engine-01")
    outcome = _outcome(61.0)
    await service.sink.publish(outcome)
    async with _listening(service, level) as heard:
        for outage, expected in (
            (Outage(frozenset(), 2, frozenset()), 255),
            (Outage(frozenset({"mill"}), 2, frozenset()), 100),  # nothing draws on it, yet a source is lost
            (Outage(frozenset({"plant"}), 2, own), 100),
            (Outage(both, 2, frozenset(tag.name for tag in _TAGS)), 1),
            (Outage(frozenset({"plant"}), 2, own), 100),
        ):
            await service.sink.degrade(outage)
            await heard.until(_last_is(heard, expected))
    lost, kept, flag = [await service.read(f"engine-0{name}") for name in ("1.rul.rul", "2.rul.rul", "1.rul.flag")]
    cut_off = Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE
    assert (lost.Value.Value, lost.StatusCode.value, kept.StatusCode.value) == (61.0, cut_off, Status.GOOD)
    assert (flag.Value.Value, flag.StatusCode.value) == (False, cut_off)
    assert lost.SourceTimestamp == outcome.predictions[0].as_of
    await service.sink.degrade(Outage(frozenset(), 2, frozenset()))
    assert (await service.read("engine-01.rul.rul")).StatusCode.value == Status.GOOD


def _last_is(heard: _Heard, expected: int) -> Callable[[], bool]:
    return lambda: bool(heard.values) and heard.values[-1][1] == expected


async def test_an_output_without_a_node_is_counted_and_holds_nothing_up(service):
    stranger = OutputTag("rul", "engine-99", "rul", "cycles", 0.0, 125.0, "")
    before = service.diagnostics.value("published_total", sink="opcua")
    with pytest.raises(PublishError, match="1 result"):
        await service.sink.publish(_outcome(33.0, tags=(stranger, *_TAGS)))
    assert (await service.read("engine-05.rul.health")).Value.Value == 33.0
    assert service.diagnostics.value("published_total", sink="opcua") == before + len(_TAGS)
    assert service.diagnostics.value("publish_failures_total", sink="opcua", cause="unknown_output") == 1
    assert service.diagnostics.value("stage_cpu_seconds_total", stage="publish") > 0


async def test_publishing_gives_the_loop_its_turn(service):
    """A thousand predictions: other tasks run in between (how long each piece takes is a benchmark's matter)."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await service.sink.publish(_outcome(10.0, tags=_TAGS * 70))
    counting.cancel()
    assert turns >= 10


async def test_a_taken_port_is_named_and_nothing_is_left_behind(tmp_path):
    async with await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0) as taken:
        port = taken.sockets[0].getsockname()[1]
        before = asyncio.all_tasks()
        config = PublishConfig(endpoint=f"opc.tcp://127.0.0.1:{port}", security=("None",))
        sink = OpcUaSink(config, tmp_path, Diagnostics())
        with pytest.raises(PublishError, match=rf"can't serve opc\.tcp://127\.0\.0\.1:{port}.*in use"):
            async with sink.open(_TAGS):
                pass
        assert _ours(asyncio.all_tasks() - before) == []
    with pytest.raises(PublishError, match="not open"):
        await sink.publish(_outcome(1.0))


def _ours(tasks: set[asyncio.Task[Any]]) -> list[str]:
    """Those of a server: the client of the other tests comes and goes beside them."""
    places = [task.get_coro().cr_code.co_filename for task in tasks]  # type: ignore[union-attr]
    return [place for place in places if "server" in place or "plugin" in place]


async def test_closing_leaves_no_task_even_with_clients_that_stay(tmp_path: Path):
    before = asyncio.all_tasks()
    sink = OpcUaSink(_config(), tmp_path, Diagnostics())
    async with sink.open(_TAGS[:3]):
        client = Client(sink.endpoint)
        await client.connect()
        subscription = await client.create_subscription(100, _Heard())
        await subscription.subscribe_data_change(client.nodes.server_state)
    assert _ours(asyncio.all_tasks() - before) == []
    with contextlib.suppress(ua.UaError, OSError, TimeoutError):
        await client.disconnect()


async def test_many_items_are_changed_with_one_look_at_what_waits(service, monkeypatch):
    """With one for each, 10,000 items whose client was slow took seconds of the loop."""
    looked = list[int]()
    take_out = Backlog._take_out

    def count(backlog: Backlog, places: Collection[int]) -> dict[int, list[bytes]]:
        looked.append(len(places))
        return take_out(backlog, places)

    names = [tag.name + end for tag in _TAGS if not tag.flag for end in ("", ".LowerBound", ".UpperBound")]
    await service.sink.publish(_outcome(1.0))
    async with _listening(service, *names, period=3_600_000) as heard:
        (subscription,) = service.sink._server.subscriptions.subscriptions.values()
        await subscription.publish_results()
        await heard.until(lambda: len(heard.values) == len(names))
        await service.sink.publish(_outcome(2.0))
        handles = {n: item.client_handle for n, item in subscription.monitored_item_srv._monitored_items.items()}
        items, session = list(handles), service.client.uaclient.session
        monkeypatch.setattr(Backlog, "_take_out", count)
        number, both = subscription.data.SubscriptionId, ua.TimestampsToReturn.Both
        more = [
            ua.MonitoredItemModifyRequest(
                each, ua.MonitoringParameters(item.client_handle, 0.0, None, ua.UInt32(5), True)
            )
            for each, item in subscription.monitored_item_srv._monitored_items.items()
        ]
        await session.modify_monitored_items(ua.ModifyMonitoredItemsParameters(number, both, more))
        sampling = ua.MonitoringMode.Sampling
        await session.set_monitoring_mode(ua.SetMonitoringModeParameters(number, sampling, items))
        assert looked == [len(names)] * 2
        await session.set_monitoring_mode(ua.SetMonitoringModeParameters(number, ua.MonitoringMode.Reporting, items))
        await subscription.publish_results()
        await heard.until(lambda: len(heard.values) == 2 * len(names))
        assert {value for _, value, *_ in heard.values[len(names) :]} == {2.0, -8.0, 12.0}
        looked.clear()
        await session.delete_monitored_items(ua.DeleteMonitoredItemsParameters(number, items))
        assert looked == [len(names)]
