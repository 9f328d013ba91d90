"""``foretag status``: what the running service tells of itself, what the historian holds, and whether all is well."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from math import isinf, isnan

from rich.console import Group, RenderableType
from rich.text import Text

from plugin.domain import (
    Gap,
    GapState,
    ModelState,
    ModelVersion,
    Quality,
    Run,
    RunKind,
    RunResult,
    Tag,
    from_micros,
    qualities,
)
from plugin.protocols import Store
from plugin.report.layout import duration, headed, printable, size
from plugin.report.told import Told

_DAY = timedelta(days=1)
_GAPS = 1_000_000
_NOTHING = "–"
_SOON, _CENTURY = 3 * 86_400.0, 100 * 365 * 86_400.0
"""[s]"""
_STATES = ("silent", "late", "flat")


class Verdict(IntEnum):
    """The exit status of ``foretag status``; 3 and 4 as service managers know them."""

    WELL = 0
    UNWELL = 1
    NOT_RUNNING = 3
    UNKNOWN = 4


async def status_view(
    store: Store,
    tags: Sequence[Tag],
    models: Mapping[str, timedelta],
    told: Told | None,
    absence: str = "",
    product: str = "",
    used: float | None = None,
) -> tuple[Group, bool]:
    """All of it, for ``Console.print``; and whether all is well.

    ``models``: how old the last result of each may be. ``told`` None: ``absence`` says why. Of a gateway that stands by
    nothing is expected but that it does. ``product``, ``used``: what database it is, and how large now [byte].
    """
    now = datetime.now(UTC)
    sources = list(dict.fromkeys(tag.source for tag in tags))
    runs = {model: await _last_run(store, model) for model in models}
    gaps = await store.gaps(since=now - _DAY, limit=_GAPS)
    champions = {model: await _champion(store, model) for model in models}
    leads = told is not None and not _stands_by(told)
    troubles = []
    if told is not None and leads:
        troubles = [*_troubles(told, sources), *_idle(told, models, champions, now), *_failed(runs)]
    parts: list[RenderableType] = [_headline(told, now) if told is not None else Text(absence, "yellow")]
    if told is not None and leads:
        parts += [Text("\nSources, now", "bold"), _living(told, sources, now)]
    parts += [
        Text("\nSources, in the database", "bold"),
        await _sources(store, tags, gaps, now),
        Text("\nModels", "bold"),
        _models(runs, champions, now),
        Text("\nDatabase", "bold"),
        *([Text(product + (f", {size(used)}" if used else ""))] if product else []),
        *(_disk(told) if told is not None else ()),
        await _counts(store),
    ]
    if told is not None:
        parts += [Text(), *_listed(troubles)]
        parts += [] if troubles else [Text("all is well", "green")]
    return Group(*parts), not troubles


def living_view(told: Told, tags: Sequence[Tag], trouble: str) -> Group:
    """What the running service tells, where the database can't be asked; ``trouble``: why."""
    now, sources = datetime.now(UTC), list(dict.fromkeys(tag.source for tag in tags))
    parts: list[RenderableType] = [_headline(told, now)]
    troubles = [f"the database can't be asked: {trouble}"]
    if not _stands_by(told):
        parts += [Text("\nSources, now", "bold"), _living(told, sources, now)]
        troubles += _troubles(told, sources)
    return Group(*parts, Text(), *_listed(troubles))


def _listed(troubles: Sequence[str]) -> Iterator[Text]:
    for trouble in troubles:
        yield Text(f"! {printable(trouble)}", "red")


# --- the running service ---


def _headline(told: Told, now: datetime) -> Text:
    started = told.value("process_start_time_seconds")
    up = f"up {duration(now - datetime.fromtimestamp(started, UTC))}" if started else "running"
    dropped = told.count("foretag_samples_dropped_total")
    shared = told.facts("foretag_shard_info")
    whose = f" shard {printable(shared.get('shard', ''))}" if shared else " its shard"
    does = f"stands by for{whose}" if _stands_by(told) else f"leads{whose}" if shared else "runs"
    line = Text.assemble(("foretag", "bold"), f" {told.facts('foretag_build_info').get('version', '')} {does}, {up}")
    if _stands_by(told):
        line.append(f" · {printable(shared.get('leader', 'nobody that is known of'))} leads")
        return line
    line.append(f" · {told.count('foretag_samples_stored_total'):,} samples stored · ")
    line.append(f"{dropped:,} dropped", "bold red" if dropped else "")
    line.append(f" · {told.count('foretag_gaps_open'):,} gaps open")
    if spilled := told.count("foretag_spill_samples"):
        line.append(
            f" · {spilled:,} samples in the spill ({told.count('foretag_spill_bytes') / 2**20:.1f} MiB)", "yellow"
        )
    return line


