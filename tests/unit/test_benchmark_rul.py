"""The arithmetic of the benchmark on C-MAPSS, without a training."""

import numpy as np
import pytest

from tests.benchmarks import rul


def write(folder, name):
    """Two units of 3 and 2 cycles for training, one of 2 for the test."""
    row = " ".join(["0.5"] * 24)
    for part, cycles in (("train", ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2))), ("test", ((1, 1), (1, 2)))):
        (folder / f"{part}_{name}.txt").write_text("\n".join(f"{unit} {cycle} {row}" for unit, cycle in cycles))
    (folder / f"RUL_{name}.txt").write_text("112\n")


def test_a_set_is_read_by_unit(tmp_path):
    write(tmp_path, "FD001")
    fleet = rul.read(tmp_path, "FD001")
    assert [life.shape for life in fleet.train] == [(25, 3), (25, 2)]
    assert fleet.test[0][:2].tolist() == [[1, 2], [0.5, 0.5]]
    assert (fleet.left.tolist(), fleet.length) == ([112], 3)


async def test_a_file_that_is_lacking_is_named_and_nothing_is_measured(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "cmapss"
    folder.mkdir()
    write(folder, "FD001")
    monkeypatch.setenv("FORETAG_DATA", str(tmp_path))
    assert await rul.measure(True) == []
    assert f"{folder / 'train_FD002.txt'} is not there" in capsys.readouterr().out


def test_scores_of_errors_that_are_known():
    left = np.array([20.0, 20.0, 20.0])
    told = np.array([7.0, 20.0, 30.0])
    assert rul.phm(told, left) == pytest.approx(2 * (np.e - 1))
    assert rul.rmse(told, left) == pytest.approx(np.sqrt((13**2 + 10**2) / 3))


def test_the_peers_know_as_much_of_each_cycle_as_the_trees_of_the_model():
    generator = np.random.default_rng(1)
    lives = [generator.normal(size=(25, cycles)).astype(np.float32) for cycles in (60, 50, 40)]
    for life in lives:
        life[0] = np.arange(life.shape[1])
    train, test = rul._tables(rul.Fleet(lives[:2], [lives[0][:, :30], lives[2]], np.array([30.0, 0.0])))
    assert [rows.shape for rows in (*train, *test)] == [(60, 100), (50, 100), (30, 100), (40, 100)]
    assert test[0] == pytest.approx(train[0][:30], abs=1e-4)
