"""What the benchmarks put into a database is what models are trained on and scored with."""

from datetime import timedelta

import numpy as np

from plugin.domain import to_micros
from plugin.infer.config import ModelConfig
from tests.benchmarks import _history
from tests.benchmarks._history import BEGIN, Series, numbers

HOUR = timedelta(hours=1)


def config() -> ModelConfig:
    fields = {
        "name": "odd", "kind": "pca_anomaly", "assets": ["*"], "features": ("a", "b", "c"), "window": 20 * HOUR,
        "step": HOUR, "hold": 0, "training": {"learn": "normal"}, "options": {"smooth": 2},
    }  # fmt: skip
    return ModelConfig.model_validate(fields)


def columns(generator: np.random.Generator, cells: int = 400) -> dict[str, np.ndarray]:
    common = generator.normal(size=cells)
    return {name: common + generator.normal(0, 0.1, cells) for name in "abc"}


async def test_a_model_is_trained_and_scored_over_what_was_kept():
    generator = np.random.default_rng(1)
    calm = columns(generator)
    odd = {name: column.copy() for name, column in calm.items()}
    odd["a"][-5:] += 4.0
    async with _history.opened() as history:
        assets = await history.keep([Series("calm", calm, HOUR), Series("odd", odd, HOUR)])
        end = Series("calm", calm, HOUR).end
        version = await history.train(config(), assets[:1], end)
        before, after = [run async for run in history.score(config(), assets, [end - 8 * HOUR, end])]
    assert version.version == 1
    scores = [numbers(run.predictions, "score")[:, 0] for run in (before, after)]
    assert scores[0][0] == scores[0][1]
    assert scores[1][1] > 5 * scores[1][0]


async def test_what_is_known_late_is_not_seen_before():
    values = {"a": np.arange(6.0), "lab": np.array([np.nan, 7.0, np.nan, 8.0, np.nan, np.nan])}
    series = Series("column", values, HOUR, late={"lab": 2 * HOUR})
    async with _history.opened() as history:
        (column,) = await history.keep([series])
        found = [
            await history.store.read_samples(
                [column.tags["lab"].id], 0, 2**62, known_by=to_micros(BEGIN + hours * HOUR)
            )
            for hours in (2, 3, 5)
        ]
    assert [each.value.tolist() for each in found] == [[], [7.0], [7.0, 8.0]]
    assert series.end == BEGIN + 6 * HOUR
