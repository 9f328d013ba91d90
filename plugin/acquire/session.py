"""One secured session with one server: connect, check trust, take up again after a cut, drop, close.

asyncua encodes, encrypts and knows the services. Not used of it: ``Client.connect`` and its supervisor (its health
probe takes a slow server for a lost one), ``Subscription`` and ``auto_reconnect`` (both lose values after a cut).
"""

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.client.ua_client import UASocketProtocol
from asyncua.client.ua_session import UaSession
from cryptography.exceptions import InvalidSignature

from plugin.acquire.config import SourceConfig
from plugin.acquire.kept_session import KeptSession, SessionFile
from plugin.channel import Channel, SecureClient
from plugin.errors import SourceError, SourceRefused, SourceUnreachable

_log = logging.getLogger(__name__)

_NEEDS_A_PERSON = frozenset(
    getattr(ua.StatusCodes, name)
    for name in (
        "BadIdentityTokenInvalid", "BadIdentityTokenRejected", "BadUserAccessDenied", "BadSecurityPolicyRejected",
        "BadSecurityModeRejected", "BadSecurityChecksFailed", "BadCertificateInvalid", "BadCertificateTimeInvalid",
        "BadCertificateUntrusted", "BadCertificateUriInvalid", "BadCertificateRevoked", "BadCertificateUseNotAllowed",
        "BadCertificateIssuerRevoked", "BadCertificateHostNameInvalid", "BadApplicationSignatureInvalid",
        "BadCertificateChainIncomplete", "BadCertificatePolicyCheckFailed", "BadCertificateIssuerTimeInvalid",
        "BadCertificateRevocationUnknown", "BadCertificateIssuerRevocationUnknown", "BadUserSignatureInvalid",
        "BadCertificateIssuerUseNotAllowed",
    )
)  # fmt: skip
_PASSES = frozenset(
    getattr(ua.StatusCodes, name)
    for name in (
        "BadTimeout", "BadRequestTimeout", "BadShutdown", "BadServerHalted", "BadServerNotConnected",
        "BadNoCommunication", "BadCommunicationError", "BadTcpServerTooBusy", "BadTcpInternalError",
        "BadTcpNotEnoughResources",
        "BadResourceUnavailable", "BadOutOfMemory", "BadTooManyOperations", "BadInternalError", "BadUnexpectedError",
        "BadSecureChannelClosed",
    )
)  # fmt: skip
"""Answers that say nothing of the session that was to be taken up."""
_MAX_FAILURES = 3  # attempts before everything, trust included, begins anew; and to take up a session
_LARGEST_CHUNK = 1 << 20  # bytes
_LARGEST_MESSAGE = 1 << 26
_SENSIBLE, _FALLBACK = 1e6, 60.0  # [s] timeouts of sessions: what is none, and what stands for it
_FAREWELL = 2.0  # [s] for a polite end


class ServiceFault(SourceUnreachable):
    """The server answered a request with a Bad StatusCode."""

    def __init__(self, what: str, code: int) -> None:
        self.code = code
        super().__init__(f"{what}: {status_name(code)}")


class SessionDoubtful(ServiceFault):
    """The session of before could not be taken up; whether it is lost, the answer doesn't say."""


