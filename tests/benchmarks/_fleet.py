"""A fleet scored each minute: 500 assets, three models each, by runs as the service makes them, results stored.

Windows are cut from the ring, where the samples of the last four hours lie. The weights are those that a model is born
with: what a prediction costs does not depend on what was learnt. Nothing is explained, as hardly anything would be in a
plant that is well.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import jax
import numpy as np

from models.kind import Fitted
from plugin.diagnostics import Diagnostics
from plugin.domain import Asset
from plugin.historian.recent.ring import Ring
from plugin.infer.config import ModelConfig
from plugin.infer.outputs import model_spec
from plugin.infer.runs import Runs
from plugin.infer.scoring import Scorer
from tests.benchmarks import _history
from tests.benchmarks._history import History, Series

_ASSETS = 500
_STEP = timedelta(minutes=1)
_CELLS = 240
_FEATURES = tuple(f"f{number}" for number in range(16))
_CORES = 2


async def shares(minutes: int) -> Sequence[float]:
    """CPU of the process for the three runs of each minute, as a share of two cores [%]."""
    async with _history.opened(Ring(tags=())) as history:
        fleet = _series()
        # Two days before, so that the tags are known: the ring holds what comes once it has been told of them.
        assets = await history.keep([_cut(each) for each in fleet])
        await history.store.keep_recent({tag.id for asset in assets for tag in asset.tags.values()})
        await history.keep(fleet)
        end = fleet[0].end
        scorers = [await _scorer(history, config, assets, end) for config in _models()]
        runs = Runs(history.store, (), Diagnostics())
        taken = []
        for minute in range(minutes + 1):
            now, begin = end - _STEP * (minutes - minute), time.process_time()
            for scorer in scorers:
                outcome = await runs.score(scorer, now, now)
                assert outcome is not None, f"{scorer.config.name} gave no result"
            taken.append(time.process_time() - begin)
    return [100.0 * seconds / _CORES / _STEP.total_seconds() for seconds in taken[1:]]  # the first one compiles


def _series() -> list[Series]:
    generator = np.random.default_rng(0)
    cells = _CELLS + 20
    age = np.arange(cells, dtype=np.float64)
    return [
        Series(f"pump-{number:03}", {name: generator.normal(size=cells) for name in _FEATURES} | {"age": age}, _STEP)
        for number in range(_ASSETS)
    ]


def _cut(series: Series) -> Series:
    columns = {name: column[:1] for name, column in series.columns.items()}
    return replace(series, columns=columns, start=series.start - timedelta(days=2))


def _models() -> list[ModelConfig]:
    every = {"every": "1min", "deadline": "50s"}
    common = {"assets": ["*"], "step": "1min", "schedule": every, "explain": {"most": 0}}
    of_age, of_lab = (
        {"features": [*_FEATURES, "age"], "roles": {role: "age"}, "window": "4h", "training": {"learn": learn}}
        for role, learn in (("age", "failures"), ("lab", "laboratory"))
    )
    rest = {"features": _FEATURES, "window": "1h", "training": {"learn": "normal"}}
    of_kinds = {"rul_lstm": of_age, "quality_mlp": {**of_lab, "options": {"output": "told"}}, "pca_anomaly": rest}
    return [ModelConfig.model_validate({"name": kind, "kind": kind} | common | own) for kind, own in of_kinds.items()]


async def _scorer(history: History, config: ModelConfig, assets: Sequence[Asset], now: datetime) -> Scorer:
    spec, kind = model_spec(config), history.compute.kinds[config.kind]
    born = jax.device_get(kind.init(spec, jax.random.key(0)))
    await history.registry.add(config.name, spec, Fitted(born, {}), {}, now)
    return history.scorer(config, assets)
