"""Who uses our OPC UA server, and what each may do (OPC 10000-18: roles, users, permissions).

A session's client is let in by its certificate (:mod:`plugin.publish.admission`); its user, told when the session is
activated, has one role. Each role may do all that those before it may:

=============  ==========================  ===========================================================
role           well-known role             may, besides
=============  ==========================  ===========================================================
observer       Observer (i=15668)          browse, read, subscribe, refresh alarms; read history
operator       Operator (i=15680)          acknowledge, comment and shelve alarms; judge; ask for a score
engineer       Engineer (i=16036)          train, promote and roll back models; hear audit events
administrator  ConfigureAdmin (i=15716)    reload the configuration
=============  ==========================  ===========================================================

Nobody may write to a node, or add or delete one: there is no such permission.

A method says which permission it asks for with :meth:`plugin.publish.asyncua_server.PlantServer.permit`; one that says
nothing asks for ``OPERATE``. Inside a method, :func:`caller` tells who called it.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole

from plugin.diagnostics import Diagnostics
from plugin.domain import Audit
from plugin.ending import to_its_end
from plugin.pki import thumbprint
from plugin.publish.config import PublishConfig, UserConfig
from plugin.publish.lockout import Lockout, Throttle

_log = logging.getLogger(__name__)

_TRIES_OF_A_USER = 5
_TRIES_OF_AN_ADDRESS = 20
_AT_ONCE = 2  # hashes at a time: one takes 64 MiB and 50 ms of a thread
_SHOWN = 64  # characters of a stranger's name
_ACQUAINTED = 4096  # users and the clients that they came from, remembered


class Role(IntEnum):
    """In the order of what they may do."""

    OBSERVER = 1
    OPERATOR = 2
    ENGINEER = 3
    ADMINISTRATOR = 4


class Permission(StrEnum):
    """What a session asks to do."""

    READ = "read"
    """Browse, read, subscribe, ConditionRefresh."""
    HISTORY = "history"
    """HistoryRead of values and events."""
    ALARMS = "alarms"
    """Acknowledge, confirm, comment, shelve, suppress; say whether an alarm was right."""
    OPERATE = "operate"
    """Ask for a score, label, approve an advice."""
    ENGINEER = "engineer"
    """Train, promote, roll back."""
    ADMINISTER = "administer"
    """Reload the configuration, switch conditions on and off."""
    AUDIT = "audit"
    """Hear of what others do and try to do (ReceiveEvents of audit events)."""


_LEAST: Mapping[Permission, Role] = {
    Permission.READ: Role.OBSERVER,
    Permission.HISTORY: Role.OBSERVER,
    Permission.ALARMS: Role.OPERATOR,
    Permission.OPERATE: Role.OPERATOR,
    Permission.ENGINEER: Role.ENGINEER,
    Permission.ADMINISTER: Role.ADMINISTRATOR,
    Permission.AUDIT: Role.ENGINEER,
}


@dataclass
class Person(User):
    """The user of a session; to asyncua a plain user, who administers nothing."""

    rank: Role = Role.OBSERVER


ANONYMOUS = Person(UserRole.User, "anonymous")


@dataclass
class Call:
    """A method that runs: who called it, and what the audit log is to say of it."""

    person: Person
    subject: str = ""
    """What it is about; empty: the object's NodeId says it."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Arguments and results, for JSON; ``refused``: why it could not be done."""


_call: ContextVar[Call | None] = ContextVar("call", default=None)


def legible(text: str, most: int) -> str:
    """What a stranger wrote, for a log or a row: cut, and without what can be neither shown nor stored."""
    return repr(text[:most])[1:-1]


def role_of(session: Any) -> Role | None:
    """Of a session's user; None: it has no user of ours (it is not activated, or the server's own)."""
    user = getattr(session, "user", None)
    return user.rank if isinstance(user, Person) else None


def may(role: Role | None, permission: Permission) -> bool:
    """Who has no role may do nothing."""
    return role is not None and role >= _LEAST[permission]


def caller() -> Person:
    """Who called the method that runs: its ``name`` goes into audit rows and comments. LookupError outside of one."""
    return running_call().person


def running_call() -> Call:
    """The call of the method that runs. LookupError outside of one."""
    found = _call.get()
    if found is None:
        raise LookupError("no method of the OPC UA server is running")
    return found


