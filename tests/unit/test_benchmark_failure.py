"""The arithmetic of the benchmark on the milling machine, without a training."""

import numpy as np

from tests.benchmarks import failure

HEADER = (
    "UDI,Product_ID,Type,Air_temperature,Process_temperature ,Rotational_speed,Torque ,Tool_wear,Machine.failure,TWF"
)


def write(folder, rows):
    (folder / "ai4i2020").mkdir()
    path = folder / "ai4i2020" / "ai4i2020.csv"
    path.write_text("\n".join([HEADER, *rows]), encoding="utf-8-sig")
    return path


def test_types_are_numbers_and_the_reason_of_a_failure_is_never_an_input(tmp_path):
    items = failure.read(write(tmp_path, ["1,M1,M,298.1,308.6,1551,42.8,0,0,0", "2,H1,H,298,309,1400,40,7,1,1"]))
    assert items.columns["type"].tolist() == [1, 2]
    assert items.columns["wear"].tolist() == [0, 7]
    assert items.failed.tolist() == [False, True]
    assert set(items.columns) == {"air", "process", "speed", "torque", "wear", "type"}


def test_each_part_has_its_share_of_the_failures(tmp_path):
    rows = [f"{n},L{n},L,298,308,1500,40,{n},{int(n % 10 == 0)},0" for n in range(1000)]
    items = failure.read(write(tmp_path, rows))
    assert [int(items.failed[items.part == part].sum()) for part in range(5)] == [20] * 5


def test_what_became_of_an_item_that_is_asked_is_not_known(tmp_path):
    items = failure.read(write(tmp_path, ["1,M1,M,298,308,1551,42,0,1,0"]))
    row = np.array([0])
    assert failure._columns(items, row, known=True)["failed"].tolist() == [1.0]
    assert np.isnan(failure._columns(items, row, known=False)["failed"]).all()


async def test_without_the_data_nothing_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORETAG_DATA", str(tmp_path))
    assert await failure.measure(True) == []
    assert "ai4i2020.csv is not there" in capsys.readouterr().out
