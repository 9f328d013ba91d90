"""The plant as a function of time: fleet, gas turbine, clock and chance."""

from itertools import pairwise

import numpy as np
import pytest

from opcua_sim import chance, data, fleet
from opcua_sim.clock import Clock
from opcua_sim.faults import Fault, FaultLog, Kind
from opcua_sim.gas_turbine import LAB, LAB_DELAY, GasTurbine
from opcua_sim.plant import Plant
from opcua_sim.tags import Tag, normal_range

SECOND = 1_000_000


def test_chance_is_the_same_for_ever():
    # computed once; a change here gives every plant another past
    assert chance.uniform(1, "pools", [0, 1, -1]).tolist() == pytest.approx(
        [0.7012399999111195, 0.4175809778732844, 0.8613756216031155], abs=1e-16
    )
    assert sorted(chance.shuffled(7, "pools", 100).tolist()) == list(range(100))
    assert chance.uniform(1, "a", np.arange(10_000)).mean() == pytest.approx(0.5, abs=0.02)


def test_chance_differs_by_seed_and_purpose():
    place = np.arange(50)
    assert not np.array_equal(chance.uniform(1, "a", place), chance.uniform(2, "a", place))
    assert not np.array_equal(chance.uniform(1, "a", place), chance.uniform(1, "b", place))


# --- clock -------------------------------------------------------------------------------------------------------


def test_clock_skips_the_time_that_the_plant_was_off():
    clock = Clock(SECOND, [(100, 104), (110, 110)])
    assert clock.times([-2, -1, 0, 3, 4, 5]).tolist() == [t * SECOND for t in (98, 99, 100, 103, 110, 111)]
    assert clock.present == 4


@pytest.mark.parametrize(("time", "step"), [(97, -3), (100, 0), (103, 3), (104, 4), (107, 4), (110, 4), (111, 5)])
def test_clock_finds_the_first_step_at_or_after(time, step):
    clock = Clock(SECOND, [(100, 104), (110, 110)])
    assert clock.first_step(time * SECOND) == step
    assert clock.first_step(time * SECOND - SECOND + 1) == min(step, clock.first_step(time * SECOND))
    assert clock.time(step) >= time * SECOND


def test_clock_goes_back_and_forth():
    clock = Clock(250_000, [(8, 20), (32, 32), (40, 44), (50, 50)])
    steps = np.arange(-30, 60)
    assert [clock.first_step(int(time)) for time in clock.times(steps)] == steps.tolist()


def test_clock_needs_an_interval():
    with pytest.raises(ValueError, match="interval"):
        Clock(SECOND, [])


# --- fleet -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 20])
def test_engines_run_whole_units_from_new_to_failure(count):
    source = data.fleet("FD001")
    lives = {bytes(source.columns["T24"][f : f + n].tobytes()) for f, n in zip(source.first, source.life, strict=True)}
    for engine in fleet.engines(count, seed=3):
        steps = np.arange(engine.first_step, 1000)
        cycle, runs = engine.values("cycle", steps), engine.values("overhauls", steps)
        assert cycle[0] == 1
        assert np.all((np.diff(cycle) == 1) | (cycle[1:] == 1))
        assert np.array_equal(np.diff(runs), (cycle[1:] == 1).astype(float))
        starts = np.flatnonzero(cycle == 1)
        values = engine.values("T24", steps)
        for begin, end in pairwise(starts):
            assert values[begin:end].tobytes() in lives
        last = int(steps[starts[1]]) - 1
        assert (engine.remaining(last), engine.remaining(last - 5)) == (0, 5)


def test_present_never_meets_the_past():
    source = data.fleet("FD001")
    engines = fleet.engines(20, seed=1)

    def lives(engine, steps):
        cycle = engine.values("cycle", steps)
        return {engine.values("T24", steps[i : i + 3]).tobytes() for i in np.flatnonzero(cycle[:-3] == 1)}

    past = [lives(e, np.arange(e.first_step, e.first_step + 400)) for e in engines]
    later = [lives(e, np.arange(1, 3000)) for e in engines]
    assert not set().union(*past) & set().union(*later)
    begun = [e.values("overhauls", np.array([0]))[0] for e in engines]
    assert begun == [3.0] * 20
    starts = {bytes(source.columns["T24"][first : first + 3].tobytes()) for first in source.first}
    assert set().union(*later) <= starts
    assert len(set().union(*later)) == 40  # the whole live pool comes to run


