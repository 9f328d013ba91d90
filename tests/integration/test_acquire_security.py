"""Whom we speak to, and how: trust, policies, credentials. Nothing weaker stands in for what was configured."""

import copy
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.server.internal_session import InternalSession
from asyncua.server.user_managers import User, UserManager, UserRole
from rich.console import Console

from plugin import channel, pki
from plugin.acquire.browse import browse, endpoints, read_once
from plugin.acquire.config import SourceConfig
from plugin.acquire.source import OpcUaSource, State
from plugin.commissioning import write_first_config
from plugin.config import load
from plugin.diagnostics import Diagnostics
from plugin.errors import SourceRefused, SourceUnreachable
from tests.certificates import DAY, Made, authority, make, revocations
from tests.integration.acquire_plant import URI, Historian, Wire, config, running, tags, until
from tests.integration.secured_plant import (
    ALL,
    KINDS,
    SERVER_URI,
    SecuredPlant,
    ours,
    secure,
    secured,
    server_certificate,
)

PASSWORD = "correct horse battery staple"
PLC = server_certificate()
STRANGER = make("stranger")

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Users(UserManager):
    """Nobody in particular may come, a reader with a password or a certificate, but no stranger."""

    def get_user(
        self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None
    ) -> User | None:
        known = (username, password) == ("reader", PASSWORD) or (username is None and certificate != STRANGER.der)
        return User(role=UserRole.User, name="reader") if known else None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_plant() -> AsyncIterator[SecuredPlant]:
    async with secured(PLC, policies=ALL, users=Users()) as plant:
        yield plant


@pytest_asyncio.fixture(loop_scope="module")
async def plant(one_plant: SecuredPlant) -> SecuredPlant:
    """Every policy, every mode; shared, since a server takes seconds to start."""
    await one_plant.reset(PLC)
    return one_plant


# --- policies and modes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "mode"), KINDS)
async def test_values_come_over_every_policy_and_mode(
    plant: SecuredPlant, tmp_path: Path, policy: str, mode: str
) -> None:
    historian = Historian()
    section = secure(plant.port, security_policy=policy, security_mode=mode)
    source = OpcUaSource(section, tags(1), Diagnostics(), ours(tmp_path, PLC))
    async with running(source, historian):
        await until(source.connected)
        await plant.write(7)
        await until(lambda: 7 in historian.numbers(1))
        spoken = source._session._client.security_policy  # type: ignore[union-attr]
        assert spoken.URI.endswith(f"#{policy.replace('Sha256Rsa', '_Sha256_Rsa')}")
        assert spoken.Mode.name == mode


async def test_a_policy_or_mode_that_is_not_offered_is_refused_not_replaced(tmp_path: Path) -> None:
    weak = (ua.SecurityPolicyType.NoSecurity, ua.SecurityPolicyType.Basic256Sha256_Sign)
    async with secured(PLC, policies=weak) as plant:
        for wanted in ("Basic256Sha256", "Aes256Sha256RsaPss"):
            with pytest.raises(SourceRefused, match=f"does not offer {wanted} with SignAndEncrypt; it offers"):
                await read_once(secure(plant.port, security_policy=wanted), tags(1), ours(tmp_path, PLC))
        assert plant.clients == []


def _without_the_strongest(found: list[ua.EndpointDescription]) -> list[ua.EndpointDescription]:
    return [end for end in found if "Aes256" not in end.SecurityPolicyUri]


def _without_encryption_of_users(found: list[ua.EndpointDescription]) -> list[ua.EndpointDescription]:
    for end in found:
        end.UserIdentityTokens = [ua.UserTokenPolicy("anonymous", ua.UserTokenType.Anonymous)]
    return found


def _with_another_level(found: list[ua.EndpointDescription]) -> list[ua.EndpointDescription]:
    found[0].SecurityLevel = ua.Byte(255)
    return found


