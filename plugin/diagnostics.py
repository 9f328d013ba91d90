"""What an operator asks of us, as Prometheus metrics. Nothing is dropped without a counter here."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, Info, ProcessCollector

_LAG_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


_LAG_PERIOD = 0.02
"""Between two looks at the event loop's lag [s]."""
_LAG_SPAN = 3000
"""Looks that :meth:`Diagnostics.lag_p99` speaks of: the last minute."""


@dataclass(frozen=True, slots=True)
class Described:
    """A metric, for whoever writes an alert."""

    name: str
    """As Prometheus sees it."""
    kind: str
    text: str
    labels: tuple[str, ...]


STATES = ("writing", "spilling", "waiting")
"""Where samples go: into the database, into the spill, or nowhere, so that the plant's servers keep them."""


class _Make:
    """Metrics in a registry, each with what is told of it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.described: list[Described] = []
        self.of_sources: list[Gauge] = []

    def _describe(self, name: str, kind: str, text: str, labels: tuple[str, ...]) -> str:
        self.described.append(Described(f"foretag_{name}", kind, text, labels))
        return f"foretag_{name}"

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        name = self._describe(f"{name}_total", "counter", text, labels)
        return Counter(name, text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        made = Gauge(self._describe(name, "gauge", text, labels), text, labels, registry=self._registry)
        if labels == ("source",):
            self.of_sources.append(made)
        return made

    def histogram(self, name: str, text: str, *labels: str) -> Histogram:
        name = self._describe(name, "histogram", text, labels)
        return Histogram(name, text, labels, registry=self._registry, buckets=_LAG_BUCKETS)

    def info(self, name: str, text: str, *labels: str) -> Info:
        self._describe(f"{name}_info", "info", text, labels)
        return Info(f"foretag_{name}", text, labels, registry=self._registry)


class Diagnostics:
    """One per service (and one per test: nothing is global)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(self.registry)
        self._lags: deque[float] = deque(maxlen=_LAG_SPAN)
        make = _Make(self.registry)
        self._process(make)
        self._acquisition(make)
        self._historian(make)
        self._work(make)
        self._models(make)
        self._publication(make)
        self._alarms(make)
        self._of_sources = tuple(make.of_sources)
        self.described = tuple(make.described)
        """Every metric of ours, in the order of the documentation."""

    def _process(self, make: _Make) -> None:
        """What runs here."""
        self.build = make.info("build", "Which foretag this is (version), and on which folder it works (data)")
        self.source_info = make.info(
            "source",
            "State of a source, what is not well (trouble), the first of its silent, late and flat tags",
            "source",
        )
        self.shard = make.info("shard", "Who leads a shard: host and process (leader)", "shard")
        self.leader = make.gauge("leader", "1 while this gateway leads its shard, 0 while it stands by", "shard")

    def _acquisition(self, make: _Make) -> None:
        """Samples on their way, and the sources that they come from."""
        self.samples_received = make.counter("samples_received", "Samples decoded from a source", "source", "path")
        self.samples_stored = make.counter("samples_stored", "Samples committed to the database")
        self.samples_duplicate = make.counter("samples_duplicate", "Samples that the database had already")
        self.samples_dropped = make.counter(
            "samples_dropped", "Samples lost here; each has a gap row", "source", "cause"
        )
        self.values_without_number = make.counter("values_without_number", "Values that are no number", "source")
        self.texts_cut = make.counter(
            "texts_cut", "Texts longer than 65536 characters, stored without their end", "source"
        )
        self.remarks = make.counter("remarks", "What was odd about samples that were kept", "source", "kind")
        self.decode_errors = make.counter("decode_errors", "Values or messages that could not be decoded", "source")
        self.foreign_messages = make.counter(
            "foreign_messages", "Messages with values of a subscription that is not ours, left out", "source"
        )
        self.gaps = make.counter("gaps", "Gaps opened", "source", "cause")
        self.gaps_open = make.gauge("gaps_open", "Gaps that history may still fill")
        self.reconnects = make.counter("reconnects", "Sessions built anew or re-activated", "source", "how")
        self.connected = make.gauge("source_connected", "1 while live values are expected", "source")
        self.away = make.gauge("source_away", "1 while a source's values don't arrive or can't be relied on", "source")
        self.heard = make.gauge("source_heard_timestamp_seconds", "A source's last word, by its own clock", "source")
        self.ahead = make.gauge("source_clock_ahead_seconds", "How far a source's clock is ahead of ours", "source")
        self.service_level = make.gauge("source_service_level", "What a server says of itself, 0 to 255", "source")
        self.tags = make.gauge("tags", "Tags that are configured", "source")
        self.tags_monitored = make.gauge("tags_monitored", "Tags that the server reports", "source")
        self.polls_skipped = make.counter(
            "polls_skipped", "Readings of polled tags that a slow server left no time for", "source"
        )
        self.items_failed = make.gauge("items_failed", "Monitored items that the server refuses at present", "source")
        self.tags_silent = make.gauge(
            "tags_silent", "Tags that have not reported for longer than is expected", "source"
        )
        self.tags_late = make.gauge("tags_late", "Tags whose values are old when they arrive", "source")
        self.tags_flat = make.gauge("tags_flat", "Tags whose value has not changed for longer than it should", "source")
        self.bridge = make.gauge("bridge_seconds", "How long a cut may last before the server drops values", "source")
        self.certificate_ends = make.gauge("certificate_expires_timestamp_seconds", "When our own certificate ends")

    def _historian(self, make: _Make) -> None:
        """Where samples go, and what becomes of them there."""
        self.queue_depth = make.gauge("queue_depth", "Deliveries that wait for the database", "source")
        self.historian = make.gauge("historian", "Where samples go: 1 for writing, spilling or waiting", "state")
        self.spill_bytes = make.gauge("spill_bytes", "Size of the spill on disk")
        self.spill_samples = make.gauge("spill_samples", "Samples in the spill, which wait for the database")
        self.spilled = make.counter("samples_spilled", "Samples that went through the spill")
        self.spill_torn = make.counter(
            "spill_torn_bytes", "Of appends that a crash cut off: they had not been confirmed"
        )
        self.wal_bytes = make.gauge("wal_bytes", "Size of SQLite's write-ahead log, when it was last taken over")
        self.checkpoints_failed = make.counter(
            "checkpoints_failed", "Times that the write-ahead log could not be taken over into the database"
        )
        self.chores_failed = make.counter(
            "chores_failed", "Times that a chore of the historian's upkeep failed", "chore"
        )
        self.chore_done = make.gauge(
            "chore_done_timestamp_seconds", "When a chore of the upkeep last went well", "chore"
        )
        self.partitions_closed = make.counter(
            "partitions_closed", "Partitions of samples that were coded and rolled up"
        )
        self.samples_closed = make.counter("samples_closed", "Samples that were coded into partitions")
        self.samples_left_out = make.counter(
            "samples_left_out", "Samples that the swinging door left out, within its bound"
        )
        self.sample_bytes = make.gauge("sample_bytes", "Bytes of a sample in the partition that was closed last")
        self.open_age = make.gauge(
            "open_samples_age_seconds", "From the oldest sample that is not rolled up to the newest"
        )
        self.database_bytes = make.gauge("database_bytes", "What the database holds, without its free pages")
        self.disk_free = make.gauge("disk_free_bytes", "By how much the database can still grow")
        self.disk_full = make.gauge(
            "disk_full_seconds", "Until the database's disk is full as it grows now; +Inf: never, NaN: not known yet"
        )
        self.disk_full.set(math.nan)
        self.samples_expired = make.counter("samples_expired", "Samples that retention dropped", "class")
        self.partitions_held = make.gauge(
            "partitions_held", "Closed partitions that retention would drop, but for a gap that is open", "class"
        )
        self.rows_expired = make.counter(
            "rows_expired", "Roll-ups, predictions, flags and events that retention dropped", "table"
        )

    def _work(self, make: _Make) -> None:
        """How long things take."""
        self.arrival_to_row = make.histogram("arrival_to_row_seconds", "From a value's arrival to its committed row")
        self.loop_lag = make.histogram("event_loop_lag_seconds", "How late the loop woke a timer")
        self.stage_cpu = make.counter("stage_cpu_seconds", "CPU time by stage of a tag's life", "stage")

    def _models(self, make: _Make) -> None:
        """Runs, and how models do."""
        self.runs = make.counter("runs", "Runs by result", "model", "kind", "result")
        self.run_seconds = make.histogram("run_seconds", "Wall time of a scoring run", "model")
        self.last_run = make.gauge("last_run_timestamp_seconds", "When a model's last scoring run succeeded", "model")
        self.cells_cleaned = make.counter(
            "cells_cleaned", "Cells of windows that a step of the cleaning took for not observed", "model", "step"
        )
        self.compilations = make.counter("compilations", "Programs that JAX compiled", "model")
        self.explanations_late = make.counter(
            "explanations_late", "Runs whose results did not wait for all their explanations", "model"
        )
        self.drifts_open = make.gauge("drifts_open", "Drifts of a model's version in force that last", "model")
        self.coverage = make.gauge(
            "coverage", "Share of its last truths that an output's bounds held", "model", "output"
        )
        self.monitor_seconds = make.histogram("monitor_seconds", "Wall time of a look at whether a model fits", "model")

    def _publication(self, make: _Make) -> None:
        """What is served, and to whom it is not."""
        self.published = make.counter("published", "Values published", "sink")
        self.publish_failures = make.counter("publish_failures", "Values that could not be published", "sink", "cause")
        self.history_reads = make.counter(
            "history_reads", "Nodes whose history was asked for over OPC UA, by what was asked", "what", "status"
        )
        self.users_refused = make.counter(
            "users_refused", "Sessions of our OPC UA server refused for their user", "cause"
        )
        self.clients_cut_off = make.counter(
            "clients_cut_off", "Connections to our OPC UA server that were closed for what they did", "cause"
        )
        self.handshakes_delayed = make.counter(
            "handshakes_delayed",
            "Requests of unknown clients that our OPC UA server let wait, for they took their share",
        )
        self.client_events_lost = make.counter(
            "client_events_lost", "Events that the full queue of a client of our OPC UA server dropped"
        )
        self.client_values_lost = make.counter(
            "client_values_lost", "Values that the full queue of a client of our OPC UA server dropped"
        )
        self.requests_failed = make.counter(
            "requests_failed", "Requests to our OPC UA server that ended in an internal error, by its name", "cause"
        )

    def _alarms(self, make: _Make) -> None:
        """What calls for an operator."""
        self.outputs_cut_off = make.gauge("outputs_cut_off", "Outputs that draw on a source that is away")
        self.alarms_raised = make.counter("alarms_raised", "Alarms that called for an operator, by class", "class")
        self.alarms_active = make.gauge("alarms_active", "Alarms that are active, those that are put aside among them")
        self.alarms_unacknowledged = make.gauge("alarms_unacknowledged", "Alarms that nobody has acknowledged yet")
        self.alarm_rate = make.gauge("alarm_rate", "Alarms that called for an operator in the last 10 minutes")
        self.alarm_rate_average = make.gauge("alarm_rate_average", "As alarm_rate, on average of the last day")
        self.alarm_rate_maximum = make.gauge("alarm_rate_maximum", "As alarm_rate, the highest since the start")
        self.task_failures = make.counter("task_failures", "Supervised tasks that ended with an error", "task")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the calling thread's CPU time to a stage; there must be no await inside."""
        begin = time.thread_time()
        try:
            yield
        finally:
            self.stage_cpu.labels(name).inc(time.thread_time() - begin)

    def stand_by(self) -> None:
        """Nothing is acquired any more: what was said of each source, and of where samples go, is true no longer."""
        for gauge in self._of_sources:
            gauge.clear()
        self.source_info.clear()
        self.outputs_cut_off.set(0)
        for state in STATES:
            self.historian.labels(state).set(0)

    async def watch_loop(self) -> None:
        """Measure for ever how late the event loop wakes a timer: what a notification would wait as well."""
        while True:
            due = time.perf_counter() + _LAG_PERIOD
            await asyncio.sleep(_LAG_PERIOD)
            lag = max(0.0, time.perf_counter() - due)
            self._lags.append(lag)
            self.loop_lag.observe(lag)

    def lag_p99(self) -> timedelta | None:
        """99th percentile of the event loop's lag over the last minute; None: not watched yet."""
        lags = sorted(self._lags)
        return timedelta(seconds=lags[len(lags) * 99 // 100]) if lags else None

    def value(self, name: str, **labels: str) -> float:
        """A metric's present value, 0 where it never moved; for status tables and tests."""
        return self.registry.get_sample_value(f"foretag_{name}", labels) or 0.0

    def runs_so_far(self, model: str, kind: str, result: str) -> int:
        """Runs of a model that ended that way."""
        return int(self.value("runs_total", model=model, kind=kind, result=result))

    def total(self, name: str) -> float:
        """Sum of a counter over all its labels."""
        return sum(
            sample.value
            for family in self.registry.restricted_registry([f"foretag_{name}"]).collect()
            for sample in family.samples
        )


def some(names: Sequence[str], limit: int) -> str:
    """A few of many in one line of a log: ``a, b, c and 9 more``."""
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
