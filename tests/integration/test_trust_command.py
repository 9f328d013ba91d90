"""``foretag trust``: what a person sees of the trust list, and does with it."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from typer.testing import CliRunner

from plugin import pki
from plugin.__main__ import app
from tests.certificates import DAY, Made, authority, make, revocations

CONFIG = """
[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:4840/plant"

[[assets]]
names = ["mill"]
node = "nsu=urn:plant;s={asset}.{feature}"
tags = { power = {} }
"""


@dataclass
class Desk:
    """An installation, and its operator at the command line."""

    folder: Path

    @property
    def pki(self) -> Path:
        return self.folder / "data" / "pki"

    def __call__(self, *words: str, code: int = 0) -> str:
        runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
        done = runner.invoke(app, ["trust", *words, "--config", str(self.folder / "foretag.toml")])
        assert done.exit_code == code, done.output
        return done.output

    def refused(self, made: Made) -> str:
        """Its thumbprint, after it knocked."""
        pki.refusal(self.pki, made.der, peer="plant at opc.tcp://plc1:4840")
        return pki.thumbprint(made.der)

    def accepts(self, made: Made) -> bool:
        return pki.refusal(self.pki, made.der, peer="plant") is None


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "foretag.toml").write_text(CONFIG)
    return Desk(tmp_path)


def test_an_empty_list_says_so(desk: Desk) -> None:
    assert "nobody is trusted yet" in desk("list")


def test_from_the_first_knock_to_trust_and_back(desk: Desk) -> None:
    server = make("plc1")
    mark = desk.refused(server)
    listed = desk("list")
    assert "rejected" in listed
    assert mark[:16] in listed
    assert "plant at opc.tcp://plc1:4840, first on" in listed
    assert f"foretag trust add {mark[:16]}" in listed
    assert "counts from the next connection on" in desk("add", mark[:8].lower())
    assert desk.accepts(server)
    assert "nobody waits" in desk("list")
    assert "trusted no more" in desk("reject", mark)
    assert not desk.accepts(server)


def test_show_has_what_a_person_compares(desk: Desk) -> None:
    server = make("plc1", hosts=["plc1", "10.0.0.7"], uri="urn:plc1:server")
    mark = desk.refused(server)
    shown = desk("show", mark[:10])
    for text in ("CN=plc1", "itself", "urn:plc1:server", "plc1, 10.0.0.7", "RSA, 2048 bits", "SHA256", mark[:4]):
        assert text in shown
    assert mark in shown.replace(" ", "")


def test_our_own_certificate_is_shown_with_its_file(desk: Desk) -> None:
    own = pki.ensure_own_certificate(desk.pki, "urn:foretag", ["localhost"])
    listed = desk("list").replace("\n", "")
    assert own.thumbprint in listed
    assert str(own.cert_path) in listed


def test_files_pem_and_der_and_an_authority_is_told_as_such(desk: Desk, tmp_path: Path) -> None:
    root = authority("plant authority")
    middle = authority("line authority", root)
    leaf = make("plc1", middle, serial=77)
    (tmp_path / "root.pem").write_bytes(root.pem)
    (tmp_path / "middle.der").write_bytes(middle.der)
    assert "It is an authority" in desk("add", str(tmp_path / "root.pem"))
    assert not desk.accepts(leaf)
    assert "authority" not in desk("add", str(tmp_path / "middle.der"), "--issuer").splitlines()[-1].partition(":")[2]
    assert desk.accepts(leaf)
    (tmp_path / "line.crl").write_bytes(revocations(middle, 77))
    assert "revocation list" in desk("add", str(tmp_path / "line.crl"), "--issuer")
    assert not desk.accepts(leaf)
    listed = desk("list")
    assert "revokes 1" in listed
    assert listed.count("authority") >= 2


def test_a_machine_whose_own_certificate_may_sign_is_no_authority(desk: Desk, tmp_path: Path) -> None:
    uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:plc2")])
    (tmp_path / "plc.der").write_bytes(make("plc2", ca=True, usage=None, more=((uri, False),)).der)
    assert "says that it may sign others" in desk("add", str(tmp_path / "plc.der"))
    listed = desk("list")
    assert "may sign others" in listed
    assert "authority" not in listed


def test_rejecting_one_that_an_authority_vouches_for_says_that_it_does_not_help(desk: Desk) -> None:
    root = authority("plant authority")
    leaf = make("plc1", root)
    for made in (root, leaf):
        pki.trust(desk.pki, made.der)
    assert "still let in" in desk("reject", pki.thumbprint(leaf.der))
    assert desk.accepts(leaf)


def test_what_has_ended_is_told(desk: Desk) -> None:
    pki.trust(desk.pki, make("old", start=-3 * DAY, end=-DAY).der)
    assert "(ended)" in desk("list")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("add", "ABCD"), "there is none such in rejected"),
        (("show", ""), "begin with it"),
        (("reject", "ABCD"), "there is none such in trusted or issuers"),
        (("add", "missing.der"), "there is no such file"),
        (("add", "foretag.toml"), "neither a certificate nor a revocation list"),
    ],
)
def test_what_cannot_be_is_told_clearly(
    desk: Desk, words: tuple[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk.folder)
    for name in ("a", "b"):
        desk.refused(make(name))
    assert text in desk(*words, code=2).replace("\n", " ")


def test_a_thumbprint_is_taken_as_tools_print_it(desk: Desk) -> None:
    server = make("plc1")
    mark = desk.refused(server)
    desk("add", " ".join(mark[at : at + 2] for at in range(0, 40, 2)).lower().replace(" ", ":"))
    assert desk.accepts(server)


def test_a_name_cannot_steer_the_terminal(desk: Desk) -> None:
    desk.refused(make("\x1b[31mred [bold]"))
    assert "\x1b" not in desk("list")
    assert "[bold]" in desk("list")


def test_as_a_command_of_its_own(desk: Desk) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "plugin", "trust", "list", "--config", desk.folder / "foretag.toml"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "nobody is trusted yet" in done.stdout
