"""When runs looked, so that no sample ever seems to have been there for a run that could not see it."""

from dataclasses import replace

import numpy as np

from plugin.domain import Micros, Run, RunKind, SampleBatch, to_micros


class Looks:
    """Of a store, which calls it in the order of its transactions.

    A run sees what was received before it started. A sample that was on its way then, in a queue or in the spill, comes
    into the store only after the run was begun: as far as anybody can tell from the store it was received when it came.
    """

    def __init__(self) -> None:
        self._last: Micros | None = None

    def begun(self, run: Run) -> None:
        """A scoring run looks from now on, at what was there before; training sees whatever it reads."""
        if run.kind is RunKind.SCORE and run.started is not None:
            self._last = to_micros(run.started)

    def arrive(self, batch: SampleBatch, now: Micros) -> SampleBatch:
        """The batch as it is to be stored ``now``. A clock that was set back changes nothing."""
        if self._last is None or now < self._last:
            return batch
        late = batch.received_time <= self._last
        if not late.any():
            return batch
        return replace(batch, received_time=np.where(late, max(now, self._last + 1), batch.received_time))
