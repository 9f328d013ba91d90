"""Values as whole numbers without loss: as decimals, as multiples of a power of two, or as the bits of their float."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plugin.historian.closed.codes import Coded, Ints, Runs, widths

Doubles = NDArray[np.float64]

_DECIMALS = 10
"""Scales 10^0 … 10^9 are tried."""
_EXACT = 2.0**53
"""Whole numbers below it are doubles, each its own."""
_STEEPEST = 1000
"""Scales 2^-1000 … 2^1000: beyond, the scale or what is divided by it would be no normal double."""


@dataclass(frozen=True, slots=True, eq=False)
class CodedValues:
    """Values, run by run: ``(base + code) / scale``, or the float whose bits are ``base + code``; see ``ieee``."""

    coded: Coded
    scale: Doubles
    """By run like what follows; NaN: there is none, ``ieee`` says what the numbers are."""
    ieee: Ints
    """0; or 32, 64: bits of a single, of a double."""
    nulls: Ints
    """Values that are none (NaN); where there are any, code 0 stands for them."""


def coded_values(values: Doubles, runs: Runs) -> CodedValues:
    """Every double comes back, but for -0.0 as 0.0, and a NaN as any NaN."""
    none = np.isnan(values)
    nulls = np.add.reduceat(none, runs.starts, dtype=np.int64)
    values = values + 0.0
    if nulls.any():
        # Filled with a value of the same run, they change neither its scale nor its range.
        least = np.fmin.reduceat(values, runs.starts)
        least[np.isnan(least)] = 0.0
        values = np.where(none, runs.spread(least), values)
    with np.errstate(over="ignore", invalid="ignore"):
        scale, ieee, numbers = _numbers(values, runs)
    return CodedValues(_based(numbers, none, nulls, runs), scale, ieee, nulls)


def _based(numbers: Ints, none: NDArray[np.bool_], nulls: Ints, runs: Runs) -> Coded:
    """Codes from 0 on, or from 1 on beside NULLs."""
    base = np.minimum.reduceat(numbers, runs.starts) - (nulls > 0)
    highest = (np.maximum.reduceat(numbers, runs.starts) - base).view(np.uint64)
    width = widths(highest)
    # So wide, a code is negative for SQL, which has no unsigned numbers: from here on base + code can't overflow.
    base[width == 8] = np.where(nulls > 0, -1, 0)[width == 8]
    codes = (numbers - runs.spread(base)).view(np.uint64)
    codes[none] = 0
    width[nulls == runs.counts] = 0
    return Coded(codes, width, base, np.ones(len(runs), np.int64))


def _numbers(values: Doubles, runs: Runs) -> tuple[Doubles, Ints, Ints]:
    """Scale and ieee of each run, and the whole number of each row."""
    scale, numbers = _decimals(values, runs)
    ieee = np.zeros(len(runs), np.int64)
    rest = np.flatnonzero(np.isnan(scale))
    if len(rest):
        some, rows = runs.some(rest)
        scale[rest], ieee[rest], numbers[rows] = _binaries(values[rows], some)
    return scale, ieee, numbers


def _decimals(values: Doubles, runs: Runs) -> tuple[Doubles, Ints]:
    """The lowest power of ten that makes all values of a run whole numbers and gives them back; NaN: none does."""
    scale = np.full(len(runs), np.nan)
    numbers = np.zeros(len(values), np.int64)
    left, witness = np.arange(len(runs)), runs.starts.copy()
    for power in range(_DECIMALS):
        each = 10.0**power
        # A row that did not fit the scale before hardly fits this one: one look at it saves looking at all the others.
        tried = left[_fits(values[witness[left]], each)]
        if not len(tried):
            continue
        some, rows = runs.some(tried)
        fitting = _fits(values[rows], each)
        good = some.all(fitting)
        witness[tried[~good]] = _first_false(fitting, some, rows)[~good]
        solved = tried[good]
        scale[solved] = each
        _, rows = runs.some(solved)
        numbers[rows] = np.rint(values[rows] * each)
        left = np.flatnonzero(np.isnan(scale))
    return scale, numbers


def _fits(values: Doubles, scale: float) -> NDArray[np.bool_]:
    numbers = np.rint(values * scale)
    fitting: NDArray[np.bool_] = (np.abs(numbers) < _EXACT) & (numbers / scale == values)
    return fitting


def _first_false(rows: NDArray[np.bool_], runs: Runs, numbers: NDArray[np.intp] | slice) -> NDArray[np.intp]:
    """Of each run the number of the first row that is False; any number where none is."""
    at = np.minimum.reduceat(np.where(rows, len(rows) - 1, np.arange(len(rows))), runs.starts)
    return at if isinstance(numbers, slice) else numbers[at]


def _binaries(values: Doubles, runs: Runs) -> tuple[Doubles, Ints, Ints]:
    """As :func:`_numbers`, of what is no decimal: whichever gives the smallest codes."""
    bits = values.view(np.int64)
    powers, scaled = _powers(values, bits, runs)
    single = values.astype(np.float32)
    is_single = runs.all(single == values)
    short = single.view(np.int32).astype(np.int64)
    unscaled = np.where(is_single, _span(short, runs), _span(bits, runs))
    fits = np.maximum.reduceat(np.abs(scaled), runs.starts) < _EXACT
    whole = np.where(runs.spread(fits), scaled, 0.0).astype(np.int64)
    fits &= (np.abs(powers) <= _STEEPEST) & (widths(_span(whole, runs)) <= widths(unscaled))
    scale = np.where(fits, np.ldexp(1.0, np.where(fits, powers, 0)), np.nan)
    ieee = np.where(fits, 0, np.where(is_single, 32, 64))
    numbers = np.where(runs.spread(fits), whole, np.where(runs.spread(is_single), short, bits))
    return scale, ieee, numbers


def _powers(values: Doubles, bits: Ints, runs: Runs) -> tuple[Ints, Doubles]:
    """The lowest power of two that makes all values of a run whole numbers, and what it makes of them."""
    mantissa = bits & (2**52 - 1) | 2**52
    lowest = (mantissa & -mantissa).astype(np.float64).view(np.int64) >> 52  # 1023 + trailing zeros
    power = 1075 - (bits >> 52 & 0x7FF) - (lowest - 1023)
    power[values == 0] = -_STEEPEST
    highest = np.maximum.reduceat(power, runs.starts)
    return highest, np.ldexp(values, runs.spread(np.clip(highest, -_STEEPEST, _STEEPEST)).astype(np.int32))


def _span(numbers: Ints, runs: Runs) -> NDArray[np.uint64]:
    return (np.maximum.reduceat(numbers, runs.starts) - np.minimum.reduceat(numbers, runs.starts)).view(np.uint64)


def values_of(numbers: Ints, scale: Doubles, ieee: Ints, runs: Runs) -> Doubles:
    """What :func:`coded_values` was given: ``numbers`` is base + code by row."""
    values: Doubles = numbers / runs.spread(np.where(np.isnan(scale), 1.0, scale))
    for bits in (32, 64):
        chosen = np.flatnonzero(ieee == bits)
        if len(chosen):
            _, rows = runs.some(chosen)
            values[rows] = _floats(numbers[rows], bits)
    return values


def _floats(numbers: Ints, bits: int) -> Doubles:
    if bits == 64:
        return numbers.view(np.float64)
    return numbers.astype(np.int32).view(np.float32).astype(np.float64)
