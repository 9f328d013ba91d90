"""Secured channels to a plant's servers, for whoever needs one: who the server is, and who we are to it.

Both are settled before a channel is opened, and long before a secret is sent.

At every connect the server is asked for its endpoints, and what it shows is held against the configuration (policy and
mode: there is no other) and the trust list. After CreateSession the server must offer the same endpoints over the
secured channel (OPC 10000-4, 5.7.2): who took something out of the first answer is found there.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlparse

from asyncua import Client, ua
from asyncua.crypto import security_policies, uacrypto
from asyncua.crypto.uacrypto import CertProperties
from cryptography.exceptions import InvalidSignature

from plugin import pki
from plugin.errors import CertificateError, SourceRefused, SourceUnreachable

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

REVIEW = 60.0
"""How soon a change of the trust list, or of our certificate, reaches a connection that stands [s]."""
_TRY_NEW = 24 * 3600.0  # [s] between attempts with our new certificate where the server still takes only the old one
_STRONG = (
    security_policies.SecurityPolicyAes256Sha256RsaPss.URI,
    security_policies.SecurityPolicyAes128Sha256RsaOaep.URI,
    security_policies.SecurityPolicyBasic256Sha256.URI,
)
_NONE = security_policies.SecurityPolicyNone.URI
_BINARY = "uatcp-uasc-uabinary"


@dataclass(frozen=True, slots=True)
class Terms:
    """Whom we are willing to speak to, and how."""

    name: str
    """Of the server, in messages."""
    endpoint: str
    pki_folder: Path
    application_uri: str
    """Ours."""
    policy: str
    """``Basic256Sha256``, ``Aes128Sha256RsaOaep``, ``Aes256Sha256RsaPss``, or ``None``."""
    mode: str
    """``SignAndEncrypt`` or ``Sign``; without meaning where the policy is ``None``."""
    server_uri: str = ""
    """The URI that the server must call itself by; empty: whichever its certificate names."""
    check_hostname: bool = True
    """Whether the server's certificate must name the endpoint's host."""
    require_crl: bool = False
    """Whether a server is refused while there is no revocation list of its authority."""
    timeout: float = 10.0
    """Longest wait for one answer [s]."""


class Channel:
    """What the connections to one server are held to."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._peer = f"{terms.name} at {terms.endpoint}"
        self._certificate = b""
        self._server_uri = ""
        self._shown = ""  # thumbprint of our certificate in use
        self._tried = "", 0.0  # thumbprint of our newest certificate, and when it was shown [s, loop time]
        self._told = ""

    @property
    def remedy(self) -> str:
        """What a person can do where the server refuses us."""
        own = self._terms.pki_folder / "own" / "own.der"
        return f"the server must trust our certificate {own}, and user, policy and clock must suit it"

    async def enter(self, client: "SecureClient", connect: Callable[[], Awaitable[_T]]) -> _T:
        """``connect`` with a channel policy for a server that was found trustworthy; gives what that gives.

        Our newest certificate is shown first; where the server refuses it, the one before it while it is still valid.
        """
        try:
            return await self._enter(client, connect)
        except _NotAsAgreed as error:
            raise SourceRefused(f"{self._peer}: {error}") from error

    async def _enter(self, client: "SecureClient", connect: Callable[[], Awaitable[_T]]) -> _T:
        if self._terms.policy == "None":
            return await connect()
        offered = await _discover(self._terms)
        self._certificate, self._server_uri = self._choose(offered)
        await self._check_server()
        own = await self._own()
        for certificate in own:
            await self._secure(client, certificate)
            client.offered = offered
            try:
                return await connect()
            except (ConnectionError, ua.UaStatusCodeError) as error:
                if certificate is own[-1] or not _refuses_certificate(error):
                    raise
                text = f"{self._peer} does not take our renewed certificate {certificate.thumbprint} ({error})"
                self._tell(f"{text}: the old one is used until it ends on {own[-1].not_after:%Y-%m-%d}")
        raise AssertionError("there is always a certificate of our own")

    async def watch(self) -> None:
        """While the connection stands: raise SourceError where it should not go on as it is."""
        while True:
            await asyncio.sleep(REVIEW)
            await self.review()

    async def review(self) -> None:
        """Once; see :meth:`watch`."""
        if self._terms.policy != "None":
            await self._check_still_trusted()
            await self._check_own()

    async def _check_still_trusted(self) -> None:
        try:
            await self._check_server()
        except _Refused as refused:
            if refused.refusal.decided:
                raise
            self._tell(f"{refused}. The connection goes on; the next one will be refused")

    async def _check_own(self) -> None:
        try:
            newest = (await self._own(note=False))[0].thumbprint
        except SourceRefused as error:
            self._tell(str(error))
            return
        tried, when = self._tried
        late = asyncio.get_running_loop().time() - when > _TRY_NEW
        if newest != tried or (late and self._shown != tried):
            raise SourceUnreachable(f"{self._peer}: our certificate was renewed; connecting anew with {newest}")

    def _tell(self, text: str) -> None:
        if text != self._told:
            _log.warning("%s", text)
        self._told = text

    def _choose(self, offered: Sequence[ua.EndpointDescription]) -> tuple[bytes, str]:
        """Certificate and application URI of the endpoint that was configured; there is no fall-back to another."""
        terms = self._terms
        policy, mode = _policy(terms).URI, ua.MessageSecurityMode[terms.mode]
        fitting = [e for e in offered if e.SecurityMode == mode and e.SecurityPolicyUri == policy and _is_binary(e)]
        host = urlparse(terms.endpoint).hostname
        fitting.sort(key=lambda endpoint: urlparse(str(endpoint.EndpointUrl)).hostname != host)
        if not fitting:
            wanted = f"{terms.policy} with {terms.mode}"
            found = sorted({f"{e.SecurityPolicyUri.rpartition('#')[2]} with {e.SecurityMode.name}" for e in offered})
            offer = f"it offers {', '.join(found) or 'nothing'}"
            raise SourceRefused(f"{terms.name}: {terms.endpoint} does not offer {wanted}; {offer}")
        certificate = fitting[0].ServerCertificate
        if not certificate:
            raise SourceRefused(f"{self._peer}: the server shows no certificate for a secured endpoint")
        return bytes(certificate), str(fitting[0].Server.ApplicationUri or "")

    async def _check_server(self) -> None:
        terms = self._terms
        if terms.server_uri and self._server_uri != terms.server_uri:
            raise SourceRefused(
                f"{self._peer}: the server calls itself {self._server_uri!r}, application_uri says "
                f"{terms.server_uri!r}; it is another server, or the configuration is to be mended"
            )
        found = await asyncio.to_thread(
            pki.refusal,
            terms.pki_folder,
            self._certificate,
            peer=self._peer,
            application_uri=self._server_uri,
            host=urlparse(terms.endpoint).hostname if terms.check_hostname else None,
            require_crl=terms.require_crl,
        )
        if found is not None:
            raise _Refused(found)

    async def _own(self, *, note: bool = True) -> tuple[pki.OwnCertificate, ...]:
        terms, hosts = self._terms, (socket.gethostname(), "localhost")
        try:
            found = await asyncio.to_thread(pki.own_certificates, terms.pki_folder, terms.application_uri, hosts)
        except (CertificateError, OSError) as error:
            raise SourceRefused(f"{terms.name}: {error}") from error
        if note:
            self._tried = found[0].thumbprint, asyncio.get_running_loop().time()
        return found

    async def _secure(self, client: "SecureClient", own: pki.OwnCertificate) -> None:
        await client.set_security(
            _policy(self._terms),
            CertProperties(own.cert_path, "der"),
            CertProperties(own.key_path, "pem"),
            server_certificate=CertProperties(first_certificate(self._certificate), "der"),
            mode=ua.MessageSecurityMode[self._terms.mode],
        )
        self._shown = own.thumbprint


