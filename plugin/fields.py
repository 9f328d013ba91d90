"""Field types that the rooms' config sections share; each parses what a person writes and says what it wants."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(us|ms|s|min|h|d)\s*")


def parse_duration(value: Any) -> timedelta:
    """A duration as ``"500ms"``, ``"24h"`` or a number of seconds; never negative."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return _seconds(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('is no duration; write a number with a unit, such as "500ms", "30s", "5min", "24h" or "7d"')
    return _seconds(float(match[1]) * _UNITS[match[2]])


def _seconds(number: float) -> timedelta:
    try:
        return timedelta(seconds=number)
    except OverflowError as error:
        raise ValueError("is too long a duration; the longest has 999999999 days") from error


def parse_moment(text: str, now: datetime) -> datetime:
    """A date or time as a person writes it, in this machine's zone where it names none; or so long ago. In UTC."""
    try:
        return now - parse_duration(text)
    except ValueError:
        return datetime.fromisoformat(text).astimezone(UTC)


def format_duration(duration: timedelta) -> str:
    """The shortest exact text that :func:`parse_duration` reads back."""
    micros = round(duration.total_seconds() * 1e6)
    for unit in ("d", "h", "min", "s", "ms"):
        size = round(_UNITS[unit] * 1e6)
        if micros % size == 0:
            return f"{micros // size}{unit}"
    return f"{micros}us"


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str)]

_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*")
_SIZES = {"B": 1} | {f"{letter}B": 1000**power for power, letter in enumerate("KMGT", start=1)}
_SIZES |= {f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", start=1)}


class ByteCount(int):
    """A number of bytes whose text is what :func:`parse_size` reads back."""

    def __str__(self) -> str:
        unit = next((u for u in ("TiB", "GiB", "MiB", "KiB") if self and self % _SIZES[u] == 0), "B")
        return f"{int(self) // _SIZES[unit]}{unit}" if self else "0"


def parse_size(value: Any) -> ByteCount:
    """A size as ``"500MB"`` (10^6), ``"2GiB"`` (2^30) or a number of bytes; never negative."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return ByteCount(value)
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is not None:
        return ByteCount(float(match[1]) * _SIZES[match[2]])
    if value == "0":
        return ByteCount(0)
    raise ValueError('is no size; write a number with a unit, such as "500MB" or "2GiB"')


Size = Annotated[ByteCount, PlainValidator(parse_size), PlainSerializer(str, return_type=str)]


VariableName = Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")]
"""Of an environment variable; empty: none."""
CredentialName = Annotated[str, Field(pattern=r"^([A-Za-z0-9_.-]{1,255})?$")]
"""Of a systemd credential; empty: none."""


class Section(BaseModel):
    """A section of the configuration file: frozen, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)
