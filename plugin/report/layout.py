"""How the reports' tables look."""

from rich.box import SIMPLE_HEAD
from rich.table import Table


def headed(*columns: str) -> Table:
    """Columns by heading; one that begins with ``>`` is aligned to the right."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return table
