"""One session at a plant's server, for writing: connect, resolve nodes, write with status and time, read back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from asyncua import Client, ua
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from plugin import channel
from plugin.channel import Channel, SecureClient, Terms
from plugin.domain import quality
from plugin.errors import SourceError, SourceRefused, SourceUnreachable
from plugin.publish.plant_values import Demand, Form, Node, Value, data_value, fits, new_node, node_of, same, status_of

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


class PlantClient:
    """An open session. Every method raises SourceError where the connection is lost."""

    def __init__(self, client: Client, form: Form, held_to: Channel) -> None:
        self._client = client
        self._channel = held_to
        self._reviewed = asyncio.get_running_loop().time()
        self._namespaces: dict[str, int] = {}
        self._refused: dict[str, str] = {}
        self.form = form
        """What the server was found to accept."""

    async def review(self) -> None:
        """Whether the server is still to be spoken to, looked at once a minute."""
        now = asyncio.get_running_loop().time()
        if now - self._reviewed >= channel.REVIEW:
            self._reviewed = now
            await self._channel.review()

    async def alive(self) -> None:
        """Ask the server for its state; keeps the session from timing out."""
        await self._read([ua.NodeId(ua.Int32(ua.ObjectIds.Server_ServerStatus_State))], ua.AttributeIds.Value)

    async def resolve(self, demands: Sequence[Demand]) -> Mapping[str, Node | str]:
        """By text: the node, or the name of the StatusCode that says why there is none.

        One that the server does not have is made where the demand says so, asked for once a session: a server that
        makes none refuses (``BadServiceUnsupported``, ``BadUserAccessDenied``).
        """
        uris = await _translated(self._client.get_namespace_array())
        self._namespaces = {uri: index for index, uri in enumerate(uris)}
        found = await self._look_up(demands)
        lacking = {d.text: d for d in demands if d.create is not None and found[d.text] == "BadNodeIdUnknown"}
        made = await self._create([each for text, each in lacking.items() if text not in self._refused])
        self._refused |= {text: answer for text, answer in made.items() if answer != "Good"}
        found |= {text: self._refused[text] for text in lacking if text in self._refused}
        new = [lacking[text] for text, answer in made.items() if answer == "Good"]
        return found | await self._look_up(new)

    async def _look_up(self, demands: Sequence[Demand]) -> dict[str, Node | str]:
        ids = [(demand, self._node_id(demand.text)) for demand in demands]
        known = [(demand, node) for demand, node in ids if node is not None]
        kinds = await self._read([node for _, node in known], ua.AttributeIds.DataType)
        values = await self._read([node for _, node in known], ua.AttributeIds.Value)
        result: dict[str, Node | str] = {demand.text: "BadNodeIdUnknown" for demand in demands}
        for (demand, node), kind, value in zip(known, kinds, values, strict=True):
            result[demand.text] = node_of(node, demand, kind, value)
        return result

    async def _create(self, demands: Sequence[Demand]) -> dict[str, str]:
        asked = {demand.text: (demand, node) for demand in demands if (node := self._node_id(demand.text)) is not None}
        if not asked:
            return {}
        items = [new_node(node, boolean=bool(demand.create)) for demand, node in asked.values()]
        try:
            answers = await self._client.uaclient.session.add_nodes(items)
        except ua.UaStatusCodeError as error:  # the service as a whole: most servers have none
            return dict.fromkeys(asked, ua.StatusCode(ua.UInt32(error.code)).name)
        except (ua.UaError, OSError, TimeoutError) as error:
            raise _translate(error, "") from error
        return {text: answer.StatusCode.name for text, answer in zip(asked, answers, strict=True)}

    async def write(self, nodes: Sequence[Node], values: Sequence[Value]) -> list[str]:
        """Write all, in the fullest form that the server takes; the names of the StatusCodes, ``Good`` where written.

        An Uncertain value is not written to a server that takes no status, since it would become Good there:
        ``StatusNotWritable``. A number that the node's type can't hold gives ``BadTypeMismatch``.
        """
        results = ["BadTypeMismatch"] * len(nodes)
        rest = [i for i, (node, value) in enumerate(zip(nodes, values, strict=True)) if fits(node.kind, value.number)]
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
        """Read back: True where a node holds another value, beyond its tolerance, or another quality."""
        present = await self._read([node.id for node in nodes], ua.AttributeIds.Value)
        return [
            not same(node, value.number, data)
            or (self.form > Form.BARE and quality(status_of(data.StatusCode)) != quality(value.status))
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
            data = [data_value(node.kind, value, form) for node, value in zip(nodes[some], values[some], strict=True)]
            ids = [node.id for node in nodes[some]]
            answers = await _translated(self._client.uaclient.session.write_attributes(ids, data))
            codes += [answer.name for answer in answers]
        return codes


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
            held_to = Channel(terms)
            await held_to.enter(client, client._connect_sequence)
    except (ua.UaError, OSError, TimeoutError, ValueError) as error:
        await _close(client)
        raise _translate(error, f"{terms.endpoint}: ") from error
    except BaseException:
        await _close(client)
        raise
    try:
        yield PlantClient(client, form, held_to)
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
    told = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else "")
    text = f"{where}{name}: {told}" if told else f"{where}{name}"
    needs_person = isinstance(error, ValueError) or name.startswith(_REFUSALS) or "No matching" in str(error)
    return SourceRefused(text) if needs_person else SourceUnreachable(text)
