"""The life of a model version: promoted, rolled back, retired; a challenger in shadow beside the champion."""

from dataclasses import replace
from datetime import timedelta

import pytest

from plugin.domain import (
    Drift,
    DriftKind,
    Grid,
    Label,
    LabelKind,
    ModelState,
    Quality,
    RunKind,
    RunResult,
    Status,
    Verdict,
    Window,
    quality,
)
from plugin.errors import ModelError
from plugin.historian.memory import MemoryStore
from plugin.infer.outputs import model_spec
from plugin.infer.promotion import Promotion
from plugin.infer.registry import Registry
from plugin.infer.training_runs import Training
from tests.integration.model_bench import FEATURES, NOW, SECONDS, Bench, Listener, config

CHAMPION, CHALLENGER, RETIRED = ModelState.CHAMPION, ModelState.CHALLENGER, ModelState.RETIRED


async def trained(bench: Bench, versions: int, **changes: object):
    scorer = bench.scorer(config(**changes))
    for _ in range(versions):
        await bench.training().train(scorer)
    return scorer


async def states(bench: Bench) -> dict[int, ModelState]:
    return {version.version: version.state for version in await bench.store.versions("odd")}


def person(bench: Bench, tmp_path) -> Registry:
    return Registry(bench.store, tmp_path / "models", user="anna", origin="command")


SPEC = model_spec(config())


async def test_a_promotion_and_a_rollback_have_effect_with_the_next_run_and_are_on_record(bench, tmp_path):
    scorer = await trained(bench, 2)
    registry, runs = person(bench, tmp_path), bench.runs()

    async def version() -> int:
        outcome = await runs.score(scorer, NOW, NOW)
        assert outcome
        (number,) = {p.version for p in outcome.predictions}
        return int(number)

    assert await version() == 1
    await registry.promote("odd", 2, SPEC, because={"reason": "better"})
    assert await version() == 2
    back = await registry.roll_back("odd", SPEC)
    assert (back.version, back.state) == (1, CHAMPION)
    assert await version() == 1
    assert await states(bench) == {1: CHAMPION, 2: RETIRED}
    log = [(e.user, e.action, e.subject, dict(e.after)) for e in reversed(await bench.store.audit())]
    assert log == [
        ("foretag", "promote", "odd-1", {"state": "champion"}),
        ("anna", "retire", "odd-1", {"state": "retired"}),
        ("anna", "promote", "odd-2", {"state": "champion", "reason": "better"}),
        ("anna", "retire", "odd-2", {"state": "retired"}),
        ("anna", "promote", "odd-1", {"state": "champion", "rolled_back": "odd-2"}),
    ]


async def test_rolled_back_twice_is_the_one_before_that_and_then_there_is_none(bench, tmp_path):
    await trained(bench, 3)
    registry = person(bench, tmp_path)
    await registry.promote("odd", 2, SPEC)
    await registry.promote("odd", 3, SPEC)
    assert (await registry.roll_back("odd", SPEC)).version == 2
    assert (await registry.roll_back("odd", SPEC)).version == 1
    with pytest.raises(ModelError, match="no other version was in force before"):
        await registry.roll_back("odd", SPEC)
    await registry.promote("odd", 3, SPEC)
    assert (await registry.roll_back("odd", SPEC)).version == 1, "2 was rolled back: it is not what was before"


async def test_what_can_not_be_used_is_not_promoted_and_nothing_changes(bench, tmp_path):
    await trained(bench, 2)
    registry = person(bench, tmp_path)
    before = await states(bench)
    with pytest.raises(ModelError, match="has no version 9"):
        await registry.promote("odd", 9, SPEC)
    with pytest.raises(ModelError, match="in force already"):
        await registry.promote("odd", 1, SPEC)
    with pytest.raises(ModelError, match="another configuration"):
        await registry.promote("odd", 2, model_spec(config(features=("a", "b"))))
    newest = (await bench.store.versions("odd"))[0]
    path = tmp_path / "models" / newest.artifact
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ModelError, match="SHA-256"):
        await registry.promote("odd", 2, SPEC)
    assert await states(bench) == before


async def test_only_a_challenger_is_retired(bench, tmp_path):
    await trained(bench, 2)
    registry = person(bench, tmp_path)
    with pytest.raises(ModelError, match="odd-1 is in force; promote another"):
        await registry.retire("odd", 1)
    await registry.retire("odd", 2, because={"reason": "worse"})
    assert await states(bench) == {1: CHAMPION, 2: RETIRED}
    with pytest.raises(ModelError, match="odd-2 is retired"):
        await registry.retire("odd", 2)


