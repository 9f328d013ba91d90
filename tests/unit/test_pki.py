"""Certificates: whom we trust. Every step of OPC 10000-4, 6.1.3, with real chains."""

import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugin import pki
from plugin.pki import Reason
from tests.certificates import (
    AUTHORITY,
    CLIENT,
    DAY,
    SEALING,
    SERVER,
    SIGNING,
    URI,
    Made,
    authority,
    key,
    make,
    revocations,
    with_sha1,
)


@pytest.fixture
def open_umask() -> Iterator[None]:
    """The worst that a service can be started with."""
    before = os.umask(0)
    yield
    os.umask(before)


def reason(folder: Path, *chain: Made, **more: Any) -> Reason | None:
    found = pki.refusal(folder, b"".join(made.der for made in chain), peer="plant", **more)
    return found.reason if found else None


def message(folder: Path, made: Made, **more: Any) -> str:
    found = pki.refusal(folder, made.der, peer="plant", **more)
    return found.message if found else ""


def trust(folder: Path, *made: Made) -> None:
    for one in made:
        pki.trust(folder, one.der)


def issuer(folder: Path, *made: Made) -> None:
    pki.rejected_folder(folder)
    (folder / "issuers").mkdir(exist_ok=True)
    for number, one in enumerate(made):
        (folder / "issuers" / f"{number}.der").write_bytes(one.der)


def crl(folder: Path, data: bytes, name: str = "list.crl") -> None:
    (pki.trusted_folder(folder) / name).write_bytes(data)


# --- structure and strength --------------------------------------------------------------------------------------


@pytest.mark.parametrize("blob", [b"", b"rubbish", b"\x30\x82\x00\x04abcd", b"\x30\x82\xff\xff", b"\x30"])
def test_rubbish_is_refused(tmp_path: Path, blob: bytes) -> None:
    found = pki.refusal(tmp_path, blob, peer="plant")
    assert found is not None
    assert found.reason is Reason.INVALID
    assert not list(pki.rejected_folder(tmp_path).iterdir())


PEER = make("fuzzed", authority("fuzzed root"))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(PEER.der) - 1), value=st.integers(0, 255), cut=st.booleans())
def test_whatever_a_stranger_sends_gets_an_answer_and_no_trust(
    tmp_path: Path, place: int, value: int, cut: bool
) -> None:
    blob = bytearray(PEER.der)
    blob[place] = value
    found = pki.refusal(tmp_path, bytes(blob[:place] if cut else blob), peer="stranger", host="plc1")
    assert found is not None
    assert found.message.startswith("stranger: ")


def test_a_stray_file_grants_nothing(tmp_path: Path) -> None:
    (pki.trusted_folder(tmp_path) / "notes.der").write_bytes(b"not a certificate")
    assert reason(tmp_path, make("x")) is Reason.UNTRUSTED


@pytest.mark.parametrize("bits", [1024, 1536])
def test_a_short_key_is_refused_though_it_is_trusted(tmp_path: Path, bits: int) -> None:
    weak = make("weak", bits=bits)
    trust(tmp_path, weak)
    assert reason(tmp_path, weak) is Reason.POLICY
    assert str(bits) in message(tmp_path, weak)


def test_a_key_that_is_not_rsa_is_refused(tmp_path: Path) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    name = make("rsa").cert.subject
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder(name, name, curve.public_key(), 5, now - DAY, now + DAY)
        .sign(curve, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )  # fmt: skip
    pki.trust(tmp_path, cert)
    padded = pki.refusal(tmp_path, cert, peer="plant")
    assert padded is not None
    assert padded.reason in {Reason.POLICY, Reason.INVALID}


def test_a_broken_hash_is_refused(tmp_path: Path) -> None:
    old = with_sha1(make("old"))
    trust(tmp_path, old)
    assert reason(tmp_path, old) is Reason.POLICY
    assert "SHA1" in message(tmp_path, old)


def test_a_broken_hash_below_the_root_is_refused_and_at_the_root_it_proves_nothing(tmp_path: Path) -> None:
    root = with_sha1(authority("root"))
    trust(tmp_path, root)
    assert reason(tmp_path, make("leaf", root)) is None
    middle = with_sha1(authority("middle", root), root)
    issuer(tmp_path, middle)
    assert reason(tmp_path, make("leaf below", middle)) in {Reason.POLICY, Reason.INCOMPLETE}


