"""Our own certificate: made, kept private, renewed, and never overwritten where a person brought it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from plugin import pki
from plugin.errors import CertificateError
from plugin.pki.caretaker import notice
from tests.certificates import DAY, Made, authority, key, make

URI = "urn:test:foretag"


def names(own: pki.OwnCertificate) -> x509.SubjectAlternativeName:
    cert = x509.load_der_x509_certificate(own.cert_path.read_bytes())
    return cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def bring(folder: Path, made: Made) -> None:
    """As a person does."""
    own = folder / "own"
    own.mkdir(parents=True, exist_ok=True)
    (own / "own.der").write_bytes(made.der)
    (own / "own.key").write_bytes(made.key_pem)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a key: a short one, that is made once."""
    own = tmp_path / "pki" / "own"
    own.mkdir(parents=True)
    (own / "own.key").write_bytes(make("own").key_pem)
    return tmp_path / "pki"


def test_it_is_made_once_and_is_private(tmp_path: Path) -> None:
    own = pki.ensure_own_certificate(tmp_path / "pki", URI, ["localhost", "127.0.0.1"])
    assert own.key_path.stat().st_mode & 0o777 == 0o600
    assert own.key_path.parent.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700
    assert pki.ensure_own_certificate(tmp_path / "pki", URI, ["localhost"]) == own
    assert names(own).get_values_for_type(x509.UniformResourceIdentifier) == [URI]
    assert names(own).get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names(own).get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_it_would_be_accepted_by_our_own_rules(folder: Path, tmp_path: Path) -> None:
    der = pki.ensure_own_certificate(folder, URI, ["plc1"]).cert_path.read_bytes()
    pki.trust(tmp_path / "peer", der)
    for use in pki.Use:
        assert pki.refusal(tmp_path / "peer", der, peer="we", application_uri=URI, host="plc1", use=use) is None


def test_another_uri_gives_another_certificate_for_the_same_key(folder: Path) -> None:
    first = pki.ensure_own_certificate(folder, URI, [])
    before = first.key_path.read_bytes()
    second = pki.ensure_own_certificate(folder, "urn:other", [])
    assert second.thumbprint != first.thumbprint
    assert second.key_path.read_bytes() == before


@pytest.mark.parametrize("bad", [make("weak", bits=1024).key_pem, b"-----BEGIN NONSENSE", b""])
def test_a_key_that_is_of_no_use_is_named(folder: Path, bad: bytes) -> None:
    (folder / "own" / "own.key").write_bytes(bad)
    with pytest.raises(CertificateError, match=r"own\.key"):
        pki.ensure_own_certificate(folder, URI, [])


