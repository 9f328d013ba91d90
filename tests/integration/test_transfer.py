"""A version that begins from another one: what it learns from, where it comes from, and what is refused."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from plugin.domain import ModelState, RunKind, RunResult
from plugin.errors import ModelError, TrainingDataError
from plugin.infer.ancestors import Wish
from plugin.infer.scoring import Scorer
from plugin.infer.training_runs import Training
from tests.integration.model_bench import FEATURES, NOW, SECONDS, START, Bench, config, opened

OPTIONS = {"output": "y", "delay": 2, "hidden": 4, "members": 1, "steps": 8, "batch": 4}
SENSOR = {
    "kind": "quality_mlp", "features": FEATURES, "roles": {"lab": "c"}, "window": "30s", "options": OPTIONS,
    "training": {"learn": "laboratory"},
}  # fmt: skip
LATER = NOW + timedelta(seconds=300)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as bench:
        yield bench


def scorer(bench: Bench, name: str, asset: int, **changes: object) -> Scorer:
    """Of one pump alone."""
    chosen = config(name=name, **(SENSOR | changes))
    return Scorer(
        chosen, bench.compute.kinds[chosen.kind], bench.assets[asset : asset + 1], bench.store, bench.registry,
        bench.compute, bench.diagnostics, away=lambda source: None,
    )  # fmt: skip


def training(bench: Bench, now: datetime) -> Training:
    return Training(
        bench.store, bench.registry, bench.compute, bench.diagnostics, lambda *told: None, clock=lambda: now
    )


async def test_it_learns_what_its_ancestor_has_not_seen_and_is_a_challenger(bench):
    first = scorer(bench, "odd", 0)
    await training(bench, NOW).train(first)
    old = (await bench.store.versions("odd"))[0]
    with pytest.raises(TrainingDataError, match="nothing to learn from that odd-1 has not seen"):
        await training(bench, NOW).train(first, wish=Wish("1"))
    for feature in FEATURES:
        await bench.add(feature, range(SECONDS, SECONDS + 300), 10.0)
    await training(bench, LATER).train(first, wish=Wish("odd-1", head_only=True))
    new = (await bench.store.versions("odd"))[0]
    assert (new.state, old.state) == (ModelState.CHALLENGER, ModelState.CHAMPION)
    assert (new.provenance["from"], new.provenance["head_only"]) == ("odd-1", True)
    assert new.provenance["seen_before"] == {"pump-1": old.provenance["data_end"]}
    assert new.provenance["data_start"] >= old.provenance["data_end"]
    assert old.provenance["data_start"] == START.isoformat(), "from scratch it is the whole past"
    assert [(run.kind, run.result) for run in await bench.store.runs("odd")][:2] == [
        (RunKind.TRAIN, RunResult.DONE), (RunKind.TRAIN, RunResult.FAILED),
    ]  # fmt: skip


@pytest.mark.parametrize(("how", "head_only"), [("onwards", False), ("head", True)])
async def test_a_rule_may_go_on_from_the_version_in_force_and_what_comes_of_it_is_a_challenger(bench, how, head_only):
    chosen = scorer(bench, "odd", 0, retraining={"every": "1d", "how": how})
    await training(bench, NOW).train(chosen)
    for feature in FEATURES:
        await bench.add(feature, range(SECONDS, SECONDS + 300), 10.0)
    due = (await bench.store.versions("odd"))[0].created + timedelta(days=2)
    assert await training(bench, due).retrain_if_due(chosen)
    new, old = await bench.store.versions("odd")
    assert (new.state, old.state) == (ModelState.CHALLENGER, ModelState.CHAMPION)
    assert (new.provenance["from"], new.provenance["head_only"]) == ("odd-1", head_only)


def test_a_light_model_can_t_go_on():
    with pytest.raises(ValueError, match="a light model is trained from scratch"):
        config(training={"learn": "normal", "light": "int8"}, retraining={"every": "1d", "how": "head"})


async def test_another_asset_s_model_begins_from_it_with_its_own_whole_past(bench):
    await training(bench, NOW).train(scorer(bench, "odd", 0))
    other = scorer(bench, "even", 1)
    await training(bench, NOW).train(other, wish=Wish("odd-1"))
    child = (await bench.store.versions("even"))[0]
    assert child.provenance["from"] == "odd-1"
    assert child.provenance["data_start"] == START.isoformat()
    with pytest.raises(TrainingDataError, match="nothing to learn from that even-1 has not seen"):
        await training(bench, NOW).train(scorer(bench, "odd", 0), wish=Wish("even-1"))


REFUSED: list[tuple[str, dict[str, object], str]] = [
    ("7", {}, "model even has no version 7"),
    ("odd-9", {}, "model odd has no version 9"),
    ("odd", {}, "from = 'odd': no version; give a number"),
    ("odd-1", {"options": {**OPTIONS, "hidden": 8}}, "option hidden = 8, in the version to begin from 4"),
    ("odd-1", {"training": {"learn": "laboratory", "light": "int8"}}, 'set it to "no"'),
]


async def test_what_is_refused_is_told_with_its_remedy_and_in_the_run(bench):
    await training(bench, NOW).train(scorer(bench, "odd", 0))
    for wish, changes, told in REFUSED:
        with pytest.raises(ModelError, match=told) as refused:
            await training(bench, NOW).train(scorer(bench, "even", 1, **changes), wish=Wish(wish))
        run = (await bench.store.runs("even"))[0]
        assert (run.result, run.error) == (RunResult.FAILED, str(refused.value))
    assert not await bench.store.versions("even")
