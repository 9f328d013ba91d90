"""Certificates for tests: real ones, in real chains. Keys are slow to make and so are made once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)
URI = "urn:test:plant"
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
SIGNING, SEALING, AUTHORITY = ("digital_signature",), ("key_encipherment",), ("key_cert_sign", "crl_sign")


@cache
def key(name: str = "", bits: int = 2048) -> rsa.RSAPrivateKey:
    """One per name and length."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@dataclass(frozen=True)
class Made:
    """A certificate with its key."""

    cert: x509.Certificate
    key: rsa.RSAPrivateKey

    @property
    def der(self) -> bytes:
        return self.cert.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.cert.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def make(
    name: str,
    issuer: Made | None = None,
    *,
    uri: str = URI,
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    ca: bool | None = None,
    path_length: int | None = None,
    usage: Sequence[str] | None = (*SIGNING, *SEALING),
    usage_critical: bool = True,
    roles: Sequence[x509.ObjectIdentifier] | None = None,
    roles_critical: bool = False,
    bits: int = 2048,
    start: timedelta = -DAY,
    end: timedelta = DAY,
    serial: int = 0,
    more: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Made:
    """Self-signed, or signed by an issuer; a server's or client's certificate unless ``ca`` is given."""
    own = key(name, bits)
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.cert.subject if issuer else subject)
        .public_key(own.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
        .add_extension(x509.BasicConstraints(ca=bool(ca), path_length=path_length), True)
    )
    if not ca:
        names = [x509.UniformResourceIdentifier(uri), *map(_host, hosts)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    if usage is not None:
        builder = builder.add_extension(_usage(usage), usage_critical)
    if roles is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(roles), roles_critical)
    for extension, critical in more:
        builder = builder.add_extension(extension, critical)
    return Made(builder.sign(issuer.key if issuer else own, hashes.SHA256()), own)


def with_sha1(made: Made, issuer: Made | None = None) -> Made:
    """The same certificate, signed as it was done until 2016; libraries refuse to make one."""
    der = made.der.replace(_SHA256_WITH_RSA, _SHA1_WITH_RSA)
    signed = x509.load_der_x509_certificate(der).tbs_certificate_bytes
    signature = (issuer or made).key.sign(signed, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
    return Made(x509.load_der_x509_certificate(der[: -len(signature)] + signature), made.key)


_SHA256_WITH_RSA, _SHA1_WITH_RSA = (bytes.fromhex(f"06092a864886f70d0101{last}") for last in ("0b", "05"))


def authority(name: str, issuer: Made | None = None, **more: Any) -> Made:
    """One that may sign certificates and revocation lists."""
    return make(name, issuer, **{"ca": True, "usage": AUTHORITY, **more})


def revocations(issuer: Made, *serials: int, start: timedelta = -DAY, end: timedelta = DAY) -> bytes:
    """The issuer's revocation list, in DER."""
    now = datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.cert.subject)
    builder = builder.last_update(now + start).next_update(now + end)
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now + start).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _usage(names: Sequence[str]) -> x509.KeyUsage:
    all_names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in names for name in all_names})


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
