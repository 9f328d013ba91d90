"""What can't be true is not seen: neither in training nor live, counted, and named in the version."""

from dataclasses import replace
from datetime import timedelta

import pytest

from plugin.domain import Asset, Run, RunKind, Status
from plugin.infer.outputs import model_spec
from plugin.infer.registry import as_json
from tests.integration.model_bench import FEATURES, NOW, SECONDS, Bench, config

RANGE = {"range": True, "stuck": "4s"}


def with_range(bench: Bench) -> None:
    bench.assets = tuple(
        Asset(asset.name, {name: replace(tag, low=0.0, high=50.0) for name, tag in asset.tags.items()})
        for asset in bench.assets
    )


async def test_the_same_cells_are_left_out_live_and_counted_once(bench):
    with_range(bench)
    scorer = bench.scorer(config(cleaning=RANGE, recent="4s"))
    await bench.training().train(scorer)
    for name in FEATURES:
        for asset in (0, 1):
            spoilt = name == "a" and asset == 0
            for second in range(4):
                await bench.add(name, [SECONDS + second], 900.0 if spoilt else 10.0 + second, asset=asset)
    runs = bench.runs()
    for second in (1, 2, 3, 4):
        end = NOW + timedelta(seconds=second)
        outcome = await runs.score(scorer, end, end)
    told = {p.tag.asset: p for p in outcome.predictions}
    assert told["pump-1"].coverage == pytest.approx(8 / 12)
    assert told["pump-1"].status == Status.BAD_NO_DATA, "nothing of a is left in the cells that the score reads"
    assert told["pump-2"].status == Status.GOOD
    assert bench.diagnostics.value("cells_cleaned_total", model="odd", step="range") == 4.0
    assert bench.diagnostics.value("cells_cleaned_total", model="odd", step="stuck") == 0.0
    again = await scorer.again(outcome.run, end)
    assert again.predictions == outcome.predictions
    assert bench.diagnostics.value("cells_cleaned_total", model="odd", step="range") == 4.0, "not counted again"


async def test_training_leaves_them_out_too_and_the_version_says_so(bench):
    with_range(bench)
    await bench.add("b", [-20, -19, -18], 900.0)
    await bench.add("a", [-20, -19, -18], 10.0)
    scorer = bench.scorer(config(cleaning=RANGE))
    await bench.training().train(scorer)
    (version,) = await bench.store.versions("odd")
    assert version.provenance["cleaned"] == {"range": 3, "stuck": 0}
    assert version.spec["cleaning"]["range"] is True
    assert version.provenance["means"]["b"] == pytest.approx(10.0, abs=0.5)
    dirty = bench.scorer(config())
    assert await dirty.score(Run(0, "odd", RunKind.SCORE, NOW), NOW) is None, "trained for other steps"


def test_a_spec_without_cleaning_is_what_it_was_before_there_was_any():
    assert "cleaning" not in as_json(model_spec(config()))
    assert as_json(model_spec(config(cleaning=RANGE)))["cleaning"]["stuck"] == 4


@pytest.mark.parametrize(
    ("wrong", "told"), [({"features": ["z"]}, "'z'"), ({"stuck": "100ms"}, "stuck is shorter than step")]
)
def test_steps_that_can_not_be_are_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        config(cleaning=wrong)
