"""Databases for tests of what reports see: SQLite and PostgreSQL, with a little of everything in them."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from plugin.domain import (
    Alarm,
    Audit,
    Drift,
    DriftKind,
    Event,
    Explanation,
    Flag,
    Gap,
    GapCause,
    Label,
    LabelKind,
    LabSample,
    Meaning,
    Micros,
    ModelState,
    ModelVersion,
    Outcome,
    OutputTag,
    Prediction,
    Run,
    RunKind,
    RunResult,
    SampleBatch,
    Status,
    Tag,
    Verdict,
    to_micros,
)
from plugin.historian.postgres.store import PostgresStore
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery, Store
from tests.postgres import Database

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


class Reader(Protocol):
    """Somebody who asks in SQL."""

    dialect: str

    async def rows(self, sql: str) -> list[dict[str, Any]]:
        """What a statement gives."""


@dataclass
class SqliteReader:
    """By a connection of its own."""

    path: Path
    mode: str = "ro"
    dialect: str = "sqlite"

    async def rows(self, sql: str) -> list[dict[str, Any]]:
        database = sqlite3.connect(f"file:{self.path}?mode={self.mode}", uri=True, isolation_level=None)
        try:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(sql).fetchall()]
        finally:
            database.close()


@dataclass
class PostgresReader:
    """By a connection of its own."""

    database: Database
    settings: dict[str, str] = field(default_factory=dict)
    dialect: str = "postgresql"

    async def rows(self, sql: str) -> list[dict[str, Any]]:
        database = self.database
        whose = {"user": database.user, "password": database.password, "database": database.name}
        connection = await asyncpg.connect(host="127.0.0.1", port=database.port, **whose, server_settings=self.settings)
        try:
            return [dict(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()


@dataclass
class Plant:
    """A store that is open, its owner, and one who may only read."""

    store: SqliteStore | PostgresStore
    owner: Reader
    reader: Reader

    async def rows(self, sql: str) -> list[dict[str, Any]]:
        """What the reader is given."""
        return await self.reader.rows(sql)

    async def insert(self, table: str, **values: object) -> None:
        """What no method of a store writes by itself."""
        texts = ["NULL" if value is None else repr(value) for value in values.values()]
        await self.owner.rows(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(texts)})")

    async def roll_up(self, level: str, tag: int, start: datetime, **values: object) -> None:
        """One roll-up: a single Good sample of 1.0 at its begin, but for what ``values`` say."""
        time = to_micros(start)
        usual: Mapping[str, object] = {
            "tag_id": tag, "start_time": time, "samples": 1, "good": 1, "minimum": 1.0, "maximum": 1.0, "mean": 1.0,
            "numbers": 1, "first_time": time, "first_value": 1.0, "last_time": time, "last_value": 1.0,
            "last_status": 0, "weighted_mean": 1.0, "observed": 1, "good_time": 1,
        }  # fmt: skip
        await self.insert(f"rollup_{level}s", **{**usual, **values})

    async def book(self, name: str, value: Micros) -> None:
        """In ``bookkeeping``."""
        await self.owner.rows(f"DELETE FROM bookkeeping WHERE name = '{name}'")
        await self.insert("bookkeeping", name=name, value=value)


TAGS = (
    Tag("boiler.T", "plc1", "nsu=urn:plant;s=T", "boiler", "temperature", "degC", 0, 200),
    Tag("boiler.NOX", "plc1", "nsu=urn:plant;s=NOX", "boiler", "NOX_lab", "mg/m3"),
    Tag("pump.cycles", "plc1", "nsu=urn:plant;s=N", "pump", "cycle", ""),
    Tag("pump.state", "plc1", "nsu=urn:plant;s=S", "pump", "state", ""),
)
RUL = OutputTag("rul", "pump", "rul", "cycles", 0, 125, "Remaining useful life", Meaning.LIFETIME)
LIFE = OutputTag("life", "pump", "rul", "h", 0, 1000, "Remaining useful life", Meaning.LIFETIME)
NOX = OutputTag("nox", "boiler", "nox", "mg/m3", 0, 100, "Present nox")
AHEAD = OutputTag("ahead", "boiler", "temperature", "degC", 0, 200, "Temperature ahead")


def said(tag: OutputTag, run: Run, as_of: datetime, value: float | None, **changes: object) -> Prediction:
    """A Good prediction of the present, with bounds of 10 on both sides, that is valid for an hour."""
    low, high = (None, None) if value is None else (value - 10, value + 10)
    made = Prediction(tag, 1, as_of, as_of, as_of + HOUR, value, low, high, Status.GOOD, 0.75, run.id)
    return replace(made, **changes)  # type: ignore[arg-type]


def version(model: str, **roles: str) -> ModelVersion:
    return ModelVersion(model, 0, "kind", ModelState.CHAMPION, NOON, {"roles": roles}, {"rmse": 1.5}, {}, "a", "ab")


async def fill(plant: Plant) -> None:
    """One row at least for every view."""
    store = plant.store
    await store.register_tags(TAGS)
    noon = to_micros(NOON)
    gap = Gap("g1", "plc1", None, NOON, NOON + HOUR, GapCause.SERVER_DOWN, NOON + HOUR, detail="cable")
    times = [noon - 5_000_000, noon, noon + 1]
    batch = SampleBatch.of([1, 1, 3], times, [20.5, 21.5, 80.0], [0, 0x40920000, 0], times, times)
    await store.write([Delivery(batch, (gap,))])
    await _rolled_up(plant)
    await _models(store)
    await _people(store)


async def _rolled_up(plant: Plant) -> None:
    await plant.book("closed_until", to_micros(NOON))
    for hours in range(1, 49):
        begin = NOON - hours * HOUR
        await plant.roll_up("hour", 1, begin, mean=20.0 + hours, weighted_mean=20.0 + hours, observed=3_600_000_000,
                            good_time=1_800_000_000, samples=3600, good=1800)  # fmt: skip
    await plant.roll_up("day", 1, NOON.replace(hour=0) - 24 * HOUR)
    await plant.roll_up("hour", 1, NOON)
    for minutes, cycles in ((-61, 10.0), (-1, 40.0), (59, 90.0)):
        await plant.roll_up("minute", 3, NOON + minutes * MINUTE, last_value=cycles)
    await plant.roll_up("minute", 1, NOON + HOUR, mean=61.5)
    await plant.roll_up("minute", 2, NOON + 7 * MINUTE, last_value=33.0, last_time=to_micros(NOON + 7.5 * MINUTE))


async def _models(store: Store) -> None:
    for each in (version("rul", age="cycle"), version("life"), version("nox", lab="NOX_lab"), version("ahead")):
        await store.add_version(each)
    run = await store.write_run(Run(0, "nox", RunKind.SCORE, NOON, NOON, NOON + MINUTE, RunResult.DONE, 1, 1))
    predictions = [
        said(RUL, run, NOON, 60.0),
        said(LIFE, run, NOON - HOUR, 3.0),
        said(NOX, run, NOON, 30.0),
        said(NOX, run, NOON + 5 * MINUTE, 50.0, upper=None),
        said(NOX, run, NOON + 6 * MINUTE, None, status=Status.BAD_NO_DATA),
        *(said(AHEAD, run, NOON, 60.0 + n, target_time=NOON + n * HOUR) for n in range(1, 4)),
    ]
    flag = Flag("health", "pump", 1, NOON, True, 1.5, 1.0, Status.GOOD, run.id)
    told = Explanation(RUL, NOON, run.id, {"T": 0.75, "cycle": 0.25})
    await store.write_outcome(Outcome(run, tuple(predictions), (flag, replace(flag, as_of=NOON - HOUR)), (told,)))
    drift = Drift("d1", "nox", 1, DriftKind.INPUT, "boiler", "T", NOON, NOON + HOUR, None, 0.4, 0.2, "warmer")
    await store.write_drifts((drift,))


async def _people(store: Store) -> None:
    await store.write_lab_samples(
        [
            LabSample("L1", "boiler", "nox", NOON + 2 * MINUTE, NOON + HOUR, 45.0, "mg/m3", user="anna"),
            LabSample("L2", "boiler", "nox", NOON + 3 * MINUTE, NOON + HOUR, 45.0, "mg/m3", status=Status.BAD),
            LabSample("L3", "boiler", "nox", NOON + 9 * HOUR, NOON + 10 * HOUR, 45.0, "mg/m3"),
        ]
    )
    verdict = {"end": None, "verdict": Verdict.FALSE_ALARM, "model": "health", "as_of": NOON}
    failure = Label("1", LabelKind.FAILURE, "pump", NOON + HOUR, NOON + 2 * HOUR, note="bearing", user="ben")
    await store.write_labels(
        [failure, replace(failure, id="2", kind=LabelKind.VERDICT, start=NOON, **verdict)]  # type: ignore[arg-type]
    )
    await store.write_labels([replace(failure, reference="WO-4711")])
    alarm = Alarm("a1", "e1", "pump", "OffNormalAlarmType", "ProcessConditionClassType", 700, NOON, active=True)
    event = Event("e1", NOON, NOON, "foretag", "pump", "OffNormalAlarmType", 700, "vibration", "pump", "a1")
    await store.write_alarms([alarm], [event])
    await store.write_audit(Audit(NOON, "anna", "command", "reload", "tags", {}, {"added": ["boiler.T"]}))
