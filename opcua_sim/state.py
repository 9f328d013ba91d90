"""What a plant must remember to be the same plant after a restart: who it is, and when it ran.

The folder::

    plant.json    identity and running intervals; renewed before each instant is published, so even a killed plant
                  never shows a step twice
    faults.csv    faults that were applied
    lock          held while the plant runs
    pki/          certificates, where security is asked for
"""

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from opcua_sim.clock import Clock, Micros


class StateError(Exception):
    """The state folder can't be used: the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a plant this plant; equal identities have equal histories."""

    seed: int
    dataset: str
    engines: int
    period: float
    """[s]."""
    history_runs: int
    gas_turbine: bool
    gas_turbine_start: int


class State:
    """Running intervals of one plant, kept in a folder or, without one, for this process only."""

    def __init__(self, identity: Identity, folder: Path | None) -> None:
        """Open a plant's state; :meth:`begin` makes its clock run.

        StateError: another plant lives in the folder, another process runs it, or the folder can't be used.
        """
        self.folder = folder
        self.identity = identity
        self.period: Micros = round(identity.period * 1e6)
        self._lock: IO[str] | None = None
        self._intervals = [] if folder is None else self._open(folder)

    @property
    def clock(self) -> Clock:
        """The plant's clock; there is none before :meth:`begin`."""
        return self._clock

    def begin(self, now: Micros) -> None:
        """Begin a running interval at the first grid instant at or after ``now``."""
        grid = -(-now // self.period)
        if self._intervals:
            grid = max(grid, self._intervals[-1][1])  # the wall clock may have been set back
        self._intervals.append((grid, grid))
        self._clock = Clock(self.period, self._intervals)
        self.renew(self._clock.present)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def renew(self, step: int) -> None:
        """Write down that all steps before ``step`` are over."""
        start, _ = self._intervals[-1]
        self._intervals[-1] = (start, start + step - self.clock.present)
        if self.folder is None:
            return
        seconds = [[self._seconds(start), self._seconds(end)] for start, end in self._intervals]
        content = {"created": self._seconds(self._intervals[0][0]), **asdict(self.identity), "running": seconds}
        fresh = self.folder / "plant.json.new"
        fresh.write_text(json.dumps(content, indent=1), encoding="utf-8")
        fresh.replace(self.folder / "plant.json")

    def _open(self, folder: Path) -> list[tuple[int, int]]:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = self._take_lock(folder / "lock")
            return self._read(folder / "plant.json") if (folder / "plant.json").exists() else []
        except OSError as error:
            self._release()
            raise StateError(f"state folder {folder}: {error.strerror or error}") from error
        except StateError:
            self._release()
            raise

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _seconds(self, grid: int) -> float:
        return round(grid * self.period / 1e6, 6)

    def _read(self, path: Path) -> list[tuple[int, int]]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = Identity(**{name: content[name] for name in Identity.__slots__})
            intervals = [tuple(round(s * 1e6 / self.period) for s in pair) for pair in content["running"]]
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"{path} is damaged ({error!r}): move it away to begin a new plant") from error
        if found != self.identity:
            theirs, ours = asdict(found), asdict(self.identity)
            differs = ", ".join(
                f"{name} {theirs[name]} (asked for: {ours[name]})" for name in ours if theirs[name] != ours[name]
            )
            raise StateError(
                f"another plant lives in {path.parent}: {differs}. Ask for the same, or use another folder"
            )
        return [(start, end) for start, end in intervals if start < end]

    @staticmethod
    def _take_lock(path: Path) -> IO[str]:
        lock = path.open("w", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise StateError(f"another process runs the plant in {path.parent}") from None
        with suppress(OSError):
            lock.write(str(os.getpid()))
            lock.flush()
        return lock
