"""A plant with alarms: a database, the room, and our OPC UA server, to be called up again as after a restart."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.crypto.uacrypto import CertProperties

from plugin import pki
from plugin.diagnostics import Diagnostics
from plugin.domain import (
    Explanation,
    Flag,
    Meaning,
    ModelState,
    ModelVersion,
    Outcome,
    OutputTag,
    Prediction,
    Run,
    RunKind,
    RunResult,
    Status,
)
from plugin.historian.config import HistorianConfig
from plugin.historian.stores import SqlStore, configured
from plugin.infer.alarms.config import AlarmsConfig
from plugin.infer.alarms.room import Room
from plugin.infer.alarms.watch import AlarmWatch
from plugin.protocols import Store
from plugin.publish.config import PublishConfig, UserConfig
from plugin.publish.people import hashed
from plugin.publish.server import OpcUaSink

PASSWORD = "correct horse"
_HASH = hashed(PASSWORD)
URI = "urn:foretag:predictions"
_USERS: dict[str, Any] = {"olga": "observer", "otto": "operator", "ada": "administrator"}


def rul(asset: str) -> OutputTag:
    """Low at 30, LowLow at 10 cycles."""
    return OutputTag("rul", asset, "rul", "cycles", 0.0, 125.0, "Cycles left", Meaning.LIFETIME, warnings=(30.0, 10.0))


def outputs(*assets: str) -> tuple[OutputTag, ...]:
    """A remaining life, a score and a flag of each."""
    return tuple(
        tag
        for asset in assets
        for tag in (
            rul(asset),
            OutputTag("anomaly", asset, "score", "", 0.0, 10.0, "Score", Meaning.SCORE),
            OutputTag("anomaly", asset, "flag", "", 0.0, 1.0, "Unlike itself", Meaning.FLAG),
        )
    )


_ONE = outputs("engine-01")


@dataclass
class Plant:
    """What runs."""

    folder: Path
    store: SqlStore
    room: Room
    watch: AlarmWatch
    sink: OpcUaSink
    diagnostics: Diagnostics

    async def rul(self, value: float, asset: str = "engine-01") -> None:
        """A scoring run, as the service does it: stored, published as a value, then looked at by the alarms."""
        run = await self.store.write_run(Run(0, "rul", RunKind.SCORE, datetime.now(UTC), version=1))
        now = datetime.now(UTC)
        later = now + timedelta(hours=1)
        tag = rul(asset)
        prediction = Prediction(tag, 1, now, later, later, value, value - 5, value + 5, Status.GOOD, 1.0, run.id)
        shares = Explanation(tag, now, run.id, {"T50": 0.62, "Ps30": 0.3, "T2": 0.05, "P2": 0.03})
        await self._give(Outcome(run, (prediction,), (), (shares,)))

    async def flag(self, score: float, asset: str = "engine-01") -> None:
        """As above."""
        run = await self.store.write_run(Run(0, "anomaly", RunKind.SCORE, datetime.now(UTC), version=1))
        now = datetime.now(UTC)
        flag = Flag("anomaly", asset, 1, now, score > 1.0, score, 1.0, Status.GOOD, run.id)
        await self._give(Outcome(run, (), (flag,)))

    async def _give(self, outcome: Outcome) -> None:
        done = Outcome(_done(outcome.run), outcome.predictions, outcome.flags, outcome.explanations)
        await self.store.write_outcome(done)
        await self.sink.publish(done)
        await self.watch.publish(done)

    def trust(self, certificate: Any) -> None:
        """Let a client in."""
        pki.trust(self.folder / "pki", certificate)

    @contextlib.asynccontextmanager
    async def client(self, user: str) -> AsyncIterator[Client]:
        """A session of a user."""
        async with session(self.sink.endpoint, self.folder / "client", self.folder / "pki", user) as client:
            yield client


@contextlib.asynccontextmanager
async def session(endpoint: str, own_folder: Path, trusting: Path, user: str) -> AsyncIterator[Client]:
    """A client with a user at a server that trusts what is in the folder ``trusting``."""
    own = pki.ensure_own_certificate(own_folder, "urn:test:client", ["localhost"])
    pki.trust(trusting, own.cert_path.read_bytes())
    client = Client(endpoint, timeout=20, watchdog_intervall=60)
    client.application_uri = own.application_uri
    key = CertProperties(own.key_path, "pem")
    mode = ua.MessageSecurityMode.SignAndEncrypt
    await client.set_security(SecurityPolicyBasic256Sha256, own.cert_path, key, mode=mode)
    client.set_user(user)
    client.set_password(PASSWORD)
    async with client:
        yield client


def _done(run: Run) -> Run:
    now = datetime.now(UTC)
    return Run(run.id, run.model, run.kind, run.scheduled, now, now, RunResult.DONE, 1, 1)


@contextlib.asynccontextmanager
async def plant(folder: Path, tags: tuple[OutputTag, ...] = _ONE, **alarms: Any) -> AsyncIterator[Plant]:
    """Until the context ends; opened again on the same folder it is the same plant."""
    config, diagnostics = AlarmsConfig(**alarms), Diagnostics()
    users = tuple(UserConfig(name=name, role=role, password_hash=_HASH) for name, role in _USERS.items())
    publish = PublishConfig(
        endpoint="opc.tcp://127.0.0.1:0/foretag", security=("Basic256Sha256_SignAndEncrypt",), users=users
    )
    async with furnished(folder, config, tags, diagnostics) as (store, room, watch):
        sink = OpcUaSink(publish, folder / "pki", diagnostics, room=room)
        async with sink.open(tags):
            yield Plant(folder, store, room, watch, sink, diagnostics)


@contextlib.asynccontextmanager
async def furnished(
    folder: Path, config: AlarmsConfig, tags: tuple[OutputTag, ...], diagnostics: Diagnostics | None = None
) -> AsyncIterator[tuple[SqlStore, Room, AlarmWatch]]:
    """A database with versions of the models, and the room with the conditions of these outputs."""
    diagnostics = diagnostics or Diagnostics()
    async with configured(HistorianConfig(), folder, diagnostics) as store:
        await _versions(store)
        room = Room(config, store, diagnostics)
        watch = AlarmWatch(config, room, store)
        await watch.furnish(tags)
        yield store, room, watch


async def _versions(store: Store) -> None:
    for model in ("rul", "anomaly"):
        if not await store.versions(model):
            made = ModelVersion(
                model, 0, "rul_lstm", ModelState.CHAMPION, datetime.now(UTC), {}, {"threshold": 1.0}, {}, "a", "b"
            )
            await store.add_version(made)


class Events:
    """What a client hears: a dictionary by path for each event."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self.heard: list[dict[str, Any]] = []
        self._paths = paths

    def event_notification(self, event: Any) -> None:
        """Called by asyncua."""
        self.heard.append({path: getattr(event, path, None) for path in self._paths})

    async def until(self, wanted: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait for it."""
        async with asyncio.timeout(seconds):
            while not wanted():
                await asyncio.sleep(0.02)


PATHS = (
    "EventId", "EventType", "SourceName", "Time", "Message", "Severity", "ConditionName", "BranchId", "Retain",
    "Comment", "ClientUserId", "ActiveState", "ActiveState/Id", "AckedState/Id", "ConfirmedState/Id", "EnabledState/Id",
    "SuppressedOrShelved", "ShelvingState/CurrentState", "LimitState/CurrentState", "LowLimit", "InputNode", "Quality",
)  # fmt: skip


def event_filter(*paths: str, where: ua.ContentFilter | None = None) -> ua.EventFilter:
    """With ConditionId last."""
    clauses = [
        ua.SimpleAttributeOperand(
            TypeDefinitionId=ua.NodeId(ua.Int32(ua.ObjectIds.BaseEventType)),
            BrowsePath=[ua.QualifiedName(part) for part in path.split("/")],
            AttributeId=ua.AttributeIds.Value,
        )
        for path in paths
    ]
    condition = ua.NodeId(ua.Int32(ua.ObjectIds.ConditionType))
    clauses.append(ua.SimpleAttributeOperand(condition, [], AttributeId=ua.AttributeIds.NodeId))
    return ua.EventFilter(clauses, where or ua.ContentFilter())
