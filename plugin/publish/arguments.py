"""What a client gives to a method, checked before anybody looks at it (OPC 10000-4, 5.12.2)."""

import re
from collections.abc import Sequence
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError

_T = ua.VariantType
_NEVER_NULL = frozenset((_T.Double, _T.UInt32))
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def checked(arguments: Sequence[ua.Variant], *kinds: ua.VariantType) -> list[Any]:
    """The values; ServiceError unless there are as many as there should be, scalars, and of their types."""
    if len(arguments) != len(kinds):
        few = len(arguments) < len(kinds)
        raise ServiceError(ua.StatusCodes.BadArgumentsMissing if few else ua.StatusCodes.BadTooManyArguments)
    for argument, kind in zip(arguments, kinds, strict=True):
        null = argument.Value is None and kind not in _NEVER_NULL
        if argument.is_array or not (null or argument.VariantType == kind):
            raise ServiceError(ua.StatusCodes.BadTypeMismatch)
        if not storable(argument.Value):
            raise ServiceError(ua.StatusCodes.BadInvalidArgument)
    return [argument.Value for argument in arguments]


def storable(value: Any) -> bool:
    """False for a text that no database takes: with NUL in it, or made of bytes that were no UTF-8."""
    text = value.Text if isinstance(value, ua.LocalizedText) else value
    return not isinstance(text, str) or _NO_TEXT.search(text) is None
