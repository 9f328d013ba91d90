"""One secured session with one server: connect, check trust, take up again after a cut, drop, close.

asyncua encodes, encrypts and knows the services. Not used of it: ``Client.connect`` and its supervisor (its health
probe takes a slow server for a lost one), ``Subscription`` and ``auto_reconnect`` (both lose values after a cut).
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncua import Client, ua
from asyncua.client.ua_client import UASocketProtocol
from asyncua.client.ua_session import UaSession
from asyncua.crypto import security_policies
from asyncua.crypto.uacrypto import CertProperties
from cryptography.exceptions import InvalidSignature

from plugin import pki
from plugin.acquire.config import Policy, SourceConfig
from plugin.acquire.kept_session import KeptSession, SessionFile
from plugin.errors import SourceError, SourceRefused, SourceUnreachable

_log = logging.getLogger(__name__)

_NEEDS_A_PERSON = frozenset(
    getattr(ua.StatusCodes, name)
    for name in (
        "BadIdentityTokenInvalid", "BadIdentityTokenRejected", "BadUserAccessDenied", "BadSecurityPolicyRejected",
        "BadSecurityModeRejected", "BadSecurityChecksFailed", "BadCertificateInvalid", "BadCertificateTimeInvalid",
        "BadCertificateUntrusted", "BadCertificateUriInvalid", "BadCertificateRevoked", "BadCertificateUseNotAllowed",
        "BadCertificateIssuerRevoked", "BadCertificateHostNameInvalid", "BadApplicationSignatureInvalid",
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
        self._pki = pki_folder
        self._application_uri = application_uri
        self._timeout = config.timeout.total_seconds()
        self._client: _Client | None = None
        self._failures = 0
        self._file = file or SessionFile(None)
        user = config.user
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
                raise SourceRefused(f"{fault}; {self._remedy()}") from fault
            raise
        except BaseException:
            await self._failed()
            raise
        self._failures = self._doubts = 0
        self._since = 0.0
        return again

    async def _open(self) -> bool:
        if self._client is None:
            self._client = await self._prepared()
        else:
            await self._check_trust(self._client.security_policy.peer_certificate, None)
        again = await self._client.start(self._kept)
        self._kept = self._client.kept(self._peer)
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

    # --- security ---

    async def _prepared(self) -> "_Client":
        """A client with credentials, and a channel policy for a server that was found trustworthy."""
        config = self._config
        client = _Client(config.endpoint, timeout=self._timeout)
        client.name = client.description = "foretag"
        client.application_uri = self._application_uri
        client.product_uri = "urn:foretag"
        client.session_timeout = int(max(2 * config.bridge.total_seconds(), 60.0) * 1000)
        if config.user:
            client.set_user(config.user)
            client.set_password(config.password())
        if config.security_policy is not Policy.NONE:
            await self._secure(client)
        return client

    async def _secure(self, client: "_Client") -> None:
        config = self._config
        policy: Any = getattr(security_policies, f"SecurityPolicy{config.security_policy.value}")
        mode = ua.MessageSecurityMode[config.security_mode.value]
        offered = await client.connect_and_get_server_endpoints()
        endpoint = next((e for e in offered if e.SecurityMode == mode and e.SecurityPolicyUri == policy.URI), None)
        if endpoint is None:
            raise SourceRefused(
                f"{config.name}: {config.endpoint} does not offer {_security(config)}; {_offers(offered)}"
            )
        certificate = first_certificate(endpoint.ServerCertificate)
        await self._check_trust(certificate, endpoint.Server.ApplicationUri)
        own = await asyncio.to_thread(
            pki.ensure_own_certificate, self._pki, self._application_uri, (socket.gethostname(), "localhost")
        )
        await client.set_security(
            policy,
            CertProperties(own.cert_path, "der"),
            CertProperties(own.key_path, "pem"),
            server_certificate=CertProperties(certificate, "der"),
            mode=mode,
        )

    async def _check_trust(self, certificate: bytes | None, application_uri: str | None) -> None:
        """At every connect, so that a file moved to or from ``trusted/`` counts at once."""
        if self._config.security_policy is Policy.NONE:
            return
        peer = f"{self._config.name} at {self._config.endpoint}"
        found = await asyncio.to_thread(
            pki.refusal, self._pki, certificate or b"", peer=peer, application_uri=application_uri
        )
        if found is not None:
            raise SourceRefused(found.message)

    def _remedy(self) -> str:
        own = self._pki / "own" / "own.der"
        return f"the server must trust our certificate {own}, and user, policy and clock must suit it"


class _Client(Client):
    """asyncua's client without its publish loop, with two faults mended."""

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__(url, timeout=timeout)
        # created and re-activated sessions would start asyncua's own publish loop
        self.uaclient.session.ensure_publish_loop = lambda: None  # type: ignore[method-assign]
        make = self.uaclient._make_protocol

        def make_protocol() -> UASocketProtocol:
            protocol = make()
            _age_tokens_by_our_clock(protocol)
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
        return KeptSession(peer, token, self._server_nonce, policies, self.session_timeout / 1000)

    def _add_user_auth(self, params: ua.ActivateSessionParameters, username: str | None, password: str | None) -> None:
        """A server may name a token policy that leaves the password bare; only an encrypted channel may carry that."""
        if self.security_policy.Mode != ua.MessageSecurityMode.SignAndEncrypt:
            raise SourceRefused("a password never goes over a channel that is not encrypted")
        super()._add_user_auth(params, username, password)


def _age_tokens_by_our_clock(protocol: UASocketProtocol) -> None:
    """A token's CreatedAt is the server's clock; compared with ours, a server that is behind loses the connection."""
    connection = protocol._connection
    set_channel = connection.set_channel

    def received_now(params: Any, request_type: ua.SecurityTokenRequestType, client_nonce: bytes) -> None:
        params.SecurityToken.CreatedAt = datetime.now(UTC)
        set_channel(params, request_type, client_nonce)

    connection.set_channel = received_now  # type: ignore[method-assign]


def first_certificate(chain: bytes | None) -> bytes:
    """The peer's own certificate; a server may send its issuers behind it."""
    if not chain or len(chain) < 4:
        raise SourceRefused("the server shows no certificate for a secured endpoint")
    return chain[: int.from_bytes(chain[2:4], "big") + 4]


def _security(config: SourceConfig) -> str:
    return f"{config.security_policy.value} with {config.security_mode.value}"


def _offers(endpoints: list[ua.EndpointDescription]) -> str:
    found = sorted({f"{e.SecurityPolicyUri.rpartition('#')[2]} with {e.SecurityMode.name}" for e in endpoints})
    return f"it offers {', '.join(found) or 'nothing'}"


@contextlib.asynccontextmanager
async def one_shot(config: SourceConfig, pki_folder: Path, application_uri: str) -> AsyncIterator[Session]:
    """A session for a short errand."""
    session = Session(config, pki_folder, application_uri)
    await session.open()
    try:
        yield session
    finally:
        await session.close()