@pytest.mark.parametrize("alter", [_without_the_strongest, _without_encryption_of_users, _with_another_level])
async def test_who_alters_the_endpoints_on_their_way_is_found_out(
    plant: SecuredPlant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alter: Callable[..., Any]
) -> None:
    """GetEndpoints goes over an open channel: what it says is compared with what the secured one says."""
    inner = plant.server.iserver
    honest = inner.get_endpoints

    async def session_says(self: Any, *args: Any, **names: Any) -> Any:
        return await honest(*args, **names)

    async def wire_says(*args: Any, **names: Any) -> Any:
        return alter(copy.deepcopy(await honest(*args, **names)))

    monkeypatch.setattr(InternalSession, "get_endpoints", session_says)
    monkeypatch.setattr(inner, "get_endpoints", wire_says)
    with pytest.raises(SourceRefused, match=r"^plant at opc\.tcp.*over the secured channel are not those"):
        await read_once(secure(plant.port), tags(1), ours(tmp_path, PLC))


async def test_endpoints_tell_what_to_trust_before_anything_is_trusted(plant: SecuredPlant) -> None:
    offered = await endpoints(f"opc.tcp://127.0.0.1:{plant.port}/plant")
    assert {(end.policy.replace("_", ""), end.mode) for end in offered} == set(KINDS)
    assert {end.thumbprint for end in offered} == {pki.thumbprint(PLC.der)}
    assert {end.application_uri for end in offered} == {SERVER_URI}


# --- the server's certificate ----------------------------------------------------------------------------------------


async def test_a_stranger_is_refused_until_a_person_trusts_it_and_no_restart_is_needed(
    plant: SecuredPlant, tmp_path: Path
) -> None:
    identity, historian = server_certificate(), Historian()
    await plant.show(identity)
    source = OpcUaSource(secure(plant.port), tags(2), Diagnostics(), ours(tmp_path))
    async with running(source, historian):
        await until(lambda: source.state is State.BLOCKED)
        assert pki.thumbprint(identity.der) in source.trouble
        assert not source.connected()
        assert plant.clients == []
        pki.trust(tmp_path / "pki", identity.der)
        await until(source.connected)
    assert source.state is State.DISABLED


_ROOT = authority("plant authority")


@pytest.mark.parametrize(
    ("identity", "trusted", "revoked", "more", "text"),
    [
        (server_certificate(end=timedelta(seconds=-1)), None, [], {}, "is valid from"),
        (server_certificate(issuer=_ROOT, serial=9), _ROOT, [9], {}, "was revoked by its authority"),
        (server_certificate(issuer=_ROOT), _ROOT, None, {"require_crl": True}, "no revocation list"),
        (server_certificate(hosts=["plc9"]), None, [], {}, "is for plc9, but the endpoint says 127.0.0.1"),
        (server_certificate(uri="urn:other"), None, [], {}, "the peer calls itself 'urn:test:secured'"),
        (server_certificate(usage=("digital_signature",)), None, [], {}, "key usage"),
        (server_certificate(), None, [], {"application_uri": "urn:another:server"}, "it is another server"),
    ],
)
async def test_a_certificate_that_will_not_do_blocks_before_the_channel(
    plant: SecuredPlant,
    tmp_path: Path,
    identity: Made,
    trusted: Made | None,
    revoked: list[int] | None,
    more: dict[str, Any],
    text: str,
) -> None:
    folder = ours(tmp_path, trusted or identity)
    if trusted is not None and revoked is not None:
        (folder / "trusted" / "authority.crl").write_bytes(revocations(trusted, *revoked))
    await plant.show(identity)
    with pytest.raises(SourceRefused, match=text):
        await read_once(secure(plant.port, **more), tags(1), folder)
    assert plant.clients == []


async def test_a_name_that_does_not_fit_can_be_allowed(plant: SecuredPlant, tmp_path: Path) -> None:
    identity = server_certificate(hosts=["plc9"])
    await plant.show(identity)
    section = secure(plant.port, check_hostname=False, application_uri=SERVER_URI)
    assert (await read_once(section, tags(1), ours(tmp_path, identity)))[0].good


