"""asyncua's server, made fit for a plant network: subclasses that close what the library leaves open.

Each of these modules knows those after it, and none before it: ``asyncua_server``, ``asyncua_sockets``,
``asyncua_connection``, ``asyncua_session``, ``asyncua_inner``, ``asyncua_subscriptions``.

What differs from ``asyncua.Server`` 2.1.0 (see also :mod:`plugin.publish.asyncua_session` and
:mod:`plugin.publish.asyncua_subscriptions`):

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
* What is done for anybody who asks, such as opening a channel, takes no more than a share of the time
  (:mod:`plugin.publish.reception`); asyncua decrypts a chunk of 250 blocks at once, for whoever sends it.
* Stopping takes no second and leaves no task behind.

Private names of asyncua are used: ``tests/contracts`` fails when one of them changes.
"""

from contextlib import nullcontext
from pathlib import Path

from asyncua import Server, ua
from asyncua.common.connection import TransportLimits
from cryptography.hazmat.primitives.serialization import Encoding

from plugin.publish.asyncua_connection import CHUNK_BYTES
from plugin.publish.asyncua_inner import (
    Admit,
    CutOff,
    Failed,
    Limits,
    LostEvent,
    LostValues,
    Measure,
    PlantInternalServer,
    ReadHistory,
)
from plugin.publish.asyncua_session import PlantSession
from plugin.publish.asyncua_sockets import PlantBinaryServer
from plugin.publish.asyncua_subscriptions import PlantSubscriptions
from plugin.publish.capabilities import MESSAGE_BYTES
from plugin.publish.event_filter import Occurrence
from plugin.publish.people import People, Permission, may, role_of
from plugin.publish.reception import Reception
from plugin.publish.trail import Trail

__all__ = ["Limits", "PlantServer"]


class PlantServer(Server):
    """``asyncua.Server`` with all of the above.

    ``admit`` decides on the certificates of clients, ``people`` on their users. ``cut_off`` is told why, whenever a
    connection is closed for what it did, ``failed`` of every request that ended in an internal error, ``lose_event``
    and ``lose_values`` of what a client was too slow for. ``trail`` is told of what clients do, and ``reception`` hears
    strangers out.
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
        reception: Reception | None = None,
    ) -> None:
        self._inner = PlantInternalServer(people, admit, measure, limits or Limits(), cut_off, PlantSession)
        self._inner.failed, self._inner.lose_event, self._inner.lose_values = failed, lose_event, lose_values
        self._inner.trail = trail or self._inner.trail
        self._inner.reception = reception or self._inner.reception
        super().__init__(iserver=self._inner)
        self.limits = TransportLimits(CHUNK_BYTES, CHUNK_BYTES, MESSAGE_BYTES // CHUNK_BYTES + 1, MESSAGE_BYTES)

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
        return [session for session in self._inner._external_sessions.values() if isinstance(session, PlantSession)]

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
