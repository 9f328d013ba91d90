"""A plant's OPC UA server as a :class:`plugin.protocols.Source`: connect, recover, pump, watch, and again after a cut.

    CONNECTING ──> RECOVER ──> RUNNING <──> DEGRADED (some tags are refused)
        ^             │            │            │
        └── pause ────┴────────────┴────────────┘  any error
    BLOCKED: certificate, policy or credential refused; tried again slowly, since a person has to act

What the tags' owner may rely on: values of a tag come in the order of the server's messages; a value is acknowledged to
the server only after :attr:`Delivery.confirm`; a value that did not come is inside a gap.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from asyncua.client.ua_session import UaSession

from plugin.acquire.arrivals import Arrivals
from plugin.acquire.backfill import Backfill
from plugin.acquire.bridge import Bridge
from plugin.acquire.condition import Condition
from plugin.acquire.config import SourceConfig
from plugin.acquire.current import Currents
from plugin.acquire.gaps import Gaps, Loss
from plugin.acquire.intake import Intake
from plugin.acquire.items import Item
from plugin.acquire.kept_session import SessionFile
from plugin.acquire.losses import Losses
from plugin.acquire.outbox import Outbox
from plugin.acquire.polling import Polling, unsupported
from plugin.acquire.pump import Acknowledgements, Pumps
from plugin.acquire.refusals import Refusals
from plugin.acquire.resume import read_standings
from plugin.acquire.roster import Roster
from plugin.acquire.server import ServerInfo, describe
from plugin.acquire.session import ServiceFault, Session
from plugin.acquire.silence import Silence
from plugin.acquire.structures import Structures
from plugin.acquire.subscription import Subscription, restarted
from plugin.acquire.watchdog import Watchdog
from plugin.acquire.wire import now_micros
from plugin.diagnostics import Diagnostics
from plugin.domain import GapCause, Micros, SampleBatch, Tag
from plugin.errors import SourceError, SourceRefused
from plugin.protocols import Delivery, Health, HistoryProgress

_log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.2  # [s] doubled after each failure
_STEADY = 5.0  # [s]
_BLOCKED_PAUSE = 5.0  # [s] a person acts; more often is noise in the server's log
_RETRY = (2.0, 60.0)  # [s] first and longest pause before refused tags are asked for again
_STRANGER = 12  # timeouts: so long may a subscription of ours take to be made


_OVERDUE = "the server has not spoken for longer than it promised"


class State(StrEnum):
    """Where the source stands."""

    DISABLED = "disabled"
    CONNECTING = "connecting"
    RECOVER = "recover"
    RUNNING = "running"
    DEGRADED = "degraded"
    BLOCKED = "blocked"


class OpcUaSource:
    """Samples of one plant server.

    ``known``: the newest stored source time by :attr:`Tag.id`; ``checkpoints``: what deliveries left in the store under
    keys that begin with ``<name>/``. Both empty: a first start.
    """

    def __init__(
        self,
        config: SourceConfig,
        tags: Sequence[Tag],
        diagnostics: Diagnostics,
        pki_folder: Path,
        known: Mapping[int, Micros] | None = None,
        checkpoints: Mapping[str, str] | None = None,
        application_uri: str = "urn:foretag",
        session_folder: Path | None = None,
    ) -> None:
        self.state = State.DISABLED
        self.trouble = ""
        """Why it is not running, for a person."""
        self._config = config
        self._diagnostics = diagnostics
        self._checkpoints = dict(checkpoints or {})
        kept = session_folder / f"{config.name}.session" if session_folder and config.resume else None
        self._resumes = kept is not None
        self._session = Session(config, pki_folder, application_uri, SessionFile(kept))
        self._structures = Structures(config.name, lambda: self._session.services)
        self._intake = Intake(config.name, tags, known or {}, diagnostics, self._structures)
        self._gaps = Gaps(config.name, tags, diagnostics, self._checkpoints)
        self._outbox = Outbox(config.buffer, self._gaps, diagnostics.queue_depth.labels(config.name))
        history = config.history
        self._backfill = Backfill(config.name, history, self._intake, self._outbox, self._gaps, diagnostics)
        self._losses = Losses(config.name, history, self._intake, self._gaps, self._backfill)
        self._acks = Acknowledgements()
        self._currents = Currents(config, self._intake, self._outbox)
        self._arrivals = Arrivals(
            config.name, self._intake, self._losses, self._outbox, self._acks, diagnostics, self._currents
        )
        standings = read_standings(config.name, self._checkpoints) if self._resumes else {}
        self._roster = Roster(config, tags, self._intake, self._arrivals, standings)
        self._subscriptions = self._roster.subscriptions
        self._watchdog = Watchdog(config.name, config.watchdog, self._intake, diagnostics)
        self._condition = Condition(config)
        self._changed = asyncio.Event()
        self._lost: dict[Subscription, Loss] = {}
        self._refusals = Refusals(config.name, self._intake, self._losses)
        self._silence = Silence(config, self._session, self._subscriptions)
        self._polling = Polling(config, self._roster, self._intake, self._losses, self._outbox, diagnostics)
        self._polled = False
        self._first_total: int | None = None
        self._bridge = Bridge(config, diagnostics.bridge.labels(config.name))
        self._server_started: Micros = 0

    @property
    def items(self) -> tuple[Item, ...]:
        """Every tag with what the server answered for it."""
        return self._roster.items

    # --- plugin.protocols.Source ---

    @property
    def name(self) -> str:
        return self._config.name

    def connected(self) -> bool:
        return self.state in {State.RUNNING, State.DEGRADED} and any(item.monitored for item in self.items)

    def health(self) -> Health:
        condition, names = self._condition, self._watchdog.names
        spoken = max((subscription.latest for subscription in self._subscriptions), default=0) or condition.heard
        spoken = spoken or int(self._intake.reached.max(initial=0))
        connected, overdue = self.connected(), self._silence.overdue
        tags = len(self.items)
        return Health(
            state=self.state.value,
            connected=connected,
            away_since=condition.unfit_since if connected and not overdue else spoken,
            trouble=self.trouble.removeprefix(f"{self.name}: ") or (_OVERDUE if overdue else condition.trouble),
            heard=max(spoken, condition.heard),
            ahead=condition.ahead,
            service_level=condition.service_level,
            tags=tags,
            monitored=tags - len(self._refusals.handles) if connected else 0,
            silent=names["silent"],
            late=names["late"],
            flat=names["flat"],
        )

    def history_progress(self) -> HistoryProgress:
        if not self._config.enabled or not self.items:
            return HistoryProgress(self.name, 0, 0, 0, finished=True)
        total, left = self._first_total, self._backfill.left()
        if total is None:
            return HistoryProgress(self.name, 0, len(self.items), 0, finished=False)
        finished = left == 0 and self._backfill.uncommitted == 0
        return HistoryProgress(self.name, max(0, total - left), total, self._backfill.rows, finished)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        if not self._config.enabled:
            await asyncio.Event().wait()
        while not self.items:
            self._changed.clear()
            await self._changed.wait()
        self._outbox.rewind()
        self._ending = False
        running = asyncio.create_task(self._run(), name=f"source {self.name}")
        try:
            while True:
                yield await self._outbox.get()
        finally:
            self._ending = True
            running.cancel()
            await asyncio.wait({running})

    # --- other tags ---

    def change(
        self,
        tags: Sequence[Tag],
        known: Mapping[int, Micros] | None = None,
        checkpoints: Mapping[str, str] | None = None,
    ) -> None:
        """These tags from now on, and no others, within a moment or with the next connection; what stays the same is
        not touched.

        ``known`` and ``checkpoints`` as for the source, of the tags that are new to it.
        """
        changed = self._roster.change(tags, known or {})
        self._gaps.admit([item.tag for item in (*changed.added, *(new for _, new in changed.replaced))])
        for old, new in changed.replaced:
            self._gaps.replace(old.handle, new.handle)
            self._refusals.replace(old.handle, new.handle)
        for item in changed.removed:
            self._refusals.leave(item.handle)
            self._backfill.leave(item.handle)
            self._gaps.leave(item.handle)
        if self._first_total is None:
            self._checkpoints.update(checkpoints or {})
        else:
            self._first_total += self._losses.added(changed.added, checkpoints or {})
        self._changed.set()

    # --- the life of the connection ---

    async def _run(self) -> None:
        """Over and over, until it is cancelled.

        A cancellation can be lost on its way: an error of the same moment outdoes it in a TaskGroup, and asyncua takes
        it for the end of the task that it awaits. ``_ending`` is not lost.
        """
        failures = 0
        try:
            while True:
                self.state = State.CONNECTING if self.state is not State.BLOCKED else State.BLOCKED
                try:
                    await self._serve()
                except* SourceError as errors:
                    self._down(_first(errors))
                except* Exception as errors:  # noqa: BLE001 - the supervisor of this task: whatever it was, go on
                    self._diagnostics.task_failures.labels(f"source {self.name}").inc()
                    _log.exception("%s: unexpected error; the connection is made anew", self.name)
                    self._down(_first(errors))
                if self._ending:
                    return
                failures = 0 if self._steady() else failures + 1
                await asyncio.sleep(self._pause(failures))
        finally:
            self.state = State.DISABLED
            self._diagnostics.connected.labels(self.name).set(0)
            await (self._session.leave() if self._resumes else self._session.close())

    _ending = False
    _up_since: float | None = None

    def _steady(self) -> bool:
        """The connection that was lost had lasted; one that comes and goes at once is tried less and less often."""
        since, self._up_since = self._up_since, None
        return since is not None and asyncio.get_running_loop().time() - since > _STEADY

    def _down(self, error: BaseException) -> None:
        refused = isinstance(error, SourceRefused)
        self.state = State.BLOCKED if refused else State.CONNECTING
        trouble = str(error)
        if trouble != self.trouble:  # once, not at every attempt
            _log.log(logging.ERROR if refused else logging.WARNING, "%s", trouble)
        self.trouble = trouble
        self._diagnostics.connected.labels(self.name).set(0)

    def _pause(self, failures: int) -> float:
        longest = self._config.reconnect_max.total_seconds()
        if self.state is State.BLOCKED:
            return min(_BLOCKED_PAUSE, longest)
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - many clients of one server must not come back in step
        return float(min(longest, _FIRST_PAUSE * 2 ** min(failures, 20)) * jitter)

    async def _serve(self) -> None:
        """One connection, until it is lost: that is raised."""
        again = await self._session.open()
        self._structures.forget()
        try:
            services = self._session.services
            info = await describe(services)
            self._losses.ahead = max(0, info.ahead, *(subscription.ahead for subscription in self._subscriptions))
            self._losses.behind = min(0, info.ahead)
            self._diagnostics.reconnects.labels(self.name, "reused" if again else "new").inc()
            self.state = State.RECOVER
            if await self._polls(info, again=again):
                await self._poll(services, info)
            self._up_since, self.trouble = asyncio.get_running_loop().time(), ""
            subscriptions = [subscription for subscription in self._subscriptions if subscription.id]
            self._acks.keep(frozenset(subscription.id for subscription in subscriptions))
            patience = _STRANGER * self._config.timeout.total_seconds()
            most = self._config.publish_requests
            pumps = Pumps(self.name, services, subscriptions, self._acks, self._diagnostics, patience, most)
            async with asyncio.TaskGroup() as group:
                group.create_task(pumps.run())
                group.create_task(self._silence.watch(pumps))
                group.create_task(self._keep_items(pumps))
                group.create_task(self._session.watch_trust())
                group.create_task(self._backfill.run(services, info))
                group.create_task(self._currents.run(services, info))
                group.create_task(self._watchdog.run(self._refusals.handles))
                group.create_task(self._condition.watch(services))
        except Exception:
            await self._session.drop()
            raise

    async def _polls(self, info: ServerInfo, *, again: bool) -> bool:
        """Whether the tags are read; else their subscriptions live now."""
        if self._config.mode == "poll":
            return True
        try:
            await self._recover(info, again=again)
        except ServiceFault as fault:
            if self._config.mode != "auto" or not unsupported(fault):
                raise
            if not self._polled:
                _log.warning("%s: the server knows no subscriptions; its tags are read instead", self.name)
            return True
        self._polled = False
        return False

    async def _poll(self, services: UaSession, info: ServerInfo) -> None:
        """Read the tags, until the connection is lost: that is raised."""
        self._polled = True
        cause = GapCause.SERVER_DOWN if restarted(self._server_started, info.started) else GapCause.POLL_MISSED
        self._server_started = info.started
        if self._first_total is None:
            self._begin()
        self._up_since, self.trouble = asyncio.get_running_loop().time(), ""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._polling.run(services, info, self._changed, self._review_items, cause))
            group.create_task(self._session.watch_trust())
            group.create_task(self._backfill.run(services, info))
            group.create_task(self._watchdog.run(self._refusals.handles))
            group.create_task(self._condition.watch(services))

    async def _recover(self, info: ServerInfo, *, again: bool) -> None:
        """Every subscription lives: taken up, or made anew with a gap for what was missed."""
        services = self._session.services
        begin = now_micros()
        cause = GapCause.SERVER_DOWN if restarted(self._server_started, info.started) else GapCause.SUBSCRIPTION_LOST
        if self._first_total is None and not any(subscription.id for subscription in self._subscriptions):
            self._roster.fit(info)
        refusal: ServiceFault | None = None
        for subscription in tuple(self._subscriptions):
            if not await subscription.take_up(services, info, new_session=not again):
                refusal = await self._make(subscription, info, cause) or refusal
            elif not subscription.complete:
                self._changed.set()
            if marks := subscription.checkpoint():
                self._outbox.add(Delivery(SampleBatch.empty(), checkpoint=marks))
        if refusal is not None and not any(subscription.id for subscription in self._subscriptions):
            raise refusal
        self._server_started = info.started
        if self._first_total is None:
            self._begin()
        await self._review_items(self.items, begin)
        self._bridge.measure(self._session.lifetime, self._subscriptions)

    async def _make(self, subscription: Subscription, info: ServerInfo, cause: GapCause) -> ServiceFault | None:
        """Anew, with a gap for what was missed; the first time it is our own downtime that was missed.

        A server that has enough of subscriptions may refuse one and keep the others: returns what it said.
        """
        handles = [item.handle for item in subscription.items]
        if subscription.latest and subscription not in self._lost and self._first_total is not None:
            set_back = min(0, info.ahead - subscription.ahead)  # the server's clock, meanwhile
            self._lost[subscription] = self._losses.begin(cause, handles, subscription.latest + set_back)
            await self._outbox.tell()
        if handles or not self.items:  # without a subscription the server would refuse to publish
            try:
                await subscription.create(self._session.services, info)
            except ServiceFault as fault:
                if self._config.mode == "auto" and unsupported(fault):
                    raise
                _log.warning("%s: %d tag(s) are not monitored: %s", self.name, len(handles), fault)
                if subscription not in self._lost:
                    start = now_micros() + self._losses.behind
                    self._lost[subscription] = self._losses.begin(cause, handles, start, detail=str(fault))
                return fault
        self._made(subscription)
        return None

    def _made(self, subscription: Subscription) -> None:
        """Its values arrive, or should."""
        if subscription in self._lost:
            self._losses.end(self._lost.pop(subscription))
        self._currents.expect(item.handle for item in subscription.items if item.monitored)

    def _begin(self) -> None:
        """At the first connection of this process: our own downtime, and the past of new tags."""
        by_name = {item.tag.name: item.handle for item in self.items}
        begun = [loss.gap.id for loss in self._lost.values()]
        for loss in self._gaps.left_open():
            if loss.gap.id in begun:
                continue
            if loss.gap.cause is GapCause.BAD_ITEM and loss.gap.end is None and loss.gap.tag in by_name:
                self._refusals.resume(by_name[loss.gap.tag], loss)
            else:
                self._losses.resume(loss)
        self._first_total = self._losses.first(self.items, self._checkpoints)
        self._checkpoints.clear()

    # --- changed and refused tags ---

    async def _keep_items(self, pumps: Pumps) -> None:
        """Ask for tags that are new at once; and again for those that the server refused or whose node went away, less
        and less often."""
        pause = _RETRY[0]
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            changed = self._changed.is_set()
            if changed or any(s.items and not s.id for s in self._subscriptions):
                self._changed.clear()
                await self._bring_about(pumps)
            if changed:
                continue
            wanted = [item for item in self.items if not item.monitored or item.handle in self._arrivals.removed]
            if not wanted:
                pause = _RETRY[0]
                continue
            services = self._session.services
            info = await describe(services)
            self._refusals.removed(self._arrivals.removed)
            asked = {item.handle for item in wanted}
            for subscription in tuple(self._subscriptions):
                if subscription.id and (mine := [item for item in subscription.items if item.handle in asked]):
                    await subscription.retry(services, info, mine)
            for handle in asked:
                self._arrivals.removed.pop(handle, None)
            self._currents.expect(item.handle for item in wanted if item.monitored)
            better = any(item.monitored for item in wanted)
            await self._review_items(wanted)
            pause = _RETRY[0] if better else min(2 * pause, _RETRY[1])

    async def _bring_about(self, pumps: Pumps) -> None:
        services = self._session.services
        subscriptions, asked = await self._roster.bring_about(services, await describe(services))
        for subscription in subscriptions:
            pumps.add(subscription)
            self._made(subscription)
        self._currents.expect(item.handle for item in asked if item.monitored)
        await self._review_items(asked)
        for item in await self._roster.let_go(services):
            start, detail = int(self._intake.reached[item.handle]), "the tag was changed"
            self._losses.past(
                GapCause.SUBSCRIPTION_LOST, [item.handle], start, now_micros(), tag=item.tag.name, detail=detail
            )
        await self._outbox.tell()

    async def _review_items(self, items: Iterable[Item], since: Micros | None = None) -> None:
        """What the server answered for these; ``since``: a refusal began then, else now."""
        self._refusals.review(items, since)
        failed = sum(item.asked and not item.monitored for item in self.items)
        if not self._polled:
            failed += sum(len(subscription.items) for subscription in self._subscriptions if not subscription.id)
        self._diagnostics.items_failed.labels(self.name).set(failed)
        self.state = State.DEGRADED if failed else State.RUNNING
        self._diagnostics.connected.labels(self.name).set(self.connected())
        await self._outbox.tell()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """One of a group, to speak for all."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