async def test_a_server_that_comes_back_with_another_certificate(tmp_path: Path) -> None:
    old, new, historian = server_certificate("plc1"), server_certificate("plc1 renewed"), Historian()
    async with secured(old) as plant:
        source = OpcUaSource(secure(plant.port), tags(2), Diagnostics(), ours(tmp_path, old))
        async with running(source, historian):
            await until(source.connected)
            await plant.write(1)
            await until(lambda: historian.numbers(1) == [1])
            await plant.stop()
            again = SecuredPlant(new, port=plant.port)
            await again.start()
            try:
                await until(lambda: source.state is State.BLOCKED)
                assert pki.thumbprint(new.der) in source.trouble
                pki.trust(tmp_path / "pki", new.der)
                await until(source.connected)
                await again.write(2)
                await until(lambda: historian.numbers(1)[-1:] == [2])
            finally:
                await again.stop()


async def test_a_certificate_that_is_replaced_during_a_cut_costs_no_value(plant: SecuredPlant, tmp_path: Path) -> None:
    """The server keeps its sessions: what it queued while a person was to decide comes afterwards."""
    old, new, historian = server_certificate("plc1"), server_certificate("plc1 renewed"), Historian()
    await plant.show(old)
    async with Wire(plant.port) as wire:
        source = OpcUaSource(secure(wire.port), tags(2), Diagnostics(), ours(tmp_path, old))
        async with running(source, historian):
            await until(source.connected)
            await plant.write(1)
            await until(lambda: historian.numbers(1) == [1])
            wire.cut()
            await plant.show(new)
            wire.mend()
            await until(lambda: source.state is State.BLOCKED)
            for number in range(2, 6):
                await plant.write(number)
            pki.trust(tmp_path / "pki", new.der)
            await until(source.connected)
            await until(lambda: historian.stored(2) == [1, 2, 3, 4, 5])
            assert historian.numbers(1) == [1, 2, 3, 4, 5]
            assert not historian.gaps


async def test_trust_that_is_taken_away_ends_a_connection_that_stands(
    plant: SecuredPlant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "REVIEW", 0.1)
    historian = Historian()
    source = OpcUaSource(secure(plant.port), tags(1), Diagnostics(), ours(tmp_path, PLC))
    async with running(source, historian):
        await until(source.connected)
        (entry,) = pki.entries(tmp_path / "pki", pki.Place.TRUSTED)
        pki.move(tmp_path / "pki", entry.certificate, pki.Place.REJECTED)
        await until(lambda: source.state is State.BLOCKED)
        assert "is not trusted" in source.trouble


@pytest.mark.parametrize("agree", [True, False])
async def test_the_first_configuration_asks_where_the_name_does_not_fit(
    plant: SecuredPlant, tmp_path: Path, agree: bool
) -> None:
    await plant.show(server_certificate(hosts=["plc9"]))
    ours(tmp_path / "data")
    asked: list[str] = []

    def confirm(question: str) -> bool:
        asked.append(question)
        return agree or len(asked) == 1

    url, quiet = f"opc.tcp://127.0.0.1:{plant.port}/plant", Console(quiet=True)
    writing = write_first_config(url, tmp_path, root="", force=False, confirm=confirm, console=quiet)
    if agree:
        await writing
        assert not load(tmp_path / "foretag.toml").sources[0].check_hostname
    else:
        with pytest.raises(SourceRefused, match="is for plc9"):
            await writing
        assert not (tmp_path / "foretag.toml").exists()
    assert "Trust it?" in asked[0]
    assert "is for plc9" in asked[1]


async def test_a_second_init_does_not_ask_again_for_a_certificate_that_is_trusted(
    plant: SecuredPlant, tmp_path: Path
) -> None:
    await plant.show(server_certificate())
    ours(tmp_path / "data")
    asked: list[str] = []

    def confirm(question: str) -> bool:
        asked.append(question)
        return True

    url, narrow = f"opc.tcp://127.0.0.1:{plant.port}/plant", Console(record=True, width=80, quiet=False)
    for _ in range(2):
        await write_first_config(url, tmp_path, root="", force=True, confirm=confirm, console=narrow)
    assert len(asked) == 1
    shown = narrow.export_text()
    assert "…" not in shown, "a thumbprint is to be compared: none of it is cut off"


# --- our own certificate ---------------------------------------------------------------------------------------------


