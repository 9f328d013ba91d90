"""The part of the store in memory that is about models: their versions and runs, and what they give."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from plugin.domain import (
    Drift,
    Explanation,
    Flag,
    Meaning,
    Micros,
    ModelState,
    ModelVersion,
    Outcome,
    OutputTag,
    Part,
    Prediction,
    Run,
    RunKind,
    SampleBatch,
    to_micros,
)
from plugin.errors import StoreError
from plugin.historian.looks import Looks
from plugin.historian.memory_people import MemoryPeople
from plugin.historian.people_records import SELF, now, promotions
from plugin.historian.told import series


class MemoryResults(MemoryPeople):
    """See :class:`plugin.protocols.Store`."""

    def __init__(self) -> None:
        super().__init__()
        self._looks = Looks()
        self._runs: dict[int, Run] = {}
        self._predictions: dict[tuple[object, ...], Prediction] = {}
        self._flags: dict[tuple[object, ...], Flag] = {}
        self._explanations: dict[tuple[object, ...], Explanation] = {}
        self._drifts: dict[str, Drift] = {}

    async def write_run(self, run: Run) -> Run:
        """See the protocol; StoreError where there is no run with its key."""
        if run.id and run.id not in self._runs:
            raise StoreError(f"There is no run {run.id}")
        if not run.id:
            self._looks.begun(run)
        run = replace(run, id=run.id or len(self._runs) + 1)
        self._runs[run.id] = run
        return run

    async def write_outcome(self, outcome: Outcome) -> None:
        """See the protocol. A prediction or flag that its run has written already stays as it is."""
        for run in {*(each.run for each in outcome.predictions), *(flag.run for flag in outcome.flags)}:
            if run not in self._runs:
                raise StoreError(f"There is no run {run}")
        await self.write_run(outcome.run)
        for each in outcome.predictions:
            self._predictions.setdefault((each.tag.name, each.as_of, each.target_time, each.run), each)
        for flag in outcome.flags:
            self._flags.setdefault((flag.model, flag.asset, flag.as_of, flag.run), flag)
        for told in outcome.explanations:
            self._explanations.setdefault((told.tag.name, told.as_of, told.run), told)

    async def predictions(
        self,
        model: str,
        start: datetime,
        end: datetime,
        *,
        asset: str | None = None,
        output: str | None = None,
        shadow: bool = False,
    ) -> tuple[Prediction, ...]:
        """See the protocol."""
        found = (
            each
            for each in self._predictions.values()
            if each.tag.model == model and start <= each.as_of < end
            if asset in {None, each.tag.asset} and output in {None, each.tag.output}
            if self._in_shadow(each.run) is shadow
        )
        return tuple(sorted(found, key=lambda e: (e.as_of, e.tag.asset, e.tag.output, e.target_time, e.run)))

    def _in_shadow(self, run: int) -> bool:
        return self._runs[run].kind is RunKind.SHADOW

    async def flags(
        self, start: datetime, end: datetime, *, asset: str | None = None, shadow: bool = False
    ) -> tuple[Flag, ...]:
        """See the protocol."""
        found = (
            flag
            for flag in self._flags.values()
            if start <= flag.as_of < end and asset in {None, flag.asset} and self._in_shadow(flag.run) is shadow
        )
        return tuple(sorted(found, key=lambda flag: (flag.as_of, flag.model, flag.asset, flag.run)))

    async def told(
        self,
        tag: OutputTag,
        part: Part,
        start: Micros,
        end: Micros,
        *,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> SampleBatch:
        """See the protocol."""
        found: dict[Micros, tuple[tuple[Any, ...], float | None, int, datetime]] = {}
        for time, order, value, status in self._said(tag, part):
            if start <= time < end and order > found.get(time, ((),))[0]:
                found[time] = order, value, status, self._runs[order[-1]].finished or order[0]
        times = sorted(found, reverse=newest_first)[:limit]
        return series([(time, *found[time][1:3], to_micros(found[time][3])) for time in times], part)

    def _said(self, tag: OutputTag, part: Part) -> Iterator[tuple[Micros, tuple[Any, ...], float | None, int]]:
        """Time, what orders those of one time (the moment and the run), value, status."""
        by_target = tag.meaning is Meaning.FORECAST
        for flag in self._flags.values() if tag.flag else ():
            if (flag.model, flag.asset) == (tag.model, tag.asset) and not self._in_shadow(flag.run):
                value = float(flag.raised) if part is Part.VALUE else getattr(flag, part)
                yield to_micros(flag.as_of), (flag.as_of, flag.run), value, flag.status
        for each in self._predictions.values():
            if each.tag.name == tag.name and not self._in_shadow(each.run):
                time = each.target_time if by_target else each.as_of
                yield to_micros(time), (each.as_of, each.run), getattr(each, part), each.status

    async def explanations(
        self, model: str, start: datetime, end: datetime, *, asset: str | None = None
    ) -> tuple[Explanation, ...]:
        """See the protocol."""
        found = (
            each
            for each in self._explanations.values()
            if each.tag.model == model and start <= each.as_of < end and asset in {None, each.tag.asset}
        )
        return tuple(sorted(found, key=lambda e: (e.as_of, e.tag.asset, e.tag.output, e.run)))

    async def write_drifts(self, drifts: Sequence[Drift]) -> None:
        """See the protocol; StoreError where a model version is named that there is not."""
        for drift in drifts:
            if drift.version not in self._versions.get(drift.model, {}):
                raise StoreError(f"{drift.model} has no version {drift.version}")
        self._drifts.update((drift.id, drift) for drift in drifts)

    async def drifts(
        self,
        *,
        model: str | None = None,
        open_only: bool = False,
        since: datetime | None = None,
        limit: int = 1000,
    ) -> tuple[Drift, ...]:
        """See the protocol."""
        by_id = sorted(self._drifts.values(), key=lambda drift: drift.id)
        found = sorted(by_id, key=lambda drift: drift.noticed, reverse=True)
        wanted = (each for each in found if model in {None, each.model} and not (open_only and each.until))
        lasting = (each for each in wanted if since is None or each.until is None or each.until > since)
        return tuple(lasting)[:limit]

    async def runs(self, model: str, limit: int = 100) -> tuple[Run, ...]:
        """See the protocol."""
        found = (run for run in self._runs.values() if run.model == model)
        return tuple(sorted(found, key=lambda run: (run.scheduled, run.id), reverse=True)[:limit])

    async def add_version(self, version: ModelVersion, *, user: str = SELF, origin: str = "service") -> ModelVersion:
        """See the protocol; a champion retires the one before it."""
        changed = self._retire_champion(version.model) if version.state is ModelState.CHAMPION else {}
        versions = self._versions.setdefault(version.model, {})
        version = replace(version, version=len(versions) + 1)
        versions[version.version] = version
        changed[version.version] = None, version.state
        self._log.extend(promotions(version.model, changed, user, origin, now()))
        return version

    async def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """See the protocol."""
        return tuple(reversed(self._versions.get(model, {}).values()))

    async def set_state(
        self,
        model: str,
        version: int,
        state: ModelState,
        *,
        user: str = SELF,
        origin: str = "service",
        because: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """See the protocol; StoreError where there is no such version."""
        versions = self._versions.get(model, {})
        if version not in versions:
            raise StoreError(f"{model} has no version {version}")
        before = versions[version].state
        if before is state:
            return
        changed = self._retire_champion(model) if state is ModelState.CHAMPION else {}
        versions[version] = replace(versions[version], state=state)
        changed[version] = before, state
        self._log.extend(promotions(model, changed, user, origin, now(), {version: because}))

    def _retire_champion(self, model: str) -> dict[int, tuple[ModelState | None, ModelState]]:
        versions = self._versions.get(model, {})
        champions = [number for number, version in versions.items() if version.state is ModelState.CHAMPION]
        for number in champions:
            versions[number] = replace(versions[number], state=ModelState.RETIRED)
        return dict.fromkeys(champions, (ModelState.CHAMPION, ModelState.RETIRED))
