"""asyncua's server, made fit for a plant network: subclasses that close what the library leaves open.

What differs from ``asyncua.Server`` 2.1.0 (see also :mod:`plugin.publish.asyncua_connection`,
:mod:`plugin.publish.asyncua_session` and :mod:`plugin.publish.asyncua_subscriptions`):

* A session is created or activated only over a channel whose policy is configured (OPC 10000-4, 5.6.2); asyncua lets a
  client that ignores the endpoint list in over an unencrypted channel, past the certificate check.
* The certificate that is checked is the one that opened the channel; asyncua checks the one in CreateSession, if any.
* A session moves to another channel only with the same client certificate and user (OPC 10000-4, 5.7.3).
* Users are :class:`plugin.publish.people.People`; asyncua's default lets in "admin" with any password.
* Each request carries the token of its connection's session (OPC 10000-4, 7.32); asyncua looks at none.
* Services that change the address space or register servers are refused.
* A connection is closed that sends what is no OPC UA, or more than a chunk holds, or that does not read its answers;
  asyncua keeps what it can't read, up to 4 GiB of it, and goes on after a wrong signature.
* Of a message from a client that has no session yet, a chunk's worth is kept, and no gigabytes are made of a few bytes
  (:mod:`plugin.publish.decoding`); it says Hello once, with buffers of a size (OPC 10000-6, 7.1.2.3).
* A channel's token lives an hour at most, and a client that does not renew it is cut off (OPC 10000-4, 5.5.2); asyncua
  takes any lifetime, and takes tokens for ever.
* Where all connections are taken, the oldest without a session makes room (OPC 10000-4, 5.6.2).
* A session that moved to another connection does not end with the one that it left.
* Stopping takes no second and leaves no task behind.

Private names of asyncua are used: ``tests/contracts`` fails when one of them changes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncua import Server, ua
from asyncua.common.connection import TransportLimits
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession
from cryptography.hazmat.primitives.serialization import Encoding

from plugin.publish.asyncua_connection import CHUNK_BYTES, PlantBinaryServer
from plugin.publish.asyncua_session import PlantSession
from plugin.publish.asyncua_subscriptions import PlantSubscriptions
from plugin.publish.capabilities import tell_limits
from plugin.publish.event_filter import Occurrence
from plugin.publish.people import People, Permission, may, role_of
from plugin.publish.points import Points
from plugin.publish.resending import Resending
from plugin.publish.standard_nodes import fill
from plugin.publish.trail import Trail

_log = logging.getLogger(__name__)

Admit = Callable[[bytes, str, str], Awaitable[None]]
"""Certificate (DER), what its owner calls itself (application URI), its address → nothing, or raises ServiceError."""

Measure = Callable[[], AbstractContextManager[None]]
"""Around work whose CPU time is counted; there is no await inside."""

CutOff = Callable[[str], None]
"""Told why, whenever a connection is closed for what it did."""

Failed = Callable[[str], None]
"""Told the error's name, whenever a request ended in one that nobody foresaw."""

LostEvent = Callable[[], None]
"""Called for each event that a client's full queue drops."""

LostValues = Callable[[int], None]
"""Told how many values a client's full queue drops."""

ReadHistory = Callable[[ua.HistoryReadParameters, Points], Awaitable[list[ua.HistoryReadResult]]]
"""Answers to HistoryRead; the continuation points are those of the session."""

_QUEUE_SIZE = 100  # values kept for a client that names no queue size
_ACTIVATION_SECONDS = 10.0  # a connection that has no session by then is closed
_MESSAGE_BYTES = 4 * 1024 * 1024  # the largest request: a browse or subscription of some 10,000 nodes

_NOBODY = User(role=UserRole.Anonymous)


_HARMLESS = frozenset(
    ua.NodeId(ua.Int32(number))
    for number in (
        ua.ObjectIds.ConditionType_ConditionRefresh,
        ua.ObjectIds.ConditionType_ConditionRefresh2,
        ua.ObjectIds.Server_GetMonitoredItems,
        ua.ObjectIds.Server_ResendData,
    )
)
"""Methods of the standard that an observer may call."""


async def _no_history(params: ua.HistoryReadParameters, _: Points) -> list[ua.HistoryReadResult]:
    unsupported = ua.StatusCode(ua.UInt32(ua.StatusCodes.BadHistoryOperationUnsupported))
    return [ua.HistoryReadResult(unsupported) for _ in params.NodesToRead]


@dataclass(frozen=True, slots=True)
class Limits:
    """How many of each there may be at a time, of all clients together."""

    sessions: int = 50
    subscriptions: int = 100
    monitored_items: int = 250_000


