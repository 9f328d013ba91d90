"""A plant that is never the bottleneck: real OPC UA over a real secure channel, with notifications encoded beforehand.

    python -m tests.benchmarks._scripted [--interval SECONDS] [--pki FOLDER]

prints ``ready PORT`` and serves until it is ended. Its tags are any ``ns=1;s=KIND.PLACE``, see
:mod:`tests.benchmarks._notifications`. It answers every Publish at once with another notification, later by a second;
with an interval, it sends one per subscription and interval. With a folder for its certificate it speaks
Basic256Sha256, signed and encrypted, beside None. Nothing is checked, nothing is kept, nothing is sent twice.
"""

import argparse
import asyncio
import contextlib
import itertools
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from asyncua import ua
from asyncua.common.utils import Buffer, create_nonce
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256, SecurityPolicyFactory, SecurityPolicyNone
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from plugin import pki
from tests.benchmarks._answers import asked_items, created, described, endpoint, good, now_ticks
from tests.benchmarks._channel import Channel
from tests.benchmarks._notifications import URI, Notification, Tag, notifications

_SECOND = 10_000_000  # [100 ns]
_DAY = 86_400 * _SECOND


@dataclass(slots=True)
class Subscription:
    """What was created at the server."""

    id: int
    enabled: bool
    items: list[tuple[int, Tag]] = field(default_factory=list)
    sequence: int = 0
    cycle: "itertools.cycle[Notification] | None" = None

    def next_message(self, ticks: int) -> bytes:
        """A NotificationMessage (OPC 10000-4, 7.26)."""
        if self.cycle is None:
            self.cycle = itertools.cycle(notifications(self.items))
        self.sequence += 1
        body = next(self.cycle).at(ticks)
        return b"".join((struct.pack("<IqiIBi", self.sequence, ticks, 1, 0x032B0001, 1, len(body)), body))


