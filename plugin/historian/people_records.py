"""Events, alarms, laboratory, labels and audit entries: nouns to rows and back, and what a correction leaves behind."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TypeVar

from plugin.domain import (
    LASTING,
    Alarm,
    Audit,
    Event,
    Label,
    LabelKind,
    LabSample,
    Micros,
    ModelState,
    Verdict,
    from_micros,
    to_micros,
)

Record = dict[str, Any]
Row = Mapping[str, Any]
Told = TypeVar("Told", Label, LabSample)
"""What a person says and may correct."""

CORRECT = "correct"
"""The action under which the audit log keeps what was corrected."""


def _stamp(time: datetime | None) -> Micros | None:
    return None if time is None else to_micros(time)


def _time(stamp: Micros | None) -> datetime | None:
    return None if stamp is None else from_micros(stamp)


# --- events and alarms ---


def event_record(event: Event) -> Record:
    """A row of ``events``."""
    return {
        "id": event.id,
        "time": to_micros(event.time),
        "received": to_micros(event.received),
        "source": event.source,
        "source_name": event.source_name,
        "asset": event.asset or None,
        "type": event.type,
        "condition": event.condition or None,
        "severity": event.severity,
        "message": event.message,
        "fields": dict(event.fields),
    }


def event_of(row: Row) -> Event:
    """From a row of ``events``."""
    times = {name: from_micros(row[name]) for name in ("time", "received")}
    return Event(**{**row, **times, "asset": row["asset"] or "", "condition": row["condition"] or ""})


_ALARM_TIMES = ("shelved_until", "time", "active_time", "acknowledged_time", "returned_time", "as_of")


def alarm_record(alarm: Alarm) -> Record:
    """A row of ``alarms``."""
    record: Record = {field.name: getattr(alarm, field.name) for field in fields(alarm)}
    record |= {name: _stamp(record[name]) for name in _ALARM_TIMES}
    record |= {"client_user": record.pop("user"), "run_id": record.pop("run") or None}
    return record | {"model": alarm.model or None, "version": alarm.version if alarm.model else None}


def alarm_of(row: Row) -> Alarm:
    """From a row of ``alarms``."""
    record = {**row, **{name: _time(row[name]) for name in _ALARM_TIMES}}
    record |= {"user": record.pop("client_user"), "run": record.pop("run_id") or 0}
    return Alarm(**record | {"model": row["model"] or "", "version": row["version"] or 0})


# --- what people say ---


def lab_record(sample: LabSample) -> Record:
    """A row of ``lab_samples``."""
    record: Record = {field.name: getattr(sample, field.name) for field in fields(sample)}
    times = {name: to_micros(record[name]) for name in ("taken", "known")}
    return record | times | {"user_name": record.pop("user")}


def lab_of(row: Row) -> LabSample:
    """From a row of ``lab_samples``."""
    record = {**row, **{name: from_micros(row[name]) for name in ("taken", "known")}}
    return LabSample(user=record.pop("user_name"), **record)


def label_record(label: Label) -> Record:
    """A row of ``labels``."""
    return {
        "id": label.id,
        "kind": label.kind,
        "asset": label.asset,
        "start_time": to_micros(label.start),
        "end_time": _stamp(label.end),
        "verdict": label.verdict,
        "model": label.model or None,
        "as_of": _stamp(label.as_of),
        "run_id": label.run or None,
        "reference": label.reference,
        "note": label.note,
        "user_name": label.user,
        "created": to_micros(label.created),
    }


def label_of(row: Row) -> Label:
    """From a row of ``labels``."""
    return Label(
        id=row["id"],
        kind=LabelKind(row["kind"]),
        asset=row["asset"],
        start=from_micros(row["start_time"]),
        end=_time(row["end_time"]),
        verdict=None if row["verdict"] is None else Verdict(row["verdict"]),
        model=row["model"] or "",
        as_of=_time(row["as_of"]),
        run=row["run_id"] or 0,
        reference=row["reference"],
        note=row["note"],
        user=row["user_name"],
        created=from_micros(row["created"]),
    )


# --- the audit log ---

SELF = "foretag"
"""The user of what a rule did."""
_ACTIONS = {ModelState.CHAMPION: "promote", ModelState.RETIRED: "retire", ModelState.CHALLENGER: "challenge"}
States = Mapping[int, tuple[ModelState | None, ModelState]]
"""By version of one model: its state before, None: it is new; and now."""


def now() -> datetime:
    """By our clock, in whole microseconds."""
    return from_micros(time.time_ns() // 1000)


_FIRST, _LAST = to_micros(datetime.min.replace(tzinfo=UTC)), to_micros(datetime.max.replace(tzinfo=UTC))


def readable(stamp: Micros) -> str:
    """In ISO 8601; a stamp that no calendar knows as the nearest that it does."""
    return from_micros(min(max(stamp, _FIRST), _LAST)).isoformat()


def promotions(
    model: str,
    changed: States,
    user: str,
    origin: str,
    at: datetime,
    because: Mapping[int, Mapping[str, Any]] = MappingProxyType({}),
) -> list[Audit]:
    """One entry for each version that is in another state; a new challenger is none, its own row tells of it.

    ``because``: what more is to be said of a version.
    """
    return [
        Audit(
            at,
            user,
            origin,
            _ACTIONS[after],
            f"{model}-{version}",
            {} if before is None else {"state": before.value},
            {"state": after.value, **because.get(version, {})},
        )
        for version, (before, after) in changed.items()
        if before is not None or after is ModelState.CHAMPION
    ]


def audit_record(entry: Audit) -> Record:
    """A row of ``audit_log`` without its key."""
    return {
        "time": to_micros(entry.time),
        "user_name": entry.user,
        "origin": entry.origin,
        "action": entry.action,
        "subject": entry.subject,
        "before": dict(entry.before),
        "after": dict(entry.after),
    }


def audit_of(row: Row) -> Audit:
    """From a row of ``audit_log``."""
    return Audit(
        time=from_micros(row["time"]),
        user=row["user_name"],
        origin=row["origin"],
        action=row["action"],
        subject=row["subject"],
        before=row["before"],
        after=row["after"],
    )


# --- corrections ---


LAB, LABEL = "lab sample ", "label "
"""How the log calls them, followed by the id."""


def subject(told: Label | LabSample) -> str:
    """What the audit log calls it."""
    return f"{LABEL if isinstance(told, Label) else LAB}{told.id}"


def learned(told: Label | LabSample) -> datetime:
    """When we had it."""
    return told.created if isinstance(told, Label) else told.known


def cleaned(told: Told) -> Told:
    """A value that is no number is none, as every store gives it back."""
    if isinstance(told, LabSample) and told.value is not None and math.isnan(told.value):
        return replace(told, value=None)
    return told


def changes(old: Label | LabSample, new: Label | LabSample) -> bool:
    """Whether ``new`` says something else: the same told again, by whomever and whenever, changes nothing."""
    if isinstance(old, Label):
        return not isinstance(new, Label) or replace(new, created=old.created, user=old.user) != old
    return not isinstance(new, LabSample) or replace(new, known=old.known, user=old.user) != old


def _entry(old: Told | None, new: Told, now: datetime, origin: str) -> Audit:
    """What was said first, or the correction, which keeps ``old`` as it was, whole."""
    if old is None:
        action = "label" if isinstance(new, Label) else "lab"
        return Audit(now, new.user, origin, action, subject(new), after=_as_json(new))
    return Audit(now, new.user, origin, CORRECT, subject(old), _as_json(old), _as_json(new))


def sort_out(
    told: Iterable[Told], known: Mapping[str, Told], now: datetime, origin: str
) -> tuple[dict[str, Told], list[Audit]]:
    """What is to be stored by id, and its entries in the audit log; ``known``: what is stored, by id."""
    news: dict[str, Told] = {}
    entries = []
    for each in map(cleaned, told):
        old = news.get(each.id, known.get(each.id))
        if old is None or changes(old, each):
            news[each.id] = each
            entries.append(_entry(old, each, now, origin))
    return news, entries


def as_known(
    told: Iterable[Told], corrections: Sequence[Audit], by: Micros, restore: Callable[[Mapping[str, Any]], Told]
) -> list[Told]:
    """What we had by then [µs]: what came later is left out, and what was corrected later is as it was before.

    ``corrections``: entries of :data:`CORRECT` of later than ``by``, in the order of the log.
    """
    then = {each.id: each for each in told}
    for entry in reversed(corrections):
        old = restore(entry.before)
        then[old.id] = old
    return [each for each in then.values() if to_micros(learned(each)) <= by]


def chosen_lab(
    found: Iterable[LabSample], asset: str | None, quantity: str | None, start: datetime, end: datetime
) -> tuple[LabSample, ...]:
    """Those that were asked for, in their order."""
    chosen = (
        each
        for each in found
        if start <= each.taken < end and asset in {None, each.asset} and quantity in {None, each.quantity}
    )
    return tuple(sorted(chosen, key=lambda each: (each.taken, each.asset, each.quantity, each.id)))


def chosen_labels(
    found: Iterable[Label], asset: str | None, kind: LabelKind | None, start: datetime, end: datetime
) -> tuple[Label, ...]:
    """Those that were asked for, in their order."""
    chosen = (
        each
        for each in found
        if each.start < end and _reaches(each, start) and asset in {None, each.asset} and kind in {None, each.kind}
    )
    return tuple(sorted(chosen, key=lambda each: (each.start, each.asset, each.kind, each.id)))


def _reaches(label: Label, start: datetime) -> bool:
    if label.start >= start:
        return True
    return label.kind in LASTING if label.end is None else label.end > start


def lab_before(before: Mapping[str, Any]) -> LabSample:
    """The lab sample that a correction replaced."""
    return LabSample(**_from_json(before))


def label_before(before: Mapping[str, Any]) -> Label:
    """The label that a correction replaced."""
    record = _from_json(before)
    verdict = record.pop("verdict")
    return Label(kind=LabelKind(record.pop("kind")), verdict=verdict and Verdict(verdict), **record)


_TOLD_TIMES = {"taken", "known", "start", "end", "created", "as_of"}


def _as_json(told: Label | LabSample) -> dict[str, Any]:
    record = {field.name: getattr(told, field.name) for field in fields(told)}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in record.items()}


def _from_json(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(value) if name in _TOLD_TIMES and value else value
        for name, value in record.items()
    }
