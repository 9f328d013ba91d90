"""``foretag gaps``: what was missed, as a person reads it and as a program does."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from plugin.domain import Gap, GapState
from plugin.report.layout import duration, headed, printable

_WIDE = 140
"""Columns from which a gap fits into one line."""
_STYLES = {GapState.OPEN: "yellow", GapState.FILLED: "", GapState.UNFILLABLE: "red"}


def gaps_view(gaps: Sequence[Gap], now: datetime, *, limit: int, width: int) -> RenderableType:
    """One line per gap in the order given, two where ``width`` is too narrow, and one that counts them.

    ``limit``: more were not asked for.
    """
    if not gaps:
        return Text("no gaps")
    table = _lines(gaps, now) if width >= _WIDE else _pairs(gaps, now)
    for column in table.columns[:-1]:
        column.no_wrap = True
    return Group(table, Text(), Text(_count(gaps, limit)))


def _lines(gaps: Sequence[Gap], now: datetime) -> Table:
    table = headed("Begin, local", "begin, UTC", ">lasted", "state", "source", "tag", "cause", ">filled", "detail")
    for gap in gaps:
        table.add_row(
            f"{gap.start.astimezone():%Y-%m-%d %H:%M:%S %z}",
            f"{gap.start.astimezone(UTC):%m-%d %H:%M:%SZ}",
            " ".join(_lasted(gap, now)),
            _state(gap),
            gap.source,
            _tag(gap),
            gap.cause.value,
            f"{gap.rows_filled:,}" if gap.rows_filled else "",
            Text(printable(gap.detail)),
        )
    return table


def _pairs(gaps: Sequence[Gap], now: datetime) -> Table:
    table = headed("Begin, local\nUTC", ">lasted", "state\nfilled", "source\ntag", "cause\ndetail")
    for gap in gaps:
        table.add_row(
            f"{gap.start.astimezone():%Y-%m-%d %H:%M:%S}\n{gap.start.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}",
            "\n".join(_lasted(gap, now)),
            _state(gap).append(f"\n{gap.rows_filled:,}" if gap.rows_filled else ""),
            Text(f"{gap.source}\n").append(_tag(gap)),
            Text(f"{gap.cause.value}\n{printable(gap.detail)}"),
        )
    return table


def _state(gap: Gap) -> Text:
    return Text(gap.state.value, _STYLES[gap.state])


def _tag(gap: Gap) -> Text:
    return Text(printable(gap.tag)) if gap.tag is not None else Text("all", "dim")


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


def _lasted(gap: Gap, now: datetime) -> tuple[str, ...]:
    return (duration(now - gap.start), "so far") if gap.end is None else (duration(gap.end - gap.start),)


def _count(gaps: Sequence[Gap], limit: int) -> str:
    states = Counter(gap.state for gap in gaps)
    parts = ", ".join(f"{states[state]:,} {state.value}" for state in GapState if states[state])
    whole = f"{len(gaps):,} gap{'' if len(gaps) == 1 else 's'}: {parts}"
    return f"{whole}; these are the newest, --limit shows more" if len(gaps) >= limit else whole


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