def _stands_by(told: Told) -> bool:
    """Another gateway on the same database leads."""
    return told.value("foretag_leader") == 0


def _living(told: Told, sources: Sequence[str], now: datetime) -> RenderableType:
    """What is not well stands out; a dash is what the source does not tell."""
    watched = [f">{state}" for state in _STATES]
    table = headed("Source", "state", ">monitored", ">refused", *watched, ">heard", ">clock", ">queue", ">bridges")
    for source in sources:
        facts = told.facts("foretag_source_info", source=source)
        tags, monitored = (told.count(f"foretag_{name}", source=source) for name in ("tags", "tags_monitored"))
        refused = told.count("foretag_items_failed", source=source)
        bridge = told.value("foretag_bridge_seconds", source=source)
        table.add_row(
            source,
            Text(facts.get("state", _NOTHING), "red" if told.count("foretag_source_away", source=source) else "green"),
            f"{monitored:,}/{tags:,}",
            _warn(refused),
            *(_warn(told.count(f"foretag_tags_{state}", source=source)) for state in _STATES),
            _heard(told, source, now),
            _clock(told.value("foretag_source_clock_ahead_seconds", source=source)),
            f"{told.count('foretag_queue_depth', source=source):,}",
            duration(timedelta(seconds=bridge)) if bridge else _NOTHING,
        )
    return table


def _heard(told: Told, source: str, now: datetime) -> str:
    """By the server's clock, so its being wrong is taken out."""
    stamp = told.value("foretag_source_heard_timestamp_seconds", source=source)
    ahead = told.value("foretag_source_clock_ahead_seconds", source=source) or 0.0
    return _ago(now, datetime.fromtimestamp(stamp - ahead, UTC)) if stamp else "never"


def _clock(ahead: float | None) -> Text:
    if ahead is None:
        return Text(_NOTHING)
    if abs(ahead) < 2.0:
        return Text("right")
    return Text(f"{duration(timedelta(seconds=abs(ahead)))} {'ahead' if ahead > 0 else 'behind'}", "yellow")


def _troubles(told: Told, sources: Sequence[str]) -> Iterator[str]:
    for source in sources:
        facts = told.facts("foretag_source_info", source=source)
        away = told.count("foretag_source_away", source=source)
        trouble = facts.get("trouble", "")
        if away or trouble:
            yield f"{source}{' is away' * bool(away)}: {trouble or 'not connected yet'}"
        if refused := told.count("foretag_items_failed", source=source) * (not away):
            yield f"{source} refuses {_tags(refused)}: foretag check lists them"
        for state in _STATES:
            if several := told.count(f"foretag_tags_{state}", source=source):
                yield f"{source}: {_tags(several)} {state}: {facts.get(state, '')}"
    spilled = told.count("foretag_spill_samples")
    if told.count("foretag_historian", state="waiting"):
        yield "samples do not reach the database, nor the spill: the plant's servers hold what they can; see the log"
    elif spilled or told.count("foretag_historian", state="spilling"):
        yield f"the database does not keep up or is away: {spilled:,} samples wait in the spill"
    full = told.value("foretag_disk_full_seconds")
    if full is not None and full < _SOON:
        yield f"the disk of the database is full in {duration(timedelta(seconds=full))} as it grows now"
    if cut_off := told.count("foretag_outputs_cut_off"):
        yield f"{cut_off:,} results are in doubt, since a source that they draw on is away"


def _idle(
    told: Told, models: Mapping[str, timedelta], champions: Mapping[str, ModelVersion | None], now: datetime
) -> Iterator[str]:
    """Counted from the start of the service, where it has given none since."""
    start = told.value("process_start_time_seconds") or now.timestamp()
    for model, patience in models.items():
        last = told.value("foretag_last_run_timestamp_seconds", model=model)
        idle = now - datetime.fromtimestamp(last or start, UTC)
        if champions[model] is None:
            yield f"model {model} is not trained yet"
        elif idle > patience:
            yield f"model {model} has given no result for {duration(idle)}"


