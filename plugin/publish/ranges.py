"""A part of a value, as a client asks for it; asyncua 2.1.0 answers with all of it, as if nothing had been asked."""

import re
from dataclasses import replace
from typing import Any

from asyncua import ua

from plugin.publish.cells import status_code

_ONE_DIMENSION = re.compile(r"(\d{1,10})(?::(\d{1,10}))?", re.ASCII)
_SEVERAL = re.compile(r"[\d:]+(,[\d:]+)+", re.ASCII)
_ENCODING = "Default Binary"


def is_part(asked: ua.ReadValueId) -> bool:
    """It is not the whole value that is asked for, or not as it is."""
    return bool(asked.IndexRange or (asked.DataEncoding is not None and asked.DataEncoding.Name))


def part_of(found: ua.DataValue, asked: ua.ReadValueId) -> ua.DataValue:
    """The elements that IndexRange names (OPC 10000-4, 7.27), with the value's status and times; or a Bad status."""
    encoding = asked.DataEncoding.Name if asked.DataEncoding is not None else None
    if encoding and (encoding != _ENCODING or asked.DataEncoding.NamespaceIndex):
        return no_value(ua.StatusCodes.BadDataEncodingInvalid)
    if not asked.IndexRange:
        return found
    bounds = _ONE_DIMENSION.fullmatch(asked.IndexRange)
    if bounds is None:
        several = _SEVERAL.fullmatch(asked.IndexRange) is not None  # no value here has so many dimensions
        return no_value(ua.StatusCodes.BadIndexRangeNoData if several else ua.StatusCodes.BadIndexRangeInvalid)
    low, high = int(bounds[1]), int(bounds[2] or bounds[1])
    if bounds[2] is not None and low >= high:
        return no_value(ua.StatusCodes.BadIndexRangeInvalid)
    return _elements(found, slice(low, high + 1))


def _elements(found: ua.DataValue, which: slice) -> ua.DataValue:
    if found.Value is None or found.Value.Value is None:
        return found
    value: Any = found.Value.Value
    if not isinstance(value, list | str | bytes) or not value[which]:
        return no_value(ua.StatusCodes.BadIndexRangeNoData)
    return replace(found, Value=replace(found.Value, Value=value[which]))


def no_value(code: int) -> ua.DataValue:
    """Bad, with the reason alone."""
    return ua.DataValue(None, status_code(code))
