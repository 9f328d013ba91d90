"""How good a version would have been over the past, beside baselines that knew no more."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from models import baselines
from plugin import evaluating
from plugin.config import load
from plugin.domain import Label, LabelKind, SampleBatch, to_micros
from plugin.errors import ConfigError, ModelError
from plugin.infer.evaluation import Evaluation, evaluate
from plugin.infer.scoring import Scorer
from plugin.protocols import Delivery
from plugin.report.evaluation import evaluation_view
from plugin.report.plots import write_plots
from tests.integration.level_kind import Level, Limited, Odds
from tests.integration.model_bench import NOW, SECONDS, START, Bench, config

MINUTES = 20
PLANT = """
[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:1/"

[[assets]]
names = ["pump-1"]
node = "nsu=u;s={asset}.{feature}"
tags = { a = {} }
"""
MODEL = """
[[models]]
name = "odd"
kind = "pca_anomaly"
assets = ["*"]
features = ["a"]
window = "20s"
step = "1s"
training = { learn = "normal" }
"""


@pytest.fixture(autouse=True)
def _without_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take seconds, and far longer where the machine's cores are busy."""
    monkeypatch.setattr(baselines, "has_trees", lambda: False)


async def sensor(bench: Bench, kind: Level) -> Scorer:
    """Of ``c``, which the laboratory tells 30 s late."""
    bench.compute.kinds = {**bench.compute.kinds, kind.name: kind}
    settings = config(
        name="soft", kind=kind.name, roles={"lab": "c"}, window="20s", options={},
        training={"learn": "laboratory"}, schedule={"every": "30s", "deadline": "20s"},
    )  # fmt: skip
    scorer = bench.scorer(settings)
    await bench.training().train(scorer)
    return scorer


async def goes_on(bench: Bench) -> None:
    """``a`` tells of ``c`` all that there is to know."""
    noise = np.random.default_rng(2)
    times = to_micros(NOW) + np.arange(60 * MINUTES, dtype=np.int64) * 1_000_000
    for machine in bench.assets:
        for name, tag in machine.tags.items():
            every, late = (60, 30_000_000) if name == "c" else (1, 0)
            at = times[::every]
            values = noise.normal(10, 1, len(at))
            await bench.store.write([Delivery(SampleBatch.of([tag.id] * len(at), at, values, 0, at + late, at + late))])


async def judged(bench: Bench, scorer: Scorer, start: datetime, end: datetime) -> Evaluation:
    (version,) = await bench.store.versions(scorer.config.name)
    return await evaluate(scorer, bench.store, bench.registry, version, (start, end), lambda share, line: None)


def shown(found: Evaluation) -> str:
    told = Console(file=StringIO(), width=160)
    told.print(evaluation_view(found))
    assert isinstance(told.file, StringIO)
    return told.file.getvalue()


async def test_a_version_stands_beside_baselines_of_the_same_past(bench):
    scorer = await sensor(bench, Level())
    await goes_on(bench)
    found = await judged(bench, scorer, NOW, NOW + timedelta(minutes=MINUTES))
    assert not found.leak
    (output,) = found.judgements
    errors = {each.who: each for each in output.errors}
    assert {"this version", "last result", "mean", "ridge"} <= set(errors)
    assert len({each.outcomes for each in output.errors}) == 1, "all at the same instants"
    mine, mean, last = (errors[who] for who in ("this version", "mean", "last result"))
    assert mine.rmse == pytest.approx(mean.rmse, rel=1e-3), "this kind is the mean"
    assert last.rmse == pytest.approx(mine.rmse * np.sqrt(2.0), rel=0.3), "two independent errors"
    assert mine.mae < mine.rmse
    assert abs(mine.r2) < 0.2
    assert output.coverage == pytest.approx(0.9, abs=0.1)
    assert output.width == pytest.approx(3.29, abs=0.01)
    assert output.strain["as it is"] == pytest.approx(output.strain["without a"])
    text = shown(found)
    assert "last result" in text
    assert found.importance == {}, "nothing that it sees has any effect"
    assert "flatter" not in text
    record = json.loads(json.dumps(found.record()))
    assert (record["model"], record["version"]) == ("soft", 1)
    assert record["outputs"][0]["errors"][0]["who"] == "this version"


async def test_a_version_that_has_seen_the_stretch_is_said_to(bench):
    scorer = await sensor(bench, Level())
    found = await judged(bench, scorer, START + timedelta(seconds=100), NOW)
    assert found.leak
    assert "these figures flatter it" in shown(found)
    assert "foretag label add failure" in shown(replace(found, judgements=()))
    blind = replace(found.judgements[0], strain={"without a": float("nan")})
    text = shown(replace(found, judgements=(blind,)))
    assert "no result" in text
    assert "nan" not in text


async def test_without_a_past_to_learn_from_there_is_no_baseline_and_it_is_said(bench):
    scorer = await sensor(bench, Level())
    found = await judged(bench, scorer, START, NOW)
    assert [each.who for output in found.judgements for each in output.errors] == ["this version"]
    assert "no baselines" in shown(found)


async def test_flags_are_counted_by_week_and_held_against_verdicts(bench):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    for name in "abc":
        await bench.add(name, range(400, 420), 10.0)
        await bench.add(name, range(420, 440), 60.0)
    end = NOW + timedelta(seconds=40)
    found = await judged(bench, scorer, NOW, end)
    assert found.flags is not None
    assert 0.1 < found.flags.share < 0.4
    rises = found.flags.rises_per_week * 2 * 40 / 604_800
    assert rises == pytest.approx(1.0)
    assert found.flags.false_per_week is None
    assert "Nobody has said" in shown(found)
    label = Label("1", LabelKind.NORMAL, "pump-1", NOW, created=end, end=end, user="anna")
    await bench.store.write_labels([label])
    told = await judged(bench, scorer, NOW, end)
    assert told.flags is not None
    assert told.flags.false_per_week == told.flags.rises_per_week


async def test_scores_and_delays_are_held_against_what_people_said(bench):
    scorer = bench.scorer(config(horizon="10s"))
    await bench.training().train(scorer)
    for name in "abc":
        await bench.add(name, range(400, 420), 10.0)
        await bench.add(name, range(420, 440), 60.0)
    end = NOW + timedelta(seconds=40)
    labels = [
        Label("1", LabelKind.NORMAL, "pump-1", NOW, created=end, end=NOW + timedelta(seconds=20), user="anna"),
        Label("2", LabelKind.FAILURE, "pump-1", NOW + timedelta(seconds=30), created=end, end=end, user="anna"),
        Label("3", LabelKind.FAILURE, "pump-2", NOW + timedelta(seconds=30), created=end, end=end, user="anna"),
    ]
    await bench.store.write_labels(labels)
    found = await judged(bench, scorer, NOW, end)
    assert found.flags is not None
    assert (found.flags.failures, found.flags.detected) == (2, 1), "pump-2 never moved"
    assert found.flags.delay is not None
    assert timedelta(seconds=-10) <= found.flags.delay < timedelta(0)
    assert found.flags.budget_per_week == 1.0
    (score,) = found.occurrences
    ways = {each.who: each for each in score.ranked}
    assert set(ways) == {"this version", "all normal", "PCA"}
    assert ways["all normal"].pr_auc == pytest.approx(score.share)
    assert ways["this version"].pr_auc > score.share + 0.1
    assert ways["this version"].brier is None
    text = shown(found)
    assert "Of 2 failures that people told of it saw 1" in text
    assert "before it was told to begin" in text
    assert json.loads(json.dumps(found.record()))["flags"]["delay"] < 0


async def odds(bench: Bench) -> Evaluation:
    """Of a kind that knows that ``c`` is 1 where ``a`` is above 10."""
    bench.compute.kinds = {**bench.compute.kinds, "odds": Odds()}
    settings = config(
        name="soft", kind="odds", roles={"outcome": "c"}, window="20s", options={}, training={"learn": "labels"},
        schedule={"every": "10s", "deadline": "20s"},
    )  # fmt: skip
    noise = np.random.default_rng(3)
    times = to_micros(START) + np.arange(SECONDS + 60 * MINUTES, dtype=np.int64) * 1_000_000
    for machine in bench.assets:
        a = noise.normal(10, 1, len(times))
        columns = {"a": a, "b": noise.normal(10, 1, len(times)), "c": (a > 10.0).astype(float)}
        for name, values in columns.items():
            late = times + 1
            tag = machine.tags[name].id
            await bench.store.write([Delivery(SampleBatch.of([tag] * len(times), times, values, 0, late, late))])
    scorer = bench.scorer(settings)
    await bench.training().train(scorer)
    return await judged(bench, scorer, NOW, NOW + timedelta(minutes=MINUTES))


async def test_a_probability_is_held_against_what_came_beside_what_knows_less(bench, tmp_path):
    found = await odds(bench)
    (whether,) = found.occurrences
    assert whether.output == "failure_probability"
    assert whether.outcomes == 2 * 6 * MINUTES
    ways = {each.who: each for each in whether.ranked}
    assert set(ways) == {"this version", "mean", "ridge"}
    assert ways["this version"].pr_auc == pytest.approx(1.0)
    assert ways["mean"].pr_auc == pytest.approx(whether.share)
    assert ways["this version"].brier == pytest.approx(np.mean((whether.told - whether.came) ** 2))
    assert sum(each.outcomes for each in whether.bins) == whether.outcomes
    assert not found.leak
    assert next(iter(found.importance)) == "a"
    assert found.importance["a"] == pytest.approx(1.0), "it reads no other"
    assert "importance" in shown(found)
    assert json.loads(json.dumps(found.record()))["importance"]["a"] == pytest.approx(1.0)
    assert "calibration error" in shown(found)
    assert whether.strain["as it is"] == pytest.approx(ways["this version"].brier, rel=0.3), "a sample of them"
    assert whether.strain["under attack by 0.1 deviations"] > 1.2 * whether.strain["as it is"]
    assert whether.strain["without b"] == whether.strain["as it is"]
    assert np.isnan(whether.strain["without a"])
    assert json.loads(json.dumps(found.record()))["occurrences"][0]["strain"]["without a"] is None
    assert json.loads(json.dumps(found.record()))["occurrences"][0]["ways"][0]["who"] == "this version"
    paths = write_plots(found, tmp_path / "plots")
    names = ["soft-1-failure_probability-precision.png", "soft-1-failure_probability-reliability.png"]
    assert [path.name for path in paths] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


async def test_a_share_out_of_specification_is_held_against_the_laboratory(bench):
    scorer = await sensor(bench, Limited())
    noise, end = np.random.default_rng(3), NOW + timedelta(minutes=MINUTES)
    times = to_micros(NOW) + np.arange(60 * MINUTES, dtype=np.int64) * 1_000_000
    for machine in bench.assets:
        level = np.repeat(noise.normal(10, 1, MINUTES), 60)
        for name, tag in machine.tags.items():
            of_tag = slice(None, None, 60) if name == "c" else slice(None)
            at = times[of_tag]
            await bench.store.write(
                [Delivery(SampleBatch.of([tag.id] * len(at), at, level[of_tag], 0, at + 1, at + 1))]
            )
    found = await judged(bench, scorer, NOW, end)
    (whether,) = found.occurrences
    assert (whether.output, whether.outcomes) == ("q_out_of_spec", found.judgements[0].errors[0].outcomes)
    assert 0.2 < whether.share < 0.8
    ways = {each.who: each for each in whether.ranked}
    assert ways["mean"].pr_auc == pytest.approx(whether.share), "baselines learn whether, not how much"
    assert 0.0 <= whether.told.min() <= whether.told.max() <= 1.0
    assert whether.strain


async def test_numbers_are_drawn_over_time_and_as_residuals(bench, tmp_path):
    scorer = await sensor(bench, Level())
    await goes_on(bench)
    found = await judged(bench, scorer, NOW, NOW + timedelta(minutes=MINUTES))
    paths = write_plots(found, tmp_path)
    assert [path.name for path in paths] == ["soft-1-q-over-time.png", "soft-1-q-residuals.png"]
    assert write_plots(found, tmp_path) == paths, "those of before are replaced"


async def test_without_matplotlib_it_is_said_what_to_install_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluating, "can_plot", lambda: False)
    path = tmp_path / "foretag.toml"
    path.write_text(PLANT, encoding="utf-8")
    with pytest.raises(ModelError, match=r'pip install "foretag\[plots\]"'):
        await evaluating.show_evaluation(
            load(path), Console(quiet=True), model="odd", number=0, span=("1d", ""), json_file=None, plots=tmp_path
        )


@pytest.mark.parametrize(("span", "told"), [(("soon", ""), "--from = soon"), (("1d", "soon"), "--to = soon")])
async def test_a_time_that_is_none_is_told_by_the_name_of_its_option(tmp_path, span, told):
    path = tmp_path / "foretag.toml"
    path.write_text(PLANT + MODEL, encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        await evaluating.show_evaluation(
            load(path), Console(quiet=True), model="odd", number=0, span=span, json_file=None
        )
