"""A data set as a plant's history: samples in a database, and models that the product's own code trains and scores.

Each data set's rows become samples on a regular clock, from :data:`BEGIN` on. Nothing reaches a model by another way
than that of the service: the grid that is cut from the database, the fit, the artifact, the scoring run.
"""

import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.diagnostics import Diagnostics
from plugin.domain import (
    Asset,
    Micros,
    ModelVersion,
    Outcome,
    Prediction,
    Run,
    RunKind,
    SampleBatch,
    Tag,
    micros,
    to_micros,
)
from plugin.historian.recent.ring import Ring
from plugin.historian.sqlite.store import SqliteStore
from plugin.infer.compute import Compute
from plugin.infer.config import ModelConfig
from plugin.infer.registry import Registry
from plugin.infer.scoring import Scorer
from plugin.infer.training import train
from plugin.protocols import Delivery

BEGIN = datetime(2000, 1, 1, tzinfo=UTC)
_ROWS = 50_000
"""Samples in one transaction, as the import has it."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """What one asset's tags said."""

    asset: str
    columns: Mapping[str, NDArray[Any]]
    """By feature, [t]; NaN: no sample at that time."""
    step: timedelta
    start: datetime = BEGIN
    late: Mapping[str, timedelta] = field(default_factory=dict)
    """By feature, how long after its source time a value is known, such as a laboratory's; 0 unless named."""

    @property
    def end(self) -> datetime:
        """Of the last cell."""
        return self.start + self.step * max(len(column) for column in self.columns.values())


class History:
    """A database, models and a device; see :func:`opened`."""

    def __init__(self, store: SqliteStore, registry: Registry, compute: Compute, diagnostics: Diagnostics) -> None:
        self.store = store
        self.registry = registry
        self.compute = compute
        self._diagnostics = diagnostics

    async def keep(self, series: Sequence[Series]) -> tuple[Asset, ...]:
        """Store what the assets' tags said; several series may go on with the same asset."""
        names = {(each.asset, feature): None for each in series for feature in each.columns}
        tags = await self.store.register_tags([_tag(asset, feature) for asset, feature in names])
        assets = Asset.gather(tags)
        known = {asset.name: asset.tags for asset in assets}
        batches = [_samples(each, known[each.asset]) for each in series]
        everything = SampleBatch.concatenate(batches)
        order = np.argsort(everything.source_time, kind="stable")  # as samples arrive: the database is made for that
        columns = [column[order] for column in everything.columns()]
        places = [*range(0, len(order), _ROWS), len(order)]
        for first, last in pairwise(places):
            await self.store.write([Delivery(SampleBatch(*(column[first:last] for column in columns)))])
        return assets

    async def train(self, config: ModelConfig, assets: Sequence[Asset], now: datetime) -> ModelVersion:
        """As ``foretag train`` does at the time ``now``; the first version of a configuration is the champion."""
        return await train(
            config, self.compute.kinds[config.kind], assets, self.store, self.registry, self.compute, now, _silent
        )

    def scorer(self, config: ModelConfig, assets: Sequence[Asset]) -> Scorer:
        """Of the model's champion."""
        kind = self.compute.kinds[config.kind]
        return Scorer(config, kind, assets, self.store, self.registry, self.compute, self._diagnostics)

    async def score(
        self, config: ModelConfig, assets: Sequence[Asset], ends: Iterable[datetime]
    ) -> AsyncIterator[Outcome]:
        """Runs of the champion, each as it would have been at that time: what came later is not seen."""
        scorer = self.scorer(config, assets)
        for end in ends:
            run = Run(0, config.name, RunKind.SCORE, end)
            outcome = await scorer.score(run, end, known_by=to_micros(end))
            assert outcome is not None, "there is no champion for this configuration"
            yield outcome


@asynccontextmanager
async def opened(ring: Ring | None = None) -> AsyncIterator[History]:
    """An empty history in a folder that goes away with it; without a ring all is read from the database."""
    with tempfile.TemporaryDirectory(prefix="foretag-benchmark-") as name:
        folder, diagnostics = Path(name), Diagnostics()
        compute = Compute("cpu", Path(_compiled().name), diagnostics)
        async with SqliteStore(f"sqlite+aiosqlite:///{folder / 'historian.db'}", ring=ring) as store, compute:
            yield History(store, Registry(store, folder / "models"), compute, diagnostics)


@cache
def _compiled() -> tempfile.TemporaryDirectory[str]:
    """JAX goes on writing there as long as the process lives, whichever history it was named for."""
    return tempfile.TemporaryDirectory(prefix="foretag-compiled-")


def numbers(given: Iterable[Prediction], output: str) -> NDArray[np.float64]:
    """Value, lower and upper bound [n, 3] of one output, in the order of the predictions; NaN where there is none."""
    chosen = [(each.value, each.lower, each.upper) for each in given if each.tag.output == output]
    return np.array(chosen, np.float64).reshape(-1, 3)


def _tag(asset: str, feature: str) -> Tag:
    return Tag(f"{asset}.{feature}", "plant", f"nsu=urn:plant;s={asset}.{feature}", asset, feature)


def _samples(series: Series, tags: Mapping[str, Tag]) -> SampleBatch:
    begin, step = to_micros(series.start), micros(series.step)
    return SampleBatch.concatenate(
        [_column(series, feature, tags[feature].id, begin, step) for feature in series.columns]
    )


def _column(series: Series, feature: str, tag: int, begin: Micros, step: Micros) -> SampleBatch:
    column = np.asarray(series.columns[feature], np.float64)
    cells = np.flatnonzero(~np.isnan(column))
    source = begin + step * cells
    known = source + micros(series.late.get(feature, timedelta(0)))
    return SampleBatch.of(np.full(len(cells), tag), source, column[cells], 0, known, known)


def _silent(share: float, line: str) -> None:
    pass
