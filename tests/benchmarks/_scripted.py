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
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from asyncua import ua
from asyncua.common.connection import SecureConnection, TransportLimits
from asyncua.common.utils import Buffer, NotEnoughData, create_nonce
from asyncua.crypto.security_policies import (
    SecurityPolicyBasic256Sha256,
    SecurityPolicyFactory,
    SecurityPolicyNone,
)
from asyncua.ua.ua_binary import (
    header_from_binary,
    nodeid_from_binary,
    struct_from_binary,
    struct_to_binary,
    uatcp_to_binary,
)
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from plugin import pki
from tests.benchmarks._notifications import URI, Notification, Tag, notifications

_TYPES: Any = ua.MessageType  # asyncua calls them MessageType where they are bytes
_ACKNOWLEDGE, _OPEN, _CLOSE, _MESSAGE = _TYPES.Acknowledge, _TYPES.SecureOpen, _TYPES.SecureClose, _TYPES.SecureMessage

_SECOND = 10_000_000  # [100 ns]
_TICKS_TO_1970 = 116_444_736_000_000_000
_RESULT = struct.Struct("<IIdIHB")  # MonitoredItemCreateResult: status, id, sampling, queue, no filter result
_SIZES = {0: 2, 1: 4, 2: 7, 4: 19}
"""Length of an encoded NodeId by its first byte, where that says it all."""


@dataclass(slots=True)
class Subscription:
    """What was created at the server."""

    id: int
    interval: float
    items: list[tuple[int, Tag]] = field(default_factory=list)
    enabled: bool = True
    sequence: int = 0
    due: float = 0.0
    cycle: "itertools.cycle[Notification] | None" = None

    def next_message(self, ticks: int) -> bytes:
        """A NotificationMessage (OPC 10000-4, 7.26)."""
        if self.cycle is None:
            self.cycle = itertools.cycle(notifications(self.items))
        self.sequence += 1
        body = next(self.cycle).at(ticks)
        return b"".join((struct.pack("<IqiIBi", self.sequence, ticks, 1, 0x032B0001, 1, len(body)), body))


