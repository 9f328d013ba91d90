"""Numbered frames in files: what was appended is on the disk, and what a crash cut off is not there.

    00000000000000000042.spill    head, frame 42, frame 43, …        (see :mod:`plugin.historian.spilling.segment`)

A file is deleted as soon as all of its frames are released: that needs no room, where a table in a database would have
to write in order to delete. Frames are numbered from 1 and never twice, so whoever keeps the number of the last one
that he has dealt with needs no other mark. Blocking, and safe to call from several threads.
"""

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from plugin.historian.spilling.segment import Damage, Frame, Segment, contents, framed, look_through, remove, write_all

_SUFFIX = ".spill"


@dataclass(frozen=True, slots=True)
class Found:
    """Something read, and the segment it was read from."""

    segment: Segment
    content: Frame | Damage


class Journal:
    """Frames in a folder that belongs to one process at a time."""

    def __init__(self, folder: Path, segment_size: int) -> None:
        self._folder = folder
        self._segment_size = segment_size
        self._lock = threading.Lock()
        self._lease: int | None = None
        self._segments: list[Segment] = []
        self._active: int | None = None
        """File descriptor of the last segment, where it still grows."""
        self._reading: Segment | None = None
        self._offset = 0
        self.newest = 0
        """Number of the last frame."""
        self.released = 0
        """Up to this number the frames are dealt with."""

    @property
    def size(self) -> int:
        """Of all files [byte]."""
        return sum(segment.end for segment in list(self._segments))

    @property
    def rows(self) -> int:
        """In all frames that are not released."""
        return sum(segment.rows for segment in list(self._segments))

    @property
    def all_read(self) -> bool:
        """Nothing follows on what was read."""
        with self._lock:
            last = self._segments[-1] if self._segments else None
            return last is None or (self._reading is last and self._offset >= last.end)

    # --- opening and closing ---

    def open(self, released: int) -> int:
        """Take the folder, made where it is missing; returns how many bytes a crash had left unfinished.

        Raises OSError: BlockingIOError where another process has it.
        """
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _flush_folder(self._folder.parent)
        self._lease = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return self._look_round(released)
        except BaseException:
            self.close()
            raise

    def _look_round(self, released: int) -> int:
        for unfinished in self._folder.glob("*.tmp"):
            unfinished.unlink()
        paths = sorted(self._folder.glob("[0-9]" * 20 + _SUFFIX))
        self._segments = [look_through(path, released) for path in paths]
        for segment, following in zip(self._segments, paths[1:], strict=False):
            segment.end, segment.last = segment.path.stat().st_size, int(following.stem) - 1
        torn = self._cut_torn_tail()
        self.newest = max([released, *(segment.last for segment in self._segments)])
        self.release(released)
        self.rewind()
        return torn

    def _cut_torn_tail(self) -> int:
        """Only the last file can end in the middle of an append: nothing is appended to a file of another run."""
        if not self._segments:
            return 0
        segment = self._segments[-1]
        torn = segment.path.stat().st_size - segment.end
        if not segment.last:
            self._segments.pop().path.unlink()
        elif torn:
            with segment.path.open("r+b") as file:
                file.truncate(segment.end)
                os.fsync(file.fileno())
        return torn

    def close(self) -> None:
        """Leave the folder to others."""
        with self._lock:
            self._stop_growing()
            if self._lease is not None:
                os.close(self._lease)
                self._lease = None

    # --- writing ---

    def append(self, head: bytes, rows: int, parts: Sequence[bytes]) -> int:
        """The number of a new frame, which is on the disk; OSError: it is not, and leaves nothing behind."""
        with self._lock:
            folder = self._folder_descriptor()  # without it the files may be another process's by now
            if self._active is not None and self._segments[-1].head is not head:
                self._stop_growing()
            number = self.newest + 1
            file = self._active
            if fresh := file is None:
                file = self._begin(number, head)
            segment = self._segments[-1]
            try:
                written = write_all(file, framed(number, rows, parts))
                os.fdatasync(file)
                if fresh:
                    os.fsync(folder)
            except OSError:
                self._give_up(file, segment)
                raise
            segment.end += written
            segment.last = self.newest = number
            segment.rows += rows
            if segment.end >= self._segment_size:
                self._stop_growing()
            return number

    def _begin(self, number: int, head: bytes) -> int:
        path = self._folder / f"{number:020}{_SUFFIX}"
        self._active = file = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        segment = Segment(path, head, 0, 0, 0, int(time.time()))
        self._segments.append(segment)
        try:
            segment.end = write_all(file, framed(0, segment.begun, [head]))
        except OSError:
            self._give_up(file, segment)
            raise
        return file

    def _give_up(self, file: int, segment: Segment) -> None:
        """After an error nobody knows what a file holds behind its last good frame: no other goes there."""
        with contextlib.suppress(OSError):
            os.ftruncate(file, segment.end)
        self._stop_growing()
        if not segment.last:
            self._segments.remove(segment)
            with contextlib.suppress(OSError):
                segment.path.unlink()

    def _stop_growing(self) -> None:
        if self._active is not None:
            file, self._active = self._active, None
            os.close(file)

    def _folder_descriptor(self) -> int:
        if self._lease is None:
            raise OSError(f"{self._folder} is not open")
        return self._lease

    # --- reading ---

    def rewind(self) -> None:
        """Read again from the oldest frame that is not released."""
        with self._lock:
            self._reading, self._offset = None, 0

    def read(self, rows: int) -> list[Found]:
        """What follows on what was read before, about so many rows of it; nothing: all has been read."""
        found: list[Found] = []
        with self._lock:
            while rows > 0 and (segment := self._next_segment()) is not None:
                for content in contents(segment.path, self._offset, segment.end):
                    self._offset += content.size
                    if isinstance(content, Damage):
                        segment.damaged = True
                        found.append(Found(segment, content))
                    elif content.number > self.released:
                        found.append(Found(segment, content))
                        rows -= max(content.rows, 1)
                    if rows <= 0:
                        break
        return found

    def _next_segment(self) -> Segment | None:
        """The one to read from; it may have been released, or replaced, since it was read last."""
        for segment in self._segments:
            if self._reading is None or segment.path > self._reading.path:
                self._reading, self._offset = segment, 0
            if segment is self._reading and self._offset < segment.end:
                return segment
        return None

    def release(self, number: int, rows: int = 0) -> None:
        """The frames up to this number are dealt with: ``rows`` of them."""
        with self._lock:
            self.released = max(self.released, number)
            while self._segments and self._segments[0].last <= self.released:
                segment = self._segments[0]
                if len(self._segments) == 1:
                    self._stop_growing()
                try:
                    remove(segment)
                except OSError:  # tried again at the next release; the number alone keeps it from being read again
                    segment.rows = 0
                    return
                rows = max(0, rows - segment.rows)
                self._segments.pop(0)
            for segment in self._segments[:1]:
                segment.rows = max(0, segment.rows - rows)

    # --- making room ---

    def squeeze(self, shrink: Callable[[Sequence[Found]], list[bytes]]) -> int | None:
        """Replace the oldest unread segment that has rows, and those without any before it, by one frame without rows.

        ``shrink`` makes the frame's payload of their contents. Returns the rows that are gone; None: there is no such
        segment. OSError: all is as it was.
        """
        with self._lock:
            folder = self._folder_descriptor()
            run = self._unread_run()
            if not run:
                return None
            if run[-1] is self._segments[-1]:
                self._stop_growing()
            found = (Found(each, content) for each in run for content in contents(each.path, 0, each.end))
            unread = [each for each in found if isinstance(each.content, Damage) or each.content.number]
            last = run[-1]
            parts = [*framed(0, last.begun, [last.head]), *framed(last.last, 0, shrink(unread))]
            unfinished = last.path.with_suffix(".tmp")
            file = os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            try:
                end = write_all(file, parts)
                os.fsync(file)
            finally:
                os.close(file)
            unfinished.replace(last.path)
            os.fsync(folder)
            gone, last.rows, last.end = last.rows, 0, end
            for each in run[:-1]:
                remove(each)
                self._segments.remove(each)
            return gone

    def _unread_run(self) -> list[Segment]:
        run: list[Segment] = []
        for segment in self._segments:
            if self._reading is None or segment.path > self._reading.path:
                run.append(segment)
                if segment.rows:
                    return run
        return []


def _flush_folder(folder: Path) -> None:
    """What was made in it outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