def status_name(code: int) -> str:
    """Name of a StatusCode."""
    return str(ua.StatusCode(ua.UInt32(code)).name)


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Errors of the connection as ours: :class:`ServiceFault` where the server said no, else SourceUnreachable."""
    try:
        yield
    except SourceError:
        raise
    except ua.UaStatusCodeError as error:
        raise ServiceFault(what, error.code) from error
    except (OSError, TimeoutError, ua.UaError, InvalidSignature, ValueError, struct.error) as error:
        raise SourceUnreachable(f"{what}: {type(error).__name__} {error}".rstrip()) from error


class Session:
    """The connection to a server, over many cuts; ``file``: where the session is kept for the next process."""

    def __init__(
        self, config: SourceConfig, pki_folder: Path, application_uri: str, file: SessionFile | None = None
    ) -> None:
        self._config = config
        self._channel = Channel(config.terms(pki_folder, application_uri))
        self._application_uri = application_uri
        self._timeout = config.timeout.total_seconds()
        self._client: _Client | None = None
        self._failures = 0
        self._file = file or SessionFile(None)
        user = config.user or str(config.user_certificate or "")
        self._peer = " ".join((config.endpoint, config.security_policy, config.security_mode, user, application_uri))
        self._kept = self._file.read(self._peer)
        self._doubts = 0  # answers in a row that may speak of the kept session
        self._since = 0.0  # of the first failure in a row [s, loop time]

    @property
    def services(self) -> UaSession:
        """The services of the session; SourceUnreachable where there is none."""
        if self._client is None:
            raise SourceUnreachable(f"{self._config.name}: not connected")
        return self._client.uaclient.session

    @property
    def lifetime(self) -> float:
        """How long the server keeps the session without a word from us [s]."""
        return self._kept.timeout if self._kept is not None else 0.0

    def renewal_failed(self) -> bool:
        """The task that renews the secure channel has ended: soon the server will not hear us."""
        task = self._client._renew_channel_task if self._client else None
        return task is not None and task.done()

    async def open(self) -> bool:
        """Connect; True where the session of before was taken up again, its subscriptions with it.

        Raises SourceRefused where a person has to act, else SourceUnreachable; nothing is left open then.
        """
        what = f"{self._config.name}: connect to {self._config.endpoint}"
        try:
            async with asyncio.timeout(4 * self._timeout):
                with translated(what):
                    again = await self._open()
        except TimeoutError as error:
            await self._failed()
            raise SourceUnreachable(f"{what}: no answer within {4 * self._timeout:g} s") from error
        except ServiceFault as fault:
            self._doubts += isinstance(fault, SessionDoubtful)
            await self._failed()
            if fault.code in _NEEDS_A_PERSON:
                self._client = None
                raise SourceRefused(f"{fault}; {self._channel.remedy}") from fault
            raise
        except BaseException:
            await self._failed()
            raise
        self._failures = self._doubts = 0
        self._since = 0.0
        return again

    async def _open(self) -> bool:
        client = self._client = self._client or await self._prepared()
        again = await self._channel.enter(client, lambda: client.start(self._kept))
        self._kept = client.kept(self._peer)
        await asyncio.to_thread(self._file.write, self._kept)
        return again

    async def _failed(self) -> None:
        await self.drop()
        self._failures += 1
        if self._failures >= _MAX_FAILURES:
            self._client, self._failures = None, 0
        now = asyncio.get_running_loop().time()
        self._since = self._since or now
        if self._doubts >= _MAX_FAILURES or now - self._since > self.lifetime:
            self._kept, self._doubts = None, 0  # the server answers, and will not have us; or the session has ended

    async def drop(self) -> None:
        """Leave the connection at once; the session stays on the server, to be taken up by :meth:`open`."""
        if self._client is None:
            return
        client = self._client
        await client._cancel_task(client._renew_channel_task)
        client._renew_channel_task = None
        protocol = client.uaclient.protocol
        if protocol is not None and protocol.transport is not None:
            protocol.transport.abort()  # close() would wait to flush into a dead connection
        client.uaclient.disconnect_socket()
        await asyncio.sleep(0)  # the transport reports its end in the next turn of the loop

    async def close(self) -> None:
        """End the session and its subscriptions politely where the server still listens, within 2 s."""
        await self._farewell(end_session=True)
        self._kept = None
        await asyncio.to_thread(self._file.remove)

    async def leave(self) -> None:
        """End the connection; the session and its subscriptions wait at the server for the next process."""
        await self._farewell(end_session=False)

    async def _farewell(self, *, end_session: bool) -> None:
        if self._client is not None and self._client.uaclient.has_transport:
            with contextlib.suppress(TimeoutError, SourceError):
                async with asyncio.timeout(_FAREWELL):
                    with translated("close"):
                        if end_session:
                            await self._client.uaclient.close_session(True)
                        await self._client.uaclient.close_secure_channel()
        await self.drop()
        self._client = None

    async def watch_trust(self) -> None:
        """While the session is open: raise SourceError where it should not go on as it is."""
        await self._channel.watch()

    async def _prepared(self) -> "_Client":
        """A client with our names and the user's credentials."""
        config = self._config
        client = _Client(config.endpoint, timeout=self._timeout)
        client.name = client.description = "foretag"
        client.application_uri = self._application_uri
        client.product_uri = "urn:foretag"
        client.session_timeout = int(max(2 * config.bridge.total_seconds(), 60.0) * 1000)
        if config.user:
            client.set_user(config.user)
            client.set_password(await asyncio.to_thread(config.password))
        identity = await asyncio.to_thread(config.identity)
        if identity is not None:
            client.user_certificate, client.user_private_key = identity
        return client