class Connection(asyncio.Protocol):
    """One client: its channel, its session and its subscriptions end with it."""

    def __init__(
        self, policies: Sequence[SecurityPolicyFactory], interval: float, channels: "itertools.count[int]"
    ) -> None:
        self._channel = SecureConnection(SecurityPolicyNone(), TransportLimits(65535, 65535, 0, 0))
        self._channel.set_policy_factories(list(policies))
        self._policies = policies
        self._interval = interval
        self._channels = channels
        self._received = b""
        self._transport: Any = None
        self._subscriptions: dict[int, Subscription] = {}
        self._waiting: deque[tuple[int, int, int]] = deque()
        self._ticks = time.time_ns() // 100 + _TICKS_TO_1970
        self._pacing: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)

    # --- the channel ---

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self._interval:
            self._pacing = asyncio.create_task(self._pace())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pacing is not None:
            self._pacing.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while self._received:
            buffer = Buffer(self._received)
            try:
                header = header_from_binary(buffer)
            except NotEnoughData:
                return
            if len(buffer) < header.body_size:
                return
            self._received = self._received[header.header_size + header.body_size :]
            self._message(header, self._channel.receive_from_header_and_body(header, buffer))

    def _message(self, header: ua.Header, message: Any) -> None:
        if isinstance(message, ua.Hello):
            acknowledge: Any = ua.Acknowledge()
            acknowledge.ReceiveBufferSize = acknowledge.SendBufferSize = 65535
            self._transport.write(uatcp_to_binary(_ACKNOWLEDGE, acknowledge))
        elif message is None:  # there is more of it to come
            return
        elif header.MessageType == _OPEN:
            self._open(message)
        elif header.MessageType == _CLOSE:
            self._transport.close()
        else:
            self._serve(message.request_id(), message.body())

    def _open(self, message: Any) -> None:
        request = struct_from_binary(ua.OpenSecureChannelRequest, message.body())
        if not self._channel.is_open():
            asked = message.SecurityHeader()
            self._channel.select_policy(
                asked.SecurityPolicyURI, asked.SenderCertificate, request.Parameters.SecurityMode
            )
        response: Any = ua.OpenSecureChannelResponse()
        response.Parameters = self._channel.open(request.Parameters, self)
        self._answer(message.request_id(), request.RequestHeader.RequestHandle, response, kind=_OPEN)

    def get_new_channel_id(self) -> int:
        """For asyncua's side of OpenSecureChannel."""
        return next(self._channels)

    def _answer(self, request: int, handle: int, response: Any, kind: Any = _MESSAGE) -> None:
        response.ResponseHeader.RequestHandle = handle
        self._send(request, struct_to_binary(response), kind)

    def _send(self, request: int, body: bytes, kind: Any = _MESSAGE) -> None:
        self._transport.write(self._channel.message_to_binary(body, message_type=kind, request_id=request))

    # --- the session ---

    def _serve(self, request: int, body: Buffer) -> None:
        kind: Any = nodeid_from_binary(body).Identifier
        header = struct_from_binary(ua.RequestHeader, body)
        service = self._services.get(kind)
        if service is None:
            fault: Any = ua.ServiceFault()
            fault.ResponseHeader.ServiceResult = ua.StatusCode(ua.UInt32(ua.StatusCodes.BadServiceUnsupported))
            self._answer(request, header.RequestHandle, fault)
        else:
            service(self, request, header.RequestHandle, body)

    def _endpoints(self) -> list[Any]:
        address = "opc.tcp://{}:{}/plant".format(*self._transport.get_extra_info("sockname"))
        return [_endpoint(address, policy) for policy in self._policies]

    def _get_endpoints(self, request: int, handle: int, _body: Buffer) -> None:
        response: Any = ua.GetEndpointsResponse()
        response.Endpoints = self._endpoints()
        self._answer(request, handle, response)

    def _create_session(self, request: int, handle: int, body: Buffer) -> None:
        asked = struct_from_binary(ua.CreateSessionParameters, body)
        policy = self._channel.security_policy
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
        self._answer(request, handle, response)

    def _activate_session(self, request: int, handle: int, _body: Buffer) -> None:
        response: Any = ua.ActivateSessionResponse()
        response.Parameters.ServerNonce = create_nonce(32)
        self._answer(request, handle, response)

    def _close_session(self, request: int, handle: int, _body: Buffer) -> None:
        self._subscriptions.clear()
        self._answer(request, handle, ua.CloseSessionResponse())

    def _read(self, request: int, handle: int, body: Buffer) -> None:
        asked = struct_from_binary(ua.ReadParameters, body)
        response: Any = ua.ReadResponse()
        response.Results = [_described(each.NodeId) for each in asked.NodesToRead]
        self._answer(request, handle, response)

    # --- subscriptions ---

    def _create_subscription(self, request: int, handle: int, body: Buffer) -> None:
        asked = struct_from_binary(ua.CreateSubscriptionParameters, body)
        made = Subscription(next(self._ids), asked.RequestedPublishingInterval, enabled=asked.PublishingEnabled)
        self._subscriptions[made.id] = made
        response: Any = ua.CreateSubscriptionResponse()
        response.Parameters = ua.CreateSubscriptionResult(
            ua.UInt32(made.id), made.interval, asked.RequestedLifetimeCount, asked.RequestedMaxKeepAliveCount
        )
        self._answer(request, handle, response)

    def _delete_subscriptions(self, request: int, handle: int, body: Buffer) -> None:
        asked = struct_from_binary(ua.DeleteSubscriptionsParameters, body)
        for number in asked.SubscriptionIds:
            self._subscriptions.pop(number, None)
        response: Any = ua.DeleteSubscriptionsResponse()
        response.Results = [ua.StatusCode() for _ in asked.SubscriptionIds]
        self._answer(request, handle, response)

    def _set_publishing_mode(self, request: int, handle: int, body: Buffer) -> None:
        asked = struct_from_binary(ua.SetPublishingModeParameters, body)
        for number in asked.SubscriptionIds:
            self._subscriptions[number].enabled = asked.PublishingEnabled
        response: Any = ua.SetPublishingModeResponse()
        response.Parameters.Results = [ua.StatusCode() for _ in asked.SubscriptionIds]
        self._answer(request, handle, response)
        self._flood()

    def _create_items(self, request: int, handle: int, body: Buffer) -> None:
        """By hand: asyncua takes 100 µs for each."""
        number, _, count = struct.unpack("<IIi", body.read(12))
        subscription, rest, at = self._subscriptions[number], body.read(len(body)), 0
        results = []
        for _ in range(count):
            item, queue, sampling, at = _item(rest, at)
            subscription.items.append(item)
            results.append(_RESULT.pack(0, len(subscription.items), sampling, queue, 0, 0))
        head = _response(754, handle) + struct.pack("<i", count)
        self._send(request, b"".join([head, *results, struct.pack("<i", -1)]))
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
        head = _response(829, handle) + struct.pack("<IiB", subscription.id, 0, 0)
        results = struct.pack("<i", acks) + bytes(4 * acks) + struct.pack("<i", -1)
        self._send(request, b"".join((head, message, results)))

    _services: ClassVar[dict[int, Callable[["Connection", int, int, Buffer], None]]] = {
        428: _get_endpoints, 461: _create_session, 467: _activate_session, 473: _close_session, 631: _read,
        787: _create_subscription, 847: _delete_subscriptions, 799: _set_publishing_mode, 751: _create_items,
        826: _publish,
    }  # fmt: skip


