"""The list of gaps, as a person and a program read it."""

import json
from datetime import UTC, datetime, timedelta

from rich.console import Console

from plugin.domain import Gap, GapCause, GapState
from plugin.report.gaps import gap_record, gaps_view

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CUT = Gap(
    "1", "plant", None, NOW - timedelta(hours=5), NOW - timedelta(hours=4, minutes=59), GapCause.SUBSCRIPTION_LOST, NOW,
    GapState.FILLED, 1234, "two pages",
)  # fmt: skip
LASTS = Gap(
    "2", "plant", "engine\x1b[2J.T1", NOW - timedelta(minutes=3), None, GapCause.BAD_ITEM, NOW, detail="no node"
)


def shown(*gaps: Gap, limit: int = 100, width: int = 160) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(gaps_view(gaps, NOW, limit=limit, width=width))
    return capture.get()


def test_each_gap_has_a_line_and_the_last_line_counts_them():
    lines = shown(CUT, LASTS).splitlines()
    assert "03-01 07:00:00Z" in lines[2]
    assert "60 s" in lines[2]
    assert "subscription_lost" in lines[2]
    assert "1,234" in lines[2]
    assert "3.0 min so far" in lines[3]
    assert "open" in lines[3]
    assert lines[-1] == "2 gaps: 1 open, 1 filled"


def test_where_there_may_be_more_it_says_so():
    assert shown(CUT, limit=1).splitlines()[-1] == "1 gap: 1 filled; these are the newest, --limit shows more"


def test_none_is_an_answer():
    assert shown() == "no gaps\n"


def test_what_a_server_sent_does_not_steer_the_terminal():
    assert "\x1b" not in shown(LASTS)


def test_the_record_is_json_in_utc():
    assert json.loads(json.dumps(gap_record(LASTS))) == {
        "id": "2", "source": "plant", "tag": "engine\x1b[2J.T1", "start": "2026-03-01T11:57:00Z", "end": None,
        "cause": "bad_item", "state": "open", "rows_filled": 0, "detected": "2026-03-01T12:00:00Z", "detail": "no node",
    }  # fmt: skip


def test_a_narrow_terminal_gets_two_lines_a_gap_and_nothing_cut():
    lines = shown(CUT, LASTS, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for part in ("2026-03-01 07:00:00Z", "60 s", "so far", "1,234", "subscription_lost", "two pages", "all", "no node"):
        assert part in text
    assert "…" not in text
