"""One session at a plant's server, for writing: connect, resolve nodes, write with status and time, read back."""

import asyncio
import contextlib
import math
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from asyncua import Client, ua
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from plugin.channel import Channel, SecureClient, Terms
from plugin.domain import quality
from plugin.errors import SourceError, SourceRefused, SourceUnreachable

_CLOSE_SECONDS = 2.0
_SESSION_MILLISECONDS = 60_000
_NODES_PER_CALL = 100


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach a plant's server, and as whom."""

    terms: Terms
    user: str | None = None
    password: Callable[[], str] = field(default=str, repr=False)
    """Reads it where it is kept, at each connect. Raises SourceRefused."""
    identity: Callable[[], tuple[x509.Certificate, RSAPrivateKey] | None] = field(default=lambda: None, repr=False)
    """Reads certificate and key of a user, where there are such. Raises SourceRefused."""


class Form(IntEnum):
    """What a server takes in a write, fullest first: many refuse times, some a status, with BadWriteNotSupported."""

    FULL = 2
    """Value, StatusCode and SourceTimestamp."""
    STATUS = 1
    """Value and StatusCode."""
    BARE = 0
    """The value alone: it becomes Good, whatever it was."""


@dataclass(frozen=True, slots=True)
class Value:
    """What is to be written to one node."""

    number: float
    status: int
    source_time: datetime


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the server, resolved in the present session."""

    id: ua.NodeId
    kind: ua.VariantType


class PlantClient:
    """An open session. Every method raises SourceError where the connection is lost."""

    def __init__(self, client: Client, form: Form) -> None:
        self._client = client
        self._namespaces: dict[str, int] = {}
        self.form = form
        """What the server was found to accept."""

    async def alive(self) -> None:
        """Ask the server for its state; keeps the session from timing out."""
        await self._read([ua.NodeId(ua.Int32(ua.ObjectIds.Server_ServerStatus_State))], ua.AttributeIds.Value)

    async def resolve(self, texts: Sequence[str]) -> Mapping[str, Node | str]:
        """Each ``nsu=…`` text's node, or the name of the StatusCode that says why there is none."""
        uris = await _translated(self._client.get_namespace_array())
        self._namespaces = {uri: index for index, uri in enumerate(uris)}
        ids = {text: self._node_id(text) for text in texts}
        found = [(text, node) for text, node in ids.items() if node is not None]
        kinds = await self._read([node for _, node in found], ua.AttributeIds.DataType)
        values = await self._read([node for _, node in found], ua.AttributeIds.Value)
        result: dict[str, Node | str] = dict.fromkeys(texts, "BadNodeIdUnknown")
        for (text, node), kind, value in zip(found, kinds, values, strict=True):
            result[text] = _node(node, kind, value)
        return result

    async def write(self, nodes: Sequence[Node], values: Sequence[Value]) -> list[str]:
        """Write all, in the fullest form that the server takes; the names of the StatusCodes, ``Good`` where written.

        An Uncertain value is not written to a server that takes no status, since it would become Good there:
        ``StatusNotWritable``. A number that the node's type can't hold gives ``BadTypeMismatch``.
        """
        results = ["BadTypeMismatch"] * len(nodes)
        rest = [i for i, (node, value) in enumerate(zip(nodes, values, strict=True)) if _fits(node.kind, value.number)]
        for form in (form for form in Form if form <= self.form):
            if form is Form.BARE:
                for i in (i for i in rest if quality(values[i].status)):
                    results[i] = "StatusNotWritable"
                rest = [i for i in rest if not quality(values[i].status)]
            codes = await self._write([nodes[i] for i in rest], [values[i] for i in rest], form)
            for i, code in zip(rest, codes, strict=True):
                results[i] = code
            if any(code == "Good" for code in codes):
                self.form = form
            rest = [i for i, code in zip(rest, codes, strict=True) if code == "BadWriteNotSupported"]
            if not rest:
                break
        return results

    async def differs(self, nodes: Sequence[Node], values: Sequence[Value]) -> list[bool]:
        """Read back: True where a node holds another value, or another quality, than was written."""
        present = await self._read([node.id for node in nodes], ua.AttributeIds.Value)
        return [
            data.Value is None
            or data.Value.Value != _as_stored(node.kind, value.number)
            or (self.form > Form.BARE and quality(_code(data.StatusCode)) != quality(value.status))
            for node, value, data in zip(nodes, values, present, strict=True)
        ]

    def _node_id(self, text: str) -> ua.NodeId | None:
        uri, _, identifier = text.removeprefix("nsu=").partition(";")
        if uri not in self._namespaces:
            return None
        try:
            return ua.NodeId.from_string(f"ns={self._namespaces[uri]};{identifier}")
        except (ua.UaError, ValueError):
            return None

    async def _read(self, ids: Sequence[ua.NodeId], attribute: ua.AttributeIds) -> list[ua.DataValue]:
        values: list[ua.DataValue] = []
        for start in range(0, len(ids), _NODES_PER_CALL):
            some = list(ids[start : start + _NODES_PER_CALL])
            values += await _translated(self._client.uaclient.session.read_attributes(some, attribute))
        return values

    async def _write(self, nodes: Sequence[Node], values: Sequence[Value], form: Form) -> list[str]:
        codes: list[str] = []
        for start in range(0, len(nodes), _NODES_PER_CALL):
            some = slice(start, start + _NODES_PER_CALL)
            data = [_data_value(node.kind, value, form) for node, value in zip(nodes[some], values[some], strict=True)]
            ids = [node.id for node in nodes[some]]
            answers = await _translated(self._client.uaclient.session.write_attributes(ids, data))
            codes += [answer.name for answer in answers]
        return codes


# --- values and types ------------------------------------------------------------------------------------------------

