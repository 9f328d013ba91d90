"""From a peer's certificate up to the authorities that we know; and what a certificate says of its owner."""

from collections.abc import Iterator, Sequence
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from plugin.pki.files import load_certificate

_MAX_CHAIN = 6

Chain = tuple[x509.Certificate, ...]
"""The peer's certificate first, its authorities behind it."""


def split(blob: bytes) -> Chain:
    """Certificates that stand one behind the other, as a peer sends them (OPC 10000-6, 6.2.6). Raises ValueError."""
    found: list[x509.Certificate] = []
    while blob and len(found) < _MAX_CHAIN:
        if blob[:2] != b"\x30\x82":
            raise ValueError("it is no DER")
        length = int.from_bytes(blob[2:4], "big") + 4
        found.append(load_certificate(blob[:length]))
        blob = blob[length:]
    if not found:
        raise ValueError("there is none")
    return tuple(found)


def chains(cert: x509.Certificate, known: Sequence[x509.Certificate]) -> Iterator[Chain]:
    """Every way up, as far as authorities are known; each is signed by the next, which has the right to sign."""
    return _grow((cert,), tuple(dict.fromkeys(known)))


def _grow(chain: Chain, known: Chain) -> Iterator[Chain]:
    above = () if len(chain) == _MAX_CHAIN or self_signed(chain[-1]) else known
    above = tuple(ca for ca in above if ca not in chain and _issued(chain, ca))
    if not above:
        yield chain
    for authority in above:
        yield from _grow((*chain, authority), known)


def self_signed(cert: x509.Certificate) -> bool:
    """The end of a chain."""
    return cert.subject == cert.issuer and _signed(cert, cert)


def _signed(cert: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(authority)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _issued(chain: Chain, authority: x509.Certificate) -> bool:
    """Signed, and by one that may: BasicConstraints with its path length, and KeyUsage where there is one."""
    constraints, usage = extension(authority, x509.BasicConstraints), extension(authority, x509.KeyUsage)
    if constraints is None or not constraints.value.ca or (usage is not None and not usage.value.key_cert_sign):
        return False
    between = sum(cert.subject != cert.issuer for cert in chain[1:])
    longest = constraints.value.path_length
    return (longest is None or between <= longest) and _signed(chain[-1], authority)


def extension(cert: x509.Certificate, kind: type[Any]) -> Any:
    """None where it has none."""
    try:
        return cert.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def application_uris(cert: x509.Certificate) -> list[str]:
    """The URIs among its alternative names: one, by the book (OPC 10000-6, 6.2.2)."""
    names = extension(cert, x509.SubjectAlternativeName)
    return [] if names is None else list(names.value.get_values_for_type(x509.UniformResourceIdentifier))


def hosts(cert: x509.Certificate) -> list[str]:
    """The DNS names and addresses among its alternative names."""
    names = extension(cert, x509.SubjectAlternativeName)
    if names is None:
        return []
    addresses = map(str, names.value.get_values_for_type(x509.IPAddress))
    return [*names.value.get_values_for_type(x509.DNSName), *addresses]


def is_authority(cert: x509.Certificate) -> bool:
    """Whether it may sign certificates: who trusts it trusts them all."""
    constraints = extension(cert, x509.BasicConstraints)
    return constraints is not None and bool(constraints.value.ca)
