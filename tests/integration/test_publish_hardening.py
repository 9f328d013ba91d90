"""What a stranger, or a careless client, can't do to our OPC UA server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.crypto.uacrypto import CertProperties

from plugin import pki
from plugin.diagnostics import Diagnostics
from plugin.domain import Outcome, OutputTag, Prediction, Run, RunKind, Status
from plugin.publish.config import PublishConfig
from plugin.publish.server import OpcUaSink

pytestmark = pytest.mark.asyncio(loop_scope="module")

_TAG = OutputTag("rul", "engine-01", "rul", "cycles", 0.0, 125.0, "")
_NODE = ua.NodeId(ua.String(_TAG.name), ua.Int16(2))
_WAIT = 10.0


class _House:
    """A server that takes secured channels alone, its trust list, and two clients: one trusted, one not yet."""

    def __init__(self, sink: OpcUaSink, folder: Path) -> None:
        self.sink = sink
        self.pki = folder / "pki"
        self._folder = folder

    def identity(self, name: str) -> pki.OwnCertificate:
        return pki.ensure_own_certificate(self._folder / name, f"urn:test:{name}", ["localhost"])

    def trust(self, name: str) -> None:
        pki.trust(self.pki, self.identity(name).cert_path.read_bytes())

    async def client(self, name: str) -> Client:
        """Ready to connect as that client."""
        own = self.identity(name)
        client = Client(self.sink.endpoint, timeout=_WAIT)
        client.application_uri = own.application_uri
        await client.set_security(SecurityPolicyBasic256Sha256, own.cert_path, CertProperties(own.key_path, "pem"))
        return client

    @contextlib.asynccontextmanager
    async def session(self, name: str) -> AsyncIterator[Client]:
        self.trust(name)
        async with await self.client(name) as client:
            yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[_House]:
    folder = tmp_path_factory.mktemp("house")
    config = PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", max_sessions=4, max_subscriptions=3)
    sink = OpcUaSink(config, folder / "pki", Diagnostics())
    async with sink.open([_TAG]):
        yield _House(sink, folder)


def _outcome(value: float) -> Outcome:
    now = datetime.now(UTC)
    later = datetime(2100, 1, 1, tzinfo=UTC)
    prediction = Prediction(_TAG, 1, now, later, later, value, None, None, Status.GOOD, 1.0, 1)
    return Outcome(Run(1, "rul", RunKind.SCORE, now), (prediction,), ())


class _Heard:
    def __init__(self) -> None:
        self.values: list[tuple[float, int]] = []
        self._news = asyncio.Event()

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        self.values.append((value, data.monitored_item.Value.StatusCode.value))
        self._news.set()

    async def until(self, value: float) -> None:
        async with asyncio.timeout(_WAIT):
            while not self.values or self.values[-1][0] != value:
                self._news.clear()
                await self._news.wait()


async def test_only_secured_endpoints_are_offered_and_an_open_channel_gets_no_session(house):
    client = Client(house.sink.endpoint)
    endpoints = await client.connect_and_get_server_endpoints()
    assert {endpoint.SecurityMode for endpoint in endpoints} == {ua.MessageSecurityMode.SignAndEncrypt}
    with pytest.raises(ua.UaStatusCodeError, match="BadSecurityPolicyRejected"):
        await client.connect()


async def test_an_unknown_client_is_refused_kept_for_a_person_and_let_in_once_trusted(house):
    client = await house.client("newcomer")
    with pytest.raises(ua.UaStatusCodeError, match="BadCertificateUntrusted"):
        await client.connect()
    (rejected,) = pki.rejected_folder(house.pki).iterdir()
    assert rejected.read_bytes() == house.identity("newcomer").cert_path.read_bytes()
    house.trust("newcomer")
    async with await house.client("newcomer") as again:
        assert await again.get_namespace_index("urn:foretag:predictions") == 2


async def test_a_client_that_calls_itself_something_else_is_refused(house):
    house.trust("liar")
    client = await house.client("liar")
    client.application_uri = "urn:test:somebody-else"
    with pytest.raises(ua.UaStatusCodeError, match="BadCertificateUriInvalid"):
        await client.connect()


@pytest.mark.parametrize("shown", ["friend", None])
async def test_the_certificate_that_counts_is_the_channels(house, shown):
    """A stranger's channel, with a trusted client's certificate, or none, in CreateSession."""
    house.trust("friend")
    client = await house.client("stranger")
    await client.connect_sessionless()
    params = ua.CreateSessionParameters(ClientNonce=bytes(32), RequestedSessionTimeout=60_000)
    if shown:
        params.ClientCertificate = house.identity(shown).cert_path.read_bytes()
    with pytest.raises(ua.UaStatusCodeError, match="BadCertificateInvalid"):
        await client.uaclient.create_session(params)
    await client.disconnect_sessionless()


async def test_tokens_are_random_and_a_known_one_is_of_no_use_to_another(house):
    async with house.session("friend") as friend, house.session("other") as other:
        tokens = [client.uaclient.session.authentication_token for client in (friend, other)]
        assert all(token.NodeIdType is ua.NodeIdType.ByteString and len(token.Identifier) == 32 for token in tokens)
        assert tokens[0] != tokens[1]
        thief = await house.client("other")
        await thief.connect_sessionless()
        thief.uaclient.session.restore_authentication_token(tokens[0])
        with pytest.raises(ua.UaStatusCodeError, match="BadSecurityChecksFailed"):
            await thief.activate_session()
        await thief.disconnect_sessionless()


async def test_names_and_passwords_make_no_administrator(house):
    house.trust("friend")
    client = await house.client("friend")
    client.set_user("admin")
    client.set_password("admin")
    with pytest.raises(ua.UaStatusCodeError, match="BadIdentityTokenRejected"):
        await client.connect()


async def test_a_subscription_belongs_to_its_session(house):
    async with house.session("friend") as friend, house.session("other") as other:
        heard = _Heard()
        subscription = await friend.create_subscription(100, heard)
        item = await subscription.subscribe_data_change(friend.get_node(_NODE))
        number, session = subscription.subscription_id, other.uaclient.session
        assert [code.name for code in await session.delete_subscriptions([number])] == ["BadSubscriptionIdInvalid"]
        transfer = ua.TransferSubscriptionsParameters([number], False)
        (moved,) = await session.transfer_subscriptions(transfer)
        assert moved.StatusCode.name == "BadUserAccessDenied"
        with pytest.raises(ua.UaStatusCodeError, match="BadSubscriptionIdInvalid"):
            await session.delete_monitored_items(ua.DeleteMonitoredItemsParameters(number, [item]))
        with pytest.raises(ua.UaStatusCodeError, match="BadSubscriptionIdInvalid"):
            await session.republish(number, 1)
        await house.sink.publish(_outcome(11.0))
        await heard.until(11.0)
        with pytest.raises(ua.UaStatusCodeError, match="BadMessageNotAvailable"):
            await friend.uaclient.session.republish(number, 4711)
        await subscription.delete()


async def test_a_client_takes_its_subscription_along_to_a_new_session(house):
    arrived = asyncio.Event()

    async def notice(result: ua.PublishResult) -> None:
        if result.NotificationMessage.NotificationData:
            arrived.set()

    async with house.session("friend") as old, house.session("friend") as new:
        await house.sink.publish(_outcome(1.0))
        heard = _Heard()
        subscription = await old.create_subscription(100, heard)
        await subscription.subscribe_data_change(old.get_node(_NODE))
        await heard.until(1.0)
        number, session = subscription.subscription_id, new.uaclient.session
        (moved,) = await session.transfer_subscriptions(ua.TransferSubscriptionsParameters([number], False))
        assert moved.StatusCode.is_good()
        session._subscription_callbacks[number] = notice
        session.ensure_publish_loop()
        await house.sink.publish(_outcome(2.0))
        async with asyncio.timeout(_WAIT):
            await arrived.wait()
        assert [code.name for code in await session.delete_subscriptions([number])] == ["Good"]
    assert [value for value, _ in heard.values] == [1.0]


async def test_numbers_of_subscriptions_do_not_come_again_after_a_restart(tmp_path):
    """Programs on one machine often share a certificate: one that asks for its old subscription gets no other's."""
    numbers = []
    for _ in range(2):
        sink = OpcUaSink(
            PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", security=("None",)), tmp_path, Diagnostics()
        )
        async with sink.open([_TAG]), Client(sink.endpoint) as client:
            made = [await client.create_subscription(1000, _Heard()) for _ in range(3)]
            numbers += [subscription.subscription_id for subscription in made]
            for subscription in made:
                await subscription.delete()
    assert len(set(numbers)) == 6, numbers


