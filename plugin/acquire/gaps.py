"""Gaps: opened when values are or may be missing, and remembered until history has filled them or can't."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from uuid import uuid4

from plugin.acquire.wire import now_micros
from plugin.diagnostics import Diagnostics
from plugin.domain import Gap, GapCause, GapState, Micros, from_micros

_MAX_REMEMBERED = 1000


class Gaps:
    """The open gaps of a source. They go with the next delivery, and as a checkpoint over our own restart."""

    def __init__(self, source: str, diagnostics: Diagnostics, checkpoints: Mapping[str, str]) -> None:
        self._source = source
        self._metric = diagnostics.gaps
        self._key = f"{source}/gaps"
        self._open = {gap.id: gap for gap in map(self._read, json.loads(checkpoints.get(self._key) or "[]"))}

    def left_open(self) -> tuple[Gap, ...]:
        """Gaps that history had not yet filled when we last stopped, or that still last."""
        return tuple(self._open.values())

    def open(
        self, cause: GapCause, start: Micros, end: Micros | None, *, tag: str | None = None, detail: str = ""
    ) -> Gap:
        """A new gap."""
        self._metric.labels(self._source, cause).inc()
        begin = from_micros(min(start, end) if end is not None else start)
        stop = None if end is None else from_micros(end)
        gap = Gap(str(uuid4()), self._source, tag, begin, stop, cause, from_micros(now_micros()), detail=detail)
        self._open[gap.id] = gap
        return gap

    def end(self, gap: Gap, end: Micros) -> Gap:
        """It lasts no longer; history may fill it."""
        gap = replace(gap, end=max(from_micros(end), gap.start))
        self._open[gap.id] = gap
        return gap

    def settle(self, gap: Gap, state: GapState, rows: int, detail: str = "") -> Gap:
        """History has filled it, or can't."""
        self._open.pop(gap.id, None)
        return replace(gap, state=state, rows_filled=rows, detail=detail or gap.detail)

    def checkpoint(self) -> dict[str, str]:
        """All that is open, to be stored with the gaps themselves."""
        kept = list(self._open.values())[-_MAX_REMEMBERED:]
        return {self._key: json.dumps([self._write(gap) for gap in kept])}

    def _read(self, row: Mapping[str, str]) -> Gap:
        end = datetime.fromisoformat(row["end"]) if row["end"] else None
        start, detected = datetime.fromisoformat(row["start"]), datetime.fromisoformat(row["detected"])
        tag, cause = row["tag"] or None, GapCause(row["cause"])
        return Gap(row["id"], self._source, tag, start, end, cause, detected, detail=row["detail"])

    @staticmethod
    def _write(gap: Gap) -> dict[str, str]:
        return {
            "id": gap.id,
            "tag": gap.tag or "",
            "start": gap.start.isoformat(),
            "end": gap.end.isoformat() if gap.end else "",
            "cause": gap.cause,
            "detected": gap.detected.isoformat(),
            "detail": gap.detail,
        }
