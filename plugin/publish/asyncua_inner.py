"""asyncua's inner server, which all sessions share: who may come in, how much there may be, and what is told of it.

Private names of asyncua are used: ``tests/contracts`` fails when one of them changes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession

from plugin.publish.asyncua_subscriptions import PlantSubscriptions
from plugin.publish.capabilities import tell_limits
from plugin.publish.people import People, Permission
from plugin.publish.points import Points
from plugin.publish.reception import Reception
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

NewSession = Callable[..., InternalSession]
"""Makes a session, as asyncua's is made."""

_QUEUE_SIZE = 100  # values kept for a client that names no queue size
_ACTIVATION_SECONDS = 10.0
"""A connection that has no session by then is closed; it may take longer where all clients come back at once."""
_SECONDS_A_SESSION = 0.1
"""By so much longer: a log-in takes 20 ms with a key of 4096 bits, and all of them a fifth of the time."""

_NOBODY = User(role=UserRole.Anonymous)

OF_A_SUBSCRIPTION = frozenset(
    ua.NodeId(ua.Int32(number))
    for number in (
        ua.ObjectIds.ConditionType_ConditionRefresh,
        ua.ObjectIds.ConditionType_ConditionRefresh2,
        ua.ObjectIds.Server_GetMonitoredItems,
        ua.ObjectIds.Server_ResendData,
    )
)
"""Methods of the standard that an observer may call; their first argument is a subscription, which has to be the
caller's."""


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

    def __init__(
        self,
        people: People,
        admit: Admit | None,
        measure: Measure,
        limits: Limits,
        cut_off: CutOff,
        new_session: NewSession,
    ) -> None:
        super().__init__()
        self._new_session = new_session
        self.people = people
        self.user_manager: Any = None  # who comes is settled before a session is activated
        self.admit = admit
        self.measure = measure
        self.cut_off = cut_off
        self.history: ReadHistory = _no_history
        self.trail = Trail()
        self.reception = Reception()
        self._max_sessions = max_sessions = limits.sessions
        self.failed: Failed = lambda _: None
        self.lose_event: LostEvent = lambda: None
        self.lose_values: LostValues = lambda _: None
        self._failures: set[tuple[int, type]] = set()
        self._permissions = dict.fromkeys(OF_A_SUBSCRIPTION, Permission.READ)
        self.allow_remote_admin = False
        self.plant_subscriptions = PlantSubscriptions(self.aspace, iserver=self)
        self.subscription_service = self.isession.subscription_service = self.plant_subscriptions
        self.max_subscriptions = limits.subscriptions
        self.max_monitored_items = limits.monitored_items
        self.max_connections = 2 * max_sessions
        self.max_monitored_item_queue_size = _QUEUE_SIZE
        self.max_pending_activation_seconds = _ACTIVATION_SECONDS + max_sessions * _SECONDS_A_SESSION
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

    def create_session(self, name: str, user: User = _NOBODY, external: bool = False) -> InternalSession:
        """BadTooManySessions at the limit."""
        if external and len(self._external_sessions) >= self._max_sessions:
            raise ServiceError(ua.StatusCodes.BadTooManySessions)
        return self._new_session(self, self.aspace, self.subscription_service, name, user=user, external=external)

    async def stop(self) -> None:
        """Close every session with its subscriptions, then stop, without waiting for the clock's next second."""
        for session in list(self._external_sessions.values()):
            await session.close_session(True)
        if self.time_task is not None:
            self.time_task.cancel()
            await asyncio.wait((self.time_task,))
            self.time_task = None
        await super().stop()
