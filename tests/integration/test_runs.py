"""Scoring and training runs: real model, real device, the store in memory; a clock that stands where the data end."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from models.kind import Fitted
from plugin.domain import (
    Asset,
    Fill,
    Gap,
    GapCause,
    GapState,
    Micros,
    ModelState,
    Outage,
    Outcome,
    Quality,
    Run,
    RunKind,
    RunResult,
    SampleBatch,
    Status,
    quality,
    to_micros,
)
from plugin.errors import ModelError, StoreError, TrainingDataError
from plugin.historian.memory import MemoryStore
from plugin.infer.outages import Outages
from plugin.infer.runs import Runs
from plugin.protocols import Delivery, Health, HistoryProgress
from tests.integration.model_bench import FEATURES, NOW, SECONDS, Broken, Listener, config


class Astray(Listener):
    async def publish(self, outcome: Outcome) -> None:
        raise KeyError("no such thing")


async def test_a_sink_that_breaks_in_a_way_nobody_foresaw_is_counted_and_keeps_nothing_from_the_next(bench, caplog):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    listener = Listener(bench.store)
    runs = bench.runs(Astray(bench.store, "astray"), listener)
    for _ in range(2):
        assert await runs.score(scorer, NOW, NOW)
    assert len(listener.outcomes) == 2
    assert bench.diagnostics.value("publish_failures_total", sink="astray", cause="KeyError") == 4
    assert len([r for r in caplog.records if "astray" in r.message and r.exc_info]) == 1, "once, with its origin"


async def test_results_are_stored_before_they_are_published_and_one_sink_fails_alone(bench):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    listener = Listener(bench.store)
    outcome = await bench.runs(Broken(bench.store, "broken"), listener).score(scorer, NOW, NOW)
    assert outcome
    assert {p.tag.asset: p.status for p in outcome.predictions} == {"pump-1": Status.GOOD, "pump-2": Status.GOOD}
    assert listener.rows == [2]
    assert bench.diagnostics.total("publish_failures_total") == 2
    (run, _) = await bench.store.runs("odd")
    assert (run.result, run.kind, run.version, run.assets) == (RunResult.DONE, RunKind.SCORE, 1, 2)
    assert {"window", "infer"} <= set(run.stages)


async def test_nothing_is_compiled_after_the_first_run(bench):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    await bench.runs().score(scorer, NOW, NOW)
    before = bench.diagnostics.total("compilations_total")
    for second in range(5):
        await bench.runs().score(scorer, NOW, NOW - timedelta(seconds=second))
    assert bench.diagnostics.total("compilations_total") == before == 2, "to predict, and to explain"


@pytest.mark.parametrize(
    ("feature", "status", "expected"),
    [
        ("a", Status.BAD, Status.UNCERTAIN_SUB_NORMAL),
        ("b", Status.UNCERTAIN, Status.UNCERTAIN_SUB_NORMAL),
        ("c", 0x480, 0),
    ],
)
async def test_the_status_of_an_input_lowers_that_of_its_asset_alone(bench, feature, status, expected):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    later = NOW + timedelta(seconds=1)
    for asset in (0, 1):
        for name in FEATURES:
            await bench.add(name, [SECONDS], 10.0, status if (asset, name) == (0, feature) else 0, asset)
    outcome = await bench.runs().score(scorer, later, later)
    assert outcome
    assert {p.tag.asset: p.status for p in outcome.predictions} == {"pump-1": expected, "pump-2": Status.GOOD}


async def test_a_value_is_held_no_longer_than_its_source_was_heard(bench):
    scorer = bench.scorer(config(hold="60s"))
    await bench.training().train(scorer)
    later = NOW + timedelta(seconds=6)

    async def coverage() -> set[float]:
        outcome = await bench.runs().score(scorer, later, later)
        assert outcome
        return {p.coverage for p in outcome.predictions}

    assert await coverage() == {1.0}, "a tag that reports changes only is held while its server is there"
    bench.away = to_micros(NOW + timedelta(seconds=2))
    assert await coverage() == {0.6}, "of the recent 10 s the last 4 were not heard of"
    for asset in (0, 1):
        for name in FEATURES:
            await bench.add(name, [SECONDS + 3], 10.0, asset=asset)
    assert await coverage() == {0.9}, "what was sent again is observed, and held"
    bench.away = None
    assert await coverage() == {1.0}


async def test_a_lost_source_and_a_gap_are_never_good(bench):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    bench.away = to_micros(NOW)
    outcome = await bench.runs().score(scorer, NOW, NOW)
    assert outcome
    assert {p.status for p in outcome.predictions} == {Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE}
    bench.away = None
    gap = Gap("1", "plant", "pump-1.a", NOW, None, GapCause.BAD_ITEM, NOW)
    await bench.store.write([Delivery(SampleBatch.empty(), gaps=(gap,))])
    later = NOW + timedelta(seconds=3)
    for asset in (0, 1):
        for name in {"b", "c"} if asset == 0 else FEATURES:
            await bench.add(name, range(SECONDS, SECONDS + 3), 10.0, asset=asset)
    outcome = await bench.runs().score(scorer, later, later)
    assert outcome
    assert {p.tag.asset: quality(p.status) for p in outcome.predictions} == {
        "pump-1": Quality.BAD, "pump-2": Quality.GOOD,
    }  # fmt: skip


async def test_a_gap_that_ended_before_the_window_is_not_held_across(bench):
    scorer = bench.scorer(config(window="4s", hold="60s"))
    await bench.training().train(scorer)
    end = NOW + timedelta(seconds=20)
    gap = Gap("1", "plant", None, NOW, NOW + timedelta(seconds=2), GapCause.SERVER_DOWN, NOW)
    assert {p.coverage for p in (await bench.runs().score(scorer, end, end)).predictions} == {1.0}
    await bench.store.write([Delivery(SampleBatch.empty(), gaps=(gap,))])
    assert {p.coverage for p in (await bench.runs().score(scorer, end, end)).predictions} == {0.0}


async def test_what_a_run_gave_is_computed_again_whatever_became_known_afterwards(bench):
    scorer = bench.scorer(config(hold="60s"))
    await bench.training().train(scorer)
    end = NOW + timedelta(seconds=8)
    given: list[Outcome] = []

    async def run() -> Outcome:
        outcome: Outcome | None = await bench.runs().score(scorer, end, end)
        assert outcome
        given.append(outcome)
        return outcome

    async def tell(gap: Gap) -> None:
        await bench.store.write([Delivery(SampleBatch.empty(), gaps=(gap,))])

    await run()
    bench.away = to_micros(NOW + timedelta(seconds=3))
    assert (await run()).run.unheard == {"plant": bench.away}
    bench.away = None
    gap = Gap("1", "plant", None, NOW + timedelta(seconds=1), None, GapCause.SERVER_DOWN, NOW)
    await tell(gap)
    await run()
    gap = replace(gap, end=NOW + timedelta(seconds=4))
    await tell(gap)
    await bench.add("a", [SECONDS + 5], 30.0)
    await run()
    await bench.add("a", [SECONDS + 2, SECONDS + 3], 50.0)
    await run()
    await tell(replace(gap, state=GapState.FILLED, rows_filled=2))
    await run()
    await tell(Gap("2", "plant", "pump-1.b", NOW, NOW + timedelta(seconds=1), GapCause.OVERFLOW, NOW))
    seen = [{(p.tag.name, p.value, p.status, p.coverage) for p in each.predictions} for each in given]
    assert all(one != next_ for one, next_ in pairwise(seen)), "each time something else was known"
    await bench.training().train(scorer)
    await bench.store.set_state("odd", 2, ModelState.CHAMPION)
    await scorer.refresh()
    stored = {run.id: run for run in await bench.store.runs("odd")}
    for each in given:
        again = await scorer.again(stored[each.run.id], end)
        assert (again.predictions, again.flags) == (each.predictions, each.flags)
    with pytest.raises(ModelError, match="no version 9"):
        await scorer.again(replace(given[0].run, version=9), end)


async def test_a_window_ends_on_a_whole_step_and_so_does_what_is_said_of_it(bench):
    scorer = bench.scorer(config(window="20s", step="2s", hold="0s"))
    await bench.training().train(scorer)
    whole, later = NOW, NOW + timedelta(seconds=1.5)
    first, second = [await bench.runs().score(scorer, end, end) for end in (whole, later)]
    assert {p.as_of for p in (*first.predictions, *second.predictions)} == {whole}
    assert {p.valid_until - p.as_of for p in second.predictions} == {timedelta(seconds=6)}, "not stale when it is new"
    assert [(p.value, p.coverage) for p in first.predictions] == [(p.value, p.coverage) for p in second.predictions]
    assert (await scorer.again(second.run, whole)).predictions == second.predictions


async def test_lines_and_doubtful_values_are_seen_as_the_tag_says_live_and_again(bench):
    """A tag that is drawn as a line: live its newest value is held, and what was seen then is seen again later."""
    tags = dict(bench.assets[0].tags)
    tags["a"] = replace(tags["a"], fill=Fill.LINEAR, max_age=timedelta(seconds=30))
    tags["b"] = replace(tags["b"], uncertain=False)
    bench.assets = (Asset(bench.assets[0].name, tags), bench.assets[1])
    scorer = bench.scorer(config(hold="60s"))
    await bench.training().train(scorer)
    await bench.add("b", [SECONDS + 2], 10.0, Status.UNCERTAIN)
    await bench.add("b", [SECONDS + 5], 10.0)
    end = NOW + timedelta(seconds=8)
    live = await bench.runs().score(scorer, end, end)
    coverage = {p.tag.asset: p.coverage for p in live.predictions}
    assert coverage == {"pump-1": pytest.approx(0.9), "pump-2": 1.0}, "b is not used for 3 of the recent 10 s"
    await bench.add("a", [SECONDS + 10], 90.0)
    await bench.add("a", [SECONDS + 6], 40.0)
    stored = {run.id: run for run in await bench.store.runs("odd")}[live.run.id]
    assert (await scorer.again(stored, end)).predictions == live.predictions
    after = await bench.runs().score(scorer, end, end)
    values = [{p.tag.asset: p.value for p in each.predictions} for each in (live, after)]
    assert values[0]["pump-1"] != values[1]["pump-1"], "the line to the later sample is seen by later runs"
    assert values[0]["pump-2"] == values[1]["pump-2"]


async def test_what_came_in_while_a_run_looked_is_for_the_next_one(bench):
    """A sample that was on its way when the run began, and came into the store before and after the run read it."""
    scorer = bench.scorer(config(hold="60s"))
    await bench.training().train(scorer)
    end = NOW + timedelta(seconds=3)
    run = await bench.store.write_run(Run(0, "odd", RunKind.SCORE, end, started=datetime.now(UTC)))
    await bench.add("a", [SECONDS], 90.0)
    await bench.store.write(
        [Delivery(SampleBatch.empty(), gaps=(Gap("1", "plant", None, NOW, None, GapCause.SEQUENCE, NOW),))]
    )
    outcome = await scorer.score(run, end)
    await bench.add("a", [SECONDS + 1], 95.0)
    again = await scorer.again(outcome.run, end)
    assert again.predictions == outcome.predictions
    assert {p.coverage for p in again.predictions} == {1.0}, "the gap was found after it began"
    after = await scorer.score(replace(run, started=datetime.now(UTC)), end)
    assert after.predictions != outcome.predictions


async def test_no_data_at_all_is_bad_and_has_no_value(bench):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    far = NOW + timedelta(hours=1)
    outcome = await bench.runs().score(scorer, far, far)
    assert outcome
    assert {(p.value, p.lower, p.status) for p in outcome.predictions} == {(None, None, Status.BAD_NO_DATA)}
    assert outcome.flags == ()


async def test_a_flag_is_raised_after_its_persistence_and_known_after_a_restart(bench):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    for name in FEATURES:
        await bench.add(name, range(SECONDS, SECONDS + 6), 60.0)
    seen = []
    for second in range(1, 6):
        end = NOW + timedelta(seconds=second)
        outcome = await bench.runs().score(scorer, end, end)
        assert outcome
        seen.append(next(flag.raised for flag in outcome.flags if flag.asset == "pump-1"))
    assert seen[0] is False
    assert seen[-1] is True
    end = NOW + timedelta(seconds=6)
    outcome = await bench.runs().score(bench.scorer(config()), end, end)
    assert outcome
    assert {flag.asset: flag.raised for flag in outcome.flags} == {"pump-1": True, "pump-2": False}


async def test_a_flag_that_was_raised_before_a_long_stillness_is_known_after_it(bench):
    await bench.training().train(bench.scorer(config()))
    for name in FEATURES:
        await bench.add(name, [*range(SECONDS, SECONDS + 6), SECONDS + 500_000], 60.0)
    first = bench.scorer(config())
    for second in range(1, 6):
        await bench.runs().score(first, NOW, NOW + timedelta(seconds=second))
    end = NOW + timedelta(seconds=500_001)
    outcome = await bench.runs().score(bench.scorer(config(persistence=3)), end, end)
    assert outcome
    assert [flag.raised for flag in outcome.flags] == [True]


class Full(MemoryStore):
    async def write_outcome(self, outcome: Outcome) -> None:
        raise StoreError("the disk is full")


async def test_a_decision_that_could_not_be_stored_was_not_made(bench):
    scorer = bench.scorer(config(persistence=3))
    await bench.training().train(scorer)
    for name in FEATURES:
        await bench.add(name, range(SECONDS, SECONDS + 6), 60.0)
    ends = [NOW + timedelta(seconds=second) for second in (2, 3, 4)]
    await bench.runs().score(scorer, ends[0], ends[0])
    assert await Runs(Full(), (), bench.diagnostics).score(scorer, ends[1], ends[1]) is None
    outcome = await bench.runs().score(scorer, ends[2], ends[2])
    assert outcome
    again = await bench.scorer(config(persistence=3)).again(outcome.run, ends[2])
    assert again.flags == outcome.flags


async def test_a_run_over_its_deadline_is_a_failed_row_and_the_next_one_runs(bench):
    hasty = bench.scorer(config(schedule={"every": "1s", "deadline": "1us"}))
    await bench.training().train(hasty)
    assert await bench.runs().score(hasty, NOW, NOW) is None
    run = (await bench.store.runs("odd"))[0]
    assert (run.result, run.error) == (RunResult.FAILED, "deadline exceeded")
    assert await bench.runs().score(bench.scorer(config()), NOW, NOW)


async def test_an_altered_artifact_fails_the_run_with_its_reason(bench, tmp_path):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    (artifact,) = (tmp_path / "models").glob("*.safetensors")
    artifact.write_bytes(artifact.read_bytes()[:-1] + b"\x01")
    assert await bench.runs().score(bench.scorer(config()), NOW, NOW) is None
    (run,) = (run for run in await bench.store.runs("odd") if run.kind is RunKind.SCORE)
    assert (run.result, "was altered or cut short" in run.error) == (RunResult.FAILED, True)
    assert bench.diagnostics.value("runs_total", model="odd", kind="score", result="failed") == 1


async def test_an_artifact_of_another_release_fails_the_run_with_its_reason(bench):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    spec, params = await bench.registry.load(await bench.registry.version("odd", 1))
    (_, *kept) = params.items()
    older = await bench.registry.add("odd", spec, Fitted(dict(kept), {}), {}, NOW)
    await bench.registry.promote("odd", older.version, spec)
    assert await bench.runs().score(bench.scorer(config()), NOW, NOW) is None
    (run,) = (run for run in await bench.store.runs("odd") if run.kind is RunKind.SCORE)
    assert "this release's pca_anomaly" in run.error
    assert "train it again" in run.error


async def test_a_model_for_another_configuration_is_trained_anew_and_takes_over(bench):
    await bench.training().train(bench.scorer(config()))
    other = bench.scorer(config(features=("a", "b")))
    assert await bench.runs().score(other, NOW, NOW) is None
    await bench.training().train_missing([other], lambda scorer: True)
    outcome = await bench.runs().score(other, NOW, NOW)
    assert outcome
    assert outcome.run.version == 2
    assert [v.state for v in await bench.store.versions("odd")] == [ModelState.CHAMPION, ModelState.RETIRED]


async def test_a_second_training_of_the_same_is_a_challenger(bench):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    await bench.training().train(scorer)
    assert [v.state for v in await bench.store.versions("odd")] == [ModelState.CHALLENGER, ModelState.CHAMPION]


async def test_training_without_data_is_a_failed_row_that_says_what_is_missing(bench):
    scorer = bench.scorer(config(roles={"age": "a"}, training={"learn": "failures"}, kind="rul_lstm", options={}))
    bench.store = MemoryStore()
    tags = await bench.store.register_tags([tag for asset in bench.assets for tag in asset.tags.values()])
    bench.assets = Asset.gather(tags)
    empty = bench.scorer(scorer.config)
    with pytest.raises(TrainingDataError, match="no completed run to failure"):
        await bench.training().train(empty)
    (run,) = await bench.store.runs("odd")
    assert run.result is RunResult.FAILED
    assert "no completed run" in run.error


async def test_a_model_whose_source_is_away_holds_up_no_other(bench):
    waiting, ready = bench.scorer(config(name="waiting")), bench.scorer(config(name="ready"))
    task = asyncio.create_task(bench.training().train_missing([waiting, ready], lambda s: s is ready))
    async with asyncio.timeout(60):
        while not await bench.store.versions("ready"):
            await asyncio.sleep(0.05)
    assert not await bench.store.versions("waiting")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_model_whose_artifact_was_altered_holds_up_no_other_and_is_not_trained_by_itself(bench, tmp_path):
    await bench.training().train(bench.scorer(config()))
    (artifact,) = (tmp_path / "models").glob("odd-*.safetensors")
    artifact.write_bytes(artifact.read_bytes()[:-1])
    altered, ready = bench.scorer(config()), bench.scorer(config(name="ready"))
    await bench.training().train_missing([altered, ready], lambda _: True)
    assert len(await bench.store.versions("ready")) == 1
    assert len(await bench.store.versions("odd")) == 1, "whether it is to be trained again is for a person to say"


async def test_a_missed_run_and_one_that_a_killed_process_left_get_their_rows(bench):
    runs = bench.runs()
    runs.miss("odd", NOW)
    recording = asyncio.create_task(runs.record_missed())
    async with asyncio.timeout(10):
        while not await bench.store.runs("odd"):
            await asyncio.sleep(0.01)
    recording.cancel()
    await bench.store.write_run(Run(0, "odd", RunKind.SCORE, NOW, started=NOW))
    await runs.end_unfinished(["odd"])
    assert {run.result for run in await bench.store.runs("odd")} == {RunResult.MISSED, RunResult.FAILED}
    assert bench.diagnostics.value("runs_total", model="odd", kind="score", result="missed") == 1


async def test_no_prediction_waits_for_a_fit_or_for_the_compiler(bench):
    done = threading.Event()
    fitting = asyncio.create_task(bench.compute.fit(done.wait, 60))
    compiling = bench.compute.aside("infer", done.wait, 60)
    async with asyncio.timeout(30):
        assert await bench.compute.run("infer", lambda: not done.is_set())
    done.set()
    assert await fitting
    assert await asyncio.wrap_future(compiling)


async def test_a_training_that_is_stopped_leaves_a_row_that_says_so(bench):
    training = asyncio.create_task(bench.training().train(bench.scorer(config())))
    async with asyncio.timeout(10):
        while not await bench.store.runs("odd"):
            await asyncio.sleep(0)
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    (run,) = await bench.store.runs("odd")
    assert (run.kind, run.result, run.error) == (RunKind.TRAIN, RunResult.FAILED, "stopped")


class Place:
    """A source that is away or not, as a test says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.away: Micros | None = None

    def health(self) -> Health:
        return Health("x", connected=self.away is None, away_since=self.away)

    def history_progress(self) -> HistoryProgress:
        return HistoryProgress(self.name, 0, 0, 0, finished=True)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        yield Delivery(SampleBatch.empty())


