"""foretag's own OPC UA server: the :class:`plugin.protocols.Sink` that any HMI, SCADA or historian can read."""

import asyncio
import gc
import heapq
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlparse

from asyncua import ua

from plugin import __version__
from plugin.diagnostics import Diagnostics
from plugin.domain import Flag, Outage, Outcome, OutputTag, Prediction, RunKind, Standing
from plugin.errors import CertificateError, PublishError
from plugin.infer.alarms.room import Room
from plugin.protocols import Store
from plugin.publish.address_space import NAMESPACE, Nodes, build, grow
from plugin.publish.admission import Admission
from plugin.publish.advices import Advices
from plugin.publish.asyncua_server import Limits, PlantServer
from plugin.publish.capabilities import tell_namespaces
from plugin.publish.conditions.published import Conditions
from plugin.publish.config import PublishConfig
from plugin.publish.history.serving import Served
from plugin.publish.mirror import Mirror
from plugin.publish.nodes import SERVICE_LEVEL_HEALTHY, freshness, service_level, told_together
from plugin.publish.people import People, Record, unrecorded
from plugin.publish.reception import Reception
from plugin.publish.trail import Trail
from plugin.publish.tree import Tree
from plugin.publish.types import DI
from plugin.publish.verbs import Methods, Verbs
from plugin.publish.writeback import WriteBack

_log = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Shares = Mapping[str, Mapping[str, float]]
_Expiring = defaultdict[datetime, list[str]]
"""Names of outputs by the time at which they grow stale: those of a run mostly have one."""

_BATCH = 100  # predictions written before the loop gets its turn: less than 1 ms
_BEAT_SECONDS = 1.0
_START_SECONDS = 60.0
_STOP_SECONDS = 4.0
_INSTALLED = datetime.fromtimestamp(Path(__file__).stat().st_mtime, UTC)


def _now() -> datetime:
    return datetime.now(UTC)


