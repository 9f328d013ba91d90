"""PostgreSQL itself, as the tests start it."""

import pytest

from tests.postgres import Database, Postgres


def test_a_database_is_empty_and_takes_no_wrong_password(postgres: Database, postgres_server: Postgres) -> None:
    assert postgres.psql("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'") == [["0"]]
    with pytest.raises(RuntimeError, match="password authentication failed"):
        Database(postgres.port, postgres.folder, postgres.name, password="wrong").psql("SELECT 1")
    postgres_server.restart()
    assert postgres.psql("SELECT 1") == [["1"]]
