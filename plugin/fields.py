"""Field types that the rooms' config sections share; each parses what a person writes and says what it wants."""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(us|ms|s|min|h|d)\s*")


def parse_duration(value: Any) -> timedelta:
    """A duration as ``"500ms"``, ``"24h"`` or a number of seconds; never negative."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return timedelta(seconds=value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('is no duration; write a number with a unit, such as "500ms", "30s", "5min", "24h" or "7d"')
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]])


def format_duration(duration: timedelta) -> str:
    """The shortest exact text that :func:`parse_duration` reads back."""
    micros = round(duration.total_seconds() * 1e6)
    for unit in ("d", "h", "min", "s", "ms"):
        size = round(_UNITS[unit] * 1e6)
        if micros % size == 0:
            return f"{micros // size}{unit}"
    return f"{micros}us"


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str)]


class Section(BaseModel):
    """A section of the configuration file: frozen, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
