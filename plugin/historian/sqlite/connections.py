"""SQLite as the historian uses it: files, connections, the database's own thread, and errors in our words."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import aiosqlite
from sqlalchemy import event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from plugin.diagnostics import Diagnostics
from plugin.errors import StoreDamaged, StoreError, StoreUnavailable
from plugin.historian.database import Room
from plugin.historian.sqlite.checkpoints import Checkpointer

P = ParamSpec("P")
T = TypeVar("T")

_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
"""Primary result codes that may pass: another program lets go, somebody frees or remounts the disk."""

_WAL_LIMIT = 64 * 2**20
"""Bytes that the write-ahead log is cut back to after a burst."""

_LAST_RESORT = 65_536
"""Pages in the log from which on a commit itself takes them over: nobody else could."""

_CACHE = 32 * 1024
"""Of the connection that writes [KiB]: closing touches a page of each tag."""
_READERS = 4


def database_path(url: str) -> Path:
    """The database file of a URL; StoreError where it names no file."""
    database = make_url(url).database
    if not database or database.startswith(("file:", ":memory:")):
        raise StoreError("The database URL names no file; write sqlite+aiosqlite:///historian.db")
    return Path(database)


def create_file(path: Path) -> None:
    """Make an empty database file that its owner alone can read (SQLite gives its side files the same mode).

    Folders that are missing are made 0700; what exists keeps its mode.
    """
    for folder in reversed([path.parent, *path.parent.parents]):
        folder.mkdir(mode=0o700, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's and SQLAlchemy's errors as StoreUnavailable (may pass), StoreDamaged or StoreError, without rows."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable(f"{path}: every connection is in use") from error
    except DBAPIError as error:
        raise _translation(path, error.orig or error) from error
    except (sqlite3.Error, SQLAlchemyError, OSError, UnicodeEncodeError, OverflowError) as error:
        raise _translation(path, error) from error  # the last two: text or a number that SQLite can't hold


def _translation(path: Path, error: BaseException) -> StoreError:
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_NOTADB:
        return StoreError(f"{path} is no SQLite database: name another file, or move this one away")
    if code is not None and code & 0xFF == sqlite3.SQLITE_CORRUPT:
        return StoreDamaged.told(path, str(error))
    if isinstance(error, OSError) or (code is not None and code & 0xFF in _PASSING):
        return StoreUnavailable(f"{path}: {error}")
    return StoreError(f"{path}: {error}")


class SqliteFile:
    """A database file, its one connection that writes and those that can't; open between ``open`` and ``close``."""

    def __init__(
        self,
        url: str,
        *,
        synchronous: str,
        busy_timeout: timedelta,
        pragmas: Mapping[str, str | int],
        diagnostics: Diagnostics,
    ) -> None:
        self.path = database_path(url)
        self._url = url
        self._busy_timeout = busy_timeout.total_seconds()
        # SQLite has one writer; whoever writes waits for its connection here instead of for a lock there.
        self._settings = {
            "journal_mode": "WAL",
            "synchronous": synchronous.upper(),
            "foreign_keys": "ON",
            "journal_size_limit": _WAL_LIMIT,
            "secure_delete": "OFF",  # zeros over what is deleted would double what closing writes
            "cache_size": -_CACHE,
            "wal_autocheckpoint": _LAST_RESORT,
            **pragmas,
        }
        self._checkpointer = Checkpointer(self.path, synchronous.upper(), diagnostics)
        self._writer: AsyncEngine | None = None
        self._reader: AsyncEngine | None = None

    def open(self) -> None:
        """Connections are made when they are needed; the writer's first one makes the write-ahead log."""
        self._writer = _engine(self._url, "BEGIN IMMEDIATE", self._settings, self._busy_timeout, size=1)
        self._reader = _engine(self._url, "BEGIN", {"query_only": "ON"}, self._busy_timeout, size=_READERS)
        self._checkpointer.start()

    async def close(self) -> None:
        """Wait for what the database's threads are doing, and end them."""
        await asyncio.to_thread(self._checkpointer.stop)
        engines, self._writer, self._reader = (self._reader, self._writer), None, None
        for engine in engines:
            if engine is not None:
                await engine.dispose()

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that sees one moment, and can't write."""
        return self._begin(self._reader)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction; they come one after another."""
        async with self._begin(self._writer) as connection:
            yield connection
        self._checkpointer.committed(1)

    @asynccontextmanager
    async def _begin(self, engine: AsyncEngine | None) -> AsyncIterator[AsyncConnection]:
        if engine is None:
            raise StoreError(f"{self.path} is not open")
        with translated(self.path):
            async with engine.begin() as connection:
                yield connection

    async def read(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What a function gives of a plain connection that can't write, in the thread that owns it."""
        return await self._in_thread(self._reader, function, *args, **kwargs)

    async def write(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The same with the connection that writes; the function makes its own transaction."""

        def counted(database: sqlite3.Connection) -> T:
            with self._checkpointer.commits:
                before = database.total_changes
                try:
                    return function(database, *args, **kwargs)
                finally:
                    self._checkpointer.committed(database.total_changes - before)

        return await self._in_thread(self._writer, counted)

    async def _in_thread(
        self,
        engine: AsyncEngine | None,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        if engine is None:
            raise StoreError(f"{self.path} is not open")
        with translated(self.path):
            async with engine.connect() as connection:
                return await in_thread(connection, function, *args, **kwargs)

    async def size(self) -> int:
        """The file with its write-ahead log [byte]."""
        files = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    async def room(self) -> Room:
        """Of the file, with the pages in it that are free to be written again."""
        pages, free, size = await self.read(_pages)
        disk = await asyncio.to_thread(os.statvfs, self.path.parent)
        return Room((pages - free) * size, disk.f_bavail * disk.f_frsize + free * size)


def _pages(database: sqlite3.Connection) -> tuple[int, int, int]:
    pages, free, size = (
        int(database.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
    )
    return pages, free, size


def _engine(url: str, begin: str, pragmas: Mapping[str, str | int], busy_timeout: float, size: int) -> AsyncEngine:
    engine = create_async_engine(
        make_url(url).set(drivername="sqlite+aiosqlite"),
        pool_size=size,
        max_overflow=0,
        pool_timeout=max(30.0, 2 * busy_timeout),
        hide_parameters=True,
        # The driver's own transactions begin late and without a lock: ours begin where we say.
        connect_args={"timeout": busy_timeout, "isolation_level": None},
    )

    def prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for name, value in pragmas.items():
            cursor.execute(f"PRAGMA {name} = {value}")
        cursor.close()

    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


async def in_thread(
    connection: AsyncConnection,
    function: Callable[Concatenate[sqlite3.Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run a function of the plain sqlite3 connection in the thread that owns it, as one piece.

    A transaction inside is whole whatever happens to the caller: cancelled, it no longer waits, and the thread goes on
    to the commit. Uses ``aiosqlite.Connection._execute``, for which there is no public name.
    """
    driver = (await connection.get_raw_connection()).driver_connection
    if not isinstance(driver, aiosqlite.Connection):
        raise StoreError("The connection was closed")
    result: T = await driver._execute(function, driver._conn, *args, **kwargs)  # type: ignore[no-untyped-call]
    return result


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """``BEGIN IMMEDIATE`` to ``COMMIT``; any error rolls back (SQLite itself may have done so on a full disk)."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


@contextmanager
def snapshot(database: sqlite3.Connection) -> Iterator[None]:
    """Several queries of one moment: nothing moves from rows into chunks between them."""
    if database.in_transaction:
        yield
        return
    database.execute("BEGIN")
    try:
        yield
    finally:
        database.execute("ROLLBACK")
