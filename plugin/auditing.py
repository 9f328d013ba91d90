"""Who changed what, into the audit log of the historian; where that is away, into a file until it is back.

A person's command acts on files and on the running service, and must not fail because a database is locked or not made
yet. So what can't be logged at once waits in the data folder; the next start, and who reads the log, take it up.
"""

import asyncio
import fcntl
import getpass
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any

from plugin.config import Config
from plugin.diagnostics import Diagnostics
from plugin.domain import Audit
from plugin.errors import ServiceError, StoreError, StoreUnavailable
from plugin.historian.keeping.upkeep import Chore
from plugin.historian.stores import configured
from plugin.protocols import Store

log = logging.getLogger(__name__)

_EVERY = timedelta(minutes=1)
WAITING = "audit.waiting"
"""File in the data folder: entries that the log does not have yet, a line each."""
REFUSED = "audit.refused"
"""The file beside it: those that it can't have, for a person to read."""


def entry(action: str, subject: str, *, before: Mapping[str, Any], after: Mapping[str, Any]) -> Audit:
    """What whoever runs this command does now."""
    return Audit(datetime.now(UTC), whoami(), "command", action, subject, dict(before), dict(after))


def whoami() -> str:
    """The user of this process, and by whom they were let in."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        name = str(os.getuid())
    person = os.environ.get("SUDO_USER", "")
    return f"{person} as {name}" if person and person != name else name


async def record(config: Config, *entries: Audit) -> None:
    """For a command, beside the running service or without one. ServiceError where not even a file takes it."""
    if config.database is None or config.database.exists():
        try:
            async with configured(config.historian, config.data, Diagnostics(), with_ring=False) as store:
                await store.write_audit(*entries)
                return
        except StoreError:
            pass  # it waits in the file, which nobody has to be told of
    await asyncio.to_thread(leave, config.data, *entries)


async def keep(store: Store, folder: Path, *entries: Audit) -> None:
    """For the service, whose store is open."""
    try:
        await store.write_audit(*entries)
    except StoreError:
        await asyncio.to_thread(leave, folder, *entries)


def leave(folder: Path, *entries: Audit) -> None:
    """Into the file."""
    lines = "".join(json.dumps({**asdict(each), "time": each.time.isoformat()}) + "\n" for each in entries)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _append(folder / WAITING, lines.encode())
    except OSError as error:
        raise ServiceError(f"It is done, but could not be put on record: {error}") from error


def chore(store: Store, folder: Path) -> Chore:
    """For the service's upkeep."""
    return Chore("taking up the audit log", _EVERY, partial(take_up, store, folder))


async def take_up(store: Store, folder: Path) -> None:
    """Put into the log what waits for it. A kill in between logs it twice rather than not at all."""
    path = folder / WAITING
    if not path.exists() or not path.stat().st_size:
        return
    with _alone(path, wait=False) as file:
        lines = file.readlines()
        refused = await _enter(store, lines)
        if refused:
            log.error(
                "%d of %d entries for the audit log can't be in it, and are in %s: %s",
                len(refused), len(lines), folder / REFUSED, "; ".join(sorted({why for _, why in refused})),
            )  # fmt: skip
            _append(folder / REFUSED, b"".join(line for line, _ in refused))
        file.truncate(0)


async def _enter(store: Store, lines: Iterable[bytes]) -> Sequence[tuple[bytes, str]]:
    """Lines that the log can't have, and why; it has the others. StoreError where it would have none at all, which is
    not for what one of them says."""
    entries, refused = [], []
    for line in lines:
        try:
            entries.append((line, _read(line)))
        except (ValueError, TypeError, KeyError) as error:
            refused.append((line, f"one can't be read ({error})"))
    try:
        await store.write_audit(*(each for _, each in entries))
    except StoreUnavailable:
        raise
    except StoreError:
        found = [(line, await _refusal(store, each)) for line, each in entries]
        if all(why for _, why in found):
            raise
        refused += [(line, why) for line, why in found if why]
    return refused


async def _refusal(store: Store, each: Audit) -> str:
    """Why the log can't have it; empty: it has."""
    try:
        await store.write_audit(each)
    except StoreUnavailable:
        raise
    except StoreError as error:
        return str(error)
    return ""


def _read(line: bytes) -> Audit:
    found = json.loads(line)
    return Audit(**{**found, "time": datetime.fromisoformat(found["time"])})


def _append(path: Path, lines: bytes) -> None:
    with _alone(path) as file:
        file.seek(0, os.SEEK_END)
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _alone(path: Path, *, wait: bool = True) -> Iterator[IO[bytes]]:
    """The file for us alone, made where it is missing: its folder's owner's, and readable by them alone.

    Not ``wait``: BlockingIOError where somebody has it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file
