"""``foretag import`` and ``foretag export`` as a person runs them: killed, beside a service, without a terminal."""

import asyncio
import csv
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from plugin import lock
from plugin.__main__ import app
from plugin.config import load
from plugin.diagnostics import Diagnostics
from plugin.domain import Import, SampleBatch
from plugin.opening import open_store

FILE = """
[[sources]]
name = "plant"
endpoint = "opc.tcp://127.0.0.1:1/"

[[assets]]
names = ["engine-01"]
source = "plant"
node = "nsu=u;s={asset}.{feature}"
tags = { T24 = {} }
"""
ROWS = 250_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "foretag.toml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def foretag(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"}, catch_exceptions=False)
    return result.exit_code, result.output


def test_from_a_dry_run_to_a_file_that_is_the_same_again(folder):
    (folder / "a.csv").write_text("time;engine-01.T24;other\n01.01.2024 00:00:00;1,5;1\n01.01.2024 00:00:01;=x;1\n")
    words = ("import", "a.csv", "--zone", "Europe/Berlin", "--rejects", "odd.csv")
    code, told = foretag(*words, "--dry-run")
    assert code == 0, told
    assert "1 samples would be stored; nothing was written" in told
    code, told = foretag(*words)
    assert code == 0, told
    assert "engine-01.T24" in told
    assert "other (2)" in told
    with (folder / "odd.csv").open(newline="") as lines:
        odd = list(csv.DictReader(lines))
    assert [(row["row"], row["column"], row["content"]) for row in odd] == [
        ("2", "engine-01.T24", "'=x"), ("0", "other", "2 samples")
    ]  # fmt: skip
    code, told = foretag("export", "b.xlsx", "--tags", "engine*", "--from", "2023-12-31", "--to", "2024-01-02")
    assert (code, "1 samples of 1 tags in 1 rows" in told) == (0, True), told
    code, told = foretag("import", "b.xlsx", "--zone", "UTC")
    assert (code, "0 samples stored, 1 were there already" in told) == (0, True), told


def test_a_file_of_which_nothing_can_be_taken_is_a_failure(folder):
    (folder / "a.csv").write_text("time,engine-01.T24\n2024-01-01T00:00:00Z,much\n2024-01-01T00:00:01Z,more\n")
    code, told = foretag("import", "a.csv")
    assert (code, "0 samples stored, 0 were there already, 2 quarantined" in told) == (1, True), told
    (folder / "a.csv").write_text("time,engine-01.T24\n2024-01-01T00:00:00Z,much\n2024-01-01T00:00:01Z,2\n")
    assert foretag("import", "a.csv")[0] == 0, "one of them was"


def test_an_export_tells_what_retention_has_dropped_of_it(folder):
    with (folder / "foretag.toml").open("a") as file:
        file.write('\n[[historian.retention]]\nname = "default"\nsamples = "30d"\n')
    (folder / "a.csv").write_text("time,engine-01.T24\n2023-01-01T00:00:00Z,1\n2024-01-01T00:00:00Z,2\n")
    code, told = foretag("import", "a.csv")
    assert code == 0, told
    words = ("export", "b.csv", "--tags", "engine-01.T24", "--to", "2024-02-01")
    code, told = foretag(*words, "--from", "2022-12-01")
    assert (code, "1 samples of 1 tags in 1 rows" in told) == (0, True), told
    assert "samples of one tag before 2023-01-01 00:00:00 UTC were dropped by retention" in told
    code, told = foretag(*words, "--from", "2023-06-01")
    assert (code, "retention" in told) == (0, False), told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("import", "no.csv"), "no.csv"),
        (("import", "foretag.toml"), "no file that can be read"),
        (("import", "a.csv", "--layout", "square"), "--layout = square"),
        (("import", "a.csv", "--decimal", ";"), "--decimal"),
        (("export", "a.csv", "--tags", "x", "--from", "7d"), "--tags = x"),
        (("export", "a.csv", "--tags", "x", "--from", "when"), "--from = when"),
        (("export", "a.csv", "--tags", "x", "--from", "9999999d"), "--from = 9999999d"),
        (("import", "b.csv", "--rejects", "./b.csv"), "--rejects = b.csv: is to be imported"),
        (("import", "b.csv", "--rejects", "b.csv/odd"), "b.csv/odd can't be used: Not a directory"),
        (("export", "a.csv", "--tags", "x", "--from", "2024-01-02", "--to", "2024-01-01"), "is not before"),
        (("export", "a.csv", "--tags", "x", "--from", "2024-01-01", "--zone", "Mars"), "Mars"),
    ],
)
def test_what_is_wrong_is_said(folder, words, told):
    (folder / "b.csv").write_text("time,engine-01.T24\n1704067200,1\n")
    code, said = foretag(*words)
    assert code == 2
    assert (folder / "b.csv").read_text().endswith("1704067200,1\n")
    assert told in said.replace("\n", "")


def test_it_is_refused_while_foretag_runs_but_for_a_dry_run(folder):
    (folder / "a.csv").write_text("time,engine-01.T24\n1704067200,1\n")
    config = load(folder / "foretag.toml")
    with lock.hold(config.lock_files, config.path):
        code, told = foretag("import", "a.csv")
        assert code == 2
        assert "history is imported while foretag is stopped" in told.replace("\n", " ")
        code, told = foretag("import", "a.csv", "--dry-run")
        assert (code, "1 samples would be stored" in told) == (0, True), told


async def stored(folder: Path) -> tuple[Import, SampleBatch]:
    async with open_store(load(folder / "foretag.toml"), Diagnostics(), alone=False) as store:
        (record,) = await store.imports()
        (tag,) = await store.tags()
        return record, await store.read_samples([tag.id], 0, 2**62)


def test_killed_in_the_middle_it_goes_on_and_ends_as_if_it_had_not_been(folder):
    lines = "".join(f"{1704067200 + n},{n}\n" for n in range(ROWS))
    (folder / "a.csv").write_text("time,engine-01.T24\n" + lines)
    command = [sys.executable, "-m", "plugin", "import", "a.csv"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "%" in process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    code, told = foretag("import", "a.csv")
    assert code == 0, told
    record, batch = asyncio.run(stored(folder))
    assert record.finished is not None
    assert record.position == ROWS
    assert batch.value.tolist() == np.arange(ROWS).tolist()
