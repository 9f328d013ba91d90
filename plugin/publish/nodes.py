"""What predictions, flags and runs look like on their nodes: value, status and times. No sockets, no clock.

Rules that hold for every write (OPC 10000-4, 7.11 and 7.39; OPC 10000-8, 6.3):

* A Bad status carries no value; a missing number never goes out as Good.
* The SourceTimestamp of a prediction is its ``as_of``, never null and never in the future; that of a value that grew
  stale is the instant at which it did, so that a client's history shows both.
* All nodes of one prediction are written in one go: no client sees new bounds with an old value.
* What seldom changes is written when it does.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from plugin.domain import Flag, Meaning, OutputTag, Prediction, Quality, Run, Standing, Status, quality
from plugin.publish.cells import Cell
from plugin.publish.sheets import Sheet
from plugin.publish.shown import Shown

SERVICE_LEVEL_NO_DATA = 1
SERVICE_LEVEL_HEALTHY = 255
_DEGRADED = 2, 199

Facts = tuple[Any, ...]
"""What the value's own cells carry, None where there is nothing to be said; the first is the value."""


@dataclass(frozen=True, slots=True)
class Context:
    """The nodes that say what a value is about."""

    version: Cell
    hash: Cell
    features: Cell
    shares: Cell
    coverage: Cell | None = None

    def name_artifact(self, hashes: Mapping[int, str], now: datetime) -> None:
        """The hash of the version that made the value, or that it is not known."""
        sha256 = hashes.get(self.version.fact)
        self.hash.note(sha256, now, now, Status.BAD_NO_DATA if sha256 is None else Status.GOOD)

    def explain(self, shares: Mapping[str, float] | None, source: datetime, now: datetime) -> None:
        """The features that made the value what it is; None: nobody asked."""
        if shares:
            self.features.note(list(shares), source, now)
            self.shares.note(list(shares.values()), source, now)
        else:
            self.features.note(None, source, now, Status.BAD_NO_DATA)
            self.shares.note(None, source, now, Status.BAD_NO_DATA)


class OutputNode:
    """One output of one asset."""

    __slots__ = (
        "_context", "_coverage", "_facts", "_hashes", "_said", "_shown", "_unexplained", "_version", "tag",
    )  # fmt: skip

    def __init__(
        self,
        tag: OutputTag,
        said: Sheet,
        context: Context,
        facts: Callable[[Sequence[Prediction]], Facts],
        shown: Shown,
    ) -> None:
        """``said``: value, what shares its status, and as-of time, time until when it is valid, target time (of what
        has one); ``facts``: what predictions (more than one of a forecast) put there, but for the times."""
        self.tag = tag
        self._said = said
        self._context = context
        self._facts = facts
        self._shown = shown
        self._hashes: dict[int, str] = {}
        self._version: int | None = None
        self._coverage: float | None = None
        """Both as they were told last."""
        self._unexplained = False
        """Its context says so."""

    @property
    def usable(self) -> bool:
        """True while the value is neither Bad nor stale."""
        return self._shown.usable

    @property
    def in_service(self) -> bool:
        """False where it is switched off, on purpose."""
        return self._shown.withheld != Status.BAD_OUT_OF_SERVICE

    @property
    def status(self) -> int:
        """As a client reads it."""
        return self._shown.status

    @property
    def value(self) -> Any:
        """As a client reads it, if it is usable."""
        return self._said.facts[0]

    @property
    def source_time(self) -> datetime:
        """Of the value."""
        return self._said.source_time

    def show(self, predictions: Sequence[Prediction], now: datetime, shares: Mapping[str, float] | None = None) -> None:
        """Write one prediction, or those of a forecast, nearest first."""
        about = predictions[0]
        source = about.as_of if about.as_of < now else now  # noqa: FURB136 - a fifth of the cost
        status = about.status if len(predictions) == 1 else _of_all(predictions)
        if about.version != self._version or about.coverage != self._coverage:
            self._tell_origin(about.version, about.coverage, source, now)
        times = about.as_of, about.valid_until, about.target_time
        self._take(self._facts(predictions), times, about.valid_until, status, source, now)
        if shares or not self._unexplained:
            self._explain(shares, source, now)

    def show_flag(
        self, flag: Flag, valid_until: datetime | None, now: datetime, shares: Mapping[str, float] | None = None
    ) -> None:
        """Write one flag; ``valid_until`` is that of the predictions that it was decided with."""
        facts, source = (flag.raised, finite(flag.score), finite(flag.threshold)), min(flag.as_of, now)
        if flag.version != self._version:
            self._tell_origin(flag.version, None, source, now)
        self._take(facts, (flag.as_of, valid_until or flag.as_of), valid_until, flag.status, source, now)
        if shares or not self._unexplained:
            self._explain(shares, source, now)

    def _tell_origin(self, version: int, coverage: float | None, source: datetime, now: datetime) -> None:
        context = self._context
        if version != self._version:
            context.version.write(version, Status.GOOD, source, now)
            context.name_artifact(self._hashes, now)
        if context.coverage is not None and coverage != self._coverage:
            context.coverage.write(coverage, Status.GOOD, source, now)
        self._version, self._coverage = version, coverage

    def _explain(self, shares: Mapping[str, float] | None, source: datetime, now: datetime) -> None:
        self._context.explain(shares, source, now)
        self._unexplained = not shares

    def _take(
        self,
        facts: Facts,
        times: tuple[datetime, ...],
        valid_until: datetime | None,
        status: int,
        source: datetime,
        now: datetime,
    ) -> None:
        shown = self._shown.take(status if facts[0] is not None else _without_value(status), valid_until)
        self._said.write(facts, times, shown, source, now)
        if valid_until is not None and now >= valid_until:
            self.expire(now)

    def expire(self, now: datetime) -> bool:
        """Past its time a value stays, as UncertainLastUsableValue; True where that happened just now."""
        if not self._shown.expire(now):
            return False
        self._restate(now, self._shown.valid_until)
        return True

    def cut_off(self, away: bool, now: datetime) -> None:
        """While the inputs' source is ``away`` the value is UncertainNoCommunicationLastUsableValue, its source time
        that of the prediction; when it is back and there is no newer one, what was said holds again."""
        before, self._shown.cut_off = self._shown.status, away
        self._restate_if_other(before, now)

    def stand(self, standing: Standing, now: datetime) -> None:
        """What becomes of the model: whether there is one, and whether it still fits."""
        before, withheld = self._shown.status, _WITHHELD.get(standing.state)
        self._shown.drifting = any(drift.doubtful and drift.asset == self.tag.asset for drift in standing.drifts)
        if withheld != self._shown.withheld:
            self._shown.withhold(withheld)
            self._said.withhold(self._shown.status, now)
        else:
            self._restate_if_other(before, now)
        self._hashes = {standing.version: standing.sha256} if standing.sha256 else {}
        if self._context.version.fact == standing.version:
            self._context.name_artifact(self._hashes, now)

    def _restate_if_other(self, before: int, now: datetime) -> None:
        if self._shown.status != before:
            self._restate(now)

    def _restate(self, now: datetime, source: datetime | None = None) -> None:
        self._said.restate(self._shown.status, now, source)


