"""What a prediction looks like on its nodes: value, status, times, expiry. No server, no clock."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asyncua import ua
from hypothesis import given
from hypothesis import strategies as st

from plugin.domain import (
    HIGH_LIMITED,
    Drift,
    DriftKind,
    Flag,
    ModelStanding,
    OutputTag,
    Prediction,
    Quality,
    Run,
    RunKind,
    RunResult,
    Standing,
    Status,
    quality,
)
from plugin.publish import nodes, types
from plugin.publish.audience import Wish
from plugin.publish.backlog import Changes
from plugin.publish.cells import Cell, Face
from plugin.publish.nodes import Context, ModelNode, OutputNode, freshness, service_level
from plugin.publish.sheets import Sheet
from plugin.publish.shown import Shown

_NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_TAG = OutputTag("rul", "engine-01", "rul", "cycles", 0.0, 125.0, "")


def _cell(kind: ua.VariantType = ua.VariantType.Double) -> Cell:
    return Cell(kind, _NOW)


def _context() -> Context:
    kind = ua.VariantType
    return Context(_cell(kind.UInt32), _cell(kind.String), _cell(kind.String), _cell(), _cell())


class _Number:
    """A number's node with all that stands beside it at hand."""

    def __init__(self, *, simulated: bool = False) -> None:
        said = Sheet([ua.VariantType.Double] * 3, 3, _NOW)
        self.value, self.lower, self.upper, self.as_of, *_ = said.faces
        self.context = _context()
        self.node = OutputNode(_TAG, said, self.context, nodes.number, Shown(simulated=simulated))

    def show(self, prediction: Prediction, now: datetime) -> None:
        self.node.show([prediction], now)

    def shown(self) -> tuple[Any, int, datetime]:
        return _shown(self.value)


def _shown(cell: Face) -> tuple[Any, int, datetime]:
    data = cell.value
    assert data is not None
    assert data.Value is not None
    assert data.StatusCode is not None
    assert data.SourceTimestamp is not None
    return data.Value.Value, int(data.StatusCode.value), data.SourceTimestamp


def _prediction(
    value: float | None = 80.0,
    status: int = Status.GOOD,
    *,
    as_of: datetime = _NOW - _SECOND,
    valid_until: datetime = _NOW + 60 * _SECOND,
    lower: float | None = 70.0,
) -> Prediction:
    return Prediction(_TAG, 3, as_of, as_of + _SECOND, valid_until, value, lower, 90.0, status, 0.9, 1)


def test_a_prediction_is_shown_with_its_own_time_and_status():
    number = _Number()
    number.show(_prediction(status=Status.UNCERTAIN_SUB_NORMAL), _NOW)
    assert number.shown() == (80.0, Status.UNCERTAIN_SUB_NORMAL, _NOW - _SECOND)
    assert _shown(number.lower) == (70.0, Status.UNCERTAIN_SUB_NORMAL, _NOW - _SECOND)
    assert number.value.value.ServerTimestamp == _NOW
    assert _shown(number.context.version)[0] == 3
    assert number.node.usable


def test_a_life_that_is_longer_than_time_has_no_date():
    *_, ends = nodes.lifetime(timedelta(hours=1))([_prediction(1e14)])
    assert ends is None


def test_a_source_time_is_never_in_the_future():
    number = _Number()
    number.show(_prediction(as_of=_NOW + 5 * _SECOND), _NOW)
    assert number.shown()[2] == _NOW
    assert _shown(number.as_of)[0] == _NOW + 5 * _SECOND


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_no_number_is_bad_and_null(value):
    number = _Number()
    number.show(_prediction(value), _NOW)
    assert number.shown()[:2] == (None, Status.BAD_NO_DATA)
    assert _shown(number.lower)[:2] == (None, Status.BAD_NO_DATA)
    assert not number.node.usable


def test_a_missing_bound_leaves_the_value_alone():
    number = _Number()
    number.show(_prediction(lower=None), _NOW)
    assert number.shown()[:2] == (80.0, Status.GOOD)
    assert _shown(number.lower)[:2] == (None, Status.BAD_NO_DATA)


def test_a_value_at_its_limit_says_so_and_its_bounds_do_not():
    number = _Number()
    number.show(replace(_prediction(125.0, Status.GOOD | HIGH_LIMITED), upper=None), _NOW)
    assert number.shown()[:2] == (125.0, HIGH_LIMITED)
    assert _shown(number.lower)[:2] == (70.0, Status.GOOD)
    assert _shown(number.upper)[:2] == (None, Status.BAD_NO_DATA)
    number.node.cut_off(True, _NOW)
    number.node.cut_off(False, _NOW)
    assert number.shown()[:2] == (125.0, HIGH_LIMITED)
    assert _shown(number.lower)[:2] == (70.0, Status.GOOD)


def test_a_life_without_an_upper_bound_has_no_day_on_which_it_ends():
    facts = nodes.lifetime(_SECOND)
    assert facts([_prediction(80.0)]) == (80.0, 70.0, 90.0, _NOW + 79 * _SECOND)
    assert facts([replace(_prediction(80.0), upper=None)]) == (80.0, 70.0, None, None)
    assert facts([replace(_prediction(80.0, lower=None), upper=None)])[3] == _NOW + 79 * _SECOND


