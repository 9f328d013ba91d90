"""Times as whole microseconds."""

from datetime import UTC, datetime, timedelta

Micros = int
"""Microseconds since 1970-01-01 UTC."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(time: datetime) -> Micros:
    """Exact microseconds since 1970 of an aware time; a naive one is a programming error and raises TypeError."""
    return (time - _EPOCH) // _MICROSECOND


def from_micros(micros: Micros) -> datetime:
    """The aware UTC time of microseconds since 1970; OverflowError outside the years 1 to 9999."""
    return _EPOCH + timedelta(microseconds=int(micros))
