"""``foretag status``: what the historian holds and how the models do, read from the store alone."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Group
from rich.table import Table
from rich.text import Text

from plugin.domain import GapState, ModelState, Quality, Run, RunKind, Tag, from_micros, qualities
from plugin.protocols import Store
from plugin.report.layout import headed


async def status_view(store: Store, tags: Sequence[Tag], models: Sequence[str]) -> Group:
    """Sources, models and counts, for ``Console.print``."""
    now = datetime.now(UTC)
    return Group(
        Text("Sources", "bold"),
        await _sources(store, tags, now),
        Text("\nModels", "bold"),
        await _models(store, models, now),
        Text("\nDatabase", "bold"),
        await _counts(store),
    )


async def _sources(store: Store, tags: Sequence[Tag], now: datetime) -> Table:
    known = {tag.name: tag for tag in await store.register_tags(tags)}
    newest = await store.latest([tag.id for tag in known.values()])
    source_of = {tag.id: tag.source for tag in known.values()}
    gaps = [gap for gap in await store.gaps(open_only=True) if gap.state is GapState.OPEN]
    table = headed("Source", ">tags", ">with a value", ">Bad", ">newest sample", ">open gaps")
    for source in dict.fromkeys(tag.source for tag in tags):
        rows = [row for row, tag in enumerate(newest.tag.tolist()) if source_of[tag] == source]
        own = newest.take(rows)
        bad = int((qualities(own.status) == Quality.BAD).sum())
        age = _ago(now, from_micros(int(own.source_time.max()))) if len(own) else "never"
        table.add_row(
            source,
            str(sum(tag.source == source for tag in tags)),
            str(len(own)),
            Text(str(bad), "red" if bad else ""),
            age,
            str(sum(gap.source == source for gap in gaps)),
        )
    return table


async def _models(store: Store, models: Sequence[str], now: datetime) -> Table:
    table = headed("Model", "version in force", "metrics", ">last run", "result", "error")
    for model in models:
        champion = next((v for v in await store.versions(model) if v.state is ModelState.CHAMPION), None)
        run = next((r for r in await store.runs(model) if r.kind is RunKind.SCORE), None)
        metrics = ", ".join(f"{k} {v:.3g}" for k, v in champion.metrics.items()) if champion else ""
        table.add_row(
            model,
            champion.label if champion else Text("none: not trained yet", "yellow"),
            Text(metrics),
            _ago(now, run.scheduled) if run else "never",
            run.result.value if run else "",
            Text(_error(run), "red"),
        )
    return table


async def _counts(store: Store) -> Table:
    table = headed("Table", ">rows")
    for name, rows in (await store.counts()).items():
        table.add_row(name.replace("_", " "), f"{rows:,}")
    return table


def _error(run: Run | None) -> str:
    return run.error if run else ""


def _ago(now: datetime, then: datetime) -> str:
    seconds = (now - then).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
