"""What did not arrive, and what was odd about what did."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class GapCause(StrEnum):
    """Why samples are, or may be, missing."""

    SUBSCRIPTION_LOST = "subscription_lost"
    SEQUENCE = "sequence"
    OVERFLOW = "overflow_bit"
    CLIENT_DOWN = "client_down"
    SERVER_DOWN = "server_down"
    BAD_ITEM = "bad_item"
    DECODE_ERROR = "decode_error"
    SPILL_OVERFLOW = "spool_overflow"
    POLL_MISSED = "poll_missed"


class GapState(StrEnum):
    """``open``: history may still fill it; ``filled``: it did; ``unfillable``: the server has no history for it."""

    OPEN = "open"
    FILLED = "filled"
    UNFILLABLE = "unfillable"


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of time in which samples of a tag, or of a whole source, are or may be missing."""

    id: str
    """A UUID given at detection; a later :class:`Gap` with the same id replaces this one."""
    source: str
    tag: str | None
    """Name of the tag; None: all tags of the source."""
    start: datetime
    end: datetime | None
    """None while it lasts."""
    cause: GapCause
    detected: datetime
    state: GapState = GapState.OPEN
    rows_filled: int = 0
    detail: str = ""

    def given_up(self, why: str, end: datetime) -> "Gap":
        """Nobody looks after it any more; where it still lasts it is said to end then."""
        detail = "; ".join(part for part in (self.detail, why) if part)
        return replace(self, state=GapState.UNFILLABLE, end=self.end or max(self.start, end), detail=detail)


class RemarkKind(StrEnum):
    """What was odd about samples that were kept all the same."""

    TYPE_CHANGED = "type_changed"
    TIME_WENT_BACK = "time_went_back"


@dataclass(frozen=True, slots=True)
class Remark:
    """Something odd about samples of one tag: they are stored as they came, and this is stored beside them."""

    source: str
    tag: str
    kind: RemarkKind
    source_time: datetime
    """Of the first sample that it speaks of; with ``source``, ``tag`` and ``kind`` the key of the remark."""
    detail: str
    """For a person, such as ``Double before, String now`` or ``3 values up to 2.5 s older than one before them``."""
