"""What clients do and try to do: a row of the audit log, and an event at the Server object (OPC 10000-5, 6.4.3).

One source, two ways out: an event tells of a row, and comes after it. Only a session that may
(:attr:`plugin.publish.people.Permission.AUDIT`) hears such events. What is refused again and again is told once a
minute, with how often. Of a user who comes in again and again each time is an event, and those of a minute share a row,
which follows (:mod:`plugin.publish.repeats`).
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from asyncua import ua

from plugin.domain import Audit
from plugin.ending import to_its_end
from plugin.errors import ForetagError
from plugin.pki import thumbprint
from plugin.publish.event_filter import Occurrence
from plugin.publish.lockout import Throttle
from plugin.publish.people import Call, Record, legible, unrecorded
from plugin.publish.repeats import Repeats
from plugin.publish.tree import Tree
from plugin.publish.types import CALL_AUDIT, Ref

_log = logging.getLogger(__name__)

_ID, _T = ua.ObjectIds, ua.VariantType
_SERVER = ua.NodeId(ua.Int32(_ID.Server))
NOBODY = "anonymous"
"""Whose name is not known."""
_LONGEST, _MOST = 100, 10
"""Characters of an argument, and arguments, that a row or an event shows."""
_LONGEST_NAME = 1000
"""Characters of a NodeId that an event names."""
_REVIEW_SECONDS = 10.0
"""How often it is looked for rows that are due."""
_USUAL, _GRAVE = 100, 500
"""Severity of what was done, and of what was refused."""

_CERTIFICATES: Mapping[str, int] = {
    "BadCertificateTimeInvalid": _ID.AuditCertificateExpiredEventType,
    "BadCertificateIssuerTimeInvalid": _ID.AuditCertificateExpiredEventType,
    "BadCertificateRevoked": _ID.AuditCertificateRevokedEventType,
    "BadCertificateIssuerRevoked": _ID.AuditCertificateRevokedEventType,
    "BadCertificateUntrusted": _ID.AuditCertificateUntrustedEventType,
    "BadSecurityChecksFailed": _ID.AuditCertificateUntrustedEventType,
    "BadCertificateUriInvalid": _ID.AuditCertificateDataMismatchEventType,
    "BadCertificateHostNameInvalid": _ID.AuditCertificateDataMismatchEventType,
    "BadCertificateUseNotAllowed": _ID.AuditCertificateMismatchEventType,
}
"""By why it was refused (OPC 10000-5, 6.4.13 to 6.4.19); all others are invalid."""

_CALLS: Mapping[int, int] = {
    _ID.AcknowledgeableConditionType_Acknowledge: _ID.AuditConditionAcknowledgeEventType,
    _ID.AcknowledgeableConditionType_Confirm: _ID.AuditConditionConfirmEventType,
    _ID.ConditionType_AddComment: _ID.AuditConditionCommentEventType,
    _ID.ConditionType_Enable: _ID.AuditConditionEnableEventType,
    _ID.ConditionType_Disable: _ID.AuditConditionEnableEventType,
    _ID.AlarmConditionType_Suppress: _ID.AuditConditionSuppressionEventType,
    _ID.AlarmConditionType_Unsuppress: _ID.AuditConditionSuppressionEventType,
    **{
        getattr(_ID, f"{of}_{method}"): _ID.AuditConditionShelvingEventType
        for of in ("ShelvedStateMachineType", "AlarmConditionType_ShelvingState")
        for method in ("TimedShelve", "OneShotShelve", "Unshelve")
    },
}
"""By method of a condition (OPC 10000-9, 5.10.2 to 5.10.9)."""
_ARGUMENTS: Mapping[int, tuple[str, ...]] = {
    _ID.AuditConditionAcknowledgeEventType: ("ConditionEventId", "Comment"),
    _ID.AuditConditionConfirmEventType: ("ConditionEventId", "Comment"),
    _ID.AuditConditionCommentEventType: ("ConditionEventId", "Comment"),
    _ID.AuditConditionShelvingEventType: ("ShelvingTime",),
}
"""Fields that are arguments of the call, in their order."""
_SERVICES: Mapping[str, tuple[int, str]] = {
    "HistoryUpdate": (_ID.AuditHistoryUpdateEventType, "Attribute/HistoryUpdate"),
    **{
        name: (getattr(_ID, f"Audit{name}EventType"), f"NodeManagement/{name}")
        for name in ("AddNodes", "DeleteNodes", "AddReferences", "DeleteReferences")
    },
}
"""Those that change something, and are refused whatever they name (OPC 10000-5, 6.4.20 to 6.4.25): type, SourceName."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The request that is being answered."""

    session: ua.NodeId | None = None
    """SessionId; None: there is none yet."""
    entry: str = ""
    """What the client calls the request in its own audit log."""


_asked: ContextVar[Asked | None] = ContextVar("asked", default=None)


@contextmanager
def answering(session: ua.NodeId | None, entry: str | None) -> Iterator[None]:
    """What is told until the context ends is of this request."""
    token = _asked.set(Asked(session, (entry or "")[:_LONGEST]))
    try:
        yield
    finally:
        _asked.reset(token)


