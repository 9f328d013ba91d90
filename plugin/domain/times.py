"""Times as whole microseconds."""

from datetime import UTC, datetime, timedelta

Micros = int
"""Microseconds since 1970-01-01 UTC."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(duration: timedelta) -> Micros:
    """A duration in whole microseconds."""
    return duration // _MICROSECOND


def to_micros(time: datetime) -> Micros:
    """Exact microseconds since 1970 of an aware time; a naive one is a programming error and raises TypeError."""
    return micros(time - _EPOCH)


def from_micros(stamp: Micros) -> datetime:
    """The aware UTC time of microseconds since 1970; OverflowError outside the years 1 to 9999."""
    return _EPOCH + timedelta(microseconds=int(stamp))
