"""Walking forward: the live code over the past, which sees what was known by each instant and nothing else."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugin.domain import (
    Gap,
    GapCause,
    ModelVersion,
    Outcome,
    Policies,
    Run,
    RunKind,
    SampleBatch,
    Status,
    Tag,
    Window,
    to_micros,
)
from plugin.historian.memory import MemoryStore
from plugin.historian.sqlite.store import SqliteStore
from plugin.infer import backtest as walking
from plugin.infer.backtest import Past, backtest
from plugin.protocols import Delivery, Store
from tests.integration.model_bench import FEATURES, NOW, SECONDS, START, config

SECOND = 1_000_000


async def walk(bench, scorer, start: datetime, end: datetime, **options: Any) -> list[Outcome]:
    (version, *_) = await bench.store.versions("odd")
    return [outcome async for outcome in backtest(scorer, bench.store, version, start, end, **options)]


async def test_what_a_walk_says_is_what_each_run_says_that_sees_as_much(bench):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    for name in FEATURES:
        await bench.add(name, range(SECONDS, SECONDS + 8), 60.0)
    begin, end = NOW - timedelta(seconds=40), NOW + timedelta(seconds=15)
    shares: list[float] = []
    walked = await walk(bench, scorer, begin, end, progress=lambda share, _: shares.append(share))
    ticks = [begin + timedelta(seconds=n) for n in range(55)]
    singly = [await scorer.score(Run(0, "odd", RunKind.SCORE, tick), tick, known_by=to_micros(tick)) for tick in ticks]
    assert [(o.predictions, o.flags) for o in walked] == [(o.predictions, o.flags) for o in singly if o]
    assert [o.run.scheduled for o in walked] == ticks
    assert any(flag.raised for o in walked for flag in o.flags)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


async def test_a_late_value_is_not_seen_before_the_server_had_it(bench):
    scorer = bench.scorer(config(hold="60s"))
    await bench.training().train(scorer)
    tag = bench.assets[0].tags["a"].id
    taken, known = to_micros(NOW) + SECOND, to_micros(NOW) + 6 * SECOND
    await bench.store.write([Delivery(SampleBatch.of([tag], [taken], [90.0], 0, [known], [known]))])

    def values(outcomes: list[Outcome]) -> list[float | None]:
        return [p.value for o in outcomes for p in o.predictions if p.tag.asset == "pump-1"]

    with_it = values(await walk(bench, scorer, NOW, NOW + timedelta(seconds=12)))
    other = MemoryStore()
    await other.register_tags([tag for asset in bench.assets for tag in asset.tags.values()])
    batch = await bench.store.read_samples([t.id for a in bench.assets for t in a.tags.values()], 0, to_micros(NOW))
    await other.write([Delivery(batch)])
    for version in reversed(await bench.store.versions("odd")):
        await other.add_version(version)
    bench.store = other
    without = values(await walk(bench, scorer, NOW, NOW + timedelta(seconds=12)))
    assert with_it[:6] == without[:6]
    assert all(one != two for one, two in zip(with_it[6:], without[6:], strict=True))


async def test_any_version_can_walk_and_neither_the_champion_nor_the_store_notices(bench):
    scorer = bench.scorer(config())
    for _ in range(2):
        await bench.training().train(scorer)
    before = await bench.store.counts()
    outcomes = await walk(bench, scorer, NOW - timedelta(seconds=5), NOW)
    assert {p.version for o in outcomes for p in o.predictions} == {2}
    assert await bench.store.counts() == before
    live = await bench.runs().score(scorer, NOW, NOW)
    assert live
    assert live.run.version == 1


async def test_ticks_are_those_of_the_schedule_and_the_past_is_never_away(bench):
    scorer = bench.scorer(config(schedule={"every": "10s", "offset": "3s", "deadline": "20s"}))
    await bench.training().train(scorer)
    bench.away = to_micros(START)
    outcomes = await walk(bench, scorer, NOW - timedelta(seconds=25), NOW)
    assert [(o.run.scheduled - NOW).total_seconds() for o in outcomes] == [-17.0, -7.0]
    assert {(p.as_of - NOW).total_seconds() for o in outcomes for p in o.predictions} == {-20.0, -10.0}
    assert {p.status for o in outcomes for p in o.predictions} == {Status.GOOD}
    thinned = await walk(bench, scorer, NOW - timedelta(seconds=60), NOW, every=timedelta(seconds=20))
    assert len(thinned) == 3


async def test_a_walk_that_is_left_off_ends(bench):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    (version,) = await bench.store.versions("odd")
    seen = []

    async def go() -> None:
        async for outcome in backtest(scorer, bench.store, version, START, NOW):
            seen.append(outcome)
            await asyncio.sleep(0)

    task = asyncio.create_task(go())
    while len(seen) < 3:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- what is read ahead is what would have been read ---


def some_samples(noise: np.random.Generator, tags: list[int], cells: int) -> SampleBatch:
    """At odd times, some of them late, Bad, or two of one time."""
    count = 40 * cells
    source = np.sort(noise.integers(0, cells * SECOND, count) // 500_000 * 500_000)
    late = np.where(noise.random(count) < 0.2, noise.integers(0, 20 * SECOND, count), 0)
    status = np.where(noise.random(count) < 0.05, int(Status.BAD), 0)
    return SampleBatch.of(noise.choice(tags, count), source, noise.normal(size=count), status, source + late, source)


async def prepared(store: Store, noise: np.random.Generator, corrected: bool) -> list[int]:
    tags = await store.register_tags([Tag(f"m.{n}", "plant", f"nsu=u;s={n}", "m", f"f{n}") for n in range(5)])
    ids = [tag.id for tag in tags]
    gaps = [
        Gap(f"{n}", "plant", None if n % 2 else "m.1", at, at + timedelta(seconds=3), GapCause.SERVER_DOWN, at)
        for n, at in enumerate(datetime.fromisoformat(f"1970-01-01T00:0{minute}:10+00:00") for minute in range(1, 4))
    ]
    await store.write([Delivery(some_samples(noise, ids, 240), tuple(gaps))])
    if corrected:
        stamps = np.array([100 * SECOND, 200 * SECOND])
        wrong = SampleBatch.of([ids[0]] * 2, stamps, [1e3, 2e3], 0, stamps + 15 * SECOND, stamps)
        await store.write([Delivery(wrong)])
        await store.correct(replace(wrong, value=np.array([0.5, 0.6])), user="anna", reason="typed wrongly")
    return ids


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_slice_read_ahead_shows_what_the_store_shows(tmp_path: Path, monkeypatch, kind, corrected):
    monkeypatch.setattr(walking, "_SAMPLES", 500)
    monkeypatch.setattr(walking, "_AT_FIRST", 2)
    noise = np.random.default_rng(7)
    store: MemoryStore | SqliteStore = MemoryStore()
    if kind == "sqlite":
        store = SqliteStore(f"sqlite+aiosqlite:///{tmp_path / 'historian.db'}")
        await store.__aenter__()
    try:
        ids = await prepared(store, noise, corrected)
        policies = Policies.of(5, [0, 3 * SECOND, 9 * SECOND, 9 * SECOND, SECOND], [False, False, True, False, True])
        past = Past(store, 2 * SECOND, 240 * SECOND)
        for end in range(20, 240, 2):
            window = Window(tuple(ids), (end - 20) * SECOND, SECOND, 20, policies, ((ids[1], 70_000_000, 73_000_000),))
            ours = await past.grid(window, known_by=end * SECOND)
            theirs = await store.grid(window, known_by=end * SECOND)
            for name in ("values", "observed", "good", "held"):
                assert np.array_equal(getattr(ours, name), getattr(theirs, name)), (end, name)
            since = datetime.fromtimestamp(end - 25, tz=START.tzinfo)
            assert await past.gaps(since=since, known_by=None, limit=100) == await store.gaps(since=since, limit=100)
    finally:
        if isinstance(store, SqliteStore):
            await store.__aexit__(None, None, None)


async def test_a_version_whose_artifact_is_gone_can_not_walk(bench, tmp_path):
    scorer = bench.scorer(config())
    await bench.training().train(scorer)
    (version,) = await bench.store.versions("odd")
    gone: ModelVersion = replace(version, artifact="gone.safetensors")
    with pytest.raises(Exception, match="train it again"):
        [o async for o in backtest(scorer, bench.store, gone, START, NOW)]
