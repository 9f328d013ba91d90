"""Which training that was cut off is gone on with, and which is not."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from models.keeping import KeptProgress
from models.kind import TrainingData
from plugin.infer.unfinished import Unfinished, sweep, unfinished

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
ASKED = {"spec": {"seed": 0}}
VALUES = np.zeros((1, 2, 3), np.float32)
DATA = TrainingData(VALUES, np.ones((1, 2, 3), bool), np.zeros((1, 3), np.float32), np.zeros(1, np.int32))


def silent(share: float, line: str) -> None:
    pass


@contextmanager
def begun(folder: Path) -> Iterator[Unfinished]:
    with unfinished(folder, "soft", ASKED, NOW) as first:
        assert first.now == NOW
        assert first.goes_on(DATA, NOW)
        yield first


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a training that was cut off."""
    folder = tmp_path / "unfinished" / "soft"
    with begun(folder) as first:
        progress = first.keeping(silent, timedelta(seconds=1))
        assert isinstance(progress, KeptProgress)
        progress.keeper.keep("descent-0.safetensors", 8, [VALUES])
    return folder


def test_the_same_looks_at_the_same_past_and_finds_what_was_kept(folder):
    with unfinished(folder, "soft", ASKED, LATER) as again:
        assert again.now == NOW
        assert again.goes_on(DATA, LATER)
        progress = again.keeping(silent, timedelta(seconds=1))
        assert isinstance(progress, KeptProgress)
        assert progress.keeper.begin([VALUES]).done == 8
        assert again.provenance == {"begun": NOW.isoformat(), "resumed_at_step": 8}
        again.remove()
    assert not any(folder.iterdir())


@pytest.mark.parametrize(
    ("asked", "now", "word"),
    [
        ({"spec": {"seed": 1}}, LATER, "it was to learn something else"),
        (ASKED, NOW + timedelta(days=2), "it was begun 2026-03-01"),
        (ASKED, NOW - timedelta(seconds=1), "it was begun 2026-03-01"),
    ],
)
def test_another_begins_anew_and_it_is_said(folder, caplog, asked, now, word):
    with unfinished(folder, "soft", asked, now) as again:
        assert again.now == now
        assert not any(folder.iterdir())
    assert word in caplog.text


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"now": 1, "asked": "", "made_of": ""}'])
def test_what_can_t_be_read_is_left_aside(folder, caplog, content):
    (folder / "begun.json").write_bytes(content)
    with unfinished(folder, "soft", ASKED, LATER) as again:
        assert again.now == LATER
    assert "not gone on with" in caplog.text


def test_data_that_were_altered_are_learnt_from_anew(folder, caplog):
    altered = replace(DATA, values=VALUES + 1)
    with unfinished(folder, "soft", ASKED, LATER) as again:
        assert not again.goes_on(altered, LATER)
        assert again.now == LATER
        assert not any(folder.iterdir())
        assert again.goes_on(altered, LATER)
    assert "has been altered since" in caplog.text


def test_two_at_a_time_do_not_keep_in_one_place(folder):
    with (
        unfinished(folder, "soft", ASKED, LATER) as first,
        unfinished(folder, "soft", ASKED, LATER) as second,
    ):
        assert (first.now, second.now) == (NOW, LATER)
        assert second.keeping(silent, timedelta(seconds=1)) is silent


def test_a_folder_that_can_t_be_made_hinders_no_training(tmp_path, caplog):
    (tmp_path / "unfinished").write_text("a file")
    with unfinished(tmp_path / "unfinished" / "soft", "soft", ASKED, NOW) as first:
        assert first.goes_on(DATA, NOW)
        assert first.keeping(silent, timedelta(seconds=1)) is silent
    assert "nothing can be kept" in caplog.text


def test_what_is_too_old_to_be_gone_on_with_is_swept_away_but_not_what_is_being_trained(tmp_path):
    for name in ("removed", "soft", "busy"):
        with unfinished(tmp_path / name, name, ASKED, NOW) as first:
            first.goes_on(DATA, NOW)
            first.keeping(silent, timedelta(0))
    changed = (tmp_path / "soft" / "begun.json").stat().st_mtime
    old = changed - 90_000.0
    for name in ("removed", "busy"):
        os.utime(tmp_path / name / "begun.json", (old, old))
    with unfinished(tmp_path / "busy", "busy", ASKED, NOW):
        sweep(tmp_path, datetime.fromtimestamp(changed, UTC))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["busy", "soft"]
    sweep(tmp_path / "nowhere", NOW)


def test_without_a_folder_nothing_is_kept():
    with unfinished(None, "soft", ASKED, NOW) as first:
        assert first.goes_on(DATA, NOW)
        assert first.keeping(silent, timedelta(0)) is silent
        first.remove()
