"""Qualities as other historians write them, as OPC UA StatusCodes."""

import re
from collections.abc import Iterable, Mapping

from plugin.domain import Status
from plugin.exchange.terms import Codes

_BAD_SENSOR_FAILURE = 0x808C0000
_BAD_NOT_CONNECTED = 0x808A0000
_BAD_TIMEOUT = 0x800A0000
_BAD_OUT_OF_RANGE = 0x803C0000
_UNCERTAIN_SUBSTITUTE_VALUE = 0x40910000

_WORDS: Mapping[str, int] = {
    "good": Status.GOOD, "ok": Status.GOOD, "g": Status.GOOD, "true": Status.GOOD, "false": Status.BAD,
    "uncertain": Status.UNCERTAIN, "questionable": Status.UNCERTAIN, "doubtful": Status.UNCERTAIN,
    "suspect": Status.UNCERTAIN, "substituted": _UNCERTAIN_SUBSTITUTE_VALUE, "initial": Status.UNCERTAIN_INITIAL_VALUE,
    "bad": Status.BAD, "b": Status.BAD, "poor": Status.BAD,
}  # fmt: skip

STATES: Mapping[str, int] = {
    "bad": Status.BAD, "bad data": Status.BAD, "bad input": _BAD_SENSOR_FAILURE, "bad total": Status.BAD,
    "bad quality": Status.BAD, "bad value": Status.BAD, "bad output": Status.BAD, "failed": Status.BAD,
    "no data": Status.BAD_NO_DATA, "no result": Status.BAD_NO_DATA, "no sample": Status.BAD_NO_DATA,
    "no lab data": Status.BAD_NO_DATA, "no alarm": Status.BAD_NO_DATA, "not available": Status.BAD_NO_DATA,
    "pt created": Status.BAD_WAITING_FOR_INITIAL_DATA, "archive offline": Status.BAD_NO_DATA,
    "arc off-line": Status.BAD_NO_DATA, "future data unsupported": Status.BAD_NO_DATA,
    "i/o timeout": Status.BAD_NO_COMMUNICATION, "io timeout": Status.BAD_NO_COMMUNICATION,
    "comm fail": Status.BAD_NO_COMMUNICATION, "no comm": Status.BAD_NO_COMMUNICATION,
    "not connect": _BAD_NOT_CONNECTED, "not connected": _BAD_NOT_CONNECTED, "intf shut": Status.BAD_NO_COMMUNICATION,
    "equip fail": _BAD_SENSOR_FAILURE, "hardware error": _BAD_SENSOR_FAILURE, "sensor fail": _BAD_SENSOR_FAILURE,
    "shutdown": Status.BAD_OUT_OF_SERVICE, "scan off": Status.BAD_OUT_OF_SERVICE, "scan on": Status.BAD_OUT_OF_SERVICE,
    "under test": Status.BAD_OUT_OF_SERVICE, "set to bad": Status.BAD, "out of serv": Status.BAD_OUT_OF_SERVICE,
    "over range": _BAD_OUT_OF_RANGE, "overrange": _BAD_OUT_OF_RANGE, "under range": _BAD_OUT_OF_RANGE,
    "underrange": _BAD_OUT_OF_RANGE, "out of range": _BAD_OUT_OF_RANGE, "unit down": Status.BAD_OUT_OF_SERVICE,
    "configure": Status.BAD_CONFIGURATION_ERROR, "config error": Status.BAD_CONFIGURATION_ERROR,
    "calc failed": Status.BAD, "calc off": Status.BAD_OUT_OF_SERVICE, "calc error": Status.BAD, "error": Status.BAD,
    "filter exp": Status.BAD, "invalid data": Status.BAD, "inval": Status.BAD, "access denied": Status.BAD,
    "timeout": _BAD_TIMEOUT, "#n/a": Status.BAD_NO_DATA, "#value!": Status.BAD, "#div/0!": Status.BAD,
    "#ref!": Status.BAD, "#num!": Status.BAD, "#name?": Status.BAD, "n/a": Status.BAD_NO_DATA,
}  # fmt: skip
"""What stands in place of a number: PI's digital states of the system set, and a spreadsheet's errors."""

_HEXADECIMAL = re.compile("0[xX][0-9A-Fa-f]{1,8}")
_DECIMAL = re.compile(r"\d{1,10}(\.0*)?")
_CODED = re.compile(r"\[-\d+\] ?(.*)")
_CLASSIC = {0b00: Status.BAD, 0b01: Status.UNCERTAIN, 0b11: Status.GOOD}
"""Bits 6 and 7 of OPC DA's quality (OPC DA 2.05a, 6.8)."""


def codes_of(texts: Iterable[str]) -> Codes | None:
    """What the small numbers among these are; None where they do not tell: 0 alone may be Good or Bad."""
    numbers = [int(text.partition(".")[0]) for text in map(str.strip, texts) if _DECIMAL.fullmatch(text)]
    if any(64 <= number <= 255 for number in numbers):
        return Codes.CLASSIC
    return Codes.OPCUA if any(number > 255 for number in numbers) else None


def is_small(text: str) -> bool:
    """Whether it is a number that is Good by one way to count and Bad by the other."""
    return bool(_DECIMAL.fullmatch(text.strip())) and int(text.partition(".")[0]) <= 255


def status_of(text: str, codes: Codes | None) -> int | None:
    """The StatusCode that a quality stands for, a number or a word; None: it is none, or ``codes`` has to be said."""
    text = text.strip()
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if _DECIMAL.fullmatch(text):
        number = int(text.partition(".")[0])
        if number > 255 or codes is Codes.OPCUA:
            return number if number < 2**32 else None
        return None if codes is None else _CLASSIC.get(number >> 6)
    word = text.casefold()
    return _WORDS.get(word, STATES.get(word))


def state_of(text: str) -> int | None:
    """The StatusCode of what stands in place of a number; None: it is no such state."""
    word = text.strip().casefold()
    coded = _CODED.fullmatch(word)
    return STATES.get(word, Status.BAD if coded else None)
