"""Times as people and historians write them, a column at a time: ISO 8601, strptime's formats, epochs, Excel's days."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from plugin.exchange.columns import integers, is_text, nulls
from plugin.exchange.terms import Ambiguous, Wrong, fault
from plugin.zones import Zone

EPOCHS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
"""[µs] by unit."""
_DAY = 86_400_000_000
_YEAR_1, _YEAR_10000 = -62_135_596_800_000_001, 253_402_300_800_000_000
"""The last microsecond before the one, the first of the other [µs since 1970]."""
_EXCEL_DAY_0 = -25_569
"""1899-12-30: Excel's day 0 for all days from 1900-03-01 on (it believes that 1900 was a leap year)."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_GROUPS = {
    "%Y": r"(?P<Y>\d{4})", "%y": r"(?P<y>\d{2})", "%m": r"(?P<m>\d{1,2})", "%d": r"(?P<d>\d{1,2})",
    "%b": r"(?P<b>[A-Za-z]{3})[A-Za-z]*", "%H": r"(?P<H>\d{1,2})", "%I": r"(?P<I>\d{1,2})", "%M": r"(?P<M>\d{2})",
    "%S": r"(?P<S>\d{2})(?:[.,](?P<f>\d+))?",
    "%p": r"(?P<p>[AaPp])\.?[Mm]\.?", "%z": r"(?P<z>Z|UTC|GMT|[+-]\d{2}:?\d{2})",
    "%%": "%",
}  # fmt: skip
_ISO = (
    r"^(?P<Y>\d{4})-(?P<m>\d{2})-(?P<d>\d{2})"
    r"(?:[T ](?P<H>\d{2}):(?P<M>\d{2})(?::(?P<S>\d{2})(?:[.,](?P<f>\d+))?)?)? ?(?P<z>Z|UTC|GMT|[+-]\d{2}:?\d{2})?$"
)
_USUAL = (
    "iso",
    *(
        f"{date} {clock}"
        for date in ("%d-%b-%Y", "%d-%b-%y", "%d.%m.%Y", "%d.%m.%y", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y",
                     "%m-%d-%Y")
        for clock in ("%H:%M:%S", "%I:%M:%S %p")
    ),
)  # fmt: skip
"""Tried in this order: what PI, Wonderware and spreadsheets write."""