def test_what_must_be_understood_and_is_not_refuses(tmp_path: Path) -> None:
    limits = x509.NameConstraints([x509.DNSName("elsewhere")], None)
    root = authority("limited", more=[(limits, True)])
    trust(tmp_path, root)
    assert reason(tmp_path, make("leaf", root)) is Reason.INVALID


# --- the chain, and trust ----------------------------------------------------------------------------------------


def test_a_stranger_is_refused_with_thumbprint_and_remedy_and_kept(tmp_path: Path) -> None:
    stranger = make("stranger")
    found = pki.refusal(tmp_path, stranger.der, peer="plant at opc.tcp://plant")
    assert found is not None
    assert found.reason is Reason.UNTRUSTED
    mark = pki.thumbprint(stranger.der)
    assert mark in found.message
    assert f"foretag trust add {mark[:12]}" in found.message
    assert [path.read_bytes() for path in pki.rejected_folder(tmp_path).iterdir()] == [stranger.der]


def test_a_file_moved_by_hand_counts_at_once(tmp_path: Path) -> None:
    stranger = make("stranger")
    assert reason(tmp_path, stranger) is Reason.UNTRUSTED
    kept = next(pki.rejected_folder(tmp_path).iterdir())
    kept.rename(pki.trusted_folder(tmp_path) / kept.name)
    assert reason(tmp_path, stranger) is None


def test_trust_takes_it_out_of_rejected(tmp_path: Path) -> None:
    stranger = make("stranger")
    reason(tmp_path, stranger)
    trust(tmp_path, stranger)
    assert reason(tmp_path, stranger) is None
    assert not list(pki.rejected_folder(tmp_path).iterdir())


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\x00b", "\u202egnp.exe", "x" * 64])
def test_a_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    reason(tmp_path, make(name))
    (kept,) = pki.rejected_folder(tmp_path).iterdir()
    assert kept.name.isascii()
    assert kept.parent == pki.rejected_folder(tmp_path)


def test_strangers_do_not_fill_the_disk(tmp_path: Path) -> None:
    for serial in range(1, 120):
        reason(tmp_path, make("peer", serial=serial))
    assert len(list(pki.rejected_folder(tmp_path).iterdir())) == 100


def test_a_chain_through_an_issuer(tmp_path: Path) -> None:
    root = authority("root")
    middle = authority("middle", root)
    leaf = make("leaf", middle)
    trust(tmp_path, root)
    assert reason(tmp_path, leaf) is Reason.INCOMPLETE
    issuer(tmp_path, middle)
    assert reason(tmp_path, leaf) is None


def test_an_issuer_that_the_peer_sends_completes_the_chain_but_grants_no_trust(tmp_path: Path) -> None:
    root = authority("root")
    middle = authority("middle", root)
    leaf = make("leaf", middle)
    assert reason(tmp_path, leaf, middle, root) is Reason.UNTRUSTED
    trust(tmp_path, root)
    assert reason(tmp_path, leaf, middle) is None


def test_an_issuer_alone_is_not_trusted(tmp_path: Path) -> None:
    root = authority("root")
    issuer(tmp_path, root)
    assert reason(tmp_path, make("leaf", root)) is Reason.UNTRUSTED


@pytest.mark.parametrize("more", [{"ca": False}, {"usage": SIGNING}, {"path_length": 0}])
def test_who_may_not_sign_cannot_vouch(tmp_path: Path, more: dict[str, Any]) -> None:
    root = authority("root", **more)
    middle = authority("middle", root) if "path_length" in more else root
    trust(tmp_path, root)
    issuer(tmp_path, middle)
    assert reason(tmp_path, make("leaf", middle)) is Reason.INCOMPLETE


def test_a_forged_signature_does_not_count(tmp_path: Path) -> None:
    root = authority("root")
    trust(tmp_path, root)
    assert reason(tmp_path, make("leaf", Made(root.cert, key("forger")))) is Reason.INCOMPLETE


def test_an_altered_certificate_is_another(tmp_path: Path) -> None:
    good = make("peer")
    trust(tmp_path, good)
    altered = bytearray(good.der)
    altered[-1] ^= 1
    found = pki.refusal(tmp_path, bytes(altered), peer="plant")
    assert found is not None


