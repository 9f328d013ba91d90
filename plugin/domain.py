"""The nouns of foretag. Frozen values only: no database, no socket, no clock, no array library but NumPy.

Times that a person reads are aware UTC ``datetime``; columns of many times are ``int64`` microseconds since 1970-01-01
UTC (``Micros``). Intervals are half-open, ``[start, end)``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Micros = int
"""Microseconds since 1970-01-01 UTC."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(time: datetime) -> Micros:
    """Exact microseconds since 1970 of an aware time; a naive one is a programming error and raises TypeError."""
    return (time - _EPOCH) // _MICROSECOND


def from_micros(micros: Micros) -> datetime:
    """The aware UTC time of microseconds since 1970; OverflowError outside the years 1 to 9999."""
    return _EPOCH + timedelta(microseconds=int(micros))


# --- quality -----------------------------------------------------------------------------------------------------


class Quality(IntEnum):
    """Severity of a StatusCode (OPC 10000-4, 7.39.1, bits 30-31); higher is worse."""

    GOOD = 0
    UNCERTAIN = 1
    BAD = 2


class Status(IntEnum):
    """The StatusCodes that foretag itself gives (OPC 10000-4, table 'common StatusCodes'; OPC 10000-8)."""

    GOOD = 0x00000000
    UNCERTAIN = 0x40000000
    UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE = 0x408F0000
    UNCERTAIN_LAST_USABLE_VALUE = 0x40900000
    UNCERTAIN_INITIAL_VALUE = 0x40920000
    UNCERTAIN_ENGINEERING_UNITS_EXCEEDED = 0x40940000
    UNCERTAIN_SUB_NORMAL = 0x40950000
    UNCERTAIN_SIMULATED_VALUE = 0x42090000
    BAD = 0x80000000
    BAD_NO_COMMUNICATION = 0x80310000
    BAD_WAITING_FOR_INITIAL_DATA = 0x80320000
    BAD_CONFIGURATION_ERROR = 0x80890000
    BAD_OUT_OF_SERVICE = 0x808D0000
    BAD_NO_DATA = 0x809B0000


def quality(status: int) -> Quality:
    """Severity only: info bits (overflow, limit, historian bits) never turn Good into Bad."""
    return Quality(min(status >> 30 & 0b11, Quality.BAD))