def test_past_its_time_a_value_stays_as_last_usable_from_that_time_on():
    number = _Number()
    until = _NOW + 60 * _SECOND
    number.show(_prediction(valid_until=until), _NOW)
    assert not number.node.expire(until - _SECOND)
    assert number.node.expire(until + _SECOND)
    assert number.shown() == (80.0, Status.UNCERTAIN_LAST_USABLE_VALUE, until)
    assert _shown(number.lower) == (70.0, Status.UNCERTAIN_LAST_USABLE_VALUE, until)
    assert not number.node.usable
    number.show(_prediction(81.0, valid_until=until + 60 * _SECOND), until + 2 * _SECOND)
    assert number.shown()[:2] == (81.0, Status.GOOD)


def test_a_prediction_that_comes_too_late_is_stale_at_once():
    number = _Number()
    number.show(_prediction(valid_until=_NOW - _SECOND / 2), _NOW)
    assert number.shown() == (80.0, Status.UNCERTAIN_LAST_USABLE_VALUE, _NOW - _SECOND / 2)


def test_a_bad_value_does_not_become_uncertain_by_waiting():
    number = _Number()
    number.show(_prediction(None, Status.BAD_NO_COMMUNICATION), _NOW)
    assert not number.node.expire(_NOW + timedelta(days=1))
    assert number.shown()[:2] == (None, Status.BAD_NO_COMMUNICATION)


_CUT_OFF = Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE


def test_cut_off_from_its_source_a_value_stays_in_doubt_with_its_own_time():
    number = _Number()
    number.show(_prediction(lower=None), _NOW)
    number.node.cut_off(True, _NOW + _SECOND)
    assert number.shown() == (80.0, _CUT_OFF, _NOW - _SECOND)
    assert number.value.value.ServerTimestamp == _NOW + _SECOND
    assert _shown(number.upper)[1] == _CUT_OFF
    assert _shown(number.lower)[:2] == (None, Status.BAD_NO_DATA)
    assert not number.node.usable
    number.node.cut_off(False, _NOW + 2 * _SECOND)
    assert number.shown() == (80.0, Status.GOOD, _NOW - _SECOND), "it was right when it was made, and is not stale"
    assert number.node.usable


def test_a_run_that_comes_too_late_does_not_hide_that_the_source_is_away():
    number = _Number()
    number.node.cut_off(True, _NOW)
    assert number.value.value.Value == ua.Variant(), "what waits for its first data goes on waiting"
    number.show(_prediction(), _NOW)
    assert number.shown()[:2] == (80.0, _CUT_OFF)
    number.show(_prediction(None), _NOW)
    assert number.shown()[:2] == (None, Status.BAD_NO_DATA)


def test_what_a_run_said_during_the_outage_stays_until_the_next_one():
    number = _Number()
    number.node.cut_off(True, _NOW)
    number.show(_prediction(status=_CUT_OFF), _NOW)
    number.node.cut_off(False, _NOW)
    assert number.shown()[1] == _CUT_OFF
    number.show(_prediction(), _NOW)
    assert number.shown()[1] == Status.GOOD


def test_what_grew_stale_in_the_outage_stays_stale_after_it():
    number = _Number()
    until = _NOW + 60 * _SECOND
    number.show(_prediction(valid_until=until), _NOW)
    number.node.cut_off(True, _NOW)
    assert number.node.expire(until)
    assert number.shown() == (80.0, Status.UNCERTAIN_LAST_USABLE_VALUE, until)
    number.node.cut_off(False, until)
    assert number.shown() == (80.0, Status.UNCERTAIN_LAST_USABLE_VALUE, until)


@given(
    status=st.integers(0, 2**32 - 1),
    value=st.none() | st.floats(),
    late=st.integers(-100, 100),
    ahead=st.integers(-100, 100),
)
def test_no_client_ever_sees_a_value_under_bad_a_null_under_good_or_a_time_to_come(status, value, late, ahead):
    number = _Number()
    number.show(_prediction(value, status, as_of=_NOW + ahead * _SECOND, valid_until=_NOW + late * _SECOND), _NOW)
    shown, code, time = number.shown()
    assert (shown is None) == (quality(code) is Quality.BAD)
    assert time <= _NOW
    assert quality(code) >= quality(status) or (quality(status) is Quality.GOOD and quality(code) is Quality.GOOD)


def test_a_flag_shows_what_decided_it_and_ages_like_a_number():
    said = Sheet([ua.VariantType.Boolean, ua.VariantType.Double, ua.VariantType.Double], 2, _NOW)
    raised, score, threshold, *_ = said.faces
    node = OutputNode(_TAG, said, _context(), nodes.number, Shown())
    until = _NOW + 10 * _SECOND
    node.show_flag(Flag("rul", "engine-01", 3, _NOW, True, 4.2, 3.0, Status.GOOD, 1), until, _NOW)
    assert [_shown(cell)[0] for cell in (raised, score, threshold)] == [True, 4.2, 3.0]
    assert node.expire(until)
    assert _shown(raised) == (True, Status.UNCERTAIN_LAST_USABLE_VALUE, until)


