"""How numbers, ages and statuses are written. Quality shows in the text itself, never by colour alone."""

from collections.abc import Sequence
from datetime import timedelta
from math import isnan

from plugin.domain import Quality, Status, at_upper_limit, quality
from plugin.hmi.snapshot import Reading

NOTHING = "–"
"""Stands where no model says anything."""


def plain(text: str) -> str:
    """Text that a plant's server may have sent, without what would steer a terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


def number(value: float | None) -> str:
    """Three digits or so; thousands grouped."""
    if value is None or isnan(value):
        return NOTHING
    return f"{value:,.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def reading(shown: Reading | None) -> str:
    """The number; ``12.3?`` where it is Uncertain, ``≥125`` for that or more, ``Bad`` where there is none to trust."""
    if shown is None or is_bad(shown):
        return NOTHING if shown is None else "Bad"
    return ("≥" if at_upper_limit(shown.status) else "") + number(shown.value) + _doubt(shown)


def share(shown: Reading | None) -> str:
    """``67 %`` of a reading 0..1, marked like :func:`reading`."""
    if shown is None or shown.value is None or is_bad(shown):
        return reading(shown)
    return f"{shown.value:.0%}".replace("%", f"{_doubt(shown)} %")


def is_bad(shown: Reading) -> bool:
    """Whether there is no number, or none to trust."""
    return shown.value is None or isnan(shown.value) or quality(shown.status) is Quality.BAD


def _doubt(shown: Reading) -> str:
    return "?" if quality(shown.status) is Quality.UNCERTAIN else ""


def bounds(shown: Reading | None) -> str:
    """``98–141``, or ``≥98`` where the upper one is open; empty where the reading has none or is Bad."""
    if shown is None or shown.lower is None or is_bad(shown):
        return ""
    return f"≥{number(shown.lower)}" if shown.upper is None else f"{number(shown.lower)}–{number(shown.upper)}"


def age(duration: timedelta | None) -> str:
    """``0.4 s``, ``12 s``, ``2.5 min``, ``25 h``, ``4 d``."""
    if duration is None:
        return NOTHING
    seconds = duration.total_seconds()
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.{1 if seconds / size < 10 else 0}f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def count(items: int, noun: str) -> str:
    """``1 gap``, ``1,200 gaps``."""
    return f"{items:,} {noun}{'' if items == 1 else 's'}"


def few(names: Sequence[str], limit: int = 3) -> str:
    """``a, b, c and 9 more``."""
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit:,} more" if len(names) > limit else shown


def milliseconds(duration: timedelta | None) -> str:
    """``0.31 ms``."""
    return NOTHING if duration is None else f"{number(duration / timedelta(milliseconds=1))} ms"


def status_name(status: int) -> str:
    """``UncertainSubNormal``; severity and hexadecimal code where it is none of ours. Info bits are left out."""
    try:
        return Status(status & 0xFFFF0000).name.title().replace("_", "")
    except ValueError:
        return f"{severity_name(status)} 0x{status:08X}"


def severity_name(status: int) -> str:
    """``Good``, ``Uncertain`` or ``Bad``."""
    return quality(status).name.capitalize()
