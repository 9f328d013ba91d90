"""The ``[[models]]`` sections: what a model watches, how it learns, and when it runs."""

from datetime import date, timedelta
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from models import calendar
from models.cleaning import Cleaning
from models.kind import Form
from plugin.fields import Duration, Section
from plugin.infer.flags import Rule

LATE_ROLES = ("lab", "outcome")
"""Roles whose samples come late by nature: a value stands for its own cell alone, and none is missed in the newest."""

Learn = Literal["failures", "laboratory", "normal", "series", "labels"]
How = Literal["scratch", "onwards", "head"]
Calendar = Literal["hour_of_day", "day_of_week", "day_off"]
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class ScheduleConfig(Section):
    """When a model runs. Ticks lie on whole multiples of ``every`` since 1970 UTC, shifted by ``offset``."""

    every: Duration = Field(default=timedelta(minutes=1), gt=timedelta(0))
    """Time between two runs. A start begins with the last one that was due, where it was not done."""
    offset: Duration = timedelta(0)
    """How long a run waits for late data: the run at 12:00:05 with an offset of 5 s looks at data before 12:00:00."""
    deadline: Duration | None = Field(default=None, gt=timedelta(0))
    """A run that takes longer is given up, counted and recorded; default: ``every``."""

    @property
    def limit(self) -> timedelta:
        """The deadline that applies."""
        return self.deadline or self.every


class TrainingConfig(Section):
    """How a model is trained from the historian."""

    learn: Learn
    """What people say (``foretag label``) counts with each: a failure ends a run, a work order begins another, a flag
    that was a false alarm shows healthy cells.
    ``failures``: cycles left until the unit's run ends, a run ending where the role ``age`` starts over, or where a
    failure is told (an overhaul in good time is no end of a life: tell of it as a work order; predictions are proven by
    failures that are told alone; one that is told late, within three days and while the age is below a tenth of what it
    was, is of the life before);
    ``laboratory``: the value of the role ``lab`` at its own source time; ``normal``: how it looks while all is well;
    ``series``: what the role ``target`` is later, in blocks of time;
    ``labels``: whether a failure label begins within ``horizon`` or, with a tag in the role ``outcome``, what that says
    of its own time (0 or 1: an item that failed, a test not passed)."""
    at_start: bool = True
    """Train by itself when there is no model yet and the history has been read."""
    history: Duration = Field(default=timedelta(days=3650), gt=timedelta(0))
    """How far back to look."""
    clean: float = Field(default=0.5, gt=0.0, le=1.0)
    """For ``normal``: the share of each run, from its start, that counts as healthy (all cells where nothing ages)."""
    light: Form = "no"
    """Make it small: ``bf16`` (weights of two bytes, multiplied as such where the processor can), ``int8`` (of one
    byte), ``pruned`` (int8, and the smallest third of them left out) or ``student`` (a small network of one member that
    learns from the full one: a remaining life or a probability)."""
    light_error: float = Field(default=0.05, gt=0.0, allow_inf_nan=False)
    """How far a light model may stray from the full one: 95 % of the windows it is tried on, as a share of the
    output's standard deviation; of a state, the share of the windows in another one. One that strays farther is
    refused."""
    keep: Duration = Field(default=timedelta(seconds=30), ge=timedelta(0))
    """How often it is kept how far a training is: one that is cut off goes on there if the same is begun within a day;
    0: never."""
    retry: Duration = Field(default=timedelta(minutes=1), gt=timedelta(0))
    """When the history does not hold enough yet: time until the next try."""


class PromotionConfig(Section):
    """Who puts a challenger in force. What a rule did is in the audit log with its figures, and can be rolled back."""

    by: Literal["person", "rule"] = "person"
    """``person``: ``foretag models promote`` alone; ``rule``: by itself too, once all of what follows holds."""
    margin: float = Field(default=0.05, ge=0.0, lt=1.0)
    """By which share its error must be lower than the champion's, on the same truths."""
    outcomes: int = Field(default=50, ge=2)
    """On how many truths at least."""
    tolerance: float = Field(default=0.03, ge=0.0, le=1.0)
    """How far the coverage of its intervals may be from 90 %, as a share; farther only if the champion's is so too."""


class RetrainingConfig(Section):
    """When a model is trained again by itself. What comes of it is a challenger."""

    every: Duration | None = Field(default=None, gt=timedelta(0))
    """Time from one training to the next; default: never."""
    on_drift: bool = False
    """Whenever a drift of the version in force was noticed, once for each."""
    how: How = "scratch"
    """``scratch``: from all of the past; ``onwards``: from the weights of the version in force, with what came since;
    ``head``: the same, but its last layer alone, for which little is enough. Not every kind can go on."""
    worse: float = Field(default=0.5, ge=0.0)
    """A challenger whose error on held-out data is higher than the champion's was by more than this share is retired at
    once; the audit log says why."""


