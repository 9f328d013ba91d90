"""DeviceHealth of an asset, from what is predicted of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asyncua import ua

from plugin.domain import Flag, Meaning, OutputTag, Prediction, Status
from plugin.publish import nodes
from plugin.publish.cells import Cell
from plugin.publish.health import DeviceHealth, HealthNode
from plugin.publish.nodes import Context, OutputNode
from plugin.publish.sheets import Sheet
from plugin.publish.shown import Shown

_NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_RUL = OutputTag("rul", "e", "rul", "cycles", 0.0, 125.0, "", Meaning.LIFETIME, warnings=(30.0, 10.0))
_FLAG = OutputTag("odd", "e", "flag", "", 0.0, 1.0, "", Meaning.FLAG)


def _cell(kind: ua.VariantType = ua.VariantType.Double) -> Cell:
    return Cell(kind, _NOW)


def _output(tag: OutputTag) -> OutputNode:
    said = Sheet([ua.VariantType.Double] * 3, 2, _NOW)
    return OutputNode(tag, said, Context(*(_cell() for _ in range(4))), nodes.number, Shown())


class _Asset:
    def __init__(self) -> None:
        self.life, self.flag = (
            OutputNode(
                tag,
                Sheet([ua.VariantType.Double] * 3, 2, _NOW),
                Context(*(_cell() for _ in range(4))),
                nodes.number,
                Shown(),
            )
            for tag in (_RUL, _FLAG)
        )
        self.cell = _cell(ua.VariantType.Int32)
        self.health = HealthNode(self.cell, [self.life, self.flag])

    def say(self, left: float | None, raised: bool, after: int = 0, status: int = Status.GOOD) -> None:
        now = _NOW + after * _SECOND
        until = now + 60 * _SECOND
        self.life.show([Prediction(_RUL, 1, now, now, until, left, None, None, status, 1.0, 1)], now)
        self.flag.show_flag(Flag("odd", "e", 1, now, raised, 1.0, 2.0, Status.GOOD, 1), until, now)
        self.health.judge(now)

    def seen(self) -> tuple[Any, int, datetime]:
        value = self.cell.value
        assert value.Value is not None
        assert value.StatusCode is not None
        assert value.SourceTimestamp is not None
        return value.Value.Value, int(value.StatusCode.value), value.SourceTimestamp


@pytest.mark.parametrize(
    ("left", "raised", "verdict"),
    [
        (80.0, False, DeviceHealth.NORMAL),
        (30.0, False, DeviceHealth.MAINTENANCE_REQUIRED),
        (80.0, True, DeviceHealth.OFF_SPEC),
        (30.0, True, DeviceHealth.OFF_SPEC),
        (0.0, True, DeviceHealth.FAILURE),
    ],
)
def test_the_worst_that_is_predicted_decides(left, raised, verdict):
    asset = _Asset()
    asset.say(left, raised)
    assert asset.seen() == (verdict, Status.GOOD, _NOW)


def test_before_anything_is_predicted_it_waits():
    asset = _Asset()
    asset.health.judge(_NOW)
    assert asset.seen() == (None, Status.BAD_WAITING_FOR_INITIAL_DATA, _NOW)


def test_its_time_is_when_the_asset_came_into_the_state():
    asset = _Asset()
    for after, left in enumerate((80.0, 79.0, 29.0, 28.0)):
        asset.say(left, False, after)
    assert asset.seen() == (DeviceHealth.MAINTENANCE_REQUIRED, Status.GOOD, _NOW + 2 * _SECOND)


def test_what_it_is_worth_follows_what_it_is_drawn_from():
    asset = _Asset()
    asset.say(29.0, False, status=Status.UNCERTAIN_SUB_NORMAL)
    assert asset.seen()[:2] == (DeviceHealth.MAINTENANCE_REQUIRED, Status.UNCERTAIN_SUB_NORMAL)
    asset.say(None, False)
    assert asset.seen()[:2] == (DeviceHealth.NORMAL, Status.UNCERTAIN_SUB_NORMAL), "one of two can't be judged by"
    late = _NOW + 61 * _SECOND
    asset.flag.expire(late)
    asset.health.judge(late)
    assert asset.seen()[:2] == (DeviceHealth.NORMAL, Status.UNCERTAIN_LAST_USABLE_VALUE)
