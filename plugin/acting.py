"""What people ask of the running service through our OPC UA server: scored, trained, promoted, labelled, reloaded.

What takes long goes on by itself: one training and one run of each model at a time, and a second is refused.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plugin.diagnostics import Diagnostics
from plugin.domain import Label, LabelKind, Run
from plugin.errors import ForetagError, ModelError
from plugin.infer.outputs import model_spec
from plugin.infer.registry import Registry
from plugin.infer.runs import Runs
from plugin.infer.scoring import Scorer
from plugin.infer.training_runs import Training
from plugin.protocols import Store
from plugin.reloading import Reloaded
from plugin.schedule import last_tick
from plugin.tasks import job

log = logging.getLogger(__name__)

Reload = Callable[[str, str], Awaitable[Reloaded]]
"""For a user and an origin."""
_ORIGIN = "opcua"


class Acting:
    """See :class:`plugin.publish.verbs.Verbs`. Refuses all until :meth:`ready`."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        scorers: Sequence[Scorer],
        reload: Reload,
        diagnostics: Diagnostics,
        key: Path | None = None,
    ) -> None:
        """``folder``: of artifacts, which ``key`` has signed; ``scorers``: those in force, looked at each time."""
        self._key = key
        self._store = store
        self._folder = folder
        self._scorers = scorers
        self._reload = reload
        self._diagnostics = diagnostics
        self._parts: tuple[Runs, Training, asyncio.TaskGroup] | None = None
        self._busy: set[str] = set()

    @asynccontextmanager
    async def ready(self, runs: Runs, training: Training) -> AsyncIterator[None]:
        """For as long as the context lasts; what still goes on then is cancelled."""
        begun = asyncio.Event()

        async def forever() -> None:
            async with asyncio.TaskGroup() as group:
                self._parts = runs, training, group
                begun.set()
                await asyncio.Event().wait()

        async with asyncio.TaskGroup() as outer:
            task = outer.create_task(forever(), name="what people asked for")
            await begun.wait()
            try:
                yield
            finally:
                self._parts = None
                task.cancel()

    async def score(self, model: str) -> int:
        """See the protocol."""
        runs, _, group = self._there()
        scorer = self._scorer(model)
        config = scorer.config
        now = datetime.now(UTC)
        end = last_tick(now - config.schedule.offset, config.step, type(config.step)(0))
        return await self._begin(
            f"{model} score",
            group,
            lambda begun, failed: runs.score(scorer, now, end, begun, failed),
            f"model {model} has no version",
        )

    async def retrain(self, model: str) -> int:
        """See the protocol."""
        _, training, group = self._there()
        scorer = self._scorer(model)
        return await self._begin("train", group, lambda begun, _: training.train(scorer, begun), "it could not begin")

    async def promote(self, model: str, version: int, user: str) -> int:
        """See the protocol."""
        registry, scorer = self._registry(user), self._scorer(model)
        return (await registry.promote(model, version, model_spec(scorer.config))).version

    async def roll_back(self, model: str, user: str) -> int:
        """See the protocol."""
        registry, scorer = self._registry(user), self._scorer(model)
        return (await registry.roll_back(model, model_spec(scorer.config))).version

    async def label(
        self, asset: str, kind: LabelKind, start: datetime, end: datetime | None, note: str, user: str
    ) -> str:
        """See the protocol."""
        label = Label(str(uuid.uuid4()), kind, asset, start, datetime.now(UTC), end, note=note, user=user)
        await self._store.write_labels([label], origin=_ORIGIN)
        return label.id

    async def reload(self, user: str) -> Sequence[str]:
        """See the protocol."""
        return (await self._reload(user, _ORIGIN)).lines()

    def _there(self) -> tuple[Runs, Training, asyncio.TaskGroup]:
        if self._parts is None:
            raise ModelError("the service is starting or stopping; try again")
        return self._parts

    def _scorer(self, model: str) -> Scorer:
        scorer = next((scorer for scorer in self._scorers if scorer.config.name == model), None)
        if scorer is None or not scorer.config.enabled:
            raise ModelError(f"model {model} is not configured, or switched off")
        return scorer

    def _registry(self, user: str) -> Registry:
        return Registry(self._store, self._folder, user=user, origin=_ORIGIN, key=self._key)

    async def _begin(
        self,
        what: str,
        group: asyncio.TaskGroup,
        work: Callable[[Callable[[Run], None], Callable[[Exception], None]], Awaitable[Any]],
        never: str,
    ) -> int:
        """The key of the run, when there is one; the work goes on. ``never``: why there is none, where nobody says."""
        if what in self._busy:
            raise ModelError(f"{what}: what was asked for before still goes on")
        self._busy.add(what)
        key: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def begun(run: Run) -> None:
            if not key.done():
                key.set_result(run.id)

        def failed(error: Exception) -> None:
            if not key.done():
                key.set_exception(error if isinstance(error, ForetagError) else ModelError(f"{what}: {error!r}"))

        async def go() -> None:
            try:
                await job(self._diagnostics, "what people asked for", what, work(begun, failed))
            except ForetagError as error:
                log.warning("%s: %s", what, error)
                failed(error)
            finally:
                self._busy.discard(what)
                if not key.done():
                    key.set_exception(ModelError(never))

        group.create_task(go(), name=what)
        return await asyncio.shield(key)
