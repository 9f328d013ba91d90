"""How the models are doing, for whoever shows it: is there a version in force, how did its runs go, does it drift?

What the store has is the truth: runs that failed or were missed, versions that another process promoted, drifts that
were found or ended, also by a process before this one.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from plugin.diagnostics import Diagnostics
from plugin.domain import Drift, ModelStanding, ModelVersion, RunKind, RunResult, Standing
from plugin.errors import StoreError
from plugin.infer.scoring import Scorer
from plugin.infer.telling import Teller
from plugin.protocols import Sink, Store

_EVERY = 2.0
"""Between two looks [s]."""
_RUNS = 20
"""Newest runs of a model that are looked at: the last scoring and the last shadow run are among them."""
_DRIFTS = 10_000

_News = tuple[Standing, ...]


class Standings:
    """Looks at the store and tells the sinks. Which scorers there are is looked at each time."""

    def __init__(
        self, scorers: Sequence[Scorer], store: Store, sinks: Sequence[Sink], diagnostics: Diagnostics
    ) -> None:
        self._scorers = scorers
        self._store = store
        self._teller = Teller[_News](sinks, diagnostics, lambda sink, news: sink.inform(news), "how the models do")

    async def watch(self) -> None:
        """For ever. While the store can't be read, what was told stands."""
        while True:
            await self.look()
            await asyncio.sleep(_EVERY)

    async def look(self) -> None:
        """Tell each sink that does not know yet how it is now."""
        with suppress(StoreError):
            drifts = await self._store.drifts(open_only=True, limit=_DRIFTS)
            await self._teller.tell(tuple([await self._standing(scorer, drifts) for scorer in self._scorers]))

    async def _standing(self, scorer: Scorer, drifts: Sequence[Drift]) -> Standing:
        config, version = scorer.config, await scorer.version()
        runs = [run for run in await self._store.runs(config.name, _RUNS) if run.result is not RunResult.RUNNING]
        return Standing(
            model=config.name,
            kind=config.kind,
            state=_state(scorer, version),
            version=version.version if version else 0,
            sha256=version.sha256 if version else "",
            run=next((run for run in runs if run.kind is RunKind.SCORE), None),
            shadow=next((run for run in runs if run.kind is RunKind.SHADOW), None),
            drifts=tuple(d for d in drifts if version and (d.model, d.version) == (config.name, version.version)),
        )


def _state(scorer: Scorer, version: ModelVersion | None) -> ModelStanding:
    if not scorer.config.enabled:
        return ModelStanding.OFF
    if version is not None:
        return ModelStanding.IN_FORCE
    return ModelStanding.TRAINING if scorer.config.training.at_start else ModelStanding.NONE