def _failed(runs: Mapping[str, Run | None]) -> Iterator[str]:
    for model, run in runs.items():
        if run is not None and run.result in {RunResult.FAILED, RunResult.MISSED}:
            yield f"the last run of {model} {run.result.value}{f': {run.error}' if run.error else ''}"


def _tags(number: int) -> str:
    return f"{number:,} tag{'' if number == 1 else 's'}"


def _warn(number: int) -> Text:
    return Text(f"{number:,}", "yellow" if number else "")


# --- the database ---


async def _sources(store: Store, tags: Sequence[Tag], gaps: Sequence[Gap], now: datetime) -> RenderableType:
    names = {tag.name for tag in tags}
    known = {tag.name: tag for tag in await store.tags() if tag.name in names}
    newest = await store.latest([tag.id for tag in known.values()])
    source_of = {tag.id: tag.source for tag in known.values()}
    states = Counter((gap.source, gap.state) for gap in gaps)
    open_gaps = Counter(gap.source for gap in await store.gaps(open_only=True, limit=_GAPS))
    table = headed(
        "Source", ">tags", ">with a value", ">Bad", ">newest sample", ">gaps open", ">in 24 h filled", ">unfillable"
    )
    for source in dict.fromkeys(tag.source for tag in tags):
        rows = [row for row, tag in enumerate(newest.tag.tolist()) if source_of[tag] == source]
        own = newest.take(rows)
        bad = int((qualities(own.status) == Quality.BAD).sum())
        age = _ago(now, from_micros(int(own.source_time.max()))) if len(own) else "never"
        unfillable = states[source, GapState.UNFILLABLE]
        table.add_row(
            source,
            f"{sum(tag.source == source for tag in tags):,}",
            f"{len(own):,}",
            Text(f"{bad:,}", "red" if bad else ""),
            age,
            _warn(open_gaps[source]),
            f"{states[source, GapState.FILLED]:,}",
            Text(f"{unfillable:,}", "red" if unfillable else ""),
        )
    return table


async def _last_run(store: Store, model: str) -> Run | None:
    scoring = (run for run in await store.runs(model) if run.kind is RunKind.SCORE)
    return next((run for run in scoring if run.result is not RunResult.RUNNING), None)


async def _champion(store: Store, model: str) -> ModelVersion | None:
    return next((version for version in await store.versions(model) if version.state is ModelState.CHAMPION), None)


def _models(
    runs: Mapping[str, Run | None], champions: Mapping[str, ModelVersion | None], now: datetime
) -> RenderableType:
    table = headed("Model", "version in force", "metrics", ">last run", "result", "error")
    for model, run in runs.items():
        champion = champions[model]
        metrics = champion.figures if champion else ""
        table.add_row(
            model,
            champion.label if champion else Text("none: not trained yet", "yellow"),
            Text(metrics),
            _ago(now, run.scheduled) if run else "never",
            run.result.value if run else "",
            Text(printable(run.error) if run else "", "red"),
        )
    return table


def _disk(told: Told) -> Iterator[Text]:
    """How much more there may be, and for how long."""
    if free := told.value("foretag_disk_free_bytes"):
        yield Text.assemble(f"{size(free)} free, ", _full(told.value("foretag_disk_full_seconds")))


def _full(seconds: float | None) -> tuple[str, str]:
    if seconds is None or isnan(seconds):
        return "when the disk is full is not known yet", ""
    if isinf(seconds) or seconds > _CENTURY:
        return "the disk is not getting full", ""
    return f"full in {duration(timedelta(seconds=seconds))} as it grows now", _urgency(seconds)


def _urgency(seconds: float) -> str:
    return "red" if seconds < _SOON else "yellow" if seconds < 10 * _SOON else ""


async def _counts(store: Store) -> RenderableType:
    table = headed("Table", ">rows")
    for name, rows in (await store.counts()).items():
        table.add_row(name.replace("_", " "), f"{rows:,}")
    return table


def _ago(now: datetime, then: datetime) -> str:
    return f"{duration(now - then)} ago"
