"""The oldest PostgreSQL that we promise and the newest there is: what the machine's own one does, these do too."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from inspect import signature
from pathlib import Path
from types import ModuleType

import pytest

from plugin.historian.migrate import migrate
from plugin.historian.postgres.store import PostgresStore
from plugin.historian.recent.ring import Ring
from plugin.historian.schema.views import views
from plugin.protocols import Store
from tests.contracts import test_store, test_store_archive, test_store_files, test_store_people
from tests.integration import (
    test_historian_postgres,
    test_historian_retention,
    test_postgres_closing,
    test_postgres_migrations,
)
from tests.postgres import Database, NoPostgres, Postgres, of_version, started, with_tables

Clause = Callable[[Store], Awaitable[None]]


@pytest.fixture(scope="module", params=[13, 18])
def postgres_server(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """Of that version. Skips where it can't be had, but never on the build server."""
    try:
        programs = of_version(request.param)
    except NoPostgres as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    for server in started(programs):
        assert server.version == request.param
        yield server


@pytest.fixture(scope="module")
def _postgres_template(postgres_server: Postgres) -> Database:
    database = with_tables(postgres_server)
    database.psql("CREATE SCHEMA apart", "CREATE TABLE apart.bookkeeping AS TABLE bookkeeping")
    return database


# A tenth of what a new database costs, of which there would be 150.
EMPTY = """
SET session_replication_role = replica; -- else the audit log is guarded
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT tablename FROM pg_tables
    WHERE schemaname = 'public' AND tablename NOT IN ('alembic_version', 'places', 'powers')
  LOOP EXECUTE format('DELETE FROM %I', name); END LOOP;
  FOR name IN SELECT sequencename FROM pg_sequences LOOP PERFORM setval(name, 1, false); END LOOP;
  INSERT INTO bookkeeping SELECT * FROM apart.bookkeeping;
END $$
"""


@pytest.fixture
def migrated_postgres(_postgres_template: Database) -> Database:
    """One database with all tables, emptied."""
    _postgres_template.psql(EMPTY)
    return _postgres_template


@pytest.fixture
async def store(migrated_postgres: Database) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(migrated_postgres.secret_url, ring=None) as store:
        yield store


@pytest.fixture
async def closing_store(migrated_postgres: Database) -> AsyncIterator[PostgresStore]:
    async with test_store_archive.ClosingPostgres(migrated_postgres.secret_url, ring=None) as store:
        await store.register_tags(test_store_archive.TAGS)
        yield store


def clauses(*modules: ModuleType) -> list[Clause]:
    """Tests that ask for a store alone."""
    found = [each for module in modules for name, each in vars(module).items() if name.startswith("test_")]
    return [each for each in found if list(signature(each).parameters) == ["store"]]


def name_of(clause: Clause) -> str:
    return clause.__name__.removeprefix("test_")


CONTRACT = clauses(test_store, test_store_files, test_store_people)
ARCHIVE = clauses(test_store_archive)


@pytest.mark.parametrize("clause", CONTRACT, ids=name_of)
async def test_it_does_what_every_store_must(store: PostgresStore, clause: Clause) -> None:
    await clause(store)


@pytest.mark.parametrize("clause", ARCHIVE, ids=name_of)
async def test_closed_it_does_what_every_store_must(closing_store: PostgresStore, clause: Clause) -> None:
    await clause(closing_store)


async def test_it_makes_of_the_same_samples_what_sqlite_makes(
    migrated_postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with PostgresStore(migrated_postgres.secret_url, ring=Ring()) as store:
        await store.register_tags(test_postgres_closing.TAGS)
        await test_postgres_closing.test_it_makes_of_the_same_samples_what_sqlite_makes(
            store, tmp_path, monkeypatch, seed=2, at_once=500
        )
        for view in views("postgresql"):
            migrated_postgres.psql(f"SELECT * FROM {view.name} LIMIT 10")  # noqa: S608  its name
        assert migrated_postgres.psql("SELECT count(*) FROM v_samples") == [[str((await store.counts())["samples"])]]


async def test_partitions_come_and_go(store: PostgresStore, migrated_postgres: Database) -> None:
    await store.register_tags(test_historian_postgres.TAGS)
    await test_historian_postgres.test_partitions_that_are_past_and_empty_go_and_late_samples_find_another_place(
        store, migrated_postgres
    )


async def test_retention_drops(migrated_postgres: Database) -> None:
    await test_historian_retention.test_the_same_on_postgresql(migrated_postgres)


async def test_migrations_make_the_schema_of_the_models_and_rows_outlive_them(postgres: Database) -> None:
    await asyncio.to_thread(test_postgres_migrations.test_rows_outlive_the_way_up_and_down, postgres)
    await asyncio.to_thread(migrate, postgres.secret_url)
    await test_postgres_migrations.test_a_new_database_has_the_schema_of_the_models(postgres)
