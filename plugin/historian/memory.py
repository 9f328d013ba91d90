"""A store that forgets: for tests, notebooks, and whoever writes a source, a sink or a model against the contract."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from plugin.domain import (
    Gap,
    GapCause,
    GapState,
    Grid,
    Import,
    Level,
    Micros,
    Modified,
    Reject,
    Remark,
    RollUps,
    SampleBatch,
    Tag,
    UpdateType,
    Window,
    to_micros,
)
from plugin.historian.arrived import refuse_strangers
from plugin.historian.closed.rolling import rows_of
from plugin.historian.closed.rollup import holes, roll_up
from plugin.historian.corrected import Act
from plugin.historian.memory_results import MemoryResults
from plugin.infer.windows import dense
from plugin.protocols import Corrected, Delivery, Written

_Sample = tuple[float, int, Micros, Micros, str | None]
"""Value, status, server time, received time, text."""


class MemoryStore(MemoryResults):
    """See :class:`plugin.protocols.Store`; held to the same contract tests as the SQL store."""

    def __init__(self) -> None:
        super().__init__()
        self._tags: dict[str, Tag] = {}
        self._samples: dict[int, dict[Micros, list[_Sample]]] = {}
        self._gaps: dict[str, list[tuple[Micros, Gap]]] = {}
        """By id: each state, and since when it is known."""
        self._modified: dict[tuple[int, Micros, int], list[tuple[_Sample, Micros, str, str]]] = {}
        """By tag, source time and place: each state before a correction, when that was, by whom and why."""
        self._checkpoints: dict[str, str] = {}
        self._remarks: dict[tuple[object, ...], Remark] = {}
        self._imports: dict[str, Import] = {}
        self._rejects: dict[str, dict[tuple[int, str], Reject]] = {}

    async def register_tags(self, tags: Sequence[Tag]) -> tuple[Tag, ...]:
        """See the protocol."""
        for tag in tags:
            known = self._tags.get(tag.name)
            self._tags[tag.name] = replace(tag, id=known.id if known else len(self._tags) + 1)
        return tuple(replace(tag, id=self._tags[tag.name].id) for tag in tags)

    async def tags(self) -> tuple[Tag, ...]:
        """See the protocol."""
        return tuple(sorted(self._tags.values(), key=lambda tag: tag.id))

    async def write(self, deliveries: Sequence[Delivery]) -> Written:
        """See the protocol. A sample of a tag that was never registered refuses the whole write (StoreError)."""
        now = time.time_ns() // 1000
        batch = self._looks.arrive(SampleBatch.concatenate([delivery.samples for delivery in deliveries]), now)
        refuse_strangers(batch, len(self._tags), "Samples")
        texts = [None] * len(batch) if batch.text is None else batch.text.tolist()
        columns = [column.tolist() for column in batch.columns()]
        stored = sum(self._insert(*row) for row in zip(*columns, texts, strict=True))
        for delivery in deliveries:
            self._remarks |= {(each.source_time, each.source, each.tag, each.kind): each for each in delivery.remarks}
            self._checkpoints |= delivery.checkpoint
        for gap in {gap.id: gap for delivery in deliveries for gap in delivery.gaps}.values():
            states = self._gaps.setdefault(gap.id, [])
            if not states or states[-1][1] != gap:
                states.append((now, gap))
        return Written(stored, len(batch) - stored)

    def _insert(
        self, tag: int, time: Micros, value: float, status: int, server: Micros, received: Micros, text: str | None
    ) -> bool:
        stamped = self._samples.setdefault(tag, {}).setdefault(time, [])
        for old, old_status, _, _, old_text in stamped:
            same = old == value or (math.isnan(old) and math.isnan(value))
            if same and old_status == status and old_text == text:
                return False
        stamped.append((value + 0.0, status, server, received, text))
        return True

    async def checkpoints(self, prefix: str) -> Mapping[str, str]:
        """See the protocol."""
        return {key: text for key, text in self._checkpoints.items() if key.startswith(prefix)}

    async def read_samples(
        self,
        tags: Sequence[int],
        start: Micros,
        end: Micros,
        *,
        known_by: Micros | None = None,
        received_by: Micros | None = None,
    ) -> SampleBatch:
        """See the protocol."""
        return self._batch(
            (tag, time, *state)
            for tag in sorted({int(tag) for tag in tags})
            for time in sorted(self._samples.get(tag, {}))
            if start <= time < end
            for place in range(len(self._samples[tag][time]))
            for state in self._as_known(tag, time, place, known_by, received_by)
        )

    def _as_known(
        self, tag: int, time: Micros, place: int, known_by: Micros | None, received_by: Micros | None
    ) -> Iterator[_Sample]:
        """The last state of a sample that was known by then, if there is one."""
        earlier = [state for state, *_ in self._modified.get((tag, time, place), [])]
        for state in (self._samples[tag][time][place], *reversed(earlier)):
            _, _, server, received, _ = state
            if (known_by is None or server <= known_by) and (received_by is None or received <= received_by):
                yield state
                return

    async def roll_ups(
        self, tags: Sequence[int], start: Micros, end: Micros, *, level: Level | None = None, points: int = 1000
    ) -> RollUps:
        """See the protocol."""
        level = level or Level.finest(end - start, points)
        first, last = start // level.width * level.width, -(-end // level.width) * level.width
        samples = await self.read_samples(tags, -(2**63), last)
        gaps = (gap for gap in self._gaps_as_known(None) if gap.state is not GapState.FILLED and gap.start != gap.end)
        missing = holes(((gap.source, gap.tag, to_micros(gap.start)) for gap in gaps), list(self._tags.values()))
        made = roll_up(samples, SampleBatch.empty(), -(2**62), last, level, missing)
        return rows_of(made, made.start >= first)

    async def correct(self, samples: SampleBatch, *, user: str, reason: str, origin: str = "command") -> Corrected:
        """See the protocol. A sample of a tag that was never registered refuses all (StoreError)."""
        now = time.time_ns() // 1000
        batch = self._looks.arrive(replace(samples, received_time=np.full(len(samples), now)), now)
        refuse_strangers(batch, len(self._tags), "Corrections")
        texts = [None] * len(batch) if batch.text is None else batch.text.tolist()
        rows = zip(*(column.tolist() for column in batch.columns()), texts, strict=True)
        did: dict[str, list[tuple[Any, ...]]] = {"replaced": [], "inserted": [], "unchanged": []}
        for tag, stamp, *state in {row[:2]: row for row in rows}.values():
            did[self._correct(tag, stamp, tuple(state), user, reason)].append((tag, stamp, *state))
        done = Corrected(**{what: len(changed) for what, changed in did.items()})
        if changed := did["replaced"] + did["inserted"]:
            names = [tag.name for tag in self._tags.values() if tag.id in {row[0] for row in changed}]
            act = Act(int(batch.received_time[0]), user, reason, origin)
            self._log.append(act.entry(done, self._batch(changed), names))
        return done

    def _correct(self, tag: int, stamp: Micros, state: _Sample, user: str, reason: str) -> str:
        stamped = self._samples.setdefault(tag, {}).setdefault(stamp, [])
        value, status, _, received, text = state
        if not stamped:
            stamped.append(state)
            return "inserted"
        old = stamped[-1]
        same = old[0] == value or (math.isnan(old[0]) and math.isnan(value))
        if same and (old[1], old[4]) == (status, text):
            return "unchanged"
        states = self._modified.setdefault((tag, stamp, len(stamped) - 1), [])
        states.append((old, received, user, reason))
        stamped[-1] = state
        return "replaced"

    async def modified(self, tags: Sequence[int], start: Micros, end: Micros) -> Modified:
        """See the protocol."""
        found = [
            (key, *each)
            for key, states in sorted(self._modified.items(), key=lambda item: item[0])
            if key[0] in set(tags) and start <= key[1] < end
            for each in states
        ]
        batch = self._batch((key[0], key[1], *state) for key, state, *_ in found)
        return Modified(
            batch,
            np.array([when for _, _, when, _, _ in found], np.int64),
            tuple(UpdateType.REPLACED for _ in found),
            tuple(user for *_, user, _ in found),
            tuple(reason for *_, reason in found),
        )

    async def grid(self, window: Window, *, known_by: Micros | None = None, received_by: Micros | None = None) -> Grid:
        """See the protocol."""
        oldest = int(window.reach.min(initial=window.start))
        samples = await self.read_samples(window.tags, oldest, window.end, known_by=known_by, received_by=received_by)
        return dense(samples, window)

    async def latest(self, tags: Sequence[int]) -> SampleBatch:
        """See the protocol; ordered by tag."""
        times = {tag: max(self._samples[tag]) for tag in sorted({int(tag) for tag in tags}) if tag in self._samples}
        return self._batch((tag, time, *self._samples[tag][time][-1]) for tag, time in times.items())

    def _batch(self, rows: Iterable[tuple[int, Micros, float, int, Micros, Micros, str | None]]) -> SampleBatch:
        columns = list(zip(*rows, strict=True))
        if not columns:
            return SampleBatch.empty()
        batch, texts = SampleBatch.of(*(np.array(column) for column in columns[:-1])), columns[-1]
        return replace(batch, text=np.array(texts, np.object_)) if any(text is not None for text in texts) else batch

    async def kept_since(self, tags: Sequence[int]) -> Mapping[int, Micros]:
        """See the protocol; nothing is dropped here."""
        return {}

    async def gaps(
        self,
        *,
        open_only: bool = False,
        since: datetime | None = None,
        until: datetime | None = None,
        source: str | None = None,
        tag: str | None = None,
        cause: GapCause | None = None,
        known_by: Micros | None = None,
        limit: int = 1000,
    ) -> tuple[Gap, ...]:
        """See the protocol."""
        newest_first = sorted(
            sorted(self._gaps_as_known(known_by), key=lambda gap: gap.id), key=_detected, reverse=True
        )
        found = (
            gap
            for gap in newest_first
            if since is None or gap.end is None or gap.end >= since
            if until is None or gap.start < until
            if source in {None, gap.source} and cause in {None, gap.cause}
            if tag is None or gap.tag in {None, tag}
            if not open_only or gap.state is GapState.OPEN
        )
        return tuple(found)[:limit]

    def _gaps_as_known(self, by: Micros | None) -> Iterator[Gap]:
        for states in self._gaps.values():
            known = [gap for since, gap in states if by is None or since <= by]
            yield from known[-1:]

    async def open_gaps(self) -> int:
        """See the protocol."""
        return sum(gap.state is GapState.OPEN for gap in self._gaps_as_known(None))

    async def remarks(
        self, *, tag: str | None = None, since: datetime | None = None, limit: int = 1000
    ) -> tuple[Remark, ...]:
        """See the protocol."""
        by_name = sorted(self._remarks.values(), key=lambda remark: (remark.source, remark.tag, remark.kind))
        newest_first = sorted(by_name, key=lambda remark: remark.source_time, reverse=True)
        found = (each for each in newest_first if since is None or each.source_time >= since)
        return tuple(each for each in found if tag in {None, each.tag})[:limit]

    async def next_time(self, start: Micros) -> Micros | None:
        """See the protocol."""
        return min((time for times in self._samples.values() for time in times if time >= start), default=None)

    async def write_import(self, record: Import, rejects: Sequence[Reject] = ()) -> None:
        """See the protocol."""
        self._imports[record.id] = record
        known = self._rejects.setdefault(record.id, {})
        if not record.position:
            known.clear()
        for reject in rejects:
            known.setdefault((reject.row, reject.column), reject)

    async def imports(self, *, id: str | None = None, limit: int = 100) -> tuple[Import, ...]:  # noqa: A002
        """See the protocol."""
        found = (record for record in self._imports.values() if id in {None, record.id})
        by_id = sorted(found, key=lambda record: record.id)
        return tuple(sorted(by_id, key=lambda record: record.started, reverse=True)[:limit])

    async def rejects(self, import_id: str, *, limit: int = 1_000_000) -> tuple[Reject, ...]:
        """See the protocol."""
        known = self._rejects.get(import_id, {})
        return tuple(known[key] for key in sorted(known))[:limit]

    async def counts(self) -> Mapping[str, int]:
        """See the protocol."""
        return {
            "samples": sum(len(stamped) for times in self._samples.values() for stamped in times.values()),
            "gaps": len(self._gaps),
            "predictions": len(self._predictions),
            "flags": len(self._flags),
            "runs": len(self._runs),
            "model_versions": sum(map(len, self._versions.values())),
        }


def _detected(gap: Gap) -> datetime:
    return gap.detected