_INTEGERS = {
    ua.VariantType.SByte: (-(2**7), 2**7 - 1),
    ua.VariantType.Byte: (0, 2**8 - 1),
    ua.VariantType.Int16: (-(2**15), 2**15 - 1),
    ua.VariantType.UInt16: (0, 2**16 - 1),
    ua.VariantType.Int32: (-(2**31), 2**31 - 1),
    ua.VariantType.UInt32: (0, 2**32 - 1),
    ua.VariantType.Int64: (-(2**63), 2**63 - 1),
    ua.VariantType.UInt64: (0, 2**64 - 1),
}
_WRITABLE = {*_INTEGERS, ua.VariantType.Boolean, ua.VariantType.Float, ua.VariantType.Double}
_GENERAL = {ua.ObjectIds.Number: ua.VariantType.Double, ua.ObjectIds.Duration: ua.VariantType.Double}
_LARGEST_FLOAT = 3.4e38


def _node(node: ua.NodeId, kind: ua.DataValue, value: ua.DataValue) -> Node | str:
    """The type of the present value where there is one: a DataType may be abstract."""
    if quality(_code(kind.StatusCode)) or kind.Value is None:
        return kind.StatusCode.name if kind.StatusCode is not None else "BadNodeIdUnknown"
    if value.Value is not None and value.Value.VariantType in _WRITABLE:
        return Node(node, value.Value.VariantType)
    identifier = kind.Value.Value.Identifier
    variants = {variant.value: variant for variant in _WRITABLE}
    found = _GENERAL.get(identifier, variants.get(identifier))
    return "BadTypeMismatch" if found is None or kind.Value.Value.NamespaceIndex else Node(node, found)


def _fits(kind: ua.VariantType, number: float) -> bool:
    if not math.isfinite(number):
        return False
    low, high = _INTEGERS.get(kind, (-math.inf, math.inf))
    return low <= round(number) <= high and (kind is not ua.VariantType.Float or abs(number) < _LARGEST_FLOAT)


def _as_stored(kind: ua.VariantType, number: float) -> float | int | bool:
    """The number as a node of this type holds it: integers are rounded to the nearest, floats to 32 bits."""
    if kind is ua.VariantType.Boolean:
        return number != 0
    if kind is ua.VariantType.Float:
        (single,) = struct.unpack("<f", struct.pack("<f", number))
        return float(single)
    return round(number) if kind in _INTEGERS else float(number)


def _data_value(kind: ua.VariantType, value: Value, form: Form) -> ua.DataValue:
    variant = ua.Variant(_as_stored(kind, value.number), kind)
    status = ua.StatusCode(ua.UInt32(value.status)) if form >= Form.STATUS else None
    source = value.source_time if form is Form.FULL else None
    return ua.DataValue(variant, status, source)  # type: ignore[arg-type]


def _code(status: ua.StatusCode | None) -> int:
    return 0 if status is None else int(status.value)


# --- connecting ------------------------------------------------------------------------------------------------------

_REFUSALS = ("BadCertificate", "BadSecurity", "BadUserAccessDenied", "BadIdentityToken", "BadNoMatch")


@asynccontextmanager
async def connected(connection: Connection, form: Form = Form.FULL) -> AsyncIterator[PlantClient]:
    """A session, closed at the end. SourceRefused where a person has to act, SourceUnreachable where time may help."""
    terms = connection.terms
    client = SecureClient(terms.endpoint, timeout=terms.timeout)
    try:
        async with asyncio.timeout(4 * terms.timeout):
            await _introduce(client, connection)
            await Channel(terms).enter(client, client._connect_sequence)
    except (ua.UaError, OSError, TimeoutError, ValueError) as error:
        await _close(client)
        raise _translate(error, f"{terms.endpoint}: ") from error
    except BaseException:
        await _close(client)
        raise
    try:
        yield PlantClient(client, form)
    finally:
        await _close(client)


async def _introduce(client: SecureClient, connection: Connection) -> None:
    """Our names, and the user's credentials."""
    terms = connection.terms
    client.name = client.description = "foretag write-back"
    client.application_uri = terms.application_uri
    client.product_uri = "urn:foretag:product"
    client.session_timeout = _SESSION_MILLISECONDS
    if connection.user is not None:
        if terms.policy == "None" or terms.mode != "SignAndEncrypt":
            raise SourceRefused(
                "a password is sent over an encrypted channel alone; set policy, and mode SignAndEncrypt"
            )
        client.set_user(connection.user)
        client.set_password(await asyncio.to_thread(connection.password))
    identity = await asyncio.to_thread(connection.identity)
    if identity is not None:
        client.user_certificate, client.user_private_key = identity


async def _close(client: Client) -> None:
    """Whatever state it is in, and within a bounded time."""
    protocol = client.uaclient.protocol
    if protocol is not None and not protocol.is_closed:
        with contextlib.suppress(ua.UaError, OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await client.close_session()
                await client.close_secure_channel()
    await client._cancel_task(client._renew_channel_task)
    if protocol is not None and protocol.transport is not None:
        protocol.transport.abort()


async def _translated(answer: Awaitable[list[ua.DataValue] | list[ua.StatusCode] | list[str]]) -> list:  # type: ignore[type-arg]
    try:
        return await answer
    except (ua.UaError, OSError, TimeoutError) as error:
        raise _translate(error, "") from error


def _translate(error: Exception, where: str) -> SourceError:
    name = type(error).__name__
    text = f"{where}{name}: {error}" if str(error) else f"{where}{name}"
    needs_person = isinstance(error, ValueError) or name.startswith(_REFUSALS) or "No matching" in str(error)
    return SourceRefused(text) if needs_person else SourceUnreachable(text)
