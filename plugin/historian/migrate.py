"""Schema revisions: from the folder :mod:`migrations`, without a settings file, so they travel with the package."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, NullPool, create_engine, event, inspect

from plugin.errors import StoreError, StoreRevisionError
from plugin.historian.sqlite import create_file, database_path, translated

_VERSION_TABLE = "alembic_version"


def migrate(url: str, revision: str = "head") -> None:
    """Bring a database, made here if it is missing, up or down to a revision: wholly, or not at all.

    Blocking; no other program may use the database meanwhile. ``"base"`` removes all tables and what they hold.
    """
    path = database_path(url)
    with translated(path):
        create_file(path)
        with _connected(path) as connection:
            _refuse_foreign(connection, path)
            config = _config()
            config.attributes["connection"] = connection
            try:
                if _is_behind(revision, current=_revision(connection), scripts=ScriptDirectory.from_config(config)):
                    command.downgrade(config, revision)
                else:
                    command.upgrade(config, revision)
            except CommandError as error:
                raise StoreRevisionError(f"{path}: {error}") from error


def check_revision(url: str) -> None:
    """StoreRevisionError where the database has another revision than this release; StoreError where it is not ours."""
    path = database_path(url)
    scripts = ScriptDirectory.from_config(_config())
    head = scripts.get_current_head()
    with translated(path):
        if not path.exists():
            raise StoreRevisionError(f"{path} does not exist: `foretag migrate` makes it")
        with _connected(path, "BEGIN") as connection:  # a look must not wait for who writes
            _refuse_foreign(connection, path)
            found = _revision(connection)
    if found == head:
        return
    if found is None or any(script.revision == found for script in scripts.walk_revisions()):
        raise StoreRevisionError(
            f"{path} has schema revision {found or 'none'}, this release needs {head}: "
            "stop foretag, copy the file, and run `foretag migrate`"
        )
    raise StoreRevisionError(
        f"{path} has schema revision {found}, which this release does not know ({head} is its newest): "
        "use the release that made it, with which `foretag migrate` can also go back"
    )


def prepare(url: str) -> None:
    """What a start does: a new or empty database is made by migrating, any other must have this release's revision."""
    path = database_path(url)
    with translated(path):
        fresh = not path.exists() or path.stat().st_size == 0
    if fresh:
        migrate(url)
    check_revision(url)


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


def _refuse_foreign(connection: Connection, path: Path) -> None:
    tables = set(inspect(connection).get_table_names())
    if tables and _VERSION_TABLE not in tables:
        raise StoreError(f"{path} holds tables of another program: name another file")


def _is_behind(revision: str, *, current: str | None, scripts: ScriptDirectory) -> bool:
    """Whether going to ``revision`` means going back."""
    if revision == "base" or revision.startswith("-"):
        return current is not None
    if current is None or revision in {"head", current}:
        return False
    return any(script.revision == revision for script in scripts.iterate_revisions(current, "base"))