@dataclass(frozen=True, slots=True)
class _Told:
    """What an event says beside its row."""

    kind: Ref
    name: str
    """SourceName: the service."""
    status: int = 0
    source: ua.NodeId = _SERVER
    fields: Mapping[str, ua.Variant] = field(default_factory=dict)


class Trail:
    """``record`` takes rows. ``clock`` gives seconds that never go back."""

    def __init__(self, record: Record = unrecorded, clock: Callable[[], float] = time.monotonic) -> None:
        self._record = record
        self._refusals = Throttle(clock)
        self._comings = Repeats(clock)
        self._tree: Tree | None = None
        self._tell: Callable[[Occurrence], None] = lambda _: None
        self._uri = ""

    def open(self, tree: Tree, tell: Callable[[Occurrence], None], uri: str) -> None:
        """From now on there are events. ``tell``: whoever may hear them; ``uri``: our application's."""
        self._tree, self._tell, self._uri = tree, tell, uri
        tree.emit(tree.ref(Ref(_ID.Server)))
        tree.existing(_ID.Server_Auditing, Ref(_ID.Boolean)).note(True, datetime.now(UTC), datetime.now(UTC))

    def close(self) -> None:
        """Rows alone."""
        self._tree = None

    # --- what there is to tell ---------------------------------------------------------------------------------------

    async def session(self, entry: Audit) -> None:
        """A user came in, or did not: action ``session`` or ``session refused``."""
        refused = ua.StatusCodes.BadUserAccessDenied if entry.action == "session refused" else 0
        token = ua.AnonymousIdentityToken() if entry.user == NOBODY else ua.UserNameIdentityToken(UserName=entry.user)
        shown = {"UserIdentityToken": ua.Variant(token, _T.ExtensionObject)}  # of a password, no more than the name
        told = _Told(Ref(_ID.AuditActivateSessionEventType), "Session/ActivateSession", refused, fields=shown)
        if not refused and self._comings.waits((entry.user, entry.subject, entry.after.get("role")), entry):
            self._announce(entry, told)
        else:
            await self._keep(entry, told)

    async def run(self) -> None:
        """For ever: rows of those who come in again and again."""
        while True:
            await asyncio.sleep(_REVIEW_SECONDS)
            await self.settle()

    async def settle(self, *, at_once: bool = False) -> None:
        """Those that are due; ``at_once``: all, for nobody comes in any more."""
        for entry in self._comings.due(at_once=at_once):
            try:
                await self._record(entry)
            except ForetagError as error:  # a full disk is no reason to stop serving
                _log.error("OPC UA server: %s could not be put on record: %s", entry, error)

    async def not_admitted(self, certificate: bytes, application: str, address: str, code: int) -> None:
        """A client got no session: for its certificate, or because there was none to be had."""
        cause = ua.StatusCode(ua.UInt32(code)).name
        times = self._refusals.due(("client", address, code))
        if not times:
            return
        by_certificate = "Certificate" in cause or cause == "BadSecurityChecksFailed"
        action = "certificate refused" if by_certificate else "session refused"
        shown = thumbprint(certificate) if certificate else ""
        after = {"cause": cause, "application": legible(application, _LONGEST), "certificate": shown}
        entry = _entry(NOBODY, action, address, after, times)
        if by_certificate:
            kind, name = _CERTIFICATES.get(cause, _ID.AuditCertificateInvalidEventType), "Security/Certificate"
            fields = {"Certificate": ua.Variant(certificate, _T.ByteString)}
        else:
            kind, name, fields = _ID.AuditCreateSessionEventType, "Session/CreateSession", {}
        await self._keep(entry, _Told(Ref(kind), name, code, fields=fields))

    async def wrote(self, user: str, values: Sequence[ua.WriteValue]) -> None:
        """A client wanted to write, which nobody may."""
        times = self._refusals.due(("write", user))
        if not times or not values:
            return
        first, code = values[0], ua.StatusCodes.BadUserAccessDenied
        wanted = first.Value.Value if first.Value is not None else None
        node = _nameable(first.NodeId)
        after = {"value": _short(wanted), "nodes": len(values), "refused": "BadUserAccessDenied"}
        entry = _entry(user, "write refused", legible(first.NodeId.to_string(), _LONGEST), after, times)
        fields = {
            "AttributeId": ua.Variant(int(first.AttributeId), _T.UInt32),
            "NewValue": _brief(wanted),
        }
        told = _Told(Ref(_ID.AuditWriteUpdateEventType), "Attribute/Write", code, node, fields)
        await self._keep(entry, told)

    async def unsupported(self, user: str, address: str, service: str) -> None:
        """A client wanted a service that nobody gets, one of those that would change something."""
        times = self._refusals.due(("service", user, address, service))
        if times:
            kind, name = _SERVICES[service]
            code = ua.StatusCodes.BadServiceUnsupported
            entry = _entry(user, f"{service} refused", address, {"refused": "BadServiceUnsupported"}, times)
            await self._keep(entry, _Told(Ref(kind), name, code))

    async def called(self, call: Call, asked: ua.CallMethodRequest, method: str, status: ua.StatusCode) -> None:
        """A method was called, or was to be; ``method``: its name. What the call says of itself goes into the row."""
        bad, user, given = not status.is_good(), str(call.person.name), asked.InputArguments or []
        times = self._refusals.due(("call", user, method, status.value)) if bad else 1
        if not times:
            return
        facts = dict(call.facts) or {"arguments": [_short(each) for each in given[:_MOST]]}
        if bad and "refused" not in facts:
            facts["refused"] = status.name
        subject = call.subject or legible(str(asked.ObjectId.Identifier), _LONGEST)
        entry = _entry(user, f"call {method}", subject, facts, times)
        number = asked.MethodId.Identifier if asked.MethodId.NamespaceIndex == 0 else None
        condition = _CALLS.get(number) if isinstance(number, int) else None
        shown = [_brief(each) for each in given[:_MOST]]
        fields = {
            "MethodId": ua.Variant(_nameable(asked.MethodId), _T.NodeId),
            "InputArguments": ua.Variant(shown, _T.Variant, is_array=True),
            **dict(zip(_ARGUMENTS.get(condition or 0, ()), shown, strict=False)),
        }
        kind, name = (Ref(condition), f"Method/{method}") if condition else (CALL_AUDIT.id, "Attribute/Call")
        await self._keep(entry, _Told(kind, name, status.value, _nameable(asked.ObjectId), fields))

    # --- two ways out ------------------------------------------------------------------------------------------------

    @to_its_end
    async def _keep(self, entry: Audit, told: _Told) -> None:
        await self._record(entry)
        self._announce(entry, told)

    def _announce(self, entry: Audit, told: _Told) -> None:
        if self._tree is not None:
            server = (self._tree.ref(Ref(_ID.Server)),)
            self._tell(Occurrence(self._fields(entry, told), self._tree.types_of(told.kind), server))

    def _fields(self, entry: Audit, told: _Told) -> dict[str, ua.Variant]:
        asked, now, text = _asked.get() or Asked(), datetime.now(UTC), _said(entry, told)
        tree = self._tree
        kind = tree.ref(told.kind) if tree is not None else ua.NodeId()
        session = {} if asked.session is None else {"SessionId": ua.Variant(asked.session, _T.NodeId)}
        return {
            "EventId": ua.Variant(secrets.token_bytes(16), _T.ByteString),
            "EventType": ua.Variant(kind, _T.NodeId),
            "SourceNode": ua.Variant(told.source, _T.NodeId),
            "SourceName": ua.Variant(told.name, _T.String),
            "Time": ua.Variant(entry.time, _T.DateTime),
            "ReceiveTime": ua.Variant(now, _T.DateTime),
            "Message": ua.Variant(ua.LocalizedText(text), _T.LocalizedText),
            "Severity": ua.Variant(_GRAVE if told.status else _USUAL, _T.UInt16),
            "ActionTimeStamp": ua.Variant(entry.time, _T.DateTime),
            "Status": ua.Variant(not told.status, _T.Boolean),
            "StatusCodeId": ua.Variant(ua.StatusCode(ua.UInt32(told.status)), _T.StatusCode),
            "ServerId": ua.Variant(self._uri, _T.String),
            "ClientAuditEntryId": ua.Variant(asked.entry, _T.String),
            "ClientUserId": ua.Variant(entry.user, _T.String),
            **session,
            **told.fields,
        }


