"""A challenger beside the champion, judged on the same truths."""

import math
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.domain import (
    Asset,
    Flag,
    Label,
    LabelKind,
    LabSample,
    Meaning,
    ModelState,
    ModelVersion,
    Outcome,
    OutputTag,
    Prediction,
    Run,
    RunKind,
    RunResult,
    Status,
    Tag,
    Verdict,
)
from plugin.historian.memory import MemoryStore
from plugin.infer.comparing import Beside, Comparison, compare
from plugin.infer.config import ModelConfig, PromotionConfig
from plugin.infer.promotion import passes

NOON = datetime.fromisoformat("2026-03-01T12:00+00:00")
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
ASSET = Asset("boiler", {"temperature": Tag("boiler.T", "plc", "nsu=u;s=T", "boiler", "temperature")})
NOX = OutputTag("nox", "boiler", "nox", "mg/m3", 0, 100, "Present nox")
ODD = OutputTag("nox", "boiler", "flag", "", 0, 1, "Flag", Meaning.FLAG)
LIFE = OutputTag("nox", "boiler", "left", "h", 0, 1000, "Left", Meaning.LIFETIME)
TAGS = (NOX, ODD, LIFE)
CONFIG = ModelConfig.model_validate(
    {
        "name": "nox", "kind": "any", "assets": ["*"], "features": ["temperature"], "window": "1h", "step": "1min",
        "schedule": {"every": "1min"}, "valid": "5min", "training": {"learn": "laboratory"},
    }
)  # fmt: skip


def version(number: int, state: ModelState) -> ModelVersion:
    return ModelVersion("nox", number, "any", state, NOON, {}, {}, {}, "a", "b")


VERSIONS = version(1, ModelState.CHAMPION), version(2, ModelState.CHALLENGER)
SPAN = NOON, NOON + 24 * HOUR


async def store_with(*runs: tuple[RunKind, int, tuple[Prediction, ...], tuple[Flag, ...]]) -> MemoryStore:
    store = MemoryStore()
    for kind, number, predictions, flags in runs:
        run = await store.write_run(Run(0, "nox", kind, NOON, NOON, NOON, RunResult.DONE, number, 1))
        given = tuple(replace(each, run=run.id, version=number) for each in predictions)
        await store.write_outcome(Outcome(run, given, tuple(replace(f, run=run.id, version=number) for f in flags)))
    return store


def said(as_of: datetime, value: float, width: float = 2.0, tag: OutputTag = NOX) -> Prediction:
    valid = as_of + 5 * MINUTE
    return Prediction(tag, 0, as_of, as_of, valid, value, value - width, value + width, Status.GOOD, 1.0, 0)


def every_minute(value: float, width: float = 2.0) -> tuple[Prediction, ...]:
    return tuple(said(NOON + n * MINUTE, value, width) for n in range(60))


async def with_results(store: MemoryStore, values: list[float]) -> MemoryStore:
    await store.write_lab_samples(
        [
            LabSample(f"{n}", "boiler", "nox", NOON + (n * 3 + 1.5) * MINUTE, NOON + HOUR, value, "mg/m3")
            for n, value in enumerate(values)
        ]
    )
    return store


async def test_both_are_judged_on_the_same_truths_at_the_same_instants():
    seldom = tuple(said(NOON + n * MINUTE, 49.0, 0.5) for n in range(0, 60, 2))
    store = await store_with((RunKind.SCORE, 1, every_minute(45.0), ()), (RunKind.SHADOW, 2, seldom, ()))
    await with_results(store, [50.0] * 10)
    found = await compare(store, CONFIG, (ASSET,), TAGS, VERSIONS, SPAN)
    (nox,) = found.outputs
    assert nox.outcomes == 5, "where the challenger said nothing at the champion's instant nothing is compared"
    assert nox.errors == pytest.approx((5.0, 1.0))
    assert nox.coverages == (0.0, 0.0)
    assert found.better == pytest.approx(0.8)


