"""Whether a peer's certificate is accepted: the steps of OPC 10000-4, 6.1.3, in their order, none left out.

Of the errors that the standard lets an application suppress, three are decided here:

* A revocation list that is missing or out of date is told in the log and lets the peer in, unless ``require_crl`` is
  set. One that can't be read never does.
* A usage that is not marked critical is not held against a certificate that a person trusted by itself.
* A certificate that a person trusted by itself needs no complete chain; where its authority is known, its revocation
  counts all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from socket import gethostname

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from plugin.pki.chain import Chain, application_uris, chains, extension, hosts, self_signed, split
from plugin.pki.files import certificate_files, der, private_folder, quoted_name, say_once, thumbprint
from plugin.pki.revocation import Lists, look_up, read_lists
from plugin.pki.trustlist import keep_rejected, trusted_folder

_MAX_CHAINS = 32  # an authority that was renewed stands there twice; more ways than that are an attack
_RSA_BITS = (2048, 4096)  # OPC 10000-7: Basic256Sha256, Aes128-Sha256-RsaOaep, Aes256-Sha256-RsaPss
_EC_BITS = 256
_WEAK = frozenset({"md5", "sha1"})
_UNDERSTOOD = (
    x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName, x509.CertificatePolicies,
)  # fmt: skip


class Use(StrEnum):
    """What the peer is to us."""

    SERVER = "server"
    CLIENT = "client"


class Reason(StrEnum):
    """Why a peer's certificate is refused, in the order of the steps; the values are names of OPC UA StatusCodes."""

    INVALID = "BadCertificateInvalid"
    POLICY = "BadCertificatePolicyCheckFailed"
    INCOMPLETE = "BadCertificateChainIncomplete"
    UNTRUSTED = "BadCertificateUntrusted"
    TIME = "BadCertificateTimeInvalid"
    ISSUER_TIME = "BadCertificateIssuerTimeInvalid"
    HOST = "BadCertificateHostNameInvalid"
    URI = "BadCertificateUriInvalid"
    USE = "BadCertificateUseNotAllowed"
    UNKNOWN = "BadCertificateRevocationUnknown"
    ISSUER_UNKNOWN = "BadCertificateIssuerRevocationUnknown"
    REVOKED = "BadCertificateRevoked"
    ISSUER_REVOKED = "BadCertificateIssuerRevoked"


_STEPS = {reason: step for step, reason in enumerate(Reason)}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A peer's certificate is not accepted: the reason for a program, the message (with remedy) for a person."""

    reason: Reason
    message: str

    @property
    def decided(self) -> bool:
        """Somebody took trust away, or it was never given; else something is wrong with the certificate."""
        return self.reason in {Reason.UNTRUSTED, Reason.INCOMPLETE, Reason.REVOKED, Reason.ISSUER_REVOKED}


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of a certificate, and what lies in the folder at this moment."""

    application_uri: str | None
    host: str | None
    use: Use
    require_crl: bool
    now: datetime
    trusted: frozenset[x509.Certificate]
    issuers: Chain
    lists: Lists


_Verdict = tuple[Reason, str] | None


def refusal(
    folder: Path,
    cert_der: bytes,
    *,
    peer: str,
    application_uri: str | None = None,
    host: str | None = None,
    use: Use = Use.SERVER,
    require_crl: bool = False,
    now: datetime | None = None,
) -> Refusal | None:
    """None where the peer is trusted: itself, or through a chain that ends at a certificate in ``trusted/``.

    ``cert_der``: the certificate, its issuers behind it where the peer sent them. ``peer`` names it in the message.
    ``application_uri``, ``host``: what the peer calls itself, and where it was reached; the certificate must say so
    too. A certificate that nobody has decided on yet is kept in ``rejected/``.
    """
    trusted, issuers = trusted_folder(folder), private_folder(folder, "issuers")
    try:
        cert, *sent = split(cert_der)
        question = _Question(
            application_uri, host, use, require_crl, now or datetime.now(UTC),
            frozenset(found for _, found in certificate_files(trusted)),
            (*(found for _, found in certificate_files(issuers)), *sent),
            read_lists(trusted, issuers),
        )  # fmt: skip
        verdict = _judge(cert, question)
    except (ValueError, UnsupportedAlgorithm) as error:
        return Refusal(Reason.INVALID, f"{peer}: its certificate can't be read: {error}")
    if verdict is None:
        return None
    reason, text = verdict
    if reason in {Reason.UNTRUSTED, Reason.INCOMPLETE}:
        keep_rejected(folder, cert, peer)
    return Refusal(reason, f"{peer}: certificate {quoted_name(cert)} with thumbprint {thumbprint(der(cert))} {text}")


def _judge(cert: x509.Certificate, question: _Question) -> _Verdict:
    """Of several chains the one that gets furthest counts: an authority is renewed, and its old certificate remains."""
    verdicts = []
    for chain in islice(chains(cert, (*question.trusted, *question.issuers)), _MAX_CHAINS):
        verdict = _judge_chain(chain, question)
        if verdict is None:
            return None
        verdicts.append(verdict)
    return max(verdicts, key=lambda verdict: _STEPS[verdict[0]])


def _judge_chain(chain: Chain, question: _Question) -> _Verdict:
    anchor = next((place for place, cert in enumerate(chain) if cert in question.trusted), None)
    counted = chain if anchor is None else chain[: anchor + 1]  # what stands above a trusted one proves nothing more
    return (
        _check_strength(counted)
        or (_untrusted(chain) if anchor is None else None)
        or _check_time(counted, question.now)
        or _check_host(chain[0], question.host)
        or _check_uri(chain[0], question.application_uri)
        or _check_use(chain[0], question.use, pinned=anchor == 0)
        or _check_revocation(chain, question)
    )


def _check_strength(chain: Chain) -> _Verdict:
    """Keys and hashes that the security policies allow (OPC 10000-7); the anchor's own signature proves nothing."""
    leaf = chain[0].public_key()
    if not isinstance(leaf, rsa.RSAPublicKey) or not _RSA_BITS[0] <= leaf.key_size <= _RSA_BITS[1]:
        what = f"an RSA key of {leaf.key_size} bits" if isinstance(leaf, rsa.RSAPublicKey) else "a key that is not RSA"
        return Reason.POLICY, f"has {what}; the peer needs one with an RSA key of 2048 to 4096 bits"
    anchor = chain[-1]
    for cert in chain:
        through = "" if cert is chain[0] else f"stands on {quoted_name(cert)}, which "
        key, algorithm = cert.public_key(), cert.signature_hash_algorithm
        least = _EC_BITS if isinstance(key, ec.EllipticCurvePublicKey) else _RSA_BITS[0]
        if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) and key.key_size < least:
            return Reason.POLICY, f"{through}has a key of {key.key_size} bits; the authority needs a new one"
        if algorithm is not None and algorithm.name in _WEAK and (cert is chain[0] or cert is not anchor):
            return Reason.POLICY, f"{through}is signed with {algorithm.name.upper()}, which is broken; renew it"
        for found in cert.extensions:
            if found.critical and not isinstance(found.value, _UNDERSTOOD):
                name = found.oid.dotted_string
                return Reason.INVALID, f"{through}has a critical extension that is not understood ({name}); renew it"
    return None