async def test_a_server_that_does_not_trust_us_is_told_of_with_the_file_to_hand_out(
    plant: SecuredPlant, tmp_path: Path
) -> None:
    plant.refused.add("*")
    source = OpcUaSource(secure(plant.port), tags(1), Diagnostics(), ours(tmp_path, PLC))
    async with running(source, Historian()):
        await until(lambda: source.state is State.BLOCKED)
        assert "BadCertificateUntrusted" in source.trouble
        assert str(tmp_path / "pki" / "own" / "own.der") in source.trouble
        plant.refused.clear()
        await until(source.connected)


async def test_an_expired_certificate_that_a_person_brought_blocks_until_there_is_another(
    plant: SecuredPlant, tmp_path: Path
) -> None:
    folder = ours(tmp_path, PLC)
    late, good = make("own", uri="urn:foretag", end=timedelta(seconds=-1)), make("own", uri="urn:foretag")
    (folder / "own" / "own.der").write_bytes(late.der)
    source = OpcUaSource(secure(plant.port), tags(1), Diagnostics(), folder)
    async with running(source, Historian()):
        await until(lambda: source.state is State.BLOCKED)
        assert "expired on" in source.trouble
        assert plant.clients == []
        (folder / "own" / "own.der").write_bytes(good.der)
        await until(source.connected)
        assert plant.clients[-1] == pki.thumbprint(good.der)


