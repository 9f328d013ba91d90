"""What models are, and what they give."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from models.meaning import Meaning
from plugin.domain.times import Micros


class ModelState(StrEnum):
    """Life of a model version."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A trained model: what it is, how it was made, how good it was, and the hash that its artifact must have."""

    model: str
    version: int
    """1, 2, … within the model."""
    kind: str
    state: ModelState
    created: datetime
    spec: Mapping[str, Any]
    """JSON: features, window, outputs and hyperparameters, as the kind reads them back."""
    metrics: Mapping[str, float]
    """On held-out groups, under plain names such as ``rmse`` or ``coverage``."""
    provenance: Mapping[str, Any]
    """JSON: data window, rows, seeds, code version, device, duration."""
    artifact: str
    """File name relative to the model folder."""
    sha256: str

    @property
    def label(self) -> str:
        """How it is named in logs and nodes, such as ``rul-3``."""
        return f"{self.model}-{self.version}"

    @property
    def figures(self) -> str:
        """Its metrics for a person, such as ``rmse 10.09, coverage 0.967``."""
        return ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())


@dataclass(frozen=True, slots=True)
class OutputTag:
    """A tag from the future: one number that a model gives for one asset, described before it has a value."""

    model: str
    asset: str
    output: str
    """Name of the output in the model's kind, such as ``rul``, ``health``, ``nox``, ``score``."""
    unit: str
    low: float
    high: float
    """Range of the value, for bar graphs [unit]."""
    description: str
    meaning: Meaning = Meaning.VALUE
    states: tuple[str, ...] = ()
    """Of a :attr:`Meaning.STATE`: their names; the value is the index of one."""
    confidence: float = field(default=0.9, compare=False)
    """Share of truths that its bounds are meant to hold."""
    warnings: tuple[float, ...] = field(default=(), compare=False)
    """Of a :attr:`Meaning.LIFETIME`: what is left [unit] when it is a matter for maintenance, most first."""
    cycle: timedelta | None = field(default=None, compare=False)
    """How long one unit of a :attr:`Meaning.LIFETIME` takes; None: not known."""

    @property
    def name(self) -> str:
        """Unique in one installation."""
        return f"{self.asset}.{self.model}.{self.output}"

    @property
    def flag(self) -> bool:
        """It is given as a :class:`Flag`, never as a :class:`Prediction`."""
        return self.meaning is Meaning.FLAG


@dataclass(frozen=True, slots=True)
class Outage:
    """What can't be seen of the plant at present."""

    away: frozenset[str]
    """Names of the sources that are away, or that say themselves that they can't be relied on."""
    sources: int
    """How many there are in all."""
    outputs: frozenset[str]
    """:attr:`OutputTag.name` of every output that draws on one of ``away``."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one model said of one output of one asset for one instant."""

    tag: OutputTag
    version: int
    """:attr:`ModelVersion.version`; 0: no model has run."""
    as_of: datetime
    """End of the window that was looked at: the prediction's source time."""
    target_time: datetime
    """The instant that the number speaks of; equals ``as_of`` for a soft sensor. A forecast is one prediction each."""
    valid_until: datetime
    """After this the value is stale, whatever the scheduler does."""
    value: float | None
    """None: no number (then the status is Bad)."""
    lower: float | None
    upper: float | None
    status: int
    coverage: float
    """Share of the window's grid cells that were observed, 0..1."""
    run: int
    """Key of the :class:`Run` that made it."""


@dataclass(frozen=True, slots=True)
class Flag:
    """The decision on an anomaly score: raised or not, and since when."""

    model: str
    asset: str
    version: int
    as_of: datetime
    raised: bool
    score: float
    threshold: float
    status: int
    run: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Which features made an output of an asset what it is."""

    tag: OutputTag
    as_of: datetime
    run: int
    shares: Mapping[str, float]
    """By feature, 0..1, largest first; they sum to 1, or to less where the small ones are left out."""


class Part(StrEnum):
    """What of a prediction, or of a flag, is meant."""

    VALUE = "value"
    """The number; of a flag 1 where it is raised, else 0."""
    LOWER = "lower"
    UPPER = "upper"
    SCORE = "score"
    """This and the next: of a flag."""
    THRESHOLD = "threshold"


class RunKind(StrEnum):
    """What a run did. ``shadow``: a challenger's scoring beside the champion's, to be compared and never published."""

    SCORE = "score"
    SHADOW = "shadow"
    TRAIN = "train"


class RunResult(StrEnum):
    """How a run ended. ``missed``: it never started, another still ran or the process was away."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class Run:
    """One scheduled execution."""

    id: int
    """0 until :meth:`plugin.protocols.Store.write_run` gives a key."""
    model: str
    kind: RunKind
    scheduled: datetime
    started: datetime | None = None
    finished: datetime | None = None
    result: RunResult = RunResult.RUNNING
    version: int = 0
    assets: int = 0
    error: str = ""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage: ``window``, ``infer``, ``store``, ``publish``."""
    unheard: Mapping[str, Micros] = field(default_factory=dict)
    """Sources that were away when it looked, each with its last word [µs]: nothing was held beyond it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that one scoring run gives to the store and to the sinks."""

    run: Run
    predictions: tuple[Prediction, ...]
    flags: tuple[Flag, ...]
    explanations: tuple[Explanation, ...] = ()


class DriftKind(StrEnum):
    """In what a model and the plant have come apart."""

    INPUT = "input"
    """An input lies beyond all that the training held."""
    DISTRIBUTION = "distribution"
    """An input lies where the training was, but is distributed otherwise."""
    BIAS = "bias"
    """The bias carries much: what is published is right, and rests on late truths more than on the model."""
    RESIDUAL = "residual"
    """Truths are farther from what was published than in training, or the bias carries more than it can."""
    COVERAGE = "coverage"
    """Truths fall into the intervals too seldom, or too often."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A model version and the plant have come apart; a later one with the same id replaces this."""

    id: str
    """A UUID."""
    model: str
    version: int
    kind: DriftKind
    asset: str
    subject: str
    """The feature, or the output, that it was seen in."""
    since: datetime
    """Of the first value that is unlike those before."""
    noticed: datetime
    until: datetime | None
    """None while it lasts; another version, or values as before, end it."""
    statistic: float
    """What was found, to be compared with ``limit``; which test it was stands in ``detail``."""
    limit: float
    detail: str
    """For a person."""

    @property
    def doubtful(self) -> bool:
        """What the version says of the asset is in doubt; else it is a remark on the model."""
        return self.kind not in {DriftKind.DISTRIBUTION, DriftKind.BIAS}


class ModelStanding(StrEnum):
    """Whether a model's outputs can be had. ``none``: no version fits the configuration, and none is on its way."""

    IN_FORCE = "in force"
    TRAINING = "to be trained"
    NONE = "none"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a model is doing."""

    model: str
    kind: str
    state: ModelStanding
    version: int = 0
    """In force; 0: none."""
    sha256: str = ""
    """Of its artifact."""
    run: Run | None = None
    """The last scoring, which may have failed or been missed."""
    shadow: Run | None = None
    """The last one of a challenger."""
    drifts: tuple[Drift, ...] = ()
    """Those that last, of the version in force."""
