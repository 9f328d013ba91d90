"""Frames in files: whatever a crash leaves behind, exactly what was appended is read, in order."""

import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.historian.spilling.journal import Found, Journal
from plugin.historian.spilling.segment import Damage, Frame

HEAD = b"head"
SEGMENT = 200
"""So that three or four frames fill a file."""


@contextmanager
def opened(folder: Path, released: int = 0) -> Iterator[Journal]:
    journal = Journal(folder, SEGMENT)
    try:
        journal.open(released)
        yield journal
    finally:
        journal.close()


def append(journal: Journal, *payloads: bytes) -> None:
    for payload in payloads:
        journal.append(HEAD, len(payload), [payload[:3], payload[3:]])


def read_all(journal: Journal) -> list[bytes]:
    frames = []
    while found := journal.read(100):
        for each in found:
            assert isinstance(each.content, Frame)
            frames.append(each.content.payload)
    return frames


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spill"))


# --- any order of things ---


@dataclass(frozen=True)
class Append:
    payload: bytes


@dataclass(frozen=True)
class Release:
    frames: int


@dataclass(frozen=True)
class Crash:
    """In an append of this payload, of which so much had reached the disk, and then so much rubbish."""

    payload: bytes
    written: float
    rubbish: bytes


PAYLOADS = st.binary(max_size=90)
STEPS = st.lists(
    st.one_of(
        st.builds(Append, PAYLOADS),
        st.builds(Release, st.integers(0, 5)),
        st.builds(Crash, PAYLOADS, st.floats(0, 1), st.binary(max_size=30)),
        st.just("restart"),
    ),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_after_any_crash_exactly_what_was_confirmed_is_there(steps: Sequence[Append | Release | Crash | str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, expected, released = Path(name) / "spill", list[tuple[int, bytes]](), 0
        journal = Journal(folder, SEGMENT)
        journal.open(0)
        for step in steps:
            if isinstance(step, Append):
                expected.append((journal.append(HEAD, 1, [step.payload]), step.payload))
            elif isinstance(step, Release) and expected:
                released = expected[: step.frames][-1][0] if step.frames else released
                journal.release(released, step.frames)
                expected = [each for each in expected if each[0] > released]
            elif isinstance(step, Crash):
                crash(journal, folder, step)
            if not isinstance(step, Append):
                journal.close()
                journal = Journal(folder, SEGMENT)
                journal.open(released)
        assert [payload for _, payload in expected] == read_all(journal)
        assert journal.rows == len(expected)
        assert bool(expected) == bool(files(folder))
        journal.close()


def crash(journal: Journal, folder: Path, step: Crash) -> None:
    """What the disk holds when the process ends in the middle of an append."""
    before = {path: path.read_bytes() for path in files(folder)}
    journal.append(HEAD, 1, [step.payload])
    path = files(folder)[-1]
    old, new = before.get(path, b""), path.read_bytes()
    # not the whole frame, and rubbish that does not complete it by chance
    written = min(len(old) + int(step.written * (len(new) - len(old))), len(new) - 1)
    path.write_bytes(new[:written] + (bytes([new[written] ^ 0xFF]) + step.rubbish if step.rubbish else b""))


# --- one by one ---


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    with opened(tmp_path / "spill") as journal:
        append(journal, b"secret")
        assert stat.S_IMODE((tmp_path / "spill").stat().st_mode) == 0o700
        assert [stat.S_IMODE(path.stat().st_mode) for path in files(tmp_path / "spill")] == [0o600]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(BlockingIOError):
        Journal(tmp_path, SEGMENT).open(0)


def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    with opened(tmp_path, released=41) as journal:
        assert journal.append(HEAD, 1, [b"a"]) == 42
        journal.release(42)
    with opened(tmp_path, released=42) as journal:
        assert journal.append(HEAD, 1, [b"b"]) == 43


def test_what_the_database_has_already_is_not_read_again(tmp_path: Path) -> None:
    """The file could not be deleted before the crash: its number alone says that it is done."""
    with opened(tmp_path) as journal:
        append(journal, b"one", b"two", b"three")
    with opened(tmp_path, released=2) as journal:
        assert read_all(journal) == [b"three"]
        assert journal.rows == 5


def test_a_file_goes_as_soon_as_all_of_it_is_released(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        append(journal, *(b"x" * 80 for _ in range(6)))
        count = len(files(tmp_path))
        assert count > 2
        journal.release(journal.newest - 1)
        assert len(files(tmp_path)) == 1
        journal.release(journal.newest)
        assert not files(tmp_path)
        assert (journal.size, journal.rows, journal.all_read) == (0, 0, True)


def test_what_is_appended_while_it_is_read_follows(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        append(journal, b"one")
        assert read_all(journal) == [b"one"]
        append(journal, b"two", *(b"x" * 80 for _ in range(4)))
        all_read = [journal.all_read]
        assert read_all(journal) == [b"two", *(b"x" * 80 for _ in range(4))]
        assert [*all_read, journal.all_read] == [False, True]
        journal.rewind()
        assert len(read_all(journal)) == 6


@pytest.mark.parametrize("at", ["first", "middle", "last"])
def test_a_file_that_went_bad_is_told_kept_and_costs_no_other_frame(tmp_path: Path, at: str) -> None:
    with opened(tmp_path) as journal:
        append(journal, b"one", b"two", b"three", b"x" * 200, b"four")
    path = files(tmp_path)[0]
    content = path.read_bytes()
    bad = {"first": b"one", "middle": b"two", "last": b"x" * 200}[at]
    path.write_bytes(content.replace(bad, b"?" * len(bad)))
    with opened(tmp_path) as journal:
        found = journal.read(1_000_000)
        frames = [each.content.payload for each in found if isinstance(each.content, Frame)]
        damages = [each.content for each in found if isinstance(each.content, Damage)]
        assert frames == [each for each in (b"one", b"two", b"three", b"x" * 200, b"four") if each != bad]
        assert [damage.size for damage in damages] == [24 + len(bad)]
        journal.release(journal.newest)
    assert files(tmp_path) == []
    assert path.with_suffix(".damaged").exists()


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        append(journal, b"x" * 200, b"y" * 200)
        files(tmp_path)[0].unlink()
        first, second = (each.content for each in journal.read(1_000_000))
        assert isinstance(first, Damage)
        assert isinstance(second, Frame)


# --- making room ---


def shrunk(contents: Sequence[Found]) -> list[bytes]:
    """The first letters of what is left out, and what was left of it before."""
    frames = (each.content for each in contents if isinstance(each.content, Frame))
    return [b"".join(frame.payload[:1] if frame.rows else frame.payload for frame in frames)]


def test_the_oldest_files_become_one_frame(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        append(journal, *(bytes([letter]) * 100 for letter in b"abcdefgh"))
        before = len(files(tmp_path))
        assert journal.squeeze(shrunk) == 200
        assert journal.squeeze(shrunk) == 200
        assert len(files(tmp_path)) == before - 1
        assert journal.rows == 400
    with opened(tmp_path) as journal:
        assert [frame[:4] for frame in read_all(journal)] == [b"abcd", b"eeee", b"ffff", b"gggg", b"hhhh"]
        journal.release(4, 0)
        journal.rewind()
        assert [frame[:4] for frame in read_all(journal)] == [b"eeee", b"ffff", b"gggg", b"hhhh"]


def test_what_is_being_read_is_not_squeezed(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        append(journal, b"a" * 100, b"b" * 100, b"c" * 100)
        assert len(journal.read(1)) == 1
        assert journal.squeeze(shrunk) == 100
        assert [frame[:2] for frame in read_all(journal)] == [b"bb", b"c"]
        assert journal.squeeze(shrunk) is None


def test_an_append_that_comes_after_the_end_leaves_the_next_owner_his_frames(tmp_path: Path) -> None:
    """A thread that was still packing when the service was stopped."""
    with opened(tmp_path) as before:
        pass
    with opened(tmp_path) as after:
        append(after, b"one")
        with pytest.raises(OSError, match="not open"):
            append(before, b"late")
        with pytest.raises(OSError, match="not open"):
            before.squeeze(lambda _: [])
        append(after, b"two")
    with opened(tmp_path) as journal:
        assert read_all(journal) == [b"one", b"two"]
