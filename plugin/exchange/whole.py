"""A file that has its name only when it is whole, and times as text: what every format is written with."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from plugin.errors import ExchangeError
from plugin.exchange.times import as_iso
from plugin.zones import Zone


class Writer(Protocol):
    """One file."""

    def write(self, columns: Sequence[Any]) -> None:
        """Rows as Arrow arrays of one length, one for each name of the heading. Blocking. ExchangeError: it can't."""


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A name beside the file, which takes the file's when the context ends well, and goes away when it does not."""
    beside = path.with_name(f".{path.name}.unfinished")
    try:
        beside.touch(mode=0o600)
        yield beside
        os.replace(beside, path)  # noqa: PTH105 - says what it does
    except OSError as error:
        raise ExchangeError(f"{path}: can't be written: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def iso(stamps: Any, zone: Zone) -> Any:
    """ISO 8601 with the zone's offset."""
    micros = pc.cast(pc.fill_null(stamps, pa.scalar(0, pa.int64()).cast(stamps.type)), pa.int64())
    texts = pa.array(as_iso(micros.to_numpy(), zone), pa.string())
    return pc.if_else(pc.is_null(stamps), pa.scalar(None, pa.string()), texts)
