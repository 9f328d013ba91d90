"""One service per data folder and per database: a lock that the kernel gives back when its process ends, however.

The file outlives the process and means nothing by itself: whether it is locked does. What stands in it says by whom.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from plugin.errors import AlreadyRunning

NAME = "foretag.lock"
"""File in the data folder."""

_TRIES, _PAUSE = 5, 0.05
"""Who looks for the holder holds the lock for a moment [s]."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A running service."""

    pid: int
    config: Path
    """Its configuration file, absolute."""


@contextlib.contextmanager
def hold(paths: Iterable[Path], config: Path) -> Iterator[None]:
    """Hold the locks for as long as the context lasts. AlreadyRunning where another process has one of them."""
    with contextlib.ExitStack() as stack:
        for path in paths:
            stack.enter_context(_hold(path, Holder(os.getpid(), config.resolve())))
        yield


@contextlib.contextmanager
def _hold(path: Path, ours: Holder) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _locked(descriptor, fcntl.LOCK_EX):
            raise AlreadyRunning(f"{path.parent}: {_who(_read(descriptor))}; stop it, or give this one other folders")
        os.ftruncate(descriptor, 0)  # at once: a process id that is not ours must not stand in a file that is locked
        os.pwrite(descriptor, json.dumps({"pid": ours.pid, "config": str(ours.config)}).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def holder(path: Path) -> Holder | None:
    """Who holds the lock; None: nobody does, or has not yet said who it is."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if _locked(descriptor, fcntl.LOCK_SH, tries=1) else _read(descriptor)
    finally:
        os.close(descriptor)


def is_open_by(path: Path, pid: int) -> bool:
    """Whether a process of that number, as we count them, has the file open; True where nobody tells.

    Who holds a lock from within a container has another number there, and that number may be anybody's here.
    """
    try:
        with os.scandir(f"/proc/{pid}/fd") as descriptors:
            return any(_is(each.path, path) for each in descriptors)
    except FileNotFoundError:
        return not Path("/proc/self/fd").exists()
    except PermissionError:
        return True


def _is(link: str, path: Path) -> bool:
    try:
        return path.samefile(link)
    except OSError:  # it was closed meanwhile
        return False


def _locked(descriptor: int, kind: int, tries: int = _TRIES) -> bool:
    for left in reversed(range(tries)):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if left:
                time.sleep(_PAUSE)
        else:
            return True
    return False


def _read(descriptor: int) -> Holder | None:
    try:
        found = json.loads(os.pread(descriptor, 65536, 0))
        return Holder(int(found["pid"]), Path(found["config"]))
    except (ValueError, KeyError, TypeError):
        return None


def _who(other: Holder | None) -> str:
    if other is None:
        return "another foretag uses it"
    return f"foretag with process id {other.pid} and {other.config} uses it"