async def test_sessions_and_subscriptions_are_limited(house):
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(house.session("friend")) for _ in range(4)]
        with pytest.raises(ua.UaStatusCodeError, match="BadTooManySessions"):
            await (await house.client("friend")).connect()
        for client in clients[:3]:
            await client.create_subscription(100, _Heard())
        with pytest.raises(ua.UaStatusCodeError, match="BadTooManySubscriptions"):
            await clients[3].create_subscription(100, _Heard())


async def test_sessions_that_a_connection_forgets_do_not_fill_the_server(house):
    house.trust("friend")
    client = await house.client("friend")
    await client.connect_sessionless()
    for _ in range(10):
        await client.create_session()
    await client.disconnect_sessionless()
    async with house.session("friend"):
        pass


async def test_a_slow_ramp_crosses_a_deadband(house):
    """0 to 18 in steps of 0.9 with a deadband of 1: each value that is more than 1 from the last reported one."""
    async with house.session("friend") as friend:
        await house.sink.publish(_outcome(0.0))
        heard = _Heard()
        subscription = await friend.create_subscription(50, heard)
        await subscription.deadband_monitor(friend.get_node(_NODE), 1.0, queuesize=100)
        for step in range(1, 21):
            await house.sink.publish(_outcome(0.9 * step))
        await heard.until(0.9 * 20)
        await subscription.delete()
    assert [value for value, _ in heard.values] == [0.9 * step for step in range(0, 21, 2)]


