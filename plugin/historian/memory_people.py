"""The part of the store in memory that is about events and alarms, the laboratory, labels and the audit log."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from plugin.domain import Alarm, Audit, Event, Label, LabelKind, LabSample, Micros, ModelVersion, to_micros
from plugin.errors import StoreError
from plugin.historian import people_records as records


class MemoryPeople:
    """See :class:`plugin.protocols.Store`."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[int, ModelVersion]] = {}
        self._events: dict[str, Event] = {}
        self._alarms: dict[tuple[str, str], Alarm] = {}
        self._lab_samples: dict[str, LabSample] = {}
        self._labels: dict[str, Label] = {}
        self._log: list[Audit] = []

    async def write_events(self, events: Sequence[Event]) -> None:
        """See the protocol."""
        for event in events:
            _check_severity(event)
        for event in events:
            self._events.setdefault(event.id, event)

    async def events(
        self,
        start: datetime,
        end: datetime,
        *,
        source: str | None = None,
        asset: str | None = None,
        limit: int = 1000,
        oldest_first: bool = False,
    ) -> tuple[Event, ...]:
        """See the protocol."""
        found = (
            event
            for event in self._events.values()
            if start <= event.time < end and source in {None, event.source} and asset in {None, event.asset}
        )
        sign = 1 if oldest_first else -1
        return tuple(sorted(found, key=lambda event: (sign * to_micros(event.time), event.id))[:limit])

    async def write_alarms(self, alarms: Sequence[Alarm], events: Sequence[Event] = ()) -> None:
        """See the protocol; StoreError where a model version is named that there is not."""
        for alarm in alarms:
            _check_severity(alarm)
            if alarm.model and alarm.version not in self._versions.get(alarm.model, {}):
                raise StoreError(f"{alarm.model} has no version {alarm.version}")
        await self.write_events(events)
        for alarm in alarms:
            known = alarm if alarm.model else replace(alarm, version=0)
            self._alarms[alarm.id, alarm.branch] = known

    async def alarms(self, *, active_only: bool = False) -> tuple[Alarm, ...]:
        """See the protocol."""
        found = (alarm for alarm in self._alarms.values() if alarm.active or not active_only)
        return tuple(sorted(found, key=lambda each: (-each.severity, -to_micros(each.time), each.id, each.branch)))

    async def write_lab_samples(self, samples: Sequence[LabSample], *, origin: str = "command") -> int:
        """See the protocol."""
        news, entries = records.sort_out(samples, self._lab_samples, records.now(), origin)
        self._lab_samples |= news
        self._log += entries
        return len(news)

    async def lab_samples(
        self,
        asset: str | None,
        quantity: str | None,
        start: datetime,
        end: datetime,
        *,
        known_by: Micros | None = None,
    ) -> tuple[LabSample, ...]:
        """See the protocol."""
        found = list(self._lab_samples.values())
        if known_by is not None:
            corrections = self._corrections(records.LAB, known_by)
            found = records.as_known(found, corrections, known_by, records.lab_before)
        return records.chosen_lab(found, asset, quantity, start, end)

    async def write_labels(self, labels: Sequence[Label], *, origin: str = "command") -> int:
        """See the protocol."""
        news, entries = records.sort_out(labels, self._labels, records.now(), origin)
        self._labels |= news
        self._log += entries
        return len(news)

    async def labels(
        self,
        asset: str | None,
        start: datetime,
        end: datetime,
        *,
        kind: LabelKind | None = None,
        known_by: Micros | None = None,
    ) -> tuple[Label, ...]:
        """See the protocol."""
        found = list(self._labels.values())
        if known_by is not None:
            corrections = self._corrections(records.LABEL, known_by)
            found = records.as_known(found, corrections, known_by, records.label_before)
        return records.chosen_labels(found, asset, kind, start, end)

    async def write_audit(self, *entries: Audit) -> None:
        """See the protocol."""
        self._log += entries

    async def audit(
        self, since: datetime | None = None, *, action: str | None = None, limit: int = 1000
    ) -> tuple[Audit, ...]:
        """See the protocol."""
        newest = sorted(enumerate(self._log), key=lambda each: (each[1].time, each[0]), reverse=True)
        found = (entry for _, entry in newest if action in {None, entry.action})
        return tuple(entry for entry in found if since is None or entry.time >= since)[:limit]

    def _corrections(self, subject: str, later_than: Micros) -> list[Audit]:
        return [
            entry
            for entry in self._log
            if entry.action == records.CORRECT
            and entry.subject.startswith(subject)
            and to_micros(entry.time) > later_than
        ]


def _check_severity(each: Event | Alarm) -> None:
    if not 1 <= each.severity <= 1000:
        raise StoreError(f"{each.id}: a severity is 1 to 1000, not {each.severity}")
