"""Rows of who comes in again and again: none is lost, and no client fills the log."""

from datetime import UTC, datetime, timedelta

import pytest

from plugin.domain import Audit
from plugin.publish import repeats
from plugin.publish.repeats import Repeats

_NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _entry(seconds: float, user: str = "otto") -> Audit:
    time = _NOON + timedelta(seconds=seconds)
    return Audit(time, user, "opcua", "session", "10.0.0.7", after={"role": "operator"})


def test_an_hour_of_a_client_that_comes_each_second_is_61_rows_and_loses_no_time():
    clock, rows = _Clock(), list[Audit]()
    series = Repeats(clock)
    for second in range(3600):
        clock.now = float(second)
        if not series.waits("otto", _entry(second)):
            rows.append(_entry(second))
        rows += series.due()
    rows += series.due(at_once=True)
    assert len(rows) == 61
    assert sum(row.after.get("times", 1) for row in rows) == 3600
    assert rows[1] == Audit(
        _NOON + timedelta(seconds=60), "otto", "opcua", "session", "10.0.0.7",
        after={"role": "operator", "times": 60, "since": "2026-03-01T12:00:01+00:00"},
    )  # fmt: skip
    assert rows[-1].time == _NOON + timedelta(seconds=3599)


def test_who_comes_now_and_then_has_a_row_each_time():
    clock = _Clock()
    series = Repeats(clock)
    for minute in range(5):
        clock.now = 61.0 * minute
        assert list(series.due()) == []
        assert not series.waits("otto", _entry(clock.now))


def test_different_ones_do_not_share_a_row():
    series = Repeats(_Clock())
    assert [series.waits(user, _entry(0, user)) for user in ("otto", "olga", "otto")] == [False, False, True]
    assert [row.user for row in series.due(at_once=True)] == ["otto"]
    assert list(series.due(at_once=True)) == []


def test_of_more_than_can_be_remembered_each_time_is_a_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(repeats, "_REMEMBERED", 2)
    series = Repeats(_Clock())
    assert [series.waits(user, _entry(0, user)) for user in ("a", "b", "c", "c", "a")] == [False] * 4 + [True]
