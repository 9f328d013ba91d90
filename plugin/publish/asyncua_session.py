"""A session of asyncua's server whose token can't be guessed, which reaches nothing of another's, and has a role.

What differs from asyncua 2.1.0 (see also :mod:`plugin.publish.asyncua_server`):

* A session has a :class:`plugin.publish.people.Person`; methods and history ask for permissions, writes for one that
  nobody has. asyncua lets every user call every method and read every history.
* A node without CurrentRead can't be read nor subscribed to (OPC 10000-3, 5.6.2).
* Subscriptions, their items, messages and acknowledgements are those of the session, for all services.
* Browse and TranslateBrowsePathsToNodeIds are bounded in what they cost; Browse goes on where it ended
  (:mod:`plugin.publish.browsing`).
* RolePermissions, UserRolePermissions and UserExecutable say what is so (:mod:`plugin.publish.permissions`).
* A request names as many nodes as OperationLimits say, and no more (OPC 10000-5, 6.3.11).
* ModifySubscription changes the subscription; asyncua answers Good and does nothing.

Private names of asyncua are used: ``tests/contracts`` fails when one of them changes.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.internal_session import InternalSession

from plugin.ending import to_its_end
from plugin.publish import browsing, permissions
from plugin.publish.asyncua_inner import OF_A_SUBSCRIPTION, PlantInternalServer
from plugin.publish.asyncua_items import PlantItems
from plugin.publish.asyncua_subscriptions import PlantSubscription
from plugin.publish.capabilities import MESSAGE_BYTES, OPERATIONS
from plugin.publish.cells import status_code
from plugin.publish.people import ANONYMOUS, Call, Permission, Person, calling, may, role_of
from plugin.publish.points import Points
from plugin.publish.ranges import is_part, no_value, part_of
from plugin.publish.stamps import asked_stamps
from plugin.publish.trail import NOBODY

_A = ua.AttributeIds
_AT_ONCE = 1000
"""Values that are read before the loop has its turn: some ms."""


def _bounded(items: Sequence[Any] | None) -> None:
    """ServiceError BadTooManyOperations beyond the limit."""
    if items is not None and len(items) > OPERATIONS:
        raise ServiceError(ua.StatusCodes.BadTooManyOperations)


class PlantSession(InternalSession):
    """A session whose token can't be guessed and which reaches no other session's subscriptions."""

    iserver: PlantInternalServer

    channel_certificate: bytes | None = None
    """DER of the certificate that opened the channel on which the session was created; None: nobody proved one."""

    connection: Any = None
    """The one over which it was activated last, which alone carries its requests."""

    def __init__(self, server: PlantInternalServer, *args: Any, external: bool = False, **kwargs: Any) -> None:
        super().__init__(server, *args, **kwargs)
        self.auth_token = ua.NodeId(ua.ByteString(secrets.token_bytes(32)), ua.Int16(0), ua.NodeIdType.ByteString)
        self.external = external
        self.points = Points()
        """Of HistoryRead."""
        self.browse_points = Points(most=browsing.POINTS)
        if external:
            server.register_external_session(self)

    candidate: Person | None = None
    """Who activates the session, as was shown to be true; taken up by :meth:`activate_session`."""

    def activate_session(
        self, params: ua.ActivateSessionParameters, peer_certificate: bytes | None
    ) -> ua.ActivateSessionResult:
        """As asyncua's, for the candidate."""
        if self.candidate is None:
            raise ServiceError(ua.StatusCodes.BadIdentityTokenRejected)
        result = super().activate_session(params, peer_certificate)
        self.user, self.candidate = self.candidate, None
        return result

    async def create_session(
        self, params: ua.CreateSessionParameters, sockname: tuple[str, int] | None = None
    ) -> ua.CreateSessionResult:
        """As asyncua's, which names a smaller request than is taken, and waits in a busy loop where the timeout that is
        asked for is not a number."""
        if not params.RequestedSessionTimeout > 0.0:
            params = replace(params, RequestedSessionTimeout=0.0)
        result = await super().create_session(params, sockname)
        result.MaxRequestMessageSize = ua.UInt32(MESSAGE_BYTES)
        return result

    # --- what a role may do -----------------------------------------------------------------------------------------

    async def read(self, params: ua.ReadParameters) -> list[ua.DataValue]:
        """BadNotReadable for a value without CurrentRead; a part of a value where a part is asked for; the timestamps
        that are asked for, where asyncua gives all that there are."""
        _bounded(params.NodesToRead)
        if not params.MaxAge >= 0.0:
            raise ServiceError(ua.StatusCodes.BadMaxAgeInvalid)
        stamps, found = asked_stamps(params.TimestampsToReturn), list[ua.DataValue]()
        for start in range(0, len(params.NodesToRead or ()), _AT_ONCE):
            if start:
                await asyncio.sleep(0)
            some, now = params.NodesToRead[start : start + _AT_ONCE], datetime.now(UTC)
            values = await self._read(replace(params, NodesToRead=some))
            found += [stamps.of(value, asked.AttributeId, now) for value, asked in zip(values, some, strict=True)]
        return found

    async def _read(self, params: ua.ReadParameters) -> list[ua.DataValue]:
        found = await super().read(params)
        for index, asked in enumerate(params.NodesToRead):
            if asked.AttributeId in permissions.ASKED:
                found[index] = permissions.read(self.aspace, asked, role_of(self), self.iserver.permission)
            elif not self.iserver.readable(asked):
                found[index] = no_value(ua.StatusCodes.BadNotReadable)
            elif is_part(asked):
                found[index] = part_of(found[index], asked)
        return found

    async def write(self, params: ua.WriteParameters) -> list[ua.StatusCode]:
        """No node can be written by a client."""
        _bounded(params.NodesToWrite)
        await self.iserver.trail.wrote(self.name_of_user, params.NodesToWrite or ())
        unknown, denied = map(status_code, (ua.StatusCodes.BadNodeIdUnknown, ua.StatusCodes.BadUserAccessDenied))
        return [denied if value.NodeId in self.aspace else unknown for value in params.NodesToWrite]

    async def browse(self, params: ua.BrowseParameters) -> list[ua.BrowseResult]:
        """As asyncua's, within bounds, and in pages."""
        return await browsing.browse(self.iserver.view_service, params, self.browse_points)

    async def browse_next(self, params: ua.BrowseNextParameters) -> list[ua.BrowseResult]:
        """What a continuation point of this session stands for (OPC 10000-4, 5.8.3)."""
        return await browsing.browse_next(self.iserver.view_service, params, self.browse_points)

    async def translate_browsepaths_to_nodeids(self, params: list[ua.BrowsePath]) -> list[ua.BrowsePathResult]:
        """As asyncua's, within bounds."""
        return await browsing.translate(self.iserver.view_service, params or ())

    async def history_read(self, params: ua.HistoryReadParameters) -> list[ua.HistoryReadResult]:
        """BadUserAccessDenied without the permission."""
        _bounded(params.NodesToRead)
        if not may(role_of(self), Permission.HISTORY):
            raise ServiceError(ua.StatusCodes.BadUserAccessDenied)
        return await self.iserver.history(params, self.points)

    async def call(self, params: list[ua.CallMethodRequest]) -> list[ua.CallMethodResult]:
        """BadUserAccessDenied for a method that asks for more than the role has."""
        _bounded(params)
        return [await self._call(method) for method in params]

    @to_its_end
    async def _call(self, method: ua.CallMethodRequest) -> ua.CallMethodResult:
        permission = self.iserver.permission(method.MethodId)
        if not isinstance(self.user, Person):
            return ua.CallMethodResult(status_code(ua.StatusCodes.BadUserAccessDenied))
        call = Call(self.user)
        result = await self._answer_call(call, method, permission)
        if permission is not Permission.READ:  # who looks changes nothing
            name = self.iserver.name_of(method.MethodId)
            await self.iserver.trail.called(call, method, name, result.StatusCode or ua.StatusCode())
        return result

    async def _answer_call(
        self, call: Call, method: ua.CallMethodRequest, permission: Permission
    ) -> ua.CallMethodResult:
        if not may(role_of(self), permission):
            return ua.CallMethodResult(status_code(ua.StatusCodes.BadUserAccessDenied))
        if refusal := self._uncallable(method):
            return ua.CallMethodResult(status_code(refusal))
        with calling(call):
            (result,) = await super().call([method])
        return result

    def _uncallable(self, method: ua.CallMethodRequest) -> int:
        """Why there is nothing to be called (OPC 10000-4, 5.12.2); 0: there is."""
        found = self.aspace.get(method.MethodId)
        if method.ObjectId not in self.aspace:
            return int(ua.StatusCodes.BadNodeIdUnknown)
        if found is None or _A.Executable not in found.attributes:
            return int(ua.StatusCodes.BadMethodInvalid)
        if method.MethodId in OF_A_SUBSCRIPTION and not self._owns(_first(method.InputArguments)):
            return int(ua.StatusCodes.BadSubscriptionIdInvalid)
        if found.call is None:
            return int(ua.StatusCodes.BadNotExecutable)
        return 0

    @property
    def name_of_user(self) -> str:
        """For the audit log."""
        return str(self.user.name) if isinstance(self.user, Person) else NOBODY

    # --- what is the session's own ----------------------------------------------------------------------------------

    def _owns(self, subscription: int) -> bool:
        found = self.subscription_service.subscriptions.get(subscription)
        return found is not None and found.session_id == self.session_id

    def _demand(self, params: Any) -> Any:
        if not self._owns(params.SubscriptionId):
            raise ServiceError(ua.StatusCodes.BadSubscriptionIdInvalid)
        return params

    async def create_subscription(self, *asked: Any, **callbacks: Any) -> ua.CreateSubscriptionResult:
        """As asyncua's; it knows whose it is, also when the session is closed and leaves it behind."""
        result = await super().create_subscription(*asked, **callbacks)
        made = self.subscription_service.subscriptions.get(result.SubscriptionId)
        if isinstance(made, PlantSubscription):
            made.owner = self
        return result

    async def create_monitored_items(self, params: Any) -> Any:
        """BadSubscriptionIdInvalid for another's subscription, here and below."""
        _bounded(params.ItemsToCreate)
        return await super().create_monitored_items(self._demand(params))

    async def modify_monitored_items(self, params: Any) -> Any:
        """See above."""
        _bounded(params.ItemsToModify)
        return await super().modify_monitored_items(self._demand(params))

    async def delete_monitored_items(self, params: Any) -> Any:
        """See above."""
        _bounded(params.MonitoredItemIds)
        return await super().delete_monitored_items(self._demand(params))

    async def set_monitoring_mode(self, params: Any) -> Any:
        """See above."""
        _bounded(params.MonitoredItemIds)
        return await super().set_monitoring_mode(self._demand(params))

    def modify_subscription(self, params: Any) -> Any:
        """See above."""
        return self.iserver.subscription_service.modify_subscription(self._demand(params))

    def republish(self, params: ua.RepublishParameters) -> ua.NotificationMessage:
        """BadMessageNotAvailable where asyncua answers an empty message, which sends clients into a loop."""
        message = super().republish(self._demand(params))
        if not message.SequenceNumber:
            raise ServiceError(ua.StatusCodes.BadMessageNotAvailable)
        return message

    async def set_publishing_mode(self, params: ua.SetPublishingModeParameters) -> list[ua.StatusCode]:
        """Another's subscription does not exist."""
        _bounded(params.SubscriptionIds)
        return [await self._set_publishing_mode(i, params.PublishingEnabled) for i in params.SubscriptionIds]

    async def _set_publishing_mode(self, subscription: int, enabled: bool) -> ua.StatusCode:
        if not self._owns(subscription):
            return status_code(ua.StatusCodes.BadSubscriptionIdInvalid)
        await self.subscription_service.subscriptions[subscription].set_publishing_mode(enabled)
        return ua.StatusCode()

    async def delete_subscriptions(self, ids: list[int]) -> list[ua.StatusCode]:
        """Another's subscription does not exist."""
        _bounded(ids)
        owned = {i for i in ids if self._owns(i)}
        await self.subscription_service.delete_subscriptions(list(owned))
        return [status_code(0 if i in owned else ua.StatusCodes.BadSubscriptionIdInvalid) for i in ids]

    def publish(self, acks: Iterable[ua.SubscriptionAcknowledgement] | None = None) -> tuple[int, list[ua.StatusCode]]:
        """The number of our subscriptions, and the result of each acknowledgement."""
        acks = list(acks or ())
        _bounded(acks)
        count = sum(sub.session_id == self.session_id for sub in self.subscription_service.subscriptions.values())
        if count == 0:
            raise ServiceError(ua.StatusCodes.BadNoSubscription)
        return count, [self._acknowledge(ack) for ack in acks]

    def _acknowledge(self, ack: ua.SubscriptionAcknowledgement) -> ua.StatusCode:
        if not self._owns(ack.SubscriptionId):
            return status_code(ua.StatusCodes.BadSubscriptionIdInvalid)
        found = self.subscription_service.subscriptions[ack.SubscriptionId]
        known = isinstance(found, PlantSubscription) and found.unacknowledged.acknowledge(ack.SequenceNumber)
        return status_code(0 if known else ua.StatusCodes.BadSequenceNumberUnknown)

    async def transfer_subscriptions(  # type: ignore[override]
        self, params: ua.TransferSubscriptionsParameters, callback: Callable[..., Any]
    ) -> list[ua.TransferResult]:
        """From a session, also a closed one, of the same user (OPC 10000-4, 5.14.7)."""
        _bounded(params.SubscriptionIds)
        anew = bool(params.SendInitialValues)
        return [await self._transfer(int(i), callback, anew) for i in params.SubscriptionIds]

    async def _transfer(self, subscription: int, callback: Callable[..., Any], anew: bool) -> ua.TransferResult:
        service = self.subscription_service
        found = service.subscriptions.get(subscription)
        if not isinstance(found, PlantSubscription) or not isinstance(found.owner, PlantSession):
            return ua.TransferResult(status_code(ua.StatusCodes.BadSubscriptionIdInvalid))
        if not self._is_same_user(found.owner):
            return ua.TransferResult(status_code(ua.StatusCodes.BadUserAccessDenied))
        before, parting = found.owner.connection, found.parting()
        one = ua.TransferSubscriptionsParameters([ua.IntegerId(subscription)])
        (result,) = await service.transfer_subscriptions(one, self.session_id, callback)
        if anew and isinstance(found.monitored_item_srv, PlantItems):
            await found.monitored_item_srv.resend()
        found.owner = self
        # asyncua forgets this half: the subscription would go on asking the old connection for publish requests
        found.pub_request_callback = callback.__self__.get_publish_request  # type: ignore[attr-defined]
        if before is not None and before is not self.connection:
            await before.part_with(ua.IntegerId(subscription), parting)
        return result

    def _is_same_user(self, other: "PlantSession") -> bool:
        """Who has shown no user is known by the certificate of its channel, and over an open channel by nothing."""
        if self.user != other.user:
            return False
        same_client = self.channel_certificate is not None and self.channel_certificate == other.channel_certificate
        return same_client or self.user is not ANONYMOUS


def _first(arguments: Sequence[ua.Variant] | None) -> int:
    value = arguments[0].Value if arguments else None
    return value if isinstance(value, int) else -1
