"""What reports see, in SQLite and in PostgreSQL alike."""

import itertools
import re
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import numpy as np
import pytest

from plugin.domain import Alarm, Outcome, SampleBatch, Status, to_micros
from plugin.historian.migrate import check_revision, migrate
from plugin.historian.postgres import readers
from plugin.historian.postgres.readers import ROLE
from plugin.historian.postgres.store import PostgresStore
from plugin.historian.schema.view import Dialect
from plugin.historian.schema.views import views
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery
from tests.contracts.reports import (
    HOUR,
    LIFE,
    MINUTE,
    NOON,
    NOX,
    RUL,
    TAGS,
    Plant,
    PostgresReader,
    SqliteReader,
    fill,
    said,
)
from tests.postgres import Database, Postgres

DIALECTS: tuple[Dialect, ...] = ("sqlite", "postgresql")


@pytest.fixture(params=DIALECTS)
async def plant(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Plant]:
    if request.param == "sqlite":
        path = tmp_path / "historian.db"
        async with SqliteStore(f"sqlite+aiosqlite:///{path}") as store:
            yield Plant(store, SqliteReader(path, "rw"), SqliteReader(path))
        return
    database: Database = request.getfixturevalue("migrated_postgres")
    server: Postgres = request.getfixturevalue("postgres_server")
    reports = server.role(database, "reports", f"GRANT {ROLE} TO {{}}")
    async with PostgresStore(database.secret_url) as store:
        yield Plant(store, PostgresReader(database), PostgresReader(reports))


def iso(time: object) -> str:
    """Either database's readable time, alike."""
    if isinstance(time, datetime):
        return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return str(time)


async def test_every_view_has_the_columns_that_are_documented(plant: Plant) -> None:
    await fill(plant)
    for view in views("sqlite" if plant.reader.dialect == "sqlite" else "postgresql"):
        rows = await plant.rows(f"SELECT * FROM {view.name}")
        assert rows, f"{view.name} shows nothing"
        assert [*rows[0]] == [column.name for column in view.columns]


def test_both_databases_have_the_same_views() -> None:
    sqlite, postgresql = views("sqlite"), views("postgresql")
    assert [(v.name, v.says, [(c.name, c.says) for c in v.columns]) for v in sqlite] == [
        (v.name, v.says, [(c.name, c.says) for c in v.columns]) for v in postgresql
    ]


async def test_times_are_readable_to_the_microsecond_in_every_year(plant: Plant) -> None:
    stamps = [-11_644_473_600_000_000, -1, 0, 1_772_366_400_000_001, 253_402_300_799_999_999]
    await plant.store.register_tags([replace(TAGS[0], name=f"t{n}") for n in range(5)])
    await plant.store.write([Delivery(SampleBatch.of([1, 2, 3, 4, 5], stamps, 1.0, 0, stamps, stamps))])
    rows = await plant.rows("SELECT time, time_us FROM v_latest ORDER BY time_us")
    assert [row["time_us"] for row in rows] == stamps
    assert [iso(row["time"]) for row in rows] == [
        "1601-01-01T00:00:00.000000Z",
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:00:00.000000Z",
        "2026-03-01T12:00:00.000001Z",
        "9999-12-31T23:59:59.999999Z",
    ]


PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```sql\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


async def test_every_example_of_the_page_shows_something(plant: Plant) -> None:
    await fill(plant)
    assert len(EXAMPLES) > 10
    for example in EXAMPLES:
        assert await plant.rows(example), example


async def test_the_page_says_how_a_time_is_written_in_microseconds(plant: Plant) -> None:
    name = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[plant.reader.dialect]
    (line,) = re.findall(rf"\| {name} \| (.*) \|", PAGE.partition("## Connecting")[0])
    for expression in re.findall(r"`([^`]+)`", line):
        (row,) = await plant.rows(f"SELECT {expression} AS stamp")
        assert row["stamp"] == to_micros(datetime(2026, 3, 1, tzinfo=UTC)), expression


async def test_a_user_of_reports_is_made_as_the_page_says(migrated_postgres: Database) -> None:
    (block,) = re.findall(r"^```sql postgresql-administrator\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    statements = block.replace("reports", "page_reports").replace("…", migrated_postgres.password).split(";\n")
    migrated_postgres.psql(*filter(str.strip, statements))
    try:
        rows = await PostgresReader(replace(migrated_postgres, user="page_reports")).rows("SELECT count(*) FROM v_tags")
        assert rows == [{"count": 0}]
    finally:
        migrated_postgres.psql("DROP OWNED BY page_reports", "DROP ROLE page_reports")


# --- the plant ---


async def test_the_newest_sample_is_found_in_memory_of_the_newest_and_among_what_came_since(plant: Plant) -> None:
    await plant.store.register_tags(TAGS)
    noon = to_micros(NOON)
    words = np.array(["on", "off"], np.object_)
    text = replace(SampleBatch.of([4, 4], noon, np.nan, 0, noon, noon), text=words)
    times = [noon - 9, noon - 9, noon + 1, noon + 1, noon + 2]
    batch = SampleBatch.of([1, 2, 1, 1, 3], times, [1.0, 2.0, 3.0, 4.0, 5.0], [0, 0, 0, Status.BAD, 0x40920000], 7, 8)
    await plant.store.write([Delivery(batch), Delivery(text)])
    await plant.owner.rows("DELETE FROM latest_samples")
    for tag, value in ((1, 9.5), (2, 2.5)):
        newest = {"source_time": noon, "ordinal": 0, "value": value, "status": 0, "server_time": 7, "received_time": 8}
        await plant.insert("latest_samples", tag_id=tag, **newest)
    await plant.book("latest_since", noon)
    rows = await plant.rows("SELECT tag, time_us, value, text, status, quality FROM v_latest ORDER BY tag")
    assert [tuple(row.values()) for row in rows] == [
        ("boiler.NOX", noon, 2.5, None, 0, "Good"),
        ("boiler.T", noon + 1, 4.0, None, Status.BAD, "Bad"),
        ("pump.cycles", noon + 2, 5.0, None, 0x40920000, "Uncertain"),
        ("pump.state", noon, None, "off", 0, "Good"),
    ]


async def test_an_hour_is_shown_when_it_is_closed(plant: Plant) -> None:
    await fill(plant)
    rows = await plant.rows("SELECT * FROM v_tag_hourly WHERE tag = 'boiler.T' ORDER BY time_us DESC")
    assert len(rows) == 48, "the hour that began at noon is not closed"
    newest = rows[0]
    assert iso(newest["time"]) == "2026-03-01T11:00:00.000000Z"
    assert (newest["samples"], newest["good_samples"], newest["weighted_mean"]) == (3600, 1800, 21.0)
    assert (newest["observed_percent"], newest["good_percent"], newest["last_quality"]) == (100.0, 50.0, "Good")


async def test_gaps_say_how_long_they_lasted(plant: Plant) -> None:
    await fill(plant)
    (gap,) = await plant.rows("SELECT * FROM v_gaps")
    assert (gap["lasted_s"], gap["state"], gap["tag"], gap["cause"]) == (3600.0, "open", None, "server_down")
    assert iso(gap["end_time"]) == "2026-03-01T13:00:00.000000Z"


# --- models ---


async def test_a_forecast_says_how_far_it_looks_ahead(plant: Plant) -> None:
    await fill(plant)
    rows = await plant.rows("SELECT horizon_s, value FROM v_forecasts ORDER BY target_time_us")
    assert [tuple(row.values()) for row in rows] == [(3600.0, 61.0), (7200.0, 62.0), (10800.0, 63.0)]
    assert len(await plant.rows("SELECT * FROM v_predictions")) == 8


async def accuracy(plant: Plant, what: str) -> list[tuple[object, ...]]:
    found = await plant.rows(
        f"SELECT model, as_of_us, actual_time_us, value, actual, error, inside FROM v_prediction_accuracy "
        f"WHERE truth = '{what}' ORDER BY model, as_of_us, actual_time_us"
    )
    return [tuple(row.values()) for row in found]


def stamps(*times: datetime) -> tuple[int, ...]:
    return tuple(map(to_micros, times))


async def test_the_laboratory_is_compared_with_what_was_said_of_the_moment_of_the_specimen(plant: Plant) -> None:
    await fill(plant)
    assert await accuracy(plant, "laboratory") == [
        ("nox", *stamps(NOON, NOON + 2 * MINUTE), 30.0, 45.0, -15.0, 0),
    ], "L2 is Bad, L3 later than any prediction is valid; of 12:07:30 the model said that it has no number"
    run = (await plant.store.runs("nox"))[0]
    again = said(NOX, run, NOON + 7 * MINUTE, 40.0, upper=None)
    await plant.store.write_outcome(Outcome(run, (again,), ()))
    assert (await accuracy(plant, "laboratory"))[1:] == [
        ("nox", *stamps(NOON + 7 * MINUTE, NOON + 7.5 * MINUTE), 40.0, 33.0, 7.0, 1),
    ], "the laboratory's own tag is truth too; an upper bound that is not there is open"


async def test_a_forecast_of_a_measured_feature_is_compared_with_its_minute(plant: Plant) -> None:
    await fill(plant)
    assert await accuracy(plant, "measured") == [("ahead", *stamps(NOON, NOON + HOUR), 61.0, 61.5, -0.5, 1)]
    await plant.roll_up("minute", 1, NOON + 2 * HOUR, samples=2)
    assert len(await accuracy(plant, "measured")) == 1, "a minute that was not Good throughout proves nothing"


async def test_a_remaining_life_is_compared_with_the_failure_that_came(plant: Plant) -> None:
    await fill(plant)
    assert await accuracy(plant, "failure") == [
        ("life", *stamps(NOON - HOUR, NOON + HOUR), 3.0, 2.0, 1.0, 1),
        ("rul", *stamps(NOON, NOON + HOUR), 60.0, 50.0, 10.0, 1),
    ], "in hours by the clock; in cycles by the counter that the model names as its age: 90 - 40"
    run = (await plant.store.runs("nox"))[0]
    late = said(RUL, run, NOON + 2 * HOUR, 9.0)
    far = said(LIFE, run, NOON - 50 * 24 * HOUR, 1000.0)
    await plant.store.write_outcome(Outcome(run, (late, far), ()))
    found = await accuracy(plant, "failure")
    assert len(found) == 3, "what was said after the last failure has not come true yet"
    assert found[0][3:6] == (1000.0, 1201.0, 0.0), "the output can't say more than 1000"


async def test_flags_have_the_operators_verdict(plant: Plant) -> None:
    await fill(plant)
    rows = await plant.rows("SELECT verdict, raised FROM v_flags ORDER BY as_of_us")
    assert [(row["verdict"], bool(row["raised"])) for row in rows] == [(None, True), ("false_alarm", True)]


async def test_an_alarm_shows_the_state_that_the_noun_has(plant: Plant) -> None:
    made = [
        Alarm(
            f"{n}", f"{n}", "pump", "T", "C", 1, NOON, enabled=enabled, active=active, acknowledged=acknowledged,
            suppressed=suppressed, shelved_until=NOON if shelved else None,
        )
        for n, (enabled, active, acknowledged, suppressed, shelved) in enumerate(
            itertools.product((False, True), repeat=5)
        )
    ]  # fmt: skip
    await plant.store.write_alarms(made)
    rows = await plant.rows("SELECT id, state FROM v_alarms")
    assert {row["id"]: row["state"] for row in rows} == {alarm.id: alarm.state for alarm in made}


async def test_the_audit_log_shows_corrections(plant: Plant) -> None:
    await fill(plant)
    rows = await plant.rows("SELECT action, subject, user_name FROM v_audit WHERE action IN ('correct', 'reload')")
    assert sorted(tuple(row.values()) for row in rows) == [("correct", "label 1", "ben"), ("reload", "tags", "anna")]


# --- what may be done ---


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET user_name = 'nobody'",
        "DELETE FROM audit_log",
        "DELETE FROM audit_log WHERE id = 1",
    ],
)
async def test_the_database_itself_keeps_the_audit_log(plant: Plant, statement: str) -> None:
    await fill(plant)
    before = await plant.rows("SELECT * FROM v_audit")
    with pytest.raises((sqlite3.IntegrityError, asyncpg.InsufficientPrivilegeError), match="only ever added to"):
        await plant.owner.rows(statement)
    assert await plant.rows("SELECT * FROM v_audit") == before


async def test_an_entry_is_not_replaced_by_its_key(tmp_path: Path) -> None:
    path = tmp_path / "historian.db"
    async with SqliteStore(f"sqlite+aiosqlite:///{path}") as store:
        await fill(Plant(store, SqliteReader(path, "rw"), SqliteReader(path)))
        with pytest.raises(sqlite3.IntegrityError, match="only ever added to"):
            await SqliteReader(path, "rw").rows(
                "INSERT OR REPLACE INTO audit_log SELECT id, time, 'nobody', origin, action, subject, before, after "
                "FROM audit_log WHERE id = 1"
            )


async def test_a_reader_sees_what_is_written_meanwhile_and_can_write_nothing(plant: Plant) -> None:
    await fill(plant)
    assert len(await plant.rows("SELECT * FROM v_lab_samples")) == 3
    refused = (sqlite3.OperationalError, asyncpg.InsufficientPrivilegeError)
    for statement in (
        "INSERT INTO assets (name) VALUES ('mine')",
        "UPDATE predictions SET value = 0",
        "DELETE FROM samples",
        "DROP VIEW v_tags",
        "CREATE TABLE mine (x INTEGER)",
    ):
        with pytest.raises(refused):
            await plant.rows(statement)
    assert len(await plant.rows("SELECT * FROM v_predictions")) == 8


async def test_a_reader_of_postgresql_sees_the_views_alone(
    migrated_postgres: Database, postgres_server: Postgres
) -> None:
    reports = PostgresReader(postgres_server.role(migrated_postgres, "reports", f"GRANT {ROLE} TO {{}}"))
    for view in views("postgresql"):
        await reports.rows(f"SELECT * FROM {view.name}")
    tables = await PostgresReader(migrated_postgres).rows(
        "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    )
    assert len(tables) > 30
    for table in tables:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reports.rows(f"SELECT * FROM {table['tablename']}")


def test_an_administrator_makes_the_role_where_the_service_may_not(
    postgres: Database, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "ROLE", "other_reader")  # the usual one is there: roles belong to the whole server
    plain = postgres_server.role(postgres, "plain", "GRANT CREATE ON SCHEMA public TO {}")
    assert migrate(plain.secret_url) == ("CREATE ROLE other_reader NOLOGIN",)
    check_revision(plain.secret_url)
    postgres.psql("CREATE ROLE other_reader NOLOGIN")
    try:
        assert migrate(plain.secret_url) == ()
        assert postgres.psql("SET ROLE other_reader", "SELECT count(*) FROM v_tags")[-1] == ["0"]
    finally:
        postgres.psql("DROP OWNED BY other_reader", "DROP ROLE other_reader")


# --- at what price ---


async def plan(plant: Plant, sql: str) -> str:
    if isinstance(plant.owner, PostgresReader):
        indices = PostgresReader(plant.owner.database, {"enable_seqscan": "off"})  # so few rows are read faster whole
        return "\n".join(row["QUERY PLAN"] for row in await indices.rows(f"EXPLAIN {sql}"))
    return "\n".join(row["detail"] for row in await plant.rows(f"EXPLAIN QUERY PLAN {sql}"))


RECENT = f"BETWEEN {to_micros(NOON)} AND {to_micros(NOON + HOUR)}"


@pytest.mark.parametrize(
    ("sql", "column"),
    [
        (f"SELECT * FROM v_predictions WHERE as_of_us {RECENT}", "as_of"),
        (f"SELECT * FROM v_forecasts WHERE as_of_us {RECENT}", "as_of"),
        (f"SELECT * FROM v_prediction_accuracy WHERE as_of_us {RECENT}", "as_of"),
        (f"SELECT * FROM v_flags WHERE as_of_us {RECENT}", "as_of"),
        (f"SELECT * FROM v_explanations WHERE as_of_us {RECENT}", "as_of"),
        (f"SELECT * FROM v_tag_hourly WHERE tag = 'boiler.T' AND time_us {RECENT}", "start_time"),
        (f"SELECT * FROM v_events WHERE time_us {RECENT}", "time"),
        (f"SELECT * FROM v_audit WHERE time_us {RECENT}", "time"),
        (f"SELECT * FROM v_labels WHERE asset = 'pump' AND start_time_us {RECENT}", "start_time"),
        (f"SELECT * FROM v_lab_samples WHERE asset = 'boiler' AND taken_us {RECENT}", "taken"),
    ],
)
async def test_a_stretch_of_time_is_found_by_an_index(plant: Plant, sql: str, column: str) -> None:
    told = {
        "sqlite": rf"USING (PRIMARY KEY|INDEX \w+) \(.*{column}>\?",
        "postgresql": rf'Index Cond: .*\b{column}"? >=',
    }
    assert re.search(told[plant.reader.dialect], await plan(plant, sql))


async def test_the_age_of_a_machine_is_found_by_one_step_into_its_minutes(plant: Plant) -> None:
    steps = await plan(plant, "SELECT actual FROM v_prediction_accuracy WHERE truth = 'failure'")
    seek = r"r USING PRIMARY KEY \(tag_id=\? AND start_time<\?\)"
    condition = r"rollup_minutes r\S* .*\n\s*Index Cond: \(\(tag_id = t\S*\.id\) AND \(start_time < "
    assert re.search(seek if plant.reader.dialect == "sqlite" else condition, steps)