class Counting(MemoryStore):
    """Counts the windows that were read."""

    windows = 0

    async def grid(self, window: Window, **bounds: int | None) -> Grid:
        self.windows += 1
        return await super().grid(window, **bounds)


async def test_a_challenger_sees_what_the_champion_saw_and_is_stored_and_not_published(bench):
    bench.store.__class__ = Counting
    scorer = await trained(bench, 3)
    listener = Listener(bench.store)
    outcome = await bench.runs(listener).score(scorer, NOW, NOW)
    assert bench.store.windows == 1
    assert [p.version for o in listener.outcomes for p in o.predictions] == [1, 1]
    shadow, champion, *_ = await bench.store.runs("odd")
    assert [(r.kind, r.result, r.version) for r in (shadow, champion)] == [
        (RunKind.SHADOW, RunResult.DONE, 3), (RunKind.SCORE, RunResult.DONE, 1),
    ]  # fmt: skip
    assert shadow.started == champion.started
    since = NOW - timedelta(hours=1), NOW + timedelta(hours=1)
    beside = await bench.store.predictions("odd", *since, shadow=True)
    assert {(p.version, p.status) for p in beside} == {(3, Status.UNCERTAIN_SIMULATED_VALUE)}
    assert await bench.store.predictions("odd", *since) == outcome.predictions
    again = await scorer.again(shadow, NOW)
    assert again.predictions == beside
    assert again.flags == await bench.store.flags(*since, shadow=True)


async def test_as_many_challengers_as_configured_run_in_shadow(bench):
    scorer = await trained(bench, 4, shadow=2)
    await bench.runs().score(scorer, NOW, NOW)
    assert [r.version for r in await bench.store.runs("odd") if r.kind is RunKind.SHADOW] == [3, 4]
    none = bench.scorer(config(shadow=0))
    before = len(await bench.store.runs("odd"))
    await bench.runs().score(none, NOW, NOW)
    assert len(await bench.store.runs("odd")) == before + 1


async def test_flags_of_a_challenger_are_its_own_and_the_champion_s_are_not_touched(bench, tmp_path):
    scorer = await trained(bench, 2)
    for name in FEATURES:
        await bench.add(name, range(SECONDS, SECONDS + 9), 60.0)
    # The challenger's threshold is out of reach: it never raises a flag.
    newest = (await bench.store.versions("odd"))[0]
    high = replace(newest, metrics={**newest.metrics, "threshold": 1e12})
    bench.store._versions["odd"][2] = high
    runs = bench.runs()
    for second in range(1, 6):
        assert await runs.score(scorer, NOW, NOW + timedelta(seconds=second))
    since = NOW, NOW + timedelta(hours=1)
    assert any(flag.raised for flag in await bench.store.flags(*since))
    assert not any(flag.raised for flag in await bench.store.flags(*since, shadow=True))
    after = NOW + timedelta(seconds=6)
    restarted = await bench.runs().score(bench.scorer(config()), after, after)
    assert restarted
    assert any(flag.raised for flag in restarted.flags), "after a restart the champion's own past counts"
    shadows = [flag for flag in await bench.store.flags(*since, shadow=True) if flag.as_of == after]
    assert shadows
    assert not any(flag.raised for flag in shadows)


async def test_a_challenger_that_can_not_be_loaded_costs_the_champion_nothing(bench, tmp_path):
    scorer = await trained(bench, 2)
    newest = (await bench.store.versions("odd"))[0]
    (tmp_path / "models" / newest.artifact).unlink()
    listener = Listener(bench.store)
    assert await bench.runs(listener).score(scorer, NOW, NOW)
    assert len(listener.outcomes) == 1
    shadow = (await bench.store.runs("odd"))[0]
    assert (shadow.kind, shadow.result) == (RunKind.SHADOW, RunResult.FAILED)
    assert "train it again" in shadow.error
    assert bench.diagnostics.value("runs_total", model="odd", kind="shadow", result="failed") == 1


