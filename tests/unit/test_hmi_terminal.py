"""The live table as a person sees it, and the lines that stand in for it in a pipe."""

import asyncio
import contextlib
import io
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.console import Console

from plugin.domain import Status
from plugin.hmi import AssetLine, LiveView, ModelLine, Reading, Snapshot, SourceLine, Totals, TrainingLine
from plugin.hmi.picture import most_urgent, picture
from plugin.hmi.terminal import line

SECOND = timedelta(seconds=1)


def engine(number, rul=50.0, *, status=Status.GOOD, flag=False):
    life = Reading(rul, rul * 0.8, rul * 1.2, "cycles", status)
    return AssetLine(f"engine-{number:02}", status, SECOND, life, Reading(rul / 125, status=status), flag, 0.5, 1.0)


TURBINE = AssetLine(
    "turbine",
    Status.GOOD,
    SECOND,
    flag=False,
    score=0.3,
    threshold=1.0,
    quality=Reading(63.21, 58.1, 68.9, "mg/m³"),
    quality_name="NOx",
    lab=61.5,
    lab_age=timedelta(hours=24),
)

SNAPSHOT = Snapshot(
    uptime=timedelta(seconds=83.7),
    sources=(SourceLine("plant", True, 493, 493, 1_203_332),),
    trainings=(),
    assets=(*(engine(number) for number in range(1, 21)), TURBINE),
    models=(
        ModelLine("rul", 3, SECOND, 20, timedelta(milliseconds=2.7), 0, 0),
        ModelLine("nox", 0, None, 0, None, 2, 1),
    ),
    totals=Totals(1_203_332, 482.3, 0, 0, timedelta(milliseconds=3.2)),
)