class PlantInternalServer(InternalServer):
    """asyncua's inner server with our sessions, subscriptions and limits."""

    def __init__(self, people: People, admit: Admit | None, measure: Measure, limits: Limits, cut_off: CutOff) -> None:
        super().__init__()
        self.people = people
        self.user_manager: Any = None  # who comes is settled before a session is activated
        self.admit = admit
        self.measure = measure
        self.cut_off = cut_off
        self.history: ReadHistory = _no_history
        self.trail = Trail()
        self._max_sessions = max_sessions = limits.sessions
        self.failed: Failed = lambda _: None
        self.lose_event: LostEvent = lambda: None
        self.lose_values: LostValues = lambda _: None
        self._failures: set[tuple[int, type]] = set()
        self._permissions = dict.fromkeys(_HARMLESS, Permission.READ)
        self.allow_remote_admin = False
        self.plant_subscriptions = PlantSubscriptions(self.aspace, iserver=self)
        self.subscription_service = self.isession.subscription_service = self.plant_subscriptions
        self.max_subscriptions = limits.subscriptions
        self.max_monitored_items = limits.monitored_items
        self.max_connections = 2 * max_sessions
        self.max_monitored_item_queue_size = _QUEUE_SIZE
        self.max_pending_activation_seconds = _ACTIVATION_SECONDS
        self.max_unacked_messages_per_subscription = 500
        self.supported_tokens = people.tokens  # type: ignore[assignment]
        self._resending = Resending(self.plant_subscriptions)

    async def load_standard_address_space(self, shelf_file: Path | None = None) -> None:
        """From asyncua's list of them, in a thread; there is no shelf."""
        await asyncio.to_thread(fill, self.aspace)

    async def setup_nodes(self) -> None:
        """As asyncua's, with the limits that are not its own."""
        await super().setup_nodes()
        self._resending.open(self.aspace)
        tell_limits(
            self.aspace,
            sessions=self._max_sessions,
            subscriptions=self.max_subscriptions,
            items=self.max_monitored_items,
            queue=self.max_monitored_item_queue_size,
        )

    def tell_failure(self, request: int, error: BaseException | None) -> None:
        """Of a request (``ObjectIds``) that ended in an error that nobody foresaw: counted, and told once per kind."""
        kind = type(error)
        self.failed(kind.__name__)
        if (request, kind) not in self._failures:
            self._failures.add((request, kind))
            name = ua.ObjectIdNames.get(request, str(request)).removesuffix("_Encoding_DefaultBinary")
            _log.error("OPC UA server: %s ended in an internal error; more of its kind are counted", name,
                       exc_info=error)  # fmt: skip

    def permission(self, method: ua.NodeId) -> Permission:
        """What a method asks for."""
        return self._permissions.get(method, Permission.OPERATE)

    def permit(self, method: ua.NodeId, permission: Permission) -> None:
        """From now on a method asks for this."""
        self._permissions[method] = permission

    def name_of(self, node: ua.NodeId) -> str:
        """BrowseName of a node; empty: there is no such node."""
        name = self.aspace.read_attribute_value(node, ua.AttributeIds.BrowseName).Value
        return str(name.Value.Name) if name is not None and name.Value is not None else ""

    def readable(self, asked: ua.ReadValueId) -> bool:
        """False for the value of a node without CurrentRead."""
        if asked.AttributeId != ua.AttributeIds.Value:
            return True
        node = self.aspace.get(asked.NodeId)
        level = node.attributes.get(ua.AttributeIds.AccessLevel) if node is not None else None
        mask = level.value.Value.Value if level is not None and level.value and level.value.Value else None
        return mask is None or bool(mask & ua.AccessLevel.CurrentRead.mask)

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


class PlantServer(Server):
    """``asyncua.Server`` with all of the above.

    ``admit`` decides on the certificates of clients, ``people`` on their users. ``cut_off`` is told why, whenever a
    connection is closed for what it did, ``failed`` of every request that ended in an internal error, ``lose_event``
    and ``lose_values`` of what a client was too slow for. ``trail`` is told of what clients do.
    """

    def __init__(
        self,
        people: People,
        *,
        admit: Admit | None = None,
        measure: Measure = nullcontext,
        limits: Limits | None = None,
        cut_off: CutOff = lambda _: None,
        failed: Failed = lambda _: None,
        lose_event: LostEvent = lambda: None,
        lose_values: LostValues = lambda _: None,
        trail: Trail | None = None,
    ) -> None:
        self._inner = PlantInternalServer(people, admit, measure, limits or Limits(), cut_off)
        self._inner.failed, self._inner.lose_event, self._inner.lose_values = failed, lose_event, lose_values
        self._inner.trail = trail or self._inner.trail
        super().__init__(iserver=self._inner)
        self.limits = TransportLimits(CHUNK_BYTES, CHUNK_BYTES, _MESSAGE_BYTES // CHUNK_BYTES + 1, _MESSAGE_BYTES)

    async def start(self) -> None:
        """Listen. OSError where the address can't be bound; nothing is left running then."""
        await self._setup_server_nodes()
        for endpoint in self.iserver.endpoints:  # asyncua offers passwords without protection as well
            if endpoint.SecurityMode == ua.MessageSecurityMode.None_:
                kept = [each for each in endpoint.UserIdentityTokens if each.TokenType == ua.UserTokenType.Anonymous]
                endpoint.UserIdentityTokens = kept
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

    def tell_audit(self, occurrence: Occurrence) -> None:
        """An event that only some may hear."""
        allowed = {session.session_id for session in self.sessions() if may(role_of(session), Permission.AUDIT)}
        self.subscriptions.tell_event(occurrence, allowed)

    @property
    def subscriptions(self) -> PlantSubscriptions:
        """Of all sessions: whom to tell of an event."""
        return self._inner.plant_subscriptions

    def permit(self, method: ua.NodeId, permission: Permission) -> None:
        """Only who has this permission may call the method; see :mod:`plugin.publish.people`."""
        self._inner.permit(method, permission)

    def serve_history(self, read: ReadHistory) -> None:
        """From now on HistoryRead is answered by this."""
        self._inner.history = read

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
