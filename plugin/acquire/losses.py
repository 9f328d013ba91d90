"""What was missed: each loss is a gap in the store at once, and a job for the backfill as soon as it has ended."""

from collections.abc import Iterable, Mapping, Sequence

from plugin.acquire.backfill import DONE, Backfill, Job, Window, history_key
from plugin.acquire.config import HistoryConfig
from plugin.acquire.gaps import Gaps, Loss
from plugin.acquire.intake import Intake
from plugin.acquire.items import Item
from plugin.acquire.wire import now_micros
from plugin.domain import GapCause, GapState, Micros, to_micros

_SECOND = 1_000_000
_FEW = 20  # tags that have a gap each, where not all tags of the source missed something
_OFF = "reading of history is switched off"
_AWAY = "the tag was not configured"


class Losses:
    """The losses of a source. Nothing here waits: the gaps go out with :class:`Gaps`' next delivery."""

    def __init__(self, source: str, config: HistoryConfig, intake: Intake, gaps: Gaps, backfill: Backfill) -> None:
        self.ahead: Micros = 0
        """How far the server's clock is, or was before the last cut, ahead of ours at most; 0: it is not."""
        self.behind: Micros = 0
        """How far it is behind ours, below 0; 0: it is not."""
        self._source = source
        self._config = config
        self._intake = intake
        self._gaps = gaps
        self._backfill = backfill
        self._left = int(intake.reached.max(initial=0))
        """The newest source time of the process before this one [µs]."""

    def begin(
        self, cause: GapCause, handles: Iterable[int], start: Micros, *, tag: str | None = None, detail: str = ""
    ) -> Loss:
        """Values are being missed from now on."""
        handles = list(handles)
        detail = detail if tag else self._whose(handles, detail)
        return self._gaps.open(cause, self._reached(handles, start), start, None, tag=tag, detail=detail)

    def end(self, loss: Loss) -> None:
        """They arrive again; what was missed is read from history, where there is any."""
        if loss.gap.state is not GapState.OPEN:  # its tags were removed meanwhile
            return
        self._gaps.end(loss, now_micros() + self.ahead)
        self._fill(loss)

    def past(
        self,
        cause: GapCause,
        handles: Iterable[int],
        start: Micros,
        end: Micros,
        *,
        tag: str | None = None,
        detail: str = "",
    ) -> None:
        """Values were missed between two that arrived: of one tag, or of few, a gap each, else one for all."""
        handles = list(handles)
        few = tag is None and len(handles) <= _FEW and len(handles) < self._tags()
        for part in [[handle] for handle in handles] if few else [handles]:
            name = self._intake.tags[part[0]].name if few else tag
            text = detail if name else self._whose(part, detail)
            self._fill(self._gaps.open(cause, self._reached(part, start), start, end, tag=name, detail=text))

    def _tags(self) -> int:
        return int(self._intake.living.sum())

    def _whose(self, handles: Sequence[int], detail: str) -> str:
        """A gap speaks of all tags of the source where it names none: say how many it was."""
        total = self._tags()
        return detail if len(handles) >= total else "; ".join(filter(None, (f"{len(handles)} of {total} tags", detail)))

    def resume(self, loss: Loss) -> None:
        """A loss of a run before this one that history had not filled yet."""
        if loss.gap.end is None:
            self.end(loss)
        else:
            self._fill(loss)

    def first(self, items: Iterable[Item], checkpoints: Mapping[str, str]) -> int:
        """Have the past of new tags read, and our own downtime filled, but of tags whose values the server kept for us
        meanwhile; returns how many tags that concerns."""
        now = now_micros()
        items = list(items)
        new = self._read_past([item.handle for item in items], checkpoints, now)
        away = {item.handle for item in items if not item.bridged and self._seen(item, checkpoints)}
        if not away:
            return len(new)
        self.past(GapCause.CLIENT_DOWN, sorted(away - set(new)) or sorted(away), min(self._left, now), now + self.ahead)
        return len(away.union(new))

    def _seen(self, item: Item, checkpoints: Mapping[str, str]) -> bool:
        """The process before this one had the tag: it has values, or it was looked for some in its past."""
        key = history_key(self._source, item.tag.name)
        return bool(self._left) and bool(self._intake.reached[item.handle] or checkpoints.get(key))

    def added(self, items: Iterable[Item], checkpoints: Mapping[str, str]) -> int:
        """Have the past of tags that were added read, and filled what was missed of those that had been here before;
        returns how many tags that concerns."""
        now = now_micros()
        handles = [item.handle for item in items]
        new = self._read_past(handles, checkpoints, now)
        again = [h for h in handles if h not in set(new) and self._intake.reached[h]]
        for handle in again:
            start, name = min(int(self._intake.reached[handle]), now), self._intake.tags[handle].name
            self.past(GapCause.CLIENT_DOWN, [handle], start, now + self.ahead, tag=name, detail=_AWAY)
        return len(new) + len(again)

    def _read_past(self, handles: Sequence[int], checkpoints: Mapping[str, str], now: Micros) -> list[int]:
        """Ask for the past of those of the tags whose past was not read before; returns them."""
        names = ((handle, self._intake.tags[handle].name) for handle in handles)
        marks = {handle: checkpoints.get(history_key(self._source, name), "") for handle, name in names}
        new = [handle for handle, mark in marks.items() if self._reads_past(handle, mark)]
        if new:
            end = now + self.ahead + _SECOND
            self._backfill.add(Job([Window(handle, self._begin(marks[handle], now), end) for handle in new]))
        return new

    def _reads_past(self, handle: int, mark: str) -> bool:
        if not self._config.enabled or mark == DONE:
            return False
        return bool(self._config.back) or not self._intake.reached[handle]

    def _begin(self, mark: str, now: Micros) -> Micros:
        """Where the reading of a new tag's past begins: at its begin, or where it was cut off."""
        if mark.isdecimal():
            return int(mark)
        if self._config.back == "all":
            return 0
        return now - int(self._config.back.total_seconds() * _SECOND)

    def _reached(self, handles: Iterable[int], start: Micros) -> dict[int, Micros]:
        """The last value that we have of each tag; its successor may be missing, however old it is."""
        reached: list[int] = self._intake.reached.tolist()
        return {handle: min(reached[handle] or start, start) for handle in handles}

    def _fill(self, loss: Loss) -> None:
        if not self._config.enabled:
            self._gaps.settle(loss, GapState.UNFILLABLE, 0, _OFF)
            return
        margin = int(self._config.margin.total_seconds() * _SECOND)
        stop = to_micros(loss.gap.end) if loss.gap.end is not None else now_micros()
        end = stop + self.ahead + _SECOND
        windows = [Window(handle, max(0, reached - margin), end) for handle, reached in loss.reached.items()]
        self._backfill.add(Job(windows, loss))
