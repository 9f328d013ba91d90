"""The arithmetic of the benchmark on the gas turbine, without a training."""

import numpy as np
import pytest

from models.drift import Reference
from tests.benchmarks import quality


def write(folder, rows):
    """Each year counts up from its own hundreds."""
    header = "AT,AP,AH,AFDP,GTEP,TIT,TAT,TEY,CDP,CO,NOX"
    for place, (year, count) in enumerate(zip(quality.YEARS, rows, strict=True)):
        lines = [",".join(str(100 * place + row) for _ in range(11)) for row in range(count)]
        (folder / f"gt_{year}.csv").write_text("\n".join([header, *lines]))
    return [folder / f"gt_{year}.csv" for year in quality.YEARS]


def test_years_follow_each_other(tmp_path):
    turbine = quality.read(write(tmp_path, (3, 4, 5, 24, 36)))
    assert turbine.columns["NOX"][:8].tolist() == [0, 1, 2, 100, 101, 102, 103, 200]
    assert turbine.year(2012) == slice(3, 7)
    assert quality.asked(turbine)[:3].tolist() == [13, 15, 17], "their ends are even hours of the clock"
    assert quality.asked(turbine)[-1] == 71
    parts = quality.quarters(turbine, np.arange(12, 72))
    assert [len(part) for part in parts] == [6] * 4 + [9] * 4
    assert parts[4][0] == 24


async def test_a_file_that_is_lacking_is_named_and_nothing_is_measured(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "gas_turbine"
    folder.mkdir()
    write(folder, (1,) * 5)[2].unlink()
    monkeypatch.setenv("FORETAG_DATA", str(tmp_path))
    assert await quality.measure(True) == []
    assert f"{folder / 'gt_2013.csv'} is not there" in capsys.readouterr().out


def test_a_peer_is_told_the_laboratory_a_day_late():
    residual = np.zeros(100)
    residual[30:] = 5.0
    bias = quality._bias(residual)
    assert bias[:54].tolist() == [0.0] * 54
    assert 0 < bias[54] < bias[80] < 5.0


def test_of_the_mean_nothing_is_explained():
    truth = np.array([1.0, 2.0, 3.0])
    assert quality.r_squared(np.full(3, 2.0), truth) == pytest.approx(0.0)
    assert quality.r_squared(truth, truth) == 1.0


def test_a_drift_is_told_once_when_it_begins_and_again_when_it_comes_back():
    noise = np.random.default_rng(1).normal(size=6000)
    seasonal = Reference.of(noise[:2000].reshape(4, -1))
    assert quality.drifts(seasonal, noise, 2000) == []
    noise[3000:3500] += 2.0
    noise[5000:5500] -= 2.0
    first, second = quality.drifts(seasonal, noise, 2000)
    assert 3000 < first < 3100
    assert 5000 < second < 5100
    assert (first - 2000) % 24 == 0
