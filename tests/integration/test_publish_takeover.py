"""Who may go on with a subscription or a session that another connection began (OPC 10000-4, 5.7.3 and 5.14.7)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua
from asyncua.common.connection import MessageChunk
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.crypto.uacrypto import CertProperties

from plugin import pki
from plugin.diagnostics import Diagnostics
from plugin.domain import Outcome, OutputTag, Prediction, Run, RunKind, Status
from plugin.publish.config import PublishConfig, UserConfig
from plugin.publish.people import hashed
from plugin.publish.server import OpcUaSink

pytestmark = pytest.mark.asyncio(loop_scope="module")

_TAG = OutputTag("rul", "engine-01", "rul", "cycles", 0.0, 125.0, "")
_NODE = ua.NodeId(ua.String(_TAG.name), ua.Int16(2))
_WAIT = 10.0
_PASSWORD = "correct horse"


class _House:
    """A server that takes open and signed channels, and two clients that it trusts."""

    def __init__(self, sink: OpcUaSink, folder: Path) -> None:
        self.sink = sink
        self._folder = folder
        for name in ("friend", "other"):
            pki.trust(folder, self.identity(name).cert_path.read_bytes())

    def identity(self, name: str) -> pki.OwnCertificate:
        return pki.ensure_own_certificate(self._folder / name, f"urn:test:{name}", ["localhost"])

    @contextlib.asynccontextmanager
    async def signed(self, name: str, user: str = "") -> AsyncIterator[Client]:
        """A session over a channel that is signed."""
        own = self.identity(name)
        client = Client(self.sink.endpoint, timeout=_WAIT)
        client.application_uri = own.application_uri
        key = CertProperties(own.key_path, "pem")
        await client.set_security(SecurityPolicyBasic256Sha256, own.cert_path, key, mode=ua.MessageSecurityMode.Sign)
        if user:
            client.set_user(user)
            client.set_password(_PASSWORD)
        async with client:
            yield client

    @contextlib.asynccontextmanager
    async def open(self, shown: str) -> AsyncIterator[Client]:
        """An open channel, with the certificate of somebody."""
        client = Client(self.sink.endpoint, timeout=_WAIT)
        await client.connect_socket()
        _show(client, self.identity(shown).cert_path.read_bytes())
        await client.send_hello()
        await client.open_secure_channel()
        try:
            yield client
        finally:
            await client.close_secure_channel()
            client.disconnect_socket()

    async def publish(self, value: float) -> None:
        now, later = datetime.now(UTC), datetime(2100, 1, 1, tzinfo=UTC)
        prediction = Prediction(_TAG, 1, now, later, later, value, None, None, Status.GOOD, 1.0, 1)
        await self.sink.publish(Outcome(Run(1, "rul", RunKind.SCORE, now), (prediction,), ()))


def _show(client: Client, certificate: bytes) -> None:
    """As a client that sends a certificate where none is asked for."""
    protocol: Any = client.uaclient.protocol
    connection = protocol._connection
    usual = connection.message_to_binary

    def packed(message: bytes, message_type: Any = ua.MessageType.SecureMessage, request_id: int = 0) -> bytes:
        if message_type != ua.MessageType.SecureOpen:
            return bytes(usual(message, message_type, request_id))
        chunk: Any
        (chunk,) = MessageChunk.message_to_chunks(
            connection.security_policy, message, 65535, message_type=message_type, request_id=request_id
        )
        chunk.SecurityHeader.SenderCertificate = certificate
        connection._sequence_number += 1
        chunk.SequenceHeader.SequenceNumber = connection._sequence_number
        return bytes(chunk.to_binary())

    connection.message_to_binary = packed


class _Heard:
    """What a subscription says."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.statuses: list[str] = []
        self._news = asyncio.Event()

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        self.values.append(value)
        self._news.set()

    def status_change_notification(self, status: ua.StatusChangeNotification) -> None:
        self.statuses.append(status.Status.name)
        self._news.set()

    async def answered(self, result: ua.PublishResult) -> None:
        """For a session that took a subscription over, and has no object for it."""
        for data in result.NotificationMessage.NotificationData:
            self.values += [item.Value.Value.Value for item in getattr(data, "MonitoredItems", ())]
        self._news.set()

    async def until(self, *, value: float | None = None, status: str = "") -> None:
        async with asyncio.timeout(_WAIT):
            while (value is not None and value not in self.values) or (status and status not in self.statuses):
                self._news.clear()
                await self._news.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[_House]:
    folder = tmp_path_factory.mktemp("house")
    users = tuple(UserConfig(name=name, role="observer", password_hash=hashed(_PASSWORD)) for name in ("olga", "otto"))
    config = PublishConfig(
        endpoint="opc.tcp://127.0.0.1:0/foretag", users=users, anonymous=True,
        security=("None", "Basic256Sha256_Sign"),
    )  # fmt: skip
    sink = OpcUaSink(config, folder, Diagnostics())
    async with sink.open([_TAG]):
        made = _House(sink, folder)
        await made.publish(1.0)
        yield made


async def _transfer(client: Client, number: int, anew: bool = False) -> str:
    asked = ua.TransferSubscriptionsParameters([ua.IntegerId(number)], anew)
    (result,) = await client.uaclient.session.transfer_subscriptions(asked)
    return str(result.StatusCode.name)