async def test_a_percent_deadband_is_one_of_the_range_and_needs_one(house):
    """2 % of 0 to 125 are 2.5."""
    async with house.session("friend") as friend:
        await house.sink.publish(_outcome(0.0))
        heard = _Heard()
        subscription = await friend.create_subscription(50, heard)
        await subscription.deadband_monitor(friend.get_node(_NODE), 2.0, 2, queuesize=100)
        for value in (2.4, 2.5, 2.6, 5.0, 5.2):
            await house.sink.publish(_outcome(value))
        await heard.until(5.2)
        assert [value for value, _ in heard.values] == [0.0, 2.6, 5.2]
        bound = friend.get_node(ua.NodeId(ua.String(f"{_TAG.name}.LowerBound"), ua.Int16(2)))
        with pytest.raises(ua.UaStatusCodeError, match="BadMonitoredItemFilterUnsupported"):
            await subscription.deadband_monitor(bound, 2.0, 2)
        await subscription.delete()


async def test_requests_are_bounded_and_a_lost_value_is_marked(house):
    async with house.session("friend") as friend:
        heard = _Heard()
        params = ua.CreateSubscriptionParameters(0.0, 1000, 10, 0, True, 0)
        subscription = await friend.create_subscription(params, heard)
        await house.sink.publish(_outcome(-1.0))
        (result,) = await friend.uaclient.session.create_monitored_items(
            ua.CreateMonitoredItemsParameters(
                subscription.subscription_id, ua.TimestampsToReturn.Both, [_item(queue=1_000_000)]
            )
        )
        assert result.RevisedQueueSize == 100
        assert result.RevisedSamplingInterval == 50.0
        (two,) = await friend.uaclient.session.modify_monitored_items(
            ua.ModifyMonitoredItemsParameters(
                subscription.subscription_id,
                ua.TimestampsToReturn.Both,
                [ua.MonitoredItemModifyRequest(result.MonitoredItemId, ua.MonitoringParameters(1, 0.0, None, 2, True))],
            )
        )
        assert two.RevisedQueueSize == 2
        await subscription.delete()
        slow = await friend.create_subscription(1000, heard)
        await slow.subscribe_data_change(friend.get_node(_NODE), queuesize=2)
        await heard.until(-1.0)
        heard.values.clear()
        for value in range(5):
            await house.sink.publish(_outcome(float(value)))
        await heard.until(4.0)
        await slow.delete()
    assert heard.values == [(3.0, 0x480), (4.0, 0)]


def _item(queue: int) -> ua.MonitoredItemCreateRequest:
    read = ua.ReadValueId(NodeId=_NODE, AttributeId=ua.AttributeIds.Value)
    return ua.MonitoredItemCreateRequest(
        read, ua.MonitoringMode.Reporting, ua.MonitoringParameters(1, 0.0, None, queue, True)
    )
