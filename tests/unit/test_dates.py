"""What models are told of the date: local time, through changes of the clock; days off; and never as a measurement."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from plugin.domain import micros, to_micros
from plugin.infer.config import ModelConfig
from plugin.infer.dates import calendar_rows, with_calendar
from plugin.infer.outputs import full_spec
from plugin.infer.registry import as_json
from plugin.zones import Zone

BERLIN = ZoneInfo("Europe/Berlin")


def config(**more: object):
    fields = {
        "name": "m", "kind": "k", "assets": ["*"], "features": ["load"], "window": "1h", "step": "15min",
        "training": {"learn": "normal"}, "calendar": ["hour_of_day", "day_of_week", "day_off"],
        "time_zone": "Europe/Berlin", **more,
    }  # fmt: skip
    return ModelConfig.model_validate(fields)


def rows(moment, **more: object):
    return calendar_rows(config(**more), np.array([to_micros(moment)]))[:, 0]


@settings(deadline=None)  # a zone is looked up once
@given(st.integers(0, 10 * 366 * 86_400))
def test_phases_follow_the_clock_on_the_wall(seconds):
    moment = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    wall = moment.astimezone(BERLIN)
    hour = (wall.hour * 3600 + wall.minute * 60 + wall.second) / 86400
    week = (wall.weekday() + hour) / 7
    found = rows(moment)
    wanted = [turn(2 * np.pi * share) for share in (hour, week) for turn in (np.sin, np.cos)]
    assert found[:4] == pytest.approx(wanted, abs=1e-4)
    assert found[4] == (wall.weekday() >= 5)
    assert found[5] == (wall.weekday() in {4, 5})


def test_an_hour_that_the_clock_skips_is_no_hour_of_the_day():
    before = datetime(2026, 3, 29, 0, 59, tzinfo=UTC)  # 01:59 in Berlin, and 03:00 a minute later
    hours = [np.arctan2(*rows(moment)[:2]) / (2 * np.pi) * 24 for moment in (before, before + timedelta(minutes=1))]
    assert hours == pytest.approx([1 + 59 / 60, 3.0], abs=1e-4)


def test_holidays_are_dates():
    eve = datetime(2026, 12, 24, 12, tzinfo=BERLIN)  # a Thursday
    assert rows(eve, days_off=["2026-12-25"])[4:].tolist() == [0, 1]
    assert rows(eve + timedelta(days=1), days_off=["2026-12-25"])[4:].tolist() == [1, 0]


def test_nothing_is_told_of_a_window_in_which_nothing_is_seen():
    cells = to_micros(datetime(2026, 1, 1, tzinfo=UTC)) + micros(timedelta(minutes=15)) * np.arange(4)
    observed = np.array([[[True, False, True, True]], [[False] * 4]])
    values, seen = with_calendar(config(), cells, np.ones((2, 1, 4), np.float32), observed)
    assert values.shape == seen.shape == (2, 7, 4)
    assert seen[0, 1:].all()
    assert not seen[1].any()
    assert not values[1].any()


def test_without_a_calendar_windows_stay_as_they_are():
    values, observed = np.ones((1, 1, 4), np.float32), np.ones((1, 1, 4), bool)
    same = with_calendar(config(calendar=[]), np.arange(4), values, observed)
    assert same[0] is values
    assert same[1] is observed


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"time_zone": "Mars/Olympus"}, 'is no time zone; write its IANA name, such as "Europe/Berlin"'),
        ({"days_off": ["caturday"]}, "is no day; write one as saturday, or as 2026-12-25"),
        ({"calendar": ["day_off", "day_off"]}, "name each once"),
        ({"features": ["calendar.hour_sin"]}, "among the features already"),
        ({"training": {"learn": "series"}}, "needs roles.target"),
    ],
)
def test_what_is_no_date_is_refused(wrong, words):
    with pytest.raises(ValidationError, match=words):
        config(**wrong)


@settings(deadline=None)  # the whole zone is looked up once
@given(st.lists(st.integers(0, 60 * 366 * 86_400), min_size=1, max_size=5))
def test_a_zone_around_some_times_tells_them_as_the_whole_one_does(seconds):
    times = to_micros(datetime(1990, 1, 1, tzinfo=UTC)) + np.array(seconds, np.int64) * 1_000_000
    around = Zone.around("Europe/Berlin", times)
    assert around.to_local(times).tolist() == Zone.named("Europe/Berlin").to_local(times).tolist()


def test_little_of_a_zone_is_looked_at_for_a_window():
    cells = to_micros(datetime(2026, 12, 31, tzinfo=UTC)) + np.arange(48) * micros(timedelta(hours=1))
    assert len(Zone.around("Europe/Berlin", cells).changes) == 4


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"time_zone": "Europe/Helsinki"}, False),
        ({"days_off": ["sunday"]}, False),
        ({"days_off": ["sunday", "saturday", "2026-12-25"]}, True),
        ({"days_off": ["sunday"], "calendar": ["hour_of_day", "day_of_week"]}, False),
    ],
)
def test_a_version_is_used_by_the_calendar_that_it_was_trained_by(change, same):
    assert (full_spec(config(**change)) == full_spec(config())) is same


def test_without_a_calendar_a_spec_says_nothing_of_one():
    assert "calendar" not in as_json(full_spec(config(calendar=[])))
    other = full_spec(config(calendar=["hour_of_day"], days_off=["sunday"]))
    assert other == full_spec(config(calendar=["hour_of_day"])), "nobody asks for days off"