def _entry(user: str, action: str, subject: str, after: Mapping[str, Any], times: int) -> Audit:
    often = {"times": times} if times > 1 else {}
    return Audit(datetime.now(UTC), user, "opcua", action, subject, after={**after, **often})


def _said(entry: Audit, told: _Told) -> str:
    refused = f": {ua.StatusCode(ua.UInt32(told.status)).name}" if told.status else ""
    return f"{entry.user}: {entry.action} {entry.subject}{refused}"


def _brief(value: ua.Variant | None) -> ua.Variant:
    """An argument for an event: what a client gave, cut, so that nobody is told megabytes of what another one tried."""
    found = value.Value if value is not None else None
    if isinstance(found, ua.LocalizedText):
        text, language = (found.Text or "")[:_LONGEST], (found.Locale or "")[:_LONGEST]
        return ua.Variant(ua.LocalizedText(text, language), _T.LocalizedText)
    if value is None or found is None or isinstance(found, int | float):
        return value or ua.Variant()
    if isinstance(found, bytes):
        return ua.Variant(found[:_LONGEST], _T.ByteString)
    return ua.Variant(_short(value), _T.String)


def _short(value: ua.Variant | None) -> str:
    """An argument for a row."""
    found = value.Value if value is not None else None
    if isinstance(found, list):
        return f"{len(found)} values"
    if isinstance(found, ua.LocalizedText):
        found = found.Text
    return found[:_LONGEST].hex()[:_LONGEST] if isinstance(found, bytes) else legible(str(found), _LONGEST)[:_LONGEST]


def _nameable(node: ua.NodeId) -> ua.NodeId:
    """As a client named it; the server, where the name is no name."""
    return node if len(str(node.Identifier)) <= _LONGEST_NAME else _SERVER
