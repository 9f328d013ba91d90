"""asyncua's server, made fit for a plant network: subclasses that close what the library leaves open.

What differs from ``asyncua.Server`` 2.1.0 (for subscriptions see :mod:`plugin.publish.asyncua_subscriptions`):

* A session is created or activated only over a channel whose policy is configured (OPC 10000-4, 5.6.2); asyncua lets a
  client that ignores the endpoint list in over an unencrypted channel, past the certificate check.
* The certificate that is checked is the one that opened the channel; asyncua checks the one in CreateSession, if any.
* A session moves to another channel only with the same client certificate (OPC 10000-4, 5.7.3).
* Authentication tokens are random (asyncua counts: 1001, 1002, …), and a session reaches no other's subscriptions.
* Nobody from outside is an administrator; services that change the address space or register servers are refused.
* Stopping takes no second and leaves no task behind.

Private names of asyncua are used: ``tests/contracts`` fails when one of them changes.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from asyncua import Server, ua
from asyncua.common.connection import TransportLimits
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession
from asyncua.server.uaprocessor import UaProcessor
from asyncua.ua.ua_binary import struct_from_binary
from cryptography.hazmat.primitives.serialization import Encoding

from plugin.publish.asyncua_subscriptions import PlantSubscriptions

Admit = Callable[[bytes, str, str], Awaitable[None]]
"""Certificate (DER), what its owner calls itself (application URI), its address → nothing, or raises ServiceError."""

Measure = Callable[[], AbstractContextManager[None]]
"""Around work whose CPU time is counted; there is no await inside."""

_QUEUE_SIZE = 100  # values kept for a client that names no queue size
_ACTIVATION_SECONDS = 10.0  # a connection that has no session by then is closed
_MESSAGE_BYTES = 4 * 1024 * 1024  # the largest request: a browse or subscription of some 10,000 nodes
_CHUNK_BYTES = 65535
_STOP_SECONDS = 2.0

_NOBODY = User(role=UserRole.Anonymous)


def _requests(*names: str) -> frozenset[ua.NodeId]:
    return frozenset(ua.NodeId(getattr(ua.ObjectIds, f"{name}Request_Encoding_DefaultBinary")) for name in names)


def _status(code: int) -> ua.StatusCode:
    return ua.StatusCode(ua.UInt32(code))


_CREATE_SESSION = _requests("CreateSession")
_ACTIVATE_SESSION = _requests("ActivateSession")
_REFUSED = _requests(
    "RegisterServer", "RegisterServer2", "AddNodes", "DeleteNodes", "AddReferences", "DeleteReferences"
)


class Visitors:
    """asyncua's user manager: whom the channel lets in is a plain user; no name makes an administrator."""

    def get_user(
        self, iserver: Any, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        """A name is refused: there is nothing to check its password against."""
        return User(role=UserRole.User) if username is None else None


class PlantSession(InternalSession):
    """A session whose token can't be guessed and which reaches no other session's subscriptions."""

    iserver: "PlantInternalServer"

    channel_certificate: bytes | None = None
    """DER of the certificate that opened the channel on which the session was created."""

    def __init__(self, server: "PlantInternalServer", *args: Any, external: bool = False, **kwargs: Any) -> None:
        super().__init__(server, *args, **kwargs)
        self.auth_token = ua.NodeId(ua.ByteString(secrets.token_bytes(32)), ua.Int16(0), ua.NodeIdType.ByteString)
        self.external = external
        if external:
            server.register_external_session(self)

    def _owns(self, subscription: int) -> bool:
        found = self.subscription_service.subscriptions.get(subscription)
        return found is not None and found.session_id == self.session_id

    def _demand(self, params: Any) -> Any:
        if not self._owns(params.SubscriptionId):
            raise ServiceError(ua.StatusCodes.BadSubscriptionIdInvalid)
        return params

    async def create_monitored_items(self, params: Any) -> Any:
        """BadSubscriptionIdInvalid for another's subscription, here and below."""
        return await super().create_monitored_items(self._demand(params))

    async def modify_monitored_items(self, params: Any) -> Any:
        """See above."""
        return await super().modify_monitored_items(self._demand(params))

    async def delete_monitored_items(self, params: Any) -> Any:
        """See above."""
        return await super().delete_monitored_items(self._demand(params))

    async def set_monitoring_mode(self, params: Any) -> Any:
        """See above."""
        return await super().set_monitoring_mode(self._demand(params))

    def modify_subscription(self, params: Any) -> Any:
        """See above."""
        return super().modify_subscription(self._demand(params))

    def republish(self, params: ua.RepublishParameters) -> ua.NotificationMessage:
        """BadMessageNotAvailable where asyncua answers an empty message, which sends clients into a loop."""
        message = super().republish(self._demand(params))
        if not message.SequenceNumber:
            raise ServiceError(ua.StatusCodes.BadMessageNotAvailable)
        return message

    async def set_publishing_mode(self, params: ua.SetPublishingModeParameters) -> list[ua.StatusCode]:
        """Another's subscription does not exist."""
        return [await self._set_publishing_mode(i, params.PublishingEnabled) for i in params.SubscriptionIds]

    async def _set_publishing_mode(self, subscription: int, enabled: bool) -> ua.StatusCode:
        if not self._owns(subscription):
            return _status(ua.StatusCodes.BadSubscriptionIdInvalid)
        await self.subscription_service.subscriptions[subscription].set_publishing_mode(enabled)
        return ua.StatusCode()

    async def delete_subscriptions(self, ids: list[int]) -> list[ua.StatusCode]:
        """Another's subscription does not exist."""
        owned = [i for i in ids if self._owns(i)]
        await self.subscription_service.delete_subscriptions(owned)
        return [_status(0 if i in owned else ua.StatusCodes.BadSubscriptionIdInvalid) for i in ids]

    def publish(self, acks: Iterable[ua.SubscriptionAcknowledgement] | None = None) -> tuple[int, list[ua.StatusCode]]:
        """The number of our subscriptions, and the result of each acknowledgement."""
        count = sum(sub.session_id == self.session_id for sub in self.subscription_service.subscriptions.values())
        if count == 0:
            raise ServiceError(ua.StatusCodes.BadNoSubscription)
        return count, [self._acknowledge(ack) for ack in acks or ()]

    def _acknowledge(self, ack: ua.SubscriptionAcknowledgement) -> ua.StatusCode:
        if not self._owns(ack.SubscriptionId):
            return _status(ua.StatusCodes.BadSubscriptionIdInvalid)
        self.subscription_service.subscriptions[ack.SubscriptionId].publish([ack.SequenceNumber])
        return ua.StatusCode()

    async def transfer_subscriptions(  # type: ignore[override]
        self, params: ua.TransferSubscriptionsParameters, callback: Callable[..., Any]
    ) -> list[ua.TransferResult]:
        """From a session of the same client, known by its certificate (OPC 10000-4, 5.14.7)."""
        return [await self._transfer(int(i), callback) for i in params.SubscriptionIds]

    async def _transfer(self, subscription: int, callback: Callable[..., Any]) -> ua.TransferResult:
        service = self.subscription_service
        found = service.subscriptions.get(subscription)
        owner = next((s for s in self.iserver.sessions() if found and s.session_id == found.session_id), None)
        if found is None or owner is None:
            return ua.TransferResult(_status(ua.StatusCodes.BadSubscriptionIdInvalid))
        if self.channel_certificate is None or self.channel_certificate != owner.channel_certificate:
            return ua.TransferResult(_status(ua.StatusCodes.BadUserAccessDenied))
        one = ua.TransferSubscriptionsParameters([ua.IntegerId(subscription)])
        (result,) = await service.transfer_subscriptions(one, self.session_id, callback)
        # asyncua forgets this half: the subscription would go on asking the old connection for publish requests
        found.pub_request_callback = callback.__self__.get_publish_request  # type: ignore[attr-defined]
        return result


class PlantInternalServer(InternalServer):
    """asyncua's inner server with our sessions, subscriptions and limits."""

    def __init__(self, admit: Admit | None, measure: Measure, max_sessions: int, max_subscriptions: int) -> None:
        super().__init__(user_manager=Visitors())  # type: ignore[arg-type]
        self.admit = admit
        self.measure = measure
        self._max_sessions = max_sessions
        self.allow_remote_admin = False
        self.subscription_service = self.isession.subscription_service = PlantSubscriptions(self.aspace, iserver=self)
        self.max_subscriptions = max_subscriptions
        self.max_connections = 2 * max_sessions
        self.max_monitored_item_queue_size = _QUEUE_SIZE
        self.max_pending_activation_seconds = _ACTIVATION_SECONDS
        self.max_unacked_messages_per_subscription = 500
        self.supported_tokens = (ua.AnonymousIdentityToken,)  # type: ignore[assignment]

    def sessions(self) -> list[PlantSession]:
        """The sessions of clients."""
        return [session for session in self._external_sessions.values() if isinstance(session, PlantSession)]

    def create_session(self, name: str, user: User = _NOBODY, external: bool = False) -> InternalSession:
        """BadTooManySessions at the limit."""
        if external and len(self._external_sessions) >= self._max_sessions:
            raise ServiceError(ua.StatusCodes.BadTooManySessions)
        return PlantSession(self, self.aspace, self.subscription_service, name, user=user, external=external)

    async def stop(self) -> None:
        """Close every session with its subscriptions, then stop, without waiting for the clock's next second."""
        for session in self.sessions():
            await session.close_session(True)
        if self.time_task is not None:
            self.time_task.cancel()
            await asyncio.wait((self.time_task,))
            self.time_task = None
        await super().stop()


class PlantProcessor(UaProcessor):
    """The services of one connection, with a gate in front of them."""

    iserver: PlantInternalServer

    async def _process_message(self, typeid: ua.NodeId, requesthdr: Any, seqhdr: Any, body: Any) -> Any:
        """As asyncua's, where the gate lets it through; ServiceError where not."""
        if typeid in _REFUSED:
            raise ServiceError(ua.StatusCodes.BadServiceUnsupported)
        if typeid in _CREATE_SESSION:
            self._check_policy()
            await self._admit(struct_from_binary(ua.CreateSessionParameters, body.copy()))
            await self._leave_session()
            answer = await self._serve(typeid, requesthdr, seqhdr, body)
            if isinstance(self.session, PlantSession):
                self.session.channel_certificate = self._certificate()
            return answer
        if typeid in _ACTIVATE_SESSION:
            self._check_policy()
            self._check_same_client(requesthdr.AuthenticationToken)
        return await self._serve(typeid, requesthdr, seqhdr, body)

    async def forward_publish_response(self, result: ua.PublishResult, requestdata: Any) -> None:
        """As asyncua's, and measured: encoding is most of what a subscriber costs."""
        with self.iserver.measure():
            result.Results = requestdata.results
            response = ua.PublishResponse(Parameters=result)
            self.send_response(requestdata.requesthdr.RequestHandle, requestdata.seqhdr, response)  # type: ignore[no-untyped-call]

    async def _serve(self, *message: Any) -> Any:
        return await super()._process_message(*message)  # type: ignore[no-untyped-call]

    def _certificate(self) -> bytes | None:
        certificate: bytes | None = self._connection.security_policy.peer_certificate
        return certificate

    def _check_policy(self) -> None:
        policy = self._connection.security_policy
        if not any(offered.matches(policy.URI, policy.Mode) for offered in self._connection._policies):
            raise ServiceError(ua.StatusCodes.BadSecurityPolicyRejected)

    async def _admit(self, params: ua.CreateSessionParameters) -> None:
        """Over a secured channel: the session's certificate is the channel's, and it is trusted."""
        if self._connection.security_policy.Mode == ua.MessageSecurityMode.None_:
            return
        certificate = self._certificate()
        if certificate is None or not (params.ClientCertificate or b"").startswith(certificate):
            raise ServiceError(ua.StatusCodes.BadCertificateInvalid)
        if self.iserver.admit is not None:
            await self.iserver.admit(certificate, params.ClientDescription.ApplicationUri or "", str(self.name[0]))

    async def _leave_session(self) -> None:
        """asyncua keeps one session per connection, and forgets an earlier one without closing it."""
        if self.session is not None:
            await self.session.close_session(True)
        if self._session_watchdog_task is not None:
            self._session_watchdog_task.cancel()

    def _check_same_client(self, token: ua.NodeId) -> None:
        session = self.session or self.iserver.lookup_external_session(token)
        if isinstance(session, PlantSession) and (
            session.auth_token != token or session.channel_certificate != self._certificate()
        ):
            raise ServiceError(ua.StatusCodes.BadSecurityChecksFailed)


class PlantProtocol(OPCUAProtocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncua's, with our processor."""
        super().connection_made(transport)
        if self.processor is not None:
            self.processor = PlantProcessor(self.iserver, self.transport, self.limits)
            self.processor.set_policies(self.policies)  # type: ignore[no-untyped-call]


class PlantBinaryServer(BinaryServer):
    """The listening socket."""

    def _make_protocol(self) -> PlantProtocol:
        return PlantProtocol(self.iserver, self._policies, self.clients, self.closing_tasks, self.limits)

    async def stop(self) -> None:
        """As asyncua's, and the connections that close meanwhile are awaited too."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await super().stop()
        await asyncio.sleep(0)
        await self._close_tasks()


class PlantServer(Server):
    """``asyncua.Server`` with all of the above. ``admit`` decides on the certificates of clients."""

    def __init__(
        self,
        *,
        admit: Admit | None = None,
        measure: Measure = nullcontext,
        max_sessions: int = 50,
        max_subscriptions: int = 100,
    ) -> None:
        self._inner = PlantInternalServer(admit, measure, max_sessions, max_subscriptions)
        super().__init__(iserver=self._inner)
        self.limits = TransportLimits(_CHUNK_BYTES, _CHUNK_BYTES, _MESSAGE_BYTES // _CHUNK_BYTES + 1, _MESSAGE_BYTES)

    async def start(self) -> None:
        """Listen. OSError where the address can't be bound; nothing is left running then."""
        await self._setup_server_nodes()
        await self.iserver.start()
        host, port = self._get_bind_socket_info()
        self.bserver = PlantBinaryServer(self.iserver, host or "127.0.0.1", port or 0, self.limits)
        self.bserver.set_policies(self._policies)
        try:
            await self.bserver.start()
        except BaseException:
            await self.iserver.stop()
            raise

    def sessions(self) -> list[PlantSession]:
        """The sessions of clients."""
        return self._inner.sessions()

    async def change_certificate(self, cert_path: Path, key_path: Path) -> None:
        """For connections that come from now on; those that stand keep the certificate that they know."""
        await self.load_certificate(cert_path)
        await self.load_private_key(key_path, format="pem")
        for policy in self._policies:
            policy.certificate, policy.private_key = self.iserver.certificate, self.iserver.private_key
        for endpoint in self.iserver.endpoints:
            endpoint.ServerCertificate = self.iserver.certificate.public_bytes(Encoding.DER)

    @property
    def port(self) -> int:
        """The port that is listened on, also where 0 was asked for."""
        return self.bserver.port if self.bserver is not None else 0
