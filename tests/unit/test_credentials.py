"""Secrets from where they are kept; none of them is ever in a message."""

import traceback
from pathlib import Path
from typing import Any

import pytest

from plugin.acquire.config import SourceConfig
from plugin.errors import SourceRefused
from tests.certificates import make

SECRET = "correct horse"


def source(**more: Any) -> SourceConfig:
    return SourceConfig(name="plant", endpoint="opc.tcp://plc1:4840", **more)


def keep(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def refused(section: SourceConfig) -> str:
    with pytest.raises(SourceRefused) as caught:
        section.password()
    told = "".join(traceback.format_exception(caught.value))
    assert SECRET not in told
    assert str(caught.value).startswith("plant: no password for user 'me': ")
    return str(caught.value)


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    section = source(user="me", password_env="PLANT")
    assert "PLANT" in refused(section)
    monkeypatch.setenv("PLANT", SECRET)
    assert section.password() == SECRET


@pytest.mark.parametrize("text", [SECRET, f"{SECRET}\n", f"{SECRET}\r\n", f"{SECRET}\nnotes"])
def test_from_a_file_its_first_line(tmp_path: Path, text: str) -> None:
    assert source(user="me", password_file=keep(tmp_path / "p", text)).password() == SECRET


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666])
def test_a_file_that_everybody_may_read_or_write_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    section = source(user="me", password_file=keep(tmp_path / "p", SECRET, mode))
    assert f"chmod 600 {tmp_path / 'p'}" in refused(section)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640, 0o440])
def test_a_file_of_its_owner_and_group_is_fine(tmp_path: Path, mode: int) -> None:
    assert source(user="me", password_file=keep(tmp_path / "p", SECRET, mode)).password() == SECRET


@pytest.mark.parametrize("text", [b"", b"\n", b"\xff" + SECRET.encode()])
def test_a_file_without_a_password(tmp_path: Path, text: bytes) -> None:
    assert str(tmp_path / "p") in refused(source(user="me", password_file=keep(tmp_path / "p", text)))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file" in refused(source(user="me", password_file=tmp_path / "p"))


def test_from_a_systemd_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = source(user="me", password_credential="plant")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert "LoadCredential=plant:FILE" in refused(section)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert "plant" in refused(section)
    keep(tmp_path / "plant", SECRET, 0o440)
    assert section.password() == SECRET


@pytest.mark.parametrize("form", ["pem", "der"])
def test_a_certificate_and_its_key(tmp_path: Path, form: str) -> None:
    me = make("me")
    certificate = keep(tmp_path / "me.crt", me.pem if form == "pem" else me.der)
    section = source(user_certificate=certificate, user_key=keep(tmp_path / "me.key", me.key_pem))
    found = section.identity()
    assert found is not None
    assert found[0] == me.cert
    assert found[1].public_key() == me.cert.public_key()


def test_nobody_in_particular() -> None:
    assert source().identity() is None


@pytest.mark.parametrize(
    ("certificate", "key", "mode", "text"),
    [
        (make("me").pem, make("other").key_pem, 0o600, "is not the RSA key of"),
        (make("me").pem, make("me").key_pem, 0o644, "chmod 600"),
        (make("me").pem, b"nonsense", 0o600, "is no unencrypted private key"),
        (b"nonsense", make("me").key_pem, 0o600, "is no certificate"),
    ],
)
def test_a_certificate_that_will_not_do(tmp_path: Path, certificate: bytes, key: bytes, mode: int, text: str) -> None:
    section = source(
        user_certificate=keep(tmp_path / "me.crt", certificate), user_key=keep(tmp_path / "me.key", key, mode)
    )
    with pytest.raises(SourceRefused, match=text) as caught:
        section.identity()
    assert str(caught.value).startswith("plant: ")