class CleaningConfig(Section):
    """What counts as not observed before the model sees it, in training and live alike; a change takes a new training.
    What each step took is counted in ``foretag_cells_cleaned_total``, and in the provenance of a version."""

    range: bool = False
    """Values outside of the tag's ``low`` and ``high``."""
    spike: float = Field(default=0.0, ge=0.0, le=1000.0)
    """Values so many standard deviations from the median of the last ``spike_cells`` cells (Hampel), and farther than
    1 % of the tag's range; 0: none. A step of the process is believed when half of those cells have followed it."""
    spike_cells: int = Field(default=9, ge=3, le=101)
    """How many cells that are, the newest among them."""
    stuck: Duration = timedelta(0)
    """A value that has been the very same for longer; 0: never. Not for tags that report changes alone."""
    odd_runs: float = Field(default=0.0, ge=0.0, le=1000.0)
    """Training alone: whole runs, a feature of which has a median so many standard deviations from the fleet's, are
    left out; 0: none."""
    features: tuple[str, ...] = ()
    """That are cleaned; default: all that have no role."""


class ExplainConfig(Section):
    """Which features made a result what it is: told with every raised flag, and with every short remaining life."""

    most: int = Field(default=20, ge=0, le=1000)
    """Assets of one run that are explained, those that are worst; 0: none. Half the deadline is the time for it."""
    below: float | None = Field(default=None, allow_inf_nan=False)
    """A remaining life [its unit] is explained from there on; default: the first of ``warnings``."""
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Features that are told as one, such as ``temperatures = ["T24", "T30"]``; the others stand for themselves."""


class ModelConfig(Section):
    """One model: a kind, the assets that it watches, and their features."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Unique; part of every node and row of this model: lower case letters, digits, underscore."""
    kind: str
    """Name of a model kind, such as ``rul_lstm``."""
    enabled: bool = True
    """False: it neither runs nor learns; its nodes stay, out of service."""
    assets: tuple[str, ...] = Field(min_length=1)
    """Names of assets; ``*`` and ``?`` are wildcards."""
    features: tuple[str, ...] = Field(min_length=1)
    """Inputs by feature; every asset must have a tag for each."""
    roles: dict[str, str] = Field(default_factory=dict)
    """Special features by role, such as ``age = "cycle"``; each must be among the features. ``setting_1``,
    ``setting_2``, … of ``rul_lstm``: what is asked of the machine (load, speed), so that it is not taken for wear."""
    calendar: tuple[Calendar, ...] = ()
    """What the model is told of the date: more inputs, which are never missing and count for no coverage."""
    time_zone: str = "UTC"
    """Whose date and time of day that is, such as ``Europe/Berlin``; another one takes a new training."""
    days_off: tuple[str, ...] = ("saturday", "sunday")
    """For ``day_off``: days of the week, other ones take a new training; and dates such as ``2026-12-25``, which may be
    added at any time."""
    window: Duration = Field(gt=timedelta(0))
    """How far back the model looks, at most."""
    step: Duration = Field(gt=timedelta(0))
    """Width of a cell of the window's regular grid; cells, and so windows, end on whole steps since 1970 UTC."""
    hold: Duration = timedelta(minutes=1)
    """How long a value stands for itself while no newer one arrives; never across a gap, never for late roles."""
    recent: Duration | None = None
    """The stretch before the window's end whose coverage decides the status; default: the window."""
    required: float = Field(default=0.8, ge=0.0, le=1.0)
    """Share of the recent cells that must be observed for a Good prediction."""
    horizon: Duration = timedelta(0)
    """How far ahead the prediction speaks; 0 for the present."""
    valid: Duration | None = Field(default=None, gt=timedelta(0))
    """How long a prediction stands before it is stale; default: three times the longer of ``schedule.every`` and
    ``step``."""
    persistence: int = Field(default=3, ge=1)
    """Runs in a row with the score over (under) the threshold before a flag is raised (withdrawn)."""
    on_delay: Duration | None = None
    """In place of ``persistence``: how long the score must have been over the threshold before a flag is raised. Time
    in which nothing is known does not count."""
    off_delay: Duration | None = None
    """In place of ``persistence``: how long it must have been under before the flag is withdrawn."""
    dead_band: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the threshold that the score must fall below it to count as under, so that a flag does not flutter."""
    warnings: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] | None = None
    """Of a remaining life: what is left [its unit] when it is a matter for maintenance, and when it is urgent; default:
    a quarter and a tenth of its range."""
    cycle: Duration | None = Field(default=None, gt=timedelta(0))
    """How long a cycle takes on average, where a remaining life is told in cycles: clients then read a date too.
    Default: not known."""
    schedule: ScheduleConfig = ScheduleConfig()
    """When it runs."""
    training: TrainingConfig
    """How it learns."""
    promotion: PromotionConfig = PromotionConfig()
    """Who puts a challenger in force."""
    retraining: RetrainingConfig = RetrainingConfig()
    """When it is trained again by itself."""
    monitor: bool = True
    """Watch whether it still fits: its inputs, what it leaves unexplained, and how often its intervals hold. While it
    does not, what it says of that asset is Uncertain; at once where an input is half of its training's range beyond it,
    as in another unit."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Hyperparameters of the kind."""
    shadow: int = Field(default=1, ge=0, le=8)
    """Challengers, the newest, that are scored beside the version in force, stored and never published; 0: none."""
    cleaning: CleaningConfig = CleaningConfig()
    """What the model is not to see."""
    explain: ExplainConfig = ExplainConfig()
    """What is told of the reasons."""
    seed: int = 0
    """Of all that is random in its training."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The feature axis of the model: the features, then those of the calendar."""
        return (*self.features, *(name for asked in self.calendar for name in calendar.FEATURES[asked]))

    @property
    def length(self) -> int:
        """Cells in a window."""
        return self.window // self.step

    @property
    def cleaning_steps(self) -> dict[str, Any]:
        """As a spec has them."""
        c = self.cleaning
        stuck = c.stuck // self.step
        return Cleaning(c.range, c.spike, c.spike_cells, stuck, c.odd_runs, c.features).as_spec()

    @property
    def calendar_terms(self) -> dict[str, Any]:
        """As a spec has them: what the calendar's features mean. Which dates are off is a fact, as a sample is."""
        if not self.calendar:
            return {}
        off = [day for day in WEEKDAYS if day in self.days_off] if "day_off" in self.calendar else []
        return {"time_zone": self.time_zone, "days_off": off}

    @property
    def late(self) -> tuple[bool, ...]:
        """Whether a feature comes late by nature, in the order of the features."""
        roles = {self.roles.get(role) for role in LATE_ROLES}
        return tuple(feature in roles for feature in self.features)

    @property
    def recent_cells(self) -> int:
        """Cells whose coverage decides the status."""
        return min(self.length, (self.recent or self.window) // self.step)

    @property
    def rule(self) -> Rule:
        """When flags are raised and withdrawn."""
        return Rule(self.persistence, self.schedule.every, self.on_delay, self.off_delay, self.dead_band)

    @property
    def validity(self) -> timedelta:
        """How long a prediction stands."""
        return self.valid or 3 * max(self.schedule.every, self.step)

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f'{name} is no time zone; write its IANA name, such as "Europe/Berlin", or UTC') from error
        return name

    @field_validator("days_off")
    @classmethod
    def _are_days(cls, days: tuple[str, ...]) -> tuple[str, ...]:
        for day in days:
            if day not in WEEKDAYS:
                try:
                    date.fromisoformat(day)
                except ValueError as error:
                    raise ValueError(f"{day} is no day; write one as saturday, or as 2026-12-25") from error
        return days

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.window < self.step:
            raise ValueError("window is shorter than step; make it a multiple of step")
        if self.recent is not None and self.recent < self.step:
            raise ValueError("recent is shorter than step; make it a multiple of step, or leave it out for the window")
        if all(self.late):
            raise ValueError("features: all come late (roles lab, outcome); name one more, from which to tell")
        if len(set(self.features)) != len(self.features):
            raise ValueError("features names one twice; name each once")
        if len(set(self.calendar)) != len(self.calendar) or set(self.inputs[len(self.features) :]) & set(self.features):
            raise ValueError("calendar names one twice, or one that is among the features already; name each once")
        if self.training.learn == "series" and "target" not in self.roles:
            raise ValueError('training.learn = "series" needs roles.target, the feature that is to be forecast')
        if self.training.learn == "labels" and "outcome" not in self.roles and not self.horizon:
            raise ValueError("horizon is 0: say how long before a failure its label counts, or give a role outcome")
        strangers = {feature for feature in self.roles.values() if feature not in self.features}
        if strangers:
            raise ValueError(f"roles name features that are not listed: {sorted(strangers)}; add them to features")
        if unknown := sorted(set(self.cleaning.features) - set(self.features)):
            raise ValueError(f"cleaning.features: {unknown} are not among features; mend their spelling")
        if self.training.light != "no" and self.retraining.how != "scratch":
            raise ValueError('retraining.how: a light model is trained from scratch; write "scratch"')
        if timedelta(0) < self.cleaning.stuck < self.step:
            raise ValueError("cleaning.stuck is shorter than step; make it some cells long, or 0")
        self._check_groups()
        return self

    def _check_groups(self) -> None:
        grouped = [feature for features in self.explain.groups.values() for feature in features]
        if wrong := sorted({name for name in grouped if name not in self.features or grouped.count(name) > 1}):
            raise ValueError(f"explain.groups: each name must be one of features, and in one group: mend {wrong}")
        if taken := sorted(set(self.explain.groups) & set(self.features)):
            raise ValueError(f"explain.groups: {taken} are names of features; give the groups others")
