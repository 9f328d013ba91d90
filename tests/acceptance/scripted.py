"""A plant's server for tests: honest and quick unless the test says otherwise, and then it lies as it is told.

It speaks the protocol itself (policy None), so that it can also speak it wrongly: asyncua only encodes the structures.
It has Double tags ``t0`` … and writes numbers 1, 2, 3 … to all of them, dated by its own clock. Every queue, every
message that was not acknowledged, every lifetime is as OPC 10000-4 has it.
"""

import asyncio
import contextlib
import itertools
import struct
import time
from array import array
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary, struct_to_binary

from tests.acceptance.channel import Connection, Datum, data_change, stamp, ticks

URI = "urn:test:plant"
UA = "http://opcfoundation.org/UA/"
_OVERFLOW = 0x480

Ids = ua.ObjectIds
Codes = ua.StatusCodes


class Refusal(Exception):
    """Answer with a ServiceFault."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass(slots=True)
class MonitoredItem:
    handle: int
    limit: int
    queue: deque[Datum] = field(default_factory=deque)

    def put(self, datum: Datum) -> bool:
        """False: the queue was full, the oldest is lost and the next says so."""
        self.queue.append(datum)
        if len(self.queue) <= self.limit:
            return True
        self.queue.popleft()
        oldest = self.queue.popleft()
        self.queue.appendleft(Datum(oldest.value, oldest.source, oldest.status | _OVERFLOW))
        return False


@dataclass(slots=True, eq=False)
class Subscription:
    id: int
    session: int
    interval: float
    keep_alive: int
    lifetime: int
    most: int
    enabled: bool
    items: dict[int, MonitoredItem] = field(default_factory=dict)
    nodes: dict[int, list[MonitoredItem]] = field(default_factory=dict)
    next: int = 1
    kept: dict[int, bytes] = field(default_factory=dict)
    """Messages that were not acknowledged, by number."""
    silent: int = 0
    waited: int = 0
    due: float = 0.0
    """Since when there is something to say [s, loop time]; 0: there is not."""
    first: bool = True
    cycles: int = 0
    served: int = 0
    task: asyncio.Task[None] | None = None


@dataclass(slots=True, eq=False)
class Waiting:
    """A Publish request that was not answered yet."""

    connection: Connection
    request: int
    handle: int
    results: list[int]


class Server:
    """See the module. ``answers``: by name of the request, what to do in place of the honest answer."""

    def __init__(self, tags: int, *, port: int = 0, namespaces: Sequence[str] = (UA, "urn:test:server", URI)) -> None:
        self.port = port
        self.namespaces = list(namespaces)
        self.tags = tags
        self.missing: set[int] = set()
        self.last = 0
        self.times = array("d")
        """When each number was written, by the server's clock, number 1 first [s since 1970]."""
        self.ahead = 0.0
        self.queue_limit = 100_000
        self.access_level = 1
        """Of every tag; 5: has history."""
        self.token_lifetime = 3_600_000
        self.items_per_call = 0
        self.overflows = 0
        self.calls: Counter[str] = Counter()
        self.answers: dict[str, Callable[[Any, Connection], Awaitable[Any]]] = {}
        self.forge: Callable[[Subscription, int], int] = lambda _, number: number
        """The number that a message is given, from its honest one."""
        self.revise: dict[str, Any] = {}
        """Fields of the answers to CreateSubscription and CreateMonitoredItems."""
        self.sessions: dict[int, deque[Waiting]] = {}
        self.subscriptions: dict[int, Subscription] = {}
        self.connections: set[Connection] = set()
        self._current: dict[int, Datum] = {}
        self._ids = itertools.count(1)
        self._going = asyncio.Event()
        self._going.set()
        self._server: asyncio.Server | None = None
        self._lives = 0
        self._started = self.now()

    # --- life ---

    async def start(self) -> None:
        self._lives += 1
        self._started = self.now() - 3600 + 10 * self._lives  # so that lives that follow at once can be told apart
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As a power failure would: sessions, subscriptions and queues are gone, numbers go on."""
        if self._server is not None:
            self._server.close()
        self._going.set()
        for subscription in list(self.subscriptions.values()):
            self.end(subscription)
        self.sessions.clear()
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)

    async def __aenter__(self) -> "Server":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stall(self, seconds: float) -> None:
        """Hear, answer and publish nothing for a while."""
        self._going.clear()
        await asyncio.sleep(seconds)
        self._going.set()

    def drop_sessions(self, *, subscriptions: bool = True) -> None:
        """Forget all sessions, and their subscriptions with them."""
        self.sessions.clear()
        if subscriptions:
            for subscription in list(self.subscriptions.values()):
                self.end(subscription)

    def end(self, subscription: Subscription) -> None:
        """It is no more, without a word to the client."""
        self.subscriptions.pop(subscription.id, None)
        if subscription.task is not None:
            subscription.task.cancel()

    def now(self) -> float:
        return time.time() + self.ahead

    # --- values ---

    def write(self, *only: int, status: int = 0) -> int:
        """Write the next number to all tags, or to some; returns it."""
        self.last += 1
        now = self.now()
        self.times.append(now)
        self.put(float(self.last), now, *only, status=status)
        return self.last

    def put(self, value: float, source: float, *only: int, status: int = 0) -> None:
        datum = Datum(value, source, status)
        for tag in only or range(self.tags):
            self._current[tag] = datum
            for subscription in self.subscriptions.values():
                for item in subscription.nodes.get(tag, ()):
                    self.overflows += not item.put(datum)

    def remove(self, tag: int) -> None:
        """Take a node away: its monitored items report that, and nothing any more."""
        self.missing.add(tag)
        now = self.now()
        for subscription in self.subscriptions.values():
            for item in subscription.nodes.pop(tag, ()):
                item.put(Datum(0.0, now, int(Codes.BadNodeIdUnknown)))

    def restore(self, tag: int) -> None:
        """A node of the same name, which the items of before don't monitor."""
        self.missing.discard(tag)

    async def feed(self, count: int, pause: float = 0.01) -> None:
        for _ in range(count):
            self.write()
            await asyncio.sleep(pause)

    # --- messages ---

    async def _publish_for_ever(self, subscription: Subscription) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + subscription.interval, loop.time() - subscription.interval)
            await asyncio.sleep(due - loop.time())
            await self._going.wait()
            self._cycle(subscription)

    def _cycle(self, subscription: Subscription) -> None:
        subscription.cycles += 1
        has = subscription.enabled and any(item.queue for item in subscription.items.values())
        subscription.silent += 1
        if has or subscription.first or subscription.silent >= subscription.keep_alive:
            subscription.due = subscription.due or asyncio.get_running_loop().time()
        waiting = self.sessions.get(subscription.session)
        subscription.waited = 0 if waiting else subscription.waited + 1
        if subscription.waited > subscription.lifetime:
            self.end(subscription)
            return
        if subscription.due:
            self.serve(subscription)

    def serve(self, subscription: Subscription) -> None:
        """Send what is due, as long as there are requests to answer."""
        while subscription.due and (waiting := self.take(subscription.session)):
            values = self._take(subscription) if subscription.enabled else []
            subscription.silent, subscription.first = 0, False
            if not values:
                self.answer(waiting, subscription.id, self.message(subscription.next, []))
                subscription.due = 0.0
                return
            subscription.served += 1
            more = any(item.queue for item in subscription.items.values())
            number = self.forge(subscription, subscription.next)
            message = self.message(number, [data_change(values, self.now())])
            subscription.kept[number] = message
            subscription.next = subscription.next % 0xFFFF_FFFF + 1
            subscription.due = subscription.due if more else 0.0
            self.answer(waiting, subscription.id, message, more)

    @staticmethod
    def _take(subscription: Subscription) -> list[tuple[int, Datum]]:
        found: list[tuple[int, Datum]] = []
        for item in subscription.items.values():
            while item.queue and (not subscription.most or len(found) < subscription.most):
                found.append((item.handle, item.queue.popleft()))
        return found

    def take(self, session: int) -> Waiting | None:
        """A Publish request of a session to answer, the oldest first."""
        requests = self.sessions.get(session)
        while requests:
            waiting = requests.popleft()
            if waiting.connection in self.connections:
                return waiting
        return None

    def message(self, number: int, notifications: Sequence[tuple[int, bytes]]) -> bytes:
        """A NotificationMessage; without notifications a keep-alive."""
        parts = b"".join(b"\x01\0" + struct.pack("<HBi", kind, 1, len(body)) + body for kind, body in notifications)
        return struct.pack("<Iqi", number & 0xFFFF_FFFF, ticks(self.now()), len(notifications)) + parts

    def answer(self, waiting: Waiting, subscription: int, message: bytes, more: bool = False) -> None:
        """Answer a Publish request with this message."""
        found = self.subscriptions.get(subscription)
        kept = list(found.kept) if found else []
        results = waiting.results
        body = b"\x01\0" + struct.pack("<H", Ids.PublishResponse_Encoding_DefaultBinary)
        body += self.header(waiting.handle) + struct.pack("<Ii", subscription, len(kept))
        body += struct.pack(f"<{len(kept)}I", *kept) + struct.pack("<?", more) + message
        body += struct.pack(f"<i{len(results)}Ii", len(results), *results, -1)
        waiting.connection.send(waiting.request, body)

    def header(self, handle: int, code: int = 0) -> bytes:
        return struct.pack("<qIIBi", ticks(self.now()), handle, code, 0, -1) + b"\0\0\0"

    # --- requests ---

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer, next(self._ids), self)
        self.connections.add(connection)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async for request_id, body in connection.messages():
                    await self._going.wait()
                    await self._respond(connection, request_id, body)
        finally:
            self.connections.discard(connection)
            connection.abort()

    async def _respond(self, connection: Connection, request_id: int, body: bytes) -> None:
        buffer = Buffer(body)
        number: Any = nodeid_from_binary(buffer).Identifier
        kind = ua.ObjectIdNames[number].removesuffix("_Encoding_DefaultBinary")
        request = struct_from_binary(getattr(ua, kind), Buffer(body))
        name = kind.removesuffix("Request")
        self.calls[name] += 1
        connection.request = request_id
        handle = request.RequestHeader.RequestHandle
        try:
            honest = getattr(self, f"_on_{name}", self._unsupported)
            answer = await self.answers.get(name, honest)(request, connection)
        except Refusal as refusal:
            fault = b"\x01\0" + struct.pack("<H", Ids.ServiceFault_Encoding_DefaultBinary)
            connection.send(request_id, fault + self.header(handle, refusal.code))
            return
        if answer is None:
            return
        if not isinstance(answer, bytes):
            answer.ResponseHeader.RequestHandle = handle
            answer.ResponseHeader.Timestamp = stamp(0)
            answer = struct_to_binary(answer)
        connection.send(request_id, answer)

    async def _unsupported(self, _request: Any, _connection: Connection) -> Any:
        raise Refusal(Codes.BadServiceUnsupported)

    def session_of(self, request: Any) -> int:
        number = int(request.RequestHeader.AuthenticationToken.Identifier)
        if number not in self.sessions:
            raise Refusal(Codes.BadSessionIdInvalid)
        return number

    async def _on_GetEndpoints(self, _request: Any, _connection: Connection) -> Any:  # noqa: N802 - named as the service
        response = ua.GetEndpointsResponse()
        response.Endpoints = [self._endpoint()]
        return response

    def _endpoint(self) -> ua.EndpointDescription:
        endpoint = ua.EndpointDescription()
        endpoint.EndpointUrl = f"opc.tcp://127.0.0.1:{self.port}/plant"
        endpoint.SecurityMode = ua.MessageSecurityMode.None_
        endpoint.SecurityPolicyUri = "http://opcfoundation.org/UA/SecurityPolicy#None"
        endpoint.UserIdentityTokens = [ua.UserTokenPolicy("anonymous", ua.UserTokenType.Anonymous)]
        return endpoint

    async def _on_CreateSession(self, request: Any, _connection: Connection) -> Any:  # noqa: N802
        number = next(self._ids)
        self.sessions[number] = deque()
        response = ua.CreateSessionResponse()
        response.Parameters.SessionId = response.Parameters.AuthenticationToken = ua.NodeId(ua.Int32(number))
        response.Parameters.RevisedSessionTimeout = request.Parameters.RequestedSessionTimeout
        response.Parameters.ServerNonce = b"n" * 32
        response.Parameters.ServerEndpoints = [self._endpoint()]
        return response

    async def _on_ActivateSession(self, request: Any, _connection: Connection) -> Any:  # noqa: N802
        self.sessions[self.session_of(request)].clear()
        return ua.ActivateSessionResponse()

    async def _on_CloseSession(self, request: Any, _connection: Connection) -> Any:  # noqa: N802
        session = self.session_of(request)
        if request.DeleteSubscriptions:
            for subscription in [each for each in self.subscriptions.values() if each.session == session]:
                self.end(subscription)
        self.sessions.pop(session)
        return ua.CloseSessionResponse()

    async def _on_Read(self, request: Any, _connection: Connection) -> Any:  # noqa: N802
        self.session_of(request)
        response = ua.ReadResponse()
        response.Results = [self._read(each) for each in request.Parameters.NodesToRead]
        return response

    def _read(self, wanted: ua.ReadValueId) -> ua.DataValue:
        tag = self.tag_of(wanted.NodeId)
        if tag is not None and wanted.AttributeId == ua.AttributeIds.Value:
            datum = self._current.get(tag, Datum(0.0, self._started))
            value = ua.Variant(datum.value, ua.VariantType.Double)
            return ua.DataValue(value, ua.StatusCode(ua.UInt32(datum.status)), stamp(datum.source), stamp(self.now()))
        if tag is not None and wanted.AttributeId == ua.AttributeIds.AccessLevel:
            return ua.DataValue(ua.Variant(ua.Byte(self.access_level), ua.VariantType.Byte))
        known: dict[int, Callable[[], ua.Variant]] = {
            Ids.Server_NamespaceArray: lambda: ua.Variant(self.namespaces, ua.VariantType.String, is_array=True),
            Ids.Server_ServerStatus_StartTime: lambda: ua.Variant(stamp(self._started), ua.VariantType.DateTime),
            Ids.Server_ServerStatus_CurrentTime: lambda: ua.Variant(stamp(self.now()), ua.VariantType.DateTime),
            Ids.Server_ServerStatus_State: lambda: ua.Variant(0, ua.VariantType.Int32),
            Ids.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall: lambda: ua.Variant(
                self.items_per_call, ua.VariantType.UInt32
            ),
        }
        node = wanted.NodeId
        if node.NamespaceIndex == 0 and node.Identifier in known and wanted.AttributeId == ua.AttributeIds.Value:
            return ua.DataValue(known[node.Identifier](), ua.StatusCode(ua.UInt32(0)), None, stamp(self.now()))
        return ua.DataValue(None, ua.StatusCode(ua.UInt32(Codes.BadNodeIdUnknown)))

    def tag_of(self, node: ua.NodeId) -> int | None:
        """The number of a tag; None: there is no such node."""
        uri = self.namespaces[node.NamespaceIndex] if node.NamespaceIndex < len(self.namespaces) else ""
        text = str(node.Identifier)
        if uri != URI or not text.startswith("t") or not text[1:].isdecimal():
            return None
        tag = int(text[1:])
        return tag if tag < self.tags and tag not in self.missing else None

    async def _on_CreateSubscription(self, request: Any, _connection: Connection) -> Any:  # noqa: N802
        asked = request.Parameters
        interval = max(asked.RequestedPublishingInterval / 1000, 0.01)
        made = Subscription(
            next(self._ids), self.session_of(request), interval, max(asked.RequestedMaxKeepAliveCount, 1),
            asked.RequestedLifetimeCount, asked.MaxNotificationsPerPublish, asked.PublishingEnabled,
        )  # fmt: skip
        self.subscriptions[made.id] = made
        made.task = asyncio.create_task(self._publish_for_ever(made))
        response = ua.CreateSubscriptionResponse()
        result = response.Parameters
        result.SubscriptionId = made.id
        result.RevisedPublishingInterval = asked.RequestedPublishingInterval
        result.RevisedLifetimeCount = asked.RequestedLifetimeCount
        result.RevisedMaxKeepAliveCount = asked.RequestedMaxKeepAliveCount
        self._revise(result)
        return response

    def _revise(self, result: Any) -> None:
        for name, value in self.revise.items():
            if hasattr(result, name):
                setattr(result, name, value)

    def subscription_of(self, request: Any, number: int) -> Subscription:
        session = self.session_of(request)
        found = self.subscriptions.get(number)
        if found is None or found.session != session:
            raise Refusal(Codes.BadSubscriptionIdInvalid)
        return found

    async def _on_CreateMonitoredItems(self, request: Any, _connection: Connection) -> Any:  # noqa: N802
        asked = request.Parameters
        subscription = self.subscription_of(request, asked.SubscriptionId)
        if self.items_per_call and len(asked.ItemsToCreate) > self.items_per_call:
            raise Refusal(Codes.BadTooManyOperations)
        response = ua.CreateMonitoredItemsResponse()
        response.Results = [self._create_item(subscription, each) for each in asked.ItemsToCreate]
        return response

    def _create_item(self, subscription: Subscription, asked: Any) -> ua.MonitoredItemCreateResult:
        result = ua.MonitoredItemCreateResult()
        tag = self.tag_of(asked.ItemToMonitor.NodeId)
        if tag is None:
            result.StatusCode = ua.StatusCode(ua.UInt32(Codes.BadNodeIdUnknown))
            return result
        parameters = asked.RequestedParameters
        item = MonitoredItem(parameters.ClientHandle, max(1, min(parameters.QueueSize, self.queue_limit)))
        item.put(self._current.get(tag, Datum(0.0, self._started)))
        result.MonitoredItemId = number = next(self._ids)
        subscription.items[number] = item
        subscription.nodes.setdefault(tag, []).append(item)
        result.RevisedSamplingInterval = parameters.SamplingInterval
        result.RevisedQueueSize = item.limit
        self._revise(result)
        return result

    async def _on_DeleteMonitoredItems(self, request: Any, _connection: Connection) -> Any:  # noqa: N802
        asked = request.Parameters
        subscription = self.subscription_of(request, asked.SubscriptionId)
        response = ua.DeleteMonitoredItemsResponse()
        for number in asked.MonitoredItemIds:
            item = subscription.items.pop(number, None)
            for items in subscription.nodes.values():
                if item in items:
                    items.remove(item)
            code = Codes.BadMonitoredItemIdInvalid if item is None else 0
            response.Results.append(ua.StatusCode(ua.UInt32(code)))
        return response

    async def _on_SetPublishingMode(self, request: Any, _connection: Connection) -> Any:  # noqa: N802
        response = ua.SetPublishingModeResponse()
        for number in request.Parameters.SubscriptionIds:
            self.subscription_of(request, number).enabled = request.Parameters.PublishingEnabled
            response.Parameters.Results.append(ua.StatusCode(ua.UInt32(0)))
        return response

    async def _on_DeleteSubscriptions(self, request: Any, _connection: Connection) -> Any:  # noqa: N802
        response = ua.DeleteSubscriptionsResponse()
        for number in request.Parameters.SubscriptionIds:
            if number in self.subscriptions:
                self.end(self.subscriptions[number])
            response.Results.append(ua.StatusCode(ua.UInt32(0)))
        return response

    async def _on_Publish(self, request: Any, connection: Connection) -> None:  # noqa: N802
        session = self.session_of(request)
        mine = [each for each in self.subscriptions.values() if each.session == session]
        if not mine:
            raise Refusal(Codes.BadNoSubscription)
        results = []
        for ack in request.Parameters.SubscriptionAcknowledgements:
            found = self.subscriptions.get(ack.SubscriptionId)
            known = found is not None and found.kept.pop(ack.SequenceNumber, None) is not None
            results.append(0 if known else int(Codes.BadSequenceNumberUnknown))
        waiting = Waiting(connection, connection.request, request.RequestHeader.RequestHandle, results)
        self.sessions[session].append(waiting)
        for subscription in mine:
            subscription.waited = 0
        if late := [subscription for subscription in mine if subscription.due]:
            self.serve(min(late, key=lambda subscription: subscription.due))

    async def _on_Republish(self, request: Any, _connection: Connection) -> Any:  # noqa: N802
        asked = request.Parameters
        subscription = self.subscription_of(request, asked.SubscriptionId)
        message = subscription.kept.get(asked.RetransmitSequenceNumber)
        if message is None:
            raise Refusal(Codes.BadMessageNotAvailable)
        return self.republished(request, message)

    def republished(self, request: Any, message: bytes) -> bytes:
        """An answer to Republish."""
        kind = struct.pack("<H", Ids.RepublishResponse_Encoding_DefaultBinary)
        return b"\x01\0" + kind + self.header(request.RequestHeader.RequestHandle) + message

    async def _on_TransferSubscriptions(self, request: Any, _connection: Connection) -> Any:  # noqa: N802
        session = self.session_of(request)
        response = ua.TransferSubscriptionsResponse()
        for number in request.Parameters.SubscriptionIds:
            found = self.subscriptions.get(number)
            result = ua.TransferResult()
            if found is None:
                result.StatusCode = ua.StatusCode(ua.UInt32(Codes.BadSubscriptionIdInvalid))
            else:
                found.session = session
                result.AvailableSequenceNumbers = list(found.kept)
            response.Parameters.Results.append(result)
        return response


@contextlib.contextmanager
def answering(server: Server, name: str, answer: Callable[[Any, Connection], Awaitable[Any]]) -> Iterator[None]:
    """For a while a request is answered so."""
    server.answers[name] = answer
    try:
        yield
    finally:
        server.answers.pop(name, None)
