"""How the models stand, as the store has it, reaches the sinks."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from plugin.domain import Drift, DriftKind, ModelStanding, ModelState, Run, RunKind, RunResult, Standing
from plugin.errors import StoreUnavailable
from plugin.historian.memory import MemoryStore
from plugin.infer.config import ModelConfig
from plugin.infer.standings import Standings
from tests.integration.model_bench import NOW, Bench, Listener, config

_SECOND = timedelta(seconds=1)


async def _stands(bench: Bench, settings: ModelConfig) -> Standing:
    listener = Listener(bench.store)
    await Standings([bench.scorer(settings)], bench.store, [listener], bench.diagnostics).look()
    ((standing,),) = listener.standings
    return standing


def _training(**more: Any) -> dict[str, Any]:
    return {"learn": "normal"} | more


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, ModelStanding.TRAINING),
        ({"training": _training(at_start=False)}, ModelStanding.NONE),
        ({"enabled": False}, ModelStanding.OFF),
    ],
)
async def test_a_model_without_a_version(bench, changes, state):
    assert await _stands(bench, config(**changes)) == Standing("odd", "pca_anomaly", state)


async def test_version_runs_and_drifts_are_those_of_the_store(bench):
    for _ in range(2):
        await bench.training().train(bench.scorer(config()))
    _challenger, version = await bench.store.versions("odd")
    runs = [
        await bench.store.write_run(Run(0, "odd", kind, NOW + number * _SECOND, result=result, version=1))
        for number, (kind, result) in enumerate(
            (
                (RunKind.SCORE, RunResult.DONE),
                (RunKind.SCORE, RunResult.MISSED),
                (RunKind.SHADOW, RunResult.DONE),
                (RunKind.SCORE, RunResult.RUNNING),
            )
        )
    ]
    drift = Drift("1", "odd", 1, DriftKind.INPUT, "pump-1", "a", NOW, NOW, None, 5.0, 3.0, "")
    others = replace(drift, id="2", version=2), replace(drift, id="3", until=NOW)
    await bench.store.write_drifts([drift, *others])
    standing = await _stands(bench, config())
    assert (standing.state, standing.version, standing.sha256) == (ModelStanding.IN_FORCE, 1, version.sha256)
    assert (standing.run, standing.shadow) == (runs[1], runs[2])
    assert standing.drifts == (drift,)
    assert (await _stands(bench, config(enabled=False))).state is ModelStanding.OFF
    assert (await _stands(bench, config(seed=5))).version == 0, "trained for another configuration"


async def test_news_are_told_once_to_each_and_again_to_whom_they_did_not_reach(bench, caplog):
    listener, deaf = Listener(bench.store), _Deaf(bench.store, "deaf")
    standings = Standings([bench.scorer(config())], bench.store, [deaf, listener], bench.diagnostics)
    for _ in range(3):
        await standings.look()
    assert (len(listener.standings), len(deaf.standings)) == (1, 3)
    assert len([r for r in caplog.records if "does not show how the models do" in r.message]) == 1
    await bench.training().train(bench.scorer(config()))
    await bench.store.set_state("odd", 1, ModelState.RETIRED)
    await bench.store.set_state("odd", 1, ModelState.CHAMPION)
    await standings.look()
    assert [told[0].version for told in listener.standings] == [0, 1]


class _Deaf(Listener):
    async def inform(self, standings: Any) -> None:
        await super().inform(standings)
        raise KeyError("no such thing")


class _Flickering(MemoryStore):
    away = False

    async def drifts(self, **asked: Any) -> tuple[Drift, ...]:
        if self.away:
            raise StoreUnavailable("no database")
        return await super().drifts(**asked)


async def test_while_the_store_is_away_what_was_told_stands(bench):
    listener, store = Listener(bench.store), _Flickering()
    standings = Standings([bench.scorer(config())], store, [listener], bench.diagnostics)
    await standings.look()
    store.away = True
    await standings.look()
    assert len(listener.standings) == 1
    store.away = False
    await store.write_run(Run(0, "odd", RunKind.SCORE, NOW, result=RunResult.MISSED))
    await standings.look()
    assert listener.standings[1][0].run is not None
