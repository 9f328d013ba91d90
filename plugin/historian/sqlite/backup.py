"""A copy of the database as it is at one moment, made while it is in use."""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import make_url

from plugin.errors import StoreError, StoreMissing
from plugin.historian.config import HistorianConfig
from plugin.historian.sqlite.connections import database_path, translated

_STEP = 2048
"""Pages that are copied without a pause."""
_PAUSE = 0.005
"""Between two steps, for who else needs the disk [s]."""
_BUSY = 30.0
"""How long another program may lock the database [s]."""

Progress = Callable[[int, int], None]
"""Told of the bytes that are copied, and of how many there are."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made and found sound."""

    path: Path
    size: int
    """[byte]"""
    seconds: float


def back_up(config: HistorianConfig, data: Path, target: Path, progress: Progress = lambda _done, _all: None) -> Backup:
    """Copy the database into a new file that its owner alone can read; ``target`` may be a folder.

    All of the copy is of the moment when it was begun. What is written meanwhile waits in the write-ahead log. Raises
    StoreError, and leaves nothing behind, where it can't be made or does not read well.
    """
    if config.on_postgres:
        raise StoreError(_by_its_own_means(config, target))
    source, begun = database_path(config.located(data)), time.monotonic()
    if not source.exists():
        raise StoreMissing.told(source)
    if target.is_dir():
        target /= f"{source.stem}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}{source.suffix}"
    with translated(target), _new(target) as part:
        _copy(source, part, progress)
        _check(part)
    return Backup(target, target.stat().st_size, time.monotonic() - begun)


def _by_its_own_means(config: HistorianConfig, target: Path) -> str:
    url = make_url(config.url)
    asked = {"--host": url.host or url.query.get("host"), "--port": url.port, "--username": url.username}
    options = " ".join(f"{name}={value}" for name, value in asked.items() if value)
    return (
        "The database is PostgreSQL, which has its own means. One file, while it is in use:\n"
        f"  pg_dump --format=custom --file={target} {options} {url.database}\n"
        f"Back into an empty database:\n  pg_restore {options} --dbname={url.database} {target}"
    )


@contextmanager
def _new(target: Path) -> Iterator[Path]:
    """A file beside the target that takes its place when all went well."""
    part = target.with_name(f"{target.name}.part")
    if target.exists():
        raise StoreError(f"{target} is there already; name another file, or a folder")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError as error:
        raise StoreError(f"{part} is of another backup; if none is running, delete it") from error
    except FileNotFoundError as error:
        raise StoreError(f"There is no folder {target.parent}; make it first") from error
    try:
        yield part
        _flush(part)
        part.rename(target)
        _flush(target.parent)
    finally:
        for name in (part.name, f"{part.name}-wal", f"{part.name}-shm", f"{part.name}-journal"):
            with suppress(FileNotFoundError):
                part.with_name(name).unlink()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _copy(source: Path, part: Path, progress: Progress) -> None:
    with closing(_opened(source)) as database, closing(_opened(part)) as copy:
        database.execute("PRAGMA query_only = ON")
        # Without a transaction each step would see what was committed in between, and the copy begin anew.
        database.execute("BEGIN")
        pages, page = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        free = shutil.disk_usage(part.parent).free
        if free < pages * page:
            raise StoreError(f"{part.parent} has {free // 10**6} MB left; the backup needs {pages * page // 10**6} MB")

        def step(_status: int, left: int, pages: int) -> None:
            progress((pages - left) * page, pages * page)
            time.sleep(_PAUSE)

        database.backup(copy, pages=_STEP, progress=step)
        copy.execute("PRAGMA journal_mode = DELETE")  # the copy is one file, with nothing beside it


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=_BUSY)


def _check(part: Path) -> None:
    with closing(_opened(part)) as copy:
        found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreError(f"The database is not sound, and so is no copy of it: {found}")
