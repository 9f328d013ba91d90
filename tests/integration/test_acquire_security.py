"""Whom we speak to, and how: trust, policies, credentials."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asyncua import Server, ua
from asyncua.crypto.permission_rules import SimpleRoleRuleset
from asyncua.server.user_managers import User, UserManager, UserRole

from plugin import pki
from plugin.acquire.browse import browse, endpoints, read_once
from plugin.acquire.config import SourceConfig
from plugin.acquire.source import OpcUaSource, State
from plugin.diagnostics import Diagnostics
from plugin.errors import SourceRefused, SourceUnreachable
from tests.integration.acquire_plant import URI, Historian, config, running, tags, until

SERVER_URI = "urn:test:secured"


class OneUser(UserManager):
    def get_user(
        self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None
    ) -> User | None:
        return User(role=UserRole.User, name="reader") if (username, password) == ("reader", "secret") else None


@contextlib.asynccontextmanager
async def secured(folder: Path, manager: UserManager | None = None) -> AsyncIterator[tuple[int, pki.OwnCertificate]]:
    """A server that speaks Basic256Sha256 with encryption only, and its certificate."""
    own = pki.ensure_own_certificate(folder / "server", SERVER_URI, ["localhost"])
    server = Server(user_manager=manager)
    await server.init()
    await server.set_application_uri(SERVER_URI)
    server.set_endpoint("opc.tcp://127.0.0.1:0/plant")
    server.set_security_policy(
        [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt], permission_ruleset=SimpleRoleRuleset()
    )
    await server.load_certificate(own.cert_path)
    await server.load_private_key(own.key_path, format="pem")
    index = await server.register_namespace(URI)
    box = await server.nodes.objects.add_object(index, "Box")
    for number in range(2):
        node = ua.NodeId(ua.String(f"t{number}"), ua.Int16(index))
        variable = await box.add_variable(node, f"t{number}", 1.5 + number, ua.VariantType.Double)
        await variable.add_property(0, "EURange", ua.Range(0.0, 10.0))
        unit = ua.EUInformation(DisplayName=ua.LocalizedText(ua.String("degC")))
        await variable.add_property(0, "EngineeringUnits", unit)
    await server.start()
    binary: Any = server.bserver
    try:
        yield binary._server.sockets[0].getsockname()[1], own
    finally:
        await server.stop()


def secure(port: int, **more: Any) -> SourceConfig:
    return config(port, security_policy="Basic256Sha256", timeout="3s", **more)


async def test_a_stranger_is_refused_until_a_person_trusts_it_and_no_restart_is_needed(tmp_path: Path) -> None:
    historian = Historian()
    async with secured(tmp_path) as (port, own):
        source = OpcUaSource(secure(port), tags(2), Diagnostics(), tmp_path / "pki")
        async with running(source, historian):
            await until(lambda: source.state is State.BLOCKED)
            assert own.thumbprint in source.trouble
            assert not source.connected()
            pki.trust(tmp_path / "pki", own.cert_path.read_bytes())
            await until(source.connected)
            await until(lambda: historian.stored(1) == [1])
    assert source.state is State.DISABLED


async def test_endpoints_tell_what_to_trust_before_anything_is_trusted(tmp_path: Path) -> None:
    async with secured(tmp_path) as (port, own):
        offered = await endpoints(f"opc.tcp://127.0.0.1:{port}/plant")
    assert [(end.policy, end.mode) for end in offered] == [("Basic256Sha256", "SignAndEncrypt")]
    assert offered[0].thumbprint == own.thumbprint
    assert offered[0].application_uri == SERVER_URI


async def test_a_policy_that_is_not_offered_is_refused_not_replaced(tmp_path: Path) -> None:
    async with secured(tmp_path) as (port, own):
        pki.trust(tmp_path / "pki", own.cert_path.read_bytes())
        wrong = config(port, security_policy="Aes256Sha256RsaPss")
        with pytest.raises(SourceRefused, match="it offers Basic256Sha256 with SignAndEncrypt"):
            await read_once(wrong, tags(1), tmp_path / "pki")


async def test_browse_and_read_once(tmp_path: Path) -> None:
    async with secured(tmp_path) as (port, own):
        pki.trust(tmp_path / "pki", own.cert_path.read_bytes())
        found = {reading.node: reading for reading in await browse(secure(port), tmp_path / "pki")}
        readings = await read_once(secure(port), tags(3), tmp_path / "pki")
    one = found[f"nsu={URI};s=t1"]
    assert (one.path, one.type, one.unit, one.low, one.high) == ("Box/t1", "Double", "degC", 0.0, 10.0)
    assert (one.value, one.good) == (2.5, True)
    assert [(reading.value, reading.status_name) for reading in readings] == [
        (1.5, "Good"), (2.5, "Good"), (None, "BadNodeIdUnknown"),
    ]  # fmt: skip


async def test_user_and_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with secured(tmp_path, OneUser()) as (port, own):
        pki.trust(tmp_path / "pki", own.cert_path.read_bytes())
        section = secure(port, user="reader", password_env="PLANT_PASSWORD")
        monkeypatch.delenv("PLANT_PASSWORD", raising=False)
        with pytest.raises(SourceRefused, match="PLANT_PASSWORD"):
            await read_once(section, tags(1), tmp_path / "pki")
        monkeypatch.setenv("PLANT_PASSWORD", "wrong")
        with pytest.raises(SourceRefused) as refused:
            await read_once(section, tags(1), tmp_path / "pki")
        assert "wrong" not in str(refused.value)
        monkeypatch.setenv("PLANT_PASSWORD", "secret")
        assert [reading.value for reading in await read_once(section, tags(1), tmp_path / "pki")] == [1.5]


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreachable):
        await read_once(config(1), tags(1), tmp_path / "pki")
    with pytest.raises(SourceUnreachable):
        await endpoints("opc.tcp://127.0.0.1:1", wait=1)
