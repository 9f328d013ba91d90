"""Certificates: our own, and whom we trust."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from plugin import pki

URI = "urn:test:foretag"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
DAY = timedelta(days=1)


def certificate(
    name: str, issuer: str = "", *, ca: bool = False, uri: str = URI, signer: rsa.RSAPrivateKey = KEY, serial: int = 7
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer or name)]))
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), False)
    )
    return builder.sign(signer, hashes.SHA256())


def der(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.DER)


def reason(folder: Path, cert: x509.Certificate, **more: object) -> pki.Reason | None:
    found = pki.refusal(folder, der(cert), peer="plant", **more)  # type: ignore[arg-type]
    return found.reason if found else None


def test_own_certificate_is_made_once_and_is_private(tmp_path: Path) -> None:
    own = pki.ensure_own_certificate(tmp_path / "pki", URI, ["localhost", "127.0.0.1"])
    assert own.key_path.stat().st_mode & 0o777 == 0o600
    assert own.key_path.parent.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700
    assert pki.ensure_own_certificate(tmp_path / "pki", URI, ["localhost"]) == own
    names = x509.load_der_x509_certificate(own.cert_path.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [URI]
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_another_uri_gives_another_certificate_for_the_same_key(tmp_path: Path) -> None:
    first = pki.ensure_own_certificate(tmp_path, URI, [])
    key = first.key_path.read_bytes()
    second = pki.ensure_own_certificate(tmp_path, "urn:other", [])
    assert second.thumbprint != first.thumbprint
    assert second.key_path.read_bytes() == key


def test_a_weak_key_is_refused(tmp_path: Path) -> None:
    own = pki.ensure_own_certificate(tmp_path, URI, [])
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
    pem = weak.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    own.key_path.write_bytes(pem)
    with pytest.raises(ValueError, match="2048 bits"):
        pki.ensure_own_certificate(tmp_path, URI, [])


def test_a_stranger_is_refused_with_thumbprint_and_remedy_and_kept(tmp_path: Path) -> None:
    stranger = certificate("stranger")
    found = pki.refusal(tmp_path, der(stranger), peer="opc.tcp://plant")
    assert found is not None
    assert found.reason is pki.Reason.UNTRUSTED
    assert pki.thumbprint(der(stranger)) in found.message
    kept = list(pki.rejected_folder(tmp_path).iterdir())
    assert [path.read_bytes() for path in kept] == [der(stranger)]
    assert str(kept[0]) in found.message
    assert str(pki.trusted_folder(tmp_path)) in found.message


def test_what_the_message_says_mends_it(tmp_path: Path) -> None:
    stranger = certificate("stranger")
    assert reason(tmp_path, stranger) is pki.Reason.UNTRUSTED
    kept = next(pki.rejected_folder(tmp_path).iterdir())
    kept.rename(pki.trusted_folder(tmp_path) / kept.name)
    assert reason(tmp_path, stranger) is None


def test_trust_takes_it_out_of_rejected(tmp_path: Path) -> None:
    stranger = certificate("stranger")
    reason(tmp_path, stranger)
    pki.trust(tmp_path, der(stranger))
    assert reason(tmp_path, stranger) is None
    assert not list(pki.rejected_folder(tmp_path).iterdir())


def test_a_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    reason(tmp_path, certificate("../../etc/passwd"))
    assert len(list(pki.rejected_folder(tmp_path).iterdir())) == 1


def test_expired_and_not_yet_valid(tmp_path: Path) -> None:
    peer = certificate("peer")
    pki.trust(tmp_path, der(peer))
    assert reason(tmp_path, peer, now=datetime.now(UTC) + 2 * DAY) is pki.Reason.TIME
    assert reason(tmp_path, peer, now=datetime.now(UTC) - 2 * DAY) is pki.Reason.TIME


def test_application_uri_must_match(tmp_path: Path) -> None:
    peer = certificate("peer")
    pki.trust(tmp_path, der(peer))
    assert reason(tmp_path, peer, application_uri=URI) is None
    assert reason(tmp_path, peer, application_uri="urn:evil") is pki.Reason.URI


def test_a_chain_through_an_issuer(tmp_path: Path) -> None:
    root, middle, leaf = certificate("root", ca=True), certificate("mid", "root", ca=True), certificate("leaf", "mid")
    pki.trust(tmp_path, der(root))
    assert reason(tmp_path, leaf) is pki.Reason.UNTRUSTED
    (tmp_path / "issuers" / "mid.der").write_bytes(der(middle))
    assert reason(tmp_path, leaf) is None


def test_who_is_no_authority_cannot_vouch(tmp_path: Path) -> None:
    pki.trust(tmp_path, der(certificate("friend", ca=False)))
    assert reason(tmp_path, certificate("leaf", "friend")) is pki.Reason.UNTRUSTED


def test_a_forged_signature_does_not_count(tmp_path: Path) -> None:
    pki.trust(tmp_path, der(certificate("root", ca=True)))
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert reason(tmp_path, certificate("leaf", "root", signer=other)) is pki.Reason.UNTRUSTED


@pytest.mark.parametrize("trust_leaf", [True, False])
def test_revoked(tmp_path: Path, trust_leaf: bool) -> None:
    root, leaf = certificate("root", ca=True), certificate("leaf", "root", serial=42)
    pki.trust(tmp_path, der(root))
    if trust_leaf:
        pki.trust(tmp_path, der(leaf))
    now = datetime.now(UTC)
    revoked = x509.RevokedCertificateBuilder().serial_number(42).revocation_date(now - DAY).build()
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.subject)
        .last_update(now - DAY)
        .next_update(now + DAY)
        .add_revoked_certificate(revoked)
        .sign(KEY, hashes.SHA256())
    )
    assert reason(tmp_path, leaf) is None
    (pki.trusted_folder(tmp_path) / "root.crl").write_bytes(crl.public_bytes(serialization.Encoding.DER))
    assert reason(tmp_path, leaf) is pki.Reason.REVOKED


def test_rubbish_is_refused_and_a_stray_file_grants_nothing(tmp_path: Path) -> None:
    (pki.trusted_folder(tmp_path) / "notes.der").write_bytes(b"not a certificate")
    found = pki.refusal(tmp_path, b"rubbish", peer="plant")
    assert found is not None
    assert found.reason is pki.Reason.INVALID
    assert reason(tmp_path, certificate("x")) is pki.Reason.UNTRUSTED


def test_strangers_do_not_fill_the_disk(tmp_path: Path) -> None:
    for serial in range(1, 120):
        reason(tmp_path, certificate(f"peer {serial}", serial=serial))
    assert len(list(pki.rejected_folder(tmp_path).iterdir())) == 100
