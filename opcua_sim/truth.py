"""What only the simulator knows, for judging predictions afterwards. Written to a folder of its own, never served."""

import csv
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from opcua_sim.clock import Micros
from opcua_sim.plant import Plant

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Truth:
    """``rul.csv`` (time, asset, cycle, rul [cycles]) and ``nox.csv`` (time, asset, nox [mg/m3]), a step at a time."""

    def __init__(self, plant: Plant, folder: Path) -> None:
        self._plant = plant
        self._files = ExitStack()
        folder.mkdir(parents=True, exist_ok=True)
        self._rul = self._open(folder / "rul.csv", "time", "asset", "cycle", "rul")
        self._nox = self._open(folder / "nox.csv", "time", "asset", "nox")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def write(self, step: int, time: Micros) -> None:
        """Append the truth of one step."""
        stamp = (_EPOCH + timedelta(microseconds=time)).isoformat()
        writer = csv.writer(self._rul)
        for engine in self._plant.engines:
            writer.writerow((stamp, engine.name, engine.cycle(step), engine.remaining(step)))
        turbine = self._plant.turbine
        if turbine is not None:
            csv.writer(self._nox).writerow((stamp, turbine.name, turbine.nox(step)))

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        self._rul.flush()
        self._nox.flush()

    def _open(self, path: Path, *header: str) -> IO[Any]:
        fresh = not path.exists() or path.stat().st_size == 0
        file = self._files.enter_context(path.open("a", newline="", encoding="utf-8"))
        if fresh:
            csv.writer(file).writerow(header)
        return file
