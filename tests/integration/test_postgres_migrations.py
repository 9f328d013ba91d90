"""The same revisions on PostgreSQL: up and down, two at once, cut off half-way."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from plugin.errors import StoreError, StoreRevisionError
from plugin.historian import schema
from plugin.historian.migrate import check_revision, migrate, prepare
from plugin.historian.postgres.connections import Place, PostgresServer
from plugin.historian.schema.plant import clocks
from tests.integration.test_historian_migrations import revisions
from tests.postgres import Database, dump


async def changes_to_the_models(database: Database) -> list[Any]:
    def compared(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"include_object": is_modelled})
        found: list[Any] = compare_metadata(context, schema.metadata)
        return found

    server = PostgresServer(Place.of(database.secret_url))
    server.open()
    try:
        async with server.writing() as connection:
            return await connection.run_sync(compared)
    finally:
        await server.close()


def is_modelled(_object: Any, name: str | None, _kind: str, *_rest: Any) -> bool:
    return not str(name).startswith("samples_default")


async def test_a_new_database_has_the_schema_of_the_models(migrated_postgres: Database) -> None:
    assert await changes_to_the_models(migrated_postgres) == []
    assert migrated_postgres.psql("SELECT partstrat FROM pg_partitioned_table") == [["r"]]


def test_every_step_goes_down_and_up_again(postgres: Database) -> None:
    for revision in revisions():
        migrate(postgres.secret_url, revision)
        above = dump(postgres)
        migrate(postgres.secret_url, "-1" if revision != revisions()[0] else "base")
        assert dump(postgres) != above
        migrate(postgres.secret_url, revision)
        assert dump(postgres) == above
    check_revision(postgres.secret_url)
    migrate(postgres.secret_url, "base")
    assert postgres.psql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [["alembic_version"]]


def test_rows_outlive_the_way_up_and_down(postgres: Database) -> None:
    migrate(postgres.secret_url, "0001")
    postgres.psql(
        "INSERT INTO tags (name, source, node, feature, unit, deadband) VALUES ('t', 'plant', 'i=1', 'f', 'K', 0.5)",
        "INSERT INTO samples VALUES (10, 1, 0, 2.5, 0, 11, 12), (-5, 1, 0, NULL, 4294967295, 11, 12)",
        "INSERT INTO gaps VALUES ('g', 'plant', NULL, 10, 20, 'sequence', 25, 'filled', 3, 'cable')",
    )
    asked = (
        "SELECT name, node, deadband FROM tags",
        "SELECT id, detected FROM gaps",
        "SELECT * FROM samples ORDER BY 1",
    )
    before = [postgres.psql(query) for query in asked]
    migrate(postgres.secret_url)
    stamps = f"SELECT source_time, tag_id, ordinal, value, status, {clocks('samples')} FROM samples ORDER BY 1"  # noqa: S608
    assert [postgres.psql(query) for query in (*asked[:2], stamps)] == before
    assert postgres.psql("SELECT known_from FROM gaps") == [["25"]]
    assert postgres.psql("SELECT value FROM bookkeeping WHERE name = 'samples'") == [["2"]]
    assert postgres.psql("SELECT source_time FROM latest_samples") == [["10"]]
    migrate(postgres.secret_url, "0001")
    assert [postgres.psql(query) for query in asked] == before


def test_a_step_that_is_cut_off_leaves_nothing_and_the_next_start_goes_on(postgres: Database) -> None:
    migrate(postgres.secret_url, "0003")
    before = dump(postgres)
    postgres.psql("INSERT INTO tags (name, source, node, feature, unit, deadband) VALUES ('t', 'p', 'i=1', '', '', 0)")
    with ThreadPoolExecutor(1) as threads, postgres.holding("LOCK TABLE tags IN ACCESS SHARE MODE"):
        migrating = threads.submit(migrate, postgres.secret_url)
        killed: list[list[str]] = []
        while not killed:
            time.sleep(0.05)
            killed = postgres.psql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'foretag' AND wait_event_type = 'Lock'"
            )
        with pytest.raises(StoreError, match=r"terminating|closed"):
            migrating.result()
    assert dump(postgres) == before
    with pytest.raises(StoreRevisionError, match="foretag migrate"):
        check_revision(postgres.secret_url)
    migrate(postgres.secret_url)
    check_revision(postgres.secret_url)
    assert postgres.psql("SELECT name FROM tags") == [["t"]]


def test_two_that_start_at_once_on_an_empty_database_make_it_once(postgres: Database) -> None:
    with ThreadPoolExecutor(3) as threads:
        for each in [threads.submit(prepare, postgres.secret_url) for _ in range(3)]:
            each.result()
    assert postgres.psql("SELECT count(*) FROM places") == [["512"]]


def test_a_newer_database_is_refused_unless_things_were_only_added(migrated_postgres: Database) -> None:
    migrated_postgres.psql("UPDATE alembic_version SET version_num = '0099'")
    check_revision(migrated_postgres.secret_url)
    migrated_postgres.psql("UPDATE bookkeeping SET value = 5 WHERE name = 'works_from'")
    for refuse in (check_revision, prepare, migrate):
        with pytest.raises(StoreRevisionError, match="0099"):
            refuse(migrated_postgres.secret_url)


def test_the_database_of_another_program_is_refused_and_left_alone(postgres: Database) -> None:
    postgres.psql("CREATE TABLE cookies (name TEXT)")
    for refuse in (check_revision, prepare, migrate):
        with pytest.raises(StoreError, match="another program"):
            refuse(postgres.secret_url)
    assert postgres.psql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [["cookies"]]
