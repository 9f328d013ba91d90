"""Certificates: our own application instance certificate, and whom we trust (OPC 10000-2, 8; OPC 10000-6, 6.2.2).

The folder, readable by its owner alone::

    pki/own/       own.der (hand it to the plant's servers), own.key
    pki/trusted/   certificates of peers or of certificate authorities that we trust, and *.crl
    pki/issuers/   intermediate authorities that complete a chain but are not trusted by themselves, and *.crl
    pki/rejected/  peers that were refused; to trust one, move its file to trusted/

All functions are synchronous and touch a few small files: on the event loop call them in a thread.
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_log = logging.getLogger(__name__)

_KEY_BITS = 3072  # every policy from Basic256Sha256 on takes 2048 to 4096 bits
_VALIDITY = timedelta(days=5 * 365)
_CLOCK_SKEW = timedelta(days=1)  # a server whose clock is behind ours must not find us "not yet valid"
_MAX_REJECTED = 100  # strangers that knock must not fill the disk
_MAX_CHAIN = 5


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """Our application instance certificate: one for the client and for the server."""

    cert_path: Path
    """DER."""
    key_path: Path
    """PEM (PKCS 8), unencrypted, mode 0600."""
    application_uri: str
    thumbprint: str
    not_after: datetime


class Reason(StrEnum):
    """Why a peer's certificate is refused; the values are the names of the OPC UA StatusCodes."""

    INVALID = "BadCertificateInvalid"
    TIME = "BadCertificateTimeInvalid"
    URI = "BadCertificateUriInvalid"
    REVOKED = "BadCertificateRevoked"
    UNTRUSTED = "BadCertificateUntrusted"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A peer's certificate is not accepted: the reason for a program, the message (with remedy) for a person."""

    reason: Reason
    message: str


def thumbprint(cert_der: bytes) -> str:
    """SHA-1 of the DER as 40 upper-case hex digits, as OPC UA tools show it (OPC 10000-6, 6.2.2)."""
    return hashlib.sha1(cert_der, usedforsecurity=False).hexdigest().upper()


# --- our own ---------------------------------------------------------------------------------------------------


def ensure_own_certificate(folder: Path, application_uri: str, hostnames: Sequence[str]) -> OwnCertificate:
    """The certificate in ``own/``; made on first use, and made anew when it has expired or speaks of another URI.

    A new certificate keeps the key. Every server that trusted the old one must trust the new one: logged as a warning.
    """
    own = _private_folder(folder, "own")
    cert_path, key_path = own / "own.der", own / "own.key"
    key = _load_or_make_key(key_path)
    cert = _load_own(cert_path, key, application_uri)
    if cert is None:
        cert = _self_signed(key, application_uri, hostnames)
        _write_private(cert_path, cert.public_bytes(serialization.Encoding.DER))
        _log.warning("made application certificate %s for %s: %s", _name(cert), application_uri, cert_path)
    mark = thumbprint(cert.public_bytes(serialization.Encoding.DER))
    return OwnCertificate(cert_path, key_path, application_uri, mark, cert.not_valid_after_utc)


def _load_or_make_key(path: Path) -> rsa.RSAPrivateKey:
    if path.exists():
        path.chmod(0o600)
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
            return key
        raise ValueError(f"{path} is no RSA key of 2048 bits or more; move it away to have one made")
    key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_private(path, pem)
    return key


def _load_own(path: Path, key: rsa.RSAPrivateKey, application_uri: str) -> x509.Certificate | None:
    """What stands there, if it still serves."""
    if not path.exists():
        return None
    cert = x509.load_der_x509_certificate(path.read_bytes())
    serves = cert.not_valid_after_utc > datetime.now(UTC) and application_uri in _uris(cert)
    return cert if serves and cert.public_key() == key.public_key() else None


def _self_signed(key: rsa.RSAPrivateKey, application_uri: str, hostnames: Sequence[str]) -> x509.Certificate:
    """As OPC 10000-6, 6.2.2 asks: URI and hosts in the SAN, the four key usages, client and server."""
    now = datetime.now(UTC)
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "foretag"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "foretag")]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _VALIDITY)
    )
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (
        (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(application_uri), *map(_host, hostnames)]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, hashes.SHA256())


def _key_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,  # self-signed: some stacks check that the signer may sign
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


# --- whom we trust ---------------------------------------------------------------------------------------------


def trusted_folder(folder: Path) -> Path:
    """``trusted/``, made if it is missing."""
    return _private_folder(folder, "trusted")


def rejected_folder(folder: Path) -> Path:
    """``rejected/``, made if it is missing."""
    return _private_folder(folder, "rejected")


def trust(folder: Path, cert_der: bytes) -> Path:
    """Trust a certificate from now on (and take it out of ``rejected/``); returns its file."""
    path = trusted_folder(folder) / _file_name(cert_der)
    _write_private(path, cert_der)
    (rejected_folder(folder) / path.name).unlink(missing_ok=True)
    return path


