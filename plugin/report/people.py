"""``foretag label list``, ``lab list`` and ``audit``: what people told and did, for a person and for a program."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from plugin.domain import Audit, Label, LabSample, quality
from plugin.report.layout import headed, printable

_LONGEST = 200
"""Characters of what changed in the table; ``--json`` shows all."""


def labels_view(labels: Sequence[Label]) -> RenderableType:
    """A line per label, in the order given."""
    table = headed("begin, local", "end", "kind", "asset", "what", "user", "id")
    for label in labels:
        texts = _texts(label.kind, label.asset, _what(label), label.user, label.id)
        table.add_row(_local(label.start), _local(label.end), *texts)
    return _counted(table, len(labels), "label")


def _what(label: Label) -> str:
    flag = f"{label.verdict.value} of {label.model}" if label.verdict is not None else ""
    return ", ".join(part for part in (flag, label.reference, label.note) if part)


def lab_view(samples: Sequence[LabSample]) -> RenderableType:
    """A line per result, in the order given."""
    table = headed("taken, local", "known", "asset", "quantity", ">value", "unit", "quality", "note", "user", "id")
    for sample in samples:
        value = "" if sample.value is None else f"{sample.value:g}"
        good = quality(sample.status).name.capitalize()
        texts = _texts(sample.asset, sample.quantity, value, sample.unit, good, sample.note, sample.user, sample.id)
        table.add_row(_local(sample.taken), _local(sample.known), *texts)
    return _counted(table, len(samples), "result")


def audit_view(entries: Sequence[Audit]) -> RenderableType:
    """A line per entry, in the order given."""
    table = headed("time, local", "user", "origin", "action", "subject", "change")
    for entry in entries:
        texts = _texts(entry.user, entry.origin, entry.action, entry.subject, _change(entry))
        table.add_row(_local(entry.time), *texts)
    return _counted(table, len(entries), "entr", "y", "ies")


def _change(entry: Audit) -> str:
    """What differs, before → after."""
    names = [name for name in {**entry.before, **entry.after} if entry.before.get(name) != entry.after.get(name)]
    told = ", ".join(f"{name}: {_step(entry.before.get(name), entry.after.get(name))}" for name in names)
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]}…"


def _step(before: Any, after: Any) -> str:
    return _short(after) if before is None else f"{_short(before)} → {_short(after)}"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else "nothing" if value is None else json.dumps(value, ensure_ascii=False)


def told_record(noun: Label | LabSample | Audit) -> dict[str, Any]:
    """As JSON: times in ISO 8601, UTC."""
    return {
        name: value.astimezone(UTC).isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
        for name, value in asdict(noun).items()
    }


def _local(time: datetime | None) -> str:
    return "" if time is None else f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def _texts(*texts: str) -> tuple[Text, ...]:
    return tuple(Text(printable(text)) for text in texts)


def _counted(table: Table, count: int, noun: str, one: str = "", many: str = "s") -> RenderableType:
    told = Text(f"{count:,} {noun}{one if count == 1 else many}")
    return Group(table, Text(), told) if count else told
