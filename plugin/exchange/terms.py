"""What a person says of a file that is to be read or written, and what one cell of it comes to."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Micros, to_micros
from plugin.errors import ConfigError, ExchangeError, Fault
from plugin.fields import parse_duration
from plugin.zones import named_zone

_Choice = TypeVar("_Choice", bound=StrEnum)


class Layout(StrEnum):
    """``long``: a line per sample, with its tag's name; ``wide``: a line per time, and a column per tag."""

    LONG = "long"
    WIDE = "wide"


class Ambiguous(StrEnum):
    """What becomes of a local time that the clock showed twice, when it was set back."""

    REJECT = "reject"
    EARLIER = "earlier"
    LATER = "later"


class Codes(StrEnum):
    """What statuses from 0 to 255 are."""

    OPCUA = "opcua"
    """StatusCodes: 0 is Good."""
    CLASSIC = "classic"
    """Qualities of OPC DA: 0 is Bad, 192 is Good."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a file is to be read. Empty: found out from its beginning."""

    layout: Layout | None = None
    time: str = ""
    """Heading of a column, here and below."""
    tag: str = ""
    value: str = ""
    status: str = ""
    server_time: str = ""
    text: str = ""
    format: str = ""
    """Of the times: ``iso``, ``s``, ``ms``, ``us``, ``ns``, ``excel``, or as strptime has it."""
    zone: str = ""
    """IANA name of the zone of times that name none."""
    ambiguous: Ambiguous = Ambiguous.REJECT
    delimiter: str = ""
    decimal: str = ""
    """The mark before the decimals, ``.`` or ``,``."""
    thousands: str = ""
    """The mark between groups of three digits: ``,``, ``.``, a space or an apostrophe; empty: there is none."""
    codes: Codes | None = None
    encoding: str = "utf-8"
    skip: int = 0
    """Lines above the heading."""
    sheet: str = ""
    texts: bool = False
    """Values that are no number are kept as texts; else they are rejected."""
    future: bool = False
    """Times that are yet to come are taken."""

    def check(self) -> None:
        """ConfigError where marks can't be what they are said to be."""
        faults = []
        if self.decimal not in {"", ".", ","}:
            faults.append(Fault("--decimal", self.decimal, "is no decimal mark", "Write . or ,"))
        if self.thousands not in {"", ".", ",", " ", "'"} or (
            self.thousands and self.thousands == (self.decimal or ".")
        ):
            faults.append(Fault("--thousands", self.thousands, "can't part thousands", "Write . , ' or a blank"))
        if len(self.delimiter.encode()) > 1:
            faults.append(Fault("--delimiter", self.delimiter, "is more than one character", "Write such as ;"))
        if faults:
            raise ConfigError("the command", faults)


@dataclass(slots=True)
class Wrong:
    """Rows that can't be taken, and why: the first reason that is found for a row stands."""

    mask: NDArray[np.bool_]
    reasons: dict[int, str] = field(default_factory=dict)
    """By row."""

    @classmethod
    def none(cls, rows: int) -> "Wrong":
        """All are well."""
        return cls(np.zeros(rows, np.bool_))

    def add(self, mask: NDArray[np.bool_], reason: str) -> None:
        """These rows, where no reason stands yet."""
        for row in np.flatnonzero(mask & ~self.mask).tolist():
            self.reasons[row] = reason
        self.mask |= mask

    def forget(self, mask: NDArray[np.bool_]) -> None:
        """Of these rows nothing was expected."""
        for row in np.flatnonzero(self.mask & mask).tolist():
            del self.reasons[row]
        self.mask &= ~mask


def fault(option: str, value: str, problem: str, remedy: str) -> ConfigError:
    """One option that is wrong, as an error."""
    return ConfigError("the command", [Fault(option, value, problem, remedy)])


def choice(option: str, value: str, kind: type[_Choice]) -> _Choice | None:
    """One of a few words; None where none is said."""
    try:
        return kind(value) if value else None
    except ValueError as error:
        raise fault(option, value, "is none of its words", f"Write one of {', '.join(kind)}") from error


def span(since: str, until: str, zone: str) -> tuple[Micros, Micros]:
    """From and to, each a date or time of the zone, or a duration before now; ``until`` may be empty: now."""
    now = datetime.now(UTC)
    start, end = _moment("--from", since, zone, now), _moment("--to", until, zone, now) if until else now
    if start >= end:
        raise fault("--from", since, "is not before --to", "Swap them")
    return to_micros(start), to_micros(end)


def _moment(option: str, text: str, zone: str, now: datetime) -> datetime:
    try:
        return now - parse_duration(text)
    except (ValueError, OverflowError):  # it is no duration, or reaches back beyond the year 1
        pass
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise fault(option, text, "is neither", 'Write a date, "2026-03-01T08:00", or a duration, "24h"') from error
    return time if time.tzinfo else time.replace(tzinfo=named_zone(zone))


def needs(path: Path) -> None:
    """ExchangeError where what reads and writes such files is not installed."""
    wanted = {".xlsx": "openpyxl", ".xlsm": "openpyxl"}.get(path.suffix.lower())
    missing = [name for name in ("pyarrow", wanted) if name is not None and find_spec(name) is None]
    if missing:
        raise ExchangeError(f'{path.name}: {missing[0]} is not installed: pip install "foretag[files]"')
