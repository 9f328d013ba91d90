"""History that is brought from files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Import:
    """How far the import of one file has come."""

    id: str
    """SHA-256 of the file and of how it is read, as hexadecimal digits: the same again is the same import."""
    file: str
    """Its name."""
    started: datetime
    finished: datetime | None = None
    """None: it can be taken up again."""
    position: int = 0
    """Rows of the file that are done."""
    stored: int = 0
    """Samples, and so below: a row of a wide file holds several."""
    duplicates: int = 0
    quarantined: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    """JSON: how the file is read."""


@dataclass(frozen=True, slots=True)
class Reject:
    """What of a file could not be taken."""

    row: int
    """In the file, from 1, the heading and what is above it left out; 0: it is about the file as a whole."""
    column: str
    """Its heading; empty: the whole row."""
    content: str
    reason: str