def test_it_is_renewed_before_it_ends_and_the_old_one_stays_until_then(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (first,) = pki.own_certificates(folder, URI, ["localhost"])
    end = first.not_after
    assert pki.own_certificates(folder, URI, [], end - 31 * DAY) == (first,)
    newest, old = pki.own_certificates(folder, URI, ["localhost"], end - 29 * DAY)
    assert old.thumbprint == first.thumbprint != newest.thumbprint
    assert newest.not_after > end + 1000 * DAY
    assert newest.key_path == first.key_path
    assert pki.own_certificates(folder, URI, [], end - 8 * DAY) == (newest, old)
    assert pki.own_certificates(folder, URI, [], end) == (newest,)
    assert caplog.text.count("was renewed") == 1
    assert first.thumbprint in caplog.text
    assert newest.thumbprint in caplog.text


def test_our_server_shows_the_old_one_until_the_handover(folder: Path) -> None:
    (first,) = pki.own_certificates(folder, URI, [])
    end = first.not_after
    both = pki.own_certificates(folder, URI, [], end - 29 * DAY)
    assert pki.shown_certificate(both, end - 8 * DAY) == both[1]
    assert pki.shown_certificate(both, end - 7 * DAY) == both[0]
    assert pki.shown_certificate((first,), end) == first


def test_an_expired_one_of_ours_is_made_anew(folder: Path) -> None:
    (first,) = pki.own_certificates(folder, URI, [])
    later = first.not_after + timedelta(seconds=1)
    (second,) = pki.own_certificates(folder, URI, [], later)
    assert second.thumbprint != first.thumbprint
    assert second.not_after > later


def test_one_that_a_person_brought_is_used_and_not_renewed(folder: Path) -> None:
    brought = make("foretag of line 1", authority("plant authority"), uri=URI, end=10 * DAY)
    bring(folder, brought)
    (own,) = pki.own_certificates(folder, URI, [])
    assert not own.self_made
    assert own.thumbprint == pki.thumbprint(brought.der)
    assert (folder / "own" / "own.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("brought", "text"),
    [
        (make("late", uri=URI, end=timedelta(seconds=-1)), "expired on"),
        (make("other", uri="urn:other"), "does not name our application URI"),
        (Made(make("a", uri=URI).cert, key("b")), "does not belong to own.key"),
    ],
)
def test_one_that_a_person_brought_is_never_overwritten(folder: Path, brought: Made, text: str) -> None:
    bring(folder, brought)
    with pytest.raises(CertificateError, match=text):
        pki.own_certificates(folder, URI, [], datetime.now(UTC))
    assert (folder / "own" / "own.der").read_bytes() == brought.der


@pytest.mark.parametrize(("data", "text"), [(make("pem", uri=URI).pem, "openssl"), (b"nonsense", "no certificate")])
def test_a_file_that_is_no_certificate_in_der_is_left_alone(folder: Path, data: bytes, text: str) -> None:
    (folder / "own" / "own.der").write_bytes(data)
    with pytest.raises(CertificateError, match=text):
        pki.own_certificates(folder, URI, [])
    assert (folder / "own" / "own.der").read_bytes() == data


def test_a_brought_one_ends_the_introduction_of_ours(folder: Path) -> None:
    (first,) = pki.own_certificates(folder, URI, [])
    pki.own_certificates(folder, URI, [], first.not_after - DAY)
    bring(folder, make("brought", uri=URI))
    (own,) = pki.own_certificates(folder, URI, [])
    assert not own.self_made


# --- looked after while the service runs -----------------------------------------------------------------------------


def test_the_log_says_once_a_stage_what_is_to_be_done(folder: Path) -> None:
    (first,) = pki.own_certificates(folder, URI, [])
    end = first.not_after
    assert notice([first], end - 91 * DAY) == ""
    early = notice([first], end - 90 * DAY)
    assert "renewed by itself" in early
    assert notice([first], end - 31 * DAY) == early
    both = pki.own_certificates(folder, URI, [], end - 30 * DAY)
    month, week = notice(both, end - 29 * DAY), notice(both, end - 6 * DAY)
    assert len({early, month, week}) == 3
    assert str(first.cert_path) in month
    assert both[0].thumbprint in month


def test_one_that_a_person_brought_is_asked_for_again(folder: Path) -> None:
    bring(folder, make("brought", uri=URI, end=80 * DAY))
    found = pki.own_certificates(folder, URI, [])
    texts = [notice(found, found[0].not_after - days * DAY) for days in (91, 90, 31, 30, 8, 7, 1)]
    assert texts[0] == ""
    assert len(set(texts)) == 4
    assert all("put there by hand" in text for text in texts[1:])


async def test_the_caretaker_makes_it_tells_its_end_and_speaks_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends: list[float] = []
    caretaker = pki.Caretaker(folder, URI, ["plc1"], ends.append)
    await caretaker.look()
    (own,) = pki.own_certificates(folder, URI, [])
    assert ends == [own.not_after.timestamp()]
    assert names(own).get_values_for_type(x509.DNSName) == ["plc1"]
    bring(folder, make("late", uri=URI, end=timedelta(seconds=-1)))
    await caretaker.look()
    await caretaker.look()
    assert caplog.text.count("expired on") == 1