def _response(kind: int, handle: int) -> bytes:
    """Type and ResponseHeader of a Good answer."""
    ticks = time.time_ns() // 100 + _TICKS_TO_1970
    return struct.pack("<BBHqIIBiHB", 1, 0, kind, ticks, handle, 0, 0, -1, 0, 0)


def _item(body: bytes, at: int) -> tuple[tuple[int, Tag], int, float, int]:
    """Client handle and tag, queue size, sampling interval of a MonitoredItemCreateRequest, and where it ends."""
    (length,) = struct.unpack_from("<i", body, at + 3)  # all our NodeIds are strings: 3, namespace, length
    tag = Tag.named(body[at + 7 : at + 7 + length].decode())
    at += 7 + length + 4
    for skipped in (0, 2):  # index range; data encoding
        (length,) = struct.unpack_from("<i", body, at + skipped)
        at += skipped + 4 + max(length, 0)
    handle, sampling = struct.unpack_from("<Id", body, at + 4)
    at += 16
    at += _SIZES[body[at]]
    if body[at]:
        (length,) = struct.unpack_from("<i", body, at + 1)
        at += 4 + length
    (queue,) = struct.unpack_from("<I", body, at + 1)
    return (handle, tag), queue, sampling, at + 6


def _described(node: Any) -> ua.DataValue:
    """What the server says of itself."""
    ids, kinds = ua.ObjectIds, ua.VariantType
    now = datetime.now(UTC)
    known: dict[int, tuple[Any, Any]] = {
        ids.Server_NamespaceArray: (["http://opcfoundation.org/UA/", URI], kinds.String),
        ids.Server_ServerArray: ([URI], kinds.String),
        ids.Server_ServerStatus_State: (0, kinds.Int32),
        ids.Server_ServerStatus_StartTime: (now, kinds.DateTime),
        ids.Server_ServerStatus_CurrentTime: (now, kinds.DateTime),
    }
    if node.NamespaceIndex or node.Identifier not in known:
        return ua.DataValue(StatusCode=ua.StatusCode(ua.UInt32(ua.StatusCodes.BadNodeIdUnknown)))
    return ua.DataValue(ua.Variant(*known[node.Identifier]))


def _endpoint(address: str, policy: SecurityPolicyFactory) -> Any:
    found: Any = ua.EndpointDescription()
    found.EndpointUrl = address
    found.Server.ApplicationUri = found.Server.ProductUri = URI
    found.Server.ApplicationName = ua.LocalizedText(ua.String("scripted plant"))
    found.Server.DiscoveryUrls = [address]
    found.ServerCertificate = policy.certificate.public_bytes(Encoding.DER) if policy.certificate else None
    found.SecurityMode, found.SecurityPolicyUri = policy.mode, policy.cls.URI
    found.TransportProfileUri = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"
    anonymous: Any = ua.UserTokenPolicy()
    anonymous.PolicyId, anonymous.TokenType = "anonymous", ua.UserTokenType.Anonymous
    found.UserIdentityTokens = [anonymous]
    return found


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
    policies, channels = _policies(folder), itertools.count(1)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(policies, interval, channels), "127.0.0.1", 0)
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
