"""What tests of our server's methods work with: people of every role, and real models behind what they ask for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.crypto.uacrypto import CertProperties

from plugin import pki
from plugin.acting import Acting
from plugin.domain import Audit, Run, RunResult
from plugin.errors import ConfigError
from plugin.publish.config import PublishConfig, UserConfig
from plugin.publish.people import hashed
from plugin.publish.server import OpcUaSink
from plugin.reloading import Reloaded
from tests.integration.model_bench import Bench, config, opened

PASSWORD = "correct horse"
ROLES: Any = {"olga": "observer", "otto": "operator", "ed": "engineer", "ada": "administrator"}
MODEL, ASSET = "Foretag.Models.odd", "Foretag.Assets.pump-1"


@dataclass
class House:
    """A server with methods, and whoever calls them."""

    bench: Bench
    sink: OpcUaSink
    folder: Path
    acting: Acting
    audit: list[Audit] = field(default_factory=list)
    reloads: list[str] = field(default_factory=list)
    faults: list[ConfigError] = field(default_factory=list)

    async def ends(self, key: int) -> Run:
        """What became of a run."""
        async with asyncio.timeout(30):
            while (
                run := next(r for r in await self.bench.store.runs("odd") if r.id == key)
            ).result is RunResult.RUNNING:
                await asyncio.sleep(0.02)
        return run

    @contextlib.asynccontextmanager
    async def session(self, user: str) -> AsyncIterator["Person"]:
        """Of a client that the server trusts."""
        own = pki.ensure_own_certificate(self.folder / "client", "urn:test:client", ["localhost"])
        client = Client(self.sink.endpoint, timeout=10.0, watchdog_intervall=60)
        client.application_uri = own.application_uri
        await client.set_security(SecurityPolicyBasic256Sha256, own.cert_path, CertProperties(own.key_path, "pem"))
        client.set_user(user)
        client.set_password(PASSWORD)
        async with client:
            yield Person(client, await client.get_namespace_index("urn:foretag:predictions"))


@dataclass
class Person:
    """A session."""

    client: Client
    namespace: int

    def id(self, name: str) -> ua.NodeId:
        """Of a node of ours."""
        return ua.NodeId(ua.String(name), ua.Int16(self.namespace))

    async def call(self, owner: str, method: str, *given: ua.Variant) -> ua.CallMethodResult:
        """What became of a call."""
        asked = ua.CallMethodRequest(self.id(owner), self.id(f"Foretag.Methods.{method}"), list(given))
        (result,) = await self.client.uaclient.call([asked])
        return result

    async def says(self, owner: str, method: str, *given: ua.Variant) -> Any:
        """The answer to a call that is not refused."""
        result = await self.call(owner, method, *given)
        result.StatusCode.check()
        return result.OutputArguments[0].Value


@contextlib.asynccontextmanager
async def housed(folder: Path) -> AsyncIterator[House]:
    """Served until the context ends."""
    own = pki.ensure_own_certificate(folder / "client", "urn:test:client", ["localhost"])
    pki.trust(folder, own.cert_path.read_bytes())
    hash_ = hashed(PASSWORD)
    users = tuple(UserConfig(name=name, role=role, password_hash=hash_) for name, role in ROLES.items())
    async with opened(folder) as bench:
        scorer = bench.scorer(config())
        made: House

        async def reload(user: str, origin: str) -> Reloaded:
            made.reloads.append(f"{user} {origin}")
            if made.faults:
                raise made.faults.pop()
            return Reloaded(added=("e1.T24",))

        async def record(entry: Audit) -> None:
            made.audit.append(entry)

        acting = Acting(bench.store, folder / "models", [scorer], reload, bench.diagnostics)
        publish = PublishConfig(endpoint="opc.tcp://127.0.0.1:0/foretag", users=users)
        sink = OpcUaSink(publish, folder, bench.diagnostics, record=record, store=bench.store, verbs=acting)
        made = House(bench, sink, folder, acting)
        async with sink.open(scorer.tags), acting.ready(bench.runs(sink), bench.training()):
            yield made
