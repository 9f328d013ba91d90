"""``foretag gaps``: what was missed, as a person reads it and as a program does."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from plugin.domain import Gap, GapState
from plugin.report.layout import duration, headed, printable

_STYLES = {GapState.OPEN: "yellow", GapState.FILLED: "", GapState.UNFILLABLE: "red"}


def gaps_view(gaps: Sequence[Gap], now: datetime, *, limit: int) -> RenderableType:
    """A line per gap in the order given, and one that counts them. ``limit``: more were not asked for."""
    if not gaps:
        return Text("no gaps")
    table = headed("Begin (local)", "begin (UTC)", ">lasted", "state", "source", "tag", "cause", ">filled", "detail")
    for gap in gaps:
        table.add_row(
            f"{gap.start.astimezone():%Y-%m-%d %H:%M:%S %z}",
            f"{gap.start.astimezone(UTC):%m-%d %H:%M:%SZ}",
            _lasted(gap, now),
            Text(gap.state.value, _STYLES[gap.state]),
            gap.source,
            Text(printable(gap.tag) if gap.tag is not None else "all", "" if gap.tag is not None else "dim"),
            gap.cause.value,
            f"{gap.rows_filled:,}" if gap.rows_filled else "",
            Text(printable(gap.detail)),
        )
    for column in table.columns[:-1]:
        column.no_wrap = True
    return Group(table, Text(), Text(_count(gaps, limit)))


def gap_record(gap: Gap) -> dict[str, Any]:
    """A gap as JSON: times in ISO 8601, UTC."""
    return {
        "id": gap.id,
        "source": gap.source,
        "tag": gap.tag,
        "start": _iso(gap.start),
        "end": None if gap.end is None else _iso(gap.end),
        "cause": gap.cause.value,
        "state": gap.state.value,
        "rows_filled": gap.rows_filled,
        "detected": _iso(gap.detected),
        "detail": gap.detail,
    }


def _lasted(gap: Gap, now: datetime) -> str:
    return f"{duration(now - gap.start)} so far" if gap.end is None else duration(gap.end - gap.start)


def _count(gaps: Sequence[Gap], limit: int) -> str:
    states = Counter(gap.state for gap in gaps)
    parts = ", ".join(f"{states[state]:,} {state.value}" for state in GapState if states[state])
    whole = f"{len(gaps):,} gap{'' if len(gaps) == 1 else 's'}: {parts}"
    return f"{whole}; these are the newest, --limit shows more" if len(gaps) >= limit else whole


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
