"""How numbers, ages and statuses are written."""

from datetime import timedelta

import pytest

from plugin.domain import HIGH_LIMITED, Status
from plugin.hmi.snapshot import Reading
from plugin.hmi.words import age, bounds, count, milliseconds, number, plain, reading, share, status_name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0.00"),
        (9.994, "9.99"),
        (-12.34, "-12.3"),
        (99.4, "99.4"),
        (123.4, "123"),
        (1_234_567.0, "1,234,567"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("shown", "text", "range_"),
    [
        (None, "–", ""),
        (Reading(20.0, 16.0, 24.0), "20.0", "16.0–24.0"),
        (Reading(20.0, 16.0, 24.0, status=Status.UNCERTAIN_SUB_NORMAL), "20.0?", "16.0–24.0"),
        (Reading(20.0, 16.0, 24.0, status=Status.BAD_NO_DATA), "Bad", ""),
        (Reading(None, status=Status.BAD_WAITING_FOR_INITIAL_DATA), "Bad", ""),
        (Reading(None), "Bad", ""),
        (Reading(float("nan"), 1.0, 2.0), "Bad", ""),
        (Reading(20.0, 16.0, None), "20.0", "≥16.0"),
        (Reading(20.0, None, 24.0), "20.0", ""),
        (Reading(125.0, 98.0, None, status=HIGH_LIMITED), "≥125", "≥98.0"),
        (Reading(125.0, 98.0, None, status=Status.UNCERTAIN_SUB_NORMAL | HIGH_LIMITED), "≥125?", "≥98.0"),
        (Reading(20.0, status=0x00000480), "20.0", ""),  # overflow and limit bits leave it Good
    ],
)
def test_a_reading_wears_its_quality(shown, text, range_):
    assert reading(shown) == text
    assert bounds(shown) == range_


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (None, "–"),
        (Reading(0.674), "67 %"),
        (Reading(1.0, status=Status.UNCERTAIN), "100? %"),
        (Reading(0.5, status=Status.BAD), "Bad"),
    ],
)
def test_shares(shown, text):
    assert share(shown) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (12.4, "12 s"),
        (119.0, "119 s"),
        (180.0, "3.0 min"),
        (7_199.0, "120 min"),
        (9_000.0, "2.5 h"),
        (90_000.0, "25 h"),
        (345_600.0, "4 d"),
    ],
)
def test_ages(seconds, text):
    assert age(None if seconds is None else timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (0x00000000, "Good"),
        (0x40950000, "UncertainSubNormal"),
        (0x40950480, "UncertainSubNormal"),
        (0x809B0000, "BadNoData"),
        (0x80340000, "Bad 0x80340000"),
        (0x40AB0000, "Uncertain 0x40AB0000"),
    ],
)
def test_status_names(status, name):
    assert status_name(status) == name


def test_what_would_steer_a_terminal_is_replaced():
    assert plain("mg/m³ \x1b[2J\n\x07°C") == "mg/m³ �[2J��°C"


def test_counts_and_milliseconds():
    assert (count(1, "gap"), count(0, "gap"), count(1200, "gap")) == ("1 gap", "0 gaps", "1,200 gaps")
    assert (milliseconds(timedelta(microseconds=310)), milliseconds(None)) == ("0.31 ms", "–")