def test_a_renewed_authority_beside_its_old_certificate(tmp_path: Path) -> None:
    old = authority("root", start=-3 * DAY, end=-DAY)
    new = authority("root")
    leaf = make("leaf", new)
    trust(tmp_path, old)
    assert reason(tmp_path, leaf) is Reason.ISSUER_TIME
    trust(tmp_path, new)
    assert reason(tmp_path, leaf) is None


# --- time, host, URI, use ----------------------------------------------------------------------------------------


def test_expired_and_not_yet_valid(tmp_path: Path) -> None:
    peer = make("peer")
    trust(tmp_path, peer)
    assert reason(tmp_path, peer) is None
    assert reason(tmp_path, peer, now=datetime.now(UTC) + 2 * DAY) is Reason.TIME
    assert reason(tmp_path, peer, now=datetime.now(UTC) - 2 * DAY) is Reason.TIME


def test_an_expired_authority(tmp_path: Path) -> None:
    root = authority("root", end=timedelta(seconds=-1))
    trust(tmp_path, root)
    assert reason(tmp_path, make("leaf", root)) is Reason.ISSUER_TIME


@pytest.mark.parametrize(
    ("host", "names", "fits"),
    [
        ("plc1", ["plc1"], True),
        ("PLC1.Plant.", ["plc1.plant"], True),
        ("plc1.plant", ["plc1"], False),
        ("plc2", ["plc1", "10.0.0.7"], False),
        ("10.0.0.7", ["plc1", "10.0.0.7"], True),
        ("10.0.0.8", ["plc1", "10.0.0.7"], False),
        ("fe80::0:1", ["fe80::1"], True),
        ("10.0.0.7", [], False),
        ("plc1", ["*"], False),
        ("127.0.0.1", ["localhost"], True),
        ("localhost", [socket.gethostname()], True),
        ("localhost", ["plc1"], False),
        ("plc1", ["localhost"], False),
    ],
)
def test_the_endpoints_host_must_be_named(tmp_path: Path, host: str, names: list[str], fits: bool) -> None:
    peer = make("peer", hosts=names)
    trust(tmp_path, peer)
    assert reason(tmp_path, peer, host=host) is (None if fits else Reason.HOST)
    if not fits:
        text = message(tmp_path, peer, host=host)
        assert host in text
        assert "check_hostname" in text
        assert all(name in text for name in names)


def test_the_application_uri_must_match(tmp_path: Path) -> None:
    peer = make("peer")
    trust(tmp_path, peer)
    assert reason(tmp_path, peer, application_uri=URI) is None
    assert reason(tmp_path, peer, application_uri="urn:evil") is Reason.URI
    assert reason(tmp_path, peer, application_uri="") is Reason.URI


@pytest.mark.parametrize(
    ("more", "pinned", "from_authority"),
    [
        ({}, None, None),
        ({"usage": None}, None, None),
        ({"usage": SIGNING}, Reason.USE, Reason.USE),
        ({"usage": SEALING}, Reason.USE, Reason.USE),
        ({"usage": SIGNING, "usage_critical": False}, None, Reason.USE),
        ({"roles": [SERVER]}, None, None),
        ({"roles": [SERVER, CLIENT], "roles_critical": True}, None, None),
        ({"roles": [CLIENT]}, None, Reason.USE),
        ({"roles": [CLIENT], "roles_critical": True}, Reason.USE, Reason.USE),
    ],
)
def test_a_server_needs_a_servers_certificate(
    tmp_path: Path, more: dict[str, Any], pinned: Reason | None, from_authority: Reason | None
) -> None:
    alone = make("alone", **more)
    trust(tmp_path, alone)
    assert reason(tmp_path, alone) is pinned
    root = authority("root")
    trust(tmp_path, root)
    assert reason(tmp_path, make("leaf", root, **more)) is from_authority


def test_a_client_needs_a_clients(tmp_path: Path) -> None:
    root = authority("root")
    trust(tmp_path, root)
    assert reason(tmp_path, make("leaf", root, roles=[CLIENT]), use=pki.Use.CLIENT) is None
    assert reason(tmp_path, make("leaf", root, roles=[SERVER]), use=pki.Use.CLIENT) is Reason.USE


# --- revocation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trust_leaf", [True, False])
def test_revoked(tmp_path: Path, trust_leaf: bool) -> None:
    root = authority("root")
    leaf = make("leaf", root, serial=42)
    trust(tmp_path, root, *([leaf] if trust_leaf else []))
    assert reason(tmp_path, leaf) is None
    crl(tmp_path, revocations(root, 42))
    assert reason(tmp_path, leaf) is Reason.REVOKED