_WITHHELD = {"off": Status.BAD_OUT_OF_SERVICE, "none": Status.BAD_CONFIGURATION_ERROR}
"""By :class:`plugin.domain.ModelStanding`."""


# --- what predictions put on the cells ------------------------------------------------------------------------------


def finite(number: float | None) -> float | None:
    """None for what is no number."""
    return number if number is not None and math.isfinite(number) else None


def number(predictions: Sequence[Prediction]) -> Facts:
    """Value and bounds."""
    (said,) = predictions
    value, lower, upper = said.value, said.lower, said.upper
    if value is not None and lower is not None and upper is not None and math.isfinite(value + lower + upper):
        return value, lower, upper  # all are finite where their sum is
    return finite(value), finite(lower), finite(upper)


def in_percent(tag: OutputTag) -> bool:
    """It is told as a share of 1, and shown in percent."""
    return tag.meaning in (Meaning.HEALTH, Meaning.PROBABILITY) and tag.high <= 1.0


def percent(predictions: Sequence[Prediction]) -> Facts:
    """Value and bounds of what is told as a share, 0..1."""
    return tuple(part and 100.0 * part for part in number(predictions))


def lifetime(cycle: timedelta | None) -> Callable[[Sequence[Prediction]], Facts]:
    """Value, bounds, and when it ends; ``cycle``: how long one of its units takes, None: not known.

    A life that has a lower bound alone is known to last, and there is no saying when it ends.
    """

    def facts(predictions: Sequence[Prediction]) -> Facts:
        value, lower, upper = number(predictions)
        if value is None or cycle is None or (lower is not None and upper is None):
            return value, lower, upper, None
        return value, lower, upper, _after(predictions[0], value, cycle)

    return facts


def _after(said: Prediction, left: float, cycle: timedelta) -> datetime | None:
    try:
        return said.as_of + left * cycle
    except OverflowError:  # a life of ten thousand years
        return None


def state(texts: Sequence[Any]) -> Callable[[Sequence[Prediction]], Facts]:
    """Index and text of a state; there is no other than those that have a text."""

    def facts(predictions: Sequence[Prediction]) -> Facts:
        value = finite(predictions[0].value)
        if value is None or not 0 <= round(value) < len(texts):
            return None, None
        return round(value), texts[round(value)]

    return facts


def forecast(predictions: Sequence[Prediction]) -> Facts:
    """Arrays of values, bounds and target times, NaN where one of several is missing; and the nearest value."""
    values, lower, upper = (_array(getattr(said, part) for said in predictions) for part in ("value", "lower", "upper"))
    return values, lower, upper, [said.target_time for said in predictions], finite(predictions[0].value)


