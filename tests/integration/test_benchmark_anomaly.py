"""The benchmark on anomalies: one file's way through the database, the training and the backtest."""

from datetime import UTC, datetime

import numpy as np

from tests.benchmarks import _history
from tests.benchmarks.anomaly import Trial, auc, plant, rates, told


def trial() -> Trial:
    """Eight sensors that move together, with every twentieth second missing, and a hole; a fault from row 460 on."""
    generator = np.random.default_rng(3)
    common = generator.normal(size=500)
    rows = common[:, None] + generator.normal(0, 0.3, (500, 8))
    anomalous = np.arange(500) >= 460
    rows[anomalous, 2] += 3.0
    seconds = np.arange(500) + np.arange(500) // 19
    seconds[430:] += 200
    return Trial("valve/0", rows, datetime(2020, 3, 9, 10, tzinfo=UTC), seconds, anomalous)


async def test_each_row_after_the_healthy_ones_is_told_of_though_some_seconds_are_missing():
    given = trial()
    async with _history.opened() as history:
        (asset,) = await history.keep([plant(given)])
        found = await told(history, "var_anomaly", given, asset, 0)
    assert len(found.score) == len(found.flagged) == 100
    assert len({*found.score[30:35]}) == 1, "after the hole there is no score for five rows: the last one stands"
    assert auc(found.score, found.anomalous) > 0.9
    far, mar = rates([found])
    assert far < 10.0
    assert mar < 60.0
