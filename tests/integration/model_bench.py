"""What tests of runs and of versions work with: a real model on a real device, and the store in memory."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from plugin.diagnostics import Diagnostics
from plugin.domain import Asset, Micros, Outage, Outcome, SampleBatch, Standing, Tag, to_micros
from plugin.errors import PublishError
from plugin.historian.memory import MemoryStore
from plugin.infer.compute import Compute
from plugin.infer.config import ModelConfig
from plugin.infer.registry import Registry
from plugin.infer.runs import Runs
from plugin.infer.scoring import Scorer
from plugin.infer.training_runs import Training
from plugin.protocols import Delivery, Sink

START = datetime(2026, 3, 1, tzinfo=UTC)
SECONDS = 400
NOW = START + timedelta(seconds=SECONDS)
FEATURES = ("a", "b", "c")


def config(**changes: object) -> ModelConfig:
    fields: dict[str, object] = {
        "name": "odd", "kind": "pca_anomaly", "assets": ["*"], "features": FEATURES, "window": "20s", "step": "1s",
        "hold": "5s", "recent": "10s", "persistence": 2, "schedule": {"every": "1s", "deadline": "20s"},
        "training": {"learn": "normal"}, "options": {"smooth": 2},
    }  # fmt: skip
    return ModelConfig.model_validate(fields | changes)


@dataclass
class Listener:
    """A sink that remembers, and that sees whether the rows were there first."""

    store: MemoryStore
    name: str = "listener"
    outcomes: list[Outcome] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    standings: list[tuple[Standing, ...]] = field(default_factory=list)

    def open(self, tags: Sequence[object]) -> nullcontext[None]:
        return nullcontext()

    async def extend(self, tags: Sequence[object]) -> None:
        pass

    async def degrade(self, outage: Outage) -> None:
        self.outages.append(outage)

    async def inform(self, standings: Sequence[Standing]) -> None:
        self.standings.append(tuple(standings))

    async def publish(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.rows.append((await self.store.counts())["predictions"])


class Broken(Listener):
    async def publish(self, outcome: Outcome) -> None:
        raise PublishError("no way")


@dataclass
class Bench:
    """What the tests work with."""

    store: MemoryStore
    assets: tuple[Asset, ...]
    compute: Compute
    registry: Registry
    diagnostics: Diagnostics
    away: Micros | None = None

    def scorer(self, config: ModelConfig) -> Scorer:
        kind = self.compute.kinds[config.kind]
        return Scorer(
            config, kind, self.assets, self.store, self.registry, self.compute, self.diagnostics,
            away=lambda source: self.away,
        )  # fmt: skip

    def training(self) -> Training:
        return Training(
            self.store, self.registry, self.compute, self.diagnostics, lambda *told: None, clock=lambda: NOW
        )

    def runs(self, *sinks: Sink) -> Runs:
        return Runs(self.store, sinks, self.diagnostics)

    async def add(self, feature: str, seconds: Sequence[int], value: float, status: int = 0, asset: int = 0) -> None:
        times = to_micros(START) + np.array(seconds, np.int64) * 1_000_000
        tag = self.assets[asset].tags[feature].id
        values = np.full(len(times), value)
        await self.store.write([Delivery(SampleBatch.of([tag] * len(times), times, values, status, times, times))])


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[Bench]:
    """Two pumps with noise around 10 on each feature, a sample a second until :data:`NOW`."""
    store, diagnostics = MemoryStore(), Diagnostics()
    names = [(asset, feature) for asset in ("pump-1", "pump-2") for feature in FEATURES]
    tags = await store.register_tags([Tag(f"{a}.{f}", "plant", f"nsu=u;s={a}.{f}", a, f) for a, f in names])
    noise = np.random.default_rng(1)
    times = to_micros(START) + np.arange(SECONDS, dtype=np.int64) * 1_000_000
    for tag in tags:
        values = noise.normal(10, 1, SECONDS)
        await store.write([Delivery(SampleBatch.of([tag.id] * SECONDS, times, values, 0, times, times))])
    async with Compute("cpu", tmp_path / "compiled", diagnostics) as compute:
        registry = Registry(store, tmp_path / "models")
        yield Bench(store, Asset.gather(tags), compute, registry, diagnostics)
