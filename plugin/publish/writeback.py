"""Results into the plant's own server: a :class:`plugin.protocols.Sink` that writes what a rule allows, nothing else.

``publish`` only leaves the newest value of each node for the writer and returns: a slow or absent server never holds up
scoring. Whatever is not written moves a counter, and each write, and each refusal, is on record
(:mod:`plugin.publish.write_log`). What a rule wants approved waits for :meth:`WriteBack.approve`.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

from plugin.diagnostics import Diagnostics
from plugin.domain import Outage, Outcome, OutputTag, RunKind, Standing
from plugin.errors import PublishError, SourceError
from plugin.publish.config import WriteBackConfig
from plugin.publish.nodes import freshness
from plugin.publish.plant_client import Connection, PlantClient, connected
from plugin.publish.plant_values import Form, Node
from plugin.publish.targets import CUT_OFF, STALE, Advice, Target, of_flag, of_prediction, refusal, targets, unfit
from plugin.publish.write_log import Record, WriteLog, unrecorded

__all__ = ["Connection", "WriteBack"]

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0, 60.0
_ALIVE_SECONDS = 10.0


def _now() -> datetime:
    return datetime.now(UTC)


def _nobody(_: Target, __: str) -> None:
    """Nobody shows what becomes of an advice."""


class WriteBack:
    """Writes to one source's server. ``now`` gives aware UTC; ``record`` takes entries for the audit log."""

    def __init__(
        self,
        config: WriteBackConfig,
        source: str,
        connection: Connection,
        diagnostics: Diagnostics,
        *,
        now: Callable[[], datetime] = _now,
        record: Record = unrecorded,
    ) -> None:
        self._config = config
        self._source = source
        self._connection = connection
        self._diagnostics = diagnostics
        self._now = now
        self._form = Form.FULL
        self._targets: list[Target] = []
        self._by_output: dict[str, list[Target]] = {}
        self._by_flag: dict[tuple[str, str], list[Target]] = {}
        self._wake = asyncio.Event()
        self._switched = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._writer: asyncio.Task[None] | None = None
        self._complaints: set[tuple[str, str]] = set()
        self._unsaid: dict[str, list[str]] = {}
        """By cause, the nodes of complaints that the log does not have yet."""
        self._writes = WriteLog(source, record, now)
        self.tell: Callable[[Target, str], None] = _nobody
        """Told of each advice that waits for approval, and of what becomes of it."""

    @property
    def name(self) -> str:
        """Name in logs and diagnostics."""
        return f"write-back:{self._source}"

    @property
    def targets(self) -> Sequence[Target]:
        """The nodes that may be written, while it is open."""
        return self._targets

    @asynccontextmanager
    async def open(self, tags: Sequence[OutputTag]) -> AsyncIterator[None]:
        """Write for as long as the context lasts. PublishError where two outputs are to go to one node."""
        self._targets, self._by_output, self._by_flag = [], {}, {}
        self._take(tags)
        async with asyncio.TaskGroup() as self._tasks:
            keeper = self._tasks.create_task(self._writes.keep(), name=f"{self.name} log") if self._targets else None
            self._start_writer()
            try:
                yield
            finally:
                self._stop_writer()
                if keeper is not None:
                    keeper.cancel()
        self._writes.end(self._targets)
        await self._writes.close()

    async def extend(self, tags: Sequence[OutputTag]) -> None:
        """More outputs, while it is open; PublishError, with none of them taken, where two are to go to one node."""
        self._take(tags)
        self._start_writer()

    def switch(self, config: WriteBackConfig) -> None:
        """Take up ``enabled`` and ``dry_run``. Off: what waits is dropped and counted; a request that is on its way to
        the server is not called back. On: the next result is written."""
        before, self._config = (
            self._config,
            self._config.model_copy(update={"enabled": config.enabled, "dry_run": config.dry_run}),
        )
        if before.enabled and not config.enabled:
            for target in self._targets:
                self._withdraw(target, "switched_off")
            self._writes.end(self._targets)
        self._switched.set()
        self._wake.set()
        _log.warning(
            "%s: writing is %s%s", self.name, "on" if config.enabled else "off", ", dry run" * self._config.dry_run
        )

    def _withdraw(self, target: Target, cause: str) -> None:
        for advice in filter(None, (target.advised, target.pending)):
            self._lost(target, advice, cause)
        target.advised = target.pending = target.written = None

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
        new = list(targets(self._config, self._source, [tag for tag in tags if tag.name not in known]))
        nodes = [target.node for target in (*self._targets, *new)]
        if twice := sorted(node for node, count in Counter(nodes).items() if count > 1):
            raise PublishError(f"{self.name}: two outputs are to be written to one node: {', '.join(twice)}")
        self._targets += new
        for target in new:
            self._by_output.setdefault(target.tag.name, []).append(target)
            if target.tag.flag:
                self._by_flag.setdefault((target.tag.model, target.tag.asset), []).append(target)
        how = ", dry run" * self._config.dry_run if self._config.enabled else ", but writing is off"
        _log.info("%s: %d node(s) may be written%s", self.name, len(nodes), how)

    async def publish(self, outcome: Outcome) -> None:
        """Leave the newest values for the writer; never waits for the server. A challenger's are never written."""
        if not self._config.enabled or outcome.run.kind is not RunKind.SCORE:
            return
        with self._diagnostics.stage("publish"):
            for prediction in outcome.predictions:
                for target in self._by_output.get(prediction.tag.name, ()):
                    self._offer(target, of_prediction(prediction))
            fresh = freshness(outcome.predictions)
            for flag in outcome.flags:
                for target in self._by_flag.get((flag.model, flag.asset), ()):
                    self._offer(target, of_flag(flag, fresh.get((flag.model, flag.asset))))
        self._wake.set()

    async def degrade(self, outage: Outage) -> None:
        """What was written from a source that is away loses its Good status in the plant too, where the rule and the
        server allow an Uncertain one; the next run's result takes its place. An advice is withdrawn."""
        for target in self._targets:
            if target.tag.name not in outage.outputs or not self._config.enabled:
                continue
            if target.advised is not None:
                self._lost(target, target.advised, "source_lost")
                target.advised = None
            if target.pending is not None and not target.pending.approved:
                self._lost(target, target.pending, "source_lost")
                target.pending = None
            if self._form > Form.BARE and (mark := target.mark(CUT_OFF)) is not None:
                target.pending, target.tries = mark, 0
        self._wake.set()

    async def inform(self, standings: Sequence[Standing]) -> None:
        """The plant's server has no nodes for that."""

    # --- what an operator approves -------------------------------------------------------------------------------

    def approve(self, target: Target, number: float, user: str) -> str:
        """Write the advice that waits. Why it is not, empty where it will be: ``nothing waits``, ``expired``, ``another
        value waits`` (``number`` is what the operator saw), ``writing is off``."""
        advice = target.advised
        if advice is None or not self._config.enabled:
            return "nothing waits" if self._config.enabled else "writing is off"
        if advice.stale(self._now()):
            return "expired"
        if abs(advice.value.number - number) > max(target.rule.tolerance, 1e-9 * abs(number)):
            return "another value waits"
        if target.pending is not None:  # approved before, and the plant's server was not there to take it
            self._lost(target, target.pending, "superseded")
        target.advised, target.pending = None, replace(advice, approved=user)
        target.tries = 0
        self._writes.note("approve", target, target.pending, "approved", user)
        self.tell(target, "approved")
        self._wake.set()
        return ""

    def reject(self, target: Target, user: str) -> str:
        """Drop the advice that waits; why not, as :meth:`approve`."""
        if target.advised is None:
            return "nothing waits"
        self._writes.note("reject", target, target.advised, "rejected", user)
        target.advised = None
        self.tell(target, "rejected")
        return ""

    def expire(self) -> None:
        """Withdraw what waits for approval past its time."""
        now = self._now()
        for target in self._targets:
            self._expire(target, now)

    def _expire(self, target: Target, now: datetime) -> None:
        if target.advised is not None and target.advised.stale(now):
            self._lost(target, target.advised, "stale")
            target.advised = None

    # --- what may wait for the writer ----------------------------------------------------------------------------

    def _offer(self, target: Target, advice: Advice | None) -> None:
        cause = refusal(target.rule, advice)
        if advice is None or cause:
            self._lost(target, advice, cause)
            if target.advised is not None:
                target.advised = None
            return
        if target.rule.approval:
            target.advised = advice
            self.tell(target, "waiting")
            return
        if target.pending is not None:
            self._supersede(target, target.pending)
        target.pending, target.tries = advice, 0

    def _supersede(self, target: Target, pending: Advice) -> None:
        """Within the minimum interval the newest value waits by rule, which is no loss."""
        if target.tries:
            self._lost(target, pending, target.failed)
        elif target.not_before <= asyncio.get_running_loop().time():
            self._diagnostics.publish_failures.labels(self.name, "superseded").inc()

    def _lost(self, target: Target, advice: Advice | None, cause: str) -> None:
        """Count it, put it on record, and warn once until the node is written again."""
        self._diagnostics.publish_failures.labels(self.name, cause).inc()
        self._writes.note("refused", target, advice, cause)
        self.tell(target, cause)
        if (target.node, cause) not in self._complaints:
            self._complaints.add((target.node, cause))
            if not self._unsaid:
                asyncio.get_running_loop().call_soon(self._complain)
            self._unsaid.setdefault(cause, []).append(target.node)

    def _complain(self) -> None:
        """What befell many nodes at once is one line."""
        for cause, nodes in self._unsaid.items():
            more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
            _log.warning("%s: not written: %s%s: %s", self.name, nodes[0], more, cause)
        self._unsaid.clear()

    # --- the writer ----------------------------------------------------------------------------------------------

    async def _write_forever(self) -> None:
        delay = _RETRY_SECONDS[0]
        while True:
            self._switched.clear()
            if not self._config.enabled:
                await self._switched.wait()
                continue
            try:
                async with connected(self._connection, self._form) as client:
                    _log.info("%s: connected to %s", self.name, self._connection.terms.endpoint)
                    delay = _RETRY_SECONDS[0]
                    self._complaints.discard((self._connection.terms.endpoint, "connection"))
                    await self._serve(client)
                continue
            except SourceError as error:
                self._diagnostics.reconnects.labels(self.name, type(error).__name__).inc()
                if (self._connection.terms.endpoint, "connection") not in self._complaints:
                    self._complaints.add((self._connection.terms.endpoint, "connection"))
                    _log.warning("%s: %s; trying again by itself", self.name, error)
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, no secret
            delay = min(2 * delay, _RETRY_SECONDS[1])

    async def _serve(self, client: PlantClient) -> None:
        """Until writing is switched off."""
        nodes: dict[str, Node] = {}
        while self._config.enabled:
            self._wake.clear()
            await client.review()
            due = [target for target in self._targets if self._due(target)]
            if due:
                await self._write(client, nodes, due)
                self._form = client.form
            elif not await self._wait():
                await client.alive()

    def _due(self, target: Target) -> bool:
        """Ages what was written too: the plant's node must not show an old number as Good."""
        now, written = self._now(), target.written
        self._expire(target, now)
        if written is not None and written.stale(now):
            if target.pending is None and self._form > Form.BARE:
                target.pending, target.tries = target.mark(STALE, written.valid_until), 0
            target.written = None
        if target.pending is not None and target.pending.stale(now):
            self._lost(target, target.pending, "stale")
            target.pending = None
        return target.pending is not None and target.not_before <= asyncio.get_running_loop().time()

    async def _wait(self) -> bool:
        """Until something may be due; False where nothing came for so long that the session wants a sign of life."""
        loop_time, now = asyncio.get_running_loop().time(), self._now()
        moments = [target.not_before - loop_time for target in self._targets if target.pending is not None]
        moments += [
            (advice.valid_until - now).total_seconds()
            for target in self._targets
            for advice in (target.written, target.advised)
            if advice is not None and advice.valid_until is not None
        ]
        left = min(moments, default=_ALIVE_SECONDS)
        try:
            async with asyncio.timeout(min(max(left, 0.001), _ALIVE_SECONDS)):
                await self._wake.wait()
        except TimeoutError:
            return left < _ALIVE_SECONDS
        return True

    async def _write(self, client: PlantClient, nodes: dict[str, Node], due: Sequence[Target]) -> None:
        advices = {target: target.pending for target in due if target.pending is not None}
        missing = [target.demand for target in advices if target.node not in nodes]
        found = await client.resolve(missing) if missing else {}
        nodes.update((text, node) for text, node in found.items() if isinstance(node, Node))
        ready = [target for target in advices if target.node in nodes]
        results = {target: str(found[target.node]) for target in advices if target not in ready}
        now = self._now()
        misfits = {each: unfit(each, advices[each], nodes[each.node], now) for each in ready}
        results.update((each, cause) for each, cause in misfits.items() if cause)
        ready = [target for target in ready if target not in results]
        if not self._config.enabled:  # while the nodes were looked up
            return
        if self._config.dry_run:
            results.update(dict.fromkeys(ready, "DryRun"))
        elif ready:
            results.update(await self._write_and_check(client, nodes, {target: advices[target] for target in ready}))
        for target, advice in advices.items():
            self._settle(target, advice, results[target])

    async def _write_and_check(
        self, client: PlantClient, nodes: Mapping[str, Node], advices: Mapping[Target, Advice]
    ) -> dict[Target, str]:
        values = {target: advice.value for target, advice in advices.items()}
        try:
            codes = await client.write([nodes[target.node] for target in values], list(values.values()))
            results = dict(zip(values, codes, strict=True))
            written = [target for target, code in results.items() if code == "Good"]
            differs = await client.differs([nodes[target.node] for target in written], [values[t] for t in written])
        except SourceError:
            for target, advice in advices.items():  # it may have arrived, and is written again on the next connection
                self._writes.note("write", target, advice, "Unknown")
            raise
        results.update((target, "ReadBackDiffers") for target, wrong in zip(written, differs, strict=True) if wrong)
        return results

    def _settle(self, target: Target, advice: Advice, result: str) -> None:
        """A newer value that came meanwhile stays pending."""
        now = asyncio.get_running_loop().time()
        target.not_before = now + target.rule.minimum_interval.total_seconds()
        if result == "DryRun":
            self._writes.note("dry-run", target, advice, result)
            self.tell(target, "dry run")
        elif result == "Good":
            self._wrote(target, advice)
        elif target.pending is advice and target.try_again(result, now):
            self._writes.note("retry", target, advice, result)
            return
        else:
            self._lost(target, advice, result)
        if target.pending is advice:
            target.pending = None

    def _wrote(self, target: Target, advice: Advice) -> None:
        target.written = advice if advice.valid_until is not None else None
        target.reference = advice.value.number, self._now()
        self._diagnostics.published.labels(self.name).inc()
        self._writes.note("write", target, advice, "Good")
        self.tell(target, "written")
        self._complaints = {complaint for complaint in self._complaints if complaint[0] != target.node}