def _untrusted(chain: Chain) -> _Verdict:
    mark = thumbprint(der(chain[0]))[:12]
    remedy = f"compare the thumbprint with the one shown at the peer, then: foretag trust add {mark}"
    if self_signed(chain[-1]):
        return Reason.UNTRUSTED, f"is not trusted; {remedy}"
    issuer = chain[-1].issuer.rfc4514_string()[:120]
    return Reason.INCOMPLETE, f"is not trusted, and neither is its authority {issuer!r} known; {remedy}"


def _check_time(chain: Chain, now: datetime) -> _Verdict:
    for link in chain:
        if not link.not_valid_before_utc <= now <= link.not_valid_after_utc:
            span = f"valid from {link.not_valid_before_utc:%Y-%m-%d} to {link.not_valid_after_utc:%Y-%m-%d}"
            if link is chain[0]:
                return Reason.TIME, f"is {span}; the peer needs a new one, or a clock is wrong"
            return Reason.ISSUER_TIME, f"stands on {quoted_name(link)}, which is {span}; renew that, or check the clock"
    return None


def _check_host(cert: x509.Certificate, host: str | None) -> _Verdict:
    names = hosts(cert)
    if host is None or _names_host(names, host):
        return None
    said = ", ".join(names)[:200] or "no host at all"
    return Reason.HOST, (
        f"is for {said}, but the endpoint says {host}: write the endpoint with a name that the certificate has, give "
        "the peer a certificate for this one, or set check_hostname = false for this source"
    )


def _names_host(names: Sequence[str], host: str) -> bool:
    """Names without regard to case, addresses by what they mean. On loopback nobody stands between us and the peer:
    this machine's name, and any name of loopback, will do."""
    if _loopback(host):
        return any(_loopback(name) or _plain(name) == _plain(gethostname()) for name in names)
    return _plain(host) in map(_plain, names)


def _plain(name: str) -> str:
    try:
        return str(ip_address(name.strip("[]")))
    except ValueError:
        return name.rstrip(".").lower()


def _loopback(name: str) -> bool:
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return _plain(name) == "localhost"


def _check_uri(cert: x509.Certificate, application_uri: str | None) -> _Verdict:
    uris = application_uris(cert)
    if application_uri is None or application_uri in uris:
        return None
    said = f"the peer calls itself {application_uri!r}, the certificate says {', '.join(uris)[:200] or 'nothing'}"
    return Reason.URI, f"is not for this peer: {said}; the peer needs a certificate for its application URI"


def _check_use(cert: x509.Certificate, use: Use, *, pinned: bool) -> _Verdict:
    """OPC 10000-6, 6.2.2. An authority signs certificates for all kinds of things: then it counts which this one is."""
    keys, roles = extension(cert, x509.KeyUsage), extension(cert, x509.ExtendedKeyUsage)
    if keys is not None and (keys.critical or not pinned):
        enciphers = keys.value.key_encipherment or keys.value.data_encipherment
        if not (keys.value.digital_signature and enciphers):
            return Reason.USE, "may not both sign and encipher (its key usage); the peer needs another"
    if roles is not None and (roles.critical or not pinned):
        wanted = ExtendedKeyUsageOID.SERVER_AUTH if use is Use.SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
        if not {wanted, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(roles.value):
            return Reason.USE, f"is not that of a {use} (its extended key usage); the peer needs another"
    return None


def _check_revocation(chain: Chain, question: _Question) -> _Verdict:
    found = look_up(chain, question.lists, question.now)
    if found.revoked is not None:
        if found.revoked is chain[0]:
            return Reason.REVOKED, "was revoked by its authority; the peer needs a new one"
        name = quoted_name(found.revoked)
        return Reason.ISSUER_REVOKED, f"stands on {name}, which was revoked; the peer needs another"
    if found.unknown is None:
        return None
    remedy = "put a current one of the authority into trusted/ or issuers/ (foretag trust add FILE)"
    if question.require_crl or found.broken:
        reason = Reason.UNKNOWN if found.unknown is chain[0] else Reason.ISSUER_UNKNOWN
        return reason, f"may have been revoked: {found.why}; {remedy}"
    say_once(f"a revoked certificate would not be noticed: {found.why}; {remedy}")
    return None
