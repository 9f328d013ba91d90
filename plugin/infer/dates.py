"""What a model is told of the date, as more features of its windows: in training, live and in a backtest alike."""

from datetime import date

import numpy as np
from numpy.typing import NDArray

from plugin.infer.config import WEEKDAYS, ModelConfig
from plugin.zones import Zone

_DAY = 86_400_000_000
_MONDAY = 4
"""Days from 1970-01-01, a Thursday, to the first Monday."""


def with_calendar(
    config: ModelConfig, cells: NDArray[np.int64], values: NDArray[np.float32], observed: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Windows [..., f, t] of cells that begin at ``cells`` [t] [µs], with the calendar's features behind the others.

    They are observed wherever anything of the window is.
    """
    if not config.calendar:
        return values, observed
    told = calendar_rows(config, cells)
    shape = (*values.shape[:-2], *told.shape)
    anything = np.broadcast_to(observed.any((-2, -1), keepdims=True), shape)
    every = (np.concatenate([values, np.broadcast_to(told, shape)], -2), np.concatenate([observed, anything], -2))
    return np.where(every[1], every[0], np.float32(0)), every[1]


def calendar_rows(config: ModelConfig, cells: NDArray[np.int64]) -> NDArray[np.float32]:
    """[feature, t], in the order of :attr:`ModelConfig.inputs`, by the local time of the cells' beginning [µs]."""
    local = Zone.around(config.time_zone, cells).to_local(cells)
    day = local // _DAY
    week = (local - _MONDAY * _DAY) % (7 * _DAY)
    rows = {
        "hour_of_day": _phase(local % _DAY, _DAY),
        "day_of_week": _phase(week, 7 * _DAY),
        "day_off": (_off(config, day), _off(config, day + 1)),
    }
    return np.stack([row for asked in config.calendar for row in rows[asked]]).astype(np.float32)


def _phase(time: NDArray[np.int64], period: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    angle = 2.0 * np.pi * time / period
    return np.sin(angle), np.cos(angle)


def _off(config: ModelConfig, day: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Of days since 1970."""
    weekdays = [WEEKDAYS.index(each) for each in config.days_off if each in WEEKDAYS]
    dates = [date.fromisoformat(each) for each in config.days_off if each not in WEEKDAYS]
    numbers = [(each - date(1970, 1, 1)).days for each in dates]
    off: NDArray[np.bool_] = np.isin((day - _MONDAY) % 7, weekdays) | np.isin(day, numbers)
    return off
