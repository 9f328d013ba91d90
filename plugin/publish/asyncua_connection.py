"""The connections of our OPC UA server: the services of each, behind a gate, and what ends one.

What differs from asyncua 2.1.0 is told in :mod:`plugin.publish.asyncua_server`. Private names of asyncua are used:
``tests/contracts`` fails when one of them changes.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

from asyncua import ua
from asyncua.common.connection import SecureConnection
from asyncua.common.utils import NotEnoughData, ServiceError
from asyncua.crypto.security_policies import SecurityPolicyNone
from asyncua.server.uaprocessor import UaProcessor
from cryptography.exceptions import InvalidSignature

from plugin.publish.asyncua_inner import PlantInternalServer
from plugin.publish.asyncua_session import PlantSession
from plugin.publish.browsing import encode
from plugin.publish.capabilities import OPERATIONS
from plugin.publish.decoding import decoded, guard
from plugin.publish.identity import claimed
from plugin.publish.trail import NOBODY, answering
from plugin.publish.wire import Notice, publish_response

CHUNK_BYTES = 65535
_LEAST_BUFFER = 1024  # of a client [B]: smaller ones would have a long answer cut into millions of chunks
_UNREAD_BYTES = 32 * 1024 * 1024  # answers that wait for a client to read them
_UNREAD_IN_ALL = 256 * 1024 * 1024  # the same of all clients: beyond it the slowest goes
_LEAST_LIFETIME, _MOST_LIFETIME = 10_000, 3_600_000
"""Of a channel's token [ms]."""
_LONGEST_OPENING = 2048
"""Of a request for a channel, what is encrypted [B]: each 256 cost 1 ms, and a chunk had room for as many as 250."""
_GRACE = 1.25
"""A client that renews late is heard until so many lifetimes have passed (OPC 10000-4, 5.5.2.1)."""


def _requests(*names: str) -> frozenset[ua.NodeId]:
    return frozenset(ua.NodeId(getattr(ua.ObjectIds, f"{name}Request_Encoding_DefaultBinary")) for name in names)


_MESSAGE: Any = ua.MessageType.SecureMessage
_CREATE_SESSION = _requests("CreateSession")
_ACTIVATE_SESSION = _requests("ActivateSession")
_BROWSE_NEXT = _requests("BrowseNext")
_PUBLISH = _requests("Publish")
_BROWSED_ON = ua.FourByteNodeId(ua.Int32(ua.ObjectIds.BrowseNextResponse_Encoding_DefaultBinary))
_DISCOVERY = _requests("GetEndpoints", "FindServers")
_WITHOUT_SESSION = _requests("CreateSession", "ActivateSession", "GetEndpoints", "FindServers", "CloseSecureChannel")
_REGISTER = _requests("RegisterNodes", "UnregisterNodes")
_REFUSED = _requests("RegisterServer", "RegisterServer2")
_CHANGES = {
    request: name
    for name in ("AddNodes", "DeleteNodes", "AddReferences", "DeleteReferences", "HistoryUpdate")
    for request in _requests(name)
}
"""What nobody may, and is on record where somebody tries."""


guard()


