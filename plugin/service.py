"""The composition root. Read this first: it builds the parts, and starts and stops them in order.

    sources ──deliveries──> Ingest ──commit──> Store ──windows──> Scorer ──outcome──> Store, then sinks
                               └─confirm─> acknowledged to the plant's server

On a database that several gateways share, all this is for the one that leads (:mod:`plugin.standby`); it may be done
more than once in the life of a process.

Start: database, and what is in the spill and it lacks; acquisition of past and present; the upkeep of the historian;
the device; the sinks; the schedule. A database that can't be read is waited for; one that is readable but takes nothing
is enough to acquire, into the spill. Models that do not exist yet are trained when the past has been read, others again
when they are due; a challenger that was better in shadow is promoted where its model's rule says so. Whether a version
still fits is watched beside its runs. Stop, each step bounded in time: training; no new runs, and the running ones end;
results are no longer served; acquisition ends with its last transaction committed; the database closes.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from plugin import __version__, auditing, lock
from plugin.acquire.config import Policy, SourceConfig
from plugin.acquire.source import OpcUaSource
from plugin.acting import Acting
from plugin.config import Config, load
from plugin.diagnostics import Diagnostics
from plugin.domain import Asset, Micros, Tag
from plugin.errors import StoreError
from plugin.exposition import serving
from plugin.historian.ingest import Ingest
from plugin.historian.keeping.upkeep import Chore, Upkeep
from plugin.historian.memory import MemoryStore
from plugin.historian.spilling.spill import Left, Spill
from plugin.historian.stores import SqlStore
from plugin.hmi.overview import Overview
from plugin.infer.alarms.room import Room
from plugin.infer.alarms.watch import AlarmWatch
from plugin.infer.compute import Compute
from plugin.infer.monitoring import Monitoring
from plugin.infer.outages import Outages
from plugin.infer.promotion import Promotion
from plugin.infer.registry import Registry
from plugin.infer.runs import Runs
from plugin.infer.standings import Standings
from plugin.infer.training_runs import Training
from plugin.opening import (
    Stopped,
    give_up_forsaken,
    look_over,
    open_compute,
    open_gaps,
    open_spill,
    open_store,
    spill_of,
    when_available,
)
from plugin.pki import Caretaker
from plugin.protocols import Sink, Source, Store
from plugin.publish.admission import certificate_hosts
from plugin.publish.mirror import Mirror
from plugin.publish.server import OpcUaSink
from plugin.publish.writeback import Connection, WriteBack
from plugin.reloading import Reloaded, Reloading, Rescore, writing
from plugin.schedule import Schedule
from plugin.scorers import Scorers
from plugin.standby import Term, leading
from plugin.tasks import Supervision, running

log = logging.getLogger(__name__)

_JUDGING = timedelta(hours=1)
"""Between two looks at whether a challenger is to be promoted by rule."""
_WATCHING = timedelta(seconds=5)
"""Between two looks at whether a model has seen enough to be looked at again."""


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
        self._supervision = Supervision(self.diagnostics)
        self._leads = False
        self._turn = asyncio.Lock()

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set. Raises ForetagError where the service can't start."""
        try:
            async with AsyncExitStack() as stack:
                stack.enter_context(lock.hold(self.config.lock_files, self.config.path))
                await stack.enter_async_context(serving(self.config.diagnostics, self.diagnostics))
                if self.config.historian.on_postgres:
                    await self._check_models()
                while not stop.is_set():
                    await self._lead(stop)
            log.info("stopped")
        except* Stopped:
            log.info("stopped before the database was available")

    async def _lead(self, stop: asyncio.Event) -> None:
        """One term: until we are told to stop, or another gateway leads."""
        try:
            async with leading(self.config, self.diagnostics, stop) as term, AsyncExitStack() as stack:
                try:
                    await self._run(stack, term)
                finally:
                    self._supervision.stopping = True
        except* Stopped:
            if stop.is_set():
                raise
        if not stop.is_set():
            self._stand_by()

    async def _check_models(self) -> None:
        """What is wrong with a model is told now, not when another gateway has fallen silent; JAX is there by then."""
        if self.config.models:
            async with open_compute(self.config, self.diagnostics) as compute:
                store = MemoryStore()
                registry = Registry(store, self.config.model_folder, key=self.config.model_key)
                Scorers(self.config, self.config.tags, store, registry, compute, self.diagnostics)

    def _stand_by(self) -> None:
        """Whoever waits for something of a term that is not there yet waits for the next term."""
        self._leads = False
        new = asyncio.get_running_loop().create_future
        if self.reloading.done():
            self.config, self.reloading = self.reloading.result().config, new()
        self.overview = new() if self.overview.done() else self.overview
        self.runs = new() if self.runs.done() else self.runs
        self._supervision = Supervision(self.diagnostics)
        self.diagnostics.stand_by()

    async def _run(self, stack: AsyncExitStack, term: Term) -> None:
        self._leads = True
        enter = stack.enter_async_context
        wait = partial(when_available, term.over)
        await wait(lambda: look_over(self.config))
        store = await wait(lambda: enter(open_store(self.config, self.diagnostics, alone=True, fence=term.fence)))
        tags = await wait(lambda: store.register_tags(self.config.tags))
        await wait(lambda: store.keep_recent(self.config.read_by_models(tags)))
        spill = spill_of(self.config)
        left = await wait(lambda: open_spill(spill, store, tags, self.diagnostics))
        if spill is not None:
            stack.callback(spill.close)
        await wait(lambda: give_up_forsaken(store, [source.name for source in self.config.sources]))
        await enter(self._certificate())
        sources = await wait(lambda: self._sources(tags, store, left))
        overview = Overview(sources, Asset.gather(tags), self.config.models, self.diagnostics)
        self.overview.set_result(overview)
        mirror = Mirror(self.config.publish.mirror, tags)
        await enter(self._acquiring(sources, store, spill, overview, mirror))
        await enter(self._keeping(store))
        compute = await enter(open_compute(self.config, self.diagnostics))
        registry = Registry(store, self.config.model_folder, key=self.config.model_key)
        scorers = Scorers(self.config, tags, store, registry, compute, self.diagnostics, sources)
        await enter(running(scorers.take_up()))
        mirror.committed(await wait(lambda: store.latest([tag.id for tag in mirror.tags])))
        room = Room(self.config.alarms, store, self.diagnostics)
        alarms = await wait(lambda: self._alarms(room, store, sources, tags, scorers))
        acting = self._acting(store, scorers)
        shown = self._sinks(overview, store, mirror, room, acting)
        sinks = await enter(self._publishing(shown, alarms, store, sources, scorers))
        runs = Runs(store, sinks, self.diagnostics)
        newest = await wait(lambda: runs.end_unfinished([model.name for model in self.config.models]))
        await enter(self._scoring(scorers, runs, newest))
        training = Training(store, registry, compute, self.diagnostics, overview.training)
        await enter(acting.ready(runs, training))
        await enter(self._training(training, scorers))
        await enter(self._judging(store, registry, compute, scorers))
        rescore = self._rescoring(store, scorers, sinks)
        switches = [sink for sink in sinks if isinstance(sink, WriteBack)]
        self.reloading.set_result(Reloading(self.config, store, sources, overview, rescore, spill, switches))
        await term.over.wait()
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
        async with running(caretaker.run()):
            yield

    def _acquiring(
        self, sources: Sequence[Source], store: Store, spill: Spill | None, overview: Overview, mirror: Mirror
    ) -> AbstractAsyncContextManager[None]:
        """From the sources into the store, and what watches over it."""
        historian = self.config.historian
        ingest = Ingest(
            sources,
            store,
            self.diagnostics,
            on_commit=[overview.committed, mirror.committed],
            rows_per_commit=historian.rows_per_commit,
            queue=historian.queue,
            spill=spill,
        )
        acquisition = self._supervision.keep("acquisition", ingest.run)
        return running(acquisition, self.diagnostics.watch_loop(), overview.watch(store))

    def _keeping(self, store: SqlStore) -> AbstractAsyncContextManager[None]:
        """The historian in order, beside its work."""
        chores = *store.chores(self.config.historian), auditing.chore(store, self.config.data)
        return running(self._supervision.keep("upkeep", Upkeep(chores, self.diagnostics).run))

    @asynccontextmanager
    async def _publishing(
        self,
        shown: Sequence[Sink],
        alarms: AlarmWatch | None,
        store: Store,
        sources: Sequence[Source],
        scorers: Scorers,
    ) -> AsyncIterator[list[Sink]]:
        """Every sink open, and told how sources and models do; the alarms last: a value is there before its alarm."""
        keep = self._supervision.keep
        async with AsyncExitStack() as stack:
            for sink in shown:
                await stack.enter_async_context(sink.open(scorers.outputs))
            sinks = [*shown, *([] if alarms is None else [alarms])]
            if alarms is not None:
                await stack.enter_async_context(running(keep("alarms", alarms.watch)))
            standings = Standings(scorers.in_force, store, sinks, self.diagnostics)
            outages = Outages(sources, scorers.in_force, sinks, self.diagnostics)
            await stack.enter_async_context(running(outages.watch(), keep("standings", standings.watch)))
            yield sinks

    @asynccontextmanager
    async def _scoring(self, scorers: Scorers, runs: Runs, newest: Mapping[str, datetime]) -> AsyncIterator[None]:
        """Runs on schedule, for as long as the context lasts; ``newest``: each model's last tick that was run."""
        self.runs.set_result(runs)
        async with running(runs.record_missed()), Schedule(runs.miss) as schedule:
            for index, scorer in enumerate(scorers.in_force):
                if not scorer.config.enabled:
                    continue
                name, cadence = scorer.config.name, scorer.config.schedule
                first = scorers.first_job(index, runs, newest.get(name))
                schedule.add(name, cadence.every, cadence.offset, scorers.job(index, runs), first)
            yield

    async def _alarms(
        self, room: Room, store: Store, sources: Sequence[Source], tags: Sequence[Tag], scorers: Scorers
    ) -> AlarmWatch | None:
        """With every condition as it was left; None: there are to be no alarms."""
        if not self.config.alarms.enabled:
            return None
        watch = AlarmWatch(self.config.alarms, room, store, sources, tags, scorers.in_force)
        await watch.furnish(scorers.outputs)
        return watch

    def _acting(self, store: Store, scorers: Scorers) -> Acting:
        """What clients of our server may ask for."""
        folder, key = self.config.model_folder, self.config.model_key
        return Acting(store, folder, scorers.in_force, self.reload, self.diagnostics, key)

    def _training(self, training: Training, scorers: Scorers) -> AbstractAsyncContextManager[None]:
        """What has no model, when the past is read; and again what is due."""
        keep = self._supervision.keep
        missing = partial(training.train_missing, scorers.in_force, scorers.past_is_read)
        return running(keep("training", missing), keep("retraining", partial(training.retrain, scorers.in_force)))

    def _judging(
        self, store: Store, registry: Registry, compute: Compute, scorers: Scorers
    ) -> AbstractAsyncContextManager[None]:
        """Challengers against the version in force, and that against its plant."""
        promotion = Promotion(store, registry, scorers.in_force)
        monitoring = Monitoring(store, registry, compute, scorers.in_force, self.diagnostics)
        chores = (
            Chore("judging challengers", _JUDGING, promotion.look),
            Chore("watching for drift", _WATCHING, monitoring.look),
        )
        return running(self._supervision.keep("judging", Upkeep(chores, self.diagnostics).run))

    def _rescoring(self, store: SqlStore, scorers: Scorers, sinks: Sequence[Sink]) -> Rescore:
        async def rescore(tags: Sequence[Tag]) -> tuple[list[str], list[str]]:
            found = await scorers.rescore(tags, sinks)
            try:
                await store.keep_recent(self.config.read_by_models(tags))
            except StoreError as error:  # what is not in memory is read from the database: slower, and the same
                log.warning("the samples that models read now are not kept in memory: %s", error)
            return found

        return rescore

    async def reload(self, user: str = "foretag", origin: str = "service") -> Reloaded:
        """Take up the configuration file as it is now. Raises ForetagError, with nothing changed, where it is wrong."""
        async with self._turn:  # a person at the terminal and one at an OPC UA client may ask at once
            config = await asyncio.to_thread(load, self.config.path)
            if not self._leads:
                before, after = self.config.write_back, writing(self.config.write_back, config.write_back)
                self.config = replace(self.config, tags=config.tags, write_back=after)
                return Reloaded(later=("tags", "write_back") if after != before else ("tags",))
            return await (await self.reloading).apply(config, user, origin)

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
                await open_gaps(store, section.name),
            )
            for section in self.config.sources
            if section.enabled
        ]

    def _sinks(self, overview: Overview, store: Store, mirror: Mirror, room: Room, acting: Acting) -> list[Sink]:
        record = partial(auditing.keep, store, self.config.data)
        rules = self.config.write_back
        targets = {rule.source for rule in rules.rules}
        write_backs = [
            WriteBack(rules, section.name, _connection(self.config, section), self.diagnostics, record=record)
            for section in self.config.sources
            if section.enabled and section.name in targets
        ]
        sinks: list[Sink] = [overview, *write_backs]
        if self.config.publish.enabled:
            pki = self.config.pki_folder
            shown = partial(OpcUaSink, self.config.publish, pki, self.diagnostics, record=record)
            sinks.append(shown(mirror=mirror, store=store, room=room, verbs=acting, write_backs=write_backs))
        return sinks


def _connection(config: Config, section: SourceConfig) -> Connection:
    """How the write-back reaches a source's server: as the source itself does, in a session of its own."""
    terms = section.terms(config.pki_folder, config.publish.application_uri)
    return Connection(terms, section.user or None, section.password, section.identity)