class _Refused(SourceRefused):
    """The trust list says no."""

    def __init__(self, refusal: pki.Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.message)


class _NotAsAgreed(SourceRefused):
    """What the client finds out about the server; it doesn't know the server's name."""


class SecureClient(Client):
    """asyncua's client, held to what was agreed on; secrets don't show in its log."""

    offered: Sequence[ua.EndpointDescription] = ()
    """What the server said before there was a channel; empty without security."""

    async def open_secure_channel(self, renew: bool = False) -> None:
        """As asyncua's, with a word on what a closed connection means here."""
        try:
            await super().open_secure_channel(renew)
        except ConnectionError as error:
            if renew or not self.offered:
                raise
            raise ConnectionError("the server hung up when it saw our certificate: does it trust that?") from error

    async def create_session(self) -> ua.CreateSessionResult:
        """As asyncua's; SourceRefused where the server is not the one that it said it is."""
        try:
            response = await super().create_session()
        except (InvalidSignature, uacrypto.InvalidSignature) as error:
            raise _NotAsAgreed("the server can't prove that it holds the key of its certificate") from error
        except ua.UaStatusCodeError:
            raise
        except ua.UaError as error:  # another certificate, or our endpoint is not among the server's
            raise _NotAsAgreed(f"the server is not the one that was asked for its endpoints: {error}") from error
        if self.offered and _essence(self.offered) != _essence(response.ServerEndpoints):
            raise _NotAsAgreed(
                "the endpoints that the server names over the secured channel are not those that it named before: "
                "someone between changes what it says, or the server is at fault (OPC 10000-4, 5.7.2)"
            )
        return response

    def server_policy(self, token_type: ua.UserTokenType) -> ua.UserTokenPolicy:
        """The strongest that the server takes for such a user; SourceRefused where there is none that will do."""
        fitting = [policy for policy in self._policy_ids if policy.TokenType == token_type]
        if token_type == ua.UserTokenType.Anonymous and (fitting or not self._policy_ids):
            return next(iter(fitting), ua.UserTokenPolicy(TokenType=token_type))  # small servers name no kind at all
        own = self.security_policy.URI
        usable = {policy.SecurityPolicyUri or own: policy for policy in reversed(fitting)}
        bare = [_NONE] if token_type == ua.UserTokenType.UserName else []
        for uri in (own, *_STRONG, *bare):
            if uri in usable and (uri != _NONE or bare):
                return ua.UserTokenPolicy(
                    usable[uri].PolicyId, token_type, usable[uri].IssuedTokenType, usable[uri].IssuerEndpointUrl, uri
                )
        taken = sorted({f"{policy.TokenType.name} ({_short(policy.SecurityPolicyUri)})" for policy in self._policy_ids})
        raise _NotAsAgreed(f"the server takes no {token_type.name} user safely; it takes {', '.join(taken) or 'none'}")

    def _add_user_auth(self, params: ua.ActivateSessionParameters, username: str | None, password: str | None) -> None:
        """A server may name a token policy that leaves the password bare; only an encrypted channel may carry that."""
        if self.security_policy.Mode != ua.MessageSecurityMode.SignAndEncrypt:
            raise _NotAsAgreed("a password never goes over a channel that is not encrypted")
        super()._add_user_auth(params, username, password)
        token = params.UserIdentityToken
        token.Password = _Hidden(token.Password or b"")


