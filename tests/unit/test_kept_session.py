"""The session that is kept for the next process: whole, ours alone to read, and of use to its peer only."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from asyncua import ua

from plugin.acquire.kept_session import KeptSession, SessionFile

PEER = "opc.tcp://plant:4840 Basic256Sha256 SignAndEncrypt reader urn:foretag"
KEPT = KeptSession(
    PEER,
    ua.NodeId(ua.ByteString(b"\x00secret token\xff"), ua.Int16(3)),
    b"n" * 32,
    (ua.UserTokenPolicy("anonymous", ua.UserTokenType.Anonymous, SecurityPolicyUri="urn:policy"),),
    600.0,
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = SessionFile(tmp_path / "sessions" / "plant.session")
    assert file.read(PEER) is None
    file.write(KEPT)
    file.write(replace(KEPT, timeout=60.0))
    assert file.read(PEER) == replace(KEPT, timeout=60.0)
    file.remove()
    assert file.read(PEER) is None
    file.remove()


def test_a_session_is_of_use_to_its_peer_only(tmp_path: Path) -> None:
    file = SessionFile(tmp_path / "plant.session")
    file.write(KEPT)
    assert file.read(PEER.replace("reader", "another")) is None


def test_nobody_else_can_read_it_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "sessions" / "plant.session"
    SessionFile(path).write(KEPT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "text", ["", "{}", "[1", "null", '{"peer": 3}', '{"peer":"x","token":"zz","nonce":"","policies":[],"timeout":1}']
)
def test_a_spoilt_file_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plant.session"
    path.write_text(text)
    assert SessionFile(path).read("x") is None


def test_what_can_not_be_written_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    SessionFile(tmp_path / "file" / "plant.session").write(KEPT)
    assert "plant.session" in caplog.text
    assert "secret" not in caplog.text


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(KEPT)
    assert "nnnn" not in repr(KEPT)


def test_without_a_path_nothing_is_kept() -> None:
    file = SessionFile(None)
    file.write(KEPT)
    assert file.read(PEER) is None