def refusal(
    folder: Path, cert_der: bytes, *, peer: str, application_uri: str | None = None, now: datetime | None = None
) -> Refusal | None:
    """None where the peer is trusted: itself, or through a chain that ends at a certificate in ``trusted/``.

    ``peer`` names it in the message. ``application_uri``: what the peer calls itself; the certificate must say so too.
    A certificate that nobody has decided on yet is kept in ``rejected/``.
    """
    try:
        cert = x509.load_der_x509_certificate(cert_der)
        uris = _uris(cert)
    except ValueError as error:
        return Refusal(Reason.INVALID, f"{peer}: its certificate can't be read: {error}")
    who = f"{peer}: certificate {_name(cert)} with thumbprint {thumbprint(cert_der)}"
    chain = _chain(folder, cert)
    if chain is None:
        path = _reject(folder, cert_der)
        remedy = f"compare the thumbprint with the one shown at the peer, then move {path} to {trusted_folder(folder)}/"
        return Refusal(Reason.UNTRUSTED, f"{who} is not trusted; {remedy}")
    for link in chain:
        if not link.not_valid_before_utc <= (now or datetime.now(UTC)) <= link.not_valid_after_utc:
            span = f"{link.not_valid_before_utc:%Y-%m-%d} to {link.not_valid_after_utc:%Y-%m-%d}"
            return Refusal(Reason.TIME, f"{who}: {_name(link)} is valid from {span}; renew it, or check both clocks")
    if any(_revoked(folder, link, issuer) for link, issuer in pairwise(chain)):
        return Refusal(Reason.REVOKED, f"{who} was revoked by its authority; the peer needs a new certificate")
    if application_uri is not None and application_uri not in uris:
        said = f"the peer calls itself {application_uri!r}, the certificate says {', '.join(uris) or 'nothing'}"
        return Refusal(Reason.URI, f"{who}: {said}; the peer needs a certificate for its application URI")
    return None


def _chain(folder: Path, cert: x509.Certificate) -> list[x509.Certificate] | None:
    """From the certificate up to one in ``trusted/``; None where there is no such way."""
    trusted, issuers = _certificates(trusted_folder(folder)), _certificates(_private_folder(folder, "issuers"))
    chain = [cert]
    while chain[-1] not in trusted:
        above = next((ca for ca in (*trusted, *issuers) if ca not in chain and _issued(chain[-1], ca)), None)
        if above is None or len(chain) == _MAX_CHAIN:
            return None
        chain.append(above)
    return chain + _authority(chain[-1], [*trusted, *issuers])


def _authority(cert: x509.Certificate, known: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The certificate's authority where we hold it: a peer that is trusted itself may still be revoked."""
    return [ca for ca in known if ca != cert and _issued(cert, ca)][:1]


def _issued(cert: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
        cert.verify_directly_issued_by(authority)
    except (x509.ExtensionNotFound, InvalidSignature, ValueError, TypeError):
        return False
    return constraints.ca


def _revoked(folder: Path, cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    """By a revocation list that the issuer signed."""
    key: Any = issuer.public_key()
    for path in (*trusted_folder(folder).glob("*.crl"), *_private_folder(folder, "issuers").glob("*.crl")):
        data = path.read_bytes()
        pem = data.startswith(b"-----")
        crl = x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data)
        signed = crl.issuer == issuer.subject and crl.is_signature_valid(key)
        if signed and crl.get_revoked_certificate_by_serial_number(cert.serial_number) is not None:
            return True
    return False


def _reject(folder: Path, cert_der: bytes) -> Path:
    """Keep it for a person to look at; the oldest make room."""
    rejected = rejected_folder(folder)
    path = rejected / _file_name(cert_der)
    if not path.exists():
        kept = sorted(rejected.glob("*.der"), key=lambda file: file.stat().st_mtime)
        for file in kept[: max(0, len(kept) - _MAX_REJECTED + 1)]:
            file.unlink(missing_ok=True)
        _write_private(path, cert_der)
    return path


# --- files -----------------------------------------------------------------------------------------------------


def _certificates(folder: Path) -> list[x509.Certificate]:
    """Every certificate of a folder; a file that is none is named in the log and skipped: it grants nothing."""
    found = []
    for path in sorted((*folder.glob("*.der"), *folder.glob("*.crt"), *folder.glob("*.pem"))):
        data = path.read_bytes()
        try:
            pem = data.startswith(b"-----")
            found.append(x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data))
        except ValueError:
            _log.warning("%s is no certificate; skipped", path)
    return found


def _uris(cert: x509.Certificate) -> list[str]:
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _name(cert: x509.Certificate) -> str:
    common = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return repr(str(common[0].value)[:80]) if common else "without a name"


def _file_name(cert_der: bytes) -> str:
    """``common name [thumbprint].der`` (OPC 10000-12, F); what a stranger calls itself must not leave the folder."""
    common = x509.load_der_x509_certificate(cert_der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(common[0].value) if common else "peer"
    safe = "".join(char if (char.isascii() and char.isalnum()) or char in " -_" else "_" for char in name)[:60]
    return f"{safe} [{thumbprint(cert_der)}].der"


def _private_folder(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return path


def _write_private(path: Path, data: bytes) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