@dataclass(frozen=True, slots=True)
class Clock:
    """How the times of one file are written, and what they mean."""

    format: str
    zone: Zone | None
    """Of times that name none; None: they are rejected."""
    ambiguous: Ambiguous = Ambiguous.REJECT

    def read(self, cells: Any, wrong: Wrong) -> NDArray[np.int64]:
        """UTC [µs] of strings, timestamps or numbers; what is no time is noted in ``wrong`` and becomes 0."""
        wrong.add(nulls(cells), "there is no time")
        if pa.types.is_timestamp(cells.type):
            return self._of_stamps(cells, wrong)
        if not is_text(cells.type):
            return _of_numbers(cells, _unit(self.format, cells), wrong)
        if self.format in EPOCHS or self.format == "excel":
            numbers = _numbers(cells, whole=self.format != "excel")
            wrong.add(nulls(numbers), f"is no number, as the format {self.format} wants")
            micros = _of_numbers(numbers, self.format, wrong)
            return self._to_utc(micros, wrong) if self.format == "excel" else micros
        return self._of_text(cells, wrong)

    def _of_stamps(self, cells: Any, wrong: Wrong) -> NDArray[np.int64]:
        micros = _of_numbers(pc.cast(cells, pa.int64()), cells.type.unit, wrong)
        return micros if cells.type.tz is not None else self._to_utc(micros, wrong)

    def _of_text(self, cells: Any, wrong: Wrong) -> NDArray[np.int64]:
        if self.format == "iso":
            try:  # what nearly every file holds, ten times as fast
                return self._to_utc(
                    integers(pc.fill_null(pc.cast(pc.cast(cells, pa.timestamp("us")), pa.int64()), 0)), wrong
                )
            except pa.ArrowInvalid:
                pass
        micros, named = _parsed(cells, self.format, wrong)
        utc = self._to_utc(micros, wrong, ~named)
        return np.where(named, micros, utc)

    def _to_utc(
        self, local: NDArray[np.int64], wrong: Wrong, mask: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        mask = ~wrong.mask if mask is None else mask & ~wrong.mask
        if self.zone is None:
            wrong.add(mask, "names no time zone, and there is no --zone")
            return local
        twice, never = self.zone.doubtful(local)
        wrong.add(mask & never, f"never was in {self.zone.name}: the clock was set forward over it")
        if self.ambiguous is Ambiguous.REJECT:
            wrong.add(mask & twice, f"was there twice in {self.zone.name}; --ambiguous earlier or later chooses")
        return self.zone.to_utc(local, later=self.ambiguous is Ambiguous.LATER)


def needs_zone(cells: Any, format: str) -> bool:  # noqa: A002 - as the option is called
    """Whether one of these times says nothing of its zone."""
    if pa.types.is_timestamp(cells.type):
        return cells.type.tz is None
    if not is_text(cells.type) or format in EPOCHS:
        return False
    if format == "excel":
        return True
    wrong = Wrong.none(len(cells))
    _, named = _parsed(cells, format, wrong)
    return bool((~named & ~wrong.mask).any())


def detect(cells: Any) -> str:
    """The format of times, from the first of them; ConfigError where none fits or several do."""
    if not is_text(cells.type):
        return "iso" if pa.types.is_timestamp(cells.type) else _unit("", cells)
    cells = cells.drop_null()
    if not len(cells):
        return "iso"
    numbers = _numbers(cells).drop_null()
    if 2 * len(numbers) > len(cells):
        return _unit("", numbers)
    fits = {name: _share(cells, name) for name in _USUAL}
    best = max(fits.values())
    found = [name for name, share in fits.items() if share == best]
    if best < 0.5:
        raise fault("--format", repr(cells[0].as_py()), "is a time of no format that is known", _REMEDY)
    if len({name.partition(" ")[0] for name in found}) > 1:
        raise fault("--format", repr(cells[0].as_py()), f"may be any of {found}", "Say which with --format")
    return found[0]


_REMEDY = 'Say how it is written, such as --format "%d.%m.%Y %H:%M:%S", or s, ms, us, ns, excel'


def check_format(text: str) -> None:
    """ConfigError where it can't be read by."""
    if text in EPOCHS or text in {"iso", "excel"}:
        return
    unknown = [code for code in re.findall(r"%.?", text.replace("%f", "")) if code not in _GROUPS]
    if unknown or not {"%d", "%m", "%Y"} <= set(re.findall("%.", text.replace("%b", "%m").replace("%y", "%Y"))):
        raise fault("--format", text, f"{unknown or 'year, month or day'} can't be read by", _REMEDY)


def _share(cells: Any, name: str) -> float:
    wrong = Wrong.none(len(cells))
    _parsed(cells, name, wrong)
    return 1.0 - float(wrong.mask.mean())


def _unit(format: str, numbers: Any) -> str:  # noqa: A002
    """Of epochs, by how large they are."""
    if format in EPOCHS or format == "excel":
        return format
    numbers = numbers.drop_null()
    middle = abs(float(np.median(numbers.to_numpy(zero_copy_only=False).astype(np.float64)))) if len(numbers) else 1e9
    for limit, unit in ((1e4, ""), (1e5, "excel"), (1e8, ""), (1e11, "s"), (1e14, "ms"), (1e17, "us"), (1e20, "ns")):
        if middle < limit:
            if not unit:
                break
            return unit
    raise fault("--format", f"{middle:g}", "is a time of no format that is known", _REMEDY)


def _of_numbers(numbers: Any, unit: str, wrong: Wrong) -> NDArray[np.int64]:
    floats = pc.fill_null(pc.cast(numbers, pa.float64(), safe=False), 0.0).to_numpy(zero_copy_only=False)
    micros = (floats + _EXCEL_DAY_0) * _DAY if unit == "excel" else floats * EPOCHS[unit]
    outside = ~((micros > _YEAR_1) & (micros < _YEAR_10000))
    wrong.add(outside & ~nulls(numbers), "is no time between the years 1 and 9999")
    if pa.types.is_integer(numbers.type) and unit in EPOCHS:  # exact, which a double is not to the microsecond
        whole = integers(pc.cast(pc.if_else(pa.array(outside), 0, pc.fill_null(numbers, 0)), pa.int64()))
        return whole // 1000 if unit == "ns" else whole * int(EPOCHS[unit])
    return np.rint(np.where(outside, 0.0, micros)).astype(np.int64)


def _numbers(cells: Any, *, whole: bool = True) -> Any:
    """Whole numbers where all are whole, else floating ones; null where a cell is none."""
    trimmed = pc.ascii_trim_whitespace(cells)
    if whole:
        try:
            return pc.cast(trimmed, pa.int64())
        except pa.ArrowInvalid:
            pass
    fits = pc.match_substring_regex(trimmed, r"^[+-]?\d{1,19}(\.\d*)?([eE][+-]?\d{1,2})?$")
    return pc.cast(pc.if_else(fits, trimmed, pa.scalar(None, trimmed.type)), pa.float64())


def _parsed(cells: Any, name: str, wrong: Wrong) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Times [µs] as their own clock has them; or as UTC has them where they name their zone, and the mask of those."""
    found = pc.extract_regex(pc.ascii_trim_whitespace(cells), _pattern(name))
    missed = nulls(found)
    wrong.add(missed, f"is no time of the format {name}")
    parts = {field.name: found.field(index) for index, field in enumerate(found.type)}

    def number(key: str, default: int) -> NDArray[np.int64]:
        if key not in parts:
            return np.full(len(cells), default, np.int64)
        part = parts[key]
        part = pc.if_else(pc.equal(part, ""), str(default), part)
        return integers(pc.fill_null(pc.cast(part, pa.int64()), default))

    year = number("Y", 1970) if "Y" in parts else (number("y", 70) + 1900 + 100 * (number("y", 70) < 69))
    month = _month(parts["b"]) if "b" in parts else number("m", 1)
    day, hour, minute, second = number("d", 1), number("H", 0), number("M", 0), number("S", 0)
    if "I" in parts:
        hour = number("I", 12) % 12 + 12 * _is(parts["p"], "p") if "p" in parts else number("I", 12)
    fine = (month >= 1) & (month <= 12) & (day >= 1) & (hour < 24) & (minute < 60) & (second < 60) & (year >= 1)
    first = _first_of(year, month, fine)
    fine &= day <= ((first + 1).astype("M8[D]") - first.astype("M8[D]")).astype(np.int64)
    wrong.add(~fine, "is no time that there is")
    days = first.astype("M8[D]").astype(np.int64) + day - 1
    micros = ((days * 24 + hour) * 60 + minute) * 60 + second
    micros = micros * 1_000_000 + (_fraction(parts["f"]) if "f" in parts else 0)
    if "z" not in parts:
        return micros, np.zeros(len(cells), np.bool_)
    east, named = _east(parts["z"])
    return micros - east, named


def _first_of(year: NDArray[np.int64], month: NDArray[np.int64], fine: NDArray[np.bool_]) -> NDArray[np.datetime64]:
    months = np.where(fine, (year - 1970) * 12 + month - 1, 0)
    return months.astype("M8[M]")


def _pattern(name: str) -> str:
    if name == "iso":
        return _ISO
    parts = re.split(r"(:%S(?:[.,]%f)?|%.)", name)
    seconds = rf"(?::{_GROUPS['%S']})?"  # a whole minute is often written without
    return "^" + "".join(seconds if p.startswith(":%S") else _GROUPS.get(p) or re.escape(p) for p in parts) + "$"


def _month(names: Any) -> NDArray[np.int64]:
    found = pc.index_in(pc.utf8_lower(names), pa.array(_MONTHS))
    return integers(pc.fill_null(found, -1)) + 1


def _is(cells: Any, letter: str) -> NDArray[np.int64]:
    same = pc.fill_null(pc.equal(pc.utf8_lower(cells), letter), False)
    return integers(same)


def _fraction(digits: Any) -> NDArray[np.int64]:
    """Microseconds of decimals; what is finer is cut off."""
    six = pc.utf8_slice_codeunits(pc.utf8_rpad(pc.fill_null(digits, ""), 6, "0"), 0, 6)
    return integers(six)


def _east(zones: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """East of UTC [µs], and whether a zone is named at all; there are few different ones."""
    different = zones.dictionary_encode()
    offsets = [_offset(text) for text in different.dictionary.to_pylist()]
    index = pc.fill_null(different.indices, len(offsets)).to_numpy(zero_copy_only=False)
    east = np.array([*(offset or 0 for offset in offsets), 0], np.int64)
    named = np.array([*(offset is not None for offset in offsets), False], np.bool_)
    return east[index], named[index]


def _offset(text: str) -> int | None:
    if not text:
        return None
    if text[0] not in "+-":
        return 0
    minutes = int(text[1:3]) * 60 + int(text[-2:])
    return (-minutes if text[0] == "-" else minutes) * 60_000_000


def as_iso(utc: NDArray[np.int64], zone: Zone) -> Sequence[str]:
    """``2024-05-01T12:00:00.000001+02:00``, and ``Z`` where the zone is UTC."""
    offsets = zone.offset(utc)
    offsets = np.where(offsets % 60_000_000, 0, offsets)  # a hundred years ago some had seconds, which ISO can't say
    stamps = np.datetime_as_string((utc + offsets).view("M8[us]"), unit="us")
    names = {offset: _suffix(offset) for offset in np.unique(offsets).tolist()}
    return [stamp + names[offset] for stamp, offset in zip(stamps.tolist(), offsets.tolist(), strict=True)]


def _suffix(offset: int) -> str:
    if offset == 0:
        return "Z"
    minutes, sign = abs(offset) // 60_000_000, "-" if offset < 0 else "+"
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}"
