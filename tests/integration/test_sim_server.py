"""A served plant, seen by an OPC UA client: nodes, units, live values, history, advice, faults on demand."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua

from opcua_sim.address_space import NAMESPACE
from opcua_sim.faults import FaultError
from opcua_sim.options import Options
from opcua_sim.server import RunningPlant, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPTIONS = Options(port=0, engines=2, period=0.05, history_runs=1)
LONG_AGO: Any = datetime(2000, 1, 1, tzinfo=UTC)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def plant() -> AsyncIterator[RunningPlant]:
    async with serve(OPTIONS) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(plant) -> AsyncIterator[Client]:
    # Its watchdog gives a server one second, and this one is on the same loop: 22,000 values may take longer.
    async with Client(plant.endpoint, timeout=10, watchdog_intervall=60) as connected:
        yield connected


@pytest.fixture
def node(client):
    def find(name):
        return client.get_node(ua.NodeId(ua.String(name), ua.Int16(2)))

    return find


class Collector:
    """Values by tag, as a subscription brings them."""

    def __init__(self) -> None:
        self.found: dict[str, list[ua.DataValue]] = {}
        self.arrived = asyncio.Event()

    def datachange_notification(self, node, value, data) -> None:
        self.found.setdefault(node.nodeid.Identifier, []).append(data.monitored_item.Value)
        self.arrived.set()

    async def wait_for(self, name, count):
        async with asyncio.timeout(20):
            while len(self.found.get(name, ())) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.found[name]


def facts(value):
    """What must be equal between a live value and the history."""
    status = value.StatusCode.value if value.StatusCode else 0
    number = value.Value.Value if value.Value else None
    return value.SourceTimestamp, value.ServerTimestamp, number, status


async def collect(client, *nodes: Any):
    """A subscription that reports every update."""
    collector = Collector()
    subscription = await client.create_subscription(20, collector)
    every = ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValueTimestamp)
    request = [
        ua.MonitoredItemCreateRequest(
            ItemToMonitor=ua.ReadValueId(NodeId=node.nodeid, AttributeId=ua.AttributeIds.Value),
            MonitoringMode=ua.MonitoringMode.Reporting,
            RequestedParameters=ua.MonitoringParameters(ClientHandle=number, QueueSize=1000, Filter=every),
        )
        for number, node in enumerate(nodes)
    ]
    await subscription.create_monitored_items(request)
    return subscription, collector


# --- nodes -------------------------------------------------------------------------------------------------------


async def test_tree(client):
    assert await client.get_namespace_index(NAMESPACE) == 2
    plant = await client.nodes.objects.get_child("2:Plant")
    engine = await plant.get_child(["2:Fleet", "2:engine-01"])
    names = [(await child.read_browse_name()).Name for child in await engine.get_children()]
    assert len(names) == 27
    assert {"setting1", "T2", "W32", "cycle", "overhauls", "advisory"} <= set(names)
    turbine = await plant.get_child(["2:GasTurbine", "2:gas-turbine"])
    assert (await turbine.get_child("2:NOX_lab")).nodeid.Identifier == "gas-turbine.NOX_lab"


@pytest.mark.parametrize(
    ("name", "code", "text", "low", "high"),
    [
        ("engine-01.T24", b"A48", "°R", 637.98, 647.76),
        ("engine-02.Nf", b"RPM", "rpm", 2375.9, 2400.6),
        ("engine-01.cycle", b"B7", "cycles", 0, 400),
        ("gas-turbine.AP", b"MBR", "mbar", 980.6, 1041.8),
        ("gas-turbine.NOX_lab", b"GP", "mg/m³", 16, 130),
        ("engine-01.advisory.rul", b"B7", "cycles", 0, 400),
    ],
)
async def test_units_and_ranges(node, name, code, text, low, high):
    tag = node(name)
    assert (await tag.read_type_definition()).Identifier == ua.ObjectIds.AnalogItemType
    units = await (await tag.get_child("0:EngineeringUnits")).read_value()
    assert (units.UnitId, units.DisplayName.Text) == (int.from_bytes(code, "big"), text)
    assert units.NamespaceUri == "http://www.opcfoundation.org/UA/units/un/cefact"
    eu_range = await (await tag.get_child("0:EURange")).read_value()
    assert (eu_range.Low, eu_range.High) == (low, high)


async def test_units_without_a_code(node):
    units = await node("engine-01.phi.EngineeringUnits").read_value()
    assert (units.UnitId, units.DisplayName.Text) == (-1, "pps/psi")


async def test_access(node):
    tag = node("engine-01.T24")
    assert await tag.get_access_level() == {ua.AccessLevel.CurrentRead, ua.AccessLevel.HistoryRead}
    assert (await tag.read_attribute(ua.AttributeIds.Historizing)).Value.Value is True
    assert (await tag.read_attribute(ua.AttributeIds.MinimumSamplingInterval)).Value.Value == 50
    assert ua.AccessLevel.HistoryRead not in await node("engine-01.advisory.rul").get_access_level()


async def test_capabilities(client):
    async def read(number):
        return await client.get_node(ua.NodeId(ua.Int32(number))).read_value()

    assert await read(ua.ObjectIds.HistoryServerCapabilities_AccessHistoryDataCapability) is True
    assert await read(ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadData) == 1000


# --- values ------------------------------------------------------------------------------------------------------


async def test_history_equals_what_was_published(plant, client, node):
    names = ["engine-01.T24", "engine-02.cycle", "gas-turbine.NOX_lab", "gas-turbine.AT"]
    subscription, collector = await collect(client, *(node(name) for name in names))
    plant.inject("bad", "engine-01.T24", 0.2)
    plant.inject("dropout", "gas-turbine.AT", 0.2)
    plant.inject("spikes", "gas-turbine.NOX_lab", 0.5)
    for name in names:
        await collector.wait_for(name, 30)
    await subscription.delete()
    for name in names:
        live = [facts(value) for value in collector.found[name]]
        told = await node(name).read_raw_history(live[0][0], live[-1][0] + timedelta(microseconds=1))
        assert [facts(value) for value in told] == live
    assert ua.StatusCodes.BadSensorFailure in {status for *_, status in map(facts, collector.found["engine-01.T24"])}
    gaps = {
        (b.SourceTimestamp - a.SourceTimestamp) // timedelta(seconds=0.05)
        for a, b in pairwise(collector.found["gas-turbine.AT"])
    }
    assert 5 in gaps


async def test_times_lie_on_the_grid(client, node):
    subscription, collector = await collect(client, node("engine-01.T24"), node("gas-turbine.NOX_lab"))
    sensor = (await collector.wait_for("engine-01.T24", 10))[1:]
    lab = (await collector.wait_for("gas-turbine.NOX_lab", 10))[1:]
    await subscription.delete()
    assert {value.SourceTimestamp.microsecond % 50_000 for value in sensor + lab} == {0}
    assert {value.ServerTimestamp - value.SourceTimestamp for value in sensor} == {timedelta(0)}
    assert {value.ServerTimestamp - value.SourceTimestamp for value in lab} == {24 * timedelta(seconds=0.05)}
    assert {b.SourceTimestamp - a.SourceTimestamp for a, b in pairwise(sensor)} == {timedelta(seconds=0.05)}


async def test_history_ends_with_what_is_known(node):
    read = await node("gas-turbine.NOX_lab").read_raw_history(LONG_AGO, datetime.now(UTC) + timedelta(days=1))
    now = datetime.now(UTC)
    assert len(read) > 22_000
    assert all(value.ServerTimestamp <= now for value in read[-30:])
    assert read[-1].SourceTimestamp > now - timedelta(seconds=60)


async def test_history_in_pages(node):
    tag, end = node("gas-turbine.TEY"), datetime.now(UTC) - timedelta(seconds=20)  # a loaded machine may publish late
    start = end - timedelta(seconds=0.05 * 25_000)
    forward = await tag.read_raw_history(start, end, return_bounds=False)
    assert len(forward) > 20_000  # more than one page of 10,000
    backward = await tag.read_raw_history(end, forward[0].SourceTimestamp)
    assert [facts(value) for value in reversed(backward)] == [facts(value) for value in forward[1:]]
    newest = await tag.read_raw_history(None, end, numvalues=3)
    assert [facts(value) for value in newest] == [facts(value) for value in forward[-1:-4:-1]]


async def test_no_history_of_advice(node):
    with pytest.raises(ua.UaStatusCodeError) as refused:
        await node("engine-01.advisory.rul").read_raw_history(LONG_AGO)
    assert refused.value.code == ua.StatusCodes.BadHistoryOperationUnsupported


# --- writing -----------------------------------------------------------------------------------------------------


async def test_advice_waits_then_keeps_what_is_written(node):
    rul = node("engine-02.advisory.rul")
    before = await rul.read_data_value(raise_on_bad_status=False)
    assert before.StatusCode.value == ua.StatusCodes.BadWaitingForInitialData
    uncertain = ua.StatusCode(ua.UInt32(ua.StatusCodes.UncertainSubNormal))
    await rul.write_value(ua.DataValue(ua.Variant(42.5), uncertain, SourceTimestamp=LONG_AGO))
    after = await rul.read_data_value(raise_on_bad_status=False)
    assert (after.Value.Value, after.StatusCode, after.SourceTimestamp) == (42.5, uncertain, LONG_AGO)


async def test_advice_without_a_time_gets_one(node):
    anomaly = node("gas-turbine.advisory.anomaly")
    await anomaly.write_value(ua.DataValue(ua.Variant(True)))
    written = await anomaly.read_data_value()
    assert written.Value.Value is True
    assert written.SourceTimestamp > LONG_AGO
    assert (await (await anomaly.get_child("0:TrueState")).read_value()).Text == "anomalous"


@pytest.mark.parametrize(
    "name",
    ["engine-01.T24", "engine-01.T24.EURange", "engine-01.cycle", "gas-turbine.NOX_lab", "gas-turbine.AT.EURange"],
)
async def test_stray_writes_are_refused(node, name):
    before = await node(name).read_value()
    with pytest.raises(ua.UaStatusCodeError) as refused:
        await node(name).write_value(ua.DataValue(ua.Variant(before)))
    assert refused.value.code == ua.StatusCodes.BadUserAccessDenied


async def test_wrong_types_are_refused(node):
    with pytest.raises(ua.UaStatusCodeError) as refused:
        await node("engine-01.advisory.rul").write_value(ua.DataValue(ua.Variant("soon")))
    assert refused.value.code == ua.StatusCodes.BadTypeMismatch


async def test_nobody_is_an_administrator(plant):
    client = Client(plant.endpoint, timeout=10)
    client.set_user("admin")
    client.set_password("guess")
    with pytest.raises(ua.UaError):
        await client.connect()


async def test_sessions_can_not_be_guessed(plant, client):
    tokens = list(plant._server.iserver._external_sessions)
    assert tokens
    assert {(token.NodeIdType, len(token.Identifier)) for token in tokens} == {(ua.NodeIdType.ByteString, 32)}


async def test_nodes_can_not_be_added(client):
    with pytest.raises(ua.UaStatusCodeError) as refused:
        await client.nodes.objects.add_object(2, "mine")
    assert refused.value.code == ua.StatusCodes.BadUserAccessDenied


# --- faults ------------------------------------------------------------------------------------------------------


async def test_faults_by_method(client, node):
    subscription, collector = await collect(client, node("engine-02.P30"))
    await collector.wait_for("engine-02.P30", 3)
    faults = node("faults")
    count = await faults.call_method(
        "2:Inject", "uncertain", "engine-02.*", ua.Variant(60.0), ua.Variant(0.0, ua.VariantType.Double)
    )
    assert count == 26
    async with asyncio.timeout(10):
        while (await collector.wait_for("engine-02.P30", 1))[-1].StatusCode.value == 0:
            await collector.wait_for("engine-02.P30", len(collector.found["engine-02.P30"]) + 1)
    assert collector.found["engine-02.P30"][-1].StatusCode.value == ua.StatusCodes.UncertainSensorNotAccurate
    await faults.call_method("2:Clear")
    async with asyncio.timeout(10):
        while collector.found["engine-02.P30"][-1].StatusCode.value != 0:
            await collector.wait_for("engine-02.P30", len(collector.found["engine-02.P30"]) + 1)
    await subscription.delete()


@pytest.mark.parametrize("arguments", [("fire", "*", 1.0, 0.0), ("bad", "nothing", 1.0, 0.0), ("bad", "*", -1.0, 0.0)])
async def test_faults_that_can_not_be_are_refused(node, arguments):
    with pytest.raises(ua.UaStatusCodeError) as refused:
        await node("faults").call_method("2:Inject", *arguments)
    assert refused.value.code == ua.StatusCodes.BadInvalidArgument


async def test_faults_that_hit_nothing_are_refused(plant):
    with pytest.raises(FaultError, match="no tag matches"):
        plant.inject("drift", "engine-9*")
