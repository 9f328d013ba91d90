"""Whether a model still fits is watched beside its runs: drifts begin, make predictions uncertain, and end."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from plugin.domain import Drift, DriftKind, Outcome, RunResult, SampleBatch, Status, to_micros
from plugin.infer.config import ModelConfig
from plugin.infer.monitoring import Monitoring
from plugin.infer.outputs import model_spec
from plugin.infer.scoring import Scorer
from plugin.protocols import Delivery
from tests.integration.level_kind import Level
from tests.integration.model_bench import NOW, Bench, config


def sensor(**changes: object) -> ModelConfig:
    """A soft sensor of ``c``."""
    fields: dict[str, object] = {
        "name": "soft", "kind": "level", "roles": {"lab": "c"}, "window": "100s", "recent": "30s",
        "training": {"learn": "laboratory"}, "options": {},
    }  # fmt: skip
    return config(**(fields | changes))


def monitoring(bench: Bench, scorer: Scorer) -> Monitoring:
    """Its verdicts have effect at once: on every run that begins after it."""
    return Monitoring(
        bench.store, bench.registry, bench.compute, [scorer], bench.diagnostics,
        clock=lambda: datetime.now(NOW.tzinfo) - timedelta(seconds=2),
    )  # fmt: skip


async def trained(bench: Bench, **changes: object) -> Scorer:
    bench.compute.kinds = {**bench.compute.kinds, "level": Level()}
    scorer = bench.scorer(sensor(**changes))
    await bench.training().train(scorer)
    return scorer


async def goes_on(bench: Bench, begin: int, end: int, shift: float = 0.0, asset: int = 0) -> None:
    """Both pumps as before, but for ``a`` of one of them."""
    noise = np.random.default_rng(begin)
    times = to_micros(NOW) + np.arange(begin, end, dtype=np.int64) * 1_000_000
    for row, machine in enumerate(bench.assets):
        for name, tag in machine.tags.items():
            values = noise.normal(10, 1, len(times)) + (shift if (row, name) == (asset, "a") else 0.0)
            await bench.store.write([Delivery(SampleBatch.of([tag.id] * len(times), times, values, 0, times, times))])


async def run(bench: Bench, scorer: Scorer, second: int) -> Outcome:
    at = NOW + timedelta(seconds=second)
    outcome = await bench.runs().score(scorer, at, at)
    assert outcome is not None
    assert outcome.run.result is RunResult.DONE
    return outcome


def statuses(outcome: Outcome) -> dict[str, int]:
    return {p.tag.asset: p.status for p in outcome.predictions if p.tag.output == "q"}


async def test_an_input_beyond_its_training_makes_what_is_said_of_its_asset_uncertain_until_it_is_back(bench):
    scorer = await trained(bench)
    await goes_on(bench, 0, 40)
    assert set(statuses(await run(bench, scorer, 40)).values()) == {Status.GOOD}
    watch = monitoring(bench, scorer)
    await watch.look()
    assert await bench.store.drifts() == ()
    await goes_on(bench, 40, 80, shift=50.0)
    await run(bench, scorer, 80)
    await watch.look()
    (drift,) = await bench.store.drifts(open_only=True)
    assert (drift.kind, drift.asset, drift.subject, drift.version) == (DriftKind.INPUT, "pump-1", "a", 1)
    assert timedelta(0) <= drift.since - (NOW + timedelta(seconds=40)) <= timedelta(seconds=20)
    assert "in training it was from" in drift.detail
    assert bench.diagnostics.value("drifts_open", model="soft") == 1
    doubtful = await run(bench, scorer, 80)
    assert statuses(doubtful) == {"pump-1": Status.UNCERTAIN_SUB_NORMAL, "pump-2": Status.GOOD}

    await monitoring(bench, scorer).look()  # as after a restart
    assert await bench.store.drifts() == (drift,)

    await goes_on(bench, 80, 400)
    await run(bench, scorer, 400)
    await watch.look()
    (ended,) = await bench.store.drifts()
    assert ended == replace(drift, until=ended.until)
    assert ended.until is not None
    assert set(statuses(await run(bench, scorer, 400)).values()) == {Status.GOOD}
    again = await scorer.again(doubtful.run, NOW + timedelta(seconds=80))
    assert again.predictions == doubtful.predictions, "it was uncertain then, and is when it is computed again"


async def test_a_value_in_another_unit_makes_what_is_said_uncertain_in_the_very_run_that_sees_it(bench, caplog):
    """What most of the recent values are like comes later; a single one long ago says nothing."""
    scorer = await trained(bench)
    await goes_on(bench, 0, 40)
    await goes_on(bench, 40, 41, shift=40.0)  # degrees Fahrenheit where Celsius was learnt
    for second in (41, 41):
        doubtful = await run(bench, scorer, second)
        assert statuses(doubtful) == {"pump-1": Status.UNCERTAIN_SUB_NORMAL, "pump-2": Status.GOOD}
    told = [each.getMessage() for each in caplog.records if "look at the instrument and its unit" in each.getMessage()]
    assert len(told) == 1, "not at each run"
    assert "model soft-1: a of pump-1 is not within" in told[0]
    assert await bench.store.drifts() == ()
    await goes_on(bench, 41, 60)
    assert set(statuses(await run(bench, scorer, 60)).values()) == {Status.GOOD}
    again = await scorer.again(doubtful.run, NOW + timedelta(seconds=41))
    assert again.predictions == doubtful.predictions


async def test_values_that_were_far_off_count_as_not_observed_while_they_are_recent(bench):
    scorer = await trained(bench, required=0.9)
    await goes_on(bench, 0, 40, shift=40.0)
    await goes_on(bench, 40, 60)
    assert statuses(await run(bench, scorer, 60)) == {"pump-1": Status.UNCERTAIN_SUB_NORMAL, "pump-2": Status.GOOD}
    await goes_on(bench, 60, 80)
    assert set(statuses(await run(bench, scorer, 80)).values()) == {Status.GOOD}


async def laboratory_says(bench: Bench, level: float, asset: int) -> None:
    """From the hundredth second on."""
    lab = bench.assets[asset].tags["c"].id
    times = to_micros(NOW) + np.arange(100, 400, dtype=np.int64) * 1_000_000 + 1
    values = np.random.default_rng(5).normal(level, 1, len(times))
    await bench.store.write([Delivery(SampleBatch.of([lab] * len(times), times, values, 0, times, times))])


async def test_a_bias_that_carries_much_is_a_remark_and_puts_nothing_in_doubt(bench):
    scorer = await trained(bench)
    await goes_on(bench, 0, 400)
    await laboratory_says(bench, 14.0, 1)
    await run(bench, scorer, 400)
    watch = monitoring(bench, scorer)
    await watch.look()
    (drift,) = await bench.store.drifts()
    assert (drift.kind, drift.asset, drift.subject, drift.until) == (DriftKind.BIAS, "pump-2", "q", None)
    assert abs((drift.since - NOW).total_seconds() - 100) <= 20
    assert drift.statistic == pytest.approx(4, abs=0.5)
    assert not drift.doubtful
    assert "the bias carries" in drift.detail
    assert set(statuses(await run(bench, scorer, 400)).values()) == {Status.GOOD}
    await goes_on(bench, 400, 4000)
    await run(bench, scorer, 4000)
    await watch.look()
    (ended,) = await bench.store.drifts()
    assert ended.until is not None


async def test_a_bias_that_carries_more_than_it_can_puts_what_is_said_in_doubt(bench):
    scorer = await trained(bench)
    await goes_on(bench, 0, 400)
    await laboratory_says(bench, 40.0, 1)
    await run(bench, scorer, 400)
    await monitoring(bench, scorer).look()
    kinds = {(drift.kind, drift.asset) for drift in await bench.store.drifts()}
    assert kinds == {(DriftKind.BIAS, "pump-2"), (DriftKind.RESIDUAL, "pump-2")}
    assert statuses(await run(bench, scorer, 400)) == {"pump-1": Status.GOOD, "pump-2": Status.UNCERTAIN_SUB_NORMAL}


async def test_intervals_that_hold_too_little_are_a_drift_and_a_metric(bench):
    scorer = await trained(bench)
    await goes_on(bench, 0, 60)
    asset = bench.assets[0]
    noise = np.random.default_rng(3)
    for second in range(60, 60 * 31, 60):
        await run(bench, scorer, second)
        at = np.array([to_micros(NOW) + second * 1_000_000])
        wild = noise.choice([-200.0, 200.0], 1)
        await bench.store.write([Delivery(SampleBatch.of([asset.tags["c"].id], at, wild, 0, at, at))])
        for name in "ab":
            times = at + np.array([0, 1_000_000])
            await bench.store.write(
                [Delivery(SampleBatch.of([asset.tags[name].id] * 2, times, noise.normal(10, 1, 2), 0, times, times))]
            )
    await monitoring(bench, scorer).look()
    (drift,) = [each for each in await bench.store.drifts() if each.kind is DriftKind.COVERAGE]
    assert (drift.asset, drift.subject) == ("pump-1", "q")
    assert drift.statistic < drift.limit < 0.9
    assert bench.diagnostics.value("coverage", model="soft", output="q") == pytest.approx(drift.statistic)


async def test_nothing_is_watched_of_a_model_that_asks_for_it(bench):
    scorer = await trained(bench, monitor=False)
    await goes_on(bench, 0, 40, shift=50.0)
    await run(bench, scorer, 40)
    await monitoring(bench, scorer).look()
    assert await bench.store.drifts() == ()


async def test_a_drift_ends_with_its_version(bench):
    scorer = await trained(bench)
    drift = Drift("1", "soft", 1, DriftKind.INPUT, "pump-1", "a", NOW, NOW, None, 1.0, 0.5, "warmer")
    await bench.store.write_drifts([drift])
    await bench.training().train(scorer)
    await bench.registry.promote("soft", 2, model_spec(scorer.config))
    await goes_on(bench, 0, 40)
    assert set(statuses(await run(bench, scorer, 40)).values()) == {Status.GOOD}
    await monitoring(bench, scorer).look()
    (ended,) = await bench.store.drifts()
    assert ended.until is not None


async def test_a_detector_of_anomalies_is_not_told_that_its_inputs_are_odd(bench):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    await goes_on(bench, 0, 40, shift=50.0)
    found = await run(bench, scorer, 40)
    assert Status.UNCERTAIN_SUB_NORMAL not in {each.status for each in found.predictions}
    await monitoring(bench, scorer).look()
    assert await bench.store.drifts() == ()