async def test_a_challenger_has_what_the_champion_leaves_of_the_deadline(bench):
    """No time is left: the run fails, and what was begun of its loading goes on for the next one."""
    scorer = await trained(bench, 2)
    now = [NOW]

    class Slow(Listener):
        async def publish(self, outcome):
            now[0] += timedelta(seconds=30)
            await super().publish(outcome)

    runs = type(bench.runs())(bench.store, [Slow(bench.store)], bench.diagnostics, clock=lambda: now[0])
    assert await runs.score(scorer, NOW, NOW)
    shadow = (await bench.store.runs("odd"))[0]
    assert (shadow.kind, shadow.error) == (RunKind.SHADOW, "deadline exceeded")
    assert await bench.runs().score(scorer, NOW, NOW)
    assert (await bench.store.runs("odd"))[0].result is RunResult.DONE


async def test_a_promoted_challenger_is_published_as_good_from_the_next_run_on(bench, tmp_path):
    scorer = await trained(bench, 2)
    await bench.runs().score(scorer, NOW, NOW)
    compiled = bench.diagnostics.total("compilations_total")
    await person(bench, tmp_path).promote("odd", 2, SPEC)
    outcome = await bench.runs().score(scorer, NOW, NOW)
    assert outcome
    assert {(p.version, quality(p.status)) for p in outcome.predictions} == {(2, Quality.GOOD)}
    explainer = 1  # in shadow nothing is explained; it is compiled beside the run, which does not wait for it
    assert bench.diagnostics.total("compilations_total") == compiled + explainer, "it was ready already"
    assert (await bench.store.runs("odd"))[0].kind is RunKind.SCORE, "nothing is left to run in shadow"


async def false_alarms(bench: Bench, ticks: int, model: str = "odd") -> None:
    """Runs of which the champion raises a flag at each, the challenger never; a person says that all were false."""
    champion, challenger = 1, 2
    versions = bench.store._versions[model]
    for number, threshold in ((champion, -1.0), (challenger, 1e12)):
        versions[number] = replace(versions[number], metrics={**versions[number].metrics, "threshold": threshold})
    scorer, runs = bench.scorer(config(name=model, persistence=1)), bench.runs()
    for second in range(ticks):
        assert await runs.score(scorer, NOW, NOW - timedelta(seconds=second))
    flags, false = await bench.store.flags(NOW - timedelta(hours=1), NOW + timedelta(hours=1)), Verdict.FALSE_ALARM
    await bench.store.write_labels(
        [
            Label(f"{model} {n}", LabelKind.VERDICT, flag.asset, flag.as_of, NOW, None, false, model, flag.as_of)
            for n, flag in enumerate(flags)
            if flag.model == model
        ]
    )


def promotion(bench: Bench, **rule: object) -> Promotion:
    scorer = bench.scorer(config(promotion=rule))
    return Promotion(bench.store, bench.registry, [scorer], clock=lambda: NOW + timedelta(hours=1))


async def test_a_challenger_that_was_better_in_shadow_is_promoted_by_rule_with_its_figures(bench, tmp_path):
    await trained(bench, 2)
    versions = bench.store._versions["odd"]
    versions[2] = replace(versions[2], created=NOW - timedelta(days=1))
    await false_alarms(bench, 4)
    await promotion(bench, by="rule", outcomes=9).look()
    assert (await states(bench))[1] is CHAMPION, "8 outcomes are too few"
    await promotion(bench, by="person", outcomes=8).look()
    assert (await states(bench))[1] is CHAMPION, "a person has not said so"
    await promotion(bench, by="rule", outcomes=8).look()
    assert await states(bench) == {1: RETIRED, 2: CHAMPION}
    entry = (await bench.store.audit(action="promote", limit=1))[0]
    assert (entry.user, entry.subject) == ("foretag", "odd-2")
    assert (entry.after["against"], entry.after["outcomes"]) == (1, 8)
    assert entry.after["better"] == pytest.approx(1.0)
    assert entry.after["outputs"]["flag"]["errors"] == (1.0, 0.0)
    assert entry.after["rule"]["outcomes"] == 8
    assert (await person(bench, tmp_path).roll_back("odd", SPEC)).version == 1


