"""What all tests of a worker share: one compile cache, so that a program is compiled once and not in every test; and a
PostgreSQL, started when the first test asks for it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.alone import alone
from tests.postgres import Database, NoPostgres, Postgres, installed, started, with_tables

# JAX does not write an entry in one go: a worker that read another's could find half of it.
_CACHE = Path(__file__).parents[1] / ".pytest_cache" / "compiled" / os.environ.get("PYTEST_XDIST_WORKER", "")
for size in ("COLUMNS", "LINES"):  # a worker is given them, and a console keeps what it finds when it is made
    os.environ.pop(size, None)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """Running. Skips where there is none and none can be installed, but never on the build server."""
    try:
        with alone("postgresql"):
            installed()
    except NoPostgres as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    yield from started()


@pytest.fixture(scope="session")
def _postgres_template(postgres_server: Postgres) -> Database:
    return with_tables(postgres_server)


@pytest.fixture
def migrated_postgres(postgres_server: Postgres, _postgres_template: Database) -> Iterator[Database]:
    """A database with all tables, and nothing in them."""
    database = postgres_server.fresh(_postgres_template.name)
    yield database
    postgres_server.drop(database)


@pytest.fixture
def postgres(postgres_server: Postgres) -> Iterator[Database]:
    """An empty database."""
    database = postgres_server.fresh()
    yield database
    postgres_server.drop(database)