def test_ages_are_spread_and_seeded():
    ages = [e.cycle(0) / (e.cycle(0) + e.remaining(0)) for e in fleet.engines(20, seed=1)]
    assert min(ages) < 0.22
    assert max(ages) > 0.88
    assert all(0.14 <= age <= 0.96 for age in ages)
    again = [e.cycle(0) for e in fleet.engines(20, seed=1)]
    assert again == [e.cycle(0) for e in fleet.engines(20, seed=1)]
    assert again != [e.cycle(0) for e in fleet.engines(20, seed=2)]


def test_large_fleets_share_units():
    engines = fleet.engines(120, seed=1, history_runs=1)
    assert [e.name for e in engines[:2]] == ["engine-001", "engine-002"]
    assert {e.name for e in engines} == {f"engine-{n:03}" for n in range(1, 121)}


def test_ranges_hold_all_values():
    for engine in fleet.engines(1, seed=1):
        for feature in engine.features[:24]:
            column = data.fleet("FD001").columns[feature.name]
            assert feature.low < column.min()
            assert column.max() < feature.high
    assert normal_range(np.array([518.67, 518.67])) == (516.07, 521.27)


# --- gas turbine -------------------------------------------------------------------------------------------------


def test_turbine_replays_the_years_in_order():
    turbine, source = GasTurbine(2014), data.emissions()
    steps = np.arange(turbine.first_step, 14_542)
    assert turbine.first_step == -22_191
    assert np.array_equal(turbine.values("TEY", steps), source.columns["TEY"])
    assert turbine.values("TEY", np.array([14_542]))[0] == source.columns["TEY"][0]
    assert turbine.nox(0) == source.columns["NOX"][22_191]


def test_turbine_knows_its_years():
    with pytest.raises(ValueError, match="2010"):
        GasTurbine(2010)


# --- plant -------------------------------------------------------------------------------------------------------


def make_plant(*faults: Fault):
    log = FaultLog(seed=1)
    for fault in faults:
        log.add(fault)
    return Plant(fleet.engines(2, seed=1), GasTurbine(), log)


def gathered(plant, start, end):
    """What arrives at ``start <= step < end``, by tag: {sampled step: (value, status)}."""
    found: dict[str, dict[int, tuple[float, int]]] = {tag.name: {} for tag in plant.tags}
    for step in range(start, end):
        arrivals = plant.arrivals(step)
        for place, tag in enumerate(plant.tags):
            if arrivals.present[place]:
                found[tag.name][step - tag.feature.delay] = (arrivals.value[place], arrivals.status[place])
    return found


FAULTS = (
    Fault(Kind.DRIFT, "engine-01.T24", 10, 40, 0.5),
    Fault(Kind.STUCK, "engine-0*.T30", 15, 30),
    Fault(Kind.SPIKES, "engine-02.*", 0, 60, 1.0),
    Fault(Kind.DROPOUT, "gas-turbine.*", 20, 35),
    Fault(Kind.BAD, "engine-01.T*", 25, 30),
    Fault(Kind.UNCERTAIN, "*", 50, 55),
)


@pytest.mark.parametrize("faults", [(), FAULTS], ids=["sound", "faulty"])
def test_what_arrives_is_what_history_tells(faults):
    plant = make_plant(*faults)
    live = gathered(plant, -5, 60)
    for tag in plant.tags:
        delay = tag.feature.delay
        series = plant.series(tag, -5 - delay, 60 - delay)
        assert series.step.tolist() == list(live[tag.name])
        told = np.array([value for value, _ in live[tag.name].values()])
        assert np.array_equal(series.value, told, equal_nan=True)
        assert series.status.tolist() == [status for _, status in live[tag.name].values()]


def test_history_does_not_depend_on_how_it_is_asked_for():
    plant = make_plant(*FAULTS)
    for tag in plant.tags:
        whole = plant.series(tag, -30, 70)
        parts = [plant.series(tag, start, start + 7) for start in range(-30, 70, 7)]
        assert np.array_equal(whole.value[whole.step < 68], np.concatenate([p.value[p.step < 68] for p in parts]), True)


def test_laboratory_is_a_day_late():
    plant = make_plant()
    place = next(i for i, tag in enumerate(plant.tags) if tag.feature.name == LAB)
    assert plant.arrivals(100).value[place] == plant.turbine.nox(100 - LAB_DELAY)


def test_nothing_arrives_before_the_first_hour():
    plant = Plant((), GasTurbine(2011), FaultLog(seed=1))
    assert not plant.arrivals(-1).present.any()
    present = dict(zip((tag.feature.name for tag in plant.tags), plant.arrivals(0).present, strict=True))
    assert present["AT"]
    assert not present[LAB]
    assert len(plant.series(Tag("gas-turbine", plant.tags[0].feature), -100, 0)) == 0
