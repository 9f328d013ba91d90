"""Faults: what each does to the values, how they are kept, and scripts of them."""

import numpy as np
import pytest

from opcua_sim import faults, fleet
from opcua_sim.faults import Fault, FaultError, FaultLog, Kind
from opcua_sim.gas_turbine import GasTurbine
from opcua_sim.plant import Plant


def plant_with(*found: Fault, tags="engine-01.T24"):
    log = FaultLog(seed=1)
    plant = Plant(fleet.engines(1, seed=1), GasTurbine(), log)
    tag = next(tag for tag in plant.tags if tag.name == tags)
    true = plant.series(tag, 0, 100)
    for fault in found:
        log.add(fault)
    return tag, true, plant.series(tag, 0, 100)


def test_drift_grows_to_its_magnitude():
    tag, true, wrong = plant_with(Fault(Kind.DRIFT, "engine-01.T24", 10, 20, 0.5))
    offset = wrong.value - true.value
    assert offset[19] == pytest.approx(0.5 * tag.feature.span)
    assert np.all(np.diff(offset[9:20]) > 0)
    assert not offset[:10].any()
    assert not offset[20:].any()


def test_stuck_repeats_the_value_before():
    _, true, wrong = plant_with(Fault(Kind.STUCK, "*.T24", 10, 20))
    assert set(wrong.value[9:20]) == {true.value[9]}
    assert np.array_equal(wrong.value[20:], true.value[20:])
    assert len(wrong) == 100


def test_spikes_are_few_and_to_both_sides():
    tag, true, wrong = plant_with(Fault(Kind.SPIKES, "*", 0, 100, 1.0))
    offset = np.round((wrong.value - true.value) / tag.feature.span, 9)
    assert set(offset) == {-1.0, 0.0, 1.0}
    assert 3 <= np.count_nonzero(offset) <= 20


def test_dropout_leaves_nothing():
    _, _, wrong = plant_with(Fault(Kind.DROPOUT, "engine-*", 10, 20))
    assert wrong.step.tolist() == [*range(10), *range(20, 100)]


def test_bad_has_no_value_and_beats_uncertain():
    _, _, wrong = plant_with(Fault(Kind.BAD, "*", 10, 20), Fault(Kind.UNCERTAIN, "*", 15, 30))
    assert np.isnan(wrong.value[10:20]).all()
    assert set(wrong.status[10:20]) == {faults.BAD_SENSOR_FAILURE}
    assert set(wrong.status[20:30]) == {faults.UNCERTAIN_SENSOR_NOT_ACCURATE}
    assert not wrong.status[30:].any()


def test_late_values_are_hit_when_they_arrive():
    _, _, wrong = plant_with(Fault(Kind.DROPOUT, "*", 50, 60), tags="gas-turbine.NOX_lab")
    assert sorted(set(range(100)) - set(wrong.step.tolist())) == list(range(26, 36))


def test_counters_stay_whole():
    _, _, wrong = plant_with(Fault(Kind.DRIFT, "*", 0, 100, -2.0), tags="engine-01.cycle")
    assert np.array_equal(wrong.value, np.round(wrong.value))
    assert wrong.value.min() == 0


def test_faults_are_kept(tmp_path):
    path = tmp_path / "faults.csv"
    log = FaultLog(1, path)
    log.add(Fault(Kind.DRIFT, "a,b*", 3, 30, 0.1))
    log.add(Fault(Kind.BAD, "*", 12, 40))
    log.clear(10)
    log.add(Fault(Kind.BAD, "c", 20, 25))
    again = FaultLog(1, path)
    assert again.active(9) == (Fault(Kind.DRIFT, "a,b*", 3, 10, 0.1),)
    assert again.active(12) == ()
    assert again.active(20) == log.active(20) == (Fault(Kind.BAD, "c", 20, 25),)


def test_script_in_toml(tmp_path):
    path = tmp_path / "storm.toml"
    path.write_text(
        """
        [[fault]]
        at = 30
        kind = "cut"
        seconds = 3

        [[fault]]
        at = 5.5
        kind = "drift"
        tags = "engine-01.T*"
        seconds = 60
        magnitude = 0.2
        """
    )
    first, second = faults.read_script(path)
    assert first == faults.Planned(5.5, Kind.DRIFT, "engine-01.T*", 60.0, 0.2)
    assert second == faults.Planned(30.0, Kind.CUT, "*", 3.0, None)


def test_script_in_csv(tmp_path):
    path = tmp_path / "storm.csv"
    path.write_text("at, kind, tags, seconds, magnitude\n10, bad, engine-02.*, 5,\n")
    assert faults.read_script(path) == (faults.Planned(10.0, Kind.BAD, "engine-02.*", 5.0, None),)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "[[fault]]\nat = 1\nkind = 'fire'\nseconds = 1\n", "no fault 'fire'; there are drift, stuck"),
        ("a.toml", "[[fault]]\nat = 1\nkind = 'bad'\n", "no 'seconds'"),
        ("a.toml", "[[fault]\n", "a.toml"),
        ("a.csv", "at,kind,tags,seconds\nsoon,bad,*,5\n", "soon"),
        ("missing.csv", None, "missing.csv"),
    ],
)
def test_wrong_scripts_are_refused(tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(FaultError, match=message):
        faults.read_script(path)
