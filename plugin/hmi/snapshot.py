"""What the operator's views show: one frozen picture of the running service.

Ages are durations, so no view needs a clock.
"""

from dataclasses import dataclass
from datetime import timedelta

from plugin.domain import Status


@dataclass(frozen=True, slots=True)
class Reading:
    """A number as it is shown: never without its bounds (where it has some) and its status."""

    value: float | None
    """[unit]; None: there is none, and the status says why."""
    lower: float | None = None
    upper: float | None = None
    unit: str = ""
    status: int = Status.GOOD


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One plant server."""

    name: str
    connected: bool
    history_done: int
    """Tags whose past is read, or is known to be unreadable."""
    history_total: int
    history_samples: int
    away: bool = False
    """Its values don't arrive or can't be relied on."""
    trouble: str = ""
    """What is not well, for a person."""
    unwell: tuple[tuple[str, int], ...] = ()
    """How many tags are refused, silent, late, flat; those states alone that some are in."""


@dataclass(frozen=True, slots=True)
class TrainingLine:
    """A training that runs now."""

    model: str
    share: float
    """0..1."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class AssetLine:
    """What the models say of one asset; None: no model says it."""

    name: str
    status: int
    """The worst of the asset's predictions."""
    data_age: timedelta | None
    """Since the newest sample of the asset; None: no sample yet."""
    rul: Reading | None = None
    health: Reading | None = None
    """0..1, 1 = new."""
    flag: bool | None = None
    score: float | None = None
    threshold: float | None = None
    quality: Reading | None = None
    quality_name: str = ""
    """What the soft sensor infers, such as ``NOx``."""
    lab: float | None = None
    """The newest laboratory value [unit of ``quality``]."""
    lab_age: timedelta | None = None
    """From the laboratory sample's source time to the newest data of the asset."""


@dataclass(frozen=True, slots=True)
class ModelLine:
    """One model's work."""

    name: str
    version: int
    """0: none is trained yet."""
    since_run: timedelta | None
    """Since the last run that succeeded; None: none has."""
    assets: int
    """Assets scored in that run."""
    inference: timedelta | None
    """Time of the compiled call in that run."""
    missed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Since the start of the process."""

    samples_stored: int
    samples_per_second: float
    gaps_open: int
    dropped: int
    loop_lag_p99: timedelta | None
    """How late the event loop wakes a timer; None: not yet known."""
    storing: str = "writing"
    """Where samples go: ``writing`` into the database, ``spilling``, or ``waiting`` at the plant's servers."""
    spilled: int = 0
    """Samples in the spill now."""
    disk_full: timedelta | None = None
    """Until the database's disk is full, where that is within 30 days."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole picture."""

    uptime: timedelta
    sources: tuple[SourceLine, ...]
    trainings: tuple[TrainingLine, ...]
    assets: tuple[AssetLine, ...]
    models: tuple[ModelLine, ...]
    totals: Totals
