"""What goes wrong with one model is told, has its row, and costs no other model anything."""

import asyncio
from dataclasses import replace

import pytest

from models.kind import Fitted
from models.pca_anomaly import PcaAnomaly
from plugin.domain import RunKind, RunResult
from plugin.errors import ModelError
from plugin.infer.outputs import model_spec
from plugin.infer.registry import as_json
from tests.integration.model_bench import NOW, config


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
