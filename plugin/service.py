"""The composition root. Read this first: it builds the parts, and starts and stops them in order.

    sources ──deliveries──> Ingest ──commit──> Store ──windows──> Scorer ──outcome──> Store, then sinks
                               └─confirm─> acknowledged to the plant's server

Start: database, and what is in the spill and it lacks; acquisition of past and present; the device; the sinks; the
schedule. A database that can't be read is waited for; one that is readable but takes nothing is enough to acquire, into
the spill. Models that do not exist yet are trained when the past has been read. Stop, each step bounded in time:
training; no new runs, and the running ones end; results are no longer served; acquisition ends with its last
transaction committed; the database closes.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableSequence, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from models.kind import ModelKind
from plugin import __version__, lock
from plugin.acquire.config import Policy, SourceConfig
from plugin.acquire.source import OpcUaSource
from plugin.config import Config, load
from plugin.diagnostics import Diagnostics
from plugin.domain import Asset, Micros, OutputTag, Tag
from plugin.errors import ConfigError, Fault, ForetagError, StoreUnavailable
from plugin.exposition import serving
from plugin.historian.ingest import Ingest
from plugin.historian.spill import POSITION, Left, Spill
from plugin.historian.sql import SqlStore
from plugin.historian.sqlite import database_path
from plugin.hmi.overview import Overview
from plugin.infer.compute import Compute
from plugin.infer.config import ModelConfig
from plugin.infer.outages import Outages
from plugin.infer.outputs import model_spec
from plugin.infer.registry import Registry
from plugin.infer.runs import Runs, Training
from plugin.infer.scoring import Scorer
from plugin.pki import Caretaker
from plugin.protocols import Sink, Source, Store
from plugin.publish.admission import certificate_hosts
from plugin.publish.server import OpcUaSink
from plugin.publish.writeback import Connection, WriteBack
from plugin.reloading import Reloaded, Reloading
from plugin.schedule import Job, Schedule

log = logging.getLogger(__name__)

T = TypeVar("T")

_RESTART_DELAYS = (0.5, 1.0, 5.0, 30.0)
"""Before a supervised task that ended with an error is started again [s]; the last one repeats."""
_DATABASE_PAUSE = 1.0
"""Between two tries of a database that is away at the start [s]."""


class Service:
    """The running plugin."""

    def __init__(self, config: Config, diagnostics: Diagnostics | None = None) -> None:
        self.config = config
        self.diagnostics = diagnostics or Diagnostics()
        self.diagnostics.build.info({"version": __version__, "data": str(config.data)})
        self.overview: asyncio.Future[Overview] = asyncio.get_running_loop().create_future()
        """What a view shows; there when the database is open."""
        self.runs: asyncio.Future[Runs] = asyncio.get_running_loop().create_future()
        """There when the sinks are open."""
        self.reloading: asyncio.Future[Reloading] = asyncio.get_running_loop().create_future()
        """There when all is running."""
        self._stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set. Raises ForetagError where the service can't start."""
        try:
            async with AsyncExitStack() as stack:
                try:
                    await self._run(stack, stop)
                finally:
                    self._stopping = True  # before the first task is told to end
            log.info("stopped")
        except* _Stopped:
            log.info("stopped before the database was available")

    async def _run(self, stack: AsyncExitStack, stop: asyncio.Event) -> None:
        enter = stack.enter_async_context
        stack.enter_context(lock.hold(_lock_files(self.config), self.config.path))
        await enter(serving(self.config.diagnostics, self.diagnostics))
        wait = partial(_when_available, stop)
        store = await wait(lambda: enter(open_store(self.config, self.diagnostics, alone=True)))
        tags = await wait(lambda: store.register_tags(self.config.tags))
        spill = Spill.configured(self.config.historian.spill, self.config.data)
        left = await wait(lambda: open_spill(spill, store, tags, self.diagnostics))
        if spill is not None:
            stack.callback(spill.close)
        await enter(self._certificate())
        sources = await wait(lambda: self._sources(tags, store, left))
        overview = Overview(sources, Asset.gather(tags), self.config.models, self.diagnostics)
        self.overview.set_result(overview)
        await enter(self._acquiring(sources, store, spill, overview))
        compute = await enter(open_compute(self.config, self.diagnostics))
        registry = Registry(store, self.config.model_folder)
        scorers = self.scorers(tags, store, registry, compute, sources)
        sinks = self._sinks(overview)
        for sink in sinks:
            await enter(sink.open(_outputs(scorers)))
        await enter(_running(Outages(sources, scorers, sinks, self.diagnostics).watch()))
        runs = Runs(store, sinks, self.diagnostics)
        await wait(lambda: runs.end_unfinished([scorer.config.name for scorer in scorers]))
        await enter(self._scoring(scorers, runs))
        training = Training(store, registry, compute, self.diagnostics, overview.training)
        past_is_read = _past_is_read(sources)
        await enter(_running(self._supervised("training", lambda: training.train_missing(scorers, past_is_read))))

        async def rescore(tags: Sequence[Tag]) -> tuple[list[str], list[str]]:
            wanted = self.scorers(tags, store, registry, compute, sources)
            return await _rescore(scorers, wanted, sinks)

        self.reloading.set_result(Reloading(self.config, store, sources, overview, rescore, spill))
        await stop.wait()
        log.info("stopping")

    @asynccontextmanager
    async def _certificate(self) -> AsyncIterator[None]:
        """Our own, looked after; there before anybody needs it, with all the names that it has to say."""
        config, publish = self.config, self.config.publish
        plain = publish.security == ("None",) or not publish.enabled
        if plain and all(source.security_policy is Policy.NONE for source in config.sources):
            yield
            return
        ends = self.diagnostics.certificate_ends.set
        caretaker = Caretaker(config.pki_folder, publish.application_uri, certificate_hosts(publish), ends)
        await caretaker.look()
        async with _running(caretaker.run()):
            yield

    def _acquiring(
        self, sources: Sequence[Source], store: Store, spill: Spill | None, overview: Overview
    ) -> AbstractAsyncContextManager[None]:
        """From the sources into the store, and what watches over it."""
        historian = self.config.historian
        ingest = Ingest(
            sources,
            store,
            self.diagnostics,
            on_commit=[overview.committed],
            rows_per_commit=historian.rows_per_commit,
            queue=historian.queue,
            spill=spill,
        )
        acquisition = self._supervised("acquisition", ingest.run)
        return _running(acquisition, self.diagnostics.watch_loop(), overview.watch(store))

    @asynccontextmanager
    async def _scoring(self, scorers: Sequence[Scorer], runs: Runs) -> AsyncIterator[None]:
        """Runs on schedule, for as long as the context lasts."""
        self.runs.set_result(runs)
        async with _running(runs.record_missed()), Schedule(runs.miss) as schedule:
            for index, scorer in enumerate(scorers):
                cadence = scorer.config.schedule
                schedule.add(scorer.config.name, cadence.every, cadence.offset, _job(runs, scorers, index))
            yield

    async def reload(self) -> Reloaded:
        """Take up the configuration file as it is now. Raises ForetagError, with nothing changed, where it is wrong."""
        config = await asyncio.to_thread(load, self.config.path)
        return await (await self.reloading).apply(config)

    def scorers(
        self, tags: Sequence[Tag], store: Store, registry: Registry, compute: Compute, sources: Sequence[Source] = ()
    ) -> list[Scorer]:
        """One per model, in the order of the configuration."""
        by_name = {source.name: source for source in sources}

        def away(source: str) -> Micros | None:
            return by_name[source].health().away_since if source in by_name else None

        return [
            Scorer(
                model, model_kind(compute, self.config, model), self.config.watched(model, tags),
                store, registry, compute, self.diagnostics, away,
            )
            for model in self.config.models
        ]  # fmt: skip

    async def _sources(self, tags: Sequence[Tag], store: Store, left: Left) -> list[OpcUaSource]:
        newest = await store.latest([tag.id for tag in tags])
        known: dict[int, Micros] = dict(zip(newest.tag.tolist(), newest.source_time.tolist(), strict=True))
        spilled = {tag.id: left.known[tag.name] for tag in tags if tag.name in left.known}
        known |= {tag: max(time, known.get(tag, time)) for tag, time in spilled.items()}
        return [
            OpcUaSource(
                section,
                [tag for tag in tags if tag.source == section.name],
                self.diagnostics,
                self.config.pki_folder,
                known,
                left.checkpoints_after(await store.checkpoints(f"{section.name}/"), f"{section.name}/"),
                self.config.publish.application_uri,
                self.config.data / "sessions",
            )
            for section in self.config.sources
            if section.enabled
        ]

    def _sinks(self, overview: Overview) -> list[Sink]:
        sinks: list[Sink] = [overview]
        if self.config.publish.enabled:
            sinks.append(OpcUaSink(self.config.publish, self.config.pki_folder, self.diagnostics))
        if self.config.write_back.enabled:
            targets = {rule.source for rule in self.config.write_back.rules}
            sinks += [
                WriteBack(self.config.write_back, section.name, _connection(self.config, section), self.diagnostics)
                for section in self.config.sources
                if section.enabled and section.name in targets
            ]
        return sinks

    async def _supervised(self, name: str, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task to its end; an error is logged, counted, and the task started again after a while.

        An error in the moment of a cancellation outdoes it in a TaskGroup (Python 3.11); ``_stopping`` is not lost.
        """
        for attempt in range(1_000_000_000):
            try:
                await task()
            except Exception:
                self.diagnostics.task_failures.labels(name).inc()
                if self._stopping:
                    log.exception("%s failed while it was stopped", name)
                    return
                delay = _RESTART_DELAYS[min(attempt, len(_RESTART_DELAYS) - 1)]
                log.exception("%s failed; starting it again in %.1f s", name, delay)
                await asyncio.sleep(delay)
            else:
                return


def open_store(config: Config, diagnostics: Diagnostics, *, alone: bool) -> SqlStore:
    """The historian of a configuration; a context.

    ``alone``: this process writes the samples, so its ring of recent ones may stand in for the database, where there
    are models to read it. One beside a running service reads the database itself.
    """
    with_ring = alone and bool(config.models)
    return SqlStore.configured(config.historian, config.data, diagnostics, with_ring=with_ring)


async def open_spill(spill: Spill | None, store: Store, tags: Sequence[Tag], diagnostics: Diagnostics) -> Left:
    """Take the spill, where there is one: what is left in it and the database does not have yet."""
    if spill is None:
        return Left({}, {})
    place = (await store.checkpoints(POSITION)).get(POSITION, "0")
    left = await spill.open(int(place))
    spill.know(tags)
    diagnostics.spill_torn.inc(spill.torn)
    if spill.rows:
        log.warning("%d samples of a run before this one are in the spill %s", spill.rows, spill.folder)
    return left


class _Stopped(Exception):
    """Stopped while waiting for the database."""


async def _when_available(stop: asyncio.Event, call: Callable[[], Awaitable[T]]) -> T:
    """What a step of the start gives, tried until the database is there; _Stopped where ``stop`` is set before."""
    said = False
    while True:
        try:
            return await call()
        except StoreUnavailable as error:
            if not said:
                log.warning("waiting for the database: %s", error)
            said = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_DATABASE_PAUSE):
                await stop.wait()
            raise _Stopped


def open_compute(config: Config, diagnostics: Diagnostics) -> Compute:
    """The device of a configuration and its thread; a context."""
    return Compute(config.runtime.device, config.data / "compiled", diagnostics, config.runtime.third_party_kinds)


def model_kind(compute: Compute, config: Config, model: ModelConfig) -> ModelKind:
    """The kind of a model; ConfigError where there is none of that name, or where it can't be as it is configured."""
    where = f"models.{model.name}"
    if model.kind not in compute.kinds:
        known = ", ".join(sorted(compute.kinds))
        fault = Fault(f"{where}.kind", model.kind, "is no model kind", f"Kinds are: {known}")
        raise ConfigError(str(config.path), [fault])
    kind = compute.kinds[model.kind]
    try:
        kind.check(model_spec(model))
    except ValueError as error:
        fault = Fault(
            f"{where}.options", str(model.options), str(error), "Mend the option, role or window that is named"
        )
        raise ConfigError(str(config.path), [fault]) from error
    return kind


def _outputs(scorers: Sequence[Scorer]) -> list[OutputTag]:
    return [tag for scorer in scorers for tag in scorer.tags]


def _job(runs: Runs, scorers: Sequence[Scorer], index: int) -> Job:
    async def job(tick: datetime, end: datetime) -> None:
        await runs.score(scorers[index], tick, end)  # looked up each time: a reload may have put another there

    return job


async def _rescore(
    scorers: MutableSequence[Scorer], wanted: Sequence[Scorer], sinks: Sequence[Sink]
) -> tuple[list[str], list[str]]:
    """Put scorers whose assets have changed in their places, between two runs; names of models, and those that stay
    as they are until the next start."""
    done, later = [], []
    for index, new in enumerate(wanted):
        if new.assets == scorers[index].assets:
            continue
        try:
            await new.refresh()  # loaded and compiled before its first run
            known = {tag.name for tag in scorers[index].tags}
            for sink in sinks:
                await sink.extend([tag for tag in new.tags if tag.name not in known])
        except ForetagError as error:
            log.warning("model %s goes on with the assets of before: %s", new.config.name, error)
            later.append(f"models.{new.config.name}")
        else:
            scorers[index] = new
            done.append(new.config.name)
    return done, later


def _lock_files(config: Config) -> list[Path]:
    """One in the data folder, and one beside a database that lies elsewhere."""
    database = database_path(config.historian.located(config.data))
    beside = [] if database.parent == config.data else [database.with_name(f"{database.name}.lock")]
    return [config.data / lock.NAME, *beside]


def _past_is_read(sources: Sequence[Source]) -> Callable[[Scorer], bool]:
    """Of the sources that a model draws on: a dead server holds up no model of another one."""

    def read(scorer: Scorer) -> bool:
        own = {tag.source for asset in scorer.assets for tag in asset.tags.values()}
        return all(source.history_progress().finished for source in sources if source.name in own)

    return read


def _connection(config: Config, section: SourceConfig) -> Connection:
    """How the write-back reaches a source's server: as the source itself does, in a session of its own."""
    terms = section.terms(config.pki_folder, config.publish.application_uri)
    return Connection(terms, section.user or None, section.password, section.identity)


@asynccontextmanager
async def _running(*tasks: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Tasks that run for as long as the context lasts, and are cancelled and awaited when it ends."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(task) for task in tasks]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
