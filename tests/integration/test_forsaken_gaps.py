"""Open gaps of sources that are in the configuration no longer."""

import logging
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from plugin.domain import Gap, GapCause, GapState, SampleBatch
from plugin.historian.postgres.store import PostgresStore
from plugin.historian.sqlite.store import SqliteStore
from plugin.opening import give_up_forsaken
from plugin.protocols import Delivery
from tests.postgres import Database

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
GAPS = (
    Gap("ours", "plant", None, NOON, None, GapCause.SERVER_DOWN, NOON),
    Gap("lasts", "mill", "T1", NOON, None, GapCause.BAD_ITEM, NOON, detail="BadNodeIdUnknown"),
    Gap("ended", "mill", None, NOON, NOON + timedelta(hours=1), GapCause.SEQUENCE, NOON),
    Gap("filled", "mill", None, NOON, NOON, GapCause.SEQUENCE, NOON, GapState.FILLED, 7),
)


async def test_they_are_given_up_and_no_others(tmp_path: Path) -> None:
    async with SqliteStore(f"sqlite+aiosqlite:///{tmp_path / 'historian.db'}") as store:
        await store.write([Delivery(SampleBatch.empty(), GAPS)])
        begun = datetime.now(UTC)
        await give_up_forsaken(store, ["plant", "new"])
        found = {gap.id: gap for gap in await store.gaps()}
        assert (found["ours"], found["filled"]) == (GAPS[0], GAPS[3])
        assert found["lasts"].state is found["ended"].state is GapState.UNFILLABLE
        assert found["lasts"].detail == "BadNodeIdUnknown; the source was removed from the configuration"
        end = found["lasts"].end
        assert end is not None
        assert begun <= end <= datetime.now(UTC)
        assert found["ended"].end == GAPS[2].end
        await give_up_forsaken(store, [])
        assert await store.open_gaps() == 0


async def test_a_database_that_takes_nothing_holds_up_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "historian.db"
    async with SqliteStore(f"sqlite+aiosqlite:///{path}", busy_timeout=timedelta(0)) as store:
        await store.write([Delivery(SampleBatch.empty(), GAPS)])
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with caplog.at_level(logging.WARNING):
                await give_up_forsaken(store, ["plant"])
        assert "2 gap(s) of mill, configured no longer, stay open until the next start" in caplog.text
        assert await store.open_gaps() == 3


async def test_those_of_another_shard_are_left_to_it(migrated_postgres: Database) -> None:
    async with PostgresStore(migrated_postgres.secret_url) as store:
        await store.write([Delivery(SampleBatch.empty(), GAPS)])
        migrated_postgres.psql("INSERT INTO claims VALUES ('source', 'mill', 'east')")
        await give_up_forsaken(store, ["plant"])
        assert await store.open_gaps() == 3
        migrated_postgres.psql("DELETE FROM claims", "INSERT INTO claims VALUES ('model', 'mill', 'east')")
        await give_up_forsaken(store, ["plant"])
        assert await store.open_gaps() == 1
