"""The state folder: the same plant after a restart, and no other."""

import json

import pytest

from opcua_sim.options import Options, Security
from opcua_sim.state import State, StateError

SECOND = 1_000_000
PLANT = Options(engines=2).identity()


def run(folder, start, steps, identity=PLANT):
    with State(identity, folder) as state:
        state.begin(start)
        first = state.clock.present
        for step in range(first, first + steps):
            state.renew(step + 1)
        return state.clock


def test_a_plant_goes_on_where_it_stopped(tmp_path):
    assert run(tmp_path, 1000 * SECOND + 1, 5).times([0, 4]).tolist() == [1001 * SECOND, 1005 * SECOND]
    clock = run(tmp_path, 2000 * SECOND, 3)
    assert clock.present == 5
    assert clock.times([4, 5]).tolist() == [1005 * SECOND, 2000 * SECOND]
    run(tmp_path, 3000 * SECOND, 0)  # stopped before its first instant
    clock = run(tmp_path, 4000 * SECOND, 1)
    assert clock.times([7, 8]).tolist() == [2002 * SECOND, 4000 * SECOND]
    content = json.loads((tmp_path / "plant.json").read_text())
    assert content["running"] == [[1001.0, 1006.0], [2000.0, 2003.0], [4000.0, 4001.0]]
    assert content["created"] == 1001.0


def test_a_killed_plant_shows_no_step_twice(tmp_path):
    with State(PLANT, tmp_path) as state:
        state.begin(0)
        state.renew(3)  # written before step 2 is published; then the process dies
    assert run(tmp_path, 100 * SECOND, 1).present == 3


def test_a_clock_that_was_set_back_does_not_repeat_time(tmp_path):
    run(tmp_path, 1000 * SECOND, 5)
    assert run(tmp_path, 900 * SECOND, 1).time(5) == 1005 * SECOND


def test_short_periods_are_exact(tmp_path):
    identity = Options(period=0.1).identity()
    for start in range(1, 30):
        clock = run(tmp_path, 1_700_000_000 * SECOND + start * SECOND, 3, identity)
    assert clock.present == 84
    assert clock.time(84) == 1_700_000_029 * SECOND
    assert clock.time(83) == 1_700_000_028 * SECOND + 200_000


def test_another_plant_is_refused(tmp_path):
    run(tmp_path, 1000 * SECOND, 5)
    with pytest.raises(StateError, match=r"engines 2 \(asked for: 3\)"):
        State(Options(engines=3).identity(), tmp_path)


def test_two_processes_are_refused(tmp_path):
    with State(PLANT, tmp_path), pytest.raises(StateError, match="another process"):
        State(PLANT, tmp_path)
    State(PLANT, tmp_path).__exit__(None, None, None)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"running": 3}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / "plant.json").write_text(text)
    with pytest.raises(StateError, match="damaged"):
        State(PLANT, tmp_path)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match="state folder"):
        State(PLANT, tmp_path / "state")


@pytest.mark.parametrize(
    "options",
    [
        {"security": Security.SIGN_ENCRYPT},
        {"engines": 501},
        {"engines": -1},
        {"period": 0},
        {"engines": 0, "gas_turbine": False},
        {"history_runs": -1},
    ],
)
def test_impossible_plants_are_refused(options):
    with pytest.raises(ValueError, match=r"\w"):
        Options(**options)
