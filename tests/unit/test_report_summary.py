"""The summary that a run leaves on the screen."""

from dataclasses import replace
from datetime import timedelta

from rich.console import Console

from plugin.report.summary import Figure, ModelRuns, RunSummary, summary_view

SUMMARY = RunSummary(
    duration=timedelta(seconds=61.4),
    samples_stored=1_203_332,
    gaps=3,
    gaps_open=1,
    dropped=0,
    published=4_200,
    publish_failures=0,
    figures=(
        Figure("RUL RMSE", 14.237, "cycles", 812, "truth capped at 125"),
        Figure("NOx R²", None, "", 0, "no truth is due yet"),
    ),
    runs=(ModelRuns("rul", 3, 41, 0, 2), ModelRuns("nox", 0, 0, 1, 0)),
)


def shown(summary, width=80):
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(summary_view(summary))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_a_run_in_figures():
    lines = shown(SUMMARY)

    assert "ran for 0:01:01" in lines
    assert "samples stored 1,203,332" in lines
    assert "RUL RMSE 14.2 cycles 812 truth capped at 125" in lines
    assert "NOx R² none 0 no truth is due yet" in lines
    assert "rul 3 41 0 2" in lines
    assert "nox none 0 1 0" in lines


def test_the_verdict_is_the_last_line():
    assert SUMMARY.ok
    assert shown(SUMMARY)[-1] == "The job ran."


def test_problems_are_the_verdict():
    failed = replace(SUMMARY, problems=("No RUL was published.", "Samples were dropped."))

    assert not failed.ok
    assert shown(failed)[-3:] == ["The job did not really run:", "No RUL was published.", "Samples were dropped."]


def test_large_figures_are_grouped_not_written_as_powers():
    lines = shown(replace(SUMMARY, figures=(Figure("PHM score", 12_345.6, "", 10),)))

    assert "PHM score 12,346 10" in lines


def test_text_in_brackets_is_no_markup():
    lines = shown(replace(SUMMARY, figures=(Figure("[red]x[/red]", 1.0, "[mg/m³]", 1),), problems=("[bold]y",)))

    assert any("[red]x[/red] 1 [mg/m³]" in line for line in lines)
    assert lines[-1] == "[bold]y"
