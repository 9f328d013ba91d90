"""The form that every benchmark has."""

import json
import math
import sys

import pytest
from rich.console import Console

from tests.benchmarks import __main__ as command
from tests.benchmarks.harness import (
    Better,
    Goal,
    Peer,
    Row,
    Spread,
    alternate,
    digits,
    machine,
    quantile,
    repeat,
    view,
    write,
)

COST = Row(
    "CPU per value",
    Spread.of([0.4, 0.2, 0.3]),
    "µs",
    Better.LESS,
    Peer("asyncua", Spread.of([18.0, 15.0])),
    Goal(30, of_ratio=True),
)


def test_the_spread_of_several_runs():
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)


def test_no_run_is_no_figure():
    with pytest.raises(ValueError, match="no run"):
        Spread.of([])


@pytest.mark.parametrize(("better", "ratio"), [(Better.LESS, 2.0), (Better.MORE, 0.5)])
def test_the_ratio_is_above_one_where_we_lead(better, ratio):
    row = Row("figure", Spread.of([5.0]), "s", better, Peer("other", Spread.of([10.0])))

    assert row.ratio == ratio


def test_without_a_peer_or_with_nothing_to_divide_by_there_is_no_ratio():
    assert Row("figure", Spread.of([5.0]), "s").ratio is None
    assert Row("figure", Spread.of([0.0]), "s", peer=Peer("other", Spread.of([1.0]))).ratio is None


@pytest.mark.parametrize(
    ("better", "limit", "met"),
    [(Better.LESS, 5.0, True), (Better.LESS, 4.9, False), (Better.MORE, 5.0, True), (Better.MORE, 5.1, False)],
)
def test_a_goal_for_the_value(better, limit, met):
    assert Row("figure", Spread.of([5.0]), "s", better, goal=Goal(limit)).met is met


@pytest.mark.parametrize(("limit", "met"), [(2.0, True), (2.1, False)])
def test_a_goal_for_the_ratio(limit, met):
    row = Row(
        "figure", Spread.of([5.0]), "s", Better.LESS, Peer("other", Spread.of([10.0])), Goal(limit, of_ratio=True)
    )

    assert row.met is met


def test_a_goal_without_its_peer_is_not_judged():
    assert Row("figure", Spread.of([5.0]), "s", goal=Goal(2.0, of_ratio=True)).met is None


def test_rows_are_written_with_the_eight_keys(tmp_path):
    file = tmp_path / "rows.json"

    write(file, [("acquisition", [COST]), ("other", [Row("memory", Spread.of([250.0]), "MB", goal=Goal(250))])])

    assert json.loads(file.read_text()) == [
        {
            "benchmark": "acquisition",
            "figure": "CPU per value",
            "value": 0.3,
            "unit": "µs",
            "peer": "asyncua: 16.5",
            "ratio": pytest.approx(55.0),
            "goal": "ratio >= 30",
            "met": True,
        },
        {
            "benchmark": "other",
            "figure": "memory",
            "value": 250.0,
            "unit": "MB",
            "peer": None,
            "ratio": None,
            "goal": "<= 250",
            "met": True,
        },
    ]


def test_the_table_shows_median_and_spread_of_both():
    console = Console(width=140, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(view("acquisition", [COST]))

    for cell in ("CPU per value", "0.3 (0.2–0.4)", "µs", "asyncua 16.5 (15–18)", "55×", "ratio >= 30", "yes"):
        assert cell in capture.get()


@pytest.mark.parametrize(("value", "text"), [(0.01234, "0.0123"), (12.34, "12.3"), (563_210.4, "563,210"), (0.0, "0")])
def test_digits(value, text):
    assert digits(value) == text


@pytest.mark.parametrize(
    ("share", "value"),
    [(0.1, 0.5), (0.2, 1.0), (0.5, 2.5), (0.8, 4.0), (0.9, 4.0)],  # of 2 up to 1, 6 from 1 to 4, 2 beyond
)
def test_quantiles_of_a_histogram(share, value):
    assert quantile({1.0: 2.0, 2.0: 4.0, 4.0: 8.0, math.inf: 10.0}, share) == pytest.approx(value)


def test_a_histogram_of_nothing_has_no_quantile():
    assert math.isnan(quantile({1.0: 0.0, math.inf: 0.0}, 0.99))


async def test_peers_are_measured_in_turns():
    order = []

    def runner(name, figures):
        async def run():
            order.append(name)
            return figures.pop(0)

        return run

    ours, theirs = await alternate(runner("ours", [1.0, 3.0]), runner("theirs", [4.0, 2.0]), 2)

    assert order == ["ours", "theirs", "ours", "theirs"]
    assert (ours, theirs) == (Spread(2.0, 1.0, 3.0), Spread(3.0, 2.0, 4.0))


async def test_a_figure_is_measured_as_often_as_asked():
    figures = [3.0, 1.0, 2.0]

    async def run():
        return figures.pop()

    assert await repeat(run, 3) == Spread(2.0, 1.0, 3.0)
    assert figures == []


def test_the_machine_is_named():
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in machine()
    assert "cores" in machine()


def test_an_unknown_benchmark_is_refused_with_the_names_there_are(capsys):
    with pytest.raises(SystemExit) as refused:
        command.main(["nonesuch"])

    assert refused.value.code == 2
    complaint = capsys.readouterr().err
    assert all(name in complaint for name in ("nonesuch", *command.names()))


def test_every_benchmark_has_the_form():
    for name in command.names():
        module = __import__(f"tests.benchmarks.{name}", fromlist=["measure"])
        assert module.__doc__
        assert callable(module.measure)