class OpcUaSink:
    """Serves predictions and flags as nodes. See :mod:`plugin.publish.address_space` for what a client finds.

    ``pki_folder`` holds our certificate and the clients that are trusted (:mod:`plugin.pki`). ``now`` gives aware UTC.
    ``record`` takes entries for the audit log.
    """

    def __init__(
        self,
        config: PublishConfig,
        pki_folder: Path,
        diagnostics: Diagnostics,
        *,
        now: Callable[[], datetime] = _now,
        record: Record = unrecorded,
        mirror: Mirror | None = None,
        store: Store | None = None,
        room: Room | None = None,
        verbs: Verbs | None = None,
        write_backs: Sequence[WriteBack] = (),
    ) -> None:
        """``mirror``: the plant's tags that are shown too; whoever commits samples tells it. ``store``: where the
        history of all of them is read; None: there is none. ``room``: the alarms; None: there are none. ``verbs``: what
        methods do; None: there are no methods. ``write_backs``: opened before this, extended before this; what they
        want approved is shown here."""
        self._config = config
        self._diagnostics = diagnostics
        self._published = diagnostics.published.labels(self.name)
        self._now = now
        self._nodes: Nodes | None = None
        self._tree: Tree | None = None
        self._port = 0
        self._standings: dict[str, Standing] = {}
        self._expiries: list[tuple[datetime, list[str]]] = []
        self._service_level = SERVICE_LEVEL_HEALTHY
        self._admission = Admission(config, pki_folder)
        self._trail = Trail(record)
        self._advices = Advices(write_backs, now)
        self._server: PlantServer | None = None
        self._mirror = mirror or Mirror((), ())
        self._methods = Methods(verbs) if verbs is not None else None
        self._past = Served(store, self._mirror.tags, diagnostics) if store is not None else None
        self._conditions = Conditions(room) if room is not None else None

    @property
    def name(self) -> str:
        """Name in logs and diagnostics."""
        return "opcua"

    @property
    def endpoint(self) -> str:
        """Where clients connect; while open it names the port that is listened on, also where 0 was configured."""
        url = urlparse(self._config.endpoint)
        return url._replace(netloc=f"{url.hostname}:{self._port or url.port}").geturl()

    def set_service_level(self, level: int) -> None:
        """The most that ServiceLevel may say (OPC 10000-4, 6.6.2.4.2), 0 to 255; within it, it tells which share of
        the outputs is fresh and sees the plant. Takes effect within a second."""
        self._service_level = min(max(level, 0), SERVICE_LEVEL_HEALTHY)

    @asynccontextmanager
    async def open(self, tags: Sequence[OutputTag]) -> AsyncIterator[None]:
        """Listen for as long as the context lasts. PublishError where the address or the certificate can't be used."""
        server = self._server = await self._start(tags)
        try:
            async with asyncio.TaskGroup() as tasks:
                pulse = tasks.create_task(self._pulse(), name="publish pulse")
                trust = tasks.create_task(self._admission.watch(server), name="publish trust")
                trail = tasks.create_task(self._trail.run(), name="publish trail")
                archive = tasks.create_task(self._past.watch(), name="publish archive") if self._past else None
                mirror = tasks.create_task(self._mirror.run(self._now, self._measure), name="publish mirror")
                try:
                    yield
                finally:
                    pulse.cancel()
                    trust.cancel()
                    trail.cancel()
                    mirror.cancel()
                    if archive is not None:
                        archive.cancel()
        finally:
            self._nodes, self._tree, self._server, self._port = None, None, None, 0
            self._advices.close()
            self._trail.close()
            if self._conditions is not None:
                self._conditions.close()
            self._standings.clear()
            self._expiries.clear()
            gc.unfreeze()
            await _stop(server)
            await self._trail.settle(at_once=True)

    async def extend(self, tags: Sequence[OutputTag]) -> None:
        """Nodes of more outputs, seen by whoever browses from now on; those that are there already stay as they are."""
        if self._nodes is None or self._tree is None:
            raise PublishError("the OPC UA server is not open")
        new = [tag for tag in tags if tag.name not in self._nodes.outputs]
        try:
            self._nodes = await grow(self._tree, self._nodes, new, simulated=self._config.simulated)
            if self._server is not None:
                self._advices.build(self._tree, self._server)
        except ua.UaError as error:
            raise PublishError(f"the OPC UA server can't have nodes for {len(new)} more outputs: {error}") from error
        if self._past is not None:
            self._past.extend(self._tree, new)
        if self._methods is not None:
            self._methods.extend(self._tree, new)
        for tag in new:
            if tag.model in self._standings:
                self._nodes.outputs[tag.name].stand(self._standings[tag.model], self._now())
        _log.info("OPC UA server: %d outputs more", len(new))

    async def publish(self, outcome: Outcome) -> None:
        """Write all nodes of one run. PublishError, after the rest was written, where an output has no node."""
        nodes = self._nodes
        if nodes is None:
            raise PublishError("the OPC UA server is not open")
        if outcome.run.kind is not RunKind.SCORE:
            return  # a challenger's results are compared, never published; its model's node tells of the run
        unknown = 0
        shares = {explanation.tag.name: explanation.shares for explanation in outcome.explanations}
        for batch in _batches(told_together(outcome.predictions)):
            unknown += self._write(nodes, batch, shares)
            await asyncio.sleep(0)
        fresh = freshness(outcome.predictions) if outcome.flags else {}
        for flags in _batches(outcome.flags):
            unknown += self._write_flags(nodes, flags, fresh, shares)
            await asyncio.sleep(0)
        await self._judge(
            nodes, {said.tag.asset for said in outcome.predictions} | {said.asset for said in outcome.flags}
        )
        if outcome.run.model in nodes.models:
            nodes.models[outcome.run.model].show_run(outcome.run, self._now())
            nodes.models[outcome.run.model].show_coverage(_mean_coverage(outcome), self._now())
        if unknown:
            self._diagnostics.publish_failures.labels(self.name, "unknown_output").inc(unknown)
            raise PublishError(
                f"{unknown} result(s) of {outcome.run.model} are of outputs that this server did not open"
            )

    async def degrade(self, outage: Outage) -> None:
        """See the protocol. ServiceLevel follows the sources too, those that no output draws on among them."""
        self.set_service_level(service_level(outage.sources - len(outage.away), outage.sources))
        self._mirror.cut_off(outage.away)
        nodes = list(self._nodes.outputs.items()) if self._nodes is not None else []
        for batch in _batches(nodes):
            with self._measure():
                now = self._now()
                for name, node in batch:
                    node.cut_off(name in outage.outputs, now)
            await asyncio.sleep(0)
        if self._nodes is not None:
            await self._judge(self._nodes, self._nodes.health)

    async def inform(self, standings: Sequence[Standing]) -> None:
        """See the protocol."""
        if self._nodes is None:
            return
        for standing in standings:
            if standing.model in self._nodes.models:
                self._nodes.models[standing.model].stand(standing, self._now())
        lasting = {standing.model: replace(standing, run=None, shadow=None) for standing in standings}
        told = {model: standing for model, standing in lasting.items() if self._standings.get(model) != standing}
        self._standings |= told
        for outputs in _batches([node for node in self._nodes.outputs.values() if node.tag.model in told]):
            with self._measure():
                now = self._now()
                for output in outputs:
                    output.stand(told[output.tag.model], now)
            await asyncio.sleep(0)
        await self._judge(self._nodes, self._nodes.health if told else ())

    async def _judge(self, nodes: Nodes, assets: Iterable[str]) -> None:
        for batch in _batches([nodes.health[asset] for asset in assets if asset in nodes.health]):
            with self._measure():
                now = self._now()
                for node in batch:
                    node.judge(now)
            await asyncio.sleep(0)

    # --- start and stop ------------------------------------------------------------------------------------------

    async def _start(self, tags: Sequence[OutputTag]) -> PlantServer:
        config = self._config
        server = PlantServer(
            await asyncio.to_thread(People, config, self._diagnostics, self._trail.session),
            admit=self._admission.admit,
            measure=self._measure,
            limits=Limits(config.max_sessions, config.max_subscriptions, config.max_monitored_items),
            cut_off=lambda cause: self._diagnostics.clients_cut_off.labels(cause).inc(),
            failed=lambda cause: self._diagnostics.requests_failed.labels(cause).inc(),
            lose_event=self._diagnostics.client_events_lost.inc,
            lose_values=self._diagnostics.client_values_lost.inc,
            trail=self._trail,
            reception=Reception(self._diagnostics.handshakes_delayed.inc),
        )
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._identify(server)
                namespaces = {uri: await server.register_namespace(uri) for uri in (NAMESPACE, DI)}
                self._tree = Tree(server.iserver, namespaces, self._now())
                self._nodes = await build(self._tree, tags, __version__, simulated=config.simulated)
                tell_namespaces(self._tree)
                self._mirror.build(self._tree)
                self._advices.build(self._tree, server)
                if self._past is not None:
                    self._past.open(server, self._tree, tags)
                if self._conditions is not None:
                    self._conditions.open(self._tree, server)
                if self._methods is not None:
                    self._methods.open(self._tree, server, tags)
                self._trail.open(self._tree, server.tell_audit, config.application_uri)
                await server.start()
        except (OSError, ValueError, TimeoutError, ua.UaError, CertificateError) as error:
            self._nodes = None
            raise PublishError(f"the OPC UA server can't serve {config.endpoint}: {error}") from error
        self._port = server.port
        gc.freeze()  # the nodes live as long as the server: a full collection would walk them for half a second
        _log.info("OPC UA server for %d outputs at %s (%s)", len(tags), self.endpoint, ", ".join(config.security))
        if "None" in config.security:
            _log.warning("OPC UA server: policy None is configured: anyone who reaches %s can read", self.endpoint)
        return server

    async def _identify(self, server: PlantServer) -> None:
        """Names, certificate, policies, and the standard nodes, which a thread makes."""
        config = self._config
        server.name = server.manufacturer_name = "foretag"
        server.product_uri = "urn:foretag:product"
        server.application_type = ua.ApplicationType.Server
        server.set_endpoint(config.endpoint)
        await server.init()
        await server.set_application_uri(config.application_uri)
        await server.set_build_info(server.product_uri, "foretag", "foretag", __version__, "", _INSTALLED)
        server.set_security_policy([_POLICIES[name] for name in config.security])
        if set(config.security) != {"None"}:
            await self._admission.introduce(server)

    def _measure(self) -> AbstractContextManager[None]:
        return self._diagnostics.stage("publish")

    # --- values --------------------------------------------------------------------------------------------------

    def _write(self, nodes: Nodes, told: Sequence[Sequence[Prediction]], shares: _Shares) -> int:
        """Returns how many have no node."""
        now, written, expiring = self._now(), 0, _Expiring(list)
        with self._measure():
            for predictions in told:
                name = predictions[0].tag.name
                node = nodes.outputs.get(name)
                if node is not None:
                    node.show(predictions, now, shares.get(name) if shares else None)
                    expiring[predictions[0].valid_until].append(name)
                    written += 1
            self._remember(expiring)
        self._published.inc(written)
        return len(told) - written

    def _write_flags(
        self, nodes: Nodes, flags: Sequence[Flag], fresh: dict[tuple[str, str], datetime], shares: _Shares
    ) -> int:
        now, written, expiring = self._now(), 0, _Expiring(list)
        with self._measure():
            for flag in flags:
                node = nodes.flags.get((flag.model, flag.asset))
                if node is not None:
                    valid_until = fresh.get((flag.model, flag.asset))
                    node.show_flag(flag, valid_until, now, shares.get(node.tag.name))
                    if valid_until is not None:
                        expiring[valid_until].append(node.tag.name)
                    written += 1
            self._remember(expiring)
        self._published.inc(written)
        return len(flags) - written

    def _remember(self, expiring: _Expiring) -> None:
        for each in expiring.items():
            heapq.heappush(self._expiries, each)

    async def _pulse(self) -> None:
        """Ages values and beats the heart, whatever the scheduler does. Wakes each second, and when a value expires."""
        while self._nodes is not None:
            now = self._now()
            with self._measure():
                self._expire(self._nodes, now)
                serving = [node.usable for node in self._nodes.outputs.values() if node.in_service]
                level = min(self._service_level, service_level(sum(serving), len(serving)))
                self._nodes.server.beat(level, now)
                self._advices.expire()
                if self._conditions is not None:
                    self._conditions.meter(now)
            left = (self._expiries[0][0] - now).total_seconds() if self._expiries else _BEAT_SECONDS
            await asyncio.sleep(min(max(left, 0.001), _BEAT_SECONDS))

    def _expire(self, nodes: Nodes, now: datetime) -> None:
        """A newer prediction has moved a node's time on: then the old entry finds nothing to do."""
        while self._expiries and self._expiries[0][0] <= now:
            _, names = heapq.heappop(self._expiries)
            for node in map(nodes.outputs.__getitem__, names):
                if node.expire(now) and node.tag.asset in nodes.health:
                    nodes.health[node.tag.asset].judge(now)


async def _stop(server: PlantServer) -> None:
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await server.stop()
    except TimeoutError:
        _log.warning("OPC UA server: a connection did not close in time")


def _mean_coverage(outcome: Outcome) -> float | None:
    """Of the assets, whatever number of outputs each has."""
    by_asset = {prediction.tag.asset: prediction.coverage for prediction in outcome.predictions}
    return sum(by_asset.values()) / len(by_asset) if by_asset else None


def _batches(items: Iterable[_Item]) -> Iterator[Sequence[_Item]]:
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch


_POLICIES = {
    "None": ua.SecurityPolicyType.NoSecurity,
    "Basic256Sha256_Sign": ua.SecurityPolicyType.Basic256Sha256_Sign,
    "Basic256Sha256_SignAndEncrypt": ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    "Aes128Sha256RsaOaep_Sign": ua.SecurityPolicyType.Aes128Sha256RsaOaep_Sign,
    "Aes128Sha256RsaOaep_SignAndEncrypt": ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
    "Aes256Sha256RsaPss_Sign": ua.SecurityPolicyType.Aes256Sha256RsaPss_Sign,
    "Aes256Sha256RsaPss_SignAndEncrypt": ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
}
