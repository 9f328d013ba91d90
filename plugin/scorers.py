"""The scorers in force, one per model in the order of the configuration; a reload puts others in their places."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from models.kind import ModelKind
from plugin.config import Config
from plugin.diagnostics import Diagnostics
from plugin.domain import Micros, OutputTag, Tag
from plugin.errors import ConfigError, Fault, ForetagError
from plugin.infer.compute import Compute
from plugin.infer.config import ModelConfig
from plugin.infer.outputs import model_spec
from plugin.infer.registry import Registry
from plugin.infer.runs import Runs
from plugin.infer.scoring import Scorer
from plugin.protocols import Sink, Source, Store
from plugin.schedule import Job
from plugin.tasks import job

log = logging.getLogger(__name__)

_LOOK = 0.05
"""Between two looks at whether the past is read [s]."""


class Scorers:
    """Raises ConfigError where a model's kind is not to be had, or can't be as it is configured."""

    def __init__(
        self,
        config: Config,
        tags: Sequence[Tag],
        store: Store,
        registry: Registry,
        compute: Compute,
        diagnostics: Diagnostics,
        sources: Sequence[Source] = (),
    ) -> None:
        self._config = config
        self._store = store
        self._registry = registry
        self._compute = compute
        self._diagnostics = diagnostics
        self._sources = {source.name: source for source in sources}
        self.in_force = self._of(tags)
        """For others to look at each time, never to keep one of them."""

    @property
    def outputs(self) -> list[OutputTag]:
        """Every tag from the future."""
        return [tag for scorer in self.in_force for tag in scorer.tags]

    def past_is_read(self, scorer: Scorer) -> bool:
        """Of the sources that a model draws on: a dead server holds up no model of another one."""
        return all(source.history_progress().finished for source in self._read_by(scorer))

    async def take_up(self) -> None:
        """Load and compile what is in force, beside the rest of a start. What is wrong with one its run will say."""
        for scorer in list(self.in_force):
            if scorer.config.enabled:
                with suppress(ForetagError):
                    await job(self._diagnostics, "models", f"taking up model {scorer.config.name}", scorer.refresh())

    def job(self, index: int, runs: Runs) -> Job:
        """A scheduled run of the scorer that is at this place by then."""

        async def run(tick: datetime, end: datetime) -> None:
            await runs.score(self.in_force[index], tick, end)

        return run

    def first_job(self, index: int, runs: Runs, last: datetime | None) -> Job:
        """The run of the tick before a start, unless it was done (``last``): as soon as the past is read of the sources
        that are there. When the next tick comes before, that one's run will do."""

        async def run(tick: datetime, end: datetime) -> None:
            if last is not None and tick <= last:
                return
            left = tick + self.in_force[index].config.schedule.every - datetime.now(UTC)
            with suppress(TimeoutError):
                async with asyncio.timeout(left.total_seconds()):
                    while self._is_reading(index):  # noqa: ASYNC110 - how far a source is, is asked for, not told
                        await asyncio.sleep(_LOOK)
                await runs.score(self.in_force[index], tick, end)

        return run

    def _is_reading(self, index: int) -> bool:
        return any(map(_is_awaited, self._read_by(self.in_force[index])))

    def _read_by(self, scorer: Scorer) -> list[Source]:
        names = {tag.source for asset in scorer.assets for tag in asset.tags.values()}
        return [source for name, source in self._sources.items() if name in names]

    async def rescore(self, tags: Sequence[Tag], sinks: Sequence[Sink]) -> tuple[list[str], list[str]]:
        """Put scorers whose assets have changed in their places, between two runs; names of models, and of those that
        stay as they are until the next start."""
        done, later = [], []
        for index, new in enumerate(self._of(tags)):
            before = self.in_force[index]
            if new.assets == before.assets:
                continue
            try:
                await new.refresh()  # loaded and compiled before its first run
                known = {tag.name for tag in before.tags}
                for sink in sinks:
                    await sink.extend([tag for tag in new.tags if tag.name not in known])
            except ForetagError as error:
                log.warning("model %s goes on with the assets of before: %s", new.config.name, error)
                later.append(f"models.{new.config.name}")
            else:
                self.in_force[index] = new
                done.append(new.config.name)
        return done, later

    def _of(self, tags: Sequence[Tag]) -> list[Scorer]:
        return [
            Scorer(
                model, self._kind(model), self._config.watched(model, tags),
                self._store, self._registry, self._compute, self._diagnostics, self._away,
            )
            for model in self._config.models
        ]  # fmt: skip

    def _away(self, source: str) -> Micros | None:
        return self._sources[source].health().away_since if source in self._sources else None

    def _kind(self, model: ModelConfig) -> ModelKind:
        where, path = f"models.{model.name}", str(self._config.path)
        kind = self._compute.kinds.get(model.kind)
        if kind is None:
            known = ", ".join(sorted(self._compute.kinds))
            remedy = f"Kinds are: {known}; one of another package has to be in foretag.third_party_kinds as well"
            raise ConfigError(path, [Fault(f"{where}.kind", model.kind, "is no model kind", remedy)])
        try:
            kind.check(model_spec(model))
        except ValueError as error:
            remedy = "Mend the option, role or window that is named"
            fault = Fault(f"{where}.options", str(model.options), str(error), remedy)
            raise ConfigError(path, [fault]) from error
        return kind


def _is_awaited(source: Source) -> bool:
    """Its past is still to come; not of one that is known to be out of reach."""
    health = source.health()
    return (health.connected or not health.trouble) and not source.history_progress().finished
