"""Who is silent, late or flat; with times of our own, no clock and no socket."""

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from plugin.acquire.config import WatchdogConfig
from plugin.acquire.decoding import Values
from plugin.acquire.intake import Intake
from plugin.acquire.watchdog import Watchdog
from plugin.diagnostics import Diagnostics, some
from plugin.domain import Tag

SECOND = 1_000_000
HOUR = 3600 * SECOND
START = 1_700_000_000 * SECOND


class Plant:
    """Tags t0, t1 …, a watchdog, and a time that goes on by whole looks."""

    def __init__(self, count: int = 2, **config: Any) -> None:
        self.diagnostics = Diagnostics()
        tags = [Tag(f"t{n}", "plant", f"i={n}", id=n + 1) for n in range(count)]
        self.intake = Intake("plant", tags, {}, self.diagnostics)
        self.dog = Watchdog("plant", WatchdogConfig(**config), self.intake, self.diagnostics)
        self.now = START
        self.dog.begin(self.now)

    def report(self, *tags: int, value: float = 0.0, age: int = 0) -> None:
        self.intake.arrived(values(tags, value, self.now - age), self.now)

    def go(self, seconds: int, *tags: int, every: int = 1, value: Callable[[int], float] = float, age: int = 0) -> None:
        """On for so many seconds, in which these tags report."""
        for second in range(seconds):
            self.now += SECOND
            if tags and second % every == 0:
                self.report(*tags, value=value(second), age=age)
            self.dog.look(self.now)

    def found(self, state: str) -> tuple[str, ...]:
        return self.dog.names[state]

    def gauge(self, state: str) -> float:
        return self.diagnostics.value(f"tags_{state}", source="plant")


def values(tags: Sequence[int], value: float, source: int) -> Values:
    count = len(tags)
    times = np.full(count, source, np.int64)
    return Values(
        handle=np.array(tags, np.uint32), source_time=times, timed=np.ones(count, np.bool_), server_time=times,
        value=np.full(count, value), status=np.zeros(count, np.uint32), kind=np.full(count, 11, np.uint8),
        without_number=0, lost=0, body=b"", odd=np.zeros(0, np.intp), variants=np.zeros(0, np.intp),
    )  # fmt: skip


def test_a_tag_that_reported_steadily_and_stops_is_silent_and_speaks_again():
    plant = Plant()
    plant.go(3700, 0, 1)
    plant.go(25, 0)
    assert plant.found("silent") == (), "half a minute is nothing"
    plant.go(10, 0)
    assert plant.found("silent") == ("t1",)
    assert plant.gauge("silent") == 1
    plant.go(1, 0, 1)
    assert plant.found("silent") == ()
    assert plant.gauge("silent") == 0


def test_what_is_not_known_well_yet_and_what_seldom_reports_is_not_silent():
    plant = Plant(3)
    plant.go(600, 0, 1)
    plant.go(120, 0)
    assert plant.found("silent") == (), "ten minutes is no experience"
    plant = Plant(3)
    plant.go(7200, 0, 1, every=60)
    plant.go(500, 0)
    assert plant.found("silent") == (), "once a minute: ten minutes is nothing, and t2 never said anything"
    plant.go(120, 0)
    assert plant.found("silent") == ("t1",)


def test_a_pause_is_learned_so_that_no_false_alarm_comes_twice():
    plant = Plant()
    plant.go(3700, 0, 1)
    plant.go(600, 0)
    assert plant.found("silent") == ("t1",)
    plant.go(200, 0, 1)
    plant.go(1800, 0)
    assert plant.found("silent") == (), "it has rested for ten minutes before"


def test_a_configured_time_holds_for_a_tag_that_never_spoke():
    plant = Plant(silent="30s")
    plant.go(31, 0)
    assert plant.found("silent") == ("t1",)


def test_no_tag_is_blamed_for_a_cut_for_a_clock_that_was_set_or_for_what_nobody_watches():
    plant = Plant(4, silent="30s", skip=["t3"])
    plant.go(31, 0)
    plant.dog.look(plant.now, [1])
    assert plant.found("silent") == ("t2",), "t1 is refused, t3 is not watched"
    plant.dog.begin(plant.now)
    assert (plant.found("silent"), plant.gauge("silent")) == ((), 0)
    plant.now += HOUR
    plant.dog.look(plant.now)
    plant.go(1, 0)
    assert plant.found("silent") == ()
    plant.intake.retire(2)
    plant.go(35, 0)
    assert plant.found("silent") == ("t1",), "t2 is configured no longer"


def test_a_tag_that_is_added_is_watched_from_then_on():
    plant = Plant(1, silent="30s")
    plant.go(60, 0)
    plant.intake.admit([Tag("new", "plant", "i=9", id=9)], {})
    plant.go(20, 0)
    assert plant.found("silent") == ()
    plant.go(15, 0)
    assert plant.found("silent") == ("new",)


def test_values_that_are_old_when_they_arrive_are_late_but_a_laboratory_is_not():
    plant = Plant(late="1min")
    plant.go(8, 0)
    plant.go(8, 1, age=300 * SECOND)
    assert plant.found("late") == (), "soon over, as after a cut"
    plant.go(20, 1, age=300 * SECOND)
    assert plant.found("late") == ("t1",)
    plant.go(1, 1)
    assert plant.found("late") == ()
    plant.go(7200, 0, every=600, age=1200 * SECOND)
    assert plant.found("late") == (), "every ten minutes a value of twenty minutes ago"


def test_an_old_value_that_is_told_at_the_start_is_not_late():
    plant = Plant(late="1min")
    old = plant.now - HOUR
    for _ in range(60):
        plant.now += SECOND
        plant.intake.arrived(values([0], 1.0, old), plant.now)
        plant.dog.look(plant.now)
    assert plant.found("late") == ()


def test_a_number_that_never_changes_is_flat_only_where_that_is_asked_for():
    still = Plant(3, flat="1min")
    still.intake.arrived(values([2], np.nan, still.now), still.now)
    for _ in range(70):
        still.go(1, 2, value=lambda _: np.nan)
        still.go(1, 0, value=lambda _: 7.0)
        still.report(1, value=float(still.now % 1000))
        still.report(1, value=-1.0)
    assert still.found("flat") == ("t0",), "t1 changes, t2 has no number"
    still.go(1, 0, value=lambda _: 7.5)
    assert still.found("flat") == ()
    never = Plant()
    never.go(7200, 0, 1, value=lambda _: 7.0)
    assert never.found("flat") == ()


def test_one_line_tells_of_many_and_flapping_fills_no_log(caplog):
    caplog.set_level(logging.INFO)
    plant = Plant(12, silent="30s")
    plant.go(40)
    (line,) = caplog.messages
    assert line == "plant: 12 tag(s) have not reported for longer than expected: t0, t1, t2 and 9 more"
    for _ in range(10):
        plant.report(0)
        plant.go(2)
    assert len(caplog.messages) == 1
    plant.go(40, 0)
    assert caplog.messages[1:] == ["plant: 1 tag(s) report again: t0"]


@pytest.mark.parametrize(("count", "text"), [(1, "a"), (3, "a, a, a"), (5, "a, a, a and 2 more")])
def test_a_few_of_many(count, text):
    assert some(["a"] * count, 3) == text


def test_the_defaults_are_quiet():
    config = WatchdogConfig()
    assert (config.silent, config.late, config.flat) == ("auto", timedelta(minutes=10), "off")