@contextmanager
def calling(call: Call) -> Iterator[None]:
    """For the server alone: it is :func:`running_call` until the context ends."""
    token = _call.set(call)
    try:
        yield
    finally:
        _call.reset(token)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a client says of its user, its signature and encryption checked; nothing at all: anonymous."""

    name: str = ""
    password: str = ""
    certificate: bytes = b""
    """DER; the client has shown that it holds its key."""

    def __repr__(self) -> str:
        return f"Claim({self.name!r})"


class Refused(Exception):
    """Not let in: why, for the log alone. The client learns no more than BadUserAccessDenied."""


Record = Callable[[Audit], Awaitable[None]]


async def unrecorded(_: Audit) -> None:
    """Where there is no audit log."""


class People:
    """The users of ``[publish]``. ``record`` takes an entry for the audit log."""

    def __init__(
        self,
        config: PublishConfig,
        diagnostics: Diagnostics,
        record: Record = unrecorded,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._by_name = {user.name: user for user in config.users if user.password_hash}
        self._by_certificate = {user.certificate: user for user in config.users if user.certificate}
        self._anonymous = config.lets_anonymous_in
        self._refusals = diagnostics.users_refused
        self._record = record
        self._names = Lockout(_TRIES_OF_A_USER, clock)
        self._strangers = Lockout(_TRIES_OF_A_USER, clock)  # names that there are not: they push no other out
        self._addresses = Lockout(_TRIES_OF_AN_ADDRESS, clock)
        self._pairs = Lockout(_TRIES_OF_A_USER, clock)
        self._acquainted: OrderedDict[Hashable, None] = OrderedDict()
        self._records = Throttle(clock)
        self._hashing = asyncio.Semaphore(_AT_ONCE)
        self._hasher = PasswordHasher()
        self._nobody = next((_like(user.password_hash) for user in self._by_name.values()), "")

    @property
    def tokens(self) -> tuple[type, ...]:
        """What a client may show of its user."""
        offered = (
            (ua.AnonymousIdentityToken, self._anonymous),
            (ua.UserNameIdentityToken, bool(self._by_name)),
            (ua.X509IdentityToken, bool(self._by_certificate)),
        )
        return tuple(kind for kind, given in offered if given)

    @to_its_end
    async def identify(self, claim: Claim, address: str, client: bytes = b"") -> Person:
        """Whose session it is. ServiceError BadUserAccessDenied, counted and on record, where it is nobody's.

        ``client``: the certificate of its channel. Who guesses elsewhere locks nobody out who came from there before.
        A guess whose client goes away counts all the same, and its hash takes up a turn until it is done.
        """
        try:
            person = await self._identify(claim, address, client)
        except Refused as refusal:
            await self.refuse(claim.name, address, str(refusal), client)
            raise ServiceError(ua.StatusCodes.BadUserAccessDenied) from None
        if person is not ANONYMOUS:
            await self._write("session", str(person.name), address, {"role": person.rank.name.lower()})
        return person

    async def refuse(self, name: str, address: str, cause: str, client: bytes = b"") -> None:
        """Count a user who was not let in; what was refused unseen, for its key is locked, is counted alone.

        Only guesses lock: a client that shows no user, again and again, is no reason to refuse its neighbours.
        """
        self._refusals.labels(cause).inc()
        if cause == "locked":
            return
        shown = legible(name, _SHOWN)
        locks = self._locks(name, address, client) if cause == "password" else ()
        pause = max((lock.fail(key) for lock, key in locks), default=0.0)
        if pause:
            _log.warning("OPC UA server: user %s at %s is locked for %.0f s", shown or "(none)", address, pause)
        times = self._records.due((shown, address, cause), at_once=pause > 0.0)
        if times:
            await self._write("session refused", shown, address, {"cause": cause, "locked": pause, "times": times})

    def _locks(self, name: str, address: str, client: bytes) -> tuple[tuple[Lockout, Hashable], ...]:
        pair = name, client or address
        if pair in self._acquainted:
            return ((self._pairs, pair),)
        return (self._names if name in self._by_name else self._strangers, name), (self._addresses, address)

    async def _identify(self, claim: Claim, address: str, client: bytes) -> Person:
        if claim.certificate:
            return self._known(self._by_certificate.get(thumbprint(claim.certificate)), "certificate")
        if not claim.name:
            if not self._anonymous:
                raise Refused("anonymous")
            return ANONYMOUS
        user = self._by_name.get(claim.name)
        locks = self._locks(claim.name, address, client)
        async with (
            self._hashing
        ):  # many guesses at once are many all the same: the lock is looked at when its turn comes
            if any(lock.locked(key) for lock, key in locks):
                raise Refused("locked")
            if not await self._fits((user and user.password_hash) or self._nobody, claim.password):
                raise Refused("password")
        person = self._known(user, "password")
        self._acquaint(claim.name, client or address)
        for lock, key in locks:
            if lock is not self._addresses:
                lock.forgive(key)
        return person

    def _acquaint(self, *pair: Hashable) -> None:
        self._acquainted[pair] = None
        self._acquainted.move_to_end(pair)
        if len(self._acquainted) > _ACQUAINTED:
            self._acquainted.popitem(last=False)

    def _known(self, user: UserConfig | None, cause: str) -> Person:
        if user is None:
            raise Refused(cause)
        return Person(UserRole.User, user.name, Role[user.role.upper()])

    async def _fits(self, hashed: str, password: str) -> bool:
        """As long for a name that there is not as for one that there is."""
        try:
            return await asyncio.to_thread(self._hasher.verify, hashed, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _write(self, action: str, name: str, address: str, after: Mapping[str, Any]) -> None:
        await self._record(Audit(datetime.now(UTC), name or "anonymous", "opcua", action, address, after=dict(after)))


def _like(hash_of_another: str | None) -> str:
    """A hash that takes as long to check."""
    return PasswordHasher.from_parameters(extract_parameters(hash_of_another or "")).hash("")


def hashed(password: str) -> str:
    """For ``password_hash``: argon2id, 64 MiB, 3 passes (RFC 9106, 4: the second recommended choice)."""
    return PasswordHasher().hash(password)
