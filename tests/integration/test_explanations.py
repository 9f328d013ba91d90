"""Why a flag is raised and a life is short: told with the run, stored, and told again in the same words."""

from datetime import timedelta
from threading import Event
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.explain import Explainer
from models.rul_lstm import RulLstm
from plugin.domain import Asset, Prediction, Run, RunKind, RunResult, SampleBatch, Tag, to_micros
from plugin.historian.memory import MemoryStore
from plugin.infer.explaining import Reasons
from plugin.infer.outputs import model_spec, output_tag
from plugin.protocols import Delivery
from tests.integration.model_bench import FEATURES, NOW, SECONDS, START, Bench, config

LIVES = {
    "kind": "rul_lstm", "features": ["age", "wear", "still"], "roles": {"age": "age"}, "window": "80s", "hold": "0s",
    "training": {"learn": "failures"},
    "options": {"hidden": 8, "members": 2, "steps": 120, "batch": 16, "context": 8, "cap": 60.0},
}  # fmt: skip


async def leave(bench: Bench, asset: int, feature: str, value: float) -> None:
    """One feature goes elsewhere; the others stay where they were."""
    for name in FEATURES:
        await bench.add(name, range(SECONDS, SECONDS + 8), value if name == feature else 10.0, asset=asset)


async def test_a_raised_flag_says_which_feature_raised_it_and_again_the_same(bench):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    await leave(bench, 0, "b", 60.0)
    await leave(bench, 1, "c", 10.0)
    runs, told = bench.runs(), []
    for second in (6, 7, 8):
        end = NOW + timedelta(seconds=second)
        outcome = await runs.score(scorer, end, end)
        told.append(outcome)
    raised = [flag.asset for flag in told[-1].flags if flag.raised]
    assert raised == ["pump-1"]
    (explanation,) = told[-1].explanations
    assert (explanation.tag.name, explanation.as_of) == ("pump-1.odd.flag", NOW + timedelta(seconds=8))
    assert next(iter(explanation.shares)) == "b"
    assert sum(explanation.shares.values()) == pytest.approx(1.0, abs=0.03)
    stored = await bench.store.explanations("odd", START, NOW + timedelta(minutes=1))
    assert stored[-1] == explanation
    again = await scorer.again(told[-1].run, NOW + timedelta(seconds=8))
    assert again.explanations == told[-1].explanations


async def test_groups_and_the_number_of_assets_are_as_configured(bench):
    explain = {"most": 1, "groups": {"both": ["a", "b"]}}
    scorer = bench.scorer(config(explain=explain))
    await bench.training().train(scorer)
    await leave(bench, 0, "b", 60.0)
    await leave(bench, 1, "b", 90.0)
    runs = bench.runs()
    for second in (6, 7, 8):
        end = NOW + timedelta(seconds=second)
        outcome = await runs.score(scorer, end, end)
    assert all(flag.raised for flag in outcome.flags)
    (explanation,) = outcome.explanations
    assert explanation.tag.asset == "pump-2", "the worse one"
    assert next(iter(explanation.shares)) == "both"


async def test_a_result_is_not_lost_for_its_reasons_nor_is_that_of_another_model(bench, monkeypatch):
    scorer = bench.scorer(config(schedule={"every": "1s", "deadline": "4s"}))
    other = bench.scorer(config(name="other"))
    for each in (scorer, other):
        await bench.training().train(each)
    await leave(bench, 0, "b", 60.0)
    go_on = Event()
    monkeypatch.setattr("models.explain.Explainer.shares", lambda self, values, *_: go_on.wait() and [{}] * len(values))
    runs = bench.runs()
    try:
        for second in (7, 8):
            end = NOW + timedelta(seconds=second)
            outcome = await runs.score(scorer, end, end)
            assert await runs.score(other, end, end)
    finally:
        go_on.set()
    assert [flag.asset for flag in outcome.flags if flag.raised] == ["pump-1"]
    assert outcome.explanations == ()
    late = bench.diagnostics.value("explanations_late_total", model="odd")
    assert late == 1.0
    (stored, *_) = await bench.store.runs("odd")
    assert stored.result is RunResult.DONE


