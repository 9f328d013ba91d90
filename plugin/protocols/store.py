"""Where samples and results are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol

from plugin.domain import (
    Alarm,
    Audit,
    Drift,
    Event,
    Explanation,
    Flag,
    Gap,
    GapCause,
    Grid,
    Import,
    Label,
    LabelKind,
    LabSample,
    Level,
    Micros,
    ModelState,
    ModelVersion,
    Modified,
    Outcome,
    OutputTag,
    Part,
    Prediction,
    Reject,
    Remark,
    RollUps,
    Run,
    SampleBatch,
    Tag,
    Window,
)
from plugin.protocols.source import Delivery


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did."""

    stored: int
    duplicates: int
    """Samples that were there already, equal in tag, source time, value, status and text."""


@dataclass(frozen=True, slots=True)
class Corrected:
    """What a correction did."""

    replaced: int
    inserted: int
    """Samples of times that had none."""
    unchanged: int
    """Samples that say what is there already."""


class Store(Protocol):
    """The historian: whatever is acquired or predicted. All writes are idempotent and commit before they return.

    Raises :class:`plugin.errors.StoreUnavailable` where trying again may help, else :class:`plugin.errors.StoreError`.
    """

    async def register_tags(self, tags: Sequence[Tag]) -> tuple[Tag, ...]:
        """The same tags, in the same order, with their keys; what is new is added, what changed is updated."""

    async def tags(self) -> tuple[Tag, ...]:
        """All tags that were ever registered, by key."""

    async def write(self, deliveries: Sequence[Delivery]) -> Written:
        """Commit samples, gaps, remarks and checkpoints of several deliveries in one transaction (confirms none)."""

    async def checkpoints(self, prefix: str) -> Mapping[str, str]:
        """What deliveries left under keys that begin with ``prefix``."""

    async def read_samples(
        self,
        tags: Sequence[int],
        start: Micros,
        end: Micros,
        *,
        known_by: Micros | None = None,
        received_by: Micros | None = None,
    ) -> SampleBatch:
        """Samples with ``start <= source_time < end``, ordered by (tag, source_time).

        ``known_by``: only what the plant's server had by then (``server_time <= known_by``): a backtest must not see a
        late laboratory value early. ``received_by``: only what we had by then (``received_time <= received_by``): a
        scoring run reads up to its own start, and is computed again from exactly the same.
        """

    async def grid(self, window: Window, *, known_by: Micros | None = None, received_by: Micros | None = None) -> Grid:
        """What a model sees: :func:`plugin.infer.windows.dense` of :meth:`read_samples`, and equal to it, but faster.

        ``known_by``, ``received_by``: as there.
        """

    async def latest(self, tags: Sequence[int]) -> SampleBatch:
        """The newest sample of each tag that has one."""

    async def roll_ups(
        self, tags: Sequence[int], start: Micros, end: Micros, *, level: Level | None = None, points: int = 1000
    ) -> RollUps:
        """Roll-ups of the intervals that overlap ``[start, end)``, each of the whole interval, as the samples are now.

        ``level``: None is the finest that gives at most so many ``points`` of a tag; days, where none does.
        """

    async def correct(self, samples: SampleBatch, *, user: str, reason: str, origin: str = "command") -> Corrected:
        """Put samples in the place of those of the same tag and source time, which are kept as modified.

        Of several values of one time the last, which stands, is replaced. Received now, whatever the batch says: who
        asks for what was received by an earlier moment, such as a run that is computed again, gets what was there
        then. A sample of a time that has none is inserted. Written twice it is one correction. The audit log says
        in the same transaction who did it, why, and of which tags and times; ``origin`` as in :class:`Audit`.
        """

    async def modified(self, tags: Sequence[int], start: Micros, end: Micros) -> Modified:
        """What samples with ``start <= source_time < end`` were before they were corrected."""

    async def next_time(self, start: Micros) -> Micros | None:
        """A time from ``start`` on, before which there are no samples but those older than ``start``.

        Often the source time of the next one: who reads in slices need not try the empty ones. None: there is none.
        """

    async def kept_since(self, tags: Sequence[int]) -> Mapping[int, Micros]:
        """By tag, the source time from which on nothing of it is missing that was stored; retention has dropped samples
        of before. A tag that is not among them is whole: a report says so where it reaches further back."""

    async def gaps(
        self,
        *,
        open_only: bool = False,
        since: datetime | None = None,
        until: datetime | None = None,
        source: str | None = None,
        tag: str | None = None,
        cause: GapCause | None = None,
        known_by: Micros | None = None,
        limit: int = 1000,
    ) -> tuple[Gap, ...]:
        """Gaps, newest first; ``since``: only those that had not ended by then, ``until``: that had begun before.

        ``tag``: only those of the tag and those of all tags; name its source too, or gaps of other sources are among
        them. ``known_by``: as the store had them then, by our clock [µs]: what was found, ended or filled afterwards
        had not happened yet.
        """

    async def open_gaps(self) -> int:
        """How many gaps are in :attr:`plugin.domain.GapState.OPEN`."""

    async def remarks(
        self, *, tag: str | None = None, since: datetime | None = None, limit: int = 1000
    ) -> tuple[Remark, ...]:
        """Remarks, newest source time first; ``since``: only those of samples from then on."""

    async def write_run(self, run: Run) -> Run:
        """Insert (``id`` 0) or update a run; returns it with its key."""

    async def write_outcome(self, outcome: Outcome) -> None:
        """Commit predictions, flags, explanations and the run's row together."""

    async def predictions(
        self,
        model: str,
        start: datetime,
        end: datetime,
        *,
        asset: str | None = None,
        output: str | None = None,
        shadow: bool = False,
    ) -> tuple[Prediction, ...]:
        """Predictions with ``start <= as_of < end``, ordered by (as_of, asset, output).

        ``shadow``: those of challengers alone, which are left out else.
        """

    async def flags(
        self, start: datetime, end: datetime, *, asset: str | None = None, shadow: bool = False
    ) -> tuple[Flag, ...]:
        """Flags with ``start <= as_of < end``, ordered by (as_of, model, asset); ``shadow`` as for predictions."""

    async def told(
        self,
        tag: OutputTag,
        part: Part,
        start: Micros,
        end: Micros,
        *,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> SampleBatch:
        """What was said of one output as a series, ``start <= time < end``, without what challengers say.

        Its source time is the ``as_of``; of a forecast the target time. Of one time the word that came last stands.
        Its server time is the end of its run, and what says nothing of this part is Bad.
        """

    async def explanations(
        self, model: str, start: datetime, end: datetime, *, asset: str | None = None
    ) -> tuple[Explanation, ...]:
        """Explanations with ``start <= as_of < end``, ordered by (as_of, asset, output), shares largest first."""

    async def write_drifts(self, drifts: Sequence[Drift]) -> None:
        """Put drifts in place of those of the same id."""

    async def drifts(
        self,
        *,
        model: str | None = None,
        open_only: bool = False,
        since: datetime | None = None,
        limit: int = 1000,
    ) -> tuple[Drift, ...]:
        """Drifts, those noticed last first; ``open_only``: those that last; ``since``: those that had not ended by
        then."""

    async def runs(self, model: str, limit: int = 100) -> tuple[Run, ...]:
        """Newest first."""

    async def add_version(
        self, version: ModelVersion, *, user: str = "foretag", origin: str = "service"
    ) -> ModelVersion:
        """Store a model version under the next free number (the number given is ignored).

        A champion retires the one before it; the audit log says so, with ``user`` and ``origin`` as in :class:`Audit`.
        """

    async def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """All versions, newest first."""

    async def set_state(
        self,
        model: str,
        version: int,
        state: ModelState,
        *,
        user: str = "foretag",
        origin: str = "service",
        because: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Change a version's state; making one the champion retires the champion before it.

        In one transaction with the entries of the audit log, which has one for each version that is in another state.
        ``because``: the figures or the reason, which stand in that of this version.
        """

    async def write_events(self, events: Sequence[Event]) -> None:
        """Add events; one whose id is there already stays as it is."""

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
        """Events with ``start <= time < end``, newest first, or oldest first; those of one time by their id."""

    async def write_alarms(self, alarms: Sequence[Alarm], events: Sequence[Event] = ()) -> None:
        """Put alarms in place of those of the same id and branch, and add the events that tell of it, in one go."""

    async def alarms(self, *, active_only: bool = False) -> tuple[Alarm, ...]:
        """Alarms and their branches, the most severe first, then the newest."""

    async def write_lab_samples(self, samples: Sequence[LabSample], *, origin: str = "command") -> int:
        """Add lab samples, or correct those of the same id; how many were new or other than before.

        What was told, and what it corrects, goes whole into the audit log, in the same transaction. The same result
        told again, whenever and by whomever, changes nothing: it is known since it was first told.
        """

    async def lab_samples(
        self,
        asset: str | None,
        quantity: str | None,
        start: datetime,
        end: datetime,
        *,
        known_by: Micros | None = None,
    ) -> tuple[LabSample, ...]:
        """Lab samples with ``start <= taken < end``, ordered by (taken, asset, quantity, id); None: of all.

        ``known_by``: as they were known then, by our clock [µs]: what came later is left out, and what was corrected
        later is as it was.
        """

    async def write_labels(self, labels: Sequence[Label], *, origin: str = "command") -> int:
        """Add labels, or replace those of the same id; how many were new or other. As :meth:`write_lab_samples`."""

    async def labels(
        self,
        asset: str | None,
        start: datetime,
        end: datetime,
        *,
        kind: LabelKind | None = None,
        known_by: Micros | None = None,
    ) -> tuple[Label, ...]:
        """Labels that begin in ``[start, end)`` or reach into it, ordered by (start, asset, kind, id).

        ``asset``: None: of all. ``known_by``: as for :meth:`lab_samples`.
        """

    async def write_audit(self, *entries: Audit) -> None:
        """Add entries to the audit log, which is only ever added to."""

    async def audit(
        self, since: datetime | None = None, *, action: str | None = None, limit: int = 1000
    ) -> tuple[Audit, ...]:
        """Entries of the audit log, newest first; ``since``: only those from then on."""

    async def write_import(self, record: Import, rejects: Sequence[Reject] = ()) -> None:
        """Insert or update an import by its id, and add to what could not be taken, in one transaction.

        One whose ``position`` is 0 begins anew: what could not be taken before is forgotten.
        """

    async def imports(self, *, id: str | None = None, limit: int = 100) -> tuple[Import, ...]:  # noqa: A002
        """Newest first; ``id``: that one alone, where there is one."""

    async def rejects(self, import_id: str, *, limit: int = 1_000_000) -> tuple[Reject, ...]:
        """What of an import could not be taken, ordered by (row, column)."""

    async def counts(self) -> Mapping[str, int]:
        """Rows by table: ``samples``, ``gaps``, ``predictions``, ``flags``, ``runs``, ``model_versions``."""