def shown(snapshot, width=100, height=40):
    console = Console(width=width, height=height, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(picture(snapshot, width, height))
    return capture.get().splitlines()


def row(lines, name):
    return next(text.split() for text in lines if text.startswith(name))


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_whole_fleet_fits_the_terminal_uncut(width):
    lines = shown(SNAPSHOT, width)

    assert len(lines) < 40
    assert max(map(len, lines)) <= width
    assert not [text for text in lines if "…" in text]
    assert row(lines, "engine-20")[:5] == ["engine-20", "50.0", "40.0–60.0", "40", "%"]


def test_an_inferred_quality_stands_beside_the_late_laboratory_value():
    lines = shown(SNAPSHOT)

    turbine = "turbine NOx [mg/m³] 63.2 58.1–68.9 61.5 24 h 0.30/1.00 no 1.0 s Good"
    assert row(lines, "turbine") == turbine.split()


def test_a_model_that_is_not_trained_yet_says_so():
    lines = shown(SNAPSHOT)

    assert row(lines, "rul") == ["rul", "3", "1.0", "s", "ago", "20", "2.70", "ms", "0", "0"]
    assert row(lines, "nox") == ["nox", "none", "yet", "–", "0", "–", "2", "1"]


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize(
    ("status", "value", "word"),
    [(Status.UNCERTAIN_SUB_NORMAL, "50.0?", "Uncertain"), (Status.BAD_NO_DATA, "Bad", "Bad")],
)
def test_doubt_is_written_not_only_coloured(width, status, value, word):
    cells = row(shown(replace(SNAPSHOT, assets=(engine(1, status=status),)), width), "engine-01")

    assert cells[1] == value
    assert cells[-1].startswith(word)


def test_a_flag_is_a_word():
    lines = shown(replace(SNAPSHOT, assets=(engine(1, flag=True), engine(2))), 80)

    assert "FLAG" in row(lines, "engine-01")
    assert "FLAG" not in row(lines, "engine-02")


def test_history_and_training_show_how_far_they_are():
    source = SourceLine("plant", False, 120, 480, 700_000)
    training = TrainingLine("rul", 0.62, "epoch 12/20")

    lines = shown(replace(SNAPSHOT, sources=(source,), trainings=(training,)), 80)

    assert row(lines, "plant")[:4] == ["plant", "NOT", "CONNECTED", "history"]
    assert "120/480 tags, 700,000 samples" in "\n".join(lines)
    assert row(lines, "rul")[1] == "training"
    assert "62%  epoch 12/20" in "\n".join(lines)


def test_losses_are_in_the_headline():
    lines = shown(replace(SNAPSHOT, totals=Totals(10, 1.0, 1, 12, None)))

    assert "1 gap open · 12 DROPPED" in lines[0]


def test_where_samples_go_while_the_database_is_away_is_in_the_headline():
    away = Totals(1_203_332, 482.3, 0, 0, timedelta(milliseconds=3.2), "spilling", 1_234_567)

    assert "1,234,567 in the SPILL" in shown(replace(SNAPSHOT, totals=away), 120)[0]
    waiting = replace(away, storing="waiting")
    assert "DATABASE AWAY, sources wait" in shown(replace(SNAPSHOT, totals=waiting), 120)[0]


def test_a_disk_that_gets_full_is_in_the_headline():
    soon = Totals(10, 1.0, 0, 0, None, disk_full=timedelta(days=12.2))

    assert "DISK FULL in 12 d" in shown(replace(SNAPSHOT, totals=soon), 120)[0]
    assert "DISK" not in shown(SNAPSHOT, 120)[0]


def test_what_is_not_well_with_a_source_is_said_in_words():
    ill = SourceLine(
        "mill", False, 3, 3, 0, away=True, trouble="connect to opc.tcp://mill:4840: no answer\x1b[2J",
        unwell=(("refused", 2), ("silent", 1200)),
    )  # fmt: skip
    shifty = SourceLine("pump", True, 3, 3, 0, away=True, trouble="its ServiceLevel is 1; its values are not relied on")
    snapshot = replace(SNAPSHOT, sources=(*SNAPSHOT.sources, ill, shifty))
    for width in (80, 120):
        lines = shown(snapshot, width, 40)
        assert len(lines) <= 40
        text = "\n".join(lines)
        assert "NOT CONNECTED" in text
        assert "NOT RELIED ON" in text
        assert "mill: connect to opc.tcp://mill:4840: no answer" in text
        assert "\x1b" not in text
    assert "2 tags refused, 1,200 tags silent" in text
    assert "mill: 2 tags refused, 1,200 tags silent" in line(snapshot)
    assert "pump: its ServiceLevel is 1" in line(snapshot)


def test_where_not_all_assets_fit_the_most_urgent_are_shown():
    flagged, bad, short = engine(201, flag=True), engine(202, status=Status.BAD), engine(203, 3.0)
    calm = [engine(number) for number in range(1, 101)]

    lines = shown(replace(SNAPSHOT, assets=(*calm, short, bad, flagged)), 80, 24)

    assert len(lines) <= 24
    assert [text.split()[0] for text in lines if text.startswith("engine-2")] == [
        "engine-201",
        "engine-202",
        "engine-203",
    ]
    assert any(text.startswith("and ") and "more assets" in text for text in lines)


def test_assets_keep_their_order_where_all_fit():
    assets = [engine(1), engine(2, flag=True)]

    assert most_urgent(assets, 2) == assets


def test_names_from_the_plant_are_text_not_markup():
    asset = replace(engine(1), name="[red]E1\x1b[2J", rul=Reading(1.0, unit="[bold]h"))

    text = "\n".join(shown(replace(SNAPSHOT, assets=(asset,)), 140))

    assert "[red]E1" in text
    assert "RUL [[bold]h]" in text
    assert "\x1b" not in text


def test_an_empty_service_has_a_picture():
    empty = Snapshot(timedelta(0), (), (), (), (), Totals(0, 0.0, 0, 0, None))

    assert shown(empty)[0].startswith("foretag")
    assert line(empty).startswith("foretag")


def test_one_line_says_what_matters():
    snapshot = replace(
        SNAPSHOT,
        sources=(SourceLine("plant", True, 1, 4, 10), SourceLine("other", False, 0, 0, 0)),
        trainings=(TrainingLine("nox", 0.5),),
        assets=(engine(1, 12.0, flag=True), engine(2, 99.0, status=Status.UNCERTAIN)),
    )

    text = line(snapshot)

    assert "\n" not in text
    for part in (
        "foretag  up 0:01:23",
        "1,203,332 samples (482/s)",
        "1/2 sources connected",
        "plant: history of 1/4 tags read",
        "training nox 50%",
        "rul-3 ran 1.0 s ago",
        "flagged: engine-01",
        "1 asset not Good",
        "shortest RUL: engine-01 12.0 cycles",
    ):
        assert part in text.split(" · ")


async def run_until(view, satisfied):
    """Let the view run until its source of snapshots says that it has seen enough."""
    running = asyncio.create_task(view.run())
    await asyncio.wait_for(satisfied.wait(), 10)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def watched(console, snapshots):
    seen: list[Snapshot] = []
    enough = asyncio.Event()

    def snapshot():
        seen.append(snapshots[min(len(seen), len(snapshots) - 1)])
        if len(seen) == len(snapshots):
            enough.set()
        return seen[-1]

    nothing = timedelta(0)
    await run_until(LiveView(snapshot, console, refresh=nothing, line_every=nothing), enough)


def running(seconds):
    return replace(SNAPSHOT, uptime=timedelta(seconds=seconds))


async def test_a_pipe_gets_plain_lines_and_one_at_the_end():
    pipe = io.StringIO()

    await watched(Console(file=pipe, width=40), [running(1), running(2), running(3)])

    lines = pipe.getvalue().splitlines()
    assert [text.split(" · ")[0] for text in lines][:2] == ["foretag  up 0:00:01", "foretag  up 0:00:02"]
    assert lines[-1].startswith("foretag  up 0:00:03")
    assert "\x1b" not in pipe.getvalue()


async def test_a_terminal_is_painted_anew_and_keeps_the_last_picture():
    screen = io.StringIO()
    console = Console(file=screen, width=100, height=40, force_terminal=True, _environ={"TERM": "xterm"})

    await watched(console, [running(1), running(2), running(3)])

    painted = screen.getvalue()
    assert painted.index("0:00:01") < painted.index("0:00:02") < painted.rindex("0:00:03")
    assert painted.rindex("\x1b[?25h") > painted.rindex("0:00:03")  # the cursor is given back


async def test_a_terminal_that_cannot_be_painted_gets_lines():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, _environ={"TERM": "dumb"})

    await watched(console, [running(1), running(2)])

    assert screen.getvalue().splitlines()[-1].startswith("foretag  up 0:00:02")


def test_a_service_outlives_the_reader_of_its_lines():
    program = textwrap.dedent("""
        import asyncio, datetime, sys
        from plugin.hmi import LiveView, Snapshot, Totals

        nothing = datetime.timedelta(0)
        snapshot = Snapshot(nothing, (), (), (), (), Totals(0, 0.0, 0, 0, None))
        asyncio.run(LiveView(lambda: snapshot, line_every=nothing).run())
        print("goes on", file=sys.stderr)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("foretag")
        process.stdout.close()

        assert process.wait(30) == 0
        assert process.stderr is not None
        assert "goes on" in process.stderr.read()