async def test_a_challenger_that_can_not_be_put_in_force_holds_up_no_other_model(bench, tmp_path, caplog):
    scorers = [bench.scorer(config(name=name, promotion={"by": "rule", "outcomes": 4})) for name in ("odd", "other")]
    for scorer in scorers:
        for _ in range(2):
            await bench.training().train(scorer)
        versions = bench.store._versions[scorer.config.name]
        versions[2] = replace(versions[2], created=NOW - timedelta(days=1))
        await false_alarms(bench, 2, scorer.config.name)
    artifact = tmp_path / "models" / (await bench.registry.version("odd", 2)).artifact
    artifact.write_bytes(artifact.read_bytes()[:-1])
    look = Promotion(bench.store, bench.registry, scorers, clock=lambda: NOW + timedelta(hours=1)).look
    await look()
    await look()
    assert [v.state for v in await bench.store.versions("odd")] == [CHALLENGER, CHAMPION]
    assert [v.state for v in await bench.store.versions("other")] == [CHAMPION, RETIRED]
    assert len([each for each in caplog.records if "was altered or cut short" in each.message]) == 1, "it is told once"


# --- trained again ---


async def test_a_model_is_trained_again_when_it_is_due_and_what_comes_of_it_is_a_challenger(bench):
    scorer = await trained(bench, 1, retraining={"every": "1d"})
    created = (await bench.store.versions("odd"))[0].created
    now = [created + timedelta(hours=23)]
    training = Training(
        bench.store, bench.registry, bench.compute, bench.diagnostics, lambda *told: None, clock=lambda: now[0]
    )
    assert await training.retrain_if_due(scorer) is None
    now[0] += timedelta(hours=2)
    run = await training.retrain_if_due(scorer)
    assert run
    assert (run.kind, run.result, run.version) == (RunKind.TRAIN, RunResult.DONE, 2)
    assert await states(bench) == {1: CHAMPION, 2: CHALLENGER}
    assert await training.retrain_if_due(scorer) is None, "it was tried just now"


async def test_a_drift_of_the_version_in_force_has_it_trained_again_once(bench):
    scorer = await trained(bench, 1, retraining={"on_drift": True})
    training = bench.training()
    assert await training.retrain_if_due(scorer) is None
    noticed = (await bench.store.versions("odd"))[0].created + timedelta(hours=1)
    drift = Drift("1", "odd", 1, DriftKind.INPUT, "pump-1", "a", noticed, noticed, None, 1.0, 0.5, "warmer")
    await bench.store.write_drifts([replace(drift, until=noticed)])
    assert await training.retrain_if_due(scorer) is None, "it is over"
    await bench.store.write_drifts([drift])
    training = Training(
        bench.store, bench.registry, bench.compute, bench.diagnostics, lambda *told: None,
        clock=lambda: noticed + timedelta(minutes=1),
    )  # fmt: skip
    assert await training.retrain_if_due(scorer)
    assert await training.retrain_if_due(scorer) is None
    other = bench.scorer(config())
    assert await bench.training().retrain_if_due(other) is None, "nobody asked for it"


async def test_a_new_version_that_is_worse_by_far_on_held_out_data_is_retired_at_once(bench):
    scorer = await trained(bench, 1, retraining={"every": "1d", "worse": 0.5})
    versions = bench.store._versions["odd"]
    versions[1] = replace(versions[1], created=NOW - timedelta(days=400), metrics={"rmse": 1.0, "threshold": 1.0})

    class Worse(Registry):
        async def add(self, model, spec, fitted, provenance, created, references=None):
            fitted = replace(fitted, metrics={**fitted.metrics, "rmse": 1.6})
            return await super().add(model, spec, fitted, provenance, created, references)

    registry = Worse(bench.store, bench.registry._folder)
    training = Training(bench.store, registry, bench.compute, bench.diagnostics, lambda *told: None)
    assert await training.retrain_if_due(scorer)
    assert await states(bench) == {1: CHAMPION, 2: RETIRED}
    assert "rmse on held-out data is 1.6" in (await bench.store.audit(limit=1))[0].after["reason"]


async def test_a_training_that_fails_is_told_and_waits_for_its_next_turn(bench, caplog):
    scorer = await trained(bench, 1, retraining={"every": "1d"})
    versions = bench.store._versions["odd"]
    versions[1] = replace(versions[1], created=NOW - timedelta(days=400))
    bench.store._samples.clear()
    training = Training(bench.store, bench.registry, bench.compute, bench.diagnostics, lambda *told: None)
    assert await training.retrain_if_due(scorer) is None
    assert "could not be trained again" in caplog.text
    rows = len(await bench.store.runs("odd"))
    assert await training.retrain_if_due(scorer) is None
    assert len(await bench.store.runs("odd")) == rows
