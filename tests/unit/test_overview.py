"""What the running service looks like, for a view and for the metrics."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

from plugin.diagnostics import Diagnostics
from plugin.domain import Asset, Outage, Outcome, OutputTag, Prediction, Run, RunKind, SampleBatch, Status, Tag
from plugin.historian.memory import MemoryStore
from plugin.hmi.overview import Overview
from plugin.protocols import Delivery, Health, HistoryProgress

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIFE = OutputTag("rul", "engine-01", "rul", "h", 0.0, 100.0, "")


class Plant:
    """A source as a test wants it."""

    name = "plant"

    def __init__(self) -> None:
        self.how = Health("running", connected=True, away_since=None, tags=4, monitored=4)

    def health(self) -> Health:
        return self.how

    def history_progress(self) -> HistoryProgress:
        return HistoryProgress(self.name, 4, 4, 10, finished=True)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        yield Delivery(SampleBatch.empty())


def overview(plant: Plant, diagnostics: Diagnostics, clock: Callable[[], datetime] = lambda: NOW) -> Overview:
    tag = Tag("engine-01.T24", "plant", "i=1", "engine-01", "T24", id=1)
    return Overview([plant], Asset.gather([tag]), (), diagnostics, clock)


def outcome(status: int, value: float | None = 50.0) -> Outcome:
    run = Run(1, "rul", RunKind.SCORE, NOW, NOW, NOW)
    until = NOW + timedelta(hours=1)
    return Outcome(run, (Prediction(LIFE, 1, NOW, NOW, until, value, 40.0, 60.0, status, 1.0, 1),), ())


async def test_results_of_a_source_that_is_away_are_shown_in_doubt_and_bad_ones_stay_bad():
    plant = Plant()
    view = overview(plant, Diagnostics())
    await view.publish(outcome(Status.GOOD))
    assert view.snapshot().assets[0].status == Status.GOOD
    await view.degrade(Outage(frozenset({"plant"}), 1, frozenset({LIFE.name})))
    (line,) = view.snapshot().assets
    assert line.rul
    assert (line.status, line.rul.status) == (Status.UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE,) * 2
    await view.publish(outcome(Status.BAD_NO_DATA, None))
    assert view.snapshot().assets[0].status == Status.BAD_NO_DATA
    await view.publish(outcome(Status.GOOD))
    await view.degrade(Outage(frozenset(), 1, frozenset()))
    assert view.snapshot().assets[0].status == Status.GOOD


async def test_a_result_that_nothing_renewed_is_shown_as_stale_and_a_bad_one_stays_bad():
    now = NOW + timedelta(hours=1)
    view = overview(Plant(), Diagnostics(), lambda: now)
    await view.publish(outcome(Status.GOOD))
    assert view.snapshot().assets[0].status == Status.GOOD
    now += timedelta(seconds=1)
    (line,) = view.snapshot().assets
    assert line.rul
    assert (line.status, line.rul.status) == (Status.UNCERTAIN_LAST_USABLE_VALUE,) * 2
    await view.publish(outcome(Status.BAD_NO_DATA, None))
    assert view.snapshot().assets[0].status == Status.BAD_NO_DATA


def test_a_source_is_shown_with_what_is_not_well():
    plant = Plant()
    view = overview(plant, Diagnostics())
    (line,) = view.snapshot().sources
    assert (line.connected, line.away, line.trouble, line.unwell) == (True, False, "", ())
    plant.how = Health("degraded", True, 5, "its ServiceLevel is 1", tags=4, monitored=3, silent=("a", "b"))
    (line,) = view.snapshot().sources
    assert (line.connected, line.away, line.unwell) == (True, True, (("refused", 1), ("silent", 2)))
    plant.how = Health("connecting", False, 5, "no answer", tags=4, monitored=0)
    (line,) = view.snapshot().sources
    assert (line.connected, line.unwell) == (False, ()), "of a source that is away no tag is to blame"


async def test_health_and_open_gaps_become_metrics():
    plant, diagnostics = Plant(), Diagnostics()
    plant.how = Health(
        "degraded", True, 5_000_000, "odd", heard=5_000_000, ahead=-2_000_000, service_level=9, tags=4, monitored=3,
        silent=("a", "b", "c", "d", "e"),
    )  # fmt: skip
    watching = asyncio.create_task(overview(plant, diagnostics).watch(MemoryStore()))
    while not diagnostics.value("source_heard_timestamp_seconds", source="plant"):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    expected = {
        "source_connected": 1, "source_away": 1, "source_heard_timestamp_seconds": 5, "source_clock_ahead_seconds": -2,
        "source_service_level": 9, "tags": 4, "tags_monitored": 3,
    }  # fmt: skip
    assert {name: diagnostics.value(name, source="plant") for name in expected} == expected
    facts = {
        "source": "plant", "state": "degraded", "trouble": "odd", "silent": "a, b, c and 2 more", "late": "",
        "flat": "",
    }  # fmt: skip
    assert diagnostics.registry.get_sample_value("foretag_source_info", facts) == 1
