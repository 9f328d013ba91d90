"""What asyncua's server lacks for a plant that is cut off, restarted and attacked. Written for asyncua 2.1.0.

Private names of asyncua that are used: ``BinaryServer._server``, ``_policies``, ``_make_protocol``,
``UaProcessor._process_message``, ``_connection``, ``InternalServer._external_sessions``.
"""

import asyncio
import os
import socket
import struct
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.crypto.security_policies import SecurityPolicyNone
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession
from asyncua.server.uaprocessor import UaProcessor
from asyncua.server.user_managers import UserManager

_DISCOVERY = frozenset(
    ua.NodeId(ua.Int32(number))
    for number in (
        ua.ObjectIds.GetEndpointsRequest_Encoding_DefaultBinary,
        ua.ObjectIds.FindServersRequest_Encoding_DefaultBinary,
        ua.ObjectIds.CloseSecureChannelRequest_Encoding_DefaultBinary,
    )
)
"""Services that any channel may use (OPC 10000-4, 5.4.1)."""


_RESET = struct.pack("ii", 1, 0)
"""Linger for no time at all: a close then resets the connection, as a cut cable's firewall would."""


_NOBODY = User(role=UserRole.Anonymous)


class Everyone(UserManager):
    """User manager: whoever comes is a plain user."""

    def get_user(
        self,
        iserver: InternalServer,
        username: str | None = None,
        password: str | None = None,
        certificate: Any = None,
    ) -> User:
        """A user who may read, and write what the AccessLevel allows; there are no administrators."""
        return User(role=UserRole.User)


class Sessions(InternalServer):
    """Session store whose authentication tokens can't be guessed: asyncua counts from 1001."""

    def create_session(self, name: str, user: User = _NOBODY, external: bool = False) -> InternalSession:
        """See :class:`InternalServer`."""
        session = super().create_session(name, user, external)
        if external:
            self.unregister_external_session(session)
            session.auth_token = ua.NodeId(ua.ByteString(os.urandom(32)))
            self.register_external_session(session)
        return session

    async def drop_sessions(self) -> None:
        """Close all sessions of clients, with their subscriptions."""
        for session in list(self._external_sessions.values()):
            await session.close_session(True)
        left = list(self.subscription_service.subscriptions)
        await self.subscription_service.delete_subscriptions(left)


class _Processor(UaProcessor):
    """Refuses sessions on a channel without security where none without security is offered: asyncua allows them."""

    open_allowed = True

    async def _process_message(self, typeid: ua.NodeId, requesthdr: Any, seqhdr: Any, body: Any) -> Any:
        is_open = isinstance(self._connection.security_policy, SecurityPolicyNone)
        if is_open and not self.open_allowed and typeid not in _DISCOVERY:
            raise ServiceError(ua.StatusCodes.BadSecurityPolicyRejected)
        return await super()._process_message(typeid, requesthdr, seqhdr, body)  # type: ignore[no-untyped-call]


class _Protocol(OPCUAProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.processor is None:  # refused: too many connections
            return
        self.processor = _Processor(self.iserver, self.transport, self.limits)
        self.processor.open_allowed = any(policy.matches(SecurityPolicyNone.URI) for policy in self.policies)
        self.processor.set_policies(self.policies)  # type: ignore[no-untyped-call]


class Listener(BinaryServer):
    """A listening socket that can be taken away and given back while sessions live on."""

    def _make_protocol(self) -> OPCUAProtocol:
        return _Protocol(self.iserver, self._policies, self.clients, self.closing_tasks, self.limits)

    async def open(self) -> None:
        """Listen; with port 0 on a free port, which :attr:`port` then names for good."""
        family = socket.AF_INET6 if ":" in self.hostname else socket.AF_INET
        listening = socket.create_server((self.hostname, self.port), family=family)
        self.port = listening.getsockname()[1]
        self._server = await asyncio.get_running_loop().create_server(self._make_protocol, sock=listening)
        if self.cleanup_task is None:  # asyncua's own; BinaryServer.stop() ends it
            self.cleanup_task = asyncio.create_task(self._close_task_loop())

    async def close(self) -> None:
        """Stop listening and reset all connections, without a word to the clients."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in list(self.iserver.asyncio_transports):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()
        await asyncio.sleep(0)  # the loop tells the protocols, which leave their clean-up behind
        await self._close_tasks()