async def test_a_renewed_certificate_is_introduced_while_the_old_one_still_serves(
    plant: SecuredPlant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(channel, "REVIEW", 0.1)
    monkeypatch.setattr(channel, "_TRY_NEW", 0.3)
    historian = Historian()
    folder = ours(tmp_path, PLC)
    first = datetime.now(UTC) - timedelta(days=5 * 365) + 20 * DAY
    (old,) = pki.own_certificates(folder, "urn:foretag", ["localhost"], first)
    async with Wire(plant.port) as wire:
        newest, _ = pki.own_certificates(folder, "urn:foretag", ["localhost"])
        plant.refused.add(newest.thumbprint)
        source = OpcUaSource(secure(wire.port), tags(1), Diagnostics(), folder)
        async with running(source, historian):
            await until(source.connected)
            assert plant.clients[:2] == [newest.thumbprint, old.thumbprint]
            assert "does not take our renewed certificate" in caplog.text
            plant.refused.clear()  # a person at the server trusts the new one: it is tried again by itself
            await until(lambda: plant.channels() == {newest.thumbprint})
            await until(source.connected)
            await plant.write(1)
            await until(lambda: historian.numbers(1)[-1:] == [1])


async def test_a_certificate_that_is_brought_is_taken_up_by_a_connection_that_stands(
    plant: SecuredPlant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "REVIEW", 0.1)
    historian = Historian()
    brought = make("own", authority("company"), uri="urn:foretag")
    source = OpcUaSource(secure(plant.port), tags(1), Diagnostics(), ours(tmp_path, PLC))
    async with running(source, historian):
        await until(source.connected)
        await plant.write(1)
        (tmp_path / "pki" / "own" / "own.der").write_bytes(brought.der)
        await until(lambda: not source.connected())
        await plant.write(2)
        await until(source.connected)
        await plant.write(3)
        await until(lambda: historian.stored(1) == [1, 2, 3])
        assert plant.channels() == {pki.thumbprint(brought.der)}


# --- users -----------------------------------------------------------------------------------------------------------


async def test_browse_and_read_once(plant: SecuredPlant, tmp_path: Path) -> None:
    folder = ours(tmp_path, PLC)
    node = plant.nodes[1]
    await node.add_property(0, "EURange", ua.Range(0.0, 10.0))
    await node.add_property(0, "EngineeringUnits", ua.EUInformation(DisplayName=ua.LocalizedText("degC")))
    await plant.put(node, 2.5, datetime.now(UTC))
    found = {reading.node: reading for reading in await browse(secure(plant.port), folder)}
    readings = await read_once(secure(plant.port), tags(3), folder)
    one = found[f"nsu={URI};s=t1"]
    assert (one.path, one.type, one.unit, one.low, one.high) == ("t1", "Double", "degC", 0.0, 10.0)
    assert (one.value, one.good) == (2.5, True)
    assert [(reading.value, reading.status_name) for reading in readings] == [
        (0.0, "Good"), (2.5, "Good"), (None, "BadNodeIdUnknown"),
    ]  # fmt: skip


async def test_user_and_password(plant: SecuredPlant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ours(tmp_path, PLC)
    section = secure(plant.port, user="reader", password_env="PLANT_PASSWORD")
    monkeypatch.delenv("PLANT_PASSWORD", raising=False)
    with pytest.raises(SourceRefused, match="PLANT_PASSWORD"):
        await read_once(section, tags(1), folder)
    assert plant.clients == []
    monkeypatch.setenv("PLANT_PASSWORD", "wrong one")
    with pytest.raises(SourceRefused) as refused:
        await read_once(section, tags(1), folder)
    assert "wrong one" not in str(refused.value)
    monkeypatch.setenv("PLANT_PASSWORD", PASSWORD)
    assert [reading.value for reading in await read_once(section, tags(1), folder)] == [0.0]


def _keep(folder: Path, name: str, made: Made) -> None:
    (folder / f"{name}.pem").write_bytes(made.pem)
    (folder / f"{name}.key").write_bytes(made.key_pem)
    (folder / f"{name}.key").chmod(0o600)


async def test_a_certificate_as_user(plant: SecuredPlant, tmp_path: Path) -> None:
    folder = ours(tmp_path, PLC)
    _keep(tmp_path, "reader", make("reader"))
    _keep(tmp_path, "stranger", STRANGER)

    def user(name: str, key: str, **more: Any) -> SourceConfig:
        names = {"user_certificate": tmp_path / f"{name}.pem", "user_key": tmp_path / f"{key}.key"}
        return secure(plant.port, **names, **more)

    for policy, mode in KINDS:
        section = user("reader", "reader", security_policy=policy, security_mode=mode)
        assert [reading.value for reading in await read_once(section, tags(1), folder)] == [0.0]
    with pytest.raises(SourceRefused, match="BadUserAccessDenied"):
        await read_once(user("stranger", "stranger"), tags(1), folder)
    with pytest.raises(SourceRefused, match="is not the RSA key of"):
        await read_once(user("reader", "stranger"), tags(1), folder)


async def test_a_kind_of_user_that_the_server_does_not_take_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(tmp_path, "reader", make("reader"))
    monkeypatch.setenv("PLANT_PASSWORD", PASSWORD)
    users: tuple[dict[str, Any], ...] = (
        {"user": "reader", "password_env": "PLANT_PASSWORD"},
        {"user_certificate": tmp_path / "reader.pem", "user_key": tmp_path / "reader.key"},
    )
    async with secured(PLC, tokens=(ua.AnonymousIdentityToken,)) as plant:
        for user in users:
            with pytest.raises(SourceRefused, match=r"takes no \w+ user safely; it takes Anonymous"):
                await read_once(secure(plant.port, **user), tags(1), ours(tmp_path, PLC))


async def test_no_secret_is_in_the_most_talkative_log(
    plant: SecuredPlant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server names a token policy without encryption: the password stands bare in the request, which is logged."""
    monkeypatch.setenv("PLANT_PASSWORD", PASSWORD)
    caplog.set_level(logging.DEBUG)
    historian = Historian()
    folder = ours(tmp_path, PLC)
    async with Wire(plant.port) as wire:
        section = secure(wire.port, user="reader", password_env="PLANT_PASSWORD")
        source = OpcUaSource(section, tags(1), Diagnostics(), folder)
        async with running(source, historian):
            await until(source.connected)
            wire.cut()
            wire.mend()
            await until(lambda: not source.connected())
            await until(source.connected)
        monkeypatch.setenv("PLANT_PASSWORD", PASSWORD + "x")
        with pytest.raises(SourceRefused):
            await read_once(section, tags(1), folder)
    told = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert "ActivateSessionRequest" in told
    assert "<hidden>" in told
    assert PASSWORD not in told
    assert PASSWORD not in repr(section)
    assert PASSWORD not in section.model_dump_json()


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreachable):
        await read_once(config(1), tags(1), tmp_path / "pki")
    with pytest.raises(SourceUnreachable):
        await endpoints("opc.tcp://127.0.0.1:1", wait=1)