def qualities(status: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """:func:`quality` of a column."""
    severity: NDArray[np.uint8] = np.minimum(status >> np.uint32(30), np.uint32(Quality.BAD)).astype(np.uint8)
    return severity


# --- what the plant has ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tag:
    """A configured plant measurement."""

    name: str
    """Unique in one installation, such as ``engine-01.T24``."""
    source: str
    """Name of the source (plant server) that has it."""
    node: str
    """NodeId by namespace URI: ``nsu=urn:plant;s=Engine01.T24`` (an index moves when a server restarts)."""
    asset: str = ""
    feature: str = ""
    """Role of the tag in its asset: models name their inputs by it."""
    unit: str = ""
    low: float | None = None
    """Lower end of the range [unit]."""
    high: float | None = None
    deadband: float = 0.0
    """Absolute deadband at the source [unit]; 0: every change."""
    sampling: timedelta | None = None
    """Sampling interval asked of the server; None: the source's default."""
    id: int = 0
    """Key in the historian; 0 until :meth:`plugin.protocols.Store.register_tags` gives one."""
    element: str = ""
    """Part of the node's value: ``[3]`` or ``[1,2]`` of an array, ``.Status.Speed`` or ``.Motors[2].Current`` of a
    structure; empty: all of it."""


@dataclass(frozen=True, slots=True)
class Asset:
    """The machine that a model watches: a name, and its tags by feature."""

    name: str
    tags: Mapping[str, Tag]

    @classmethod
    def gather(cls, tags: Iterable[Tag]) -> tuple["Asset", ...]:
        """Assets of the tags that name one, in order of first appearance."""
        found: dict[str, dict[str, Tag]] = {}
        for tag in tags:
            if tag.asset and tag.feature:
                found.setdefault(tag.asset, {})[tag.feature] = tag
        return tuple(cls(name, MappingProxyType(features)) for name, features in found.items())


# --- what arrives ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class SampleBatch:
    """Samples as columns of one length, in order of arrival (per tag: in the order the source reported them)."""

    tag: NDArray[np.int32]
    """:attr:`Tag.id` [n]."""
    source_time: NDArray[np.int64]
    """When the source took the value [µs]."""
    value: NDArray[np.float64]
    """The number [unit]; NaN where there is none (Bad status, null, not a number)."""
    status: NDArray[np.uint32]
    """Full OPC UA StatusCode."""
    server_time: NDArray[np.int64]
    """When the server had the value [µs]: later than source_time for a late laboratory value."""
    received_time: NDArray[np.int64]
    """When we had it [µs]. A store moves it on to when it was stored, where a scoring run had begun in between."""
    text: NDArray[np.object_] | None = None
    """What the number can't say, a ``str`` or None by row: a String, or the digits of an integer beyond 2^53.
    None for the whole batch (the usual case, and what costs nothing): no row has any."""

    def __len__(self) -> int:
        return len(self.tag)

    @classmethod
    def empty(cls) -> Self:
        """A batch of no samples."""
        return cls.of([], [], [], [], [], [])

    @classmethod
    def of(cls, tag: Any, source_time: Any, value: Any, status: Any, server_time: Any, received_time: Any) -> Self:
        """A batch from anything that NumPy takes; scalars are repeated to the length of ``tag``."""
        tag = np.asarray(tag, np.int32)

        def column(values: Any, dtype: Any) -> NDArray[Any]:
            array = np.asarray(values, dtype)
            return np.full(tag.shape, array) if array.ndim == 0 else array

        return cls(
            tag,
            column(source_time, np.int64),
            column(value, np.float64),
            column(status, np.uint32),
            column(server_time, np.int64),
            column(received_time, np.int64),
        )

    @classmethod
    def concatenate(cls, batches: Sequence["SampleBatch"]) -> "SampleBatch":
        """One batch of several, order kept."""
        if not batches:
            return cls.empty()
        if len(batches) == 1:
            return batches[0]
        columns = (np.concatenate(parts) for parts in zip(*(b.columns() for b in batches), strict=True))
        if all(batch.text is None for batch in batches):
            return cls(*columns)
        texts = [np.full(len(b), None, np.object_) if b.text is None else b.text for b in batches]
        return replace(cls(*columns), text=np.concatenate(texts))

    def columns(self) -> tuple[NDArray[Any], ...]:
        """The columns that every row has, in the order of the fields."""
        return self.tag, self.source_time, self.value, self.status, self.server_time, self.received_time

    def with_text(self) -> NDArray[np.bool_]:
        """Mask of the rows that have a text."""
        if self.text is None:
            return np.zeros(len(self), np.bool_)
        return np.array([text is not None for text in self.text.tolist()], np.bool_)

    def take(self, rows: Any) -> "SampleBatch":
        """The rows of an index array, a mask or a slice."""
        taken = SampleBatch(*(column[rows] for column in self.columns()))
        return taken if self.text is None else replace(taken, text=self.text[rows])


class GapCause(StrEnum):
    """Why samples are, or may be, missing."""

    SUBSCRIPTION_LOST = "subscription_lost"
    SEQUENCE = "sequence"
    OVERFLOW = "overflow_bit"
    CLIENT_DOWN = "client_down"
    SERVER_DOWN = "server_down"
    BAD_ITEM = "bad_item"
    DECODE_ERROR = "decode_error"
    SPILL_OVERFLOW = "spool_overflow"
    POLL_MISSED = "poll_missed"


class GapState(StrEnum):
    """``open``: history may still fill it; ``filled``: it did; ``unfillable``: the server has no history for it."""

    OPEN = "open"
    FILLED = "filled"
    UNFILLABLE = "unfillable"


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of time in which samples of a tag, or of a whole source, are or may be missing."""

    id: str
    """A UUID given at detection; a later :class:`Gap` with the same id replaces this one."""
    source: str
    tag: str | None
    """Name of the tag; None: all tags of the source."""
    start: datetime
    end: datetime | None
    """None while it lasts."""
    cause: GapCause
    detected: datetime
    state: GapState = GapState.OPEN
    rows_filled: int = 0
    detail: str = ""


class RemarkKind(StrEnum):
    """What was odd about samples that were kept all the same."""

    TYPE_CHANGED = "type_changed"
    TIME_WENT_BACK = "time_went_back"


@dataclass(frozen=True, slots=True)
class Remark:
    """Something odd about samples of one tag: they are stored as they came, and this is stored beside them."""

    source: str
    tag: str
    kind: RemarkKind
    source_time: datetime
    """Of the first sample that it speaks of; with ``source``, ``tag`` and ``kind`` the key of the remark."""
    detail: str
    """For a person, such as ``Double before, String now`` or ``3 values up to 2.5 s older than one before them``."""


# --- what models give --------------------------------------------------------------------------------------------


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
    flag: bool = False
    """True: it is given as a :class:`Flag`, never as a :class:`Prediction`."""

    @property
    def name(self) -> str:
        """Unique in one installation."""
        return f"{self.asset}.{self.model}.{self.output}"


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
    """The instant that the number speaks of; equals ``as_of`` for a soft sensor."""
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


class RunKind(StrEnum):
    """What a run did."""

    SCORE = "score"
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
