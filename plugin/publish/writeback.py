"""Results into the plant's own server: a :class:`plugin.protocols.Sink` that writes what a rule allows, nothing else.

``publish`` only leaves the newest value of each node for the writer and returns: a slow or absent server never holds up
scoring. Whatever is not written moves a counter, and each write, and each refusal, leaves a line in ``foretag.audit``.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from plugin.diagnostics import Diagnostics
from plugin.domain import Flag, Outage, Outcome, OutputTag, Prediction, Quality, Standing, Status, quality
from plugin.errors import PublishError, SourceError
from plugin.publish.config import WriteBackConfig, WriteRule
from plugin.publish.nodes import freshness
from plugin.publish.plant_client import Connection, Form, Node, PlantClient, Value, connected

__all__ = ["Connection", "WriteBack"]

_log = logging.getLogger(__name__)
_audit = logging.getLogger("foretag.audit")

_RETRY_SECONDS = 1.0, 60.0
_ALIVE_SECONDS = 10.0


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Advice:
    """One value for one node, and where it comes from."""

    value: Value
    valid_until: datetime | None
    origin: str
    """For the audit: model, version and run."""


@dataclass(slots=True, eq=False)
class _Target:
    """One node that may be written, and what waits for it."""

    rule: WriteRule
    tag: OutputTag
    node: str
    pending: Advice | None = None
    written: Advice | None = None
    """The last that was written, until it has grown stale."""
    not_before: float = 0.0
    """Time of the loop before which the rule's minimum interval forbids a write [s]."""


