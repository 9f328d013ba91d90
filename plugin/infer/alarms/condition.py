"""What can be wrong with an asset, a model or a source: the description of one alarm, which never changes."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class ConditionType(StrEnum):
    """BrowseNames of the types that are used (OPC 10000-9, 5.8)."""

    LEVEL = "ExclusiveLevelAlarmType"
    DEVIATION = "ExclusiveDeviationAlarmType"
    OFF_NORMAL = "OffNormalAlarmType"
    SYSTEM = "SystemDiagnosticAlarmType"
    SOURCE_LOST = "SourceLostAlarmType"
    """Our own, a SystemDiagnosticAlarmType."""
    INSTRUMENT = "InstrumentDiagnosticAlarmType"


class ConditionClass(StrEnum):
    """Whose business it is (OPC 10000-9, 5.9)."""

    PROCESS = "ProcessConditionClassType"
    MAINTENANCE = "MaintenanceConditionClassType"
    SYSTEM = "SystemConditionClassType"


@dataclass(frozen=True, slots=True)
class Rules:
    """What all alarms have in common, see :class:`plugin.infer.alarms.config.AlarmsConfig`."""

    on_delay: timedelta = timedelta(0)
    off_delay: timedelta = timedelta(0)
    realarm: timedelta = timedelta(0)
    """How long an alarm is active before it is raised again; 0: never."""
    confirm: bool = False
    """Operators confirm, after they acknowledged, that something was done."""
    longest_shelf: timedelta = timedelta(hours=8)
    branches: int = 3
    """Earlier states that wait to be acknowledged, at most; one more makes none."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One alarm of one source."""

    id: str
    """Unique and lasting: the name of its node."""
    name: str
    """For a person, such as ``Remaining life short``."""
    type: ConditionType
    classed: ConditionClass
    source: str
    """Asset, model or plant server."""
    severities: tuple[int, ...]
    """By level, from 1 on: 1..1000."""
    limits: tuple[float, ...] = ()
    """By level, from 1 on [unit of the input]; empty: it has no limits."""
    low: bool = False
    """Limits are crossed from above."""
    dead_band: float = 0.0
    """How far [unit of the input] a value returns behind a limit before it counts as returned."""
    asset: str = ""
    model: str = ""
    input: str = ""
    """:attr:`plugin.domain.OutputTag.name` that it follows; empty: none."""
    advice: str = ""
    """What to do, for a person."""
    rules: Rules = Rules()

    def severity(self, level: int) -> int:
        """Of a level, 1..1000; that of the first one where it is not active."""
        return self.severities[min(max(level, 1), len(self.severities)) - 1]

    @property
    def level_names(self) -> tuple[str, ...]:
        """BrowseNames of the limit states by level, from 1 on (OPC 10000-9, 5.8.19)."""
        if self.type not in {ConditionType.LEVEL, ConditionType.DEVIATION}:
            return ()
        return ("Low", "LowLow") if self.low else ("High", "HighHigh")

    def level_of(self, value: float, before: int) -> int:
        """Beyond which limit a value is; ``before``: the level that it comes from, left with the dead band alone."""
        beyond = 0
        for level, limit in enumerate(self.limits, 1):
            margin = self.dead_band if level <= before else 0.0
            past = value < limit + margin if self.low else value > limit - margin
            beyond = level if past else beyond
        return beyond