async def test_a_certificate_without_its_key_takes_over_no_subscription(house):
    """Over an open channel both show the same one, which is public."""
    async with house.open("friend") as friend, house.open("friend") as thief:
        for client in (friend, thief):
            await client.create_session()
            await client.activate_session()
        subscription = await friend.create_subscription(100, _Heard())
        assert await _transfer(thief, subscription.subscription_id) == "BadUserAccessDenied"
        await thief.close_session()
        await friend.close_session()


async def test_a_token_that_was_read_on_a_signed_channel_is_of_no_use_on_an_open_one(house):
    async with house.signed("friend") as friend, house.open("friend") as thief:
        thief.uaclient.session.restore_authentication_token(friend.uaclient.session.authentication_token)
        with pytest.raises(ua.UaStatusCodeError, match="BadSecurityChecksFailed"):
            await thief.activate_session()
        assert (await friend.get_node(_NODE).read_browse_name()).Name == "rul"


async def test_a_user_takes_a_subscription_along_to_another_client_and_nobody_else_does(house):
    async with house.signed("friend", "olga") as old, house.signed("other", "olga") as new:
        subscription = await old.create_subscription(100, _Heard())
        async with house.signed("friend", "otto") as stranger, house.signed("friend") as nobody:
            for client in (stranger, nobody):
                assert await _transfer(client, subscription.subscription_id) == "BadUserAccessDenied"
        assert await _transfer(new, subscription.subscription_id) == "Good"


async def test_who_loses_a_subscription_is_told_and_answers_for_it_no_more(house):
    """Its other subscription goes on, and takes none of its messages."""
    async with house.signed("friend") as old, house.signed("friend") as new:
        stays, moves, took = _Heard(), _Heard(), _Heard()
        kept = await old.create_subscription(100, stays)
        moved = await old.create_subscription(100, moves)
        for subscription in (kept, moved):
            await subscription.subscribe_data_change(old.get_node(_NODE))
        await stays.until(value=1.0)
        await moves.until(value=1.0)
        assert await _transfer(new, moved.subscription_id) == "Good"
        await moves.until(status="GoodSubscriptionTransferred")
        session = new.uaclient.session
        session._subscription_callbacks[moved.subscription_id] = took.answered
        session.ensure_publish_loop()
        for value in (2.0, 3.0, 4.0):
            await house.publish(value)
            await stays.until(value=value)
            await took.until(value=value)
        await house.publish(1.0)
        assert moves.values == [1.0]


async def test_what_a_closed_session_leaves_behind_is_still_its_users(house):
    async with house.signed("friend") as old:
        subscription = await old.create_subscription(100, _Heard())
        await old.uaclient.session.close_session(False)
    async with house.signed("other") as stranger, house.signed("friend") as again:
        assert await _transfer(stranger, subscription.subscription_id) == "BadUserAccessDenied"
        assert await _transfer(again, subscription.subscription_id) == "Good"


async def test_who_takes_a_subscription_over_has_present_values_first_if_it_likes(house):
    async with house.signed("friend") as old, house.signed("friend") as new:
        before, after = _Heard(), _Heard()
        subscription = await old.create_subscription(100, before)
        await subscription.subscribe_data_change(old.get_node(_NODE))
        await before.until(value=1.0)
        session = new.uaclient.session
        session._subscription_callbacks[subscription.subscription_id] = after.answered
        assert await _transfer(new, subscription.subscription_id, anew=True) == "Good"
        session.ensure_publish_loop()
        await after.until(value=1.0)


async def test_a_client_asks_for_its_items_and_for_their_values_again_and_for_nobody_elses(house):
    async with house.signed("friend") as friend, house.signed("other") as other:
        heard = _Heard()
        subscription = await friend.create_subscription(100, heard)
        items = await subscription.subscribe_data_change([friend.get_node(_NODE)] * 2)
        await heard.until(value=1.0)
        heard.values.clear()
        monitored, again = (ua.ObjectIds.Server_GetMonitoredItems, ua.ObjectIds.Server_ResendData)
        number = ua.Variant(subscription.subscription_id, ua.VariantType.UInt32)
        for method, given, code in (
            (again, [], "BadSubscriptionIdInvalid"),
            (again, [ua.Variant([number.Value], ua.VariantType.UInt32)], "BadSubscriptionIdInvalid"),
            (again, [number, number], "BadTooManyArguments"),
            (monitored, [ua.Variant(number.Value, ua.VariantType.UInt64)], "BadTypeMismatch"),
        ):
            assert (await _call(friend, method, given)).StatusCode.name == code
        for method in (monitored, again):
            assert (await _call(other, method, [number])).StatusCode.name == "BadSubscriptionIdInvalid"
        servers, clients = (told.Value for told in (await _call(friend, monitored, [number])).OutputArguments)
        assert (servers, len(set(clients))) == (items, 2)
        assert (await _call(friend, again, [number])).StatusCode.is_good()
        async with asyncio.timeout(_WAIT):
            while heard.values != [1.0, 1.0]:
                await asyncio.sleep(0.01)


async def _call(client: Client, method: int, given: list[ua.Variant]) -> ua.CallMethodResult:
    server, called = (ua.NodeId(ua.Int32(number)) for number in (ua.ObjectIds.Server, method))
    (result,) = await client.uaclient.call([ua.CallMethodRequest(server, called, given)])
    return result
