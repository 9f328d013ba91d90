"""What a client gives to a method, checked before anybody looks at it (OPC 10000-4, 5.12.2)."""

from collections.abc import Sequence
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError

_T = ua.VariantType
_NEVER_NULL = frozenset((_T.Double, _T.UInt32))


def checked(arguments: Sequence[ua.Variant], *kinds: ua.VariantType) -> list[Any]:
    """The values; ServiceError unless there are as many as there should be, scalars, and of their types."""
    if len(arguments) != len(kinds):
        few = len(arguments) < len(kinds)
        raise ServiceError(ua.StatusCodes.BadArgumentsMissing if few else ua.StatusCodes.BadTooManyArguments)
    for argument, kind in zip(arguments, kinds, strict=True):
        null = argument.Value is None and kind not in _NEVER_NULL
        if argument.is_array or not (null or argument.VariantType == kind):
            raise ServiceError(ua.StatusCodes.BadTypeMismatch)
    return [argument.Value for argument in arguments]
