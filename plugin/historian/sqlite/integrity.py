"""Whether a SQLite file is sound, as far as can be seen in a bounded time: a start must not take minutes for it.

SQLite itself sees at once that a file has lost its end. Every table is read through, small ones first, as long as the
time lasts; ``foretag backup`` reads all of it.
"""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from plugin.errors import StoreDamaged
from plugin.historian.sqlite.connections import translated

_SECONDS = 2.0
_STEPS = 10_000
"""Of SQLite's virtual machine, between two looks at the clock."""
_LARGE = ("samples", "sample_chunks", "sample_texts", "predictions", "rollup_minutes", "rollup_hours", "rollup_days")


def check(path: Path, seconds: float = _SECONDS) -> None:
    """StoreDamaged where the file is; blocking. A database that another program has locked is not looked at."""
    log = path.with_name(f"{path.name}-wal")
    if not path.stat().st_size and log.exists() and log.stat().st_size:
        raise StoreDamaged.told(path, f"it is empty, and {log.name} is not")
    with translated(path), closing(sqlite3.connect(path, timeout=0.0)) as database:
        database.execute("PRAGMA query_only = ON")
        try:
            _look(database, path, time.monotonic() + seconds)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_BUSY}:
                raise


def _look(database: sqlite3.Connection, path: Path, end: float) -> None:
    database.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()]
    for table in sorted(tables, key=lambda name: (name in _LARGE, name)):
        found = database.execute(f'PRAGMA quick_check("{table}")').fetchone()[0]
        if found != "ok":
            raise StoreDamaged.told(path, f"{table}: {found}")