class _Hidden(bytes):
    """Bytes that don't show: at level DEBUG asyncua logs every request."""

    def __repr__(self) -> str:
        return "<hidden>"

    __str__ = __repr__


async def _discover(terms: Terms) -> list[ua.EndpointDescription]:
    """Over a connection of its own, which carries no secret."""
    return await Client(terms.endpoint, timeout=terms.timeout).connect_and_get_server_endpoints()


def first_certificate(chain: bytes | None) -> bytes:
    """The peer's own certificate; a server may send its issuers behind it."""
    if not chain or len(chain) < 4:
        raise SourceRefused("the server shows no certificate for a secured endpoint")
    return chain[: int.from_bytes(chain[2:4], "big") + 4]


def _policy(terms: Terms) -> Any:
    return getattr(security_policies, f"SecurityPolicy{terms.policy}")


def _refuses_certificate(error: Exception) -> bool:
    """By a StatusCode, or by hanging up."""
    if isinstance(error, ua.UaStatusCodeError):
        name = str(ua.StatusCode(ua.UInt32(error.code)).name)
        return name.startswith(("BadCertificate", "BadSecurityChecksFailed"))
    return True


def _is_binary(endpoint: ua.EndpointDescription) -> bool:
    return not endpoint.TransportProfileUri or str(endpoint.TransportProfileUri).endswith(_BINARY)


def _essence(endpoints: Iterable[ua.EndpointDescription]) -> set[tuple[Any, ...]]:
    """What the standard has us compare. The URL is left out: we connect to the configured one, whatever they say."""
    return {
        (
            endpoint.SecurityMode,
            endpoint.SecurityPolicyUri,
            endpoint.SecurityLevel,
            endpoint.Server.ApplicationUri,
            frozenset(
                (str(token.PolicyId), token.TokenType, token.SecurityPolicyUri or "")
                for token in endpoint.UserIdentityTokens or ()
            ),
        )
        for endpoint in endpoints
        if _is_binary(endpoint)
    }


def _short(uri: str | None) -> str:
    return (uri or "the channel's").rpartition("#")[2]
