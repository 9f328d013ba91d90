"""StatusCodes, and their severity."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Quality(IntEnum):
    """Severity of a StatusCode (OPC 10000-4, 7.39.1, bits 30-31); higher is worse."""

    GOOD = 0
    UNCERTAIN = 1
    BAD = 2


class Status(IntEnum):
    """The StatusCodes that foretag itself gives (OPC 10000-4, table 'common StatusCodes'; OPC 10000-8)."""

    GOOD = 0x00000000
    UNCERTAIN = 0x40000000
    UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE = 0x408F0000
    UNCERTAIN_LAST_USABLE_VALUE = 0x40900000
    UNCERTAIN_INITIAL_VALUE = 0x40920000
    UNCERTAIN_ENGINEERING_UNITS_EXCEEDED = 0x40940000
    UNCERTAIN_SUB_NORMAL = 0x40950000
    UNCERTAIN_SIMULATED_VALUE = 0x42090000
    BAD = 0x80000000
    BAD_NO_COMMUNICATION = 0x80310000
    BAD_WAITING_FOR_INITIAL_DATA = 0x80320000
    BAD_CONFIGURATION_ERROR = 0x80890000
    BAD_OUT_OF_SERVICE = 0x808D0000
    BAD_NO_DATA = 0x809B0000


HIGH_LIMITED = 0x00000600
"""Added to a status: the value is at its upper limit and stands for that or more (OPC 10000-4, 7.39.1: InfoType
DataValue, LimitBits High)."""
_LIMIT_BITS = 0x00000F00


def at_upper_limit(status: int) -> bool:
    """Whether the number is to be read as *that or more*."""
    return status & _LIMIT_BITS == HIGH_LIMITED


def quality(status: int) -> Quality:
    """Severity only: info bits (overflow, limit, historian bits) never turn Good into Bad."""
    return _SEVERITIES[status >> 30 & 0b11]


_SEVERITIES = Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD


def qualities(status: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """:func:`quality` of a column."""
    severity: NDArray[np.uint8] = np.minimum(status >> np.uint32(30), np.uint32(Quality.BAD)).astype(np.uint8)
    return severity