class _Client(SecureClient):
    """asyncua's client without its publish loop, with two faults mended."""

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__(url, timeout=timeout)
        # created and re-activated sessions would start asyncua's own publish loop
        self.uaclient.session.ensure_publish_loop = lambda: None  # type: ignore[method-assign]
        make = self.uaclient._make_protocol

        def make_protocol() -> UASocketProtocol:
            protocol = make()
            _age_tokens_by_our_clock(protocol)
            _bound_what_is_collected(protocol)
            return protocol

        self.uaclient._make_protocol = make_protocol  # type: ignore[method-assign]

    async def start(self, kept: KeptSession | None) -> bool:
        """Connect; True: the kept session goes on, else there is a new one. Raises what asyncua raises."""
        await self.connect_socket()
        try:
            await self.send_hello()
            await self.open_secure_channel()
            again = kept is not None and await self._take_up(kept)
            if not again:
                self.uaclient.session.reset_authentication_token()
                await self._create_and_activate_session()
            self._start_renew_loop()
        except BaseException:
            self.disconnect_socket()
            raise
        return again

    async def _take_up(self, kept: KeptSession) -> bool:
        """asyncua itself closes a session that it can't take up at once, be the server only slow: values are lost."""
        self.uaclient.session.restore_authentication_token(kept.token)
        self._server_nonce = kept.nonce  # type: ignore[assignment]
        self._policy_ids, self.session_timeout = list(kept.policies), int(kept.timeout * 1000)
        try:
            await self._activate_with_credentials()
        except ConnectionError as error:  # some servers hang up on a session that they don't know
            raise SessionDoubtful("take up the session", ua.StatusCodes.BadConnectionClosed) from error
        except ua.UaStatusCodeError as error:
            if error.code in _PASSES:
                raise SessionDoubtful("take up the session", error.code) from error
            _log.info("the session of before is lost: %s", status_name(error.code))
            return False
        return True

    def kept(self, peer: str) -> KeptSession:
        """What it takes to go on with the session that was just activated."""
        token, policies = self.uaclient.session.authentication_token, tuple(self._policy_ids)
        timeout = self.session_timeout / 1000
        if not 0 < timeout < _SENSIBLE:
            timeout = _FALLBACK
        return KeptSession(peer, token, self._server_nonce, policies, timeout)


def _age_tokens_by_our_clock(protocol: UASocketProtocol) -> None:
    """A token's CreatedAt is the server's clock; compared with ours, a server that is behind loses the connection."""
    connection = protocol._connection
    set_channel = connection.set_channel

    def received_now(params: Any, request_type: ua.SecurityTokenRequestType, client_nonce: bytes) -> None:
        params.SecurityToken.CreatedAt = datetime.now(UTC)
        set_channel(params, request_type, client_nonce)

    connection.set_channel = received_now  # type: ignore[method-assign]


def _bound_what_is_collected(protocol: UASocketProtocol) -> None:
    """A chunk is bounded by what we offered, but asyncua looks only when all of it is here, and bounds no message."""
    protocol._connection._limits.max_message_size = _LARGEST_MESSAGE
    receive = protocol.data_received

    def received(data: bytes) -> None:
        receive(data)
        if len(protocol.receive_buffer or b"") > _LARGEST_CHUNK and protocol.transport is not None:
            _log.warning("the server announces a chunk beyond %d bytes; the connection is ended", _LARGEST_CHUNK)
            protocol.transport.abort()

    protocol.data_received = received  # type: ignore[method-assign]


@contextlib.asynccontextmanager
async def one_shot(config: SourceConfig, pki_folder: Path, application_uri: str) -> AsyncIterator[Session]:
    """A session for a short errand."""
    session = Session(config, pki_folder, application_uri)
    await session.open()
    try:
        yield session
    finally:
        await session.close()