class PlantChannel(SecureConnection):
    """A secure channel whose keys grow old; asyncua lets a client choose how old, and takes them for ever."""

    def __init__(self, *given: Any, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(*given)
        self._clock = clock
        self._ends = 0.0

    def open(self, params: Any, server: Any) -> ua.OpenSecureChannelResult:
        """As asyncua's, with a bounded lifetime (OPC 10000-4, 5.5.2)."""
        params.RequestedLifetime = ua.UInt32(min(max(params.RequestedLifetime, _LEAST_LIFETIME), _MOST_LIFETIME))
        self._ends = self._clock() + params.RequestedLifetime / 1000.0 * _GRACE
        return super().open(params, server)

    def _check_sym_header(self, security_hdr: ua.SymmetricAlgorithmHeader) -> None:
        """UaError for a token that is not the channel's, or that its client has not renewed in time."""
        super()._check_sym_header(security_hdr)
        if self.is_open() and self._clock() > self._ends:
            raise ua.UaError("the channel's token has expired")


class PlantProcessor(UaProcessor):
    """The services of one connection, with a gate in front of them."""

    iserver: PlantInternalServer

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._connection = PlantChannel(SecurityPolicyNone(), self._limits)  # type: ignore[no-untyped-call]

    neighbours: Sequence[Any] = ()
    """The connections of the server, this one among them."""
    _greeted = False
    _long_answer: ua.BrowseResponse | ua.ReadResponse | None = None

    async def process(self, header: Any, body: Any) -> Any:
        """As asyncua's; what it can't make sense of, such as a wrong signature, ends the connection."""
        understood = False
        try:
            if not self._acceptable(header, body):
                return False
            opens = header.MessageType == ua.MessageType.SecureOpen and not self.in_use
            async with self._turn() if opens else contextlib.nullcontext():
                going = await super().process(header, body)  # type: ignore[no-untyped-call]
            understood = True
            return going
        finally:
            if not (understood or self._transport.is_closing()):
                self._cut_off("protocol")

    def _acceptable(self, header: Any, body: Any) -> bool:
        """Before it is unpacked."""
        if header.MessageType == ua.MessageType.Hello:
            hello = decoded(ua.Hello, body.copy())
            again, self._greeted = self._greeted, True
            return not again and min(hello.ReceiveBufferSize, hello.SendBufferSize) >= _LEAST_BUFFER
        if header.MessageType == ua.MessageType.SecureOpen:
            opening = body.copy(header.body_size)
            decoded(ua.AsymmetricAlgorithmHeader, opening)
            if len(opening) > _LONGEST_OPENING:
                return False
        return self.in_use or self._connection._incoming_size + header.body_size <= CHUNK_BYTES

    def _turn(self) -> AbstractAsyncContextManager[None]:
        """For what costs much, and is done for anybody."""
        return self.iserver.reception.turn(str(self.name[0]))

    @property
    def in_use(self) -> bool:
        """A user stands behind it."""
        return self.session is not None and self.session.is_activated()

    async def part_with(self, subscription: ua.IntegerId, parting: Notice) -> None:
        """It goes on elsewhere: the client here is told, and no other request of it is answered for that one."""
        request = self.get_publish_request(subscription)
        self._publish_results_subs.pop(subscription, None)
        if request is not None and not self._transport.is_closing():
            await self.forward_publish_response(parting, request)

    def part(self, session: PlantSession) -> None:
        """The session goes on elsewhere: it does not end with this connection, nor is it reached over it."""
        if self.session is session:
            self.session = None

    def send_response(self, requesthandle: Any, seqhdr: Any, response: Any, msgtype: Any = _MESSAGE) -> None:
        """As asyncua's, to a client that reads its answers; long ones in turns with others' work."""
        if isinstance(response, ua.BrowseResponse | ua.ReadResponse):
            response.ResponseHeader.RequestHandle = requesthandle
            self._long_answer = response
            return
        super().send_response(requesthandle, seqhdr, response, msgtype)  # type: ignore[no-untyped-call]
        self._check_unread()

    @property
    def unread(self) -> int:
        """Answers that the client has not read yet [B]."""
        size: int = 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()
        return size

    def _check_unread(self) -> None:
        size = self.unread
        if size > _UNREAD_BYTES:
            self._cut_off("unread")
        elif size > CHUNK_BYTES:  # less is on its way, and not worth a look at all the others
            others = [each.processor for each in self.neighbours if isinstance(each.processor, PlantProcessor)]
            if sum(each.unread for each in others) > _UNREAD_IN_ALL:
                max(others, key=lambda each: each.unread)._cut_off("unread")

    def _cut_off(self, cause: str) -> None:
        self.iserver.cut_off(cause)
        self._transport.abort()

    async def _process_message(self, typeid: ua.NodeId, requesthdr: Any, seqhdr: Any, body: Any) -> Any:
        """As asyncua's, where the gate lets it through; ServiceError where not. Other errors are told of."""
        session = self.session.session_id if self.session is not None else None
        with self._telling(typeid), answering(session, requesthdr.AuditEntryId):
            return await self._answer(typeid, requesthdr, seqhdr, body)

    @contextlib.contextmanager
    def _telling(self, typeid: ua.NodeId) -> Iterator[None]:
        """asyncua answers BadInternalError to what no code foresaw, and goes on; we want to know of it."""
        foreseen = False
        try:
            yield
            foreseen = True
        except (ServiceError, ua.uaerrors.UaStatusCodeError, asyncio.CancelledError):
            foreseen = True
            raise
        except NotEnoughData:  # of what is read without :func:`decoded`
            foreseen = True
            raise ServiceError(ua.StatusCodes.BadDecodingError) from None
        finally:
            if not foreseen:
                self.iserver.tell_failure(int(typeid.Identifier), sys.exc_info()[1])

    async def _answer(self, typeid: ua.NodeId, requesthdr: Any, seqhdr: Any, body: Any) -> Any:
        if typeid in _REFUSED:
            raise ServiceError(ua.StatusCodes.BadServiceUnsupported)
        if typeid in _CHANGES:
            user = self.session.name_of_user if isinstance(self.session, PlantSession) else NOBODY
            await self.iserver.trail.unsupported(user, str(self.name[0]), _CHANGES[typeid])
            raise ServiceError(ua.StatusCodes.BadServiceUnsupported)
        if typeid in _REGISTER and int.from_bytes(body.copy(4).read(4), "little", signed=True) > OPERATIONS:
            raise ServiceError(ua.StatusCodes.BadTooManyOperations)
        if typeid in _CREATE_SESSION:
            return await self._create_session(typeid, requesthdr, seqhdr, body)
        if typeid in _ACTIVATE_SESSION:
            await self._check_channel(requesthdr.AuthenticationToken)
            await self._identify(requesthdr.AuthenticationToken, body)
            answer = await self._serve(typeid, requesthdr, seqhdr, body)
            self._take_over()
            return answer
        if typeid not in _WITHOUT_SESSION and self.session is not None:
            self._check_token(requesthdr.AuthenticationToken)
        if typeid in _DISCOVERY:
            async with self._turn():
                return await self._serve(typeid, requesthdr, seqhdr, body)
        if typeid in _BROWSE_NEXT:
            return await self._browse_next(requesthdr, seqhdr, body)
        if typeid in _PUBLISH:  # it is kept until there is something to answer, and without what takes room
            requesthdr.AuditEntryId = requesthdr.AdditionalHeader = None
        return await self._serve(typeid, requesthdr, seqhdr, body)

    async def forward_publish_response(self, result: Any, requestdata: Any) -> None:
        """A :class:`plugin.publish.wire.Notice`, encrypted for this client; measured."""
        with self.iserver.measure():
            handle, request = requestdata.requesthdr.RequestHandle, requestdata.seqhdr.RequestId
            body = publish_response(result, requestdata.results, handle, datetime.now(UTC))
            self._transport.write(self._connection.message_to_binary(body, request_id=request))
        self._check_unread()

    async def _serve(self, *message: Any) -> Any:
        answer = await super()._process_message(*message)  # type: ignore[no-untyped-call]
        response, self._long_answer = self._long_answer, None
        return answer if response is None else await self._send_long(response, message[2])

    async def _send_long(self, response: ua.BrowseResponse | ua.ReadResponse, sequence: Any) -> bool:
        encoded = await encode(response)
        if self._transport.is_closing():
            return False
        self._transport.write(self._connection.message_to_binary(encoded, request_id=sequence.RequestId))
        self._check_unread()
        return True

    async def _browse_next(self, requesthdr: Any, sequence: Any, body: Any) -> bool:
        """Which asyncua does not know; its answer differs from that of Browse by its type alone."""
        session = self.session
        if not isinstance(session, PlantSession) or not session.is_activated():
            raise ServiceError(ua.StatusCodes.BadSessionIdInvalid)
        results = await session.browse_next(decoded(ua.BrowseNextParameters, body))
        response = ua.BrowseResponse(TypeId=_BROWSED_ON, Results=results)
        response.ResponseHeader.RequestHandle = requesthdr.RequestHandle
        return await self._send_long(response, sequence)

    async def _create_session(self, *message: Any) -> Any:
        params = decoded(ua.CreateSessionParameters, message[3].copy())
        try:
            async with self._turn():
                self._check_policy()
                await self._admit(params)
                await self._leave_session()
                answer = await self._serve(*message)
        except ServiceError as error:
            name, address = params.ClientDescription.ApplicationUri or "", str(self.name[0])
            await self.iserver.trail.not_admitted(self._certificate() or b"", name, address, error.code)
            raise
        if isinstance(self.session, PlantSession):
            self.session.channel_certificate = self._certificate()
        return answer

    async def _check_channel(self, token: ua.NodeId) -> None:
        """A session is activated over a channel like that of its creation; who tries otherwise is on record."""
        try:
            self._check_policy()
            self._check_same_client(token)
        except ServiceError:
            await self.iserver.people.refuse("", str(self.name[0]), "channel")
            raise

    def _certificate(self) -> bytes | None:
        """DER; None over an open channel: there a client sends any certificate, and shows no key for it."""
        policy = self._connection.security_policy
        certificate: bytes | None = policy.peer_certificate
        return None if policy.Mode == ua.MessageSecurityMode.None_ else certificate

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

    def _take_over(self) -> None:
        session = self.session
        if isinstance(session, PlantSession):
            if isinstance(session.connection, PlantProcessor) and session.connection is not self:
                session.connection.part(session)
            session.connection = self

    async def _identify(self, token: ua.NodeId, body: Any) -> None:
        """Find out who the user is, before asyncua activates the session."""
        session = self.session or self.iserver.lookup_external_session(token)
        if not isinstance(session, PlantSession):
            return  # asyncua says that there is none
        params = decoded(ua.ActivateSessionParameters, body.copy())
        policy, address, nonce = self._connection.security_policy, str(self.name[0]), session.nonce or b""
        cause = "signature"
        try:
            async with self._turn():
                _check_signature(params.ClientSignature, nonce, policy)
                cause = "token"
                claim = claimed(params, self.iserver.people.tokens, nonce, policy, self.iserver.private_key)
        except ServiceError:
            await self.iserver.people.refuse("", address, cause)
            raise
        person = await self.iserver.people.identify(claim, address, self._certificate() or b"")
        if session is not self.session and session.is_activated() and person != session.user:
            await self.iserver.people.refuse(str(person.name), address, "channel")
            raise ServiceError(ua.StatusCodes.BadSecurityChecksFailed)
        session.candidate = person

    def _check_token(self, token: ua.NodeId) -> None:
        if self.session is not None and self.session.auth_token != token:
            raise ServiceError(ua.StatusCodes.BadSessionIdInvalid)

    def _check_same_client(self, token: ua.NodeId) -> None:
        session = self.session or self.iserver.lookup_external_session(token)
        if isinstance(session, PlantSession) and (
            session.auth_token != token or session.channel_certificate != self._certificate()
        ):
            raise ServiceError(ua.StatusCodes.BadSecurityChecksFailed)


def _check_signature(signature: ua.SignatureData, nonce: bytes, policy: Any) -> None:
    """That it is the client that opened the channel (OPC 10000-4, 5.7.3), before anybody looks at its user; asyncua
    looks at it afterwards, and calls a wrong one an internal error."""
    try:
        policy.asymmetric_cryptography.verify((policy.host_certificate or b"") + nonce, signature.Signature)
    except (InvalidSignature, ValueError, TypeError):  # what cryptography raises
        raise ServiceError(ua.StatusCodes.BadApplicationSignatureInvalid) from None
