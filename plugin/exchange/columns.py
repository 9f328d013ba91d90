"""Columns of files, as Arrow has them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def is_text(kind: Any) -> bool:
    """Whether a column of this type holds strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def nulls(cells: Any) -> NDArray[np.bool_]:
    """Mask of the cells that are empty."""
    mask: NDArray[np.bool_] = pc.is_null(cells).to_numpy(zero_copy_only=False)
    return mask


def integers(cells: Any) -> NDArray[np.int64]:
    """Numbers without nulls."""
    found: NDArray[np.int64] = pc.cast(cells, pa.int64()).to_numpy(zero_copy_only=False)
    return found


def unescaped(texts: Any) -> Any:
    """What :func:`escaped` was given; a text of another program that begins like that loses its first apostrophe."""
    return pc.replace_substring_regex(texts, r"^'($|[=+\-@\t\r'])", r"\1")


def escaped(texts: Any) -> Any:
    """So that no spreadsheet takes a text for a formula, nor for nothing: an apostrophe before what begins like one."""
    return pc.replace_substring_regex(texts, r"^($|[=+\-@\t\r'])", r"'\1")


def escape_text(text: str) -> str:
    """:func:`escaped` for one."""
    found: str = escaped(pa.array([text], pa.string()))[0].as_py()
    return found
