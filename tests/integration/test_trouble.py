"""What goes wrong with one model is told, has its row, and costs no other model anything."""

import asyncio
import gc
import threading
import weakref
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from models.kind import Fitted
from models.pca_anomaly import PcaAnomaly
from plugin.domain import RunKind, RunResult, Status
from plugin.errors import ModelError
from plugin.infer.outputs import model_spec
from plugin.infer.registry import as_json
from tests.integration.model_bench import FEATURES, NOW, SECONDS, config


class Astray(PcaAnomaly):
    """A kind that breaks in a way that nobody foresaw."""

    name = "astray"

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def fit(self, spec, data, progress) -> Fitted:
        raise self._error


@pytest.mark.parametrize("error", [KeyError("a"), RuntimeError("RESOURCE_EXHAUSTED: out of memory"), MemoryError()])
async def test_a_kind_that_breaks_while_it_learns_leaves_a_failed_row(bench, error):
    bench.compute.kinds = {**bench.compute.kinds, "astray": Astray(error)}
    broken = bench.scorer(config(name="broken", kind="astray"))
    with pytest.raises(ModelError, match="model broken"):
        await bench.training().train(broken)
    (run,) = await bench.store.runs("broken")
    assert (run.kind, run.result) == (RunKind.TRAIN, RunResult.FAILED)
    assert type(error).__name__ in run.error
    assert bench.diagnostics.value("runs_total", model="broken", kind="train", result="failed") == 1


async def test_an_artifact_that_can_not_be_written_is_a_failed_row(bench, tmp_path):
    (tmp_path / "models").write_text("no folder")
    with pytest.raises(ModelError, match="models"):
        await bench.training().train(bench.scorer(config(training={"learn": "normal", "keep": 0})))
    (run,) = await bench.store.runs("odd")
    assert run.result is RunResult.FAILED


async def test_a_kind_that_breaks_has_no_other_model_wait_and_is_told_once(bench, caplog):
    bench.compute.kinds = {**bench.compute.kinds, "astray": Astray(KeyError("a"))}
    often = {"learn": "normal", "retry": 0.01}
    broken, ready = bench.scorer(config(name="broken", kind="astray", training=often)), bench.scorer(config())
    task = asyncio.create_task(bench.training().train_missing([broken, ready], lambda _: True))
    async with asyncio.timeout(60):
        while not await bench.store.versions("odd") or len(await bench.store.runs("broken")) < 3:
            await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len([each for each in caplog.records if "trying again" in each.message]) == 1


async def test_a_row_that_tells_of_another_spec_than_its_artifact_is_refused(bench):
    """Features that have changed places are as many: numbers would come of it, and look Good."""
    await bench.training().train(bench.scorer(config()))
    turned = config(features=("c", "b", "a"))
    versions = bench.store._versions["odd"]
    versions[1] = replace(versions[1], spec=as_json(model_spec(turned)))
    assert await bench.runs().score(bench.scorer(turned), NOW, NOW) is None
    run = (await bench.store.runs("odd"))[0]
    assert (run.kind, run.result) == (RunKind.SCORE, RunResult.FAILED)
    assert "features" in run.error
    assert "train it again" in run.error


class Endless(PcaAnomaly):
    """A kind whose threshold is no number."""

    name = "endless"

    def fit(self, spec, data, progress) -> Fitted:
        fitted = super().fit(spec, data, progress)
        return replace(fitted, metrics={**fitted.metrics, "threshold": float("nan")})


async def test_a_threshold_that_is_no_number_is_refused(bench):
    """No score is over it: every flag would be a Good "not raised"."""
    bench.compute.kinds = {**bench.compute.kinds, "endless": Endless()}
    with pytest.raises(ModelError, match="threshold = nan: no score would pass it"):
        await bench.training().train(bench.scorer(config(kind="endless")))
    assert not await bench.store.versions("odd")


async def test_what_waits_for_a_device_that_hangs_is_let_go_with_its_run(bench):
    hanging = threading.Event()
    busy = asyncio.create_task(bench.compute.run("infer", hanging.wait, 60))
    windows = np.zeros((4, 3, 20), np.float32)
    seen = weakref.ref(windows)
    waiting = asyncio.create_task(bench.compute.run("infer", np.sum, windows))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    del windows, waiting
    gc.collect()
    assert seen() is None
    hanging.set()
    assert await busy


async def test_a_challenger_that_is_retired_while_it_is_made_ready_is_let_go(bench):
    scorer = bench.scorer(config())
    for _ in range(2):
        await bench.training().train(scorer)
    await scorer.refresh()
    done = threading.Event()
    compiling = bench.compute.aside("infer", done.wait, 60)
    loading = asyncio.create_task(scorer._load_aside(scorer.challengers[0]))
    while not scorer._loading:
        await asyncio.sleep(0)
    loading.cancel()
    await asyncio.wait({loading})
    await bench.registry.retire("odd", 2)
    await scorer.refresh()
    assert not scorer._loading
    done.set()
    assert await asyncio.wrap_future(compiling)


@pytest.mark.parametrize(
    ("value", "status"),
    [(float("nan"), 0), (float("inf"), 0), (1e39, 0), (10.0, int(Status.BAD))],
    ids=["NaN", "infinite", "beyond a float32", "Bad"],
)
async def test_no_number_looks_good_of_an_input_that_is_none(bench, value, status):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    later = NOW + timedelta(seconds=30)
    for name in FEATURES:
        await bench.add(
            name, range(SECONDS, SECONDS + 30), value if name == "a" else 10.0, status if name == "a" else 0
        )
    outcome = await bench.runs().score(scorer, later, later)
    assert outcome
    (told,) = (each for each in outcome.predictions if each.tag.asset == "pump-1")
    assert (told.value, told.status) == (None, Status.BAD_NO_DATA)


async def test_a_window_that_is_not_full_yet_is_uncertain(bench):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    begin = NOW + timedelta(hours=1)
    for asset in (0, 1):
        for name in FEATURES:
            await bench.add(name, range(SECONDS + 3600, SECONDS + 3605), 10.0, asset=asset)
    outcome = await bench.runs().score(scorer, begin, begin + timedelta(seconds=5))
    assert outcome
    assert {each.status for each in outcome.predictions} == {Status.UNCERTAIN_SUB_NORMAL}
    assert {each.coverage for each in outcome.predictions} == {0.5}, "5 of the recent 10 cells"