async def test_what_another_version_said_or_came_true_out_of_the_stretch_does_not_count():
    store = await store_with(
        (RunKind.SCORE, 1, every_minute(45.0), ()),
        (RunKind.SHADOW, 2, every_minute(49.0), ()),
        (RunKind.SHADOW, 3, every_minute(50.0), ()),
        (RunKind.SCORE, 4, every_minute(50.0), ()),
    )
    await with_results(store, [50.0] * 10)
    found = await compare(store, CONFIG, (ASSET,), TAGS, VERSIONS, (NOON + 10 * MINUTE, NOON + 20 * MINUTE))
    assert [(each.outcomes, each.errors) for each in found.outputs] == [(4, (5.0, 1.0))]
    empty = await compare(store, CONFIG, (ASSET,), TAGS, VERSIONS, (NOON + 10 * HOUR, NOON + 11 * HOUR))
    assert (empty.outcomes, empty.better, empty.outputs) == (0, 0.0, ())


async def test_flags_are_judged_by_verdicts_and_lives_by_failures_hour_by_hour():
    def flags(raised: bool) -> tuple[Flag, ...]:
        return tuple(Flag("nox", "boiler", 0, NOON + n * MINUTE, raised, 2.0, 1.0, Status.GOOD, 0) for n in (6, 7, 9))

    def lives(value: float) -> tuple[Prediction, ...]:
        return tuple(said(NOON + n * MINUTE, value, 3.0, LIFE) for n in range(0, 300, 5))

    store = await store_with((RunKind.SCORE, 1, lives(9.0), flags(True)), (RunKind.SHADOW, 2, lives(7.0), flags(False)))
    verdict = Label("1", LabelKind.VERDICT, "boiler", NOON + 30 * HOUR, NOON, model="nox", verdict=Verdict.FALSE_ALARM)
    await store.write_labels([replace(verdict, as_of=NOON + 6 * MINUTE)])
    await store.write_labels([replace(verdict, id="2", as_of=NOON + 7 * MINUTE, verdict=Verdict.CONFIRMED)])
    await store.write_labels([Label("3", LabelKind.FAILURE, "boiler", NOON + 8 * HOUR, NOON + 9 * HOUR)])
    found = {each.output: each for each in (await compare(store, CONFIG, (ASSET,), TAGS, VERSIONS, SPAN)).outputs}
    assert found["flag"].outcomes == 2
    assert found["flag"].errors == pytest.approx((math.sqrt(0.5), math.sqrt(0.5)))
    assert found["left"].outcomes == 5, "12:00, 13:00, … 16:00, and not each of the 60"
    errors = [(9.0 - left, 7.0 - left) for left in (8, 7, 6, 5, 4)]
    assert found["left"].errors[0] == pytest.approx(math.sqrt(sum(a * a for a, _ in errors) / 5))
    assert found["left"].errors[1] == pytest.approx(math.sqrt(sum(b * b for _, b in errors) / 5))


def both(errors: tuple[float, float], coverages: tuple[float, float] | None, outcomes: int = 100) -> Comparison:
    return Comparison(1, 2, (Beside("nox", "", outcomes, errors, coverages),))


RULE = PromotionConfig(by="rule", margin=0.1, outcomes=50, tolerance=0.03)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (both((1.0, 0.8), (0.9, 0.9)), True),
        (both((1.0, 0.8), None), True),
        (both((1.0, 0.95), (0.9, 0.9)), False),
        (both((1.0, 0.8), (0.9, 0.9), outcomes=49), False),
        (both((1.0, 0.8), (0.9, 0.8)), False),
        (both((1.0, 0.8), (0.7, 0.8)), True),
        (both((1.0, 0.8), (0.9, 0.88)), True),
        (both((0.0, 0.0), None), False),
        (Comparison(1, 2, ()), False),
    ],
)
def test_the_rule_wants_a_lower_error_on_enough_truths_and_no_worse_calibration(found, expected):
    assert passes(RULE, found) is expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0.01, 100), st.floats(0.01, 100)), min_size=1, max_size=4))
def test_the_share_follows_the_outputs_and_turns_round_with_the_versions(rows):
    mine = Comparison(1, 2, tuple(Beside(f"{n}", "", k, (a, b), None) for n, (k, a, b) in enumerate(rows)))
    turned = Comparison(2, 1, tuple(Beside(f"{n}", "", k, (b, a), None) for n, (k, a, b) in enumerate(rows)))
    assert (1 - mine.better) * (1 - turned.better) == pytest.approx(1.0)
    ratios = [b / a for _, a, b in rows]
    assert min(ratios) * (1 - 1e-6) <= 1 - mine.better <= max(ratios) * (1 + 1e-6)