class WriteBack:
    """Writes to one source's server. ``now`` gives aware UTC."""

    def __init__(
        self,
        config: WriteBackConfig,
        source: str,
        connection: Connection,
        diagnostics: Diagnostics,
        *,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._config = config
        self._source = source
        self._connection = connection
        self._diagnostics = diagnostics
        self._now = now
        self._form = Form.FULL
        self._targets: list[_Target] = []
        self._by_output: dict[str, list[_Target]] = {}
        self._by_flag: dict[tuple[str, str], list[_Target]] = {}
        self._wake = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._writer: asyncio.Task[None] | None = None
        self._complaints: set[tuple[str, str]] = set()

    @property
    def name(self) -> str:
        """Name in logs and diagnostics."""
        return f"write-back:{self._source}"

    @asynccontextmanager
    async def open(self, tags: Sequence[OutputTag]) -> AsyncIterator[None]:
        """Write for as long as the context lasts. PublishError where two outputs are to go to one node."""
        self._targets, self._by_output, self._by_flag = [], {}, {}
        self._take(tags)
        async with asyncio.TaskGroup() as self._tasks:
            self._start_writer()
            try:
                yield
            finally:
                self._stop_writer()

    async def extend(self, tags: Sequence[OutputTag]) -> None:
        """More outputs, while it is open; PublishError, with none of them taken, where two are to go to one node."""
        self._take(tags)
        self._start_writer()

    def _start_writer(self) -> None:
        """Where there is a node that may be written, and only then, the plant's server is connected to."""
        if self._targets and self._writer is None and self._tasks is not None:
            self._writer = self._tasks.create_task(self._write_forever(), name=self.name)

    def _stop_writer(self) -> None:
        if self._writer is not None:
            self._writer.cancel()
        self._writer = self._tasks = None

    def _take(self, tags: Sequence[OutputTag]) -> None:
        known = {target.tag.name for target in self._targets}
        new = list(_targets(self._config, self._source, [tag for tag in tags if tag.name not in known]))
        nodes = [target.node for target in (*self._targets, *new)]
        if twice := sorted(node for node, count in Counter(nodes).items() if count > 1):
            raise PublishError(f"{self.name}: two outputs are to be written to one node: {', '.join(twice)}")
        self._targets += new
        for target in new:
            self._by_output.setdefault(target.tag.name, []).append(target)
            if target.tag.flag:
                self._by_flag.setdefault((target.tag.model, target.tag.asset), []).append(target)
        _log.info("%s: %d node(s) may be written%s", self.name, len(nodes), ", dry run" * self._config.dry_run)

    async def publish(self, outcome: Outcome) -> None:
        """Leave the newest values for the writer; never waits for the server."""
        with self._diagnostics.stage("publish"):
            for prediction in outcome.predictions:
                for target in self._by_output.get(prediction.tag.name, ()):
                    self._offer(target, _of_prediction(prediction))
            fresh = freshness(outcome.predictions)
            for flag in outcome.flags:
                for target in self._by_flag.get((flag.model, flag.asset), ()):
                    self._offer(target, _of_flag(flag, fresh.get((flag.model, flag.asset))))
        self._wake.set()

    async def degrade(self, outage: Outage) -> None:
        """What was written from a source that is away loses its Good status in the plant too, where the rule and the
        server allow an Uncertain one; the next run's result takes its place."""
        for target in self._targets:
            advice = target.pending or target.written
            if target.tag.name not in outage.outputs or advice is None or self._form is Form.BARE:
                continue
            if quality(advice.value.status) is Quality.GOOD and (target.pending or target.rule.uncertain == "write"):
                status = Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE
                target.pending = None
                self._offer(target, replace(advice, value=replace(advice.value, status=status)))
        self._wake.set()

    async def inform(self, standings: Sequence[Standing]) -> None:
        """The plant's server has no nodes for that."""

    # --- what may wait for the writer ----------------------------------------------------------------------------

    def _offer(self, target: _Target, advice: Advice | None) -> None:
        refusal = _refusal(target.rule, advice)
        if advice is None or refusal:
            self._lost(target, advice, refusal)
            return
        if target.pending is not None and target.not_before <= asyncio.get_running_loop().time():
            self._diagnostics.publish_failures.labels(self.name, "superseded").inc()
        target.pending = advice

    def _lost(self, target: _Target, advice: Advice | None, cause: str) -> None:
        """Count it, write it into the audit, and warn once until the node is written again."""
        self._diagnostics.publish_failures.labels(self.name, cause).inc()
        self._record("refused", target, advice, cause)
        if (target.node, cause) not in self._complaints:
            self._complaints.add((target.node, cause))
            _log.warning("%s: %s is not written: %s", self.name, target.node, cause)

    def _record(self, act: str, target: _Target, advice: Advice | None, result: str) -> None:
        value = advice.value if advice is not None else None
        _audit.info(
            "%s source=%s node=%s value=%s status=%s as_of=%s from=%s result=%s",
            act,
            self._source,
            target.node,
            value.number if value is not None else None,
            f"0x{value.status:08X}" if value is not None else None,
            value.source_time.isoformat() if value is not None else None,
            advice.origin if advice is not None else target.tag.name,
            result,
        )

    # --- the writer ----------------------------------------------------------------------------------------------

    async def _write_forever(self) -> None:
        delay = _RETRY_SECONDS[0]
        while True:
            try:
                async with connected(self._connection, self._form) as client:
                    _log.info("%s: connected to %s", self.name, self._connection.terms.endpoint)
                    delay = _RETRY_SECONDS[0]
                    self._complaints.discard((self._connection.terms.endpoint, "connection"))
                    await self._serve(client)
            except SourceError as error:
                self._diagnostics.reconnects.labels(self.name, type(error).__name__).inc()
                if (self._connection.terms.endpoint, "connection") not in self._complaints:
                    self._complaints.add((self._connection.terms.endpoint, "connection"))
                    _log.warning("%s: %s; trying again by itself", self.name, error)
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, no secret
            delay = min(2 * delay, _RETRY_SECONDS[1])

    async def _serve(self, client: PlantClient) -> None:
        nodes: dict[str, Node] = {}
        while True:
            self._wake.clear()
            due = [target for target in self._targets if self._due(target)]
            if due:
                await self._write(client, nodes, due)
                self._form = client.form
            elif not await self._wait():
                await client.alive()

    def _due(self, target: _Target) -> bool:
        """Ages what was written too: the plant's node must not show an old number as Good."""
        now, written = self._now(), target.written
        if written is not None and written.valid_until is not None and written.valid_until <= now:
            target.written = None
            if target.pending is None and target.rule.uncertain == "write" and self._form > Form.BARE:
                value = replace(
                    written.value, status=Status.UNCERTAIN_LAST_USABLE_VALUE, source_time=written.valid_until
                )
                target.pending = replace(written, value=value, valid_until=None)
        if target.pending is not None and target.pending.valid_until and target.pending.valid_until <= now:
            self._lost(target, target.pending, "stale")
            target.pending = None
        return target.pending is not None and target.not_before <= asyncio.get_running_loop().time()

    async def _wait(self) -> bool:
        """Until something may be due; False where nothing came for so long that the session wants a sign of life."""
        loop_time, now = asyncio.get_running_loop().time(), self._now()
        moments = [target.not_before - loop_time for target in self._targets if target.pending is not None]
        moments += [
            (target.written.valid_until - now).total_seconds()
            for target in self._targets
            if target.written is not None and target.written.valid_until is not None
        ]
        left = min(moments, default=_ALIVE_SECONDS)
        try:
            async with asyncio.timeout(min(max(left, 0.001), _ALIVE_SECONDS)):
                await self._wake.wait()
        except TimeoutError:
            return left < _ALIVE_SECONDS
        return True

    async def _write(self, client: PlantClient, nodes: dict[str, Node], due: Sequence[_Target]) -> None:
        advices = {target: target.pending for target in due if target.pending is not None}
        missing = [target.node for target in advices if target.node not in nodes]
        found = await client.resolve(missing) if missing else {}
        nodes.update((text, node) for text, node in found.items() if isinstance(node, Node))
        ready = [target for target in advices if target.node in nodes]
        results = {target: str(found[target.node]) for target in advices if target not in ready}
        if self._config.dry_run:
            results.update(dict.fromkeys(ready, "DryRun"))
        elif ready:
            results.update(await self._write_and_check(client, nodes, {target: advices[target] for target in ready}))
        for target, advice in advices.items():
            self._settle(target, advice, results[target])

    async def _write_and_check(
        self, client: PlantClient, nodes: Mapping[str, Node], advices: Mapping[_Target, Advice]
    ) -> dict[_Target, str]:
        values = {target: advice.value for target, advice in advices.items()}
        codes = await client.write([nodes[target.node] for target in values], list(values.values()))
        results = dict(zip(values, codes, strict=True))
        written = [target for target, code in results.items() if code == "Good"]
        differs = await client.differs([nodes[target.node] for target in written], [values[t] for t in written])
        results.update((target, "ReadBackDiffers") for target, wrong in zip(written, differs, strict=True) if wrong)
        return results

    def _settle(self, target: _Target, advice: Advice, result: str) -> None:
        """A newer value that came meanwhile stays pending."""
        if target.pending is advice:
            target.pending = None
        target.not_before = asyncio.get_running_loop().time() + target.rule.minimum_interval.total_seconds()
        if result == "DryRun":
            self._record("dry-run", target, advice, result)
            return
        if result != "Good":
            self._lost(target, advice, result)
            return
        target.written = advice if advice.valid_until is not None else None
        self._diagnostics.published.labels(self.name).inc()
        self._record("write", target, advice, result)
        self._complaints = {complaint for complaint in self._complaints if complaint[0] != target.node}


def _targets(config: WriteBackConfig, source: str, tags: Sequence[OutputTag]) -> Iterator[_Target]:
    if not config.enabled:
        return
    for rule in config.rules:
        for tag in tags:
            named = rule.source == source and rule.model == tag.model and rule.output == tag.output
            if named and fnmatchcase(tag.asset, rule.assets):
                yield _Target(rule, tag, rule.node.format(asset=tag.asset, model=tag.model, output=tag.output))


def _of_prediction(prediction: Prediction) -> Advice | None:
    if prediction.value is None:
        return None
    origin = f"{prediction.tag.name} version={prediction.version} run={prediction.run}"
    return Advice(Value(prediction.value, prediction.status, prediction.as_of), prediction.valid_until, origin)


def _of_flag(flag: Flag, valid_until: datetime | None) -> Advice:
    origin = f"{flag.asset}.{flag.model} version={flag.version} run={flag.run}"
    return Advice(Value(float(flag.raised), flag.status, flag.as_of), valid_until, origin)


def _refusal(rule: WriteRule, advice: Advice | None) -> str:
    """Why a value may not be written; empty where it may."""
    if advice is None or quality(advice.value.status) is Quality.BAD:
        return "bad"
    if not rule.low <= advice.value.number <= rule.high:
        return "out_of_range"
    uncertain = quality(advice.value.status) is Quality.UNCERTAIN
    return "uncertain" if uncertain and rule.uncertain == "skip" else ""
