"""What people and the plant add to the measurements: events, laboratory, labels, and who changed what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened once, or a change of an alarm's state (OPC 10000-5, BaseEventType)."""

    id: str
    """EventId as hexadecimal digits, or a UUID: written twice it is one."""
    time: datetime
    """When it happened, by its source."""
    received: datetime
    source: str
    """Name of the plant server that told it, or ``foretag``."""
    source_name: str
    """What it is about, as its source names it."""
    type: str
    """BrowseName of the OPC UA type."""
    severity: int
    """1..1000."""
    message: str
    asset: str = ""
    condition: str = ""
    """Key of the alarm whose state it changed; empty: none."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """JSON: what its type adds."""


@dataclass(frozen=True, slots=True)
class LabSample:
    """What the laboratory measured of a specimen."""

    id: str
    """UUID, or the laboratory's own number; a later one with the same id corrects it, and the log says so."""
    asset: str
    quantity: str
    """What was measured; the output of a soft sensor that is to be compared has the same name."""
    taken: datetime
    """When the specimen was drawn: what a soft sensor's ``as_of`` is compared with."""
    known: datetime
    """When we had the result: a backtest must not see it earlier."""
    value: float | None
    unit: str
    status: int = 0
    user: str = ""
    note: str = ""


class LabelKind(StrEnum):
    """What somebody says happened. ``normal``: all was well in this stretch of time."""

    FAILURE = "failure"
    WORK_ORDER = "work_order"
    VERDICT = "verdict"
    NORMAL = "normal"


LASTING = frozenset({LabelKind.WORK_ORDER, LabelKind.NORMAL})
"""Without an end these last; the others are of a moment."""


class Verdict(StrEnum):
    """An operator's word on a raised flag."""

    CONFIRMED = "confirmed"
    FALSE_ALARM = "false_alarm"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Label:
    """A failure, a work order, a time when all was well, or a verdict on a flag."""

    id: str
    """A UUID; a later one with the same id replaces it, and the log says so."""
    kind: LabelKind
    asset: str
    start: datetime
    created: datetime
    """When we had it: a backtest must not see it earlier."""
    end: datetime | None = None
    """None: a moment, or it lasts (:data:`LASTING`). That all was well counts until it was told: nobody knows more."""
    verdict: Verdict | None = None
    """With ``model``, ``as_of`` and ``run`` for a verdict, else None: which flag it is about."""
    model: str = ""
    as_of: datetime | None = None
    run: int = 0
    reference: str = ""
    """Such as the number of a work order."""
    note: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """One change that a person or a promotion made. The log is only ever added to."""

    time: datetime
    user: str
    """Who; ``foretag`` for what a rule did."""
    origin: str
    """``command``, ``page``, ``opcua`` or ``service``."""
    action: str
    """Such as ``promote``, ``retire``, ``label``, ``lab``, ``correct``, ``reload``, ``import``, ``trust``."""
    subject: str
    """What was changed, such as ``rul-3`` or ``engine-01.T24``."""
    before: Mapping[str, Any] = field(default_factory=dict)
    """JSON."""
    after: Mapping[str, Any] = field(default_factory=dict)
