"""A plant's OPC UA server as a :class:`plugin.protocols.Source`: connect, recover, pump, watch, and again after a cut.

    CONNECTING ──> RECOVER ──> RUNNING <──> DEGRADED (some tags are refused)
        ^             │            │            │
        └── pause ────┴────────────┴────────────┘  any error
    BLOCKED: certificate, policy or credential refused; tried again slowly, since a person has to act

What the tags' owner may rely on: values of a tag come in the order of the server's messages; a value is acknowledged to
the server only after :attr:`Delivery.confirm`; a value that did not come is inside a gap.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from plugin.acquire.arrivals import Arrivals
from plugin.acquire.backfill import Backfill
from plugin.acquire.condition import Condition
from plugin.acquire.config import SourceConfig
from plugin.acquire.connection import Connection, Way
from plugin.acquire.gaps import Gaps
from plugin.acquire.intake import Intake
from plugin.acquire.items import Item
from plugin.acquire.kept_session import SessionFile
from plugin.acquire.losses import Losses
from plugin.acquire.outbox import Outbox
from plugin.acquire.past import Past
from plugin.acquire.polling import Polling
from plugin.acquire.refusals import Refusals
from plugin.acquire.reporting import Reporting, unsupported
from plugin.acquire.resume import read_subscriptions
from plugin.acquire.roster import Roster
from plugin.acquire.server import describe
from plugin.acquire.session import ServiceFault, Session
from plugin.acquire.structures import Structures
from plugin.acquire.subscription import restarted
from plugin.acquire.watchdog import Watchdog
from plugin.acquire.wire import now_micros
from plugin.complaints import Complaints
from plugin.diagnostics import Diagnostics
from plugin.domain import Gap, Micros, Tag
from plugin.errors import SourceError, SourceRefused
from plugin.protocols import Delivery, Health, HistoryProgress

_log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.2  # [s] doubled after each failure
_STEADY = 5.0  # [s]
_BLOCKED_PAUSE = 5.0  # [s] a person acts; more often is noise in the server's log
_MOST_TOLD = 20  # different troubles in the log before the connection stands again
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
    keys that begin with ``<name>/``; ``open_gaps``: those of the source that the store has as open. All empty: a first
    start.
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
        open_gaps: Iterable[Gap] = (),
    ) -> None:
        self.state = State.DISABLED
        self.trouble = ""
        """Why it is not running, for a person."""
        self._told = Complaints(most=_MOST_TOLD)
        self._config = config
        self._diagnostics = diagnostics
        left = checkpoints or {}
        kept = session_folder / f"{config.name}.session" if session_folder and config.resume else None
        self._resumes = kept is not None
        self._session = Session(config, pki_folder, application_uri, SessionFile(kept))
        self._structures = Structures(config.name, lambda: self._session.services)
        self._intake = Intake(config.name, tags, known or {}, diagnostics, self._structures)
        gaps = Gaps(config.name, tags, diagnostics, left, open_gaps)
        self._outbox = Outbox(config.buffer, gaps, diagnostics.queue_depth.labels(config.name))
        self._backfill = Backfill(config.name, config.history, self._intake, self._outbox, gaps, diagnostics)
        self._losses = Losses(config.name, config.history, self._intake, gaps, self._backfill)
        self._refusals = Refusals(config.name, self._intake, self._losses)
        self._past = Past(config.name, gaps, self._losses, self._refusals, self._backfill, left)
        arrivals = Arrivals(config, self._intake, self._losses, self._outbox, diagnostics)
        subscriptions = read_subscriptions(config.name, left) if self._resumes else {}
        self._roster = Roster(config, tags, self._intake, arrivals, subscriptions)
        self._reporting = Reporting(config, self._session, self._roster, arrivals, self._refusals, diagnostics)
        self._polling = Polling(config, self._roster, self._intake, self._losses, self._outbox, diagnostics)
        self._way: Way = self._reporting
        self._watchdog = Watchdog(config.name, config.watchdog, self._intake, diagnostics)
        self._condition = Condition(config)
        self._server_started: Micros = 0
        self._up_since: float | None = None
        self._ending = False

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
        spoken = max((subscription.latest for subscription in self._roster.subscriptions), default=0)
        spoken = spoken or condition.heard or int(self._intake.reached.max(initial=0))
        connected, overdue = self.connected(), self._reporting.overdue
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
        return self._past.progress(len(self.items))

    async def deliveries(self) -> AsyncIterator[Delivery]:
        if not self._config.enabled:
            await asyncio.Event().wait()
        while not self.items:
            self._roster.changed.clear()
            await self._roster.changed.wait()
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
        self._past.change(self._roster.change(tags, known or {}), checkpoints or {})

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

    def _steady(self) -> bool:
        """The connection that was lost had lasted; one that comes and goes at once is tried less and less often."""
        since, self._up_since = self._up_since, None
        return since is not None and asyncio.get_running_loop().time() - since > _STEADY

    def _up(self, *, again: bool) -> None:
        self._up_since, self.trouble = asyncio.get_running_loop().time(), ""
        self._told = Complaints(most=_MOST_TOLD)
        _log.info("%s: connected; the session %s", self.name, "of before goes on" if again else "is new")

    def _down(self, error: BaseException) -> None:
        refused = isinstance(error, SourceRefused)
        self.state = State.BLOCKED if refused else State.CONNECTING
        self.trouble = trouble = f"{self.name}: {str(error).removeprefix(f'{self.name}: ')}"
        if told := self._told.about(trouble, trouble):  # not at every attempt
            _log.log(logging.ERROR if refused else logging.WARNING, "%s", told)
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
            connection = await self._meet(again=again)
            self.state = State.RECOVER
            self._way = way = await self._begin(connection)
            self._server_started = connection.info.started
            if connection.first:  # only now it is known for which tags the server kept what came meanwhile
                self._past.begin(self.items)
            self._up(again=again)
            async with asyncio.TaskGroup() as group:
                group.create_task(way.run(connection, self._review))
                group.create_task(self._session.watch_trust())
                group.create_task(self._backfill.run(connection.services, connection.info))
                group.create_task(self._watchdog.run(self._refusals.handles))
                group.create_task(self._condition.watch(connection.services))
        except Exception:
            await self._session.drop()
            raise

    async def _meet(self, *, again: bool) -> Connection:
        """Hear who the server is, and how its clock goes."""
        services = self._session.services
        info = await describe(services)
        self._losses.ahead = max(0, info.ahead, *(subscription.ahead for subscription in self._roster.subscriptions))
        self._losses.behind = min(0, info.ahead)
        self._diagnostics.reconnects.labels(self.name, "reused" if again else "new").inc()
        anew = restarted(self._server_started, info.started)
        return Connection(services, info, now_micros(), first=not self._past.begun, again=again, restarted=anew)

    async def _begin(self, connection: Connection) -> Way:
        """The server reports, or its tags are read; returns which."""
        if self._config.mode != "poll":
            try:
                await self._reporting.begin(connection)
            except ServiceFault as fault:
                if self._config.mode != "auto" or not unsupported(fault):
                    raise
                if self._way is not self._polling:
                    _log.warning("%s: the server knows no subscriptions; its tags are read instead", self.name)
            else:
                return self._reporting
        await self._polling.begin(connection)
        return self._polling

    async def _review(self, items: Sequence[Item], since: Micros) -> None:
        """What the server answered for these; a refusal among them began at ``since``."""
        self._refusals.review(items, since)
        failed = self._way.failed()
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