def _array(numbers: Any) -> list[float] | None:
    found = [finite(one) for one in numbers]
    return [math.nan if one is None else one for one in found] if any(one is not None for one in found) else None


def _of_all(predictions: Sequence[Prediction]) -> int:
    """Of several values in one variable: Good where all are; Bad where all are."""
    given = [said.status if finite(said.value) is not None else _without_value(said.status) for said in predictions]
    if all(quality(status) is Quality.BAD for status in given):
        return given[0]
    worst = max(given, key=quality)
    return Status.UNCERTAIN_SUB_NORMAL if quality(worst) is Quality.BAD else worst


def _without_value(status: int) -> int:
    return status if quality(status) is Quality.BAD else Status.BAD_NO_DATA


# --- models and the server ------------------------------------------------------------------------------------------


class ModelNode:
    """How a model is doing."""

    def __init__(self, cells: Mapping[str, Cell]) -> None:
        """``cells``: by BrowseName, those of :data:`plugin.publish.types.MODEL`."""
        self._cells = cells

    def show_coverage(self, coverage: float | None, now: datetime) -> None:
        """Mean share of the inputs that the last run could see."""
        self._note("Coverage", coverage, now)

    def stand(self, standing: Standing, now: datetime) -> None:
        """All that is known of it; what is not known is BadNoData."""
        note = self._note
        note("State", str(standing.state), now)
        note("Kind", standing.kind, now)
        note("Version", standing.version or None, now)
        note("Hash", standing.sha256 or None, now)
        note("Drifting", bool(standing.drifts), now)
        note("Drifts", [f"{drift.kind} of {drift.asset} {drift.subject}".strip() for drift in standing.drifts], now)
        if standing.run is not None:
            self.show_run(standing.run, now)
        if (shadow := standing.shadow) is not None:
            source, status = min(shadow.started or shadow.scheduled, now), Status.UNCERTAIN_SIMULATED_VALUE
            self._cells["ShadowVersion"].note(shadow.version, source, now, status)
            self._cells["ShadowRun"].note(shadow.started or shadow.scheduled, source, now, status)
            self._cells["ShadowResult"].note(str(shadow.result), source, now, status)

    def show_run(self, run: Run, now: datetime) -> None:
        """How the last run went."""
        seconds = None if run.started is None else ((run.finished or now) - run.started).total_seconds()
        source = min(run.finished or run.started or run.scheduled, now)
        if run.version:
            self._note("Version", run.version, now, source)
        self._note("LastRun", run.started or run.scheduled, now, source)
        self._note("LastResult", str(run.result), now, source)
        self._note("LastError", run.error, now, source)
        self._note("LastDuration", None if seconds is None else 1e3 * seconds, now, source)

    def _note(self, name: str, fact: Any, now: datetime, source: datetime | None = None) -> None:
        status = Status.BAD_NO_DATA if fact is None else Status.GOOD
        self._cells[name].note(fact, source or now, now, status)


class ServerNode:
    """Signs of life: a counter that moves at least once a second, and how far the server is to be relied on."""

    def __init__(self, heartbeat: Cell, service_level: Cell) -> None:
        self._heartbeat = heartbeat
        self._service_level = service_level
        self._beats = 0

    def beat(self, service_level: int, now: datetime) -> None:
        """A second, or less, has passed."""
        self._beats = (self._beats + 1) % 2**32
        self._heartbeat.write(self._beats, Status.GOOD, now, now)
        self._service_level.note(service_level, now, now)


def service_level(usable: int, total: int) -> int:
    """OPC 10000-4, 6.6.2.4.2: 1 no data, 2 to 199 degraded (the share that is usable), 255 all is well."""
    if usable == 0:
        return SERVICE_LEVEL_NO_DATA
    low, high = _DEGRADED
    return SERVICE_LEVEL_HEALTHY if usable == total else low + (high - low) * usable // total


def freshness(predictions: Sequence[Prediction]) -> dict[tuple[str, str], datetime]:
    """Until when the results of a model for an asset are fresh: a flag carries no such time of its own."""
    fresh: dict[tuple[str, str], datetime] = {}
    for prediction in predictions:
        key = prediction.tag.model, prediction.tag.asset
        fresh[key] = min(fresh.get(key, prediction.valid_until), prediction.valid_until)
    return fresh


def told_together(predictions: Sequence[Prediction]) -> Iterator[Sequence[Prediction]]:
    """Predictions by the variable that shows them: those of a forecast together, by target time, others alone."""
    forecasts: dict[str, list[Prediction]] = {}
    for said in predictions:
        if said.tag.meaning is not Meaning.FORECAST:
            yield (said,)
        else:
            forecasts.setdefault(said.tag.name, []).append(said)
    for several in forecasts.values():
        yield sorted(several, key=lambda said: said.target_time)