@pytest.mark.parametrize("part", ["warm", "shares"])
async def test_a_flag_is_not_lost_to_reasons_that_break_and_that_is_said_once(bench, monkeypatch, caplog, part):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    await leave(bench, 0, "b", 60.0)

    def broken(*_: Any) -> None:
        raise RuntimeError("no program for this device")

    monkeypatch.setattr(f"models.explain.Explainer.{part}", broken)
    runs = bench.runs()
    for second in (6, 7, 8):
        end = NOW + timedelta(seconds=second)
        outcome = await runs.score(scorer, end, end)
        assert outcome is not None
    assert [flag.asset for flag in outcome.flags if flag.raised] == ["pump-1"]
    assert outcome.explanations == ()
    assert bench.diagnostics.value("task_failures_total", task="explanations") == 1.0
    (said,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert said.getMessage() == "model odd-1: to tell why its results are what they are failed"


async def test_the_first_results_do_not_wait_until_reasons_can_be_told(bench, monkeypatch):
    scorer = bench.scorer(config(schedule={"every": "1s", "deadline": "4s"}))
    await bench.training().train(scorer)
    await leave(bench, 0, "b", 60.0)
    compiled, warm = Event(), Explainer.warm
    monkeypatch.setattr("models.explain.Explainer.warm", lambda self, rows: compiled.wait() and warm(self, rows))
    runs, outcomes = bench.runs(), []
    try:
        for second in (0, 6, 7):
            end = NOW + timedelta(seconds=second)
            outcomes.append(await runs.score(scorer, end, end))
        assert [flag.asset for flag in outcomes[-1].flags if flag.raised] == ["pump-1"]
        assert outcomes[-1].explanations == ()
        assert bench.diagnostics.value("explanations_late_total", model="odd") == 1.0, "the others had none to tell"
    finally:
        compiled.set()
    end = NOW + timedelta(seconds=8)
    (explanation,) = (await runs.score(scorer, end, end)).explanations
    assert explanation.tag.name == "pump-1.odd.flag"


def test_the_worst_are_explained_first_and_none_is_begun_when_the_time_is_over(monkeypatch):
    asked: list[int] = []
    now = iter(range(100))
    monkeypatch.setattr("plugin.infer.explaining.time.monotonic", lambda: float(next(now)))
    settings = config(**LIVES)
    spec, kind = model_spec(settings), RulLstm()
    assets = Asset.gather([Tag(f"p-{n}.age", "plant", f"i={n}", f"p-{n}", "age") for n in range(7)])
    tags = {o.name: [output_tag(settings, asset, o) for asset in assets] for o in kind.outputs(spec)}
    given = [
        Prediction(tag, 1, NOW, NOW, NOW, float(7 - n), None, None, 0, 1.0, 3) for n, tag in enumerate(tags["rul"])
    ]

    class Asked(Explainer):
        def __init__(self) -> None:
            """Nothing to compile."""

        def shares(self, values: NDArray[Any], observed: NDArray[Any], worse: float) -> list[dict[str, float]]:
            asked.append(len(values))
            return [{"wear": 1.0}] * len(values)

    windows = np.zeros((7, 3, 80), np.float32), np.ones((7, 3, 80), bool)
    reasons = Reasons(settings, kind, spec, tags)
    told, complete = reasons.of({"rul": Asked()}, *windows, given, (), until=0.5)
    assert ([each.tag.asset for each in told], complete) == (["p-6", "p-5", "p-4", "p-3"], False)
    told, complete = reasons.of({"rul": Asked()}, *windows, given, ())
    assert (len(told), complete, asked) == (7, True, [4, 4, 3])


async def test_neither_a_challenger_in_shadow_nor_a_walk_over_the_past_explains(bench):
    scorer = bench.scorer(config())
    for _ in range(2):
        await bench.training().train(scorer)
    await leave(bench, 0, "b", 60.0)
    await leave(bench, 1, "b", 60.0)
    runs = bench.runs()
    for second in (6, 7, 8):
        end = NOW + timedelta(seconds=second)
        await runs.score(scorer, end, end)
    champion, challenger = (await bench.store.explanations("odd", START, end + timedelta(seconds=1)))[-2:]
    assert champion.run == challenger.run, "of two assets, not of two versions"
    (version, *_) = await bench.store.versions("odd")
    outcome = await scorer.by(version, bench.store).score(Run(0, "odd", RunKind.SCORE, end), end)
    assert outcome.explanations == ()


async def worn(bench: Bench) -> tuple[Asset, ...]:
    """Eight lives of a pump, during which ``wear`` grows faster and faster; a second one is in its last cells."""
    store, noise = bench.store, np.random.default_rng(5)
    names = [(asset, feature) for asset in ("old-1", "old-2") for feature in ("age", "wear", "still")]
    tags = await store.register_tags([Tag(f"{a}.{f}", "plant", f"nsu=u;s={a}.{f}", a, f) for a, f in names])
    assets = Asset.gather(tags)
    ends = noise.integers(50, 75, 8)
    columns = [np.concatenate([np.arange(end) for end in ends])]
    columns.append(np.concatenate([(np.arange(end) / end) ** 3 * 5 + noise.normal(0, 0.1, end) for end in ends]))
    columns.append(noise.normal(0, 0.1, len(columns[0])))
    await keep(store, assets[0], columns, 1)
    await keep(store, assets[1], [column[: ends[0] - 3] for column in columns], len(columns[0]) - ends[0] + 4)
    return assets


async def keep(store: MemoryStore, asset: Asset, columns: list[np.ndarray], begin: int) -> None:
    for feature, column in zip(("age", "wear", "still"), columns, strict=True):
        times = to_micros(START) + (begin + np.arange(len(column), dtype=np.int64)) * 1_000_000
        ids = [asset.tags[feature].id] * len(times)
        await store.write([Delivery(SampleBatch.of(ids, times, column, 0, times, times))])


async def test_a_short_life_says_what_wore_it_down(bench):
    bench.assets = await worn(bench)
    scorer = bench.scorer(config(**LIVES))
    await bench.training().train(scorer)
    end = START + timedelta(seconds=1 + len(await rows(bench)))
    outcome = await bench.runs().score(scorer, end, end)
    lives = {p.tag.asset: p.value for p in outcome.predictions if p.tag.output == "rul"}
    short = {asset for asset, value in lives.items() if value <= 15.0}
    assert "old-2" in short
    assert {each.tag.asset for each in outcome.explanations} == short
    assert {each.tag.output for each in outcome.explanations} == {"rul"}
    told = next(each for each in outcome.explanations if each.tag.asset == "old-2")
    assert told.shares.get("still", 0.0) < told.shares["wear"]
    assert (await scorer.again(outcome.run, end)).explanations == outcome.explanations


async def rows(bench: Bench) -> SampleBatch:
    tag = bench.assets[0].tags["age"].id
    return await bench.store.read_samples([tag], to_micros(START), to_micros(START) + 10**12)


async def test_a_version_from_before_there_were_means_explains_no_life(bench, monkeypatch):
    bench.assets = await worn(bench)
    scorer = bench.scorer(config(**LIVES))
    monkeypatch.setattr("plugin.infer.training._means", lambda *_: None)
    await bench.training().train(scorer)
    assert (await scorer.refresh()).explainers == {}


@pytest.mark.parametrize(
    ("groups", "told"),
    [({"g": ["z"]}, "'z'"), ({"g": ["a"], "h": ["a"]}, "'a'"), ({"a": ["b"]}, "names of features")],
)
def test_groups_that_can_not_be_are_refused(groups, told):
    with pytest.raises(ValueError, match=told):
        config(explain={"groups": groups})
    assert model_spec(config(explain={"groups": {"g": ["a"]}})) == model_spec(config()), "a matter of telling alone"