class Deaf(Listener):
    async def degrade(self, outage: Outage) -> None:
        self.outages.append(outage)
        raise KeyError("no such thing")


async def test_every_sink_hears_at_once_which_outputs_are_cut_off_and_a_deaf_one_is_told_again(bench):
    plant, mill = Place("plant"), Place("mill")
    scorer = bench.scorer(config())
    deaf, listener = Deaf(bench.store, "deaf"), Listener(bench.store)
    outages = Outages([plant, mill], [scorer], [deaf, listener], bench.diagnostics)
    await outages.look()
    await outages.look()
    assert listener.outages == [Outage(frozenset(), 2, frozenset())]
    assert len(deaf.outages) == 2
    mill.away = 1
    await outages.look()
    assert listener.outages[-1] == Outage(frozenset({"mill"}), 2, frozenset()), "no model draws on it"
    plant.away = 1
    await outages.look()
    assert listener.outages[-1].outputs == {tag.name for tag in scorer.tags}
    assert bench.diagnostics.value("outputs_cut_off") == len(scorer.tags)
    plant.away = mill.away = None
    await outages.look()
    assert listener.outages[-1] == Outage(frozenset(), 2, frozenset())
    assert len(listener.outages) == 4
    assert bench.diagnostics.value("publish_failures_total", sink="deaf", cause="KeyError") == 5
