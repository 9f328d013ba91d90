"""A training that was cut off goes on, when the same one is begun again: each model has a folder for how far it was.

It goes on with the past as it looked when it was begun, so a history that has grown since is no hindrance. One that was
altered is, as another release is, or another configuration: then it begins anew, and the log says why.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from models.keeping import Keeper, KeptProgress, Shelf
from models.kind import Progress, TrainingData
from plugin.pki import write_private

log = logging.getLogger(__name__)

_LONGEST = timedelta(days=1)
"""That a training may be old: later there is more to learn from than it knows."""
_BEGUN = "begun.json"


@dataclass(frozen=True, slots=True)
class _Begun:
    now: str
    """When it looked at the past."""
    asked: str
    made_of: str
    """Digests: of what it was to learn and how, and of that with the data."""


class Unfinished:
    """What is kept of one training of a model; ``now`` is when it looks, or looked, at the past."""

    def __init__(self, folder: Path | None, model: str, asked: Mapping[str, Any], now: datetime) -> None:
        """``folder``: None where nothing is kept. ``asked``, JSON: what is to be learnt, and how."""
        self._folder = folder
        self._model = model
        self._asked = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        self._keeper: Keeper | None = None
        self._begun = self._left(now)
        self.now = datetime.fromisoformat(self._begun.now) if self._begun else now

    def _left(self, now: datetime) -> _Begun | None:
        """By the same that was cut off."""
        if self._folder is None or not (path := self._folder / _BEGUN).exists():
            return None
        try:
            return self._checked(path, now)
        except (OSError, ValueError, TypeError) as error:
            self._give_up(str(error))
            return None

    def _checked(self, path: Path, now: datetime) -> _Begun:
        """ValueError where it is not to be gone on with."""
        begun = _Begun(**json.loads(path.read_bytes()))
        if begun.asked != self._asked:
            raise ValueError("it was to learn something else, or in another way")
        if not timedelta(0) <= now - datetime.fromisoformat(begun.now) <= _LONGEST:
            raise ValueError(f"it was begun {begun.now}")
        return begun

    def _give_up(self, why: str) -> None:
        log.warning("the training of model %s that was cut off is not gone on with: %s", self._model, why)
        self._begun = None
        self.remove()

    def goes_on(self, data: TrainingData, now: datetime) -> bool:
        """Whether these are what it was made of; False: it was given up, look at the past anew, as it is ``now``."""
        made_of = _digest(self._asked, data)
        if self._begun is not None and self._begun.made_of != made_of:
            self._give_up("what it learnt from has been altered since")
            self.now = now
            return False
        self._begun = _Begun(self.now.isoformat(), self._asked, made_of)
        if self._folder is not None:
            try:
                write_private(self._folder / _BEGUN, json.dumps(asdict(self._begun)).encode())
            except OSError as error:
                log.warning("nothing can be kept of the training of model %s: %s", self._model, error)
                self._folder = None
        return True

    def keeping(self, progress: Progress, every: timedelta) -> Progress:
        """A progress that lets the fit keep how far it is, and go on; to be asked once :meth:`goes_on` said so."""
        if self._folder is None or self._begun is None:
            return progress
        self._keeper = Keeper(_shelf(self._folder), self._begun.made_of, every.total_seconds(), self._warn)
        return KeptProgress(progress, self._keeper)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """For the version that comes of it."""
        if self._keeper is None or not self._keeper.resumed:
            return MappingProxyType({})
        return {"begun": self.now.isoformat(), "resumed_at_step": self._keeper.resumed}

    def remove(self) -> None:
        """It is done, or of no use."""
        with contextlib.suppress(OSError):  # what stays is not used: it is looked at before
            for path in self._folder.iterdir() if self._folder is not None else ():
                path.unlink()

    def _warn(self, what: str) -> None:
        log.warning("model %s: %s", self._model, what)


def sweep(folder: Path, now: datetime) -> None:
    """Remove what is too old to be gone on with: of a model that is no longer trained, nobody else would.

    ``folder``: that of all models. What another process trains at this moment stays.
    """
    for each in sorted(folder.iterdir()) if folder.is_dir() else ():
        with _alone(each, each.name) as alone, contextlib.suppress(OSError):
            begun = each / _BEGUN
            age = now.timestamp() - (begun if begun.exists() else each).stat().st_mtime
            if alone and age > _LONGEST.total_seconds():
                for path in each.iterdir():
                    path.unlink()
                each.rmdir()


def _shelf(folder: Path) -> Shelf:
    def read(name: str) -> bytes | None:
        path = folder / name
        return path.read_bytes() if path.exists() else None

    return Shelf(read, lambda name, content: write_private(folder / name, content))


@contextlib.contextmanager
def unfinished(folder: Path | None, model: str, asked: Mapping[str, Any], now: datetime) -> Iterator[Unfinished]:
    """Of a model; nothing is kept of it where another process trains the same at this moment."""
    with contextlib.ExitStack() as stack:
        alone = folder is not None and stack.enter_context(_alone(folder, model))
        yield Unfinished(folder if alone else None, model, asked, now)


@contextlib.contextmanager
def _alone(folder: Path, model: str) -> Iterator[bool]:
    """Hold the folder; the kernel gives it back when the process ends, however."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        log.warning("nothing can be kept of the training of model %s: %s", model, error)
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _digest(asked: str, data: TrainingData) -> str:
    """Of all that decides what comes of it."""
    found = hashlib.sha256(asked.encode())
    for array in (data.values, data.observed, data.target, data.group):
        found.update(f"{array.shape}{array.dtype}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
