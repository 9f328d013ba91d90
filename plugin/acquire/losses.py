"""What was missed: each loss is a gap in the store at once, and a job for the backfill as soon as it has ended."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from plugin.acquire.backfill import DONE, Backfill, Job, Window, history_key
from plugin.acquire.config import HistoryConfig
from plugin.acquire.gaps import Gaps
from plugin.acquire.intake import Intake
from plugin.acquire.outbox import Outbox
from plugin.acquire.wire import now_micros
from plugin.domain import Gap, GapCause, GapState, Micros, SampleBatch, to_micros
from plugin.protocols import Delivery

_MICROS = 1_000_000


@dataclass(slots=True)
class Loss:
    """A gap and, per handle, the time from which on values may be missing [µs]."""

    gap: Gap
    starts: dict[int, Micros]


class Losses:
    """The losses of a source."""

    def __init__(
        self, source: str, config: HistoryConfig, intake: Intake, outbox: Outbox, gaps: Gaps, backfill: Backfill
    ) -> None:
        self.ahead: Micros = 0
        """How far the server's clock is ahead of ours."""
        self._source = source
        self._config = config
        self._intake = intake
        self._outbox = outbox
        self._gaps = gaps
        self._backfill = backfill

    async def begin(
        self, cause: GapCause, handles: Iterable[int], start: Micros, *, tag: str | None = None, detail: str = ""
    ) -> Loss:
        """Values are being missed from now on."""
        loss = Loss(self._gaps.open(cause, start, None, tag=tag, detail=detail), self._starts(handles, start))
        await self._tell(loss.gap)
        return loss

    async def end(self, loss: Loss) -> None:
        """They arrive again; what was missed is read from history, where there is any."""
        loss.gap = self._gaps.end(loss.gap, now_micros())
        await self._fill(loss)

    async def past(
        self,
        cause: GapCause,
        handles: Iterable[int],
        start: Micros,
        end: Micros,
        *,
        tag: str | None = None,
        detail: str = "",
    ) -> None:
        """Values were missed between two that arrived."""
        loss = Loss(self._gaps.open(cause, start, end, tag=tag, detail=detail), self._starts(handles, start))
        await self._fill(loss)

    async def resume(self, gap: Gap) -> None:
        """A gap of a run before this one that history had not filled yet."""
        handles = [handle for handle, tag in enumerate(self._intake.tags) if gap.tag in {None, tag.name}]
        start = to_micros(gap.start)
        loss = Loss(gap, dict.fromkeys(handles, start))
        await (self._fill(loss) if gap.end is not None else self.end(loss))

    async def first(self, checkpoints: dict[str, str]) -> int:
        """Have the past of tags that are new read, and our own downtime filled; returns the tags that this concerns."""
        now = now_micros()
        reached = [checkpoints.get(history_key(self._source, tag.name), "") for tag in self._intake.tags]
        new = [handle for handle, mark in enumerate(reached) if self._reads_past(handle, mark)]
        if new:
            end = now + max(self.ahead, 0) + _MICROS
            self._backfill.add(Job([Window(handle, self._begin(reached[handle], now), end) for handle in new]))
        newest = int(self._intake.newest.max(initial=0))
        if newest:
            old = sorted(set(range(len(reached))) - set(new))
            await self.past(GapCause.CLIENT_DOWN, old or new, min(newest, now), now)
        return len(reached) if newest else len(new)

    def _reads_past(self, handle: int, mark: str) -> bool:
        if not self._config.enabled or mark == DONE:
            return False
        return bool(self._config.back) or not self._intake.newest[handle]

    def _begin(self, mark: str, now: Micros) -> Micros:
        """Where the reading of a new tag's past begins: at its begin, or where it was cut off."""
        if mark.isdecimal():
            return int(mark)
        if self._config.back == "all":
            return 0
        return now - int(self._config.back.total_seconds() * _MICROS)

    def _starts(self, handles: Iterable[int], start: Micros) -> dict[int, Micros]:
        """The newest value that we have of each tag; its successor may be missing, however old it is."""
        newest: Sequence[int] = self._intake.newest.tolist()
        return {handle: min(newest[handle] or start, start) for handle in handles}

    async def _fill(self, loss: Loss) -> None:
        if not self._config.enabled:
            await self._tell(self._gaps.settle(loss.gap, GapState.UNFILLABLE, 0, "reading of history is switched off"))
            return
        margin = int(self._config.margin.total_seconds() * _MICROS)
        stop = to_micros(loss.gap.end) if loss.gap.end is not None else now_micros()
        end = stop + max(self.ahead, 0) + _MICROS
        windows = [Window(handle, max(0, start - margin), end) for handle, start in loss.starts.items()]
        await self._tell(loss.gap)
        self._backfill.add(Job(windows, loss.gap))

    async def _tell(self, gap: Gap) -> None:
        await self._outbox.put(Delivery(SampleBatch.empty(), gaps=(gap,), checkpoint=self._gaps.checkpoint()))
