"""How the reports' tables look."""

from datetime import timedelta

from rich.box import SIMPLE_HEAD
from rich.table import Table


def headed(*columns: str) -> Table:
    """Columns by heading; one that begins with ``>`` is aligned to the right."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        heading = column.removeprefix(">")
        whole = max(map(len, heading.split()), default=0)  # a narrow screen folds between the words of a heading
        table.add_column(
            heading, justify="right" if column.startswith(">") else "left", overflow="fold", min_width=whole
        )
    return table


def duration(span: timedelta) -> str:
    """``0.40 s``, ``12 s``, ``2.5 min``, ``25 h``, ``4 d``."""
    seconds = max(0.0, span.total_seconds())
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            shown = seconds / size
            return f"{shown:.{2 if shown < 1 else 1 if shown < 10 else 0}f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def size(count: float) -> str:
    """``1.5 GiB`` of a number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.{0 if unit == 'B' else 1}f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def printable(text: str) -> str:
    """Text that a plant's server may have sent, without what would steer a terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)
