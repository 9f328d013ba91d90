"""Our application instance certificate: one for client and server, made on first use and renewed before it ends.

A renewed certificate keeps the key, and the one before it stays beside it as ``old.der`` until its end. For that time
(30 days) a connection tries the new one first and falls back to the old one, so that nothing stands still while the
plant's servers learn to trust the new one; our own server shows the old one until 7 days before its end.

A certificate that a person put there (signed by an authority, say) is never overwritten or renewed.
"""

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from plugin.errors import CertificateError
from plugin.pki.chain import application_uris
from plugin.pki.files import der, load_certificate, private_folder, quoted_name, thumbprint, write_private

_log = logging.getLogger(__name__)

_KEY_BITS = 3072  # every policy from Basic256Sha256 on takes 2048 to 4096 bits
_VALIDITY = timedelta(days=5 * 365)
_CLOCK_SKEW = timedelta(days=1)  # a server whose clock is behind ours must not find us "not yet valid"
RENEWAL = timedelta(days=30)
"""How long before its end a certificate of our making is renewed."""
HANDOVER = timedelta(days=7)
"""How long before the old one's end our server shows the new one."""

_NAME = x509.Name(
    [x509.NameAttribute(NameOID.COMMON_NAME, "foretag"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "foretag")]
)
_making = threading.Lock()  # sources and the server ask at the same time: one of them makes it


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
    self_made: bool = True
    """False: a person put it there, and has to renew it."""


def ensure_own_certificate(folder: Path, application_uri: str, hostnames: Sequence[str]) -> OwnCertificate:
    """The certificate in ``own/``; see :func:`own_certificates`."""
    return own_certificates(folder, application_uri, hostnames)[0]


def own_certificates(
    folder: Path, application_uri: str, hostnames: Sequence[str], now: datetime | None = None
) -> tuple[OwnCertificate, ...]:
    """The certificate in ``own/``, and behind it the one that it replaces while that is still valid.

    Made on first use, and anew when it nears its end or speaks of another URI: every server that trusted the old one
    must then trust the new one, which is logged as a warning. Raises CertificateError where what a person put there
    can't be used.
    """
    now = now or datetime.now(UTC)
    own = private_folder(folder, "own")
    with _making:
        key = _load_or_make_key(own / "own.key")
        current = _load(own / "own.der")
        if current is None or not _serves(current, key, application_uri, now, own):
            current = _make(own, key, application_uri, hostnames, now)
        elif _self_made(current) and current.not_valid_after_utc - now <= RENEWAL:
            current = _renew(own, current, key, application_uri, hostnames, now)
        found = [_described(own / "own.der", current, application_uri)]
        old = _load(own / "old.der")
        if old is not None and old != current and not _faults(old, key, application_uri, now):
            found.append(_described(own / "old.der", old, application_uri))
    return tuple(found)


def shown_certificate(certificates: Sequence[OwnCertificate], now: datetime | None = None) -> OwnCertificate:
    """Of :func:`own_certificates`, the one that our server shows: clients get as long as possible to trust the new."""
    newest, *old = certificates
    return next((cert for cert in old if cert.not_after - (now or datetime.now(UTC)) > HANDOVER), newest)


def _load_or_make_key(path: Path) -> rsa.RSAPrivateKey:
    if not path.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
        form = serialization.PrivateFormat.PKCS8
        write_private(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return key
    path.chmod(0o600)
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise CertificateError(f"{path} is no unencrypted key in PEM; convert it, or move it away") from error
    if isinstance(found, rsa.RSAPrivateKey) and 2048 <= found.key_size <= 4096:
        return found
    raise CertificateError(f"{path} is no RSA key of 2048 bits or more, up to 4096; move it away to have one made")


def _load(path: Path) -> x509.Certificate | None:
    if not path.exists():
        return None
    data = path.read_bytes()
    if data.startswith(b"-----"):
        raise CertificateError(f"{path} is PEM and has to be DER: openssl x509 -in FILE -outform der -out {path}")
    try:
        return load_certificate(data)
    except ValueError as error:
        raise CertificateError(f"{path} is no certificate in DER; bring another, or move it away") from error


def _serves(cert: x509.Certificate, key: rsa.RSAPrivateKey, application_uri: str, now: datetime, own: Path) -> bool:
    """False: ours to make anew. Raises CertificateError where it is not ours."""
    faults = _faults(cert, key, application_uri, now)
    if faults and not _self_made(cert):
        remedy = "it was put there by hand and is left alone: bring another, or move it away to have one made"
        raise CertificateError(f"our certificate {own / 'own.der'} {' and '.join(faults)}; {remedy}")
    return not faults


def _faults(cert: x509.Certificate, key: rsa.RSAPrivateKey, application_uri: str, now: datetime) -> list[str]:
    faults = []
    if cert.not_valid_after_utc <= now:
        faults.append(f"expired on {cert.not_valid_after_utc:%Y-%m-%d}")
    if cert.public_key() != key.public_key():
        faults.append("does not belong to own.key")
    if application_uri not in application_uris(cert):
        faults.append(f"does not name our application URI {application_uri}")
    return faults


def _self_made(cert: x509.Certificate) -> bool:
    return cert.subject == cert.issuer == _NAME


def _described(path: Path, cert: x509.Certificate, application_uri: str) -> OwnCertificate:
    mark = thumbprint(der(cert))
    key = path.with_name("own.key")
    return OwnCertificate(path, key, application_uri, mark, cert.not_valid_after_utc, _self_made(cert))


def _make(
    own: Path, key: rsa.RSAPrivateKey, application_uri: str, hostnames: Sequence[str], now: datetime
) -> x509.Certificate:
    cert = _self_signed(key, application_uri, hostnames, now)
    write_private(own / "own.der", der(cert))
    _log.warning("made application certificate %s for %s: %s", quoted_name(cert), application_uri, own / "own.der")
    return cert


def _renew(
    own: Path,
    current: x509.Certificate,
    key: rsa.RSAPrivateKey,
    application_uri: str,
    hostnames: Sequence[str],
    now: datetime,
) -> x509.Certificate:
    write_private(own / "old.der", der(current))
    cert = _self_signed(key, application_uri, hostnames, now)
    write_private(own / "own.der", der(cert))
    end = current.not_valid_after_utc
    _log.warning(
        "our application certificate ends on %s and was renewed: every server and client that trusts %s must trust %s "
        "by then. Until then the old one is used where the new one is refused, and our own server shows the new one "
        "from %s on. The file to hand out: %s",
        f"{end:%Y-%m-%d}",
        thumbprint(der(current)),
        thumbprint(der(cert)),
        f"{end - HANDOVER:%Y-%m-%d}",
        own / "own.der",
    )
    return cert


def _self_signed(
    key: rsa.RSAPrivateKey, application_uri: str, hostnames: Sequence[str], now: datetime
) -> x509.Certificate:
    """As OPC 10000-6, 6.2.2 asks: URI and hosts in the SAN, the four key usages, client and server."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
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
