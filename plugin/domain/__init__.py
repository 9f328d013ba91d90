"""The nouns of foretag. Frozen values only: no database, no socket, no clock, no array library but NumPy.

Times that a person reads are aware UTC ``datetime``; columns of many times are ``int64`` microseconds since 1970-01-01
UTC (``Micros``). Intervals are half-open, ``[start, end)``.
"""

from models.meaning import Meaning
from plugin.domain.alarms import Alarm, AlarmState
from plugin.domain.archive import Level, Modified, RollUps, UpdateType
from plugin.domain.files import Import, Reject
from plugin.domain.gaps import Gap, GapCause, GapState, Remark, RemarkKind
from plugin.domain.people import LASTING, Audit, Event, Label, LabelKind, LabSample, Verdict
from plugin.domain.plant import Asset, Fill, Tag
from plugin.domain.quality import HIGH_LIMITED, Quality, Status, at_upper_limit, qualities, quality
from plugin.domain.results import (
    Drift,
    DriftKind,
    Explanation,
    Flag,
    ModelStanding,
    ModelState,
    ModelVersion,
    Outage,
    Outcome,
    OutputTag,
    Part,
    Prediction,
    Run,
    RunKind,
    RunResult,
    Standing,
)
from plugin.domain.samples import SampleBatch
from plugin.domain.times import Micros, from_micros, micros, to_micros
from plugin.domain.windows import Grid, Policies, Stretch, Window

__all__ = [
    "HIGH_LIMITED",
    "LASTING",
    "Alarm",
    "AlarmState",
    "Asset",
    "Audit",
    "Drift",
    "DriftKind",
    "Event",
    "Explanation",
    "Fill",
    "Flag",
    "Gap",
    "GapCause",
    "GapState",
    "Grid",
    "Import",
    "LabSample",
    "Label",
    "LabelKind",
    "Level",
    "Meaning",
    "Micros",
    "ModelStanding",
    "ModelState",
    "ModelVersion",
    "Modified",
    "Outage",
    "Outcome",
    "OutputTag",
    "Part",
    "Policies",
    "Prediction",
    "Quality",
    "Reject",
    "Remark",
    "RemarkKind",
    "RollUps",
    "Run",
    "RunKind",
    "RunResult",
    "SampleBatch",
    "Standing",
    "Status",
    "Stretch",
    "Tag",
    "UpdateType",
    "Verdict",
    "Window",
    "at_upper_limit",
    "from_micros",
    "micros",
    "qualities",
    "quality",
    "to_micros",
]
