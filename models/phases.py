"""A cell's calendar features turned into what a model learns from: for each instant ahead waves, days and parts of the
day.

What stands in a cell to come follows from the features of the present one (:mod:`models.calendar`): phases advance by a
known angle. Where the clocks change in between, it is an hour off.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

_HARMONICS = 4
_BINS = 96
"""Of the day, at most: a shift or a break begins at its minute, which few waves can't tell."""
_DAYS = 7


def coming(rows: Mapping[str, jax.Array], ahead: Sequence[int], day: int) -> jax.Array:
    """Inputs [..., horizon, d] for the instants so many cells after those of ``rows`` [...]; a day has ``day`` cells.

    ``rows`` has a few of :data:`models.calendar.NAMES`, in whole pairs. Four waves of the day; which day of the week it
    is, whether it is off, and waves of each; which part of the day it is. Off is known of today and tomorrow; later
    days count as working days.
    """
    then = _then(rows, ahead, day)
    shape = (*jnp.shape(next(iter(rows.values()), jnp.zeros(()))), len(ahead))
    waves = days = bins = jnp.zeros((*shape, 0))
    if "today" in then:
        waves = _waves(then["today"])
        count = min(day, _BINS)
        bins = (jnp.floor(then["today"] * count) % count)[..., None] == np.arange(count)
    if "weekday" in then:
        days = (then["weekday"][..., None] == np.arange(_DAYS)).astype(jnp.float32)
    if "off" in then:
        days = jnp.concatenate([days, then["off"][..., None]], -1)
    both = days[..., None] * waves[..., None, :]
    return jnp.concatenate([waves, days, both.reshape(*shape, -1), bins], -1)


def instants(rows: Mapping[str, jax.Array], ahead: Sequence[int], day: int) -> jax.Array:
    """As :func:`coming`, in few columns [..., horizon, d] for who asks about thresholds: the waves of the day and the
    share of it that has passed, the number of the day in the week, whether it is off."""
    then = _then(rows, ahead, day)
    waves = _waves(then["today"]) if "today" in then else jnp.zeros((*next(iter(then.values())).shape, 0))
    plain = [value % 1.0 if name == "today" else value for name, value in then.items()]
    return jnp.concatenate([waves, jnp.stack(plain, -1)], -1)


def _waves(today: jax.Array) -> jax.Array:
    angle = 2.0 * np.pi * today[..., None] * np.arange(1, _HARMONICS + 1, dtype=np.float32)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


def _then(rows: Mapping[str, jax.Array], ahead: Sequence[int], day: int) -> dict[str, jax.Array]:
    """Of the instants ahead [..., horizon], as far as ``rows`` tell: ``today``, the days since the last midnight;
    ``weekday``, its number from 0; ``off``, 0 or 1."""
    turn = np.array(ahead, np.float32) / day
    then = {}
    if "calendar.hour_sin" in rows:
        then["today"] = _share(rows, "calendar.hour", day)[..., None] + turn
    if "calendar.week_sin" in rows:
        then["weekday"] = jnp.floor((_share(rows, "calendar.week", day * _DAYS)[..., None] * _DAYS + turn) % _DAYS)
    if "calendar.day_off" in rows:
        today = then.get("today", jnp.zeros(len(ahead)))
        tomorrow = jnp.where(today < 2.0, rows["calendar.day_off_next"][..., None], 0.0)
        then["off"] = jnp.where(today < 1.0, rows["calendar.day_off"][..., None], tomorrow)
    return then


def _share(rows: Mapping[str, jax.Array], name: str, period: int) -> jax.Array:
    """Of the day (or week) of so many cells that has passed at the middle of the cell.

    At its beginning, rounding could put midnight into the day before.
    """
    turn: jax.Array = jnp.arctan2(rows[f"{name}_sin"], rows[f"{name}_cos"]) / (2.0 * np.pi)
    return (turn + 0.5 / period) % 1.0
