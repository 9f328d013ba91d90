"""Schema revisions: from the folder :mod:`migrations`, without a settings file, so they travel with the package."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, NullPool, create_engine, event, inspect, make_url, select, text

from plugin.errors import StoreError, StoreRevisionError
from plugin.historian.postgres import readers
from plugin.historian.postgres.connections import Place, PostgresServer
from plugin.historian.schema import bookkeeping
from plugin.historian.sqlite.connections import create_file, database_path, translated

T = TypeVar("T")

_VERSION_TABLE = "alembic_version"
_LOCK = 0x666F726574616700
"""Advisory lock of PostgreSQL that whoever migrates holds: the letters of our name."""


def migrate(url: str, revision: str = "head") -> tuple[str, ...]:
    """Bring a database up or down to a revision: wholly, or not at all. A SQLite file is made here if it is missing.

    Gives the statements that an administrator has to run so that reports can read, see
    :mod:`plugin.historian.postgres.readers`.
    Blocking, and not to be called in an event loop; no other program may use the database meanwhile, but two that
    migrate at once do it one after the other. ``"base"`` removes all tables and what they hold.
    """
    if _on_postgres(url):
        place = Place.of(url)
        return asyncio.run(_in_transaction(place, partial(_migrate, name=str(place), revision=revision)))
    path = database_path(url)
    with translated(path):
        create_file(path)
        with _connected(path) as connection:
            return _migrate(connection, str(path), revision)


def check_revision(url: str) -> None:
    """StoreRevisionError where the database has another revision than this release; StoreError where it is not ours."""
    if _on_postgres(url):
        place = Place.of(url)
        asyncio.run(_in_transaction(place, partial(_check, name=str(place))))
        return
    path = database_path(url)
    with translated(path):
        if not path.exists():
            raise StoreRevisionError(f"{path} does not exist: `foretag migrate` makes it")
        with _connected(path, "BEGIN") as connection:  # a look must not wait for who writes
            _check(connection, str(path))


def prepare(url: str) -> None:
    """What a start does: a new or empty database is made by migrating, any other must have this release's revision."""
    if _on_postgres(url):
        place = Place.of(url)
        asyncio.run(_in_transaction(place, partial(_prepare, name=str(place))))
        return
    path = database_path(url)
    with translated(path):
        fresh = not path.exists() or path.stat().st_size == 0
    if fresh:
        migrate(url)
    check_revision(url)


def _on_postgres(url: str) -> bool:
    return make_url(url).get_backend_name() == "postgresql"


def _migrate(connection: Connection, name: str, revision: str) -> tuple[str, ...]:
    if connection.dialect.name == "postgresql":
        # Locked for the transaction; a second one waits here, and finds the work done. No statement is too long for it.
        connection.execute(text("SET LOCAL lock_timeout = '1min'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        connection.execute(text("SET LOCAL statement_timeout = 0"))
    _refuse_foreign(connection, name)
    config = _config()
    config.attributes["connection"] = connection
    try:
        if _is_behind(revision, current=_revision(connection), scripts=ScriptDirectory.from_config(config)):
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)
    except CommandError as error:
        raise StoreRevisionError(f"{name}: {error}") from error
    newest = _revision(connection) == ScriptDirectory.from_config(config).get_current_head()
    return readers.admit(connection) if newest and connection.dialect.name == "postgresql" else ()


def _check(connection: Connection, name: str) -> None:
    scripts = ScriptDirectory.from_config(_config())
    head = scripts.get_current_head()
    _refuse_foreign(connection, name)
    found = _revision(connection)
    if found == head or _works_with(connection, found, head):
        return
    if found is None or any(script.revision == found for script in scripts.walk_revisions()):
        raise StoreRevisionError(
            f"{name} has schema revision {found or 'none'}, this release needs {head}: "
            "stop foretag, make a copy of the database, and run `foretag migrate`"
        )
    raise StoreRevisionError(
        f"{name} has schema revision {found}, which this release does not know ({head} is its newest): "
        "use the release that made it, with which `foretag migrate` can also go back"
    )


def _works_with(connection: Connection, found: str | None, head: str | None) -> bool:
    """Whether a later step, which only added something, has left word that this release may go on.

    ``works_from`` is the oldest revision whose release finds, and leaves, all as it should: a step that moves or
    forbids something raises it.
    """
    if not (found and head and found.isdigit() and int(found) > int(head)):
        return False
    query = select(bookkeeping.c.value).where(bookkeeping.c.name == "works_from")
    oldest = connection.execute(query).scalar_one_or_none()
    return oldest is not None and oldest <= int(head)


async def _in_transaction(place: Place, work: Callable[[Connection], T]) -> T:
    """What ``work`` gives, in a transaction of a connection of its own; PostgreSQL takes back DDL too."""
    server = PostgresServer(place, patient=True)
    server.open()
    try:
        async with server.writing() as connection:
            return await connection.run_sync(work)
    finally:
        await server.close()


def _prepare(connection: Connection, name: str) -> None:
    if not inspect(connection).get_table_names():
        _migrate(connection, name, "head")
    _check(connection, name)


@contextmanager
def _connected(path: Path, begin: str = "BEGIN IMMEDIATE") -> Iterator[Connection]:
    """A plain connection with one transaction round everything: SQLite can take back DDL, if one says BEGIN first."""
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None), poolclass=NullPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "migrations:")
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_foreign(connection: Connection, name: str) -> None:
    tables = set(inspect(connection).get_table_names())
    if tables and _VERSION_TABLE not in tables:
        raise StoreError(f"{name} holds tables of another program: name another database")


def _is_behind(revision: str, *, current: str | None, scripts: ScriptDirectory) -> bool:
    """Whether going to ``revision`` means going back."""
    if revision == "base" or revision.startswith("-"):
        return current is not None
    if current is None or revision in {"head", current}:
        return False
    return any(script.revision == revision for script in scripts.iterate_revisions(current, "base"))