def _model() -> tuple[ModelNode, dict[str, Cell]]:
    cells = {member.name.text: Cell(member.variant, _NOW) for member in types.MODEL.members}
    return ModelNode(cells), cells


def test_a_models_node_tells_of_its_version_its_last_run_and_where_it_drifts():
    node, cells = _model()
    run = Run(1, "rul", RunKind.SCORE, _NOW, _NOW, _NOW + _SECOND / 4, RunResult.FAILED, 3, 20, "no database")
    shadow = Run(2, "rul", RunKind.SHADOW, _NOW, _NOW, _NOW, RunResult.DONE, 4)
    standing = Standing("rul", "rul_lstm", ModelStanding.IN_FORCE, 3, "abc", run, shadow, (_drift(),))
    node.stand(standing, _NOW + _SECOND)
    said = {name: _shown(cell)[0] for name, cell in cells.items()}
    assert said == {
        "State": "in force", "Kind": "rul_lstm", "Version": 3, "Hash": "abc", "LastRun": _NOW, "LastResult": "failed",
        "LastError": "no database", "LastDuration": 250.0, "Coverage": None, "Drifting": True,
        "Drifts": ["input of engine-01 T24"], "ShadowVersion": 4, "ShadowRun": _NOW, "ShadowResult": "done",
    }  # fmt: skip
    assert _shown(cells["ShadowResult"])[1] == Status.UNCERTAIN_SIMULATED_VALUE
    node.stand(Standing("rul", "rul_lstm", ModelStanding.NONE), _NOW + _SECOND)
    assert _shown(cells["Version"])[:2] == (None, Status.BAD_NO_DATA)
    assert _shown(cells["Drifting"])[0] is False


def _drift(asset: str = "engine-01") -> Drift:
    return Drift("1", "rul", 3, DriftKind.INPUT, asset, "T24", _NOW, _NOW, None, 5.0, 3.0, "")


@pytest.mark.parametrize(
    ("usable", "total", "level"), [(0, 0, 1), (0, 9, 1), (9, 9, 255), (1, 2, 100), (99_999, 100_000, 198)]
)
def test_the_service_level_tells_the_share_that_is_fresh(usable, total, level):
    assert service_level(usable, total) == level


def test_a_flag_is_as_fresh_as_the_oldest_of_the_predictions_beside_it():
    early, late = _NOW + _SECOND, _NOW + 2 * _SECOND
    fresh = freshness([_prediction(valid_until=late), _prediction(valid_until=early), _prediction(valid_until=late)])
    assert fresh == {("rul", "engine-01"): early}


def test_features_that_made_a_value_stand_beside_it_until_nobody_explains_the_next():
    number = _Number()

    def told() -> list[tuple[Any, int]]:
        return [_shown(cell)[:2] for cell in (number.context.features, number.context.shares)]

    for shares in (None, {"T24": 0.75, "Ps30": 0.25}, {"T24": 1.0}, None, None):
        number.node.show([_prediction()], _NOW, shares)
        if shares:
            assert told() == [(list(shares), 0), (list(shares.values()), 0)]
        else:
            assert told() == [(None, Status.BAD_NO_DATA)] * 2


class _Heard:
    """One who chooses, and takes every value."""

    wish = Wish.ITS_OWN
    changes = Changes()

    def __init__(self) -> None:
        self.told: list[tuple[Any, int]] = []
        self.kept: list[bytes] = []

    def takes(self, fact: Any, status: int, source: datetime) -> bool:
        self.told.append((fact, status))
        return True

    def put(self, content: bytes) -> None:
        self.kept.append(content)

    def follow(self, place: int) -> bool:
        raise AssertionError(place)

    def unfollow(self) -> None:
        raise AssertionError


def test_subscriptions_hear_of_a_write_before_it_returns_and_share_its_bytes():
    cell, first, second = _cell(), _Heard(), _Heard()
    for heard in (first, second):
        cell.join(heard)
    cell.write(1.5, Status.GOOD, _NOW, _NOW)
    assert first.told == second.told == [(1.5, 0)]
    assert first.kept[0] is second.kept[0]
    cell.leave(first)
    cell.write(2.5, Status.BAD_NO_DATA, _NOW, _NOW)
    assert (len(first.told), second.told[-1]) == (1, (None, Status.BAD_NO_DATA))


def test_what_seldom_changes_is_told_when_it_does():
    cell, heard = _cell(), _Heard()
    cell.join(heard)
    for fact, status in ((1.0, 0), (1.0, 0), (2.0, 0), (2.0, Status.UNCERTAIN), (None, Status.BAD_NO_DATA)):
        cell.note(fact, _NOW, _NOW, status)
    assert heard.told == [(1.0, 0), (2.0, 0), (2.0, Status.UNCERTAIN), (None, Status.BAD_NO_DATA)]
