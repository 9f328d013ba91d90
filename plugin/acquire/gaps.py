"""Gaps: opened when values are or may be missing, and remembered until history has filled them or can't."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from plugin.acquire.wire import now_micros
from plugin.diagnostics import Diagnostics
from plugin.domain import Gap, GapCause, GapState, Micros, Tag, from_micros, to_micros
from plugin.protocols import Delivery

_MAX_REMEMBERED = 1000
REMOVED = "the tag was removed from the configuration"


@dataclass(slots=True)
class Loss:
    """A gap and, by handle, the source time [µs] of the last value before it: what follows may be missing."""

    gap: Gap
    reached: dict[int, Micros]


class Gaps:
    """The open gaps of a source. What changes is told with the next delivery; what is open outlives our own restart."""

    def __init__(
        self,
        source: str,
        tags: Sequence[Tag],
        diagnostics: Diagnostics,
        checkpoints: Mapping[str, str],
        stored: Iterable[Gap] = (),
    ) -> None:
        """``stored``: those that the store has as open; few of very many are remembered by a checkpoint."""
        self._source = source
        self._names: list[str] = []
        self.admit(tags)
        self._metric = diagnostics.gaps
        self._key = f"{source}/gaps"
        self._untold: dict[str, Gap] = {}
        handles = {name: handle for handle, name in enumerate(self._names)}
        found = (self._read(row, handles) for row in json.loads(checkpoints.get(self._key) or "[]"))
        self._open = {loss.gap.id: loss for loss in found}
        self._open |= {gap.id: _loss_of(gap, handles) for gap in stored if gap.id not in self._open}

    def admit(self, tags: Sequence[Tag]) -> None:
        """More tags, with the handles that follow."""
        self._names += [tag.name for tag in tags]

    def leave(self, handle: int) -> None:
        """A tag is configured no longer: gaps of its own end, others wait for it no more."""
        for loss in self.left_open():
            if loss.reached.pop(handle, None) is None or loss.reached:
                continue
            if loss.gap.end is None:
                self.end(loss, now_micros())
            self.settle(loss, GapState.UNFILLABLE, loss.gap.rows_filled, REMOVED)

    def replace(self, old: int, new: int) -> None:
        """A tag has another handle: what it misses now is missed under the new one."""
        for loss in self.left_open():
            if loss.gap.end is None and old in loss.reached:
                loss.reached[new] = loss.reached.pop(old)

    def left_open(self) -> tuple[Loss, ...]:
        """Those that history had not yet filled when we last stopped, or that still last."""
        return tuple(self._open.values())

    def open(
        self,
        cause: GapCause,
        reached: dict[int, Micros],
        start: Micros,
        end: Micros | None,
        *,
        tag: str | None = None,
        detail: str = "",
    ) -> Loss:
        """A new gap."""
        self._metric.labels(self._source, cause).inc()
        begin = from_micros(min(start, end) if end is not None else start)
        stop = None if end is None else from_micros(end)
        gap = Gap(str(uuid4()), self._source, tag, begin, stop, cause, from_micros(now_micros()), detail=detail)
        loss = self._open[gap.id] = Loss(gap, reached)
        self._untold[gap.id] = gap
        return loss

    def end(self, loss: Loss, end: Micros) -> None:
        """It lasts no longer; history may fill it."""
        loss.gap = replace(loss.gap, end=max(from_micros(end), loss.gap.start))
        self._open[loss.gap.id] = loss
        self._untold[loss.gap.id] = loss.gap

    def settle(self, loss: Loss, state: GapState, rows: int, detail: str = "") -> None:
        """History has filled it, or can't."""
        text = "; ".join(part for part in (loss.gap.detail, detail) if part)
        loss.gap = replace(loss.gap, state=state, rows_filled=rows, detail=text)
        self._open.pop(loss.gap.id, None)
        self._untold[loss.gap.id] = loss.gap

    def with_news(self, delivery: Delivery) -> Delivery:
        """The delivery with all gaps that changed since the last one, and with what has to outlive a restart."""
        if not self._untold:
            return delivery
        gaps, self._untold = tuple(self._untold.values()), {}
        kept = [self._write(loss) for loss in list(self._open.values())[-_MAX_REMEMBERED:]]
        marks = {**delivery.checkpoint, self._key: json.dumps(kept, separators=(",", ":"))}
        return replace(delivery, gaps=(*delivery.gaps, *gaps), checkpoint=marks)

    def changed(self) -> bool:
        """Something was not told yet."""
        return bool(self._untold)

    def _write(self, loss: Loss) -> dict[str, Any]:
        gap = loss.gap
        return {
            "id": gap.id,
            "tag": gap.tag or "",
            "start": gap.start.isoformat(),
            "end": gap.end.isoformat() if gap.end else "",
            "cause": gap.cause,
            "detected": gap.detected.isoformat(),
            "detail": gap.detail,
            "reached": {self._names[handle]: reached for handle, reached in loss.reached.items()},
        }

    def _read(self, row: Mapping[str, Any], handles: Mapping[str, int]) -> Loss:
        end = datetime.fromisoformat(row["end"]) if row["end"] else None
        start, detected = datetime.fromisoformat(row["start"]), datetime.fromisoformat(row["detected"])
        tag, cause = row["tag"] or None, GapCause(row["cause"])
        gap = Gap(row["id"], self._source, tag, start, end, cause, detected, detail=row["detail"])
        return Loss(gap, {handles[name]: time for name, time in row["reached"].items() if name in handles})


def _loss_of(gap: Gap, handles: Mapping[str, int]) -> Loss:
    """How far each tag had come is not known; no further than to where the gap begins."""
    wanted = handles.values() if gap.tag is None else [handles[gap.tag]] if gap.tag in handles else []
    return Loss(gap, dict.fromkeys(wanted, to_micros(gap.start)))
