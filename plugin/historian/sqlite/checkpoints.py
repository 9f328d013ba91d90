"""The write-ahead log into the database file, beside the commits and never inside one."""

import logging
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

from plugin.diagnostics import Diagnostics

_log = logging.getLogger(__name__)

_ROWS = 100_000
"""Rows changed since the last time [rows]: some 5 MB of log."""
_LONGEST = 5.0
"""From a commit to the time when what it wrote is taken over, at most [s]."""
_PAUSE = 0.05
"""Between two times at least [s]."""
_LIMIT = 64 * 2**20
"""Of the log [byte]: from there on commits are held off, so that it can be begun anew."""
_PATIENCE = 0.1
"""How long a commit may have to wait for readers of an old state at most [s]."""
_RETRY = 1.0
"""Between two times that commits are held off, at least [s]."""
_HEADER = 24
"""Of a page in the log [byte] (SQLite's file format, 4.1)."""


class Checkpointer:
    """A thread with a connection of its own, from :meth:`start` to :meth:`stop`.

    The log is taken over while commits go on (``PASSIVE``, which waits for nobody), and the next commit begins it anew.
    When commits come so fast that there is always something new in it, or a reader holds an old state, the log grows.
    Beyond its limit it is begun anew while commits are held off (``RESTART``): for as long as it takes to take over
    what came last, and at most ``_PATIENCE`` for readers.
    """

    def __init__(self, path: Path, synchronous: str, diagnostics: Diagnostics) -> None:
        self._path = path
        self._synchronous = synchronous
        self._diagnostics = diagnostics
        self.commits = threading.Lock()
        """Held by who commits, and to hold commits off."""
        self._condition = threading.Condition()
        self._rows = 0
        self._dirty = self._stopping = False
        self._thread: threading.Thread | None = None
        self._troubled = self._swollen = False
        self._not_before = 0.0
        """When commits may be held off again [s, monotonic]."""

    def start(self) -> None:
        """Begin; nothing is opened before the first commit."""
        self._stopping = self._dirty = False
        self._thread = threading.Thread(target=self._run, name="checkpoints")
        self._thread.start()

    def stop(self) -> None:
        """Wait for what it does at this moment. What is left in the log stays there."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def committed(self, rows: int) -> None:
        """So many rows more are in the log; from any thread."""
        with self._condition:
            self._rows += rows
            self._dirty = True
            self._condition.notify()

    def _run(self) -> None:
        retry = 0.0
        while self._waited(retry):
            retry = self._attempt()

    def _waited(self, retry: float) -> bool:
        """Until there is something to do; False: it is stopped."""
        with self._condition:
            self._condition.wait_for(lambda: self._stopping, _PAUSE)
            if not retry:
                self._condition.wait_for(lambda: self._stopping or self._dirty)
            self._condition.wait_for(lambda: self._stopping or self._rows >= _ROWS, retry or _LONGEST)
            self._rows, self._dirty = 0, False
            return not self._stopping

    def _attempt(self) -> float:
        """Once; gives the time after which to try again though nothing was committed, 0: none is left."""
        try:
            with closing(sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None)) as database:
                database.execute(f"PRAGMA synchronous = {self._synchronous}")
                left = self._take_over(database)
        except sqlite3.Error as error:
            self._diagnostics.checkpoints_failed.inc()
            if not self._troubled:
                _log.warning("%s: the write-ahead log is not taken over, to be tried again: %s", self._path, error)
            self._troubled = True
            return _LONGEST
        if self._troubled:
            _log.warning("%s: the write-ahead log is taken over again", self._path)
        self._troubled = False
        return left

    def _take_over(self, database: sqlite3.Connection) -> float:
        """As far as it goes; the time after which to try again, 0: nothing is left."""
        frame = database.execute("PRAGMA page_size").fetchone()[0] + _HEADER
        _, log, done = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if log * frame > _LIMIT and time.monotonic() >= self._not_before:
            self._not_before = time.monotonic() + _RETRY
            with self.commits:
                _, log, done = database.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        size = max(log, 0) * frame  # -1: another program is at it
        self._diagnostics.wal_bytes.set(size)
        swollen = done < log and size > 2 * _LIMIT
        if swollen and not self._swollen:
            held = "a program has read it without a pause for long, and has to end that"
            _log.warning("%s: its write-ahead log has grown to %d MB: %s", self._path, size // 10**6, held)
        self._swollen = swollen
        return 0 if done == log else _LONGEST