def test_a_revoked_authority(tmp_path: Path) -> None:
    root = authority("root")
    middle = authority("middle", root, serial=43)
    leaf = make("leaf", middle)
    trust(tmp_path, root)
    issuer(tmp_path, middle)
    crl(tmp_path, revocations(root, 43))
    assert reason(tmp_path, leaf) is Reason.ISSUER_REVOKED


def test_an_old_list_still_revokes(tmp_path: Path) -> None:
    root = authority("root")
    leaf = make("leaf", root, serial=42)
    trust(tmp_path, root)
    crl(tmp_path, revocations(root, 42, start=-3 * DAY, end=-DAY))
    assert reason(tmp_path, leaf) is Reason.REVOKED


def test_somebody_elses_list_revokes_nothing(tmp_path: Path) -> None:
    root = authority("root")
    leaf = make("leaf", root, serial=42)
    trust(tmp_path, root)
    crl(tmp_path, revocations(Made(root.cert, key("forger")), 42))
    assert reason(tmp_path, leaf) is None
    assert reason(tmp_path, leaf, require_crl=True) is Reason.UNKNOWN


def test_without_a_list_the_log_warns_and_require_crl_refuses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = authority("root without a list")
    leaf = make("leaf", root)
    trust(tmp_path, root)
    assert [reason(tmp_path, leaf) for _ in range(3)] == [None] * 3
    assert caplog.text.count("there is no revocation list (*.crl) of 'root without a list'") == 1
    assert reason(tmp_path, leaf, require_crl=True) is Reason.UNKNOWN
    crl(tmp_path, revocations(root, start=-3 * DAY, end=-DAY))
    assert reason(tmp_path, leaf, require_crl=True) is Reason.UNKNOWN
    crl(tmp_path, revocations(root), "new.crl")
    assert reason(tmp_path, leaf, require_crl=True) is None


def test_each_link_needs_its_list(tmp_path: Path) -> None:
    root = authority("root")
    middle = authority("middle", root)
    leaf = make("leaf", middle)
    trust(tmp_path, root)
    issuer(tmp_path, middle)
    crl(tmp_path, revocations(middle))
    assert reason(tmp_path, leaf, require_crl=True) is Reason.ISSUER_UNKNOWN


def test_a_list_that_cannot_be_read_lets_nobody_in_that_it_might_name(tmp_path: Path) -> None:
    root = authority("root")
    leaf, alone = make("leaf", root), make("alone")
    trust(tmp_path, root, alone)
    crl(tmp_path, b"broken")
    assert reason(tmp_path, leaf) is Reason.UNKNOWN
    assert "list.crl" in message(tmp_path, leaf)
    assert reason(tmp_path, alone) is None
    crl(tmp_path, revocations(root), "good.crl")
    assert reason(tmp_path, leaf) is None


def test_who_may_not_sign_lists_revokes_nothing(tmp_path: Path) -> None:
    root = authority("root", usage=AUTHORITY[:1])
    leaf = make("leaf", root, serial=42)
    trust(tmp_path, root)
    crl(tmp_path, revocations(root, 42))
    assert reason(tmp_path, leaf) is None


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("open_umask")
def test_everything_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "pki"
    pki.ensure_own_certificate(folder, URI, ["localhost"])
    reason(folder, make("stranger"))
    trust(folder, make("friend"))
    modes = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "data", *tmp_path.joinpath("data").rglob("*"))}
    assert len(modes) > 8
    assert {path: oct(mode) for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_root_left_in_a_folder_of_another_is_given_to_that_one(tmp_path: Path) -> None:
    data, system = tmp_path / "data", tmp_path / "passwd"
    (data / "models").mkdir(parents=True)
    (data / "models" / "rul-1").touch()
    system.touch()
    (data / "link").symlink_to(system)
    (data / "name").hardlink_to(system)
    os.chown(data, 12345, 12345)
    assert pki.hand_over(data)
    owners = {path.name: path.lstat().st_uid for path in data.rglob("*")}
    assert owners == {"models": 12345, "rul-1": 12345, "link": 0, "name": 0}
    assert system.stat().st_uid == 0
    assert not pki.hand_over(data)
    assert not pki.hand_over(tmp_path)
