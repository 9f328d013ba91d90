"""With ``foretag.model_key`` a version is used when somebody with the private key has vouched for it, not before."""

import base64
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models import signature
from models.signature import SignatureError
from plugin.acting import Acting
from plugin.domain import ModelState
from plugin.errors import ArtifactError, ModelError
from plugin.infer.outputs import model_spec
from plugin.infer.registry import Registry
from plugin.reloading import Reloaded
from tests.integration.model_bench import NOW, Bench, config

SPEC = model_spec(config())
PEM = serialization.Encoding.PEM


def pair(folder: Path, name: str = "sign", password: bytes = b"") -> tuple[Ed25519PrivateKey, Path]:
    """A private key, and the file of the public one; the private one is in ``NAME.pem``."""
    key = Ed25519PrivateKey.generate()
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    (folder / f"{name}.pem").write_bytes(key.private_bytes(PEM, form, locked))
    public = folder / f"{name}.pub"
    public.write_bytes(key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return key, public


def signing(bench: Bench, tmp_path: Path, public: Path) -> Registry:
    bench.registry = Registry(bench.store, tmp_path / "models", user="anna", origin="command", key=public)
    return bench.registry


async def test_a_version_is_used_when_it_is_signed_and_not_before(bench, tmp_path):
    key, public = pair(tmp_path)
    registry = signing(bench, tmp_path, public)
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    (version,) = await bench.store.versions("odd")
    assert version.state is ModelState.CHALLENGER
    assert await bench.runs().score(scorer, NOW, NOW) is None
    assert scorer.challengers == (), "it is not scored in shadow either"
    assert await registry.waits_for_signature("odd", SPEC)
    with pytest.raises(ArtifactError, match=r"is not signed.*foretag models sign odd-1 --key"):
        await registry.promote("odd", 1, SPEC)
    await registry.sign(version, key)
    await registry.promote("odd", 1, SPEC)
    assert not await registry.waits_for_signature("odd", SPEC)
    assert await bench.runs().score(scorer, NOW, NOW)
    told = [(entry.action, entry.subject, entry.user) for entry in await bench.store.audit()]
    assert ("sign", "odd-1", "anna") in told


async def test_what_waits_for_a_signature_is_not_trained_again_at_the_next_start(bench, tmp_path):
    signing(bench, tmp_path, pair(tmp_path)[1])
    scorer = bench.scorer(config())
    for _ in range(2):
        await bench.training().train_missing([scorer], lambda _: True)
    assert len(await bench.store.versions("odd")) == 1


async def test_a_signature_of_another_key_or_of_another_file_is_refused(bench, tmp_path):
    key, public = pair(tmp_path)
    other, _ = pair(tmp_path, "other")
    registry = signing(bench, tmp_path, public)
    scorer = bench.scorer(config())
    for _ in range(2):
        await bench.training().train(scorer)
    second, first = await bench.store.versions("odd")
    await registry.sign(first, other)
    with pytest.raises(ArtifactError, match="not by the key that is configured"):
        await registry.load(first)
    await registry.sign(second, key)
    places = [signature.beside(tmp_path / "models" / version.artifact) for version in (first, second)]
    places[0].write_bytes(places[1].read_bytes())
    with pytest.raises(ArtifactError, match="not by the key that is configured"):
        await registry.load(first)
    places[0].write_bytes(base64.b64encode(b"short"))
    with pytest.raises(ArtifactError, match="not by the key that is configured"):
        await registry.load(first)
    places[0].write_bytes(b"\xff\x00 no base64")
    with pytest.raises(ArtifactError, match="not by the key that is configured"):
        await registry.load(first)
    await registry.load(second)


async def test_a_threshold_is_believed_as_it_was_signed(bench, tmp_path):
    """Whoever writes into the database alone could have no flag raised any more."""
    key, public = pair(tmp_path)
    registry = signing(bench, tmp_path, public)
    await bench.training().train(bench.scorer(config()))
    await registry.sign(await registry.version("odd", 1), key)
    versions = bench.store._versions["odd"]
    versions[1] = replace(versions[1], metrics={**versions[1].metrics, "threshold": 1e9})
    with pytest.raises(ArtifactError, match=r"metrics\.threshold = 1000000000.0 in the database"):
        await registry.promote("odd", 1, SPEC)


async def test_what_was_altered_is_neither_signed_nor_used(bench, tmp_path):
    key, public = pair(tmp_path)
    registry = signing(bench, tmp_path, public)
    await bench.training().train(bench.scorer(config()))
    (version,) = await bench.store.versions("odd")
    await registry.sign(version, key)
    path = tmp_path / "models" / version.artifact
    path.write_bytes(path.read_bytes() + b"\x00")
    with pytest.raises(ArtifactError, match="altered"):
        await registry.load(version)
    with pytest.raises(ArtifactError, match="altered"):
        await registry.sign(version, key)


async def test_an_operator_of_the_opc_ua_server_puts_nothing_in_force_that_is_not_signed(bench, tmp_path):
    key, public = pair(tmp_path)
    registry = signing(bench, tmp_path, public)
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    (version,) = await bench.store.versions("odd")

    async def reload(user: str, origin: str) -> Reloaded:
        return Reloaded()

    acting = Acting(bench.store, tmp_path / "models", [scorer], reload, bench.diagnostics, public)
    with pytest.raises(ArtifactError, match="is not signed"):
        await acting.promote("odd", 1, "anna")
    await registry.sign(version, key)
    assert await acting.promote("odd", 1, "anna") == 1


async def test_a_champion_from_before_the_key_was_configured_says_what_is_missing(bench, tmp_path):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    key, public = pair(tmp_path)
    registry = signing(bench, tmp_path, public)
    scorer = bench.scorer(config())
    assert await bench.runs().score(scorer, NOW, NOW) is None
    (version,) = await bench.store.versions("odd")
    await registry.sign(version, key)
    assert await bench.runs().score(scorer, NOW + timedelta(seconds=1), NOW)


def test_keys_that_can_not_be_are_refused_by_name(tmp_path):
    pair(tmp_path, password=b"good")
    assert signature.encrypted(tmp_path / "sign.pem")
    assert signature.private_key(tmp_path / "sign.pem", "good")
    for password in ("", "bad"):
        with pytest.raises(SignatureError, match=r"sign\.pem is no private key"):
            signature.private_key(tmp_path / "sign.pem", password)
    curve = generate_private_key(SECP256R1())
    none = serialization.NoEncryption()
    (tmp_path / "ec.pem").write_bytes(curve.private_bytes(PEM, serialization.PrivateFormat.PKCS8, none))
    public = curve.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "ec.pub").write_bytes(public)
    with pytest.raises(SignatureError, match="no Ed25519 key"):
        signature.private_key(tmp_path / "ec.pem")
    with pytest.raises(SignatureError, match="no Ed25519 key"):
        signature.public_key(tmp_path / "ec.pub")
    with pytest.raises(SignatureError, match=r"none\.pub can't be read"):
        signature.public_key(tmp_path / "none.pub")
    with pytest.raises(ModelError, match=r"foretag\.model_key: .*none\.pub"):
        Registry(None, tmp_path, key=tmp_path / "none.pub")  # type: ignore[arg-type]
