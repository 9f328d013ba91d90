"""What a model learns from: runs to failure, laboratory blocks, healthy stretches."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from models.kind import TrainingData
from plugin.domain import Asset, Fill, Gap, GapCause, Label, LabelKind, SampleBatch, Status, Tag, Verdict, from_micros
from plugin.errors import TrainingDataError
from plugin.historian.memory import MemoryStore
from plugin.infer.config import ModelConfig, TrainingConfig
from plugin.infer.training import gather
from plugin.protocols import Delivery

SECOND = 1_000_000
Told = Mapping[int, float] | Mapping[float, float]
"""Values by second since START."""
NOW = datetime(2026, 1, 2, tzinfo=UTC)
START = int((NOW - timedelta(hours=1)).timestamp()) * SECOND


def config(learn: str, roles: dict[str, str], window: str = "10s", **more: object) -> ModelConfig:
    return ModelConfig.model_validate(
        {
            "name": "m", "kind": "k", "assets": ["*"], "features": ["first", "second"], "roles": roles,
            "window": window, "step": "1s", "hold": "5s",
            "training": TrainingConfig.model_validate({"learn": learn, **more}),
        }
    )  # fmt: skip


async def store_with(
    first: Told,
    second: Told | None = None,
) -> tuple[MemoryStore, Asset]:
    """One asset; values by second since START."""
    store = MemoryStore()
    tags = await store.register_tags(
        [Tag(f"a.{feature}", "plant", f"nsu=u;s={feature}", "a", feature) for feature in ("first", "second")]
    )
    for tag, values in zip(tags, (first, second if second is not None else dict.fromkeys(first, 0.5)), strict=True):
        times = START + (np.array(list(values)) * SECOND).astype(np.int64)
        batch = SampleBatch.of([tag.id] * len(values), times, list(values.values()), 0, times, times)
        await store.write([Delivery(batch)])
    return store, Asset("a", {tag.feature: tag for tag in tags})


def ages(*runs: int, begin: int = 1) -> dict[int, float]:
    """Ages of consecutive runs of these lengths, one cell each."""
    found = [float(age) for number, length in enumerate(runs) for age in range(begin if number == 0 else 1, length + 1)]
    return dict(enumerate(found))


async def test_runs_between_resets_are_learnt_with_what_was_left():
    store, asset = await store_with(ages(4, 6, 3))
    data, _ = await gather(config("failures", {"age": "first"}), [asset], store, NOW)
    assert len(data.values) == 2
    assert data.target[0][:4].tolist() == [3, 2, 1, 0]
    assert np.isnan(data.target[0][4:]).all()
    assert data.target[1].tolist() == [5, 4, 3, 2, 1, 0]
    assert not data.observed[0, :, 4:].any()
    assert data.group.tolist() == [0, 1]


async def test_the_last_run_has_not_failed_and_is_not_learnt():
    store, asset = await store_with(ages(4, 5))
    data, _ = await gather(config("failures", {"age": "first"}), [asset], store, NOW)
    assert len(data.values) == 1


async def test_a_run_whose_beginning_was_not_seen_is_not_learnt():
    store, asset = await store_with(ages(9, 5, 5, begin=4))
    data, _ = await gather(config("failures", {"age": "first"}), [asset], store, NOW)
    assert [np.nanmax(target) for target in data.target] == [4]


async def test_a_run_whose_end_was_not_seen_is_not_learnt():
    values = ages(8, 8, 8)
    for lost in range(5, 8):
        del values[lost]
    store, asset = await store_with(values)
    data, _ = await gather(config("failures", {"age": "first"}), [asset], store, NOW)
    assert len(data.values) == 1  # the second run, from reset to reset, but not the first, and not the one that lives
    assert data.target[0].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]


async def test_a_long_stop_inside_a_run_costs_nothing():
    values = {t if t < 3 else t + 600: age for t, age in ages(6, 2).items()}
    store, asset = await store_with(values)
    data, _ = await gather(config("failures", {"age": "first"}), [asset], store, NOW)
    assert data.target[0].tolist() == [5, 4, 3, 2, 1, 0]


async def test_a_run_longer_than_the_window_gives_its_last_cells():
    store, asset = await store_with(ages(20, 2))
    data, _ = await gather(config("failures", {"age": "first"}), [asset], store, NOW)
    assert data.values.shape == (1, 2, 10)
    assert data.target[0].tolist() == list(range(9, -1, -1))


async def test_laboratory_values_stand_at_their_own_cell_alone():
    lab = {t: float(t) for t in range(0, 25, 3)}
    store, asset = await store_with(dict.fromkeys(range(25), 1.0), lab)
    data, window = await gather(config("laboratory", {"lab": "second"}), [asset], store, NOW)
    assert data.values.shape == (3, 2, 10)
    labelled = data.target[np.isfinite(data.target)]
    assert labelled.tolist() == list(lab.values())
    assert (data.observed[:, 1] == np.isfinite(data.target)).all()
    assert window[0] == datetime.fromtimestamp(START / SECOND, UTC)


async def test_healthy_is_the_beginning_of_each_completed_run():
    store, asset = await store_with(ages(10, 20, 4))
    data, _ = await gather(config("normal", {"age": "first"}, window="4s", clean=0.5), [asset], store, NOW)
    learnt = data.values[:, 0][data.observed[:, 0] & (data.target == 0)]
    assert sorted(learnt.tolist()) == sorted([*range(1, 6), *range(1, 11)])
    assert set(data.group.tolist()) == {0, 1}


async def test_without_age_everything_counts_as_normal():
    store, asset = await store_with(dict.fromkeys(range(8), 1.0))
    data, _ = await gather(config("normal", {}, window="4s"), [asset], store, NOW)
    assert (data.target == 0).sum() == 8


async def test_what_reports_changes_alone_is_learnt_as_a_window_shows_it():
    store, asset = await store_with({0: 1.0, 3: 2.0, 7: 3.0})
    data, _ = await gather(config("normal", {}, window="8s"), [asset], store, NOW)
    assert data.values[0, 0].tolist() == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0]
    assert data.observed.all()


async def test_two_assets_whose_runs_start_together_are_two_groups():
    store, asset = await store_with(ages(4, 2))
    twin = Asset("b", {"first": asset.tags["first"], "second": asset.tags["second"]})
    other = await store.register_tags([Tag("b.first", "plant", "nsu=u;s=b", "b", "first")])
    times = START + np.arange(6, dtype=np.int64) * SECOND
    values = list(ages(4, 2).values())
    await store.write([Delivery(SampleBatch.of([other[0].id] * 6, times, values, 0, times, times))])
    twin = Asset("b", {"first": other[0], "second": asset.tags["second"]})
    data, _ = await gather(config("failures", {"age": "first"}), [asset, twin], store, NOW)
    assert data.group.tolist() == [0, 1]


async def test_what_lies_on_a_line_is_learnt_as_it_was_seen_when_the_block_ended():
    slow = {t: float(t) for t in range(0, 25, 4)}
    store, asset = await store_with(slow, dict.fromkeys(range(25), 1.0))
    first = replace(asset.tags["first"], fill=Fill.LINEAR)
    data, _ = await gather(config("normal", {}), [Asset("a", {**asset.tags, "first": first})], store, NOW)
    (oldest, *rest) = data.values[:, 0].tolist()
    assert oldest == [0, 1, 2, 3, 4, 0, 0, 0, 0, 0], "five cells, up to a sample"
    assert rest[0] == [5, 6, 7, 8, 9, 10, 11, 12, 12, 12], "the sample at 16 was to come"
    assert rest[1] == [15, 16, 17, 18, 19, 20, 21, 22, 23, 24]


async def test_nothing_that_is_learnt_was_held_across_a_gap():
    store, asset = await store_with({0: 1.0, 6: 2.0}, dict.fromkeys(range(10), 1.0))
    begin = datetime.fromtimestamp(START / SECOND, UTC)
    gap = Gap(
        "1", "plant", "a.first", begin + timedelta(seconds=2), begin + timedelta(seconds=4), GapCause.SEQUENCE, NOW
    )
    await store.write([Delivery(SampleBatch.empty(), gaps=(gap,))])
    data, _ = await gather(config("normal", {}), [asset], store, NOW)
    assert data.observed[0, 0].tolist() == [True, True, False, False, False, False, True, True, True, True]


async def test_a_value_that_is_not_certain_is_learnt_where_its_tag_says_so():
    store, asset = await store_with(dict.fromkeys(range(4), 1.0))
    times = START + np.arange(4, 8, dtype=np.int64) * SECOND
    for tag in asset.tags.values():
        await store.write([Delivery(SampleBatch.of([tag.id] * 4, times, 2.0, Status.UNCERTAIN, times, times))])
    strict = {**asset.tags, "first": replace(asset.tags["first"], uncertain=False)}
    data, _ = await gather(config("normal", {}, window="8s"), [Asset("a", strict)], store, NOW)
    assert data.observed[0].sum(axis=1).tolist() == [4, 8]


async def test_a_series_is_cut_into_blocks_each_led_in_by_a_whole_window():
    store, asset = await store_with({second: float(second) for second in range(36)})
    data, _ = await gather(config("series", {"target": "first"}), [asset], store, NOW, ahead=2)
    assert data.values.shape == (3, 2, 24)
    assert data.group.tolist() == [0, 1, 2]
    assert np.isnan(data.target[1:, :12]).all()
    own = data.target[np.isfinite(data.target)]
    assert own.tolist() == [float(second) for second in range(1, 36)] + [35.0]  # held: the next one is not there yet
    assert data.values[2, 0].tolist() == [float(second) for second in range(12, 36)]


async def test_a_series_foretells_the_very_moment_that_a_cell_ends():
    """A sample at 12:00 is seen by no window that ends at 12:00, and is what a forecast for 12:00 has to meet."""
    store, asset = await store_with({0: 1.0, 1: 2.0, 2: 3.0, 2.5: 4.0, 3: 5.0})
    data, _ = await gather(config("series", {"target": "first"}), [asset], store, NOW)
    assert data.values[0, 0, :4].tolist() == [1.0, 2.0, 4.0, 5.0]
    assert data.target[0, :3].tolist() == [2.0, 3.0, 5.0]


async def test_a_series_shows_a_short_stop_as_missing_and_begins_anew_after_a_long_one():
    store, asset = await store_with(dict.fromkeys((*range(10), *range(20, 30), *range(60, 70)), 1.0))
    data, _ = await gather(config("series", {"target": "first"}), [asset], store, NOW, ahead=2)
    assert data.group.tolist() == [0, 1, 2, 3]
    stop = [second < 16 or second >= 20 for second in range(6, 30)]  # held for 5 s after the last one
    assert data.observed[2, 0].tolist()[-10:] == stop[-10:]
    assert not data.observed[2, 0].all()
    assert data.observed[3, 0].tolist() == [True] * 10 + [False] * 14


async def test_inputs_of_a_series_know_of_no_sample_to_come():
    store, asset = await store_with({0: 0.0, 4: 4.0, 8: 8.0})
    lines = {name: replace(tag, fill=Fill.LINEAR) for name, tag in asset.tags.items()}
    data, _ = await gather(config("series", {"target": "first"}), [Asset("a", lines)], store, NOW, ahead=2)
    assert data.values[0, 0, :9].tolist() == [0, 0, 0, 0, 4, 4, 4, 4, 8]


async def test_the_date_stands_behind_the_features_in_training_too():
    store, asset = await store_with(dict.fromkeys(range(10), 1.0))
    dated = config("normal", {}).model_copy(update={"calendar": ("hour_of_day", "day_off")})
    data, _ = await gather(dated, [asset], store, NOW)
    assert data.values.shape[1] == 6
    angle = 2 * np.pi * (START / SECOND + np.arange(10)) / 86400
    assert data.values[0, 2] == pytest.approx(np.sin(angle), abs=1e-6)
    assert data.values[0, 3] == pytest.approx(np.cos(angle), abs=1e-6)
    assert data.observed[0, 2:].all()


@pytest.mark.parametrize(
    ("learn", "roles"),
    [("failures", {"age": "first"}), ("laboratory", {"lab": "second"}), ("series", {"target": "second"})],
)
async def test_too_little_history_says_what_is_missing(learn, roles):
    store, asset = await store_with({0: 1.0, 1: 2.0}, {})
    with pytest.raises(TrainingDataError, match="model m: the history holds no"):
        await gather(config(learn, roles), [asset], store, NOW)


def failed(second: int, asset: str = "a", *, known: int | None = None) -> Label:
    """A failure label, known at its own time or at the second ``known``."""
    start, created = (START + at * SECOND for at in (second, second if known is None else known))
    return Label(f"{asset}-{second}", LabelKind.FAILURE, asset, from_micros(start), from_micros(created))


async def labelled(*labels: Label, seconds: int = 12, now: datetime = NOW) -> TrainingData:
    store, asset = await store_with({second: float(second) for second in range(seconds)})
    await store.write_labels(labels)
    settings = config("normal", {})
    training = TrainingConfig.model_validate({"learn": "labels"})
    settings = settings.model_copy(update={"training": training, "horizon": timedelta(seconds=2)})
    data, _ = await gather(settings, [asset], store, now)
    return data


async def test_cells_before_a_failure_label_are_ones():
    data = await labelled(failed(5), failed(11))
    assert data.target[0, :5].tolist() == [0, 0, 1, 1, 1]  # cells end a second after their start
    assert data.target[1].tolist()[:6] == [0, 0, 0, 1, 1, 1]
    assert data.group.tolist()[:2] == [0, 1]  # a failure parts two groups


async def test_what_the_horizon_does_not_reach_yet_has_no_label():
    data = await labelled(failed(5), seconds=10, now=from_micros(START + 10 * SECOND))
    last = data.target[-1][data.observed[-1].any(0)]
    assert last.tolist()[:3] == [0, 0, 0]
    assert np.isnan(last[-2:]).all()


async def test_a_label_of_another_asset_or_written_later_is_not_seen():
    with pytest.raises(TrainingDataError, match="neither a failure label nor"):
        await labelled(failed(5, "b"))
    early = from_micros(START + 8 * SECOND)
    with pytest.raises(TrainingDataError, match="neither a failure label nor"):
        await labelled(failed(5, known=9), now=early)


async def test_an_outcome_is_learnt_at_its_own_time_alone():
    store, asset = await store_with(dict.fromkeys(range(8), 1.0), {1: 0.0, 4: 1.0})
    data, _ = await gather(config("labels", {"outcome": "second"}, "4s"), [asset], store, NOW)
    flat = data.target.ravel()
    assert np.flatnonzero(~np.isnan(flat)).tolist() == [1, 4]
    assert flat[[1, 4]].tolist() == [0, 1]


def test_labels_need_a_horizon_or_an_outcome():
    with pytest.raises(ValueError, match="horizon is 0"):
        config("labels", {})


def said(kind: LabelKind, second: int, until: int | None = None, verdict: Verdict | None = None) -> Label:
    start, end = (None if at is None else from_micros(START + at * SECOND) for at in (second, until))
    assert start
    return Label(f"{kind}-{second}", kind, "a", start, start, end, verdict, as_of=start if verdict else None)


async def test_a_run_ends_with_a_failure_that_somebody_told_of_though_its_age_goes_on():
    store, asset = await store_with({second: float(second) for second in range(12)})
    await store.write_labels([failed(7)])
    data, _ = await gather(config("failures", {"age": "first"}), [asset], store, NOW)
    assert [target[~np.isnan(target)].tolist() for target in data.target] == [[7, 6, 5, 4, 3, 2, 1, 0]]


async def test_cells_after_a_work_order_are_another_group_and_what_it_prevented_is_not_known():
    order = said(LabelKind.WORK_ORDER, 4, 6)
    data = await labelled(order, failed(10), failed(20), seconds=12, now=from_micros(START + 30 * SECOND))
    assert data.target[0, :2].tolist() == [0, 0]
    assert np.isnan(data.target[0, 2:]).all(), "within the horizon of the order, and the order itself"
    assert data.target[1][~np.isnan(data.target[1])].tolist() == [0, 1, 1, 1]
    assert len(set(data.group.tolist())) == len(data.group)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ((), [0] * 12),
        ((said(LabelKind.WORK_ORDER, 2, 5),), [0, 0, None, None, None, *[0] * 7]),
        ((said(LabelKind.FAILURE, 6),), [0, 0, None, None, None, None, None, *[0] * 5]),
        ((said(LabelKind.VERDICT, 8, verdict=Verdict.CONFIRMED),), [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]),
        (
            (said(LabelKind.FAILURE, 6), said(LabelKind.VERDICT, 4, verdict=Verdict.FALSE_ALARM)),
            [0, 0, 0, 0, None, None, None, *[0] * 5],
        ),
    ],
)
async def test_normal_is_what_nobody_said_otherwise_of(labels, expected):
    store, asset = await store_with({second: float(second) for second in range(12)})
    await store.write_labels(labels)
    data, _ = await gather(config("normal", {}, "4s"), [asset], store, NOW)
    flat = np.full(12, np.nan)
    for values, observed, target in zip(data.values, data.observed, data.target, strict=True):
        seen = observed[0]
        flat[values[0][seen].astype(int)] = target[seen]
    assert [None if np.isnan(each) else each for each in flat.tolist()] == expected


async def test_a_false_alarm_late_in_a_life_is_learnt_as_healthy():
    store, asset = await store_with(ages(8, 2))
    await store.write_labels([said(LabelKind.VERDICT, 7, verdict=Verdict.FALSE_ALARM)])
    data, _ = await gather(config("normal", {"age": "first"}, "2s"), [asset], store, NOW)
    learnt = sorted(int(age) for row, seen in zip(data.values, data.observed, strict=True) for age in row[0][seen[0]])
    assert learnt == [1, 2, 3, 4, 6, 7], "half of the life, and the two cells before the flag"
