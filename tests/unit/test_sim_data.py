"""The shipped data is the public data, number for number."""

import os
from pathlib import Path

import numpy as np
import pytest

from opcua_sim import data

PUBLIC = Path(os.environ.get("FORETAG_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


@pytest.mark.parametrize("dataset", data.DATASETS)
def test_fleet_equals_the_public_file(dataset):
    path = PUBLIC / "cmapss" / f"train_{dataset}.txt"
    if not path.exists():
        pytest.skip(f"no {path.name} in FORETAG_DATA")
    rows = np.loadtxt(path)
    fleet = data.fleet(dataset)
    assert np.array_equal(np.column_stack([fleet.columns[n] for n in data.SETTINGS + data.SENSORS]), rows[:, 2:])
    assert np.array_equal(np.repeat(np.arange(len(fleet.life)) + 1, fleet.life), rows[:, 0])


def test_emissions_equal_the_public_files():
    if not (PUBLIC / "gas_turbine").exists():
        pytest.skip("no gas_turbine in FORETAG_DATA")
    years = [
        np.genfromtxt(PUBLIC / "gas_turbine" / f"gt_{y}.csv", delimiter=",", names=True) for y in range(2011, 2016)
    ]
    emissions = data.emissions()
    assert np.array_equal(emissions.year, np.repeat(np.arange(2011, 2016), [len(y) for y in years]))
    for name, column in emissions.columns.items():
        assert np.array_equal(column, np.concatenate([year[name] for year in years])), name


@pytest.mark.parametrize(("dataset", "units", "rows"), [("FD001", 100, 20631), ("FD002", 260, 53759)])
def test_units_are_found(dataset, units, rows):
    fleet = data.fleet(dataset)
    assert (len(fleet.life), int(fleet.life.sum())) == (units, rows)
    assert fleet.first[0] == 0
    assert np.array_equal(fleet.first[1:], np.cumsum(fleet.life)[:-1])


def test_unknown_set_is_refused():
    with pytest.raises(ValueError, match="FD001"):
        data.fleet("FD009")