class Connection(Channel):
    """One client: its session and its subscriptions end with it."""

    def __init__(self, policies: Sequence[SecurityPolicyFactory], interval: float) -> None:
        super().__init__(policies)
        self._interval = interval
        self._subscriptions: dict[int, Subscription] = {}
        self._waiting: deque[tuple[int, int, int]] = deque()
        # who is asked as fast as can be is soon ahead of the clock, and begins well behind it
        self._ticks = now_ticks() - (0 if interval else _DAY)
        self._pacing: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self._interval:
            self._pacing = asyncio.create_task(self._pace())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pacing is not None:
            self._pacing.cancel()

    # --- the session ---

    def serve(self, request: int, body: Buffer) -> None:
        kind: Any = nodeid_from_binary(body).Identifier
        header = struct_from_binary(ua.RequestHeader, body)
        service = self._services.get(kind)
        if service is None:
            fault: Any = ua.ServiceFault()
            fault.ResponseHeader.ServiceResult = ua.StatusCode(ua.UInt32(ua.StatusCodes.BadServiceUnsupported))
            self.answer(request, header.RequestHandle, fault)
        else:
            service(self, request, header.RequestHandle, body)

    def _endpoints(self) -> list[Any]:
        address = "opc.tcp://{}:{}/plant".format(*self.transport.get_extra_info("sockname"))
        return [endpoint(address, policy) for policy in self.policies]

    def _get_endpoints(self, request: int, handle: int, _body: Buffer) -> None:
        response: Any = ua.GetEndpointsResponse()
        response.Endpoints = self._endpoints()
        self.answer(request, handle, response)

    def _create_session(self, request: int, handle: int, body: Buffer) -> None:
        asked = struct_from_binary(ua.CreateSessionParameters, body)
        policy = self.security.security_policy
        response: Any = ua.CreateSessionResponse()
        made = response.Parameters
        made.SessionId, made.AuthenticationToken = ua.NodeId(ua.Int32(1)), ua.NodeId(ua.Int32(2))
        made.RevisedSessionTimeout = asked.RequestedSessionTimeout
        made.ServerNonce = create_nonce(32)
        made.ServerCertificate = policy.host_certificate
        made.ServerEndpoints = self._endpoints()
        if policy.peer_certificate is not None:
            signer = policy.asymmetric_cryptography
            made.ServerSignature.Signature = signer.signature(policy.peer_certificate + asked.ClientNonce)
            made.ServerSignature.Algorithm = policy.AsymmetricSignatureURI
        self.answer(request, handle, response)

    def _activate_session(self, request: int, handle: int, _body: Buffer) -> None:
        response: Any = ua.ActivateSessionResponse()
        response.Parameters.ServerNonce = create_nonce(32)
        self.answer(request, handle, response)

    def _close_session(self, request: int, handle: int, _body: Buffer) -> None:
        self._subscriptions.clear()
        self.answer(request, handle, ua.CloseSessionResponse())

    def _read(self, request: int, handle: int, body: Buffer) -> None:
        asked = struct_from_binary(ua.ReadParameters, body)
        response: Any = ua.ReadResponse()
        response.Results = [described(each.NodeId) for each in asked.NodesToRead]
        self.answer(request, handle, response)

    # --- subscriptions ---

    def _create_subscription(self, request: int, handle: int, body: Buffer) -> None:
        asked = struct_from_binary(ua.CreateSubscriptionParameters, body)
        made = Subscription(next(self._ids), asked.PublishingEnabled)
        self._subscriptions[made.id] = made
        response: Any = ua.CreateSubscriptionResponse()
        response.Parameters = ua.CreateSubscriptionResult(
            ua.UInt32(made.id),
            asked.RequestedPublishingInterval,
            asked.RequestedLifetimeCount,
            asked.RequestedMaxKeepAliveCount,
        )
        self.answer(request, handle, response)

    def _delete_subscriptions(self, request: int, handle: int, body: Buffer) -> None:
        asked = struct_from_binary(ua.DeleteSubscriptionsParameters, body)
        for number in asked.SubscriptionIds:
            self._subscriptions.pop(number, None)
        response: Any = ua.DeleteSubscriptionsResponse()
        response.Results = [ua.StatusCode() for _ in asked.SubscriptionIds]
        self.answer(request, handle, response)

    def _set_publishing_mode(self, request: int, handle: int, body: Buffer) -> None:
        asked = struct_from_binary(ua.SetPublishingModeParameters, body)
        for number in asked.SubscriptionIds:
            self._subscriptions[number].enabled = asked.PublishingEnabled
        response: Any = ua.SetPublishingModeResponse()
        response.Parameters.Results = [ua.StatusCode() for _ in asked.SubscriptionIds]
        self.answer(request, handle, response)
        self._flood()

    def _create_items(self, request: int, handle: int, body: Buffer) -> None:
        """By hand: asyncua takes 100 µs for each."""
        number, _, count = struct.unpack("<IIi", body.read(12))
        subscription, results = self._subscriptions[number], []
        for item, tag, sampling, queue in asked_items(body.read(len(body)), count):
            if tag is not None:
                subscription.items.append((item, tag))
            results.append(created(next(self._ids), tag, sampling, queue))
        self.send(request, b"".join([good(754, handle), struct.pack("<i", count), *results, struct.pack("<i", -1)]))
        subscription.cycle = None
        self._flood()

    def _publish(self, request: int, handle: int, body: Buffer) -> None:
        (acks,) = struct.unpack("<i", body.read(4))
        self._waiting.append((request, handle, max(acks, 0)))
        self._flood()

    def _flood(self) -> None:
        """Answer all that wait; subscriptions take turns."""
        speaking = [each for each in self._subscriptions.values() if each.enabled and each.items]
        while not self._interval and self._waiting and speaking:
            self._notify(min(speaking, key=lambda each: each.sequence))

    async def _pace(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += self._interval
            await asyncio.sleep(due - loop.time())
            for subscription in self._subscriptions.values():
                if subscription.enabled and subscription.items and self._waiting:
                    self._notify(subscription)

    def _notify(self, subscription: Subscription) -> None:
        request, handle, acks = self._waiting.popleft()
        self._ticks += _SECOND // len(self._subscriptions)
        message = subscription.next_message(self._ticks)
        head = good(829, handle) + struct.pack("<IiB", subscription.id, 0, 0)
        results = struct.pack("<i", acks) + bytes(4 * acks) + struct.pack("<i", -1)
        self.send(request, b"".join((head, message, results)))

    _services: ClassVar[dict[int, Callable[["Connection", int, int, Buffer], None]]] = {
        428: _get_endpoints, 461: _create_session, 467: _activate_session, 473: _close_session, 631: _read,
        787: _create_subscription, 847: _delete_subscriptions, 799: _set_publishing_mode, 751: _create_items,
        826: _publish,
    }  # fmt: skip


# --- the process -------------------------------------------------------------------------------------------------


def _policies(folder: Path | None) -> list[SecurityPolicyFactory]:
    modes = ua.MessageSecurityMode
    found = [SecurityPolicyFactory(SecurityPolicyNone, modes.None_)]
    if folder is not None:
        own = pki.ensure_own_certificate(folder, URI, ["localhost"])
        certificate = x509.load_der_x509_certificate(own.cert_path.read_bytes())
        key = load_pem_private_key(own.key_path.read_bytes(), None)
        found.append(SecurityPolicyFactory(SecurityPolicyBasic256Sha256, modes.SignAndEncrypt, certificate, key))
    return found


@contextlib.asynccontextmanager
async def scripted(interval: float = 0.0, folder: Path | None = None) -> AsyncIterator[int]:
    """The plant on this event loop, and its port; for a test."""
    policies = _policies(folder)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(policies, interval), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _main() -> None:
    parser = argparse.ArgumentParser("python -m tests.benchmarks._scripted", description="A plant to be measured on.")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between notifications; 0: on request")
    parser.add_argument("--pki", type=Path, help="folder for a certificate of its own; without it there is only None")
    options = parser.parse_args()
    async with scripted(options.interval, options.pki) as port:
        print(f"ready {port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
