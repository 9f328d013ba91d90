"""``[[historian.retention]]``: how long what is kept of which tags, and what of it has to go.

Closed partitions are dropped whole, so a class keeps up to one partition more than it says. What is not closed, and so
not rolled up, is never dropped, nor a roll-up that a coarser one is still to be made of, nor what a gap overlaps that
may still be filled.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from plugin.domain import Micros
from plugin.fields import ByteCount, Duration, Section, Size

DEFAULT = "default"
"""The class of tags that no other one takes; in the database it is the empty name."""

_LEAST_AGE = timedelta(hours=1)
_LEAST_SIZE = 16 * 2**20
"""[byte]"""


def _old_enough(age: timedelta | None) -> timedelta | None:
    if age is not None and age < _LEAST_AGE:
        raise ValueError('is less than an hour; write a longer age, such as "90d", or leave it out to keep all')
    return age


def _large_enough(size: ByteCount | None) -> ByteCount | None:
    if size is not None and size < _LEAST_SIZE:
        raise ValueError('is less than 16MiB; write a larger size, such as "50GiB", or leave it out to keep all')
    return size


Age = Annotated[Duration | None, AfterValidator(_old_enough)]


class RetentionConfig(Section):
    """A class of retention: what becomes of its tags' samples and roll-ups with time. What is not said is kept for
    good. Tags that no class takes are of the class ``default``, which keeps all unless the file says otherwise."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """Unique; a tag's ``retention`` may name it."""
    tags: tuple[str, ...] = ()
    """Patterns of tag names, with ``*`` and ``?``: of several classes that fit, the first in the file takes the tag. A
    tag that comes into another class is in it with what is closed from then on."""
    samples: Age = None
    """Age at which samples are dropped, an hour or more, counted from the end of their closed partition."""
    minutes: Age = None
    """Age at which roll-ups by minute are dropped, by whole days in UTC."""
    hours: Age = None
    """Age at which roll-ups by hour are dropped."""
    days: Age = None
    """Age at which roll-ups by day are dropped."""
    size: Annotated[Size | None, AfterValidator(_large_enough)] = None
    """Size of all closed samples of the class at most, 16MiB or more: the oldest partitions go first."""

    @property
    def stored_name(self) -> str:
        """As tags and partitions have it in the database."""
        return "" if self.name == DEFAULT else self.name

    def takes(self, tag: str) -> bool:
        """Whether one of the patterns fits a tag's name."""
        return any(fits(pattern, tag) for pattern in self.tags)


class KeepConfig(Section):
    """How long is kept what models give and what happened. What is not said is kept for good, as are runs, gaps,
    alarms, laboratory values, labels, model versions and the audit log: they are few, and reports live on them."""

    predictions: Age = None
    """Age at which predictions are dropped, an hour or more."""
    flags: Age = None
    """Age at which flags are dropped."""
    events: Age = None
    """Age at which events of the plant's servers are dropped."""


def fits(pattern: str, name: str) -> bool:
    """``*``: any text, ``?``: any letter; all else, brackets included, stands for itself."""
    return re.fullmatch("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern), name) is not None


def class_of(tag: str, named: str, classes: Sequence[RetentionConfig]) -> str:
    """The stored name of a tag's class: the one that it names, else the first that takes it, else the default."""
    if named:
        return "" if named == DEFAULT else named
    return next((each.stored_name for each in classes if each.takes(tag)), "")


@dataclass(frozen=True, slots=True)
class Partition:
    """A row of ``sample_partitions``."""

    id: int
    start: Micros
    end: Micros
    """Exclusive."""
    samples: int
    bytes: int


def expired(oldest_first: Iterable[Partition], bound: Micros | None, surplus: int) -> list[Partition]:
    """Which partitions of one class have to go: those that ended by ``bound``, and the oldest while there is a surplus
    [byte] over the class's size."""
    gone = []
    for each in oldest_first:
        if (bound is None or each.end > bound) and surplus <= 0:
            break
        gone.append(each)
        surplus -= each.bytes
    return gone


def believed(now: Micros, newest: Micros | None) -> Micros:
    """The moment that ages are counted from: our clock [µs], but never later than the plant's newest stamp.

    ``newest``: of all stamps that are not more than a day ahead of our clock. So a clock of ours that is set to the
    next century drops nothing, and a stamp of the year 9999 moves nothing either.
    """
    return now if newest is None else min(now, newest)
