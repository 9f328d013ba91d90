"""Users of our OPC UA server, over a real socket: who comes in, as whom, and what each may do.

The holes of asyncua 2.1.0's server that are shut, and where (sessions, subscriptions: ``test_publish_hardening.py``;
what a client shows of its user: ``tests/unit/test_publish_people.py``):

==============================================================  =======================================================
asyncua's server                                                here
==============================================================  =======================================================
"admin" is an administrator, with any password                  test_who_shows_no_user_or_a_wrong_one_stays_outside
every user may call every method                                test_a_method_is_for_the_roles_that_may_call_it
every user may read every history                               test_observers_read_history_and_the_stranger_does_not
a node without CurrentRead is readable                          test_a_node_that_must_not_be_read_is_not
a writable node of the standard is anybody's                    test_nobody_writes
a password is taken in the clear over an open channel           test_an_open_channel_takes_no_password
a session goes on as another user on another channel            test_a_session_does_not_change_hands
requests name as many nodes as they like                        test_requests_are_bounded
a request needs no token                                        test_a_request_carries_its_sessions_token
4 GiB of a message are kept until its end comes                 test_what_is_no_opc_ua_is_cut_off
after a wrong signature the channel goes on                     test_a_forged_message_ends_the_connection
answers pile up for a client that does not read them            test_a_client_that_does_not_read_is_cut_off
ConditionRefresh of another's subscription                      test_alarms_are_refreshed_for_their_owner_alone
ModifySubscription says Good and does nothing                   test_a_subscription_is_modified_within_bounds
any number of monitored items                                   test_monitored_items_are_limited
==============================================================  =======================================================
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.crypto.uacrypto import CertProperties

from plugin import pki
from plugin.diagnostics import Diagnostics
from plugin.domain import Audit, OutputTag
from plugin.publish import asyncua_connection
from plugin.publish.asyncua_server import Limits, PlantServer
from plugin.publish.config import PublishConfig, UserConfig
from plugin.publish.people import People, Permission, caller, hashed
from plugin.publish.server import OpcUaSink
from tests.certificates import make

pytestmark = pytest.mark.asyncio(loop_scope="module")

_TAG = OutputTag("rul", "engine-01", "rul", "cycles", 0.0, 125.0, "")
_NODE = ua.NodeId(ua.String(_TAG.name), ua.Int16(2))
_PASSWORD = "correct horse"
_EVA = make("eva", uri="urn:test:eva")
_WAIT = 10.0


def _method(name: str) -> ua.NodeId:
    return ua.NodeId(ua.String(name), ua.Int16(2))


class House:
    """A server with users and methods of ours, and its clients, who are all trusted."""

    def __init__(self, server: PlantServer, diagnostics: Diagnostics, folder: Path, audit: list[Audit]) -> None:
        self.server = server
        self.diagnostics = diagnostics
        self.audit = audit
        self.folder = folder
        self.called_by: list[str] = []

    async def client(self, user: str = "", password: str = _PASSWORD, **more: Any) -> Client:
        """Ready to connect."""
        own = pki.ensure_own_certificate(self.folder / "client", "urn:test:client", ["localhost"])
        client = Client(f"opc.tcp://127.0.0.1:{self.server.port}", timeout=_WAIT)
        client.application_uri = own.application_uri
        mode = ua.MessageSecurityMode[more.get("mode", "SignAndEncrypt")]
        key = CertProperties(own.key_path, "pem")
        await client.set_security(SecurityPolicyBasic256Sha256, own.cert_path, key, mode=mode)
        if user:
            client.set_user(user)
            client.set_password(password)
        return client

    @contextlib.asynccontextmanager
    async def session(self, user: str = "", **more: Any) -> AsyncIterator[Client]:
        async with await self.client(user, **more) as client:
            yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("house")
    own = pki.ensure_own_certificate(folder / "server", "urn:foretag", ["localhost"])
    hash_ = hashed(_PASSWORD)
    roles: Any = {"olga": "observer", "otto": "operator", "ed": "engineer", "ada": "administrator"}
    users = [UserConfig(name=name, role=role, password_hash=hash_) for name, role in roles.items()]
    users.append(UserConfig(name="eva", role="engineer", certificate=pki.thumbprint(_EVA.der)))
    diagnostics, audit = Diagnostics(), []

    async def record(entry: Audit) -> None:
        audit.append(entry)

    people = People(PublishConfig(users=tuple(users)), diagnostics, record)
    cut_off: Callable[[str], None] = lambda cause: diagnostics.clients_cut_off.labels(cause).inc()  # noqa: E731
    server = PlantServer(people, limits=Limits(monitored_items=50), cut_off=cut_off)
    server.set_endpoint("opc.tcp://127.0.0.1:0")
    await server.init()
    await server.set_application_uri("urn:foretag")
    await server.load_certificate(own.cert_path)
    await server.load_private_key(own.key_path, format="pem")
    server.set_security_policy(
        [ua.SecurityPolicyType.Basic256Sha256_Sign, ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt]
    )
    await server.register_namespace("urn:foretag:predictions")
    made = House(server, diagnostics, folder, audit)
    await _furnish(made)
    await server.start()
    yield made
    await server.stop()


async def _furnish(house: House) -> None:
    async def note(parent: ua.NodeId) -> None:
        house.called_by.append(f"{caller().name} {caller().rank.name}")

    objects = house.server.nodes.objects
    for permission in (*Permission, None):
        name = str(permission or "unsaid")
        await objects.add_method(_method(name), name, note)
        if permission is not None:
            house.server.permit(_method(name), permission)
    await objects.add_variable(_NODE, "value", 1.0)
    writable = await objects.add_variable(_method("writable"), "writable", 1.0)
    await writable.set_writable()
    await objects.add_variable(_method("large"), "large", bytes(1_000_000))
    secret = await objects.add_variable(_method("secret"), "secret", 4711.0)
    nothing = ua.DataValue(ua.Variant(0, ua.VariantType.Byte))
    await secret.write_attribute(ua.AttributeIds.AccessLevel, nothing)


async def _refused(client: Client, code: str) -> None:
    with pytest.raises(ua.UaStatusCodeError, match=code):
        await client.connect()


@pytest.mark.parametrize(
    ("user", "password", "code"),
    [
        ("admin", "admin", "BadUserAccessDenied"),
        ("otto", "wrong", "BadUserAccessDenied"),
        ("otto", "", "BadIdentityTokenInvalid"),
        ("eva", _PASSWORD, "BadUserAccessDenied"),
        ("", "", "BadIdentityTokenRejected"),
    ],
)
async def test_who_shows_no_user_or_a_wrong_one_stays_outside(house, user, password, code):
    before = house.diagnostics.total("users_refused_total")
    await _refused(await house.client(user, password), code)
    assert house.diagnostics.total("users_refused_total") == before + 1
    assert house.audit[-1].action == "session refused"
    assert house.audit[-1].subject == "127.0.0.1"
    assert _PASSWORD not in repr(house.audit)


@pytest.mark.parametrize("mode", ["Sign", "SignAndEncrypt"])
async def test_a_password_comes_through_both_kinds_of_secured_channel(house, mode):
    async with house.session("otto", mode=mode) as otto:
        assert await otto.get_node(_NODE).read_value() == 1.0
    assert (house.audit[-1].action, house.audit[-1].user) == ("session", "otto")


async def test_who_does_not_sign_as_the_client_of_its_channel_has_no_session(house):
    client = await house.client("otto")
    await client.connect_sessionless()
    await client.create_session()
    client.security_policy.asymmetric_cryptography.signature = lambda data: bytes(384)
    before = len(house.audit)
    with pytest.raises(ua.UaStatusCodeError, match="BadApplicationSignatureInvalid"):
        await client.activate_session("otto", _PASSWORD)
    await client.disconnect_sessionless()
    ((action, after),) = [(entry.action, entry.after) for entry in house.audit[before:]]
    assert (action, after["cause"]) == ("session refused", "signature")


async def test_a_user_comes_by_certificate(house, tmp_path):
    (tmp_path / "eva.der").write_bytes(_EVA.der)
    (tmp_path / "eva.pem").write_bytes(_EVA.key_pem)
    client = await house.client()
    await client.load_client_certificate(str(tmp_path / "eva.der"))
    await client.load_private_key(str(tmp_path / "eva.pem"))
    async with client:
        await client.nodes.objects.call_method(_method("engineer"))
    assert house.called_by[-1] == "eva ENGINEER"


@pytest.mark.parametrize(
    ("user", "allowed"),
    [
        ("olga", {"read", "history"}),
        ("otto", {"read", "history", "alarms", "operate", "unsaid"}),
        ("ed", {"read", "history", "alarms", "operate", "engineer", "audit", "unsaid"}),
        ("ada", {"read", "history", "alarms", "operate", "engineer", "administer", "audit", "unsaid"}),
    ],
)
async def test_a_method_is_for_the_roles_that_may_call_it(house, user, allowed):
    called = set()
    async with house.session(user) as client:
        for name in (*map(str, Permission), "unsaid"):
            try:
                await client.nodes.objects.call_method(_method(name))
            except ua.uaerrors.BadUserAccessDenied:
                continue
            called.add(name)
    assert called == allowed
    assert house.called_by[-1].startswith(f"{user} ")


async def test_observers_read_history_and_the_stranger_does_not(house):
    async with house.session("olga") as olga:
        details = ua.ReadRawModifiedDetails(False, ua.DateTime.now(), ua.DateTime.now(), 1, False)
        asked = ua.HistoryReadParameters(details, ua.TimestampsToReturn.Both, False, [ua.HistoryReadValueId(_NODE)])
        (result,) = await olga.uaclient.history_read(asked)
        assert result.StatusCode.name != "BadUserAccessDenied"
        (session,) = house.server.sessions()
        session.user = session.iserver.isession.user  # of no role: as long as a session is not activated
        with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
            await olga.uaclient.history_read(asked)


async def test_a_node_that_must_not_be_read_is_not(house):
    async with house.session("ada") as ada:
        with pytest.raises(ua.UaStatusCodeError, match="BadNotReadable"):
            await ada.get_node(_method("secret")).read_value()
        assert (await ada.get_node(_method("secret")).read_browse_name()).Name == "secret"
        heard: list[Any] = []
        subscription = await ada.create_subscription(100, _Heard(heard))
        with pytest.raises(ua.UaStatusCodeError, match="BadNotReadable"):
            await subscription.subscribe_data_change(ada.get_node(_method("secret")))
        await subscription.delete()
    assert not heard


async def test_nobody_writes(house):
    async with house.session("ada") as ada:
        for node in (_method("writable"), _NODE, ua.NodeId(ua.Int32(ua.ObjectIds.Server_Auditing))):
            with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
                await ada.get_node(node).write_value(ua.DataValue(ua.Variant(2.0)))
        with pytest.raises(ua.UaStatusCodeError, match="BadNodeIdUnknown"):
            await ada.get_node(_method("nowhere")).write_value(ua.DataValue(ua.Variant(2.0)))


async def test_an_open_channel_takes_no_password(tmp_path):
    user = UserConfig(name="otto", role="operator", password_hash=hashed(_PASSWORD))
    security: Any = ("None", "Basic256Sha256_SignAndEncrypt")
    config = PublishConfig(endpoint="opc.tcp://127.0.0.1:0", security=security, anonymous=True, users=(user,))
    sink = OpcUaSink(config, tmp_path, Diagnostics())
    async with sink.open([_TAG]):
        endpoints = await Client(sink.endpoint).connect_and_get_server_endpoints()
        kinds = {each.SecurityMode.name: {t.TokenType.name for t in each.UserIdentityTokens} for each in endpoints}
        assert kinds == {"None_": {"Anonymous"}, "SignAndEncrypt": {"Anonymous", "UserName"}}
        client = Client(sink.endpoint, timeout=_WAIT)
        await client.connect_sessionless()
        await client.create_session()
        token = ua.UserNameIdentityToken("username", "otto", _PASSWORD.encode(), None)
        params = ua.ActivateSessionParameters(UserIdentityToken=token)
        with pytest.raises(ua.UaStatusCodeError, match="BadIdentityTokenRejected"):
            await client.uaclient.activate_session(params)
        await client.disconnect_sessionless()


async def test_a_session_does_not_change_hands(house):
    async with house.session("otto") as otto:
        token = otto.uaclient.session.authentication_token
        other = await house.client("olga")
        await other.connect_sessionless()
        other.uaclient.session.restore_authentication_token(token)
        other._server_nonce = otto._server_nonce
        with pytest.raises(ua.UaStatusCodeError):
            await other.activate_session("olga", _PASSWORD)
        await other.disconnect_sessionless()
        assert await otto.get_node(_NODE).read_value() == 1.0
        (session,) = house.server.sessions()
        assert session.user.name == "otto"


async def test_requests_are_bounded(house):
    async with house.session("olga") as olga:
        with pytest.raises(ua.UaStatusCodeError, match="BadTooManyOperations"):
            await olga.uaclient.read_attributes([_NODE] * 10_001, ua.AttributeIds.BrowseName)


async def test_a_request_carries_its_sessions_token(house):
    async with house.session("olga") as olga:
        session = olga.uaclient.session
        token = session.authentication_token
        session.restore_authentication_token(ua.NodeId(ua.Int32(4711)))
        with pytest.raises(ua.UaStatusCodeError, match="BadSessionIdInvalid"):
            await olga.get_node(_NODE).read_value()
        session.restore_authentication_token(token)
        assert await olga.get_node(_NODE).read_value() == 1.0


_HELLO = b"HELF" + (32).to_bytes(4, "little") + bytes(24)


@pytest.mark.parametrize(
    "message",
    [
        b"GET / HTTP/1.1\r\n\r\n", b"MSGF\xff\xff\xff\x7f", _HELLO + b"HELF\xff\xff\xff\x7f", b"HELX" + bytes(28),
        b"MSG" * 9,
    ],
    ids=["http", "2 GiB", "2 GiB after a hello", "no such chunk", "rubbish"],
)  # fmt: skip
async def test_what_is_no_opc_ua_is_cut_off(house, message):
    before = house.diagnostics.value("clients_cut_off_total", cause="protocol")
    reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
    writer.write(message)
    async with asyncio.timeout(_WAIT):
        with contextlib.suppress(ConnectionError):
            while await reader.read(1000):
                pass
    writer.close()
    assert house.diagnostics.value("clients_cut_off_total", cause="protocol") == before + 1


async def test_a_forged_message_ends_the_connection(house):
    client = await house.client("olga")
    await client.connect_sessionless()
    assert len(house.server.bserver.clients) == 1
    protocol: Any = client.uaclient.protocol
    forged = bytearray(protocol._connection.message_to_binary(bytes(200)))
    forged[-1] ^= 1
    protocol.transport.write(bytes(forged))
    async with asyncio.timeout(_WAIT):
        while house.server.bserver.clients:
            await asyncio.sleep(0.01)
    await client.disconnect_sessionless()


async def test_a_client_that_does_not_read_is_cut_off(house, monkeypatch):
    monkeypatch.setattr(asyncua_connection, "_UNREAD_BYTES", 100_000)
    client = await house.client("olga")
    await client.connect()
    protocol: Any = client.uaclient.protocol
    protocol.transport.pause_reading()
    large = client.get_node(_method("large"))
    waiting = [asyncio.create_task(large.read_data_value()) for _ in range(40)]
    async with asyncio.timeout(60):
        while not house.diagnostics.value("clients_cut_off_total", cause="unread"):
            await asyncio.sleep(0.02)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    protocol.transport.abort()
    for task in (client._renew_channel_task, client._supervisor_task, client._stale_watchdog_task):
        await client._cancel_task(task)


class _Heard:
    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        self._values.append(value)


async def test_alarms_are_refreshed_for_their_owner_alone(house):
    async with house.session("otto") as otto, house.session("ada") as ada:
        subscription = await otto.create_subscription(100, _Heard([]))
        number = ua.Variant(subscription.subscription_id, ua.VariantType.UInt32)
        method = ua.NodeId(ua.Int32(ua.ObjectIds.ConditionType_ConditionRefresh))
        kind = ua.NodeId(ua.Int32(ua.ObjectIds.ConditionType))
        with pytest.raises(ua.UaStatusCodeError, match="BadSubscriptionIdInvalid"):
            await ada.get_node(kind).call_method(method, number)
        await subscription.delete()


async def test_a_subscription_is_modified_within_bounds(house):
    async with house.session("olga") as olga:
        heard: list[Any] = []
        subscription = await olga.create_subscription(60_000, _Heard(heard))
        number, session = subscription.subscription_id, olga.uaclient.session
        params = ua.ModifySubscriptionParameters(ua.UInt32(number), 0.0, ua.UInt32(1), ua.UInt32(10), ua.UInt32(1))
        result = await session.update_subscription(params)
        assert result.RevisedPublishingInterval == 50.0
        assert result.RevisedLifetimeCount == 30
        params.RequestedPublishingInterval, params.RequestedLifetimeCount = 1e12, ua.UInt32(4_000_000_000)
        result = await session.update_subscription(params)
        assert (result.RevisedPublishingInterval, result.RevisedLifetimeCount) == (3_600_000.0, 3)
        await subscription.delete()


async def test_monitored_items_are_limited(house):
    async with house.session("olga") as olga:
        subscription = await olga.create_subscription(1000, _Heard([]))
        with pytest.raises(ua.UaStatusCodeError, match="BadTooManyMonitoredItems"):
            await subscription.subscribe_data_change([olga.get_node(_NODE)] * 51)
        await subscription.subscribe_data_change([olga.get_node(_NODE)] * 50)
        with pytest.raises(ua.UaStatusCodeError, match="BadTooManyMonitoredItems"):
            await subscription.subscribe_data_change(olga.get_node(_NODE))
        await subscription.delete()


async def test_a_message_is_asked_for_again_as_often_as_need_be_until_it_is_acknowledged(house):
    async with house.session("olga") as olga:
        subscription = await olga.create_subscription(60_000, _Heard([]))
        await subscription.subscribe_data_change(olga.get_node(_NODE))
        session, identifier = olga.uaclient.session, subscription.subscription_id
        server_side: Any = house.server.iserver.subscription_service.subscriptions[identifier]
        await house.server.write_attribute_value(_NODE, ua.DataValue(ua.Variant(7.0)))
        number = int.from_bytes(server_side._pop_publish_result().message[:4], "little")
        again = [await session.republish(identifier, number) for _ in range(2)]
        assert again[0] == again[1]
        (change,) = again[0].NotificationData
        assert change.MonitoredItems[-1].Value.Value.Value == 7.0
        assert server_side.unacknowledged.acknowledge(number)
        assert not server_side.unacknowledged.acknowledge(number)
        with pytest.raises(ua.UaStatusCodeError, match="BadMessageNotAvailable"):
            await session.republish(identifier, number)
        await subscription.delete()
